"""The record of how late the relay was."""

from topologies.links.relay import LATENESS_BUCKETS, Lateness


def test_empty() -> None:
    assert Lateness().summary() == {"frames": 0, "late_p50_us": 0.0, "late_p99_us": 0.0, "late_max_us": 0.0}


def test_quantiles_are_upper_edges_and_never_above_the_maximum() -> None:
    late = Lateness()
    for us in range(1000):
        late.add(us * 1000)
    assert late.summary() == {"frames": 1000, "late_p50_us": 500.0, "late_p99_us": 990.0, "late_max_us": 999.0}
    one = Lateness()
    one.add(23_000)
    assert one.quantile_us(0.5) == 23.0


def test_very_late_frames_share_the_last_bucket() -> None:
    late = Lateness()
    late.add(10**12)
    assert late.buckets[LATENESS_BUCKETS] == 1
    assert late.max_ns == 10**12


def test_merge_and_reset() -> None:
    a, b = Lateness(), Lateness()
    a.add(1_000)
    b.add(2_000_000)
    a.merge(b)
    assert a.summary()["frames"] == 2
    assert a.max_ns == 2_000_000
    a.reset()
    assert a.summary()["frames"] == 0
