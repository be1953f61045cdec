"""Binary traffic selectors (RFC 6088 section 3): octets, meaning, overlap.

A selector is a word of flags, most significant bit first, then the fields that the flags announce: for each field a start, and
an end where the flow may lie in a range. An end without its start, or below it, cannot be read. Reserved flag bits are ignored.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from agents.wire.errors import WireError
from agents.wire.mobileip.addresses import ipv4_octets, ipv4_text, ipv6_octets, ipv6_text
from agents.wire.mobileip.values import FlowBinding, Selector, SelectorFormat

_FLAGS = struct.Struct("!I")


class _Field(NamedTuple):
    """A field that comes as start and end: its name in `Selector`, octets on the wire, bits that count."""

    name: str
    octets: int
    mask: int
    is_address: bool = False


_PORTS = (_Field("source_port", 2, 0xFFFF), _Field("destination_port", 2, 0xFFFF))
_LAST = (_Field("traffic_class", 1, 0xFC), _Field("protocol", 1, 0xFF))  # the two low bits of DS are ignored
_SPI = _Field("spi", 4, 0xFFFFFFFF)
_FIELDS = {
    4: (
        _Field("source", 4, 0xFFFFFFFF, True), _Field("destination", 4, 0xFFFFFFFF, True), _SPI, *_PORTS, *_LAST,
    ),
    6: (
        _Field("source", 16, (1 << 128) - 1, True), _Field("destination", 16, (1 << 128) - 1, True), _SPI,
        _Field("flow_label", 4, 0xFFFFFF),  # RFC 6088 counts 24 bits and has the first 8 ignored
        *_PORTS, *_LAST,
    ),
}  # fmt: skip
_VERSIONS = {int(SelectorFormat.IPV4): 4, int(SelectorFormat.IPV6): 6}
_FORMATS = {4: SelectorFormat.IPV4, 6: SelectorFormat.IPV6}
_TEXT: dict[int, Callable[[bytes], str]] = {4: ipv4_text, 6: ipv6_text}
_OCTETS: dict[int, Callable[[str], bytes]] = {4: ipv4_octets, 6: ipv6_octets}


@dataclass(frozen=True, slots=True)
class PacketFields:
    """What selectors look at in a packet, in the packet's own direction. None: the packet has no such field."""

    source: str
    destination: str
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    traffic_class: int = 0
    spi: int | None = None
    """Of ESP or AH."""
    flow_label: int | None = None
    """IPv6 only."""

    @property
    def version(self) -> int:
        """IP version, by the form of the source address."""
        return 6 if ":" in self.source else 4


def decode(selector_format: int, data: bytes) -> Selector:
    """The selector in the octets behind the TS Format field. Raises WireError when the format is unknown or the octets lie."""
    version = _VERSIONS.get(selector_format)
    if version is None:
        raise WireError(f"traffic selector format {selector_format} is not known")
    if len(data) < _FLAGS.size:
        raise WireError(f"traffic selector of {len(data)} octets has no room for its flags")
    flags, at = _FLAGS.unpack_from(data)[0], _FLAGS.size
    ranges: dict[str, tuple[int, int] | tuple[str, str]] = {}
    explicit = []
    for place, wanted in enumerate(_FIELDS[version]):
        has_start, has_end = flags >> 31 - 2 * place & 1, flags >> 30 - 2 * place & 1
        if has_end > has_start:
            raise WireError(f"traffic selector: an end of {wanted.name} without a start (RFC 6088 section 3)")
        if not has_start:
            continue
        stop = at + wanted.octets * (1 + has_end)
        if stop > len(data):
            raise WireError(f"traffic selector of {len(data)} octets: {wanted.name} ends at {stop}")
        first = int.from_bytes(data[at : at + wanted.octets], "big") & wanted.mask
        last = int.from_bytes(data[stop - wanted.octets : stop], "big") & wanted.mask
        if first > last:
            raise WireError(f"traffic selector: {wanted.name} ends at {last}, before its start {first}")
        if has_end and first == last:
            explicit.append(wanted.name)
        ranges[wanted.name] = _range(wanted, version, first, last)
        at = stop
    if at != len(data):
        raise WireError(f"traffic selector of {len(data)} octets: its flags tell of {at}")
    return Selector(version=version, explicit_end=frozenset(explicit), **ranges)  # type: ignore[arg-type]


def _range(wanted: _Field, version: int, first: int, last: int) -> tuple[int, int] | tuple[str, str]:
    if not wanted.is_address:
        return first, last
    text = _TEXT[version]
    return text(first.to_bytes(wanted.octets, "big")), text(last.to_bytes(wanted.octets, "big"))


def encode(selector: Selector) -> bytes:
    """The octets behind the TS Format field. Raises WireError for what no selector can say."""
    flags, parts = 0, []
    for place, (wanted, limits) in enumerate(_limits(selector)):
        if limits is None:
            continue
        first, last = limits
        with_end = first != last or wanted.name in selector.explicit_end
        flags |= (3 if with_end else 2) << 30 - 2 * place
        parts += [end.to_bytes(wanted.octets, "big") for end in (limits if with_end else limits[:1])]
    return _FLAGS.pack(flags) + b"".join(parts)


def _limits(selector: Selector) -> list[tuple[_Field, tuple[int, int] | None]]:
    """The fields of the selector's version with first and last value as numbers. Raises WireError."""
    fields = _FIELDS.get(selector.version)
    if fields is None:
        raise WireError(f"traffic selector for IP version {selector.version}")
    if selector.version == 4 and selector.flow_label is not None:
        raise WireError("traffic selector: IPv4 has no flow label")
    return [(wanted, _field_limits(selector, wanted)) for wanted in fields]


def _field_limits(selector: Selector, wanted: _Field) -> tuple[int, int] | None:
    value = getattr(selector, wanted.name)
    if value is None:
        return None
    if wanted.is_address:
        octets = _OCTETS[selector.version]
        first, last = (int.from_bytes(octets(end), "big") for end in value)
    else:
        first, last = value
    for end in (first, last):
        if not 0 <= end < 1 << 8 * wanted.octets:
            raise WireError(f"traffic selector: {wanted.name} {end} is no value of this field")
    first, last = first & wanted.mask, last & wanted.mask
    if first > last:
        raise WireError(f"traffic selector: {wanted.name} {value[0]} to {value[1]} is no range")
    return first, last


def flow_binding(action: int, bids: tuple[int, ...], selector: Selector) -> FlowBinding:
    """A Flow Binding extension that says `selector`. Raises WireError."""
    return FlowBinding(action, bids, _FORMATS.get(selector.version, 0), encode(selector), selector)


def mirrored(selector: Selector) -> Selector:
    """The same flows in the other direction: selectors are written from CN to MN, the mobile node sends from MN to CN."""
    swap = {"source": "destination", "destination": "source", "source_port": "destination_port",
            "destination_port": "source_port"}  # fmt: skip
    return replace(
        selector,
        source=selector.destination,
        destination=selector.source,
        source_port=selector.destination_port,
        destination_port=selector.source_port,
        explicit_end=frozenset(swap.get(name, name) for name in selector.explicit_end),
    )


def matches(selector: Selector, packet: PacketFields) -> bool:
    """Whether the packet is one of the selector's flows. A field that the packet lacks matches no range. Raises WireError."""
    if packet.version != selector.version:
        return False
    for wanted, limits in _limits(selector):
        if limits is None:
            continue
        value = getattr(packet, wanted.name)
        if value is None:
            return False
        if wanted.is_address:
            value = int.from_bytes(_OCTETS[selector.version](value), "big")
        if not limits[0] <= value & wanted.mask <= limits[1]:
            return False
    return True


def overlaps(one: Selector, other: Selector) -> bool:
    """Whether some packet may match both. Ports of two protocols never meet. Raises WireError."""
    if one.version != other.version:
        return False
    pairs = zip(_limits(one), _limits(other), strict=True)
    return all(a is None or b is None or (a[0] <= b[1] and b[0] <= a[1]) for (_, a), (_, b) in pairs)
