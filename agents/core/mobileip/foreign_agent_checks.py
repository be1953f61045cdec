"""Why a foreign agent refuses a request: the codes 64 to 88 with their conditions, as a list (RFC 5944 section 3.7.2)."""

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from agents.core.mobileip.actions import Datagram
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig
from agents.core.mobileip.foreign_agent_visitors import Visitors
from agents.core.mobileip.registration_codes import Code
from agents.core.mobileip.registration_replies import MISSING_CHALLENGE, STALE_CHALLENGE, UNKNOWN_CHALLENGE
from agents.wire.mobileip import authentication
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Challenge,
    EncapsulatingDelivery,
    Reply,
    Request,
    RequestFlag,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what is known of its sender."""

    config: ForeignAgentConfig
    visitors: Visitors
    request: Request
    datagram: Datagram
    authorising: int
    """Number of the Mobile-Home authenticator among the extensions."""
    challenges: Collection[bytes]
    """Advertised on this link and not used yet."""
    used_challenges: Collection[bytes]

    @property
    def behind(self) -> tuple[object, ...]:
        """What the request says to the foreign agent."""
        return self.request.extensions[self.authorising + 1 :]

    @property
    def is_new(self) -> bool:
        """Whether the mobile node is no visitor yet."""
        return self.request.home_address not in self.visitors.present


def authorising(message: Request | Reply) -> int | None:
    """The number of the Mobile-Home authenticator among the extensions; None: there is none."""
    for number, extension in enumerate(message.extensions):
        if isinstance(extension, Authentication) and extension.kind is AuthenticationKind.MOBILE_HOME:
            return number
    return None


def mobile_authenticator(asked: Asked) -> Authentication | None:
    """Extension 33 of the request."""
    return next(
        (item for item in asked.behind if isinstance(item, Authentication) and item.kind is AuthenticationKind.MOBILE_FOREIGN),
        None,
    )


def refusal(asked: Asked) -> int | None:
    """The code of the first condition that holds; None: the request is passed on."""
    return next((code for code, holds in _CONDITIONS if holds(asked)), None)


def _poorly_formed(asked: Asked) -> bool:
    kinds = [item.kind for item in asked.request.extensions if isinstance(item, Authentication)]
    twice = kinds.count(AuthenticationKind.MOBILE_HOME) > 1 or kinds.count(AuthenticationKind.MOBILE_FOREIGN) > 1
    return twice or any(isinstance(item, EncapsulatingDelivery) for item in asked.request.extensions[: asked.authorising])


def _unauthentic(asked: Asked) -> bool:
    shared = asked.config.mobile_associations.get(asked.request.home_address)
    if shared is None:
        return False
    found = mobile_authenticator(asked)
    if found is None or found.spi != shared.spi:
        return True
    offset = asked.request.offsets[asked.request.extensions.index(found)]
    return not authentication.verify(asked.datagram.data, offset, found, shared.key, shared.algorithm)


def _challenge(asked: Asked) -> bytes | None:
    return next((item.value for item in asked.behind if isinstance(item, Challenge)), None)


def _challenge_missing(asked: Asked) -> bool:
    return asked.config.challenge and _challenge(asked) is None


def _challenge_stale(asked: Asked) -> bool:
    return asked.config.challenge and _challenge(asked) in asked.used_challenges


def _challenge_unknown(asked: Asked) -> bool:
    return asked.config.challenge and _challenge(asked) not in asked.challenges


def _too_distant(asked: Asked) -> bool:
    """With T the request must come from this link: its TTL is 255 (RFC 3024 section 4.3)."""
    return bool(asked.request.flags & RequestFlag.REVERSE_TUNNEL) and asked.datagram.ttl != 255


def _prohibited(asked: Asked) -> bool:
    allowed = asked.config.home_agents
    return asked.request.home_address in asked.config.prohibited or bool(allowed and asked.request.home_agent not in allowed)


def _wrong_care_of(asked: Asked) -> bool:
    """Not ours, and not the mobile node's own either."""
    co_located = bool(asked.request.flags & RequestFlag.DECAPSULATION_BY_MN)
    returning = asked.request.lifetime_s == 0
    return not co_located and not returning and asked.request.care_of_address != asked.config.care_of_address


def _wrong_home_agent(asked: Asked) -> bool:
    address = ipaddress.IPv4Address(asked.request.home_agent)
    odd = address.is_multicast or address.is_unspecified or address.is_loopback
    return odd or asked.request.home_agent == asked.config.care_of_address


def _no_encapsulation(asked: Asked) -> bool:
    flags = asked.request.flags
    return bool(flags & RequestFlag.MINIMAL_ENCAPSULATION) or bool(flags & RequestFlag.GRE and not asked.config.gre)


def _delivery_style(asked: Asked) -> bool:
    wanted = any(isinstance(item, EncapsulatingDelivery) for item in asked.behind)
    return wanted and not asked.config.encapsulating_delivery


def _no_room(asked: Asked) -> bool:
    full = asked.is_new and len(asked.visitors.present) >= asked.config.visitors_max and asked.request.lifetime_s > 0
    return full or len(asked.visitors.pending) >= asked.config.pending_max


_CONDITIONS: Final[tuple[tuple[int, Callable[[Asked], bool]], ...]] = (
    (Code.FA_POORLY_FORMED_REQUEST, _poorly_formed),
    (Code.FA_INVALID_HOME_AGENT_ADDRESS, _wrong_home_agent),
    (Code.FA_MOBILE_NODE_AUTHENTICATION, _unauthentic),
    (MISSING_CHALLENGE, _challenge_missing),
    (STALE_CHALLENGE, _challenge_stale),
    (UNKNOWN_CHALLENGE, _challenge_unknown),
    (Code.FA_MOBILE_NODE_TOO_DISTANT, _too_distant),
    (Code.FA_ADMINISTRATIVELY_PROHIBITED, _prohibited),
    (Code.FA_INVALID_CARE_OF_ADDRESS, _wrong_care_of),
    (Code.FA_LIFETIME_TOO_LONG, lambda asked: asked.request.lifetime_s > asked.config.lifetime_max_s),
    (Code.FA_ENCAPSULATION_UNAVAILABLE, _no_encapsulation),
    (Code.FA_REVERSE_TUNNEL_UNAVAILABLE,
     lambda asked: bool(asked.request.flags & RequestFlag.REVERSE_TUNNEL) and not asked.config.reverse_tunnel),
    (Code.FA_REVERSE_TUNNEL_MANDATORY,
     lambda asked: not asked.request.flags & RequestFlag.REVERSE_TUNNEL and asked.config.reverse_tunnel_mandatory),
    (Code.FA_DELIVERY_STYLE_UNSUPPORTED, _delivery_style),
    (Code.FA_INSUFFICIENT_RESOURCES, _no_room),
)  # fmt: skip
"""In the order of examination: what the agent cannot read, then who it is, then what is asked for, then room."""
