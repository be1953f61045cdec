"""Which tunnel a flow takes: the same at both ends, and as few moves as possible."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.actions import Tunnel
from agents.kernel.mobileip.balancing import BUCKETS, ROUNDS_MAX, buckets, cycle, name_of, ranges


def shares(*weights: int, bids: bool = True) -> list[tuple[Tunnel, int]]:
    return [(Tunnel("10.33.0.2", f"10.{number}.0.100", bid=number if bids else 0), weight)
            for number, weight in enumerate(weights, 1)]  # fmt: skip


def owners(of: list[tuple[Tunnel, int]]) -> list[str]:
    return [name_of(of[position][0]) for position in buckets(of)]


def test_both_ends_agree_whatever_their_order_and_addresses() -> None:
    near = shares(1, 2, 3)
    far = [(Tunnel(f"192.0.2.{tunnel.bid}", "10.33.0.2", bid=tunnel.bid), weight) for tunnel, weight in reversed(near)]
    assert owners(near) == owners(far)
    plain = shares(1, 1, bids=False)
    mirrored = [(Tunnel(tunnel.remote, tunnel.local), weight) for tunnel, weight in plain]
    assert owners(plain) == owners(mirrored)


def test_rfc_2991_a_tunnel_that_goes_moves_only_its_own_flows() -> None:
    whole = shares(1, 1, 1)
    before, after = owners(whole), owners(whole[:2])
    assert all(new == old for old, new in zip(before, after, strict=True) if old != "bid 3")
    assert {new for old, new in zip(before, after, strict=True) if old == "bid 3"} == {"bid 1", "bid 2"}


def test_a_larger_weight_only_gains() -> None:
    before, after = owners(shares(1, 1)), owners(shares(3, 1))
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"bid 1"}


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_buckets_follow_the_weights(weights: list[int]) -> None:
    counted = Counter(buckets(shares(*weights)))
    for number, weight in enumerate(weights):
        fraction = weight / sum(weights)
        # Three standard deviations of so many draws, and one bucket.
        assert abs(counted[number] - BUCKETS * fraction) <= 4 * (BUCKETS * fraction * (1 - fraction)) ** 0.5 + 1


def test_no_weight_is_no_share_unless_there_is_nothing_else() -> None:
    assert set(buckets(shares(0, 1))) == {1}
    assert set(buckets(shares(0, 0))) == {0, 1}
    assert cycle(shares(0, 0)) == [0, 1]


def test_cycles_are_even() -> None:
    assert cycle(shares(1, 1)) == [0, 1]
    assert cycle(shares(2, 1)) == [0, 1, 0]
    assert cycle(shares(10, 20)) == [1, 0, 1]
    assert cycle(shares(0, 5)) == [1]
    assert len(cycle(shares(1000, 999))) <= 2 * ROUNDS_MAX


def test_ranges() -> None:
    assert ranges([0, 0, 1, 0]) == [(0, 1, 0), (2, 2, 1), (3, 3, 0)]
    assert ranges([]) == []
