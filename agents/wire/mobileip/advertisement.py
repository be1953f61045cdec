"""ICMP router advertisements and solicitations with the extensions of mobility agents (RFC 1256, RFC 5944 section 2.1).

Octets are those of the ICMP message, its checksum included. Reading is tolerant where the RFCs say so: longer address entries,
padding, reserved flags and skippable extensions are passed over. An extension of an unknown type below 128 makes the whole
message worthless (RFC 5944 section 1.8).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agents.wire.checksum import folded, ones_sum
from agents.wire.errors import WireError
from agents.wire.mobileip.addresses import ipv4_octets, ipv4_text
from agents.wire.mobileip.values import Advertisement, MobilityAgent

ADVERTISEMENT: Final = 9
SOLICITATION: Final = 10
ALL_SYSTEMS: Final = "224.0.0.1"
"""Where advertisements go, with a TTL of 1 (RFC 5944 section 2.1)."""
ALL_ROUTERS: Final = "224.0.0.2"
MOBILE_AGENTS: Final = "224.0.0.11"
"""Where solicitations go, with a TTL of 1 (RFC 5944 section 2.2)."""
PADDING, MOBILITY_AGENT, PREFIX_LENGTHS, CHALLENGE = 0, 16, 19, 24
"""Extension types."""

_HEAD = struct.Struct("!BBHBBH")
_ROUTER = struct.Struct("!4si")
_AGENT = struct.Struct("!HHH")
_SOLICITATION = struct.Struct("!BBHI")
_AGENT_FLAGS = {
    "registration_required": 0x8000, "busy": 0x4000, "home_agent": 0x2000, "foreign_agent": 0x1000,
    "minimal_encapsulation": 0x0800, "gre": 0x0400, "reverse_tunnel": 0x0100, "udp_tunnel": 0x0080,
}  # fmt: skip
_CODES = (0, 16)


def encode(advertisement: Advertisement) -> bytes:
    """The ICMP message, padded to an even length. Raises WireError for a value that cannot be written."""
    routers = advertisement.routers
    if advertisement.prefix_lengths and len(advertisement.prefix_lengths) != len(routers):
        raise WireError(f"{len(advertisement.prefix_lengths)} prefix lengths for {len(routers)} routers")
    try:
        data = _HEAD.pack(ADVERTISEMENT, advertisement.code, 0, len(routers), 2, advertisement.lifetime_s)
        data += b"".join(_ROUTER.pack(ipv4_octets(address), preference) for address, preference in routers)
        if advertisement.agent is not None:
            data += _extension(MOBILITY_AGENT, _agent_body(advertisement.agent))
        if advertisement.prefix_lengths:
            data += _extension(PREFIX_LENGTHS, struct.pack(f"!{len(routers)}B", *advertisement.prefix_lengths))
        if advertisement.challenge is not None:
            data += _extension(CHALLENGE, advertisement.challenge)
    except struct.error as error:
        raise WireError(f"{advertisement}: {error}") from None
    return _with_checksum(data + bytes((PADDING,)) * (len(data) & 1))


def _agent_body(agent: MobilityAgent) -> bytes:
    flags = sum(bit for name, bit in _AGENT_FLAGS.items() if getattr(agent, name))
    return _AGENT.pack(agent.sequence, agent.lifetime_s, flags) + b"".join(map(ipv4_octets, agent.care_of_addresses))


def _extension(kind: int, body: bytes) -> bytes:
    if len(body) > 255:
        raise WireError(f"advertisement extension {kind}: {len(body)} octets, at most 255 fit")
    return bytes((kind, len(body))) + body


def _with_checksum(data: bytes) -> bytes:
    return data[:2] + folded(ones_sum(data)).to_bytes(2, "big") + data[4:]


def encode_solicitation() -> bytes:
    """The ICMP message that asks agents for an advertisement."""
    return _with_checksum(_SOLICITATION.pack(SOLICITATION, 0, 0, 0))


def is_solicitation(data: bytes) -> bool:
    """Whether this ICMP message is a valid router solicitation (RFC 1256 section 5.2). Never raises."""
    return len(data) >= _SOLICITATION.size and data[:2] == bytes((SOLICITATION, 0)) and ones_sum(data) == 0


def decode(data: bytes) -> Advertisement:
    """The advertisement in an ICMP message. Raises WireError, and nothing else."""
    data = bytes(data)
    if len(data) < _HEAD.size:
        raise WireError(f"router advertisement of {len(data)} octets, {_HEAD.size} are needed")
    kind, code, _, count, entry_words, lifetime_s = _HEAD.unpack_from(data)
    if kind != ADVERTISEMENT or code not in _CODES:
        raise WireError(f"ICMP type {kind}, code {code} is no router advertisement")
    if ones_sum(data):
        raise WireError("router advertisement: the checksum is wrong")
    if entry_words < 2:
        raise WireError(f"router advertisement: address entries of {entry_words} words (RFC 1256 section 5.2)")
    extensions_at = _HEAD.size + 4 * entry_words * count
    if extensions_at > len(data):
        raise WireError(f"router advertisement of {len(data)} octets has no room for {count} address entries")
    entries = (_ROUTER.unpack_from(data, at) for at in range(_HEAD.size, extensions_at, 4 * entry_words))
    routers = tuple((ipv4_text(address), preference) for address, preference in entries)
    found = _Extensions(count)
    found.read(data, extensions_at)
    return Advertisement(lifetime_s, routers, code, found.agent, found.prefix_lengths, found.challenge)


@dataclass(slots=True)
class _Extensions:
    """What the extensions of one advertisement say."""

    routers: int
    agent: MobilityAgent | None = None
    prefix_lengths: tuple[int, ...] = ()
    challenge: bytes | None = None

    def read(self, data: bytes, at: int) -> None:
        while at < len(data):
            kind = data[at]
            if kind == PADDING:
                at += 1
                continue
            begin = at + 2
            at = begin + data[at + 1] if begin <= len(data) else begin
            if at > len(data):
                raise WireError(f"advertisement extension {kind} ends at {at}, the message has {len(data)} octets")
            if kind in _READERS:
                _READERS[kind](self, data[begin:at])
            elif kind < 128:
                raise WireError(f"advertisement extension {kind} is not known and not skippable")

    def read_agent(self, body: bytes) -> None:
        if len(body) < _AGENT.size or (len(body) - _AGENT.size) % 4:
            raise WireError(f"mobility agent extension: length {len(body)} is not 6 and 4 for each care-of address")
        if self.agent is not None:
            raise WireError("a second mobility agent extension")
        sequence, lifetime_s, flags = _AGENT.unpack_from(body)
        addresses = tuple(ipv4_text(body[at : at + 4]) for at in range(_AGENT.size, len(body), 4))
        named = {name: flags & bit > 0 for name, bit in _AGENT_FLAGS.items()}
        self.agent = MobilityAgent(sequence, lifetime_s, addresses, **named)

    def read_prefix_lengths(self, body: bytes) -> None:
        if len(body) != self.routers:
            raise WireError(f"prefix lengths extension: {len(body)} lengths for {self.routers} routers")
        if any(length > 32 for length in body):
            raise WireError(f"prefix lengths extension: {max(body)} bits")
        self.prefix_lengths = tuple(body)

    def read_challenge(self, body: bytes) -> None:
        self.challenge = body


_READERS: dict[int, Callable[[_Extensions, bytes], None]] = {
    MOBILITY_AGENT: _Extensions.read_agent,
    PREFIX_LENGTHS: _Extensions.read_prefix_lengths,
    CHALLENGE: _Extensions.read_challenge,
}
