"""Moments of arrival with known answers -> gaps, rates and jitter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import measures
from analysis.measures import Gap, gaps_agree, jitter_ms

longest_gap, phase_rates = (partial(f, recovery_s=30.0) for f in (measures.longest_gap, measures.phase_rates))
MILLISECONDS = st.integers(0, 20_000)


def arrivals(*spans, step=0.01):
    return np.concatenate([np.arange(a, b, step) for a, b in spans])


def test_gap_is_the_longest_silence_in_the_window():
    times = arrivals((0.0, 1.0), (2.5, 5.0), (5.4, 9.0))  # the silence from 1 s on is before the window
    gap = longest_gap(times, [5.0], True, 10.0)
    assert gap.gap_ms == pytest.approx(410, abs=1)
    assert gap.start_s == pytest.approx(4.99)


def test_silence_that_begins_before_the_window_counts_from_its_edge():
    gap = longest_gap(arrivals((0.0, 3.0), (4.6, 9.0)), [5.0], True, 9.0)
    assert (gap.start_s, gap.gap_ms) == (4.0, pytest.approx(600, abs=1))


def test_unrecovered_gap_has_no_number():
    assert longest_gap(arrivals((0.0, 5.0)), [5.0], False, 40.0) == Gap(None, pytest.approx(30010, abs=1), pytest.approx(4.99))
    assert longest_gap(arrivals((0.0, 5.005)), [5.0], False, 40.0).at_least_ms == pytest.approx(30000, abs=1)
    assert longest_gap(arrivals((0.0, 5.0)), [5.0], False, 20.0).at_least_ms == pytest.approx(15010, abs=1)


def test_packets_still_under_way_at_the_event_are_no_recovery():
    gap = longest_gap(arrivals((0.0, 5.03)), [5.0], False, 40.0)
    assert gap.gap_ms is None
    assert gap.at_least_ms == pytest.approx(30000, abs=1)


def test_recovery_after_the_limit_is_none():
    assert longest_gap(arrivals((0.0, 5.0), (36.0, 40.0)), [5.0], True, 40.0).gap_ms is None


def test_a_later_stall_of_an_unfinished_transfer_counts():
    assert longest_gap(arrivals((0.0, 5.0), (5.5, 7.0)), [5.0], False, 30.0).at_least_ms == pytest.approx(23010, abs=1)
    assert longest_gap(arrivals((0.0, 5.0), (5.5, 7.0)), [5.0], True, 30.0).gap_ms == pytest.approx(510, abs=1)


def test_long_transfers_are_not_open_ended():
    assert longest_gap(arrivals((0.0, 5.0), (5.2, 60.0)), [5.0], False, 60.0).gap_ms == pytest.approx(210, abs=1)


def test_without_events_the_first_second_is_left_out():
    gap = longest_gap(arrivals((0.0, 0.1), (0.9, 4.0), (4.3, 6.0)), [], True, 6.0)
    assert gap.gap_ms == pytest.approx(310, abs=1)


def test_nothing_at_all():
    assert longest_gap(np.zeros(0), [5.0], False, 9.0) == Gap(None, None, None)


@given(
    st.lists(MILLISECONDS, min_size=1, unique=True), st.lists(MILLISECONDS, max_size=3), st.booleans(), st.integers(0, 10**6)
)
def test_shifting_all_times_changes_nothing_but_the_start(arrivals_ms, events_ms, complete, shift_ms):
    times, events = np.sort(np.array(arrivals_ms)) / 1e3, [e / 1e3 for e in sorted(events_ms)]
    shift_s = shift_ms / 1e3
    gap = longest_gap(times, events, complete, 25.0)
    moved = longest_gap(times + shift_s, [e + shift_s for e in events], complete, 25.0 + shift_s)
    assert (moved.gap_ms, moved.at_least_ms) == pytest.approx((gap.gap_ms, gap.at_least_ms), abs=1e-3)
    rates = phase_rates(times, np.arange(times.size), events, complete, 25.0)
    again = phase_rates(times + shift_s, np.arange(times.size), [e + shift_s for e in events], complete, 25.0 + shift_s)
    assert [rates[n] is None for n in rates] == [again[n] is None for n in rates]


@given(st.lists(MILLISECONDS, min_size=1, unique=True), st.lists(MILLISECONDS, min_size=1, max_size=3))
def test_more_data_never_makes_a_longer_gap(arrivals_ms, events_ms):
    times, events = np.sort(np.array(arrivals_ms)) / 1e3, [e / 1e3 for e in sorted(events_ms)]
    before = longest_gap(times, events, True, 25.0)
    between = np.sort(np.append(times, (times[0] + times[-1]) / 2))
    after = longest_gap(between, events, True, 25.0)
    if before.gap_ms is not None:
        assert after.gap_ms is not None
        assert after.gap_ms <= before.gap_ms + 1e-6


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [(100, 119, True), (100, 121, False), (2000, 2090, True), (2000, 2120, False), (None, None, True), (None, 100, False)],
)
def test_tolerance(first, second, agree):
    assert gaps_agree(Gap(first, None, 0), Gap(second, None, 0)) is agree


def test_rates_before_during_after():
    times = arrivals((0.0, 4.0), (6.0, 8.0), step=0.1)
    totals = np.arange(1, times.size + 1) * 1000
    rates = phase_rates(times, totals, [4.0, 6.0], True, 9.0)
    assert rates["goodput_before_mbit"] == pytest.approx(0.08, rel=0.05)
    assert rates["goodput_during_mbit"] == pytest.approx(0.0, abs=0.01)
    assert rates["goodput_after_mbit"] == pytest.approx(0.08, rel=0.06)


def test_jitter_of_rfc3550():
    sent = np.arange(5) * 0.02
    assert jitter_ms(sent, sent + 0.1) == pytest.approx((0.0, 0.0), abs=1e-9)
    last, highest = jitter_ms(sent, sent + np.array([0.1, 0.116, 0.116, 0.116, 0.116]))
    assert highest == pytest.approx(1.0)
    assert last == pytest.approx(1.0 * (15 / 16) ** 3)
