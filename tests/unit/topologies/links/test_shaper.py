"""The shaper: what a profile means, without sockets and clocks."""

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.links import shaper as shaper_module
from topologies.links.shaper import Shaper
from topologies.profiles import GilbertElliott, LinkProfile
from topologies.traces import Trace

MS = 1_000_000
FULL = bytes(1514)
FULL_NS_AT_10_MBIT = 1_211_200


def make(seed: int = 1, start_ns: int = 0, **fields: object) -> Shaper:
    return Shaper(LinkProfile(**fields), Random(seed), start_ns)  # type: ignore[arg-type]


def numbered(number: int, length: int = 100) -> bytes:
    return number.to_bytes(4, "big") + bytes(length - 4)


def drain(shaper: Shaper) -> list[tuple[int, int]]:
    """(release, number) of everything in flight."""
    return [(entry.release_ns, int.from_bytes(entry.frame[:4], "big")) for entry in shaper.take(1 << 62)]


# ---- rate, delay, queue


def test_nothing_is_shaped_without_a_profile() -> None:
    shaper = make()
    shaper.offer(5, FULL)
    assert [entry.release_ns for entry in shaper.take(5)] == [5]


def test_delay_alone() -> None:
    shaper = make(delay_ms=15)
    shaper.offer(0, FULL)
    shaper.offer(1, FULL)
    assert shaper.next_release_ns() == 15 * MS
    assert shaper.take(15 * MS - 1) == []
    assert [entry.release_ns for entry in shaper.take(15 * MS + 1)] == [15 * MS, 15 * MS + 1]
    assert shaper.next_release_ns() is None


def test_rate_is_the_time_on_the_wire() -> None:
    shaper = make(rate_mbit=10, delay_ms=1)
    for _ in range(3):
        shaper.offer(0, FULL)
    releases = [entry.release_ns for entry in shaper.take(1 << 62)]
    assert releases == [1 * MS + n * FULL_NS_AT_10_MBIT for n in (1, 2, 3)]


def test_queue_counts_what_waits_not_what_is_sent_or_in_flight() -> None:
    shaper = make(rate_mbit=10, delay_ms=10_000, queue_packets=5)
    for _ in range(20):
        shaper.offer(0, FULL)
    # one in transmission and five waiting
    assert len(shaper.line) == 6
    assert shaper.counters.dropped_queue == 14
    # One has left the limiter: it is still in the delay line and takes no place in the queue.
    shaper.offer(FULL_NS_AT_10_MBIT, FULL)
    shaper.offer(FULL_NS_AT_10_MBIT, FULL)
    assert len(shaper.line) == 7
    assert shaper.counters.dropped_queue == 15


arrivals = st.lists(st.tuples(st.integers(0, 2 * MS), st.integers(60, 1514)), min_size=1, max_size=120)


@given(arrivals, st.sampled_from([1.0, 7.3, 20.0, 200.0]), st.integers(1, 10))
def test_rate_queue_and_order_hold_for_any_arrivals(packets: list[tuple[int, int]], rate_mbit: float, queue: int) -> None:
    shaper = make(rate_mbit=rate_mbit, delay_ms=3, queue_packets=queue)
    now_ns = 0
    departs: list[tuple[int, int]] = []
    for number, (gap_ns, length) in enumerate(packets):
        now_ns += gap_ns
        in_limiter = sum(depart_ns > now_ns for depart_ns, _ in departs)
        refused = shaper.counters.dropped_queue
        shaper.offer(now_ns, numbered(number, length))
        # Dropped exactly when the queue was full.
        assert (shaper.counters.dropped_queue > refused) == (in_limiter == queue + 1)
        if shaper.counters.dropped_queue == refused:
            entry = shaper.line[-1]
            assert entry.release_ns == entry.depart_ns + 3 * MS
            departs.append((entry.depart_ns, length))
    # In no window more bytes than the rate allows, beyond the frame that ends it.
    for (first, (start_ns, _)), (last, (end_ns, _)) in itertools.combinations(enumerate(departs), 2):
        sent_bytes = sum(length for _, length in departs[first + 1 : last + 1])
        assert sent_bytes * 8000 / rate_mbit <= end_ns - start_ns + (last - first)
    numbers = [number for _, number in drain(shaper)]
    assert numbers == sorted(numbers)


def test_the_limiter_never_idles_with_packets_waiting() -> None:
    shaper = make(rate_mbit=10, queue_packets=1000)
    for number in range(500):
        shaper.offer(number * 1000, FULL)
    assert shaper.line[-1].release_ns == 500 * FULL_NS_AT_10_MBIT


# ---- jitter and reordering


def test_jitter_is_uniform_and_does_not_reorder() -> None:
    shaper = make(delay_ms=20, jitter_ms=10)
    for number in range(2000):
        shaper.offer(number * 100 * MS, numbered(number))
    releases = drain(shaper)
    delays_ms = [release_ns / MS - number * 100 for release_ns, number in releases]
    assert min(delays_ms) >= 10
    assert max(delays_ms) <= 30
    assert sum(delays_ms) / len(delays_ms) == pytest.approx(20, abs=0.6)
    assert sum(delay_ms < 15 for delay_ms in delays_ms) == pytest.approx(500, abs=100)
    # Packets closer together than the jitter keep their order.
    for number in range(1000):
        shaper.offer(300_000 * MS + number * 1000, numbered(number))
    entries = drain(shaper)
    assert [number for _, number in entries] == list(range(1000))
    assert [release_ns for release_ns, _ in entries] == sorted(release_ns for release_ns, _ in entries)


def test_reorder_skips_the_delay_but_not_the_rate() -> None:
    shaper = make(rate_mbit=10, delay_ms=50, reorder=0.1, queue_packets=10_000)
    for number in range(1000):
        shaper.offer(0, numbered(number, 1514))
    out = drain(shaper)
    assert shaper.counters.reordered == pytest.approx(100, abs=40)
    early = [(release_ns, n) for release_ns, n in out if release_ns == (n + 1) * FULL_NS_AT_10_MBIT]
    assert len(early) == shaper.counters.reordered
    normal = [number for release_ns, number in out if release_ns != (number + 1) * FULL_NS_AT_10_MBIT]
    assert normal == sorted(normal)
    assert [release_ns for release_ns, _ in out] == sorted(release_ns for release_ns, _ in out)


def test_next_release_looks_at_both_lines() -> None:
    shaper = make(seed=3, delay_ms=50, reorder=0.5)
    for number in range(20):
        shaper.offer(number, numbered(number))
    assert shaper.express
    assert shaper.line
    assert shaper.next_release_ns() == shaper.express[0].release_ns
    shaper.take(100)
    assert shaper.next_release_ns() == shaper.line[0].release_ns


def test_duplicates() -> None:
    shaper = make(delay_ms=1, duplicate=0.25)
    for number in range(4000):
        shaper.offer(number, numbered(number))
    assert len(shaper.line) == 4000 + shaper.counters.duplicated
    assert shaper.counters.duplicated == pytest.approx(1000, abs=4.5 * math.sqrt(750))


# ---- loss


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3])
def test_independent_loss(share: float) -> None:
    count = 100_000
    shaper = make(loss=share)
    for number in range(count):
        shaper.offer(number, b"x")
        shaper.take(number)
    assert abs(shaper.counters.dropped_loss - count * share) < 4.5 * math.sqrt(count * share * (1 - share))


def test_certain_loss() -> None:
    shaper = make(loss=1.0)
    for number in range(100):
        shaper.offer(number, b"x")
    assert shaper.counters.dropped_loss == 100


def test_gilbert_elliott_loss_and_burst_length() -> None:
    count = 200_000
    burst = GilbertElliott(p=0.01, r=0.25)
    shaper = make(burst=burst)
    lost = []
    for number in range(count):
        before = shaper.counters.dropped_loss
        shaper.offer(number, b"x")
        shaper.take(number)
        lost.append(shaper.counters.dropped_loss > before)
    sigma = math.sqrt(count * burst.variance_factor())
    assert abs(sum(lost) - count * burst.stationary_loss) < 4.5 * sigma
    # A naive binomial sigma would be much smaller: bursts are there.
    assert sigma > 2 * math.sqrt(count * burst.stationary_loss * (1 - burst.stationary_loss))
    lengths = [len(list(run)) for value, run in itertools.groupby(lost) if value]
    assert sum(lengths) / len(lengths) == pytest.approx(1 / burst.r, rel=0.05)


def test_the_variance_of_bursts_is_the_one_that_is_claimed() -> None:
    burst = GilbertElliott(p=0.05, r=0.2, loss_bad=0.8, loss_good=0.01)
    totals = []
    for seed in range(150):
        shaper = make(seed=seed, burst=burst)
        for number in range(1000):
            shaper.offer(number, b"x")
        totals.append(shaper.counters.dropped_loss)
    mean = sum(totals) / len(totals)
    variance = sum((total - mean) ** 2 for total in totals) / (len(totals) - 1)
    # 150 samples: the variance itself is known to about 12 %.
    assert variance == pytest.approx(1000 * burst.variance_factor(), rel=0.5)


def test_lost_frames_have_used_the_rate() -> None:
    shaper = make(rate_mbit=10, loss=0.5, queue_packets=1000)
    for _ in range(200):
        shaper.offer(0, FULL)
    assert shaper.line[-1].release_ns > 150 * FULL_NS_AT_10_MBIT


def test_the_same_seed_gives_the_same_fate() -> None:
    def fate(seed: int) -> list[tuple[int, int]]:
        shaper = make(seed=seed, rate_mbit=5, delay_ms=9, jitter_ms=4, loss=0.1, duplicate=0.1, reorder=0.1)
        for number in range(300):
            shaper.offer(number * 50_000, numbered(number))
        return drain(shaper)

    assert fate(1) == fate(1)
    assert fate(1) != fate(2)


# ---- changes at run time

steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, MS), st.integers(60, 1514)),
        st.tuples(st.just("take"), st.integers(0, 5 * MS), st.just(0)),
        st.tuples(
            st.just("update"),
            st.integers(0, MS),
            st.sampled_from(
                [
                    LinkProfile(rate_mbit=1, delay_ms=50),
                    LinkProfile(rate_mbit=100, delay_ms=1),
                    LinkProfile(delay_ms=5, jitter_ms=5),
                    LinkProfile(),
                    LinkProfile(rate_mbit=3, delay_ms=20, jitter_ms=20, loss=0.1, duplicate=0.1, queue_packets=3),
                    LinkProfile(trace=Trace(file="t", times_ms=(1, 1, 7)), delay_ms=2),
                ]
            ),
        ),
    ),
    max_size=150,
)


@given(steps)
def test_updates_keep_order_and_frames(actions: list[tuple[str, int, int | LinkProfile]]) -> None:
    shaper = make(rate_mbit=10, delay_ms=15, queue_packets=10)
    now_ns = 0
    number = 0
    seen: list[int] = []
    previous_ns = 0
    for kind, gap_ns, value in actions:
        now_ns += gap_ns
        if kind == "offer":
            assert isinstance(value, int)
            shaper.offer(now_ns, numbered(number, value))
            number += 1
        elif kind == "update":
            assert isinstance(value, LinkProfile)
            in_flight = len(shaper.line)
            shaper.update(value, now_ns)
            assert len(shaper.line) == in_flight
        else:
            for entry in shaper.take(now_ns):
                assert previous_ns <= entry.release_ns <= now_ns
                previous_ns = entry.release_ns
                seen.append(int.from_bytes(entry.frame[:4], "big"))
    seen += [entry_number for _, entry_number in drain(shaper)]
    assert seen == sorted(seen)
    counters = shaper.counters
    assert counters.offered == number
    assert counters.offered + counters.duplicated == len(seen) + counters.dropped_queue + counters.dropped_loss
    assert shaper._line_bytes == 0


def test_waiting_frames_get_the_new_rate() -> None:
    shaper = make(rate_mbit=1, delay_ms=10, queue_packets=100)
    for _ in range(11):
        shaper.offer(0, FULL)
    slow_ns = 10 * FULL_NS_AT_10_MBIT
    assert shaper.line[-1].release_ns == 11 * slow_ns + 10 * MS
    # Half of the second frame is transmitted; the rest of it and nine more go at the new rate.
    now_ns = slow_ns + slow_ns // 2
    shaper.update(LinkProfile(rate_mbit=10, delay_ms=10), now_ns)
    releases = [entry.release_ns for entry in shaper.line]
    assert releases[0] == slow_ns + 10 * MS
    assert releases[1] == pytest.approx(now_ns + FULL_NS_AT_10_MBIT // 2 + 10 * MS, abs=1000)
    assert releases[-1] == pytest.approx(now_ns + 9.5 * FULL_NS_AT_10_MBIT + 10 * MS, abs=1000)
    # The limiter goes on behind them.
    shaper.offer(now_ns, FULL)
    assert shaper.line[-1].release_ns == pytest.approx(now_ns + 10.5 * FULL_NS_AT_10_MBIT + 10 * MS, abs=1000)


def test_a_shorter_delay_overtakes_nothing() -> None:
    shaper = make(delay_ms=100)
    shaper.offer(0, numbered(0))
    shaper.update(LinkProfile(delay_ms=1), 1)
    shaper.offer(2, numbered(1))
    assert drain(shaper) == [(100 * MS, 0), (100 * MS, 1)]
    shaper.offer(200 * MS, numbered(2))
    assert drain(shaper) == [(201 * MS, 2)]


def test_blackhole_and_flush() -> None:
    shaper = make(rate_mbit=10, delay_ms=10, queue_packets=5)
    for _ in range(6):
        shaper.offer(0, FULL)
    shaper.blackhole = True
    shaper.offer(1, FULL)
    assert shaper.flush() == 6
    assert shaper.next_release_ns() is None
    assert (shaper.counters.dropped_blackhole, shaper.counters.dropped_flushed) == (1, 6)
    shaper.blackhole = False
    shaper.offer(2, FULL)
    # The limiter forgot the frames that it no longer has.
    assert drain(shaper) == [(2 + FULL_NS_AT_10_MBIT + 10 * MS, 0)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaper_module, "MAX_LINE_BYTES", 10_000)
    shaper = make(delay_ms=60_000)
    for _ in range(100):
        shaper.offer(0, FULL)
    assert len(shaper.line) == 5
    assert shaper.counters.dropped_memory == 95
    shaper.take(1 << 62)
    shaper.offer(1, FULL)
    assert len(shaper.line) == 1


# ---- traces


def test_a_trace_is_the_rate() -> None:
    playing = Trace(file="t", times_ms=(10, 20, 30))
    shaper = make(start_ns=5 * MS, trace=playing, delay_ms=1, queue_packets=2)
    for number in range(5):
        shaper.offer(5 * MS, numbered(number, 1514))
    # One in transmission, two waiting; times count from the start, then 1 ms of delay.
    assert drain(shaper) == [(16 * MS, 0), (26 * MS, 1), (36 * MS, 2)]
    assert shaper.counters.dropped_queue == 2


def test_after_the_end_of_a_trace_nothing_is_delivered() -> None:
    shaper = make(trace=Trace(file="t", times_ms=(10,), loops=1))
    for number in range(3):
        shaper.offer(0, numbered(number, 1514))
    assert drain(shaper) == [(10 * MS, 0)]
    assert shaper.counters.dropped_queue == 2
