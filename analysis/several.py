"""A workload of several flows: every flow is measured as if it were alone, then what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.contest import CONTEST, contest_facts
from analysis.evidence import MOBILE, Evidence
from analysis.measures.paths import path_of
from analysis.measures.ways import phases_of
from analysis.packets import schema
from analysis.rundir import InputError, Json, Run, field, read_json
from analysis.series import Series

Measure = Callable[[Evidence], tuple[Json, Series | None]]
_SUMS = ("goodput_mbit", "goodput_before_mbit", "goodput_during_mbit", "goodput_after_mbit", "bytes_total",
         "retransmitted_bytes", "reinjected_bytes")  # fmt: skip


def flows_of(run: Run) -> dict[str, Run]:
    """The flows of a run by name, each as a run of its own: its records, its kind, its server's port. Raises InputError."""
    where = run.records / "flows.json"
    found = {}
    for index, row in enumerate(field(read_json(where), "flows", list, where)):
        place = f"{where}: flows[{index}]"
        kind, transport = field(row, "kind", str, place), field(row, "transport", str, place)
        parameters = {**run.manifest["workload"].get("parameters", {}), **field(row, "parameters", dict, place)}
        name = field(row, "name", str, place)
        found[name] = replace(
            run,
            manifest={**run.manifest, "workload": {**run.manifest["workload"], "kind": kind, "parameters": parameters}},
            workload_kind=kind,
            workload_transport=transport,
            transport=_wire(row, place) or run.transport,
            folder=f"{run.folder}/{name}",
            port=field(row, "port", int, place),
        )
    return found


def _wire(row: Json, place: str) -> str | None:
    """What a TCP flow is on the wire where it is not the mechanism's; older files do not say it. Raises InputError."""
    wire = row.get("wire")
    if wire not in (None, "tcp", "mptcp"):
        raise InputError(f"{place}: wire is {wire!r}: it must be tcp or mptcp")
    return wire


def measure(evidence: Evidence, by_kind: Mapping[str, Measure]) -> tuple[Json, Series | None]:
    """Metrics of all flows (`flows`, by name), and of them together: all survived, the longest gap, rates and bytes added."""
    results: dict[str, Json] = {}
    drawn: dict[str, Series] = {}
    for name, run in flows_of(evidence.run).items():
        own = replace(evidence, run=run, problems=[], notes=[])
        measured, series = by_kind[run.workload_kind](own)
        evidence.problems += [f"{name}: {problem}" for problem in own.problems]
        evidence.notes += [f"{name}: {note}" for note in own.notes]
        results[name] = {"kind": run.workload_kind, **measured, "phases": _phases(own)}
        drawn |= {name: series} if series is not None else {}
    worst = max(results.values(), key=_gap_key)
    per_path: dict[str, int] = {}
    for row in results.values():
        for path, count in row["bytes_per_path"].items():
            per_path[path] = per_path.get(path, 0) + count
    hashes = [row["hash_ok"] for row in results.values() if row["hash_ok"] is not None]
    agreements = {name: row["agreement"] for name, row in results.items()}
    return {
        "survived": all(row["survived"] for row in results.values()),
        "hash_ok": all(hashes) if hashes else None,
        **{name: worst[name] for name in ("gap_ms", "gap_at_least_ms", "gap_start_s")},
        **{name: _sum(results, name) for name in _SUMS},
        "bytes_per_path": per_path,
        "path_share": {path: round(count / max(1, sum(per_path.values())), 4) for path, count in per_path.items()},
        "flows": results,
        "agreement": {
            **(worst["agreement"] or {}),
            "ok": all(a["ok"] for a in agreements.values()),
            "problems": [f"{name}: {problem}" for name, a in agreements.items() for problem in a["problems"]],
            "flows": agreements,
        },
        "error": next((row["error"] for row in results.values() if row.get("error")), None),
        **(contest_facts(drawn) if evidence.run.workload_kind == CONTEST else {}),
    }, _together(list(drawn.values()))


def _gap_key(row: Json) -> float:
    """A flow that did not recover is the worst."""
    return float("inf") if row["gap_ms"] is None else float(row["gap_ms"])


def _sum(results: Mapping[str, Json], name: str) -> Any:
    known = [row[name] for row in results.values() if row.get(name) is not None]
    return round(sum(known), 4) if known else None


def _phases(evidence: Evidence) -> list[Json]:
    """Paths of the flow's packets at the mobile node, between the events."""
    run = evidence.run
    table, _ = evidence.packets(MOBILE)
    wanted = schema.UDP if run.workload_transport == "udp" else schema.TCP
    mine = (table["protocol"] == wanted) & ((table["sport"] == run.port) | (table["dport"] == run.port))
    rows = np.flatnonzero(mine & (table["problems"] & schema.UNUSABLE == 0))
    path, names = path_of(table, rows, {path.interface: path.name for path in run.paths})
    return phases_of(
        evidence.seconds(table["time_ns"][rows]),
        table["sport"][rows] == run.port,
        path,
        names,
        table["tunnel"][rows] > 0,
        evidence.events_s,
        _planned_end_s(evidence),
    )


def _planned_end_s(evidence: Evidence) -> float:
    """When the flows were to end: what follows is left over."""
    planned = evidence.run.manifest["workload"].get("parameters", {}).get("duration_s")
    return min(float(planned), evidence.ended_s) if isinstance(planned, (int, float)) else evidence.ended_s


def _together(drawn: list[Series]) -> Series | None:
    """One series for all flows: rates per path added, new data of all in order of time (bytes where some flow has bytes)."""
    if not drawn:
        return None
    first = min(drawn, key=lambda series: series.start_s)
    width = max(series.end_s for series in drawn) - first.start_s
    bins = max(len(rates) for series in drawn for rates in series.paths.values())
    step_s = (first.end_s - first.start_s) / max(1, len(next(iter(first.paths.values()))))
    bins = max(bins, round(width / step_s))
    paths: dict[str, Any] = {name: np.zeros(bins) for series in drawn for name in series.paths}
    for series in drawn:
        offset = round((series.start_s - first.start_s) / step_s)
        for name, rates in series.paths.items():
            paths[name][offset : offset + len(rates)] += rates[: bins - offset]
    unit = "bytes" if any(series.unit == "bytes" for series in drawn) else drawn[0].unit
    counted = [series for series in drawn if series.unit == unit]
    times_s = np.concatenate([series.times_s for series in counted])
    grown = np.concatenate([np.diff(series.totals, prepend=0) for series in counted])
    order = np.argsort(times_s, kind="stable")
    worst = max(drawn, key=lambda series: 0.0 if series.gap is None else (series.gap[1] or float("inf")) - series.gap[0])
    return Series(
        start_s=first.start_s,
        end_s=round(first.start_s + bins * step_s, 3),
        paths={name: [round(float(v), 3) for v in rates] for name, rates in paths.items()},
        times_s=[float(t) for t in times_s[order]],
        totals=[int(v) for v in np.cumsum(grown[order])],
        unit=unit,
        gap=worst.gap,
        events=first.events,
    )
