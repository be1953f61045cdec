"""A TCP endpoint as a pure model: small, honest, and strict about what it receives (RFC 9293, 7323, 2018, 5961).

Packets go in and out as bytes, time is an argument. What a correct peer behind a network that loses, repeats and reorders
cannot have sent is written down in `violations`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from agents.wire import tcp
from agents.wire.tcp import ACK, FIN, PSH, RST, SYN, Segment
from tests.proxy import packets
from tests.proxy.tcp_receiver import Receiver
from tests.proxy.tcp_sender import Sender
from tests.proxy.tcp_types import Address, State, TcpConfig, Upper, signed

RETRIES: Final = 15
SYN_RETRIES: Final = 6


class Endpoint:
    """One end of a connection. Relative numbers everywhere: the SYN is 0, the first byte 1."""

    def __init__(self, config: TcpConfig, local: Address, remote: Address | None = None, upper: Upper | None = None) -> None:
        self.config, self.local, self.remote, self.upper = config, local, remote, upper
        self.state = State.CLOSED
        self.output: list[bytes] = []
        self.violations: list[str] = []
        self.counters: Counter[str] = Counter()
        self.reset_by: str | None = None
        """"peer", "self" or "timeout" after an abort."""
        self.sender = Sender(536, False, config.min_rto)
        self.receiver = Receiver(config.buffer)
        self.irs = 0
        self.sack = self.timestamps = False
        self.send_scale = self.receive_scale = 0
        self.ts_recent = 0
        self.mss = 536
        self.early = bytearray()
        """What was written before the connection existed."""
        self.early_close = False
        self._last_ack_sent = 0
        self._ack_now = False
        self._ack_pending = 0
        self._ack_at: float | None = None
        self._timer: float | None = None
        self._probing = False
        self._probed_until = 0
        self._end_at: float | None = None
        self._sent_stamps: set[int] = set()
        self._stamp_times: dict[int, float] = {}
        self._window_told = 0
        self.on_arrival: Callable[[Segment], None] | None = None

    # ---- the application

    def connect(self, now: float) -> None:
        """Active open."""
        self.state = State.SYN_SENT
        self._send_syn(now)

    def listen(self) -> None:
        """Passive open."""
        self.state = State.LISTEN

    def write(self, data: bytes, now: float) -> None:
        """Data to send; there is no limit on what waits."""
        if self.state in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.SYN_RCVD):
            self.early += data
            return
        assert not self.sender.closing
        self.sender.data += data
        self.push(now)

    def close(self, now: float) -> None:
        """No more data to send."""
        if self.state in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.SYN_RCVD):
            self.early_close = True
            return
        if not self.sender.closing:
            self.sender.closing = True
            self._next_state(now)
            self.push(now)

    def abort(self, now: float, options: bytes = b"", reason: str = "self") -> None:
        """RST."""
        if self.state not in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.TIME_WAIT):
            self._emit(self.sender.next, b"", RST | ACK, now, options)
        self._die(reason)

    def pause(self) -> None:
        """The application stops reading."""
        self.receiver.reading = False

    def resume(self, now: float) -> None:
        """The application reads again, all there is."""
        receiver = self.receiver
        receiver.reading = True
        before = receiver.free()
        receiver.take()
        if receiver.free() - before >= min(2 * self.mss, receiver.buffer // 2) and self.synchronized:
            self.ack_now(now)

    def keepalive(self, now: float) -> None:
        """RFC 9293 section 3.8.4: an old sequence number that asks for an acknowledgement."""
        if self.synchronized:
            self._emit(self.sender.next - 1, b"", ACK, now)

    @property
    def received(self) -> bytes:
        """The stream so far, without holes."""
        return bytes(self.receiver.data[: self.receiver.bytes_in_order])

    @property
    def received_bytes(self) -> int:
        """Its length."""
        return self.receiver.bytes_in_order

    @property
    def synchronized(self) -> bool:
        """Past the handshake and not closed."""
        return self.state not in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.SYN_RCVD)

    @property
    def finished(self) -> bool:
        """Closed, or waiting only for late segments."""
        return self.state in (State.CLOSED, State.TIME_WAIT)

    # ---- sending

    def push(self, now: float) -> None:
        """Send what may be sent, then an acknowledgement if one is due."""
        if self.state in (State.CLOSED, State.LISTEN, State.SYN_SENT, State.SYN_RCVD, State.TIME_WAIT):
            self._flush_ack(now)
            return
        sender = self.sender
        first = sender.recovery_until is not None and sender.una == sender.repeated_until
        while (hole := sender.lost()) is not None:
            if sender.pipe() + self.mss > max(sender.cwnd, self.mss) and not first:
                break
            first = False
            left, right = hole
            sender.repeated_until = left + self._send_range(left, min(right, left + self.mss), now)
            self.counters["retransmitted"] += 1
        while sender.next < sender.end:
            room = min(sender.cwnd - sender.pipe(), sender.edge - sender.next)
            left = sender.end - sender.next
            if room <= 0 or (room < min(self.mss, left) and sender.outstanding):
                break
            sent = self._send_range(sender.next, sender.next + min(room, left, self.mss), now)
            if sent <= 0:
                break
            sender.next += sent
        if self._timer is None or (self._probing and sender.outstanding):
            self._arm(now)
        self._next_state(now)
        self._flush_ack(now)

    def _send_range(self, left: int, right: int, now: float) -> int:
        """One segment that begins at `left` and ends at `right` at most; returns how many numbers it used."""
        sender = self.sender
        if left == 0:  # a SYN whose acknowledgement is missing
            self._send_syn(now)
            return 1
        end_of_data = 1 + len(sender.data)
        length = min(right, end_of_data) - left
        taken = 12 if self.timestamps else 0
        options = b""
        if self.upper is not None:
            length = self.upper.limit(left, length) if length else 0
            options = self.upper.options(left, length)
        length = min(length, self.mss - taken - len(options))
        fin = sender.closing and left + length == end_of_data and right > end_of_data
        flags = ACK | (FIN if fin else 0) | (PSH if length and left + length == end_of_data else 0)
        payload = memoryview(sender.data)[left - 1 : left - 1 + length]
        self._emit(left, payload, flags, now, options)
        payload.release()
        return length + int(fin)

    def _send_syn(self, now: float) -> None:
        config = self.config
        options = b"\x02\x04" + config.mss.to_bytes(2, "big")
        answer = self.state is State.SYN_RCVD
        if config.sack and (self.sack or not answer):
            options += b"\x04\x02"
        if config.timestamps and (self.timestamps or not answer):
            options += b"\x08\x0a" + self._stamp(now).to_bytes(4, "big") + (self.ts_recent if answer else 0).to_bytes(4, "big")
        if config.scale is not None and (self.send_scale >= 0 or not answer):
            options += bytes((3, 3, config.scale))
        options += b"\x01" * (-len(options) % 4)
        if self.upper is not None:
            options += self.upper.syn_options()
        self.sender.next = max(self.sender.next, 1)
        field = min(0xFFFF, self.receiver.free()) if self.upper is None else self.upper.window_field(0)
        self.receiver.edge = max(self.receiver.edge, 1 + field)
        assert self.remote is not None
        self.output.append(
            tcp.build(
                *self.local,
                *self.remote,
                config.isn,
                self.irs + 1 if answer else 0,
                SYN | (ACK if answer else 0),
                field,
                options,
            )
        )
        self._timer = now + self.sender.timeout()

    def _stamp(self, now: float) -> int:
        stamp = (int(now * 1000) + self.config.timestamp_offset) & 0xFFFFFFFF
        if stamp not in self._sent_stamps:
            self._sent_stamps.add(stamp)
            self._stamp_times[stamp] = now
        return stamp

    def _emit(self, seq: int, payload: bytes | memoryview, flags: int, now: float, options: bytes | None = None) -> None:
        parts = []
        if self.timestamps:
            parts.append(tcp.timestamps_option(self._stamp(now), self.ts_recent))
        if options is None:
            options = self.upper.options(seq, 0) if self.upper is not None and not flags & RST else b""
        if self.sack and self.receiver.beyond and not flags & RST:
            room = 40 - (12 if self.timestamps else 0) - len(options)
            if len(payload):
                room = min(room, self.mss - (12 if self.timestamps else 0) - len(options) - len(payload))
            blocks = self.receiver.sack_blocks((room - 4) // 8)
            parts.append(tcp.sack_option([(self.irs + left, self.irs + right) for left, right in blocks]))
        parts.append(options)
        receiver = self.receiver
        if self.upper is not None:
            field = self.upper.window_field(self.receive_scale)
            receiver.edge = max(receiver.edge, receiver.next + (field << self.receive_scale))
        else:
            field = receiver.window_field(self.receive_scale, self.config.mss)
        self._window_told = field << self.receive_scale
        assert self.remote is not None
        packet = tcp.build(
            *self.local, *self.remote, self.config.isn + seq, self.irs + receiver.next, flags, field, b"".join(parts), payload
        )
        self.output.append(packet)
        self._last_ack_sent = receiver.next
        self._ack_now, self._ack_pending, self._ack_at = False, 0, None

    def ack_now(self, now: float) -> None:
        """An acknowledgement at once."""
        self._ack_now = True
        self._flush_ack(now)

    def _flush_ack(self, now: float) -> None:
        if self.synchronized and (self._ack_now or self._ack_pending >= 2):
            self._emit(self.sender.next, b"", ACK, now)

    # ---- timers

    def _arm(self, now: float) -> None:
        sender = self.sender
        self._probing = False
        if sender.outstanding:
            self._timer = now + sender.timeout()
        elif sender.next < sender.end and self.synchronized:
            self._probing = True
            self._timer = now + sender.timeout()
        else:
            self._timer = None

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        times = [at for at in (self._timer, self._ack_at, self._end_at) if at is not None]
        return min(times) if times else None

    def handle_timer(self, now: float) -> None:
        """Whatever is due."""
        if self._end_at is not None and now >= self._end_at:
            self._die(None)
            return
        if self._ack_at is not None and now >= self._ack_at:
            self.ack_now(now)
        if self._timer is None or now < self._timer:
            return
        sender = self.sender
        limit = RETRIES if self.synchronized else SYN_RETRIES
        if sender.backoff >= limit:
            self.abort(now, reason="timeout")
            return
        if self.state in (State.SYN_SENT, State.SYN_RCVD):
            sender.backoff += 1
            self._send_syn(now)
            return
        if self._probing:
            sender.backoff += 1
            self.counters["probes"] += 1
            if self.config.probe_with_data and sender.next <= len(sender.data):
                self._send_range(sender.next, sender.next + 1, now)
                self._probed_until = sender.next + 1
            else:
                self._emit(sender.next - 1, b"", ACK, now)
            self._timer = now + sender.timeout()
            return
        self.counters["timeouts"] += 1
        sender.timed_out()
        self._timer = now + sender.timeout()
        self.push(now)

    def _die(self, reason: str | None) -> None:
        self.state = State.CLOSED
        self.reset_by = self.reset_by or reason
        self._timer = self._ack_at = self._end_at = None

    # ---- receiving

    def handle(self, packet: bytes, now: float) -> None:
        """A packet from the network."""
        wrong = packets.faults(packet)
        try:
            segment = tcp.parse(packet)
        except tcp.WireError as error:
            wrong.append(str(error))
        if wrong:
            self.counters["damaged"] += 1
            self._complain(", ".join(wrong), None)
            return
        self.handle_segment(segment, now)

    def handle_segment(self, segment: Segment, now: float) -> None:
        """A segment whose checksums were found right."""
        self.counters["segments"] += 1
        if segment.malformed:
            self._complain("options that lie about their length", segment)
        strict = self.config.plain or (self.config.plain_after_syn and not segment.flags & SYN)
        if strict and (segment.mptcp or segment.dss is not None):
            self._complain("an MPTCP option for a plain TCP", segment)
        if self.on_arrival is not None:
            self.on_arrival(segment)
        if self.state is State.CLOSED:
            self._refuse(segment)
        elif self.state is State.LISTEN:
            self._listening(segment, now)
        elif self.state is State.SYN_SENT:
            self._syn_sent(segment, now)
        else:
            self._synchronized(segment, now)
        if self.upper is not None and self.state is not State.CLOSED:
            self.upper.progress(now)

    def _complain(self, text: str, segment: Segment | None) -> None:
        at = "" if segment is None else f": {packets.describe(segment.data)}"
        self.violations.append(f"{self.state.value}: {text}{at}")

    def _refuse(self, segment: Segment) -> None:
        if segment.flags & RST:
            return
        self.counters["refused"] += 1
        back = (segment.destination, segment.destination_port, segment.source, segment.source_port)
        if segment.flags & ACK:
            self.output.append(tcp.build(*back, segment.ack, 0, RST, 0))
        else:
            length = segment.payload_length + bool(segment.flags & SYN) + bool(segment.flags & FIN)
            self.output.append(tcp.build(*back, 0, segment.seq + length, RST | ACK, 0))

    def _negotiate(self, segment: Segment) -> None:
        """The options of the peer's SYN."""
        config = self.config
        self.irs = segment.seq
        self.receiver.next = self._last_ack_sent = 1
        self.sack = config.sack and segment.sack_permitted
        self.timestamps = config.timestamps and segment.timestamp is not None
        if segment.timestamp is not None:
            self.ts_recent = segment.timestamp
        if config.scale is not None and segment.window_scale is not None:
            self.send_scale, self.receive_scale = segment.window_scale, config.scale
        else:
            self.send_scale = -1
        self.mss = min(config.mss, 536 if segment.mss is None else segment.mss)
        sender = self.sender
        sender.mss, sender.sack, sender.cwnd = self.mss, self.sack, 10 * self.mss
        sender.edge = 1 + segment.window
        sender.window = sender.widest = segment.window

    def _listening(self, segment: Segment, now: float) -> None:
        if segment.flags & RST:
            return
        if segment.flags & (SYN | ACK) != SYN:
            self._refuse(segment)
            return
        self.remote = (segment.source, segment.source_port)
        if self.upper is not None and not self.upper.syn_arrived(segment, now):
            return
        self._negotiate(segment)
        self.state = State.SYN_RCVD
        self._send_syn(now)

    def _syn_sent(self, segment: Segment, now: float) -> None:
        if segment.flags & ACK and segment.ack != (self.config.isn + 1) & 0xFFFFFFFF:
            self._complain("an acknowledgement of what was not sent", segment)
            self._refuse(segment)
            return
        if segment.flags & RST:
            if segment.flags & ACK:
                self._die("peer")
            return
        if segment.flags & (SYN | ACK) != SYN | ACK:
            self._complain("no SYN/ACK", segment)
            return
        if segment.timestamp is not None and segment.echo not in self._sent_stamps:
            self._complain("an echo of a timestamp that was not sent", segment)
        self._negotiate(segment)
        if self.send_scale < 0 and segment.window_scale is not None and self.config.scale is None:
            self._complain("window scaling that was not offered", segment)
        if self.upper is not None and not self.upper.syn_arrived(segment, now):
            return
        if self.sender.backoff == 0 and segment.timestamp is not None and segment.echo in self._stamp_times:
            self.sender.measured(now - self._stamp_times[segment.echo])
        self.sender.acknowledged(1, [], False)
        self._established(now)
        self._emit(1, b"", ACK, now)
        self.push(now)

    def _established(self, now: float) -> None:
        self.state = State.ESTABLISHED
        self._timer = None
        self.sender.backoff = 0
        self.sender.data += self.early
        self.early.clear()
        if self.early_close:
            self.sender.closing = True

    def _synchronized(self, segment: Segment, now: float) -> None:
        sender, receiver = self.sender, self.receiver
        flags = segment.flags
        payload_length = segment.payload_length
        seq = receiver.next + signed(segment.seq - self.irs - receiver.next)
        length = payload_length + bool(flags & FIN)
        if flags & SYN:
            if seq == 0 and self.state is State.SYN_RCVD and not flags & ACK:
                self.counters["repeated SYN"] += 1
                self._send_syn(now)
            else:
                if seq != 0:
                    self._complain("a SYN elsewhere than at the beginning", segment)
                self.ack_now(now)
            return
        if flags & RST:
            if self.state is State.TIME_WAIT:
                self.counters["RST in TIME-WAIT"] += 1
            elif seq == receiver.next:
                if self.upper is not None:
                    self.upper.reset_arrived(segment, now)
                self._die("peer")
            else:
                self.counters["RST elsewhere"] += 1
                if receiver.next < seq <= receiver.edge:
                    self.ack_now(now)
                elif seq > receiver.edge:
                    self._complain("an RST outside of the window", segment)
            return
        if not flags & ACK:
            self._complain("no ACK flag", segment)
            return
        if self.timestamps:
            if segment.timestamp is None:
                self._complain("no timestamps option, though negotiated", segment)
                return
            if segment.echo not in self._sent_stamps:
                self._complain("an echo of a timestamp that was not sent", segment)
            if signed(segment.timestamp - self.ts_recent) < 0:
                self.counters["PAWS"] += 1
                self.ack_now(now)
                return
            if seq <= self._last_ack_sent:
                self.ts_recent = segment.timestamp
        if (
            payload_length + segment.payload_at - segment.tcp_at - 20 > self.config.mss
            and payload_length
            and not self.config.superpackets
        ):
            self._complain(f"{payload_length} bytes of payload with an MSS of {self.config.mss}", segment)
        if segment.sack and not self.sack:
            self._complain("SACK, though not negotiated", segment)
        if seq + length > receiver.edge and length:
            if seq == receiver.edge and length == 1 and self.upper is None:
                self.counters["probed"] += 1
                self.ack_now(now)
                length = -1  # a zero-window probe; its acknowledgement counts
            elif self.upper is None:
                self._complain(f"beyond the window, which ends at {receiver.edge}: [{seq}, {seq + length})", segment)
                self.ack_now(now)
                return
        ack = sender.una + signed(segment.ack - self.config.isn - sender.una)
        if ack == self._probed_until and ack > sender.next:
            sender.next = ack
        if ack > sender.next or ack < 0:
            self._complain(f"acknowledges {ack}, sent was {sender.next}", segment)
            self.ack_now(now)
            return
        if self.state is State.SYN_RCVD:
            if ack < 1:
                return
            if self.upper is not None and not self.upper.arrived(segment, seq, now):
                return
            sender.acknowledged(1, [], False)
            self._established(now)
        elif self.upper is not None and not self.upper.arrived(segment, seq, now):
            return
        if self.state is State.CLOSED:  # the upper layer ended it
            return
        self._acknowledgement(segment, ack, payload_length, now)
        if length > 0:
            self._data(segment, seq, length, now)
        elif length == 0 and seq < receiver.next:
            self.ack_now(now)  # a keep-alive or a window probe
        self._next_state(now)
        self.push(now)

    def _acknowledgement(self, segment: Segment, ack: int, payload_length: int, now: float) -> None:
        sender = self.sender
        window = segment.window << max(0, self.send_scale)
        blocks = []
        for left_wire, right_wire in segment.sack:
            left = sender.una + signed(left_wire - self.config.isn - sender.una)
            right = sender.una + signed(right_wire - self.config.isn - sender.una)
            if right > sender.next or left >= right or left < 1:
                self._complain(f"SACK of [{left}, {right}), sent was {sender.next}", segment)
            else:
                blocks.append((left, right))
        duplicate = ack == sender.una and not payload_length and window == sender.window and not segment.flags & FIN
        duplicate = duplicate and not segment.mptcp  # RFC 8684 section 3
        if ack >= sender.una:
            if ack + window < sender.edge and ack + window < sender.una + sender.window:
                self.counters["window shrunk"] += 1
            sender.window = window
            sender.widest = max(sender.widest, window)
        opened = ack + window > sender.edge
        sender.edge = max(sender.edge, ack + window)
        gained = sender.acknowledged(ack, blocks, duplicate)
        if gained:
            if self.timestamps and segment.echo in self._stamp_times:
                sender.measured(now - self._stamp_times[segment.echo])
            self._arm(now)
        elif self._probing:
            sender.backoff = min(sender.backoff, 6)  # the peer lives
            if opened:
                sender.backoff = 0
                self._arm(now)

    def _data(self, segment: Segment, seq: int, length: int, now: float) -> None:
        receiver = self.receiver
        before, holes = receiver.next, bool(receiver.beyond)
        for text in receiver.store(seq, segment.payload, bool(segment.flags & FIN)):
            self._complain(text, segment)
        if receiver.next == before:
            self.counters["repeated" if seq + length <= before else "out of order"] += 1
            self._ack_now = True
        elif holes or segment.flags & FIN or self.config.delayed_ack is None:
            self._ack_now = True
        else:
            self._ack_pending += 1
            if self._ack_at is None:
                self._ack_at = now + self.config.delayed_ack

    def _next_state(self, now: float) -> None:
        """The state follows from what was sent, acknowledged and received."""
        if not self.synchronized:
            return
        fin_received = self.receiver.fin_at is not None and self.receiver.next > self.receiver.fin_at
        sender = self.sender
        if sender.fin_acked and fin_received:
            if self.state is State.LAST_ACK:
                self._die(None)
            elif self.state is not State.TIME_WAIT:
                self.state = State.TIME_WAIT
                self._timer = None
                self._end_at = now + self.config.time_wait
        elif sender.fin_acked:
            self.state = State.FIN_WAIT_2
        elif sender.fin_sent:
            if self.state in (State.CLOSE_WAIT, State.LAST_ACK):
                self.state = State.LAST_ACK
            else:
                self.state = State.CLOSING if fin_received else State.FIN_WAIT_1
        elif fin_received:
            self.state = State.CLOSE_WAIT
