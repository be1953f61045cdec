"""Flow bindings: form, order, fallback; and packet by packet against a naive reading of RFC 7629 section 4.2."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.actions import Forwarding, Tunnel
from agents.core.mobileip.bindings import Binding
from agents.core.mobileip.flows import (
    FlowSets,
    Label,
    Policy,
    bids_known,
    check_operator_policy,
    forwarding,
    is_well_formed,
    offered,
)
from agents.core.mobileip.selection import Settings, StaticFlow
from agents.wire.mobileip import selectors
from agents.wire.mobileip.selectors import PacketFields
from agents.wire.mobileip.values import FlowBinding, Selector
from tests.unit.agents.core.mobileip.ha_parts import HOME, HTTP, HTTPS, VOICE, drop, forward

ALL = Selector()
TCP = Selector(protocol=(6, 6))


def binding(bid: int, label: int = 1, care_of: str = "", reverse: bool = True) -> Binding:
    care_of = care_of or f"10.{bid}.0.1"
    return Binding(HOME, bid, care_of, Tunnel("10.64.0.1", care_of, bid=bid), 1, 1.0, None, label, 1, True, reverse)


def tunnel(bid: int) -> Tunnel:
    return binding(bid).tunnel


def packet(protocol: int, source_port: int) -> PacketFields:
    return PacketFields("10.200.0.1", HOME, protocol, source_port, 50_000)


def taken(result: Forwarding, sent: PacketFields) -> str | int:
    """Where a packet goes: BID, "drop", or "shared"."""
    rule = next((rule for rule in result.rules if selectors.matches(rule.selector, sent)), None)
    if rule is None:
        return "shared"
    return rule.tunnel.bid if rule.tunnel else "drop"


def policy_of(*sets: tuple[int, tuple[FlowBinding, ...]], **fields: object) -> Policy:
    found = Policy(**fields)  # type: ignore[arg-type]
    for bid, flows in sets:
        found.flows.replace(bid, flows)
    return found


# -- form ---------------------------------------------------------------------------------------------------------------
def test_13_drop_has_exactly_one_bid_whose_value_does_not_matter() -> None:
    assert is_well_formed(drop(HTTP, 77))
    assert not is_well_formed(replace(drop(HTTP), bids=()))
    assert not is_well_formed(replace(drop(HTTP), bids=(1, 2)))
    assert bids_known([drop(HTTP, 77)], [1])


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (8, True), (9, False)])
def test_15_forward_has_one_to_eight_bids(count: int, good: bool) -> None:
    assert is_well_formed(forward(HTTP, *range(1, count + 1))) is good


def test_16_selector_format_0_and_ipv6_selectors_are_refused() -> None:
    assert not is_well_formed(replace(forward(HTTP, 1), selector_format=0, selector=None))
    assert not is_well_formed(forward(Selector(version=6), 1))
    assert not is_well_formed(replace(forward(HTTP, 1), selector=None))


def test_an_unknown_action_is_refused() -> None:
    assert not is_well_formed(replace(forward(HTTP, 1), action=2))


def test_32_every_bid_of_a_forward_must_be_known() -> None:
    assert bids_known([forward(HTTP, 1, 2)], [1, 2])
    assert not bids_known([forward(HTTP, 1), forward(HTTPS, 1, 3)], [1, 2])


# -- order --------------------------------------------------------------------------------------------------------------
def test_14_the_first_bid_that_is_there_has_the_flow_and_has_it_again_when_it_returns() -> None:
    policy = policy_of((1, (forward(HTTP, 1, 2),)))
    for there, expected in (((1, 2), 1), ((2,), 2), ((1, 2), 1)):
        assert taken(forwarding(HOME, [binding(bid) for bid in there], policy), packet(6, 80)) == expected


def test_of_overlapping_selectors_the_first_in_a_set_wins() -> None:
    bindings = [binding(1), binding(2)]
    assert taken(forwarding(HOME, bindings, policy_of((1, (forward(HTTP, 1), forward(TCP, 2))))), packet(6, 80)) == 1
    assert taken(forwarding(HOME, bindings, policy_of((1, (forward(TCP, 2), forward(HTTP, 1))))), packet(6, 80)) == 2


def test_of_contradicting_sets_the_newer_one_wins() -> None:
    bindings = [binding(1), binding(2)]
    older_first = policy_of((1, (forward(HTTP, 1),)), (2, (drop(HTTP),)))
    assert taken(forwarding(HOME, bindings, older_first), packet(6, 80)) == "drop"
    assert len(forwarding(HOME, bindings, older_first).rules) == 1
    newer_first = policy_of((2, (drop(HTTP),)), (1, (forward(HTTP, 1),)))
    assert taken(forwarding(HOME, bindings, newer_first), packet(6, 80)) == 1


def test_a_repeated_set_keeps_its_place_unless_its_binding_comes_back() -> None:
    sets = FlowSets()
    sets.replace(1, (forward(HTTP, 1, 2),))
    sets.replace(2, (forward(HTTP, 2),))
    assert not sets.replace(1, (forward(HTTP, 1, 2),))
    assert sets.ordered()[0].bids == (2,)
    assert sets.replace(1, (forward(HTTP, 1, 2),), comes=True)
    assert sets.ordered()[0].bids == (1, 2)


@pytest.mark.parametrize(("dropped", "expected"), [(False, "shared"), (True, "drop")])
def test_decision_e_a_flow_without_any_binding_is_dropped_or_treated_like_others(dropped: bool, expected: str) -> None:
    policy = policy_of((1, (forward(HTTP, 1),)), settings=Settings(lost_flows_dropped=dropped))
    assert taken(forwarding(HOME, [binding(2)], policy), packet(6, 80)) == expected


def test_the_operator_comes_first_and_may_name_labels() -> None:
    operator = (StaticFlow(VOICE, labels=(9, 5)), StaticFlow(HTTP))
    policy = policy_of((1, (forward(VOICE, 1), forward(HTTP, 1))), operator=operator)
    result = forwarding(HOME, [binding(1), binding(2, label=5)], policy)
    assert taken(result, packet(17, 5060)) == 2
    assert taken(result, packet(6, 80)) == "drop"


def test_35_a_static_policy_by_label_works_without_any_exchange() -> None:
    policy = Policy("label", Settings((StaticFlow(VOICE, labels=(5,)),)))
    result = forwarding(HOME, [binding(1), binding(2, label=5)], policy)
    assert taken(result, packet(17, 5060)) == 2
    assert taken(result, packet(6, 80)) == "shared"


# -- shares -------------------------------------------------------------------------------------------------------------
def test_36_without_a_policy_flows_are_balanced_over_equal_tunnels() -> None:
    result = forwarding(HOME, [binding(1), binding(2)], Policy())
    assert result.shares == ((tunnel(1), 1), (tunnel(2), 1))
    assert result.balancing.value == "per-flow"
    assert result.rules == ()


def test_weights_come_from_the_capacities_of_the_labels() -> None:
    policy = Policy("weighted", labels={1: Label(capacity_mbit=10.0), 2: Label(capacity_mbit=40.0)})
    result = forwarding(HOME, [binding(1, 1), binding(2, 2)], policy)
    weights = dict(result.shares)
    assert weights[tunnel(2)] == 4 * weights[tunnel(1)]


def test_two_bids_with_one_care_of_address_share_a_tunnel() -> None:
    result = forwarding(HOME, [binding(1, care_of="10.1.0.1"), binding(2, care_of="10.1.0.1")], Policy())
    assert result.shares == ((tunnel(1), 2),)


def test_without_bids_the_newest_binding_has_all_and_all_may_send() -> None:
    older, newer = binding(0, care_of="10.1.0.1"), binding(0, care_of="10.2.0.1")
    result = forwarding(HOME, [older, newer], Policy())
    assert result.shares == ((newer.tunnel, 1),)
    assert result.accept == (older.tunnel, newer.tunnel)


def test_only_tunnels_with_the_t_bit_are_accepted_from() -> None:
    assert forwarding(HOME, [binding(1), binding(2, reverse=False)], Policy()).accept == (tunnel(1),)


def test_without_bindings_nothing_is_forwarded() -> None:
    assert forwarding(HOME, [], policy_of((1, (forward(HTTP, 1),)))) == Forwarding(HOME)


# -- what the operator says ---------------------------------------------------------------------------------------------
def test_the_operators_flows_are_offered_but_those_by_label() -> None:
    flows = offered((StaticFlow(HTTP, bids=(2, 1)), StaticFlow(VOICE, labels=(5,)), StaticFlow(HTTPS)), 7)
    assert [(flow.action, flow.bids, flow.selector) for flow in flows] == [(1, (2, 1), HTTP), (0, (7,), HTTPS)]


@pytest.mark.parametrize(
    "flows",
    [
        (StaticFlow(Selector(version=6), bids=(1,)),),
        (StaticFlow(HTTP, bids=tuple(range(1, 10))),),
        (StaticFlow(HTTP, bids=(0,)),),
        (StaticFlow(HTTP, bids=(255,)),),
        tuple(StaticFlow(Selector(source_port=(port, port)), bids=(1,)) for port in range(1, 50)),
        tuple(
            StaticFlow(Selector(source=("10.0.0.1", "10.0.0.9"), destination=(HOME, f"10.64.1.{n}"), spi=(1, 2)), (1,) * 8)
            for n in range(40)
        ),
    ],
)  # fmt: skip
def test_flows_that_do_not_fit_into_a_reply_are_refused(flows: tuple[StaticFlow, ...]) -> None:
    with pytest.raises(ValueError, match="flow"):
        check_operator_policy(flows)


# -- against a naive reading --------------------------------------------------------------------------------------------
PORTS = st.tuples(st.integers(1, 6), st.integers(0, 3)).map(lambda item: (item[0], item[0] + item[1]))
SELECTORS = st.builds(
    Selector, protocol=st.one_of(st.none(), st.sampled_from(((6, 6), (17, 17)))), source_port=st.one_of(st.none(), PORTS)
)
BIDS = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
FLOWS = st.lists(
    st.one_of(
        st.builds(lambda selector, bids: forward(selector, *bids), SELECTORS, BIDS), st.builds(drop, SELECTORS)
    ),
    min_size=1,
    max_size=3,
).map(tuple)  # fmt: skip
STEPS = st.lists(st.tuples(st.integers(1, 4), FLOWS), max_size=5)


def naive(steps: list[tuple[int, tuple[FlowBinding, ...]]], there: set[int], dropped: bool, sent: PacketFields) -> str | int:
    """Replays all that was said from the newest to the oldest, for one packet."""
    held: dict[int, tuple[FlowBinding, ...]] = {}
    order: list[int] = []
    for bid, flows in steps:
        if held.get(bid) != flows:
            order = [other for other in order if other != bid] + [bid]
        held[bid] = flows
    for bid in reversed(order):
        for flow in held[bid]:
            assert flow.selector is not None
            if not selectors.matches(flow.selector, sent):
                continue
            if flow.action == 0:
                return "drop"
            found = [wanted for wanted in flow.bids if wanted in there]
            if found:
                return found[0]
            if dropped:
                return "drop"
    return "shared"


@given(STEPS, st.sets(st.integers(1, 4), min_size=1), st.booleans(), st.sampled_from((6, 17, 1)), st.integers(1, 9))
def test_rules_choose_what_a_naive_reading_chooses(
    steps: list[tuple[int, tuple[FlowBinding, ...]]], there: set[int], dropped: bool, protocol: int, port: int
) -> None:
    policy = policy_of(*steps, settings=Settings(lost_flows_dropped=dropped))
    result = forwarding(HOME, [binding(bid) for bid in sorted(there)], policy)
    sent = packet(protocol, port)
    assert taken(result, sent) == naive(steps, there, dropped, sent)
