"""What a mobile node does about each code of a Registration Reply (RFC 5944 section 3.6.2.3, RFC 7629 section 5.1)."""

from enum import Enum
from typing import Final

from agents.core.mobileip.registration_codes import Code, is_accepted


class Reaction(Enum):
    """What follows from a code."""

    ACCEPT = "accept"
    RESYNCHRONISE = "resynchronise"
    """Take the home agent's time or nonce and ask again."""
    SHORTEN = "shorten"
    """Ask for the lifetime in the reply."""
    NEXT_HOME_AGENT = "next-home-agent"
    """Ask the home agent named in the reply."""
    NO_MULTIPATH = "no-multipath"
    """One binding from now on, and ask for it."""
    REREGISTER = "re-register"
    """Register the bindings that the flow bindings name once more."""
    NO_REVERSE_TUNNEL = "no-reverse-tunnel"
    REVERSE_TUNNEL = "reverse-tunnel"
    NO_UDP = "no-udp"
    IP_IN_IP = "ip-in-ip"
    DIRECT_DELIVERY = "direct-delivery"
    NEXT_CHALLENGE = "next-challenge"
    OTHER_AGENT = "other-agent"
    """Another foreign agent, or this one later."""
    LATER = "later"
    """The same again after the backoff."""
    REFUSED = "refused"
    """Nothing can be done but to wait."""


UNKNOWN_CHALLENGE: Final = 104
MISSING_CHALLENGE: Final = 105
STALE_CHALLENGE: Final = 106
"""RFC 4721 section 9."""

REACTIONS: Final[dict[int, Reaction]] = {
    Code.FA_REASON_UNSPECIFIED: Reaction.OTHER_AGENT,
    Code.FA_ADMINISTRATIVELY_PROHIBITED: Reaction.OTHER_AGENT,
    Code.FA_INSUFFICIENT_RESOURCES: Reaction.OTHER_AGENT,
    Code.FA_MOBILE_NODE_AUTHENTICATION: Reaction.REFUSED,
    Code.FA_HOME_AGENT_AUTHENTICATION: Reaction.OTHER_AGENT,
    Code.FA_LIFETIME_TOO_LONG: Reaction.SHORTEN,
    Code.FA_POORLY_FORMED_REQUEST: Reaction.REFUSED,
    Code.FA_POORLY_FORMED_REPLY: Reaction.OTHER_AGENT,
    Code.FA_ENCAPSULATION_UNAVAILABLE: Reaction.IP_IN_IP,
    Code.FA_RESERVED_73: Reaction.REFUSED,
    Code.FA_REVERSE_TUNNEL_UNAVAILABLE: Reaction.NO_REVERSE_TUNNEL,
    Code.FA_REVERSE_TUNNEL_MANDATORY: Reaction.REVERSE_TUNNEL,
    Code.FA_MOBILE_NODE_TOO_DISTANT: Reaction.OTHER_AGENT,
    Code.FA_INVALID_CARE_OF_ADDRESS: Reaction.OTHER_AGENT,
    Code.FA_REGISTRATION_TIMEOUT: Reaction.LATER,
    Code.FA_DELIVERY_STYLE_UNSUPPORTED: Reaction.DIRECT_DELIVERY,
    Code.FA_HOME_NETWORK_UNREACHABLE: Reaction.OTHER_AGENT,
    Code.FA_HOME_AGENT_HOST_UNREACHABLE: Reaction.OTHER_AGENT,
    Code.FA_HOME_AGENT_PORT_UNREACHABLE: Reaction.OTHER_AGENT,
    Code.FA_HOME_AGENT_UNREACHABLE: Reaction.OTHER_AGENT,
    UNKNOWN_CHALLENGE: Reaction.NEXT_CHALLENGE,
    MISSING_CHALLENGE: Reaction.NEXT_CHALLENGE,
    STALE_CHALLENGE: Reaction.NEXT_CHALLENGE,
    Code.FA_INVALID_HOME_AGENT_ADDRESS: Reaction.REFUSED,
    Code.REASON_UNSPECIFIED: Reaction.REFUSED,
    Code.ADMINISTRATIVELY_PROHIBITED: Reaction.REFUSED,
    Code.INSUFFICIENT_RESOURCES: Reaction.REFUSED,
    Code.MOBILE_NODE_AUTHENTICATION: Reaction.REFUSED,
    Code.FOREIGN_AGENT_AUTHENTICATION: Reaction.OTHER_AGENT,
    Code.IDENTIFICATION_MISMATCH: Reaction.RESYNCHRONISE,
    Code.POORLY_FORMED_REQUEST: Reaction.REFUSED,
    Code.TOO_MANY_BINDINGS: Reaction.REFUSED,
    Code.UNKNOWN_HOME_AGENT: Reaction.NEXT_HOME_AGENT,
    Code.REVERSE_TUNNEL_UNAVAILABLE: Reaction.NO_REVERSE_TUNNEL,
    Code.REVERSE_TUNNEL_MANDATORY: Reaction.REVERSE_TUNNEL,
    Code.ENCAPSULATION_UNAVAILABLE: Reaction.IP_IN_IP,
    Code.UDP_ENCAPSULATION_UNAVAILABLE: Reaction.NO_UDP,
    Code.MULTIPATH_NOT_ALLOWED: Reaction.NO_MULTIPATH,
    Code.INVALID_FLOW_BINDING_IDENTIFIER: Reaction.REREGISTER,
}


def reaction_to(code: int) -> Reaction:
    """What follows from a code; one that is not known is a refusal."""
    return Reaction.ACCEPT if is_accepted(code) else REACTIONS.get(code, Reaction.REFUSED)


def is_foreign(code: int) -> bool:
    """Whether a foreign agent refuses: then the reply has no authenticator of the home agent (RFC 5944 section 3.4)."""
    return 64 <= code <= 127 or code == Code.FA_INVALID_HOME_AGENT_ADDRESS
