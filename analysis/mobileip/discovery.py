"""Finding agents: ICMP router discovery with its mobility extensions, IPv6 neighbour discovery and home agent discovery.

Sources: RFC 5944 section 2.1 (agent advertisement, extensions 16, 19 and one-byte padding), RFC 4721 section 2 (24), RFC 1256;
RFC 4861 sections 4.1 and 4.2, RFC 6275 sections 6.5-6.8 and 7.1-7.4. Nothing here raises.
"""

from __future__ import annotations

import struct

from analysis.mobileip.codes import ADVERTISEMENT_FLAGS, MALFORMED, letters
from analysis.mobileip.message import MAX_EXTENSIONS, MalformedError, Message, ipv4, ipv6, malformed, need

ICMP_TYPES = (9, 10)
ICMPV6_TYPES = (133, 134, 144, 145, 146, 147)
ICMPV6_KINDS = {
    133: "router solicitation", 134: "router advertisement", 144: "HA discovery request", 145: "HA discovery reply",
    146: "prefix solicitation", 147: "prefix advertisement",
}  # fmt: skip
PLAIN_KINDS = frozenset(("router solicitation", "router advertisement"))
"""Router discovery without anything of Mobile IP in it."""


def decode_icmp(data: bytes, ttl: int, missing: int = 0) -> Message:
    """Decode ICMP router discovery. An advertisement without a mobility extension is a "router advertisement".

    RFC 5944 section 2.2 makes an agent solicitation a router solicitation with TTL 1; by that they are told apart.
    """
    if not data:
        return malformed("no payload in the capture" if missing else "empty")
    if data[0] == 10:
        return _finish(Message("agent solicitation" if ttl == 1 else "router solicitation", 10), data, missing)
    message = Message("router advertisement", data[0])
    try:
        _advertisement(message, data, missing)
    except MalformedError as error:
        if not (missing and message.kind != "router advertisement"):
            message.kind, message.problem = MALFORMED, f"agent advertisement: {error}"
    return _finish(message, data, missing)


def _advertisement(message: Message, data: bytes, missing: int) -> None:
    need(len(data), 8, "advertisement")
    count, words, lifetime_s = struct.unpack_from("!BBH", data, 4)
    at = 8 + count * words * 4
    if at > len(data) + missing:
        raise MalformedError(f"{count} addresses of {words} words end behind the packet")
    message.code, message.lifetime_s = data[1], lifetime_s
    names: list[str] = []
    try:
        while at < len(data):
            kind = data[at]
            if kind == 0:  # one-byte padding (RFC 5944 section 2.1.3)
                at += 1
                continue
            need(len(data) - at, 2, f"header of extension {kind}")
            if len(names) == MAX_EXTENSIONS:
                raise MalformedError(f"more than {MAX_EXTENSIONS} extensions")
            names.append(str(kind))
            begin, size = at + 2, data[at + 1]
            if begin + size > len(data):
                raise MalformedError(f"extension {kind} claims {size} bytes, {len(data) - begin} are left")
            if kind == 16:
                _agent(message, data[begin : begin + size])
            elif kind == 24:
                message.add_note(f"challenge of {size} bytes")
            at = begin + size
    finally:
        message.extensions = tuple(names)


def _agent(message: Message, body: bytes) -> None:
    """Mobility agent advertisement extension (RFC 5944 section 2.1.1)."""
    if len(body) < 6 or len(body) % 4 != 2:
        raise MalformedError(f"extension 16 has {len(body)} bytes, not 6 + 4N")
    message.sequence, message.lifetime_s, flags = struct.unpack_from("!HHH", body)
    message.kind, message.flags = "agent advertisement", letters(flags, ADVERTISEMENT_FLAGS, 16)
    care_of = [ipv4(body, at) for at in range(6, len(body), 4)]
    message.care_of_address = care_of[0] if care_of else ""
    if len(care_of) > 1:
        message.add_note(f"more care-of addresses: {' '.join(care_of[1:9])}")


def decode_icmpv6(data: bytes, missing: int = 0) -> Message:
    """Decode router discovery, home agent address discovery and mobile prefix discovery of IPv6."""
    if not data:
        return malformed("no payload in the capture" if missing else "empty")
    kind = data[0]
    message = Message(ICMPV6_KINDS.get(kind, f"ICMPv6 {kind}"), kind)
    name = message.kind
    try:
        need(len(data), 16 if kind == 134 else 8, "fixed part")
        if kind >= 144:
            message.identification = struct.unpack_from("!H", data, 4)[0]
        if kind == 134:
            message.flags, message.lifetime_s = letters(data[5], "MOH", 8), struct.unpack_from("!H", data, 6)[0]
            _router_options(message, data, 16)
        elif kind == 145:
            agents = [ipv6(data, at) for at in range(8, len(data) - 15, 16)]
            message.home_agent = agents[0] if agents else ""
            message.add_note(f"{len(agents)} home agents: {' '.join(agents[:8])}")
        elif kind == 147:
            message.flags = letters(data[6], "MO", 8)
            _router_options(message, data, 8)
    except MalformedError as error:
        if not missing:
            message.kind, message.problem = MALFORMED, f"{name}: {error}"
    return _finish(message, data, missing)


def _router_options(message: Message, data: bytes, at: int) -> None:
    """Options that Mobile IPv6 added: R bit of a prefix, advertisement interval, home agent information."""
    names: list[str] = []
    try:
        while at < len(data):
            need(len(data) - at, 2, "option header")
            kind, size = data[at], data[at + 1] * 8
            if not size or at + size > len(data):
                raise MalformedError(f"option {kind} claims {size} bytes, {len(data) - at} are left")
            if len(names) == MAX_EXTENSIONS:
                raise MalformedError(f"more than {MAX_EXTENSIONS} options")
            names.append(str(kind))
            if kind == 3 and size == 32:
                prefix = f"{ipv6(data, at + 16)}/{data[at + 2]}"
                message.add_note(f"{'router address' if data[at + 3] & 0x20 else 'prefix'} {prefix}")
            elif kind == 7:
                message.add_note(f"advertisement interval {struct.unpack_from('!I', data, at + 4)[0]} ms")
            elif kind == 8:
                preference, lifetime_s = struct.unpack_from("!hH", data, at + 4)
                message.add_note(f"home agent preference {preference} for {lifetime_s} s")
            at += size
    finally:
        message.extensions = tuple(names)


def _finish(message: Message, data: bytes, missing: int) -> Message:
    if missing:
        message.add_note(f"the capture holds {len(data)} of {len(data) + missing} bytes")
    if message.kind == MALFORMED:
        message.text = f"malformed: {message.problem}"
        return message
    words = [message.kind]
    words += [f"CoA {message.care_of_address}"] if message.care_of_address else []
    words += [f"seq {message.sequence}"] if message.sequence >= 0 else []
    words += [f"{message.lifetime_s} s"] if message.lifetime_s >= 0 else []
    words += [message.flags.replace(" ", "")] if message.flags else []
    words += [message.note] if message.note else []
    message.text = " ".join(words)
    return message
