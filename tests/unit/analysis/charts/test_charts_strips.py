"""Strips: every run is a dot, what never recovered an arrow, the bound a line."""

from __future__ import annotations

import pytest

from analysis.charts.strips import ENDLESS, LOGARITHMIC_FROM, Limit, Strip, strip_figure
from analysis.results import Spread


def strips(*spreads: Spread) -> list[Strip]:
    return [Strip("a scenario", f"mechanism {i}", spread, i, baseline=i == 1) for i, spread in enumerate(spreads)]


def dots(figure) -> dict[str, list[float]]:
    lines = [line for line in figure.axes[0].get_lines() if line.get_gid()]
    return {line.get_gid(): list(line.get_xdata()) for line in lines}


def test_every_run_is_a_dot_in_its_row():
    figure = strip_figure(strips(Spread((300.0, 100.0)), Spread((50.0,))), "gap", "ms")
    assert dots(figure) == {"a scenario/mechanism 0": [100.0, 300.0], "a scenario/mechanism 1": [50.0]}
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["mechanism 0", "mechanism 1"]


@pytest.mark.parametrize(("values", "scale"), [((100.0, 100.0 * LOGARITHMIC_FROM + 1), "log"), ((100.0, 200.0), "linear")])
def test_durations_that_differ_much_have_a_logarithmic_axis(values, scale):
    assert strip_figure(strips(Spread(values)), "gap", "ms").axes[0].get_xscale() == scale
    assert strip_figure(strips(Spread(values)), "share", "").axes[0].get_xscale() == "linear"


def test_the_bound_is_seen_also_where_no_run_is():
    axes = strip_figure(strips(Spread((100.0,))), "gap", "ms", Limit(250.0, "asked: at most 250 ms")).axes[0]
    assert axes.get_xlim()[0] <= 250.0 <= axes.get_xlim()[1]
    assert "at most 250 ms" in axes.get_title(loc="left")


def test_what_never_recovered_is_said_and_has_no_median():
    figure = strip_figure(strips(Spread((100.0, 300.0), (3e4,))), "gap", "ms")
    axes = figure.axes[0]
    arrows = [line for line in axes.get_lines() if line.get_marker() == ENDLESS]
    assert len(arrows) == 1
    assert arrows[0].get_xdata()[0] > 300.0
    figure.draw_without_rendering()
    texts = [tick.get_text() for child in axes.child_axes for tick in child.get_yticklabels()]
    assert texts == ["never in 1 of 3"]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        strip_figure([], "gap", "ms")
