"""Messages of Mobile IPv4 as values: fixed parts, extensions in the order of the message, traffic selectors.

Addresses are texts in dotted form. Sources: RFC 5944 sections 1.10, 3.3-3.5; RFC 3024 section 3; RFC 3519 section 3; RFC 4721
(generalised authentication, challenge); RFC 2794 (NAI); RFC 7629 section 4; RFC 6088 section 3.
Fields called `reserved` hold bits that a sender leaves zero and a receiver ignores; they take no part in comparisons.
"""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TypeAlias

REGISTRATION_PORT = 434
INFINITE_LIFETIME_S = 0xFFFF
"""Lifetime 65535: for ever (RFC 5944 section 3.3)."""
NO_ADDRESS = "0.0.0.0"


class RequestFlag(IntFlag):
    """Second octet of a Registration Request. RESERVED and X are sent as zero and ignored (RFC 5944 section 3.3)."""

    SIMULTANEOUS = 0x80
    BROADCAST = 0x40
    DECAPSULATION_BY_MN = 0x20
    MINIMAL_ENCAPSULATION = 0x10
    GRE = 0x08
    RESERVED = 0x04
    REVERSE_TUNNEL = 0x02
    X = 0x01


NO_FLAGS = RequestFlag(0)


class AuthenticationKind(IntEnum):
    """Extension types of authenticators (RFC 5944 sections 3.5.2 to 3.5.4)."""

    MOBILE_HOME = 32
    MOBILE_FOREIGN = 33
    FOREIGN_HOME = 34


class AccessTechnology(IntEnum):
    """Access Technology Type registry (RFC 5213 section 8.4 and later assignments)."""

    RESERVED = 0
    VIRTUAL = 1
    PPP = 2
    ETHERNET = 3
    WLAN = 4
    WIMAX = 5
    GERAN = 6
    UTRAN = 7
    EUTRAN = 8
    EHRPD = 9
    HRPD = 10
    CDMA_1X = 11
    UMB = 12
    NR = 13


@dataclass(frozen=True, slots=True)
class Authentication:
    """Authenticator of types 32, 33, 34. `authenticator` has 16 octets for HMAC-MD5, 32 for HMAC-SHA-256."""

    kind: AuthenticationKind
    spi: int
    authenticator: bytes


@dataclass(frozen=True, slots=True)
class GeneralizedAuthentication:
    """Type 36 (RFC 4721 section 5), for example MN-AAA (subtype 1)."""

    subtype: int
    spi: int
    authenticator: bytes


@dataclass(frozen=True, slots=True)
class Nai:
    """Type 131: network access identifier of the mobile node (RFC 2794), as it is on the wire."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Challenge:
    """Type 132: MN-FA challenge (RFC 4721 section 4)."""

    value: bytes


@dataclass(frozen=True, slots=True)
class EncapsulatingDelivery:
    """Type 130: the mobile node tunnels its packets to the foreign agent (RFC 3024 section 3.3)."""


class Tunnelled(IntEnum):
    """What is inside UDP tunnel data messages, as an IP protocol number (RFC 3519 section 3.1.4)."""

    IP_IN_IP = 4
    GRE = 47
    MINIMAL = 55


@dataclass(frozen=True, slots=True)
class UdpTunnelRequest:
    """Type 144, subtype 0 (RFC 3519 section 3.1). `encapsulation` 0 is read as IP in IP."""

    force: bool = False
    registration_required: bool = False
    encapsulation: int = 0
    reserved: int = field(default=0, compare=False)
    """The 30 reserved bits from the first on: sent as zero, ignored on reception (see `codec`)."""


@dataclass(frozen=True, slots=True)
class UdpTunnelReply:
    """Type 44, subtype 0 (RFC 3519 section 3.2). code 0: UDP tunnelling will be used; 64: it will not."""

    code: int = 0
    force: bool = False
    keepalive_s: int = 0
    """0: the mobile node's own interval."""
    reserved: int = field(default=0, compare=False)
    """15 bits: sent as zero, ignored on reception."""


@dataclass(frozen=True, slots=True)
class Multipath:
    """Type 154, subtype 1 (RFC 7629 section 4.1). What is not permitted is the core's to refuse."""

    bid: int
    label: int = 1
    technology: int = AccessTechnology.VIRTUAL
    bulk: bool = False
    overwrite: bool = False
    reserved: int = field(default=0, compare=False)
    """6 bits: sent as zero, ignored on reception."""


class FlowAction(IntEnum):
    """Action of a Flow Binding extension (RFC 7629 section 4.2, figure 6)."""

    DROP = 0
    FORWARD = 1


class SelectorFormat(IntEnum):
    """Traffic selector format (RFC 7629 section 4.2)."""

    RESERVED = 0
    IPV4 = 1
    IPV6 = 2


@dataclass(frozen=True, slots=True)
class Selector:
    """A binary traffic selector (RFC 6088 section 3), written from CN to MN. A range is (first, last); None: any value.

    `source`, `destination`: addresses of `version`. A single value is a range whose ends are equal; `explicit_end`
    names the ranges that are nevertheless written with both ends, so that encoding gives the same octets again.
    """

    version: int = 4
    source: tuple[str, str] | None = None
    destination: tuple[str, str] | None = None
    flow_label: tuple[int, int] | None = None
    """IPv6 only."""
    spi: tuple[int, int] | None = None
    source_port: tuple[int, int] | None = None
    destination_port: tuple[int, int] | None = None
    traffic_class: tuple[int, int] | None = None
    """DS field (IPv4) or traffic class (IPv6); the two low bits are ignored."""
    protocol: tuple[int, int] | None = None
    explicit_end: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FlowBinding:
    """Type 154, subtype 2 (RFC 7629 section 4.2): `bids` by preference. `selector` None: it cannot be read."""

    action: int
    bids: tuple[int, ...]
    selector_format: int
    raw_selector: bytes
    """The octets behind the TS Format; what is sent."""
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class UnknownExtension:
    """An extension that is not known here, kept byte for byte. Types below 128 are not skippable (RFC 5944 section 1.8).

    `data` is what follows the length; for type 154, which has the long format, the subtype and then what follows the length.
    """

    type: int
    data: bytes


Extension: TypeAlias = (
    Authentication | GeneralizedAuthentication | Nai | Challenge | EncapsulatingDelivery | UdpTunnelRequest | UdpTunnelReply
    | Multipath | FlowBinding | UnknownExtension
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """Registration Request (RFC 5944 section 3.3, type 1)."""

    home_address: str
    home_agent: str
    care_of_address: str
    lifetime_s: int
    identification: int
    flags: RequestFlag = NO_FLAGS
    extensions: tuple[Extension, ...] = ()
    offsets: tuple[int, ...] = field(default=(), compare=False)
    """Where each extension begins in the octets that were decoded; what an authenticator covers ends in it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Registration Reply (RFC 5944 section 3.4, type 3)."""

    code: int
    home_address: str
    home_agent: str
    lifetime_s: int
    identification: int
    extensions: tuple[Extension, ...] = ()
    offsets: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class TunnelData:
    """UDP tunnel data message (RFC 3519 section 3.3, type 4): a header of 4 octets, then the packet `inner`."""

    next_header: int
    inner: bytes
    reserved: int = field(default=0, compare=False)
    """16 bits: sent as zero, ignored on reception."""


Message: TypeAlias = Request | Reply | TunnelData


@dataclass(frozen=True, slots=True)
class MobilityAgent:
    """Extension 16 of an agent advertisement (RFC 5944 section 2.1.1)."""

    sequence: int
    lifetime_s: int
    care_of_addresses: tuple[str, ...] = ()
    registration_required: bool = False
    busy: bool = False
    home_agent: bool = False
    foreign_agent: bool = False
    minimal_encapsulation: bool = False
    gre: bool = False
    reverse_tunnel: bool = False
    udp_tunnel: bool = False


@dataclass(frozen=True, slots=True)
class Advertisement:
    """ICMP router advertisement, perhaps of a mobility agent (RFC 1256, RFC 5944 section 2.1). code 16: no common traffic."""

    lifetime_s: int
    routers: tuple[tuple[str, int], ...] = ()
    """(address, preference)."""
    code: int = 0
    agent: MobilityAgent | None = None
    prefix_lengths: tuple[int, ...] = ()
    """One for each router address (extension 19)."""
    challenge: bytes | None = None
