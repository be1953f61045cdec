"""Packets that named counters of nftables have counted, asked of the kernel directly.

nft and its library read the whole table for such a question: half a second with 10,000 home addresses, in which the agent would
do nothing else.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

_NETLINK_NETFILTER: Final = 12
_NEW_OBJECT, _GET_OBJECT = 10 << 8 | 18, 10 << 8 | 19
_REQUEST: Final = 1
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4
_COUNTER: Final = 1
_PACKETS: Final = 2
_MESSAGE, _GENERIC, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_TIMEOUT_S: Final = 2.0


def packets(table: str, names: Iterable[str]) -> dict[str, int]:
    """Counters of an IPv4 table by name; those that are not there are left out. Raises OSError."""
    result = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((0, 0))
        for sequence, name in enumerate(names, 1):
            sock.send(request(table, name, sequence))
            found = answer(sock.recv(0x4000))
            if found is not None:
                result[name] = found
    return result


def request(table: str, name: str, sequence: int) -> bytes:
    """The message that asks for a counter."""
    body = _GENERIC.pack(socket.AF_INET, 0, 0)
    for kind, value in ((_TABLE, table.encode() + b"\0"), (_NAME, name.encode() + b"\0"), (_TYPE, struct.pack("!I", _COUNTER))):
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
    return _MESSAGE.pack(_MESSAGE.size + len(body), _GET_OBJECT, _REQUEST, sequence, 0) + body


def answer(data: bytes) -> int | None:
    """Packets in the kernel's answer; None: it is an error, or says nothing of them."""
    if len(data) < _MESSAGE.size + _GENERIC.size or _MESSAGE.unpack_from(data)[1] != _NEW_OBJECT:
        return None
    objects = dict(attributes(data[_MESSAGE.size + _GENERIC.size :]))
    value = dict(attributes(objects.get(_DATA, b""))).get(_PACKETS, b"")
    return int.from_bytes(value, "big") if len(value) == 8 else None


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of netlink attributes; what is cut off is left out."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4
