"""Packets of capture files: pcap in all four byte orders and units, and pcapng. What is no IP packet is left out."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
"""Magic bytes -> byte order, ns of the unit of the fraction."""
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6
_ETHERNET, _COOKED, _COOKED_2 = 1, 113, 276
_RAW = frozenset({12, 14, 101, 228, 229})
_LOOPBACK = frozenset({0, 108})
_VLAN = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
_IP = (b"\x08\x00", b"\x86\xdd")


class CaptureError(ValueError):
    """A file that cannot be read; one line."""


class Packet(NamedTuple):
    """An IP packet of a capture."""

    time_ns: int
    data: bytes
    """Filled up with zeros to its full length where the capture has cut it."""
    cut: bool


def read(path: Path) -> list[Packet]:
    """The IP packets of a file, in its order. Raises CaptureError, also for a file that ends in the middle of a packet."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if data[:4] in _PCAP:
        frames = _pcap(path, data)
    elif data[:4] == _PCAPNG:
        frames = _pcapng(path, data)
    else:
        raise CaptureError(f"{path}: is no capture: it begins with {data[:4].hex() or 'nothing'}, not as pcap or pcapng")
    return [packet for time_ns, link, frame in frames if (packet := _packet(time_ns, link, frame)) is not None]


def _pcap(path: Path, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    order, unit = _PCAP[data[:4]]
    if len(data) < 24:
        raise CaptureError(f"{path}: ends in its header")
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    head = struct.Struct(order + "IIII")
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise CaptureError(f"{path}: ends in the middle of a packet at byte {at}")
        seconds, fraction, length, _original = head.unpack_from(data, at)
        if at + 16 + length > len(data):
            raise CaptureError(f"{path}: ends in the middle of a packet at byte {at}")
        yield seconds * 10**9 + fraction * unit, link, data[at + 16 : at + 16 + length]
        at += 16 + length


def _pcapng(path: Path, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    order, at = "<", 0
    links: list[tuple[int, int, int]] = []
    while at < len(data):
        if at + 12 > len(data):
            raise CaptureError(f"{path}: ends in the middle of a block at byte {at}")
        if data[at : at + 4] == _PCAPNG:
            order = _ORDERS.get(data[at + 8 : at + 12], "")
            if not order:
                raise CaptureError(f"{path}: a section without byte order at byte {at}")
            links = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or length % 4 or at + length > len(data):
            raise CaptureError(f"{path}: ends in the middle of a block at byte {at}")
        body = data[at + 8 : at + length - 4]
        if kind == _INTERFACE and len(body) >= 8:
            links.append((struct.unpack_from(order + "H", body)[0], *_clock(order, body)))
        elif kind == _ENHANCED and len(body) >= 20:
            number, high, low, captured, _original = struct.unpack_from(order + "IIIII", body)
            if number >= len(links) or 20 + captured > len(body):
                raise CaptureError(f"{path}: a packet of no interface at byte {at}")
            link, per_second, offset = links[number]
            yield (high << 32 | low) * 10**9 // per_second + offset * 10**9, link, body[20 : 20 + captured]
        at += length


def _clock(order: str, body: bytes) -> tuple[int, int]:
    """Units in a second (if_tsresol), seconds to be added (if_tsoffset)."""
    per_second, offset, at = 10**6, 0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        if code == 0:
            break
        if code == 9 and length >= 1:
            value = body[at + 4]
            per_second = 1 << (value & 127) if value & 128 else 10**value
        elif code == 14 and length >= 8:
            offset = struct.unpack_from(order + "q", body, at + 4)[0]
        at += 4 + (length + 3 & ~3)
    return per_second, offset


def _packet(time_ns: int, link: int, frame: bytes) -> Packet | None:
    start = _network(link, frame)
    if start < 0 or start >= len(frame):
        return None
    version = frame[start] >> 4
    if version == 4 and len(frame) >= start + 20:
        length = int.from_bytes(frame[start + 2 : start + 4], "big")
    elif version == 6 and len(frame) >= start + 40:
        length = 40 + int.from_bytes(frame[start + 4 : start + 6], "big")
    else:
        return None
    data = frame[start : start + length]
    cut = len(data) < length
    return Packet(time_ns, data + bytes(length - len(data)) if cut else data, cut)


def _network(link: int, frame: bytes) -> int:
    """Where the IP packet of a frame begins; -1: there is none."""
    if link in _RAW:
        return 0
    if link in _LOOPBACK:
        return 4
    if link == _COOKED:
        return 16 if frame[14:16] in _IP else -1
    if link == _COOKED_2:
        return 20 if frame[0:2] in _IP else -1
    if link != _ETHERNET:
        return -1
    at = 12
    while frame[at : at + 2] in _VLAN:
        at += 4
    return at + 2 if frame[at : at + 2] in _IP else -1
