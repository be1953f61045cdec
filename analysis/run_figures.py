"""Figures of a single run, kept beside its data, and the data of its interactive DSN plot."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.charts.dsn import dsn_figure
from analysis.charts.interactive import plot_data
from analysis.charts.view import Timeline
from analysis.connections import Reconstruction
from analysis.evidence import Evidence, ends_of, gather, sides
from analysis.figures import gap_text, goodput_figure
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


def draw_run(run: Run, series: Series, points: int) -> StreamPlot | None:
    """Write the figures of a run below `<run>/figures/`; return an interactive plot of at most `points` segments.

    None when there is nothing to plot, or with 0 points.
    """
    save(goodput_figure(series, run.label), run.path / "figures" / "goodput")
    if run.workload_kind not in TRACED_WORKLOADS or run.workload_transport != "tcp":
        return None
    evidence = gather(run)
    found = workload_stream(evidence)
    if found is None:
        return None
    rec, number, up = found
    timeline = _timeline(run, series, _paths(evidence, number))
    save(dsn_figure(rec, number, up, timeline=timeline), run.path / "figures" / "dsn")
    if not points:
        return None
    return StreamPlot(str(rec.connections.loc[number, "transport"]), plot_data(rec, number, up, points, timeline=timeline))


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
