"""A run directory -> `metrics.json`: what happened to the connection, and whether the record can be trusted.

Every figure is taken from the application's record and again from the captures. Where the two disagree, or where a
capture or the link emulation was not sound, the run is not judged and says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.contact import contact_facts
from analysis.evidence import (
    MOBILE,
    Evidence,
    Record,
    check_span,
    compare_records,
    crashed,
    ends_of,
    gather,
    relay_late_us,
    shown_ms,
    sides,
)
from analysis.files import write_atomically
from analysis.measures import measure_stream, observe
from analysis.measures.datagrams import jitter_ms
from analysis.measures.gap import Floats, Gap, longest_gap
from analysis.measures.goodput import phase_rates
from analysis.movement import movement_facts
from analysis.packets.selection import choose
from analysis.registered import registration_facts
from analysis.routes import route_facts
from analysis.rundir import InputError, Json, Run, load_columns, load_run, load_workload
from analysis.series import Series, build_series, read_series, write_series
from analysis.several import flows_of
from analysis.several import measure as measure_flows
from analysis.streams import Stream, datagram_arrivals, find_stream, trace_stream

METRICS_VERSION = 13
"""Raised whenever the meaning of a figure changes: older metrics.json files are then computed again."""
SENDER_RECORD = "sender.json"
DATAGRAM_SLACK = 2
"""Datagrams that may arrive in the capture while the receiver is closing."""
IPERF_SLACK_SHARE, IPERF_SLACK_BYTES = 0.01, 65536
"""iperf3 counts at its own interval ends; cookie and last interval may differ."""


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
        kept = read_series(series)
        current = isinstance(metrics, dict) and metrics.get("version") == METRICS_VERSION
        if current and (kept is not None or not metrics.get("judged")):
            return metrics, kept
    metrics, computed = evaluate(run)
    write_atomically(stored, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    if computed is not None:
        series.parent.mkdir(exist_ok=True)
        write_series(series, computed)
    return metrics, computed


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
        "workload_kind": run.workload_kind,
        "repetition": run.repetition,
        "seed": run.seed,
        "verdict": run.state,
        "judged": False,
        "why_not": run.reason or f"the run is {run.state}",
    }
    if run.state != "complete":
        return out, None
    evidence = gather(run)
    missing = [name for name in _RECORDS.get(run.workload_kind, ()) if not (run.records / name).exists()]
    remark = None
    if missing and crashed(run):
        remark = f"no record of the {'sender' if missing == [SENDER_RECORD] else 'receiver'}"
    elif missing:
        evidence.problems += [f"workload/{name}: missing" for name in missing]
    if set(missing) <= {SENDER_RECORD}:
        measured, series = _WORKLOADS.get(run.workload_kind, _unknown)(evidence)
    else:
        measured, series = _without_record(evidence)
    out |= measured
    registered = registration_facts(evidence)
    if registered is not None:
        out["mobileip"] = registered
    out |= route_facts(evidence, series)
    out |= contact_facts(evidence)
    if run.manifest["mechanism"].get("falls_back") and out["contact"] and not out["contact"]["mptcp"]:
        remark = f"plain TCP: {out['contact']['why_tcp']}" + (f"; {remark}" if remark else "")
    out["movement"] = movement_facts(evidence, series)
    captures_complete = all(c["complete"] for c in evidence.capture_notes) and bool(evidence.capture_notes)
    out |= {
        "captures_complete": captures_complete,
        "captures": evidence.capture_notes,
        "relay_late_p99_us": relay_late_us(run),
        "events_s": [round(t, 6) for t in evidence.events_s],
        "notes": evidence.notes,
        "remark": remark,
        "judged": not evidence.problems,
        "why_not": "; ".join(evidence.problems) or None,
    }
    survived = out.get("survived")
    out["verdict"] = "not judged" if evidence.problems else "survived" if survived else "broken"
    return out, series


def _trace(evidence: Evidence, node: str, summary: Json | None, towards: bool) -> Stream | None:
    """The workload's stream in the captures of a node; `summary` is what the application on that node wrote."""
    rec, devices = evidence.reconstruction(node)
    return trace_stream(rec, devices, *ends_of(summary), evidence.run.addresses(node), towards)


def _gap_fields(gap: Gap) -> Json:
    rounded = [None if v is None else round(v, 3) for v in (gap.gap_ms, gap.at_least_ms, gap.start_s)]
    return dict(zip(("gap_ms", "gap_at_least_ms", "gap_start_s"), rounded, strict=True))


def _arrives_after(evidence: Evidence, times_s: Floats) -> bool:
    """New data within the recovery limit after the last event (always true without events)."""
    if not evidence.events_s:
        return bool(times_s.size)
    last_s = evidence.events_s[-1]
    return bool(((times_s > last_s) & (times_s <= last_s + evidence.run.recovery_limit_s)).any())


def _gap(evidence: Evidence, times_s: Floats, complete: bool) -> Gap:
    return longest_gap(times_s, evidence.events_s, complete, evidence.ended_s, evidence.run.recovery_limit_s)


def _rates(evidence: Evidence, record: Record) -> Json:
    limits = evidence.events_s, record.complete, evidence.ended_s, evidence.run.recovery_limit_s
    return _rounded(phase_rates(record.times_s, record.totals, *limits))


def _per_path(run: Run, packets: pd.DataFrame) -> Json:
    """Payload bytes per path name; an interface that belongs to no path keeps its own name."""
    names = {path.interface: path.name for path in run.paths}
    out: Json = {path.name: 0 for path in run.paths}
    if not packets.empty:
        for device, count in packets.groupby("device")["payload_bytes"].sum().items():
            name = names.get(str(device), str(device))
            out[name] = out.get(name, 0) + int(count)
    return out


def _tcp_side(evidence: Evidence, receiver: Json | None, sender: Json | None) -> tuple[Stream | None, Json, Any]:
    """Receiver's stream, figures that need the sender's and the mobile node's captures, and the latter's packets."""
    receiving, sending = sides(evidence.run)
    arrived = _trace(evidence, receiving, receiver, towards=True)
    sent = _trace(evidence, sending, sender, towards=False)
    if arrived is not None and not arrived.transport == evidence.run.transport == "tcp":  # TCP offers no MP_CAPABLE
        evidence.notes += arrived.notes
    at_mobile = arrived if receiving == MOBILE else sent
    packets = at_mobile.packets if at_mobile is not None else pd.DataFrame()
    measured = _measures(evidence, receiver, sender)
    per_path = _per_path(evidence.run, packets)
    figures: Json = {
        "transport": arrived.transport if arrived is not None else None,
        "bytes_per_path": per_path,
        "path_share": {k: round(v / max(1, sum(per_path.values())), 4) for k, v in per_path.items()},
        "retransmitted_bytes": measured.get("retransmitted_bytes"),
        "reinjected_bytes": measured.get("reinjected_bytes"),
        "retransmissions_seen_at": (sending if sent is not None else receiving) if measured else None,
        "stream": measured or None,
        "subflows": list(arrived.subflows) if arrived is not None else [],
    }
    return arrived, figures, packets


def _measures(evidence: Evidence, receiver: Json | None, sender: Json | None) -> Json:
    """Every metric of docs/metrics.md for the workload's stream in the receiver's captures; losses by the sender's, too."""
    run = evidence.run
    receiving, sending = sides(run)
    rec, _ = evidence.reconstruction(receiving)
    found = find_stream(rec, *ends_of(receiver), run.addresses(receiving), True)
    if found is None:
        return {}
    origin, _ = evidence.reconstruction(sending)
    start = find_stream(origin, *ends_of(sender), run.addresses(sending), False)
    return measure_stream(
        rec,
        *found,
        events_s=evidence.events_s,
        t0_ns=run.t0_wall_ns,
        sent=None if start is None else observe(origin, *start),
        ended_s=evidence.ended_s,
        recovery_s=run.recovery_limit_s,
        paths={path.interface: path.name for path in run.paths} if receiving == MOBILE else None,
    )


def _from_stream(evidence: Evidence, stream: Stream | None, complete: bool) -> Record | None:
    if stream is None:
        return None
    return Record(evidence.seconds(stream.time_ns), stream.delivered_bytes, complete)


def _rounded(values: dict[str, float | None]) -> Json:
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def _bulk(evidence: Evidence) -> tuple[Json, Series | None]:
    """Verified bulk stream: bytes and hash from the applications, progress.csv against the receiver's captures."""
    run = evidence.run
    receiver, sender = load_workload(run, "receiver"), load_workload(run, "sender")
    assert receiver is not None  # see _RECORDS
    rows = load_columns(run.records / "progress.csv", ("t_mono_ns", "bytes"))
    totals = rows["bytes"].to_numpy(np.float64)
    grew = np.diff(totals, prepend=0.0) > 0
    complete = bool(receiver.get("complete"))
    application = Record(evidence.mono_seconds(rows["t_mono_ns"])[grew], totals[grew].astype(np.int64), complete)
    stream, figures, packets = _tcp_side(evidence, receiver, sender)
    capture = _from_stream(evidence, stream, complete)
    counted = int(receiver.get("bytes") or 0)
    # A connection that was cut may have delivered what it could not acknowledge, or lost what it had acknowledged.
    on_wire = counted + int(receiver.get("preface_bytes") or 0)
    agree = stream is not None and (on_wire == stream.total_bytes if complete else counted <= stream.arrived_bytes)
    if application.totals.size and int(application.totals[-1]) != counted:
        evidence.problems.append(f"progress.csv ends at {application.totals[-1]} bytes, receiver.json says {counted}")
    agreement = compare_records(evidence, application, capture, stream, agree)
    check_span(evidence, application)
    origin = sender or {}
    hash_ok = complete and bool(origin.get("complete")) and receiver.get("sha256") == origin.get("sha256")
    gap = _gap(evidence, application.times_s, complete)
    out: Json = {
        "survived": hash_ok and _arrives_after(evidence, application.times_s),
        "hash_ok": hash_ok,
        **_gap_fields(gap),
        **_rates(evidence, application),
        "bytes_total": counted,
        **figures,
        "agreement": agreement,
        "error": receiver.get("error") or origin.get("error"),
    }
    series = build_series(run, application.times_s, application.totals, "bytes", packets, gap, evidence.ended_s)
    return out, series


def _iperf3(evidence: Evidence) -> tuple[Json, Series | None]:
    """iperf3: its own JSON says whether it ended well, everything in time comes from the captures."""
    run = evidence.run
    report = load_workload(run, "iperf3") or {}
    complete = bool(report.get("end")) and not report.get("error")
    end = report.get("end") or {}
    counted = int((end.get("sum_received") or end.get("sum") or {}).get("bytes") or 0)
    stream, figures, packets = _tcp_side(evidence, None, None)
    capture = _from_stream(evidence, stream, complete)
    seen = stream.total_bytes if stream is not None else 0
    # When its time is over iperf3 neither counts nor hands over what is still under way: between received and sent.
    sent = max(counted, int((end.get("sum_sent") or {}).get("bytes") or 0))
    slack = max(IPERF_SLACK_BYTES, IPERF_SLACK_SHARE * seen)
    agree = counted - slack <= seen <= sent + slack or not complete
    agreement = compare_records(evidence, None, capture, stream, agree, counted)
    record = capture or Record(np.zeros(0), np.zeros(0, np.int64), complete)
    check_span(evidence, record)
    gap = _gap(evidence, record.times_s, complete)
    out: Json = {
        "survived": complete and _arrives_after(evidence, record.times_s),
        "hash_ok": None,
        **_gap_fields(gap),
        **_rates(evidence, record),
        "bytes_total": counted,
        **figures,
        "agreement": agreement,
        "error": report.get("error"),
    }
    return out, build_series(run, record.times_s, record.totals, "bytes", packets, gap, evidence.ended_s)


def _samples(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of samples.csv (one per sequence number, times in s) and those of them that were received, by arrival."""
    table = load_columns(evidence.run.records / "samples.csv", ("seq", "sent_mono_ns", "received_mono_ns"))
    samples = pd.DataFrame(
        {
            "seq": table["seq"],
            "sent_s": evidence.mono_seconds(table["sent_mono_ns"]),
            "received_s": evidence.mono_seconds(table["received_mono_ns"]),
        }
    )
    samples = samples.sort_values("received_s").drop_duplicates("seq")
    return samples.sort_values("seq"), samples.dropna(subset=["received_s"]).sort_values("received_s")


def _datagrams(evidence: Evidence, node: str) -> pd.DataFrame:
    """The workload's datagrams towards the receiver, in the captures of a node."""
    table, devices = evidence.packets(node)
    table = choose(table, None, evidence.run.port)
    return datagram_arrivals(table, devices, evidence.run.addresses(sides(evidence.run)[0]))


def _from_datagrams(evidence: Evidence, arrivals: pd.DataFrame, complete: bool) -> Record | None:
    if arrivals.empty:
        return None
    return Record(evidence.seconds(arrivals["time_ns"]), np.arange(1, len(arrivals) + 1), complete)


def _voice(evidence: Evidence) -> tuple[Json, Series | None]:
    """Constant-rate UDP: loss, jitter (RFC 3550), longest gap."""
    run = evidence.run
    rows, received = _samples(evidence)
    sender = load_workload(run, "sender")
    sent = None if sender is None else max(len(rows), int(sender.get("packets") or 0))
    times_s = received["received_s"].to_numpy(np.float64)
    complete = bool(times_s.size) and _arrives_after(evidence, times_s)
    receiving, _ = sides(run)
    arrivals = _datagrams(evidence, receiving)
    capture = _from_datagrams(evidence, arrivals, complete)
    application = Record(times_s, np.arange(1, times_s.size + 1), complete)
    agree = abs(len(arrivals) - times_s.size) <= DATAGRAM_SLACK
    agreement = compare_records(evidence, application, capture, None, agree)
    gap = _gap(evidence, times_s, complete)
    last, highest = jitter_ms(received["sent_s"].to_numpy(np.float64), times_s) if times_s.size else (None, None)
    over_air = _datagrams(evidence, MOBILE)
    out: Json = {
        "survived": complete,
        "hash_ok": None,
        **_gap_fields(gap),
        "voice": {
            "sent": sent,
            "received": len(received),
            "loss": None if sent is None else round(1 - len(received) / max(1, sent), 6),
            **_rounded({"jitter_ms": last, "jitter_max_ms": highest}),
        },
        "bytes_per_path": _per_path(run, over_air),
        "agreement": agreement,
    }
    return out, build_series(run, times_s, application.totals, "packets", over_air, gap, evidence.ended_s)


def _rpc(evidence: Evidence) -> tuple[Json, Series | None]:
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
    size = run.manifest["workload"].get("parameters", {}).get("response_bytes")
    if isinstance(size, bool) or not isinstance(size, (int, float)) or size <= 0:
        raise InputError(f"{run.path / 'manifest.json'}: workload.parameters.response_bytes is {size!r}: it must be a number")
    application = Record(times_s, answered * int(size), complete)
    counted = times_s.size * int(size)
    # As for a bulk stream; of an answer that was cut the captures may show a part that the application never took.
    agree = stream is not None and (counted == stream.total_bytes if complete else counted <= stream.arrived_bytes)
    responses = (summaries[0] or {}).get("responses", times_s.size)
    if responses != times_s.size:
        evidence.problems.append(f"samples.csv has {times_s.size} answers, receiver.json says {responses}")
    agreement = compare_records(evidence, application, capture, stream, agree, counted)
    check_span(evidence, application)
    gap = _gap(evidence, times_s, complete)
    latency = (received["received_s"] - received["sent_s"]).to_numpy(np.float64) * 1e3
    quantiles = np.quantile(latency, (0.5, 0.99, 1.0)).tolist() if latency.size else [None] * 3
    out: Json = {
        "survived": _arrives_after(evidence, times_s) and (gap.gap_ms is not None),
        "hash_ok": None,
        **_gap_fields(gap),
        "rpc": {
            "requests": len(rows) + pending,
            "answered": len(received),
            **_rounded(dict(zip(("latency_p50_ms", "latency_p99_ms", "latency_max_ms"), quantiles, strict=True))),
            "longest_stall_ms": shown_ms(gap),
        },
        **figures,
        "agreement": agreement,
    }
    return out, build_series(run, times_s, answered, "answers", packets, gap, evidence.ended_s)


def _without_record(evidence: Evidence) -> tuple[Json, Series | None]:
    """The receiver left no record: it is gone and has not survived; how long data reached it the captures show."""
    run = evidence.run
    if run.workload_transport == "udp":
        stream, figures, capture = None, {}, _from_datagrams(evidence, _datagrams(evidence, sides(run)[0]), complete=False)
        packets, unit = _datagrams(evidence, MOBILE), "packets"
        figures["bytes_per_path"] = _per_path(run, packets)
    else:
        stream, figures, packets = _tcp_side(evidence, load_workload(run, "receiver"), load_workload(run, "sender"))
        capture, unit = _from_stream(evidence, stream, complete=False), "bytes"
    compare_records(evidence, None, capture, stream, bytes_agree=True)
    record = capture or Record(np.zeros(0), np.zeros(0, np.int64), False)
    dead_s = min((e.at_s for e in run.events if (e.kind, e.target) == ("node-crash", sides(run)[0])), default=np.inf)
    taken = record.times_s <= dead_s  # what the network still brings to a dead host nobody receives
    record = Record(record.times_s[taken], record.totals[taken], False)
    gap = _gap(evidence, record.times_s, complete=False)
    out: Json = {
        "survived": False,
        "hash_ok": False if run.workload_kind == "bulk" else None,
        **_gap_fields(gap),
        **(_rates(evidence, record) if unit == "bytes" else {}),
        **figures,
        "agreement": None,
    }
    return out, build_series(run, record.times_s, record.totals, unit, packets, gap, evidence.ended_s)


def _unknown(evidence: Evidence) -> tuple[Json, Series | None]:
    """A workload this analysis does not know is not judged."""
    evidence.problems.append(f"workload {evidence.run.workload_kind!r} is unknown to this analysis")
    return {}, None


def _mix(evidence: Evidence) -> tuple[Json, Series | None]:
    """Several flows, each by the measures of its own kind."""
    missing = [
        f"{name}/{record}"
        for name, run in flows_of(evidence.run).items()
        for record in _RECORDS[run.workload_kind]
        if not (run.records / record).exists()
    ]
    if missing:
        evidence.problems += [f"workload/{name}: missing" for name in missing]
        return {}, None
    return measure_flows(evidence, _WORKLOADS)


_RECORDS = {
    "mix": ("flows.json",),
    "contest": ("flows.json",),
    "again": ("flows.json",),
    "bulk": ("receiver.json", "progress.csv", SENDER_RECORD),
    "iperf3": ("iperf3.json",),
    "voice": ("samples.csv", SENDER_RECORD),
    "rpc": ("receiver.json", "samples.csv", SENDER_RECORD),
}
"""What the programs of a workload leave behind, all but one of them the receiver's."""
_WORKLOADS = {"bulk": _bulk, "iperf3": _iperf3, "voice": _voice, "rpc": _rpc, "mix": _mix, "contest": _mix, "again": _mix}
