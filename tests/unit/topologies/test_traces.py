"""Mahimahi traces: the file format and the meaning of delivery opportunities."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.traces import OPPORTUNITY_BYTES, Playback, Trace, TraceError, load_trace, trace_from

MS = 1_000_000
FULL = 1514


def trace(*times_ms: int, loops: int | None = None) -> Trace:
    return Trace(file="test", times_ms=times_ms, loops=loops)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": the trace is empty"),
        ("\n\n", ": the trace is empty"),
        ("1\nx\n", ":2: 'x' is not a time in whole ms"),
        ("1\n-2\n", ":2: '-2' is not a time in whole ms"),
        ("1.5\n", ":1: '1.5' is not a time in whole ms"),
        ("1_0\n", ":1: '1_0' is not a time in whole ms"),
        ("5\n\n4\n", ":3: 4 ms comes after 5 ms"),
        ("0\n0\n", ": the trace has no duration"),
        ("9" * 30 + "\n", f":1: '{'9' * 30}' is not a time"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.trace"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read the trace: No such file"):
        load_trace(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"1\n\xff")
    with pytest.raises(TraceError, match="byte 2 is not ASCII"):
        load_trace(tmp_path / "binary")


@pytest.mark.parametrize("loops", [0, -1, 1.5, True])
def test_loops_are_checked(tmp_path: Path, loops: int) -> None:
    (tmp_path / "t").write_text("1\n")
    with pytest.raises(TraceError, match="loops = "):
        trace_from({"file": str(tmp_path / "t"), "loops": loops})


def test_mean_rate() -> None:
    # one 1500-byte opportunity per ms is 12 Mbit/s
    assert trace(*range(1, 101)).mean_rate_mbit == pytest.approx(12.0)


def test_a_full_packet_takes_one_opportunity() -> None:
    play = Playback(trace(1, 2, 5), 0)
    assert [play.serve(0, FULL) for _ in range(4)] == [1 * MS, 2 * MS, 5 * MS, 6 * MS]


def test_small_packets_share_an_opportunity() -> None:
    play = Playback(trace(1, 2), 0)
    half = OPPORTUNITY_BYTES // 2 + 14
    assert [play.serve(0, half) for _ in range(3)] == [1 * MS, 1 * MS, 2 * MS]


def test_a_packet_may_need_two_opportunities() -> None:
    play = Playback(trace(1, 2, 3), 0)
    assert play.serve(0, 1000 + 14) == 1 * MS
    assert play.serve(0, 1000 + 14) == 2 * MS  # 500 bytes of the first, 500 of the second
    assert play.serve(0, 1000 + 14) == 2 * MS
    assert play.serve(0, 100) == 3 * MS


def test_unused_opportunities_are_lost() -> None:
    play = Playback(trace(1, 2, 3, 100), 0)
    assert play.serve(2 * MS + 1, FULL) == 3 * MS
    assert play.serve(3 * MS + 1, FULL) == 100 * MS


def test_an_opportunity_at_the_time_of_arrival_counts() -> None:
    play = Playback(trace(1, 2, 3), 0)
    assert play.serve(2 * MS, FULL) == 2 * MS
    # the end of one loop is time 0 of the next
    assert Playback(trace(5), 0).serve(5 * MS, FULL) == 5 * MS
    both = Playback(trace(0, 5), 0)
    assert [both.serve(5 * MS, FULL) for _ in range(3)] == [5 * MS, 5 * MS, 10 * MS]


def test_it_repeats_and_starts_where_told() -> None:
    start_ns = 1_000 * MS
    play = Playback(trace(10), start_ns)
    assert [play.serve(start_ns, FULL) for _ in range(3)] == [start_ns + n * 10 * MS for n in (1, 2, 3)]
    assert play.serve(start_ns + 10**6 * 10 * MS + 1, FULL) == start_ns + (10**6 + 1) * 10 * MS


def test_loops_end() -> None:
    play = Playback(trace(1, 2, loops=2), 0)
    assert [play.serve(0, FULL) for _ in range(5)] == [1 * MS, 2 * MS, 3 * MS, 4 * MS, None]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(lambda times: max(times) > 0),
    st.lists(st.tuples(st.integers(0, 3 * MS), st.integers(15, 4000)), min_size=1, max_size=40),
)
def test_never_more_bytes_than_opportunities(times_ms: list[int], packets: list[tuple[int, int]]) -> None:
    playing = trace(*sorted(times_ms))
    play = Playback(playing, 0)
    now_ns, sent, previous_ns = 0, 0, 0
    for gap_ns, frame_bytes in packets:
        now_ns += gap_ns
        departs_ns = play.serve(max(now_ns, previous_ns), frame_bytes)
        assert departs_ns is not None
        assert departs_ns >= max(now_ns, previous_ns)
        previous_ns = departs_ns
        sent += frame_bytes - 14
        loops, rest_ns = divmod(departs_ns, playing.duration_ms * MS)
        passed = loops * len(times_ms) + sum(time_ms * MS <= rest_ns for time_ms in times_ms)
        assert sent <= passed * OPPORTUNITY_BYTES
