"""Mobile IPv4 for scapy: what `scapy.layers.mobileip` lacks, for interactive work, tests and captures.

Importing this module teaches scapy, for the whole process: flags and codes of registration messages by name, all extensions as
a chain behind the fixed part, and the binary traffic selectors of RFC 6088. Lengths, counts and selector flags that are not
given are filled in. Advertisements are in `agent_layers`.

    from agents.wire.mobileip.layers import *
    request = MobileIP() / RegistrationRequest(flags="D+T", homeaddr="10.9.0.5")
    request = request / MobileIPMultipath(bid=1) / MobileIPAuthentication(spi=256)
    (IP(src="10.1.0.77", dst="10.9.0.1") / UDP(sport=434, dport=434) / request).show2()

The agents use `codec`, which is stricter and faster; tests hold both against each other.
Sources: RFC 5944 sections 3.3-3.5; RFC 3024; RFC 3519; RFC 4721; RFC 2794; RFC 7629 section 4; RFC 6088 section 3.
"""

from collections.abc import Callable
from typing import Any

from scapy.fields import (
    BitField,
    ByteEnumField,
    ByteField,
    ConditionalField,
    Field,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    IPField,
    PacketLenField,
    ShortField,
    StrLenField,
    XByteField,
    XShortField,
    XStrLenField,
)
from scapy.layers.inet import GRE, IP, UDP
from scapy.layers.inet6 import IP6Field
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ, MobileIPTunnelData
from scapy.packet import Packet, Raw, bind_layers, split_layers

from agents.wire.mobileip.values import AccessTechnology, AuthenticationKind, FlowAction, SelectorFormat, Tunnelled

__all__ = [
    "GRE", "IP", "UDP", "IPv4Selector", "IPv6Selector", "MobileIP", "MobileIPAuthentication", "MobileIPChallenge",
    "MobileIPEncapsulatingDelivery", "MobileIPExtension", "MobileIPFlowBinding", "MobileIPGeneralizedAuthentication",
    "MobileIPMultipath", "MobileIPNai", "MobileIPTunnelData", "MobileIPUdpTunnelReply", "MobileIPUdpTunnelRequest",
    "MobileIPUnknownExtension", "MobileIPUnknownFlowExtension", "RegistrationReply", "RegistrationRequest",
]  # fmt: skip

CODES = {
    0: "accepted", 1: "accepted-no-simultaneous-bindings",
    64: "fa-reason-unspecified", 65: "fa-prohibited", 66: "fa-insufficient-resources", 67: "fa-mn-failed-authentication",
    68: "fa-ha-failed-authentication", 69: "fa-lifetime-too-long", 70: "fa-poorly-formed-request", 71: "fa-poorly-formed-reply",
    72: "fa-encapsulation-unavailable", 74: "fa-reverse-tunnel-unavailable", 75: "fa-reverse-tunnel-mandatory",
    76: "fa-mn-too-distant", 77: "fa-invalid-care-of-address", 78: "fa-timeout", 79: "fa-delivery-style-not-supported",
    80: "fa-home-network-unreachable", 81: "fa-ha-host-unreachable", 82: "fa-ha-port-unreachable", 88: "fa-ha-unreachable",
    104: "fa-unknown-challenge", 105: "fa-missing-challenge", 106: "fa-stale-challenge",
    128: "ha-reason-unspecified", 129: "ha-prohibited", 130: "ha-insufficient-resources", 131: "ha-mn-failed-authentication",
    132: "ha-fa-failed-authentication", 133: "ha-identification-mismatch", 134: "ha-poorly-formed-request",
    135: "ha-too-many-bindings", 136: "ha-unknown-home-agent-address", 137: "ha-reverse-tunnel-unavailable",
    138: "ha-reverse-tunnel-mandatory", 139: "ha-encapsulation-unavailable", 142: "ha-udp-tunnel-unavailable",
    152: "ha-multipath-not-allowed", 153: "ha-invalid-fb-identifier", 194: "fa-invalid-home-agent-address",
}  # fmt: skip
"""Codes of a registration reply, each with who refuses."""
EXTENSION_TYPES = {
    32: "mobile-home", 33: "mobile-foreign", 34: "foreign-home", 36: "generalized-authentication", 44: "udp-tunnel-reply",
    130: "encapsulating-delivery", 131: "nai", 132: "challenge", 144: "udp-tunnel-request", 154: "multipath",
}  # fmt: skip
_FLOW_SUBTYPES = {1: "multipath", 2: "flow-binding"}
_TUNNELLED = {0: "default", **{kind.value: kind.name for kind in Tunnelled}}


def _names(enum: Any) -> dict[int, str]:
    return {member.value: member.name for member in enum}


class RegistrationRequest(MobileIPRRQ):
    """Scapy's registration request with names for its flags (RFC 5944 section 3.3, T of RFC 3024)."""

    fields_desc = [FlagsField("flags", 0, 8, list("xTrGMDBS")), *MobileIPRRQ.fields_desc[1:]]


class RegistrationReply(MobileIPRRP):
    """Scapy's registration reply with names for its codes (RFC 5944 section 3.4)."""

    fields_desc = [ByteEnumField("code", 0, CODES), *MobileIPRRP.fields_desc[1:]]


class MobileIPExtension(Packet):
    """Any extension of a registration message: calling this class with octets gives the right layer."""

    name = "Mobile IP Extension"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_kargs: Any) -> type[Packet]:
        """The layer for the extension that these octets begin with."""
        if not _pkt:
            return cls
        if len(_pkt) < (4 if _pkt[0] in (36, 154) else 2):
            return Raw
        if _pkt[0] == 154:
            return _FLOW_EXTENSIONS.get(_pkt[1], MobileIPUnknownFlowExtension)
        if _pkt[0] == 144 and _pkt[1:3] != b"\x06\x00":
            return MobileIPUnknownExtension
        return _EXTENSIONS.get(_pkt[0], MobileIPUnknownExtension)

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """What follows an extension is an extension."""
        return MobileIPExtension


def _type(value: int) -> Field[Any, Any]:
    return ByteEnumField("type", value, EXTENSION_TYPES)


def _length_of(field: str, adjust: int = 0, fmt: str = "B") -> Field[Any, Any]:
    return FieldLenField("length", None, length_of=field, fmt=fmt, adjust=lambda _, octets: octets + adjust)


def _rest(packet: Packet, before: int = 0) -> int:
    """Octets of the length field that are left behind the first ones."""
    return max(int(packet.length) - before, 0)


class MobileIPAuthentication(MobileIPExtension):
    """Types 32, 33 and 34 (RFC 5944 sections 3.5.2-3.5.4)."""

    name = "Mobile IP Authentication"
    fields_desc = [
        _type(AuthenticationKind.MOBILE_HOME),
        _length_of("authenticator", 4),
        IntField("spi", 256),
        XStrLenField("authenticator", bytes(16), length_from=lambda pkt: _rest(pkt, 4)),
    ]


class MobileIPGeneralizedAuthentication(MobileIPExtension):
    """Type 36 (RFC 4721 section 5), long format."""

    name = "Mobile IP Generalized Authentication"
    fields_desc = [
        _type(36),
        ByteEnumField("subtype", 1, {1: "mn-aaa"}),
        _length_of("authenticator", 4, "H"),
        IntField("spi", 256),
        XStrLenField("authenticator", bytes(16), length_from=lambda pkt: _rest(pkt, 4)),
    ]


class MobileIPNai(MobileIPExtension):
    """Type 131 (RFC 2794)."""

    name = "Mobile IP NAI"
    fields_desc = [_type(131), _length_of("nai"), StrLenField("nai", b"", length_from=_rest)]


class MobileIPChallenge(MobileIPExtension):
    """Type 132 (RFC 4721 section 4)."""

    name = "Mobile IP Challenge"
    fields_desc = [_type(132), _length_of("challenge"), XStrLenField("challenge", b"", length_from=_rest)]


class MobileIPEncapsulatingDelivery(MobileIPExtension):
    """Type 130 (RFC 3024 section 3.3)."""

    name = "Mobile IP Encapsulating Delivery Style"
    fields_desc = [_type(130), ByteField("length", 0)]


class MobileIPUdpTunnelRequest(MobileIPExtension):
    """Type 144 (RFC 3519 section 3.1)."""

    name = "Mobile IP UDP Tunnel Request"
    fields_desc = [
        _type(144),
        ByteField("length", 6),
        ByteField("subtype", 0),
        XByteField("reserved1", 0),
        FlagsField("flags", 0, 2, "RF"),
        BitField("reserved2", 0, 6),
        ByteEnumField("encapsulation", 0, _TUNNELLED),
        XShortField("reserved3", 0),
    ]


class MobileIPUdpTunnelReply(MobileIPExtension):
    """Type 44 (RFC 3519 section 3.2)."""

    name = "Mobile IP UDP Tunnel Reply"
    fields_desc = [
        _type(44),
        ByteField("length", 6),
        ByteField("subtype", 0),
        ByteEnumField("code", 0, {0: "will-tunnel", 64: "declined"}),
        FlagsField("flags", 0, 1, "F"),
        BitField("reserved", 0, 15),
        ShortField("keepalive", 0),
    ]


class MobileIPMultipath(MobileIPExtension):
    """Type 154, subtype 1 (RFC 7629 section 4.1), long format."""

    name = "Mobile IP Multipath"
    fields_desc = [
        _type(154),
        ByteEnumField("subtype", 1, _FLOW_SUBTYPES),
        ShortField("length", 4),
        ByteEnumField("technology", AccessTechnology.VIRTUAL, _names(AccessTechnology)),
        ByteField("label", 1),
        ByteField("bid", 1),
        FlagsField("flags", 0, 2, "OB"),
        BitField("reserved", 0, 6),
    ]


class _SelectorFlags(FlagsField):
    """The 32 flags of a selector; flags that are not given announce the fields that are."""

    def i2m(self, pkt: Any, x: Any) -> Any:
        return super().i2m(pkt, pkt.announced() if x is None and pkt is not None else x)


class _Selector(Packet):
    """A binary traffic selector (RFC 6088 section 3): a word of flags, then the fields that it announces."""

    def announced(self) -> int:
        """The flags: as they are, or those of the fields that were given a value."""
        given = self.fields.get("flags")
        if given is not None:
            return int(given)
        names = [field.name for field in self.fields_desc[1:]]
        return sum(1 << 31 - place for place, name in enumerate(names) if self.fields.get(name) is not None)

    def default_payload_class(self, payload: bytes) -> type[Packet]:
        """Octets that no flag announces."""
        return Raw


def _selector_fields(address: type[Field[Any, Any]], flow_label: bool) -> list[Any]:
    kinds: list[tuple[str, type[Field[Any, Any]]]] = [("source", address), ("destination", address), ("spi", IntField)]
    kinds += [("flow_label", IntField)] if flow_label else []
    kinds += [
        ("source_port", ShortField),
        ("destination_port", ShortField),
        ("traffic_class", ByteField),
        ("protocol", ByteField),
    ]
    ends = [(f"{end}_{name}", kind) for name, kind in kinds for end in ("start", "end")]
    letters = [chr(ord("A") + place) if place < len(ends) else f"bit{place}" for place in range(32)]
    flags = _SelectorFlags("flags", None, 32, letters[::-1])
    return [flags, *(ConditionalField(kind(name, None), _announced(31 - place)) for place, (name, kind) in enumerate(ends))]


def _announced(bit: int) -> Callable[[Any], bool]:
    return lambda selector: selector.announced() >> bit & 1 > 0


class IPv4Selector(_Selector):
    """RFC 6088 section 3.1: `start_source`, `end_source` and so on, flags A to N."""

    name = "IPv4 Traffic Selector"
    fields_desc = _selector_fields(IPField, flow_label=False)


class IPv6Selector(_Selector):
    """RFC 6088 section 3.2, flags A to P."""

    name = "IPv6 Traffic Selector"
    fields_desc = _selector_fields(IP6Field, flow_label=True)


_SELECTORS: dict[int, type[Packet]] = {SelectorFormat.IPV4: IPv4Selector, SelectorFormat.IPV6: IPv6Selector}


class _SelectorField(PacketLenField):
    """A selector in the format that the field before names."""

    def m2i(self, pkt: Any, m: bytes) -> Packet:
        return _SELECTORS.get(pkt.ts_format, Raw)(m)


class MobileIPFlowBinding(MobileIPExtension):
    """Type 154, subtype 2 (RFC 7629 section 4.2), long format."""

    name = "Mobile IP Flow Binding"
    fields_desc = [
        _type(154),
        ByteEnumField("subtype", 2, _FLOW_SUBTYPES),
        FieldLenField("length", None, length_of="selector", fmt="H", adjust=lambda pkt, octets: octets + 3 + len(pkt.bids)),
        ByteEnumField("action", FlowAction.FORWARD, _names(FlowAction)),
        FieldLenField("bid_count", None, count_of="bids", fmt="B"),
        FieldListField("bids", [], ByteField("bid", 0), count_from=lambda pkt: pkt.bid_count),
        ByteEnumField("ts_format", SelectorFormat.IPV4, _names(SelectorFormat)),
        _SelectorField("selector", Raw(b""), Raw, length_from=lambda pkt: _rest(pkt, 3 + len(pkt.bids))),
    ]


class MobileIPUnknownExtension(MobileIPExtension):
    """An extension in the short format that has no layer of its own (RFC 5944 section 1.11)."""

    name = "Mobile IP Unknown Extension"
    fields_desc = [_type(255), _length_of("data"), XStrLenField("data", b"", length_from=_rest)]


class MobileIPUnknownFlowExtension(MobileIPExtension):
    """Type 154 with a subtype that is not assigned."""

    name = "Mobile IP Unknown Multipath Subtype"
    fields_desc = [
        _type(154),
        ByteField("subtype", 255),
        _length_of("data", fmt="H"),
        XStrLenField("data", b"", length_from=_rest),
    ]


_EXTENSIONS: dict[int, type[Packet]] = {
    **dict.fromkeys(AuthenticationKind, MobileIPAuthentication),
    36: MobileIPGeneralizedAuthentication,
    44: MobileIPUdpTunnelReply,
    130: MobileIPEncapsulatingDelivery,
    131: MobileIPNai,
    132: MobileIPChallenge,
    144: MobileIPUdpTunnelRequest,
}
_FLOW_EXTENSIONS: dict[int, type[Packet]] = {1: MobileIPMultipath, 2: MobileIPFlowBinding}

split_layers(MobileIP, MobileIPRRQ, type=1)
split_layers(MobileIP, MobileIPRRP, type=3)
bind_layers(MobileIP, RegistrationRequest, type=1)
bind_layers(MobileIP, RegistrationReply, type=3)
bind_layers(RegistrationRequest, MobileIPExtension)
bind_layers(RegistrationReply, MobileIPExtension)
bind_layers(MobileIPTunnelData, GRE, nexthdr=int(Tunnelled.GRE))
