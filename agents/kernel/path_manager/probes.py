"""Echo requests from a local address to a peer: does the path carry packets, and how long do they take?"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agents.core.path_manager.values import Probe
from agents.wire.checksum import folded, ones_sum

PENDING_MAX: Final = 1024
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_SOL_RAW, _ICMP_FILTER, _SOL_ICMPV6, _ICMP6_FILTER = 255, 1, 58, 1
_SO_BINDTOIFINDEX = 62


@dataclass(slots=True)
class _Pending:
    probe: Probe
    sent_s: float
    timer: asyncio.TimerHandle


class Probes:
    """Sends probes. on_result(probe, rtt_ms or None) is called once for each; a probe that cannot be sent has no answer."""

    def __init__(self, on_result: Callable[[Probe, float | None], None]) -> None:
        self._on_result = on_result
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._pending: dict[int, _Pending] = {}
        self._sequence, self._token = 0, int.from_bytes(os.urandom(2), "big")

    def send(self, probe: Probe, index: int) -> None:
        """Send one; index: interface by which it must leave, 0: routing decides."""
        loop = asyncio.get_running_loop()
        self._sequence = sequence = (self._sequence + 1) & 0xFFFF
        if len(self._pending) >= PENDING_MAX:
            self._expire(next(iter(self._pending)))
        self._pending[sequence] = _Pending(probe, loop.time(), loop.call_later(probe.timeout_s, self._expire, sequence))
        version = 6 if ":" in probe.local else 4
        packet = struct.pack("!BBHHH", _REQUEST[version], 0, 0, self._token, sequence)
        if version == 4:  # the kernel computes the one of ICMPv6
            packet = packet[:2] + folded(ones_sum(packet)).to_bytes(2, "big") + packet[4:]
        try:
            self._socket(probe.local, index).sendto(packet, (probe.remote, 0))
        except OSError:
            self._drop((probe.local, index))  # the timer tells; the next one tries a new socket

    def forget(self, usable: set[str]) -> None:
        """Close the sockets of addresses that are gone."""
        for key in [key for key in self._sockets if key[0] not in usable]:
            self._drop(key)

    def close(self) -> None:
        """Give up what is pending."""
        for pending in self._pending.values():
            pending.timer.cancel()
        self._pending.clear()
        for key in list(self._sockets):
            self._drop(key)

    def _socket(self, local: str, index: int) -> socket.socket:
        found = self._sockets.get((local, index))
        if found is not None:
            return found
        sixth, kind = ":" in local, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if sixth else (socket.AF_INET, socket.IPPROTO_ICMP)
        made = socket.socket(family, kind, protocol)
        try:
            if sixth:
                blocked = [0xFFFF_FFFF] * 8
                blocked[_REPLY[6] >> 5] &= ~(1 << (_REPLY[6] & 31)) & 0xFFFF_FFFF
                made.setsockopt(_SOL_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
            else:
                made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFF_FFFF & ~(1 << _REPLY[4])))
            if index:
                made.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, index)
            made.bind((local, 0))
        except OSError:
            made.close()
            raise
        self._sockets[local, index] = made
        asyncio.get_running_loop().add_reader(made.fileno(), self._read, made, 6 if sixth else 4)
        return made

    def _drop(self, key: tuple[str, int]) -> None:
        found = self._sockets.pop(key, None)
        if found is not None:
            asyncio.get_running_loop().remove_reader(found.fileno())
            found.close()

    def _read(self, source: socket.socket, version: int) -> None:
        while True:
            try:
                packet, address = source.recvfrom(2048)
            except OSError:
                return
            at = (packet[0] & 15) * 4 if version == 4 and packet else 0
            if len(packet) < at + 8:
                continue
            kind, _code, _sum, token, sequence = struct.unpack_from("!BBHHH", packet, at)
            pending = self._pending.get(sequence)
            if kind == _REPLY[version] and token == self._token and pending and pending.probe.remote == address[0]:
                self._end(sequence, 1000.0 * (asyncio.get_running_loop().time() - pending.sent_s))

    def _expire(self, sequence: int) -> None:
        self._end(sequence, None)

    def _end(self, sequence: int, rtt_ms: float | None) -> None:
        pending = self._pending.pop(sequence, None)
        if pending is not None:
            pending.timer.cancel()
            self._on_result(pending.probe, rtt_ms)
