"""Files -> where their packets are: pcap and pcapng, plain or compressed by gzip or zstd.

The file is memory-mapped; a compressed one is first unpacked into a nameless temporary file. `Container.walk` hands out
the packets in blocks, so that memory does not depend on the size of the file.

Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng (section 4: blocks), RFC 1952 (gzip), RFC 8878 (zstd).
"""

from __future__ import annotations

import gzip
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.files import printable
from analysis.packets.walk import (
    BAD_INTERFACE,
    BAD_LENGTH,
    CONTRADICTION,
    CUT,
    SPECIAL,
    UNFINISHED,
    walk_pcap,
    walk_pcapng,
)

_SECTION, _INTERFACE, _STATISTICS = 0x0A0D0D0A, 1, 5
_PCAP_MAGIC = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000), b"\x4d\x3c\xb2\xa1": ("<", 1),
               b"\xa1\xb2\x3c\x4d": (">", 1)}  # fmt: skip
_REFUSED_MAGIC = {
    b"\x34\xcd\xb2\xa1": "a modified pcap (Kuznetzov)", b"\xa1\xb2\xcd\x34": "a modified pcap (Kuznetzov)",
    b"snoo": "a snoop file", b"\x1f\x9d": "a file packed by compress",
    b"BZh": "a file packed by bzip2", b"\xfd7zX": "a file packed by xz",
    b"PK\x03\x04": "a zip archive", b"PAR1": "a Parquet table",
}  # fmt: skip
MAX_INTERFACES = 65535
_RESERVE_BYTES = 256 << 20
"""So much room stays free in the folder for temporary files when a compressed capture is unpacked."""

Bytes = npt.NDArray[np.uint8]
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
    offset_s: int = 0


class Records(NamedTuple):
    """Places of packets in the file: arrays with one entry per packet."""

    start: Any  # int64: first byte of the link layer
    captured: Any  # uint32
    length: Any  # uint32
    interface: Any  # uint16
    time_ns: Any  # int64


@dataclass
class Container:
    """An open capture. `interfaces`, `dropped` and `damage` grow while `walk` proceeds and are final after it."""

    path: Path
    data: Bytes
    interfaces: list[Interface] = field(default_factory=list)
    dropped: dict[int, int] = field(default_factory=dict)
    damage: str | None = None
    packing_damage: str | None = None

    def __post_init__(self) -> None:
        # What the walker needs of each interface; in arrays, since a file may describe very many.
        self._rate = np.zeros(MAX_INTERFACES, np.uint64)
        self._shift_s = np.zeros(MAX_INTERFACES, np.int64)
        self._snap = np.zeros(MAX_INTERFACES, np.uint32)

    def _describe(self, interface: Interface) -> None:
        number = len(self.interfaces)
        self._rate[number], self._shift_s[number] = interface.ticks_per_second, interface.offset_s
        self._snap[number] = interface.snap_bytes
        self.interfaces.append(interface)

    def walk(self, most: int) -> Iterator[Records]:
        """All packets in the order of the file, at most `most` at a time."""
        if self.data[:4].tobytes() in _PCAP_MAGIC:
            yield from self._walk_pcap(most)
        else:
            yield from self._walk_pcapng(most)

    def _room(self, most: int) -> Records:
        count = int(min(most, self.data.size // 16 + 1))  # no packet takes less than its header
        kinds = (np.int64, np.uint32, np.uint32, np.uint16, np.int64)
        return Records(*(np.zeros(count, kind) for kind in kinds))

    def _walk_pcap(self, most: int) -> Iterator[Records]:
        if self.data.size < 24:
            raise CaptureError(f"{self.path}: byte {self.data.size}: file header is cut: capture again")
        end, ns_per_tick = _PCAP_MAGIC[self.data[:4].tobytes()]
        snap_bytes, link_type = self._fields("II", 16, end)
        # The upper half of the link type tells whether frames carry a check sequence.
        self.interfaces.append(Interface("", link_type & 0xFFFF, snap_bytes, 10**9 // ns_per_tick))
        offset, state = 24, 0
        while offset < self.data.size and not state:
            room = self._room(most)
            count, offset, state = walk_pcap(self.data, offset, end == ">", ns_per_tick, *room)
            self._note(state, offset)
            if count:
                yield Records(*(a[:count] for a in room))

    def _walk_pcapng(self, most: int) -> Iterator[Records]:
        size, offset, first, end = self.data.size, 0, 0, "<"
        room, count = self._room(most), 0
        while offset < size and self.damage is None:
            if offset:
                known = slice(first, len(self.interfaces))
                clocks = self._rate[known], self._shift_s[known], self._snap[known]
                count, offset, state = walk_pcapng(self.data, offset, end == ">", first, *clocks, count, *room)
            else:
                state = SPECIAL
            if state == SPECIAL:
                following, end, first = self._special(offset, end, first)
                offset = following
            else:
                self._note(state, offset)
            if count == room.start.size or (count and (self.damage is not None or offset >= size)):
                yield Records(*(a[:count] for a in room))
                room, count = self._room(most), 0
        if count:
            yield Records(*(a[:count] for a in room))

    def _note(self, state: int, offset: int) -> None:
        """Put a walker's complaint into words."""
        left = self.data.size - offset
        words = {
            CUT: f"the last packet is cut ({left} bytes are left of it)",
            UNFINISHED: f"the last block is unfinished ({left} bytes are left of it)",
            BAD_LENGTH: "length field is impossible",
            CONTRADICTION: "packet block contradicts itself",
            BAD_INTERFACE: "packet of an interface that was not described",
        }
        if state in words:
            self.damage = f"byte {offset}: {words[state]}"

    def _special(self, offset: int, end: str, first: int) -> tuple[int, str, int]:
        """Take in the section, interface or statistics block at `offset`: next offset, byte order, first interface."""
        kind, length = self._fields("II", offset, end)
        if kind == _SECTION:
            magic = self.data[offset + 8 : offset + 12].tobytes()
            if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                if offset == 0:
                    raise CaptureError(f"{self.path}: byte 0: section header without byte-order magic: capture again")
                self.damage = f"byte {offset}: section header without byte-order magic"
                return offset, end, first
            end = "<" if magic == b"\x4d\x3c\x2b\x1a" else ">"
            length = self._fields("I", offset + 4, end)[0]
            if length < 28 or length % 4 or offset + length > self.data.size:
                if offset == 0:
                    raise CaptureError(f"{self.path}: byte 0: section header of {length} bytes is impossible: capture again")
                self.damage = f"byte {offset}: section header of {length} bytes is impossible"
                return offset, end, first
            return offset + length, end, len(self.interfaces)
        if kind == _INTERFACE and length >= 20:
            if len(self.interfaces) >= MAX_INTERFACES:
                self.damage = f"byte {offset}: more than {MAX_INTERFACES} interfaces"
            else:
                try:
                    self._describe(self._interface(offset, length, end))
                except ValueError as error:
                    self.damage = f"byte {offset}: {error}"
                    return offset, end, first
        elif kind == _STATISTICS and length >= 24:
            number = first + self._fields("I", offset + 8, end)[0]
            lost = _lost(self._options(offset + 20, offset + length - 4, end), end)
            if lost is not None and number < len(self.interfaces):
                self.dropped[number] = lost  # cumulative: the last block of an interface counts
        return offset + length, end, first

    def _fields(self, layout: str, offset: int, end: str) -> tuple[int, ...]:
        """Numbers at a place of the file that is known to lie in it."""
        return struct.unpack(end + layout, self.data[offset : offset + struct.calcsize("=" + layout)].tobytes())

    def _options(self, offset: int, stop: int, end: str) -> dict[int, bytes]:
        """Options of a pcapng block as {code: value}; ends silently at the first impossible one."""
        found: dict[int, bytes] = {}
        while offset + 4 <= stop:
            code, length = self._fields("HH", offset, end)
            if code == 0 or offset + 4 + length > stop:
                break
            found.setdefault(code, self.data[offset + 4 : offset + 4 + length].tobytes())
            offset += 4 + (length + 3) // 4 * 4
        return found

    def _interface(self, offset: int, length: int, end: str) -> Interface:
        link_type, _, snap_bytes = self._fields("HHI", offset + 8, end)
        options = self._options(offset + 16, offset + length - 4, end)
        resolution = options.get(9, b"\x06")[:1] or b"\x06"
        exponent, base = resolution[0] & 0x7F, 2 if resolution[0] & 0x80 else 10
        if base**exponent >= 2**63:
            raise ValueError(f"time resolution {base}^-{exponent} s is too fine to be true")
        shift = options.get(14, b"")
        offset_s = struct.unpack(end + "q", shift)[0] if len(shift) == 8 else 0
        if abs(offset_s) > 2**33:
            raise ValueError(f"time offset of {offset_s} s is too large to be true")
        return Interface(
            printable(options.get(2, b"").decode("utf-8", "replace")), link_type, snap_bytes, base**exponent, offset_s
        )


def open_container(path: Path) -> Container:
    """Open a capture. Raises CaptureError when it cannot be opened, is empty or is no capture."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic[:2] == b"\x1f\x8b" or magic == b"\x28\xb5\x2f\xfd":
                return _unpack(path, file, magic)
            if not magic:
                raise CaptureError(f"{path}: the file is empty: was the capture started?")
            return _checked(path, _map(file))
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror or error}: name a capture file that can be read") from error


def _map(file: IO[bytes]) -> Bytes:
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _checked(path: Path, data: Bytes) -> Container:
    """Refuse what is no capture, naming what it is where that is known."""
    magic = data[:4].tobytes()
    if magic not in _PCAP_MAGIC and magic != b"\x0a\x0d\x0d\x0a":
        known = next((name for begin, name in _REFUSED_MAGIC.items() if magic.startswith(begin)), None)
        what = f"{known}, " if known else ""
        raise CaptureError(f"{path}: byte 0: {what}neither pcapng nor pcap: name a capture file (gzip and zstd are unpacked)")
    if magic == b"\x0a\x0d\x0d\x0a" and data.size < 28:
        raise CaptureError(f"{path}: byte {data.size}: section header is cut: capture again")
    return Container(path, data)


def _unpack(path: Path, packed: IO[bytes], magic: bytes) -> Container:
    """Unpack into a nameless temporary file. What can be unpacked before damage is used."""
    packed.seek(0)
    damage = None
    with tempfile.TemporaryFile(prefix="roamlab-") as plain:
        try:
            for block in _blocks(packed, magic):
                room = os.fstatvfs(plain.fileno())
                if room.f_bavail * room.f_frsize < _RESERVE_BYTES:
                    raise CaptureError(
                        f"{path}: no room to unpack it in {tempfile.gettempdir()}: set TMPDIR to a larger folder"
                    )
                plain.write(block)
        except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
            damage = f"the packing is damaged after {plain.tell()} unpacked bytes ({str(error) or type(error).__name__})"
        plain.flush()
        if not plain.tell():
            raise CaptureError(f"{path}: {damage or 'nothing is packed in it'}: capture again")
        container = _checked(path, _map(plain))
    container.packing_damage = damage
    return container


def _blocks(packed: IO[bytes], magic: bytes) -> Iterator[bytes]:
    if magic[:2] == b"\x1f\x8b":
        plain = gzip.GzipFile(fileobj=packed)
        while block := plain.read1(1 << 20):  # what could be unpacked before the damage comes first, the error then
            yield block
        return
    import pyarrow as pa  # here: only compressed captures need it

    size, done = 1 << 16, 0
    while size:
        again = os.fdopen(os.dup(packed.fileno()), "rb")  # the stream closes it
        again.seek(0)
        stream = pa.CompressedInputStream(pa.PythonFile(again, "r"), "zstd")
        skipped = 0
        while skipped < done:
            skipped += len(stream.read(min(done - skipped, 1 << 16)))
        try:
            while block := stream.read(size):
                yield block
                done += len(block)
            return
        except OSError:
            if size == 1:
                raise
            size = size // 64 or 1  # of a damaged packing the block in which the damage lies is lost: smaller blocks


def _lost(options: dict[int, bytes], end: str) -> int | None:
    """Packets lost by interface (5) and operating system (7), None when the block counts neither."""
    counts = [struct.unpack(end + "Q", options[code])[0] for code in (5, 7) if len(options.get(code, b"")) == 8]
    return sum(counts) if counts else None
