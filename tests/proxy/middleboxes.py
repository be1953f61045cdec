"""Middleboxes for a path of the network: they split, merge, translate, strip, corrupt or judge packets."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from agents.wire import tcp
from agents.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.proxy.network import Direction
from tests.proxy.offload import superpackets
from tests.proxy.packets import header_length, options_of, sealed, with_parts
from tests.proxy.tcp_types import signed

MPTCP = 30


@dataclass
class Splitter:
    """Cuts segments in two, as segmentation offload and some middleboxes do (RFC 8684 section 3.3.1)."""

    random: random.Random
    share: float = 0.2
    options: Literal["first", "last", "both"] = "both"
    """Where the options of MPTCP go; the others go on both parts."""
    spare: int = 10
    """Segments of a direction that pass whole: a first segment without options means fallback (RFC 8684 section 3.7)."""
    count: int = 0
    _seen: Counter[object] = field(default_factory=Counter)

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        self._seen[s.key] += 1
        if (
            s.payload_length < 2
            or s.flags & (SYN | RST)
            or self._seen[s.key] <= self.spare
            or self.random.random() >= self.share
        ):
            return [packet]
        self.count += 1
        at = self.random.randrange(1, s.payload_length)
        ours = options_of(packet)
        rest = b"".join(o for o in ours if o[0] != MPTCP)
        everything = b"".join(ours)
        first = everything if self.options in ("first", "both") else rest
        last = everything if self.options in ("last", "both") else rest
        payload = bytes(s.payload)
        return [
            with_parts(packet, options=first, payload=payload[:at], flags=s.flags & ~(FIN | PSH)),
            with_parts(packet, options=last, payload=payload[at:], seq=s.seq + at),
        ]


@dataclass
class Coalescer:
    """Joins two segments that follow each other and carry the same mapping, up to a size; holds each back for a moment."""

    hold: float = 0.001
    size: int = 900
    count: int = 0
    _held: dict[tuple[object, ...], tuple[float, bytes, Direction]] = field(default_factory=dict)

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        before = self._held.pop(s.key, None)
        if before is not None:
            merged = self._merged(before[1], packet)
            if merged is not None:
                self.count += 1
                return [merged]
        out = [before[1]] if before is not None else []
        if not s.payload_length or s.flags & (SYN | FIN | RST):
            return [*out, packet]
        self._held[s.key] = (now + self.hold, packet, direction)
        return out

    def _merged(self, first: bytes, second: bytes) -> bytes | None:
        a, b = tcp.parse(first), tcp.parse(second)
        follows = b.seq == (a.seq + a.payload_length) & 0xFFFFFFFF and b.payload_length
        if not follows or a.payload_length + b.payload_length > self.size or b.flags & (SYN | RST):
            return None
        if a.dss is None or b.dss is None or a.mptcp or b.mptcp or a.dss.dsn is None:
            same = a.dss is None and b.dss is None and not a.mptcp and not b.mptcp
        else:
            same = a.dss[2:] == b.dss[2:]
        if not same:
            return None
        merged = with_parts(
            second, options=b"".join(options_of(second)), payload=bytes(a.payload) + bytes(b.payload), seq=a.seq
        )
        return merged if len(merged) <= 1500 else None

    def due(self, now: float) -> list[tuple[bytes, Direction]]:
        ready = [key for key, (at, _packet, _direction) in self._held.items() if at <= now]
        return [self._held.pop(key)[1:] for key in ready]

    def next_deadline(self) -> float | None:
        return min((at for at, _packet, _direction in self._held.values()), default=None)


@dataclass
class Gro:
    """What an interface of the mobile host does: arriving segments of one flow become one packet (generic receive offload)."""

    hold: float = 0.0005
    count: int = 0
    _held: dict[tuple[object, ...], tuple[float, list[bytes]]] = field(default_factory=dict)

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        if direction == "out":
            return [packet]
        key = tcp.parse(packet).key
        due, run = self._held.pop(key, (now + self.hold, []))
        merged = [whole for whole, _size in superpackets([*run, packet])]
        if len(merged) == 1 and tcp.parse(packet).payload_length:
            self._held[key] = (due, [*run, packet])
            return []
        return self._released([*run, packet])

    def _released(self, run: list[bytes]) -> list[bytes]:
        merged = [whole for whole, _size in superpackets(run)]
        self.count += len(run) - len(merged)
        return merged

    def due(self, now: float) -> list[tuple[bytes, Direction]]:
        ready = [key for key, (at, _run) in self._held.items() if at <= now]
        return [(packet, "in") for key in ready for packet in self._released(self._held.pop(key)[1])]

    def next_deadline(self) -> float | None:
        return min((at for at, _run in self._held.values()), default=None)


@dataclass
class Nat:
    """Translates the inner address and ports to an outer address (RFC 3022)."""

    inner: bytes
    outer: bytes
    ports: dict[int, int] = field(default_factory=dict)
    first: int = 20_000

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        at = header_length(packet)
        width = len(self.inner)
        where = at - 2 * width if width == 4 else 8
        changed = bytearray(packet)
        if direction == "out":
            port = int.from_bytes(packet[at : at + 2], "big")
            new = self.ports.setdefault(port, self.first + len(self.ports))
            changed[where : where + width] = self.outer
            changed[at : at + 2] = new.to_bytes(2, "big")
        else:
            port = int.from_bytes(packet[at + 2 : at + 4], "big")
            old = next((i for i, o in self.ports.items() if o == port), None)
            if old is None:
                return []
            changed[where + width : where + 2 * width] = self.inner
            changed[at + 2 : at + 4] = old.to_bytes(2, "big")
        return [sealed(changed)]


@dataclass
class Stripper:
    """Takes MPTCP options off, where `when(segment)` says so."""

    when: Callable[[tcp.Segment, Direction], bool] = lambda segment, direction: True
    count: int = 0

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        if (s.dss is None and not s.mptcp) or not self.when(s, direction):
            return [packet]
        self.count += 1
        kept = b"".join(o if o[0] != MPTCP else b"\x01" * len(o) for o in options_of(packet))
        return [with_parts(packet, options=kept, payload=bytes(s.payload))]


@dataclass
class SequenceRewriter:
    """Randomises the sequence numbers of the connections that go out, as some firewalls do."""

    offset: int

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        at = s.tcp_at
        changed = bytearray(packet)
        if direction == "out":
            changed[at + 4 : at + 8] = ((s.seq + self.offset) & 0xFFFFFFFF).to_bytes(4, "big")
            return [sealed(changed)]
        if s.flags & ACK:
            changed[at + 8 : at + 12] = ((s.ack - self.offset) & 0xFFFFFFFF).to_bytes(4, "big")
        options = b""
        for option in options_of(packet):
            if option[0] == 5:
                edges = [int.from_bytes(option[i : i + 4], "big") for i in range(2, len(option), 4)]
                option = option[:2] + b"".join(((e - self.offset) & 0xFFFFFFFF).to_bytes(4, "big") for e in edges)
            options += option
        return [with_parts(bytes(changed), options=options, payload=bytes(s.payload))]


@dataclass
class Corrupter:
    """Changes a byte of payload and repairs the TCP checksum, as an application-level gateway does."""

    when: Callable[[tcp.Segment, Direction], bool]
    count: int = 0

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        if not s.payload_length or not self.when(s, direction):
            return [packet]
        self.count += 1
        changed = bytearray(packet)
        changed[s.payload_at + s.payload_length // 2] ^= 0x55
        return [sealed(changed)]


@dataclass
class Dropper:
    """Drops what `when(segment)` names."""

    when: Callable[[tcp.Segment, Direction], bool]
    count: int = 0

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        if not self.when(tcp.parse(packet), direction):
            return [packet]
        self.count += 1
        return []


@dataclass
class _Side:
    """What connection tracking knows of a sender."""

    end: int = 0
    """The highest sequence number sent, exclusive."""
    limit: int = 0
    """The highest that the other side's window allows."""
    window: int = 1
    """The widest window it has told."""
    scale: int = 0
    first: int = 0
    seen: bool = False


class Firewall:
    """Drops what no TCP would send, as Linux connection tracking with nf_conntrack_tcp_be_liberal=0 (Rooij, Real Stateful TCP
    Packet Filtering in IP Filter, 2001): four bounds on sequence and acknowledgement numbers; flows begin with a SYN."""

    def __init__(self) -> None:
        self._flows: dict[frozenset[tuple[bytes, int]], dict[tuple[bytes, int], _Side]] = {}
        self.invalid: list[str] = []
        self.counters: Counter[str] = Counter()

    def handle(self, packet: bytes, direction: Direction, now: float) -> list[bytes]:
        s = tcp.parse(packet)
        here, there = (s.source, s.source_port), (s.destination, s.destination_port)
        flow = self._flows.get(frozenset((here, there)))
        again = flow is not None and flow[here].seen and flow[here].first == s.seq
        if s.flags & SYN and not again and not s.flags & ACK:
            flow = self._flows[frozenset((here, there))] = {here: _Side(), there: _Side()}
        if flow is None:
            self.counters["no flow"] += 1
            if not s.flags & RST:
                self.invalid.append(f"no flow: {here} {there} seq {s.seq} flags {s.flags:#x}")
            return []
        sender, receiver = flow[here], flow[there]
        length = s.payload_length + bool(s.flags & SYN) + bool(s.flags & FIN)
        window = s.window << (0 if s.flags & SYN else sender.scale)
        if again and s.flags & SYN:
            return [packet]
        if s.flags & SYN:
            sender.first = s.seq
            if s.window_scale is not None:
                sender.scale = s.window_scale
            if s.flags & ACK and not sender.scale:
                receiver.scale = 0
            sender.end = sender.limit = s.seq + 1
            sender.window = max(window, 1)
            sender.seen = True
            if s.flags & ACK:
                receiver.limit = s.ack + max(window, 1)
            return [packet]
        if s.flags & RST:
            if sender.seen and signed(s.seq - sender.limit) > 0:
                return self._no(s, "RST beyond the window")
            return [packet]
        ack = s.ack
        problems = []
        if signed(s.seq - sender.limit) > 0:
            problems.append(f"[{s.seq}, {s.seq + length}) beyond the window {sender.limit & 0xFFFFFFFF}")
        if signed(s.seq + length - (sender.end - max(receiver.window, 1) - 1)) < 0:
            problems.append(f"[{s.seq}, {s.seq + length}) is too old, the end is {sender.end & 0xFFFFFFFF}")
        if signed(ack - receiver.end) > 0:
            problems.append(f"acknowledges {ack}, sent was {receiver.end & 0xFFFFFFFF}")
        if signed(ack - (receiver.end - max(sender.window, 66_000))) < 0:
            problems.append(f"acknowledges {ack}, too old, the end is {receiver.end & 0xFFFFFFFF}")
        problems += [
            f"SACK of [{a}, {b}), sent was {receiver.end & 0xFFFFFFFF}" for a, b in s.sack if signed(b - receiver.end) > 0
        ]
        if problems:
            return self._no(s, ", ".join(problems))
        if signed(s.seq + length - sender.end) > 0:
            sender.end = s.seq + length
        sender.window = max(sender.window, window)
        if signed(ack + max(window, 1) - receiver.limit) > 0:
            receiver.limit = ack + max(window, 1)
        return [packet]

    def _no(self, s: tcp.Segment, why: str) -> list[bytes]:
        self.counters["invalid"] += 1
        self.invalid.append(f"{why}: seq {s.seq} ack {s.ack} flags {s.flags:#x} len {s.payload_length} port {s.source_port}")
        return []
