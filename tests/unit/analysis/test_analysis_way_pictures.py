"""Which figures of ways and load a scenario gets in the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analysis.report_sections import way_pictures

OVER = {
    "over_time_mbit": [8.0, 8.0],
    "direct_over_time_mbit": [0.0, 0.0],
    "direct_since_s": None,
    "settled_round_trip_ms": 150.0,
}
DIRECT = {**OVER, "direct_over_time_mbit": [4.0, 8.0], "direct_since_s": 0.2}
PHASE = {"begins_s": 0.0, "ends_s": 5.0, "capacity": {"wlan": 20.0}, "capacity_mbit": 20.0, "settled": {"rate": {"wlan": 9.0}}}


def files(folder: Path, *metrics: dict[str, Any]) -> list[str]:
    chosen = [(str(number), SimpleNamespace(metrics=row)) for number, row in enumerate(metrics)]
    pictures = way_pictures(chosen, "label", folder / "calm")  # type: ignore[arg-type]
    names = sorted(path.name for path in folder.glob("*.png"))
    assert len(pictures) == len(names)
    return names


def test_ways_where_data_left_the_home_agent(tmp_path: Path) -> None:
    assert files(tmp_path, {"home_agent": OVER}, {"home_agent": DIRECT}, {"home_agent": None}, {}) == ["calm-ways.png"]


def test_no_figure_where_all_goes_over_the_home_agent_at_one_capacity(tmp_path: Path) -> None:
    assert files(tmp_path, {"home_agent": OVER, "load": {"phases": [PHASE]}}, {"load": None}) == []
    assert files(tmp_path) == []


def test_load_where_capacities_changed(tmp_path: Path) -> None:
    assert files(tmp_path, {"load": {"phases": [PHASE, PHASE]}}, {"load": {"phases": []}}) == ["calm-load.png"]
