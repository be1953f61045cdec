"""TCP segments in IPv4 and IPv6 packets: read into fields, and written (RFC 9293, RFC 7323, RFC 2018, RFC 8200).

Made for the packet path: no objects for layers, the payload stays where it is. Sequence numbers are the 32 bits of the wire.
"""

import struct
from collections.abc import Sequence
from typing import Final

from agents.wire.checksum import MODULUS, folded, ones_sum
from agents.wire.errors import WireError
from agents.wire.mptcp import MPTCP_KIND, Dss, read_dss

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
OPTIONS_MAX: Final = 40
"""Bytes that a TCP header has for options."""
TCP_HEADER: Final = 20
IP_HEADER: Final = {4: 20, 6: 40}

_IPV4 = struct.Struct("!BBHIBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_PSEUDO_WORDS = 6  # the protocol number of TCP
_TIMESTAMP = struct.Struct("!II")
_TIMESTAMP_HEAD = b"\x01\x01\x08\x0a"
_DONT_FRAGMENT = 0x4000


class Segment:
    """A TCP segment in its packet. `data[payload_at:end]` is the payload; what an option did not say is None or empty."""

    __slots__ = (
        "ack", "data", "destination", "destination_port", "dss", "echo", "end", "flags", "fragment_word", "hop_limit",
        "malformed", "mptcp", "mss", "other", "payload_at", "sack", "sack_permitted", "seq", "source", "source_port",
        "tcp_at", "timestamp", "traffic_class", "urgent", "version", "window", "window_scale",
    )  # fmt: skip
    data: bytes
    version: int
    """4 or 6."""
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    """As on the wire, not scaled."""
    urgent: int
    tcp_at: int
    """Where the TCP header begins."""
    payload_at: int
    end: int
    traffic_class: int
    """DSCP and ECN."""
    hop_limit: int
    fragment_word: int
    """IPv4 identification, flags and fragment offset; 0 for IPv6."""
    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    timestamp: int | None
    """TSval."""
    echo: int
    """TSecr."""
    sack: tuple[tuple[int, int], ...]
    dss: Dss | None
    """The first readable DSS option."""
    mptcp: tuple[bytes, ...]
    """The other options of kind 30, whole."""
    other: bytes
    """Options of kinds not named here, whole and one after another."""
    malformed: bool
    """An option's length lies: what follows it was not read."""

    @property
    def payload(self) -> memoryview:
        """The payload, not copied."""
        return memoryview(self.data)[self.payload_at : self.end]

    @property
    def payload_length(self) -> int:
        """Bytes."""
        return self.end - self.payload_at

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        """(source, source port, destination, destination port)."""
        return (self.source, self.source_port, self.destination, self.destination_port)

    def payload_sum(self) -> int:
        """The payload's sum of 16-bit words, taken from the checksum that the packet carries.

        A payload that was damaged on its way keeps a wrong checksum in every packet that is built with this sum.
        """
        header = ones_sum(self.data[self.tcp_at : self.payload_at])
        length = self.end - self.tcp_at
        return (-header - ones_sum(self.source) - ones_sum(self.destination) - _PSEUDO_WORDS - length) % MODULUS


def parse(data: bytes) -> Segment:
    """The TCP segment of a whole IPv4 or IPv6 packet. Raises WireError for anything else, fragments included."""
    if len(data) < 40:
        raise WireError(f"packet of {len(data)} bytes: no TCP segment")
    segment = Segment()
    segment.data = data
    version = data[0] >> 4
    if version == 4:
        (first, traffic_class, total, fragment_word, hop_limit, protocol, _sum, source, destination) = _IPV4.unpack_from(data)
        tcp_at = (first & 15) * 4
        if tcp_at < 20 or fragment_word & 0x3FFF:
            raise WireError("IPv4 packet: a fragment, or a header that is too short")
        segment.fragment_word = fragment_word
    elif version == 6:
        first, payload_length, protocol, hop_limit, source, destination = _IPV6.unpack_from(data)
        traffic_class, total, tcp_at = first >> 20 & 0xFF, payload_length + 40, 40
        segment.fragment_word = 0
    else:
        raise WireError(f"IP version {version}")
    if protocol != 6:
        raise WireError(f"protocol {protocol}, not TCP")
    if total > len(data) or tcp_at + TCP_HEADER > total:
        raise WireError(f"packet of {len(data)} bytes says {total}, TCP at {tcp_at}")
    (segment.source_port, segment.destination_port, segment.seq, segment.ack, offset, segment.flags, segment.window, _sum,
     segment.urgent) = _TCP.unpack_from(data, tcp_at)  # fmt: skip
    payload_at = tcp_at + (offset >> 4) * 4
    if payload_at < tcp_at + TCP_HEADER or payload_at > total:
        raise WireError(f"TCP data offset {offset >> 4}")
    segment.version, segment.source, segment.destination = version, source, destination
    segment.traffic_class, segment.hop_limit = traffic_class, hop_limit
    segment.tcp_at, segment.payload_at, segment.end = tcp_at, payload_at, total
    segment.mss = segment.window_scale = segment.timestamp = segment.dss = None
    segment.echo = 0
    segment.sack_permitted = segment.malformed = False
    segment.sack = ()
    segment.mptcp = ()
    segment.other = b""
    at = tcp_at + TCP_HEADER
    if at < payload_at:
        if data[at : at + 4] == _TIMESTAMP_HEAD and at + 12 <= payload_at:
            segment.timestamp, segment.echo = _TIMESTAMP.unpack_from(data, at + 4)
            at += 12
        if at < payload_at:
            _read_options(segment, at)
    return segment


def _read_options(segment: Segment, at: int) -> None:
    data, end = segment.data, segment.payload_at
    while at < end:
        kind = data[at]
        if kind == 1:
            at += 1
            continue
        if kind == 0:
            return
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            segment.malformed = True
            return
        if kind == MPTCP_KIND:
            dss = read_dss(data, at, length) if segment.dss is None and length > 2 and data[at + 2] >> 4 == 2 else None
            if dss is not None:
                segment.dss = dss
            else:
                segment.mptcp += (data[at : at + length],)
        elif kind == 8 and length == 10:
            segment.timestamp, segment.echo = _TIMESTAMP.unpack_from(data, at + 2)
        elif kind == 5 and length % 8 == 2 and length > 2:
            segment.sack = tuple(_TIMESTAMP.iter_unpack(data[at + 2 : at + length]))
        elif kind == 2 and length == 4:
            segment.mss = data[at + 2] << 8 | data[at + 3]
        elif kind == 3 and length == 3:
            segment.window_scale = min(data[at + 2], 14)  # RFC 7323 section 2.3
        elif kind == 4 and length == 2:
            segment.sack_permitted = True
        else:
            segment.other += data[at : at + length]
        at += length


def build(
    source: bytes,
    source_port: int,
    destination: bytes,
    destination_port: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes = b"",
    payload: bytes | memoryview = b"",
    *,
    payload_sum: int | None = None,
    traffic_class: int = 0,
    hop_limit: int = 64,
    fragment_word: int = _DONT_FRAGMENT,
    urgent: int = 0,
) -> bytes:
    """A packet with correct checksums. `seq` and `ack` may be of any size; `payload_sum` saves the pass over the payload.

    Raises WireError when the options do not fit or the packet is too long.
    """
    if len(options) & 3:
        options += b"\x01" * (-len(options) & 3)
    if len(options) > OPTIONS_MAX:
        raise WireError(f"{len(options)} bytes of TCP options do not fit into {OPTIONS_MAX}")
    length = TCP_HEADER + len(options) + len(payload)
    offset = (TCP_HEADER + len(options)) << 2
    seq &= 0xFFFFFFFF
    ack &= 0xFFFFFFFF
    head = _TCP.pack(source_port, destination_port, seq, ack, offset, flags, window, 0, urgent) + options
    addresses = source + destination
    total = ones_sum(head) + ones_sum(addresses) + _PSEUDO_WORDS + length
    total += ones_sum(payload) if payload_sum is None else payload_sum
    tcp = b"".join((head[:16], folded(total).to_bytes(2, "big"), head[18:], payload))
    if len(source) == 4:
        if length > 0xFFFF - 20:
            raise WireError(f"{length} bytes do not fit into an IPv4 packet")
        ip = _IPV4.pack(0x45, traffic_class, 20 + length, fragment_word & 0xFFFFFFFF, hop_limit, 6, 0, source, destination)
        return b"".join((ip[:10], folded(ones_sum(ip)).to_bytes(2, "big"), ip[12:], tcp))
    if length > 0xFFFF:
        raise WireError(f"{length} bytes do not fit into an IPv6 packet")
    return _IPV6.pack(0x60000000 | traffic_class << 20, length, 6, hop_limit, source, destination) + tcp


def timestamps_option(value: int, echo: int) -> bytes:
    """Two NOPs and the timestamps option, 12 bytes (RFC 7323 appendix A)."""
    return _TIMESTAMP_HEAD + _TIMESTAMP.pack(value & 0xFFFFFFFF, echo & 0xFFFFFFFF)


def sack_option(blocks: Sequence[tuple[int, int]]) -> bytes:
    """Two NOPs and the SACK option: 4 + 8 bytes for each block; nothing without blocks (RFC 2018 section 3)."""
    if not blocks:
        return b""
    body = b"".join(_TIMESTAMP.pack(left & 0xFFFFFFFF, right & 0xFFFFFFFF) for left, right in blocks)
    return bytes((1, 1, 5, 2 + len(body))) + body


def syn_options(segment: Segment, mss: int | None) -> bytes:
    """The options of a SYN again, in the usual order, with another MSS and without those of MPTCP."""
    parts = []
    if mss is not None:
        parts.append(bytes((2, 4, mss >> 8, mss & 0xFF)))
    if segment.timestamp is not None:
        head = b"\x04\x02" if segment.sack_permitted else b"\x01\x01"
        parts.append(head + b"\x08\x0a" + _TIMESTAMP.pack(segment.timestamp, segment.echo))
    elif segment.sack_permitted:
        parts.append(b"\x01\x01\x04\x02")
    if segment.window_scale is not None:
        parts.append(bytes((1, 3, 3, segment.window_scale)))
    if segment.other:
        parts.append(segment.other)
    return b"".join(parts)
