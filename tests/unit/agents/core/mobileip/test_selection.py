"""Path selection: what each policy chooses, and that none depends on the order in which paths are listed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.actions import Balancing, FlowRule, Tunnel
from agents.core.mobileip.selection import (
    NO_CHOICE,
    SELECTIONS,
    Choice,
    Measurement,
    Path,
    Settings,
    StaticFlow,
    compound_ms,
    select,
)
from agents.wire.mobileip.values import Selector

HTTP = Selector(source_port=(80, 80))
VOICE = Selector(source_port=(5060, 5061))
WLAN = Path(
    1, Tunnel("10.1.0.2", "10.9.0.1"), label=7, cost=0, capacity_mbit=20, rtt_ms=30, jitter_ms=2, loss=0.0, answered_s=2
)
LTE = Path(2, Tunnel("10.2.0.2", "10.9.0.1"), label=8, cost=5, capacity_mbit=10, rtt_ms=50, jitter_ms=1, loss=0.0, answered_s=1)
CDMA = Path(3, Tunnel("10.3.0.2", "10.9.0.1"), label=9, cost=9)


def tunnels(choice: Choice) -> list[str]:
    """Local ends of the tunnels that share the packets."""
    return [tunnel.local for tunnel, _weight in choice.shares]


@pytest.mark.parametrize(
    ("name", "balancing"),
    [("per-flow", Balancing.PER_FLOW), ("per-packet", Balancing.PER_PACKET), ("round-robin", Balancing.ROUND_ROBIN)],
)
def test_equal_shares(name: str, balancing: Balancing) -> None:
    choice = select(name, [LTE, WLAN, CDMA])
    assert choice.shares == ((WLAN.tunnel, 1), (LTE.tunnel, 1), (CDMA.tunnel, 1))
    assert choice.balancing is balancing
    assert choice.rules == ()


def test_weights_follow_capacity() -> None:
    assert select("weighted", [WLAN, LTE]).shares == ((WLAN.tunnel, 2), (LTE.tunnel, 1))
    measured = replace(WLAN, measured_mbit=5.0)
    assert select("weighted", [measured, LTE]).shares == ((WLAN.tunnel, 1), (LTE.tunnel, 2)), "measured beats configured"
    assert select("weighted", [WLAN, LTE, CDMA]).shares[2] == (CDMA.tunnel, 3), "an unknown one counts like the mean"
    assert tunnels(select("weighted", [CDMA])) == ["10.3.0.2"]


def test_priority_takes_the_cheapest() -> None:
    assert tunnels(select("priority", [LTE, WLAN])) == ["10.1.0.2"]
    assert tunnels(select("priority", [LTE, CDMA])) == ["10.2.0.2"]
    assert tunnels(select("priority", [replace(LTE, cost=0), WLAN])) == ["10.1.0.2", "10.2.0.2"]


def test_lowest_rtt_has_hysteresis() -> None:
    last = select("lowest-rtt", [WLAN, LTE])
    assert last.preferred == 1
    assert select("lowest-rtt", [WLAN, replace(LTE, rtt_ms=27)], last=last).preferred == 1, "3 ms is not enough"
    assert select("lowest-rtt", [WLAN, replace(LTE, rtt_ms=24)], last=last).preferred == 2
    slow = replace(WLAN, rtt_ms=200)
    assert select("lowest-rtt", [slow, replace(LTE, rtt_ms=185)], last=last).preferred == 1, "a tenth of 200 ms is not reached"
    assert select("lowest-rtt", [LTE], last=last).preferred == 2, "the present one is gone"
    assert tunnels(select("lowest-rtt", [CDMA], last=last)) == ["10.3.0.2"], "nothing is measured"


def test_compound_adds_jitter_and_loss() -> None:
    assert compound_ms(replace(WLAN, loss=0.1)) == pytest.approx(30 + 2 * 2 + 100)
    assert compound_ms(CDMA) is None
    assert select("compound", [WLAN, LTE]).preferred == 1
    assert select("compound", [replace(WLAN, loss=0.1), LTE]).preferred == 2
    assert select("compound", [replace(WLAN, jitter_ms=20), LTE]).preferred == 2


def test_first_to_respond_stays() -> None:
    assert select("first-to-respond", [WLAN, LTE, CDMA]).preferred == 2
    assert select("first-to-respond", [WLAN, LTE], last=Choice(preferred=1)).preferred == 1
    assert select("first-to-respond", [WLAN], last=Choice(preferred=2)).preferred == 1
    assert tunnels(select("first-to-respond", [CDMA])) == ["10.3.0.2"]


def test_35_static_policy_without_exchange() -> None:
    settings = Settings(flows=(StaticFlow(HTTP, (1, 2)), StaticFlow(VOICE, (2,)), StaticFlow(Selector(protocol=(6, 6)))))
    choice = select("static", [WLAN, LTE], settings)
    assert choice.rules[:2] == (FlowRule(HTTP, WLAN.tunnel), FlowRule(VOICE, LTE.tunnel))
    assert choice.rules[2].tunnel is None, "a line without paths drops"
    gone = select("static", [WLAN], settings)
    assert [rule.selector for rule in gone.rules] == [HTTP, Selector(protocol=(6, 6))], "voice is balanced like the rest"
    dropped = select("static", [WLAN], replace(settings, lost_flows_dropped=True))
    assert FlowRule(VOICE, None) in dropped.rules
    assert tunnels(choice) == ["10.1.0.2", "10.2.0.2"]


def test_label_policy() -> None:
    settings = Settings(flows=(StaticFlow(HTTP, labels=(8, 7)),))
    assert select("label", [WLAN, LTE], settings).rules == (FlowRule(HTTP, LTE.tunnel),)
    assert select("label", [WLAN], settings).rules == (FlowRule(HTTP, WLAN.tunnel),)
    same = select("label", [WLAN, replace(LTE, label=7)], Settings(flows=(StaticFlow(HTTP, labels=(7,)),)))
    assert same.rules == (FlowRule(HTTP, WLAN.tunnel),), "of equal labels the smallest BID, on both sides"


def test_36_without_policy_flows_are_balanced() -> None:
    assert select("static", [WLAN, LTE]) == select("per-flow", [WLAN, LTE])


_NUMBER = st.none() | st.floats(0, 1e6)
_PATHS = st.lists(
    st.builds(
        Path, st.integers(1, 254), st.builds(Tunnel, st.sampled_from("abcdef"), st.just("ha")), label=st.integers(1, 3),
        cost=st.integers(0, 3), capacity_mbit=_NUMBER, measured_mbit=_NUMBER, rtt_ms=_NUMBER, jitter_ms=_NUMBER,
        loss=st.none() | st.floats(0, 1), answered_s=_NUMBER,
    ),
    max_size=5, unique_by=lambda path: path.bid,
)  # fmt: skip


@pytest.mark.parametrize("name", SELECTIONS)
@given(paths=_PATHS, preferred=st.integers(0, 254))
def test_every_policy_is_total_and_ignores_order(name: str, paths: list[Path], preferred: int) -> None:
    settings = Settings(flows=(StaticFlow(HTTP, (1, 2), (1, 2)),))
    choice = select(name, paths, settings, Choice(preferred=preferred))
    assert choice == select(name, paths[::-1], settings, Choice(preferred=preferred))
    there = {path.tunnel for path in paths}
    assert bool(choice.shares) == bool(paths), "packets always have a way where there is a path"
    assert all(tunnel in there and weight >= 1 for tunnel, weight in choice.shares)
    assert all(rule.tunnel in there for rule in choice.rules)
    assert select(name, paths, settings, choice) == choice, "the same measurements change nothing"


def test_measurement_smooths_and_counts_losses() -> None:
    measurement = Measurement(window=4)
    assert measurement.loss is None
    measurement.add(None, 1.0)
    assert (measurement.failures, measurement.loss, measurement.answered_s) == (1, 1.0, None)
    measurement.add(100.0, 2.0)
    assert (measurement.rtt_ms, measurement.jitter_ms, measurement.failures, measurement.answered_s) == (100.0, 50.0, 0, 2.0)
    measurement.add(180.0, 3.0)
    assert measurement.rtt_ms == pytest.approx(110.0)
    assert measurement.answered_s == 2.0, "the first answer counts"
    for _ in range(4):
        measurement.add(float("nan"), 4.0)
    assert (measurement.loss, measurement.failures, measurement.rtt_ms) == (1.0, 4, pytest.approx(110.0))
    assert NO_CHOICE.preferred == 0
