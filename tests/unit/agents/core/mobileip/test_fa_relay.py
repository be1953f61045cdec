"""The foreign agent: what it advertises, refuses with which code, passes on, and does for its visitors."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.actions import (
    Action,
    CloseTunnel,
    Datagram,
    Deliver,
    Log,
    OpenTunnel,
    ReverseTunnel,
    SendIcmp,
    SendMessage,
    Tunnel,
)
from agents.core.mobileip.foreign_agent import ForeignAgent
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig, LinkConfig
from agents.core.mobileip.security import SecurityAssociation
from agents.wire.mobileip import advertisement, authentication, codec
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Challenge,
    EncapsulatingDelivery,
    Extension,
    Multipath,
    Reply,
    Request,
    RequestFlag,
)
from tests.unit.agents.core.mobileip.mn_parts import HOME, HOME_AGENT, KEY, at, logged, pick, random_bytes_from

FA, COA = "10.1.0.1", "10.1.0.1"
T, D, G, M = (
    RequestFlag.REVERSE_TUNNEL, RequestFlag.DECAPSULATION_BY_MN, RequestFlag.GRE, RequestFlag.MINIMAL_ENCAPSULATION,
)  # fmt: skip
MF = SecurityAssociation(300, b"mobile and foreign")
FH = SecurityAssociation(301, b"foreign and home")
HA_TUNNEL = Tunnel(COA, HOME_AGENT)


def agent(**values: Any) -> ForeignAgent:
    """One link, nothing shared."""
    return ForeignAgent(ForeignAgentConfig(COA, (LinkConfig("wlan", FA),), **values), random_bytes_from())


def request(**values: Any) -> Request:
    """Not encoded yet: a registration through the agent."""
    fields: dict[str, Any] = {
        "home_address": HOME, "home_agent": HOME_AGENT, "care_of_address": COA, "lifetime_s": 600,
        "identification": 0x500000007, "flags": T,
    }  # fmt: skip
    return Request(**(fields | values))


def from_visitor(
    asked: Request, behind: tuple[Extension, ...] = (), mobile: SecurityAssociation | None = None, **values: Any
) -> Datagram:
    """The datagram of a visitor."""
    data = authentication.append_authentication(codec.encode(asked), AuthenticationKind.MOBILE_HOME, KEY.spi, KEY.key)
    data += b"".join(codec.encode_extension(item) for item in behind)
    if mobile is not None:
        data = authentication.append_authentication(data, AuthenticationKind.MOBILE_FOREIGN, mobile.spi, mobile.key)
    known: dict[str, Any] = {"interface": "wlan", "ttl": 255, "link_address": "02::2"}
    return Datagram(data, asked.home_address, 434, FA, **(known | values))


def from_home_agent(asked: Request, code: int = 0, home: SecurityAssociation | None = None, **values: Any) -> Datagram:
    """The home agent's answer."""
    fields: dict[str, Any] = {
        "home_address": asked.home_address, "home_agent": asked.home_agent, "lifetime_s": asked.lifetime_s,
        "identification": asked.identification,
    }  # fmt: skip
    data = codec.encode(Reply(code, **(fields | values)))
    data = authentication.append_authentication(data, AuthenticationKind.MOBILE_HOME, KEY.spi, KEY.key)
    if home is not None:
        data = authentication.append_authentication(data, AuthenticationKind.FOREIGN_HOME, home.spi, home.key)
    return Datagram(data, HOME_AGENT, 434, COA)


def sent(actions: list[Action]) -> SendMessage:
    """The only message."""
    (message,) = pick(actions, SendMessage)
    return message


def refused(actions: list[Action]) -> Reply:
    """The agent's own reply, and only that."""
    message = sent(actions)
    assert (message.destination, message.interface, message.link_address) == (HOME, "wlan", "02::2")
    reply = codec.decode(message.data)
    assert isinstance(reply, Reply)
    return reply


def visited(fa: ForeignAgent, asked: Request | None = None, now_s: float = 0.0) -> list[Action]:
    """A visitor registers; what the reply has led to."""
    asked = asked or request()
    fa.handle_datagram(from_visitor(asked), at(now_s))
    return fa.handle_datagram(from_home_agent(asked), at(now_s))


# -- advertisements ---------------------------------------------------------------------------------------------------
def test_advertisements_are_periodic_and_say_what_is_offered() -> None:
    fa = agent(registration_required=True, gre=True)
    times, now_s = [], 0.0
    heard = pick(fa.start(at(0.0)), SendIcmp)
    for number in range(5):
        (icmp,) = heard
        said = advertisement.decode(icmp.data)
        assert said.agent is not None
        assert (icmp.destination, icmp.ttl, icmp.interface) == ("224.0.0.1", 1, "wlan")
        assert (said.agent.sequence, said.agent.care_of_addresses, said.agent.lifetime_s) == (number, (COA,), 1800)
        assert (said.agent.registration_required, said.agent.gre, said.agent.foreign_agent) == (True, True, True)
        assert (said.lifetime_s, said.routers, said.prefix_lengths) == (30, ((FA, 0),), (24,))
        times.append(now_s)
        deadline = fa.next_deadline()
        assert deadline is not None
        now_s = deadline
        heard = pick(fa.handle_timer(at(now_s)), SendIcmp)
    assert all(9 <= later - earlier <= 10 for earlier, later in itertools.pairwise(times))


def test_sequence_rolls_over_to_256() -> None:
    fa = agent()
    fa.start(at(0.0))
    fa._links["wlan"].sequence = 0xFFFF
    for now_s, number in ((20.0, 0xFFFF), (40.0, 256), (60.0, 257)):
        (icmp,) = pick(fa.handle_timer(at(now_s)), SendIcmp)
        said = advertisement.decode(icmp.data)
        assert said.agent is not None
        assert said.agent.sequence == number


def test_solicitations_are_answered_at_a_limited_rate() -> None:
    fa = agent()
    fa.start(at(0.0))
    data = advertisement.encode_solicitation()
    answers = [now for now in range(100) if fa.handle_solicitation(data, "wlan", at(now / 10))]
    assert len(answers) == 10
    assert fa.handle_solicitation(data, "lte", at(20.0)) == []
    assert fa.handle_solicitation(b"\x0a\x00junk", "wlan", at(20.0)) == []


def test_busy_is_advertised_when_the_visitor_list_is_full() -> None:
    fa = agent(visitors_max=1)
    fa.start(at(0.0))
    visited(fa)
    (icmp,) = pick(fa.handle_timer(at(10.0)), SendIcmp)
    said = advertisement.decode(icmp.data)
    assert said.agent is not None
    assert said.agent.busy


def test_advertisement_lifetime_is_three_intervals() -> None:
    with pytest.raises(ValueError, match="three intervals"):
        agent(advertisement_interval_s=15.0)


# -- relay ------------------------------------------------------------------------------------------------------------
def test_request_is_passed_on_through_the_authorising_extension() -> None:
    fa = agent()
    asked = replace(request(), extensions=(Multipath(3),))
    datagram = from_visitor(asked, (Challenge(b"for the agent"),))
    message = sent(fa.handle_datagram(datagram, at(0.0)))
    assert (message.destination, message.port, message.source) == (HOME_AGENT, 434, COA)
    assert datagram.data.startswith(message.data)
    passed = codec.decode(message.data)
    assert [type(item) for item in passed.extensions] == [Multipath, Authentication]  # type: ignore[union-attr]


def test_extension_34_towards_the_home_agent() -> None:
    fa = agent(home_associations={HOME_AGENT: FH})
    message = codec.decode(sent(fa.handle_datagram(from_visitor(request()), at(0.0))).data)
    assert isinstance(message, Request)
    assert [item.kind for item in message.extensions if isinstance(item, Authentication)] == [32, 34]
    gone = request(lifetime_s=0, identification=9)
    message = codec.decode(sent(fa.handle_datagram(from_visitor(gone), at(1.0))).data)
    assert isinstance(message, Request)
    assert [item.kind for item in message.extensions if isinstance(item, Authentication)] == [32], "not when deregistering"


def test_reply_is_passed_back_to_the_link_address_of_the_visitor() -> None:
    fa = agent(mobile_associations={HOME: MF}, home_associations={HOME_AGENT: FH})
    asked = request()
    fa.handle_datagram(from_visitor(asked, mobile=MF), at(0.0))
    message = sent(fa.handle_datagram(from_home_agent(asked, home=FH), at(0.1)))
    assert (message.destination, message.link_address, message.interface, message.source) == (HOME, "02::2", "wlan", FA)
    reply = codec.decode(message.data)
    assert isinstance(reply, Reply)
    kinds = [item.kind for item in reply.extensions if isinstance(item, Authentication)]
    assert kinds == [32, 33], "34 is for this agent, 33 for the mobile node"
    last = reply.extensions[-1]
    assert isinstance(last, Authentication)
    assert authentication.verify(message.data, reply.offsets[-1], last, MF.key)


def test_27_visitor_gets_tunnel_delivery_and_reverse_tunnel_before_its_reply() -> None:
    fa = agent()
    actions = [action for action in visited(fa) if not isinstance(action, Log)]
    assert actions[:3] == [OpenTunnel(HA_TUNNEL), Deliver(HOME, "wlan", "02::2"), ReverseTunnel(HOME, HA_TUNNEL)]
    assert isinstance(actions[3], SendMessage)
    assert fa.status()["visitors"][0]["home_address"] == HOME


def test_visitors_share_the_tunnel_and_the_last_one_closes_it() -> None:
    fa = agent()
    visited(fa)
    other = request(home_address="10.9.0.101", identification=8)
    assert pick(visited(fa, other), OpenTunnel) == []
    gone = request(lifetime_s=0, identification=10)
    actions = visited(fa, gone, 5.0)
    assert Deliver(HOME, "wlan", None) in actions
    assert ReverseTunnel(HOME, None) in actions
    assert pick(actions, CloseTunnel) == []
    assert CloseTunnel(HA_TUNNEL) in fa.handle_timer(at(700.0)), "the other one expires"
    assert fa.status()["visitors"] == []


def test_without_t_packets_are_not_tunnelled_back() -> None:
    fa = agent()
    assert ReverseTunnel(HOME, None) in visited(fa, request(flags=RequestFlag(0)))


def test_co_located_mobile_node_behind_the_r_bit_gets_no_delivery() -> None:
    fa = agent()
    actions = visited(fa, request(flags=T | D, care_of_address="10.1.0.50"))
    assert not pick(actions, OpenTunnel)
    assert not pick(actions, Deliver)
    assert len(fa.status()["visitors"]) == 1


def test_granted_lifetime_is_at_most_what_was_asked() -> None:
    fa = agent()
    asked = request(lifetime_s=100)
    fa.handle_datagram(from_visitor(asked), at(0.0))
    fa.handle_datagram(from_home_agent(asked, lifetime_s=500), at(0.0))
    assert fa.status()["visitors"][0]["expires_s"] == 100


def test_refusals_of_the_home_agent_pass_and_make_no_visitor() -> None:
    fa = agent()
    asked = request()
    fa.handle_datagram(from_visitor(asked), at(0.0))
    reply = codec.decode(sent(fa.handle_datagram(from_home_agent(asked, 131), at(0.1))).data)
    assert isinstance(reply, Reply)
    assert reply.code == 131
    assert fa.status()["visitors"] == []


def test_replies_match_by_home_address_and_low_half_of_the_identification() -> None:
    fa = agent()
    asked = request()
    fa.handle_datagram(from_visitor(asked), at(0.0))
    assert logged(fa.handle_datagram(from_home_agent(asked, identification=8), at(0.1)), "discard")
    assert logged(fa.handle_datagram(from_home_agent(asked, home_address="10.9.0.8"), at(0.1)), "discard")
    forged = replace(from_home_agent(asked), source="10.66.0.1")
    assert logged(fa.handle_datagram(forged, at(0.1)), "discard")
    nonce = from_home_agent(asked, identification=0x7777_0000_0007)
    assert pick(fa.handle_datagram(nonce, at(0.1)), Deliver)
    assert logged(fa.handle_datagram(nonce, at(0.2)), "discard"), "only once"


def test_no_authorising_extension_is_discarded_silently() -> None:
    fa = agent()
    datagram = replace(from_visitor(request()), data=codec.encode(request()))
    assert logged(fa.handle_datagram(datagram, at(0.0)), "discard") == [{"reason": "no authorising extension", "source": HOME}]


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "config", "values", "behind"),
    [
        (65, {"prohibited": frozenset([HOME])}, {}, ()),
        (65, {"home_agents": frozenset(["10.9.0.2"])}, {}, ()),
        (66, {"visitors_max": 0}, {}, ()),
        (66, {"pending_max": 0}, {}, ()),
        (69, {"lifetime_max_s": 599}, {}, ()),
        (72, {}, {"flags": T | G}, ()),
        (72, {"gre": True}, {"flags": T | M}, ()),
        (74, {"reverse_tunnel": False}, {}, ()),
        (75, {"reverse_tunnel_mandatory": True}, {"flags": RequestFlag(0)}, ()),
        (77, {}, {"care_of_address": "10.1.0.9"}, ()),
        (79, {}, {}, (EncapsulatingDelivery(),)),
        (105, {"challenge": True}, {}, ()),
        (104, {"challenge": True}, {}, (Challenge(b"invented"),)),
        (194, {}, {"home_agent": "224.0.0.1"}, ()),
        (194, {}, {"home_agent": COA}, ()),
    ],
)
def test_refusal_codes(code: int, config: dict[str, Any], values: dict[str, Any], behind: tuple[Extension, ...]) -> None:
    reply = refused(agent(**config).handle_datagram(from_visitor(request(**values), behind), at(0.0)))
    assert (reply.code, reply.identification, reply.home_address) == (code, 0x500000007, HOME)
    if code == 69:
        assert reply.lifetime_s == 599


def test_code_70_is_for_two_authorising_extensions() -> None:
    twice = authentication.append_authentication(from_visitor(request()).data, AuthenticationKind.MOBILE_HOME, KEY.spi, KEY.key)
    assert refused(agent().handle_datagram(replace(from_visitor(request()), data=twice), at(0.0))).code == 70
    inside = replace(request(), extensions=(EncapsulatingDelivery(),))
    assert refused(agent().handle_datagram(from_visitor(inside), at(0.0))).code == 70


@pytest.mark.parametrize("wrong", ["none", "spi", "key"])
def test_code_67_authentication_of_the_mobile_node(wrong: str) -> None:
    fa = agent(mobile_associations={HOME: MF})
    mobile = {"none": None, "spi": replace(MF, spi=999), "key": replace(MF, key=b"another")}[wrong]
    actions = fa.handle_datagram(from_visitor(request(), mobile=mobile), at(0.0))
    reply = refused(actions)
    assert reply.code == 67
    proof = reply.extensions[-1]
    assert isinstance(proof, Authentication)
    assert authentication.verify(sent(actions).data, reply.offsets[-1], proof, MF.key), "the refusal itself is authentic"


@pytest.mark.parametrize("home", [None, replace(FH, key=b"another"), replace(FH, spi=999)])
def test_code_68_authentication_of_the_home_agent(home: SecurityAssociation | None) -> None:
    fa = agent(home_associations={HOME_AGENT: FH})
    asked = request()
    fa.handle_datagram(from_visitor(asked), at(0.0))
    assert refused(fa.handle_datagram(from_home_agent(asked, home=home), at(0.1))).code == 68
    assert fa.status()["visitors"] == []


def test_code_71_reply_without_authorising_extension() -> None:
    fa = agent()
    asked = request()
    fa.handle_datagram(from_visitor(asked), at(0.0))
    bare = Reply(0, HOME, HOME_AGENT, 600, asked.identification)
    assert refused(fa.handle_datagram(Datagram(codec.encode(bare), HOME_AGENT, 434, COA), at(0.1))).code == 71


@pytest.mark.parametrize("ttl", [1, 64, 254])
def test_code_76_reverse_tunnel_needs_ttl_255(ttl: int) -> None:
    assert refused(agent().handle_datagram(from_visitor(request(), ttl=ttl), at(0.0))).code == 76
    plain = agent().handle_datagram(from_visitor(request(flags=RequestFlag(0)), ttl=ttl), at(0.0))
    assert sent(plain).destination == HOME_AGENT, "without T any TTL will do"


def test_code_78_when_the_home_agent_does_not_answer() -> None:
    fa = agent()
    asked = request()
    fa.handle_datagram(from_visitor(asked), at(0.0))
    assert fa.handle_timer(at(6.9)) == []
    assert refused(fa.handle_timer(at(7.0))).code == 78
    assert logged(fa.handle_datagram(from_home_agent(asked), at(7.1)), "discard"), "too late"


@pytest.mark.parametrize(("icmp_code", "code"), [(0, 80), (1, 81), (3, 82), (13, 88)])
def test_codes_80_81_82_88_home_agent_unreachable(icmp_code: int, code: int) -> None:
    fa = agent()
    fa.handle_datagram(from_visitor(request()), at(0.0))
    assert fa.handle_unreachable("10.9.0.77", icmp_code, at(0.1)) == []
    assert refused(fa.handle_unreachable(HOME_AGENT, icmp_code, at(0.1))).code == code


def test_full_agent_serves_its_visitors() -> None:
    fa = agent(visitors_max=1)
    visited(fa)
    again = request(identification=20)
    assert sent(fa.handle_datagram(from_visitor(again), at(5.0))).destination == HOME_AGENT
    other = replace(from_visitor(request(home_address="10.9.0.101")), source=HOME)
    assert refused(fa.handle_datagram(other, at(5.0))).code == 66


def test_challenges_are_taken_once() -> None:
    fa = agent(challenge=True)
    (icmp,) = pick(fa.start(at(0.0)), SendIcmp)
    challenge = advertisement.decode(icmp.data).challenge
    assert challenge is not None
    asked = request()
    assert sent(fa.handle_datagram(from_visitor(asked, (Challenge(challenge),)), at(0.1))).destination == HOME_AGENT
    reply = codec.decode(sent(fa.handle_datagram(from_home_agent(asked), at(0.2))).data)
    assert isinstance(reply, Reply)
    (fresh,) = [item for item in reply.extensions if isinstance(item, Challenge)]
    again = request(identification=30)
    assert refused(fa.handle_datagram(from_visitor(again, (Challenge(challenge),)), at(1.0))).code == 106
    assert sent(fa.handle_datagram(from_visitor(again, (fresh,)), at(2.0))).destination == HOME_AGENT


# -- attacks ----------------------------------------------------------------------------------------------------------
def test_pending_requests_are_bounded() -> None:
    fa = agent(pending_max=50, requests_per_s=1e6, requests_burst=10**6)
    for number in range(300):
        fa.handle_datagram(from_visitor(request(home_address=f"10.9.1.{number % 250}", identification=number)), at(0.0))
    assert fa.status()["pending"] <= 50
    for number in range(20):
        fa.handle_datagram(from_visitor(request(identification=1000 + number)), at(0.0))
    assert fa.status()["pending"] <= 50


def test_one_mobile_node_has_few_pending_requests() -> None:
    fa = agent()
    for number in range(15):
        fa.handle_datagram(from_visitor(request(identification=number)), at(0.0))
    assert fa.status()["pending"] == 3


def test_requests_of_one_sender_are_limited() -> None:
    fa = agent()
    answered = [bool(fa.handle_datagram(from_visitor(request(identification=n)), at(n / 1000))) for n in range(1000)]
    assert 20 <= sum(answered) <= 41


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x01", b"\x03", b"\x04"]))
def test_remote_input_never_raises(data: bytes, first: bytes) -> None:
    fa = agent(challenge=True, mobile_associations={HOME: MF})
    fa.start(at(0.0))
    fa.handle_datagram(Datagram(first + data, "10.1.0.5", 434, FA, "wlan", 255, "02::5"), at(0.0))
    fa.handle_solicitation(data, "wlan", at(0.0))
    assert fa.status()["visitors"] == []
