"""The options of MPTCP version 1 (RFC 8684 section 3) and what is computed from keys (SHA-256).

`decode` reads an option strictly: what it accepts, `encode` writes again byte for byte, reserved bits excepted.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from agents.wire.errors import WireError

MPTCP_KIND: Final = 30
VERSION: Final = 1
FLAG_CHECKSUM: Final = 0x80
"""A: checksums are required."""
FLAG_EXTENSIBILITY: Final = 0x40
"""B: must be 0; a peer that sets it wants what does not exist yet."""
FLAG_NO_JOIN_HERE: Final = 0x20
"""C: no subflows to this address and port."""
FLAG_HMAC_SHA256: Final = 0x01
"""H."""


class Subtype(IntEnum):
    """RFC 8684 section 8.2."""

    CAPABLE = 0
    JOIN = 1
    DSS = 2
    ADD_ADDR = 3
    REMOVE_ADDR = 4
    PRIO = 5
    FAIL = 6
    FASTCLOSE = 7
    TCPRST = 8


class ResetReason(IntEnum):
    """RFC 8684 section 3.6, table 3."""

    UNSPECIFIED = 0
    MPTCP_ERROR = 1
    NO_RESOURCES = 2
    PROHIBITED = 3
    TOO_MUCH_OUTSTANDING = 4
    UNACCEPTABLE_PERFORMANCE = 5
    MIDDLEBOX = 6


class Dss(NamedTuple):
    """Data sequence signal (section 3.3): an acknowledgement, a mapping, or both. Numbers as on the wire."""

    ack: int | None = None
    ack_wide: bool = False
    """8 bytes instead of 4."""
    dsn: int | None = None
    """None: no mapping."""
    dsn_wide: bool = False
    ssn: int = 0
    """Relative to the subflow's initial sequence number."""
    length: int = 0
    """Of the mapping, a DATA_FIN included; 0: infinite mapping."""
    checksum: int | None = None
    fin: bool = False


_U32, _U64 = struct.Struct("!I"), struct.Struct("!Q")
_SSN_LENGTH = struct.Struct("!IH")
_ACK_ONLY, _ACK_ONLY_WIDE = struct.Struct("!BBBBI"), struct.Struct("!BBBBQ")
_SHORT = struct.Struct("!BBBBIIIHH")
_DSS_LENGTH = tuple(
    4 + ((8 if flags & 2 else 4) if flags & 1 else 0) + ((6 + (8 if flags & 8 else 4)) if flags & 4 else 0)
    for flags in range(16)
)
"""Length of the option for the flags A, a, M, m, without checksum."""


def read_dss(data: bytes, at: int, length: int) -> Dss | None:
    """The DSS option at `at` of `length` bytes; None when its flags and its length contradict each other."""
    if length < 4:
        return None
    flags = data[at + 3]
    need = _DSS_LENGTH[flags & 15]
    if length != need and not (length == need + 2 and flags & 4):
        return None
    at += 4
    ack = dsn = checksum = None
    ssn = mapping_length = 0
    if flags & 1:
        if flags & 2:
            ack = int.from_bytes(data[at : at + 8], "big")
            at += 8
        else:
            ack = int.from_bytes(data[at : at + 4], "big")
            at += 4
    if flags & 4:
        width = 8 if flags & 8 else 4
        dsn = int.from_bytes(data[at : at + width], "big")
        ssn, mapping_length = _SSN_LENGTH.unpack_from(data, at + width)
        if length != need:
            at += width + 6
            checksum = data[at] << 8 | data[at + 1]
    return Dss(ack, bool(flags & 2), dsn, bool(flags & 8), ssn, mapping_length, checksum, bool(flags & 16))


def encode_dss(dss: Dss) -> bytes:
    """The option, without padding."""
    flags = 0
    body = b""
    if dss.ack is not None:
        flags |= 3 if dss.ack_wide else 1
        body = _U64.pack(dss.ack & (2**64 - 1)) if dss.ack_wide else _U32.pack(dss.ack & 0xFFFFFFFF)
    if dss.dsn is not None:
        flags |= 12 if dss.dsn_wide else 4
        body += _U64.pack(dss.dsn & (2**64 - 1)) if dss.dsn_wide else _U32.pack(dss.dsn & 0xFFFFFFFF)
        body += _SSN_LENGTH.pack(dss.ssn & 0xFFFFFFFF, dss.length)
        if dss.checksum is not None:
            body += dss.checksum.to_bytes(2, "big")
    if dss.fin:
        flags |= 16
    return bytes((MPTCP_KIND, 4 + len(body), Subtype.DSS << 4, flags)) + body


@dataclass(frozen=True, slots=True)
class Capable:
    """MP_CAPABLE (section 3.1): SYN 4 bytes, SYN/ACK 12, third ACK 20, first data 22 or 24."""

    flags: int = FLAG_HMAC_SHA256
    version: int = VERSION
    sender_key: bytes = b""
    receiver_key: bytes = b""
    data_length: int | None = None
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class JoinSyn:
    """MP_JOIN in a SYN (section 3.2)."""

    backup: bool
    address_id: int
    token: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class JoinSynAck:
    """MP_JOIN in a SYN/ACK: 64 bits of the HMAC."""

    backup: bool
    address_id: int
    mac: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class JoinAck:
    """MP_JOIN in the third ACK: 160 bits of the HMAC."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class AddAddr:
    """ADD_ADDR (section 3.4.1). An echo has no HMAC."""

    address_id: int
    address: bytes
    port: int | None = None
    mac: bytes = b""
    echo: bool = False


@dataclass(frozen=True, slots=True)
class RemoveAddr:
    """REMOVE_ADDR (section 3.4.2)."""

    address_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prio:
    """MP_PRIO (section 3.3.8): of the subflow that carries it."""

    backup: bool


@dataclass(frozen=True, slots=True)
class Fail:
    """MP_FAIL (section 3.7)."""

    dsn: int


@dataclass(frozen=True, slots=True)
class Fastclose:
    """MP_FASTCLOSE (section 3.5)."""

    receiver_key: bytes


@dataclass(frozen=True, slots=True)
class TcpRst:
    """MP_TCPRST (section 3.6)."""

    reason: int
    transient: bool = False


Option: TypeAlias = Capable | JoinSyn | JoinSynAck | JoinAck | AddAddr | RemoveAddr | Prio | Fail | Fastclose | TcpRst


def encode(option: Option) -> bytes:
    """The option's bytes, without padding."""
    subtype, low, body = _encoded(option)
    return bytes((MPTCP_KIND, 3 + len(body), subtype << 4 | low)) + body


def _encoded(option: Option) -> tuple[Subtype, int, bytes]:
    """Subtype, the four bits beside it, and what follows."""
    match option:
        case Capable():
            body = bytes((option.flags,)) + option.sender_key + option.receiver_key
            if option.data_length is not None:
                body += option.data_length.to_bytes(2, "big")
                if option.checksum is not None:
                    body += option.checksum.to_bytes(2, "big")
            return Subtype.CAPABLE, option.version, body
        case JoinSyn():
            return Subtype.JOIN, int(option.backup), bytes((option.address_id,)) + option.token + option.nonce
        case JoinSynAck():
            return Subtype.JOIN, int(option.backup), bytes((option.address_id,)) + option.mac + option.nonce
        case JoinAck():
            return Subtype.JOIN, 0, b"\0" + option.mac
        case AddAddr():
            port = b"" if option.port is None else option.port.to_bytes(2, "big")
            return Subtype.ADD_ADDR, int(option.echo), bytes((option.address_id,)) + option.address + port + option.mac
        case RemoveAddr():
            return Subtype.REMOVE_ADDR, 0, bytes(option.address_ids)
        case Prio():
            return Subtype.PRIO, int(option.backup), b""
        case Fail():
            return Subtype.FAIL, 0, b"\0" + _U64.pack(option.dsn)
        case Fastclose():
            return Subtype.FASTCLOSE, 0, b"\0" + option.receiver_key
        case TcpRst():
            return Subtype.TCPRST, int(option.transient), bytes((option.reason,))


def decode(data: bytes) -> Option:
    """An option of kind 30 that is no DSS. Raises WireError for what section 3 does not allow."""
    if len(data) < 3 or data[0] != MPTCP_KIND or data[1] != len(data):
        raise WireError("MPTCP option: its length is wrong")
    subtype, low, body = data[2] >> 4, data[2] & 15, data[3:]
    reader = _READERS.get(subtype)
    option = reader(low, body) if reader is not None else None
    if option is None:
        raise WireError(f"MPTCP option of subtype {subtype} with {len(data)} bytes")
    return option


def _capable(low: int, body: bytes) -> Option | None:
    length, flags = len(body) + 3, body[0] if body else 0
    if length == 4:
        return Capable(flags, low)
    if length not in (12, 20, 22, 24):
        return None
    data_length = int.from_bytes(body[17:19], "big") if length >= 22 else None
    checksum = int.from_bytes(body[19:21], "big") if length == 24 else None
    return Capable(flags, low, body[1:9], body[9:17], data_length, checksum)


def _join(low: int, body: bytes) -> Option | None:
    backup = bool(low & 1)
    if len(body) == 9:
        return JoinSyn(backup, body[0], body[1:5], body[5:9])
    if len(body) == 13:
        return JoinSynAck(backup, body[0], body[1:9], body[9:13])
    return JoinAck(body[1:21]) if len(body) == 21 else None


def _add_addr(low: int, body: bytes) -> Option | None:
    echo = bool(low & 1)
    rest = len(body) - 1 - (0 if echo else 8)  # address and port
    width = {4: 4, 6: 4, 16: 16, 18: 16}.get(rest)
    if width is None:
        return None
    address, tail = body[1 : 1 + width], body[1 + width :]
    port = int.from_bytes(tail[:2], "big") if rest > width else None
    return AddAddr(body[0], address, port, b"" if echo else tail[-8:], echo)


_READERS: dict[int, Callable[[int, bytes], Option | None]] = {
    Subtype.CAPABLE: _capable,
    Subtype.JOIN: _join,
    Subtype.ADD_ADDR: _add_addr,
    Subtype.REMOVE_ADDR: lambda low, body: RemoveAddr(tuple(body)) if body else None,
    Subtype.PRIO: lambda low, body: None if body else Prio(bool(low & 1)),
    Subtype.FAIL: lambda low, body: Fail(int.from_bytes(body[1:], "big")) if len(body) == 9 else None,
    Subtype.FASTCLOSE: lambda low, body: Fastclose(body[1:]) if len(body) == 9 else None,
    Subtype.TCPRST: lambda low, body: TcpRst(body[0], bool(low & 1)) if len(body) == 1 else None,
}


def token(key: bytes) -> bytes:
    """4 bytes that name the connection of a key (section 3.2)."""
    return hashlib.sha256(key).digest()[:4]


def initial_dsn(key: bytes) -> int:
    """The initial data sequence number, 64 bits; the first byte of data has the next one (section 3.1)."""
    return int.from_bytes(hashlib.sha256(key).digest()[24:], "big")


def join_mac(own_key: bytes, other_key: bytes, own_nonce: bytes, other_nonce: bytes) -> bytes:
    """HMAC of the sender of an MP_JOIN, 32 bytes of which the option carries the first (section 3.2)."""
    return hmac.digest(own_key + other_key, own_nonce + other_nonce, "sha256")


def add_addr_mac(own_key: bytes, other_key: bytes, option: AddAddr) -> bytes:
    """HMAC of the sender of an ADD_ADDR: the last 8 bytes; an absent port counts as 0 (section 3.4.1)."""
    message = bytes((option.address_id,)) + option.address + (option.port or 0).to_bytes(2, "big")
    return hmac.digest(own_key + other_key, message, "sha256")[-8:]
