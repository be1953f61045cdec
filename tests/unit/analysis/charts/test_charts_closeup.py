"""Figures around one event, and of subflow numbers: what is in them, not how many pixels they have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import transfers as tr

from analysis.charts.closeup import AFTER_S, BEFORE_S, LONGEST_S, Moment, Origin, closeup_figure, span_around
from analysis.charts.numbers import numbers_figure, shared_span
from analysis.charts.view import Timeline
from analysis.measures.strays import IN_FLIGHT, QUEUED
from analysis.style import PALETTE

ZERO_NS = tr.START_NS
LINE = Timeline("a run", ZERO_NS, (0.0, 5.0), ((2.0, "carrier-loss mn-wlan"),), paths={0: "wlan", 1: "lte"})
MOMENT = Moment(2.0, "carrier-loss mn-wlan", (1.9, 2.5), (2.0, 2.38))


@pytest.fixture(scope="module")
def rec():
    return tr.handover(3)


def artists(axes, prefix):
    return {a.get_gid(): a for a in axes.lines if a.get_gid() and a.get_gid().startswith(prefix)}


def marks(axes, prefix):
    """How many marks an artist of this name has."""
    return {gid: len(a.get_xdata()) for gid, a in artists(axes, prefix).items() if len(a.get_xdata())}


def texts(axes):
    return [t.get_text() for t in axes.texts]


def touching(figure):
    """Pairs of texts anywhere in the figure that touch: names, titles, labels of axes and ticks."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = []
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    drawn = [(t.get_text(), t.get_window_extent(renderer)) for t in found if t.get_text() and t.get_visible()]
    drawn = [(text, box) for text, box in drawn if box.y0 >= 0 and box.x0 >= 0 and box.width > 1]
    return [(a, b) for i, (a, one) in enumerate(drawn) for b, other in drawn[:i] if one.overlaps(other)]


def origin(causes=(), lost_s=(), heard=()):
    strays = pd.DataFrame(
        [(ZERO_NS + round(s * 1e9), 0, cause) for s, cause in causes], columns=["time_ns", "subflow", "cause"], dtype=np.int64
    )
    lost = pd.DataFrame(
        [(ZERO_NS + round(s * 1e9), 0, 800_000) for s in lost_s], columns=["time_ns", "subflow", "begin"], dtype=np.int64
    )
    return Origin(lost, strays, tuple((ZERO_NS + round(s * 1e9), words) for s, words in heard))


def test_every_packet_of_the_span_is_a_mark_of_its_subflow_and_kind(rec):
    axes = closeup_figure(rec, 0, False, LINE, MOMENT).axes[0]
    segments = rec.segments
    at_s = (segments["time_ns"] - ZERO_NS) / 1e9
    shown = segments[(at_s >= 1.9) & (at_s <= 2.5)]
    for kind, name in enumerate(("first transmission", "retransmission", "reinjection")):
        for subflow in (0, 1):
            wanted = int(((shown["kind"] == kind) & (shown["subflow"] == subflow)).sum())
            assert marks(axes, name).get(f"{name}:{subflow}", 0) == wanted, (name, subflow)
    again = artists(axes, "reinjection:1")["reinjection:1"]
    assert again.get_color() == PALETTE[1]
    assert again.get_xdata().min() == pytest.approx(380, abs=1)  # ms since the event
    assert axes.get_xlim() == pytest.approx((-100, 500))
    assert marks(axes, "acked")


def test_event_signals_and_gap_are_named_and_nothing_overlaps(rec):
    figure = closeup_figure(rec, 0, False, LINE, MOMENT, origin(heard=((2.03, "MP_PRIO 1 active at sender"),)))
    names = " | ".join(texts(figure.axes[0]))
    for name in ("carrier-loss mn-wlan", "MP_PRIO 1", "MP_PRIO 1 active at sender", "REMOVE_ADDR", "ADD_ADDR", "gap 380 ms"):
        assert name in names, name
    assert figure.axes[0].get_xlabel() == "time since the event (ms)"
    assert "MB" in figure.axes[0].get_ylabel() or "kB" in figure.axes[0].get_ylabel()
    assert not touching(figure)


def test_signals_of_one_moment_share_a_line(rec):
    heard = ((2.2, "MP_PRIO 0 backup at sender"), (2.2005, "MP_PRIO 1 active at sender"))
    names = texts(closeup_figure(rec, 0, False, LINE, MOMENT, origin(heard=heard)).axes[0])
    assert "MP_PRIO 0 backup at sender, MP_PRIO 1 active at sender" in names


def test_strays_have_a_row_for_each_cause_and_losses_are_shown(rec):
    causes = [(2.01, IN_FLIGHT), (2.02, IN_FLIGHT), (2.05, QUEUED), (9.0, QUEUED)]
    figure = closeup_figure(rec, 0, False, LINE, MOMENT, origin(causes, lost_s=(2.0, 2.1, 7.0)))
    axes, strip = figure.axes
    assert marks(strip, "stray") == {f"stray:{IN_FLIGHT}:0": 2, f"stray:{QUEUED}:0": 1}
    assert [label.get_text() for label in strip.get_yticklabels()] == ["in flight (2)", "queued before (1)"]
    assert marks(axes, "lost") == {"lost:0": 2}
    assert "lost, shown when it left (2)" in [label.get_text() for label in figure.legends[0].texts]
    assert strip.get_xlabel() == "time since the event (ms)"
    assert not touching(figure)


def test_without_strays_there_is_one_panel(rec):
    assert len(closeup_figure(rec, 0, False, LINE, MOMENT, origin()).axes) == 1


@pytest.mark.parametrize(
    ("until_s", "end_s", "span"),
    [
        (5.0, 20, (5 - BEFORE_S, 5 + AFTER_S)),
        (5.4, 20, (4.9, 5.5)),
        (9.0, 8.0, (4.25, 8.75)),
        (60.0, 70.0, (5 - 0.25 * 55, 5 - 0.25 * 55 + LONGEST_S)),
    ],
    ids=["nothing took longer", "a longer gap", "the end", "for ever"],
)
def test_span_follows_what_happened(until_s, end_s, span):
    assert span_around(5.0, until_s, end_s) == pytest.approx(span, abs=0.011)


def divided(pattern, seconds=6.0, rate=200):
    """A download whose segments take the subflows of `pattern(time)` in turn."""
    t = tr.Transfer()
    for n in range(int(seconds * rate)):
        at_s = n / rate
        turn = pattern(at_s)
        t.send(at_s, turn[n % len(turn)], n * tr.SIZE)
        t.acknowledge(at_s + 0.0001, turn[n % len(turn)], n * tr.SIZE)
    return t.tables()


def test_numbers_are_shown_where_the_data_is_divided_most_evenly():
    rec = divided(lambda s: (0, 1) if 3.0 <= s < 4.0 else (0, 0, 0, 1) if s < 3.0 else (0,))
    begin_s, end_s = shared_span(rec.segments, ZERO_NS)
    assert 2.9 <= begin_s < end_s <= 4.11
    assert end_s - begin_s == pytest.approx(0.3)


def test_numbers_keep_away_from_events_and_from_the_begin():
    rec = divided(lambda _: (0, 1))
    assert shared_span(rec.segments, ZERO_NS)[0] == pytest.approx(2.85, abs=0.11)  # the middle
    begin_s, end_s = shared_span(rec.segments, ZERO_NS, (2.5,))
    assert begin_s >= 3.5 or end_s <= 2.5
    assert shared_span(rec.segments, ZERO_NS, (0.5, 1.4, 2.3, 3.2, 4.1)) is None


def test_one_subflow_at_a_time_has_no_numbers():
    assert shared_span(divided(lambda s: (0,) if s < 3 else (1,)).segments, ZERO_NS) is None
    assert shared_span(tr.handover().segments.iloc[:0], ZERO_NS) is None


def test_numbers_figure_counts_from_the_first_ones_shown():
    rec = divided(lambda _: (0, 1))
    figure = numbers_figure(rec, 0, False, (2.0, 2.3), LINE)
    data, own, both = figure.axes
    for subflow in (0, 1):
        name = f"segment:{subflow}"
        assert len(artists(own, name)[name].get_xdata()) in (30, 31)
        assert artists(own, name)[name].get_ydata().min() == 0
        assert artists(own, name)[name].get_color() == PALETTE[subflow]
        assert (artists(both, name)[name].get_ydata() == artists(own, name)[name].get_ydata()).all()
        assert (artists(both, name)[name].get_xdata() == artists(data, name)[name].get_ydata()).all()
    slopes = [np.polyfit(line.get_xdata(), line.get_ydata(), 1)[0] for line in artists(both, "segment").values()]
    assert slopes == pytest.approx([0.5, 0.5], rel=0.05)  # of two bytes of the stream each subflow carries one
    assert marks(own, "ack")
    assert "ms" in own.get_xlabel()
    assert not touching(figure)
