"""Messages of Mobile IPv4 on UDP port 434: fixed parts and extensions.

Sources: RFC 5944 sections 1.8-1.11 (formats), 3.3-3.5; RFC 3519 sections 3.1-3.3 (144, 44, tunnel data); RFC 3543 section 3;
RFC 4721 (36/1); RFC 4433 (139); RFC 7629 section 4 (154). `decode` costs some microseconds and looks at no more than
MAX_EXTENSIONS extensions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from analysis.mobileip.codes import (
    EXTENSION_NAMES,
    LONG_FORMAT,
    MALFORMED,
    NON_SKIPPABLE,
    REGISTRATION_FLAGS,
    UDP_KINDS,
    Udp,
    letters,
    reply_code_text,
)
from analysis.mobileip.flowbindings import flow_binding, multipath
from analysis.mobileip.message import MAX_EXTENSIONS, MalformedError, Message, clean_text, ipv4, malformed, need

_REQUEST = struct.Struct("!BBH4s4s4sQ")
_REPLY = struct.Struct("!BBH4s4sQ")
_SPI = struct.Struct("!I")
_AUTHENTICATORS = {"32": "MN-HA", "33": "MN-FA", "34": "FA-HA"}
_GENERAL_AUTHENTICATORS = {1: "MN-AAA", 2: "FA-FA", 3: "MN-GFA", 4: "MN-PAR"}
_TUNNELLED = {4: "IP-in-IP", 47: "GRE", 55: "minimal"}


def decode(data: bytes, missing: int = 0) -> Message:
    """Decode the payload of a UDP packet from or to port 434. Never raises: what cannot be gives a row of kind "malformed".

    `missing` is the number of bytes that the capture cut off: extensions behind the cut are not held against the message.
    """
    if not data:
        return malformed("no payload in the capture" if missing else "empty")
    message = Message(UDP_KINDS.get(data[0], f"type {data[0]}"), data[0])
    try:
        fixed = _fixed_part(message, data)
        if fixed:
            _extensions(message, data, fixed, missing)
    except MalformedError as error:
        message.kind, message.problem = MALFORMED, f"{UDP_KINDS.get(message.type, f'type {message.type}')}: {error}"
        if missing:
            message.add_note(f"the capture holds {len(data)} of {len(data) + missing} bytes")
    message.text = _text(message)
    return message


def _fixed_part(message: Message, data: bytes) -> int:
    """Read the fixed part; returns where extensions begin, 0 when the message has none that are understood."""
    kind = message.type
    if kind == Udp.REQUEST:
        need(len(data), 24, "fixed part")
        _, flags, message.lifetime_s, home, agent, care_of, message.identification = _REQUEST.unpack_from(data)
        message.home_address, message.home_agent, message.care_of_address = ipv4(home, 0), ipv4(agent, 0), ipv4(care_of, 0)
        message.flags = letters(flags, REGISTRATION_FLAGS, 8)
        message.encapsulation = "minimal" if flags & 0x10 else "GRE" if flags & 0x08 else "IP-in-IP"
        return 24
    if kind == Udp.REPLY:
        need(len(data), 20, "fixed part")
        _, message.code, message.lifetime_s, home, agent, message.identification = _REPLY.unpack_from(data)
        message.home_address, message.home_agent = ipv4(home, 0), ipv4(agent, 0)
        message.code_text = reply_code_text(message.code)
        return 20
    if kind == Udp.REVOCATION:
        need(len(data), 20, "fixed part")
        message.flags = letters(struct.unpack_from("!H", data, 2)[0], "AI", 16)
        message.home_address, message.home_agent, message.care_of_address = ipv4(data, 4), ipv4(data, 8), ipv4(data, 12)
        message.identification = _SPI.unpack_from(data, 16)[0]
        return 20
    if kind == Udp.REVOCATION_ACK:
        need(len(data), 12, "fixed part")
        message.flags = letters(struct.unpack_from("!H", data, 2)[0], "I", 16)
        message.home_address, message.identification = ipv4(data, 4), _SPI.unpack_from(data, 8)[0]
        return 12
    if kind == Udp.TUNNEL_DATA:
        need(len(data), 4, "tunnel data message")
        message.encapsulation = _TUNNELLED.get(data[1], f"next header {data[1]}")
    elif kind not in UDP_KINDS:
        message.add_note("unknown message type")
    return 0


def extensions(data: bytes, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk over extensions: (type, subtype or -1, begin of the data, its length); the length may reach behind the message.

    Short format: type, length, data; long format: type, subtype, 16 bits of length, data (RFC 5944 sections 1.10 and 1.11).
    """
    while at < len(data):
        kind = data[at]
        if kind in LONG_FORMAT:
            need(len(data) - at, 4, f"header of extension {kind}")
            subtype, size, at = data[at + 1], data[at + 2] << 8 | data[at + 3], at + 4
        else:
            need(len(data) - at, 2, f"header of extension {kind}")
            subtype, size, at = -1, data[at + 1], at + 2
        yield kind, subtype, at, size
        at += size


def _extensions(message: Message, data: bytes, at: int, missing: int) -> None:
    names: list[str] = []
    authenticated = False
    try:
        for kind, subtype, begin, size in extensions(data, at):
            if len(names) == MAX_EXTENSIONS:
                raise MalformedError(f"more than {MAX_EXTENSIONS} extensions")
            name = f"{kind}/{subtype}" if subtype >= 0 and kind not in (37, 38) else str(kind)
            names.append(name)
            if begin + size > len(data):
                if missing:
                    break
                raise MalformedError(f"extension {name} claims {size} bytes, {len(data) - begin} are left")
            if kind < 128 and kind not in NON_SKIPPABLE:
                message.add_note(f"extension {kind} is unknown and not skippable: receivers discard the message")
            if kind == 154 and authenticated:
                # RFC 7629 section 4: what follows the Mobile-Home authenticator is not protected and has no effect.
                message.add_note(f"extension {name} behind the MN-HA authenticator has no effect")
                continue
            _extension(message, name, data[begin : begin + size])
            authenticated |= kind == 32
    except MalformedError:
        if not missing:
            raise
    finally:
        message.extensions = tuple(names)
    if missing:
        message.add_note(f"the capture holds {len(data)} of {len(data) + missing} bytes")


def _extension(message: Message, name: str, body: bytes) -> None:
    """Take over what one extension says."""
    if name in _AUTHENTICATORS or name.startswith("36/"):
        need(len(body), 4, f"extension {name}")
        who = _AUTHENTICATORS.get(name) or _GENERAL_AUTHENTICATORS.get(int(name[3:]), name)
        one = f"{who} SPI {_SPI.unpack_from(body)[0]}"
        message.authentication = f"{message.authentication}, {one}" if message.authentication else one
    elif name == "131":
        message.nai = clean_text(body)
    elif name == "154/1":
        _multipath(message, body)
    elif name == "154/2":
        binding, objection = flow_binding(body)
        message.flow_bindings += (binding,)
        if objection:
            message.add_note(f"flow binding: {objection}")
    elif name == "144":
        need(len(body), 6, "extension 144")
        flags = letters(body[2], "FR", 8)
        inner = _TUNNELLED.get(body[3] or 4, f"next header {body[3]}")
        message.add_note(f"UDP tunnel requested for {inner}{' ' + flags if flags else ''}")
    elif name == "44":
        need(len(body), 6, "extension 44")
        forced, keepalive_s = struct.unpack_from("!HH", body, 2)
        granted = body[1] < 64
        message.encapsulation = "UDP (RFC 3519)" if granted else ""
        wish = f"UDP tunnel granted, keepalive {keepalive_s} s{', forced' if forced & 0x8000 else ''}"
        message.add_note(wish if granted else f"UDP tunnel declined, code {body[1]}")
    elif name == "130":
        message.add_note("encapsulating delivery style")
    elif name == "139":
        need(len(body), 5, "extension 139")
        message.add_note(f"{'requested' if body[0] == 1 else 'redirected'} home agent {ipv4(body, 1)}")
    elif name == "145":
        need(len(body), 1, "extension 145")
        message.add_note(f"{'home' if body[0] == 1 else 'foreign'} agent says: {clean_text(body[1:])}")
    elif name == "137":
        need(len(body), 6, "extension 137")
        message.add_note("revocation support")
    elif name == "45":
        need(len(body), 2, "extension 45")
        message.add_note(f"foreign agent error {body[1]}: {reply_code_text(body[1])}")


def _multipath(message: Message, body: bytes) -> None:
    path = multipath(body)
    if message.bids:
        message.add_note("a second multipath extension")
        return
    if message.type != Udp.REQUEST:
        message.add_note("multipath extension outside a request")
    if path.bulk and path.overwrite:
        message.add_note("flags B and O together")
    if not 1 <= path.bid <= 254:
        message.add_note(f"BID {path.bid} is reserved")
    message.bids, message.label, message.access_technology = (path.bid,), path.label, path.access_technology
    message.bid_flags = " ".join(name for name, is_set in (("B", path.bulk), ("O", path.overwrite)) if is_set)


def _text(message: Message) -> str:
    """The message in one line, for a sequence chart."""
    if message.kind == MALFORMED:
        return f"malformed: {message.problem}"
    words = [message.kind]
    if message.type == Udp.REPLY:
        words.append(f"code {message.code} ({message.code_text})")
    if message.home_address:
        words.append(f"HoA {message.home_address}")
    if message.type == Udp.REVOCATION:
        words += [f"HDA {message.home_agent}", f"FDA {message.care_of_address}"]
    elif message.care_of_address:
        words.append(f"CoA {message.care_of_address}")
    if message.lifetime_s >= 0:
        words.append(lifetime_text(message.lifetime_s))
    words.append(message.flags.replace(" ", ""))
    if message.bids:
        words.append(f"BID {message.bids[0]}{' ' + message.bid_flags if message.bid_flags else ''}")
    words += [f"{b.action} {b.selector} to BID {' '.join(map(str, b.bids))}" for b in message.flow_bindings[:4]]
    words += [EXTENSION_NAMES[e] for e in message.extensions[:8] if e in EXTENSION_NAMES and not e.startswith("154")]
    if message.type == Udp.TUNNEL_DATA:
        words.append(message.encapsulation)
    return " ".join(word for word in words if word)


def lifetime_text(lifetime_s: int) -> str:
    """A registration's lifetime in words; 65535 is infinity (RFC 5944 section 3.3)."""
    return "deregister" if lifetime_s == 0 else "no end" if lifetime_s == 0xFFFF else f"{lifetime_s} s"
