"""Registration Replies of a home agent: where they go and what they carry (RFC 5944 section 3.8.3, RFC 3519, RFC 7629)."""

from agents.core.mobileip import flows
from agents.core.mobileip.actions import Datagram, Encapsulation, SendMessage
from agents.core.mobileip.home_agent_config import HomeAgentConfig
from agents.core.mobileip.home_agent_registration import Registration
from agents.core.mobileip.security import SecurityAssociation
from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip import codec
from agents.wire.mobileip.authentication import append_authentication
from agents.wire.mobileip.values import AuthenticationKind, Extension, Nai, Reply, UdpTunnelReply

UDP_USED, UDP_DECLINED = 0, 64
"""Codes of the UDP tunnel reply (RFC 3519 section 3.2)."""


def extensions_of_refusal(registration: Registration) -> tuple[Extension, ...]:
    """The NAI comes back in every reply (RFC 2794 section 2)."""
    return tuple(Nai(nai) for nai in registration.nais[:1])


def extensions_of_acceptance(registration: Registration, operator: tuple[StaticFlow, ...]) -> tuple[Extension, ...]:
    """NAI, answer to the request for UDP, and the operator's flows for a mobile node that knows flow bindings."""
    found = list(extensions_of_refusal(registration))
    if registration.deregisters:
        return tuple(found)
    if registration.udp is not None:
        in_udp = registration.tunnel.encapsulation is Encapsulation.UDP
        forced = in_udp and not registration.behind_nat
        keepalive_s = registration.config.keepalive_s if in_udp else 0
        found.append(UdpTunnelReply(UDP_USED if in_udp else UDP_DECLINED, forced, keepalive_s))
    if registration.multipath is not None:
        found += flows.offered(operator, registration.bid)
    return tuple(found)


def message(
    config: HomeAgentConfig,
    datagram: Datagram,
    reply: Reply,
    association: SecurityAssociation,
    foreign: SecurityAssociation | None = None,
    from_home: bool = False,
) -> SendMessage:
    """The reply with its authenticators, to where the request came from.

    `from_home`: the source of the request is the home address. The reply then goes out on the link by which the request came,
    to the sender's MAC address: a tunnel for that address may still be there (RFC 5944 section 3.8.3.1).
    """
    data = codec.encode(reply)
    data = append_authentication(data, AuthenticationKind.MOBILE_HOME, association.spi, association.key, association.algorithm)
    if foreign is not None:
        data = append_authentication(data, AuthenticationKind.FOREIGN_HOME, foreign.spi, foreign.key, foreign.algorithm)
    return SendMessage(
        data,
        datagram.source,
        datagram.source_port,
        datagram.destination if datagram.destination in config.addresses else reply.home_agent,
        datagram.interface if from_home else "",
        link_address=datagram.link_address if from_home else "",
    )
