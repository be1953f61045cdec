"""Checks and changes of whole packets, with checksum code of their own."""

import struct
from typing import Final

from agents.wire import tcp

_ADDRESSES: Final = {4: (12, 20), 6: (8, 40)}


def words(data: bytes | bytearray | memoryview) -> int:
    """The one's complement sum of 16-bit words, in network order (RFC 1071), by adding words."""
    data = bytes(data)
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def header_length(packet: bytes) -> int:
    """Bytes before the TCP header; IPv6 without extension headers."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def pseudo_header(packet: bytes, length: int) -> bytes:
    """RFC 9293 section 3.1 for a TCP segment of `length` bytes."""
    left, right = _ADDRESSES[packet[0] >> 4]
    return packet[left:right] + struct.pack("!II", length, 6)


def faults(packet: bytes) -> list[str]:
    """What is wrong with the lengths and checksums of a packet."""
    found = []
    at = header_length(packet)
    if packet[0] >> 4 == 4:
        if words(packet[:at]) != 0xFFFF:
            found.append("IPv4 header checksum")
        if int.from_bytes(packet[2:4], "big") != len(packet):
            found.append("IPv4 total length")
    elif int.from_bytes(packet[4:6], "big") + 40 != len(packet):
        found.append("IPv6 payload length")
    if words(pseudo_header(packet, len(packet) - at) + packet[at:]) != 0xFFFF:
        found.append("TCP checksum")
    return found


def sealed(packet: bytearray) -> bytes:
    """The packet with its lengths and checksums right."""
    at = header_length(packet)
    if packet[0] >> 4 == 4:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = b"\0\0"
        packet[10:12] = (words(packet[:at]) ^ 0xFFFF).to_bytes(2, "big")
    else:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    packet[at + 16 : at + 18] = b"\0\0"
    total = words(pseudo_header(bytes(packet), len(packet) - at) + packet[at:])
    packet[at + 16 : at + 18] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


def options_of(packet: bytes) -> list[bytes]:
    """The TCP options, whole; NOPs as one byte each, up to an end-of-list option."""
    at = header_length(packet)
    end = at + (packet[at + 12] >> 4) * 4
    at += 20
    found = []
    while at < end and packet[at]:
        length = 1 if packet[at] == 1 else packet[at + 1]
        if length < 1 or at + length > end:
            break
        found.append(packet[at : at + length])
        at += length
    return found


def with_parts(packet: bytes, *, options: bytes, payload: bytes, seq: int | None = None, flags: int | None = None) -> bytes:
    """The packet with other options (padded here) and payload."""
    at = header_length(packet)
    options += b"\x01" * (-len(options) % 4)
    header = bytearray(packet[at : at + 20])
    header[12] = (5 + len(options) // 4) << 4
    if seq is not None:
        header[4:8] = (seq & 0xFFFFFFFF).to_bytes(4, "big")
    if flags is not None:
        header[13] = flags
    return sealed(bytearray(packet[:at]) + header + options + payload)


def describe(packet: bytes) -> str:
    """One line for a human."""
    try:
        s = tcp.parse(packet)
    except tcp.WireError as error:
        return f"{error}"
    names = "".join(letter for bit, letter in ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "."), (32, "U")) if s.flags & bit)
    parts = [f"{s.source.hex()}:{s.source_port}>{s.destination.hex()}:{s.destination_port} {names} seq {s.seq} ack {s.ack}"]
    parts.append(f"win {s.window} len {s.payload_length}")
    if s.timestamp is not None:
        parts.append(f"ts {s.timestamp}/{s.echo}")
    if s.sack:
        parts.append(f"sack {s.sack}")
    if s.dss is not None:
        parts.append(f"{s.dss}")
    parts += [f"mptcp {option.hex()}" for option in s.mptcp]
    return " ".join(parts)
