"""Every reply code of the home agent with its condition, and every silence."""

from dataclasses import replace

import pytest

from agents.core.mobileip.actions import Encapsulation, SendMessage, Store
from agents.core.mobileip.home_agent_config import ForeignAgentEntry, Limits
from agents.core.mobileip.security import ReplayStyle, SecurityAssociation
from agents.wire.mobileip.authentication import append_authentication
from agents.wire.mobileip.values import (
    AuthenticationKind,
    Nai,
    RequestFlag,
    UdpTunnelReply,
    UdpTunnelRequest,
    UnknownExtension,
)
from tests.unit.agents.core.mobileip.ha_parts import (
    ASSOCIATION,
    CO_LOCATED,
    FA,
    HA,
    HOME,
    HTTP,
    LTE,
    SPI,
    WLAN,
    Bench,
    config,
    forward,
    multipath,
    node,
    of,
    reply_in,
    sign,
)

FA_ASSOCIATION = SecurityAssociation(3000, b"foreign-and-home")
WITH_FA = config(foreign_agents=(ForeignAgentEntry(FA, (FA_ASSOCIATION,)),))
FA_FLAGS = RequestFlag.REVERSE_TUNNEL


def sign_as_foreign_agent(data: bytes, association: SecurityAssociation = FA_ASSOCIATION) -> bytes:
    return append_authentication(data, AuthenticationKind.FOREIGN_HOME, association.spi, association.key, association.algorithm)


def relayed(bench: Bench, data: bytes) -> int:
    reply = reply_in(bench.send(data, source=FA, port=434))
    assert reply is not None
    return reply.code


# -- accepted -----------------------------------------------------------------------------------------------------------
def test_code_0_accepted() -> None:
    bench = Bench()
    reply = bench.register(lifetime_s=600)
    assert (reply.code, reply.lifetime_s, reply.home_address, reply.home_agent) == (0, 600, HOME, HA)


def test_code_1_accepted_without_simultaneous_bindings() -> None:
    bench = Bench()
    assert bench.register(WLAN).code == 0
    assert bench.register(LTE, flags=CO_LOCATED | RequestFlag.SIMULTANEOUS).code == 1
    assert bench.care_ofs == [LTE]


def test_code_0_for_simultaneous_bindings_where_they_are_supported() -> None:
    bench = Bench(config(simultaneous=True))
    assert bench.register(WLAN).code == 0
    assert bench.register(LTE, flags=CO_LOCATED | RequestFlag.SIMULTANEOUS).code == 0
    assert bench.care_ofs == [WLAN, LTE]
    assert bench.register(LTE).code == 0
    assert bench.care_ofs == [LTE]


@pytest.mark.parametrize(("asked_s", "granted_s"), [(1, 1), (1799, 1799), (1801, 1800), (0xFFFF, 1800)])
def test_the_granted_lifetime_is_never_longer_than_asked_or_allowed(asked_s: int, granted_s: int) -> None:
    assert Bench().register(lifetime_s=asked_s).lifetime_s == granted_s


# -- refused ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("care_of", [HA, HOME.replace("50", "51"), "10.64.0.255"])
def test_code_128_for_a_care_of_address_that_makes_a_loop(care_of: str) -> None:
    other = node(home_address="10.64.0.51")
    assert Bench(config(node(), other)).register(care_of, source=WLAN).code == 128


def test_code_129_for_a_mobile_node_that_is_switched_off() -> None:
    bench = Bench(config(node(enabled=False)))
    assert bench.register().code == 129
    assert bench.register(lifetime_s=0).code == 129


def test_code_129_for_somebody_elses_nai_or_home_address() -> None:
    bench = Bench(config(node(nai=b"mn@example.org")))
    assert bench.register(WLAN, Nai(b"mn@example.org")).code == 0
    assert bench.register(WLAN, Nai(b"else@example.org")).code == 129
    by_nai = bench.register(WLAN, Nai(b"mn@example.org"), home_address="10.64.0.99")
    assert by_nai.code == 129


def test_code_130_when_the_table_is_full() -> None:
    bench = Bench(config(limits=Limits(bindings=2)))
    assert [bench.register(WLAN, multipath(bid)).code for bid in (1, 2, 3, 2)] == [0, 0, 130, 0]


def test_code_130_when_there_are_too_many_flows() -> None:
    bench = Bench(config(limits=Limits(flows_per_home=2)))
    assert bench.register(WLAN, multipath(1), *[forward(HTTP, 1)] * 2).code == 0
    assert bench.register(LTE, multipath(2), forward(HTTP, 1)).code == 130
    assert bench.bids == [1]


def test_code_130_when_the_pool_is_empty() -> None:
    nodes = [replace(node(), home_address="", nai=bytes((65 + number,))) for number in range(2)]
    bench = Bench(config(*nodes, pool=("10.64.0.200",)))
    assert bench.register(WLAN, Nai(b"A"), home_address="0.0.0.0").code == 0
    assert bench.register(LTE, Nai(b"B"), home_address="0.0.0.0").code == 130


def test_code_131_for_a_wrong_key_with_a_valid_authenticator() -> None:
    bench = Bench()
    forged = bench.signed(association=SecurityAssociation(SPI, b"another key"))
    reply = reply_in(bench.send(forged))
    assert reply is not None
    assert reply.code == 131
    assert reply.identification == int.from_bytes(forged[16:24], "big")
    assert not of(bench.actions, Store)
    assert bench.bids == []


def test_code_132_without_or_with_a_wrong_authenticator_of_the_foreign_agent() -> None:
    bench = Bench(WITH_FA)
    assert relayed(bench, bench.signed(FA, flags=FA_FLAGS)) == 132
    wrong = SecurityAssociation(3000, b"wrong")
    assert relayed(bench, sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS), wrong)) == 132
    unknown = SecurityAssociation(3001, FA_ASSOCIATION.key)
    assert relayed(bench, sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS), unknown)) == 132
    twice = sign_as_foreign_agent(sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS)))
    assert relayed(bench, twice) == 132
    assert relayed(bench, sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS))) == 0


@pytest.mark.parametrize(("source", "care_of"), [(FA, "10.9.9.9"), ("192.0.2.1", FA)])
def test_a_foreign_agent_is_known_by_the_source_or_by_the_care_of_address(source: str, care_of: str) -> None:
    bench = Bench(WITH_FA)
    assert bench.register(care_of, flags=FA_FLAGS, source=source).code == 132


def test_code_132_for_a_foreign_agent_that_shares_nothing_with_us() -> None:
    bench = Bench()
    assert relayed(bench, sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS))) == 132
    assert relayed(bench, bench.signed(FA, flags=FA_FLAGS)) == 0


def test_code_132_also_for_a_co_located_care_of_address_behind_the_foreign_agent() -> None:
    bench = Bench(WITH_FA)
    assert relayed(bench, bench.signed(WLAN)) == 132
    assert relayed(bench, sign_as_foreign_agent(bench.signed(WLAN))) == 0
    assert bench.register(WLAN).code == 0


def test_deregistration_by_a_foreign_agent_needs_no_authenticator_of_its_own() -> None:
    bench = Bench(WITH_FA)
    assert relayed(bench, sign_as_foreign_agent(bench.signed(FA, flags=FA_FLAGS))) == 0
    assert relayed(bench, bench.signed(FA, flags=FA_FLAGS, lifetime_s=0)) == 0
    assert bench.care_ofs == []


@pytest.mark.parametrize("offset_s", [-8, 8, -100_000])
def test_code_133_for_old_and_future_timestamps(offset_s: int) -> None:
    bench = Bench()
    identification = (bench.now.ntp + (offset_s << 32)) & (1 << 64) - 1 | 0x1234
    reply = bench.register(identification=identification)
    assert reply.code == 133
    assert reply.identification >> 32 == bench.now.ntp >> 32
    assert reply.identification & 0xFFFFFFFF == identification & 0xFFFFFFFF
    assert not of(bench.actions, Store)


def test_code_133_for_a_nonce_that_is_not_the_one_given() -> None:
    nonces = replace(ASSOCIATION, replay=ReplayStyle.NONCES)
    bench = Bench(config(node(associations=(nonces,))))
    first = bench.register(identification=5)
    assert first.code == 133
    second = bench.register(identification=first.identification & ~0xFFFFFFFF | 6)
    assert (second.code, second.identification & 0xFFFFFFFF) == (0, 6)
    assert bench.register(identification=first.identification & ~0xFFFFFFFF | 7).code == 133
    assert bench.register(identification=second.identification & ~0xFFFFFFFF | 8).code == 0


@pytest.mark.parametrize("care_of", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", HOME])
def test_code_134_for_a_care_of_address_that_is_none(care_of: str) -> None:
    assert Bench().register(care_of, source=WLAN).code == 134


def test_code_134_for_an_extension_whose_length_cannot_be() -> None:
    bench = Bench()
    body = bench.request() + bytes((154, 1, 0, 3, 4, 1, 1))
    reply = reply_in(bench.send(sign(body)))
    assert reply is not None
    assert reply.code == 134


def test_code_135_for_too_many_bindings_of_a_home_address() -> None:
    bench = Bench(config(limits=Limits(bindings_per_home=2)))
    assert [bench.register(WLAN, multipath(bid)).code for bid in (1, 2, 3)] == [0, 0, 135]
    assert bench.register(WLAN, multipath(3, overwrite=True)).code == 0
    assert bench.bids == [3]


def test_all_254_bids_fit() -> None:
    bench = Bench(config(limits=Limits(bindings_per_home=254, requests_burst=1000.0)))
    assert {bench.register(WLAN, multipath(bid)).code for bid in range(1, 255)} == {0}
    assert bench.bids == list(range(1, 255))


@pytest.mark.parametrize("home_agent", [None, HA])
@pytest.mark.parametrize("destination", ["255.255.255.255", "10.64.0.255"])
def test_code_136_when_a_home_agent_is_asked_for_by_broadcast(destination: str, home_agent: str | None) -> None:
    bench = Bench()
    reply = bench.register(home_agent=home_agent or destination, destination=destination)
    assert (reply.code, reply.home_agent) == (136, HA)
    assert of(bench.actions, SendMessage)[0].source == HA


def test_code_136_for_the_address_of_another_home_agent() -> None:
    reply = Bench().register(home_agent="10.64.0.2")
    assert (reply.code, reply.home_agent) == (136, HA)


def test_code_137_when_reverse_tunnels_are_not_offered() -> None:
    bench = Bench(config(reverse_tunnel=False))
    assert bench.register().code == 137
    assert bench.register(flags=RequestFlag.DECAPSULATION_BY_MN).code == 0


def test_code_138_when_reverse_tunnels_are_required() -> None:
    bench = Bench(config(reverse_tunnel_required=True))
    assert bench.register(flags=RequestFlag.DECAPSULATION_BY_MN).code == 138
    assert bench.register().code == 0


@pytest.mark.parametrize("flag", [RequestFlag.GRE, RequestFlag.MINIMAL_ENCAPSULATION])
def test_code_139_for_an_encapsulation_that_is_not_offered(flag: RequestFlag) -> None:
    assert Bench().register(flags=CO_LOCATED | flag).code == 139


def test_code_139_for_another_encapsulation_between_the_same_ends_as_others_use() -> None:
    other = node(home_address="10.64.0.51")
    both = frozenset((Encapsulation.IP_IN_IP, Encapsulation.GRE))
    bench = Bench(config(node(), other, encapsulations=both))
    assert bench.register(FA, flags=FA_FLAGS).code == 0
    assert bench.register(FA, flags=FA_FLAGS | RequestFlag.GRE, home_address="10.64.0.51").code == 139
    assert bench.register(FA, flags=FA_FLAGS | RequestFlag.GRE).code == 0


def test_code_142_when_udp_is_needed_and_not_offered() -> None:
    bench = Bench(config(udp_tunnel=False))
    assert bench.register(WLAN, UdpTunnelRequest(), source="192.0.2.1").code == 142
    reply = bench.register(WLAN, UdpTunnelRequest())
    assert reply.code == 0
    assert reply.extensions[0] == UdpTunnelReply(64, False, 0)


def test_no_142_for_a_foreign_agent_that_only_relays() -> None:
    bench = Bench(config(udp_tunnel=False))
    assert bench.register(WLAN, UdpTunnelRequest(registration_required=True), source=FA).code == 0


@pytest.mark.parametrize("inside", [47, 55])
def test_code_142_for_another_encapsulation_inside_udp(inside: int) -> None:
    assert Bench().register(WLAN, UdpTunnelRequest(encapsulation=inside), source="192.0.2.1").code == 142


def test_code_152_multipath_not_allowed() -> None:
    bench = Bench(config(node(multipath=False)))
    assert bench.register(WLAN, multipath(1)).code == 152
    assert bench.register(WLAN).code == 0


def test_code_153_invalid_flow_binding_identifier() -> None:
    bench = Bench()
    assert bench.register(WLAN, multipath(1), forward(HTTP, 1, 2)).code == 153
    assert bench.bids == []


# -- silence ------------------------------------------------------------------------------------------------------------
def test_silence_for_unknown_home_addresses_spis_and_messages() -> None:
    bench = Bench()
    silent = {
        "unknown-home-address": bench.signed(home_address="10.64.0.99"),
        "unknown-spi": bench.signed(association=SecurityAssociation(SPI + 1, ASSOCIATION.key)),
        "no-authentication": bench.request(),
        "no-message": b"",
        "no-request": bytes((3, 0)) + bytes(18),
        "stray-tunnel-data": bytes((4, 4, 0, 0)) + bytes(20),
    }
    for reason, data in silent.items():
        assert not of(bench.send(data), SendMessage), reason
        assert bench.discarded(reason) == 1, reason


def test_silence_for_an_unknown_extension_below_128_also_when_it_is_authentic() -> None:
    bench = Bench()
    assert not of(bench.send(sign(bench.request() + bytes((99, 2, 0, 0)))), SendMessage)
    assert bench.discarded("unknown-extension") == 1
    assert bench.register(WLAN, UnknownExtension(200, b"ab")).code == 0


def test_the_reserved_flags_are_ignored() -> None:
    assert Bench().register(flags=CO_LOCATED | RequestFlag.RESERVED | RequestFlag.X).code == 0


def test_codes_131_and_133_through_a_foreign_agent_carry_extension_34() -> None:
    bench = Bench(WITH_FA)
    for data in (
        bench.signed(FA, flags=FA_FLAGS, association=SecurityAssociation(SPI, b"wrong")),
        bench.signed(FA, flags=FA_FLAGS, identification=1),
    ):
        reply = reply_in(bench.send(sign_as_foreign_agent(data), source=FA))
        assert reply is not None
        assert [getattr(item, "kind", None) for item in reply.extensions] == [32, 34]
