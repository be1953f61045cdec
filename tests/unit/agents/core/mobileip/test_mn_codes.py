"""What the mobile node does about each reply code (RFC 5944 section 3.4, RFC 3024, RFC 3519, RFC 7629)."""

from dataclasses import replace
from typing import Any

import pytest

from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.registration_codes import Code
from agents.core.mobileip.registration_replies import REACTIONS, Reaction, is_foreign, reaction_to
from agents.wire.mobileip.values import Challenge, EncapsulatingDelivery, RequestFlag, UdpTunnelReply, UdpTunnelRequest
from tests.unit.agents.core.mobileip.mn_parts import (
    HOME_AGENT,
    WLAN,
    WLAN_UP,
    Asked,
    Script,
    answer,
    asked,
    logged,
    registered,
    script,
)
from tests.unit.agents.core.mobileip.test_discovery import advertisement, changed

BEHIND_AGENT = (replace(WLAN, co_located=False),)
LINK = replace(WLAN_UP, address=None)


def visiting(**values: Any) -> tuple[Script, Asked]:
    """An interface with a foreign agent, its first request sent."""
    run = script(interfaces=BEHIND_AGENT, **values)
    run.up(LINK)
    (request,) = asked(
        run.did(run.node.handle_advertisement(advertisement(lifetime_s=9000), "10.1.0.1", "02::1", "wlan", run.now))
    )
    return run, request


def refuse(run: Script, request: Asked, code: int, lifetime_s: int = 0, **values: Any) -> Asked:
    """The foreign agent refuses; the request that follows."""
    run.did(run.node.handle_datagram(answer(request, code, lifetime_s, signed=False, **values), run.now))
    return run.until_asked(run.now_s + 100)


def test_every_code_has_a_reaction() -> None:
    for code in Code:
        assert code in REACTIONS or reaction_to(code) is Reaction.ACCEPT
    assert reaction_to(200) is Reaction.REFUSED
    assert is_foreign(194)
    assert not is_foreign(136)


@pytest.mark.parametrize("code", [0, 1])
def test_codes_0_and_1_accept(code: int) -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, code)
    assert run.states()["wlan"] == "registered"


@pytest.mark.parametrize("code", [128, 129, 130, 131, 134, 135, 200])
def test_refusals_of_the_home_agent_wait(code: int) -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    assert run.reply(request, code) == []
    assert run.states()["wlan"] == "denied"
    again = run.until_asked()
    assert run.now_s == pytest.approx(30)
    run.reply(again)
    assert run.states()["wlan"] == "registered"


@pytest.mark.parametrize("code", [128, 131, 135])
def test_refused_refresh_keeps_what_was_granted(code: int) -> None:
    run = registered(WLAN_UP)
    run.reply(run.until_asked(), code)
    assert len(run.node.bindings()) == 1
    assert run.until_asked().request.lifetime_s == 300
    run.wait(300)
    assert run.node.bindings() == []


def test_refusal_needs_the_home_agents_authenticator() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    for code in (128, 133, 152, 66):
        run.did(run.node.handle_datagram(answer(request, code, signed=False), run.now))
        assert logged(run.actions, "discard")
        assert run.states()["wlan"] == "registering"


@pytest.mark.parametrize("skew_s", [-4000, -30, 30, 100_000])
def test_code_133_takes_the_home_agents_time(skew_s: int) -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    theirs = (request.request.identification >> 32) + skew_s
    run.reply(request, 133, identification=theirs << 32 | request.request.identification & 0xFFFFFFFF)
    again = run.until_asked()
    assert run.now_s == pytest.approx(1.0), "not more than one in a second"
    assert abs((again.request.identification >> 32) - theirs - 1) <= 1
    run.reply(again)
    later = run.until_asked()
    assert later.request.identification > again.request.identification


def test_code_133_without_skew_is_only_asked_again() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 133)
    assert run.until_asked().request.identification > request.request.identification


def test_code_133_for_ever_ends_as_a_refusal() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    for _ in range(6):
        run.reply(request, 133)
        assert run.now_s < 10 or run.states()["wlan"] == "denied"
        request = run.until_asked()


def test_code_136_names_the_home_agent() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 136, home_agent="10.9.0.7")
    again = run.until_asked()
    assert (again.request.home_agent, again.send.destination) == ("10.9.0.7", "10.9.0.7")
    run.reply(again, home_agent="10.9.0.7")
    assert run.states()["wlan"] == "registered"
    assert run.node._node.forwarding is not None
    assert run.node._node.forwarding.shares[0][0].remote == "10.9.0.7"


@pytest.mark.parametrize("address", ["10.9.0.255", "224.0.0.1", "0.0.0.0", HOME_AGENT])
def test_code_136_with_an_address_that_helps_nobody(address: str) -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 136, home_agent=address)
    assert run.states()["wlan"] == "denied"


def test_codes_137_138_switch_reverse_tunnelling() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 137)
    again = run.until_asked()
    assert not again.request.flags & RequestFlag.REVERSE_TUNNEL
    run.reply(again, 138)
    assert run.until_asked().request.flags & RequestFlag.REVERSE_TUNNEL


def test_code_139_falls_back_to_ip_in_ip() -> None:
    run = script(interfaces=(replace(WLAN, encapsulation=Encapsulation.GRE),))
    (request,) = run.up(WLAN_UP)
    assert request.request.flags & RequestFlag.GRE
    run.reply(request, 139)
    again = run.until_asked()
    assert not again.request.flags & RequestFlag.GRE
    run.reply(again, 139)
    assert run.states()["wlan"] == "denied"


def test_code_142_gives_udp_up() -> None:
    run = script(nat_traversal=True)
    (request,) = run.up(WLAN_UP)
    assert UdpTunnelRequest(False, False, 4) in request.request.extensions
    run.reply(request, 142)
    again = run.until_asked()
    assert not any(isinstance(item, UdpTunnelRequest) for item in again.request.extensions)


def test_nat_traversal_by_the_reply() -> None:
    run = script(nat_traversal=True, validate=True)
    (request,) = run.up(WLAN_UP)
    run.reply(request, 0, None, UdpTunnelReply(0, False, 40))
    assert run.node.bindings()[0]["encapsulation"] == "udp"
    assert run.probes() == [1]
    run.probed(1)
    run.wait(39)
    assert run.probes() == []
    run.wait(2)
    assert run.probes() == [1], "keepalives at the home agent's interval"
    run.probed(1)
    plain = registered(WLAN_UP, nat_traversal=True)
    assert plain.node.bindings()[0]["encapsulation"] == "ipip", "the home agent sees no NAT"


def test_keepalive_default_is_110_s() -> None:
    run = script(nat_traversal=True, validate=False)
    (request,) = run.up(WLAN_UP)
    run.reply(request, 0, None, UdpTunnelReply())
    run.probed(1)
    run.wait(109.5)
    assert run.probes() == []
    run.wait(1)
    assert run.probes() == [1]


@pytest.mark.parametrize("code", [64, 65, 66, 67, 68, 70, 71, 76, 77, 80, 81, 82, 88, 132, 194])
def test_codes_of_an_agent_that_cannot_help(code: int) -> None:
    run, request = visiting()
    if code == 132:
        run.reply(request, code)
    else:
        run.did(run.node.handle_datagram(answer(request, code, signed=False), run.now))
    assert run.states()["wlan"] == "denied"
    run.until_asked()
    assert run.now_s == pytest.approx(30)


@pytest.mark.parametrize("code", [64, 65, 66, 68, 71, 76, 77, 80, 81, 82, 88])
def test_codes_that_lead_to_another_agent(code: int) -> None:
    run, request = visiting()
    run.node.handle_advertisement(advertisement("10.1.0.7"), "10.1.0.7", "02::7", "wlan", run.now)
    run.did(run.node.handle_datagram(answer(request, code, signed=False), run.now))
    found = asked(run.actions) or [run.until_asked()]
    assert found[0].send.destination == "10.1.0.7"
    assert found[0].send.link_address == "02::7"


def test_code_69_shortens_the_lifetime() -> None:
    run, request = visiting()
    assert request.request.lifetime_s == 300
    assert refuse(run, request, 69, 120).request.lifetime_s == 120


def test_code_69_with_a_longer_lifetime_is_a_refusal() -> None:
    run, request = visiting()
    run.did(run.node.handle_datagram(answer(request, 69, 400, signed=False), run.now))
    assert run.states()["wlan"] == "denied"


def test_code_72_falls_back_to_ip_in_ip() -> None:
    run = script(interfaces=(replace(BEHIND_AGENT[0], encapsulation=Encapsulation.GRE),))
    run.up(LINK)
    heard = changed(advertisement(), gre=True)
    (request,) = asked(run.did(run.node.handle_advertisement(heard, "10.1.0.1", "02::1", "wlan", run.now)))
    assert not refuse(run, request, 72).request.flags & RequestFlag.GRE


def test_codes_74_75_switch_reverse_tunnelling() -> None:
    run, request = visiting()
    assert request.send.ttl == 255, "with T (RFC 3024 section 4.3)"
    without = refuse(run, request, 74)
    assert not without.request.flags & RequestFlag.REVERSE_TUNNEL
    assert refuse(run, without, 75).request.flags & RequestFlag.REVERSE_TUNNEL


def test_code_78_is_asked_again_with_backoff() -> None:
    run, request = visiting()
    assert refuse(run, request, 78).request.identification > request.request.identification
    assert run.now_s == pytest.approx(1.0)


def test_code_79_gives_encapsulating_delivery_up() -> None:
    run, request = visiting(encapsulating_delivery=True)
    assert EncapsulatingDelivery() in request.request.extensions
    again = refuse(run, request, 79)
    assert EncapsulatingDelivery() not in again.request.extensions


@pytest.mark.parametrize("code", [104, 105, 106])
def test_challenge_codes(code: int) -> None:
    run, request = visiting()
    datagram = answer(request, code, 0, Challenge(b"fresh"), signed=False)
    run.did(run.node.handle_datagram(datagram, run.now))
    assert Challenge(b"fresh") in run.until_asked().request.extensions


def test_refusal_of_an_agent_that_was_not_asked() -> None:
    run, request = visiting()
    datagram = replace(answer(request, 66, signed=False), source="10.1.0.66")
    run.did(run.node.handle_datagram(datagram, run.now))
    assert logged(run.actions, "discard") == [{"reason": "refusal of a foreign agent that was not asked"}]
    assert run.states()["wlan"] == "registering"
