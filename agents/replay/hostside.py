"""The segments of this host's TCP, made again from what its proxy sent: the way from the network's side back."""

from agents.core.proxy.connection import Connection
from agents.core.proxy.projection import project_forward
from agents.core.proxy.signalling import decoded
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import Interval, IntervalSet
from agents.core.sequence import unwrap32, unwrap64
from agents.wire import tcp
from agents.wire.mptcp import Capable
from agents.wire.tcp import ACK, FIN, PSH, RST, SYN, Segment

_SACK_BLOCKS = 3


def opening(segment: Segment) -> bytes:
    """The SYN or SYN/ACK of this host's TCP: without MP_CAPABLE."""
    return tcp.build(segment.source, segment.source_port, segment.destination, segment.destination_port, segment.seq,
                     segment.ack, segment.flags, segment.window, tcp.syn_options(segment, segment.mss),
                     traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
                     fragment_word=segment.fragment_word)  # fmt: skip


def data_offset(connection: Connection, subflow: Subflow, segment: Segment) -> int | None:
    """The t of a segment's payload; None when nothing says it."""
    s = unwrap32(segment.seq, subflow.iss, subflow.send_next)
    if connection.fallback:
        at = subflow.sent.index(s)
        return s + (subflow.sent.shifts[at] if at >= 0 else connection.send_max - subflow.send_next)
    dss = segment.dss
    if dss is not None and dss.dsn is not None:
        unwrap = unwrap64 if dss.dsn_wide else unwrap32
        return unwrap(dss.dsn, connection.idsn_local, connection.send_max) + s - dss.ssn
    if any(isinstance(option, Capable) and option.data_length for option in decoded(segment)):
        return s
    return None


def note_large_mapping(subflow: Subflow, segment: Segment) -> bool:
    """A mapping that covers several segments was a superpacket's: the proxy repeats it with each of them. True: it is one."""
    dss = segment.dss
    if dss is None or dss.dsn is None or not segment.payload_length or dss.length - dss.fin <= segment.payload_length:
        return False
    s = unwrap32(segment.seq, subflow.iss, subflow.send_next)
    start = unwrap32(dss.ssn, 0, s)
    if subflow.bulk_at(s) is None and start <= s:
        subflow.bulk.append((start, start + dss.length - dss.fin, 0))
    return True


def host_segment(connection: Connection, subflow: Subflow, segment: Segment) -> bytes | None:
    """What this host's TCP has sent, if `segment` on `subflow` was made of it; None when it cannot be."""
    dss, fin = segment.dss, bool(segment.flags & FIN) and connection.fallback
    s = unwrap32(segment.seq, subflow.iss, subflow.send_next)
    t = connection.send_max + (connection.local_fin is not None)
    if segment.payload_length or fin:
        found = data_offset(connection, subflow, segment)
        if found is None:
            return None
        t = found
    elif dss is not None and dss.fin and dss.dsn is not None:
        unwrap = unwrap64 if dss.dsn_wide else unwrap32
        t = unwrap(dss.dsn, connection.idsn_local, connection.send_max) + dss.length - 1
        fin = True
    elif s == subflow.send_next - 1 and connection.send_max > 1:
        t -= 1  # keepalive or window probe
    ack = _ack(connection, subflow, segment)
    blocks = [(left, right) for left, right in _blocks(connection, subflow, segment, ack) if left > ack]
    options_ = b""
    if segment.timestamp is not None:
        options_ = tcp.timestamps_option(segment.timestamp, segment.echo)
    if blocks and connection.sack:
        base = connection.irs
        options_ += tcp.sack_option([(base + left, base + right) for left, right in blocks[:_SACK_BLOCKS]])
    flags = ACK | segment.flags & PSH | (FIN if fin else 0)
    local = (connection.local, connection.local_port, connection.remote, connection.remote_port)
    return tcp.build(*local, connection.iss + t, connection.irs + ack, flags, segment.window, options_, segment.payload,
                     payload_sum=segment.payload_sum(), traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
                     fragment_word=segment.fragment_word)  # fmt: skip


def of_the_proxy(segment: Segment, connection: Connection) -> bool:
    """Is it one of those that the proxy makes by itself?"""
    return bool(segment.flags & (SYN | RST)) or (bool(segment.flags & FIN) and connection.data_level)


def _ack(connection: Connection, subflow: Subflow, segment: Segment) -> int:
    dss = segment.dss
    if dss is not None and dss.ack is not None:
        unwrap = unwrap64 if dss.ack_wide else unwrap32
        return unwrap(dss.ack, connection.idsn_remote, connection.ack)
    if not connection.fallback:
        return connection.ack
    san = unwrap32(segment.ack, subflow.irs, subflow.ack_sent)
    shift = subflow.received.shifts[-1] if subflow.received.shifts else 0
    return max(connection.ack, san + shift)


def _blocks(connection: Connection, subflow: Subflow, segment: Segment, ack: int) -> list[Interval]:
    """SACK blocks in t above the ACK: this subflow's as the segment says, those of other subflows as they were."""
    known = IntervalSet()
    near = subflow.ack_sent
    spans = [(unwrap32(left, subflow.irs, near), unwrap32(right, subflow.irs, near)) for left, right in segment.sack]
    spans.append((near, unwrap32(segment.ack, subflow.irs, near)))  # what this acknowledges may lie above a gap of the data
    for left, right in project_forward(subflow.received, [(left, right) for left, right in spans if left < right]):
        if right > ack:
            known.add(max(left, ack), right)
    elsewhere = [other for other in connection.subflows if other is not subflow]
    for other in elsewhere:
        for left, right in project_forward(other.received, other.sack_sent):
            known.add(left, right)
    return list(known)
