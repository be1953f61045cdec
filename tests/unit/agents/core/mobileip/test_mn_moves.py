"""Moves of a mobile node: home and back, single binding, foreign agents, validation of paths, signal strength."""

from dataclasses import replace
from typing import Any

import pytest

from agents.core.mobileip.actions import (
    AtHome,
    CloseTunnel,
    Encapsulation,
    Forwarding,
    OpenTunnel,
    Probe,
    SendIcmp,
    SendMessage,
)
from agents.core.mobileip.mobile_node_config import InterfaceState
from agents.wire.mobileip import advertisement as wire
from agents.wire.mobileip.values import RequestFlag
from tests.unit.agents.core.mobileip.mn_parts import (
    HOME,
    HOME_AGENT,
    LTE,
    LTE_UP,
    WLAN,
    WLAN_UP,
    Script,
    asked,
    logged,
    pick,
    registered,
    script,
)
from tests.unit.agents.core.mobileip.test_discovery import advertisement, changed

AT_HOME = InterfaceState("wlan", address="10.9.0.55")
LINK = replace(WLAN_UP, address=None)


def shares(run: Script) -> list[str]:
    """Interfaces that packets take."""
    forwarding = run.node._node.forwarding
    return [] if forwarding is None else [tunnel.interface for tunnel, _weight in forwarding.shares]


def hear(run: Script, heard: Any, source: str = "10.1.0.1", link: str = "02::1") -> list[Any]:
    """An advertisement on wlan; the requests that follow."""
    return asked(run.did(run.node.handle_advertisement(heard, source, link, "wlan", run.now)))


# -- home -------------------------------------------------------------------------------------------------------------
def test_returning_home_deregisters_everything() -> None:
    run = registered(WLAN_UP, LTE_UP)
    run.now_s = 10.0
    (request,) = run.up(AT_HOME, LTE_UP)
    order = [type(a) for a in run.actions if isinstance(a, Forwarding | CloseTunnel | AtHome | SendMessage)]
    assert order == [Forwarding, CloseTunnel, CloseTunnel, AtHome, SendMessage]
    assert (request.request.lifetime_s, request.request.care_of_address, request.send.source) == (0, HOME, HOME)
    assert request.request.flags == RequestFlag(0)
    assert request.multipath is not None
    assert (request.multipath.bulk, request.multipath.overwrite) == (True, False)
    assert run.states() == {"wlan": "returning", "lte": "idle"}
    run.now_s = 10.1
    run.reply(request)
    assert pick(run.actions, AtHome) == [AtHome("wlan", True)], "announced once more: the home agent has let go"
    assert run.states()["wlan"] == "at-home"
    assert asked(run.wait(1000)) == []
    assert shares(run) == []


def test_leaving_home_registers_again() -> None:
    run = script()
    (request,) = run.up(AT_HOME)
    run.reply(request)
    run.now_s = 20.0
    (away,) = run.up(WLAN_UP)
    assert pick(run.actions, AtHome) == [AtHome("wlan", False)]
    assert (away.request.lifetime_s, away.request.care_of_address) == (300, "10.1.0.2")
    run.reply(away)
    assert shares(run) == ["wlan"]


def test_home_interface_lost_others_take_over() -> None:
    run = registered(WLAN_UP, LTE_UP)
    (request,) = run.up(AT_HOME, LTE_UP)
    run.reply(request)
    run.now_s = 20.0
    (register,) = run.up(LTE_UP)
    assert (register.bid, register.request.lifetime_s) == (2, 300)
    assert run.states() == {"wlan": "detached", "lte": "registering"}


def test_home_by_the_home_agents_advertisement() -> None:
    run = registered(WLAN_UP)
    heard = changed(advertisement(HOME_AGENT), home_agent=True)
    (request,) = hear(run, heard, HOME_AGENT)
    assert request.request.lifetime_s == 0
    assert run.states()["wlan"] == "returning"
    run.reply(request)
    run.wait(31)
    assert run.states()["wlan"] == "registering", "the home agent has fallen silent: away again"


def test_refused_deregistration_at_home_is_tried_again() -> None:
    run = script()
    (request,) = run.up(AT_HOME)
    run.reply(request, 128)
    assert run.states()["wlan"] == "returning"
    assert run.until_asked().request.lifetime_s == 0


# -- single binding ---------------------------------------------------------------------------------------------------
def test_single_binding_has_no_multipath_extension_and_the_cheapest_interface() -> None:
    run = script(multipath=False)
    (request,) = run.up(LTE_UP, WLAN_UP)
    assert (request.multipath, request.send.interface) == (None, "wlan")
    run.reply(request)
    assert run.states() == {"wlan": "registered", "lte": "idle"}


def test_single_binding_overlap_keeps_the_old_path_until_the_new_one_is_registered() -> None:
    run = script(multipath=False)
    (request,) = run.up(LTE_UP)
    run.reply(request)
    run.now_s = 10.0
    (request,) = run.up(LTE_UP, WLAN_UP)
    assert request.send.interface == "wlan"
    assert shares(run) == ["lte"]
    run.now_s = 10.1
    run.reply(request)
    assert shares(run) == ["wlan"]
    assert run.states()["lte"] == "idle"
    assert pick(run.actions, CloseTunnel) == [], "packets under way still arrive"
    assert [action.tunnel.interface for action in pick(run.wait(3), CloseTunnel)] == ["lte"]


def test_single_binding_break_before_make() -> None:
    run = script(multipath=False, overlap=False)
    (request,) = run.up(LTE_UP)
    run.reply(request)
    run.now_s = 10.0
    (request,) = run.up(LTE_UP, WLAN_UP)
    assert shares(run) == []
    assert [action.tunnel.interface for action in pick(run.actions, CloseTunnel)] == ["lte"]
    run.reply(request)
    assert shares(run) == ["wlan"]


def test_single_binding_falls_back_when_its_interface_goes() -> None:
    run = script(multipath=False)
    (request,) = run.up(LTE_UP, WLAN_UP)
    run.reply(request)
    run.now_s = 10.0
    (request,) = run.up(LTE_UP)
    assert (request.send.interface, request.request.lifetime_s) == ("lte", 300)
    assert run.node.status()["withdrawals"] == [], "the new registration replaces the old one"


def test_handover_by_command() -> None:
    run = script(multipath=False)
    (request,) = run.up(LTE_UP, WLAN_UP)
    run.reply(request)
    run.now_s = 5.0
    (request,) = asked(run.did(run.node.handover("lte", run.now)))
    assert request.send.interface == "lte"
    run.reply(request)
    assert shares(run) == ["lte"]
    run.now_s = 10.0
    assert run.up(WLAN_UP)[0].send.interface == "wlan", "while it can"
    with pytest.raises(KeyError):
        run.node.handover("wimax", run.now)


def test_better_interface_must_have_been_there_for_a_while() -> None:
    run = script(multipath=False, cost_hysteresis_s=3.0)
    (request,) = run.up(LTE_UP)
    run.reply(request)
    run.now_s = 10.0
    assert run.up(LTE_UP, WLAN_UP) == []
    run.now_s = 12.0
    run.up(LTE_UP)
    run.now_s = 14.0
    assert run.up(LTE_UP, WLAN_UP) == []
    request = run.until_asked(20.0)
    assert (request.send.interface, run.now_s) == ("wlan", 17.0)


def test_single_binding_dead_path_is_left() -> None:
    run = script(multipath=False, validate=True, probe_interval_s=1.0)
    (request,) = run.up(LTE_UP, WLAN_UP)
    run.reply(request)
    run.probed(1)
    found: list[Any] = []
    for _ in range(3):
        run.wait(1.0)
        found = run.probed(1, None)
    assert [item.send.interface for item in found] == ["lte"]
    assert run.states()["wlan"] == "registered", "until another one is, for it may be the home agent that is silent"
    run.reply(found[0])
    assert run.states()["wlan"] == "idle"
    assert shares(run) == ["lte"]
    assert run.until_asked(run.now_s + 5).send.interface == "wlan", "the cheaper one gets another chance"


# -- foreign agents ---------------------------------------------------------------------------------------------------
def test_27_foreign_agents_care_of_address() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False),))
    assert run.up(LINK) == []
    assert [icmp.destination for icmp in pick(run.wait(0.1), SendIcmp)] == ["224.0.0.11"]
    (request,) = hear(run, wire.encode(advertisement()))
    assert (request.request.care_of_address, request.send.source, request.send.destination) == ("10.1.0.1", HOME, "10.1.0.1")
    assert (request.send.link_address, request.send.interface, request.send.ttl) == ("02::1", "wlan", 255)
    assert not request.request.flags & RequestFlag.DECAPSULATION_BY_MN
    assert request.request.lifetime_s == 300
    run.reply(request)
    (opened,) = pick(run.actions, OpenTunnel)
    assert (opened.tunnel.encapsulation, opened.tunnel.remote) == (Encapsulation.NONE, "10.1.0.1"), "no tunnel of its own"


def test_co_located_and_foreign_agent_care_of_addresses_together() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False), LTE))
    (lte,) = run.up(LINK, LTE_UP)
    (wlan,) = hear(run, advertisement())
    run.reply(lte)
    run.reply(wlan)
    assert shares(run) == ["wlan", "lte"]
    assert {item["encapsulation"] for item in run.node.bindings()} == {"none", "ipip"}


def test_r_bit_sends_co_located_registrations_through_the_agent() -> None:
    run = script()
    run.up(WLAN_UP)
    run.now_s = 2.0
    (request,) = hear(run, changed(advertisement(), registration_required=True))
    assert (request.request.care_of_address, request.send.destination) == ("10.1.0.2", "10.1.0.1")
    assert request.request.flags & RequestFlag.DECAPSULATION_BY_MN
    run.reply(request)
    assert run.node.bindings()[0]["encapsulation"] == "ipip"


def test_restarted_agent_is_registered_with_again() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False),))
    run.up(LINK)
    run.reply(hear(run, advertisement(sequence=700))[0])
    run.now_s = 5.0
    assert hear(run, advertisement(sequence=701)) == []
    (again,) = hear(run, advertisement(sequence=0))
    assert again.request.lifetime_s == 300
    assert shares(run) == ["wlan"]


def test_move_to_another_agent() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False),))
    run.up(LINK)
    run.reply(hear(run, advertisement())[0])
    run.now_s = 5.0
    (request,) = hear(run, advertisement("10.2.0.1"), "10.2.0.1", "02::2")
    assert (request.request.care_of_address, request.send.destination) == ("10.2.0.1", "10.2.0.1")
    run.reply(request)
    assert run.node.bindings()[0]["care_of"] == "10.2.0.1"


def test_lost_agent_means_discovery() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False),))
    run.up(LINK)
    run.reply(hear(run, advertisement())[0])
    actions = run.wait(31)
    assert run.states()["wlan"] == "discovering"
    assert pick(actions, SendIcmp)
    assert shares(run) == []


def test_unanswered_requests_lead_to_another_agent() -> None:
    run = script(interfaces=(replace(WLAN, co_located=False),), attempts_max=2)
    run.up(LINK)
    hear(run, advertisement(lifetime_s=900))
    hear(run, advertisement("10.1.0.7", lifetime_s=900), "10.1.0.7", "02::7")
    assert "10.1.0.7" in {item.send.destination for item in asked(run.wait(20))}


# -- validation -------------------------------------------------------------------------------------------------------
def test_new_path_carries_traffic_only_after_a_probe() -> None:
    run = script(validate=True)
    first, second = run.up(WLAN_UP, LTE_UP)
    run.reply(first)
    assert pick(run.actions, Probe)[0].tunnel.interface == "wlan"
    run.probed(1)
    assert logged(run.actions, "path-validated")
    run.reply(second)
    assert shares(run) == ["wlan"], "registered, not validated"
    assert run.probes() == [2]
    run.probed(2)
    assert shares(run) == ["wlan", "lte"]


def test_only_path_is_used_before_its_probe_is_back() -> None:
    run = script(validate=True)
    run.reply(run.up(WLAN_UP)[0])
    assert shares(run) == ["wlan"]


def test_silent_path_is_withdrawn_by_another_and_tried_again() -> None:
    run = script(validate=True, probe_interval_s=1.0)
    for request in run.up(WLAN_UP, LTE_UP):
        run.reply(request)
    run.probed(1)
    run.probed(2)
    found: list[Any] = []
    for _ in range(3):
        run.wait(1.0)
        run.probed(2)
        found = run.probed(1, None)
    assert logged(run.actions, "path-dead")
    assert [(item.bid, item.request.lifetime_s, item.send.interface) for item in found] == [(1, 0, "lte")]
    assert shares(run) == ["lte"]
    assert run.states()["wlan"] == "denied"
    run.reply(found[0])
    again = run.until_asked(run.now_s + 5)
    assert (again.bid, again.request.lifetime_s, again.send.interface) == (1, 300, "wlan")
    run.reply(again)
    assert shares(run) == ["lte"], "not before it is validated"
    run.probed(1)
    assert shares(run) == ["wlan", "lte"]


def test_last_path_is_never_given_up() -> None:
    run = script(validate=True, probe_interval_s=1.0)
    run.reply(run.up(WLAN_UP)[0])
    for _ in range(10):
        run.wait(1.0)
        run.probed(1, None)
    assert run.states()["wlan"] == "refreshing", "the home agent may have lost the binding"
    assert shares(run) == ["wlan"]


def test_probe_of_which_nothing_is_heard_has_failed() -> None:
    run = script(validate=True, probe_failures=2, probe_interval_s=1.0)
    for request in run.up(WLAN_UP, LTE_UP):
        run.reply(request)
    run.probed(1)
    run.wait(30)
    assert run.node.status()["interfaces"][1]["loss"] == 1.0


def test_plain_tunnel_that_never_works_is_tried_in_udp() -> None:
    run = script(validate=True, nat_traversal=True, probe_interval_s=1.0)
    for request in run.up(WLAN_UP, LTE_UP):
        run.reply(request)
    run.probed(2)
    for _ in range(3):
        run.probed(1, None)
        run.wait(1.1)
        run.probed(2)
    again = next(
        item
        for item in [run.until_asked(40), run.until_asked(40), run.until_asked(40)]
        if item.bid == 1 and item.request.lifetime_s
    )
    assert any(getattr(item, "force", False) for item in again.request.extensions)


def test_signal_hysteresis() -> None:
    run = script(interfaces=(replace(WLAN, signal_min_dbm=-75.0, signal_hysteresis_db=5.0), LTE))
    assert run.up(replace(WLAN_UP, signal_dbm=-76.0)) == []
    (request,) = run.up(replace(WLAN_UP, signal_dbm=-74.0))
    run.reply(request)
    run.up(replace(WLAN_UP, signal_dbm=-79.0))
    assert shares(run) == ["wlan"], "weaker, and still used"
    run.up(replace(WLAN_UP, signal_dbm=-81.0))
    assert shares(run) == []
    run.up(replace(WLAN_UP, signal_dbm=-77.0))
    assert run.states()["wlan"] == "detached", "not yet strong enough to begin again"


def test_gre_for_one_path_and_ip_in_ip_for_another() -> None:
    run = script(interfaces=(replace(WLAN, encapsulation=Encapsulation.GRE), LTE))
    for request in run.up(WLAN_UP, LTE_UP):
        run.reply(request)
    assert [item["encapsulation"] for item in run.node.bindings()] == ["gre", "ipip"]


def test_home_address_by_nai() -> None:
    run = Script(type(script().node)(replace(script(nai=b"mn@example").node._node.config, home_address="0.0.0.0"), bytes))
    run.did(run.node.start(run.now))
    (request,) = run.up(WLAN_UP)
    assert request.request.home_address == "0.0.0.0"
    run.reply(request, home_address="10.9.0.200")
    assert run.node.status()["home_address"] == "10.9.0.200"
    assert run.until_asked().request.home_address == "10.9.0.200"
