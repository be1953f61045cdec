"""Messages of Mobile IPv6 in the Mobility Header: fixed parts and options.

Sources: RFC 6275 sections 6.1 (header and messages) and 6.2 (options); RFC 5846 (16), RFC 4285 (options 9, 10), RFC 5213 and
RFC 5844 (proxy registrations), RFC 5648 (option 35), RFC 6089 (option 45). No more than MAX_EXTENSIONS options are looked at.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from analysis.mobileip.codes import (
    ACCESS_TECHNOLOGIES,
    ACKNOWLEDGMENT_FLAGS,
    BINDING_ERROR,
    BINDING_STATUS,
    MALFORMED,
    MOBILITY_KINDS,
    OPTION_NAMES,
    REVOCATION_STATUS,
    UPDATE_FLAGS,
    Mobility,
    letters,
)
from analysis.mobileip.flowbindings import flow_identification
from analysis.mobileip.message import MAX_EXTENSIONS, MalformedError, Message, as_hex, clean_text, ipv4, ipv6, malformed, need

NO_NEXT_HEADER = 59
LIFETIME_UNIT_S = 4
"""Unit of lifetimes in BU and BA (RFC 6275 sections 6.1.7 and 6.1.8)."""
_UPDATE = struct.Struct("!HHH")
_ACKNOWLEDGMENT = struct.Struct("!BBHH")
_INIT = struct.Struct("!HQ")
_TEST = struct.Struct("!HQQ")
_SIZES = {0: 8, 1: 16, 2: 16, 3: 24, 4: 24, 5: 12, 6: 12, 7: 24, 8: 12, 9: 12, 16: 12}
"""Bytes of a message up to its options."""
_OPTION_SIZES = {2: 2, 3: 16, 4: 4, 6: 18, 8: 1, 9: 5, 10: 8, 22: 18, 24: 2, 29: 6, 31: 6, 32: 6, 35: 4, 37: 6}
"""Least bytes of the options that are looked into."""


class Ends(NamedTuple):
    """Addresses of the packet as text. `src`, `dst`: with home addresses put in; `outer_src`: the IPv6 header's or ""."""

    src: str
    dst: str
    outer_src: str = ""


def kind_of(number: int) -> str:
    """Name of a Mobility Header type."""
    return MOBILITY_KINDS[number] if number < len(MOBILITY_KINDS) else f"MH type {number}"


def decode(data: bytes, ends: Ends, missing: int = 0) -> Message:
    """Decode a Mobility Header. Never raises: what cannot be gives a row of kind "malformed".

    `missing` is the number of bytes that the capture cut off: options behind the cut are not held against the message.
    """
    if len(data) < 6:
        return malformed(f"Mobility Header has {len(data)} bytes, 6 are needed")
    message = Message(kind_of(data[2]), data[2])
    try:
        _decode(message, data, ends, missing)
    except MalformedError as error:
        message.kind, message.problem = MALFORMED, f"{kind_of(message.type)}: {error}"
        if missing:
            message.add_note(f"the capture holds {len(data)} of {len(data) + missing} bytes")
    message.text = _text(message)
    return message


def _decode(message: Message, data: bytes, ends: Ends, missing: int) -> None:
    size = (data[1] + 1) * 8
    if data[0] != NO_NEXT_HEADER:
        raise MalformedError(f"payload proto {data[0]}, not 59 (RFC 6275 section 9.2)")
    if size > len(data) + missing:
        raise MalformedError(f"header length says {size} bytes, the packet has {len(data) + missing}")
    data = data[:size]
    missing = size - len(data)
    fixed = _SIZES.get(message.type)
    if fixed is None:
        if message.type >= len(MOBILITY_KINDS):
            message.add_note("unknown Mobility Header type")
        return
    need(len(data), fixed, "fixed part")
    if not missing and not _checksum_holds(data, ends):
        message.add_note("wrong checksum: receivers discard the message")
    _fixed_part(message, data, ends)
    _options(message, data, fixed, missing)
    if message.care_of and not message.care_of_address:
        message.care_of_address = next((address for _, address in message.care_of if address), "")


@lru_cache(maxsize=1 << 12)
def _address_sum(text: str) -> int:
    return sum(struct.unpack("!8H", ipaddress.IPv6Address(text).packed)) if ":" in text else 0


def _checksum_holds(data: bytes, ends: Ends) -> bool:
    """Internet checksum over pseudo-header and header, with home addresses in place of care-of addresses (section 6.1.1)."""
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    words += _address_sum(ends.src) + _address_sum(ends.dst) + len(data) + 135
    return bool(words % 0xFFFF == 0)


def _fixed_part(message: Message, data: bytes, ends: Ends) -> None:
    kind = message.type
    if kind in (Mobility.BU, 8):
        message.sequence, flags, units = _UPDATE.unpack_from(data, 6)
        message.flags, message.lifetime_s = letters(flags, UPDATE_FLAGS, 16), units * LIFETIME_UNIT_S
        message.home_address, message.care_of_address = ends.src, ends.outer_src or ends.src
        if flags & 0x4200:  # H or P: to a home agent or mobility anchor
            message.home_agent = ends.dst
        if flags & 0x0200:  # a proxy registers for the mobile node, which an option names
            message.home_address, message.care_of_address = "", ends.outer_src or ends.src
    elif kind in (Mobility.BA, 9):
        message.code, flags, message.sequence, units = _ACKNOWLEDGMENT.unpack_from(data, 6)
        message.flags, message.lifetime_s = letters(flags, ACKNOWLEDGMENT_FLAGS, 8), units * LIFETIME_UNIT_S
        message.code_text = BINDING_STATUS.get(message.code, f"status {message.code}")
        message.home_address = "" if flags & 0x20 else ends.dst
    elif kind == Mobility.HOTI:
        message.home_address, message.cookie = ends.src, _INIT.unpack_from(data, 6)[1]
    elif kind == Mobility.COTI:
        message.care_of_address, message.cookie = ends.src, _INIT.unpack_from(data, 6)[1]
    elif kind == Mobility.HOT:
        message.home_address = ends.dst
        message.home_nonce, message.cookie, message.token = _TEST.unpack_from(data, 6)
    elif kind == Mobility.COT:
        message.care_of_address = ends.dst
        message.care_of_nonce, message.cookie, message.token = _TEST.unpack_from(data, 6)
    elif kind == Mobility.BE:
        message.code, message.home_address = data[6], ipv6(data, 8)
        message.code_text = BINDING_ERROR.get(message.code, f"status {message.code}")
    elif kind == Mobility.BRR:
        message.home_address = ends.dst
    elif kind == Mobility.REVOCATION:
        _revocation(message, data, ends)


def _revocation(message: Message, data: bytes, ends: Ends) -> None:
    """Binding Revocation Indication or Acknowledgement (RFC 5846)."""
    style, value, message.sequence, flags = struct.unpack_from("!BBHH", data, 6)
    message.flags = letters(flags, "PVG", 16)
    if style not in (1, 2):
        raise MalformedError(f"binding revocation type {style}")
    message.kind = "BRI" if style == 1 else "BRA"
    if not flags & 0x8000:
        message.home_address = ends.dst if style == 1 else ends.src
    message.code = value
    message.code_text = f"trigger {value}" if style == 1 else REVOCATION_STATUS.get(value, f"status {value}")


def options(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Walk over options: (type, begin of the data, its length), padding left out; the length may reach behind the header."""
    while at < len(data):
        kind = data[at]
        if kind == 0:
            at += 1
            continue
        need(len(data) - at, 2, f"header of option {kind}")
        begin, size = at + 2, data[at + 1]
        if kind != 1 or begin + size > len(data):
            yield kind, begin, size
        at = begin + size


def _options(message: Message, data: bytes, at: int, missing: int) -> None:
    names: list[str] = []
    try:
        for kind, begin, size in options(data, at):
            if len(names) == MAX_EXTENSIONS:
                raise MalformedError(f"more than {MAX_EXTENSIONS} options")
            names.append(str(kind))
            if begin + size > len(data):
                if missing:
                    break
                raise MalformedError(f"option {kind} claims {size} bytes, {len(data) - begin} are left")
            need(size, _OPTION_SIZES.get(kind, 0), f"option {kind}")
            _option(message, kind, data[begin : begin + size])
    except MalformedError:
        if not missing:
            raise
    finally:
        message.extensions = tuple(names)
    if missing:
        message.add_note(f"the capture holds {len(data)} of {len(data) + missing} bytes")


def _option(message: Message, kind: int, body: bytes) -> None:
    """Take over what one option says."""
    if kind == 2:
        message.add_note(f"refresh every {struct.unpack('!H', body[:2])[0] * LIFETIME_UNIT_S} s")
    elif kind == 3:
        message.care_of_address = ipv6(body, 0)
    elif kind == 4:
        message.home_nonce, message.care_of_nonce = struct.unpack_from("!HH", body)
    elif kind == 5:
        message.authentication = "binding authorization data"
    elif kind in (6, 22):
        prefix = f"{ipv6(body, 2)}/{body[1]}"
        if kind == 22 and not message.home_address:
            message.home_address = prefix
        message.add_note(f"{'home' if kind == 22 else 'mobile'} network prefix {prefix}")
    elif kind == 8:
        message.nai = clean_text(body[1:])
    elif kind == 9:
        who = {1: "MN-HA", 2: "MN-AAA"}.get(body[0], f"subtype {body[0]}")
        message.authentication = f"{who} SPI {struct.unpack_from('!I', body, 1)[0]}"
    elif kind in (10, 27):
        message.identification = int.from_bytes(body[:8], "big")
    elif kind == 24:
        message.access_technology = ACCESS_TECHNOLOGIES.get(body[1], str(body[1]))
    elif kind in (29, 37):
        message.add_note(f"IPv4 home address {ipv4(body, 2)}")
    elif kind == 32:
        message.add_note(f"IPv4 care-of address {ipv4(body, 2)}")
    elif kind == 35:
        _binding_identifier(message, body)
    elif kind == 45:
        message.flow_bindings += (flow_identification(body, message.type == Mobility.BA),)


def _binding_identifier(message: Message, body: bytes) -> None:
    """Binding Identifier option (RFC 5648 section 4.1): BID, status, H flag, no, an IPv4 or an IPv6 care-of address."""
    if len(body) not in (4, 8, 20):
        raise MalformedError(f"option 35 has {len(body)} bytes, not 4, 8 or 20 (RFC 5648 section 4.1)")
    bid, status, flags = struct.unpack_from("!HBB", body)
    address = "" if len(body) == 4 else ipv4(body, 4) if len(body) == 8 else ipv6(body, 4)
    message.bids += (bid,)
    message.care_of += ((bid, address),)
    message.bid_status += ((bid, status),)
    if flags & 0x80:
        message.bid_flags = "H"


def _text(message: Message) -> str:
    """The message in one line, for a sequence chart."""
    if message.kind == MALFORMED:
        return f"malformed: {message.problem}"
    words = [message.kind]
    if message.code >= 0:
        words.append(f"{message.code} ({message.code_text})")
    if message.sequence >= 0:
        words.append(f"seq {message.sequence}")
    words += [f"HoA {message.home_address}"] if message.home_address else []
    words += [f"CoA {message.care_of_address}"] if message.care_of_address else []
    if message.lifetime_s >= 0:
        words.append("deregister" if not message.lifetime_s else f"{message.lifetime_s} s")
    words.append(message.flags.replace(" ", ""))
    if message.cookie:
        words.append(f"cookie {as_hex(message.cookie)}")
    words += [f"home nonce {message.home_nonce}"] if message.home_nonce >= 0 else []
    words += [f"care-of nonce {message.care_of_nonce}"] if message.care_of_nonce >= 0 else []
    words += [f"BID {' '.join(map(str, message.bids[:8]))}"] if message.bids else []
    words += [f"flow {b.flow} {b.selector} to BID {' '.join(map(str, b.bids))}" for b in message.flow_bindings[:4]]
    words += [OPTION_NAMES[e] for e in message.extensions[:8] if e in ("5", "9", "44")]
    return " ".join(word for word in words if word)
