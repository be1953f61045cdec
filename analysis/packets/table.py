"""Packet tables: columns of numpy arrays, one row per packet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.packets.addresses import AddressBook
from analysis.packets.schema import COLUMNS
from analysis.packets.signals import Signals, empty_signals

if TYPE_CHECKING:
    import pandas as pd

Int64s = npt.NDArray[np.int64]
_NO_BYTES = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class Point:
    """Where packets were captured: a file and an interface in it. `data`: the bytes of the file (mapped, not read)."""

    file: str
    interface: str
    link_type: int
    data: npt.NDArray[np.uint8] = field(default_factory=lambda: _NO_BYTES, repr=False, compare=False)


@dataclass
class PacketTable:
    """Packets of one or several captures; see `analysis.packets.schema` for columns and signals.

    SACK blocks of row i are `sack[sack_start[i]:sack_start[i + 1]]`, each (left edge, right edge).
    """

    columns: dict[str, npt.NDArray[Any]]
    addresses: AddressBook
    sack_start: Int64s
    sack: npt.NDArray[np.uint32]
    signals: Signals
    points: tuple[Point, ...] = ()

    @classmethod
    def empty(cls, count: int = 0, addresses: AddressBook | None = None) -> PacketTable:
        """A table of `count` zeroed rows."""
        columns = {column.name: np.zeros(count, column.kind) for column in COLUMNS}
        start, sack = np.zeros(count + 1, np.int64), np.zeros((0, 2), np.uint32)
        return cls(columns, addresses or AddressBook(), start, sack, empty_signals())

    def __len__(self) -> int:
        return self.sack_start.size - 1

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    @property
    def nbytes(self) -> int:
        """Memory of the table in bytes, the address book left out."""
        sparse = self.sack_start.nbytes + self.sack.nbytes + sum(a.nbytes for a in self.signals.values())
        return sparse + sum(a.nbytes for a in self.columns.values())

    def take(self, rows: Any) -> PacketTable:
        """The table with these rows, in this order."""
        rows = np.asarray(rows)
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        columns = {name: values[rows] for name, values in self.columns.items()}
        count = np.diff(self.sack_start)[rows]
        start = np.concatenate(([0], np.cumsum(count)))
        places = np.repeat(self.sack_start[rows] - start[:-1], count) + np.arange(start[-1])
        return PacketTable(columns, self.addresses, start, self.sack[places], self._signals_of(rows), self.points)

    def _signals_of(self, rows: Int64s) -> Signals:
        """Signals of these rows, with their new row numbers."""
        owner = self.signals["row"]
        first = np.searchsorted(owner, rows, side="left")
        count = np.searchsorted(owner, rows, side="right") - first
        start = np.concatenate(([0], np.cumsum(count)))
        places = np.repeat(first - start[:-1], count) + np.arange(start[-1])
        out = {name: values[places] for name, values in self.signals.items()}
        out["row"] = np.repeat(np.arange(rows.size), count)
        return out

    def sorted_by_time(self) -> PacketTable:
        """The table in order of time; itself when it is so already."""
        time_ns = self["time_ns"]
        if (time_ns[1:] >= time_ns[:-1]).all():
            return self
        return self.take(np.argsort(time_ns, kind="stable"))

    def sort_by_time(self) -> None:
        """Put the rows in order of time, column by column: needs the memory of one more column, not of another table."""
        time_ns = self["time_ns"]
        if (time_ns[1:] >= time_ns[:-1]).all():
            return
        order = np.argsort(time_ns, kind="stable")
        sparse = PacketTable({}, self.addresses, self.sack_start, self.sack, self.signals).take(order)
        self.sack_start, self.sack, self.signals = sparse.sack_start, sparse.sack, sparse.signals
        for name in list(self.columns):
            self.columns[name] = self.columns[name][order]

    def frame(self) -> pd.DataFrame:
        """The table for people: one row per packet, text addresses, missing values, the fields of all MPTCP options."""
        from analysis.packets.parquet import arrow_table  # here: pyarrow is heavy and only wanted by some

        frame: pd.DataFrame = arrow_table(self).to_pandas()
        return frame

    def payload(self, row: int) -> bytes:
        """What the file holds of the bytes behind the transport header of a packet."""
        begin, size = int(self["payload_at"][row]), int(self["payload_captured"][row])
        number = int(self["interface"][row])
        if not size or number >= len(self.points):
            return b""
        return self.points[number].data[begin : begin + size].tobytes()


def concatenate(tables: Sequence[PacketTable]) -> PacketTable:
    """Tables with the same address book and points, one behind the other. The given tables are emptied meanwhile."""
    if len(tables) == 1:
        return tables[0]
    if not tables:
        return PacketTable.empty()
    sizes = np.cumsum([0] + [len(table) for table in tables])
    blocks = np.cumsum([0] + [len(table.sack) for table in tables])
    starts = [table.sack_start[:-1] + shift for table, shift in zip(tables, blocks[:-1], strict=True)]
    start = np.concatenate([*starts, blocks[-1:]])
    for table, shift in zip(tables, sizes[:-1], strict=True):
        table.signals["row"] = table.signals["row"] + shift
    signals = {name: np.concatenate([t.signals[name] for t in tables]) for name in tables[0].signals}
    sack = np.concatenate([table.sack for table in tables])
    # Column by column, so that the memory of the parts goes as that of the whole comes.
    columns = {column.name: np.concatenate([t.columns.pop(column.name) for t in tables]) for column in COLUMNS}
    return PacketTable(columns, tables[0].addresses, start, sack, signals, tables[-1].points)
