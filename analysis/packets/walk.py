"""Compiled loops over record headers (pcap) and block headers (pcapng)."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.compiled import compiled

# How a walk ended.
MORE, CUT, UNFINISHED, BAD_LENGTH, CONTRADICTION, BAD_INTERFACE, SPECIAL = range(7)
LONGEST_PACKET = 1 << 26
"""No capturing program writes a longer packet; a larger length field is damage."""


@compiled
def _u32(data: Any, at: Any, swapped: bool) -> Any:
    a, b, c, d = np.int64(data[at]), np.int64(data[at + 1]), np.int64(data[at + 2]), np.int64(data[at + 3])
    if swapped:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@compiled
def _wire(told: Any, stored: Any) -> Any:
    """Bytes of a packet on the wire. A file that tells less than it holds, or more than any packet has, is not believed."""
    return told if stored <= told <= LONGEST_PACKET else stored


@compiled
def walk_pcap(
    data: Any,
    offset: Any,
    swapped: bool,
    ns_per_tick: Any,
    start: Any,
    captured: Any,
    length: Any,
    interface: Any,
    time_ns: Any,
) -> Any:
    """Fill the arrays from the record at `offset` on: number of packets, next offset, how it ended."""
    size, count = data.size, 0
    while count < start.size and offset < size:
        if offset + 16 > size:
            return count, offset, CUT
        stored = _u32(data, offset + 8, swapped)
        if stored > LONGEST_PACKET:
            return count, offset, BAD_LENGTH
        if offset + 16 + stored > size:
            return count, offset, CUT
        start[count] = offset + 16
        captured[count] = stored
        length[count] = _wire(_u32(data, offset + 12, swapped), stored)
        interface[count] = 0
        time_ns[count] = _u32(data, offset, swapped) * 1000000000 + _u32(data, offset + 4, swapped) * ns_per_tick
        offset += 16 + stored
        count += 1
    return count, offset, MORE


@compiled
def _nanoseconds(ticks: Any, rate: Any, shift_s: Any) -> Any:
    """Ticks since the epoch -> ns since the epoch, exact for resolutions that divide a second evenly."""
    seconds, rest = ticks // rate, ticks % rate
    giga = np.uint64(1000000000)
    if giga % rate == np.uint64(0):
        rest = rest * (giga // rate)
    else:
        rest = np.uint64(np.float64(rest) * (1e9 / np.float64(rate)))
    if seconds > np.uint64(9000000000):  # beyond what 64-bit nanoseconds can hold: a damaged time
        return 0
    moved = np.int64(seconds) + shift_s
    if moved > 9000000000 or moved < -9000000000:
        return 0
    return moved * 1000000000 + np.int64(rest)


@compiled
def walk_pcapng(
    data: Any, offset: Any, swapped: bool, first: Any, rate: Any, shift_s: Any, snap: Any, count: Any, start: Any,
    captured: Any, length: Any, interface: Any, time_ns: Any,
) -> Any:  # fmt: skip
    """Fill the arrays (from `count` on) with the packet blocks at `offset` and behind it, up to a block that describes.

    `first` numbers the section's interfaces, of which `rate` (ticks per second), `shift_s` and `snap` tell. Returns number
    of packets, next offset, how it ended; SPECIAL: a section, interface or statistics block lies at the offset.
    """
    size = data.size
    while count < start.size and offset < size:
        if offset + 12 > size:
            return count, offset, UNFINISHED
        kind, total = _u32(data, offset, swapped), _u32(data, offset + 4, swapped)
        if kind == 0x0A0D0D0A:
            return count, offset, SPECIAL
        if total < 12 or total % 4 != 0:
            return count, offset, BAD_LENGTH
        if offset + total > size:
            return count, offset, UNFINISHED
        if _u32(data, offset + total - 4, swapped) != total:
            return count, offset, BAD_LENGTH
        if kind in (1, 5):
            return count, offset, SPECIAL
        number, body, stored, wire, ticks = -1, 0, 0, 0, np.uint64(0)
        if kind in (2, 6):  # enhanced and obsolete packet block
            if total < 32:
                return count, offset, CONTRADICTION
            if kind == 6:
                number = _u32(data, offset + 8, swapped)
            else:
                number = _u32(data, offset + 8, swapped) >> (16 if swapped else 0) & 0xFFFF
            ticks = np.uint64(_u32(data, offset + 12, swapped)) << np.uint64(32) | np.uint64(_u32(data, offset + 16, swapped))
            stored, wire, body = _u32(data, offset + 20, swapped), _u32(data, offset + 24, swapped), 28
        elif kind == 3:  # simple packet block
            if total < 16:
                return count, offset, CONTRADICTION
            number, wire, body = 0, _u32(data, offset + 8, swapped), 12
            stored = wire
            if snap.size and snap[0] > 0:
                stored = min(stored, np.int64(snap[0]))
            stored = min(stored, total - 16)
        if number >= 0:
            if number >= rate.size:
                return count, offset, BAD_INTERFACE
            if stored > total - body - 4:
                return count, offset, CONTRADICTION
            start[count] = offset + body
            captured[count] = stored
            length[count] = _wire(wire, stored)
            interface[count] = first + number
            time_ns[count] = _nanoseconds(ticks, rate[number], shift_s[number])
            count += 1
        offset += total
    return count, offset, MORE
