"""Figures of one connection: what is in them, not how many pixels it has."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import transfers as tr
from matplotlib.colors import to_rgba

from analysis.charts.axes import LEVELS_MAX, bytes_text, duration_text, shorten
from analysis.charts.distributions import delivery_distribution_figure, ecdf, gap_distribution_figure
from analysis.charts.dsn import dsn_figure, mapping_figure
from analysis.charts.rates import bin_width_s, goodput_bins, outstanding, outstanding_figure, subflow_goodput_figure
from analysis.charts.view import GROUPS_MAX, OTHERS_COLOUR, Timeline, make_view
from analysis.style import PALETTE, save, svg_bytes


@pytest.fixture(scope="module")
def rec():
    return tr.handover(3)


def by_gid(figure, gid):
    """Artists of the first axes with this id."""
    axes = figure.axes[0]
    return [a for a in [*axes.lines, *axes.collections] if a.get_gid() == gid]


def texts(figure):
    return [t.get_text() for t in figure.axes[0].texts]


def boxes_overlap(figure):
    """Pairs of texts in the first axes that touch."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    drawn = [t for t in figure.axes[0].texts if t.get_text()]
    boxes = [t.get_window_extent(renderer) for t in drawn]
    return [
        (a.get_text(), b.get_text())
        for i, a in enumerate(drawn)
        for j, b in enumerate(drawn[:i])
        if boxes[i].overlaps(boxes[j])
    ]


def test_dsn_figure_shows_kinds_apart_and_in_the_subflows_colour(rec):
    figure = dsn_figure(rec, 0, False)
    segments = rec.segments
    (first,) = by_gid(figure, "first transmission")
    offsets = first.get_offsets()
    assert offsets[:, 1].max() == pytest.approx(segments["begin"].max() / 1e6, rel=0.01)
    colours = {tuple(c) for c in first.get_facecolors()}
    assert colours == {to_rgba(PALETTE[0]), to_rgba(PALETTE[1])}
    (lost,) = by_gid(figure, "retransmission:0") or by_gid(figure, "retransmission:1")
    assert lost.get_marker() == "x"
    (again,) = by_gid(figure, "reinjection:1")
    assert again.get_marker() == "^"
    assert again.get_color() == PALETTE[1]
    assert again.get_xdata().min() == pytest.approx(2.38, abs=0.001)
    drawn = {label.get_text() for label in figure.legends[0].texts}
    assert {"0 · 10.0.1.2", "1 · 10.0.2.2", "reinjection (120)", "data ACK"} <= drawn


def test_dsn_figure_names_signals_and_the_gap(rec):
    figure = dsn_figure(rec, 0, False)
    names = texts(figure)
    assert {"JOIN 1", "MP_PRIO 1", "REMOVE_ADDR", "ADD_ADDR", "DATA_FIN"} <= set(names)
    gap = make_view(rec, 0, False).gap_s
    assert f"gap {duration_text(gap[1] - gap[0])}" in names
    assert not boxes_overlap(figure)


def test_dsn_figure_of_an_interval_shows_whole_segments(rec):
    figure = dsn_figure(rec, 0, False, 1.95, 2.0)
    (bars,) = by_gid(figure, "bars")
    spans = [path.vertices[:, 1] for path in bars.get_paths()]
    assert all(np.ptp(span) == pytest.approx(tr.SIZE / 1e6) for span in spans)
    seconds = (rec.segments["time_ns"] - tr.START_NS) / 1e9
    assert len(spans) == int(((seconds >= 1.95) & (seconds <= 2.0)).sum())
    assert figure.axes[0].get_xlim() == (1.95, 2.0)


def test_retransmissions_survive_thinning():
    """A hundred among thirty thousand; their cells are coarser than those of first transmissions, but none goes missing."""
    rec = tr.handover(20)
    figure = dsn_figure(rec, 0, False)
    wanted = rec.segments.loc[rec.segments["kind"] == tr.RETRANSMISSION]
    drawn = sum(line.get_xdata().size for index in (0, 1) for line in by_gid(figure, f"retransmission:{index}"))
    assert drawn == len(wanted)
    (first,) = by_gid(figure, "first transmission")
    assert first.get_offsets().shape[0] < 0.5 * len(rec.segments)
    assert first.get_rasterized()
    assert len(svg_bytes(figure)) < 400_000


def test_unmapped_segments_are_counted_not_drawn():
    t = tr.Transfer()
    t.send(0.1, 0, 0)
    t.send(0.2, 0, -1, kind=tr.UNMAPPED)
    figure = dsn_figure(t.tables(), 0, False)
    assert "1 segment without a mapping not shown" in figure.axes[0].get_xlabel()


def test_many_signals_stay_legible():
    t = tr.Transfer()
    for n in range(400):
        t.send(n * 0.01, 0, n * tr.SIZE)
    for n in range(60):
        t.signal(n * 0.0663, n % 2, ("MP_PRIO", "ADD_ADDR", "REMOVE_ADDR")[n % 3])
    figure = dsn_figure(t.tables(), 0, False)
    assert not boxes_overlap(figure)
    named = [text for text in texts(figure) if not text.startswith("gap")]
    assert len(named) < 60
    assert f"{60 - len(named)} marks without a name" in figure.axes[0].get_xlabel()
    heights = {round(a.xyann[1]) for a in figure.axes[0].texts if not a.get_text().startswith("gap")}
    assert len(heights) <= LEVELS_MAX


def test_neighbouring_signals_of_a_kind_are_one_mark():
    t = tr.Transfer()
    t.send(0.0, 0, 0)
    t.send(10.0, 0, tr.SIZE)
    for n in range(5):
        t.signal(5.0 + n * 0.001, 0, "RST")
    t.signal(7.0, 0, "ADD_ADDR")
    t.signal(7.5, 0, "ADD_ADDR", repeated=True)
    marks = make_view(t.tables(), 0, False).marks((0, 10))
    assert [(m.label, round(m.at_s, 3)) for m in marks] == [("RST ×5", 5.0), ("ADD_ADDR", 7.0)]


def test_reset_with_a_reason_is_marked_once():
    t = tr.Transfer()
    t.send(0.0, 0, 0)
    t.signal(1.0, 0, "MP_TCPRST")
    t.signal(1.0, 0, "RST")
    rec = t.tables()
    rec.signals["row"] = 7
    assert [m.label for m in make_view(rec, 0, False).marks((0, 10))] == ["MP_TCPRST"]


def test_mapping_figure(rec):
    figure = mapping_figure(rec, 0, False)
    mine = rec.segments.loc[rec.segments["subflow"] == 1]
    (line,) = by_gid(figure, "segment:1")
    assert line.get_ydata().max() * 1e6 == pytest.approx(mine["flow_begin"].max(), rel=0.01)
    assert line.get_color() == PALETTE[1]
    points = set(zip(np.round(mine["begin"] / 1e6, 9), np.round(mine["flow_begin"] / 1e6, 9), strict=True))
    assert set(zip(np.round(line.get_xdata(), 9), np.round(line.get_ydata(), 9), strict=True)) <= points
    (acks,) = by_gid(figure, "ack:1")
    assert acks.get_marker() == "+"


def test_goodput_counts_new_bytes_once(rec):
    view = make_view(rec, 0, False)
    edges, rates = goodput_bins(view)
    width_s = edges[1] - edges[0]
    total = rates.sum() * width_s / 8e-6
    assert total == pytest.approx(rec.segments["new_bytes"].sum())
    quiet = (edges[:-1] > 2.05) & (edges[1:] < 2.35)
    assert quiet.any()
    assert (rates[:, quiet] == 0).all()
    figure = subflow_goodput_figure(rec, 0, False)
    assert len(figure.axes[0].patches) >= 2
    assert figure.axes[0].get_ylabel() == "goodput per 50 ms (Mbit/s)"


def test_bins_are_round():
    assert [bin_width_s(s) for s in (0.01, 1.0, 5.06, 60, 3600)] == pytest.approx([0.001, 0.01, 0.05, 0.5, 50])


def test_outstanding_data(rec):
    times_s, sizes = outstanding(make_view(rec, 0, False))
    assert (np.diff(times_s) >= 0).all()
    assert sizes.min() >= 0
    before = sizes[(times_s > 0.5) & (times_s < 1.9)]
    assert 10 * tr.SIZE <= before.min() <= before.max() < 40 * tr.SIZE
    assert outstanding_figure(rec, 0, False).axes[0].get_ylabel() == "sent, not acknowledged (kB)"


def test_delivery_distribution_ends_with_the_gap(rec):
    figure = delivery_distribution_figure(rec, 0, False)
    (curve,) = by_gid(figure, "longer")
    gap = make_view(rec, 0, False).gap_s
    assert curve.get_xdata()[-1] == pytest.approx((gap[1] - gap[0]) * 1e3)
    assert curve.get_ydata()[0] == 1
    assert (np.diff(curve.get_ydata()) <= 0).all()


def test_ecdf_never_reaches_one_when_some_never_recovered():
    x, share = ecdf([3.0, 1.0, 2.0], endless=1)
    assert x.tolist() == [1, 2, 3]
    assert share.tolist() == [0.25, 0.5, 0.75]
    assert ecdf([])[0].size == 0


def test_gap_distribution_shows_every_run():
    values = {"mptcp": [400.0, 420.0, 380.0], "mip4": [2000.0], "nothing": []}
    figure = gap_distribution_figure(values, {"tcp": 5, "mip4": 1})
    dots = {line.get_gid(): line for line in figure.axes[1].lines if line.get_gid()}
    assert dots["mptcp"].get_xdata().tolist() == [380, 400, 420]
    assert dots["tcp"].get_xdata().size == 0
    labels = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    assert labels == ["mptcp (n = 3)", "mip4 (n = 2, 1 never)", "nothing (n = 0)", "tcp (n = 5, 5 never)"]
    with pytest.raises(ValueError, match="'x'"):
        gap_distribution_figure({"x": [float("nan")]})


@pytest.mark.parametrize("values", [{}, {"a": []}, {"a": [0.0]}, {"a": [5.0]}, {"$x^$ <b>": [1.0, 1e5]}])
def test_odd_gap_distributions(tmp_path, values):
    save(gap_distribution_figure(values), tmp_path / "g")


def many_subflows(count: int, clients: int):
    t = tr.Transfer(paths=[(f"10.0.{n % clients}.2", "10.0.9.2") for n in range(count)])
    for n in range(count):
        for k in range(n + 1):
            t.send(n + 0.01 * k, n, (n * 100 + k) * tr.SIZE)
    return t.tables()


def test_each_subflow_has_its_colour_while_there_are_enough():
    groups = make_view(many_subflows(7, 7), 0, False).groups
    assert [g.subflows for g in groups] == [(n,) for n in range(7)]
    assert len({g.colour for g in groups}) == 7


def test_many_subflows_share_colours_by_path():
    view = make_view(many_subflows(12, 3), 0, False)
    assert [g.subflows for g in view.groups] == [(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)]
    assert view.groups[0].label == "0, 3, 6 … (4 subflows) · 10.0.0.2"
    assert (view.group_of(view.segments) == view.segments["subflow"] % 3).all()


def test_more_paths_than_colours_leave_the_small_ones_grey():
    view = make_view(many_subflows(20, 20), 0, False)
    assert len(view.groups) == GROUPS_MAX
    assert view.groups[-1].colour == OTHERS_COLOUR
    assert view.groups[-1].label == "14 other subflows"
    assert {s for g in view.groups[:-1] for s in g.subflows} == set(range(14, 20))
    assert len(dsn_figure(many_subflows(20, 20), 0, False).legends[0].texts) == GROUPS_MAX + 2


@pytest.mark.parametrize(
    "figure", [dsn_figure, mapping_figure, subflow_goodput_figure, outstanding_figure, delivery_distribution_figure]
)
@pytest.mark.parametrize("up", [True, False])
def test_a_connection_with_hardly_anything(tmp_path, figure, up):
    t = tr.Transfer()
    t.send(0.5, 0, 0)
    save(figure(t.tables(), 0, up), tmp_path / "f")


def test_unknown_connection(rec):
    with pytest.raises(KeyError):
        dsn_figure(rec, 99, False)


def test_figures_are_deterministic(rec):
    assert svg_bytes(dsn_figure(rec, 0, False)) == svg_bytes(dsn_figure(rec, 0, False))


def test_words():
    assert [duration_text(s) for s in (0, 34e-5, 0.0415, 1.2399, 725, 40000)] == [
        "0 µs", "340 µs", "41.5 ms", "1.24 s", "12 min 5 s", "11 h 6 min",
    ]  # fmt: skip
    assert [bytes_text(v) for v in (0, 999, 1420, 1e6, 2.5e9)] == ["0 B", "999 B", "1.42 kB", "1 MB", "2.5 GB"]
    assert shorten("abcdefghij", 7) == "abcd…ij"
    assert shorten("a\nb\x1b[0m", 20) == "a·b·[0m"


def test_timeline_gives_a_figure_its_clock_events_and_gap(tmp_path):
    """Events are solid lines with bold names, signals dashed ones; a gap without an end says so."""
    timeline = Timeline("a run", tr.START_NS - 2_000_000_000, (0.0, 40.0), ((4.0, "carrier-loss"),), (3.9, 40.0), "> 36 s")
    figure = dsn_figure(tr.handover(), 0, False, timeline=timeline)
    axes = figure.axes[0]
    assert axes.get_xlim() == (0.0, 40.0)
    assert axes.get_xlabel().startswith("time (s)")
    assert axes.get_title(loc="left") == "a run"
    texts = {text.get_text(): text for text in axes.texts}
    assert texts["carrier-loss"].get_fontweight() == "bold"
    assert texts["JOIN 1"].get_fontweight() == "normal"
    assert "gap > 36 s" in texts
    upright = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in upright if line.get_linestyle() == "-"] == [4.0]
    assert len(upright) > 1
    save(figure, tmp_path / "f")


def test_charts_know_nothing_of_runs():
    """They are for anybody's captures: importing them loads neither the reports of experiments nor what judges those."""
    code = "import sys, analysis.charts; print(*sorted(name for name in sys.modules if name.startswith('analysis.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(done.stdout.split())
    assert "analysis.style" in loaded
    assert not loaded & {
        f"analysis.{name}" for name in ("results", "metrics", "rundir", "evidence", "report", "figures", "series")
    }
