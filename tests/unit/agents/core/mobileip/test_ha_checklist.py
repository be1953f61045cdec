"""RFC 7629 from the home agent's side, by the numbers of the checklist in docs/rfc-coverage.md."""

import struct

import pytest

from agents.core.mobileip.actions import CloseTunnel, Encapsulation, Forwarding, OpenTunnel, SendMessage
from agents.core.mobileip.draining import DRAIN_S
from agents.core.mobileip.selection import Settings, StaticFlow
from agents.wire.mobileip import selectors
from agents.wire.mobileip.codec import encode_extension
from agents.wire.mobileip.values import FlowBinding, Multipath, RequestFlag
from tests.unit.agents.core.mobileip.ha_parts import (
    CDMA,
    CO_LOCATED,
    FA,
    HOME,
    HTTP,
    LTE,
    VOICE,
    WLAN,
    Bench,
    config,
    drop,
    forward,
    forwarding_in,
    multipath,
    node,
    of,
    reply_in,
    sign,
)


def two_bindings(bench: Bench) -> None:
    assert bench.register(WLAN, multipath(1)).code == 0
    assert bench.register(LTE, multipath(2)).code == 0


def rules(bench: Bench) -> dict[object, int | str]:
    """Selector -> BID or "drop", of the only forwarding that was said."""
    return {rule.selector: rule.tunnel.bid if rule.tunnel else "drop" for rule in forwarding_in(bench.actions).rules}


def test_01_two_multipath_extensions_are_134() -> None:
    bench = Bench()
    assert bench.register(WLAN, multipath(1), multipath(2)).code == 134
    assert bench.bids == []


def test_02_no_reply_carries_a_multipath_extension() -> None:
    bench = Bench()
    for extension in (multipath(1), multipath(1, bulk=True), multipath(0), multipath(1, overwrite=True)):
        assert not [item for item in bench.register(WLAN, extension).extensions if isinstance(item, Multipath)]


def test_03_extensions_behind_the_authenticator_have_no_effect() -> None:
    bench = Bench()
    data = bench.signed(WLAN) + encode_extension(multipath(1)) + encode_extension(forward(HTTP, 1))
    reply = reply_in(bench.send(data))
    assert reply is not None
    assert reply.code == 0
    assert bench.bids == [0]
    assert rules(bench) == {}


def test_04_a_multipath_extension_of_another_length_is_134() -> None:
    bench = Bench()
    reply = reply_in(bench.send(sign(bench.request() + bytes((154, 1, 0, 5, 4, 1, 1, 0, 0)))))
    assert reply is not None
    assert reply.code == 134


@pytest.mark.parametrize(("technology", "code"), [(0, 134), (4, 0), (13, 0), (200, 134)])
def test_05_the_access_technology_must_be_in_the_registry(technology: int, code: int) -> None:
    assert Bench().register(WLAN, Multipath(1, 1, technology)).code == code


@pytest.mark.parametrize(("label", "code"), [(0, 134), (1, 0), (255, 0)])
def test_06_labels_are_1_to_255(label: int, code: int) -> None:
    assert Bench().register(WLAN, multipath(1, label)).code == code


@pytest.mark.parametrize(("bid", "code"), [(0, 134), (1, 0), (254, 0), (255, 134)])
def test_07_bids_are_1_to_254(bid: int, code: int) -> None:
    assert Bench().register(WLAN, multipath(bid)).code == code


def test_08_bulk_with_overwrite_is_134() -> None:
    assert Bench().register(WLAN, multipath(1, bulk=True, overwrite=True)).code == 134


def test_09_overwrite_in_a_deregistration_is_134() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(WLAN, multipath(1, overwrite=True), lifetime_s=0).code == 134
    assert bench.bids == [1, 2]


def test_10_reserved_bits_are_ignored() -> None:
    bench = Bench()
    assert bench.register(WLAN, Multipath(1, 1, 4, reserved=0x3F)).code == 0
    assert bench.bids == [1]


def test_11_several_flow_bindings_in_a_request_and_in_a_reply() -> None:
    bench = Bench(config(node(policy=(StaticFlow(HTTP, bids=(1,)), StaticFlow(VOICE)))))
    reply = bench.register(WLAN, multipath(1), forward(HTTP, 1), drop(VOICE))
    said = [item for item in reply.extensions if isinstance(item, FlowBinding)]
    assert [(flow.action, flow.bids, flow.selector) for flow in said] == [(1, (1,), HTTP), (0, (1,), VOICE)]
    assert rules(bench) == {HTTP: 1, VOICE: "drop"}


def test_12_a_flow_binding_has_subtype_2() -> None:
    octets = bytes.fromhex("9a02000c01020102010088000001bb06")
    bench = Bench()
    two_bindings(bench)
    body = bench.request(WLAN, multipath(1)) + octets
    assert reply_in(bench.send(sign(body))) is not None
    (rule,) = forwarding_in(bench.actions).rules
    assert (rule.selector.destination_port, rule.selector.protocol) == ((443, 443), (6, 6))
    assert rule.tunnel is not None
    assert rule.tunnel.bid == 1


@pytest.mark.parametrize(("bids", "code"), [((), 134), ((1,), 0), ((99,), 0), ((1, 1), 134)])
def test_13_drop_has_one_bid_whose_value_is_ignored(bids: tuple[int, ...], code: int) -> None:
    bench = Bench()
    raw = selectors.encode(HTTP)
    assert bench.register(WLAN, multipath(1), FlowBinding(0, bids, 1, raw)).code == code


def test_14_the_first_valid_bid_has_the_flow_then_the_next_and_the_first_again() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(WLAN, multipath(1), forward(HTTP, 1, 2)).code == 0
    assert rules(bench) == {HTTP: 1}
    bench.register(LTE, multipath(1), lifetime_s=0)
    assert rules(bench) == {HTTP: 2}
    bench.register(WLAN, multipath(1))
    assert rules(bench) == {HTTP: 1}


def test_14_a_binding_that_returns_has_its_flow_again_although_others_were_told_otherwise_meanwhile() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.register(WLAN, multipath(1), forward(HTTP, 1, 2))
    bench.register(LTE, multipath(1), lifetime_s=0)
    bench.register(LTE, multipath(2), forward(HTTP, 2))
    bench.register(WLAN, multipath(1), forward(HTTP, 1, 2))
    assert rules(bench) == {HTTP: 1}


@pytest.mark.parametrize(("count", "code"), [(0, 134), (8, 0), (9, 134)])
def test_15_forward_has_one_to_eight_bids(count: int, code: int) -> None:
    assert Bench().register(WLAN, multipath(1), forward(HTTP, *[1] * count)).code == code


@pytest.mark.parametrize("selector_format", [0, 2, 3])
def test_16_other_selector_formats_are_134(selector_format: int) -> None:
    flow = FlowBinding(1, (1,), selector_format, struct.pack("!I", 0))
    assert Bench().register(WLAN, multipath(1), flow).code == 134


def test_16_a_selector_that_cannot_be_read_is_134() -> None:
    assert Bench().register(WLAN, multipath(1), FlowBinding(1, (1,), 1, struct.pack("!I", 1 << 31))).code == 134


def test_22_a_refresh_prolongs_one_binding_and_changes_nothing_else() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.advance(100)
    bench.register(WLAN, multipath(1))
    assert not of(bench.actions, Forwarding)
    assert not of(bench.actions, OpenTunnel)
    bench.advance(501)
    assert bench.bids == [1]


def test_23_and_30_the_bulk_flag_prolongs_all_bindings() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.advance(400)
    assert bench.register(WLAN, multipath(1, bulk=True), lifetime_s=900).code == 0
    assert not of(bench.actions, Forwarding)
    bench.advance(899)
    assert bench.bids == [1, 2]
    bench.advance(2)
    assert bench.bids == []


def test_24_lifetime_0_takes_the_binding_with_the_bid() -> None:
    bench = Bench()
    two_bindings(bench)
    reply = bench.register(WLAN, multipath(1), lifetime_s=0)
    assert (reply.code, reply.lifetime_s, bench.bids) == (0, 0, [2])
    (closed,) = of(bench.advance(DRAIN_S), CloseTunnel)
    assert closed.tunnel.remote == WLAN


def test_25_lifetime_0_with_the_bulk_flag_takes_all() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(WLAN, multipath(1, bulk=True), lifetime_s=0).code == 0
    assert bench.bids == []
    assert forwarding_in(bench.actions).shares == ()
    bench.advance(DRAIN_S)
    assert forwarding_in(bench.actions) == Forwarding(HOME)


def test_26_decision_b_a_known_bid_without_overwrite_is_updated_in_place() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(CDMA, multipath(1)).code == 0
    assert (bench.bids, bench.care_ofs) == ([1, 2], [LTE, CDMA])
    kinds = [type(item) for item in bench.actions if isinstance(item, OpenTunnel | Forwarding | CloseTunnel | SendMessage)]
    assert kinds == [OpenTunnel, Forwarding, SendMessage]
    assert [item.tunnel.remote for item in of(bench.advance(DRAIN_S), CloseTunnel)] == [WLAN]


@pytest.mark.parametrize(("care_of", "flags"), [(WLAN, CO_LOCATED), (FA, RequestFlag.REVERSE_TUNNEL)])
def test_27_code_0_means_a_tunnel_to_the_care_of_address_also_a_foreign_agents(care_of: str, flags: RequestFlag) -> None:
    bench = Bench()
    assert bench.register(care_of, multipath(1), flags=flags).code == 0
    (opened,) = of(bench.actions, OpenTunnel)
    assert (opened.tunnel.remote, opened.tunnel.encapsulation) == (care_of, Encapsulation.IP_IN_IP)


def test_28_and_31_the_forwarding_matches_the_policy() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.register(LTE, multipath(2), forward(HTTP, 1, 2), forward(VOICE, 2))
    assert rules(bench) == {HTTP: 1, VOICE: 2}


@pytest.mark.parametrize("lifetime_s", [600, 0])
def test_29_multipath_without_permission_is_152(lifetime_s: int) -> None:
    bench = Bench(config(node(multipath=False)))
    assert bench.register(WLAN, multipath(1), lifetime_s=lifetime_s).code == 152
    assert bench.register(WLAN, forward(HTTP, 1)).code == 152


def test_32_an_unknown_bid_is_153_and_changes_nothing() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(CDMA, multipath(1), forward(HTTP, 1, 3)).code == 153
    assert bench.care_ofs == [WLAN, LTE]
    assert bench.register(CDMA, multipath(3), forward(HTTP, 1, 3)).code == 0


def test_32_decision_d_bids_that_an_overwrite_removes_are_unknown() -> None:
    bench = Bench()
    two_bindings(bench)
    assert bench.register(WLAN, multipath(1, overwrite=True), forward(HTTP, 1, 2)).code == 153
    assert bench.register(WLAN, multipath(1, overwrite=True), forward(HTTP, 1)).code == 0


def test_33_overwrite_replaces_all_bindings_by_one_and_forgets_their_flows() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.register(LTE, multipath(2), forward(HTTP, 2))
    assert bench.register(CDMA, multipath(3, overwrite=True)).code == 0
    assert bench.bids == [3]
    assert forwarding_in(bench.actions).rules == ()
    assert sorted(action.tunnel.remote for action in of(bench.advance(DRAIN_S), CloseTunnel)) == [WLAN, LTE]
    bench.register(LTE, multipath(2))
    assert rules(bench) == {}


def test_33_overwrite_forgets_the_flows_of_bindings_that_had_gone_before() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.register(LTE, multipath(2), forward(HTTP, 1))
    bench.register(LTE, multipath(2), lifetime_s=0)
    assert rules(bench) == {HTTP: 1}
    bench.register(WLAN, multipath(1, overwrite=True))
    assert rules(bench) == {}


def test_the_same_forwarding_is_not_said_twice() -> None:
    bench = Bench()
    two_bindings(bench)
    bench.register(WLAN, multipath(1), forward(HTTP, 1))
    assert rules(bench) == {HTTP: 1}
    bench.register(LTE, multipath(2), forward(HTTP, 1))
    assert not of(bench.actions, Forwarding)


def test_34_tunnels_are_equal_links() -> None:
    bench = Bench()
    two_bindings(bench)
    assert [(tunnel.remote, weight) for tunnel, weight in forwarding_in(bench.actions).shares] == [(WLAN, 1), (LTE, 1)]


def test_35_without_an_exchange_the_static_policy_holds() -> None:
    static = Settings((StaticFlow(VOICE, labels=(7,)),))
    bench = Bench(config(node(selection="label", settings=static)))
    bench.register(WLAN, multipath(1, 1))
    bench.register(LTE, multipath(2, 7))
    assert rules(bench) == {VOICE: 2}


def test_36_without_any_policy_flows_are_balanced() -> None:
    bench = Bench()
    two_bindings(bench)
    assert forwarding_in(bench.actions).balancing.value == "per-flow"


def test_decision_c_a_new_set_replaces_that_of_the_same_bid_and_none_keeps_it() -> None:
    bench = Bench()
    bench.register(WLAN, multipath(1), forward(HTTP, 1))
    bench.register(WLAN, multipath(1))
    assert not of(bench.actions, Forwarding)
    bench.register(WLAN, multipath(1), forward(VOICE, 1))
    assert rules(bench) == {VOICE: 1}


@pytest.mark.parametrize("dropped", [False, True])
def test_decision_e_flows_all_of_whose_bindings_are_gone(dropped: bool) -> None:
    bench = Bench(config(node(settings=Settings(lost_flows_dropped=dropped))))
    two_bindings(bench)
    bench.register(WLAN, multipath(1), forward(HTTP, 1))
    bench.register(LTE, multipath(1), lifetime_s=0)
    assert rules(bench) == ({HTTP: "drop"} if dropped else {})


def test_decision_f_the_s_bit_means_nothing_beside_a_multipath_extension() -> None:
    bench = Bench()
    for bid, care_of in ((1, WLAN), (2, LTE)):
        assert bench.register(care_of, multipath(bid), flags=CO_LOCATED | RequestFlag.SIMULTANEOUS).code == 0
    assert bench.bids == [1, 2]


def test_bindings_with_and_without_bid_exclude_each_other() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(LTE, multipath(1))
    assert bench.bids == [1]
    bench.register(WLAN)
    assert bench.bids == [0]
