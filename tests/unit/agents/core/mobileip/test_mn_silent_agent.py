"""A home agent that is away for a while: the mobile node keeps its paths and is back as soon as the agent is."""

from typing import Any

import pytest

from agents.core.mobileip.actions import Forwarding
from tests.unit.agents.core.mobileip.joined_network import World
from tests.unit.agents.core.mobileip.mn_parts import LTE_UP, WLAN_UP, Script, asked, logged, pick, script

PROBES: dict[str, Any] = {"probe_interval_s": 0.2, "probe_timeout_s": 0.4, "probe_failures": 3}
REGISTRATION_S = 1.0
"""Requests of an interface are so far apart at least (RFC 5944 section 3.6.3)."""
BACK_S = PROBES["probe_interval_s"] + PROBES["probe_timeout_s"] + REGISTRATION_S


def both(**values: Any) -> Script:
    """Both interfaces registered and validated."""
    run = script(validate=True, **(PROBES | values))
    for request in run.up(WLAN_UP, LTE_UP):
        run.reply(request)
    run.probed(1)
    run.probed(2)
    return run


def silent(run: Script, *bids: int, rounds: int = 3) -> list[Any]:
    """So many probes of these bindings in a row have no answer."""
    found: list[Any] = []
    for _ in range(rounds):
        run.wait(0.6)
        for bid in bids:
            found += run.probed(bid, None)
    return found


def test_when_all_paths_are_silent_none_is_given_up_and_the_agent_is_asked_again() -> None:
    run = both()
    found = silent(run, 1, 2)
    assert len(run.node.bindings()) == 2
    assert run.node.status()["withdrawals"] == []
    assert {(item.bid, item.request.lifetime_s) for item in found} == {(1, 300), (2, 300)}, "it may have lost them"


def test_one_answer_ends_the_silence_and_no_request_waits_for_its_backoff() -> None:
    run = both()
    silent(run, 1, 2, rounds=16)
    waits_s = [route.exchange.due_s - run.now_s for route in run.node._node.routes.values() if route.exchange is not None]
    assert max(waits_s) > 2.0, "they back off"
    run.wait(0.6)
    found = run.probed(1)
    assert [tunnel.interface for tunnel, _ in pick(run.actions, Forwarding)[-1].shares] == ["wlan"]
    found += asked(run.wait(REGISTRATION_S))
    assert {item.bid for item in found} == {1, 2}


def test_a_silent_path_is_given_up_when_the_other_has_answered_since() -> None:
    run = both()
    silent(run, 1)
    assert len(run.node.bindings()) == 2
    assert not logged(run.actions, "binding-dropped"), "nothing was heard of the other one meanwhile"
    assert 2 in run.probes() or run.node._node.routes["lte"].probe_overdue_s < 1e9, "it is asked"
    found = run.probed(2)
    assert [(item.bid, item.request.lifetime_s, item.send.interface) for item in found] == [(1, 0, "lte")]
    assert run.states()["wlan"] == "denied"


def test_single_binding_goes_on_with_a_path_that_answers_again() -> None:
    run = both(multipath=False)
    (other,) = silent(run, 1)
    assert other.send.interface == "lte"
    run.wait(0.6)
    (again,) = run.probed(1)
    assert (again.send.interface, again.request.lifetime_s) == ("wlan", 300), "the other request may have arrived"
    assert run.states() == {"wlan": "refreshing", "lte": "idle"}
    run.reply(again)
    assert run.states()["wlan"] == "registered"


@pytest.mark.parametrize("multipath", [True, False])
@pytest.mark.parametrize("down_s", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_traffic_flows_soon_after_the_agent_is_back(multipath: bool, down_s: float, seed: int) -> None:
    world = World(seed=seed, lifetime_s=300, multipath=multipath, **PROBES)
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(5.0)
    assert flows(world, multipath)
    world.stop_agent()
    world.run(down_s)
    world.start_agent()
    begun_s = world.now_s
    while not flows(world, multipath):
        world.run(0.02)
        assert world.now_s <= begun_s + BACK_S
    world.run(BACK_S)
    assert flows(world, multipath), "and goes on"


@pytest.mark.parametrize("multipath", [True, False])
def test_an_agent_that_has_lost_its_bindings_gets_them_again(multipath: bool) -> None:
    world = World(lifetime_s=300, multipath=multipath, **PROBES)
    world.attach("wlan", "10.1.0.2")
    world.attach("lte", "10.2.0.2")
    world.run(5.0)
    world.stop_agent()
    world.run(5.0)
    world.stored.clear()
    world.start_agent()
    world.run(6.0)
    assert flows(world, multipath), "not after the refresh of a lifetime of 300 s"


def flows(world: World, multipath: bool) -> bool:
    """Both ends use the same tunnels: all of them, or the one of the single binding; and what they name works."""
    ends = [world.ends[name].forwarding for name in ("mn", "ha")]
    if any(end is None or not end.shares for end in ends):
        return False
    paths = [{tunnel.local if tunnel.interface else tunnel.remote for tunnel, _ in end.shares} for end in ends if end]
    validated = {row["care_of"] for row in world.node.bindings() if row["validated"]}
    return paths[0] == paths[1] == validated and len(paths[0]) == (2 if multipath else 1)
