"""The mobile node's part of the RFC 7629 checklist, each with its number."""

from dataclasses import replace

import pytest

from agents.core.mobileip.actions import CloseTunnel, Forwarding, Tunnel
from agents.core.mobileip.mobile_node_config import InterfaceConfig
from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip import codec, selectors
from agents.wire.mobileip.values import AccessTechnology, FlowAction, FlowBinding, Multipath, Selector
from tests.unit.agents.core.mobileip.mn_parts import (
    HOME_AGENT,
    LTE,
    LTE_UP,
    WLAN,
    WLAN_UP,
    Script,
    answer,
    asked,
    at,
    logged,
    pick,
    registered,
    script,
)

HTTP = Selector(source_port=(80, 80), protocol=(6, 6))
VOICE = Selector(source_port=(5060, 5061))
FLOWS = (StaticFlow(HTTP, (1, 2)), StaticFlow(VOICE, (2, 1)))
WLAN_TUNNEL = Tunnel("10.1.0.2", HOME_AGENT)
LTE_TUNNEL = Tunnel("10.2.0.2", HOME_AGENT)


def newest(run: Script) -> Forwarding:
    """The forwarding that was asked for last."""
    forwarding = run.node._node.forwarding
    assert forwarding is not None
    return forwarding


def with_flows(**values: object) -> Script:
    """Both interfaces registered, the policy told to the home agent."""
    run = registered(WLAN_UP, LTE_UP, exchange_flows=True, flows=FLOWS, **values)
    run.reply(run.until_asked(2.0))
    return run


def test_05_06_07_access_technology_label_and_bid() -> None:
    (request,) = script().up(WLAN_UP)
    assert request.multipath == Multipath(1, 7, AccessTechnology.WLAN)
    for values in ({"bid": 0}, {"bid": 255}, {"label": 0}, {"label": 256}, {"technology": 0}, {"technology": 99}):
        with pytest.raises(ValueError, match="wlan"):
            InterfaceConfig(**({"name": "wlan", "bid": 1} | values))


def test_08_09_b_and_o_never_together_and_o_not_when_deregistering() -> None:
    run = registered(WLAN_UP, LTE_UP, bulk_refresh=True, strict_overwrite=True)
    seen = [run.until_asked() for _ in range(4)]
    seen += run.up(replace(WLAN_UP, address="10.1.0.3"), LTE_UP)
    seen += asked(run.node.deregister(None, at(run.now_s)))
    assert [item.multipath.bulk for item in seen if item.multipath][:1] == [True]
    assert any(item.multipath and item.multipath.overwrite for item in seen)
    for item in seen:
        assert item.multipath is not None
        assert not (item.multipath.bulk and item.multipath.overwrite)
        assert not (item.multipath.overwrite and item.request.lifetime_s == 0)
        assert item.multipath.reserved == 0


def test_17_18_one_request_per_interface_routed_through_it() -> None:
    found = script().up(WLAN_UP, LTE_UP)
    assert [(item.bid, item.send.interface, item.send.source, item.request.care_of_address) for item in found] == [
        (1, "wlan", "10.1.0.2", "10.1.0.2"),
        (2, "lte", "10.2.0.2", "10.2.0.2"),
    ]


def test_19_flow_bindings_only_if_configured() -> None:
    assert script(flows=FLOWS).up(WLAN_UP)[0].flows == []
    assert script(flows=FLOWS, exchange_flows=True).up(WLAN_UP)[0].flows == [(1,), (1,)], "only of BIDs that are known"


def test_19_figure_3_call_flow() -> None:
    run = script(flows=FLOWS, exchange_flows=True)
    (first,) = run.up(WLAN_UP)
    run.reply(first)
    (second,) = run.up(WLAN_UP, LTE_UP)
    assert (second.bid, second.flows) == (2, [(1, 2), (2, 1)])
    run.reply(second)
    update = run.until_asked(2.0)
    assert (update.bid, update.flows) == (1, [(1, 2), (2, 1)]), "the first binding's set is brought up to date"
    run.reply(update)
    assert [item.bid for item in asked(run.wait(100))] == [], "and then there is peace"


def test_20_mn_disables_multipath_on_152() -> None:
    run = script()
    first, second = run.up(WLAN_UP, LTE_UP)
    run.reply(first, 152)
    assert logged(run.actions, "multipath-disabled")
    assert run.node.status()["multipath"] is False
    plain = run.until_asked(5.0)
    assert plain.multipath is None
    assert plain.send.interface == "wlan"
    assert run.states()["lte"] == "idle", "one binding only"
    run.reply(second)
    run.reply(plain)
    assert run.states() == {"wlan": "registered", "lte": "idle"}
    assert all(item.multipath is None for item in asked(run.wait(1000)))


def test_20_a_second_152_is_a_refusal() -> None:
    run = script(multipath=False)
    (request,) = run.up(WLAN_UP)
    assert request.multipath is None
    run.reply(request, 152)
    assert run.states()["wlan"] == "denied"


def test_21_mn_registers_the_binding_again_on_153() -> None:
    run = registered(WLAN_UP, exchange_flows=True, flows=FLOWS)
    (second,) = run.up(WLAN_UP, LTE_UP)
    assert second.flows == [(1, 2), (2, 1)]
    run.now_s = 5.0
    again, retry = run.reply(second, 153)
    assert (again.bid, again.request.lifetime_s) == (1, 300), "the binding that is not known is registered again"
    assert (retry.bid, retry.flows) == (2, [(2,), (2,)]), "and until then not named"
    run.reply(retry)
    run.reply(again)
    for _ in range(2):
        update = run.until_asked(20.0)
        assert update.flows == [(1, 2), (2, 1)]
        run.reply(update)
    assert asked(run.wait(100)) == []


def test_22_refresh_has_the_same_bid_and_interface() -> None:
    run = registered(WLAN_UP, LTE_UP)
    seen = asked(run.wait(180.5))
    assert [(item.bid, item.send.interface) for item in seen] == [(1, "wlan"), (2, "lte")]


def test_23_one_bulk_refresh_extends_all() -> None:
    run = registered(WLAN_UP, LTE_UP, bulk_refresh=True)
    request = run.until_asked()
    assert request.multipath is not None
    assert request.multipath.bulk
    run.reply(request)
    assert [item["expires_s"] for item in run.node.bindings()] == [pytest.approx(480), pytest.approx(480)]
    assert len(asked(run.wait(170))) == 0, "nothing more until the next one"


def test_23_a_bulk_refresh_without_reply_is_taken_over() -> None:
    run = registered(WLAN_UP, LTE_UP, bulk_refresh=True)
    senders = {item.send.interface for item in asked(run.wait(200))}
    assert senders == {"wlan", "lte"}


def test_24_deregistration_names_the_bid() -> None:
    run = registered(WLAN_UP, LTE_UP)
    (request,) = asked(run.node.deregister("lte", at(2)))
    assert (request.bid, request.request.lifetime_s) == (2, 0)
    assert request.multipath is not None
    assert not request.multipath.bulk


def test_25_all_bindings_go_by_one_request() -> None:
    run = registered(WLAN_UP, LTE_UP)
    (request,) = asked(run.did(run.node.deregister(None, at(2))))
    assert request.multipath is not None
    assert (request.request.lifetime_s, request.multipath.bulk) == (0, True)
    run.now_s = 2.1
    run.reply(request)
    assert run.node.bindings() == []
    assert run.states() == {"wlan": "idle", "lte": "idle"}
    assert newest(run).shares == ()


def test_26_new_care_of_address_updates_in_place() -> None:
    run = registered(WLAN_UP, LTE_UP)
    run.now_s = 5.0
    (request,) = run.up(replace(WLAN_UP, address="10.1.0.3"), LTE_UP)
    assert (request.bid, request.request.care_of_address) == (1, "10.1.0.3")
    assert request.multipath is not None
    assert not request.multipath.overwrite
    assert len(newest(run).shares) == 1, "the old address is gone: nothing goes there"
    run.reply(request)
    assert len(newest(run).shares) == 2
    assert asked(run.wait(100)) == []


def test_26_33_strict_mode_overwrites_and_registers_the_others_again() -> None:
    run = registered(WLAN_UP, LTE_UP, strict_overwrite=True)
    run.now_s = 5.0
    (request,) = run.up(replace(WLAN_UP, address="10.1.0.3"), LTE_UP)
    assert request.multipath is not None
    assert request.multipath.overwrite
    (other,) = run.reply(request)
    assert (other.bid, other.request.lifetime_s) == (2, 300)
    assert other.multipath is not None
    assert not other.multipath.overwrite
    run.reply(other)
    assert len(run.node.bindings()) == 2
    assert asked(run.wait(100)) == []


def test_26_first_registration_never_overwrites() -> None:
    found = script(strict_overwrite=True).up(WLAN_UP, LTE_UP)
    assert [item.multipath.overwrite for item in found if item.multipath] == [False, False]


def test_28_forwarding_matches_the_policy() -> None:
    run = with_flows()
    rules = {rule.selector: rule.tunnel for rule in newest(run).rules}
    assert rules == {HTTP: WLAN_TUNNEL, VOICE: LTE_TUNNEL}


def test_14_28_flows_fall_back_and_return() -> None:
    run = with_flows()
    run.now_s = 10.0
    run.up(LTE_UP)
    assert {rule.selector: rule.tunnel for rule in newest(run).rules} == {HTTP: LTE_TUNNEL, VOICE: LTE_TUNNEL}
    run.now_s = 20.0
    request = next(item for item in run.up(WLAN_UP, LTE_UP) if item.bid == 1)
    run.reply(request)
    assert {rule.selector: rule.tunnel for rule in newest(run).rules} == {HTTP: WLAN_TUNNEL, VOICE: LTE_TUNNEL}


@pytest.mark.parametrize("dropped", [False, True])
def test_28_flow_without_any_path(dropped: bool) -> None:
    run = registered(WLAN_UP, exchange_flows=True, flows=(StaticFlow(VOICE, (2,)),), lost_flows_dropped=dropped)
    assert [rule.tunnel for rule in newest(run).rules] == ([None] if dropped else [])


def test_13_28_drop() -> None:
    run = script(exchange_flows=True, flows=(StaticFlow(VOICE),))
    (request,) = run.up(WLAN_UP)
    binding = next(item for item in request.request.extensions if isinstance(item, FlowBinding))
    assert (binding.action, len(binding.bids)) == (FlowAction.DROP, 1)
    run.reply(request)
    assert [(rule.selector, rule.tunnel) for rule in newest(run).rules] == [(VOICE, None)]


def test_34_36_tunnels_are_equal_links_and_flows_are_balanced() -> None:
    run = registered(WLAN_UP, LTE_UP)
    assert newest(run).shares == ((WLAN_TUNNEL, 1), (LTE_TUNNEL, 1))
    assert newest(run).balancing.value == "per-flow"
    assert [tunnel.bid for tunnel, _weight in newest(run).shares] == [1, 2]


def test_35_static_policy_without_exchange() -> None:
    settings = script().node._node.config.settings
    run = registered(WLAN_UP, LTE_UP, selection="label", settings=replace(settings, flows=(StaticFlow(HTTP, labels=(8,)),)))
    assert [rule.tunnel for rule in newest(run).rules] == [LTE_TUNNEL]


def test_11_flow_bindings_of_the_home_agent_are_honoured() -> None:
    run = script(exchange_flows=True, flows=(StaticFlow(HTTP, (1,)),))
    first, second = run.up(WLAN_UP, LTE_UP)
    run.reply(first)
    http_on_lte = selectors.flow_binding(FlowAction.FORWARD, (2, 1), HTTP)
    voice_dropped = selectors.flow_binding(FlowAction.DROP, (9,), VOICE)
    bad = FlowBinding(FlowAction.FORWARD, (), 1, b"\0\0\0\0", Selector())
    run.reply(second, 0, None, http_on_lte, voice_dropped, bad)
    assert [(rule.selector, rule.tunnel) for rule in newest(run).rules] == [(HTTP, LTE_TUNNEL), (VOICE, None)]
    assert logged(run.actions, "flow-binding-refused") == [{"interface": "lte", "reason": "number of binding identifiers"}]


def test_02_multipath_extension_in_a_reply_has_no_effect() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 0, None, Multipath(9, overwrite=True))
    assert [item["bid"] for item in run.node.bindings()] == [1]


def test_03_extensions_of_a_reply_behind_the_authenticator_have_no_effect() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    datagram = answer(request)
    late = codec.encode_extension(selectors.flow_binding(FlowAction.DROP, (1,), HTTP))
    run.did(run.node.handle_datagram(replace(datagram, data=datagram.data + late), run.now))
    assert run.states()["wlan"] == "registered"
    assert newest(run).rules == ()


def test_policy_by_label() -> None:
    run = registered(WLAN_UP, LTE_UP, exchange_flows=True, flows=(StaticFlow(HTTP, labels=(8, 7)),))
    assert [rule.tunnel for rule in newest(run).rules] == [LTE_TUNNEL]


def test_new_policy_is_told_and_no_policy_takes_all_bindings_away_first() -> None:
    run = with_flows()
    run.now_s = 10.0
    for request in asked(run.did(run.node.set_policy((StaticFlow(HTTP, (2,)),), run.now))):
        assert request.flows == [(2,)]
        run.reply(request)
    run.now_s = 20.0
    (leave,) = asked(run.did(run.node.set_policy((), run.now)))
    assert leave.multipath is not None
    assert (leave.request.lifetime_s, leave.multipath.bulk) == (0, True)
    found = run.reply(leave)
    while len(run.node.bindings()) < 2:
        for request in found or [run.until_asked(25.0)]:
            assert (request.request.lifetime_s, request.flows) == (300, [])
            run.reply(request)
        found = []
    assert newest(run).rules == ()


def test_policy_that_cannot_be_written_is_refused() -> None:
    run = registered(WLAN_UP)
    with pytest.raises(ValueError, match="flow"):
        run.node.set_policy((StaticFlow(Selector(source_port=(5, 4)), (1,)),), run.now)
    with pytest.raises(ValueError, match="binding identifiers"):
        run.node.set_policy((StaticFlow(HTTP, (0,)),), run.now)


def test_binding_of_a_lost_interface_is_withdrawn_by_another() -> None:
    run = registered(WLAN_UP, LTE_UP)
    run.now_s = 10.0
    (request,) = run.up(replace(WLAN_UP, carrier=False), LTE_UP)
    assert (request.bid, request.request.lifetime_s, request.send.interface) == (1, 0, "lte")
    assert request.request.care_of_address == "10.1.0.2"
    assert [tunnel.local for tunnel, _weight in newest(run).shares] == ["10.2.0.2"]
    assert [item.tunnel.local for item in pick(run.actions, CloseTunnel)] == ["10.1.0.2"] or run.node._node.draining
    repetition = run.until_asked(12.0)
    assert (repetition.bid, repetition.request.lifetime_s) == (1, 0)
    run.reply(repetition)
    assert run.node.status()["withdrawals"] == []


def test_withdrawal_waits_for_an_interface_and_ends_with_the_lifetime() -> None:
    run = registered(WLAN_UP)
    assert run.up() == []
    assert run.node.status()["withdrawals"] == [1]
    run.now_s = 50.0
    (register,) = run.up(LTE_UP)
    (withdraw,) = run.reply(register)
    assert (withdraw.bid, withdraw.request.lifetime_s, withdraw.send.interface) == (1, 0, "lte")
    run.wait(260)
    assert run.node.status()["withdrawals"] == [], "the home agent has forgotten the binding by itself"


def test_interface_that_is_back_ends_the_withdrawal() -> None:
    run = registered(WLAN_UP, LTE_UP)
    run.now_s = 10.0
    run.up(LTE_UP)
    run.now_s = 12.0
    request = next(item for item in run.up(WLAN_UP, LTE_UP) if item.request.lifetime_s)
    run.reply(request)
    assert run.node.status()["withdrawals"] == []
    assert LTE.bid == 2
    assert WLAN.bid == 1
