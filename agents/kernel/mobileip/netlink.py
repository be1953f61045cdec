"""What Mobile IP changes by netlink: tunnel interfaces, addresses, routes, rules, neighbours. Layouts: linux/rtnetlink.h."""

import contextlib
import errno
import os
import socket
import struct
from typing import Final

from agents.kernel.netlink import KernelError
from agents.kernel.proxy.rtnetlink import RtNetlink, attributes

PROTOCOL: Final = 202
"""Marks routes, rules and addresses of Mobile IP (RTPROT_*, FRA_PROTOCOL, IFA_PROTO)."""
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 17, 20, 21, 24, 25, 26
_NEWNEIGH, _DELNEIGH, _NEWRULE, _DELRULE, _GETRULE = 28, 29, 32, 33, 34
_ERROR, _DONE, _REQUEST = 2, 3, 1
_HEADER = struct.Struct("=IHHII")
_REPLACE, _EXCLUSIVE, _CREATE, _DUMP = 0x100, 0x200, 0x400, 0x300
_IFF_UP, _IFF_NOARP = 0x1, 0x80
UNICAST, UNREACHABLE, THROW = 1, 7, 9
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ONLINK = 4
_NUD_PERMANENT, _NTF_PROXY = 0x80, 0x08
_FOREVER = 0xFFFF_FFFF
_F_NOPREFIXROUTE = 0x200
_U32 = struct.Struct("=I")
_IPTUN_LINK, _IPTUN_LOCAL, _IPTUN_REMOTE, _IPTUN_TTL = 1, 2, 3, 4
_GRE_LINK, _GRE_LOCAL, _GRE_REMOTE, _GRE_TTL = 1, 6, 7, 8
OUTER_TTL: Final = 64
_SUPPRESS_PREFIX_LENGTH = 14
_RTA_METRICS, _RTAX_LOCK, _RTAX_CC_ALGO = 8, 1, 16


def _pack(*values: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in values)


def _u32(value: int) -> bytes:
    return _U32.pack(value)


class MobileNetlink(RtNetlink):
    """Every change may be repeated: what is there already, or gone already, is no error. All raise KernelError."""

    # -- interfaces ---------------------------------------------------------------------------------------------------
    def create_tunnel(self, name: str, kind: str, local: str, remote: str, link: int) -> None:
        """A tunnel interface of the kernel: kind "ipip" or "gre"; link: index of the physical interface, 0: any."""
        ends = socket.inet_aton(local), socket.inet_aton(remote)
        if kind == "ipip":
            data = [(_IPTUN_LOCAL, ends[0]), (_IPTUN_REMOTE, ends[1]), (_IPTUN_TTL, bytes((OUTER_TTL,)))]
            data += [(_IPTUN_LINK, _u32(link))] if link else []
        else:
            data = [(_GRE_LOCAL, ends[0]), (_GRE_REMOTE, ends[1]), (_GRE_TTL, bytes((OUTER_TTL,)))]
            data += [(_GRE_LINK, _u32(link))] if link else []
        info = _pack((1, kind.encode()), (2, _pack(*data)))
        head = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        body = head + _pack((3, name.encode() + b"\0"), (18, info))
        self._change(_NEWLINK, _CREATE | _EXCLUSIVE, body, f"make the interface {name} ({kind})")

    def create_pair(self, name: str, other: str) -> None:
        """Two virtual Ethernet interfaces that are joined; the first resolves no addresses (NOARP)."""
        peer = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _pack((3, other.encode() + b"\0"))
        info = _pack((1, b"veth"), (2, _pack((1, peer))))
        body = struct.pack("=BxHiII", 0, 0, 0, _IFF_NOARP, _IFF_NOARP) + _pack((3, name.encode() + b"\0"), (18, info))
        self._change(_NEWLINK, _CREATE | _EXCLUSIVE, body, f"make the interfaces {name} and {other}")

    def delete_link(self, name: str) -> None:
        """Remove an interface."""
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _pack((3, name.encode() + b"\0"))
        self._forgiving(_DELLINK, body, f"remove the interface {name}")

    def set_link(self, name: str, mtu: int = 0, *, up: bool = True) -> None:
        """Set an interface up or down, and its MTU (0: as it is)."""
        flags = _IFF_UP if up else 0
        values = [(3, name.encode() + b"\0")] + ([(4, _u32(mtu))] if mtu else [])
        body = struct.pack("=BxHiII", 0, 0, 0, flags, _IFF_UP) + _pack(*values)
        self._change(_NEWLINK, 0, body, f"set {name} {'up' if up else 'down'}")

    # -- addresses ----------------------------------------------------------------------------------------------------
    def add_address(self, interface: str, address: str, prefix_length: int = 32) -> None:
        """Add an address, without a route to its prefix."""
        values = _pack((2, socket.inet_aton(address)), (1, socket.inet_aton(address)), (8, _u32(_F_NOPREFIXROUTE)),
                       (11, bytes((PROTOCOL,))), (6, struct.pack("=IIII", _FOREVER, _FOREVER, 0, 0)))  # fmt: skip
        body = struct.pack("=BBBBI", socket.AF_INET, prefix_length, 0, _SCOPE_UNIVERSE, socket.if_nametoindex(interface))
        self._change(_NEWADDR, _CREATE | _REPLACE, body + values, f"add {address} to {interface}")

    def delete_address(self, interface: str, address: str, prefix_length: int = 32) -> None:
        """Remove an address; fine when the interface is gone."""
        with contextlib.suppress(OSError):
            index = socket.if_nametoindex(interface)
            body = struct.pack("=BBBBI", socket.AF_INET, prefix_length, 0, 0, index)
            values = _pack((2, socket.inet_aton(address)), (1, socket.inet_aton(address)))
            self._forgiving(_DELADDR, body + values, f"remove {address} from {interface}")

    # -- routes -------------------------------------------------------------------------------------------------------
    def set_route(
        self,
        table: int,
        destination: str,
        length: int,
        *,
        interface: str = "",
        gateway: str = "",
        source: str = "",
        kind: int = UNICAST,
        metric: int = 0,
        congestion_control: str = "",
    ) -> None:
        """A route to a prefix; replaces the one of the same table, prefix and metric. `gateway` needs no route of its own."""
        scope = _SCOPE_LINK if interface and not gateway else _SCOPE_UNIVERSE
        flags = _ONLINK if gateway else 0
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 0, PROTOCOL, scope, kind, flags)
        values = [(15, _u32(table)), (6, _u32(metric))]
        values += [(1, socket.inet_aton(destination))] if length else []
        values += [(4, _u32(socket.if_nametoindex(interface)))] if interface else []
        values += [(5, socket.inet_aton(gateway))] if gateway else []
        values += [(7, socket.inet_aton(source))] if source else []
        if congestion_control:
            name = congestion_control.encode() + b"\0"
            values.append((_RTA_METRICS, _pack((_RTAX_LOCK, _u32(1 << _RTAX_CC_ALGO)), (_RTAX_CC_ALGO, name))))
        what = f"route {destination}/{length} dev {interface or '-'} table {table}"
        self._change(_NEWROUTE, _CREATE | _REPLACE, head + _pack(*values), what)

    def delete_route(self, table: int, destination: str, length: int, metric: int = 0) -> None:
        """Remove the route of a table to a prefix."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 0, 0, 255, 0, 0)
        values = [(15, _u32(table)), (6, _u32(metric))] + ([(1, socket.inet_aton(destination))] if length else [])
        self._forgiving(_DELROUTE, head + _pack(*values), f"remove the route {destination}/{length} of table {table}")

    def flush_routes(self, tables: range) -> int:
        """Remove all routes of ours in these tables; how many."""
        found = []
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._dump(_GETROUTE, head, "read the routes"):
            values = attributes(body, 12, len(body))
            table = _U32.unpack(values.get(15, bytes(4)))[0]
            if body[5] == PROTOCOL and table in tables:
                found.append((table, socket.inet_ntoa(values.get(1, bytes(4))), body[1], values.get(6, bytes(4))))
        for table, destination, length, metric in found:
            self.delete_route(table, destination, length, _U32.unpack(metric)[0])
        return len(found)

    def default_gateway(self, interface: str) -> str:
        """Gateway of a default route by an interface, in any table; "" when there is none."""
        index, head = socket.if_nametoindex(interface), struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._dump(_GETROUTE, head, "read the routes"):
            values = attributes(body, 12, len(body))
            if body[1] == 0 and body[5] != PROTOCOL and values.get(4) == _u32(index) and values.get(5):
                return socket.inet_ntoa(values[5])
        return ""

    # -- rules --------------------------------------------------------------------------------------------------------
    def change_rule(
        self,
        priority: int,
        table: int,
        *,
        add: bool,
        mark: int = 0,
        mask: int = 0,
        source: str = "",
        specific: bool = False,
    ) -> None:
        """A rule for packets with a mark, or from an address ("0.0.0.0": those that have no source address yet).

        specific: default routes of the table do not count.
        """
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 32 if source else 0, 0, 0, 0, 0, 1, 0)
        values = [(6, _u32(priority)), (15, _u32(table)), (21, bytes((PROTOCOL,)))]
        values += [(2, socket.inet_aton(source))] if source else []
        values += [(10, _u32(mark)), (16, _u32(mask))] if mask else []
        values += [(_SUPPRESS_PREFIX_LENGTH, _u32(0))] if specific else []
        what = f"rule {priority} for {source or hex(mark)} to table {table}"
        if add:
            with _already(errno.EEXIST):
                self._change(_NEWRULE, _CREATE | _EXCLUSIVE, head + _pack(*values), f"add the {what}")
        else:
            self._forgiving(_DELRULE, head + _pack(*values), f"remove the {what}")

    def remove_rules(self, priorities: range) -> int:
        """Remove all rules of ours with these priorities; how many."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        number = 0
        for body in self._dump(_GETRULE, head, "read the rules"):
            values = attributes(body, 12, len(body))
            if values.get(21) == bytes((PROTOCOL,)) and _U32.unpack(values.get(6, bytes(4)))[0] in priorities:
                kept = {kind: values[kind] for kind in (1, 2, 6, 10, 14, 15, 16, 21) if kind in values}
                self._forgiving(_DELRULE, body[:12] + _pack(*kept.items()), "remove a rule")
                number += 1
        return number

    # -- neighbours ---------------------------------------------------------------------------------------------------
    def change_neighbour(self, interface: str, address: str, link_address: str = "", *, add: bool) -> None:
        """A permanent entry; without `link_address`: this host answers ARP for the address on this interface (proxy)."""
        flags = 0 if link_address else _NTF_PROXY
        head = struct.pack("=BxHiHBB", socket.AF_INET, 0, socket.if_nametoindex(interface), _NUD_PERMANENT, flags, 0)
        values = [(1, socket.inet_aton(address))]
        values += [(2, bytes.fromhex(link_address.replace(":", "")))] if link_address and add else []
        what = f"neighbour {address} on {interface}"
        if add:
            self._change(_NEWNEIGH, _CREATE | _REPLACE, head + _pack(*values), f"add the {what}")
        else:
            self._forgiving(_DELNEIGH, head + _pack(*values), f"remove the {what}")

    def _dump(self, kind: int, head: bytes, what: str) -> list[bytes]:
        """The bodies of all answers: `_call` takes routes one at a time."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFF_FFFF
        self._requests.send(_HEADER.pack(16 + len(head), kind, _DUMP | _REQUEST, sequence, 0) + head)
        result: list[bytes] = []
        while True:
            data, at = self._receive(what), 0
            while at + 16 <= len(data):
                size, answer, _flags, number, _port = _HEADER.unpack_from(data, at)
                content = data[at + 16 : at + size]
                at += max(16, size + 3 & ~3)
                if number != sequence:
                    continue
                if answer == _DONE:
                    return result
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise KernelError(code, f"{what}: {os.strerror(code)}")
                result.append(content)

    def _forgiving(self, kind: int, body: bytes, what: str) -> None:
        with _already(errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL):
            self._change(kind, 0, body, what)


class _already(contextlib.AbstractContextManager[None]):
    """Errors that say that a change has been made before."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        return isinstance(error, KernelError) and error.errno in self._numbers
