"""Messages of Mobile IPv4 on UDP port 434: octets <-> values (RFC 5944 sections 1.10, 1.11, 3.3-3.5, RFC 3519, RFC 7629).

`decode` is strict: what it accepts, `encode` turns into the same octets again. Bits that the RFCs have a receiver ignore are no
ground for refusal (r and x of a request, the reserved bits of extensions 144, 44 and 154 and of tunnel data). They are kept in
`flags` and in the fields `reserved`: values compare equal without them, and authenticators cover them.
Extensions of unknown types from 128 on are kept as they are. One of an unknown type below 128 makes the whole message worthless
(RFC 5944 section 1.8), and so does an extension of a known type whose length cannot be. A traffic selector that cannot be read
does not: its flow binding has no `selector`, and the receiver can answer it.
The type 154 has the long format although its number is in the range of the short one (RFC 7629 section 4).

This is `struct`, not scapy, because a home agent must decode, verify and answer thousands of requests per second. The layers
for scapy are in `layers`; tests hold both against each other, message by message in both directions.
"""

import struct
from collections.abc import Callable

from agents.wire.errors import WireError
from agents.wire.mobileip import selectors
from agents.wire.mobileip.addresses import ipv4_octets, ipv4_text
from agents.wire.mobileip.peek import EXTENSIONS_MAX, MESSAGE_OCTETS_MAX, REPLY, REQUEST, TUNNEL_DATA
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Challenge,
    EncapsulatingDelivery,
    Extension,
    FlowBinding,
    GeneralizedAuthentication,
    Message,
    Multipath,
    Nai,
    Reply,
    Request,
    RequestFlag,
    TunnelData,
    UdpTunnelReply,
    UdpTunnelRequest,
    UnknownExtension,
)

__all__ = ["EXTENSIONS_MAX", "MESSAGE_OCTETS_MAX", "decode", "encode"]

_REQUEST = struct.Struct("!BBH4s4s4sQ")
_REPLY = struct.Struct("!BBH4s4sQ")
_TUNNEL_DATA = struct.Struct("!BBH")
_SHORT = struct.Struct("!BB")
_LONG = struct.Struct("!BBH")
_SPI = struct.Struct("!I")
_UDP_REQUEST = struct.Struct("!BBBBH")
_UDP_REPLY = struct.Struct("!BBHH")

_GENERALIZED, _UDP_TUNNEL_REPLY, _ENCAPSULATING, _NAI, _CHALLENGE, _UDP_TUNNEL_REQUEST, _FLOWS = 36, 44, 130, 131, 132, 144, 154
_MULTIPATH, _FLOW_BINDING = 1, 2  # subtypes of 154
_SKIPPABLE = 128
_FLAGS = tuple(map(RequestFlag, range(256)))
_AUTHENTICATORS = {int(kind): kind for kind in AuthenticationKind}


def decode(data: bytes) -> Message:
    """The message in a UDP payload, with the offset of each extension. Raises WireError, and nothing else."""
    data = bytes(data)
    if not data:
        raise WireError("message of 0 octets")
    kind = data[0]
    if kind == REQUEST:
        _check_size(data, _REQUEST.size, "registration request")
        _, flags, lifetime_s, home, agent, care_of, identification = _REQUEST.unpack_from(data)
        extensions, offsets = _read_extensions(data, _REQUEST.size)
        return Request(
            ipv4_text(home),
            ipv4_text(agent),
            ipv4_text(care_of),
            lifetime_s,
            identification,
            _FLAGS[flags],
            extensions,
            offsets,
        )
    if kind == REPLY:
        _check_size(data, _REPLY.size, "registration reply")
        _, code, lifetime_s, home, agent, identification = _REPLY.unpack_from(data)
        extensions, offsets = _read_extensions(data, _REPLY.size)
        return Reply(code, ipv4_text(home), ipv4_text(agent), lifetime_s, identification, extensions, offsets)
    if kind == TUNNEL_DATA:
        if len(data) < _TUNNEL_DATA.size:
            raise WireError(f"tunnel data of {len(data)} octets, its header has {_TUNNEL_DATA.size}")
        _, next_header, reserved = _TUNNEL_DATA.unpack_from(data)
        return TunnelData(next_header, data[_TUNNEL_DATA.size :], reserved)
    raise WireError(f"message type {kind} is not known")


def _check_size(data: bytes, fixed: int, what: str) -> None:
    if not fixed <= len(data) <= MESSAGE_OCTETS_MAX:
        raise WireError(f"{what} of {len(data)} octets, {fixed} to {MESSAGE_OCTETS_MAX} are possible")


def _read_extensions(data: bytes, at: int) -> tuple[tuple[Extension, ...], tuple[int, ...]]:
    found: list[Extension] = []
    offsets: list[int] = []
    size = len(data)
    while at < size:
        if len(found) == EXTENSIONS_MAX:
            raise WireError(f"more than {EXTENSIONS_MAX} extensions")
        offsets.append(at)
        kind = data[at]
        long_reader = _LONG_READERS.get(kind)
        begin = at + (4 if long_reader else 2)
        if begin > size:
            raise WireError(f"extension {kind} at {at}: its header does not fit into {size} octets")
        at = begin + (data[begin - 2] << 8 | data[begin - 1] if long_reader else data[begin - 1])
        if at > size:
            raise WireError(f"extension {kind} at {offsets[-1]}: its length leads to {at}, the message has {size} octets")
        body = data[begin:at]
        if long_reader:
            found.append(long_reader(data[begin - 3], body))
        else:
            found.append(_SHORT_READERS.get(kind, _read_unknown)(kind, body))
    return tuple(found), tuple(offsets)


def _read_authentication(kind: int, body: bytes) -> Extension:
    if len(body) < _SPI.size:
        raise WireError(f"authentication extension {kind}: length {len(body)} has no room for the SPI")
    return Authentication(_AUTHENTICATORS[kind], _SPI.unpack_from(body)[0], body[_SPI.size :])


def _read_generalized(subtype: int, body: bytes) -> Extension:
    if len(body) < _SPI.size:
        raise WireError(f"generalised authentication extension: length {len(body)} has no room for the SPI")
    return GeneralizedAuthentication(subtype, _SPI.unpack_from(body)[0], body[_SPI.size :])


def _read_encapsulating(_kind: int, body: bytes) -> Extension:
    if body:
        raise WireError(f"encapsulating delivery extension: length {len(body)}, not 0")
    return EncapsulatingDelivery()


def _read_nai(_kind: int, body: bytes) -> Extension:
    return Nai(body)


def _read_challenge(_kind: int, body: bytes) -> Extension:
    return Challenge(body)


def _read_udp_request(kind: int, body: bytes) -> Extension:
    if body and body[0]:
        return UnknownExtension(kind, body)  # a subtype to come
    if len(body) != _UDP_REQUEST.size:
        raise WireError(f"UDP tunnel request: length {len(body)}, not {_UDP_REQUEST.size}")
    _, reserved1, flags, encapsulation, reserved3 = _UDP_REQUEST.unpack(body)
    reserved = reserved1 << 22 | (flags & 0x3F) << 16 | reserved3
    return UdpTunnelRequest(flags & 0x80 > 0, flags & 0x40 > 0, encapsulation, reserved)


def _read_udp_reply(_kind: int, body: bytes) -> Extension:
    if len(body) != _UDP_REPLY.size or body[0]:
        raise WireError(f"UDP tunnel reply: length {len(body)}, subtype {body[:1].hex()}; not {_UDP_REPLY.size} and 0")
    _, code, flags, keepalive_s = _UDP_REPLY.unpack(body)
    return UdpTunnelReply(code, flags & 0x8000 > 0, keepalive_s, flags & 0x7FFF)


def _read_flows(subtype: int, body: bytes) -> Extension:
    if subtype == _MULTIPATH:
        if len(body) != 4:
            raise WireError(f"multipath extension: length {len(body)}, not 4 (RFC 7629 section 4.1)")
        technology, label, bid, flags = body
        return Multipath(bid, label, technology, flags & 0x80 > 0, flags & 0x40 > 0, flags & 0x3F)
    if subtype == _FLOW_BINDING:
        return _read_flow_binding(body)
    return UnknownExtension(_FLOWS, bytes((subtype,)) + body)


def _read_flow_binding(body: bytes) -> FlowBinding:
    if len(body) < 3 or len(body) < 3 + body[1]:
        raise WireError(f"flow binding extension: length {len(body)} has no room for its BIDs and the selector format")
    behind_bids = 2 + body[1]
    selector_format, raw = body[behind_bids], body[behind_bids + 1 :]
    try:
        selector = selectors.decode(selector_format, raw)
    except WireError:
        selector = None
    return FlowBinding(body[0], tuple(body[2:behind_bids]), selector_format, raw, selector)


def _read_unknown(kind: int, body: bytes) -> Extension:
    if kind < _SKIPPABLE:
        raise WireError(f"extension {kind} is not known and not skippable")
    return UnknownExtension(kind, body)


_SHORT_READERS: dict[int, Callable[[int, bytes], Extension]] = {
    **dict.fromkeys(_AUTHENTICATORS, _read_authentication),
    _UDP_TUNNEL_REPLY: _read_udp_reply,
    _ENCAPSULATING: _read_encapsulating,
    _NAI: _read_nai,
    _CHALLENGE: _read_challenge,
    _UDP_TUNNEL_REQUEST: _read_udp_request,
}
_LONG_READERS: dict[int, Callable[[int, bytes], Extension]] = {_GENERALIZED: _read_generalized, _FLOWS: _read_flows}


def encode(message: Message) -> bytes:
    """The octets of a message. Raises WireError, naming the field, for a value that cannot be written."""
    try:
        if isinstance(message, Request):
            head = _REQUEST.pack(
                REQUEST, message.flags, message.lifetime_s, ipv4_octets(message.home_address), ipv4_octets(message.home_agent),
                ipv4_octets(message.care_of_address), message.identification,
            )  # fmt: skip
        elif isinstance(message, Reply):
            head = _REPLY.pack(
                REPLY, message.code, message.lifetime_s, ipv4_octets(message.home_address), ipv4_octets(message.home_agent),
                message.identification,
            )  # fmt: skip
        else:
            return _TUNNEL_DATA.pack(TUNNEL_DATA, message.next_header, message.reserved) + message.inner
    except struct.error as error:
        raise WireError(f"{message}: {error}") from None
    if len(message.extensions) > EXTENSIONS_MAX:
        raise WireError(f"{len(message.extensions)} extensions, at most {EXTENSIONS_MAX} are possible")
    data = head + b"".join(map(encode_extension, message.extensions))
    if len(data) > MESSAGE_OCTETS_MAX:
        raise WireError(f"message of {len(data)} octets, at most {MESSAGE_OCTETS_MAX} are possible")
    return data


def encode_extension(extension: Extension) -> bytes:
    """The octets of one extension, header included. Raises WireError."""
    try:
        return _WRITERS[type(extension)](extension)
    except struct.error as error:
        raise WireError(f"{extension}: {error}") from None


def _short(kind: int, body: bytes) -> bytes:
    if len(body) > 255:
        raise WireError(f"extension {kind}: {len(body)} octets, the short format takes 255")
    return _SHORT.pack(kind, len(body)) + body


def _write_authentication(extension: Authentication) -> bytes:
    if extension.kind not in _AUTHENTICATORS:
        raise WireError(f"{extension.kind} is no type of an authentication extension")
    return _short(extension.kind, _SPI.pack(extension.spi) + extension.authenticator)


def _write_generalized(extension: GeneralizedAuthentication) -> bytes:
    head = _LONG.pack(_GENERALIZED, extension.subtype, _SPI.size + len(extension.authenticator))
    return head + _SPI.pack(extension.spi) + extension.authenticator


def _write_encapsulating(_extension: EncapsulatingDelivery) -> bytes:
    return _short(_ENCAPSULATING, b"")


def _write_nai(extension: Nai) -> bytes:
    return _short(_NAI, extension.value)


def _write_challenge(extension: Challenge) -> bytes:
    return _short(_CHALLENGE, extension.value)


def _write_udp_request(extension: UdpTunnelRequest) -> bytes:
    flags = extension.force << 7 | extension.registration_required << 6 | extension.reserved >> 16 & 0x3F
    reserved1, reserved3 = extension.reserved >> 22, extension.reserved & 0xFFFF
    return _short(_UDP_TUNNEL_REQUEST, _UDP_REQUEST.pack(0, reserved1, flags, extension.encapsulation, reserved3))


def _write_udp_reply(extension: UdpTunnelReply) -> bytes:
    flags = extension.force << 15 | _bits(extension.reserved, 15)
    return _short(_UDP_TUNNEL_REPLY, _UDP_REPLY.pack(0, extension.code, flags, extension.keepalive_s))


def _write_multipath(extension: Multipath) -> bytes:
    flags = extension.bulk << 7 | extension.overwrite << 6 | _bits(extension.reserved, 6)
    head = _LONG.pack(_FLOWS, _MULTIPATH, 4)
    return head + struct.pack("!BBBB", extension.technology, extension.label, extension.bid, flags)


def _write_flow_binding(extension: FlowBinding) -> bytes:
    count = len(extension.bids)
    length = 3 + count + len(extension.raw_selector)
    head = _LONG.pack(_FLOWS, _FLOW_BINDING, length)
    fields = struct.pack(f"!BB{count}BB", extension.action, count, *extension.bids, extension.selector_format)
    return head + fields + extension.raw_selector


def _write_unknown(extension: UnknownExtension) -> bytes:
    kind, data = extension.type, extension.data
    if kind == _FLOWS and data and data[0] not in (_MULTIPATH, _FLOW_BINDING):
        return _LONG.pack(kind, data[0], len(data) - 1) + data[1:]
    if (kind == _UDP_TUNNEL_REQUEST and data and data[0]) or (kind >= _SKIPPABLE and kind not in _KNOWN):
        return _short(kind, data)
    raise WireError(f"extension {kind} cannot be written as an unknown one")


def _bits(value: int, width: int) -> int:
    if value >> width:
        raise WireError(f"reserved bits {value:#x} do not fit into {width}")
    return value


_KNOWN = {*_SHORT_READERS, *_LONG_READERS}
_WRITERS: dict[type, Callable[..., bytes]] = {
    Authentication: _write_authentication,
    GeneralizedAuthentication: _write_generalized,
    EncapsulatingDelivery: _write_encapsulating,
    Nai: _write_nai,
    Challenge: _write_challenge,
    UdpTunnelRequest: _write_udp_request,
    UdpTunnelReply: _write_udp_reply,
    Multipath: _write_multipath,
    FlowBinding: _write_flow_binding,
    UnknownExtension: _write_unknown,
}
