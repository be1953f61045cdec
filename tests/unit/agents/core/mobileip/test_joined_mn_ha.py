"""Mobile node and home agent joined in memory: whatever the network and people do, both ends come to think the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip.selectors import PacketFields
from agents.wire.mobileip.values import Selector
from tests.unit.agents.core.mobileip.joined_network import Disagreement, Weather, World
from tests.unit.agents.core.mobileip.mn_parts import HOME, NONCES

LIFETIME_S = 20
SLACK_S = 3.0
"""Messages under way, and the moment at which a deadline is looked at."""
HTTP = Selector(source_port=(80, 80), protocol=(6, 6))
VOICE = Selector(source_port=(5060, 5061), protocol=(17, 17))
FLOWS = (StaticFlow(HTTP, (1, 2)), StaticFlow(VOICE, (2, 1)), StaticFlow(Selector(source_port=(9, 9))))
PACKETS = [
    PacketFields("10.64.0.2", HOME, protocol, port, 40000) for protocol in (6, 17) for port in (80, 5060, 9, 443)
]  # fmt: skip


def both_attached(**values: Any) -> World:
    """A world with two interfaces, settled."""
    world = World(**values)
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(5)
    return world


def assert_same(world: World) -> None:
    """Bindings, and the tunnels that both ends name for each flow, are the same."""
    assert world.of_node() == world.of_agent()
    for packet in PACKETS:
        assert world.ends["mn"].way(packet) == world.ends["ha"].way(packet), packet


def test_two_interfaces_two_bindings() -> None:
    world = both_attached()
    assert world.of_agent() == {(1, "10.1.0.2"), (2, "10.2.0.2")}
    assert_same(world)
    world.run(100)
    assert_same(world)
    assert world.of_agent() == {(1, "10.1.0.2"), (2, "10.2.0.2")}


def test_28_flow_table_of_figure_2_at_both_ends() -> None:
    world = both_attached(flows=FLOWS, exchange_flows=True)
    assert_same(world)
    ways = {(packet.protocol, packet.source_port): world.ends["ha"].way(packet) for packet in PACKETS}
    assert ways[6, 80] == (1,)
    assert ways[17, 5060] == (2,)
    assert ways[6, 9] is None
    assert ways[6, 443] == (1, 2)
    world.detach("wlan")
    world.run(3)
    assert_same(world)
    assert world.ends["ha"].way(PACKETS[0]) == (2,), "HTTP has moved"
    world.attach("wlan", "10.1.0.2")
    world.run(5)
    assert_same(world)
    assert world.ends["ha"].way(PACKETS[0]) == (1,), "and has returned"


def test_20_home_agent_without_multipath() -> None:
    world = World()
    world.agent_config = replace(
        world.agent_config, mobile_nodes=(replace(world.agent_config.mobile_nodes[0], multipath=False),)
    )
    world.start_agent()
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(10)
    assert world.node.status()["multipath"] is False
    assert world.of_agent() == world.of_node() == {(0, "10.1.0.2")}
    assert_same(world)


@pytest.mark.parametrize("skew_s", [-86_400.0, -6.0, 5.0, 3600.0])
def test_clock_skew_is_resynchronised(skew_s: float) -> None:
    world = both_attached(skew_s=skew_s)
    assert len(world.of_agent()) == 2
    assert_same(world)


def test_nonces() -> None:
    world = World(association=NONCES)
    world.agent_config = replace(
        world.agent_config, mobile_nodes=(replace(world.agent_config.mobile_nodes[0], associations=(NONCES,)),)
    )
    world.start_agent()
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(60)
    assert_same(world)
    assert len(world.of_agent()) == 2


@pytest.mark.parametrize("strict", [False, True])
def test_26_33_new_care_of_address(strict: bool) -> None:
    world = both_attached(strict_overwrite=strict, flows=FLOWS, exchange_flows=True)
    world.attach("wlan", "10.1.0.3")
    world.run(5)
    assert world.of_agent() == {(1, "10.1.0.3"), (2, "10.2.0.2")}
    assert_same(world)


def test_23_bulk_refresh_keeps_all() -> None:
    world = both_attached(bulk_refresh=True)
    world.run(200)
    assert len(world.of_agent()) == 2
    assert_same(world)


def test_23_bulk_refresh_does_not_keep_bindings_of_an_earlier_life() -> None:
    world = both_attached(bulk_refresh=True)
    del world.interfaces["lte"]
    world.restart_node()
    world.run(LIFETIME_S + SLACK_S)
    assert world.of_agent() == world.of_node() == {(1, "10.1.0.2")}


def test_25_deregistration_of_all() -> None:
    world = both_attached()
    world.perform("mn", world.node.deregister(None, world.time("mn")))
    world.run(2)
    assert world.of_agent() == set()
    assert_same(world)


def test_returning_home_and_leaving_again() -> None:
    world = both_attached()
    world.attach("wlan", "10.9.0.50")
    world.run(3)
    assert world.node.status()["interfaces"][0]["state"] == "at-home"
    assert world.of_agent() == world.of_node() == set()
    assert_same(world)
    world.attach("wlan", "10.1.0.2")
    world.run(5)
    assert len(world.of_agent()) == 2
    assert_same(world)


def test_lost_interface_is_withdrawn_at_once() -> None:
    world = both_attached()
    world.detach("wlan")
    world.run(0.5)
    assert world.of_agent() == {(2, "10.2.0.2")}


def test_silent_path_is_found_and_withdrawn() -> None:
    world = both_attached(probe_interval_s=1.0)
    world.silent.add("wlan")
    world.run(10)
    assert world.of_agent() == world.of_node() == {(2, "10.2.0.2")}
    world.silent.clear()
    world.run(30)
    assert len(world.of_agent()) == 2
    assert_same(world)


def test_home_agent_restarts() -> None:
    world = both_attached(flows=FLOWS, exchange_flows=True)
    world.stop_agent()
    world.run(3)
    world.start_agent()
    assert len(world.of_agent()) == 2, "nothing is forgotten"
    assert_same(world)
    world.stop_agent()
    world.stored.clear()
    world.start_agent()
    assert world.of_agent() == set()
    world.run(LIFETIME_S + SLACK_S)
    assert len(world.of_agent()) == 2, "refreshes bring everything back, the policy too"
    assert_same(world)


def test_operator_takes_a_binding_away() -> None:
    world = both_attached(flows=FLOWS, exchange_flows=True)
    assert world.agent is not None
    world.perform("ha", world.agent.deregister(HOME, 1, world.time("ha")))
    world.run(LIFETIME_S + SLACK_S)
    assert len(world.of_agent()) == 2
    assert_same(world)


def test_11_operators_flows_reach_the_mobile_node() -> None:
    world = both_attached(flows=FLOWS, exchange_flows=True, served={"policy": (StaticFlow(HTTP, (2,)),)})
    assert world.ends["mn"].way(PACKETS[0]) == (2,)
    assert_same(world)


def test_policy_is_replaced_and_removed() -> None:
    world = both_attached(flows=FLOWS, exchange_flows=True)
    world.perform("mn", world.node.set_policy((StaticFlow(HTTP, (2, 1)),), world.time("mn")))
    world.run(5)
    assert world.ends["ha"].way(PACKETS[0]) == (2,)
    assert_same(world)
    world.perform("mn", world.node.set_policy((), world.time("mn")))
    world.run(8)
    assert world.ends["ha"].way(PACKETS[0]) == (1, 2)
    assert_same(world)


# -- anything may happen ----------------------------------------------------------------------------------------------
def _address(interface: str, number: int) -> Callable[[World], None]:
    return lambda world: world.attach(interface, f"10.{1 if interface == 'wlan' else 2}.0.{number}")


def _stop_and_start(world: World) -> None:
    world.stop_agent()
    world.later(2.0, world.start_agent)


def _set_policy(world: World, flows: tuple[StaticFlow, ...]) -> None:
    """At the mobile node, which tells the home agent; without exchange at both ends."""
    if not world.config.exchange_flows:
        if world.agent is None:
            return
        world.perform("ha", world.agent.set_policy(HOME, flows, world.time("ha")))
    world.perform("mn", world.node.set_policy(flows, world.time("mn")))


EVENTS: dict[str, Callable[[World], Any]] = {
    "wlan here": _address("wlan", 2), "wlan there": _address("wlan", 3),
    "lte here": _address("lte", 2), "lte there": _address("lte", 3),
    "wlan gone": lambda world: world.detach("wlan"), "lte gone": lambda world: world.detach("lte"),
    "wlan silent": lambda world: world.silent.add("wlan"), "wlan speaks": lambda world: world.silent.discard("wlan"),
    "lte silent": lambda world: world.silent.add("lte"), "lte speaks": lambda world: world.silent.discard("lte"),
    "home": lambda world: world.attach("wlan", "10.9.0.50"),
    "node restarts": World.restart_node, "agent restarts": _stop_and_start,
    "register": lambda world: world.perform("mn", world.node.register(None, world.time("mn"))),
    "leave": lambda world: world.perform("mn", world.node.deregister(None, world.time("mn"))),
    "leave lte": lambda world: world.perform("mn", world.node.deregister("lte", world.time("mn"))),
    "policy": lambda world: _set_policy(world, FLOWS[:2]), "no policy": lambda world: _set_policy(world, ()),
}  # fmt: skip
_SCRIPT = st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from([0.0, 0.03, 0.4, 2.0, 9.0, 25.0])), max_size=14)
_MODES = st.sampled_from(
    [{}, {"bulk_refresh": True}, {"strict_overwrite": True}, {"multipath": False}, {"overlap": False, "multipath": False},
     {"probe_interval_s": 2.0}, {"validate": False}, {"exchange_flows": True, "flows": FLOWS},
     {"exchange_flows": True, "flows": FLOWS, "strict_overwrite": True}, {"withdraw_lost": False}]
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.integers(0, 2**32), _MODES, _SCRIPT, st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.05, 0.8]), st.sampled_from([0.0, -6.0, 100.0]),
)  # fmt: skip
def test_ends_never_disagree_for_longer_than_a_lifetime(
    seed: int,
    mode: dict[str, Any],
    events: list[tuple[str, float]],
    loss: float,
    duplication: float,
    delay_s: float,
    skew_s: float,
) -> None:
    world = World(seed, Weather(loss, duplication, delay_s), skew_s=skew_s, **mode)
    watch = Disagreement(world, LIFETIME_S + SLACK_S)
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    for name, wait_s in events:
        EVENTS[name](world)
        world.run(wait_s, watch.look)
    world.weather = Weather()
    world.silent.clear()
    world.run(4 * LIFETIME_S, watch.look)
    assert_same(world)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([0.2, 0.5]))
def test_bindings_survive_bad_weather(seed: int, loss: float) -> None:
    """With a reply lost now and then, a mobile node that stays keeps its bindings most of the time."""
    world = World(seed, Weather(loss, 0.2, 0.3), lifetime_s=60)
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(60)
    bound: list[int] = []
    for _ in range(60):
        world.run(2)
        bound.append(len(world.of_agent()))
    assert sum(bound) >= 0.8 * 2 * len(bound)
