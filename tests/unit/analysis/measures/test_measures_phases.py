"""Moments with known answers -> interruptions and their phases. Times in the tests are ms, events at 10,000 ms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.measures.phases import (
    NO_INTERRUPTION,
    NOT_RECOVERED,
    PHASES,
    Partition,
    Signal,
    Silence,
    Span,
    find_silence,
    gap_around,
    partition,
    split_event,
)

MS = 1_000_000
EVENT = 10_000


def arrivals(*spans, step=10):
    return np.concatenate([np.arange(a, b, step) for a, b in spans]).astype(np.int64) * MS


def silence(times, event=EVENT, since=0, rtt=10, until=40_000, complete=True):
    found = find_silence(times, event * MS, since * MS, rtt * MS, until * MS, complete)
    return found and tuple(None if v is None else v / MS for v in found)


def span(begin, end):
    return Span(begin * MS, None if end is None else end * MS)


def divide(resumed, signal=None, register=None, join=None):
    parts = partition(EVENT * MS, resumed * MS, None if signal is None else signal * MS, register, join)
    return tuple(None if part is None else part / MS for part in parts)


# --- the interruption ------------------------------------------------------------------------------------------------


def test_the_first_long_silence_after_the_event_is_the_interruption():
    times = arrivals((0, 10_030), (10_500, 10_800), (11_900, 20_000))
    assert silence(times) == (10_020, 10_500)  # the longer one later is not the first


def test_a_silence_that_the_event_falls_into_counts():
    assert silence(arrivals((0, 9_960), (10_300, 20_000))) == (9_950, 10_300)


def test_data_in_flight_at_the_event_is_no_end_of_the_interruption():
    assert silence(arrivals((0, 10_060), (12_000, 20_000))) == (10_050, 12_000)


def test_what_the_stream_did_before_is_no_interruption():
    calm, rough = arrivals((0, 10_020), (10_140, 20_000)), arrivals((0, 9_500), (9_570, 10_020), (10_140, 20_000))
    assert silence(calm) == (10_010, 10_140)
    assert silence(rough) is None  # 80 ms before, 130 ms now: less than twice


def test_ordinary_loss_recovery_is_no_interruption():
    times = arrivals((0, 10_020), (10_140, 20_000))
    assert silence(times, rtt=32) == (10_010, 10_140)
    assert silence(times, rtt=33) is None  # 130 ms are not longer than four round trips


def test_silences_that_begin_later_belong_to_something_else():
    assert silence(arrivals((0, 11_020), (12_000, 20_000))) is None
    assert silence(arrivals((0, 11_000), (12_000, 20_000))) == (10_990, 12_000)


def test_the_silence_of_an_earlier_event_does_not_raise_the_bar():
    times = arrivals((0, 9_300), (9_600, 10_020), (10_300, 20_000))
    assert silence(times) is None  # 300 ms before: 290 ms are nothing new
    assert silence(times, since=9_600) == (10_010, 10_300)


def test_an_unending_silence_comes_before_all_others():
    times = arrivals((0, 10_020), (10_300, 10_500))
    assert silence(times, complete=False) == (10_490, None)
    assert silence(times, complete=True) == (10_010, 10_300)  # the stream had ended


def test_data_behind_the_limit_is_no_recovery():
    times = arrivals((0, 10_020), (50_000, 51_000))
    assert silence(times, until=60_000) == (10_010, 50_000)
    assert silence(times, until=40_000) == (10_010, None)


def test_without_data_there_is_nothing_to_interrupt():
    assert silence(np.zeros(0, np.int64)) is None
    assert silence(arrivals((20_000, 30_000))) is None


# --- the phases ------------------------------------------------------------------------------------------------------


def test_mptcp_with_another_subflow_in_place():
    assert divide(10_600, signal=10_100) == (100, None, None, 500)


def test_break_before_make_mptcp():
    assert divide(10_600, signal=10_100, join=span(10_200, 10_260)) == (100, None, 60, 440)


def test_mobile_ip():
    assert divide(11_000, signal=10_300, register=span(10_400, 10_520)) == (300, 120, None, 580)


def test_the_first_step_is_a_signal_itself():
    assert divide(11_000, register=span(10_400, 10_520)) == (400, 120, None, 480)


@pytest.mark.parametrize(
    ("register", "join", "expected"),
    [
        (span(10_100, 10_300), span(10_300, 10_350), (100, 200, 50, 650)),  # one after the other
        (span(10_100, 10_300), span(10_200, 10_350), (100, 100, 150, 650)),  # overlap: the join has it
        (span(10_100, 10_300), span(10_150, 10_200), (100, 150, 50, 700)),  # join within
        (span(10_150, 10_200), span(10_100, 10_300), (100, 0, 200, 700)),  # registration within
        (span(10_100, 10_100), span(10_100, 10_100), (100, 0, 0, 900)),  # no time at all
    ],
)
def test_steps_that_overlap(register, join, expected):
    assert divide(11_000, register=register, join=join) == expected


@pytest.mark.parametrize("step", [span(9_900, 10_100), span(10_100, None), span(10_100, 11_100), span(11_100, 11_200)])
def test_steps_that_data_cannot_have_waited_for(step):
    assert divide(11_000, register=step, join=step) == (None, None, None, 1_000)


def test_signals_outside_the_interruption_detect_nothing():
    assert divide(11_000, signal=9_000) == (None, None, None, 1_000)
    assert divide(11_000, signal=11_001) == (None, None, None, 1_000)
    assert divide(11_000, signal=11_000) == (1_000, None, None, 0)


MOMENTS = st.integers(0, 3_000)
SPANS = st.one_of(st.none(), st.tuples(MOMENTS, st.one_of(st.none(), MOMENTS)).map(lambda pair: Span(*pair)))


@given(MOMENTS, MOMENTS, st.one_of(st.none(), MOMENTS), SPANS, SPANS, st.integers(-(10**6), 10**18))
def test_phases_are_disjoint_and_add_up(event, lasted, signal, register, join, shift):
    parts = partition(event, event + lasted, signal, register, join)
    assert sum(part or 0 for part in parts) == lasted
    assert min(part for part in parts if part is not None) >= 0
    assert (parts.register is None) == (register is None or not _inside(register, event, event + lasted))

    def moved(value):
        if isinstance(value, Span):
            return Span(value.begin_ns + shift, None if value.end_ns is None else value.end_ns + shift)
        return None if value is None else value + shift

    assert partition(event + shift, event + lasted + shift, moved(signal), moved(register), moved(join)) == parts


def _inside(step, event, resumed):
    return step.end_ns is not None and event <= step.begin_ns <= step.end_ns <= resumed


@given(MOMENTS, st.lists(MOMENTS, unique=True), st.one_of(st.none(), MOMENTS), SPANS, SPANS, st.integers(0, 100), st.booleans())
def test_an_event_is_split_whatever_happened(event, times, signal, register, join, rtt, complete):
    moments = np.sort(np.array(times, np.int64)) * MS
    gap = find_silence(moments, event * MS, 0, rtt * MS, 2_500 * MS, complete)
    assume(gap is None or gap.begin_ns <= 2_500 * MS)
    scale = [
        None if s is None else Span(s.begin_ns * MS, None if s.end_ns is None else s.end_ns * MS) for s in (register, join)
    ]
    row = split_event(
        event * MS, 0, gap, max(2_500, event) * MS, None if signal is None else Signal(signal * MS, "MP_PRIO"), *scale
    )
    lengths = [getattr(row, f"{name}_ms") for name in PHASES]
    for name, length in zip(PHASES, lengths, strict=True):
        assert (length is None) == (name in row.why)
    if row.recovery_ms is not None:
        assert sum(length or 0 for length in lengths) == pytest.approx(row.recovery_ms, abs=1e-6)
    assert (row.signal is not None) <= (row.detect_ms is not None)
    if gap is None:
        assert set(row.why.values()) == {NO_INTERRUPTION}


def test_no_recovery_has_no_length():
    gap = Silence(10_010 * MS, None)
    row = split_event(EVENT * MS, 0, gap, 40_000 * MS, Signal(10_400 * MS, "retransmission"), None, span(10_500, None))
    assert (row.interruption_ms, row.at_least_ms, row.recovery_ms, row.detect_ms) == (None, 29_990, None, 400)
    assert row.why == {"register": "no registration", "join": "MP_JOIN was never completed", "resume": NOT_RECOVERED}
    assert (row.event_s, row.signal) == (10.0, "retransmission")


def test_a_step_that_came_too_late_is_named():
    row = split_event(
        EVENT * MS, 0, Silence(EVENT * MS, 10_500 * MS), 40_000 * MS, None, span(10_100, 10_600), span(10_700, 10_800)
    )
    assert row.why["register"] == "data came again before the registration was completed"
    assert row.why["join"] == "no MP_JOIN"
    assert row.resume_ms == row.recovery_ms == 500


def test_a_partition_is_its_fields():
    assert Partition(1, None, None, 2) == (1, None, None, 2)


@pytest.mark.parametrize(
    ("arrivals_ms", "gap_ms"),
    [
        ([0, 900, 980, 1100, 1110, 2500], 1390.0),
        ([0, 900, 980, 1100, 1110, 2110, 3900], 1000.0),
        ([0, 500, 990, 1010, 2500, 2600], 1490.0),
        ([1200], None),
        ([], None),
    ],
    ids=["ends late", "begins more than 1 s later", "across the limit", "one", "none"],
)
def test_longest_gap_around_an_event(arrivals_ms, gap_ms):
    arrivals = np.array(arrivals_ms, np.int64) * 1_000_000
    assert gap_around(arrivals, 1_000_000_000, 2**62) == gap_ms
