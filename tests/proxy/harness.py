"""Joins applications, models, a proxy and a network, runs them until quiet, and says what came of it."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Send, Verdict
from tests.proxy.capture import Capture
from tests.proxy.network import Clock, Network
from tests.proxy.offload import cut, superpackets, without_checksum
from tests.proxy.packets import describe, header_length, sealed
from tests.proxy.tcp_model import Endpoint

STUCK_AFTER = 150.0
"""Simulated seconds without progress."""
EVENTS_MOST = 400_000


class Node(Protocol):
    """What lives at addresses of the network."""

    output: list[bytes]

    def handle(self, packet: bytes, now: float) -> None: ...
    def next_deadline(self) -> float | None: ...
    def handle_timer(self, now: float) -> None: ...


class Socket(Protocol):
    """What an application uses: an Endpoint, or an MPTCP connection."""

    violations: list[str]
    counters: Counter[str]
    reset_by: str | None

    def connect(self, now: float) -> None: ...
    def write(self, data: bytes, now: float) -> None: ...
    def close(self, now: float) -> None: ...
    def abort(self, now: float) -> None: ...
    def pause(self) -> None: ...
    def resume(self, now: float) -> None: ...
    @property
    def received(self) -> bytes: ...
    @property
    def received_bytes(self) -> int: ...
    @property
    def finished(self) -> bool: ...


class ProxyLike(Protocol):
    """The part of the proxy that a host in the packet path uses."""

    def outbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = ...) -> Answer: ...
    def inbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = ...) -> Answer: ...
    def next_deadline(self) -> float | None: ...
    def handle_timer(self, now: float, actions: list[Action]) -> None: ...


class IdentityProxy:
    """Lets everything pass."""

    def outbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        return Verdict.PASS

    def inbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        return Verdict.PASS

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float, actions: list[Action]) -> None:
        return None


class ProxiedHost:
    """A TCP endpoint whose packets pass a proxy."""

    def __init__(self, endpoint: Endpoint, proxy: ProxyLike, taps: Sequence[Capture] = ()) -> None:
        self.endpoint, self.proxy = endpoint, proxy
        self.output: list[bytes] = []
        self.log: list[tuple[float, Log]] = []
        self.counters: Counter[str] = Counter()
        self.violations: list[str] = []
        self.inner = taps[0] if taps else None
        """Takes the packets between endpoint and proxy."""
        self.offload = False
        """The kernel cuts this host's segments and computes their checksums after the proxy has seen them."""
        self._released: set[tuple[bytes, bytes]] = set()

    def handle(self, packet: bytes, now: float) -> None:
        """From the network."""
        if _flow(packet) in self._released:
            self._deliver(packet, now)
        else:
            actions: list[Action] = []
            answer = self.proxy.inbound(packet, now, actions)
            self._answered(answer, packet, now, actions, self._deliver)
        self._from_endpoint(now)

    def next_deadline(self) -> float | None:
        times = [at for at in (self.endpoint.next_deadline(), self.proxy.next_deadline()) if at is not None]
        return min(times) if times else None

    def handle_timer(self, now: float) -> None:
        due = self.proxy.next_deadline()
        if due is not None and due <= now:
            self.act(lambda actions: self.proxy.handle_timer(now, actions), now)
            again = self.proxy.next_deadline()
            if again is not None and again <= now:
                self.violations.append(f"after handle_timer at {now} the next deadline is {again}")
        due = self.endpoint.next_deadline()
        if due is not None and due <= now:
            self.endpoint.handle_timer(now)
        self._from_endpoint(now)

    def act(self, call: Callable[[list[Action]], Any], now: float) -> Any:
        """Call the proxy and perform its actions."""
        actions: list[Action] = []
        answer = call(actions)
        self._perform(actions, now)
        self._from_endpoint(now)
        return answer

    def flush(self, now: float) -> None:
        """After the application did something."""
        self._from_endpoint(now)

    def _from_endpoint(self, now: float) -> None:
        rounds = 0
        while self.endpoint.output:
            rounds += 1
            if rounds > 1000:
                self.violations.append("proxy and TCP answer each other without end")
                self.endpoint.output.clear()
                return
            packets, self.endpoint.output = self.endpoint.output, []
            for packet, size in superpackets(packets) if self.offload else [(packet, 0) for packet in packets]:
                if self.inner is not None:
                    self.inner.add(now, packet)
                self._outbound(packet, size, now)

    def _outbound(self, packet: bytes, size: int, now: float) -> None:
        def onward(changed: bytes, _now: float) -> None:
            if changed is shown and self.offload:
                changed = sealed(bytearray(changed))
            self.output += cut(changed, size) if size else [changed]

        shown = without_checksum(packet) if self.offload else packet
        if _flow(packet) in self._released:
            onward(shown, now)
            return
        offload = Offload.SUPERPACKET if size else Offload.PARTIAL_CHECKSUM if self.offload else Offload.NONE
        self.counters["superpackets"] += bool(size)
        actions: list[Action] = []
        answer = self.proxy.outbound(shown, now, actions, offload)
        self._answered(answer, shown, now, actions, onward)

    def _answered(
        self, answer: Answer, packet: bytes, now: float, actions: list[Action], onward: Callable[[bytes, float], None]
    ) -> None:
        match answer:
            case Verdict.DROP:
                self.counters["dropped"] += 1
            case Verdict.RELEASE:
                self.counters["released"] += 1
                self._released |= {_flow(packet), _flow(packet)[::-1]}
                onward(packet, now)
            case Verdict.PASS:
                onward(packet, now)
            case bytes():
                onward(answer, now)
        self._perform(actions, now)

    def _deliver(self, packet: bytes, now: float) -> None:
        if self.inner is not None:
            self.inner.add(now, packet)
        self.endpoint.handle(packet, now)

    def _perform(self, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case Send():
                    self.output.append(action.packet)
                    self.counters["sent"] += 1
                case Deliver():
                    self.counters["delivered"] += 1
                    self._deliver(action.packet, now)
                case Log():
                    self.log.append((now, action))


def _flow(packet: bytes) -> tuple[bytes, bytes]:
    at = header_length(packet)
    ports = packet[at : at + 4]
    if at == 40 and packet[0] >> 4 == 6:
        return packet[8:24] + ports[:2], packet[24:40] + ports[2:]
    return packet[12:16] + ports[:2], packet[16:20] + ports[2:]


@dataclass
class Talk:
    """What an application does with its socket."""

    data: bytes = b""
    chunks: Sequence[tuple[float, int]] = ()
    """When how many bytes are written, after the beginning; without any all at once."""
    close: Literal["sent", "received", "never"] = "sent"
    """When it closes its direction."""


@dataclass
class Party:
    """A node, its socket and its application."""

    node: Node
    socket: Socket
    talk: Talk
    client: bool = False
    written: int = 0
    closed: bool = False
    wake_at: float | None = None


@dataclass
class Result:
    """What came of a run."""

    complete: bool
    """Both directions arrived whole and unchanged, and both ends have closed."""
    stuck: bool
    why: str
    elapsed: float
    """Simulated seconds until the end."""
    events: int
    sent: tuple[int, int]
    received: tuple[int, int]
    hashes: tuple[str, str]
    """Of what the near and the far end received."""
    resets: tuple[str | None, str | None]
    violations: list[str] = field(default_factory=list)
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    longest_gap: float = 0.0
    """The longest time without new bytes at either end before all had arrived."""

    @property
    def good(self) -> bool:
        """Complete and without violations."""
        return self.complete and not self.violations


class Simulation:
    """Two parties and a network."""

    def __init__(self, seed: int, clock: Clock, network: Network, near: Party, far: Party) -> None:
        self.seed, self.clock, self.network = seed, clock, network
        self.near, self.far = near, far
        self.random = random.Random(seed ^ 0x5EED)
        self._progress: tuple[object, ...] = ()
        self._progress_at = 0.0
        self._gap = 0.0
        self._bytes = 0
        self._bytes_at: float | None = None

    def attach(self, party: Party, addresses: Sequence[bytes]) -> None:
        """The party is at these addresses."""

        def receive(packet: bytes) -> None:
            party.node.handle(packet, self.clock.now)
            self.settle(party)

        for address in addresses:
            self.network.attach(address, receive)

    def at(self, when: float, action: Callable[[], Any]) -> None:
        """Something happens at a time; the parties' packets go out afterwards."""

        def happen() -> None:
            action()
            self.settle(self.near)
            self.settle(self.far)

        self.clock.at(when, happen)

    def settle(self, party: Party) -> None:
        """Move what a node has produced, wake it in time, and let its application act."""
        now = self.clock.now
        self._application(party, now)
        node = party.node
        if hasattr(node, "flush"):
            node.flush(now)
        while node.output:
            packets, node.output = node.output, []
            for packet in packets:
                self.network.send(packet)
        deadline = node.next_deadline()
        if deadline is not None and (party.wake_at is None or deadline < party.wake_at):
            party.wake_at = max(deadline, now)
            self.clock.at(party.wake_at, lambda: self._wake(party))

    def _wake(self, party: Party) -> None:
        now = self.clock.now
        if party.wake_at is not None and now >= party.wake_at:
            party.wake_at = None
        deadline = party.node.next_deadline()
        if deadline is not None and deadline <= now:
            party.node.handle_timer(now)
        self.settle(party)

    def _application(self, party: Party, now: float) -> None:
        if party.closed or party.written < len(party.talk.data):
            return
        other = self.far if party is self.near else self.near
        if party.talk.close == "sent" or (
            party.talk.close == "received" and party.socket.received_bytes >= len(other.talk.data)
        ):
            party.closed = True
            party.socket.close(now)

    def _write(self, party: Party, size: int) -> None:
        if party.socket.reset_by is not None:
            return
        data = party.talk.data[party.written : party.written + size]
        party.written += len(data)
        party.socket.write(data, self.clock.now)

    def run(self, until: float = 3600.0) -> Result:
        """Let it run until both ends are finished, or nothing moves."""
        for party in (self.far, self.near):
            talk = party.talk
            if party.client:
                self.at(self.clock.now, lambda party=party: party.socket.connect(self.clock.now))  # type: ignore[misc]
            for when, size in talk.chunks or ((0.0, len(talk.data)),):
                self.at(self.clock.now + when, lambda party=party, size=size: self._write(party, size))  # type: ignore[misc]
        begin = self._progress_at = self.clock.now
        why = ""
        while not why:
            if not self.clock.step():
                why = "nothing left to do"
            elif self._finished():
                why = "finished"
            elif self.clock.now - self._progress_at > STUCK_AFTER:
                why = f"no progress for {STUCK_AFTER} s"
            elif self.clock.events > EVENTS_MOST:
                why = f"more than {EVENTS_MOST} events"
            elif self.clock.now - begin > until:
                why = f"not finished after {until} s"
        return self._result(why, begin)

    def _finished(self) -> bool:
        near, far = self.near.socket, self.far.socket
        state = (near.received_bytes, far.received_bytes, near.finished, far.finished, self.near.closed, self.far.closed)
        if state != self._progress:
            self._progress, self._progress_at = state, self.clock.now
            total = state[0] + state[1]
            if total != self._bytes:
                if self._bytes_at is not None:
                    self._gap = max(self._gap, self.clock.now - self._bytes_at)
                self._bytes, self._bytes_at = total, self.clock.now
        return near.finished and far.finished and self.near.closed and self.far.closed

    def _result(self, why: str, begin: float) -> Result:
        near, far = self.near, self.far
        got = (near.socket.received, far.socket.received)
        violations = [f"near: {text}" for text in near.socket.violations]
        violations += [f"far: {text}" for text in far.socket.violations]
        violations += [f"network: {text}" for text in self.network.violations]
        counters = {"near": near.socket.counters, "far": far.socket.counters, "network": self.network.counters}
        for name, party in (("near", near), ("far", far)):
            if isinstance(party.node, ProxiedHost):
                violations += [f"{name} host: {text}" for text in party.node.violations]
                counters[f"{name} proxy"] = party.node.counters
        right = got == (far.talk.data, near.talk.data)
        ended = near.socket.finished and far.socket.finished
        resets = (near.socket.reset_by, far.socket.reset_by)
        return Result(
            complete=right and ended and resets == (None, None),
            stuck=why != "finished",
            why=why,
            elapsed=self.clock.now - begin,
            events=self.clock.events,
            sent=(len(near.talk.data), len(far.talk.data)),
            received=(len(got[0]), len(got[1])),
            hashes=(hashlib.sha256(got[0]).hexdigest(), hashlib.sha256(got[1]).hexdigest()),
            resets=resets,
            violations=violations,
            counters=counters,
            longest_gap=self._gap,
        )


def report(result: Result) -> str:
    """A run in some lines, for the message of a failed test."""
    lines = [
        f"{result.why}; {result.received} of {result.sent[::-1]} bytes after {result.elapsed:.3f} s, resets {result.resets}"
    ]
    lines += [f"  {name}: {dict(sorted(counters.items()))}" for name, counters in result.counters.items()]
    if len(result.violations) > 4:
        lines.append(f"  {len(result.violations)} violations")
    lines += [f"  violation: {text}" for text in result.violations[:4]]
    return "\n".join(lines)


def trace(capture: Capture, most: int = 200) -> str:
    """A capture as text."""
    return "\n".join(f"{now:.6f} {describe(packet)}" for now, packet in capture.packets[:most])
