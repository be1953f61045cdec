"""A campaign -> one self-contained HTML file, and the figures beside it.

The file needs no network and no other file; it only links (relatively) to the raw data of each run.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from analysis.claims import Claim
from analysis.evidence import EVENT_LATE_LIMIT_MS, RELAY_LATE_LIMIT_US
from analysis.figures import (
    cumulative_figure,
    gap_figure,
    goodput_figure,
    save,
    side_by_side_figure,
)
from analysis.measures.gap import GAP_TOLERANCE_MS, GAP_TOLERANCE_SHARE, LEAD_S
from analysis.metrics import write_atomically
from analysis.references import Reference, load_references
from analysis.results import WORDS, Result, Row, gap_spread, number_text, workloads_of
from analysis.rundir import DEFAULT_RECOVERY_LIMIT_S, Campaign
from analysis.topology import topology_figure

TEMPLATES = Path(__file__).resolve().parent / "templates"
CONTROL = "congestion_control"
EMBED_LIMIT_BYTES = 250_000
"""An SVG larger than this is embedded as PNG."""


@dataclass(frozen=True)
class Picture:
    """An embedded figure: data URI, text for those who cannot see it, natural width in CSS pixels."""

    uri: str
    alt: str
    width_px: int


def write_report(campaign: Campaign, results: list[Result], matrix: list[Row], claims: list[Claim], out: Path) -> Path:
    """Draw the figures, write them below `<campaign>.figures/` and `<run>/figures/`, and write the report to `out`."""
    labels = dict(campaign.mechanisms)
    folder = campaign.path.with_name(f"{campaign.path.stem}.figures")
    for result in results:
        if result.run is not None and result.series is not None:
            save(goodput_figure(result.series, result.run.label), result.run.path / "figures" / "goodput")
    workloads = workloads_of(campaign, results) or {"": ""}
    several = len(workloads) > 1
    gaps, sections = [], []
    for workload, workload_label in workloads.items():
        rows = [row for row in matrix if row.workload == workload]
        place, suffix = (f"-{_file_name(workload)}", f" · {workload_label}") if several else ("", "")
        cells = [cell for row in rows for cell in row.cells]
        if any(cell.spread.count for cell in cells):
            alt = f"Handover gap of every repetition{suffix}"
            picture = _keep(gap_figure(cells, labels, dict(campaign.scenarios)), folder / f"gaps{place}", alt)
            gaps.append((workload_label if several else "", picture))
        for name, label in campaign.scenarios:
            stem = folder / f"{_file_name(name)}{place}"
            sections.append((name, _scenario_section(name, f"{label}{suffix}", rows, labels, stem)))
    sections.sort(key=lambda section: [name for name, _ in campaign.scenarios].index(section[0]))
    first = next((r for r in results if r.run is not None and r.run.manifest.get("graph")), None)
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            campaign=campaign,
            sentence=summary_sentence(results, claims),
            matrix=matrix,
            words=WORDS,
            topology=_topology(first, folder),
            claims=claims,
            references=load_references(),
            cited=_cited(claims),
            labels=labels | dict(campaign.scenarios),
            gaps=gaps,
            sections=[section for _, section in sections],
            runs=[_run_row(result, out.parent, several) for result in _in_order(campaign, results, list(workloads))],
            about=_about(campaign, results),
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


def _file_name(name: str) -> str:
    """A name of the campaign file as part of a file name."""
    return re.sub(r"[^\w.+-]", "_", name)


def _recovery_text(results: list[Result]) -> str:
    """The recovery limit of the runs in s; all of them when they differ."""
    limits = sorted({r.run.recovery_limit_s for r in results if r.run}) or [DEFAULT_RECOVERY_LIMIT_S]
    return " or ".join(f"{limit:g}" for limit in limits)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["mbit"] = lambda v: "–" if v is None else f"{v:.2f}"
    environment.filters["bytes"] = bytes_text
    return environment


def bytes_text(value: Any) -> str:
    """A number of bytes with a decimal prefix."""
    if value is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} B"


def _keep(figure: Figure, stem: Path, alt: str) -> Picture:
    """Save a figure and return it for embedding."""
    png, vector = save(figure, stem)
    svg = vector.read_bytes()
    kind, data = ("image/svg+xml", svg) if len(svg) <= EMBED_LIMIT_BYTES else ("image/png", png.read_bytes())
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(uri, alt, round(figure.get_figwidth() * 100))


def _topology(result: Result | None, folder: Path) -> Picture | None:
    if result is None or result.run is None:
        return None
    names = {path.interface: path.name for path in result.run.paths}
    figure = topology_figure(result.run.manifest["graph"], names)
    nodes = ", ".join(str(node["name"]) for node in result.run.manifest["graph"].get("nodes", []))
    return _keep(figure, folder / "topology", f"Topology with the nodes {nodes}")


def representative(results: Iterable[Result]) -> Result | None:
    """The run that stands for a cell in a figure: the judged one with the (lower) median gap, else any with a series."""
    drawn = [r for r in results if r.series is not None]
    judged = [r for r in drawn if r.judged] or drawn

    def gap(result: Result) -> float:
        value = result.metrics.get("gap_ms")
        return float("inf") if value is None else float(value)

    return sorted(judged, key=gap)[(len(judged) - 1) // 2] if judged else None


def _scenario_section(name: str, label: str, rows: list[Row], labels: dict[str, str], stem: Path) -> dict[str, Any]:
    """Figures of one scenario with all mechanisms and one workload."""
    cells = [cell for row in rows for cell in row.cells if cell.scenario == name and cell.results]
    chosen = [(labels[cell.mechanism], representative(cell.results)) for cell in cells]
    columns = [(text, result.series if result else None) for text, result in chosen]
    curves = [(text, series) for text, series in columns if series is not None and series.times_s]
    pictures = []
    if curves:
        pictures.append(_keep(side_by_side_figure(columns), _beside(stem, "goodput"), f"Rate per path over time, {label}"))
        pictures.append(
            _keep(cumulative_figure(curves, "received by the application"), _beside(stem, "received"),
                  f"Data received over time by mechanism, {label}")
        )  # fmt: skip
    repeated = any(len(cell.results) > 1 for cell in cells)
    return {"name": name, "label": label, "pictures": pictures, "repeated": repeated}


def _beside(stem: Path, what: str) -> Path:
    return stem.with_name(f"{stem.name}-{what}")


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


def _run_row(result: Result, base: Path, several_workloads: bool) -> dict[str, Any]:
    """What the table of runs shows of one run."""
    run, m = result.run, result.metrics
    links = []
    if run is not None:
        relative = os.path.relpath(run.path, base)
        files = [name for name in RAW_FILES if (run.path / name).exists()]
        files += [entry.file for entry in run.captures if (run.path / entry.file).exists()]
        files += [name for name in ("figures/goodput.png", "figures/goodput.svg") if (run.path / name).exists()]
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
        "links": links,
    }


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
