"""Links, addresses, routes and rules by raw netlink: small enough to be asked between two packets.

A snapshot of everything takes a fraction of a millisecond: the packet path of the proxy waits for it. Layouts of the
messages: linux/rtnetlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agents.kernel.netlink import IFF_UP, PIN_PROTOCOL, KernelError, carrier

_GROUPS = (1, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_*: link, IPv4 address, route and rule, IPv6 address, route and rule."""
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_GET_STRICT_CHK = 270, 1, 12
_RECEIVE_BYTES = 1 << 17
_TIMEOUT_S = 5.0

_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE, _EXCLUSIVE = 1, 4, 0x300, 0x100, 0x400, 0x200
_ERROR, _DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 6, 8, 11
_F_NODAD, _F_DADFAILED, _F_OPTIMISTIC, _F_TENTATIVE, _F_NOPREFIXROUTE = 0x02, 0x08, 0x04, 0x40, 0x200
_SCOPE_HOST = 254
_FOREVER = 0xFFFF_FFFF
_LOOPBACK = 1
"""Index of the loopback interface in every namespace."""
_FAMILY = {4: socket.AF_INET, 16: socket.AF_INET6}
_ANYWHERE = {4: socket.inet_pton(socket.AF_INET, "192.0.2.1"), 16: socket.inet_pton(socket.AF_INET6, "2001:db8:ffff:ffff::1")}
"""Addresses that only a default route leads to."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the namespace."""

    index: int
    name: str
    up: bool
    carrier: bool
    mtu: int
    gso_max_bytes: int


@dataclass(frozen=True, slots=True)
class Address:
    """A global address on an interface."""

    index: int
    address: bytes
    usable: bool
    """Not waiting for, and not refused by, duplicate address detection."""
    pinned: bool
    """The proxy added it."""


def attributes(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """The attributes between two places; malformed rests are ignored."""
    result = {}
    end = min(end, len(data))
    while at + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4 or at + size > end:
            break
        result[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return result


def _pack(*values: tuple[int, bytes]) -> bytes:
    return b"".join(_ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in values)


def parse_link(body: bytes) -> Link | None:
    """struct ifinfomsg and its attributes; None when something is missing."""
    if len(body) < 16:
        return None
    index, flags = struct.unpack_from("=iI", body, 4)
    found = attributes(body, 16, len(body))
    name = found.get(3, b"").rstrip(b"\0").decode(errors="replace")
    return Link(index, name, bool(flags & IFF_UP), carrier(flags), _number(found, 4), _number(found, 41)) if name else None


def parse_address(body: bytes) -> Address | None:
    """struct ifaddrmsg and its attributes; None unless it is a global address, or one that the proxy added."""
    if len(body) < 8:
        return None
    family, _length, flags, scope = body[:4]
    found = attributes(body, 8, len(body))
    flags = _number(found, _IFA_FLAGS) or flags
    address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    pinned = found.get(_IFA_PROTO, b"\0")[:1] == bytes((PIN_PROTOCOL,))
    if len(address) not in _FAMILY or _FAMILY[len(address)] != family or (scope and not pinned):
        return None
    unusable = flags & _F_DADFAILED or (flags & _F_TENTATIVE and not flags & _F_OPTIMISTIC)
    return Address(_U32.unpack_from(body, 4)[0], address, not unusable, pinned)


def _number(found: dict[int, bytes], kind: int) -> int:
    value = found.get(kind, b"")
    return int(_U32.unpack(value)[0]) if len(value) == 4 else 0


class RtNetlink:
    """Requests, answered at once, and a second socket that becomes readable when something changes."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._requests = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._requests.bind((0, 0))
        self._requests.settimeout(_TIMEOUT_S)
        self._requests.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._events = socket.socket(socket.AF_NETLINK, kind | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._events.bind((0, 0))
        for group in _GROUPS:
            self._events.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._sequence = 0

    def fileno(self) -> int:
        """Of the socket that tells of changes."""
        return self._events.fileno()

    def close(self) -> None:
        """Close both sockets."""
        self._requests.close()
        self._events.close()

    def read_events(self) -> bool:
        """Take all events; whether there were any. Lost ones count as events: only a snapshot tells how things are."""
        found = False
        while True:
            try:
                self._events.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            found = True

    # -- reading ------------------------------------------------------------------------------------------------------
    def links(self) -> list[Link]:
        """All interfaces. Raises KernelError."""
        bodies = self._call(_GETLINK, _DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0), "read the interfaces")
        return [link for link in map(parse_link, bodies) if link is not None]

    def addresses(self) -> list[Address]:
        """Global addresses, and those that the proxy added. Raises KernelError."""
        bodies = self._call(_GETADDR, _DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0), "read the addresses")
        return [address for address in map(parse_address, bodies) if address is not None]

    def leaves_by(self, address: bytes, mark: int = 0) -> int | None:
        """Index of the interface by which a TCP packet from this address leaves to a default route; None: refused."""
        length = len(address)
        target = _ANYWHERE[length]
        head = struct.pack("=BBBBBBBBI", _FAMILY[length], 8 * length, 8 * length, 0, 0, 0, 0, 0, 0)
        body = head + _pack((1, target), (2, address), (16, _U32.pack(mark)), (27, bytes((socket.IPPROTO_TCP,))))
        try:
            answers = list(self._call(_GETROUTE, 0, body, "look a route up"))
        except KernelError:
            return None
        if not answers or len(answers[0]) < 12 or answers[0][7] != 1:  # RTN_UNICAST
            return None
        return _number(attributes(answers[0], 12, len(answers[0])), 4) or None

    def pin_rules(self, table: int) -> list[tuple[int, bytes]]:
        """(priority, source address) of the rules of ours that lead to a table. Raises KernelError."""
        result = []
        for family in _FAMILY.values():
            for body in self._call(
                _GETRULE, _DUMP, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0), "read the rules"
            ):
                found = attributes(body, 12, len(body))
                if _number(found, 15) == table and found.get(2):
                    result.append((_number(found, 6), found[2]))
        return result

    # -- changing -----------------------------------------------------------------------------------------------------
    def add_loopback_address(self, address: bytes) -> None:
        """Make an address local without offering it to anybody: scope host, or deprecated. Raises KernelError."""
        version6 = len(address) == 16
        flags = _F_NODAD | _F_NOPREFIXROUTE if version6 else _F_NOPREFIXROUTE
        preferred = 0 if version6 else _FOREVER
        values = [(_IFA_LOCAL, address), (_IFA_ADDRESS, address), (_IFA_FLAGS, _U32.pack(flags))]
        values += [(_IFA_PROTO, bytes((PIN_PROTOCOL,))), (_IFA_CACHEINFO, struct.pack("=IIII", preferred, _FOREVER, 0, 0))]
        self._change(_NEWADDR, _CREATE | _REPLACE, self._loopback(address) + _pack(*values), f"add {text(address)} to lo")

    def delete_loopback_address(self, address: bytes) -> None:
        """Undo `add_loopback_address`. Raises KernelError."""
        body = self._loopback(address) + _pack((_IFA_LOCAL, address), (_IFA_ADDRESS, address))
        self._change(_DELADDR, 0, body, f"remove {text(address)} from lo")

    @staticmethod
    def _loopback(address: bytes) -> bytes:
        scope = 0 if len(address) == 16 else _SCOPE_HOST
        return struct.pack("=BBBBI", _FAMILY[len(address)], 8 * len(address), 0, scope, _LOOPBACK)

    def set_loopback_default(self, version: int, table: int, mtu: int) -> None:
        """A default route over lo in a table of its own, with an MTU of real interfaces. Raises KernelError."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        # IPv4: a unicast route, because a local one makes packets from the same source arrive as martians. IPv6 refuses that.
        kind, scope = (1, 253) if version == 4 else (2, 0)
        head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, PIN_PROTOCOL, scope, kind, 0)
        values = _pack((15, _U32.pack(table)), (4, _U32.pack(_LOOPBACK)), (6, _U32.pack(1)), (8, _pack((2, _U32.pack(mtu)))))
        self._change(_NEWROUTE, _CREATE | _REPLACE, head + values, f"set the default route of table {table}")

    def change_pin_rule(self, address: bytes, priority: int, table: int, mark: int, *, add: bool) -> None:
        """TCP that this host sends from an address, without the mark, looks into a table. Raises KernelError."""
        self._change_rule(address, b"", priority, table, mark, add)

    def change_pair_rule(self, pair: tuple[bytes, bytes], priority: int, table: int, mark: int, *, add: bool) -> None:
        """The same for what it sends from one address to another. Raises KernelError.

        Not for single connections: IPv4 looks for the route whose MTU has changed without ports.
        """
        self._change_rule(*pair, priority, table, mark, add)

    def _change_rule(self, local: bytes, remote: bytes, priority: int, table: int, mark: int, add: bool) -> None:
        """`remote`: empty for any."""
        head = struct.pack(
            "=BBBBBBBBI", _FAMILY[len(local)], 8 * len(remote), 8 * len(local), 0, 0, 0, 0, 1, 0
        )  # FR_ACT_TO_TBL
        values = _pack(
            *([(1, remote)] if remote else []), (2, local), (3, b"lo\0"), (6, _U32.pack(priority)), (10, _U32.pack(0)),
            (16, _U32.pack(mark)), (15, _U32.pack(table)), (21, bytes((PIN_PROTOCOL,))), (22, bytes((socket.IPPROTO_TCP,))),
        )  # fmt: skip
        kind, flags = (_NEWRULE, _CREATE | _EXCLUSIVE) if add else (_DELRULE, 0)
        to = f" to {text(remote)}" if remote else ""
        self._change(kind, flags, head + values, f"{'add' if add else 'remove'} the rule for {text(local)}{to}")

    def delete_rules(self, priority: int, table: int) -> None:
        """Remove all rules of a priority that lead to a table. Raises KernelError."""
        values = _pack((6, _U32.pack(priority)), (15, _U32.pack(table)))
        for family in _FAMILY.values():
            try:
                while True:
                    self._change(
                        _DELRULE, 0, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 1, 0) + values, "remove a rule"
                    )
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise

    def set_gso_max(self, index: int, size: int) -> None:
        """Largest superpacket that the kernel makes for an interface, in bytes. Raises KernelError."""
        values = _pack((41, _U32.pack(size)), (63, _U32.pack(size)))
        self._change(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + values, f"gso_max_size {size} of {index}")

    # -- messages -----------------------------------------------------------------------------------------------------
    def _change(self, kind: int, flags: int, body: bytes, what: str) -> None:
        for _answer in self._call(kind, flags | _ACK, body, what):
            pass

    def _call(self, kind: int, flags: int, body: bytes, what: str) -> Iterator[bytes]:
        """The bodies of the answers to a request."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFF_FFFF
        several = bool(flags & (_DUMP | _ACK)) and kind != _GETROUTE
        self._requests.send(_HEADER.pack(16 + len(body), kind, flags | _REQUEST, sequence, 0) + body)
        result: list[bytes] = []
        while True:
            data, at = self._receive(what), 0
            while at + 16 <= len(data):
                size, answer, _flags, number, _port = _HEADER.unpack_from(data, at)
                if size < 16 or at + size > len(data):
                    break
                content = data[at + 16 : at + size]
                at += (size + 3) & ~3
                if number != sequence:
                    continue
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", content)[0] if len(content) >= 4 else errno.EBADMSG
                    if code:
                        raise KernelError(code, f"{what}: {os.strerror(code)}")
                    return iter(result)
                if answer == _DONE:
                    return iter(result)
                result.append(content)
                if not several:
                    return iter(result)

    def _receive(self, what: str) -> bytes:
        try:
            return self._requests.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise KernelError(error.errno or errno.ETIMEDOUT, f"{what}: {error.strerror or error}") from None


def text(address: bytes) -> str:
    """An address as people write it."""
    return socket.inet_ntop(_FAMILY[len(address)], address)
