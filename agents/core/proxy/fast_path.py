"""The short way of usual packets: the same answer and the same change of state as the general path, in a third of the time.

Usual is a segment of a bulk transfer over IPv4 with timestamps, in order, on the active subflow, without SACK blocks and
signalling; others may be open and idle. Everything is looked at before anything is changed: None means that the general path
has to look at the packet, as if nothing had been asked. The answer's checksums come from sums of header fields: modulo 65535
the words of a number of 32 or 64 bits add up to the number itself (RFC 1071), and the payload's sum is what is missing to the
old checksum.
"""

import struct
from dataclasses import dataclass
from typing import Final

from agents.core.proxy.actions import Answer, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.lane import Lane
from agents.core.proxy.projection import AckTranslation
from agents.core.proxy.states import State, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.core.sequence import MASK32, MASK64
from agents.wire.checksum import MODULUS

_OPEN, _ESTABLISHED = State.ESTABLISHED, SubflowState.ESTABLISHED
_HALF32: Final = 1 << 31
_PACKET_MAX: Final = 0xFFFF - 20
"""So long that it fits with the options of MPTCP, too."""

# An IPv4 header without options, a TCP header, and two NOPs with the timestamps option; addresses and ports are left out.
_HEAD = struct.Struct("!HHIH14xIIHHHHIII")
_HEAD_AND_DSS = struct.Struct("!HHIH14xIIHHHHIIII")
_HEAD_BYTES: Final = 52
ACK_BYTES: Final = _HEAD_BYTES
"""Of an ACK without data."""
_STAMP: Final = 0x0101080A
_PLAIN_ACK, _ACK_WITH_DSS, _DATA_WITH_DSS = 0x8010, 0xA010, 0xD010
"""Data offset and flags: with timestamps; and with 8 and 20 bytes of DSS."""
_NO_PUSH: Final = 0xFFF7
_PUSH: Final = 0x0008
_LEAST_WITH_DSS: Final = 60

_TO_HOST = struct.Struct("!HHIHH12sIIHHHHIII")
_TO_NETWORK = struct.Struct("!HHIHH12sIIHHHHIIIIIIII")
_ACK_TO_HOST = struct.Struct("!24sIIHHHHIII")
_ACK_TO_NETWORK = struct.Struct("!24sIIHHHHIIIII")
_DSS_ACK, _DSS_MAPPING = 0x1E082001, 0x1E122005
_NOPS: Final = 0x0101


@dataclass(frozen=True, slots=True)
class _Layout:
    """A DSS option behind the timestamps, by its first four bytes."""

    body: struct.Struct
    size: int
    """Of all headers."""
    offset: int
    """Data offset and flags."""
    ack_mask: int
    dsn_mask: int
    """0: no mapping."""


def _layout(body: str, ack_mask: int, dsn_mask: int = 0) -> _Layout:
    form = struct.Struct(body)
    size = _HEAD_BYTES + 4 + form.size
    return _Layout(form, size, (size - 20) // 4 << 12 | 0x10, ack_mask, dsn_mask)


_LAYOUTS: Final = {
    _DSS_ACK: _layout("!I", MASK32),
    0x1E0C2003: _layout("!Q", MASK64),
    _DSS_MAPPING: _layout("!IIIHH", MASK32, MASK32),
    0x1E16200D: _layout("!IQIHH", MASK32, MASK64),
    0x1E162007: _layout("!QIIHH", MASK64, MASK32),
    0x1E1A200F: _layout("!QQIHH", MASK64, MASK64),
}


def _make_lane(connection: Connection, subflow: Subflow) -> Lane | None:
    """None for connections whose packets are never usual."""
    config = connection.config
    if (
        not (connection.confirmed and connection.timestamps and connection.sack)
        or connection.checksum
        or config.wide_numbers
        or config.ack_translation is not AckTranslation.PROJECTION
        or not len(connection.local) == len(subflow.local) == 4
    ):
        return None
    subflow.lane = Lane(
        (subflow.local, subflow.local_port, subflow.remote, subflow.remote_port),
        (connection.remote, connection.remote_port, connection.local, connection.local_port),
    )
    return subflow.lane


def _at_rest(connection: Connection, subflow: Subflow) -> bool:
    """Is nothing going on but the transfer of data?"""
    return (
        connection.state is _OPEN
        and subflow.state is _ESTABLISHED
        and connection.active is subflow
        and connection.local_fin is None
        and connection.remote_fin is None
        and subflow.fin_at is None
        and not (connection.fallback or connection.timers_changed or connection.policy_due)
        and (len(connection.subflows) == 1 or all(other is subflow or _idle(other) for other in connection.subflows))
    )


def _idle(subflow: Subflow) -> bool:
    """Is nothing under way on a subflow, in neither direction? It changes no ACK then."""
    return not (
        subflow.sent.ends or subflow.received.ends or subflow.seen.ends or subflow.answer_due
        or subflow.send_sacked or subflow.sack_sent
    )  # fmt: skip


# -- from this host ---------------------------------------------------------------------------------------------------


def from_host(connection: Connection, packet: bytes, now: float) -> Answer | None:
    """A packet of this host's TCP: new data, or an ACK with news."""
    size, subflow = len(packet), connection.active
    if subflow is None or not _HEAD_BYTES <= size <= _PACKET_MAX:
        return None
    first, total, fragment, hop, seq, ack, offset, window, checksum, urgent, head, stamp, old_echo = _HEAD.unpack_from(packet)
    if (
        head != _STAMP or offset & _NO_PUSH != _PLAIN_ACK or total != size or first >> 8 != 0x45 or hop & 0xFF != 6
        or fragment & 0x3FFF
    ):  # fmt: skip
        return None
    lane = subflow.lane or _make_lane(connection, subflow)
    if lane is None or not _at_rest(connection, subflow):
        return None
    t, s, length = connection.send_max, subflow.send_next, size - _HEAD_BYTES
    acked = connection.ack + ((ack - connection.irs - connection.ack) & MASK32)
    if (seq - connection.iss - t) & MASK32 or not acked <= connection.receive_max < connection.ack + _HALF32:
        return None
    san = _projected(subflow, acked)
    if san is None:
        return None
    if length:
        if not _goes_on(connection, subflow, t, s):
            return None
    elif san == subflow.ack_sent and not _worth_an_ack(connection, subflow, acked, window):
        return None

    connection.active_s = now
    connection.timestamp = stamp
    connection.ack_window = window
    connection.ack = acked
    connection.ack_blocks = []
    if san > subflow.ack_sent:
        subflow.acknowledged(san, [])
    echo = subflow.echo
    new_seq, new_ack, data_ack = (
        (subflow.iss + s) & MASK32,
        (subflow.irs + san) & MASK32,
        (connection.idsn_remote + acked) & MASK32,
    )
    if not length:
        subflow.answer_due = subflow.repeated = False
        added = (
            lane.network_ends + 40 + new_seq + new_ack + _ACK_WITH_DSS + window + _STAMP + stamp + echo + _DSS_ACK + data_ack
        )
        return _ACK_TO_NETWORK.pack(lane.ack_to_network, new_seq, new_ack, _ACK_WITH_DSS, window, -added % MODULUS, 0,
                                    _STAMP, stamp, echo, _DSS_ACK, data_ack)  # fmt: skip
    connection.send.append(t, t + length, s - t, subflow)
    subflow.sent.append(s, s + length, t - s, None)
    connection.send_max = t + length
    subflow.send_next = s + length
    first, total, fragment, new_offset = first & 0xFFFC, total + 20, fragment or 0x4000, _DATA_WITH_DSS | offset & _PUSH
    dsn, s, tail = (connection.idsn_local + t) & MASK32, s & MASK32, length << 16 | _NOPS
    difference = (
        checksum + lane.host_ends - lane.network_ends - 20 + seq - new_seq + ack - new_ack + offset - new_offset + urgent
        + old_echo - echo - _DSS_MAPPING - data_ack - dsn - s - tail
    )  # fmt: skip
    header = _TO_NETWORK.pack(
        first, total, fragment, hop, -(first + total + fragment + hop + lane.network_addresses) % MODULUS, lane.to_network,
        new_seq, new_ack, new_offset, window, difference % MODULUS, 0,
        _STAMP, stamp, echo, _DSS_MAPPING, data_ack, dsn, s, tail,
    )  # fmt: skip
    return header + packet[_HEAD_BYTES:]


def _projected(subflow: Subflow, acked: int) -> int | None:
    """The SAN for the host's ACK; None when it is not simply a part of one mapping."""
    san, received, seen = subflow.ack_sent, subflow.received, subflow.seen
    if subflow.sack_sent or len(received.starts) > 1 or len(seen.starts) > 1:
        return None
    if received.starts and seen.starts and seen.starts[0] <= san:
        san = max(san, min(acked - received.shifts[0], received.ends[0], seen.ends[0]))
    return san


def _goes_on(connection: Connection, subflow: Subflow, t: int, s: int) -> bool:
    """Does new data follow the mapping of the data before it?"""
    shift, send = s - t, connection.send
    if connection.placed_on is not subflow or connection.placed_shift != shift:
        return False
    return not send.ends or (send.ends[-1] == t and send.shifts[-1] == shift and send.owners[-1] is subflow)


def _worth_an_ack(connection: Connection, subflow: Subflow, acked: int, window: int) -> bool:
    """Does an ACK that says nothing new on the subflow say something at data level, or is an answer due?"""
    if subflow.answer_due:
        return True
    return connection.last_delivered in (None, subflow) and (acked > connection.ack or window != connection.ack_window)


# -- from the network -------------------------------------------------------------------------------------------------


def from_network(connection: Connection, subflow: Subflow, packet: bytes, now: float) -> Answer | None:
    """A packet of the peer: the next data in order, or an ACK."""
    size = len(packet)
    if not _LEAST_WITH_DSS <= size <= _PACKET_MAX:
        return None
    first, total, fragment, hop, seq, ack, offset, window, checksum, urgent, head, stamp, echo, kind = (
        _HEAD_AND_DSS.unpack_from(packet)
    )
    layout = _LAYOUTS.get(kind)
    if (
        layout is None or head != _STAMP or offset & _NO_PUSH != layout.offset or total != size or size < layout.size
        or first >> 8 != 0x45 or hop & 0xFF != 6 or fragment & 0x3FFF
    ):  # fmt: skip
        return None
    lane = subflow.lane or _make_lane(connection, subflow)
    if lane is None or not _at_rest(connection, subflow):
        return None
    seen, sent, send = subflow.seen, subflow.sent, connection.send
    s = seen.ends[-1] if seen.ends else subflow.ack_sent
    san = subflow.send_acked + ((ack - subflow.iss - subflow.send_acked) & MASK32)
    if (
        (seq - subflow.irs - s) & MASK32 or not san <= subflow.send_next < subflow.send_acked + _HALF32
        or len(seen.ends) > 1 or len(send.ends) > 1 or (send.owners and send.owners[0] is not subflow)
        or len(sent.ends) > 1 or (sent.ends and sent.starts[0] + sent.shifts[0] > connection.tan)
    ):  # fmt: skip
        return None
    option = layout.body.unpack_from(packet, _LEAST_WITH_DSS - 4)
    dan = connection.dan
    if (option[0] - connection.idsn_local - dan) & layout.ack_mask:
        dan = _near(option[0] - connection.idsn_local, dan, layout.ack_mask)
    length, shift = size - layout.size, 0
    if dan > connection.send_max or (length > 0) is not (layout.dsn_mask > 0):
        return None
    if length:
        learnt = _learn(connection, subflow, s, s + length, layout, option)
        if learnt is None:
            return None
        shift = learnt

    connection.active_s = now
    if dan > connection.dan:
        connection.dan = dan
    if dan + (window << subflow.window_scale) > connection.window_edge:
        connection.window_edge = dan + (window << subflow.window_scale)
    subflow.unmapped = 0
    subflow.hear(stamp, now)
    subflow.measure_round_trip(connection.timestamp, echo)
    if san > subflow.send_acked or subflow.send_sacked:
        subflow.take_ack(san, [])
    news: object
    if sent.ends or send.ends:
        tan, _no_blocks = connection.project_tan()
        new_window = connection.window_for(tan)
        news = tan > connection.tan or new_window != connection.window or connection.blocks
        connection.give(tan, [], new_window)
    else:  # only the peer sends: nothing is owed, nothing to be forgotten
        tan = max(connection.tan, connection.dan, connection.promised)
        new_window = connection.window_for(tan)
        news = tan > connection.tan or new_window != connection.window or connection.blocks
        connection.tan, connection.blocks, connection.window = tan, [], new_window
    if not length:
        expected = subflow.probe_sent or connection.host_waits
        subflow.probe_sent = connection.host_waits = False
        if not (news or expected or subflow.send_acked < subflow.send_next):
            return Verdict.DROP
    given = (stamp + subflow.timestamp_shift) & MASK32
    if connection.timestamp_given is not None and 0 < (connection.timestamp_given - given) & MASK32 < _HALF32:
        given = connection.timestamp_given
    connection.timestamp_given = given
    t = s + shift if length else connection.receive_max
    new_seq, new_ack = (connection.irs + t) & MASK32, (connection.iss + tan) & MASK32
    if not length:
        added = lane.host_ends + 32 + new_seq + new_ack + _PLAIN_ACK + new_window + _STAMP + given + echo
        return _ACK_TO_HOST.pack(lane.ack_to_host, new_seq, new_ack, _PLAIN_ACK, new_window, -added % MODULUS, 0,
                                 _STAMP, given, echo)  # fmt: skip
    subflow.newest = s
    if seen.ends:
        seen.ends[0] = s + length
    else:
        seen.add(s, s + length)
    if t + length > connection.receive_max:
        connection.receive_max = t + length
    connection.last_delivered = subflow
    less = layout.size - _HEAD_BYTES
    first, total, fragment, new_offset = first & 0xFFFC, total - less, fragment or 0x4000, _PLAIN_ACK | offset & _PUSH
    difference = (
        checksum + lane.network_ends - lane.host_ends + less + seq - new_seq + ack - new_ack + offset - new_offset
        + window - new_window + urgent + stamp - given + kind + sum(option)
    )  # fmt: skip
    header = _TO_HOST.pack(
        first, total, fragment, hop, -(first + total + fragment + hop + lane.host_addresses) % MODULUS, lane.to_host,
        new_seq, new_ack, new_offset, new_window, difference % MODULUS, 0, _STAMP, given, echo,
    )  # fmt: skip
    return header + packet[layout.size :]


def _near(difference: int, near: int, mask: int) -> int:
    """The offset nearest to `near` for a number of the wire less its initial value."""
    difference = (difference - near) & mask
    return near + (difference if difference <= mask >> 1 else difference - mask - 1)


def _learn(connection: Connection, subflow: Subflow, s: int, end: int, layout: _Layout, option: tuple[int, ...]) -> int | None:
    """Enter the mapping of [s, end) if it goes on as the last one did: what is added to an s. The last thing to look at."""
    _ack, dsn, ssn, size, tail = option
    t = _near(dsn - connection.idsn_remote, connection.receive_max, layout.dsn_mask)
    first = _near(ssn, s, MASK32)
    shift, limit, start = t - first, first + size, max(first, subflow.ack_sent)
    if (
        tail != _NOPS or shift != subflow.last_shift or not -_HALF32 < t - connection.ack < _HALF32
        or end + shift <= connection.ack or not first <= s < end <= limit
    ):  # fmt: skip
        return None
    received = subflow.received
    if not received.ends:
        received.append(start, limit, shift, None)
    elif len(received.ends) > 1 or received.shifts[0] != shift or not received.starts[0] <= start <= s <= received.ends[0]:
        return None
    elif limit > received.ends[0]:
        received.ends[0] = limit
    return shift
