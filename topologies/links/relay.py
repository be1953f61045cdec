"""The relay: one process that carries the frames of all emulated links. Run as `python -m topologies.links.relay`.

It lives in the wire namespace, takes JSON requests (one per line) from a socket, each answered by one line, and
ends when that socket closes. One thread: epoll over the packet rings, the control socket and an absolute timer.
"""

import contextlib
import ctypes
import errno
import gc
import heapq
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

from topologies.links.netns import LinkError, enter
from topologies.links.ring import Ring, Timer
from topologies.links.shaper import Counters, Shaper
from topologies.profiles import LinkProfile, ProfileError

BATCH_FRAMES = 64
"""Frames read from one ring before others get their turn: about 0.2 ms."""

LATENESS_BUCKET_US = 10
LATENESS_BUCKETS = 2000

# The outer end is down or deleted: this is how carrier loss is made.
_END_IS_GONE = (errno.ENETDOWN, errno.ENXIO, errno.ENODEV)

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


class Lateness:
    """Histogram of how much later than due frames were released: buckets of 10 us up to 20 ms."""

    __slots__ = ("buckets", "max_ns")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.buckets = [0] * (LATENESS_BUCKETS + 1)
        self.max_ns = 0

    def add(self, late_ns: int) -> None:
        """Account one frame."""
        index = late_ns // (LATENESS_BUCKET_US * 1000)
        self.buckets[index if index < LATENESS_BUCKETS else LATENESS_BUCKETS] += 1
        if late_ns > self.max_ns:
            self.max_ns = late_ns

    def merge(self, other: "Lateness") -> None:
        """Add what another histogram holds."""
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile_us(self, share: float) -> float:
        """Upper edge of the bucket in which that share of the frames is reached, in us; 0 without frames."""
        total = sum(self.buckets)
        seen = 0
        for index, count in enumerate(self.buckets):
            seen += count
            if count and seen >= share * total:
                return min((index + 1.0) * LATENESS_BUCKET_US, self.max_ns / 1000)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Frames accounted and p50, p99, max in us."""
        return {
            "frames": sum(self.buckets),
            "late_p50_us": self.quantile_us(0.5),
            "late_p99_us": self.quantile_us(0.99),
            "late_max_us": self.max_ns / 1000,
        }


class Direction:
    """Frames from one end of a link to the other: a shaper and the socket that it feeds."""

    __slots__ = (
        "armed_ns",
        "delivered",
        "delivered_bytes",
        "dropped_carrier",
        "dropped_send",
        "lateness",
        "shaper",
        "to",
    )

    def __init__(self, shaper: Shaper) -> None:
        self.shaper = shaper
        self.to: Ring | None = None
        self.armed_ns = 0
        """Time of this direction's valid entry in the heap; 0 for none."""
        self.lateness = Lateness()
        self.reset()

    def reset(self) -> None:
        """Start lateness and counters anew; what is in flight stays."""
        self.shaper.counters = Counters()
        self.delivered = 0
        self.delivered_bytes = 0
        self.dropped_carrier = 0
        self.dropped_send = 0
        self.lateness.reset()

    def stats(self) -> dict[str, Any]:
        """Counters of this direction."""
        counters = self.shaper.counters
        values: dict[str, Any] = {name: getattr(counters, name) for name in counters.__slots__}
        values.update(
            delivered=self.delivered,
            delivered_bytes=self.delivered_bytes,
            dropped_carrier=self.dropped_carrier,
            dropped_send=self.dropped_send,
            in_flight=len(self.shaper.line) + len(self.shaper.express),
            **self.lateness.summary(),
        )
        return values


class JoinedPorts:
    """A link: two ports (the second may be absent) and a direction for each way."""

    __slots__ = ("back", "forward", "ports")

    def __init__(self, forward: Direction, back: Direction) -> None:
        self.forward = forward
        self.back = back
        self.ports: tuple[int, int | None] = (0, None)


class Relay:
    """All ports and links of one wire, and the loop that serves them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending = b""
        self._received_fds: list[int] = []
        self._ports: dict[int, Ring] = {}
        self._links: dict[int, JoinedPorts] = {}
        self._leaving: dict[int, Direction] = {}  # by port: the direction that its frames take
        self._by_fd: dict[int, int] = {}
        self._unjoined = 0
        self._cpu_before_s = 0.0
        self._past = Lateness()  # of links that were removed
        self._heap: list[tuple[int, int, Direction]] = []
        self._serial = 0
        self._epoll = select.epoll()
        self._timer = Timer()
        self._armed_ns = 0
        self._stopped = False
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._epoll.register(self._timer.fileno(), select.EPOLLIN)

    # ---- frames

    def run(self) -> None:
        """Serve until the control socket closes."""
        control_fd = self._control.fileno()
        timer_fd = self._timer.fileno()
        poll = self._epoll.poll
        while not self._stopped:
            for fd, events in poll():
                if fd == timer_fd:
                    self._armed_ns = 0
                elif fd == control_fd:
                    self._read_control()
                else:
                    self._read_port(fd, events)
            self._release()

    def _read_port(self, fd: int, events: int) -> None:
        number = self._by_fd.get(fd)
        if number is None:
            return  # removed by a request in the same round
        ring = self._ports[number]
        direction = self._leaving.get(number)
        if direction is None:
            self._unjoined += ring.receive(BATCH_FRAMES, _discard)
        else:
            shaper = direction.shaper
            ring.receive(BATCH_FRAMES, shaper.offer)
            self._schedule(direction)
        if events & select.EPOLLERR:
            # ENETDOWN when the interface goes down. The kernel hooks the socket in again when it comes up.
            ring.clear_error()

    def _schedule(self, direction: Direction) -> None:
        next_ns = direction.shaper.next_release_ns()
        if next_ns is not None and (not direction.armed_ns or next_ns < direction.armed_ns):
            direction.armed_ns = next_ns
            self._serial += 1
            heapq.heappush(self._heap, (next_ns, self._serial, direction))

    def _release(self) -> None:
        """Send every frame that is due, then arm the timer for the next one."""
        heap = self._heap
        now_ns = time.monotonic_ns()
        while heap:
            due_ns, _, direction = heap[0]
            if due_ns > now_ns:
                now_ns = time.monotonic_ns()
                if due_ns > now_ns:
                    break
            heapq.heappop(heap)
            if due_ns != direction.armed_ns:
                continue  # replaced by an earlier entry, or flushed
            direction.armed_ns = 0
            self._send(direction, now_ns)
            self._schedule(direction)
        if not heap:
            # Also clears an expiry, which would keep epoll awake.
            if self._armed_ns != -1:
                self._timer.arm(0)
                self._armed_ns = -1
        elif heap[0][0] != self._armed_ns:
            self._armed_ns = heap[0][0]
            self._timer.arm(self._armed_ns)

    def _send(self, direction: Direction, now_ns: int) -> None:
        ring = direction.to
        taken = direction.shaper.take(now_ns)
        if ring is None:
            direction.dropped_carrier += len(taken)
            return
        fd = ring.fileno()
        write = os.write
        late = direction.lateness
        buckets = late.buckets
        clock = time.monotonic_ns
        for release_ns, _, frame in taken:
            late_ns = clock() - release_ns
            try:
                write(fd, frame)
            except OSError as error:
                self._not_sent(direction, ring, error)
                continue
            direction.delivered += 1
            direction.delivered_bytes += len(frame)
            index = late_ns // 10_000
            buckets[index if index < LATENESS_BUCKETS else LATENESS_BUCKETS] += 1
            if late_ns > late.max_ns:
                late.max_ns = late_ns

    @staticmethod
    def _not_sent(direction: Direction, ring: Ring, error: OSError) -> None:
        # ENOBUFS comes from a full queue, which is a loss of ours, and from a peer that is administratively down.
        if error.errno in _END_IS_GONE or (error.errno == errno.ENOBUFS and not ring.has_carrier()):
            direction.dropped_carrier += 1
            ring.clear_error()
        else:
            direction.dropped_send += 1

    # ---- requests

    def _read_control(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 1 << 20, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._stopped = True
            return
        self._received_fds += fds
        self._pending += data
        while b"\n" in self._pending:
            line, self._pending = self._pending.split(b"\n", 1)
            self._answer(line)

    def _answer(self, line: bytes) -> None:
        reply: dict[str, Any]
        try:
            request = json.loads(line)
            command = self._COMMANDS[request.pop("cmd")]
            reply = {"ok": True, "value": command(self, **request)}
        except (LinkError, ProfileError, OSError) as error:
            reply = {"ok": False, "error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            reply = {"ok": False, "error": f"bad request {line[:200]!r}: {error!r}"}
        self._control.setblocking(True)
        try:
            self._control.sendall(json.dumps(reply).encode() + b"\n")
        except ConnectionError:
            self._stopped = True
        self._control.setblocking(False)

    def _add_port(self, port: int) -> None:
        # The owner opens and closes the sockets: both take the kernel 10 ms and more, which frames would wait for.
        ring = Ring(socket.socket(fileno=self._received_fds.pop()))
        self._ports[port] = ring
        self._by_fd[ring.fileno()] = port
        self._epoll.register(ring.fileno(), select.EPOLLIN)

    def _remove_port(self, port: int) -> None:
        for link in self._links.values():
            if port in link.ports:
                self._join(link, link.ports[0], None)
        self._leaving.pop(port, None)
        ring = self._ports.pop(port)
        del self._by_fd[ring.fileno()]
        self._epoll.unregister(ring.fileno())
        ring.close()

    def _add_link(self, link: int, forward: dict[str, Any], back: dict[str, Any], seed: str) -> None:
        now_ns = time.monotonic_ns()
        # Two streams of random numbers per link, so that traffic of one way does not change the losses of the other.
        self._links[link] = JoinedPorts(
            Direction(Shaper(LinkProfile.from_dict(forward), Random(f"{seed}/forward"), now_ns)),
            Direction(Shaper(LinkProfile.from_dict(back), Random(f"{seed}/back"), now_ns)),
        )

    def _remove_link(self, link: int) -> None:
        joined = self._links.pop(link)
        self._join(joined, None, None)
        for way in (joined.forward, joined.back):
            self._past.merge(way.lateness)

    def _attach(self, link: int, a: int | None, b: int | None) -> None:
        for port in (a, b):
            for other in self._links.values():
                if port is not None and port in other.ports and other is not self._links[link]:
                    first, second = other.ports
                    self._join(other, None if first == port else first, None if second == port else second)
        self._join(self._links[link], a, b)

    def _join(self, link: JoinedPorts, a: int | None, b: int | None) -> None:
        """Make `a` and `b` the ports of a link. What was in flight between the old ones is lost."""
        for port in link.ports:
            if port is not None:
                self._leaving.pop(port, None)
        for direction in (link.forward, link.back):
            self._cut(direction)
        link.ports = (a, b)  # type: ignore[assignment]
        link.back.to = None if a is None else self._ports[a]
        link.forward.to = None if b is None else self._ports[b]
        if a is not None:
            self._leaving[a] = link.forward
        if b is not None:
            self._leaving[b] = link.back

    @staticmethod
    def _cut(direction: Direction) -> None:
        direction.shaper.flush()
        direction.armed_ns = 0

    def _directions(self, link: int, direction: str) -> list[Direction]:
        joined = self._links[link]
        ways = {"forward": [joined.forward], "back": [joined.back], "both": [joined.forward, joined.back]}
        return ways[direction]

    def _set_profile(self, link: int, direction: str, profile: dict[str, Any]) -> None:
        new = LinkProfile.from_dict(profile)
        for way in self._directions(link, direction):
            # Frames that are in the ring already arrived before the change.
            self._drain(way)
            way.shaper.update(new, time.monotonic_ns())
            way.armed_ns = 0
            self._schedule(way)

    def _drain(self, direction: Direction) -> None:
        for port, way in self._leaving.items():
            if way is direction:
                ring = self._ports[port]
                while ring.receive(BATCH_FRAMES, direction.shaper.offer) == BATCH_FRAMES:
                    pass

    def _set_blackhole(self, link: int, direction: str, on: bool) -> None:
        for way in self._directions(link, direction):
            self._drain(way)
            way.shaper.blackhole = on
            if on:
                self._cut(way)

    def _flush(self, link: int) -> None:
        for way in self._directions(link, "both"):
            self._drain(way)
            self._cut(way)

    def _stats(self) -> dict[str, Any]:
        total = Lateness()
        total.merge(self._past)
        for joined in self._links.values():
            total.merge(joined.forward.lateness)
            total.merge(joined.back.lateness)
        return {
            "links": {
                number: {"forward": joined.forward.stats(), "back": joined.back.stats()}
                for number, joined in self._links.items()
            },
            "ports": {
                number: {
                    "ring_drops": ring.count_drops(),
                    "oversize": ring.oversize,
                    "checksums_completed": ring.checksums_completed,
                }
                for number, ring in self._ports.items()
            },
            "unjoined": self._unjoined,
            "cpu_s": _cpu_s() - self._cpu_before_s,
            **total.summary(),
        }

    def _reset(self) -> None:
        """Start lateness and all counters anew; what is in flight stays."""
        self._past.reset()
        self._unjoined = 0
        self._cpu_before_s = _cpu_s()
        for joined in self._links.values():
            joined.forward.reset()
            joined.back.reset()
        for ring in self._ports.values():
            ring.reset_counters()

    _COMMANDS: dict[str, Callable[..., Any]] = {
        "add_port": _add_port,
        "remove_port": _remove_port,
        "add_link": _add_link,
        "remove_link": _remove_link,
        "attach": _attach,
        "set_profile": _set_profile,
        "set_blackhole": _set_blackhole,
        "flush": _flush,
        "stats": _stats,
        "reset": _reset,
    }


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _discard(_arrival_ns: int, _frame: bytes) -> None:
    """Frames of a port that is joined to nothing."""


def _prepare(die_with_parent: bool, parent: int) -> None:
    """Priority, timers and memory of this process; what is not granted is left out."""
    libc = ctypes.CDLL(None, use_errno=True)
    if die_with_parent:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit(1)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    # Ctrl-C reaches the whole terminal group; the owner decides when links end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # refused to an ordinary user: works, with more lateness under load
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    # Nothing here makes reference cycles; a collection would delay frames by ms.
    gc.collect()
    gc.freeze()
    gc.disable()


def main() -> None:
    """Arguments: control socket, namespace (file descriptors), parent's process id, 1 to die with the parent."""
    control_fd, namespace, parent, die_with_parent = (int(word) for word in sys.argv[1:5])
    enter(namespace)
    os.close(namespace)
    control = socket.socket(fileno=control_fd)
    control.setblocking(False)
    _prepare(bool(die_with_parent), parent)
    Relay(control).run()


if __name__ == "__main__":
    main()
