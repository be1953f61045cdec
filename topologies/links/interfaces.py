"""Veth pairs between nodes and the wire: make, delete, set up and down, offloads off. A pair takes a few ms."""

import ctypes
import errno
import fcntl
import itertools
import os
import socket
import struct

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from topologies.links.netns import LinkError, inside
from topologies.waiting import wait_until

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCGIFHWADDR = 0x8927
SIOCETHTOOL = 0x8946
IFF_UP = 0x1
IFF_RUNNING = 0x40
IFF_NOARP = 0x80
NTF_MASTER, NUD_REACHABLE = 0x04, 0x02  # linux/neighbour.h

# linux/ethtool.h: the commands that switch one offload each; veth knows them all.
_ETHTOOL_SET = {"tx": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
_MAX_NAME_BYTES = 15
_FIRST_OUTER_INDEX = 1_000_000


def check_name(name: str) -> None:
    """Raise LinkError unless the kernel takes this as the name of an interface."""
    if not name or len(name.encode()) > _MAX_NAME_BYTES or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise LinkError(f"interface name {name!r}: must have 1 to {_MAX_NAME_BYTES} characters, no '/', ':' or blank")


_indices = itertools.count(_FIRST_OUTER_INDEX)


def _outer_index() -> int:
    """An index for the outer end that no interface of a node has.

    When both ends of a veth pair happen to have the same index, each in its own namespace, the kernel takes them
    for ordinary devices and reports a change of carrier up to 1 s late (linkwatch_urgent_event).
    """
    return next(_indices)


def add_pair(wire: int, outer: str, node: int, inner: str, mac: str | None) -> None:
    """Make a veth pair: `outer` in the namespace `wire`, `inner` in the namespace `node`; both are set up.

    The inner end has checksum and segmentation offloads off. Raises LinkError.
    """
    check_name(inner)
    peer: dict[str, object] = {"ifname": inner, "net_ns_fd": node}
    if mac:
        peer["address"] = mac
    # A fresh netlink socket each time: pyroute2 opens one per thread, and would do so in that thread's namespace.
    try:
        with inside(wire), IPRoute() as netlink:
            netlink.link("add", ifname=outer, index=_outer_index(), kind="veth", peer=peer)
    except NetlinkError as error:
        raise LinkError(f"cannot make interface {inner}: {os.strerror(error.code)}") from error
    with inside(node):
        disable_offloads(inner)
        set_up(inner, True)
    with inside(wire):
        set_up(outer, True, noarp=True)
    wait_carrier(node, inner, True)


def delete_interface(namespace: int, name: str) -> None:
    """Delete an interface, and with it the other end of a veth pair. Absent is fine."""
    with inside(namespace), IPRoute() as netlink:
        try:
            netlink.link("del", ifname=name)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise LinkError(f"cannot delete interface {name}: {os.strerror(error.code)}") from error


def learn_station(namespace: int, port: str, mac: str) -> None:
    """The bridge of `port` knows at once that a station is there, as an access point announces one that has roamed to it.

    Without a helper program: two hosts may move at the same moment. Raises LinkError.
    """
    with inside(namespace), IPRoute() as netlink:
        try:
            netlink.fdb(
                "replace", ifindex=socket.if_nametoindex(port), lladdr=mac, state=NUD_REACHABLE, flags=NTF_MASTER
            )  # fmt: skip
        except (OSError, NetlinkError) as error:
            raise LinkError(f"bridge of {port}: cannot learn {mac}: {error}") from error


def _request(name: str) -> bytes:
    return struct.pack("16s", name.encode())


def interface_flags(control: socket.socket, name: str) -> int:
    """The flags of an interface in the namespace of `control` (netdevice(7)). Raises OSError."""
    reply = fcntl.ioctl(control, SIOCGIFFLAGS, _request(name) + bytes(24))
    return int(struct.unpack_from("H", reply, 16)[0])


def mac_of(namespace: int, name: str) -> str:
    """The MAC address of an interface."""
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        reply = fcntl.ioctl(control, SIOCGIFHWADDR, _request(name) + bytes(24))
    return reply[18:24].hex(":")


def set_up(name: str, up: bool, noarp: bool = False) -> None:
    """Set an interface of the current namespace up or down; returns when it is done."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            flags = interface_flags(control, name)
            flags = flags | IFF_UP if up else flags & ~IFF_UP
            if noarp:
                flags |= IFF_NOARP
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))
        except OSError as error:
            raise LinkError(f"cannot set {name} {'up' if up else 'down'}: {error.strerror}") from error


def wait_carrier(namespace: int, name: str, up: bool) -> None:
    """Return when an interface that is administratively up shows (or no longer shows) carrier.

    The kernel tells the other end of a veth pair through a work queue, most often within 0.1 ms.
    """

    def shown() -> bool:
        with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            flags = interface_flags(control, name)
        return not flags & IFF_UP or bool(flags & IFF_RUNNING) == up

    wait_until(shown, 2.0, f"{name} shows carrier {'up' if up else 'down'}", poll_s=0.0005)
    # The flag shows before the kernel lets frames through (or stops them), but within the same hold of its
    # configuration lock. Setting nothing takes that lock: afterwards the change is complete.
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), interface_flags(control, name)))


def disable_offloads(name: str) -> None:
    """Switch off checksum and segmentation offloads of an interface of the current namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for feature, command in _ETHTOOL_SET.items():
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sQ16x", name.encode(), ctypes.addressof(value))
            try:
                fcntl.ioctl(control, SIOCETHTOOL, request)
            except OSError as error:
                raise LinkError(f"cannot switch off {feature} offload of {name}: {error.strerror}") from error
