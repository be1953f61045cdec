"""The inner side of a tunnel in user space: an interface whose packets this process reads and writes.

A TUN device where /dev/net/tun can be opened. Where it is closed, as it is to ordinary users without udev, a pair of
virtual Ethernet interfaces does the same: its other end (the name with an x behind) is read by a packet socket. Its frames
carry the MAC address of the near end, so the other end's IP takes none of them.
"""

import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, Protocol

from agents.kernel.mobileip.netlink import MobileNetlink
from agents.kernel.mobileip.tunnels.offload import VNET_HEADER
from agents.kernel.mobileip.tunnels.tun import open_tun

_READ_BYTES: Final = 0x10000 + 64
_ETH_P_IP: Final = 0x0800
_ETHERNET_BYTES: Final = 14
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_NEEDS_CHECKSUM = 1


class Inner(Protocol):
    """Packets with an offload header in front (offload.py)."""

    def fileno(self) -> int:
        """For the event loop."""

    def read(self) -> bytes:
        """One packet. Raises BlockingIOError when there is none."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """One packet, in parts; the first is the offload header. Raises OSError."""

    def close(self) -> None:
        """The interface is gone afterwards."""


class TunInner:
    """A TUN device."""

    def __init__(self, name: str, *, offloads: bool) -> None:
        self._descriptor = open_tun(name, offloads=offloads)

    def fileno(self) -> int:
        """For the event loop."""
        return self._descriptor

    def read(self) -> bytes:
        """One packet. Raises BlockingIOError when there is none."""
        return os.read(self._descriptor, _READ_BYTES)

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """One packet, in parts. Raises OSError."""
        os.writev(self._descriptor, buffers)

    def close(self) -> None:
        """The interface is gone afterwards."""
        os.close(self._descriptor)


class PairInner:
    """A pair of virtual Ethernet interfaces."""

    def __init__(self, name: str, netlink: MobileNetlink) -> None:
        self._name, self._netlink = name, netlink
        far = name + "x"
        netlink.create_pair(name, far)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, direction, 4 << 20)
            self._socket.bind((far, _ETH_P_IP))
            netlink.set_link(far)
        except OSError:
            self.close()
            raise
        far_address, near_address = self._socket.getsockname()[4], _link_address(name)
        self._frame = near_address + far_address + struct.pack("!H", _ETH_P_IP)

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def read(self) -> bytes:
        """One packet. Raises BlockingIOError when there is none."""
        data = self._socket.recv(_READ_BYTES)
        return _moved(data[: VNET_HEADER.size], -_ETHERNET_BYTES) + data[VNET_HEADER.size + _ETHERNET_BYTES :]

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """One packet, in parts. Raises OSError."""
        os.writev(self._socket.fileno(), [_moved(bytes(buffers[0]), _ETHERNET_BYTES), self._frame, *buffers[1:]])

    def close(self) -> None:
        """Both interfaces are gone afterwards."""
        self._socket.close()
        self._netlink.delete_link(self._name)


def open_inner(name: str, netlink: MobileNetlink, *, offloads: bool) -> Inner:
    """The interface `name`. Raises OSError with one line when neither way works."""
    try:
        return TunInner(name, offloads=offloads)
    except OSError as error:
        if not isinstance(error, PermissionError | FileNotFoundError):
            raise
        return PairInner(name, netlink)


def _moved(header: bytes, by: int) -> bytes:
    """The offload header counts from the beginning of the frame; here it counts from the packet."""
    flags, kind, length, size, start, offset = VNET_HEADER.unpack(header)
    if not flags & _NEEDS_CHECKSUM and not kind:
        return header
    return VNET_HEADER.pack(flags, kind, max(0, length + by), size, max(0, start + by), offset)


def _link_address(name: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((name, 0))
        address: bytes = sock.getsockname()[4]
        return address
