"""Token buckets."""

from agents.core.mobileip.rates import TokenBuckets


def test_a_burst_and_then_the_rate() -> None:
    buckets = TokenBuckets(rate_per_s=2.0, burst=3.0)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert [buckets.take("a", 1.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("b", 1.0)


def test_time_that_runs_backwards_gives_nothing() -> None:
    buckets = TokenBuckets(1.0, 1.0)
    assert buckets.take("a", 100.0)
    assert not buckets.take("a", 0.0)
    assert not buckets.take("a", 100.5)
    assert buckets.take("a", 101.0)


def test_memory_is_bounded() -> None:
    buckets = TokenBuckets(1.0, 1.0, keys_max=10)
    for number in range(1000):
        buckets.take(number, 0.0)
    assert len(buckets) == 10
