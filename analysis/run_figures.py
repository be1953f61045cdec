"""Figures of a single run, kept beside its data, and the data of its interactive DSN plot."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.charts.closeup import closeup_figure
from analysis.charts.dsn import dsn_figure
from analysis.charts.interactive import plot_data
from analysis.charts.numbers import numbers_figure, shared_span
from analysis.charts.view import Timeline
from analysis.closeups import moments, trace_origin
from analysis.connections import Reconstruction
from analysis.evidence import Evidence, ends_of, gather, sides
from analysis.figures import gap_text, goodput_figure
from analysis.html import Picture, small
from analysis.measures.observation import Observation, observe
from analysis.rundir import Json, Run, load_workload
from analysis.series import Series
from analysis.streams import find_stream
from analysis.style import save

TRACED_WORKLOADS = ("bulk", "iperf3")
"""They send one long stream: its numbers over time are worth a figure."""


@dataclass(frozen=True)
class StreamPlot:
    """The workload's data stream at the receiver's captures. `data`: see `analysis.charts.interactive.plot_data`."""

    transport: str
    data: Json


@dataclass(frozen=True)
class RunFigures:
    """What a report shows of a run. `closeups`: a figure per event. `numbers`: where several subflows carried data at once."""

    plot: StreamPlot | None = None
    closeups: tuple[Picture, ...] = ()
    numbers: Picture | None = None


def draw_run(run: Run, series: Series, points: int, pictures: bool) -> RunFigures:
    """Write the figures of a run below `<run>/figures/`; return what is wanted of them in a report.

    An interactive plot of at most `points` segments, none with 0; the pictures of the events, smaller without a plot.
    """
    save(goodput_figure(series, run.label), run.path / "figures" / "goodput")
    if run.workload_kind not in TRACED_WORKLOADS or run.workload_transport != "tcp":
        return RunFigures()
    evidence = gather(run)
    found = workload_stream(evidence)
    if found is None:
        return RunFigures()
    rec, number, up = found
    timeline = _timeline(run, series, _paths(evidence, number))
    save(dsn_figure(rec, number, up, timeline=timeline), run.path / "figures" / "dsn")
    closeups, numbers = _details(evidence, found, timeline)
    shown: list[Picture] = []
    for index, (name, figure) in enumerate(closeups, 1):
        save(figure, run.path / "figures" / f"event-{index}")
        if pictures:
            shown.append(_embedded(figure, f"Packets around the event {name}, {run.label}", bool(points)))
    if numbers is not None:
        save(numbers, run.path / "figures" / "numbers")
    if not points:
        return RunFigures(closeups=tuple(shown))
    plot = StreamPlot(str(rec.connections.loc[number, "transport"]), plot_data(rec, number, up, points, timeline=timeline))
    beside = None if numbers is None else _embedded(numbers, f"Subflow and data sequence numbers, {run.label}", True)
    return RunFigures(plot, tuple(shown), beside)


def _embedded(figure: Figure, alt: str, large: bool) -> Picture:
    return small(figure, alt, 110 if large else 80)


def _details(
    evidence: Evidence, found: tuple[Reconstruction, int, bool], timeline: Timeline
) -> tuple[list[tuple[str, Figure]], Figure | None]:
    """Figures around the events with their names, and that of the subflows' numbers if several carried data at once."""
    rec, number, up = found
    seen, origin = observe(rec, number, up), None
    sent = _sent(evidence)
    if sent is not None:
        rec, origin = trace_origin(seen, sent)
    end_s = timeline.span_s[1]
    closeups = [
        (moment.name, closeup_figure(rec, number, up, timeline, moment, origin))
        for moment in moments(seen, origin, timeline.events, timeline.zero_ns, end_s)
    ]
    segments = rec.segments.loc[(rec.segments["connection"] == number) & (rec.segments["up"] == up)]
    span = shared_span(segments, timeline.zero_ns, [at_s for at_s, _ in timeline.events])
    return closeups, None if span is None else numbers_figure(rec, number, up, span, timeline)


def _sent(evidence: Evidence) -> Observation | None:
    """The workload's data where it was sent; None when the captures there do not show it."""
    run = evidence.run
    _, node = sides(run)
    rec, _ = evidence.reconstruction(node)
    found = find_stream(rec, *ends_of(load_workload(run, "sender")), run.addresses(node), towards_node=False)
    return None if found is None else observe(rec, *found)


def workload_stream(evidence: Evidence) -> tuple[Reconstruction, int, bool] | None:
    """The workload's data where it was received: reconstruction, connection, whether it flows from client to server.

    None when the captures there show no payload of it.
    """
    run = evidence.run
    node, _ = sides(run)
    rec, _ = evidence.reconstruction(node)
    found = find_stream(rec, *ends_of(load_workload(run, "receiver")), run.addresses(node), towards_node=True)
    if found is None:
        return None
    number, up = found
    carried = (rec.segments["connection"] == number) & (rec.segments["up"] == up) & (rec.segments["begin"] >= 0)
    return (rec, number, up) if carried.any() else None


def _paths(evidence: Evidence, number: int) -> dict[int, str]:
    """Path of each subflow of a connection, where the receiver has an interface of its own for it."""
    run = evidence.run
    rec, devices = evidence.reconstruction(sides(run)[0])
    names = {path.interface: path.name for path in run.paths}
    flows = rec.flows.loc[rec.flows["connection"] == number]
    known = zip(flows["subflow"], flows["point"], strict=True)
    return {int(subflow): names[devices[point]] for subflow, point in known if point >= 0 and devices[point] in names}


def _timeline(run: Run, series: Series, paths: dict[int, str]) -> Timeline:
    """Clock, events and gap as in the run's other figures."""
    gap_s = None if series.gap is None else (series.gap[0], series.end_s if series.gap[1] is None else series.gap[1])
    return Timeline(
        title=run.label,
        zero_ns=run.t0_wall_ns,
        span_s=(series.start_s, series.end_s),
        events=tuple((at_s, f"{kind} {target}".strip()) for at_s, kind, target in series.events),
        gap_s=gap_s,
        gap_length=gap_text(series).removeprefix("gap "),
        paths=paths,
    )
