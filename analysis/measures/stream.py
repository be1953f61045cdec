"""All metrics of one direction of one connection. Names, formulas and sources: docs/metrics.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.connections.coverage import Coverage
from analysis.measures.delivery import Delivery, deliver
from analysis.measures.disruption import Actions, handovers
from analysis.measures.gap import Floats, longest_gap
from analysis.measures.goodput import phase_rates
from analysis.measures.loss import byte_loss, packet_loss, segment_identity
from analysis.measures.observation import Index, Int64s, Observation, observe
from analysis.measures.overhead import message_bytes, stream_overhead
from analysis.measures.pairs import common_flows
from analysis.measures.paths import bytes_per_path
from analysis.measures.reordering import Reordering, is_reordered, late_segments, summarise, together
from analysis.measures.roundtrips import flow_round_trip
from analysis.measures.stalls import find_stalls, stall_threshold_ms
from analysis.measures.strays import switch_fields
from analysis.packets.schema import HAS_TIMESTAMPS

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction
    from analysis.mobileip import Mobility

Json = dict[str, Any]
RECEIVER, SENDER, BETWEEN = "receiver", "sender", "between"
DEFAULT_RECOVERY_S = 30.0


@dataclass(frozen=True)
class Window:
    """When a stream was watched. Seconds count from `t0_ns`; `events_s` in ascending order.

    `complete`: the end of the stream was seen. `ended_s`: until when it was watched. `recovery_s`: a connection that
    delivers nothing for so long after an event did not recover.
    """

    t0_ns: int
    events_s: Sequence[float]
    complete: bool
    ended_s: float
    recovery_s: float = DEFAULT_RECOVERY_S

    def seconds(self, time_ns: Int64s) -> Floats:
        """Capture clock -> seconds since `t0_ns`."""
        return np.asarray((time_ns - self.t0_ns) / 1e9, np.float64)

    def moment_ns(self, at_s: float) -> int:
        """Seconds since `t0_ns` -> capture clock."""
        return self.t0_ns + round(at_s * 1e9)


def measure_stream(
    rec: Reconstruction,
    connection: int,
    up: bool,
    events_s: Sequence[float] = (),
    t0_ns: int | None = None,
    *,
    point: str = RECEIVER,
    sent: Observation | None = None,
    complete: bool | None = None,
    ended_s: float | None = None,
    recovery_s: float = DEFAULT_RECOVERY_S,
    paths: Mapping[str, str] | None = None,
    mobility: Mobility | None = None,
    index: Index | None = None,
) -> Json:
    """Every metric of docs/metrics.md for one direction of one connection, units in the names, None for unknown.

    `events_s`: moments of the scenario's events, seconds since `t0_ns` (without it: the connection's first packet), ascending.
    `point`: where `rec` was captured: "receiver" or "sender" of this direction's data, or "between" (unknown). `sent`: the same
    direction as its sender saw it (`observe`), by the same clock: for losses, retransmissions and the detection of events.
    `complete`: whether the stream's end was seen, by default whether its sender closed it in order. `ended_s`: until when it
    was watched, by default the connection's last packet. `paths`: interface -> path name, see `analysis.measures.paths`.
    `mobility`: the mobile node's Mobile IP in the packets of `rec`. `index`: spares the search for the connection's rows when
    many connections are measured. Raises ValueError for an unknown point and IndexError for an unknown connection.
    """
    if point not in (RECEIVER, SENDER, BETWEEN):
        raise ValueError(f"point is {point!r}: it must be {RECEIVER!r}, {SENDER!r} or {BETWEEN!r}")
    seen = observe(rec, connection, up, index)
    delivery = deliver(seen, by_acknowledgments=point == SENDER, at_receiver=point == RECEIVER)
    start_ns = seen.first_ns if t0_ns is None else t0_ns
    last_s = (seen.last_ns - start_ns) / 1e9
    done = seen.ended if complete is None else complete
    window = Window(start_ns, tuple(sorted(events_s)), done, last_s if ended_s is None else ended_s, recovery_s)
    round_trips = _round_trips(seen)
    path_ms = min((v for v in (round_trips["handshake_ms"], round_trips["rtt_min_ms"]) if v is not None), default=None)
    measured = seen if sent is None else sent
    order, filled = _order(seen, delivery, path_ms)
    actions = Actions(seen, measured, mobility) if window.events_s else None
    return {
        "transport": seen.transport,
        "direction": "up" if up else "down",
        "point": point,
        "complete": done,
        **_continuity(delivery, window, path_ms),
        "handovers": _handovers(actions, delivery, window, path_ms) if actions else [],
        "switches": [] if sent is None else switch_fields(sent, seen, start_ns),
        **_volume(seen, paths),
        **_repetitions(measured, point if sent is None else SENDER),
        "duplicate_bytes": seen.total("duplicate") if point == RECEIVER else None,
        **order,
        **_loss(seen, delivery, point, sent, filled),
        **_overhead(seen, delivery, mobility),
        **round_trips,
    }


def measure_all(rec: Reconstruction, **options: Any) -> list[Json]:
    """`measure_stream` of every direction that carried payload, with its `connection`. `options` are passed on."""
    index = Index(rec)
    out = []
    for number in range(len(rec.connections)):
        for up in (True, False):
            if rec.connections["payload_up" if up else "payload_down"].iloc[number]:
                out.append({"connection": number, **measure_stream(rec, number, up, index=index, **options)})
    return out


def continuity(times_s: Floats, totals: Int64s, window: Window, path_ms: float | None) -> Json:
    """Gap, goodput and stalls from moments of new data and cumulative bytes: the same for every transport."""
    arguments = window.complete, window.ended_s
    gap = longest_gap(times_s, window.events_s, *arguments, window.recovery_s)
    rates = phase_rates(times_s, totals, window.events_s, *arguments, window.recovery_s)
    threshold_ms = stall_threshold_ms(path_ms)
    stalls = find_stalls(times_s, threshold_ms, *arguments)
    return {
        "gap_ms": _round(gap.gap_ms),
        "gap_at_least_ms": _round(gap.at_least_ms),
        "gap_start_s": _round(gap.start_s),
        **{name: _round(value) for name, value in rates.items()},
        "stall_threshold_ms": _round(threshold_ms),
        "stalls": stalls.number,
        "stall_total_ms": _round(stalls.total_ms),
        "stall_longest_ms": _round(stalls.longest_ms),
    }


def _round(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(value, digits)


def ratio(part: float, whole: float) -> float | None:
    """part / whole, None for an empty whole."""
    return round(part / whole, 6) if whole else None


def _continuity(delivery: Delivery, window: Window, path_ms: float | None) -> Json:
    measured = continuity(window.seconds(delivery.time_ns), delivery.total_bytes, window, path_ms)
    return {"delivered_bytes": delivery.delivered_bytes, **measured}


def _handovers(actions: Actions, delivery: Delivery, window: Window, path_ms: float | None) -> list[Json]:
    events = [window.moment_ns(at_s) for at_s in window.events_s]
    limits = [window.moment_ns(min(at_s + window.recovery_s, max(window.ended_s, at_s))) for at_s in window.events_s]
    rows = handovers(actions, delivery, events, limits, (window.t0_ns, int((path_ms or 0.0) * 1e6), window.complete))
    return [row.fields() for row in rows]


def _volume(seen: Observation, paths: Mapping[str, str] | None) -> Json:
    """Payload and its paths, repetitions included."""
    sizes = seen.segments.payload_bytes
    per_path = bytes_per_path(seen.rec.packets, seen.segments.row, sizes, paths)
    total = seen.total("payload")
    return {
        "payload_bytes": total,
        "unmapped_bytes": seen.total("unmapped"),
        "bytes_per_path": per_path,
        "path_share": {name: ratio(count, max(total, 1)) for name, count in per_path.items()},
    }


def _repetitions(seen: Observation, where: str) -> Json:
    """Bytes sent again on their subflow, and on another one."""
    repeated, reinjected, total = (seen.total(name) for name in ("duplicate", "reinjected", "payload"))
    return {
        "retransmitted_bytes": repeated - reinjected,
        "reinjected_bytes": reinjected,
        "retransmissions_seen_at": where,
        "efficiency": ratio(total - repeated, total),
    }


def _order(seen: Observation, delivery: Delivery, path_ms: float | None) -> tuple[Json, Json]:
    """Reordering on the way and in the data stream; and what filled holes because it was sent again."""
    order, filled = _subflow_order(seen, delivery.in_subflow, None if path_ms is None else int(path_ms * 1e6))
    in_data = is_reordered(seen.segments.begin[seen.segments.new_bytes > 0])
    return {
        "reordered_packets": order.reordered,
        "reordered_ratio": _round(order.ratio),
        "reordering_extent_packets": order.extent,
        "reordering_late_ms": _round(order.late_ms),
        "data_reordered_ratio": ratio(int(in_data.sum()), in_data.size),
        "out_of_order_depth_bytes": seen.total("depth"),
    }, filled


def _subflow_order(seen: Observation, coverage: Coverage, rtt_ns: int | None) -> tuple[Reordering, Json]:
    """Reordering over all subflows, each in its own sequence space; and the segments and bytes that were late though not
    reordered."""
    segments, table = seen.segments, seen.rec.packets
    by_flow = np.argsort(segments.flow, kind="stable")
    stamp = table["tsval"][segments.row[by_flow]]
    stamped = (table["options"][segments.row[by_flow]] & HAS_TIMESTAMPS) > 0
    bounds = np.searchsorted(segments.flow[by_flow], np.arange(seen.flows.size + 1)).tolist()
    every: list[Reordering] = []
    packets = filled = 0
    for low, high in pairwise(bounds):
        if low == high:
            continue
        rows, here = by_flow[low:high], slice(low, high)
        part = Coverage(coverage.new_bytes[rows], coverage.reached[rows], coverage.late[rows])
        late = late_segments(segments.flow_begin[rows], segments.time_ns[rows], part, stamp[here], stamped[here], rtt_ns)
        every.append(summarise(late.overtaker, segments.time_ns[rows][late.chosen], late.reordered))
        filled += int(part.new_bytes[late.chosen][late.filled].sum())
        packets += int(late.filled.sum())
    return together(every), {"lost_packets": packets, "lost_bytes": filled}


def _loss(seen: Observation, delivery: Delivery, point: str, sent: Observation | None, filled: Json) -> Json:
    """Loss: compared with the sender's capture, or inferred from what was sent again."""
    if sent is not None:
        return _loss_between(sent, seen)
    again = seen.segments.payload_bytes - delivery.in_subflow.new_bytes
    lost = {"lost_packets": 0, "lost_bytes": 0} if point == SENDER else dict(filled)
    if point != RECEIVER:
        lost["lost_packets"] += int((again > 0).sum())
        lost["lost_bytes"] += int(again.sum())
    share = ratio(lost["lost_bytes"], seen.total("payload"))
    unknown = dict.fromkeys(("sent_bytes", "multiplied_bytes"))
    return {**unknown, **lost, "loss_ratio": share, "loss_source": "retransmissions"}


def _loss_between(sent: Observation, received: Observation) -> Json:
    """Loss between two points. What was sent after the receiver's capture ends is left out."""
    before, after = common_flows(sent, received, int(received.rec.packets["time_ns"][-1]))
    loss = byte_loss(before, after)
    packets = packet_loss(*(segment_identity(flow, begin, end - begin) for flow, begin, end in (before, after)))
    return {
        "sent_bytes": loss.sent,
        "multiplied_bytes": loss.multiplied,
        "lost_packets": packets.lost if packets.multiplied == 0 else None,  # cut or joined on the way: not countable
        "lost_bytes": loss.lost,
        "loss_ratio": ratio(loss.lost, loss.sent),
        "loss_source": "two capture points",
    }


def _overhead(seen: Observation, delivery: Delivery, mobility: Mobility | None) -> Json:
    """Headers, acknowledgments, signalling; Mobile IP messages during the connection's life."""
    table = seen.rec.packets
    parts = stream_overhead(table, seen.packets, seen.from_sender)
    mobile = 0
    if mobility is not None:
        during = mobility.messages["time_ns"].between(seen.first_ns, seen.last_ns)
        messages = mobility.messages[during & ~mobility.messages["copy"]]
        mobile = message_bytes(table, np.unique(messages["row"].to_numpy(np.int64)))
    total = parts.total_bytes + mobile
    return {
        "overhead_bytes": total,
        "header_bytes": parts.header_bytes,
        "ack_bytes": parts.ack_bytes,
        "signalling_bytes": parts.signalling_bytes,
        "signalling_packets": parts.signalling_packets,
        "mobility_bytes": mobile,
        "options_and_tunnels_bytes": parts.extra_bytes,
        "overhead_per_byte": ratio(total, delivery.delivered_bytes),
    }


def _round_trips(seen: Observation) -> Json:
    """Round trips of the first subflow's path: the handshake, and by timestamps."""
    if not seen.flows.size:
        return {"handshake_ms": None, "rtt_min_ms": None, "rtt_median_ms": None}
    first = int(seen.flows[0])
    handshake_ms = float(seen.rec.flows["handshake_ms"].iloc[first])
    rows = seen.packets[seen.rec.flow[seen.packets] == first]
    path = flow_round_trip(seen.rec.packets, rows, seen.rec.from_client[rows])
    return {
        "handshake_ms": round(handshake_ms, 6) if np.isfinite(handshake_ms) else None,
        "rtt_min_ms": _round(path.least_ms),
        "rtt_median_ms": _round(path.median_ms),
    }
