"""First contact: who opened the workload's connection, whether it became MPTCP, and when the first care-of address joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.connections import Reconstruction
from analysis.evidence import CORRESPONDENT, MOBILE, Evidence, ends_of, sides
from analysis.measures.homeroute import in_home_tunnel
from analysis.rundir import Json, load_workload
from analysis.streams import find_stream

_KINDS = ("bulk",)
"""Workloads of one connection whose programs write down its addresses."""


@dataclass(frozen=True)
class Contact:
    """What the captures at the mobile node show of the beginning of the workload's connection."""

    opened_by: str
    """Node that sent the first SYN."""
    at_home_address: bool
    """The first subflow has the mobile node's home address: one that is used in a tunnel."""
    mptcp: bool
    why_tcp: str | None
    """None: it is MPTCP."""
    joins: int
    """Subflows that were established beyond the first."""
    care_of_join_ms: float | None
    """From the connection's first SYN until the first of them without a home address was established. None: there was none."""


def contact_facts(evidence: Evidence) -> Json:
    """`contact` of docs/metrics.md; null for other workloads, and where the captures show no connection."""
    run = evidence.run
    if run.workload_kind not in _KINDS:
        return {"contact": None}
    rec, _ = evidence.reconstruction(MOBILE)
    receives = sides(run)[0] == MOBILE
    summary = load_workload(run, "receiver" if receives else "sender")
    found = find_stream(rec, *ends_of(summary), run.addresses(MOBILE), receives)
    if found is None:
        return {"contact": None}
    connection, up = found
    # Data flows up from the client: who receives what goes up is the server.
    opener = CORRESPONDENT if up == receives else MOBILE
    return {"contact": asdict(_contact(rec, connection, opener, home_addresses(rec, run.addresses(MOBILE))))}


def home_addresses(rec: Reconstruction, mobile: set[str]) -> list[str]:
    """Those of the mobile node's addresses that TCP packets in tunnels have."""
    table = rec.packets
    rows = np.flatnonzero(in_home_tunnel(table))
    codes = np.unique(np.concatenate([table["src"][rows], table["dst"][rows]]))
    return sorted({table.addresses.text(int(code)) for code in codes} & mobile)


def _contact(rec: Reconstruction, connection: int, opener: str, home: Sequence[str]) -> Contact:
    facts: Any = rec.connections.loc[connection]
    flows = rec.flows[rec.flows["connection"] == connection]
    over_home = flows["client"].isin(home) | flows["server"].isin(home)
    first, joined = flows["subflow"] == 0, (flows["subflow"] != 0) & (flows["established_ns"] >= 0)
    direct = flows[joined & ~over_home]
    seen = flows[first & (flows["client_isn"] >= 0)]
    join_ms = None
    if not direct.empty and not seen.empty:
        join_ms = round((int(direct["established_ns"].min()) - int(seen["first_ns"].min())) / 1e6, 3)
    mptcp = bool(facts["transport"] == "mptcp")
    why = None if mptcp else f"fell back: {facts['fallback']}" if facts["fallback"] else "MP_CAPABLE was not offered"
    return Contact(opener, bool((first & over_home).any()), mptcp, why, int(joined.sum()), join_ms)
