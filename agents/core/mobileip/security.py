"""Mobility security associations and replay protection (RFC 5944 sections 3.2, 5.1, 5.7). Used by home and foreign agents.

An association is found by its SPI, which selects key, algorithm and style of replay protection. What a guard remembers
is a value, so that it can be stored and come back after a restart. A message that fails a check changes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agents.wire.mobileip.authentication import Algorithm

LOWEST_SPI: Final = 256
"""SPIs 0 to 255 are reserved (RFC 5944 section 1.7)."""
_MASK64: Final = (1 << 64) - 1
_SIGN64: Final = 1 << 63
_MASK32: Final = (1 << 32) - 1


class ReplayStyle(Enum):
    """How old requests are told from new ones (RFC 5944 section 5.7)."""

    TIMESTAMPS = "timestamps"
    NONCES = "nonces"


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """What two nodes share. Raises ValueError for an SPI that is reserved or an empty key."""

    spi: int
    key: bytes = field(repr=False)
    algorithm: Algorithm = Algorithm.HMAC_MD5
    replay: ReplayStyle = ReplayStyle.TIMESTAMPS

    def __post_init__(self) -> None:
        if not LOWEST_SPI <= self.spi <= _MASK32:
            raise ValueError(f"SPI {self.spi} is outside of {LOWEST_SPI} to {_MASK32}")
        if not self.key:
            raise ValueError(f"SPI {self.spi} has an empty key")


def by_spi(associations: Iterable[SecurityAssociation]) -> dict[int, SecurityAssociation]:
    """The associations by SPI. Raises ValueError when two have the same."""
    found: dict[int, SecurityAssociation] = {}
    for association in associations:
        if association.spi in found:
            raise ValueError(f"SPI {association.spi} is configured twice")
        found[association.spi] = association
    return found


def ntp_difference(one: int, other: int) -> int:
    """`one` - `other` for 64-bit NTP timestamps, in units of 2^-32 s: the eras of 2036 and later included."""
    difference = (one - other) & _MASK64
    return difference - (1 << 64) if difference & _SIGN64 else difference


@dataclass(slots=True)
class ReplayGuard:
    """What one side remembers of the other's identifications under one association."""

    style: ReplayStyle
    window_s: float = 7.0
    """Timestamps: how far a request's may be from the time here."""
    highest: int | None = None
    """Timestamps: the latest accepted."""
    nonce: int | None = None
    """Nonces: the high 32 bits that the next request must have; 32 bits."""

    def check(self, identification: int, ntp: int) -> bool:
        """Whether a request with this identification is new. Changes nothing. `ntp`: the wall time here."""
        if self.style is ReplayStyle.NONCES:
            return self.nonce is not None and identification >> 32 == self.nonce
        if self.highest is not None and ntp_difference(identification, self.highest) <= 0:
            return False
        return abs(ntp_difference(identification, ntp)) <= int(self.window_s * (1 << 32))

    def accept(self, identification: int, random_bytes: Callable[[int], bytes]) -> int:
        """Take note of a request that passed `check`; the identification of the reply to it (RFC 5944 section 5.7)."""
        if self.style is ReplayStyle.TIMESTAMPS:
            self.highest = identification
            return identification
        self.nonce = self._other_nonce(random_bytes)
        return self.nonce << 32 | identification & _MASK32

    def mismatch(self, identification: int, ntp: int, random_bytes: Callable[[int], bytes]) -> int:
        """The identification of a reply with code 133: the right high half, the request's low half.

        The nonce stays what it is: a replayed request must not make the mobile node's next one wrong. Only the first is drawn.
        """
        if self.style is ReplayStyle.TIMESTAMPS:
            return ntp & (_MASK32 << 32) | identification & _MASK32
        if self.nonce is None:
            self.nonce = self._other_nonce(random_bytes)
        return self.nonce << 32 | identification & _MASK32

    def _other_nonce(self, random_bytes: Callable[[int], bytes]) -> int:
        drawn = int.from_bytes(random_bytes(4), "big")
        return drawn if drawn != self.nonce else drawn ^ 1

    def as_value(self) -> dict[str, int]:
        """For the durable store."""
        if self.style is ReplayStyle.TIMESTAMPS:
            return {} if self.highest is None else {"highest": self.highest}
        return {} if self.nonce is None else {"nonce": self.nonce}

    def restore(self, value: dict[str, object]) -> None:
        """The state of `as_value`. What is no number is left out."""
        highest, nonce = value.get("highest"), value.get("nonce")
        if self.style is ReplayStyle.TIMESTAMPS and isinstance(highest, int):
            self.highest = highest & _MASK64
        if self.style is ReplayStyle.NONCES and isinstance(nonce, int):
            self.nonce = nonce & _MASK32
