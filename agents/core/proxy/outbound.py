"""From the TCP of this host to the network: payload is mapped to subflows, ACKs are projected (paper sections 3.3 and 3.4)."""

from bisect import insort

from agents.core.proxy import closing, packets
from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.projection import AckTranslation
from agents.core.proxy.states import Input
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import Interval, IntervalSet
from agents.wire import mptcp
from agents.wire.checksum import ones_sum
from agents.wire.tcp import ACK, FIN, PSH, RST, Segment

_MAPPING_MAX = 0xFFFF
_SILENT_ROUND_TRIPS = 3
Place = tuple[Subflow, int, int, int]
"""Subflow, s, first t, t behind the last."""


def segment_from_host(connection: Connection, segment: Segment, now: float, actions: list[Action], offload: Offload) -> Answer:
    """A segment of an open connection."""
    connection.active_s = now
    if segment.flags & RST:
        return closing.reset_by_host(connection, actions)
    if segment.timestamp is not None:
        connection.timestamp = segment.timestamp
    window_moved = segment.window != connection.ack_window
    connection.ack_window = segment.window
    acknowledged = _take_ack(connection, segment)
    start = connection.unwrap_seq(segment.seq)
    end = start + segment.payload_length
    fin = bool(segment.flags & FIN)
    if end > start and start <= connection.tan < end and connection.promise(connection.tan, end):
        tan, blocks = connection.project_tan()
        connection.give(tan, blocks, connection.window_for(tan))
    if end + fin > start and end + fin <= connection.tan:  # our ACK was lost on its way to it
        actions.append(Deliver(packets.ack_for_host(connection)))
        return Verdict.DROP
    out: list[tuple[Subflow, bytes]] = []
    progress = _progress(connection)
    in_parts = False
    if end > start:
        out = _payload(connection, segment, start, end, progress, now, actions, offload)
        in_parts = offload is Offload.SUPERPACKET and [_payload_length(packet) for _subflow, packet in out] != [end - start]
        for subflow, _packet in out:
            progress.pop(subflow, None)
    if fin:
        if connection.active in progress:
            connection.active.acknowledged(*progress.pop(connection.active))
        out += _fin(connection, end, now, actions)
    for subflow, (san, blocks) in progress.items():
        subflow.acknowledged(san, blocks)
        out.append((subflow, packets.pure_ack(connection, subflow, blocks)))
    if not out:
        out = _says_nothing_new(connection, segment, start, now, actions, news=window_moved or acknowledged)
    closing.finish_if_both_closed(connection, now, actions)
    return packets.emit_to_network(connection, out, actions, replace=not in_parts)


def _take_ack(connection: Connection, segment: Segment) -> bool:
    """The host's ACK and SACK blocks; True when the ACK has moved."""
    if not segment.flags & ACK:
        return False
    ack = connection.unwrap_ack(segment.ack)
    limit = connection.receive_max + (connection.remote_fin is not None and connection.remote_fin <= connection.receive_max)
    if ack > limit:
        return False
    moved = ack > connection.ack
    connection.ack = max(connection.ack, ack)
    blocks = IntervalSet()
    for left, right in segment.sack:
        low, high = connection.unwrap_ack(left), connection.unwrap_ack(right)
        if connection.ack < high <= connection.receive_max:  # below the ACK: a D-SACK, which has no counterpart (RFC 2883)
            blocks.add(max(low, connection.ack), high)
    connection.ack_blocks = list(blocks)
    if connection.remote_fin is not None and connection.ack > connection.remote_fin:
        connection.change(Input.REMOTE_FIN)
    return moved


def _progress(connection: Connection) -> dict[Subflow, tuple[int, list[Interval]]]:
    """Subflows that this ACK says something new about, and what. Only they get an ACK (paper section 3.4)."""
    found: dict[Subflow, tuple[int, list[Interval]]] = {}
    for subflow in connection.subflows:
        if not subflow.carries:
            continue
        san, blocks = _project(connection, subflow)
        if san > subflow.ack_sent or blocks != subflow.sack_sent:
            found[subflow] = (san, blocks)
    return found


def _project(connection: Connection, subflow: Subflow) -> tuple[int, list[Interval]]:
    """SAN and SACK blocks, by the chosen translation."""
    if connection.config.ack_translation is AckTranslation.CONSERVATIVE:
        return subflow.project_ack(connection.ack, [])
    if connection.config.ack_translation is AckTranslation.AGGRESSIVE:
        for start, end, shift, _owner in subflow.received.entries():
            if start + shift < connection.ack <= end + shift:  # lookup(TAN - 1) + 1
                return max(subflow.ack_sent, connection.ack - shift), []
        return subflow.ack_sent, []
    return subflow.project_ack(connection.ack, connection.ack_blocks)


def _payload(
    connection: Connection,
    segment: Segment,
    start: int,
    end: int,
    progress: dict[Subflow, tuple[int, list[Interval]]],
    now: float,
    actions: list[Action],
    offload: Offload,
) -> list[tuple[Subflow, bytes]]:
    """The packets that carry the payload: one, unless a retransmission spans several mappings."""
    at = connection.send.index(start) if start < connection.send_max else -1
    if at >= 0:
        _notice_silence(connection, connection.send.owners[at], now, actions)
    before = len(connection.send)
    places = connection.place(start, end)
    goes_on = all(subflow is connection.placed_on and s - low == connection.placed_shift for subflow, s, low, _high in places)
    if not places or (len(connection.send) != before and not goes_on):
        connection.placed_on, connection.placed_shift = (places[-1][0], places[-1][1] - places[-1][2]) if places else (None, 0)
        pieces = [{"subflow": subflow.number, "ssn": s, "start": low, "end": high} for subflow, s, low, high in places]
        actions.append(Log("place", {"connection": connection.number, "start": start, "end": end, "pieces": pieces}))
    large = offload is Offload.SUPERPACKET
    # A peer acknowledges data with a checksum only when all of its mapping is there: large mappings would hold back our host.
    in_pieces = large and connection.checksum and connection.data_level
    if in_pieces or len(places) != 1 or not _in_one_mapping(connection, *places[0], end - start):
        places = _cut(places, connection.payload_max if large else _MAPPING_MAX)
    out = []
    for subflow, s, low, high in places:
        ack = progress.get(subflow)
        if ack is not None:
            subflow.acknowledged(*ack)
        payload = segment.payload[low - start : high - start]
        whole = high - low == end - start
        total = _payload_sum(segment, offload, connection, payload, whole)
        # A mapping with a checksum is right for all of its bytes only: they never get another one.
        fixed = (large and whole) or connection.checksum
        if fixed and subflow.bulk_at(s) is None and connection.data_level:
            insort(subflow.bulk, (s, s + high - low, total))
        out.append((subflow, _data_packet(connection, subflow, segment, s, low, payload, total)))
    return out


def _payload_length(packet: bytes) -> int:
    """Of a packet of our own: options may make it shorter than the one it stands for, with the same payload."""
    tcp = 20 if packet[0] >> 4 == 4 else 40
    return len(packet) - tcp - (packet[tcp + 12] >> 4) * 4


def _in_one_mapping(connection: Connection, subflow: Subflow, s: int, low: int, high: int, length: int) -> bool:
    """Can the payload of `length` bytes go on as it came?"""
    if high - low != length or len(subflow.local) != len(connection.local):
        return False
    entry = subflow.bulk_at(s)
    if entry is not None:
        return s + length <= entry[1]
    return not subflow.bulk_edges(s, s + length)


def _cut(places: list[Place], limit: int) -> list[Place]:
    """Pieces of at most `limit` bytes that lie in one mapping each."""
    pieces: list[Place] = []
    for subflow, s, low, high in places:
        edges = subflow.bulk_edges(s, s + high - low)
        while low < high:
            step = min([high - low, limit, *(edge - s for edge in edges if edge > s)])
            pieces.append((subflow, s, low, low + step))
            s, low = s + step, low + step
    return pieces


def _payload_sum(segment: Segment, offload: Offload, connection: Connection, payload: memoryview, whole: bool) -> int:
    """The payload's sum: read from the packet's checksum if there is one, 0 where the kernel will compute it."""
    if whole and offload is Offload.NONE:
        return segment.payload_sum()
    if whole and offload is Offload.SUPERPACKET and not connection.checksum:
        return 0
    return ones_sum(payload)


def _data_packet(
    connection: Connection, subflow: Subflow, segment: Segment, s: int, t: int, payload: memoryview, total: int
) -> bytes:
    options = packets.timestamps(connection, subflow)
    if connection.data_level:
        options += packets.mapping_of(connection, subflow, t, s, len(payload), total)
    return packets.to_network(
        connection, subflow, s, ACK | (segment.flags & PSH), options, payload, payload_sum=total, like=segment
    )


def _notice_silence(connection: Connection, subflow: Subflow | None, now: float, actions: list[Action]) -> None:
    """A retransmission or a probe on a subflow from which nothing comes, while another one works: its path is dead."""
    if subflow is None or not subflow.alive:
        return
    if now - subflow.heard_s < max(connection.config.silence_s, _SILENT_ROUND_TRIPS * (subflow.round_trip_s or 0.0)):
        return  # it is retransmitted because of what came, not because nothing comes
    subflow.silent_retransmissions += 1
    other = connection.usable(instead_of=subflow)
    if subflow.silent_retransmissions >= connection.config.silence_retransmissions and other is not None:
        closing.break_subflow(connection, subflow, "silent", now, actions)


def _fin(connection: Connection, t: int, now: float, actions: list[Action]) -> list[tuple[Subflow, bytes]]:
    """This host has finished: a DATA_FIN in its own packet; it takes no space of the subflow (RFC 8684 section 3.3.3)."""
    if connection.local_fin is None:
        connection.local_fin = t
        connection.change(Input.LOCAL_FIN)
        actions.append(Log("local-fin", {"connection": connection.number, "t": t}))
    else:
        _notice_silence(connection, connection.active, now, actions)
    subflow = connection.active
    if subflow is None:
        return []
    if connection.fallback:
        return closing.subflow_fin(connection, subflow, now)
    dss = packets.mapping(connection, t, 0, 0, 0, fin=True)
    packet = packets.to_network(connection, subflow, subflow.send_next, ACK, packets.timestamps(connection, subflow) + dss)
    return [(subflow, packet)]


def _says_nothing_new(
    connection: Connection, segment: Segment, start: int, now: float, actions: list[Action], *, news: bool
) -> list[tuple[Subflow, bytes]]:
    """An ACK without progress on a subflow: an answer, a sign of congestion, a probe; or nothing worth a packet.

    `news`: the window has moved, or the ACK at data level only, as it does for a DATA_FIN.
    """
    if not segment.payload_length and start == connection.send_max - 1:
        _notice_silence(connection, connection.active, now, actions)
        subflow = connection.active
        if subflow is not None:  # keepalive or window probe (RFC 9293 sections 3.8.4 and 3.8.6.1)
            subflow.probe_sent = True
            return [(subflow, packets.pure_ack(connection, subflow, [], probe=True))]
    # With SACK what arrived is in the blocks and has been told; without it, repeating the ACK is the only sign.
    due = [s for s in connection.subflows if s.carries and (s.answer_due or (s.unacknowledged and not connection.sack))]
    if not due and (news or not connection.confirmed):
        subflow = connection.last_delivered or connection.active
        due = [subflow] if subflow is not None and subflow.carries else []
    out = []
    for subflow in due:
        if subflow.repeated and not connection.sack:
            subflow.acknowledge_held(connection.ack, connection.ack_edge)
        subflow.answer_due = subflow.repeated = False
        extra = b"" if connection.confirmed else _third_ack(connection)
        out.append((subflow, packets.pure_ack(connection, subflow, subflow.sack_sent, extra)))
    return out


def _third_ack(connection: Connection) -> bytes:
    """MP_CAPABLE with both keys, until the peer shows that it has them (RFC 8684 section 3.1)."""
    if not connection.opened_here or connection.fallback:
        return b""
    flags = packets.capable_flags(connection)
    return mptcp.encode(mptcp.Capable(flags, mptcp.VERSION, connection.local_key, connection.remote_key))
