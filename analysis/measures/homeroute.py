"""The way over the home agent against the direct ways of one or more connections: bytes, time of change, round trips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.measures.observation import Array, Bools, Int64s
from analysis.measures.roundtrips import flow_round_trip
from analysis.packets.schema import NO_TUNNEL, ROUTE_OPTIMISED, TCP, UNUSABLE
from analysis.packets.table import PacketTable

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Json = dict[str, Any]
SETTLING_S = 3.0
"""After a direct way is there, what the sender's buffer still holds for the way over the home agent may leave it: some round
trips over the home agent, and one retransmission time-out (at least 1 s, RFC 6298 section 2.4)."""


STEP_S = 0.5
"""Width of the steps of rates over time."""


@dataclass(frozen=True)
class Home:
    """What tunnelled packets at the mobile node tell: its home address, and the tunnel's far end. Codes of the address book."""

    address: int
    agent: int


@dataclass(frozen=True)
class HomeAgentUse:
    """What the captures show of the way over the home agent. Bytes: TCP payload in both directions. Seconds: since time 0."""

    home_address: str
    home_agent: str
    """The tunnel's far end."""
    application_uses_home_address: bool | None
    """Both programs' sockets, as late as they have addresses, and the initial subflow. None: no program wrote it down."""
    seen_at: str
    """Node at which `bytes` were counted: the home agent's, or, without a capture there, the mobile node."""
    bytes: int
    """Forwarded by the home agent."""
    share: float
    """Of the connections' payload at the mobile node that came and went in the tunnel."""
    direct_since_s: float | None
    """The last of the connections had its first subflow from a care-of address. None: some never had."""
    last_data_s: float | None
    """The last payload that the home agent forwarded."""
    before_bytes: int
    """Until `direct_since_s`."""
    settled_from_s: float
    """SETTLING_S after that, or after time 0."""
    settled_bytes: int
    """Forwarded from then on."""
    settled_mbit: float | None
    round_trip_ms: float | None
    """Least round trip of the subflows over the home agent."""
    direct_round_trip_ms: float | None
    """Least round trip of the other subflows."""
    settled_round_trip_ms: float | None
    """Of the ways that the payload took from `settled_from_s` on: mean of the subflows' least ones, weighted by payload."""
    over_time_mbit: list[float]
    """Rate of `bytes` in steps of STEP_S from time 0 on."""
    direct_over_time_mbit: list[float]
    """The same of the payload at the mobile node that was not in the tunnel."""


def in_home_tunnel(table: PacketTable) -> Bools:
    """Usable TCP packets inside a tunnel."""
    tunnelled = (table["tunnel"] != NO_TUNNEL) & (table["tunnel"] != ROUTE_OPTIMISED)
    return np.asarray(tunnelled & (table["protocol"] == TCP) & (table["problems"] & UNUSABLE == 0))


def find_home(table: PacketTable, mobile: set[str]) -> Home | None:
    """Home address and home agent by the first TCP packet in a tunnel to or from one of the addresses `mobile`."""
    codes = np.array([code for code, text in enumerate(table.addresses.texts()) if text in mobile], np.int64)
    rows = np.flatnonzero(in_home_tunnel(table))
    sent = np.isin(table["outer_src"][rows], codes)
    mine = sent | np.isin(table["outer_dst"][rows], codes)
    rows, sent = rows[mine], sent[mine]
    if not rows.size:
        return None
    row, inner, outer = int(rows[0]), *(("src", "outer_dst") if sent[0] else ("dst", "outer_src"))
    return Home(int(table[inner][row]), int(table[outer][row]))


def forwarded(table: PacketTable, home: Home, ports: Sequence[int]) -> Int64s:
    """Rows, in a capture at the home agent, of TCP packets in a tunnel to or from the home address with a server's port.

    Each packet passes the home agent's link twice, once in the tunnel: counted is that one.
    """
    mine = (table["src"] == home.address) | (table["dst"] == home.address)
    served = np.isin(table["sport"], ports) | np.isin(table["dport"], ports)
    return np.flatnonzero(in_home_tunnel(table) & mine & served)


def direct_since_ns(rec: Reconstruction, connections: Sequence[int], home: str) -> int | None:
    """When the last of the connections got its first working subflow from another address than the home address."""
    moments = []
    for number in connections:
        flows = rec.flows[(rec.flows["connection"] == number) & (rec.flows["established_ns"] >= 0)]
        direct = flows[(flows["client"] != home) & (flows["server"] != home)]
        if direct.empty:
            return None
        moments.append(int(direct["established_ns"].min()))
    return max(moments, default=None)


@dataclass(frozen=True)
class WayRoundTrips:
    """Least round trips of all flows in ms, NaN where unknown; parallel to `flows`, numbers in `rec.flows`."""

    flows: Int64s
    least_ms: Any
    over_home: Bools


def round_trips(rec: Reconstruction, connections: Sequence[int], home: str) -> WayRoundTrips:
    """By timestamps, of the subflows of the connections; least, so that queues count little."""
    flows = np.flatnonzero(rec.flows["connection"].isin(connections).to_numpy())
    least = np.full(flows.size, np.nan)
    for place, number in enumerate(flows.tolist()):
        rows = np.flatnonzero(rec.flow == number)
        trip = flow_round_trip(rec.packets, rows.astype(np.int64), rec.from_client[rows])
        least[place] = np.nan if trip.least_ms is None else trip.least_ms
    over = ((rec.flows["client"] == home) | (rec.flows["server"] == home)).to_numpy(np.bool_)[flows]
    return WayRoundTrips(flows, least, over)


def data_round_trip_ms(rec: Reconstruction, trips: WayRoundTrips, begin_ns: int, end_ns: int) -> float | None:
    """Round trip of the ways that the payload took in [begin, end): the mean of the subflows' least ones, by payload bytes."""
    segments = rec.segments[rec.segments["time_ns"].between(begin_ns, end_ns, inclusive="left")]
    sizes = (segments["flow_end"] - segments["flow_begin"]).to_numpy(np.int64)
    flow = segments["flow"].to_numpy(np.int64)
    weights = np.array([sizes[flow == number].sum() for number in trips.flows.tolist()], np.float64)
    used = weights > 0
    if not used.any() or np.isnan(trips.least_ms[used]).any():
        return None
    return round(float(np.average(trips.least_ms[used], weights=weights[used])), 3)


def rate_over_time(times_s: Array, sizes: Array, ended_s: float) -> list[float]:
    """Mbit/s in steps of STEP_S from time 0 on; the last one begins before `ended_s`."""
    count = max(1, int(np.ceil(ended_s / STEP_S - 1e-9)))
    totals, _ = np.histogram(times_s, bins=count, range=(0.0, count * STEP_S), weights=sizes)
    return [round(float(total) * 8e-6 / STEP_S, 3) for total in totals]
