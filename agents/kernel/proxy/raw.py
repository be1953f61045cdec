"""Packets of the proxy's own: to the network from the address they name, and to the TCP of this host."""

import errno
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from agents.kernel.proxy.rules import OWN_MARK

SOCKETS_MAX: Final = 64
"""Source addresses whose sockets stay open."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV6_HDRINCL = 36
_ENDS = {4: (slice(12, 16), slice(16, 20)), 6: (slice(8, 24), slice(24, 40))}


class RawSender:
    """Raw sockets whose packets carry headers of their own and the mark that keeps them out of the queues.

    A socket is bound to its source address: routing by source looks at the socket, not at the packet. Refused packets are
    counted and reported to `on_error` (address, reason), never raised: the network may lose any packet.
    """

    def __init__(self, on_error: Callable[[str, str], None]) -> None:
        self.sent = self.delivered = self.failed = 0
        self._on_error = on_error
        self._bound: OrderedDict[bytes, socket.socket] = OrderedDict()
        self._local: dict[int, socket.socket] = {}

    def send(self, packet: bytes) -> None:
        """To the network, by the interface of its source address."""
        version = packet[0] >> 4 if packet else 0
        if version not in _ENDS:
            self._failed("?", "no IP packet")
            return
        source, destination = (packet[ends] for ends in _ENDS[version])
        try:
            sender = self._bound.get(source)
            if sender is None:
                sender = self._open(version, source)
            sender.sendto(packet, (socket.inet_ntop(_FAMILIES[version], destination), 0))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
                self.forget(source)
            self._failed(_text(source), error.strerror or str(error))
        else:
            self.sent += 1

    def deliver(self, packet: bytes) -> None:
        """To the TCP of this host. Bound to the loopback interface: it can never leave the host."""
        version = packet[0] >> 4 if packet else 0
        if version not in _ENDS:
            self._failed("?", "no IP packet")
            return
        destination = packet[_ENDS[version][1]]
        try:
            if version not in self._local:
                sender = _raw_socket(version)
                self._local[version] = sender
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            self._local[version].sendto(packet, (socket.inet_ntop(_FAMILIES[version], destination), 0))
        except OSError as error:
            self._failed(_text(destination), error.strerror or str(error))
        else:
            self.delivered += 1

    def forget(self, source: bytes) -> None:
        """The address is gone: its socket is of no use any more."""
        sender = self._bound.pop(source, None)
        if sender is not None:
            sender.close()

    def close(self) -> None:
        """Close all sockets."""
        for sender in (*self._bound.values(), *self._local.values()):
            sender.close()
        self._bound.clear()
        self._local.clear()

    def _open(self, version: int, source: bytes) -> socket.socket:
        sender = _raw_socket(version)
        try:
            sender.bind((socket.inet_ntop(_FAMILIES[version], source), 0))
        except OSError:
            sender.close()
            raise
        self._bound[source] = sender
        if len(self._bound) > SOCKETS_MAX:
            self._bound.popitem(last=False)[1].close()
        return sender

    def _failed(self, address: str, reason: str) -> None:
        self.failed += 1
        self._on_error(address, reason)


def _raw_socket(version: int) -> socket.socket:
    sender = socket.socket(_FAMILIES[version], socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWN_MARK)
    if version == 4:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    return sender


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
