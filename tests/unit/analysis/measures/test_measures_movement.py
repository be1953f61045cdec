"""The dip in the rate around a movement, and the rate that it is measured by."""

import numpy as np
import pytest

from analysis.measures.movement import dip_ms, steady_mbit

STEP_S = 0.01


def arrivals(rate_mbit):
    """Arrivals every 10 ms; `rate_mbit(t)` from t = 0 to 20 s; moments without any are left out."""
    times_s = np.arange(STEP_S, 20.0 + STEP_S / 2, STEP_S)
    sizes = np.array([rate_mbit(t) * 1e6 / 8 * STEP_S for t in times_s])
    return times_s[sizes > 0], np.cumsum(sizes)[sizes > 0]


def test_the_steady_rate_is_the_lower_one_of_before_and_after():
    times_s, totals = arrivals(lambda t: 20.0 if t <= 8 else 5.0 if t <= 11 else 10.0)
    assert steady_mbit(times_s, totals, 8.0, 12.0) == pytest.approx(10.0, rel=0.01)
    times_s, totals = arrivals(lambda t: 8.0 if t <= 8 else 10.0)
    assert steady_mbit(times_s, totals, 8.0, 8.0) == pytest.approx(8.0, rel=0.01)


def test_without_data_before_or_after_there_is_none():
    times_s, totals = arrivals(lambda t: 10.0 if t <= 8 else 0.0)
    assert steady_mbit(times_s, totals, 8.0, 8.0) is None
    assert steady_mbit(times_s[:0], totals[:0], 8.0, 8.0) is None
    times_s, totals = arrivals(lambda t: 10.0 if t > 8 else 0.0)
    assert steady_mbit(times_s, totals, 8.0, 9.0) is None


@pytest.mark.parametrize(
    ("rate", "expected_ms"),
    [
        (lambda t: 10.0, STEP_S * 1e3),  # one step passes between two arrivals
        (lambda t: 0.0 if 8 < t <= 9 else 10.0, 1000 + STEP_S * 1e3),
        (lambda t: 5.0 if 8 < t <= 10 else 10.0, 1000 + STEP_S * 1e3),
        (lambda t: 30.0 if 8 < t <= 10 else 0.0 if 10 < t <= 11 else 10.0, 1000 + STEP_S * 1e3),  # a lead makes up for nothing
        (lambda t: 0.0 if 8 < t <= 9 else 20.0 if 9 < t <= 10 else 10.0, 1000 + STEP_S * 1e3),  # nor what comes later
        (lambda t: 0.0 if 6 < t <= 7 else 10.0, STEP_S * 1e3),  # before the event
    ],
)
def test_a_dip_counts_as_a_standstill_of_the_same_loss(rate, expected_ms):
    times_s, totals = arrivals(rate)
    assert dip_ms(times_s, totals, 10.0, 8.0) == pytest.approx(expected_ms, abs=0.01)


def test_nothing_after_the_event_is_no_dip():
    times_s, totals = arrivals(lambda t: 10.0 if t <= 8 else 0.0)
    assert dip_ms(times_s, totals, 10.0, 8.5) == 0.0
