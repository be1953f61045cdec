"""Mobile nodes for the home agent's benchmark: `python -m tests.bench.ha_load MODE ...`, each prints one JSON object.

fill FIRST COUNT WINDOW        first registrations, one of each node
closed NODES WINDOW SECONDS    refreshes, so many unanswered at a time
open NODES RATE SECONDS        refreshes at a fixed rate, repeated until they are answered
flood VICTIMS RATE SECONDS     forged requests with home address, SPI and source address of the first nodes

The nodes are behind foreign agents, many to each. Requests of `fill` and `closed` are signed beforehand, with timestamps that
are in the home agent's window when they arrive. Latency is counted from the moment at which a request was due.
"""

from __future__ import annotations

import hashlib
import heapq
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from agents.kernel.mobileip.clock import ntp_of
from agents.wire.mobileip import codec
from agents.wire.mobileip.authentication import Algorithm, append_authentication, authenticator
from agents.wire.mobileip.values import REGISTRATION_PORT, AuthenticationKind, Multipath, Request, RequestFlag

HOME_AGENT, HOME_PREFIX, FIRST_HOME = "10.200.0.1", "10.64.0.0/16", int(ipaddress.IPv4Address("10.64.1.0"))
FOREIGN_AGENTS = tuple(f"10.200.0.{100 + number}" for number in range(20))
SPI, LIFETIME_S = 1000, 600
AHEAD_S = 3.5
"""Timestamps of requests: so far in the future, so that they are still in the window of 7 s when they are sent."""
REPEAT_S, REPEAT_MAX_S = 1.0, 32.0
"""An unanswered request is sent again, with a new timestamp: after 1, 2, 4, ... s, as mobile nodes do."""
LAST_ANSWERS_S = 45.0
"""How long the last answers are waited for."""
CHECKED = 50
"""The authenticator of every so many replies is computed."""
_REPLY, _REFUSED = 3, 64
_IP_PKTINFO = 8
_IDENTIFICATION = slice(16, 24)


def home_address(node: int) -> str:
    """Of a mobile node."""
    return str(ipaddress.IPv4Address(FIRST_HOME + node))


def key(node: int) -> bytes:
    """What it shares with the home agent."""
    return hashlib.md5(f"mobile node {node}".encode(), usedforsecurity=False).digest()


def foreign_agent(node: int) -> str:
    """Its care-of address, and the source of its requests."""
    return FOREIGN_AGENTS[node % len(FOREIGN_AGENTS)]


@cache
def _unsigned(node: int) -> bytes:
    flags = RequestFlag.REVERSE_TUNNEL
    request = Request(home_address(node), HOME_AGENT, foreign_agent(node), LIFETIME_S, 0, flags, (Multipath(1),))
    return codec.encode(request)


def signed(node: int, identification: int) -> bytes:
    """A request for a lifetime of LIFETIME_S."""
    data = _unsigned(node)
    data = data[: _IDENTIFICATION.start] + identification.to_bytes(8, "big") + data[_IDENTIFICATION.stop :]
    return append_authentication(data, AuthenticationKind.MOBILE_HOME, SPI, key(node))


def forged(node: int, identification: int) -> bytes:
    """The same with an authenticator that somebody without the key has guessed."""
    return signed(node, identification)[:-16] + os.urandom(16)


def is_authentic(reply: bytes, node: int) -> bool:
    """Whether the last extension of a reply is the authenticator that it should be."""
    return authenticator(Algorithm.HMAC_MD5, key(node), reply[:-16]) == reply[-16:]


def stamps() -> Iterator[int]:
    """Rising timestamps, AHEAD_S from now."""
    last = 0
    while True:
        last = max(last + 1, ntp_of(time.time_ns()) + int(AHEAD_S * (1 << 32)))
        yield last


@dataclass
class Waiting:
    """A request without an answer."""

    node: int
    due_s: float
    """When it was due first."""
    again_s: float
    """When it is sent again."""
    pause_s: float


class Load:
    """One socket that sends as many foreign agents."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self.socket.bind(("", 0))
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self._sources = {
            address: [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(address), bytes(4)))]
            for address in FOREIGN_AGENTS
        }
        self.waiting: dict[bytes, Waiting] = {}
        self._again: list[tuple[float, bytes]] = []
        self.codes: Counter[int] = Counter()
        self.taken_ms: list[float] = []
        self.wrong = self.repeated = 0
        self.stamps = stamps()

    def prepared(self, nodes: range, count: int) -> deque[tuple[int, bytes]]:
        """Requests of the nodes in turn."""
        return deque((node, signed(node, next(self.stamps))) for node in (nodes[at % len(nodes)] for at in range(count)))

    def send(self, node: int, data: bytes, due_s: float, pause_s: float = REPEAT_S) -> None:
        """Send a request."""
        name, again_s = data[_IDENTIFICATION], time.monotonic() + pause_s
        self.waiting[name] = Waiting(node, due_s, again_s, pause_s)
        heapq.heappush(self._again, (again_s, name))
        self.throw(node, data)

    def throw(self, node: int, data: bytes) -> None:
        """Send something and do not wait for an answer."""
        try:
            self.socket.sendmsg([data], self._sources[foreign_agent(node)], 0, (HOME_AGENT, REGISTRATION_PORT))
        except BlockingIOError:
            return  # lost, as on a network

    def wait(self, until_s: float) -> None:
        """Until a datagram is there, or that moment."""
        self._poll.poll(max(0.0, until_s - time.monotonic()) * 1e3)

    def take(self) -> None:
        """Take all replies that are there."""
        while True:
            try:
                data = self.socket.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            request = self.waiting.pop(data[12:20], None) if data[:1] == bytes((_REPLY,)) else None
            if request is None:
                self.codes[-1] += 1
                continue
            code = data[1]
            self.codes[code] += 1
            if code < _REFUSED:
                self.taken_ms.append((time.monotonic() - request.due_s) * 1e3)
            if sum(self.codes.values()) % CHECKED == 0 and not is_authentic(data, request.node):
                self.wrong += 1

    def repeat(self) -> None:
        """Send again what has waited long enough."""
        now_s = time.monotonic()
        while self._again and self._again[0][0] <= now_s:
            request = self.waiting.pop(heapq.heappop(self._again)[1], None)
            if request is None:
                continue  # answered
            self.repeated += 1
            pause_s = min(2 * request.pause_s, REPEAT_MAX_S)
            self.send(request.node, signed(request.node, next(self.stamps)), request.due_s, pause_s)

    def result(self, seconds: float) -> dict[str, object]:
        """All figures."""
        return {
            "answered": len(self.taken_ms), "s": seconds, "unanswered": len(self.waiting), "repeated": self.repeated,
            "codes": dict(self.codes), "wrong_authenticators": self.wrong, **percentiles(self.taken_ms),
        }  # fmt: skip


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum in ms; nothing of nothing."""
    found = sorted(values)
    return {} if not found else {
        "p50_ms": found[len(found) // 2], "p99_ms": found[len(found) * 99 // 100], "max_ms": found[-1]
    }  # fmt: skip


def closed(nodes: range, count: int, window: int, seconds: float) -> dict[str, object]:
    """`count` requests at most, `window` at a time, for so many seconds at most."""
    load = Load()
    ready = load.prepared(nodes, count)
    begun = time.monotonic()
    while (ready or load.waiting) and time.monotonic() < begun + seconds:
        while ready and len(load.waiting) < window:
            load.send(*ready.popleft(), time.monotonic())
        load.wait(time.monotonic() + REPEAT_S)
        load.take()
        load.repeat()
    return load.result(time.monotonic() - begun)


def at_rate(nodes: range, rate: float, seconds: float) -> dict[str, object]:
    """Requests at a fixed rate, then time for the last answers."""
    load, count = Load(), int(rate * seconds)
    for node in nodes:
        _unsigned(node)
    begun, sent = time.monotonic(), 0
    while sent < count or (load.waiting and time.monotonic() < begun + seconds + LAST_ANSWERS_S):
        while sent < count and begun + sent / rate <= time.monotonic():
            node = nodes[sent % len(nodes)]
            load.send(node, signed(node, next(load.stamps)), begun + sent / rate)
            sent += 1
        load.wait(begun + sent / rate if sent < count else time.monotonic() + 0.1)
        load.take()
        load.repeat()
    return load.result(time.monotonic() - begun)


def flood(nodes: range, rate: float, seconds: float) -> dict[str, object]:
    """Forged requests at a fixed rate; their refusals are counted."""
    load = Load()
    ready = [(node, forged(node, next(load.stamps))) for node in (nodes[at % len(nodes)] for at in range(2000))]
    begun, sent = time.monotonic(), 0
    print(json.dumps({"on": True}), flush=True)
    while time.monotonic() < begun + seconds:
        due = int((time.monotonic() - begun) * rate)
        for at in range(sent, due):
            load.throw(*ready[at % len(ready)])
        sent = max(sent, due)
        load.wait(begun + (sent + 1) / rate + 0.001)
        load.take()
    load.wait(time.monotonic() + REPEAT_S)
    load.take()
    return {"sent": sent, "s": time.monotonic() - begun, "answered": load.codes.total()}


def main(mode: str, *words: str) -> None:
    """The modes of the module's description."""
    if mode == "fill":
        first, count, window = map(int, words)
        told = closed(range(first, first + count), count, window, 60.0)
    elif mode == "closed":
        told = closed(range(int(words[0])), int(float(words[2]) * 8000), int(words[1]), float(words[2]))
    else:
        work = {"open": at_rate, "flood": flood}[mode]
        told = work(range(int(words[0])), float(words[1]), float(words[2]))
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
