"""Automatic policies: which subflows a connection shall have, and which one carries the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from agents.core.proxy.config import LocalAddress
from agents.core.proxy.connection import Connection
from agents.core.proxy.states import SubflowState
from agents.core.proxy.subflow import Subflow

MANUAL, FOLLOW, CHEAPEST, LOWEST_RTT = POLICIES = ("manual", "follow", "cheapest", "lowest-rtt")
_RTT_BETTER = 0.7
"""Traffic moves to a path only when its round trip takes less than this part: else it would move to and fro."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a policy wants of one connection."""

    lost: tuple[Subflow, ...] = ()
    """Their address cannot be used any more."""
    join: tuple[bytes, ...] = ()
    """Addresses without subflow."""
    active: Subflow | None = None
    """Shall carry the data; None: as it is."""


def wishes(connection: Connection, policy: str, addresses: Sequence[LocalAddress]) -> Wishes:
    """What to change. Only the host that opened the connection opens subflows."""
    if policy == MANUAL:
        return Wishes()
    usable = [a for a in addresses if a.usable]
    alive = {a.address for a in usable}
    lost = tuple(s for s in connection.subflows if s.local not in alive)
    present = {s.local for s in connection.subflows if s not in lost}
    join: tuple[bytes, ...] = ()
    if connection.opened_here or not connection.subflows:
        join = tuple(a.address for a in sorted(usable, key=lambda a: a.cost) if a.address not in present)
    candidates = [s for s in connection.subflows if s not in lost and s.state is SubflowState.ESTABLISHED]
    return Wishes(lost, join, _preferred(connection, policy, usable, candidates))


def _preferred(
    connection: Connection, policy: str, usable: Sequence[LocalAddress], candidates: Sequence[Subflow]
) -> Subflow | None:
    if not candidates:
        return None
    active = connection.active
    if policy == CHEAPEST:
        cost = {a.address: a.cost for a in usable}
        best = min(candidates, key=lambda s: (cost.get(s.local, 0), s is not active))
        return best if best is not active else None
    if policy == LOWEST_RTT:
        measured = [s for s in candidates if s.round_trip_s is not None]
        best = min(measured, key=lambda s: s.round_trip_s or 0.0, default=candidates[0])
        if active not in candidates:
            return best
        now = active.round_trip_s if active is not None else None
        better = now is not None and (best.round_trip_s or 0.0) < now * _RTT_BETTER
        return best if better and best is not active else None
    return candidates[0] if active not in candidates else None
