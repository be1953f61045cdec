"""Which rows of a packet table are signalling of Mobile IP, and what they say.

Rows are found by comparing whole columns; only those are decoded, each at most once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.mobileip import discovery, mobileip4, mobileip6
from analysis.mobileip.message import Message
from analysis.packets import PacketTable
from analysis.packets.schema import (
    ICMP,
    ICMPV6,
    MOBILITY,
    ROUTE_OPTIMISED,
    TUNNEL_NAMES,
    TUNNEL_UDP,
    UDP,
    UNUSABLE,
)

MOBILE_IP_PORT = 434
MAX_FLOW_BINDINGS = 100_000
"""Rules of all messages together; those of later messages are not kept."""
KEEPALIVE = "tunnel keepalive"
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Seen:
    """One message where it was seen: row and capture point, addresses as text. `copy`: another point saw it before."""

    time_ns: int
    row: int
    point: int
    family: int
    src: str
    dst: str
    outer_src: str
    outer_dst: str
    tunnel: str
    copy: bool
    message: Message

    @property
    def leg(self) -> tuple[str, str]:
        """Between which nodes the packet was under way: addresses of the outermost header."""
        return self.outer_src or self.src, self.outer_dst or self.dst


def keepalives(table: PacketTable) -> Bools:
    """Keepalives of a UDP tunnel: ICMP echoes inside it to and from its far end (RFC 3519)."""
    inside = (table["tunnel"] == TUNNEL_UDP) & (table["protocol"] == ICMP)
    request = (table["sport"] == 8) & (table["dst"] == table["outer_dst"])
    reply = (table["sport"] == 0) & (table["src"] == table["outer_src"])
    return np.asarray(inside & (request | reply))


def signalling_rows(table: PacketTable) -> Int64s:
    """Rows of packets that carry signalling, in order of time."""
    protocol, sport, dport = table["protocol"], table["sport"], table["dport"]
    wanted = (protocol == UDP) & ((sport == MOBILE_IP_PORT) | (dport == MOBILE_IP_PORT))
    wanted |= (protocol == ICMP) & np.isin(sport, discovery.ICMP_TYPES)
    wanted &= table["ip_version"] == 4
    wanted6 = (protocol == MOBILITY) | ((protocol == ICMPV6) & np.isin(sport, discovery.ICMPV6_TYPES))
    wanted |= wanted6 & (table["ip_version"] == 6)
    wanted |= keepalives(table)
    wanted &= (table["problems"] & UNUSABLE) == 0
    rows = np.flatnonzero(wanted)
    return rows[np.argsort(table["time_ns"][rows], kind="stable")]


def fair_share(rows: Int64s, source: npt.NDArray[Any], limit: int) -> Int64s:
    """At most `limit` of the rows: of every source the same number of first ones, so that a flood hides nobody else.

    `source` has one entry per row of `rows`.
    """
    if rows.size <= limit:
        return rows
    order = np.argsort(source, kind="stable")
    ordered = source[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(np.concatenate((begins, [rows.size])))
    rank = np.empty(rows.size, np.int64)
    rank[order] = np.arange(rows.size) - np.repeat(begins, counts)
    low, high = 0, int(counts.max())
    while low < high:  # the largest number of messages per source that fits
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= limit:
            low = middle
        else:
            high = middle - 1
    return rows[rank < low] if low else rows[:limit]


def read_messages(table: PacketTable, rows: Int64s) -> list[Seen]:
    """Decode the signalling in these rows, given in order of time."""
    texts = table.addresses.texts()
    names = ("time_ns", "interface", "ip_version", "protocol", "src", "dst", "outer_src", "outer_dst", "tunnel", "ttl")
    columns = [table[name][rows].tolist() for name in names]
    missing = (table["payload_bytes"][rows].astype(np.int64) - table["payload_captured"][rows]).clip(min=0).tolist()
    copies, rules = _Copies(), 0
    out = []
    for row, lost, *values in zip(rows.tolist(), missing, *columns, strict=True):
        time_ns, point, family, protocol, src, dst, outer_src, outer_dst, tunnel, ttl = values
        data = table.payload(row)
        seen = Seen(
            time_ns, row, point, family, texts[src], texts[dst], texts[outer_src], texts[outer_dst], TUNNEL_NAMES[tunnel],
            copies.is_copy((src, dst, outer_src, outer_dst, hash(data)), point), Message(""),
        )  # fmt: skip
        if protocol == UDP:
            seen.message = mobileip4.decode(data, lost)
        elif protocol == MOBILITY:
            outer = seen.outer_src if tunnel == ROUTE_OPTIMISED else ""
            seen.message = mobileip6.decode(data, mobileip6.Ends(seen.src, seen.dst, outer), lost)
        elif protocol == ICMPV6:
            seen.message = discovery.decode_icmpv6(data, lost)
        elif tunnel == TUNNEL_UDP and data[:1] in (b"\x08", b"\x00"):
            seen.message = _keepalive(seen, data)
        else:
            seen.message = discovery.decode_icmp(data, ttl, lost)
        rules += len(seen.message.flow_bindings)
        if rules > MAX_FLOW_BINDINGS:
            seen.message.flow_bindings = ()
        out.append(seen)
    return out


def _keepalive(seen: Seen, data: bytes) -> Message:
    asks = data[0] == 8
    home, agent = (seen.src, seen.dst) if asks else (seen.dst, seen.src)
    what = f"{KEEPALIVE} {'request' if asks else 'reply'}"
    return Message(KEEPALIVE, data[0], home, agent, text=f"{what} HoA {home}")


class _Copies:
    """Tells the packets that several capture points saw: the n-th of the same bytes at one point is the n-th at another."""

    def __init__(self) -> None:
        self._most: dict[Any, int] = {}
        self._at_point: dict[Any, int] = {}

    def is_copy(self, packet: Any, point: int) -> bool:
        count = self._at_point[packet, point] = self._at_point.get((packet, point), 0) + 1
        most = self._most.get(packet, 0)
        if count > most:
            self._most[packet] = count
        return count <= most
