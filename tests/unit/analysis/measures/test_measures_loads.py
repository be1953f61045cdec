"""Rates against capacities, between changes of capacity."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.measures.loads import Arrivals, Capacity, Frames, load_phases, wire_bytes

NAMES = ["wlan", "lte"]
BEFORE, AFTER = {"wlan": 20.0, "lte": 10.0}, {"wlan": 5.0, "lte": 25.0}


def frames(*rows: tuple[float, int, int, bool]) -> Frames:
    """Seconds, bytes, path, in the direction of the data."""
    times_s, sizes, path, with_data = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Frames(np.array(times_s), np.array(sizes, np.int64), np.array(path, np.int64), np.array(with_data, np.bool_))


def test_rates_shares_and_goodput_of_a_phase() -> None:
    seen = frames((1.0, 1_000_000, 0, True), (6.0, 3_000_000, 0, True), (7.0, 1_000_000, 1, True), (7.0, 9_999, 1, False))
    arrivals = Arrivals(np.array([1.0, 6.0, 7.0]), np.array([900_000, 3_600_000, 4_500_000]))
    (phase,) = load_phases(seen, NAMES, [Capacity(0.0, BEFORE)], arrivals, 10.0)
    assert (phase.begins_s, phase.ends_s, phase.capacity) == (0.0, 10.0, BEFORE)
    assert phase.whole.rate == {"wlan": 3.2, "lte": 0.8}
    assert phase.whole.of_capacity == {"wlan": 0.16, "lte": 0.08}
    assert phase.whole.share == {"wlan": 0.8, "lte": 0.2}
    assert (phase.whole.capacity_mbit, phase.whole.goodput_mbit, phase.whole.goodput_of_capacity) == (30.0, 3.6, 0.12)
    assert phase.settled.rate == {"wlan": 4.8, "lte": 1.6}
    assert phase.settled.goodput_mbit == pytest.approx(3.6e6 * 8 / 1e6 / 5)
    assert phase.fields()["settled"]["share"] == {"wlan": 0.75, "lte": 0.25}
    assert "whole" not in phase.fields()


def test_changes_within_a_moment_are_one_and_the_last_one_counts() -> None:
    changes = [Capacity(0.0, BEFORE), Capacity(4.0, {"wlan": 5.0, "lte": 10.0}), Capacity(4.01, AFTER)]
    phases = load_phases(frames((5.0, 1000, 1, True)), NAMES, changes, None, 8.0)
    assert [(phase.begins_s, phase.ends_s, phase.capacity) for phase in phases] == [(0.0, 4.01, BEFORE), (4.01, 8.0, AFTER)]
    assert phases[0].whole.share == {"wlan": None, "lte": None}
    assert phases[1].whole.share == {"wlan": 0.0, "lte": 1.0}
    assert phases[1].whole.goodput_mbit is None


def test_a_change_soon_after_the_start_is_a_change() -> None:
    phases = load_phases(frames(), NAMES, [Capacity(0.0, BEFORE), Capacity(0.05, AFTER)], None, 8.0)
    assert [phase.capacity for phase in phases] == [BEFORE, AFTER]


def test_an_unknown_capacity_is_not_0() -> None:
    (phase,) = load_phases(frames((1.0, 1000, 0, True)), NAMES, [Capacity(0.0, {"wlan": None, "lte": 10.0})], None, 2.0)
    assert phase.whole.of_capacity == {"wlan": None, "lte": 0.0}
    assert (phase.whole.capacity_mbit, phase.whole.goodput_of_capacity) == (None, None)


def test_a_tariff_counts_both_directions_and_no_other_interface() -> None:
    seen = frames((1.0, 1000, 0, True), (1.0, 60, 0, False), (2.0, 500, 1, True), (3.0, 777, -1, True))
    assert wire_bytes(seen, NAMES) == {"wlan": 1060, "lte": 500}
    assert wire_bytes(frames(), NAMES) == {"wlan": 0, "lte": 0}
