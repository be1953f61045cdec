"""Mobile node, foreign agent and home agent joined in memory."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.foreign_agent import ForeignAgent
from tests.unit.agents.core.mobileip.joined_network import FA, Disagreement, Weather, World
from tests.unit.agents.core.mobileip.mn_parts import HOME
from tests.unit.agents.core.mobileip.test_joined_mn_ha import EVENTS, LIFETIME_S, PACKETS, SLACK_S, assert_same


def visiting(**values: object) -> World:
    """wlan without an address behind the foreign agent, lte with an address of its own; settled."""
    world = World(foreign=True, **values)  # type: ignore[arg-type]
    world.attach("wlan", None)
    world.attach("lte", "10.2.0.2")
    world.run(6)
    return world


def visitors(world: World) -> list[str]:
    """Home addresses on the visitor list."""
    assert world.foreign is not None
    return [item["home_address"] for item in world.foreign.status()["visitors"]]


def test_27_foreign_agent_and_own_care_of_address_together() -> None:
    world = visiting()
    assert world.of_agent() == world.of_node() == {(1, FA), (2, "10.2.0.2")}
    assert visitors(world) == [HOME]
    assert_same(world)
    tunnels = {tunnel.bid: tunnel for tunnel in world.ends["mn"].opened.values()}
    assert tunnels[1].encapsulation is Encapsulation.NONE, "the tunnel is between home agent and foreign agent"
    assert {tunnel.remote for tunnel in world.ends["ha"].opened.values()} == {FA, "10.2.0.2"}
    world.run(100)
    assert visitors(world) == [HOME], "refreshed"
    assert_same(world)


def test_leaving_the_foreign_agent() -> None:
    world = visiting()
    world.detach("wlan")
    world.run(2)
    assert world.of_agent() == {(2, "10.2.0.2")}
    world.run(LIFETIME_S + SLACK_S)
    assert visitors(world) == [], "its visitor entry ends with the lifetime"
    assert_same(world)


def test_deregistration_through_the_foreign_agent() -> None:
    world = visiting()
    world.perform("mn", world.node.deregister("wlan", world.time("mn")))
    world.run(2)
    assert visitors(world) == []
    assert world.of_agent() == {(2, "10.2.0.2")}
    assert_same(world)


def test_single_binding_through_a_foreign_agent() -> None:
    world = visiting(multipath=False)
    assert world.of_agent() == world.of_node() == {(0, FA)}
    assert world.ends["ha"].way(PACKETS[0]) == (0,)
    world.detach("wlan")
    world.run(3)
    assert world.of_agent() == world.of_node() == {(0, "10.2.0.2")}


def test_home_agent_that_does_not_answer_is_code_78() -> None:
    world = visiting()
    world.stop_agent()
    world.run(60)
    assert world.foreign is not None
    assert world.foreign.status()["pending"] <= 3
    world.start_agent()
    world.run(2 * LIFETIME_S + 20)
    assert_same(world)
    assert len(world.of_agent()) == 2


@pytest.mark.parametrize("flag", ["lifetime_max_s", "reverse_tunnel"])
def test_what_the_foreign_agent_does_not_offer_is_not_asked_for_again(flag: str) -> None:
    world = World(foreign=True)
    assert world.foreign is not None
    limited = replace(
        world.foreign._config, **({"lifetime_max_s": 15} if flag == "lifetime_max_s" else {"reverse_tunnel": False})
    )
    world.foreign = ForeignAgent(limited, world.draw.randbytes)
    world.perform("fa", world.foreign.start(world.time("fa")))
    world.attach("wlan", None)
    world.run(10)
    assert world.of_agent() == world.of_node() == {(1, FA)}
    assert visitors(world) == [HOME]


_EVENTS = [
    "lte here",
    "lte gone",
    "wlan gone",
    "wlan silent",
    "wlan speaks",
    "node restarts",
    "agent restarts",
    "register",
    "leave",
]


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from([*_EVENTS, "visit"]), st.sampled_from([0.0, 0.4, 2.0, 9.0, 25.0])), max_size=10),
    st.sampled_from([0.0, 0.3]), st.sampled_from([0.05, 0.5]), st.booleans(),
)  # fmt: skip
def test_three_ends_never_disagree_for_longer_than_a_lifetime(
    seed: int, events: list[tuple[str, float]], loss: float, delay_s: float, multipath: bool
) -> None:
    world = World(seed, Weather(loss, 0.2, delay_s), foreign=True, multipath=multipath)
    watch = Disagreement(world, LIFETIME_S + SLACK_S)
    world.attach("wlan", None)
    for name, wait_s in events:
        if name == "visit":
            world.attach("wlan", None)
        else:
            EVENTS[name](world)
        world.run(wait_s, watch.look)
    world.weather = Weather()
    world.silent.clear()
    world.run(5 * LIFETIME_S, watch.look)
    assert_same(world)
    expected = [HOME] if any(care_of == FA for _bid, care_of in world.of_node()) else []
    assert visitors(world) == expected
