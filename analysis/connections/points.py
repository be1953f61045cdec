"""Which interfaces are one capture point, judged by the packets that were seen twice.

The interfaces of one host see different packets, also when a connection moves from one to the other. Two interfaces on the
way of the same packets see the same ones: these are different capture points, and what they saw must not be mixed.
"""

from __future__ import annotations

import numpy as np

from analysis.connections.model import Array, Int64s
from analysis.packets.schema import TCP, UNUSABLE
from analysis.packets.table import PacketTable

SEEN_TWICE_SHARE = 0.3
"""Two interfaces are different points when they share this part of the packets of the flows that both saw. A connection that
moves to another interface repeats a few packets there; on a path with losses most packets still pass both ends."""
_SAMPLE = 1 << 18  # packets that are compared at most
_MOST_POINTS = 32  # on the way of one packet
ONE_WAY_ENOUGH = 20
"""So many packets of one sender alone are believed to be the same ones seen twice (of a capture of one direction, say)."""


def guess_points(table: PacketTable) -> list[int]:
    """Number of the capture point of each interface of a table.

    Packets are the same when their TCP numbers, flags, timestamps and lengths are; addresses and ports may have been
    translated between the points. Interfaces that share no packets count as one point, and interfaces of one file do rather
    than those of different files.
    """
    interfaces = max(len(table.points), int(table["interface"].astype(np.int64).max(initial=-1)) + 1)
    if interfaces < 2 or not len(table):
        return [0] * interfaces
    identity, stream, interface, onwards = _sample(table)
    apart = _apart(identity, stream, interface, onwards, interfaces)
    files = [table.points[number].file if number < len(table.points) else "" for number in range(interfaces)]
    out: dict[int, int] = {}
    of_file: dict[str, list[int]] = {}
    # What shares no packet with another interface has no opinion: it goes last, with its file.
    for number in sorted(range(interfaces), key=lambda interface: interface not in apart):
        taken = {out[other] for other in apart.get(number, ()) if other in out}
        known = of_file.setdefault(files[number], [])
        usual = [point for point in known if point not in taken]
        out[number] = usual[0] if usual else next(point for point in range(len(taken) + 1) if point not in taken)
        known.append(out[number])
    return [out[number] for number in range(interfaces)]


def _mixed(*columns: Array) -> Array:
    """One 64-bit hash per row."""
    out = np.zeros(columns[0].size, np.uint64)
    for column in columns:
        out = (out ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        out ^= out >> np.uint64(29)
    return out


def _sample(table: PacketTable) -> tuple[Array, Array, Array, Array]:
    """Identity, flow at its interface, interface, and direction of distinct packets, sorted by identity.

    Of a large table only packets with a certain hash are taken: the same ones at every interface.
    """
    usable = (table["protocol"] == TCP) & (table["problems"] & UNUSABLE == 0)
    names = ("seq", "ack", "flags", "payload_bytes", "tsval", "tsecr")
    identity = _mixed(*(table[name] for name in names))
    count = int(usable.sum())
    if count > _SAMPLE:
        usable &= identity >> np.uint64(32) < np.uint64((_SAMPLE << 32) // count)
    rows = np.flatnonzero(usable)
    source, target = (table[a][rows].astype(np.int64) << 16 | table[b][rows] for a, b in (("src", "sport"), ("dst", "dport")))
    interface = table["interface"][rows].astype(np.int64)
    stream = _mixed(np.minimum(source, target), np.maximum(source, target), interface)
    identity, onwards = identity[rows], source < target
    order = np.lexsort((interface, identity))
    identity, stream, interface, onwards = identity[order], stream[order], interface[order], onwards[order]
    fresh = np.ones(identity.size, np.bool_)
    fresh[1:] = (identity[1:] != identity[:-1]) | (interface[1:] != interface[:-1])
    return identity[fresh], stream[fresh], interface[fresh], onwards[fresh]


def _apart(identity: Array, stream: Array, interface: Array, onwards: Array, interfaces: int) -> dict[int, set[int]]:
    """Interfaces at different points, for each interface."""
    _, number = np.unique(stream, return_inverse=True)
    size = np.bincount(number)
    pairs: list[Int64s] = []
    for step in range(1, min(_MOST_POINTS, identity.size)):
        same = np.flatnonzero(identity[step:] == identity[:-step])
        if not same.size:
            break
        pairs.append(np.stack((number[same], number[same + step], interface[same], interface[same + step], onwards[same])))
    out: dict[int, set[int]] = {}
    if not pairs:
        return out
    # How often do two flows share a packet, compared with the packets of the shorter one?
    every = np.concatenate(pairs, axis=1)
    shared, count = np.unique(every[:4], axis=1, return_counts=True)
    possible = np.minimum(size[shared[0]], size[shared[1]])
    link = shared[2] * interfaces + shared[3]
    seen, place = np.unique(link, return_inverse=True)
    share = np.bincount(place, count) / np.bincount(place, possible)
    # A host that moves without being answered repeats its own packets on the next interface, but only its own.
    where = np.searchsorted(seen, every[2] * interfaces + every[3])
    both = np.minimum(*(np.bincount(where, every[4] == way, seen.size) for way in (0, 1))) > 0
    for code in seen[(share >= SEEN_TWICE_SHARE) & (both | (np.bincount(place, count) >= ONE_WAY_ENOUGH))].tolist():
        first, second = divmod(code, interfaces)
        out.setdefault(first, set()).add(second)
        out.setdefault(second, set()).add(first)
    return out
