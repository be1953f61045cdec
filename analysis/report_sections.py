"""Sections of a campaign's report with figures: gaps of all repetitions, and what happened in each scenario."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from analysis.charts.distributions import gap_distribution_figure
from analysis.charts.homeroute import Ways, home_route_figure
from analysis.charts.loads import Loads, load_figure
from analysis.figures import cumulative_figure, gap_figure, side_by_side_figure
from analysis.html import Picture, keep
from analysis.parallel import map_parallel
from analysis.results import Cell, Result, Row
from analysis.run_figures import RunFigures, StreamPlot, draw_run
from analysis.rundir import Campaign, Json

DISTRIBUTION_FROM = 5
"""Of so many repetitions the distribution of gaps is drawn; of fewer the single dots say as much."""
REPORT_BYTES = 4_000_000
"""The interactive plots take what the pictures leave of this, but not less than they need to be legible."""
POINT_BYTES = 14
"""What one segment of a plot and its share of the data ACKs take."""
POINTS_MIN, POINTS_MAX = 2_000, 20_000
EVENT_BYTES, OTHER_BYTES = 32_000, 18_000
"""What a figure around an event takes: of the run that is shown, and a smaller one of another repetition."""
OTHERS_BYTES = 1_200_000
"""What the figures of other repetitions may take together; those that find no room are only linked."""
OPEN_MAX = 8
"""A scenario with more figures around events than this, of the runs that are shown, has them closed at first."""


@dataclass(frozen=True)
class GapPicture:
    """`kind`: "overview" of all scenarios or "distribution" in one. `heading` may be empty."""

    heading: str
    picture: Picture
    kind: str


@dataclass
class Section:
    """One scenario with all mechanisms and one workload. `drawn`: label and run of each mechanism that has figures.

    `cells`: label of each mechanism and all its runs. `closeups`: figures around events, one entry per mechanism.
    """

    scenario: str
    label: str
    pictures: list[Picture]
    repeated: bool
    drawn: list[tuple[str, Result]]
    cells: list[tuple[str, Sequence[Result]]] = field(default_factory=list)
    plots: list[Json] = field(default_factory=list)
    closeups: list[Json] = field(default_factory=list)
    numbers: list[Picture] = field(default_factory=list)
    opened: bool = True


def gap_pictures(campaign: Campaign, matrix: list[Row], workloads: dict[str, str], folder: Path) -> list[GapPicture]:
    """Per workload an overview of the gaps of all repetitions, and their distribution where there are enough."""
    out = []
    for workload, label in workloads.items():
        cells = [cell for row in matrix if row.workload == workload for cell in row.cells]
        place, suffix = _marks(workload, workloads)
        if any(cell.spread.count for cell in cells):
            figure = gap_figure(cells, dict(campaign.mechanisms), dict(campaign.scenarios))
            picture = keep(figure, folder / f"gaps{place}", f"Handover gap of every repetition{suffix}")
            out.append(GapPicture(label if suffix else "", picture, "overview"))
        for scenario, name in campaign.scenarios:
            some = [cell for cell in cells if cell.scenario == scenario and cell.spread.count]
            if max((cell.spread.count for cell in some), default=0) >= DISTRIBUTION_FROM:
                stem, alt = folder / f"{file_name(scenario)}{place}-gaps", f"Distribution of the handover gap, {name}{suffix}"
                out.append(GapPicture(f"{name}{suffix}", keep(_distribution(some, campaign), stem, alt), "distribution"))
    return out


def _distribution(cells: list[Cell], campaign: Campaign) -> Figure:
    labels = dict(campaign.mechanisms)
    return gap_distribution_figure(
        {labels[cell.mechanism]: cell.spread.values for cell in cells},
        {labels[cell.mechanism]: len(cell.spread.open_ends) for cell in cells},
    )


def _marks(workload: str, workloads: dict[str, str]) -> tuple[str, str]:
    """What tells a workload's figures from those of others, in file names and in texts."""
    return (f"-{file_name(workload)}", f" · {workloads[workload]}") if len(workloads) > 1 else ("", "")


def file_name(name: str) -> str:
    """A name of the campaign file as part of a file name."""
    return re.sub(r"[^\w.+-]", "_", name)


def representative(results: Iterable[Result]) -> Result | None:
    """The run that stands for a cell in a figure: the judged one with the (lower) median gap, else any with a series."""
    drawn = [r for r in results if r.series is not None]
    judged = [r for r in drawn if r.judged] or drawn

    def gap(result: Result) -> float:
        value = result.metrics.get("gap_ms")
        return float("inf") if value is None else float(value)

    return sorted(judged, key=gap)[(len(judged) - 1) // 2] if judged else None


def scenario_sections(campaign: Campaign, matrix: list[Row], workloads: dict[str, str], folder: Path) -> list[Section]:
    """A section per scenario and workload, without the plots, in the order of the campaign file."""
    out = []
    for scenario, label in campaign.scenarios:
        for workload in workloads:
            place, suffix = _marks(workload, workloads)
            rows = [row for row in matrix if row.workload == workload]
            out.append(_section(campaign, scenario, f"{label}{suffix}", rows, folder / f"{file_name(scenario)}{place}"))
    return out


def _section(campaign: Campaign, scenario: str, label: str, rows: list[Row], stem: Path) -> Section:
    """Figures of one scenario with all mechanisms and one workload."""
    labels = dict(campaign.mechanisms)
    cells = [cell for row in rows for cell in row.cells if cell.scenario == scenario and cell.results]
    chosen = [(labels[cell.mechanism], representative(cell.results)) for cell in cells]
    columns = [(text, result.series if result else None) for text, result in chosen]
    curves = [(text, series) for text, series in columns if series is not None and series.times_s]
    pictures = []
    if curves:
        goodput, received = (stem.with_name(f"{stem.name}-{what}") for what in ("goodput", "received"))
        pictures.append(keep(side_by_side_figure(columns), goodput, f"Rate per path over time, {label}"))
        figure = cumulative_figure(curves, "received by the application")
        pictures.append(keep(figure, received, f"Data received over time by mechanism, {label}"))
    drawn = [(text, result) for text, result in chosen if result is not None]
    pictures += way_pictures(drawn, label, stem)
    repeated = any(len(cell.results) > 1 for cell in cells)
    return Section(scenario, label, pictures, repeated, drawn, [(labels[cell.mechanism], cell.results) for cell in cells])


def way_pictures(chosen: Sequence[tuple[str, Result]], label: str, stem: Path) -> list[Picture]:
    """Where data left the way over a home agent, which one it took when; where capacities changed, how the load met them."""
    pictures = []
    ways = [Ways(text, result.metrics["home_agent"]) for text, result in chosen if result.metrics.get("home_agent")]
    if any(use["direct_since_s"] is not None for _, use in ways):
        picture = keep(home_route_figure(ways), stem.with_name(f"{stem.name}-ways"), f"Over the home agent or direct, {label}")
        pictures.append(picture)
    known = [(text, (result.metrics.get("load") or {}).get("phases") or []) for text, result in chosen]
    most = max((len(phases) for _, phases in known), default=0)
    loads = [Loads(text, phases) for text, phases in known if len(phases) == most]
    if most > 1:
        picture = keep(load_figure(loads), stem.with_name(f"{stem.name}-load"), f"Load and capacity of the networks, {label}")
        pictures.append(picture)
    return pictures


def draw_runs(results: list[Result], sections: list[Section], taken_bytes: int, base: Path) -> None:
    """Draw the figures of every run beside its data, and give the sections the plots and figures of the runs they show.

    `taken_bytes`: what the report's pictures take. `base`: where the report will be.
    """
    shown = {result.run_id for section in sections for _, result in section.drawn}
    runs = [(r.run_id, r.run, r.series) for r in results if r.run is not None and r.series is not None]
    if not runs:
        return
    names, *known = zip(*runs, strict=True)
    events = [len(run.events) for _, run, _ in runs]
    taken_bytes += sum(EVENT_BYTES * count for name, count in zip(names, events, strict=True) if name in shown)
    pictured, left_bytes = [], OTHERS_BYTES
    for name, count in zip(names, events, strict=True):
        pictured.append(name in shown or OTHER_BYTES * count <= left_bytes)
        left_bytes -= 0 if name in shown else OTHER_BYTES * count
    points = min(max((REPORT_BYTES - taken_bytes) // POINT_BYTES // max(len(shown), 1), POINTS_MIN), POINTS_MAX)
    figures = map_parallel(draw_run, *known, [points * (name in shown) for name in names], pictured)
    drawn: dict[str, RunFigures] = dict(zip(names, figures, strict=True))
    for section in sections:
        made = [(label, result, drawn.get(result.run_id, RunFigures())) for label, result in section.drawn]
        section.plots = [_plot(label, section.label, result, f.plot, base) for label, result, f in made if f.plot is not None]
        section.numbers = [f.numbers for _, _, f in made if f.numbers is not None]
        of_label = dict(section.cells)
        closeups = [_closeups(label, result, f, of_label[label], drawn, base) for label, result, f in made if f.closeups]
        section.closeups = closeups
        section.opened = sum(len(entry["pictures"]) for entry in closeups) <= OPEN_MAX


def _closeups(
    mechanism: str, result: Result, figures: RunFigures, cell: Sequence[Result], drawn: dict[str, RunFigures], base: Path
) -> Json:  # fmt: skip
    """Figures around the events of one mechanism: of the run that is shown, and of its other repetitions."""
    assert result.run is not None
    others = []
    for other in cell:
        found = drawn.get(other.run_id)
        if other.run is None or other.run_id == result.run_id or found is None:
            continue
        folder = os.path.relpath(other.run.path / "figures", base)
        files = [file.name for file in sorted((other.run.path / "figures").glob("event-*.png"))]
        links = [] if found.closeups else [(name, quote(f"{folder}/{name}")) for name in files]
        others.append({"repetition": other.run.repetition, "pictures": found.closeups, "links": links})
    return {"label": mechanism, "repetition": result.run.repetition, "pictures": figures.closeups, "others": others}


def _plot(mechanism: str, scenario: str, result: Result, plot: StreamPlot, base: Path) -> Json:
    """A plot as its template wants it."""
    assert result.run is not None
    what = "Data sequence numbers" if plot.transport == "mptcp" else "Stream position"
    return {
        "summary": f"{what} over time: {mechanism}",
        "mptcp": plot.transport == "mptcp",
        "alt": f"{what} over time, {mechanism}, {scenario}",
        "data": plot.data,
        "fallback": None,
        "file": quote(f"{os.path.relpath(result.run.path, base)}/figures/dsn.png"),
    }
