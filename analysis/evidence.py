"""What the files of a run say, and everything that makes them unsound: before anything is concluded from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.connections import Reconstruction, reconstruct
from analysis.measures.gap import Floats, Gap, gaps_agree, longest_gap, tolerance_ms
from analysis.packets import AddressBook, Capture, CaptureError, PacketTable, merge, read_capture
from analysis.rundir import Json, Run
from analysis.streams import Endpoint, Stream

RELAY_LATE_LIMIT_US = 1000.0
RELAY_LATE_SHARE = 0.25
"""A link relay distorted what it emulates when the 99th percentile of its lateness exceeds this share of the shortest path's
one-way delay, and the limit above. It counts as a defect of the run, not as a property of the network."""
EVENT_LATE_LIMIT_MS = 50.0
"""An event that happened further from its planned time than this did not happen at the same point of the transfer, nor at
the same distance from the other events, as in the runs it is compared with."""
CLOCK_SPREAD_LIMIT_MS = 5.0
"""Captures carry wall-clock times, applications monotonic ones; a larger drift would falsify their comparison."""
MOBILE, CORRESPONDENT = "mn", "cn"
LINK_LOSSES, PORT_LOSSES = ("dropped_send", "dropped_memory"), ("ring_drops", "oversize")
"""Packets that the emulator itself lost. Its other counters of dropped packets belong to the network it emulates."""


@dataclass
class Record:
    """One side of the evidence: moments of new data, cumulative count, whether the end of the stream was seen."""

    times_s: Floats
    totals: npt.NDArray[Any]
    complete: bool


@dataclass
class Evidence:
    """What the files of a run say, before it is judged."""

    run: Run
    taps: list[tuple[str, str, Capture]]
    problems: list[str]
    capture_notes: list[Json]
    events_s: list[float]
    ended_s: float
    notes: list[str] = field(default_factory=list)
    _known: dict[str, tuple[Reconstruction, list[str]]] = field(default_factory=dict, repr=False)

    def packets(self, node: str) -> tuple[PacketTable, list[str]]:
        """All packets captured on a node, in order of time, and the interface of the node for each capture point."""
        chosen = [(device, tap) for owner, device, tap in self.taps if owner == node]
        if not chosen:
            return PacketTable.empty(), []
        return merge([tap for _, tap in chosen]), [device for device, tap in chosen for _ in tap.interfaces]

    def reconstruction(self, node: str) -> tuple[Reconstruction, list[str]]:
        """The connections in the captures of a node, and its interface for each capture point."""
        if node not in self._known:
            table, devices = self.packets(node)
            self._known[node] = reconstruct(table, [0] * len(devices) or None), devices
        return self._known[node]

    def seconds(self, time_ns: Any) -> Floats:
        """Capture clock -> seconds since the scenario's time 0."""
        return np.asarray((np.asarray(time_ns, np.int64) - self.run.t0_wall_ns) / 1e9, np.float64)

    def mono_seconds(self, mono_ns: Any) -> Floats:
        """Application clock -> seconds since the scenario's time 0."""
        return np.asarray((np.asarray(mono_ns, np.float64) - self.run.t0_mono_ns) / 1e9, np.float64)


def gather(run: Run) -> Evidence:
    """Read the captures and note everything that makes the record unsound."""
    problems: list[str] = []
    taps, notes, lossy = [], [], []
    book = AddressBook()
    for entry in run.captures:
        note: Json = {"file": entry.file, "node": entry.node, "interface": entry.interface}
        try:
            tap = read_capture(run.path / entry.file, book)
        except CaptureError as error:
            problems.append(str(error).replace(f"{run.path}{os.sep}", ""))
            notes.append(note | {"packets": 0, "dropped": None, "damage": "unreadable", "complete": False})
            continue
        counts = [n for n in (entry.dropped, tap.dropped) if n is not None]
        dropped = max(counts) if counts else None
        if dropped:
            lossy.append(f"{Path(entry.file).stem} {dropped}")
        elif dropped is None:
            problems.append(f"{entry.file}: nobody counted dropped packets")
        if tap.damage:
            problems.append(f"{entry.file}: {tap.damage}")
        complete = dropped == 0 and tap.damage is None
        notes.append(note | {"packets": tap.packets, "dropped": dropped, "damage": tap.damage, "complete": complete})
        taps.append((entry.node, entry.interface, tap))
    if lossy:
        problems.append(f"captures lost packets ({', '.join(lossy)})")
    late_us = relay_late_us(run)
    limit_us = relay_late_limit_us(run)
    if late_us is not None and late_us > limit_us:
        problems.append(f"link relay was late: p99 {late_us:.0f} us, limit {limit_us:.0f} us")
    if run.clock_spread_ms > CLOCK_SPREAD_LIMIT_MS:
        problems.append(f"the wall clock moved by {run.clock_spread_ms:.1f} ms against the monotonic clock")
    if busy := cpu_limited(run):
        problems.append(busy)
    lost = emulator_losses(run)
    if lost:
        problems.append(f"the link emulation lost packets of its own ({', '.join(lost)})")
    for event in run.events:
        late_ms = (event.at_s - event.planned_s) * 1e3
        if abs(late_ms) > EVENT_LATE_LIMIT_MS:
            name = f"{event.kind} {event.target}".strip()
            problems.append(f"event {name} was {abs(late_ms):.0f} ms {'late' if late_ms > 0 else 'early'}")
    if run.workload_transport == "udp" and run.transport == "mptcp":
        problems.append(f"the workload is UDP, which {run.mechanism_label} does not carry")
    if len(run.events) < run.planned_events:
        problems.append(f"timeline.jsonl: {len(run.events)} of {run.planned_events} planned events were performed")
    ended_s = (run.ended_mono_ns - run.t0_mono_ns) / 1e9
    return Evidence(run, taps, problems, notes, [event.at_s for event in run.events], ended_s)


def cpu_limited(run: Run) -> str | None:
    """Why the figures of a run in the guest are those of the emulated CPU, or None when they are the network's."""
    guest = run.manifest.get("guest")
    if not isinstance(guest, dict) or not guest.get("cpu_limited"):
        return None
    busy = guest.get("cpu_busy")
    share = f"used {busy:.0%} of the guest's CPU" if isinstance(busy, (int, float)) else "used too much of the guest's CPU"
    return f"cpu-limited: the run {share}, the figures show the emulation's speed (lower the links' rates, or run it natively)"


def emulator_losses(run: Run) -> list[str]:
    """What the link emulation lost where the emulated network would have lost nothing, by link and port, in words."""
    relay = run.manifest.get("relay")
    if not isinstance(relay, dict):
        return []
    places = [(f"port {name}", port, PORT_LOSSES) for name, port in (relay.get("ports") or {}).items()]
    for name, link in (relay.get("links") or {}).items():
        if isinstance(link, dict):
            places += [(f"{name} {direction}", counters, LINK_LOSSES) for direction, counters in link.items()]
    return [
        f"{place} {counter} {counters[counter]}"
        for place, counters, names in places
        if isinstance(counters, dict)
        for counter in names
        if isinstance(counters.get(counter), int) and counters[counter] > 0
    ]


def relay_late_limit_us(run: Run) -> float:
    """What the relay may be late without distorting the run's paths."""
    shortest_ms = min((path.delay_ms for path in run.paths if path.delay_ms is not None), default=0.0)
    return max(RELAY_LATE_LIMIT_US, RELAY_LATE_SHARE * shortest_ms * 1000)


def relay_late_us(run: Run) -> float | None:
    """The 99th percentile of the relay's lateness: of all frames if the manifest has it, else of its worst link."""
    relay = run.manifest.get("relay")
    if not isinstance(relay, dict):
        return None
    if isinstance(relay.get("late_p99_us"), (int, float)):
        return float(relay["late_p99_us"])
    links = relay.get("links")
    directions = [d for link in links.values() if isinstance(link, dict) for d in link.values()] if links else []
    late = [d.get("late_p99_us") for d in directions if isinstance(d, dict)]
    return max((float(v) for v in late if isinstance(v, (int, float))), default=None)


def endpoint(value: Any) -> Endpoint | None:
    """[address, port] of a workload file as an endpoint."""
    if isinstance(value, list) and len(value) >= 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return value[0], value[1]
    return None


def ends_of(summary: Json | None) -> tuple[Endpoint | None, Endpoint | None]:
    """Own and the other's endpoint of the initial flow, as an application wrote them; None where it did not."""
    known = summary or {}
    return endpoint(known.get("local")), endpoint(known.get("peer"))


def sides(run: Run) -> tuple[str, str]:
    """Nodes that receive and send the workload's data; of requests and responses that is the responses."""
    down = run.direction == "down" or run.workload_kind == "rpc"
    return (MOBILE, CORRESPONDENT) if down else (CORRESPONDENT, MOBILE)


def crashed(run: Run) -> bool:
    """The scenario crashed a node on which a program of the workload ran."""
    return any(event.kind == "node-crash" and event.target in (MOBILE, CORRESPONDENT) for event in run.events)


def check_span(evidence: Evidence, record: Record) -> None:
    """A transfer that was over before the last event says nothing about it."""
    if record.complete and evidence.events_s and record.times_s.size and record.times_s[-1] < evidence.events_s[-1]:
        evidence.problems.append(
            f"the transfer ended at {record.times_s[-1]:.2f} s, before the last event at {evidence.events_s[-1]:.2f} s"
        )


def compare_records(
    evidence: Evidence,
    application: Record | None,
    capture: Record | None,
    stream: Stream | None,
    bytes_agree: bool,
    counted: int | None = None,
) -> Json:
    """Compare the application's record with the captures; every disagreement becomes a problem of the run.

    `application` is None for a program that records no times; `counted` is then what it received in all.
    """
    events_s, ended_s = evidence.events_s, evidence.ended_s
    problems: list[str] = []
    recovery_s, udp = evidence.run.recovery_limit_s, evidence.run.workload_transport == "udp"
    gaps = [
        longest_gap(r.times_s, events_s, r.complete, ended_s, recovery_s) if r is not None else None
        for r in (application, capture)
    ]
    out: Json = {
        "gap_application_ms": shown_ms(gaps[0]),
        "gap_capture_ms": shown_ms(gaps[1]),
        "tolerance_ms": None,
        "total_application": int(application.totals[-1]) if application and application.totals.size else counted or 0,
        "total_capture": int(capture.totals[-1]) if capture and capture.totals.size else 0,
        "transport_declared": "udp" if udp else evidence.run.transport,
        "transport_seen": stream.transport if stream is not None else "udp" if udp and capture is not None else None,
    }
    if gaps[0] is not None and gaps[1] is not None:
        out["tolerance_ms"] = round(tolerance_ms(*(g for g in gaps if g is not None)), 3)
        if not gaps_agree(gaps[0], gaps[1]):
            shown = [f"{v:.0f} ms" if v is not None else "no recovery" for v in (gaps[0].gap_ms, gaps[1].gap_ms)]
            problems.append(f"gap is {shown[0]} for the application but {shown[1]} in the captures")
    if capture is None:
        problems.append("the receiver's captures show nothing of the workload")
    elif not bytes_agree:
        problems.append(
            f"the application counted {out['total_application']}, the captures {out['total_capture']} of its data"
            + _cut_short(evidence, application)
        )
    if not udp and stream is not None and stream.transport != evidence.run.transport:
        why = f" ({'; '.join(stream.notes)})" if stream.notes else ""
        problems.append(f"transport on the wire is {stream.transport}, declared is {evidence.run.transport}{why}")
    out |= {"ok": not problems, "problems": problems}
    evidence.problems += problems
    return out


def _cut_short(evidence: Evidence, application: Record | None) -> str:
    """A hint when captures were ended before everything that the kernel had buffered was written."""
    node, _ = sides(evidence.run)
    ends = [tap.table["time_ns"].max() for owner, _, tap in evidence.taps if owner == node and tap.packets]
    if application is None or not ends or not application.times_s.size:
        return ""
    early_s = float(application.times_s[-1]) - float(evidence.seconds(max(ends)))
    return f" (they end {early_s * 1e3:.0f} ms before the last data: stopped too early?)" if early_s > 0.001 else ""


def shown_ms(gap: Gap | None) -> float | None:
    return None if gap is None or gap.gap_ms is None else round(gap.gap_ms, 3)
