"""Bindings come, stay, move and go: actions in their order, ARP, tunnels, NAT, foreign agents, addresses from a pool."""

from dataclasses import replace

import pytest

from agents.core.mobileip.actions import (
    CloseTunnel,
    DefendAddress,
    Encapsulation,
    Forwarding,
    Log,
    OpenTunnel,
    ReleaseAddress,
    SendMessage,
    Store,
    Tunnel,
)
from agents.core.mobileip.draining import DRAIN_S, DRAINED_MAX, Draining
from agents.core.mobileip.flows import Label
from agents.core.mobileip.home_agent_config import ForeignAgentEntry
from agents.core.mobileip.security import SecurityAssociation
from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip import codec
from agents.wire.mobileip.authentication import verify
from agents.wire.mobileip.values import (
    INFINITE_LIFETIME_S,
    Authentication,
    Nai,
    Reply,
    RequestFlag,
    UdpTunnelReply,
    UdpTunnelRequest,
)
from tests.unit.agents.core.mobileip.ha_parts import (
    CO_LOCATED,
    FA,
    HA,
    HOME,
    HTTP,
    KEY,
    LTE,
    SHA256,
    VOICE,
    WLAN,
    Bench,
    config,
    forwarding_in,
    multipath,
    node,
    of,
)
from tests.unit.agents.core.mobileip.test_ha_codes import FA_ASSOCIATION, FA_FLAGS, WITH_FA, sign_as_foreign_agent

NAT = "192.0.2.7"


def kinds(bench: Bench) -> list[type]:
    return [type(action) for action in bench.actions]


# -- coming and going ---------------------------------------------------------------------------------------------------
def test_a_first_registration_acts_in_an_order_that_loses_no_packet() -> None:
    bench = Bench()
    bench.register()
    assert kinds(bench) == [Store, Store, OpenTunnel, Forwarding, DefendAddress, SendMessage, Log]


def test_a_refresh_stores_and_answers_only() -> None:
    bench = Bench()
    bench.register()
    bench.register()
    assert kinds(bench) == [Store, Store, SendMessage, Log]


def test_returning_home_takes_all_down_before_the_reply_and_the_reply_stays_on_the_home_link() -> None:
    bench = Bench()
    bench.register(WLAN, multipath(1))
    bench.register(LTE, multipath(2))
    reply = bench.register(HOME, lifetime_s=0, source=HOME, interface="home", link_address="02:00:00:00:00:01")
    assert (reply.code, reply.lifetime_s) == (0, 0)
    order = [kind for kind in kinds(bench) if kind is not Store]
    assert order == [Forwarding, ReleaseAddress, SendMessage, Log]
    sent = of(bench.actions, SendMessage)[0]
    assert (sent.destination, sent.interface, sent.link_address) == (HOME, "home", "02:00:00:00:00:01")


def test_a_refused_request_from_the_home_address_is_answered_on_the_link_although_a_tunnel_exists() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(HOME, lifetime_s=0, identification=1, source=HOME, interface="home", link_address="02:00:00:00:00:01")
    assert of(bench.actions, SendMessage)[0].interface == "home"
    assert bench.care_ofs == [WLAN]


def test_proxy_arp_begins_with_the_first_and_ends_with_the_last_binding() -> None:
    bench = Bench()
    seen = []
    for care_of, bid, lifetime_s in ((WLAN, 1, 600), (LTE, 2, 600), (WLAN, 1, 0), (LTE, 2, 0)):
        bench.register(care_of, multipath(bid), lifetime_s=lifetime_s)
        seen.append([type(item) for item in bench.actions if isinstance(item, DefendAddress | ReleaseAddress)])
    assert seen == [[DefendAddress], [], [], [ReleaseAddress]]


def test_a_virtual_home_network_has_no_proxy_arp() -> None:
    bench = Bench(config(home_prefix=""))
    bench.register()
    assert not of(bench.actions, DefendAddress)


def test_deregistration_of_one_care_of_address_and_of_one_that_is_not_there() -> None:
    bench = Bench()
    bench.register(WLAN)
    assert bench.register(LTE, lifetime_s=0).code == 0
    assert bench.care_ofs == [WLAN]
    assert bench.register(WLAN, lifetime_s=0).code == 0
    assert bench.care_ofs == []


def test_a_request_without_the_s_bit_replaces_the_binding() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(LTE)
    assert bench.care_ofs == [LTE]
    order = [kind for kind in kinds(bench) if kind is not Store]
    assert order == [OpenTunnel, Forwarding, SendMessage, Log]


def test_bindings_end_at_their_time_and_not_before() -> None:
    bench = Bench()
    bench.register(lifetime_s=100)
    deadline_s = bench.agent.next_deadline()
    assert deadline_s == bench.now_s + 100
    bench.advance(99.9)
    assert bench.care_ofs == [WLAN]
    bench.advance(0.1)
    assert bench.care_ofs == []
    order = [kind for kind in kinds(bench) if kind is not Store]
    assert order == [Forwarding, CloseTunnel, ReleaseAddress, Log]
    assert bench.agent.next_deadline() is None


def test_a_lifetime_for_ever() -> None:
    bench = Bench(config(max_lifetime_s=INFINITE_LIFETIME_S))
    assert bench.register(lifetime_s=INFINITE_LIFETIME_S).lifetime_s == INFINITE_LIFETIME_S
    assert bench.agent.next_deadline() is None
    bench.advance(1e9)
    assert bench.care_ofs == [WLAN]
    assert [type(item) for item in bench.restart(1e6)] == [OpenTunnel, Forwarding, DefendAddress, Log]


# -- tunnels ------------------------------------------------------------------------------------------------------------
def test_two_mobile_nodes_behind_one_foreign_agent_share_a_tunnel() -> None:
    bench = Bench(config(node(), node(home_address="10.64.0.51")))
    bench.register(FA, flags=FA_FLAGS)
    bench.register(FA, flags=FA_FLAGS, home_address="10.64.0.51")
    assert not of(bench.actions, OpenTunnel)
    bench.register(FA, flags=FA_FLAGS, lifetime_s=0)
    assert not of(bench.advance(DRAIN_S), CloseTunnel)
    bench.register(FA, flags=FA_FLAGS, lifetime_s=0, home_address="10.64.0.51")
    assert len(of(bench.advance(DRAIN_S), CloseTunnel)) == 1


# -- a tunnel that was left takes for a moment what is still under way in it -------------------------------------------
def test_a_tunnel_that_was_left_is_drained_and_then_closed() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(LTE)
    drained = forwarding_in(bench.actions)
    assert [tunnel.remote for tunnel, _ in drained.shares] == [LTE], "nothing is sent into it"
    assert sorted(tunnel.remote for tunnel in drained.accept) == [WLAN, LTE]
    assert not of(bench.actions, CloseTunnel)
    assert bench.agent.next_deadline() == bench.now_s + DRAIN_S
    bench.advance(DRAIN_S - 0.01)
    assert not bench.actions
    bench.advance(0.01)
    assert [kind for kind in kinds(bench) if kind is not Store] == [Forwarding, CloseTunnel]
    assert [tunnel.remote for tunnel in forwarding_in(bench.actions).accept] == [LTE]


def test_packets_of_a_home_address_without_binding_are_taken_until_the_drain_ends() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(WLAN, lifetime_s=0)
    assert forwarding_in(bench.actions) == Forwarding(HOME, accept=(forwarding_in(bench.actions).accept[0],))
    assert [kind for kind in kinds(bench) if kind is not Store] == [Forwarding, ReleaseAddress, SendMessage, Log]
    bench.advance(DRAIN_S)
    assert forwarding_in(bench.actions) == Forwarding(HOME)
    assert len(of(bench.actions, CloseTunnel)) == 1


def test_who_comes_back_while_its_tunnel_is_drained_has_it_again() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.register(LTE)
    bench.register(WLAN)
    assert not of(bench.actions, OpenTunnel)
    assert [action.tunnel.remote for action in of(bench.advance(DRAIN_S), CloseTunnel)] == [LTE]


def test_what_is_only_drained_gives_way_to_another_encapsulation() -> None:
    bench = Bench(config(encapsulations=frozenset((Encapsulation.IP_IN_IP, Encapsulation.GRE))))
    bench.register(WLAN)
    bench.register(LTE)
    assert bench.register(WLAN, flags=CO_LOCATED | RequestFlag.GRE).code == 0
    order = [kind for kind in kinds(bench) if kind is not Store]
    assert order == [Forwarding, CloseTunnel, OpenTunnel, Forwarding, SendMessage, Log]
    assert [action.tunnel.remote for action in of(bench.advance(DRAIN_S), CloseTunnel)] == [LTE]


def test_without_reverse_tunnel_nothing_is_under_way_that_could_be_taken() -> None:
    bench = Bench()
    bench.register(WLAN, flags=RequestFlag.DECAPSULATION_BY_MN)
    bench.register(LTE, flags=RequestFlag.DECAPSULATION_BY_MN)
    assert [action.tunnel.remote for action in of(bench.actions, CloseTunnel)] == [WLAN]


def test_so_many_tunnels_are_drained_and_no_more() -> None:
    draining = Draining()
    tunnels = [Tunnel(HA, f"10.1.{number // 250}.{number % 250 + 1}") for number in range(DRAINED_MAX + 1)]
    assert not [ended for tunnel in tunnels[:-1] for ended in draining.begin(HOME, tunnel, 0.0)]
    assert [ended.tunnel for ended in draining.begin(HOME, tunnels[-1], 0.0)] == tunnels[:1]
    assert len(draining) == DRAINED_MAX


def test_the_operator_takes_a_binding_and_its_tunnel_at_once() -> None:
    bench = Bench()
    bench.register(WLAN)
    bench.keep(bench.agent.deregister(HOME, None, bench.now))
    assert len(of(bench.actions, CloseTunnel)) == 1
    assert forwarding_in(bench.actions) == Forwarding(HOME)


def test_another_encapsulation_of_the_same_binding_has_no_moment_with_both_tunnels() -> None:
    bench = Bench(config(encapsulations=frozenset((Encapsulation.IP_IN_IP, Encapsulation.GRE))))
    bench.register()
    bench.register(flags=CO_LOCATED | RequestFlag.GRE)
    order = [kind for kind in kinds(bench) if kind is not Store]
    assert order == [Forwarding, CloseTunnel, OpenTunnel, Forwarding, SendMessage, Log]
    assert of(bench.actions, OpenTunnel)[0].tunnel.encapsulation is Encapsulation.GRE
    assert of(bench.actions, Forwarding)[1].shares[0][0].encapsulation is Encapsulation.GRE


def test_forwarding_comes_back_also_when_the_reopened_tunnel_has_no_part_in_it() -> None:
    both = frozenset((Encapsulation.IP_IN_IP, Encapsulation.GRE))
    cheap_first = node(selection="priority", labels={2: Label(cost=9)})
    bench = Bench(config(cheap_first, encapsulations=both))
    bench.register(WLAN, multipath(1, 1))
    bench.register(LTE, multipath(2, 2), flags=RequestFlag.DECAPSULATION_BY_MN)
    bench.register(LTE, multipath(2, 2), flags=RequestFlag.DECAPSULATION_BY_MN | RequestFlag.GRE)
    assert [[tunnel.remote for tunnel, _ in item.shares] for item in of(bench.actions, Forwarding)] == [[], [WLAN]]


def test_the_tunnel_starts_at_the_address_that_the_mobile_node_uses() -> None:
    bench = Bench(config(addresses=(HA, "10.65.0.1")))
    bench.register(home_agent="10.65.0.1", destination="10.65.0.1")
    assert of(bench.actions, OpenTunnel)[0].tunnel.local == "10.65.0.1"
    assert of(bench.actions, SendMessage)[0].source == "10.65.0.1"


def test_packets_are_accepted_from_reverse_tunnels_only() -> None:
    bench = Bench()
    bench.register(WLAN, multipath(1))
    assert [tunnel.remote for tunnel in forwarding_in(bench.actions).accept] == [WLAN]
    bench.register(WLAN, multipath(1), flags=RequestFlag.DECAPSULATION_BY_MN)
    bench.advance(DRAIN_S)
    assert forwarding_in(bench.actions).accept == ()


# -- NAT (RFC 3519) -----------------------------------------------------------------------------------------------------
def test_a_nat_on_the_way_gives_a_udp_tunnel_to_the_observed_source() -> None:
    bench = Bench()
    reply = bench.register(WLAN, UdpTunnelRequest(), source=NAT, port=50_001)
    assert reply.extensions[0] == UdpTunnelReply(0, False, 110)
    tunnel = of(bench.actions, OpenTunnel)[0].tunnel
    assert (tunnel.remote, tunnel.remote_port, tunnel.encapsulation) == (NAT, 50_001, Encapsulation.UDP)
    assert [item.remote_port for item in forwarding_in(bench.actions).accept] == [50_001]
    sent = of(bench.actions, SendMessage)[0]
    assert (sent.destination, sent.port) == (NAT, 50_001)


def test_a_refresh_from_another_port_moves_the_tunnel() -> None:
    bench = Bench()
    bench.register(WLAN, UdpTunnelRequest(), source=NAT, port=50_001)
    bench.register(WLAN, UdpTunnelRequest(), source=NAT, port=50_002)
    assert [action.tunnel.remote_port for action in of(bench.actions, OpenTunnel)] == [50_002]
    assert forwarding_in(bench.actions).shares[0][0].remote_port == 50_002
    assert [action.tunnel.remote_port for action in of(bench.advance(DRAIN_S), CloseTunnel)] == [50_001]
    assert len(bench.agent.bindings()) == 1


def test_without_a_nat_udp_is_declined_unless_it_is_forced_and_that_is_allowed() -> None:
    for allowed, expected in ((False, UdpTunnelReply(64)), (True, UdpTunnelReply(0, True, 110))):
        bench = Bench(config(udp_forced=allowed))
        assert bench.register(WLAN, UdpTunnelRequest(force=True)).extensions[0] == expected
        tunnel = of(bench.actions, OpenTunnel)[0].tunnel
        assert (tunnel.encapsulation is Encapsulation.UDP) is allowed


def test_a_home_agent_may_force_udp() -> None:
    reply = Bench(config(udp_always=True)).register(WLAN, UdpTunnelRequest())
    assert reply.extensions[0] == UdpTunnelReply(0, True, 110)


def test_a_foreign_agent_that_only_relays_is_no_nat() -> None:
    bench = Bench()
    reply = bench.register(WLAN, UdpTunnelRequest(registration_required=True), source=FA)
    assert reply.extensions[0] == UdpTunnelReply(64)
    assert of(bench.actions, OpenTunnel)[0].tunnel.remote == WLAN


def test_a_nat_without_a_wish_for_udp_changes_nothing() -> None:
    bench = Bench()
    assert bench.register(WLAN, source=NAT).code == 0
    assert of(bench.actions, OpenTunnel)[0].tunnel.remote == WLAN


# -- foreign agents -----------------------------------------------------------------------------------------------------
def test_a_reply_through_a_foreign_agent_has_its_authenticator_last() -> None:
    bench = Bench(WITH_FA)
    bench.send(sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS)), source=FA, port=434)
    (sent,) = of(bench.actions, SendMessage)
    assert (sent.destination, sent.port) == (FA, 434)
    reply = codec.decode(sent.data)
    assert isinstance(reply, Reply)
    last = reply.extensions[-1]
    assert isinstance(last, Authentication)
    assert last.kind == 34
    assert verify(sent.data, reply.offsets[-1], last, FA_ASSOCIATION.key, FA_ASSOCIATION.algorithm)


def test_the_reply_uses_the_spi_that_the_foreign_agent_used() -> None:
    second = SecurityAssociation(3100, b"second")
    bench = Bench(config(foreign_agents=(ForeignAgentEntry(FA, (FA_ASSOCIATION, second)),)))
    bench.send(sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS), second), source=FA)
    reply = codec.decode(of(bench.actions, SendMessage)[0].data)
    assert isinstance(reply, Reply)
    assert getattr(reply.extensions[-1], "spi", None) == 3100


# -- associations -------------------------------------------------------------------------------------------------------
def test_the_spi_selects_key_and_algorithm() -> None:
    bench = Bench(config(node(associations=(SecurityAssociation(1000, KEY), SHA256))))
    assert bench.register(WLAN).code == 0
    assert bench.register(WLAN, association=SHA256).code == 0


# -- addresses from the pool (RFC 2794) ---------------------------------------------------------------------------------
POOL = ("10.64.0.200", "10.64.0.201")


def pooled(*names: bytes) -> Bench:
    return Bench(config(*(replace(node(), home_address="", nai=name) for name in names), pool=POOL))


def test_a_mobile_node_gets_a_home_address_by_its_nai_and_keeps_it() -> None:
    bench = pooled(b"a@x", b"b@x")
    first = bench.register(WLAN, Nai(b"a@x"), home_address="0.0.0.0")
    assert (first.code, first.home_address, first.extensions[0]) == (0, POOL[0], Nai(b"a@x"))
    assert bench.register(LTE, Nai(b"b@x"), home_address="0.0.0.0").home_address == POOL[1]
    assert bench.register(WLAN, Nai(b"a@x"), home_address=POOL[0]).code == 0
    assert bench.register(WLAN, Nai(b"a@x"), home_address="0.0.0.0").home_address == POOL[0]
    bench.advance(10_000)
    bench.restart()
    assert bench.register(WLAN, Nai(b"a@x"), home_address="0.0.0.0").home_address == POOL[0]


def test_an_address_without_binding_goes_to_somebody_else_when_the_pool_is_empty() -> None:
    bench = pooled(b"a@x", b"b@x", b"c@x")
    for name in (b"a@x", b"b@x"):
        bench.register(WLAN, Nai(name), home_address="0.0.0.0")
    assert bench.register(WLAN, Nai(b"c@x"), home_address="0.0.0.0").code == 130
    bench.register(WLAN, Nai(b"b@x"), home_address=POOL[1], lifetime_s=0)
    assert bench.register(WLAN, Nai(b"c@x"), home_address="0.0.0.0").home_address == POOL[1]


def test_a_free_address_of_the_pool_may_be_asked_for() -> None:
    bench = pooled(b"a@x")
    assert bench.register(WLAN, Nai(b"a@x"), home_address=POOL[1]).home_address == POOL[1]
    assert bench.register(WLAN, Nai(b"a@x"), home_address=POOL[0]).code == 129


def test_an_nai_behind_the_authenticator_names_nobody() -> None:
    bench = pooled(b"a@x")
    data = bench.signed(WLAN, home_address="0.0.0.0") + codec.encode_extension(Nai(b"a@x"))
    assert not of(bench.send(data), SendMessage)
    assert bench.discarded("unknown-home-address") == 1


# -- the operator -------------------------------------------------------------------------------------------------------
def test_the_operator_takes_bindings_away() -> None:
    bench = Bench()
    for care_of, bid in ((WLAN, 1), (LTE, 2)):
        bench.register(care_of, multipath(bid))
    bench.keep(bench.agent.deregister(HOME, 1, bench.now))
    assert bench.bids == [2]
    with pytest.raises(ValueError, match="no such binding"):
        bench.agent.deregister(HOME, 1, bench.now)
    bench.keep(bench.agent.deregister(HOME, None, bench.now))
    assert bench.bids == []
    assert of(bench.actions, ReleaseAddress)


def test_the_operators_policy_takes_effect_at_once_and_outlives_a_restart() -> None:
    bench = Bench()
    for care_of, bid in ((WLAN, 1), (LTE, 2)):
        bench.register(care_of, multipath(bid))
    bench.keep(bench.agent.set_policy(HOME, (StaticFlow(VOICE, bids=(2,)), StaticFlow(HTTP)), bench.now))
    before = forwarding_in(bench.actions)
    assert [rule.tunnel.bid if rule.tunnel else "drop" for rule in before.rules] == [2, "drop"]
    assert forwarding_in(bench.restart()) == before
    bench.keep(bench.agent.set_policy(HOME, None, bench.now))
    assert forwarding_in(bench.actions).rules == ()
    with pytest.raises(ValueError, match="not served"):
        bench.agent.set_policy("10.64.0.99", (), bench.now)


def test_what_is_shown_of_bindings() -> None:
    bench = Bench()
    bench.register(WLAN, multipath(1, 7))
    (shown,) = bench.agent.bindings()
    assert (shown["bid"], shown["label"], shown["care_of_address"], shown["lifetime_s"]) == (1, 7, WLAN, 600)
    status = bench.agent.status()
    assert (status["bindings"], status["homes"], status["tunnels"], status["replies"]) == (1, 1, 1, {"accepted": 1})


# -- a wrong configuration ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields",
    [
        {"addresses": ()},
        {"max_lifetime_s": 0},
        {"reverse_tunnel": False, "reverse_tunnel_required": True},
        {"encapsulations": frozenset()},
        {"pool": (HOME,)},
        {"addresses": (HA, HA)},
        {"pool": ("10.64.0.300",)},
        {"home_prefix": "10.64.0.1/24"},
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
        config(**fields)
