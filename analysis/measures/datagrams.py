"""All metrics of one UDP flow, with the definitions of byte streams wherever there is such a thing. See docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.measures.gap import Floats
from analysis.measures.loss import datagram_loss
from analysis.measures.observation import Array, Int64s
from analysis.measures.paths import bytes_per_path
from analysis.measures.reordering import datagram_reordering
from analysis.measures.stream import DEFAULT_RECOVERY_S, Json, Window, continuity, ratio
from analysis.packets.table import PacketTable


@dataclass(frozen=True)
class Datagrams:
    """Datagrams of one flow at one point, in order of time. `sequence`: their numbers, unwrapped, None when they have none;
    `sent_ns`: when each was sent, by a clock of any offset, None when unknown. `per_path`: payload bytes by path."""

    time_ns: Int64s
    payload_bytes: Int64s
    sequence: Int64s | None = None
    sent_ns: Int64s | None = None
    overhead_bytes: int = 0
    per_path: dict[str, int] | None = None


def datagrams_of(
    table: PacketTable, rows: Int64s, sequence: Int64s | None = None, sent_ns: Int64s | None = None, paths: Any = None
) -> Datagrams:
    """The datagrams in these rows of a packet table (in order of time); `paths`: interface -> path name, or None."""
    sizes = table["payload_bytes"][rows].astype(np.int64)
    overhead = int(table["overhead_bytes"][rows].astype(np.int64).sum())
    per_path = bytes_per_path(table, rows, sizes, paths)
    return Datagrams(table["time_ns"][rows], sizes, sequence, sent_ns, overhead, per_path)


def measure_datagrams(
    received: Datagrams,
    sent: Datagrams | None = None,
    events_s: Sequence[float] = (),
    t0_ns: int | None = None,
    *,
    complete: bool = True,
    ended_s: float | None = None,
    recovery_s: float = DEFAULT_RECOVERY_S,
) -> Json:
    """Every metric of docs/metrics.md that a flow of datagrams has, units in the names, None for unknown.

    `received`: at the receiver; `sent`: at the sender, for losses; without it the numbers tell what is missing. New data is a
    datagram whose number was not seen before (without numbers every datagram). `complete`: the flow was watched to its end.
    """
    times, sequence = received.time_ns, received.sequence
    fresh = _first_copies(sequence, times.size)
    start_ns = t0_ns if t0_ns is not None else int(times[0]) if times.size else 0
    last_s = (int(times[-1]) - start_ns) / 1e9 if times.size else 0.0
    window = Window(start_ns, tuple(sorted(events_s)), complete, last_s if ended_s is None else ended_s, recovery_s)
    sizes = received.payload_bytes
    new_bytes = int(sizes[fresh].sum())
    per_path = received.per_path or {}
    return {
        "transport": "udp",
        "complete": complete,
        "delivered_bytes": new_bytes,
        **continuity(window.seconds(times[fresh]), np.cumsum(sizes[fresh]), window, None),
        "payload_bytes": int(sizes.sum()),
        "bytes_per_path": per_path,
        "path_share": {name: ratio(count, max(int(sizes.sum()), 1)) for name, count in per_path.items()},
        "duplicate_bytes": int(sizes.sum()) - new_bytes if sequence is not None else None,
        **_loss(received, sent),
        **_order(sequence, times, fresh),
        **_jitter(received, fresh),
        "overhead_bytes": received.overhead_bytes,
        "overhead_per_byte": ratio(received.overhead_bytes, new_bytes),
    }


def _first_copies(sequence: Int64s | None, count: int) -> Int64s:
    """Indices of first copies in order of arrival."""
    if sequence is None:
        return np.arange(count)
    return np.sort(np.unique(sequence, return_index=True)[1])


def _loss(received: Datagrams, sent: Datagrams | None) -> Json:
    """Loss by numbers; without numbers by counting what both ends saw."""
    names = ("sent_datagrams", "received_datagrams", "lost_datagrams", "duplicate_datagrams", "longest_loss_run")
    values: tuple[int | None, ...]
    if received.sequence is not None:
        values = datagram_loss(received.sequence, None if sent is None else sent.sequence)
        source = "sequence numbers" if sent is None or sent.sequence is None else "two capture points"
    elif sent is not None:
        before, after = sent.time_ns.size, received.time_ns.size
        values, source = (before, after, max(before - after, 0), None, None), "counts at two capture points"
    else:
        values, source = (None, received.time_ns.size, None, None, None), None
    lost, expected = values[2], values[0]
    share = ratio(lost, expected) if lost is not None and expected is not None else None
    return {**dict(zip(names, values, strict=True)), "loss_ratio": share, "loss_source": source}


def _order(sequence: Int64s | None, times: Int64s, fresh: Int64s) -> Json:
    names = ("reordered_packets", "reordered_ratio", "reordering_extent_packets", "reordering_late_ms")
    if sequence is None:
        return dict.fromkeys(names)
    order = datagram_reordering(sequence[fresh], times[fresh])
    return dict(zip(names, (order.reordered, None if order.ratio is None else round(order.ratio, 6), *order[2:]), strict=True))


def _jitter(received: Datagrams, fresh: Int64s) -> Json:
    if received.sent_ns is None or not fresh.size:
        return {"jitter_ms": None, "jitter_max_ms": None}
    sent_ns, time_ns = received.sent_ns[fresh], received.time_ns[fresh]
    last, highest = jitter_ms((sent_ns - sent_ns[0]) / 1e9, (time_ns - time_ns[0]) / 1e9)  # floats do not hold epochs in ns
    return {"jitter_ms": round(last, 6), "jitter_max_ms": round(highest, 6)}


def jitter_ms(sent_s: Floats, received_s: Floats) -> tuple[float, float]:
    """Interarrival jitter of RFC 3550 section 6.4.1 in ms: final estimate and the largest on the way."""
    transit = received_s - sent_s
    estimate = highest = 0.0
    for step in np.abs(np.diff(transit)).tolist():
        estimate += (step - estimate) / 16
        highest = max(highest, estimate)
    return estimate * 1e3, highest * 1e3


def unwrap16(numbers: Array) -> Int64s:
    """16-bit sequence numbers in order of arrival (RTP, RFC 3550 section 5.1) without their wraps, from the first one on."""
    if not numbers.size:
        return np.zeros(0, np.int64)
    wide = numbers.astype(np.int64)
    steps = (np.diff(wide) + 0x8000 & 0xFFFF) - 0x8000
    unwrapped: Int64s = wide[0] + np.concatenate(([0], np.cumsum(steps)))
    return unwrapped
