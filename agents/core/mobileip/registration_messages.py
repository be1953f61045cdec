"""Registration Requests as a mobile node writes them, and what it demands of replies (RFC 5944 sections 3.6, 5.7)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from agents.core.mobileip.security import ReplayStyle, SecurityAssociation
from agents.wire.errors import WireError
from agents.wire.mobileip import authentication, codec
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Challenge,
    EncapsulatingDelivery,
    Extension,
    Reply,
    Request,
)

MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF
_RESYNC_S = 1
"""A reply with 133 whose time differs by less is about requests that have overtaken each other, not about clocks."""


@dataclass(slots=True)
class Identifications:
    """The identifications of a mobile node's requests: each new, also for a retransmission (section 5.7)."""

    style: ReplayStyle
    random_bytes: Callable[[int], bytes]
    offset: int = 0
    """Timestamps: what is added to the time here to get the home agent's, in units of 2^-32 s."""
    accepted: int = 0
    """The largest timestamp that the home agent has accepted."""
    nonce: int = 0
    """Nonces: the high half of the next request."""
    _last: int = 0

    def next(self, ntp: int) -> int:
        """The identification of the next request. `ntp`: the wall time here."""
        if self.style is ReplayStyle.NONCES:
            low = int.from_bytes(self.random_bytes(4), "big")
            low = low if low != self._last & MASK32 else low ^ 1
            self._last = self.nonce << 32 | low
            return self._last
        wanted = max(ntp + self.offset & MASK64, self._last + 1)
        # Replies repeat the low half only: with a coarse clock two requests would have the same.
        self._last = wanted + 1 if wanted & MASK32 == self._last & MASK32 else wanted
        return self._last

    def accept(self, identification: int, reply: int) -> None:
        """The home agent has taken the request `identification` and answered with `reply`."""
        if self.style is ReplayStyle.NONCES:
            self.nonce = reply >> 32
        else:
            self.accepted = max(self.accepted, identification)

    def mismatch(self, identification: int, reply: int, ntp: int) -> None:
        """The home agent refuses the request with 133: take its time or its nonce."""
        if self.style is ReplayStyle.NONCES:
            self.nonce = reply >> 32
            return
        difference_s = (reply >> 32) - (identification >> 32)
        if abs(difference_s) < _RESYNC_S:
            return
        self.offset = (reply >> 32) - (ntp >> 32) << 32
        # Timestamps may go back to what the home agent has accepted: the later ones were refused.
        self._last = self.accepted


@dataclass(frozen=True, slots=True)
class ForeignPart:
    """What a request says to the foreign agent, behind the Mobile-Home authenticator."""

    challenge: bytes | None = None
    encapsulating: bool = False
    association: SecurityAssociation | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent, as far as its reply is compared with it."""

    request: Request
    sent_s: float
    foreign: ForeignPart = field(default_factory=ForeignPart)

    @property
    def low(self) -> int:
        """What the reply must repeat."""
        return self.request.identification & MASK32


def encode_request(request: Request, home: SecurityAssociation, foreign: ForeignPart) -> bytes:
    """The octets: fixed part, extensions for the home agent, 32, extensions for the foreign agent, 33 (section 3.6.1.3).

    Raises WireError when the message would be too long.
    """
    data = codec.encode(request)
    data = authentication.append_authentication(data, AuthenticationKind.MOBILE_HOME, home.spi, home.key, home.algorithm)
    behind: list[Extension] = []
    if foreign.encapsulating:
        behind.append(EncapsulatingDelivery())
    if foreign.challenge is not None:
        behind.append(Challenge(foreign.challenge))
    data += b"".join(codec.encode_extension(extension) for extension in behind)
    if foreign.association is not None:
        shared = foreign.association
        kind = AuthenticationKind.MOBILE_FOREIGN
        data = authentication.append_authentication(data, kind, shared.spi, shared.key, shared.algorithm)
    return data


def read_reply(data: bytes) -> Reply | None:
    """The reply in a datagram; None: it is something else, or damaged."""
    try:
        message = codec.decode(data)
    except WireError:
        return None
    return message if isinstance(message, Reply) else None


def authenticated_length(data: bytes, reply: Reply, home: SecurityAssociation) -> int | None:
    """How many extensions stand before the Mobile-Home authenticator; None: there is none, or it is wrong.

    What stands behind it is the foreign agent's and proves nothing about the home agent (section 3.6.2.1).
    """
    for number, (extension, offset) in enumerate(zip(reply.extensions, reply.offsets, strict=True)):
        if isinstance(extension, Authentication) and extension.kind is AuthenticationKind.MOBILE_HOME:
            good = extension.spi == home.spi and authentication.verify(data, offset, extension, home.key, home.algorithm)
            return number if good else None
    return None


def foreign_authentic(data: bytes, reply: Reply, shared: SecurityAssociation) -> bool:
    """Whether the foreign agent's authenticator (33) is there and good."""
    for extension, offset in zip(reply.extensions, reply.offsets, strict=True):
        if isinstance(extension, Authentication) and extension.kind is AuthenticationKind.MOBILE_FOREIGN:
            return extension.spi == shared.spi and authentication.verify(data, offset, extension, shared.key, shared.algorithm)
    return False
