"""Sequence charts of MPTCP and Mobile IP signalling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.charts import axes as parts
from analysis.charts.sequences import sequence_chart
from analysis.charts.view import facts_of
from analysis.connections.model import Reconstruction

LABEL_MAX = 90


def mptcp_events(rec: Reconstruction, connection: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """Events of `sequence_chart` for one connection, and the host (client or server) of each address.

    The kind of an event is its subflow, so that a subflow has one colour. Raises KeyError for an unknown connection.
    """
    facts = facts_of(rec, connection)
    flows = rec.flows.loc[rec.flows["connection"] == connection]
    ends = {index: _ends(flow) for index, flow in zip(flows.index, flows.itertuples(), strict=True)}
    clients, servers = ({pair[side] for pair in ends.values()} for side in (0, 1))
    both = clients & servers
    signals: Iterable[Any] = rec.signals.loc[rec.signals["connection"] == connection].itertuples()
    rows = []
    for signal in signals:
        client, server = ends.get(signal.flow, (str(facts["client"]), str(facts["server"])))
        client, server = _name(client, "client", both), _name(server, "server", both)
        source, target = (client, server) if signal.from_client else (server, client)
        label = f"{signal.kind}  {signal.text}".strip()
        if signal.verified == "wrong":
            label += "  ✗ HMAC wrong"
        rows.append(
            (int(signal.time_ns), source, target, parts.shorten(label, LABEL_MAX), _subflow(signal), bool(signal.repeated))
        )
    events = pd.DataFrame(rows, columns=["time_ns", "source", "target", "label", "kind", "again"])
    order = list(ends.values())
    hosts = dict.fromkeys((_name(client, "client", both) for client, _ in order), "client")
    hosts |= dict.fromkeys((_name(server, "server", both) for _, server in order), "server")
    return events, hosts


def _subflow(signal: Any) -> str:
    return f"subflow {signal.subflow}" if signal.subflow >= 0 else "no subflow"


def _ends(flow: Any) -> tuple[str, str]:
    """Addresses of a flow at the connection's client and server."""
    ends = str(flow.client), str(flow.server)
    return ends if flow.opened_by_client else ends[::-1]


def _name(address: str, side: str, both: set[str]) -> str:
    """An address; with its side when both have it, as on a loopback."""
    return f"{address} ({side})" if address in both else address


def mptcp_sequence_chart(rec: Reconstruction, connection: int, rows_max: int = 60) -> Figure:
    """Who sent which MPTCP option when, in one connection. Time 0 is its first packet; a colour is a subflow."""
    events, hosts = mptcp_events(rec, connection)
    start_ns = int(facts_of(rec, connection)["first_ns"])
    return sequence_chart(events, hosts, f"signalling of connection {connection}", rows_max, start_ns)


def mobility_sequence_chart(messages: pd.DataFrame, rows_max: int = 60, start_ns: int | None = None) -> Figure:
    """Who sent which mobility message when.

    messages: time_ns, src, dst (addresses), kind, text (short), optionally copy: True for what another capture point had
    seen before, which is not drawn.
    """
    if "copy" in messages:
        messages = messages.loc[~messages["copy"].astype(bool)]
    events = pd.DataFrame(
        {
            "time_ns": messages["time_ns"],
            "source": messages["src"].astype(str),
            "target": messages["dst"].astype(str),
            "label": [
                parts.shorten(text if text.startswith(kind) else f"{kind}  {text}".strip(), LABEL_MAX)
                for kind, text in zip(messages["kind"].astype(str), messages["text"].astype(str), strict=True)
            ],
            "kind": messages["kind"].astype(str),
        }
    )
    return sequence_chart(events, None, "mobility signalling", rows_max, start_ns)
