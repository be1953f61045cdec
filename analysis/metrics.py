"""A run directory -> `metrics.json`: what happened to the connection, and whether the record can be trusted.

Every figure is taken from the application's record and again from the captures. Where the two disagree, or where a
capture or the link emulation was not sound, the run is not judged and says why.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.captures import Capture, CaptureError, read_capture
from analysis.flows import Endpoint
from analysis.gaps import (
    RECOVERY_LIMIT_S,
    Floats,
    Gap,
    gaps_agree,
    jitter_ms,
    longest_gap,
    phase_rates,
    tolerance_ms,
)
from analysis.rundir import InputError, Json, Run, load_columns, load_run, load_workload
from analysis.series import Series, build_series, read_series, write_series
from analysis.streams import Stream, datagram_arrivals, trace_stream

METRICS_VERSION = 1
"""Raised whenever the meaning of a figure changes: older metrics.json files are then computed again."""
RELAY_LATE_LIMIT_US = 1000.0
"""A link relay whose 99th percentile of lateness exceeds this distorted the delays it emulates."""
CLOCK_SPREAD_LIMIT_MS = 5.0
"""Captures carry wall-clock times, applications monotonic ones; a larger drift would falsify their comparison."""
DATAGRAM_SLACK = 2
"""Datagrams that may arrive in the capture while the receiver is closing."""
IPERF_SLACK_SHARE, IPERF_SLACK_BYTES = 0.01, 65536
"""iperf3 counts at its own interval ends; cookie and last interval may differ."""

UNACKNOWLEDGED_BYTES = 4096
"""A host may take two segments before it acknowledges them (RFC 9293 section 3.8.6.3): so much of a connection that was
cut may be in the application's record but not acknowledged in the capture. What was acknowledged may be lost with it."""

MOBILE, CORRESPONDENT = "mn", "cn"


@dataclass
class _Record:
    """One side of the evidence: moments of new data, cumulative count, whether the end of the stream was seen."""

    times_s: Floats
    totals: np.typing.NDArray[Any]
    complete: bool


@dataclass
class _Evidence:
    """What the files of a run say, before it is judged."""

    run: Run
    taps: list[tuple[str, str, Capture]]
    problems: list[str]
    capture_notes: list[Json]
    events_s: list[float]
    ended_s: float
    notes: list[str] = field(default_factory=list)

    def packets(self, node: str) -> pd.DataFrame:
        """All packets captured on a node, in order of time, with their interface as `device`."""
        frames = [tap.frame.assign(device=device) for owner, device, tap in self.taps if owner == node]
        if not frames:
            return pd.DataFrame()
        for name in ("src", "dst"):
            for frame in frames:
                frame[name] = frame[name].astype(str)
        return pd.concat(frames).sort_values("time_ns", kind="stable", ignore_index=True)

    def seconds(self, time_ns: Any) -> Floats:
        """Capture clock -> seconds since the scenario's time 0."""
        return np.asarray((np.asarray(time_ns, np.int64) - self.run.t0_wall_ns) / 1e9, np.float64)

    def mono_seconds(self, mono_ns: Any) -> Floats:
        """Application clock -> seconds since the scenario's time 0."""
        return np.asarray((np.asarray(mono_ns, np.float64) - self.run.t0_mono_ns) / 1e9, np.float64)


def measure(path: Path, refresh: bool = False) -> tuple[Json, Series | None]:
    """Metrics and time series of a run; read back when they were computed by this version, else computed and written.

    Raises InputError when the directory is not that of a finished run.
    """
    run = load_run(path)
    stored, series = path / "metrics.json", path / "figures" / "series.json"
    if not refresh and stored.exists():
        try:
            metrics = json.loads(stored.read_text("utf-8"))
        except ValueError:
            metrics = {}
        if isinstance(metrics, dict) and metrics.get("version") == METRICS_VERSION:
            return metrics, read_series(series)
    metrics, computed = evaluate(run)
    write_atomically(stored, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    if computed is not None:
        series.parent.mkdir(exist_ok=True)
        write_series(series, computed)
    return metrics, computed


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never half."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)


def evaluate(run: Run) -> tuple[Json, Series | None]:
    """Compute metrics and series of a run without writing anything."""
    out: Json = {
        "schema": 1,
        "version": METRICS_VERSION,
        "run_id": run.run_id,
        "state": run.state,
        "reason": run.reason,
        "scenario": run.scenario,
        "mechanism": run.mechanism,
        "workload": run.workload,
        "repetition": run.repetition,
        "seed": run.seed,
        "verdict": run.state,
        "judged": False,
        "why_not": run.reason or f"the run is {run.state}",
    }
    if run.state != "complete":
        return out, None
    evidence = _gather(run)
    measured, series = _WORKLOADS.get(run.workload, _unknown)(evidence)
    out |= measured
    captures_complete = all(c["complete"] for c in evidence.capture_notes) and bool(evidence.capture_notes)
    out |= {
        "captures_complete": captures_complete,
        "captures": evidence.capture_notes,
        "relay_late_p99_us": _relay_late_us(run),
        "events_s": [round(t, 6) for t in evidence.events_s],
        "notes": evidence.notes,
        "judged": not evidence.problems,
        "why_not": "; ".join(evidence.problems) or None,
    }
    survived = out.get("survived")
    out["verdict"] = "not judged" if evidence.problems else "survived" if survived else "broken"
    return out, series


def _gather(run: Run) -> _Evidence:
    """Read the captures and note everything that makes the record unsound."""
    problems: list[str] = []
    taps, notes, lossy = [], [], []
    for entry in run.captures:
        note: Json = {"file": entry.file, "node": entry.node, "interface": entry.interface}
        try:
            tap = read_capture(run.path / entry.file)
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
    late_us = _relay_late_us(run)
    if late_us is not None and late_us > RELAY_LATE_LIMIT_US:
        problems.append(f"link relay was late: p99 {late_us:.0f} us, limit {RELAY_LATE_LIMIT_US:.0f} us")
    if run.clock_spread_ms > CLOCK_SPREAD_LIMIT_MS:
        problems.append(f"the wall clock moved by {run.clock_spread_ms:.1f} ms against the monotonic clock")
    if len(run.events) < run.planned_events:
        problems.append(f"timeline.jsonl: {len(run.events)} of {run.planned_events} planned events were performed")
    ended_s = (run.ended_mono_ns - run.t0_mono_ns) / 1e9
    return _Evidence(run, taps, problems, notes, [event.at_s for event in run.events], ended_s)


def _relay_late_us(run: Run) -> float | None:
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


def _endpoint(value: Any) -> Endpoint | None:
    """[address, port] of a workload file as an endpoint."""
    if isinstance(value, list) and len(value) >= 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return value[0], value[1]
    return None


def _sides(run: Run) -> tuple[str, str]:
    """Nodes that receive and send the workload's data."""
    return (MOBILE, CORRESPONDENT) if run.direction == "down" else (CORRESPONDENT, MOBILE)


def _trace(evidence: _Evidence, node: str, summary: Json | None, towards: bool) -> Stream | None:
    """The workload's stream in the captures of a node; `summary` is what the application on that node wrote."""
    packets = evidence.packets(node)
    if packets.empty:
        return None
    summary = summary or {}
    ends = _endpoint(summary.get("local")), _endpoint(summary.get("peer"))
    return trace_stream(packets, *ends, evidence.run.addresses(node), towards)


def _gap_fields(gap: Gap) -> Json:
    rounded = [None if v is None else round(v, 3) for v in (gap.gap_ms, gap.at_least_ms, gap.start_s)]
    return dict(zip(("gap_ms", "gap_at_least_ms", "gap_start_s"), rounded, strict=True))


def _arrives_after(times_s: Floats, events_s: list[float]) -> bool:
    """New data within the recovery limit after the last event (always true without events)."""
    if not events_s:
        return bool(times_s.size)
    return bool(((times_s > events_s[-1]) & (times_s <= events_s[-1] + RECOVERY_LIMIT_S)).any())


def _check_span(evidence: _Evidence, record: _Record) -> None:
    """A transfer that was over before the last event says nothing about it."""
    if record.complete and evidence.events_s and record.times_s.size and record.times_s[-1] < evidence.events_s[-1]:
        evidence.problems.append(
            f"the transfer ended at {record.times_s[-1]:.2f} s, before the last event at {evidence.events_s[-1]:.2f} s"
        )


def _agree(
    evidence: _Evidence, application: _Record | None, capture: _Record | None, stream: Stream | None, bytes_agree: bool
) -> Json:
    """Compare the application's record with the captures; every disagreement becomes a problem of the run."""
    events_s, ended_s = evidence.events_s, evidence.ended_s
    problems: list[str] = []
    gaps = [
        longest_gap(r.times_s, events_s, r.complete, ended_s) if r is not None else None for r in (application, capture)
    ]
    out: Json = {
        "gap_application_ms": _shown(gaps[0]),
        "gap_capture_ms": _shown(gaps[1]),
        "tolerance_ms": None,
        "total_application": int(application.totals[-1]) if application and application.totals.size else 0,
        "total_capture": int(capture.totals[-1]) if capture and capture.totals.size else 0,
        "transport_declared": evidence.run.transport,
        "transport_seen": stream.transport if stream is not None else None,
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
    if stream is not None and stream.transport != evidence.run.transport:
        why = f" ({'; '.join(stream.notes)})" if stream.notes else ""
        problems.append(f"transport on the wire is {stream.transport}, declared is {evidence.run.transport}{why}")
    out |= {"ok": not problems, "problems": problems}
    evidence.problems += problems
    return out


def _cut_short(evidence: _Evidence, application: _Record | None) -> str:
    """A hint when captures were ended before everything that the kernel had buffered was written."""
    node, _ = _sides(evidence.run)
    ends = [tap.frame["time_ns"].iloc[-1] for owner, _, tap in evidence.taps if owner == node and len(tap.frame)]
    if application is None or not ends or not application.times_s.size:
        return ""
    early_s = float(application.times_s[-1]) - float(evidence.seconds(max(ends)))
    return f" (they end {early_s * 1e3:.0f} ms before the last data: stopped too early?)" if early_s > 0.001 else ""


def _shown(gap: Gap | None) -> float | None:
    return None if gap is None or gap.gap_ms is None else round(gap.gap_ms, 3)


def _per_path(run: Run, packets: pd.DataFrame) -> Json:
    """Payload bytes per path name; an interface that belongs to no path keeps its own name."""
    names = {path.interface: path.name for path in run.paths}
    out: Json = {path.name: 0 for path in run.paths}
    if not packets.empty:
        for device, count in packets.groupby("device")["payload_bytes"].sum().items():
            name = names.get(str(device), str(device))
            out[name] = out.get(name, 0) + int(count)
    return out


def _tcp_side(evidence: _Evidence, receiver: Json | None, sender: Json | None) -> tuple[Stream | None, Json, Any]:
    """Receiver's stream, figures that need the sender's and the mobile node's captures, and the latter's packets."""
    receiving, sending = _sides(evidence.run)
    arrived = _trace(evidence, receiving, receiver, towards=True)
    sent = _trace(evidence, sending, sender, towards=False)
    if arrived is not None:
        evidence.notes += arrived.notes
    at_mobile = arrived if receiving == MOBILE else sent
    packets = at_mobile.packets if at_mobile is not None else pd.DataFrame()
    measured = sent if sent is not None else arrived
    per_path = _per_path(evidence.run, packets)
    figures: Json = {
        "transport": arrived.transport if arrived is not None else None,
        "bytes_per_path": per_path,
        "path_share": {k: round(v / max(1, sum(per_path.values())), 4) for k, v in per_path.items()},
        "retransmitted_bytes": measured.repeated_bytes if measured is not None else None,
        "reinjected_bytes": measured.reinjected_bytes if measured is not None else None,
        "retransmissions_seen_at": (sending if sent is not None else receiving) if measured is not None else None,
        "subflows": list(arrived.subflows) if arrived is not None else [],
    }
    return arrived, figures, packets


def _from_stream(evidence: _Evidence, stream: Stream | None, complete: bool) -> _Record | None:
    if stream is None:
        return None
    return _Record(evidence.seconds(stream.time_ns), stream.delivered_bytes, complete)


def _rounded(values: dict[str, float | None]) -> Json:
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def _bulk(evidence: _Evidence) -> tuple[Json, Series | None]:
    """Verified bulk stream: bytes and hash from the applications, progress.csv against the receiver's captures."""
    run = evidence.run
    receiver, sender = load_workload(run, "receiver"), load_workload(run, "sender")
    if receiver is None:
        raise InputError(f"{run.path / 'workload' / 'receiver.json'}: missing: the receiver's summary is needed")
    rows = load_columns(run.path / "workload" / "progress.csv", ("t_mono_ns", "bytes"))
    totals = rows["bytes"].to_numpy(np.float64)
    grew = np.diff(totals, prepend=0.0) > 0
    complete = bool(receiver.get("complete"))
    application = _Record(evidence.mono_seconds(rows["t_mono_ns"])[grew], totals[grew].astype(np.int64), complete)
    stream, figures, packets = _tcp_side(evidence, receiver, sender)
    capture = _from_stream(evidence, stream, complete)
    counted = int(receiver.get("bytes") or 0)
    seen = stream.total_bytes if stream is not None else 0
    agree = counted == seen if complete else counted <= seen + UNACKNOWLEDGED_BYTES
    if application.totals.size and int(application.totals[-1]) != counted:
        evidence.problems.append(f"progress.csv ends at {application.totals[-1]} bytes, receiver.json says {counted}")
    agreement = _agree(evidence, application, capture, stream, agree)
    _check_span(evidence, application)
    origin = sender or {}
    hash_ok = complete and bool(origin.get("complete")) and receiver.get("sha256") == origin.get("sha256")
    gap = longest_gap(application.times_s, evidence.events_s, complete, evidence.ended_s)
    out: Json = {
        "survived": hash_ok and _arrives_after(application.times_s, evidence.events_s),
        "hash_ok": hash_ok,
        **_gap_fields(gap),
        **_rounded(
            phase_rates(application.times_s, application.totals, evidence.events_s, complete, evidence.ended_s)
        ),
        "bytes_total": counted,
        **figures,
        "agreement": agreement,
        "error": receiver.get("error") or origin.get("error"),
    }
    series = build_series(run, application.times_s, application.totals, "bytes", packets, gap, evidence.ended_s)
    return out, series


def _iperf3(evidence: _Evidence) -> tuple[Json, Series | None]:
    """iperf3: its own JSON says whether it ended well, everything in time comes from the captures."""
    run = evidence.run
    reports = [load_workload(run, role) for role in ("iperf3", "client", "receiver", "sender")]
    report: Json = next((r for r in reports if r is not None and ("end" in r or "error" in r)), {})
    complete = bool(report.get("end")) and not report.get("error")
    end = report.get("end") or {}
    counted = int((end.get("sum_received") or end.get("sum") or {}).get("bytes") or 0)
    stream, figures, packets = _tcp_side(evidence, None, None)
    capture = _from_stream(evidence, stream, complete)
    seen = stream.total_bytes if stream is not None else 0
    agree = abs(seen - counted) <= max(IPERF_SLACK_BYTES, IPERF_SLACK_SHARE * seen) or not complete
    totals = np.array([counted], np.int64)
    agreement = _agree(evidence, None, capture, stream, agree) | {"total_application": counted}
    record = capture or _Record(np.zeros(0), totals[:0], complete)
    _check_span(evidence, record)
    gap = longest_gap(record.times_s, evidence.events_s, complete, evidence.ended_s)
    rates = phase_rates(record.times_s, record.totals, evidence.events_s, complete, evidence.ended_s)
    out: Json = {
        "survived": complete and _arrives_after(record.times_s, evidence.events_s),
        "hash_ok": None,
        **_gap_fields(gap),
        **_rounded(rates),
        "bytes_total": counted,
        **figures,
        "agreement": agreement,
        "error": report.get("error"),
    }
    return out, build_series(run, record.times_s, record.totals, "bytes", packets, gap, evidence.ended_s)


def _samples(evidence: _Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of samples.csv (one per sequence number, times in s) and those of them that were received, by arrival."""
    table = load_columns(evidence.run.path / "workload" / "samples.csv", ("seq", "sent_mono_ns", "received_mono_ns"))
    samples = pd.DataFrame(
        {
            "seq": table["seq"],
            "sent_s": evidence.mono_seconds(table["sent_mono_ns"]),
            "received_s": evidence.mono_seconds(table["received_mono_ns"]),
        }
    )
    samples = samples.sort_values("received_s").drop_duplicates("seq")
    return samples.sort_values("seq"), samples.dropna(subset=["received_s"]).sort_values("received_s")


def _voice(evidence: _Evidence) -> tuple[Json, Series | None]:
    """Constant-rate UDP: loss, jitter (RFC 3550), longest gap."""
    run = evidence.run
    rows, received = _samples(evidence)
    sent = max(len(rows), int((load_workload(run, "sender") or {}).get("packets") or 0))
    times_s = received["received_s"].to_numpy(np.float64)
    complete = bool(times_s.size) and _arrives_after(times_s, evidence.events_s)
    receiving, _ = _sides(run)
    packets = evidence.packets(receiving)
    arrivals = datagram_arrivals(packets, run.addresses(receiving)) if not packets.empty else packets
    capture = None
    if not arrivals.empty:
        capture = _Record(evidence.seconds(arrivals["time_ns"]), np.arange(1, len(arrivals) + 1), complete)
    application = _Record(times_s, np.arange(1, times_s.size + 1), complete)
    agree = abs(len(arrivals) - times_s.size) <= DATAGRAM_SLACK
    agreement = _agree(evidence, application, capture, None, agree)
    gap = longest_gap(times_s, evidence.events_s, complete, evidence.ended_s)
    last, highest = jitter_ms(received["sent_s"].to_numpy(np.float64), times_s) if times_s.size else (None, None)
    mobile = evidence.packets(MOBILE)
    addresses = run.addresses(receiving)
    over_air = datagram_arrivals(mobile, addresses) if not mobile.empty else mobile
    out: Json = {
        "survived": complete,
        "hash_ok": None,
        **_gap_fields(gap),
        "voice": {
            "sent": sent,
            "received": len(received),
            "loss": round(1 - len(received) / max(1, sent), 6),
            **_rounded({"jitter_ms": last, "jitter_max_ms": highest}),
        },
        "bytes_per_path": _per_path(run, over_air),
        "agreement": agreement,
    }
    return out, build_series(run, times_s, application.totals, "packets", over_air, gap, evidence.ended_s)


def _rpc(evidence: _Evidence) -> tuple[Json, Series | None]:
    """Request/response: latency quantiles, unanswered requests, longest stall between two answers."""
    run = evidence.run
    rows, received = _samples(evidence)
    times_s = received["received_s"].to_numpy(np.float64)
    answered = np.arange(1, times_s.size + 1)
    summaries = load_workload(run, "receiver"), load_workload(run, "sender")
    pending = int((summaries[0] or {}).get("unanswered_since_mono_ns") is not None)
    complete = bool((summaries[0] or {}).get("complete", len(rows) == len(received))) and not pending
    stream, figures, packets = _tcp_side(evidence, *summaries)
    capture = _from_stream(evidence, stream, complete)
    application = _Record(times_s, answered, complete)
    agreement = _agree(evidence, application, capture, stream, bytes_agree=True)
    _check_span(evidence, application)
    gap = longest_gap(times_s, evidence.events_s, complete, evidence.ended_s)
    latency = (received["received_s"] - received["sent_s"]).to_numpy(np.float64) * 1e3
    quantiles = np.quantile(latency, (0.5, 0.99, 1.0)).tolist() if latency.size else [None] * 3
    out: Json = {
        "survived": _arrives_after(times_s, evidence.events_s) and (gap.gap_ms is not None),
        "hash_ok": None,
        **_gap_fields(gap),
        "rpc": {
            "requests": len(rows) + pending,
            "answered": len(received),
            **_rounded(dict(zip(("latency_p50_ms", "latency_p99_ms", "latency_max_ms"), quantiles, strict=True))),
            "longest_stall_ms": _shown(gap),
        },
        **figures,
        "agreement": agreement,
    }
    return out, build_series(run, times_s, answered, "answers", packets, gap, evidence.ended_s)


def _unknown(evidence: _Evidence) -> tuple[Json, Series | None]:
    """A workload this analysis does not know is not judged."""
    evidence.problems.append(f"workload {evidence.run.workload!r} is unknown to this analysis")
    return {}, None


_WORKLOADS = {"bulk": _bulk, "iperf3": _iperf3, "voice": _voice, "rpc": _rpc}
