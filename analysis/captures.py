"""Capture files -> one row per TCP or UDP packet.

Reads pcapng as dumpcap writes it (any time resolution, several interfaces, drop counters, short snap length, a last
block that was never finished) and classic pcap. Ethernet with IPv4 or IPv6 below TCP or UDP. Python touches each
packet once, to find where it starts; everything else is numpy on whole columns.

Sources: draft-ietf-opsawg-pcapng (blocks and options), draft-ietf-opsawg-pcap, RFC 791, RFC 8200, RFC 9293.
MPTCP options are read in `analysis.options` (RFC 8684 section 3).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.options import OPTION_COLUMNS, Words, parse_options

LINK_TYPE_ETHERNET = 1
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_TCP, _UDP = 6, 17
_SLACK = bytes(128)  # readable bytes behind the last packet, so that a gather of a cut header stays inside the buffer

Int64s = npt.NDArray[np.int64]


class CaptureError(ValueError):
    """The file is not a capture that can be read at all. One line: file, place, remedy."""


@dataclass(frozen=True)
class Interface:
    """One capturing interface: name ("" when the file has none), link type, snap length in bytes (0: none)."""

    name: str
    link_type: int
    snap_bytes: int
    ticks_per_second: int


@dataclass(frozen=True)
class Capture:
    """What one capture file holds.

    `frame` has one row per TCP or UDP packet in order of time; columns in `COLUMNS` and `OPTION_COLUMNS`. `dropped` is
    the number of packets the capturing program reports as lost, None when the file does not say. `damage` says where
    and how the file breaks off, None when it is whole. `packets` counts all records, `undecoded` those not in `frame`.
    """

    path: Path
    frame: pd.DataFrame
    interfaces: tuple[Interface, ...]
    dropped: int | None
    damage: str | None
    packets: int
    undecoded: int


COLUMNS = (
    "time_ns",  # since the Unix epoch
    "interface",  # index into Capture.interfaces
    "protocol",  # 6 TCP, 17 UDP
    "src",
    "dst",  # text, categorical
    "sport",
    "dport",
    "seq",
    "ack",
    "flags",  # the eight TCP flags, FIN = 1
    "payload_bytes",  # from the length in the IP header: right for packets cut by the snap length, too
)


@dataclass
class _Records:
    """Where the packets are: all arrays are one entry per record."""

    data: bytes
    start: list[Int64s] = field(default_factory=list)  # first byte of the link layer
    captured: list[Int64s] = field(default_factory=list)
    original: list[Int64s] = field(default_factory=list)
    interface: list[Int64s] = field(default_factory=list)
    time_ns: list[Int64s] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    dropped: dict[int, int] = field(default_factory=dict)
    damage: str | None = None


def read_capture(path: Path) -> Capture:
    """Read a pcapng or pcap file.

    Raises CaptureError when the file cannot be opened, is empty or is no capture. A file that breaks off later is
    read as far as it goes and says so in `damage`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}: name a capture file that can be read") from error
    magic = data[:4]
    if magic == b"\x0a\x0d\x0d\x0a":
        records = _walk_pcapng(path, data)
    elif magic in _PCAP_MAGIC:
        records = _walk_pcap(path, data)
    else:
        raise CaptureError(f"{path}: byte 0: neither pcapng nor pcap: was the capture started?")
    frame, packets = _decode(records)
    dropped = sum(records.dropped.values()) if records.dropped else None
    return Capture(path, frame, tuple(records.interfaces), dropped, records.damage, packets, packets - len(frame))


# --- where the packets are ---------------------------------------------------------------------------------------


def _walk_pcap(path: Path, data: bytes) -> _Records:
    """Record headers of a classic capture file."""
    if len(data) < 24:
        raise CaptureError(f"{path}: byte {len(data)}: file header is cut: capture again")
    end, ns_per_tick = _PCAP_MAGIC[data[:4]]
    snap_bytes, link_type = struct.unpack_from(end + "II", data, 16)
    records = _Records(data)
    records.interfaces.append(Interface("", link_type & 0x0FFFFFFF, snap_bytes, 10**9 // ns_per_tick))
    header = struct.Struct(end + "I").unpack_from
    offsets: list[int] = []
    offset, size = 24, len(data)
    while offset < size:
        following = offset + 16 + header(data, offset + 8)[0] if offset + 16 <= size else size + 1
        if following > size:
            records.damage = f"byte {offset}: the last packet is cut ({size - offset} bytes are left of it)"
            break
        offsets.append(offset)
        offset = following
    at = np.array(offsets, np.int64)
    words = Words(data + _SLACK, end)
    records.start.append(at + 16)
    records.captured.append(words.native32[at + 8].astype(np.int64))
    records.original.append(words.native32[at + 12].astype(np.int64))
    records.interface.append(np.zeros(at.size, np.int64))
    seconds = words.native32[at].astype(np.int64)
    records.time_ns.append(seconds * 10**9 + words.native32[at + 4].astype(np.int64) * ns_per_tick)
    return records


def _walk_pcapng(path: Path, data: bytes) -> _Records:
    """Blocks of a pcapng file, section by section (each has its own byte order and its own interfaces)."""
    records = _Records(data)
    offset, size = 0, len(data)
    while offset < size and records.damage is None:
        order = data[offset + 8 : offset + 12]
        if order not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
            message = f"byte {offset}: section header without byte-order magic"
            if offset == 0:
                raise CaptureError(f"{path}: {message}: capture again")
            records.damage = message
            break
        end = "<" if order == b"\x4d\x3c\x2b\x1a" else ">"
        offset = _walk_section(path, records, offset, end)
    return records


def _walk_section(path: Path, records: _Records, offset: int, end: str) -> int:
    """Walk one section from its header block; return the offset of the next section or of the end."""
    data, size, first = records.data, len(records.data), len(records.interfaces)
    pair, word = struct.Struct(end + "II").unpack_from, struct.Struct(end + "I").unpack_from
    packets: list[int] = []
    started = False
    while offset < size:
        kind, length = pair(data, offset) if offset + 12 <= size else (0, size + 1)
        if kind == _SECTION and started:
            break
        if length < 12 or length % 4 or (offset + length <= size and word(data, offset + length - 4)[0] != length):
            records.damage = f"byte {offset}: block length {length} is impossible"
            break
        if offset + length > size:
            records.damage = f"byte {offset}: the last block is unfinished ({size - offset} bytes are left of it)"
            break
        started = True
        if kind == _PACKET and length >= 32:
            packets.append(offset)
        elif kind == _INTERFACE and length >= 20:
            records.interfaces.append(_interface(path, data, offset, length, end))
        elif kind == _STATISTICS and length >= 24:
            number = first + word(data, offset + 8)[0]
            lost = _lost(_options(data, offset + 20, offset + length - 4, end), end)
            if lost is not None:
                records.dropped[number] = lost  # cumulative: the last block of an interface counts
        offset += length
    _collect(records, np.array(packets, np.int64), first, end)
    return size if records.damage else offset


def _collect(records: _Records, at: Int64s, first: int, end: str) -> None:
    """Gather the fields of the packet blocks at the offsets `at`; `first` numbers the section's interfaces."""
    words = Words(records.data + _SLACK, end).native32
    number, captured = words[at + 8].astype(np.int64), words[at + 20].astype(np.int64)
    room = words[at + 4].astype(np.int64) - 32
    bad = np.flatnonzero((captured > room) | (number >= len(records.interfaces) - first))
    if bad.size:
        records.damage = f"byte {at[bad[0]]}: packet block contradicts itself"
        at, number, captured = at[: bad[0]], number[: bad[0]], captured[: bad[0]]
    ticks = (words[at + 12].astype(np.uint64) << np.uint64(32)) | words[at + 16].astype(np.uint64)
    time_ns = np.zeros(at.size, np.int64)
    for index in np.unique(number):
        chosen = number == index
        time_ns[chosen] = _nanoseconds(ticks[chosen], records.interfaces[first + int(index)].ticks_per_second)
    records.start.append(at + 28)
    records.captured.append(captured)
    records.original.append(words[at + 24].astype(np.int64))
    records.interface.append(number + first)
    records.time_ns.append(time_ns)


def _nanoseconds(ticks: npt.NDArray[np.uint64], ticks_per_second: int) -> Int64s:
    """Ticks since the epoch -> ns since the epoch, exact for resolutions that divide a second evenly."""
    rate = np.uint64(ticks_per_second)
    seconds, rest = ticks // rate, ticks % rate
    if 10**9 % ticks_per_second == 0:
        rest = rest * np.uint64(10**9 // ticks_per_second)
    else:
        rest = (rest.astype(np.float64) * (1e9 / ticks_per_second)).astype(np.uint64)
    return (seconds * np.uint64(10**9) + rest).astype(np.int64)


def _options(data: bytes, offset: int, stop: int, end: str) -> dict[int, bytes]:
    """Options of a pcapng block as {code: value}; ends silently at the first impossible one."""
    found: dict[int, bytes] = {}
    while offset + 4 <= stop:
        code, length = struct.unpack_from(end + "HH", data, offset)
        if code == 0 or offset + 4 + length > stop:
            break
        found.setdefault(code, data[offset + 4 : offset + 4 + length])
        offset += 4 + (length + 3) // 4 * 4
    return found


def _interface(path: Path, data: bytes, offset: int, length: int, end: str) -> Interface:
    link_type, _, snap_bytes = struct.unpack_from(end + "HHI", data, offset + 8)
    options = _options(data, offset + 16, offset + length - 4, end)
    resolution = options.get(9, b"\x06")[:1] or b"\x06"
    exponent, base = resolution[0] & 0x7F, 2 if resolution[0] & 0x80 else 10
    if base**exponent >= 2**63:
        raise CaptureError(f"{path}: byte {offset}: time resolution {base}^-{exponent} s is too fine to be true")
    return Interface(options.get(2, b"").decode("utf-8", "replace"), link_type, snap_bytes, base**exponent)


def _lost(options: dict[int, bytes], end: str) -> int | None:
    """Packets lost by interface (5) and operating system (7), None when the block counts neither."""
    counts = [struct.unpack(end + "Q", options[code])[0] for code in (5, 7) if len(options.get(code, b"")) == 8]
    return sum(counts) if counts else None


# --- what the packets say ----------------------------------------------------------------------------------------


def _join(parts: list[Int64s]) -> Int64s:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _decode(records: _Records) -> tuple[pd.DataFrame, int]:
    """Decode all packets; returns the frame and the number of records."""
    start, captured, original = _join(records.start), _join(records.captured), _join(records.original)
    interface, time_ns = _join(records.interface), _join(records.time_ns)
    packets = start.size
    w = Words(records.data + _SLACK, ">")
    ethernet = np.array([i.link_type == LINK_TYPE_ETHERNET for i in records.interfaces] or [False])
    ip, stop = start + 14, start + captured
    ether_type = np.where(captured >= 14, w.be16[np.minimum(start + 12, w.size - 2)], 0)
    four = (ether_type == 0x0800) & (captured >= 34) & (w.u8[ip] >> 4 == 4)
    six = (ether_type == 0x86DD) & (captured >= 54) & (w.u8[ip] >> 4 == 6)
    header = np.where(four, (w.u8[ip] & 15).astype(np.int64) * 4, 40)
    protocol = np.where(four, w.u8[ip + 9], w.u8[ip + 6])
    total = np.where(four, w.be16[ip + 2].astype(np.int64), w.be16[ip + 4].astype(np.int64) + 40)
    total = np.where(total == np.where(four, 0, 40), original - 14, total)  # length 0: a segment offloaded to hardware
    whole = ~four | (w.be16[ip + 6] & 0x1FFF == 0)  # a later fragment has no transport header
    smallest = np.where(protocol == _TCP, 20, 8)
    keep = ethernet[interface] & (four | six) & whole & (header >= 20)
    keep &= np.isin(protocol, (_TCP, _UDP)) & (ip + header + smallest <= stop)

    rows = np.flatnonzero(keep)
    l4 = (ip + header)[rows]
    tcp = protocol[rows] == _TCP
    offset_bytes = np.where(tcp, (w.u8[l4 + 12] >> 4).astype(np.int64) * 4, 8)
    payload = total[rows] - header[rows] - offset_bytes
    sound = (payload >= 0) & (~tcp | (offset_bytes >= 20))
    rows, l4, tcp, offset_bytes, payload = (a[sound] for a in (rows, l4, tcp, offset_bytes, payload))
    ip, four, stop = ip[rows], four[rows], stop[rows]

    source, destination = _addresses(w, ip, four)
    columns: dict[str, Any] = {
        "time_ns": time_ns[rows],
        "interface": interface[rows].astype(np.int32),
        "protocol": protocol[rows].astype(np.uint8),
        "src": source,
        "dst": destination,
        "sport": w.be16[l4].astype(np.uint16),
        "dport": w.be16[l4 + 2].astype(np.uint16),
        "seq": np.where(tcp, w.be32[l4 + 4], 0).astype(np.uint32),
        "ack": np.where(tcp, w.be32[l4 + 8], 0).astype(np.uint32),
        "flags": np.where(tcp, w.u8[l4 + 13], 0).astype(np.uint8),
        "payload_bytes": payload,
    }
    options_end = np.where(tcp, l4 + offset_bytes, l4)
    columns |= parse_options(w, np.where(tcp, l4 + 20, l4), options_end, np.minimum(options_end, stop))
    order = np.argsort(columns["time_ns"], kind="stable")
    frame = pd.DataFrame(columns, columns=[*COLUMNS, *OPTION_COLUMNS]).iloc[order].reset_index(drop=True)
    return frame, packets


def _addresses(w: Words, ip: Int64s, four: npt.NDArray[np.bool_]) -> tuple[pd.Categorical, pd.Categorical]:
    """Source and destination as text; only the distinct addresses are ever formatted."""
    count = ip.size
    at4 = np.concatenate((ip + 12, ip + 16))
    at6 = np.concatenate((ip + 8, ip + 24))
    is4 = np.concatenate((four, four))
    high = np.where(is4, np.uint64(4), w.be64[at6]).astype(np.uint64)
    low = np.where(is4, w.be32[at4], w.be64[at6 + 8]).astype(np.uint64)
    high_code, _ = pd.factorize(high)
    low_code, _ = pd.factorize(low)
    both = high_code.astype(np.int64) * (int(low_code.max(initial=0)) + 1) + low_code
    code, distinct = pd.factorize(both)
    first = np.zeros(len(distinct), np.int64)
    first[code[::-1]] = np.arange(both.size - 1, -1, -1)
    texts = [
        str(ipaddress.IPv4Address(int(low[i])) if is4[i] else ipaddress.IPv6Address(int(high[i]) << 64 | int(low[i])))
        for i in first
    ]
    kind = pd.CategoricalDtype(texts)
    return pd.Categorical.from_codes(code[:count], dtype=kind), pd.Categorical.from_codes(code[count:], dtype=kind)
