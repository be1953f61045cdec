"""Addresses as texts and as octets. A text must be the one that the octets give: no leading zeros, no upper case."""

import ipaddress
from functools import lru_cache

from agents.wire.errors import WireError


@lru_cache(maxsize=1 << 12)
def ipv4_text(octets: bytes) -> str:
    """Four octets as text."""
    return "%d.%d.%d.%d" % (*octets,)  # noqa: UP031 - half the time of the alternatives


@lru_cache(maxsize=1 << 12)
def ipv4_octets(text: str) -> bytes:
    """The four octets of an IPv4 address. Raises WireError for any other text."""
    try:
        octets = bytes(map(int, text.split(".")))
    except ValueError:
        octets = b""
    if len(octets) != 4 or ipv4_text(octets) != text:
        raise WireError(f"{text!r} is no IPv4 address")
    return octets


@lru_cache(maxsize=1 << 12)
def ipv6_text(octets: bytes) -> str:
    """Sixteen octets as text (RFC 5952)."""
    return str(ipaddress.IPv6Address(octets))


@lru_cache(maxsize=1 << 12)
def ipv6_octets(text: str) -> bytes:
    """The sixteen octets of an IPv6 address. Raises WireError for any other text."""
    try:
        octets = ipaddress.IPv6Address(text).packed
    except ValueError:
        raise WireError(f"{text!r} is no IPv6 address") from None
    if ipv6_text(octets) != text:
        raise WireError(f"{text!r} is written {ipv6_text(octets)!r} (RFC 5952)")
    return octets
