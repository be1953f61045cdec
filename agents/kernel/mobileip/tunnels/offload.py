"""Superpackets of a TUN device: cutting large TCP segments into packets, and joining packets to large segments.

The kernel's TCP hands over and takes up to 64 KiB at once (struct virtio_net_hdr in front of the packet); what travels between
tunnel ends are ordinary packets. One system call and one pass of the kernel's TCP then serve some forty of them.
"""

import struct
from typing import Final

from agents.wire.checksum import MODULUS, folded, ones_sum

VNET_HEADER: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset (linux/virtio_net.h)."""
NO_OFFLOAD: Final = bytes(VNET_HEADER.size)
_NEEDS_CHECKSUM, _GSO_NONE, _GSO_TCPV4, _GSO_ECN = 1, 0, 1, 0x80
_FIN, _PSH, _ACK, _CWR = 0x01, 0x08, 0x10, 0x80
_CHECKSUM_AT: Final = 16
"""Of the checksum in a TCP header."""
JOINED_MAX: Final = 65_000
"""Octets of a joined packet."""
_TCP: Final = 6
_U16 = struct.Struct("!H")
_SEQUENCE = struct.Struct("!I")


def packets_of(data: bytes) -> list[bytes]:
    """The packets in one read from the device: header of offloads, then one IPv4 packet. Malformed data gives none."""
    if len(data) < VNET_HEADER.size + 20:
        return []
    flags, kind, _header_length, gso_size, start, offset = VNET_HEADER.unpack_from(data)
    packet = data[VNET_HEADER.size :]
    if kind & ~_GSO_ECN == _GSO_TCPV4 and gso_size:
        return _cut(packet, gso_size)
    if flags & _NEEDS_CHECKSUM and start + offset + 2 <= len(packet):
        return [_with_checksum(packet, start, offset)]
    return [packet]


def _with_checksum(packet: bytes, start: int, offset: int) -> bytes:
    """The checksum field holds the sum of the pseudo header already."""
    result = bytearray(packet)
    _U16.pack_into(result, start + offset, folded(ones_sum(memoryview(packet)[start:])) or MODULUS)
    return bytes(result)


def _cut(packet: bytes, size: int) -> list[bytes]:
    """The segments of a large one, with `size` octets of payload each but the last."""
    ip_length = (packet[0] & 15) * 4
    if len(packet) < ip_length + 20:
        return []
    head = ip_length + (packet[ip_length + 12] >> 4) * 4
    header = bytearray(packet[:head])
    identification = _U16.unpack_from(header, 4)[0]
    sequence = _SEQUENCE.unpack_from(header, ip_length + 4)[0]
    flags = header[ip_length + 13]
    for at in (2, 4, 10, ip_length + _CHECKSUM_AT):
        header[at : at + 2] = b"\0\0"
    header[ip_length + 4 : ip_length + 8] = bytes(4)
    header[ip_length + 13] = 0
    ip_sum = ones_sum(bytes(header[:ip_length]))
    tcp_sum = ones_sum(bytes(header[ip_length:])) + ones_sum(packet[12:20]) + _TCP
    result, view, end = [], memoryview(packet), len(packet)
    for number, begin in enumerate(range(head, end, size)):
        payload = view[begin : begin + size]
        length, own = head + len(payload), sequence + begin - head & 0xFFFF_FFFF
        last = begin + size >= end
        bits = flags & (0xFF if last else ~(_FIN | _PSH)) & (0xFF if not number else ~_CWR)
        mark = identification + number & 0xFFFF
        _U16.pack_into(header, 2, length)
        _U16.pack_into(header, 4, mark)
        _U16.pack_into(header, 10, folded(ip_sum + length + mark))
        _SEQUENCE.pack_into(header, ip_length + 4, own)
        header[ip_length + 13] = bits
        total = tcp_sum + (own >> 16) + (own & 0xFFFF) + bits + length - ip_length + ones_sum(payload)
        _U16.pack_into(header, ip_length + _CHECKSUM_AT, folded(total))
        result.append(b"".join((header, payload)))
    return result


class Joiner:
    """Joins packets that follow each other in one TCP connection; everything else passes as it is.

    The checksum of each joined packet is verified: the kernel trusts what it gets as one large segment.
    """

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._first = b""
        self._key = b""
        self._next = self._size = self._length = self._head = self._flags = 0
        self._closed = True

    def add(self, packet: bytes) -> list[list[bytes | memoryview]]:
        """Take a packet; returns what is complete now: buffers to be written to the device at once, header included."""
        segment = _segment(packet)
        if segment is None:
            return [*self.flush(), [NO_OFFLOAD, packet]]
        key, sequence, head, flags = segment
        payload = len(packet) - head
        if (
            not self._closed
            and key == self._key
            and sequence == self._next
            and payload <= self._size
            and self._length + payload <= JOINED_MAX
        ):
            self._parts.append(memoryview(packet)[head:])
            self._length += payload
            self._next = sequence + payload & 0xFFFF_FFFF
            self._flags |= flags
            self._closed = payload < self._size or bool(flags & _PSH)
            return []
        done = self.flush()
        self._first, self._key, self._head, self._size, self._flags = packet, key, head, payload, flags
        self._parts, self._length, self._next = [], len(packet), sequence + payload & 0xFFFF_FFFF
        self._closed = bool(flags & _PSH)
        return done

    def flush(self) -> list[list[bytes | memoryview]]:
        """What is still held."""
        first, self._first = self._first, b""
        self._closed = True
        if not first:
            return []
        if not self._parts:
            return [[NO_OFFLOAD, first]]
        header = bytearray(first[: self._head])
        _U16.pack_into(header, 2, self._length)
        header[10:12] = b"\0\0"
        _U16.pack_into(header, 10, folded(ones_sum(bytes(header[:20]))))
        header[33] = self._flags
        pseudo = ones_sum(first[12:20]) + _TCP + self._length - 20
        _U16.pack_into(header, 20 + _CHECKSUM_AT, pseudo % MODULUS)
        offload = VNET_HEADER.pack(_NEEDS_CHECKSUM, _GSO_TCPV4, self._head, self._size, 20, _CHECKSUM_AT)
        return [[offload, bytes(header), memoryview(first)[self._head :], *self._parts]]


def _segment(packet: bytes) -> tuple[bytes, int, int, int] | None:
    """What must be equal in packets that are joined, sequence number, length of the headers, flags; None: not to be joined."""
    # Without options, DF, no fragment: the rest is rare.
    if len(packet) < 41 or packet[0] != 0x45 or packet[9] != _TCP or packet[6:8] != b"\x40\0":
        return None
    flags, head = packet[33], 20 + (packet[32] >> 4) * 4
    if flags & ~_PSH != _ACK or len(packet) <= head or _U16.unpack_from(packet, 2)[0] != len(packet):
        return None
    if (ones_sum(memoryview(packet)[20:]) + ones_sum(packet[12:20]) + _TCP + len(packet) - 20) % MODULUS:
        return None
    # TOS; TTL, addresses, ports; ACK number, offset; window; options (Linux' GRO compares the same).
    key = b"".join((packet[1:2], packet[8:9], packet[12:24], packet[28:33], packet[34:36], packet[38:head]))
    return key, _SEQUENCE.unpack_from(packet, 24)[0], head, flags
