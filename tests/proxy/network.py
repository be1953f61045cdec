"""A network in memory: a fake clock, links with delay, rate, loss, reordering and duplication, and middleboxes on them."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Literal, Protocol

from tests.proxy.capture import Capture
from tests.proxy.packets import header_length

Direction = Literal["out", "in"]
"""Seen from the mobile host: away from it or towards it."""


class Clock:
    """Simulated time and what happens at its points."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have `action` happen at a time that is not past."""
        heappush(self._heap, (max(when, self.now), next(self._number), action))

    def step(self) -> bool:
        """Let the next thing happen; False when there is none."""
        if not self._heap:
            return False
        self.now, _, action = heappop(self._heap)
        self.events += 1
        action()
        return True

    @property
    def upcoming(self) -> float | None:
        """The time of the next thing."""
        return self._heap[0][0] if self._heap else None


@dataclass
class Link:
    """One direction of a path. May be changed while the network runs."""

    delay: float = 0.01
    rate: float | None = None
    """Bits per second; None: no limit."""
    loss: float = 0.0
    reorder: float = 0.0
    """The share of packets that is held back by up to `reorder_delay`."""
    reorder_delay: float = 0.02
    duplicate: float = 0.0
    queue: float = 0.5
    """The longest wait for the rate, in seconds; what would wait longer is dropped."""
    up: bool = True
    mtu: int = 1500


class Middlebox(Protocol):
    """Something on a path that changes packets."""

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        """What goes on instead of the packet."""


class Holding(Protocol):
    """A middlebox that keeps packets for a while."""

    def due(self, now: float) -> list[tuple[bytes, Direction]]:
        """What it keeps no longer."""

    def next_deadline(self) -> float | None:
        """When `due` wants to be called."""


class Path:
    """Two links and the middleboxes between the mobile host and the correspondent."""

    def __init__(self, out: Link, back: Link, boxes: list[Middlebox] | None = None) -> None:
        self.links: dict[Direction, Link] = {"out": out, "in": back}
        self.boxes = boxes or []
        self.busy: dict[Direction, float] = {"out": 0.0, "in": 0.0}

    def set_up(self, up: bool) -> None:
        """Cut or restore, silently."""
        for link in self.links.values():
            link.up = up


class Network:
    """Nodes by address, and paths by the address of the mobile host."""

    def __init__(self, seed: int, clock: Clock, capture: Capture | None = None) -> None:
        self.clock = clock
        self.random = random.Random(seed)
        self.counters: Counter[str] = Counter()
        self.violations: list[str] = []
        self.capture = capture
        self._paths: dict[bytes, Path] = {}
        self._receivers: dict[bytes, Callable[[bytes], None]] = {}
        self._flushes: dict[int, float] = {}

    def attach(self, address: bytes, receive: Callable[[bytes], None]) -> None:
        """Packets for this address go to `receive`."""
        self._receivers[address] = receive

    def route(self, address: bytes, path: Path) -> None:
        """Packets from and to this address of the mobile host, or its outer address of a NAT, go by this path."""
        self._paths[address] = path

    def send(self, packet: bytes) -> None:
        """A node sends."""
        source, destination = _addresses(packet)
        path = self._paths.get(source)
        if path is not None:
            self._enter(path, packet, "out")
            return
        path = self._paths.get(destination)
        if path is None:
            self.counters["unroutable"] += 1
            return
        self._enter(path, packet, "in")

    def _enter(self, path: Path, packet: bytes, direction: Direction) -> None:
        self.counters["sent"] += 1
        if self.capture is not None:
            self.capture.add(self.clock.now, packet)
        link = path.links[direction]
        if len(packet) > link.mtu:
            self.counters["too big"] += 1
            self.violations.append(f"a packet of {len(packet)} bytes, the MTU is {link.mtu}")
            return
        if not link.up:
            self.counters["cut"] += 1
            return
        now, draw = self.clock.now, self.random.random
        if link.loss and draw() < link.loss:
            self.counters["lost"] += 1
            return
        leaves = now
        if link.rate is not None:
            leaves = max(now, path.busy[direction])
            if leaves - now > link.queue:
                self.counters["queue full"] += 1
                return
            leaves += len(packet) * 8 / link.rate
            path.busy[direction] = leaves
        arrives = leaves + link.delay
        if link.reorder and draw() < link.reorder:
            arrives += draw() * link.reorder_delay
            self.counters["held back"] += 1
        self.clock.at(arrives, lambda: self._middle(path, packet, direction, link))
        if link.duplicate and draw() < link.duplicate:
            self.counters["duplicated"] += 1
            self.clock.at(arrives + draw() * link.reorder_delay, lambda: self._middle(path, packet, direction, link))

    def _middle(self, path: Path, packet: bytes, direction: Direction, link: Link) -> None:
        if not link.up:
            self.counters["cut"] += 1
            return
        self._through(path, [packet], direction, 0)

    def _through(self, path: Path, packets: list[bytes], direction: Direction, stage: int) -> None:
        boxes = path.boxes if direction == "out" else path.boxes[::-1]
        for at, box in enumerate(boxes[stage:], stage):
            packets = [changed for packet in packets for changed in box.handle(packet, direction, self.clock.now)]
            if hasattr(box, "due"):
                self._keep(path, box, at, direction)  # type: ignore[arg-type]
        for packet in packets:
            receive = self._receivers.get(_addresses(packet)[1])
            if receive is None:
                self.counters["nobody there"] += 1
            else:
                receive(packet)

    def _keep(self, path: Path, box: Holding, at: int, direction: Direction) -> None:
        when = box.next_deadline()
        if when is None or self._flushes.get(id(box), -1.0) == when:
            return
        self._flushes[id(box)] = when

        def flush() -> None:
            for packet, way in box.due(self.clock.now):
                stage = at if way == direction else len(path.boxes) - 1 - at
                self._through(path, [packet], way, stage + 1)
            self._flushes.pop(id(box), None)
            self._keep(path, box, at, direction)

        self.clock.at(when, flush)


def _addresses(packet: bytes) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    assert header_length(packet) == 40
    return packet[8:24], packet[24:40]
