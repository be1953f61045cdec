"""Wires between two interfaces whose frames go through Python: delay, rate, a short queue, and whatever a middlebox does.

The wire is for making captures: it may lose, strip, forge and mangle at will, one frame at a time.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
KIND_NOP, KIND_SACK, KIND_MPTCP = 1, 5, 30


def ones_complement(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes, not yet inverted. A sum mod 65535 is the ones' complement sum."""
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


class Segment:
    """One Ethernet frame with a TCP segment: fields by name, options by position, checksum made good by `bytes()`."""

    def __init__(self, frame: bytes, ip: int, tcp: int, end: int, protocol_pseudo: bytes) -> None:
        self.frame = bytearray(frame)
        self.tcp, self.end, self._pseudo = tcp, end, protocol_pseudo
        self.options_end = tcp + (frame[tcp + 12] >> 4) * 4

    @classmethod
    def of(cls, frame: bytes) -> Segment | None:
        """The segment in a frame without VLAN tag and extension headers; None when it holds none."""
        ethertype = int.from_bytes(frame[12:14], "big")
        if ethertype == ETHERTYPE_IPV4 and frame[23] == 6:
            tcp = 14 + (frame[14] & 15) * 4
            end = 14 + int.from_bytes(frame[16:18], "big")
            addresses = frame[26:34]
        elif ethertype == ETHERTYPE_IPV6 and frame[20] == 6:
            tcp, end = 54, 54 + int.from_bytes(frame[18:20], "big")
            addresses = frame[22:54]
        else:
            return None
        return cls(frame, 14, tcp, end, addresses + struct.pack("!II", 6, end - tcp))

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.frame[at : at + size], "big")

    def put(self, at: int, value: int, size: int) -> None:
        self.frame[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")

    @property
    def flags(self) -> int:
        return self.frame[self.tcp + 13]

    @property
    def seq(self) -> int:
        return self._number(self.tcp + 4, 4)

    @seq.setter
    def seq(self, value: int) -> None:
        self.put(self.tcp + 4, value, 4)

    @property
    def ack(self) -> int:
        return self._number(self.tcp + 8, 4)

    @ack.setter
    def ack(self, value: int) -> None:
        self.put(self.tcp + 8, value, 4)

    @property
    def payload_bytes(self) -> int:
        return self.end - self.options_end

    def options(self) -> list[tuple[int, int, int]]:
        """(kind, position in the frame, length) of every option except padding."""
        found, at = [], self.tcp + 20
        while at < self.options_end and self.frame[at] != 0:
            if self.frame[at] == KIND_NOP:
                at += 1
                continue
            length = self.frame[at + 1]
            found.append((self.frame[at], at, length))
            at += length
        return found

    def mptcp(self, subtype: int | None = None) -> list[tuple[int, int]]:
        """(position, length) of the MPTCP options, of one subtype if given."""
        return [
            (at, length)
            for kind, at, length in self.options()
            if kind == KIND_MPTCP and subtype in (None, self.frame[at + 2] >> 4)
        ]

    def blank(self, at: int, length: int) -> None:
        """Overwrite an option by NOPs, as `nft ... reset tcp option` does."""
        self.frame[at : at + length] = bytes([KIND_NOP]) * length

    def __bytes__(self) -> bytes:
        self.put(self.tcp + 16, 0, 2)
        total = ones_complement(self._pseudo + bytes(self.frame[self.tcp : self.end]))
        self.put(self.tcp + 16, 0xFFFF - total, 2)
        return bytes(self.frame)


Rule = Callable[[Segment, bool], bool]
"""What a middlebox does to one segment, given whether it goes up (client to server). False: the segment is lost."""


@dataclass
class Path:
    """One wire: two interfaces of the box namespace and how frames get from one to the other."""

    name: str
    sockets: tuple[socket.socket, socket.socket]  # towards the client, towards the server
    rate_mbit: float
    delay_ms: float
    queue_packets: int
    rules: list[Rule] = field(default_factory=list)
    cut: bool = False  # loses everything in silence
    overflows: int = 0
    free_at: list[float] = field(default_factory=lambda: [0.0, 0.0])
    waiting: list[list[float]] = field(default_factory=lambda: [[], []])  # departure times of the queued frames

    def departure(self, direction: int, size: int, now: float) -> float | None:
        """When a frame that comes now has left the queue; None when the queue is full."""
        queue = self.waiting[direction]
        while queue and queue[0] <= now:
            queue.pop(0)
        if len(queue) >= self.queue_packets:
            self.overflows += 1
            return None
        leaves = max(now, self.free_at[direction]) + size * 8 / (self.rate_mbit * 1e6)
        self.free_at[direction] = leaves
        queue.append(leaves)
        return leaves


def packet_socket(interface: str) -> socket.socket:
    """A raw socket that gets what comes in at an interface, nothing of what it sends itself."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    raw.bind((interface, ETH_P_ALL))
    raw.setblocking(False)
    return raw


class Wires(threading.Thread):
    """Carries the frames of all paths until `stop`. An exception in a rule ends it and is raised by `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.paths: dict[str, Path] = {}
        self.error: BaseException | None = None
        self._wake, self._bell = os.pipe()
        self._due: list[tuple[float, int, socket.socket, bytes]] = []
        self._order = itertools.count()

    def run(self) -> None:
        try:
            self._carry()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        os.write(self._bell, b"x")
        self.join()
        for path in self.paths.values():
            for raw in path.sockets:
                raw.close()
        os.close(self._wake)
        os.close(self._bell)
        if self.error:
            raise RuntimeError(f"the wire ended early: {self.error!r}") from self.error

    def _carry(self) -> None:
        ports = {path.sockets[side]: (path, side) for path in self.paths.values() for side in (0, 1)}
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            ready = select.select([*ports, self._wake], [], [], timeout)[0]
            if self._wake in ready:
                return
            for raw in ready:
                self._receive(raw, *ports[raw])
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, out, frame = heapq.heappop(self._due)
                try:
                    out.send(frame)
                except OSError:  # that end is down: lost, as on a wire
                    continue

    def _receive(self, raw: socket.socket, path: Path, side: int) -> None:
        for _ in range(64):
            try:
                frame = raw.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # the interface went down
                return
            changed = self._through(path, frame, up=side == 0)
            if changed is None:
                continue
            leaves = path.departure(side, len(frame), time.monotonic())
            if leaves is not None:
                out = path.sockets[1 - side]
                heapq.heappush(self._due, (leaves + path.delay_ms / 1e3, next(self._order), out, changed))

    @staticmethod
    def _through(path: Path, frame: bytes, up: bool) -> bytes | None:
        if path.cut:
            return None
        segment = Segment.of(frame) if path.rules else None
        if segment is None:
            return frame
        for rule in tuple(path.rules):
            if not rule(segment, up):
                return None
        return bytes(segment)
