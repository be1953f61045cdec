"""The registration port: datagrams with the interface and address they came to, sent by the interface and address they name."""

import contextlib
import socket
import struct
from typing import Final

from agents.core.mobileip.actions import Datagram, SendMessage
from agents.wire.mobileip.values import REGISTRATION_PORT

BATCH: Final = 256
"""Datagrams of one look; what they change is stored in one transaction."""
RECEIVE_BUFFER_BYTES: Final = 4 << 20
_IP_PKTINFO, _IP_RECVTTL, _IP_TTL, _IP_RECVERR = 8, 12, 2, 11
_ORIGIN_ICMP, _UNREACHABLE = 2, 3
_SO_RCVBUFFORCE = 33
_ANCILLARY_BYTES = 256


class RegistrationSocket:
    """A UDP socket on the registration port of all addresses."""

    def __init__(self, port: int = REGISTRATION_PORT) -> None:
        self.socket = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # UDP tunnels have connected sockets on the same port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            except OSError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.bind(("", port))
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"UDP port {port}: {error.strerror}") from None
        self._names: dict[int, str] = {}

    def fileno(self) -> int:
        """For the event loop."""
        return self.socket.fileno()

    def receive(self) -> list[Datagram]:
        """What is there, at most BATCH."""
        result: list[Datagram] = []
        for _ in range(BATCH):
            try:
                data, ancillary, _flags, (source, port) = self.socket.recvmsg(0x10000, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue
            destination, interface, ttl = "", "", 64
            for level, kind, value in ancillary:
                if level != socket.IPPROTO_IP:
                    continue
                if kind == _IP_PKTINFO:
                    index, _local, address = struct.unpack("=i4s4s", value[:12])
                    interface, destination = self._name(index), socket.inet_ntoa(address)
                elif kind == _IP_TTL:
                    ttl = struct.unpack("=i", value[:4])[0]
            result.append(Datagram(data, source, port, destination, interface, ttl))
        return result

    def unreachable(self) -> list[tuple[str, int]]:
        """Destinations of messages that came back with ICMP "destination unreachable", with its code."""
        result: list[tuple[str, int]] = []
        for _ in range(BATCH):
            try:
                _data, ancillary, _flags, address = self.socket.recvmsg(0, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
            except OSError:
                break
            for level, kind, value in ancillary:
                if level == socket.IPPROTO_IP and kind == _IP_RECVERR and len(value) >= 8:
                    _number, origin, icmp, code = struct.unpack_from("=IBBB", value)
                    if origin == _ORIGIN_ICMP and icmp == _UNREACHABLE:
                        result.append((address[0], code))
        return result

    def send(self, message: SendMessage) -> None:
        """Send from and through what the message names. Raises OSError."""
        ancillary = [(socket.IPPROTO_IP, _IP_TTL, struct.pack("=i", message.ttl))]
        if message.source or message.interface:
            index = socket.if_nametoindex(message.interface) if message.interface else 0
            source = socket.inet_aton(message.source or "0.0.0.0")
            ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4s", index, source, bytes(4))))
        try:
            self.socket.sendmsg([message.data], ancillary, 0, (message.destination, message.port))
        except OSError:
            # Perhaps an error about an earlier message that waited here; a second one is about this message.
            self.socket.sendmsg([message.data], ancillary, 0, (message.destination, message.port))

    def forget_names(self) -> None:
        """Interfaces have changed: their indices may mean others."""
        self._names.clear()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _name(self, index: int) -> str:
        if index not in self._names:
            self._names[index] = ""
            with contextlib.suppress(OSError):
                self._names[index] = socket.if_indextoname(index)
        return self._names[index]
