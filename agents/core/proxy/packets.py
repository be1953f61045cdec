"""Packets of the proxy: for subflows, and for the TCP of this host."""

from ipaddress import ip_address

from agents.core.proxy.actions import Action, Answer, Deliver, Isolate, Send, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import Interval
from agents.wire import icmp, mptcp, tcp
from agents.wire.checksum import folded
from agents.wire.mptcp import Dss
from agents.wire.tcp import ACK, OPTIONS_MAX, RST, Segment

_MASK32 = 0xFFFFFFFF
_MASK64 = (1 << 64) - 1
_ECT = 0x03
_NUDGE_BYTES = 4
LEAST_MTU = {4: 576, 16: 1280}
"""By length of the address: what nearly every network carries (RFC 1191 section 3, RFC 8200). Less is not told or believed."""
_FIRST_DATA_OPTION = 24
"""MP_CAPABLE with data length, padded; the DSS of later segments takes 20."""
_WIDE_PAYLOAD_OPTION = 28


def text(address: bytes) -> str:
    """An address as people write it."""
    return str(ip_address(address))


def option_space(connection: Connection) -> int:
    """Bytes that the proxy adds to a segment with data: the MSS is lowered by them."""
    return (_WIDE_PAYLOAD_OPTION if connection.config.wide_numbers else _FIRST_DATA_OPTION) + connection.config.header_reserve


def timestamps(connection: Connection, subflow: Subflow) -> bytes:
    """This host's last TSval, and the echo that belongs to the subflow."""
    return tcp.timestamps_option(connection.timestamp, subflow.echo) if connection.timestamps else b""


def data_ack(connection: Connection) -> bytes:
    """DSS with only a data ACK."""
    wide = connection.config.wide_numbers
    return mptcp.encode_dss(Dss(ack=connection.idsn_remote + connection.ack, ack_wide=wide))


def mapping(connection: Connection, t: int, s: int, length: int, payload_sum: int, *, fin: bool = False) -> bytes:
    """DSS with data ACK and the mapping of `length` bytes of data, the DATA_FIN not counted."""
    wide, dsn, total = connection.config.wide_numbers, (connection.idsn_local + t) & _MASK64, length + fin
    checksum = None
    if connection.checksum:  # RFC 8684 section 3.3.1: pseudo-header with a DSN of 64 bits
        checksum = folded(dsn + (s & _MASK32) + total + payload_sum)
    ack = connection.idsn_remote + connection.ack
    return mptcp.encode_dss(Dss(ack, wide, dsn, wide, s, total, checksum, fin))


def mapping_of(connection: Connection, subflow: Subflow, t: int, s: int, length: int, payload_sum: int) -> bytes:
    """The mapping that a segment carries: its own, or the larger one that it was first sent in.

    A receiver that holds part of the larger one takes nothing else for its range.
    """
    entry = subflow.bulk_at(s)
    if entry is not None:
        t, s, length, payload_sum = t - (s - entry[0]), entry[0], entry[1] - entry[0], entry[2]
    if t == 1 and not connection.confirmed and connection.opened_here:
        return first_data(connection, length, payload_sum)
    return mapping(connection, t, s, length, payload_sum)


def first_data(connection: Connection, length: int, payload_sum: int) -> bytes:
    """MP_CAPABLE with the length of the first data, which stands for its mapping (section 3.1)."""
    checksum = None
    if connection.checksum:
        checksum = folded(connection.idsn_local + 1 + 1 + length + payload_sum)
    flags = capable_flags(connection)
    return mptcp.encode(mptcp.Capable(flags, mptcp.VERSION, connection.local_key, connection.remote_key, length, checksum))


def capable_flags(connection: Connection) -> int:
    """Flags of MP_CAPABLE."""
    return mptcp.FLAG_HMAC_SHA256 | (mptcp.FLAG_CHECKSUM if connection.checksum else 0)


def newest_first(blocks: list[Interval], newest: int) -> list[Interval]:
    """The block that holds what came last goes first, in case not all fit (RFC 2018 section 4)."""
    return sorted(blocks, key=lambda block: not block[0] <= newest < block[1])


def fitting_sack(subflow: Subflow, blocks: list[Interval], space: int) -> bytes:
    """As many SACK blocks as fit into `space` bytes."""
    count = min((space - 4) // 8, 4)
    if not blocks or count < 1:
        return b""
    base = subflow.irs
    chosen = newest_first(blocks, subflow.newest)[:count]
    return tcp.sack_option([(base + left, base + right) for left, right in chosen])


def to_network(
    connection: Connection,
    subflow: Subflow,
    s: int,
    flags: int,
    options: bytes,
    payload: bytes | memoryview = b"",
    *,
    payload_sum: int | None = None,
    like: Segment | None = None,
) -> bytes:
    """A segment on a subflow with the SAN and the window of the moment. `like`: whose IP fields it has."""
    ack = subflow.irs + subflow.ack_sent if flags & ACK else 0
    source = (subflow.local, subflow.local_port, subflow.remote, subflow.remote_port)
    window = 0 if flags & RST else connection.ack_window
    if like is None:
        return tcp.build(*source, subflow.iss + s, ack, flags, window, options, payload, payload_sum=payload_sum)
    return tcp.build(*source, subflow.iss + s, ack, flags, window, options, payload, payload_sum=payload_sum,
                     traffic_class=like.traffic_class & ~_ECT, hop_limit=like.hop_limit,
                     fragment_word=like.fragment_word or 0x4000)  # fmt: skip


def pure_ack(
    connection: Connection, subflow: Subflow, blocks: list[Interval], extra: bytes = b"", *, probe: bool = False
) -> bytes:
    """An ACK without data. With `extra`, an option of the signalling, no SACK is added. A probe has an old sequence number."""
    stamp = timestamps(connection, subflow)
    dss = b"" if connection.fallback else extra or data_ack(connection)
    space = OPTIONS_MAX - len(stamp) - (len(dss) + 3 & ~3)
    sack = fitting_sack(subflow, blocks, space) if connection.sack and not extra else b""
    return to_network(connection, subflow, subflow.send_end - probe, ACK, stamp + sack + dss)


def reset(connection: Connection, subflow: Subflow, *options: mptcp.Option) -> bytes:
    """RST on a subflow."""
    body = b"".join(mptcp.encode(option) for option in options)
    return to_network(connection, subflow, subflow.send_end, RST | ACK, body)


def to_local(
    connection: Connection,
    t: int,
    flags: int,
    payload: bytes | memoryview = b"",
    *,
    payload_sum: int | None = None,
    timestamp: tuple[int, int] | None = None,
    like: Segment | None = None,
) -> bytes:
    """A segment for the TCP of this host with the ACK, the SACK blocks and the window that it was given last."""
    options = tcp.timestamps_option(*timestamp) if timestamp is not None else b""
    if connection.sack and connection.blocks:
        base = connection.iss
        room = OPTIONS_MAX if like is None else like.payload_at - like.tcp_at - tcp.TCP_HEADER  # no longer than it came
        count = min((room - len(options) - 4) // 8, 4)
        chosen = newest_first(connection.blocks, connection.newest_block)[: max(count, 0)]
        options += tcp.sack_option([(base + left, base + right) for left, right in chosen])
    addresses = (connection.remote, connection.remote_port, connection.local, connection.local_port)
    seq, ack = connection.irs + t, connection.iss + connection.tan
    if like is None:
        return tcp.build(*addresses, seq, ack, flags, connection.window, options, payload, payload_sum=payload_sum)
    return tcp.build(*addresses, seq, ack, flags, connection.window, options, payload, payload_sum=payload_sum,
                     traffic_class=like.traffic_class & ~_ECT, hop_limit=like.hop_limit,
                     fragment_word=like.fragment_word or 0x4000)  # fmt: skip


def ack_for_host(connection: Connection) -> bytes:
    """An ACK of our own for this host's TCP that says what it was told before."""
    stamp = None
    if connection.timestamps and connection.timestamp_given is not None:
        stamp = (connection.timestamp_given, connection.timestamp)
    return to_local(connection, connection.ack, ACK, timestamp=stamp)


def nudge(connection: Connection) -> list[Action]:
    """Make this host's TCP retransmit at once: its segments no longer fit, by a few bytes (RFC 1191 section 6.4).

    It then sends again all that is not acknowledged, without taking it for congestion.
    """
    return shrink(connection, connection.host_mtu - _NUDGE_BYTES)


def shrink(connection: Connection, mtu: int) -> list[Action]:
    """Tell this host's TCP that its packets must not be larger than `mtu`."""
    ends = (connection.local, connection.local_port, connection.remote, connection.remote_port)
    isolate: list[Action] = [] if connection.isolated else [Isolate(connection.local, connection.remote)]
    told = Deliver(icmp.too_big(*ends, connection.iss + connection.tan, connection.host_mtu, mtu))
    connection.isolated, connection.host_mtu = True, mtu
    return [*isolate, told]


def can_nudge(connection: Connection) -> bool:
    """Is something unacknowledged, and is there room for smaller segments?"""
    return (
        connection.config.nudge
        and connection.send_max > connection.tan
        and connection.host_mtu - _NUDGE_BYTES >= LEAST_MTU[len(connection.local)]
    )


def reset_local(connection: Connection) -> bytes:
    """RST for the TCP of this host, with the sequence number that it expects (RFC 5961 section 3.2)."""
    addresses = (connection.remote, connection.remote_port, connection.local, connection.local_port)
    return tcp.build(*addresses, connection.irs + connection.ack, connection.iss + connection.tan, RST | ACK, 0)


def stray_reset(segment: Segment, *options: mptcp.Option) -> bytes:
    """RST as the answer to a segment that belongs to nothing (RFC 9293 section 3.10.7.1)."""
    ending = bool(segment.flags & (tcp.SYN | tcp.FIN))
    acks = bool(segment.flags & ACK)
    return tcp.build(segment.destination, segment.destination_port, segment.source, segment.source_port,
                     segment.ack if acks else 0, 0 if acks else segment.seq + segment.payload_length + ending,
                     RST if acks else RST | ACK, 0, b"".join(mptcp.encode(option) for option in options))  # fmt: skip


def emit_to_network(
    connection: Connection, packets: list[tuple[Subflow, bytes]], actions: list[Action], *, replace: bool = True
) -> Answer:
    """The first packet of this host's IP version takes the place of the packet that was shown; the others are sent.

    Not `replace`: all are sent. What the kernel will cut into segments must not be replaced by one of them.
    """
    answer: Answer = Verdict.DROP
    for subflow, packet in packets:
        if replace and answer is Verdict.DROP and len(subflow.local) == len(connection.local):
            answer = packet
        else:
            actions.append(Send(packet))
    return answer


def emit_to_local(connection: Connection, subflow: Subflow, packets: list[bytes], actions: list[Action]) -> Answer:
    """The same towards this host's TCP."""
    if not packets:
        return Verdict.DROP
    same_version = len(subflow.local) == len(connection.local)
    actions.extend(Deliver(packet) for packet in packets[same_version:])
    return packets[0] if same_version else Verdict.DROP
