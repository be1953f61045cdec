"""A campaign -> one self-contained HTML file, and the figures beside it.

The file needs no network and no other file; it only links (relatively) to the raw data of each run.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from analysis.charts.interactive import script_hash, script_text
from analysis.claims import Claim
from analysis.evidence import EVENT_LATE_LIMIT_MS, RELAY_LATE_LIMIT_US
from analysis.files import write_atomically
from analysis.html import Picture, environment, keep
from analysis.measures.gap import GAP_TOLERANCE_MS, GAP_TOLERANCE_SHARE, LEAD_S
from analysis.references import Reference, load_references
from analysis.report_sections import draw_runs, gap_pictures, scenario_sections
from analysis.results import WORDS, Result, Row, gap_spread, number_text, workloads_of
from analysis.rundir import DEFAULT_RECOVERY_LIMIT_S, Campaign
from analysis.topology import topology_figure

CONTROL = "congestion_control"


def write_report(campaign: Campaign, results: list[Result], matrix: list[Row], claims: list[Claim], out: Path) -> Path:
    """Draw the figures, write them below `<campaign>.figures/` and `<run>/figures/`, and write the report to `out`."""
    folder = campaign.path.with_name(f"{campaign.path.stem}.figures")
    workloads = workloads_of(campaign, results) or {"": ""}
    gaps = gap_pictures(campaign, matrix, workloads, folder)
    sections = scenario_sections(campaign, matrix, workloads, folder)
    pictures = [gap.picture for gap in gaps] + [picture for section in sections for picture in section.pictures]
    draw_runs(results, sections, sum(len(picture.uri) for picture in pictures), out.parent)
    scripted = any(section.plots for section in sections)
    html = (
        environment()
        .get_template("report.html.j2")
        .render(
            campaign=campaign,
            sentence=summary_sentence(results, claims),
            matrix=matrix,
            words=WORDS,
            topology=_topology(results, folder),
            claims=claims,
            references=load_references(),
            cited=_cited(claims),
            labels=dict(campaign.mechanisms) | dict(campaign.scenarios),
            gaps=gaps,
            sections=sections,
            runs=[_run_row(r, out.parent, len(workloads) > 1) for r in _in_order(campaign, results, list(workloads))],
            about=_about(campaign, results),
            script=Markup(script_text()) if scripted else "",
            script_hash=script_hash() if scripted else "",
            limits={
                "recovery_s": _recovery_text(results),
                "lead_s": LEAD_S,
                "tolerance_ms": GAP_TOLERANCE_MS,
                "tolerance_percent": GAP_TOLERANCE_SHARE * 100,
                "relay_us": RELAY_LATE_LIMIT_US,
                "event_ms": EVENT_LATE_LIMIT_MS,
            },
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html)
    return out


def _recovery_text(results: list[Result]) -> str:
    """The recovery limit of the runs in s; all of them when they differ."""
    limits = sorted({r.run.recovery_limit_s for r in results if r.run}) or [DEFAULT_RECOVERY_LIMIT_S]
    return " or ".join(f"{limit:g}" for limit in limits)


def _topology(results: list[Result], folder: Path) -> Picture | None:
    """The topology of the first run that recorded one."""
    run = next((r.run for r in results if r.run is not None and r.run.manifest.get("graph")), None)
    if run is None:
        return None
    graph = run.manifest["graph"]
    figure = topology_figure(graph, {path.interface: path.name for path in run.paths})
    nodes = ", ".join(str(node["name"]) for node in graph.get("nodes", []))
    return keep(figure, folder / "topology", f"Topology with the nodes {nodes}")


def summary_sentence(results: list[Result], claims: list[Claim]) -> str:
    """One plain sentence on runs and claims."""
    count: dict[str, int] = {}
    for result in results:
        verdict = str(result.metrics.get("verdict"))
        count[verdict] = count.get(verdict, 0) + 1
    phrases = {
        "survived": "kept the connection alive",
        "broken": "lost it",
        "not judged": "could not be judged",
        "unsupported": "could not run on this machine",
        "failed": "failed",
        "interrupted": "were cut short",
    }
    parts = [f"{count[verdict]} {text}" for verdict, text in phrases.items() if verdict in count]
    text = f"Of {len(results)} runs, {_listed(parts)}." if results else "There are no runs."
    if claims:
        hold = sum(claim.verdict == "holds" for claim in claims)
        text += f" {hold} of {len(claims)} claims {'holds' if hold == 1 else 'hold'}"
        others = [f"{n} {v}" for v in ("fails", "not judged", "unsupported") if (n := _number(claims, v))]
        text += f" ({_listed(others)})." if others else "."
    return text


def _number(claims: list[Claim], verdict: str) -> int:
    return sum(claim.verdict == verdict for claim in claims)


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _cited(claims: list[Claim]) -> list[Reference | str]:
    """Works the claims cite, in order of first use; a key without an entry stays a key."""
    known = load_references()
    keys = dict.fromkeys(claim.source_key for claim in claims if claim.source_key)
    return [known.get(key, key) for key in keys]


def _in_order(campaign: Campaign, results: list[Result], workloads: list[str]) -> list[Result]:
    """Runs by scenario, workload, mechanism, repetition; those without a folder last."""
    scenarios = [name for name, _ in campaign.scenarios]
    mechanisms = [name for name, _ in campaign.mechanisms]

    def place(result: Result) -> tuple[int, ...]:
        if result.run is None or result.run.scenario not in scenarios or result.run.mechanism not in mechanisms:
            return len(scenarios), 0, 0, 0
        run = result.run
        order = scenarios.index(run.scenario), workloads.index(run.workload), mechanisms.index(run.mechanism)
        return *order, run.repetition

    return sorted(results, key=place)


RAW_FILES = ("manifest.json", "timeline.jsonl", "metrics.json")
FIGURES = tuple(f"figures/{name}.{kind}" for name in ("goodput", "dsn", "numbers") for kind in ("png", "svg"))


def _run_row(result: Result, base: Path, several_workloads: bool) -> dict[str, Any]:
    """What the table of runs shows of one run."""
    run, m = result.run, result.metrics
    links = []
    if run is not None:
        relative = os.path.relpath(run.path, base)
        files = [name for name in RAW_FILES if (run.path / name).exists()]
        files += [entry.file for entry in run.captures if (run.path / entry.file).exists()]
        files += [name for name in FIGURES if (run.path / name).exists()]
        files += [f"figures/{file.name}" for file in sorted((run.path / "figures").glob("event-*.png"))]
        links = [(Path(name).name, quote(f"{relative}/{name}")) for name in files]
    spread = gap_spread([result]) if result.metrics.get("state") == "complete" else gap_spread([])
    verdict = str(m.get("verdict"))
    return {
        "id": result.run_id,
        "mechanism": (run.mechanism_label + (f" · {run.workload_label}" if several_workloads else "")) if run else "",
        "scenario": run.scenario_label if run else "",
        "repetition": run.repetition if run else "",
        "seed": run.seed if run else "",
        "verdict": verdict,
        "symbol": WORDS.get(verdict, ("?", ""))[0],
        "why": result.why_not,
        "gap": spread.median_text("ms") if spread.count else "–",
        "start": m.get("gap_start_s"),
        "metrics": m,
        "agreement": m.get("agreement"),
        "quality": ". ".join(filter(None, (m.get("remark"), _quality(m)))),
        "dropped": sum(c.get("dropped") or 0 for c in m.get("captures", [])) if m.get("captures") else None,
        "resent": None if m.get("retransmitted_bytes") is None else m["retransmitted_bytes"] + (m.get("reinjected_bytes") or 0),
        "phases": [_phases(handover) for handover in (m.get("stream") or {}).get("handovers", [])],
        "links": links,
    }


def _phases(handover: dict[str, Any]) -> str:
    """How the silence after an event divides: "After 5.00 s: 389 ms to detect + 236 ms to resume"."""
    begin = f"After {handover['event_s']:.2f} s: "
    if handover["at_least_ms"] is not None:
        return f"{begin}no new data for at least {number_text(handover['at_least_ms'] / 1e3, 's')}"
    words = (("detect", "to detect"), ("register", "to register"), ("join", "to join"), ("resume", "to resume"))
    parts = [f"{number_text(handover[f'{name}_ms'])} ms {text}" for name, text in words if handover[f"{name}_ms"] is not None]
    return begin + (" + ".join(parts) if handover["interruption_ms"] is not None and parts else "no interruption")


def _quality(metrics: dict[str, Any]) -> str:
    """Figures of voice and request/response workloads in a few words."""
    if voice := metrics.get("voice"):
        loss = "loss unknown" if voice["loss"] is None else f"loss {voice['loss'] * 100:.2f} %"
        return f"{loss}, jitter {number_text(voice['jitter_ms'] or 0, 'ms')}"
    if rpc := metrics.get("rpc"):
        p50, p99 = (rpc.get(f"latency_{q}_ms") for q in ("p50", "p99"))
        if p50 is not None and p99 is not None:
            return f"answers {rpc['answered']}/{rpc['requests']}, p50 {number_text(p50)}, p99 {number_text(p99, 'ms')}"
    return ""


def _flat(value: Any) -> str:
    """A value of a manifest in words: {"mn": {"congestion_control": "cubic", ...}} -> "mn cubic"."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v.get(CONTROL, v) if isinstance(v, dict) else v)}" for k, v in value.items())
    return str(value)


def _about(campaign: Campaign, results: list[Result]) -> list[tuple[str, str]]:
    """Versions, machine, seed and command, from the manifests; differing values are all listed."""
    manifests = [r.run.manifest for r in results if r.run is not None]

    def every(*names: str) -> str:
        found: dict[str, None] = {}
        for manifest in manifests:
            value: Any = manifest
            for name in names:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found[_flat(value)] = None
        return ", ".join(found)

    tool = f"{every('roamlab', 'version')} ({every('roamlab', 'commit') or 'no commit'})"
    if "True" in every("roamlab", "dirty"):
        tool += ", with uncommitted changes"
    programs: dict[str, dict[str, None]] = {}
    for manifest in manifests:
        for name, version in (manifest.get("versions") or {}).items():
            programs.setdefault(str(name), {})[str(version)] = None
    command = campaign.data.get("command")
    rows = [
        ("roamlab", tool),
        ("command", shlex.join(str(word) for word in command) if isinstance(command, list) else ""),
        ("campaign", f"{campaign.name} ({campaign.state})"),
        ("seeds", every("seed")),
        ("kernel", every("kernel")),
        ("machine", every("machine")),
        ("link emulation", every("relay", "backend")),
        ("congestion control", every(CONTROL)),
        ("programs", ", ".join(f"{name} {' / '.join(versions)}" for name, versions in programs.items())),
    ]
    return [(name, value) for name, value in rows if value]
