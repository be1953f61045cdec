"""Capture files -> packet tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.files import printable
from analysis.packets.addresses import AddressBook
from analysis.packets.container import MAX_INTERFACES, CaptureError, Container, Interface, Records, open_container
from analysis.packets.decode import ADDRESS_ROOM, SACKS, SIGNALS, decode
from analysis.packets.schema import COLUMNS
from analysis.packets.signals import read_signals
from analysis.packets.table import PacketTable, Point, concatenate

CHUNK_PACKETS = 1 << 17
"""So many packets are decoded at a time."""
_BLOCK = 1 << 12
_SPARSE = 1 << 14
_GIVEN = ("time_ns", "interface", "length", "captured")  # by the walk over the file
_FILLED = tuple(column.name for column in COLUMNS if column.name not in _GIVEN)
_ROW = np.dtype([(column.name, column.kind) for column in COLUMNS if column.name not in _GIVEN], align=True)
_PLACE = np.dtype([("row", "i8"), ("at", "i8"), ("length", "u1")], align=True)


@dataclass(frozen=True)
class Capture:
    """What one capture file holds.

    `table` has one row per record, in the order of the file. `dropped` is the number of packets the capturing program
    reports as lost, None when the file does not say. `damage` says where and how the file breaks off, None when it is whole.
    """

    path: Path
    interfaces: tuple[Interface, ...]
    dropped: int | None
    damage: str | None
    table: PacketTable

    @property
    def packets(self) -> int:
        """Number of records in the file, as far as it could be read."""
        return len(self.table)


def read_capture(path: Path, addresses: AddressBook | None = None, by_time: bool = False) -> Capture:
    """Read a capture file into one table. `by_time`: rows in order of time, not as in the file; saves a copy of large ones.

    Raises CaptureError when the file cannot be opened, is empty or is no capture. A file that breaks off later is read as
    far as it goes and says so in `damage`. Captures that are looked at together share one `addresses`.
    """
    book = addresses or AddressBook()
    stream = open_stream(path, book)
    table = stream.whole()
    if by_time:
        table.sort_by_time()
    return stream.finished(table)


def read_captures(paths: Sequence[Path]) -> list[Capture]:
    """Read several files with one address book."""
    book = AddressBook()
    return [read_capture(path, book) for path in paths]


def merge(captures: Sequence[Capture]) -> PacketTable:
    """One table of all captures in order of time; column `interface` counts through the interfaces of all files."""
    if len(captures) == 1:
        return captures[0].table.sorted_by_time()
    tables = []
    first = 0
    for capture in captures:
        table = capture.table
        columns = dict(table.columns)
        columns["interface"] = (columns["interface"] + first).astype(np.uint16)
        signals = dict(table.signals)
        tables.append(replace(table, columns=columns, signals=signals))
        first += len(table.points)
    if first > MAX_INTERFACES:
        raise CaptureError(f"{captures[0].path}: together the files have {first} interfaces: analyse fewer files at once")
    points = tuple(point for capture in captures for point in capture.table.points)
    whole = replace(concatenate(tables), points=points)
    return whole.sorted_by_time()


def open_stream(path: Path, book: AddressBook) -> Stream:
    """Open a capture to read it in chunks. Raises CaptureError."""
    return Stream(open_container(path), book)


class Stream:
    """A capture that is read in chunks: memory does not grow with the file."""

    def __init__(self, container: Container, book: AddressBook) -> None:
        self.container = container
        self.book = book

    def chunks(self, most: int = CHUNK_PACKETS) -> Iterator[PacketTable]:
        """Tables of at most `most` packets each, in the order of the file. An empty capture gives none."""
        for records in self.container.walk(most):
            yield self._decode([records])

    def whole(self) -> PacketTable:
        """All packets in one table. First the places of all packets are found, then the table is filled in place."""
        return self._decode(list(self.container.walk(CHUNK_PACKETS)))

    def points(self) -> tuple[Point, ...]:
        """The interfaces that were described so far."""
        c = self.container
        return tuple(Point(printable(c.path), i.name, i.link_type, c.data) for i in c.interfaces)

    def damage(self) -> str | None:
        """Where and how the file breaks off; known after all chunks were read."""
        return "; ".join(text for text in (self.container.damage, self.container.packing_damage) if text) or None

    def finished(self, table: PacketTable) -> Capture:
        """What is known after all chunks were read."""
        c = self.container
        dropped = sum(c.dropped.values()) if c.dropped else None
        return Capture(
            c.path, tuple(c.interfaces), dropped, self.damage(), replace(table, addresses=self.book, points=self.points())
        )

    def _decode(self, parts: list[Records]) -> PacketTable:
        """Decode chunks into one table, a few thousand packets at a time: their rows stay in the processor's cache."""
        count, book, data = sum(part.start.size for part in parts), self.book, self.container.data
        columns: dict[str, Any] = {c.name: np.empty(count, c.kind) for c in COLUMNS}
        links = np.array([i.link_type for i in self.container.interfaces], np.int64)
        rows, sack, places = np.empty(_BLOCK, _ROW), np.empty((_SPARSE, 2), np.uint32), np.empty(_SPARSE, _PLACE)
        starts, sack_start = np.zeros(_BLOCK + 1, np.int64), np.zeros(count + 1, np.int64)
        sacks: list[Any] = [sack[:0].copy()]
        noted: list[Any] = [places[:0].copy()]
        begin = shift = 0
        for block in _blocks(parts):
            size, done = block.start.size, 0
            rows.view(np.uint8)[:] = 0
            while done < size:
                book.reserve(ADDRESS_ROOM)
                book.counts[SACKS] = book.counts[SIGNALS] = 0
                first = done
                done = decode(data, done, *block[:4], links, rows, starts, sack, places, book.slots, book.entries, book.counts)
                sack_start[begin + first + 1 : begin + done + 1] = starts[first + 1 : done + 1] + shift
                sacks.append(sack[: book.counts[SACKS]].copy())
                noted.append(places[: book.counts[SIGNALS]].copy())
                noted[-1]["row"] += begin
                shift += len(sacks[-1])
            for name in _FILLED:
                columns[name][begin : begin + size] = rows[name][:size]
            for name in _GIVEN:
                columns[name][begin : begin + size] = getattr(block, name)
            begin += size
        every = np.concatenate(noted)
        signals = read_signals(data, every["row"], every["at"], every["length"], book)
        return PacketTable(columns, book, sack_start, np.concatenate(sacks), signals, self.points())


def _blocks(parts: list[Records]) -> Iterator[Records]:
    """The records in small portions. Parts that were handed out are forgotten."""
    parts.reverse()
    while parts:
        part = parts.pop()
        for begin in range(0, part.start.size, _BLOCK):
            yield Records(*(a[begin : begin + _BLOCK] for a in part))
