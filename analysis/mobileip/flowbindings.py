"""Multipath and flow binding extensions of RFC 7629, flow identification options of RFC 6089, traffic selectors of RFC 6088."""

from __future__ import annotations

import struct
from typing import NamedTuple

from analysis.mobileip.codes import ACCESS_TECHNOLOGIES
from analysis.mobileip.message import FlowBinding, MalformedError, ipv4, ipv6, need

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 50: "ESP", 58: "ICMPv6", 132: "SCTP"}
_ACTIONS = {0: "drop", 1: "forward"}
_PAD, _PADN, _BID_REFERENCE, _TRAFFIC_SELECTOR = range(4)


class _Range(NamedTuple):
    """One field of a selector that comes as start and end: its name and width in bytes."""

    name: str
    width: int


# RFC 6088 sections 3.1 and 3.2: fields in the order of their flag bits, from the most significant one.
_SELECTORS = {
    1: tuple(map(_Range, ("src", "dst", "SPI", "sport", "dport", "DS", "protocol"), (4, 4, 4, 2, 2, 1, 1))),
    2: tuple(
        map(
            _Range,
            ("src", "dst", "SPI", "flow label", "sport", "dport", "traffic class", "protocol"),
            (16, 16, 4, 4, 2, 2, 1, 1),
        )
    ),
}


class Multipath(NamedTuple):
    """RFC 7629 section 4.1: access technology type, label and BID of the interface, flags of B (bulk) and O (overwrite)."""

    access_technology: str
    label: int
    bid: int
    bulk: bool
    overwrite: bool


def multipath(body: bytes) -> Multipath:
    """Decode a Multipath extension behind its length field. Raises MalformedError."""
    if len(body) != 4:
        raise MalformedError(f"extension 154/1 has {len(body)} bytes, not 4 (RFC 7629 section 4.1)")
    technology, label, bid, flags = body
    return Multipath(ACCESS_TECHNOLOGIES.get(technology, f"{technology}"), label, bid, bool(flags & 0x80), bool(flags & 0x40))


def flow_binding(body: bytes) -> tuple[FlowBinding, str]:
    """Decode a Flow-Binding extension behind its length field (RFC 7629 section 4.2).

    Returns it and what a strict receiver objects to. Raises MalformedError.
    """
    need(len(body), 3, "extension 154/2")
    action, count = body[0], body[1]
    need(len(body), 3 + count, f"extension 154/2 with {count} BIDs")
    objections = []
    if action not in _ACTIONS:
        objections.append(f"unknown action {action}")
    if not 1 <= count <= 8:
        objections.append(f"{count} BIDs, 1-8 are allowed")
    elif action == 0 and count != 1:
        objections.append(f"{count} BIDs in a drop rule, 1 is due")
    style = body[2 + count]
    if style not in _SELECTORS:
        objections.append(f"traffic selector format {style}")
    bids = tuple(body[2 : 2 + count])
    text = selector_text(style, body[3 + count :])
    return FlowBinding(_ACTIONS.get(action, f"action {action}"), bids, text), "; ".join(objections)


def selector_text(style: int, body: bytes) -> str:
    """A binary traffic selector as text, "protocol TCP dport 443" say. Unknown formats give their number.

    `style`: 1 IPv4, 2 IPv6. Raises MalformedError when it is shorter or longer than its flags say, or when an end comes
    without its start.
    """
    fields = _SELECTORS.get(style)
    if fields is None:
        return f"format {style}, {len(body)} bytes"
    need(len(body), 4, "traffic selector")
    flags, at, words = struct.unpack_from("!I", body)[0], 4, []
    for place, field in enumerate(fields):
        has_start, has_end = flags >> (31 - 2 * place) & 1, flags >> (30 - 2 * place) & 1
        if has_end and not has_start:
            raise MalformedError(f"traffic selector has an end of {field.name} without a start (RFC 6088 section 3)")
        stop = at + field.width * (has_start + has_end)
        if stop > len(body):
            raise MalformedError(f"traffic selector has {len(body)} bytes, {field.name} ends at {stop}")
        if has_start:
            ends = [_value(field, body, place) for place in range(at, stop, field.width)]
            words.append(f"{field.name} {'-'.join(ends)}")
        at = stop
    if at != len(body):
        raise MalformedError(f"traffic selector has {len(body)} bytes, its flags tell of {at}")
    return " ".join(words) or "everything"


def _value(field: _Range, body: bytes, at: int) -> str:
    if field.name in ("src", "dst"):
        return ipv4(body, at) if field.width == 4 else ipv6(body, at)
    number = int.from_bytes(body[at : at + field.width], "big")
    if field.name == "protocol":
        return _PROTOCOLS.get(number, str(number))
    return str(number >> 2) if field.name == "DS" else str(number)  # its two low bits are ignored


def flow_identification(body: bytes, answer: bool) -> FlowBinding:
    """Decode a Flow Identification option behind its length octet (RFC 6089 section 4.2). `answer`: it stands in a BA.

    Raises MalformedError.
    """
    need(len(body), 6, "flow identification option")
    flow, priority, _, status = struct.unpack_from("!HHBB", body)
    bids: tuple[int, ...] = ()
    selector, at = "", 6
    while at < len(body):
        kind = body[at]
        if kind == _PAD:
            at += 1
            continue
        size = body[at + 1] if at + 1 < len(body) else 255
        at += 2
        if at + size > len(body):
            raise MalformedError(f"sub-option {kind} of the flow identification option ends behind it")
        value = body[at : at + size]
        if kind == _BID_REFERENCE:
            if size % 2:
                raise MalformedError(f"BID reference sub-option has {size} bytes")
            bids = struct.unpack(f"!{size // 2}H", value)
        elif kind == _TRAFFIC_SELECTOR:
            need(size, 2, "traffic selector sub-option")
            selector = selector_text(value[0], value[2:])
        at += size
    return FlowBinding("forward", bids, selector, flow, priority, status if answer else -1)
