"""One subflow: its addresses, its sequence spaces in both directions, and its tables.

Names: `s` is an offset of the subflow's sequence space (SSN, SAN), `t` one of the connection's (TSN = DSN, TAN = DAN); see
`agents.core.sequence`. "Sent" and "received" are seen from this host.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from agents.core.proxy.lane import Lane
from agents.core.proxy.projection import advance, intersection, project, project_forward
from agents.core.proxy.states import CARRYING, SUBFLOW, SubflowInput, SubflowState
from agents.core.proxy.tables import Interval, IntervalMap, IntervalSet
from agents.core.sequence import MASK32, newer32, unwrap32


@dataclass(slots=True, eq=False)
class Subflow:
    """A subflow. Two are never equal."""

    number: int
    """Names it in commands and logs; unique in its connection."""
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    iss: int
    irs: int = 0
    state: SubflowState = SubflowState.ESTABLISHED
    local_id: int = 0
    remote_id: int = 0
    initiated: bool = True
    """By this host."""
    backup_asked: bool = False
    """We asked the peer to use it as a backup only."""
    backup_wanted: bool = False
    """The peer asked us to."""

    send_next: int = 1
    """The next free s."""
    send_acked: int = 1
    """The peer's SAN."""
    send_sacked: list[Interval] = field(default_factory=list)
    """The peer's latest SACK blocks in s."""
    sent: IntervalMap[None] = field(default_factory=IntervalMap)
    """s -> t of what was sent and not acknowledged at both levels."""
    fin_at: int | None = None
    """s of our FIN."""
    bulk: list[tuple[int, int, int]] = field(default_factory=list)
    """Mappings that cover several segments and are not acknowledged: first s, s behind the last, sum of the payload."""

    received: IntervalMap[None] = field(default_factory=IntervalMap)
    """The RECV table: s -> t of the mappings that the peer announced."""
    last_shift: int | None = None
    """Of the mapping that was announced last."""
    seen: IntervalSet = field(default_factory=IntervalSet)
    """s that have arrived."""
    newest: int = 0
    """s of what arrived last."""
    ack_sent: int = 1
    """The SAN that we sent last: the next s that we expect."""
    sack_sent: list[Interval] = field(default_factory=list)
    peer_fin_at: int | None = None
    """s of the peer's FIN."""

    window_scale: int = 0
    """By which the peer's windows on this subflow are scaled."""
    mss: int = 536
    """The largest segment that the peer takes."""
    echo: int = 0
    """The peer's timestamp that we echo (RFC 7323 section 4.3)."""
    timestamp_shift: int = 0
    """Added to the peer's timestamps on this subflow they fit those of the initial one."""
    answer_due: bool = False
    """A retransmission or a probe came: it deserves an ACK that says nothing new (paper section 3.4)."""
    repeated: bool = False
    """What had arrived before came again: the peer waits for its acknowledgement."""
    probe_sent: bool = False
    """This host's probe went out here: its answer is passed on even if it says nothing new."""
    unmapped: int = 0
    """Segments with data and without any DSS, one after another."""
    silent_retransmissions: int = 0
    """Retransmissions since something was heard."""
    heard_s: float = 0.0
    """When the last packet came, monotonic seconds."""
    round_trip_s: float | None = None
    """Of the handshake; smoothed with later measurements."""

    takes_over: bool = False
    """It shall carry the data as soon as it is open."""
    withdraws: tuple[int, ...] = ()
    """Address ids that the peer is told to forget by then."""
    local_nonce: bytes = b""
    remote_nonce: bytes = b""
    tries: int = 0
    deadline: float | None = None
    """When a handshake packet or a FIN is sent again."""
    lane: Lane | None = None
    """Of the fast path."""

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        """As the proxy finds it by a packet from the network: (source, port, destination, port)."""
        return (self.remote, self.remote_port, self.local, self.local_port)

    @property
    def carries(self) -> bool:
        """Can it carry data and acknowledgements?"""
        return self.state in CARRYING

    @property
    def send_end(self) -> int:
        """The s behind all that was sent, our FIN included: that of a segment without data."""
        return self.send_next if self.fin_at is None else self.fin_at + 1

    @property
    def alive(self) -> bool:
        """Not closed."""
        return self.state is not SubflowState.CLOSED

    def change(self, what: SubflowInput) -> bool:
        """Follow the table; False when it lists nothing for this state."""
        following = SUBFLOW.get((self.state, what))
        if following is None:
            return False
        self.state = following
        return True

    # -- received data and our acknowledgements of it ----------------------------------------------------------------

    def unwrap_seq(self, seq: int) -> int:
        """The s of a received sequence number."""
        return unwrap32(seq, self.irs, self.ack_sent)

    def contradicts(self, start: int, end: int, shift: int) -> bool:
        """Does a mapping of [start, end) say something else than what was announced before (RFC 8684 section 3.3.1)?"""
        received = self.received
        if not received.ends or start >= received.ends[-1]:
            return False
        return any(piece.shift not in (None, shift) for piece in received.pieces(start, end))

    def learn(self, start: int, end: int, shift: int) -> bool:
        """Enter a mapping that contradicts nothing; True when it does not go on as the last one did."""
        received = self.received
        if not received.ends or start >= received.ends[-1]:
            received.append(start, end, shift, None)
        else:
            for piece in received.pieces(start, end):
                if piece.shift is None:
                    received.replace(piece.start, piece.end, shift, None)
        other, self.last_shift = shift != self.last_shift, shift
        return other

    def project_ack(self, tan: int, blocks: Sequence[Interval]) -> tuple[int, list[Interval]]:
        """SAN and SACK blocks for this subflow from the TAN and the SACK blocks of this host's TCP.

        Projected through the RECV table, and clamped to what has arrived (paper section 3.5).
        """
        received, seen = self.received, self.seen
        if len(received) == 1 and len(seen) <= 1 and not blocks:  # between handovers
            if not seen.ends:
                return self.ack_sent, []
            reached = min(tan - received.shifts[0], received.ends[0], seen.ends[0])
            return (reached if seen.starts[0] <= self.ack_sent < reached else self.ack_sent), []
        return advance(self.ack_sent, project(received, [(0, tan), *blocks], seen))

    def acknowledged(self, san: int, blocks: list[Interval]) -> None:
        """We sent this SAN and these blocks."""
        self.ack_sent = san
        self.sack_sent = blocks
        self.answer_due = self.repeated = False
        self.received.drop_below(san)
        self.seen.drop_below(san)

    def acknowledge_held(self, tan: int, edge: int) -> None:
        """Acknowledge here what the host holds above a gap of the data: t above `tan` and inside its window, up to `edge`.

        A host without SACK says nothing of it. Its silence would make the peer repeat the same segment for ever, and never the
        one that closes the gap. The data ACK stays where it is, so the peer keeps the data (RFC 8684 section 3.3.2).
        """
        if not self.seen.starts or self.seen.starts[0] > self.ack_sent:
            return
        san = self.ack_sent
        for piece in self.received.pieces(san, self.seen.ends[0]):
            if piece.shift is None or not tan < piece.start + piece.shift or piece.end + piece.shift > edge:
                break
            san = piece.end
        if san > self.ack_sent:
            self.acknowledged(san, [])

    @property
    def unacknowledged(self) -> bool:
        """Has anything arrived that we have not acknowledged?"""
        return bool(self.seen.ends) and self.seen.ends[-1] > self.ack_sent

    # -- what this host sent, and the peer's acknowledgements --------------------------------------------------------

    def take_ack(self, san: int, blocks: list[Interval]) -> bool:
        """The peer's SAN and SACK blocks in s. False, and nothing is changed, when they acknowledge what was not sent."""
        limit = self.send_next if self.fin_at is None else self.fin_at + 1
        if san > limit:
            return False
        self.send_sacked = [(left, right) for left, right in blocks if san < right <= limit and left < right]
        if san > self.send_acked:
            self.send_acked = san
            self.silent_retransmissions = 0
            while self.bulk and self.bulk[0][1] <= san:
                del self.bulk[0]
        return True

    def bulk_at(self, s: int) -> tuple[int, int, int] | None:
        """The mapping of several segments that covers `s`, if it was sent in one."""
        at = bisect_right(self.bulk, s, key=itemgetter(0)) - 1
        return self.bulk[at] if at >= 0 and s < self.bulk[at][1] else None

    def bulk_edges(self, start: int, end: int) -> list[int]:
        """Where such mappings begin and end inside [start, end), its edges excluded."""
        at = max(bisect_right(self.bulk, start, key=itemgetter(0)) - 1, 0)
        edges = []
        while at < len(self.bulk) and self.bulk[at][0] < end:
            edges += [edge for edge in self.bulk[at][:2] if start < edge < end]
            at += 1
        return edges

    def delivered(self, *, selective: bool = True) -> list[Interval]:
        """What the peer has acknowledged on this subflow, in t: ascending, disjoint. Not `selective`: by its SAN alone."""
        sent = self.sent
        if not sent.starts:
            return []
        blocks = self.send_sacked if selective else []
        if len(sent) == 1 and not blocks:
            end = min(self.send_acked, sent.ends[0])
            return [(sent.starts[0] + sent.shifts[0], end + sent.shifts[0])] if end > sent.starts[0] else []
        acknowledged = IntervalSet()
        acknowledged.add(sent.starts[0], self.send_acked)
        for left, right in blocks:
            acknowledged.add(left, right)
        return project_forward(sent, intersection(acknowledged, [(sent.starts[0], sent.ends[-1])]))

    def owed(self) -> int | None:
        """The lowest t that was sent on this subflow and is not acknowledged there; None: all is."""
        sent, lowest = self.sent, None
        for start, end, shift, _owner in sent.entries():
            s = max(start, self.send_acked)
            for left, right in self.send_sacked:
                if left <= s < right:
                    s = right
            if s < end and (lowest is None or s + shift < lowest):
                lowest = s + shift
        return lowest

    def forget_sent(self, tan: int) -> None:
        """Entries whose data is acknowledged at both levels are needed no more: all t below `tan`."""
        sent = self.sent
        while sent.starts and sent.ends[0] <= self.send_acked and sent.ends[0] + sent.shifts[0] <= tan:
            sent.drop_below(sent.ends[0])
        if sent.starts:
            sent.drop_below(min(self.send_acked, tan - sent.shifts[0]))

    def hear(self, timestamp: int | None, now: float) -> None:
        """A packet came."""
        self.heard_s = now
        self.silent_retransmissions = 0
        if timestamp is not None and (newer32(timestamp, self.echo) or not self.echo):
            self.echo = timestamp

    def measure_round_trip(self, clock: int, echo: int) -> None:
        """RFC 7323 section 4.1, with the clock that this host's TCP stamps with (milliseconds on Linux)."""
        if not echo:
            return
        sample_s = ((clock - echo) & MASK32) / 1000
        if sample_s <= 60:
            self.round_trip_s = sample_s if self.round_trip_s is None else self.round_trip_s * 7 / 8 + sample_s / 8
