"""ICMP router advertisements with the extensions of mobility agents, and solicitations, for scapy.

Importing this module teaches scapy, for the whole process, to dissect ICMP types 9 and 10 into these layers instead of ICMP.
Counts, lengths and checksums that are not given are filled in. The agents use `advertisement`.

    from agents.wire.mobileip.agent_layers import *
    agent = MobilityAgent(flags="R+F+T", addresses=["10.1.0.1"])
    (IP(dst="224.0.0.1", ttl=1) / RouterAdvertisement(routers=[RouterAddress(address="10.1.0.1")]) / agent).show2()

Sources: RFC 1256; RFC 5944 section 2.1; RFC 3024, 3519, 3543 and 4857 (flags); RFC 4721 section 2.
"""

from typing import Any

from scapy.fields import (
    ByteEnumField,
    ByteField,
    Field,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    IPField,
    PacketListField,
    ShortField,
    SignedIntField,
    XShortField,
    XStrLenField,
)
from scapy.layers.inet import ICMP, IP
from scapy.packet import Packet, Padding, Raw, bind_top_down
from scapy.utils import checksum

__all__ = [
    "ICMP", "IP", "AgentChallenge", "AgentExtension", "MobilityAgent", "OneBytePadding", "PrefixLengths", "RouterAddress",
    "RouterAdvertisement", "RouterSolicitation", "UnknownAgentExtension",
]  # fmt: skip

AGENT_EXTENSION_TYPES = {0: "padding", 16: "mobility-agent", 19: "prefix-lengths", 24: "challenge"}


class RouterAddress(Packet):
    """One entry of a router advertisement (RFC 1256)."""

    name = "Router Address"
    fields_desc = [IPField("address", "0.0.0.0"), SignedIntField("preference", 0)]

    def default_payload_class(self, payload: bytes) -> type[Packet]:
        """Entries stand side by side."""
        return Padding


class RouterAdvertisement(Packet):
    """ICMP type 9, whole (RFC 1256, RFC 5944 section 2.1). Entries have two words; the extensions of agents are the payload."""

    name = "ICMP Router Advertisement"
    fields_desc = [
        ByteEnumField("type", 9, {9: "router-advertisement"}),
        ByteEnumField("code", 0, {0: "normal", 16: "no-common-traffic"}),
        XShortField("chksum", None),
        FieldLenField("count", None, count_of="routers", fmt="B"),
        ByteField("entry_words", 2),
        ShortField("lifetime", 1800),
        PacketListField("routers", [], RouterAddress, count_from=lambda pkt: pkt.count),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fills the checksum in."""
        return _summed(pkt + pay, self.chksum)

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """Extensions follow."""
        return AgentExtension


class RouterSolicitation(Packet):
    """ICMP type 10, whole (RFC 1256)."""

    name = "ICMP Router Solicitation"
    fields_desc = [
        ByteEnumField("type", 10, {10: "router-solicitation"}),
        ByteField("code", 0),
        XShortField("chksum", None),
        IntField("reserved", 0),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fills the checksum in."""
        return _summed(pkt + pay, self.chksum)


def _summed(message: bytes, given: int | None) -> bytes:
    return message if given is not None else message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


class AgentExtension(Packet):
    """Any extension of a router advertisement: calling this class with octets gives the right layer."""

    name = "Mobility Agent Advertisement Extension"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_kargs: Any) -> type[Packet]:
        """The layer for the extension that these octets begin with."""
        if not _pkt:
            return cls
        if len(_pkt) < 2 and _pkt[0]:
            return Raw
        return _AGENT_EXTENSIONS.get(_pkt[0], UnknownAgentExtension)

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """What follows an extension is an extension."""
        return AgentExtension


def _length_of(field: str) -> Field[Any, Any]:
    return FieldLenField("length", None, length_of=field, fmt="B")


def _agent_type(value: int) -> Field[Any, Any]:
    return ByteEnumField("type", value, AGENT_EXTENSION_TYPES)


class MobilityAgent(AgentExtension):
    """Type 16 (RFC 5944 section 2.1.1; T of RFC 3024, U of RFC 3519, X of RFC 3543, I of RFC 4857)."""

    name = "Mobility Agent"
    fields_desc = [
        _agent_type(16),
        FieldLenField("length", None, count_of="addresses", fmt="B", adjust=lambda _, count: 6 + 4 * count),
        ShortField("sequence", 0),
        ShortField("lifetime", 600),
        FlagsField("flags", 0, 16, ["bit15", "bit14", "bit13", "bit12", "bit11", *"IXUTrGMFHBR"]),
        FieldListField("addresses", [], IPField("", "0.0.0.0"), count_from=lambda pkt: max(pkt.length - 6, 0) // 4),
    ]


class PrefixLengths(AgentExtension):
    """Type 19 (RFC 5944 section 2.1.2): one length for each router."""

    name = "Prefix Lengths"
    fields_desc = [
        _agent_type(19),
        FieldLenField("length", None, count_of="prefixes", fmt="B"),
        FieldListField("prefixes", [], ByteField("", 0), count_from=lambda pkt: pkt.length),
    ]


class AgentChallenge(AgentExtension):
    """Type 24 (RFC 4721 section 2)."""

    name = "Agent Challenge"
    fields_desc = [_agent_type(24), _length_of("challenge"), XStrLenField("challenge", b"", length_from=lambda pkt: pkt.length)]


class OneBytePadding(AgentExtension):
    """Type 0, without a length (RFC 5944 section 2.1.3)."""

    name = "One-byte Padding"
    fields_desc = [_agent_type(0)]


class UnknownAgentExtension(AgentExtension):
    """An extension that has no layer of its own."""

    name = "Unknown Agent Extension"
    fields_desc = [_agent_type(255), _length_of("data"), XStrLenField("data", b"", length_from=lambda pkt: pkt.length)]


_AGENT_EXTENSIONS: dict[int, type[Packet]] = {0: OneBytePadding, 16: MobilityAgent, 19: PrefixLengths, 24: AgentChallenge}


def _icmp_layer(cls: type[Packet], _pkt: bytes | None = None, *_args: Any, **_kargs: Any) -> type[Packet]:
    """Router advertisements and solicitations have layers of their own; scapy's ICMP shows eight octets of them."""
    if _pkt and len(_pkt) >= 8:
        if _pkt[0] == 9 and _pkt[5] == 2:
            return RouterAdvertisement
        if _pkt[0] == 10:
            return RouterSolicitation
    return cls


ICMP.dispatch_hook = classmethod(_icmp_layer)  # type: ignore[attr-defined]
for _layer in (RouterAdvertisement, RouterSolicitation):
    bind_top_down(IP, _layer, frag=0, proto=1)
