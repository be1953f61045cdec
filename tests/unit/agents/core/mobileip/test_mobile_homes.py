"""A host with two home addresses and two home agents: each is registered by itself, and the loss of one is its own."""

from dataclasses import replace

import pytest

from agents.core.mobileip.actions import Action, AtHome, Datagram, Forwarding, Log, Probe
from agents.core.mobileip.mobile_homes import MobileHomes
from agents.core.mobileip.mobile_node import MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceState
from tests.unit.agents.core.mobileip.mn_parts import (
    HOME,
    HOME_AGENT,
    WLAN_UP,
    answer,
    asked,
    at,
    config,
    logged,
    pick,
    random_bytes_from,
)

OTHER, OTHER_AGENT, OTHER_NETWORK = "10.10.0.100", "10.10.0.1", "10.10.0.0/24"


def host() -> MobileHomes:
    first = config(multipath=False, validate=True, probe_interval_s=0.2, probe_timeout_s=0.4)
    other = replace(first, home_address=OTHER, home_agent=OTHER_AGENT, home_network=OTHER_NETWORK)
    nodes = {item.home_address: MobileNode(item, random_bytes_from(number)) for number, item in enumerate((first, other), 1)}
    result = MobileHomes(nodes)
    result.start(at(0.0))
    return result


def replies(homes: MobileHomes) -> list[Action]:
    """WLAN comes up, both home agents answer; what follows from the answers."""
    requests = asked(homes.interfaces_changed([WLAN_UP], at(0.0)))
    assert [(item.request.home_address, item.send.destination) for item in requests] == [
        (HOME, HOME_AGENT), (OTHER, OTHER_AGENT)]  # fmt: skip
    actions = []
    for item in reversed(requests):  # no order is expected
        mine = {"home_address": item.request.home_address, "home_agent": item.send.destination}
        actions += homes.handle_datagram(answer(item, **mine), at(0.0))
    return actions


def test_each_home_address_is_registered_with_its_own_agent() -> None:
    homes = host()
    actions = replies(homes)
    wanted = {(HOME, HOME_AGENT), (OTHER, OTHER_AGENT)}
    assert {(item.home_address, item.tunnel.remote) for item in pick(actions, Probe)} == wanted
    assert {(item.home_address, item.shares[0][0].remote) for item in pick(actions, Forwarding)} == wanted
    for probe in pick(actions, Probe):
        homes.probe_result(probe, 20.0, at(0.1))
    assert [(row["home_address"], row["validated"]) for row in homes.bindings()] == [(HOME, True), (OTHER, True)]
    assert homes.status()["home_address"] == HOME
    assert [row["home_address"] for row in homes.status()["further"]] == [OTHER]


def test_a_dead_home_agent_costs_its_own_home_address_only() -> None:
    homes = host()
    for probe in pick(replies(homes), Probe):
        homes.probe_result(probe, 20.0, at(0.1))
    now_s, said = 0.1, []
    while now_s < 5.0:
        due_s = homes.next_deadline()
        assert due_s is not None
        now_s = max(now_s, due_s)
        for probe in pick(homes.handle_timer(at(now_s)), Probe):
            alive = probe.home_address == OTHER
            said += pick(homes.probe_result(probe, 20.0 if alive else None, at(now_s + (0.02 if alive else 0.4))), Log)
    assert {line.fields["home_address"] for line in said} == {HOME}
    assert [row["home_address"] for row in homes.bindings() if row["validated"]] == [OTHER]


def test_a_reply_for_nobody_is_discarded_with_its_home_address_in_the_log() -> None:
    homes = host()
    actions = homes.handle_datagram(Datagram(b"\x03nonsense", "10.9.9.9", 434, "10.1.0.2"), at(0.0))
    (line,) = logged(actions, "discard")
    assert line["home_address"] == HOME


def test_at_home_in_one_network_is_away_from_the_other() -> None:
    homes = host()
    actions = homes.interfaces_changed([InterfaceState("wlan", address="10.10.0.7")], at(0.0))
    assert [(item.home_address, item.here) for item in pick(actions, AtHome)] == [(OTHER, True)]
    assert [item.request.care_of_address for item in asked(actions) if item.request.home_address == HOME] == ["10.10.0.7"]


def test_several_home_addresses_must_be_known() -> None:
    node = MobileNode(config(), random_bytes_from())
    with pytest.raises(ValueError, match="known"):
        MobileHomes({"": node, HOME: node})
    assert MobileHomes({"": node}).start(at(0.0)) == []
