"""The figure of load and capacity: panels, stacked bars, the capacity's line."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.charts.loads import Loads, load_figure


def phase(begins_s: float, capacity: dict[str, float | None], rate: dict[str, float | None]) -> dict[str, Any]:
    known = [value for value in capacity.values() if value is not None]
    total = sum(known) if len(known) == len(capacity) else None
    return {"begins_s": begins_s, "ends_s": begins_s + 12.0, "capacity": capacity, "capacity_mbit": total,
            "settled": {"rate": rate}}  # fmt: skip


def test_a_panel_for_each_phase_with_stacked_rates_and_the_capacity() -> None:
    before, after = {"wlan": 20.0, "lte": 10.0}, {"wlan": 5.0, "lte": None}
    rows = [
        Loads("one", [phase(0.0, before, {"wlan": 19.0, "lte": 9.0}), phase(12.0, after, {"wlan": 4.0, "lte": 21.0})]),
        Loads("other", [phase(0.0, before, {"wlan": 18.0, "lte": 0.0}), phase(12.0, after, {"wlan": 4.5, "lte": None})]),
    ]
    first, second = load_figure(rows).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == [
        "0 to 12 s: wlan 20 + lte 10 Mbit/s", "12 to 24 s: wlan 5 Mbit/s",
    ]  # fmt: skip
    assert [bar.get_width() for bar in first.patches] == [19.0, 18.0, 9.0, 0.0]
    assert [bar.get_x() for bar in first.patches] == [0.0, 0.0, 19.0, 18.0]
    assert [bar.get_width() for bar in second.patches] == [4.0, 4.5, 21.0, 0.0]
    assert first.lines[0].get_xdata()[0] == 30.0
    assert not second.lines, "an unknown capacity has no line"


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_phases(count: int) -> None:
    rows = [Loads("one", [phase(number * 12.0, {"wlan": 20.0}, {"wlan": 19.0}) for number in range(count)])]
    assert len(load_figure(rows).axes) == count
