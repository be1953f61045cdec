"""The outer side of tunnels: raw sockets for IP in IP and GRE, UDP sockets for tunnel data messages.

Every socket is bound to the outer source address and, where given, to the physical interface: an outer packet cannot be routed
into a tunnel. TOS and DF of the inner packet are copied (RFC 2003 section 3.1).
"""

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from agents.kernel.mobileip.tunnels.headers import (
    GRE_IPV4,
    PROTOCOL_GRE,
    UDP_IPIP,
    inner_of_raw,
    is_packet,
    outer_header,
)

BATCH: Final = 64
"""Packets of one socket before others get their turn."""
BUFFER_BYTES: Final = 4 << 20
_READ_BYTES = 0x10000
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_MTU_DISCOVER, _PMTUDISC_DONT, _PMTUDISC_PROBE = 10, 0, 3
_IP_RECVTTL, _IP_TTL = 12, 2
_GSO_SEGMENTS_MAX, _GSO_BYTES_MAX = 60, 65_000
_ANCILLARY_BYTES = 256


class SendError(OSError):
    """An outer packet could not be sent."""


def large_buffers(sock: socket.socket) -> None:
    """Room for a burst; an ordinary user gets what the system allows."""
    for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)


def bind_device(sock: socket.socket, interface: str) -> None:
    """Send by this interface only ("": by the routing table)."""
    if interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")


class RawSender:
    """Sends inner packets behind an IPv4 header, and a GRE header where the protocol is GRE."""

    def __init__(self, local: str, remote: str, interface: str, protocol: int) -> None:
        self._ends = local, remote, protocol
        self._between = GRE_IPV4 if protocol == PROTOCOL_GRE else b""
        self._headers: dict[int, bytes] = {}
        # Protocol RAW receives nothing; its packets carry their own header.
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW)
        try:
            large_buffers(self.socket)
            bind_device(self.socket, interface)
            self.socket.bind((local, 0))
            self.socket.connect((remote, 0))
        except OSError:
            self.socket.close()
            raise

    def send(self, packets: Sequence[bytes]) -> None:
        """Send packets of one read. Raises OSError."""
        send, headers = self.socket.send, self._headers
        for packet in packets:
            kind = packet[1] << 1 | packet[6] >> 6 & 1
            header = headers.get(kind)
            if header is None:
                header = headers[kind] = outer_header(*self._ends, packet[1], bool(packet[6] & 0x40)) + self._between
            send(header + packet)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class RawReceiver:
    """Receives all packets of a protocol for one local address.

    Its existence keeps the kernel from answering with ICMP "protocol unreachable".
    """

    def __init__(self, local: str, protocol: int) -> None:
        self.protocol = protocol
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        try:
            large_buffers(self.socket)
            self.socket.bind((local, 0))
        except OSError:
            self.socket.close()
            raise

    def receive(self, take: Callable[[bytes, bytes | None], None]) -> None:
        """Read what is there; `take` gets outer source (4 octets) and inner packet (None: malformed)."""
        read, protocol = self.socket.recv, self.protocol
        for _ in range(BATCH):
            try:
                data = read(_READ_BYTES)
            except BlockingIOError:
                return
            take(data[12:16], inner_of_raw(data, protocol))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class UdpPipe:
    """Both directions of a UDP tunnel: a socket connected to the other end, so that the kernel tells its datagrams apart."""

    def __init__(self, local: str, local_port: int, remote: str, remote_port: int, interface: str) -> None:
        self._gso = True
        self._tos, self._df = 0, False
        self.socket = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            large_buffers(sock)
            bind_device(sock, interface)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            sock.bind((local, local_port))
            sock.connect((remote, remote_port))
        except OSError:
            sock.close()
            raise

    def send(self, packets: Sequence[bytes]) -> None:
        """Send packets of one read; equal sizes (the last may be shorter) travel as one call. Raises OSError."""
        self._copy_fields(packets[0])
        if len(packets) == 1 or not self._gso:
            for packet in packets:
                self.socket.send(UDP_IPIP + packet)
            return
        size = len(packets[0]) + len(UDP_IPIP)
        at_once = max(1, min(_GSO_SEGMENTS_MAX, _GSO_BYTES_MAX // size))
        for begin in range(0, len(packets), at_once):
            part = [piece for packet in packets[begin : begin + at_once] for piece in (UDP_IPIP, packet)]
            try:
                self.socket.sendmsg(part, [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))])
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                # A device that cannot compute checksums, on kernels before 6.11.
                self._gso = False
                self.send(packets[begin:])
                return

    def _copy_fields(self, packet: bytes) -> None:
        if packet[1] != self._tos:
            self._tos = packet[1]
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._tos)
        df = bool(packet[6] & 0x40)
        if df != self._df:
            self._df = df
            # PROBE sets DF and leaves sizes to us: the device's MTU follows the path's.
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE if df else _PMTUDISC_DONT)

    def receive(self, take: Callable[[bytes | None], None], message: Callable[[bytes, int], None]) -> None:
        """Read what is there: inner packets (None: malformed) to `take`, other messages with their TTL to `message`."""
        for _ in range(BATCH):
            try:
                data, ancillary, _flags, _address = self.socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            size, ttl = len(data), OUTER_TTL_UNKNOWN
            for level, kind, value in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    size = struct.unpack("=i", value[:4])[0]
                elif level == socket.IPPROTO_IP and kind == _IP_TTL:
                    ttl = struct.unpack("=i", value[:4])[0]
            for begin in range(0, len(data), max(1, size)):
                one = data[begin : begin + size]
                if one[:1] != UDP_IPIP[:1]:
                    message(one, ttl)
                elif one[:2] == UDP_IPIP[:2] and is_packet(memoryview(one)[4:]):
                    take(one[4:])
                else:
                    take(None)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


OUTER_TTL_UNKNOWN: Final = 64
