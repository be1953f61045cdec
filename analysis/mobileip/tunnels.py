"""Use of tunnels and of route optimisation, from columns only.

Sources: RFC 2003 (IP-in-IP), RFC 2473 (IPv6 tunnels), RFC 2004 section 3.1 (minimal), RFC 2784 (GRE), RFC 3519 section 3.3
(UDP), RFC 6275 sections 6.3 and 6.4 (home address option and type 2 routing header: 24 bytes each).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.packets import PacketTable
from analysis.packets.schema import (
    IP_CUT,
    IP_MALFORMED,
    LATER_FRAGMENT,
    NOT_IP,
    ROUTE_OPTIMISED,
    TUNNEL_MINIMAL,
    TUNNEL_NAMES,
)

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_OUTER_BYTES = np.array([0, 20, 20, 40, 40, 32, 24, 8, 0], np.int64)
"""What a tunnel of each kind adds, in the order of TUNNEL_NAMES: IPv4 20, IPv6 40, IPv4 + UDP + message 32, IPv4 + GRE 24."""
_HEADER_BYTES = 24
BYTES_OF_WAYS = ("tunnelled_bytes", "route_optimised_bytes", "plain_bytes")
TO_MOBILE, FROM_MOBILE = "to mobile node", "from mobile node"
TRAFFIC_COLUMNS = {
    "home_address": "str", "point": "int64", "time_ns": "int64", "to_mobile": "bool", "packets": "int64",
    **dict.fromkeys(BYTES_OF_WAYS, "int64"),
}  # fmt: skip
TUNNEL_COLUMNS = {
    "point": "int64", "outer_src": "str", "outer_dst": "str", "kind": "str", "direction": "str", "packets": "int64",
    "signalling": "int64", "inner_bytes": "int64", "overhead_bytes": "int64", "first_ns": "int64", "last_ns": "int64",
    "inner_sources": "int64", "inner_destinations": "int64", "share": "float64",
}  # fmt: skip


def packet_bytes(table: PacketTable) -> Int64s:
    """Bytes of each packet from its first IP header on."""
    return np.asarray(table["overhead_bytes"].astype(np.int64) + table["payload_bytes"])


def tunnel_bytes(table: PacketTable) -> Int64s:
    """Bytes that tunnels and route optimisation add to each packet.

    From the kind of tunnel: an outer header without options and GRE without a key are assumed. Nested tunnels count as the
    outermost one each.
    """
    kind = table["tunnel"]
    extra = _OUTER_BYTES[np.minimum(kind, len(_OUTER_BYTES) - 1)] * table["tunnel_depth"]
    moved_source = table["src"] != table["outer_src"]
    extra += np.where((kind == TUNNEL_MINIMAL) & moved_source, 4, 0)
    optimised = kind == ROUTE_OPTIMISED
    extra += np.where(optimised & moved_source, _HEADER_BYTES, 0)
    extra += np.where(optimised & (table["dst"] != table["outer_dst"]), _HEADER_BYTES, 0)
    return np.asarray(extra)


def usable(table: PacketTable) -> Bools:
    """Rows whose addresses are right."""
    return np.asarray((table["problems"] & (NOT_IP | IP_CUT | IP_MALFORMED | LATER_FRAGMENT)) == 0)


def codes_of(table: PacketTable, texts: Iterable[str]) -> Int64s:
    """Address book codes of those texts that are addresses of the book, ascending."""
    numbers = {text: code for code, text in enumerate(table.addresses.texts())}
    return np.array(sorted({numbers[text] for text in texts if text and text in numbers}), np.int64)


def optimised_ends(table: PacketTable) -> tuple[set[str], set[str]]:
    """Home addresses and care-of addresses that route-optimised packets show by themselves."""
    rows = np.flatnonzero((table["tunnel"] == ROUTE_OPTIMISED) & usable(table))
    texts, homes, care_of = table.addresses.texts(), set(), set()
    for inner, outer in (("src", "outer_src"), ("dst", "outer_dst")):
        moved = rows[table[inner][rows] != table[outer][rows]]
        homes |= {texts[code] for code in np.unique(table[inner][moved])}
        care_of |= {texts[code] for code in np.unique(table[outer][moved])}
    return homes, care_of


def _groups(*keys: npt.NDArray[Any]) -> tuple[Int64s, Int64s]:
    """Number rows by distinct combinations of keys: group of each row, and a row of each group; groups by first appearance."""
    number = np.zeros(keys[0].size, np.int64)
    for key in keys:
        codes, values = pd.factorize(key)
        number = pd.factorize(number * max(len(values), 1) + codes)[0].astype(np.int64)
    first = np.unique(number, return_index=True)[1]
    return number, first.astype(np.int64)


def _sums(group: Int64s, weights: npt.NDArray[Any], count: int) -> Int64s:
    out = np.zeros(count, np.int64)
    np.add.at(out, group, weights.astype(np.int64))
    return out


def tunnels(table: PacketTable, care_of: Iterable[str], signalling: Int64s) -> pd.DataFrame:
    """Tunnels and route-optimised paths: one row per capture point, outer source, outer destination and kind.

    `care_of`: care-of addresses, which tell the direction. `signalling`: rows of signalling, which the column of this name
    counts; they are among the `packets`. `inner_bytes` are those of the inner packet with its headers,
    `overhead_bytes` those around it (see `tunnel_bytes`); `share` is the tunnel's part of the inner bytes of its capture point
    and direction.
    """
    rows = np.flatnonzero((table["tunnel"] > 0) & usable(table))
    if not rows.size:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TUNNEL_COLUMNS.items()})
    keys = [table[name][rows] for name in ("interface", "outer_src", "outer_dst", "tunnel")]
    group, first = _groups(*keys)
    count, texts = first.size, table.addresses.texts()
    overhead = tunnel_bytes(table)[rows]
    inner = np.maximum(packet_bytes(table)[rows] - overhead, 0)
    time_ns = table["time_ns"][rows]
    begin, end = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(begin, group, time_ns)
    np.maximum.at(end, group, time_ns)
    moving = codes_of(table, care_of)
    outer_src, outer_dst = keys[1][first], keys[2][first]
    direction = np.where(np.isin(outer_src, moving), FROM_MOBILE, np.where(np.isin(outer_dst, moving), TO_MOBILE, ""))
    inner_bytes = _sums(group, inner, count)
    side = _groups(keys[0][first], direction)[0]
    whole = _sums(side, inner_bytes, count)[side]
    endpoints = []
    for name in ("src", "dst"):
        places = _groups(group, table[name][rows])[1]
        endpoints.append(np.bincount(group[places], minlength=count))
    return pd.DataFrame(
        {
            "point": keys[0][first].astype(np.int64),
            "outer_src": pd.Series([texts[code] for code in outer_src], dtype="str"),
            "outer_dst": pd.Series([texts[code] for code in outer_dst], dtype="str"),
            "kind": pd.Series([TUNNEL_NAMES[k] for k in keys[3][first]], dtype="str"),
            "direction": pd.Series(direction.tolist(), dtype="str"),
            "packets": np.bincount(group, minlength=count),
            "signalling": _sums(group, np.isin(rows, signalling), count),
            "inner_bytes": inner_bytes,
            "overhead_bytes": _sums(group, overhead, count),
            "first_ns": begin,
            "last_ns": end,
            "inner_sources": endpoints[0],
            "inner_destinations": endpoints[1],
            "share": np.divide(inner_bytes, whole, out=np.zeros(count), where=whole > 0),
        }
    )


def traffic(table: PacketTable, homes: Iterable[str], signalling: Int64s, step_ns: int) -> pd.DataFrame:
    """Packets of each home address over time: tunnelled, route-optimised, or plain (seen where no tunnel is).

    One row per home address, capture point, direction and time step; `time_ns` is its begin, the first one begins with the
    first packet. Bytes are those of the inner packet. Between two home addresses the sender's counts. `homes`: the home
    addresses; `signalling`: rows left out.
    """
    known = codes_of(table, homes)
    from_home, to_home = np.isin(table["src"], known), np.isin(table["dst"], known)
    wanted = (from_home | to_home) & usable(table)
    wanted[signalling] = False
    rows = np.flatnonzero(wanted)
    if not rows.size:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TRAFFIC_COLUMNS.items()})
    to_mobile = ~from_home[rows]
    home = np.where(to_mobile, table["dst"][rows], table["src"][rows])
    start_ns = int(table["time_ns"].min())
    step = (table["time_ns"][rows].astype(np.uint64) - np.uint64(start_ns & (2**64 - 1))) // np.uint64(step_ns)
    group, first = _groups(home, table["interface"][rows], to_mobile, step)
    size = np.maximum(packet_bytes(table)[rows] - tunnel_bytes(table)[rows], 0)
    kind, texts = table["tunnel"][rows], table.addresses.texts()
    ways = (kind > 0) & (kind != ROUTE_OPTIMISED), kind == ROUTE_OPTIMISED, kind == 0
    columns: dict[str, Any] = {
        "home_address": pd.Series([texts[code] for code in home[first]], dtype="str"),
        "point": table["interface"][rows][first].astype(np.int64),
        "time_ns": (step[first] * np.uint64(step_ns)).astype(np.int64) + start_ns,
        "to_mobile": to_mobile[first],
        "packets": np.bincount(group, minlength=first.size),
    }
    for name, way in zip(BYTES_OF_WAYS, ways, strict=True):
        columns[name] = _sums(group, np.where(way, size, 0), first.size)
    return pd.DataFrame(columns).sort_values(["home_address", "point", "time_ns"], kind="stable", ignore_index=True)


class PathTimes:
    """When packets of a home address took a care-of address: sorted times per pair, for look-ups by bisection.

    `optimised`: look at route-optimised packets, otherwise at those in tunnels. `signalling`: rows left out.
    """

    def __init__(
        self, table: PacketTable, homes: Iterable[str], care_of: Iterable[str], signalling: Int64s, optimised: bool
    ) -> None:
        self._code = {text: code for code, text in enumerate(table.addresses.texts())}
        known, moving = codes_of(table, homes), codes_of(table, care_of)
        carried = (table["tunnel"] > 0) & ((table["tunnel"] == ROUTE_OPTIMISED) == optimised) & usable(table)
        carried[signalling] = False
        keys, times = [], []
        for inner, outer in (("src", "outer_src"), ("dst", "outer_dst")):
            rows = np.flatnonzero(carried & np.isin(table[inner], known) & np.isin(table[outer], moving))
            keys.append(table[inner][rows].astype(np.int64) << 32 | table[outer][rows])
            times.append(table["time_ns"][rows])
        key, time_ns = np.concatenate(keys), np.concatenate(times)
        order = np.lexsort((time_ns, key))
        self._key, self._time_ns = key[order], time_ns[order]

    def _times(self, home: str, care_of: str) -> Int64s:
        key = self._code.get(home, 0) << 32 | self._code.get(care_of, 0)
        low, high = np.searchsorted(self._key, [key, key + 1])
        return np.asarray(self._time_ns[low:high])

    def first_from(self, home: str, care_of: str, time_ns: int) -> int:
        """Time of the first packet at or after a time; -1 without one."""
        times = self._times(home, care_of)
        place = int(np.searchsorted(times, time_ns, side="left"))
        return int(times[place]) if place < times.size else -1

    def last_before(self, home: str, care_of: str, time_ns: int) -> int:
        """Time of the last packet before a time; -1 without one."""
        times = self._times(home, care_of)
        place = int(np.searchsorted(times, time_ns, side="left"))
        return int(times[place - 1]) if place else -1
