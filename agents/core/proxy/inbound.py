"""From the network to the TCP of this host: mappings are learnt, payload is moved to its TSN, ACKs are projected.

Every segment is first held against what its subflow can have sent: a guess from beside the path changes nothing
(RFC 5961, RFC 9293 section 3.10.7.4).
"""

from dataclasses import dataclass

from agents.core.proxy import closing, joins, packets, signalling
from agents.core.proxy.actions import Action, Answer, Log, Offload, Send, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.states import Input, SubflowInput, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.core.sequence import newer32, unwrap32, unwrap64
from agents.wire import mptcp
from agents.wire.checksum import MODULUS, ones_sum
from agents.wire.mptcp import Dss
from agents.wire.tcp import ACK, FIN, PSH, RST, Segment

_WINDOW_SLACK = 1 << 20
"""How far beyond our window a segment may lie: windows of several subflows and moments differ."""
_UNMAPPED_MAX = 4
_ENTRIES_MAX = _GAPS_MAX = 4_096
"""Mappings of a subflow that may be open at a time, and gaps in what has arrived."""
_AHEAD_MAX = 1 << 31
"""How far ahead a mapping may lie in data sequence space."""


@dataclass(slots=True)
class _Fresh:
    """What a segment told at data level."""

    signal: bool = False
    """It carried an option of the signalling, so it is no duplicate ACK (RFC 8684 section 3.4)."""
    fin: int | None = None
    """t of the DATA_FIN that it carried."""


def segment_from_network(
    connection: Connection, subflow: Subflow, segment: Segment, now: float, actions: list[Action], offload: Offload
) -> Answer:
    """A segment on an established subflow."""
    s = subflow.unwrap_seq(segment.seq)
    end = s + segment.payload_length
    if not _acceptable(connection, subflow, segment, s, end):
        return _discard(connection, subflow, "outside the window", actions)
    if segment.flags & RST:
        return _reset(connection, subflow, segment, s, now, actions)
    if segment.malformed:
        return _discard(connection, subflow, "an option's length lies", actions)
    connection.active_s = now
    subflow.hear(segment.timestamp, now)
    if segment.timestamp is not None and connection.timestamps:
        subflow.measure_round_trip(connection.timestamp, segment.echo)
    fresh = _Fresh()
    if segment.mptcp and not signalling.handle_options(connection, subflow, segment, now, actions):
        return Verdict.DROP
    fresh.signal = bool(segment.mptcp)
    if not _data_level(connection, subflow, segment, fresh, s, end, now, actions, offload):
        return Verdict.DROP
    _take_ack(connection, subflow, segment)
    delivered = _payload(connection, subflow, segment, s, end, actions, offload)
    if delivered is None:
        delivered = _acknowledgement(connection, subflow, segment, s, fresh, actions)
    if segment.flags & FIN and connection.data_level:
        closing.peer_fin(connection, subflow, end, now, actions)
    closing.fin_acknowledged(connection, subflow, now)
    closing.finish_if_both_closed(connection, now, actions)
    return packets.emit_to_local(connection, subflow, delivered, actions)


def _discard(connection: Connection, subflow: Subflow, why: str, actions: list[Action]) -> Answer:
    actions.append(Log("discard", {"connection": connection.number, "subflow": subflow.number, "why": why}))
    return Verdict.DROP


def _acceptable(connection: Connection, subflow: Subflow, segment: Segment, s: int, end: int) -> bool:
    """Can the peer have sent this? Old data is; it is answered."""
    window = (connection.ack_window << (connection.offered.window_scale or 0)) + _WINDOW_SLACK
    highest = subflow.seen.ends[-1] if subflow.seen.ends else subflow.ack_sent
    if end < subflow.ack_sent - window or end > highest + window:
        return False
    if not segment.flags & ACK:
        return bool(segment.flags & RST)
    ack = unwrap32(segment.ack, subflow.iss, subflow.send_acked)
    limit = subflow.send_next if subflow.fin_at is None else subflow.fin_at + 1
    return subflow.send_acked - _AHEAD_MAX // 2 < ack <= limit


def _reset(connection: Connection, subflow: Subflow, segment: Segment, s: int, now: float, actions: list[Action]) -> Answer:
    """RST: only with the sequence number that we expect (RFC 5961 section 3.2), else it is asked for by an ACK."""
    highest = subflow.seen.ends[-1] if subflow.seen.ends else subflow.ack_sent
    if not subflow.ack_sent <= s <= highest + 1:
        actions.append(Send(packets.pure_ack(connection, subflow, subflow.sack_sent)))
        return _discard(connection, subflow, "RST with an unexpected sequence number", actions)
    reason = next((o for o in signalling.decoded(segment) if isinstance(o, mptcp.TcpRst)), None)
    fastclose = next((o for o in signalling.decoded(segment) if isinstance(o, mptcp.Fastclose)), None)
    if fastclose is not None and fastclose.receiver_key != connection.local_key:
        return _discard(connection, subflow, "MP_FASTCLOSE with a wrong key", actions)
    if fastclose is not None or connection.fallback:
        closing.reset_by_peer(connection, "fastclose" if fastclose else "reset", actions)
        return Verdict.DROP
    why = f"reset, reason {reason.reason}" if reason is not None else "reset"
    closing.break_subflow(connection, subflow, why, now, actions, reason=None)
    return Verdict.DROP


# -- the data level ---------------------------------------------------------------------------------------------------


def _data_level(
    connection: Connection,
    subflow: Subflow,
    segment: Segment,
    fresh: _Fresh,
    s: int,
    end: int,
    now: float,
    actions: list[Action],
    offload: Offload,
) -> bool:
    """Take what the DSS option says. False when the segment must not go on."""
    dss = segment.dss
    if connection.fallback:
        return _end_after_fallback(connection, subflow, segment, end, fresh)
    if dss is None:
        return end == s or _without_mapping(connection, subflow, segment, s, end, now, actions)
    connection.confirmed = True
    subflow.unmapped = 0
    if subflow.state is SubflowState.JOIN_CONFIRMING and subflow.change(SubflowInput.JOIN_CONFIRMED):
        subflow.deadline, subflow.tries = None, 0
        joins.opened(connection, subflow, actions)
    if dss.ack is not None and not _take_data_ack(connection, subflow, segment, dss):
        _discard(connection, subflow, "data ACK for what was not sent", actions)
        return False
    if dss.dsn is None:
        return True
    t = _unwrap_dsn(connection, dss)
    if dss.length == 0:
        return signalling.infinite_mapping(connection, subflow, t, s, now, actions)
    length = dss.length - dss.fin
    if not -_AHEAD_MAX < t - connection.ack < _AHEAD_MAX:
        _discard(connection, subflow, "mapping far outside the window", actions)
        return False
    if dss.fin and not _take_data_fin(connection, t + length, fresh):
        _discard(connection, subflow, "second end of data", actions)
        return False
    if not length:
        return True
    start = unwrap32(dss.ssn, 0, s)
    if not _learn(connection, subflow, start, start + length, t - start, actions):
        return False
    whole = start == s and length == end - s
    if dss.checksum is not None and whole and connection.checksum and not _checksum_right(segment, dss, t, connection, offload):
        signalling.checksum_failed(connection, subflow, t, now, actions)
        return connection.fallback
    return True


def _unwrap_dsn(connection: Connection, dss: Dss) -> int:
    assert dss.dsn is not None
    if dss.dsn_wide:
        return unwrap64(dss.dsn, connection.idsn_remote, connection.receive_max)
    return unwrap32(dss.dsn, connection.idsn_remote, connection.receive_max)


def _take_data_ack(connection: Connection, subflow: Subflow, segment: Segment, dss: Dss) -> bool:
    assert dss.ack is not None
    unwrap = unwrap64 if dss.ack_wide else unwrap32
    dan = unwrap(dss.ack, connection.idsn_local, connection.dan)
    if not connection.take_data_ack(dan):
        return False
    connection.window_edge = max(connection.window_edge, dan + (segment.window << subflow.window_scale))
    if connection.local_fin is not None and connection.dan > connection.local_fin:
        connection.change(Input.LOCAL_FIN_ACKED)
    return True


def _take_data_fin(connection: Connection, t: int, fresh: _Fresh) -> bool:
    if connection.remote_fin is None:
        if t < connection.receive_max:
            return False
        connection.remote_fin = t
    fresh.fin = t
    return t == connection.remote_fin


def _learn(connection: Connection, subflow: Subflow, start: int, end: int, shift: int, actions: list[Action]) -> bool:
    """Enter a mapping into the RECV table. What is acknowledged already is of no interest any more."""
    start = max(start, subflow.ack_sent)
    if start >= end:
        return True
    if subflow.contradicts(start, end, shift):
        _discard(connection, subflow, "a mapping contradicts an earlier one", actions)
        return False
    if len(subflow.received) >= _ENTRIES_MAX:
        _discard(connection, subflow, "too many mappings", actions)
        return False
    if subflow.learn(start, end, shift):
        actions.append(Log("mapping", {"connection": connection.number, "subflow": subflow.number, "ssn": start,
                                       "dsn": start + shift, "length": end - start}))  # fmt: skip
    return True


def _without_mapping(
    connection: Connection, subflow: Subflow, segment: Segment, s: int, end: int, now: float, actions: list[Action]
) -> bool:
    """Data without DSS: fine inside a known mapping, and the first data brings its mapping in MP_CAPABLE.

    A middlebox may have moved the option to a later segment, so a segment without mapping is not passed on and comes again;
    when several come without any DSS, the option is being removed (RFC 8684 section 3.7).
    """
    first = next((o for o in signalling.decoded(segment) if isinstance(o, mptcp.Capable)), None)
    if first is not None and first.data_length:
        connection.confirmed = True
        return _learn(connection, subflow, 1, 1 + first.data_length, 0, actions)
    if end <= subflow.ack_sent or subflow.received.index(max(s, subflow.ack_sent)) >= 0:
        return True
    subflow.unmapped += 1
    if connection.confirmed and subflow.unmapped < _UNMAPPED_MAX:
        _discard(connection, subflow, "no mapping", actions)
        return False
    return signalling.options_are_gone(connection, subflow, s, now, actions)


def _end_after_fallback(connection: Connection, subflow: Subflow, segment: Segment, end: int, fresh: _Fresh) -> bool:
    """Without data level a FIN of the subflow is the end of the data, and takes space as TCP's does."""
    if segment.flags & FIN:
        at = subflow.received.index(end)
        if at < 0 or not _take_data_fin(connection, end + subflow.received.shifts[at], fresh):
            return False
        subflow.peer_fin_at = end
        subflow.seen.add(end, end + 1)
    return True


def _checksum_right(segment: Segment, dss: Dss, t: int, connection: Connection, offload: Offload) -> bool:
    assert dss.checksum is not None
    payload = segment.payload_sum() if offload is Offload.NONE else ones_sum(segment.payload)
    dsn = (connection.idsn_remote + t) & ((1 << 64) - 1)
    return (dsn + dss.ssn + dss.length + dss.checksum + payload) % MODULUS == 0


# -- acknowledgements -------------------------------------------------------------------------------------------------


def _take_ack(connection: Connection, subflow: Subflow, segment: Segment) -> None:
    """SAN and SACK of the subflow; the window when there is no data level."""
    san = unwrap32(segment.ack, subflow.iss, subflow.send_acked)
    blocks = [
        (unwrap32(left, subflow.iss, subflow.send_acked), unwrap32(right, subflow.iss, subflow.send_acked))
        for left, right in segment.sack
    ]
    if san < subflow.send_acked:
        return  # overtaken on its way
    subflow.take_ack(san, blocks)
    if blocks:
        at = subflow.sent.index(blocks[0][0])
        connection.newest_block = blocks[0][0] + subflow.sent.shifts[at] if at >= 0 else 0
    if connection.fallback:
        connection.dan = max(connection.dan, connection.project_tan()[0])
    if connection.fallback or (segment.dss is None and connection.dan == 1):  # a window belongs to a data ACK
        connection.window_edge = max(connection.window_edge, connection.dan + (segment.window << subflow.window_scale))


def _acknowledgement(
    connection: Connection, subflow: Subflow, segment: Segment, s: int, fresh: _Fresh, actions: list[Action]
) -> list[bytes]:
    """A segment without data: passed on when it says something new, or is a duplicate ACK that says "congestion"."""
    outstanding = subflow.send_acked < subflow.send_next
    same_ack = unwrap32(segment.ack, subflow.iss, subflow.send_acked) == subflow.send_acked
    tan, blocks = connection.project_tan()
    window = connection.window_for(tan)
    news = tan > connection.tan or blocks != connection.blocks or window != connection.window
    probe = s == subflow.ack_sent - 1 and not segment.flags & FIN
    duplicate = outstanding and same_ack and not fresh.signal and fresh.fin is None and not segment.flags & FIN
    expected = subflow.probe_sent or connection.host_waits
    connection.host_waits = False
    fin = fresh.fin is not None and fresh.fin == connection.remote_fin
    told_of_end = connection.local_fin is not None and connection.tan <= connection.local_fin < tan
    connection.give(tan, blocks, window)
    subflow.probe_sent = False
    if fin and connection.ack <= (fresh.fin or 0):
        return [packets.to_local(connection, fresh.fin or 0, ACK | FIN, timestamp=_stamp(connection, subflow, segment))]
    if fin:  # once more: our data ACK was lost
        actions.append(Send(packets.pure_ack(connection, subflow, subflow.sack_sent)))
    if probe:
        subflow.answer_due = True
        return [packets.to_local(connection, connection.ack - 1, ACK, timestamp=_stamp(connection, subflow, segment))]
    if not (news or duplicate or expected) or (closing.both_acknowledged(connection) and not told_of_end):
        return []
    return [packets.to_local(connection, connection.receive_max, ACK, timestamp=_stamp(connection, subflow, segment))]


# -- payload ----------------------------------------------------------------------------------------------------------


def _payload(
    connection: Connection, subflow: Subflow, segment: Segment, s: int, end: int, actions: list[Action], offload: Offload
) -> list[bytes] | None:
    """The segments for this host's TCP; None when there is no payload to pass on."""
    if end == s:
        return None
    if end <= subflow.ack_sent:  # old: our ACK was lost
        actions.append(Send(packets.pure_ack(connection, subflow, subflow.sack_sent)))
        return None
    low = max(s, subflow.ack_sent)
    pieces = subflow.received.pieces(low, end)
    tan, blocks = connection.project_tan()
    connection.give(tan, blocks, connection.window_for(tan))
    stamp = _stamp(connection, subflow, segment)
    out: list[bytes] = []
    for piece in pieces:
        if piece.shift is None:
            continue  # it comes again, when its mapping is known
        if len(subflow.seen) >= _GAPS_MAX and not subflow.seen.overlaps(piece.start - 1, piece.end + 1):
            continue  # and when there are fewer gaps
        again = not subflow.seen.add(piece.start, piece.end)
        subflow.newest = piece.start
        first, last = piece.start + piece.shift, piece.end + piece.shift
        if last <= connection.ack:
            _acknowledge_known(connection, subflow, again, actions)
            continue
        if again:
            subflow.answer_due = subflow.repeated = True
        connection.receive_max = max(connection.receive_max, last)
        whole = len(pieces) == 1 and low == s and offload is Offload.NONE
        payload = segment.payload[piece.start - s : piece.end - s]
        fin = connection.remote_fin == last
        out.append(packets.to_local(
            connection, first, ACK | segment.flags & PSH | (FIN if fin else 0), payload,
            payload_sum=segment.payload_sum() if whole else None, timestamp=stamp, like=segment))  # fmt: skip
    connection.last_delivered = subflow
    return out


def _acknowledge_known(connection: Connection, subflow: Subflow, again: bool, actions: list[Action]) -> None:
    """Data that this host has had by another subflow needs an ACK here, but not the host (RFC 8684 section 3.3.6).

    `again`: nor is it the first copy here, so the peer waits for an ACK that a gap of the data holds back.
    """
    if again and not connection.sack:
        subflow.acknowledge_held(connection.ack, connection.ack_edge)
    san, blocks = subflow.project_ack(connection.ack, connection.ack_blocks)
    subflow.acknowledged(san, blocks)
    actions.append(Send(packets.pure_ack(connection, subflow, blocks)))


def _stamp(connection: Connection, subflow: Subflow, segment: Segment) -> tuple[int, int] | None:
    """Timestamps for this host's TCP: those of all subflows on one scale, never going back, else PAWS drops the segment."""
    if segment.timestamp is None or not connection.timestamps:
        return None
    value = (segment.timestamp + subflow.timestamp_shift) & 0xFFFFFFFF
    given = connection.timestamp_given
    if given is not None and newer32(given, value):
        value = given
    connection.timestamp_given = value
    return value, segment.echo
