"""A first look at a message, before any decoding: enough to shed a flood by home address, home agent and SPI.

Costs one or two microseconds, never raises, and verifies nothing: what it returns is what the sender claims.
"""

import struct
from typing import NamedTuple

from agents.wire.mobileip.addresses import ipv4_text

MESSAGE_OCTETS_MAX = 1500
"""A longer registration message is refused: none of the extensions in use comes near it."""
EXTENSIONS_MAX = 64
REQUEST, REPLY, TUNNEL_DATA = 1, 3, 4
_REQUEST = struct.Struct("!BBH4s4s4sQ")
_REPLY = struct.Struct("!BBH4s4sQ")
_SPI = struct.Struct("!I")
_LONG_FORMAT = frozenset((36, 154))
_MOBILE_HOME = 32


class Glimpse(NamedTuple):
    """What a message claims. Addresses are "" in tunnel data."""

    type: int
    home_address: str = ""
    home_agent: str = ""
    care_of_address: str = ""
    """Of a request; "" in a reply."""
    identification: int = 0
    spi: int | None = None
    """SPI of the first Mobile-Home authentication extension; None without one."""


def peek(data: bytes) -> Glimpse | None:
    """The message at a glance. None: no registration message or tunnel data, or of a length that none can have."""
    size = len(data)
    if not size:
        return None
    kind = data[0]
    if kind == REQUEST and _REQUEST.size <= size <= MESSAGE_OCTETS_MAX:
        _, _, _, home, agent, care_of, identification = _REQUEST.unpack_from(data)
        spi = _mobile_home_spi(data, _REQUEST.size)
        return Glimpse(kind, ipv4_text(home), ipv4_text(agent), ipv4_text(care_of), identification, spi)
    if kind == REPLY and _REPLY.size <= size <= MESSAGE_OCTETS_MAX:
        _, _, _, home, agent, identification = _REPLY.unpack_from(data)
        spi = _mobile_home_spi(data, _REPLY.size)
        return Glimpse(kind, ipv4_text(home), ipv4_text(agent), "", identification, spi)
    if kind == TUNNEL_DATA and size >= 4:
        return Glimpse(kind)
    return None


def _mobile_home_spi(data: bytes, at: int) -> int | None:
    size = len(data)
    for _ in range(EXTENSIONS_MAX):
        if at + 6 > size:  # no room for type, length and SPI
            return None
        kind = data[at]
        if kind == _MOBILE_HOME:
            return int(_SPI.unpack_from(data, at + 2)[0])
        at += 4 + (data[at + 2] << 8 | data[at + 3]) if kind in _LONG_FORMAT else 2 + data[at + 1]
    return None
