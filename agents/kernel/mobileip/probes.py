"""Echo requests through one tunnel: does it work, and how long does it take?"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from agents.core.mobileip.actions import Probe
from agents.kernel.mobileip.nftables import mark_of
from agents.wire.checksum import folded, ones_sum

_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_SOL_RAW, _ICMP_FILTER = 255, 1
PENDING_MAX: Final = 256


class Probes:
    """Sends probes from the home address to the home agent. on_result(probe, rtt_ms or None) is called once for each."""

    def __init__(
        self, home_address: str, home_agent: str, token: int, on_result: Callable[[Probe, float | None], None]
    ) -> None:
        self._target, self._token, self._on_result = home_agent, token & 0xFFFF, on_result
        self._sequence = 0
        self._pending: dict[int, tuple[Probe, float, asyncio.TimerHandle]] = {}
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFF_FFFF & ~(1 << _ECHO_REPLY)))
        self._socket.bind((home_address, 0))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def send(self, probe: Probe, number: int | None) -> None:
        """Send one by the tunnel with this number (None: it is not open: no answer will come)."""
        loop = asyncio.get_running_loop()
        self._sequence = sequence = (self._sequence + 1) & 0xFFFF
        timer = loop.call_later(probe.timeout_s, self._expire, sequence)
        self._pending[sequence] = (probe, loop.time(), timer)
        if len(self._pending) > PENDING_MAX:
            self._expire(next(iter(self._pending)))
        if number is None:
            return
        body = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, self._token, sequence)
        packet = body[:2] + folded(ones_sum(body)).to_bytes(2, "big") + body[4:]
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark_of(number))
            self._socket.sendto(packet, (self._target, 0))
        except OSError:
            return  # the timer tells

    def close(self) -> None:
        """Give up what is pending."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        for _probe, _at, timer in self._pending.values():
            timer.cancel()
        self._pending.clear()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                packet = self._socket.recv(2048)
            except OSError:
                return
            at = (packet[0] & 15) * 4
            if len(packet) < at + 8:
                continue
            kind, _code, _sum, token, sequence = struct.unpack_from("!BBHHH", packet, at)
            if kind == _ECHO_REPLY and token == self._token and socket.inet_ntoa(packet[12:16]) == self._target:
                self._answer(sequence)

    def _answer(self, sequence: int) -> None:
        found = self._pending.pop(sequence, None)
        if found is not None:
            probe, sent_s, timer = found
            timer.cancel()
            self._on_result(probe, 1000.0 * (asyncio.get_running_loop().time() - sent_s))

    def _expire(self, sequence: int) -> None:
        found = self._pending.pop(sequence, None)
        if found is not None:
            found[2].cancel()
            self._on_result(found[0], None)
