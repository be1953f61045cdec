"""All tables of Mobile IP of one packet table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from analysis.mobileip.bindings import Binding, timeline
from analysis.mobileip.discovery import PLAIN_KINDS
from analysis.mobileip.finding import Seen, fair_share, read_messages, signalling_rows
from analysis.mobileip.frames import to_frame
from analysis.mobileip.handovers import Handover, handovers
from analysis.mobileip.registrations import Registration, match
from analysis.mobileip.routability import Routability, return_routability
from analysis.mobileip.tunnels import PathTimes, optimised_ends, traffic, tunnels
from analysis.packets import PacketTable
from analysis.packets.schema import ROUTE_OPTIMISED, TUNNEL_NAMES, TUNNEL_UDP

MAX_MESSAGES = 200_000
"""Messages that are decoded. A flood beyond is left out, the same number of each source kept, and counted."""
STEP_NS = 10**9
"""Time step of the table `traffic`."""

_SEEN_COLUMNS = {
    "time_ns": "int64", "row": "int64", "point": "int64", "family": "int64", "src": "str", "dst": "str", "outer_src": "str",
    "outer_dst": "str", "tunnel": "str", "copy": "bool",
}  # fmt: skip
_MESSAGE_COLUMNS = {
    "kind": "str", "type": "int64", "home_address": "str", "home_agent": "str", "care_of_address": "str", "lifetime_s": "int64",
    "identification": "uint64", "sequence": "int64", "code": "int64", "code_text": "str", "flags": "str", "bids": "object",
    "bid_flags": "str", "label": "int64", "access_technology": "str", "encapsulation": "str", "extensions": "str",
    "authentication": "str", "nai": "str", "cookie": "uint64", "token": "uint64", "home_nonce": "int64",
    "care_of_nonce": "int64", "problem": "str", "note": "str", "text": "str",
}  # fmt: skip


@dataclass(frozen=True)
class Mobility:
    """Tables of Mobile IPv4 and Mobile IPv6. Times are ns since the epoch, -1 for never; unknown latencies are NaN.

    `messages`: one row per signalling message in order of time. `row` is the packet's row, `point` its capture point, `copy`
    True when another point saw the packet before. `kind`: "RRQ", "RRP", "agent advertisement", "BU", "HoTI", ...; "malformed"
    with the reason in `problem` for a message that contradicts itself. -1 and "" where a message has no such field; 0 in
    `identification`, `cookie`, `token`. `extensions`: numbers in order, with subtypes ("32 154/1"). `flags`: letters of the
    RFC. `text`: the message in one line.

    `registrations`: one row per registration: a request with its retransmissions and relayed copies, and the reply. `result`:
    "accepted", "refused", "unanswered", "no answer asked for". `kind`: "registration", "refresh", "deregistration", "unknown"
    (the request was not captured). `latency_ms`: from the answered request to the reply as last seen on its way; `total_ms`:
    from the first request. `hops`: legs of the request (2 by way of a foreign agent), `path` all of them with their times.
    `peer`: home agent or correspondent.

    `bindings`: one row per binding, refreshed ones stay one row. `bid` 0: without identifier. `ended`: "expired", "replaced",
    "deregistered", "overwritten", "revoked", "binding error", "end of capture". `registration`: row of `registrations`.

    `tunnels` and `traffic`: see `analysis.mobileip.tunnels`. `flow_bindings`: one row per rule in a message.

    `return_routability`: one row per Binding Update to a correspondent with the home test and care-of test it used, and one per
    test that none used. `total_ms`: from the first test made for it to the acknowledgement.

    `handovers`: one row per binding with another care-of address than the one before. `kind`: "move", "add" (the old binding
    stays) or "attach" (there was none). `detect_ms`: last packet on the old care-of address to request (0 when it was still
    used then); `register_ms`: first request to reply; `resume_ms`: reply to first packet on the new one; `gap_ms`: last packet
    on the old one to first on the new one.

    `left_out`: number of messages beyond the limit, which were not decoded.
    """

    messages: pd.DataFrame
    registrations: pd.DataFrame
    bindings: pd.DataFrame
    tunnels: pd.DataFrame
    traffic: pd.DataFrame
    return_routability: pd.DataFrame
    handovers: pd.DataFrame
    flow_bindings: pd.DataFrame
    left_out: int

    @property
    def present(self) -> bool:
        """Whether there is any Mobile IP: messages other than plain router discovery, or traffic that needs it."""
        own = self.tunnels["kind"].isin((TUNNEL_NAMES[TUNNEL_UDP], TUNNEL_NAMES[ROUTE_OPTIMISED]))
        return bool(own.any() or not self.messages["kind"].isin(PLAIN_KINDS).all())

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, for writing them to files."""
        tables = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {f"mobile_ip_{name}": table for name, table in tables if isinstance(table, pd.DataFrame)}


@dataclass(slots=True)
class FlowBindingRow:
    """Columns of the table of flow bindings."""

    time_ns: int
    row: int
    family: int
    kind: str
    home_address: str
    action: str
    bids: tuple[int, ...]
    selector: str
    flow: int
    priority: int
    status: int


def read_mobility(table: PacketTable, limit: int = MAX_MESSAGES, step_ns: int = STEP_NS) -> Mobility:
    """Tables of everything about Mobile IP in a packet table, which may be in any order. Never raises for what packets say.

    `limit`: so many messages are decoded at most, see `Mobility.left_out`. `step_ns`: time step of the table `traffic`.
    """
    rows = signalling_rows(table)
    kept = fair_share(rows, table["src"][rows], limit)
    seen = read_messages(table, kept)
    registrations = match(seen)
    end_ns = int(table["time_ns"].max()) if len(table) else 0
    bindings = timeline(registrations, seen, end_ns)
    homes, care_of = optimised_ends(table)
    homes |= {r.home_address for r in registrations}
    care_of |= {b.care_of_address for b in bindings} | {r.care_of_address for r in registrations}
    care_of -= homes  # at home both are the same
    paths = [PathTimes(table, homes, care_of, rows, optimised) for optimised in (False, True)]
    return Mobility(
        messages=_messages(seen),
        registrations=to_frame(registrations, Registration),
        bindings=to_frame(bindings, Binding),
        tunnels=tunnels(table, care_of, rows),
        traffic=traffic(table, homes, rows, step_ns),
        return_routability=to_frame(return_routability(registrations, seen), Routability),
        handovers=to_frame(handovers(bindings, registrations, *paths), Handover),
        flow_bindings=_flow_bindings(seen),
        left_out=int(rows.size - np.size(kept)),
    )


def _messages(seen: Sequence[Seen]) -> pd.DataFrame:
    columns = {}
    for name, kind in _SEEN_COLUMNS.items():
        columns[name] = pd.Series([getattr(s, name) for s in seen], dtype=kind)
    for name, kind in _MESSAGE_COLUMNS.items():
        values = [getattr(s.message, name) for s in seen]
        if name == "extensions":
            values = [" ".join(v) for v in values]
        columns[name] = pd.Series(values, dtype=kind)
    order = ["time_ns", "row", "point", "family", "kind", "type", *list(_SEEN_COLUMNS)[4:], *list(_MESSAGE_COLUMNS)[2:]]
    return pd.DataFrame({name: columns[name] for name in order})


def _flow_bindings(seen: Sequence[Seen]) -> pd.DataFrame:
    out: list[FlowBindingRow] = []
    for s in seen:
        m = s.message
        for b in m.flow_bindings:
            if not s.copy:
                out.append(
                    FlowBindingRow(
                        s.time_ns,
                        s.row,
                        s.family,
                        m.kind,
                        m.home_address,
                        b.action,
                        b.bids,
                        b.selector,
                        b.flow,
                        b.priority,
                        b.status,
                    )
                )
    return to_frame(out, FlowBindingRow)
