"""Agent discovery and move detection (RFC 5944 section 2.4): what is heard, and what it means."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.discovery import AGENTS_MAX, Discovery, DiscoveryConfig, Finding, registration_lifetime_s
from agents.wire.mobileip.values import Advertisement, MobilityAgent

FA = "10.1.0.1"
OTHER = "10.2.0.1"
HA = "10.9.0.1"


def advertisement(address: str = FA, sequence: int = 1, lifetime_s: int = 30, prefix: int | None = 24) -> Advertisement:
    """What a foreign agent says of itself."""
    agent = MobilityAgent(sequence, 600, (address,), foreign_agent=True, reverse_tunnel=True)
    lengths = () if prefix is None else (prefix,)
    return Advertisement(lifetime_s, ((address, 0),), agent=agent, prefix_lengths=lengths)


def changed(heard: Advertisement, **values: object) -> Advertisement:
    """The same with other values in the mobility agent extension."""
    assert heard.agent is not None
    return replace(heard, agent=replace(heard.agent, **values))  # type: ignore[arg-type]


def listening(config: DiscoveryConfig | None = None) -> Discovery:
    """Started at 0, first solicitation sent."""
    discovery = Discovery(config or DiscoveryConfig(home_agent=HA))
    discovery.start(0.0)
    assert discovery.handle_timer(0.0) == (Finding.NOTHING, True)
    return discovery


def hear(discovery: Discovery, heard: Advertisement, now_s: float) -> Finding:
    """The advertisement comes from its first router address."""
    return discovery.handle_advertisement(heard, heard.routers[0][0], "02:00:00:00:00:01", now_s)


def test_solicitations_three_then_backoff() -> None:
    discovery = listening()
    times = [0.0]
    while len(times) < 11:
        deadline = discovery.next_deadline()
        assert deadline is not None
        assert discovery.handle_timer(deadline) == (Finding.NOTHING, True)
        times.append(deadline)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == [1, 1, 1, 2, 4, 8, 16, 32, 60, 60]
    assert hear(discovery, advertisement(), times[-1]) is Finding.FOUND
    assert discovery.next_deadline() == times[-1] + 30, "no more solicitations, only the lifetime"


def test_algorithm_1_lifetime() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert hear(discovery, advertisement(sequence=2), 20.0) is Finding.NOTHING
    assert discovery.handle_timer(40.0) == (Finding.NOTHING, False)
    assert discovery.handle_timer(50.0) == (Finding.LOST, True), "lost, and at once asked for another"
    assert discovery.current is None


def test_algorithm_1_takes_an_agent_still_heard() -> None:
    discovery = listening()
    hear(discovery, advertisement(prefix=None), 1.0)
    assert hear(discovery, advertisement(OTHER, prefix=None), 20.0) is Finding.NOTHING, "without prefix lengths wait"
    assert discovery.handle_timer(31.0) == (Finding.MOVED, False)
    assert discovery.current is not None
    assert discovery.current.source == OTHER


def test_algorithm_2_prefix() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert hear(discovery, advertisement("10.1.0.7"), 2.0) is Finding.NOTHING, "same subnet: no move"
    assert hear(discovery, advertisement(OTHER), 3.0) is Finding.MOVED
    off = listening(DiscoveryConfig(prefix_moves=False))
    hear(off, advertisement(), 1.0)
    assert hear(off, advertisement(OTHER), 3.0) is Finding.NOTHING


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [(5, 6, Finding.NOTHING), (0xFFFF, 256, Finding.NOTHING), (0xFFFF, 0, Finding.RESTARTED), (700, 3, Finding.RESTARTED),
     (700, 600, Finding.NOTHING), (5, 4, Finding.RESTARTED), (700, 255, Finding.RESTARTED), (0, 1, Finding.NOTHING)],
)  # fmt: skip
def test_sequence_rollover_and_restart(before: int, after: int, finding: Finding) -> None:
    discovery = listening()
    hear(discovery, advertisement(sequence=before), 1.0)
    assert hear(discovery, advertisement(sequence=after), 2.0) is finding


def test_overtaken_advertisement_does_not_count() -> None:
    discovery = listening()
    hear(discovery, advertisement(sequence=700), 1.0)
    hear(discovery, changed(advertisement(sequence=690), care_of_addresses=("10.1.0.9",)), 2.0)
    assert discovery.current is not None
    assert discovery.current.offer.care_of_addresses == (FA,)


def test_busy_agent_keeps_its_visitors_and_gets_no_new_ones() -> None:
    discovery = listening()
    assert hear(discovery, changed(advertisement(), busy=True), 1.0) is Finding.NOTHING
    assert discovery.current is None
    assert hear(discovery, advertisement(sequence=2), 2.0) is Finding.FOUND
    assert hear(discovery, changed(advertisement(sequence=3), busy=True), 3.0) is Finding.NOTHING
    assert discovery.current is not None


@pytest.mark.parametrize("values", [{"foreign_agent": False}, {"care_of_addresses": ()}, {"reverse_tunnel": False}])
def test_agents_that_do_not_offer_what_is_needed(values: dict[str, object]) -> None:
    discovery = listening(DiscoveryConfig(reverse_tunnel=True))
    assert hear(discovery, changed(advertisement(), **values), 1.0) is Finding.NOTHING
    assert discovery.current is None


def test_home_agent_means_home() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    home = changed(advertisement(HA), home_agent=True, foreign_agent=False)
    assert hear(discovery, home, 2.0) is Finding.HOME
    assert discovery.at_home
    assert hear(discovery, home, 3.0) is Finding.NOTHING, "a repetition is no news"
    assert discovery.handle_timer(33.0)[0] is Finding.LOST
    assert not discovery.at_home


def test_home_needs_the_h_bit_and_the_address() -> None:
    discovery = listening()
    assert hear(discovery, changed(advertisement("10.9.0.2"), home_agent=True), 1.0) is Finding.FOUND
    assert not discovery.at_home


def test_lifetime_zero_is_goodbye() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert hear(discovery, advertisement(sequence=2, lifetime_s=0), 2.0) is Finding.LOST


def test_new_care_of_address_of_the_same_agent() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert hear(discovery, changed(advertisement(sequence=2), care_of_addresses=("10.1.0.9",)), 2.0) is Finding.CHANGED


def test_refused_by_the_agent_in_use() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert discovery.refused(1.0) is Finding.NOTHING, "there is no other one"
    hear(discovery, advertisement("10.1.0.7"), 2.0)
    assert discovery.refused(2.0) is Finding.MOVED
    assert discovery.current is not None
    assert discovery.current.source == "10.1.0.7"


def test_registration_lifetime_is_limited_by_the_advertisement() -> None:
    discovery = listening()
    hear(discovery, advertisement(), 1.0)
    assert registration_lifetime_s(1800, discovery.current) == 600
    assert registration_lifetime_s(100, discovery.current) == 100
    assert registration_lifetime_s(1800, None) == 1800


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 0xFFFF), st.integers(0, 3), st.booleans()), max_size=60))
def test_bounded_and_never_confused(heard: list[tuple[int, int, int, bool]]) -> None:
    discovery = listening()
    now_s = 0.0
    for number, sequence, lifetime_s, timer in heard:
        now_s += 0.5
        hear(discovery, advertisement(f"10.{number}.0.1", sequence, lifetime_s), now_s)
        if timer:
            discovery.handle_timer(now_s)
            assert all(agent.expires_s > now_s for agent in discovery.agents.values())
        assert len(discovery.agents) <= AGENTS_MAX
        assert discovery.current is None or discovery.agents.get(discovery.current.source) == discovery.current
