"""Feeds a Proxy with the packets of captures, in the order of time, and compares what it emits with what they hold.

What is a decision of a command, of a policy or of the host's TCP is taken from the capture and followed; all else is decided by
the proxy again. Everything is a function of the captures and the seed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agents.core.proxy import closing, signalling
from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Send, Verdict
from agents.core.proxy.commands import CommandRefused
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.connection import Connection
from agents.core.proxy.policy import MANUAL
from agents.core.proxy.proxy import Proxy
from agents.core.proxy.signalling import decoded
from agents.core.proxy.states import SubflowState
from agents.core.proxy.subflow import Subflow
from agents.replay import hostside
from agents.replay.captures import Packet
from agents.replay.recording import PORTS_FIRST, Choices, Flow, Recording, Role, backwards, scan, segment_of
from agents.wire import mptcp
from agents.wire.mptcp import Capable, JoinSyn
from agents.wire.tcp import ACK, RST, SYN, Segment

SLACK_S: Final = 0.25
"""A packet of the capture and its counterpart may be so far apart: timers ring early or late."""
CLOCK_S: Final = 1e-6
"""A capture's clock is so coarse at best: a timer that has just not rung has rung."""
_SYN_KINDS: Final = SYN | ACK


@dataclass(frozen=True)
class Emitted:
    """A packet that the proxy emitted, or that is in the capture, and has no counterpart on the other side."""

    time_s: float
    packet: bytes


@dataclass
class Comparison:
    """Emitted packets beside those of the capture, of one side."""

    same: int = 0
    alike: int = 0
    """The same but for their timestamps: packets that wait for the proxy meet another moment than in a replay."""
    missing: list[Emitted] = field(default_factory=list)
    """In the capture, not emitted."""
    more: list[Emitted] = field(default_factory=list)
    """Emitted, not in the capture."""
    _waiting: dict[bytes, deque[Emitted]] = field(default_factory=dict)
    _seen: dict[bytes, deque[Emitted]] = field(default_factory=dict)

    def emit(self, packet: bytes, now: float) -> None:
        """The proxy emitted it."""
        self._meet(normal(packet), packet, now, self._seen, self._waiting)

    def see(self, packet: bytes, now: float) -> None:
        """It is in the capture."""
        self._meet(normal(packet), packet, now, self._waiting, self._seen)

    def expects(self, packet: bytes) -> bool:
        """Was it emitted already, and not yet seen?"""
        return bool(self._waiting.get(normal(packet)))

    def _meet(self, key: bytes, packet: bytes, now: float, others: dict[bytes, Any], own: dict[bytes, Any]) -> None:
        waiting = others.get(key)
        while waiting and waiting[0].time_s < now - SLACK_S:
            (self.more if others is self._waiting else self.missing).append(waiting.popleft())
        if waiting:
            waiting.popleft()
            self.same += 1
        else:
            own.setdefault(key, deque()).append(Emitted(now, packet))

    def close(self) -> None:
        """What has found no counterpart has none."""
        self.more += [item for queue in self._waiting.values() for item in queue]
        self.missing += [item for queue in self._seen.values() for item in queue]
        self._waiting.clear()
        self._seen.clear()
        self.more.sort(key=lambda item: item.time_s)
        self.missing.sort(key=lambda item: item.time_s)
        self._pair_alike()

    def _pair_alike(self) -> None:
        waiting: dict[bytes, deque[Emitted]] = {}
        for item in self.more:
            waiting.setdefault(without_timestamps(item.packet), deque()).append(item)
        missing, paired = [], set()
        for item in self.missing:
            others = waiting.get(without_timestamps(item.packet))
            while others and others[0].time_s < item.time_s - SLACK_S:
                others.popleft()
            if others and others[0].time_s <= item.time_s + SLACK_S:
                paired.add(id(others.popleft()))
                self.alike += 1
            else:
                missing.append(item)
        self.missing = missing
        self.more = [item for item in self.more if id(item) not in paired]


def normal(packet: bytes) -> bytes:
    """A packet without what the kernel fills in (IPv4 identification and checksum), its payload only by the TCP checksum."""
    segment = segment_of(packet)
    if segment is None:
        return packet
    head = bytearray(packet[: segment.payload_at])
    if segment.version == 4:
        head[4:6] = head[10:12] = b"\0\0"
    return bytes(head)


def without_timestamps(packet: bytes) -> bytes:
    """The same, and without timestamps and the checksum that covers them."""
    segment = segment_of(packet)
    if segment is None or segment.timestamp is None:
        return normal(packet)
    head = bytearray(normal(packet))
    at = head.find(segment.timestamp.to_bytes(4, "big") + segment.echo.to_bytes(4, "big"), segment.tcp_at + 20)
    if at >= 0:
        head[at : at + 8] = bytes(8)
    head[segment.tcp_at + 16 : segment.tcp_at + 18] = b"\0\0"
    return bytes(head)


@dataclass
class Outcome:
    """What a replay found."""

    decisions: list[tuple[float, Log]] = field(default_factory=list)
    emitted: list[tuple[float, str, bytes]] = field(default_factory=list)
    """Time, "network" or "host", packet."""
    network: Comparison = field(default_factory=Comparison)
    host: Comparison | None = None
    """None: the capture has no inner side."""
    connections: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    inbound: int = 0
    outbound: int = 0
    defects: list[tuple[float, str]] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """No difference anywhere but in timestamps, and no defect."""
        sides = [self.network, *([self.host] if self.host is not None else [])]
        return not self.defects and not any(side.missing or side.more for side in sides)


class Replay:
    """One replay."""

    def __init__(
        self,
        outer: Sequence[Packet],
        inner: Sequence[Packet] | None,
        *,
        role: Role = "client",
        hosts: Iterable[bytes] = (),
        config: ProxyConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._outer = sorted(outer, key=lambda packet: packet.time_ns)
        self._inner = None if inner is None else sorted(inner, key=lambda packet: packet.time_ns)
        self.recording: Recording = scan((packet.data for packet in self._outer), role, hosts)
        self._choices = Choices(seed)
        self.proxy = Proxy(replace(config or self.recording.config(), policy=MANUAL), self._choices)
        self.outcome = Outcome(host=None if inner is None else Comparison())
        self._actions: list[Action] = []
        self._number = 0

    def run(self, until_s: float | None = None) -> Outcome:
        """Replay everything, or what lies before `until_s` (from the first packet)."""
        begin: int | None = None
        now = 0.0
        for time_ns, side, number, packet in self._ordered():
            begin = time_ns if begin is None else begin
            now = (time_ns - begin) / 1e9
            if until_s is not None and now > until_s:
                break
            self._timers(now)
            self._number = number
            self._guarded(now, lambda now=now, side=side, packet=packet: self._one(side, packet, now))  # type: ignore[misc]
        self.outcome.network.close()
        if self.outcome.host is not None:
            self.outcome.host.close()
        self.outcome.connections = self.proxy.connections()
        self.outcome.status = self.proxy.status()
        return self.outcome

    def _ordered(self) -> Iterator[tuple[int, str, int, Packet]]:
        """Both sides by time; at the same time what arrives, then what the host's TCP says to it, then what leaves."""
        rows = []
        for number, packet in enumerate(self._outer):
            segment = segment_of(packet.data)
            leaves = segment is not None and segment.source in self.recording.hosts
            rows.append((packet.time_ns, 2 if leaves else 0, number, packet))
        rows += [(packet.time_ns, 1, number, packet) for number, packet in enumerate(self._inner or ())]
        rows.sort(key=lambda row: row[:3])
        for time_ns, place, number, packet in rows:
            yield time_ns, "inner" if place == 1 else "outer", self._number if place == 1 else number, packet

    # -- one packet ---------------------------------------------------------------------------------------------------

    def _one(self, side: str, packet: Packet, now: float) -> None:
        segment = segment_of(packet.data)
        if segment is None:
            return
        mine = segment.source in self.recording.hosts
        if side == "inner":
            if mine:
                self._follow_inner(segment, now)
                self._outbound(packet.data, segment, now)
            elif self.outcome.host is not None:
                self.outcome.host.see(packet.data, now)
        elif mine:
            self._left(packet.data, segment, now)
        elif segment.destination in self.recording.hosts and self._ours(segment):
            self._arrived(packet.data, segment, now)

    def _ours(self, segment: Segment) -> bool:
        """Does a packet from the network belong to a connection that the capture shows from its beginning?"""
        flow = backwards(segment.key)
        if flow in self.recording.keys or flow in self.recording.nonces or segment.key in self.proxy._by_subflow:
            return True
        return any(isinstance(o, JoinSyn) and o.token in self.recording.tokens for o in decoded(segment))

    def _arrived(self, data: bytes, segment: Segment, now: float) -> None:
        if segment.flags & SYN:
            self._prepare(backwards(segment.key))
        if self._number in self.recording.refused:
            self._broken(segment, now)
        self.outcome.inbound += 1
        self._answered(self.proxy.inbound(data, now, self._actions), data, "host", now)

    def _broken(self, segment: Segment, now: float) -> None:
        """The capture shows that the packet's subflow was dead by now: a command has broken it without a word."""
        found = self.proxy._by_subflow.get(segment.key)
        if found is not None and found[1].alive and len(found[0].subflows) > 1:
            closing.break_subflow(*found, "dead in the capture", now, self._actions, reason=None)
            self._perform(now)

    def _outbound(self, data: bytes, segment: Segment, now: float, offload: Offload = Offload.NONE) -> None:
        if segment.key not in self.recording.keys and segment.key not in self.proxy._by_host:
            return
        if segment.flags & SYN:
            self._prepare(segment.key)
        self.outcome.outbound += 1
        self._answered(self.proxy.outbound(data, now, self._actions, offload), data, "network", now)

    def _prepare(self, flow: Flow) -> None:
        """What the proxy draws by lot for this subflow."""
        if flow in self.recording.keys:
            self._choices.expect(self.recording.keys[flow])
        elif flow in self.recording.nonces:
            self._choices.expect(self.recording.initials[flow].to_bytes(4, "big"), self.recording.nonces[flow])

    # -- what left this host ------------------------------------------------------------------------------------------

    def _left(self, data: bytes, segment: Segment, now: float) -> None:
        """A packet of this host in the capture: expected already, or the sign of something that is no decision of the proxy."""
        if segment.key not in self.recording.keys and backwards(segment.key) not in self.proxy._by_subflow:
            if segment.key not in self.recording.nonces:
                return
            self._join(segment, now)
        if not self.outcome.network.expects(data):
            self._cause(segment, now)
        self.outcome.network.see(data, now)

    def _cause(self, segment: Segment, now: float) -> None:
        found = self.proxy._by_subflow.get(backwards(segment.key))
        if segment.flags & SYN:
            first = any(isinstance(option, Capable) for option in decoded(segment)) or segment.key in self.recording.keys
            if first and self._inner is None:
                self._outbound(hostside.opening(segment), segment, now)
            return
        if found is None:
            return
        connection, subflow = found
        if self._signals(connection, subflow, segment, now):
            return
        if self._inner is not None or hostside.of_the_proxy(segment, connection):
            return
        if segment.payload_length:
            t = hostside.data_offset(connection, subflow, segment)
            if t is not None:
                self._follow(connection, subflow, t, now)
        made = hostside.host_segment(connection, subflow, segment)
        if made is not None:
            large = hostside.note_large_mapping(subflow, segment)
            self._outbound(made, _with_key(made, connection.key), now, Offload.PARTIAL_CHECKSUM if large else Offload.NONE)

    def _signals(self, connection: Connection, subflow: Subflow, segment: Segment, now: float) -> bool:
        """Priorities, withdrawn addresses and resets are a command's or a policy's; True when it was one."""
        reset = bool(segment.flags & RST)
        done = False
        for option in decoded(segment):
            match option:
                case mptcp.Prio():
                    signalling.prioritise(connection, subflow, backup=option.backup, actions=self._actions)
                    done = True
                case mptcp.RemoveAddr():
                    for other in [s for s in connection.subflows if s.local_id in option.address_ids and s is not subflow]:
                        closing.break_subflow(connection, other, "withdrawn in the capture", now, self._actions, reason=None)
                    for address_id in option.address_ids:
                        signalling.withdraw(connection, subflow, address_id, self._actions)
                    done = True
                case mptcp.TcpRst() if reset and subflow.alive:
                    try:
                        why = mptcp.ResetReason(option.reason)
                    except ValueError:
                        why = mptcp.ResetReason.UNSPECIFIED
                    closing.break_subflow(connection, subflow, "reset in the capture", now, self._actions, reason=why)
                    done = True
                case _:
                    continue
        self._perform(now)
        return done

    def _join(self, segment: Segment, now: float) -> None:
        """This host's SYN with MP_JOIN: a command or a policy wanted it. What answers the peer's is the proxy's own."""
        option = next((o for o in decoded(segment) if isinstance(o, JoinSyn)), None)
        if option is None or segment.flags & _SYN_KINDS != SYN:
            return
        connection = next((c for c in self.proxy._numbered.values() if c.remote_token == option.token), None)
        if connection is None:
            return
        port = (segment.source_port - PORTS_FIRST) & 0xFFFF
        self._choices.expect(port.to_bytes(2, "big"), segment.seq.to_bytes(4, "big"), option.nonce)
        connection.local_ids.setdefault(segment.source, option.address_id)
        try:
            self.proxy.add_subflow(segment.source, now, self._actions, connection=connection.number, backup=option.backup,
                                   remote=segment.destination)  # fmt: skip
        except CommandRefused as error:
            self._log(now, "not-replayed", why=str(error))
        self._perform(now)

    def _follow_inner(self, segment: Segment, now: float) -> None:
        """Before a segment of the host is shown: the outer side tells by which subflow its data will leave."""
        connection = self.proxy._by_host.get(segment.key)
        if connection is None or not segment.payload_length or connection.half_open:
            return
        t = connection.unwrap_seq(segment.seq)
        dsn = connection.idsn_local + t & 0xFFFFFFFF
        rows = self.recording.placed.get(dsn, [])
        flow = next((flow for number, flow in rows if number > self._number), None)
        found = self.proxy._by_subflow.get(backwards(flow)) if flow is not None else None
        if found is not None and found[0] is connection and found[1].state is SubflowState.ESTABLISHED:
            self._follow(connection, found[1], t, now)

    def _follow(self, connection: Connection, subflow: Subflow, t: int, now: float) -> None:
        """Data goes by `subflow`: it is the active one, and a subflow that had the data before is dead."""
        at = connection.send.index(t) if connection.tan <= t < connection.send_max else -1
        owner = connection.send.owners[at] if at >= 0 else None
        if owner is subflow:
            return
        if owner is not None and owner.alive:
            closing.break_subflow(connection, owner, "its data left by another one", now, self._actions, reason=None)
            self._perform(now)
        if connection.active is not subflow:
            connection.active = subflow
            self._log(now, "followed", connection=connection.number, to=subflow.number)

    # -- what the proxy wants -----------------------------------------------------------------------------------------

    def _timers(self, now: float) -> None:
        while (deadline := self.proxy.next_deadline()) is not None and deadline <= now + CLOCK_S:
            self._guarded(deadline, lambda at=deadline: self.proxy.handle_timer(at, self._actions))  # type: ignore[misc]
            self._perform(deadline)

    def _guarded(self, now: float, act: Callable[[], None]) -> None:
        """A defect of the core is a finding, and not the end."""
        try:
            act()
        except Exception as error:
            last = error.__traceback__
            while last is not None and last.tb_next is not None:
                last = last.tb_next
            where = f"{last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno}" if last is not None else "?"
            self.outcome.defects.append((now, f"{error!r} at {where}"))
            self._actions.clear()

    def _answered(self, answer: Answer, shown: bytes, towards: str, now: float) -> None:
        if isinstance(answer, bytes):
            self._emit(answer, towards, now)
        elif answer is not Verdict.DROP:
            self._emit(shown, towards, now)
        self._perform(now)

    def _perform(self, now: float) -> None:
        pending = self._actions[:]
        self._actions.clear()
        for action in pending:
            match action:
                case Send():
                    self._emit(action.packet, "network", now)
                case Deliver():
                    self._emit(action.packet, "host", now)
                case Log():
                    self.outcome.decisions.append((now, action))

    def _emit(self, packet: bytes, towards: str, now: float) -> None:
        self.outcome.emitted.append((now, towards, packet))
        if towards == "network":
            self.outcome.network.emit(packet, now)
        elif self.outcome.host is not None:
            self.outcome.host.emit(packet, now)

    def _log(self, now: float, event: str, **fields: Any) -> None:
        self.outcome.decisions.append((now, Log(event, fields)))


def _with_key(packet: bytes, key: Flow) -> Segment:
    segment = segment_of(packet)
    assert segment is not None
    assert segment.key == key
    return segment
