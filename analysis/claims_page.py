"""Campaigns -> one page of Markdown: claim by claim what is said, where, what was measured, the verdict, a figure.

The page and its figures are made from run directories alone, with the analysis of `report`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from analysis.charts.strips import Limit, Strip, strip_figure
from analysis.claims import Claim, Part, evaluate_claims, spread_of
from analysis.figures import gap_figure
from analysis.files import write_atomically
from analysis.references import load_references
from analysis.report import summary_sentence
from analysis.results import Result, build_matrix, load_results, select, workloads_of
from analysis.rundir import Campaign
from analysis.style import png_bytes

DPI = 110
GAP, GAP_NAME = "gap_ms", "handover gap"
ROWS_MAX = 40
"""Of more rows than this a figure shows only what the claim is about, without the other mechanisms."""
SIGNS = {"holds": "✓", "fails": "✗", "not judged": "?", "unsupported": "–"}


@dataclass(frozen=True)
class Chapter:
    """A campaign with its results and verdicts."""

    campaign: Campaign
    results: list[Result]
    claims: list[Claim]

    @property
    def labels(self) -> dict[str, str]:
        """Names of mechanisms and scenarios -> what they are called."""
        return dict(self.campaign.mechanisms) | dict(self.campaign.scenarios)


def judge(campaign: Campaign, refresh: bool = False) -> Chapter:
    """Measure a campaign's runs and judge its claims. Raises InputError."""
    results = load_results(campaign, refresh)
    return Chapter(campaign, results, evaluate_claims(campaign, results))


def write_page(chapters: Sequence[Chapter], out: Path, title: str, command: str) -> None:
    """Write the page to `out` and its figures to a folder beside it, named after it.

    `command`: what makes the page, for its last lines. Figures of an earlier page are removed.
    """
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("*.png"))
    texts = []
    for chapter in chapters:
        figures = {name: _draw(figure, folder / f"{name}.png") for name, figure in _figures(chapter)}
        before -= set(figures.values())
        texts.append(_chapter(chapter, {name: quote(os.path.relpath(path, out.parent)) for name, path in figures.items()}))
    write_atomically(out, "\n".join([*_head(chapters, title), *texts, *_foot(chapters, command)]))
    for path in before:
        path.unlink()


def _draw(figure: Figure, path: Path) -> Path:
    path.write_bytes(png_bytes(figure, DPI))
    return path


# -- words --------------------------------------------------------------------------------------------------------------


def verdict_text(claim: Claim) -> str:
    """The verdict with its sign; with several parts how many have it."""
    same = sum(part.verdict == claim.verdict for part in claim.parts)
    rest = f", {same} of {len(claim.parts)} combinations" if same < len(claim.parts) else ""
    return f"{SIGNS[claim.verdict]} {claim.verdict}{rest}"


def source_text(claim: Claim) -> str:
    """Authors, title and place of what the claim cites; "our own" without a source."""
    if claim.source_key is None:
        return "our own"
    work = load_references().get(claim.source_key)
    return ", ".join(filter(None, (work.short if work else claim.source_key, claim.source_where)))


def _head(chapters: Sequence[Chapter], title: str) -> Iterator[str]:
    claims = [claim for chapter in chapters for claim in chapter.claims]
    counts = ", ".join(
        f"{count} {verdict}" for verdict in SIGNS if (count := sum(claim.verdict == verdict for claim in claims))
    )
    yield f"# {title}"
    yield ""
    yield f"{len(claims)} claims: {counts or 'none'}. Every verdict comes from packet captures and the programs' own hashes."
    yield "A claim holds only if it does in every combination and all planned repetitions could be judged."
    yield ""
    yield "| claim | source | verdict |"
    yield "|---|---|---|"
    for chapter in chapters:
        for claim in chapter.claims:
            link = f"[{_cell(claim.text)}](#{anchor(chapter, claim)})"
            yield f"| {link} | {_cell(claim.source_where or source_text(claim))} | {_cell(verdict_text(claim))} |"
    yield ""


def anchor(chapter: Chapter, claim: Claim) -> str:
    """The place of a claim on the page."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{chapter.campaign.experiment}-{claim.id}".lower())


def _chapter(chapter: Chapter, figures: dict[str, str]) -> str:
    """One experiment: what was done, all gaps, then its claims."""
    campaign = chapter.campaign
    repeated = f"{campaign.repetitions} repetition{'s' if campaign.repetitions != 1 else ''}"
    lines = [f"## {campaign.title}", "", campaign.summary, "", f"Experiment `{campaign.experiment}`, {repeated}."]
    lines += [summary_sentence(chapter.results, chapter.claims), _machine(chapter.results), ""]
    overview = figures.get(f"{campaign.experiment}-gaps")
    if overview:
        lines += [f"![Handover gap of every repetition, {campaign.title}]({overview})", ""]
    for claim in chapter.claims:
        lines += _claim(chapter, claim, figures.get(anchor(chapter, claim)))
    return "\n".join(lines)


def _machine(results: list[Result]) -> str:
    manifest = next((result.run.manifest for result in results if result.run is not None), None)
    if manifest is None:
        return "No run was finished."
    guest = manifest.get("guest")
    where = f"in the guest ({guest.get('flavour')})" if isinstance(guest, dict) else "natively"
    return f"Run {where} on Linux {manifest.get('kernel')}, {manifest.get('machine')}."


def _claim(chapter: Chapter, claim: Claim, figure: str | None) -> list[str]:
    lines = [f'<a id="{anchor(chapter, claim)}"></a>', "", f"### {claim.id}: {verdict_text(claim)}", ""]
    lines += [f"> {claim.text}", "", f"Source: {source_text(claim)}."]
    if claim.published:
        lines.append(f"Published: {claim.published}.")
    lines += [f"Asked: {claim.bound_text}.", "", *_table(chapter, claim), ""]
    if figure:
        lines += [f"![{claim.text}]({figure})", ""]
    return lines


def _table(chapter: Chapter, claim: Claim) -> Iterator[str]:
    """What was measured, a line for each combination."""
    several = any(part.workload_label for part in claim.parts)
    against = any(part.others for part in claim.parts)
    head = ["scenario", "mechanism", *(["workload"] if several else []), "repetitions"]
    head += ["yes"] if claim.yes_or_no else ["median", "lowest … highest"]
    head += [*(["compared with"] if against else []), "verdict"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for part in claim.parts:
        cells = [chapter.labels.get(part.scenario, part.scenario), chapter.labels.get(part.mechanism, part.mechanism)]
        cells += [part.workload_label] if several else []
        cells += [str(part.spread.count), *_measured(claim, part)]
        cells += [part.others_text(claim.unit)] if against else []
        cells.append(f"{part.verdict}{f': {part.reason}' if part.reason else ''}")
        yield f"| {' | '.join(map(_cell, cells))} |"


def _measured(claim: Claim, part: Part) -> list[str]:
    if claim.yes_or_no:
        return [f"{sum(part.spread.values):.0f} of {part.spread.count}" if part.spread.count else "–"]
    return [part.spread.median_text(claim.unit), part.spread.range_text(claim.unit) or "–"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _foot(chapters: Sequence[Chapter], command: str) -> Iterator[str]:
    yield "## How this page is made"
    yield ""
    yield "```"
    for chapter in chapters:
        yield run_command(chapter.campaign)
    yield command
    yield "```"
    yield ""


def run_command(campaign: Campaign) -> str:
    """The command that made a campaign, without the folder of its results: that is this machine's matter."""
    words = [str(word) for word in campaign.data.get("command") or ["roamlab", "run", campaign.experiment]]
    kept, skip = [], False
    for word in words:
        if skip or word.startswith("--results="):
            skip = False
        elif word == "--results":
            skip = True
        else:
            kept.append(word)
    return shlex.join(kept)


# -- figures ------------------------------------------------------------------------------------------------------------


def _figures(chapter: Chapter) -> Iterator[tuple[str, Figure]]:
    """By name: the gaps of all repetitions in all scenarios, and one figure for each claim."""
    campaign = chapter.campaign
    cells = [cell for row in build_matrix(campaign, chapter.results) for cell in row.cells]
    workloads = {cell.workload for cell in cells}
    if any(cell.spread.count for cell in cells) and len(workloads) == 1:
        figure = gap_figure(cells, dict(campaign.mechanisms), dict(campaign.scenarios))
        yield f"{campaign.experiment}-gaps", figure
    for claim in chapter.claims:
        strips = claim_strips(chapter, claim)
        if not any(strip.spread.count for strip in strips):
            continue
        if claim.yes_or_no:
            yield anchor(chapter, claim), strip_figure(strips, GAP_NAME, "ms")
        else:
            limit = None if claim.others else Limit(claim.value, claim.bound_text)
            yield anchor(chapter, claim), strip_figure(strips, _metric_name(claim.metric), claim.unit, limit)


def _metric_name(metric: str) -> str:
    return GAP_NAME if metric == GAP else metric


def claim_strips(chapter: Chapter, claim: Claim) -> list[Strip]:
    """Rows of a claim's figure: its own mechanisms and what it compares with, be it mechanisms or scenarios; all others of the
    experiment in grey.

    What is a yes or a no is shown by the handover gap, which has no end where a connection did not survive.
    """
    metric = GAP if claim.yes_or_no else claim.metric
    order = [name for name, _ in chapter.campaign.mechanisms]
    about = {part.mechanism for part in claim.parts} | set(claim.others)
    workloads = workloads_of(chapter.campaign, chapter.results) or {"": ""}
    elsewhere = [name for name, _ in chapter.campaign.scenarios if name in claim.others]
    strips = []
    for scenario, workload in dict.fromkeys(
        (name, part.workload) for part in claim.parts for name in (part.scenario, *elsewhere)
    ):
        group = chapter.labels.get(scenario, scenario) + (f" · {workloads[workload]}" if len(workloads) > 1 else "")
        for kind, mechanism in enumerate(order):
            judged = [run for run in select(chapter.results, mechanism, scenario, workload) if run.judged]
            baseline = mechanism not in about
            spread = spread_of(judged, metric)
            if spread.count or not baseline:
                strips.append(Strip(group, chapter.labels.get(mechanism, mechanism), spread, kind, baseline))
    return strips if len(strips) <= ROWS_MAX else [strip for strip in strips if not strip.baseline]
