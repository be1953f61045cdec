"""The figure of the ways: panels, stacking, and what is left out."""

from __future__ import annotations

import pytest

from analysis.charts.homeroute import Ways, home_route_figure


def use(over: list[float], direct: list[float], since_s: float | None, round_trip_ms: float | None) -> dict[str, object]:
    return {"over_time_mbit": over, "direct_over_time_mbit": direct, "direct_since_s": since_s,
            "settled_round_trip_ms": round_trip_ms}  # fmt: skip


def test_a_panel_for_each_mechanism_with_its_round_trip_and_the_join() -> None:
    rows = [
        Ways("Mobile IPv4", use([8.0, 9.0], [0.0, 0.0], None, 150.4)),
        Ways("direct", use([4.0, 0.0], [4.0, 16.0], 0.3, None)),
    ]
    figure = home_route_figure(rows)
    one, other = figure.axes
    assert [axes.get_title(loc="left") for axes in (one, other)] == ["Mobile IPv4: round trip 150 ms", "direct"]
    assert [len(axes.lines) for axes in (one, other)] == [0, 1]
    assert other.lines[0].get_xdata()[0] == 0.3
    over, direct = (patch.get_data() for patch in other.patches)
    assert (over.values.tolist(), direct.values.tolist()) == ([4.0, 0.0], [8.0, 16.0])
    assert direct.baseline.tolist() == over.values.tolist()
    assert one.get_ylim()[1] == pytest.approx(16.0 * 1.12)


def test_an_incomplete_row_of_panels_has_empty_places() -> None:
    figure = home_route_figure([Ways(str(number), use([1.0], [1.0], None, None)) for number in range(4)])
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2
