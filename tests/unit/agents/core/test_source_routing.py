"""Source routing: what is desired, and that the difference leads there."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core import source_routing as sr

WLAN = sr.Interface(2, "wlan", 101, 100)
LTE = sr.Interface(3, "lte", 102, 200)
A4 = sr.Address(2, "10.1.0.100", 24)
A6 = sr.Address(2, "2001:db8:1::100", 64)
B4 = sr.Address(3, "10.2.0.100", 24)
GATEWAYS = [sr.Gateway(2, "10.1.0.1"), sr.Gateway(2, "fe80::1"), sr.Gateway(3, "10.2.0.1")]


def lookup(routing: sr.Routing, source: str, target: str, dead: set[int] | None = None) -> int | None:
    """Interface by which the kernel would send: rules by priority, longest prefix, then metric. None: refused.

    dead: interfaces without carrier, whose routes are ignored.
    """
    version = ipaddress.ip_address(target).version
    tables = []
    for rule in sorted(routing.rules, key=lambda item: item.priority):
        if rule.source == source:
            if rule.table == 0:
                return None
            tables.append(rule.table)
    for table in [*tables, sr.MAIN_TABLE]:
        routes = [
            route
            for route in routing.routes
            if route.table == table and route.version == version and route.index not in (dead or set())
            and (route.destination == "default" or ipaddress.ip_address(target) in ipaddress.ip_network(route.destination))
        ]  # fmt: skip
        if routes:
            best = min(
                routes,
                key=lambda route: (
                    0 if route.destination == "default" else -ipaddress.ip_network(route.destination).prefixlen,
                    route.metric,
                ),
            )
            return best.index
    return None


def test_each_source_uses_its_own_interface() -> None:
    routing = sr.desired_routing([WLAN, LTE], [A4, A6, B4], GATEWAYS)
    assert lookup(routing, A4.address, "10.65.0.2") == WLAN.index
    assert lookup(routing, A6.address, "2001:db8:401::2") == WLAN.index
    assert lookup(routing, B4.address, "10.65.0.2") == LTE.index
    assert lookup(routing, "", "10.65.0.2") == WLAN.index, "unbound sockets use the lowest metric"


def test_nothing_leaks_when_an_interface_is_dead() -> None:
    routing = sr.desired_routing([WLAN, LTE], [A4, A6, B4], GATEWAYS)
    assert lookup(routing, A4.address, "10.65.0.2", dead={WLAN.index}) is None
    assert lookup(routing, B4.address, "10.65.0.2", dead={WLAN.index}) == LTE.index
    assert lookup(routing, "", "10.65.0.2", dead={WLAN.index}) == LTE.index


def test_interface_down_keeps_only_the_refusal() -> None:
    down = sr.Interface(2, "wlan", 101, 100, up=False)
    routing = sr.desired_routing([down, LTE], [A4, B4], GATEWAYS)
    assert not [route for route in routing.routes if route.index == WLAN.index]
    assert lookup(routing, A4.address, "10.65.0.2") is None


def test_lost_address_is_refused_until_it_is_back() -> None:
    stale = sr.remember([], {A6.address}, set())
    routing = sr.desired_routing([WLAN, LTE], [B4], GATEWAYS, stale)
    assert lookup(routing, A6.address, "2001:db8:401::2") is None
    assert sr.Rule(6, A6.address, 0, sr.STALE_RULE_PRIORITY) in routing.rules
    assert sr.remember(stale, set(), {A6.address}) == []
    # It may come back on an interface that is not ours.
    elsewhere = sr.desired_routing([WLAN, LTE], [B4, sr.Address(9, A6.address, 128)], GATEWAYS, stale)
    assert not [rule for rule in elsewhere.rules if rule.table == 0]


def test_memory_of_lost_addresses_is_bounded() -> None:
    lost = [f"10.0.{number // 250}.{number % 250}" for number in range(100)]
    stale: list[str] = []
    for address in lost:
        stale = sr.remember(stale, {address}, set())
    assert stale == lost[-sr.STALE_LIMIT :]


def test_preferred_interface_comes_first_in_main() -> None:
    routing = sr.desired_routing([WLAN, LTE], [A4, B4], GATEWAYS, preferred="lte")
    assert lookup(routing, "", "10.65.0.2") == LTE.index
    assert lookup(routing, A4.address, "10.65.0.2") == WLAN.index


def test_congestion_control_is_on_every_route_that_carries_packets() -> None:
    routing = sr.desired_routing([WLAN], [A4, A6], GATEWAYS, congestion_control="cubic")
    assert all(route.congestion_control == ("" if route.unreachable else "cubic") for route in routing.routes)


def test_gateway_must_be_reachable() -> None:
    routing = sr.desired_routing([WLAN], [A4], [sr.Gateway(2, "10.9.0.1"), sr.Gateway(2, "10.1.0.1")])
    assert {route.gateway for route in routing.routes if route.gateway} == {"10.1.0.1"}
    assert not [route for route in sr.desired_routing([WLAN], [A4], [sr.Gateway(2, "fe80::1")]).routes if route.gateway]


def test_replaced_gateway_goes_before_the_new_one_comes() -> None:
    before = sr.desired_routing([WLAN], [A4], [sr.Gateway(2, "10.1.0.1")])
    after = sr.desired_routing([WLAN], [A4], [sr.Gateway(2, "10.1.0.254")])
    actions = sr.diff(after, before)
    assert [type(action).__name__ for action in actions] == ["DeleteRoute", "DeleteRoute", "AddRoute", "AddRoute"]


def test_tables_are_never_empty_under_a_rule() -> None:
    full = sr.desired_routing([WLAN], [A4], GATEWAYS)
    for start, goal in ((sr.Routing(), full), (full, sr.Routing())):
        state = start
        for action in sr.diff(goal, start):
            state = sr.apply([action], state)
            for rule in state.rules:
                assert any(route.table == rule.table and route.unreachable for route in state.routes)


def test_addresses_of_others_stay() -> None:
    foreign, mine, wanted = sr.Address(2, "10.9.9.9", 32), sr.Address(2, "10.1.0.50", 24), A4
    change = sr.address_diff([wanted], [foreign, mine], {(2, "10.1.0.50"): 24})
    assert change.add == (wanted,)
    assert change.remove == (mine,)
    assert sr.address_diff([wanted], [foreign, wanted], {(2, wanted.address): 24}) == sr.AddressChange((), ())


def test_apply_refuses_what_the_kernel_refuses() -> None:
    route = sr.Route(101, 4, "default", 10, 2, "10.1.0.1")
    with pytest.raises(ValueError, match="existing"):
        sr.apply([sr.AddRoute(route)], sr.Routing(routes=frozenset([route])))
    with pytest.raises(ValueError, match="does not exist"):
        sr.apply([sr.DeleteRoute(route)], sr.Routing())


# -- properties -----------------------------------------------------------------------------------------------------------
interfaces = st.lists(
    st.builds(
        sr.Interface, st.integers(2, 5), st.sampled_from(["a", "b", "c"]), st.integers(101, 104), st.integers(100, 103),
        st.booleans(),
    ),
    max_size=3, unique_by=(lambda item: item.index, lambda item: item.table),
)  # fmt: skip
hosts = st.sampled_from(["10.1.0.5", "10.1.0.6", "10.2.0.5", "2001:db8:1::5", "2001:db8:2::5"])
addresses = st.lists(
    st.builds(lambda index, host: sr.Address(index, host, 64 if ":" in host else 24), st.integers(1, 6), hosts),
    max_size=5, unique_by=lambda item: item.address,
)  # fmt: skip
gateways = st.lists(
    st.builds(sr.Gateway, st.integers(2, 5), st.sampled_from(["10.1.0.1", "10.2.0.1", "fe80::1", "fe80::2"])), max_size=4
)
routings = st.builds(
    sr.desired_routing, interfaces, addresses, gateways, st.lists(hosts, max_size=2), st.sampled_from(["", "cubic"]),
    st.sampled_from(["", "a", "b"]),
)  # fmt: skip


def _unambiguous(routing: sr.Routing) -> bool:
    """The kernel has one route per key; two interfaces with one metric in the main table are a configuration error."""
    keys = [route.key for route in routing.routes]
    return len(keys) == len(set(keys))


consistent = routings.filter(_unambiguous)


@given(consistent, consistent)
def test_difference_leads_to_the_goal(goal: sr.Routing, start: sr.Routing) -> None:
    assert sr.apply(sr.diff(goal, start), start) == goal


@given(consistent)
def test_difference_is_idempotent(goal: sr.Routing) -> None:
    assert sr.diff(goal, goal) == []


@given(interfaces, addresses, gateways, st.sets(st.integers(2, 5)))
def test_no_source_ever_leaves_by_a_foreign_interface(
    own: list[sr.Interface], present: list[sr.Address], routers: list[sr.Gateway], dead: set[int]
) -> None:
    routing = sr.desired_routing(own, present, routers)
    for address in present:
        if address.index in {interface.index for interface in own}:
            target = "10.65.0.2" if address.version == 4 else "2001:db8:401::2"
            assert lookup(routing, address.address, target, dead) in (None, address.index)


@given(st.lists(hosts), st.sets(hosts), st.sets(hosts))
def test_remembered_addresses_are_absent_ones(stale: list[str], before: set[str], now: set[str]) -> None:
    result = sr.remember(stale, before, now)
    assert not set(result) & now
    assert before - now <= set(result)
