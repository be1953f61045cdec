"""One connection: the TCP of this host on one side, subflows on the other, and the SEND table between them."""

from dataclasses import dataclass, field

from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.projection import AckTranslation, advance
from agents.core.proxy.states import CONNECTION, Input, State, SubflowInput, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import Interval, IntervalMap, IntervalSet
from agents.core.sequence import unwrap32
from agents.wire import mptcp

_ID_MAX = 255
_RESERVE_MAX = 1 << 30
"""The largest gap for which sequence space is reserved: no TCP window is larger."""

_VAIN_REPETITIONS = 3


@dataclass(slots=True)
class SynOptions:
    """What a SYN of this host's TCP offered; subflows offer the same."""

    mss: int | None = None
    window_scale: int | None = None
    sack: bool = False
    timestamps: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """A connection. `t` counts from the initial TSN of each direction (see `agents.core.sequence`)."""

    number: int
    config: ProxyConfig
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    opened_here: bool
    """This host's TCP sent the first SYN."""
    state: State
    since_s: float
    local_key: bytes
    remote_key: bytes = b""
    local_token: bytes = b""
    remote_token: bytes = b""
    idsn_local: int = 0
    idsn_remote: int = 0
    iss: int = 0
    """The initial sequence number of this host's TCP."""
    irs: int = 0
    """The peer's, as this host's TCP knows it."""
    offered: SynOptions = field(default_factory=SynOptions)
    sack: bool = False
    timestamps: bool = False
    checksum: bool = False
    remote_scale: int = 0
    """The window scale that the peer announced to this host's TCP."""
    host_mtu: int = 0
    """The packet size that this host's TCP keeps to, as the MSS that it was told makes it; 0: not known."""
    isolated: bool = False
    """Has its TCP been given a route of its own?"""
    joinable: bool = True
    """The peer's initial address and port take joins (flag C is off)."""
    confirmed: bool = False
    """The peer has shown that it knows of MPTCP: no MP_CAPABLE is needed any more."""
    policy_due: bool = True
    """The policy has not yet looked at the connection since it takes joins."""
    host_waits: bool = False
    """This host's TCP still waits for the third ACK."""
    fallback: bool = False
    """The connection goes on without MPTCP options, on one subflow."""
    syn_count: int = 0

    subflows: list[Subflow] = field(default_factory=list)
    """Those that are not closed."""
    active: Subflow | None = None
    """The subflow for new data."""
    last_delivered: Subflow | None = None
    """On which data arrived last."""
    next_number: int = 0
    local_ids: dict[bytes, int] = field(default_factory=dict)
    """Address ids of this host's addresses."""
    remote_ids: dict[int, tuple[bytes, int | None]] = field(default_factory=dict)
    """Addresses that the peer announced: id -> address, port."""

    send: IntervalMap[Subflow] = field(default_factory=IntervalMap)
    """The SEND table: t -> subflow and s."""
    send_max: int = 1
    """The next new t."""
    placed_on: Subflow | None = None
    """Where data was placed last, and the shift from its t to its s."""
    placed_shift: int = 0
    tan: int = 1
    """The ACK that this host's TCP was given last."""
    blocks: list[Interval] = field(default_factory=list)
    """The SACK blocks that it was given last."""
    newest_block: int = 0
    """t that the peer's latest SACK block begins with."""
    dan: int = 1
    """The peer's data ACK."""
    promised: int = 1
    """What this host's TCP may forget because a subflow's SACK blocks show that the peer holds it; see `promise`."""
    promised_by: Subflow | None = None
    """That subflow."""
    vain_repetitions: int = 0
    """How often in a row this host's TCP has repeated what is acknowledged on its subflow, but not at data level, though the
    peer has answered in between; at which TAN and on which subflow; when the peer was heard last before:"""
    vain_since: tuple[int, int] = (0, -1)
    vain_heard_s: float = 0.0
    window_edge: int = 0
    """The largest t that the peer's windows allow, as its data ACKs and windows say."""
    window: int = 0
    """The window field that this host's TCP was given last."""
    local_fin: int | None = None
    """t of this host's FIN."""

    ack: int = 1
    """This host's ACK: t."""
    ack_blocks: list[Interval] = field(default_factory=list)
    """Its SACK blocks in t."""
    ack_window: int = 0
    """Its window field."""
    receive_max: int = 1
    """Behind the highest t that was delivered."""
    remote_fin: int | None = None
    """t of the peer's DATA_FIN."""

    timestamp: int = 0
    """The last TSval of this host's TCP."""
    timestamp_given: int | None = None
    """The last TSval that it was given."""
    timestamp_base: tuple[int, float] = (0, 0.0)
    """A TSval of the initial subflow, and when it came."""
    active_s: float = 0.0
    """When the last packet passed."""
    rejoin: tuple[bytes, tuple[int, ...], float] | None = None
    """A join that was to take over failed and nothing else is left: its address, the ids to withdraw, when to try again."""
    broken_s: float | None = None
    """Since when there is no subflow."""
    announcements: dict[int, tuple[bytes, int, float]] = field(default_factory=dict)
    """ADD_ADDRs that were not echoed: id -> option, tries, deadline."""
    timers_changed: bool = True
    """A deadline may be earlier than before."""

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        """As the proxy finds it by a packet of this host: (source, port, destination, port)."""
        return (self.local, self.local_port, self.remote, self.remote_port)

    @property
    def payload_max(self) -> int:
        """Bytes of payload that this host's TCP puts into a packet at most."""
        return self.host_mtu - (20 if len(self.local) == 4 else 40) - 20 - (12 if self.timestamps else 0)

    @property
    def ack_edge(self) -> int:
        """The t up to which this host takes data: the right edge of its window."""
        return self.ack + (self.ack_window << (self.offered.window_scale or 0))

    @property
    def half_open(self) -> bool:
        """Is the handshake under way?"""
        return self.state in (State.SYN_SENT, State.SYN_RECEIVED)

    @property
    def data_level(self) -> bool:
        """Do segments carry MPTCP options?"""
        return not self.fallback

    def change(self, what: Input) -> bool:
        """Follow the table; False when it lists nothing for this state."""
        following = CONNECTION.get((self.state, what))
        if following is None:
            return False
        self.state = following
        return True

    def set_remote_key(self, key: bytes) -> None:
        """The peer's key, and what follows from it."""
        self.remote_key = key
        self.remote_token = mptcp.token(key)
        self.idsn_remote = mptcp.initial_dsn(key)

    def unwrap_seq(self, seq: int) -> int:
        """t of a sequence number of this host's TCP."""
        return unwrap32(seq, self.iss, self.send_max)

    def unwrap_ack(self, ack: int) -> int:
        """t of an ACK number of this host's TCP."""
        return unwrap32(ack, self.irs, self.ack)

    def local_id(self, address: bytes) -> int:
        """The address id of an address of this host; the initial one has 0 (RFC 8684 section 3.1)."""
        ids = self.local_ids
        if address not in ids:
            if len(ids) > _ID_MAX:  # a long way: ids of addresses that were left are used again
                used = {0, *self.announcements, *(subflow.local_id for subflow in self.subflows)}
                ids = self.local_ids = {known: number for known, number in ids.items() if number in used}
            taken = set(ids.values())
            ids[address] = next(number for number in range(1, _ID_MAX + 1) if number not in taken)
        return ids[address]

    def usable(self, *, instead_of: Subflow | None = None) -> Subflow | None:
        """The best subflow for new data: no backup if possible, then the one heard last."""
        candidates = [s for s in self.subflows if s.state is SubflowState.ESTABLISHED and s is not instead_of]
        regular = [s for s in candidates if not s.backup_wanted and not s.backup_asked]
        chosen = regular or [s for s in candidates if not s.backup_wanted] or candidates
        return max(chosen, key=lambda s: s.heard_s, default=None)

    def remove(self, subflow: Subflow) -> None:
        """A subflow is gone: what it had not delivered will be placed on another one."""
        subflow.change(SubflowInput.DEAD)
        if subflow in self.subflows:
            self.subflows.remove(subflow)
        if self.last_delivered is subflow:
            self.last_delivered = None
        if self.active is subflow:
            self.active = self.usable()

    # -- the SEND table ------------------------------------------------------------------------------------------------

    def place(self, start: int, end: int) -> list[tuple[Subflow, int, int, int]]:
        """Where the data [start, end) goes: (subflow, s, start, end) of each piece, in order; empty without a subflow.

        A retransmission keeps its subflow and its s while the subflow lives, and gets new ones on the active one afterwards.
        For data ahead of what was seen so far, space for what is missing is reserved, so that the mapping stays monotonous
        (paper section 3.3).
        """
        active = self.active
        if start == self.send_max and active is not None:
            return [(active, self._allocate(active, start, end), start, end)]
        if start > self.send_max:
            if active is None or start - self.send_max > _RESERVE_MAX:
                return []
            low = self.send_max
            return [(active, self._allocate(active, low, end) + start - low, start, end)]
        return self._place_again(start, end)

    def _place_again(self, start: int, end: int) -> list[tuple[Subflow, int, int, int]]:
        active, places = self.active, []
        for piece in self.send.pieces(start, min(end, self.send_max)):
            if piece.owner is not None and piece.shift is not None and piece.owner.alive:
                places.append((piece.owner, piece.start + piece.shift, piece.start, piece.end))
            elif active is not None and piece.end > self.tan:
                low = max(piece.start, self.tan)
                s = active.send_next
                active.send_next += piece.end - low
                active.sent.append(s, active.send_next, low - s, None)
                self.send.replace(low, piece.end, s - low, active)
                places.append((active, s, low, piece.end))
        if end > self.send_max and active is not None:
            low = self.send_max
            places.append((active, self._allocate(active, low, end), low, end))
        return places

    def _allocate(self, subflow: Subflow, start: int, end: int) -> int:
        """Space on a subflow for new data; its first s."""
        s = subflow.send_next
        subflow.send_next = s + end - start
        subflow.sent.append(s, subflow.send_next, start - s, None)
        self.send.append(start, end, s - start, subflow)
        self.send_max = end
        return s

    def reserve_lost(self, active: Subflow) -> None:
        """Give everything that went down with other subflows its place on the active one, in order.

        For a host without SACK: in the order in which it retransmits, the mapping would not be monotonous, and its ACK could
        not move before the last gap is closed (paper section 5.4). It has to send again what has arrived by the old way.
        """
        for piece in self.send.pieces(self.tan, self.send_max):
            if piece.owner is not None and not piece.owner.alive:
                s = active.send_next
                active.send_next += piece.end - piece.start
                active.sent.append(s, active.send_next, piece.start - s, None)
                self.send.replace(piece.start, piece.end, s - piece.start, active)

    # -- the peer's acknowledgements for this host's TCP ---------------------------------------------------------------

    @property
    def on_one_subflow(self) -> bool:
        """Is all that is not acknowledged on one living subflow? Then subflow ACKs tell it all (paper section 3.4)."""
        owners = self.send.owners
        if len(owners) > 1:
            return all(owner is owners[0] for owner in owners) and owners[0].alive
        return not owners or owners[0].alive

    def take_data_ack(self, dan: int) -> bool:
        """The peer's data ACK. False when it acknowledges what was not sent; an old one is no error."""
        if dan > self.send_max + (self.local_fin is not None):
            return False
        self.dan = max(self.dan, dan)
        return True

    def project_tan(self) -> tuple[int, list[Interval]]:
        """TAN and SACK blocks for this host's TCP, from the data ACK and from the ACKs of all subflows.

        The TAN passes nothing that a living subflow still owes: if the data has come by another way, its place on the subflow
        must be filled all the same, and only this host's TCP can do it.
        """
        if self.config.ack_translation is AckTranslation.AGGRESSIVE:
            return max([self.tan, self.dan, *(self._looked_up(s) for s in self.subflows)]), []
        single = self.fallback or (self.config.subflow_acks and self.on_one_subflow)
        if len(self.subflows) == 1 and not self.subflows[0].send_sacked and len(self.subflows[0].sent) <= 1:
            reached = advance(self.tan, self.subflows[0].delivered())[0] if single else self.tan
            return self._bounded(max(reached, self.promised)), []
        tan = self.tan
        if single:
            cumulative = [block for subflow in self.subflows for block in subflow.delivered(selective=False)]
            tan = advance(tan, sorted(cumulative))[0]
        tan = self._bounded(max(tan, self.promised))
        if self.config.ack_translation is AckTranslation.CONSERVATIVE:
            return tan, []
        known = IntervalSet()
        for subflow in self.subflows:
            for left, right in subflow.delivered():
                known.add(left, right)
        # A block that begins at the TAN would say that the first missing byte is there.
        return tan, [block for block in known if block[0] > tan]

    def promise(self, start: int, end: int) -> bool:
        """This host's TCP repeats [start, end) though the peer has it: does it wait for an ACK that cannot come?

        After a break the order on the subflow is not that of the data. The data that the host repeats may be behind a gap of
        the subflow that only later data can close, and the host does not send that before its ACK moves. So the ACK moves as
        far as SACK blocks show that the peer holds everything. If the subflow ends before its data ACK, the connection is lost.

        A peer may also have acknowledged the data on its subflow, and not yet taken it from there: Linux has been seen to do so
        only when more comes. It gets _VAIN_REPETITIONS to mend that.
        """
        at = self.send.index(start)
        if start > self.tan or at < 0:
            return False
        subflow = self.send.owners[at]
        owed = subflow.owed()
        behind_gap = start + self.send.shifts[at] >= subflow.send_acked
        if not behind_gap:
            answered = self.vain_since == (self.tan, subflow.number) and subflow.heard_s > self.vain_heard_s
            self.vain_repetitions = self.vain_repetitions + 1 if answered else 1
            self.vain_since, self.vain_heard_s = (self.tan, subflow.number), subflow.heard_s
        waits = owed is not None and owed >= end if behind_gap else self.vain_repetitions >= _VAIN_REPETITIONS
        if not subflow.alive or not waits:
            return False
        reached = advance(self.tan, subflow.delivered())[0]
        if reached < end:
            return False
        self.promised, self.promised_by = reached, subflow
        return True

    def _bounded(self, tan: int) -> int:
        """`tan` or the data ACK, but nothing that is still owed; a TCP FIN, after fallback, is the s behind the data."""
        tan = max(tan, self.dan)
        if self.local_fin is not None and self.dan > self.local_fin:
            return tan  # the peer has everything: gaps of subflows do not matter any more
        owed = [lowest for subflow in self.subflows if (lowest := subflow.owed()) is not None]
        if owed:
            return max(self.tan, min(tan, *owed))
        return self._fin_included(tan)

    def _fin_included(self, tan: int) -> int:
        """A TCP FIN, after fallback, is acknowledged with the s behind the data."""
        if (
            self.fallback
            and self.local_fin == tan
            and any(s.fin_at is not None and s.send_acked > s.fin_at for s in self.subflows)
        ):
            return tan + 1
        return tan

    @staticmethod
    def _looked_up(subflow: Subflow) -> int:
        """lookup(SAN - 1) + 1: right only while the mapping is monotonous (paper figure 5a)."""
        at = subflow.sent.index(subflow.send_acked - 1)
        return subflow.send_acked + subflow.sent.shifts[at] if at >= 0 else 0

    def give(self, tan: int, blocks: list[Interval], window: int) -> None:
        """This host's TCP is told this."""
        self.tan, self.blocks, self.window = tan, blocks, window
        self.send.drop_below(tan)
        for subflow in self.subflows:
            subflow.forget_sent(tan)

    def next_deadline(self) -> float | None:
        """When time alone changes something, monotonic seconds."""
        config = self.config
        if self.state is State.CLOSED:
            return self.since_s
        if self.half_open:
            return self.since_s + config.half_open_s
        deadlines = [subflow.deadline for subflow in self.subflows if subflow.deadline is not None]
        if self.active is not None:
            deadlines += [deadline for _option, _tries, deadline in list(self.announcements.values())[:1]]
        if self.broken_s is not None:
            deadlines.append(self.broken_s + config.break_limit_s)
        if self.rejoin is not None:
            deadlines.append(self.rejoin[2])
        deadlines.append(self.active_s + (config.time_wait_s if self.state is State.TIME_WAIT else config.idle_s))
        return min(deadlines)

    @property
    def untouched(self) -> bool:
        """Has the connection always been what TCP would have made of it? Then it can go on without the proxy."""
        return self.next_number == 1 and self.state is not State.CLOSED

    def window_for(self, tan: int) -> int:
        """The window field for this host's TCP; the peer's windows count from its data ACK (RFC 8684 section 3.3.5)."""
        return min(max(self.window_edge - tan, 0) >> self.remote_scale, 0xFFFF)
