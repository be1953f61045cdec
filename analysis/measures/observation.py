"""One direction of one connection at one capture point, as plain arrays in order of time.

The measures work on these, not on the tables of a reconstruction, so that a capture with many connections costs one sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.packets.schema import FIN

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


class Groups:
    """Rows by number, in their order: `rows(n)` are the indices at which `numbers` is n."""

    def __init__(self, numbers: Array) -> None:
        self._order = np.argsort(numbers, kind="stable")
        self._sorted = np.asarray(numbers)[self._order]

    def rows(self, number: int) -> Int64s:
        """Indices of one number."""
        low, high = np.searchsorted(self._sorted, (number, number + 1))
        return self._order[low:high]


class Index:
    """Rows of every connection in the tables of a reconstruction. Make it once to measure many connections."""

    def __init__(self, rec: Reconstruction) -> None:
        owner = rec.flows["connection"].to_numpy(np.int64)
        self.flows = Groups(owner)
        self.segments = Groups(rec.segments["connection"].to_numpy(np.int64))
        self.acks = Groups(rec.acks["connection"].to_numpy(np.int64))
        self.signals = Groups(rec.signals["connection"].to_numpy(np.int64))
        self.packets = Groups(np.concatenate((owner, [-1]))[rec.flow])
        self.segment_columns = _columns(rec.segments, ("up", *Segments.__dataclass_fields__))
        self.ack_columns = _columns(rec.acks, ("up", *Acks.__dataclass_fields__))


@dataclass(frozen=True)
class Segments:
    """Segments with payload, in order of time. `flow` numbers the subflows of the connection from 0.

    `begin`, `end`: place in the data stream, -1 without a mapping; `flow_begin`, `flow_end`: place in the subflow's own
    stream; `row`: row of the packet table; `new_bytes`: bytes of the data stream that nobody carried before; `kind`: a
    constant of `analysis.connections` (FIRST, RETRANSMISSION, ...).
    """

    time_ns: Int64s
    row: Int64s
    flow: Int64s
    flow_begin: Int64s
    flow_end: Int64s
    begin: Int64s
    end: Int64s
    new_bytes: Int64s
    kind: Int64s

    def __len__(self) -> int:
        return self.time_ns.size

    @property
    def payload_bytes(self) -> Int64s:
        """Payload of each segment."""
        return self.flow_end - self.flow_begin

    def take(self, chosen: Array) -> Segments:
        """These segments."""
        return Segments(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Acks:
    """Acknowledgments of the data, in order of time. `data_ack`: place in the data stream, -1 for none."""

    time_ns: Int64s
    data_ack: Int64s


@dataclass(frozen=True)
class Observation:
    """One direction of one connection as one capture point saw it. `up`: from the connection's client to its server.

    `segment_rows`, `ack_rows`, `signal_rows`: rows of the tables of `rec`. `flows`: numbers of its subflows in `rec.flows`.
    `packets`: rows of the packet table, both directions; `from_sender`: which of them the sender of the data sent.
    """

    rec: Reconstruction
    connection: int
    up: bool
    segment_rows: Int64s
    ack_rows: Int64s
    flows: Int64s
    segments: Segments
    acks: Acks
    signal_rows: Int64s
    packets: Int64s
    from_sender: Bools

    @property
    def signals(self) -> pd.DataFrame:
        """Rows of `rec.signals`."""
        return self.rec.signals.iloc[self.signal_rows]

    def total(self, name: str) -> int:
        """A column of `rec.connections` that has one figure for each direction."""
        return int(self.rec.connections[f"{name}_{'up' if self.up else 'down'}"].iloc[self.connection])

    @property
    def transport(self) -> str:
        """What is on the wire: "tcp" or "mptcp"."""
        return str(self.rec.connections["transport"].iloc[self.connection])

    @property
    def first_ns(self) -> int:
        """Time of the connection's first packet."""
        return int(self.rec.connections["first_ns"].iloc[self.connection])

    @property
    def last_ns(self) -> int:
        """Time of the connection's last packet."""
        return int(self.rec.connections["last_ns"].iloc[self.connection])

    @property
    def ended(self) -> bool:
        """The sender closed the stream in order: DATA_FIN, or FIN where there is no MPTCP."""
        if self.transport == "mptcp":
            return bool(self.total("data_fin"))
        return bool((self.rec.packets["flags"][self.packets[self.from_sender]] & FIN).any())


def observe(rec: Reconstruction, connection: int, up: bool, index: Index | None = None) -> Observation:
    """Gather what belongs to one direction of one connection.

    `index` spares the search through all tables. Raises IndexError when there is no such connection.
    """
    if not 0 <= connection < len(rec.connections):
        raise IndexError(f"connection {connection}: the capture has {len(rec.connections)}, numbered from 0")
    index = index or Index(rec)
    flows = index.flows.rows(connection)
    segment_rows, ack_rows = index.segments.rows(connection), index.acks.rows(connection)
    segment_rows = segment_rows[index.segment_columns["up"][segment_rows] == up]
    ack_rows = ack_rows[index.ack_columns["up"][ack_rows] == up]
    packets = index.packets.rows(connection)
    by_client = rec.flows["opened_by_client"].to_numpy(np.bool_)[rec.flow[packets]]
    return Observation(
        rec,
        connection,
        up,
        segment_rows,
        ack_rows,
        flows,
        _segments(index, segment_rows, flows),
        Acks(*(index.ack_columns[name][ack_rows] for name in Acks.__dataclass_fields__)),
        index.signals.rows(connection),
        packets,
        (rec.from_client[packets] == by_client) == up,
    )


def _segments(index: Index, at: Int64s, flows: Int64s) -> Segments:
    time_ns, row, flow, *places = (index.segment_columns[name][at].astype(np.int64) for name in Segments.__dataclass_fields__)
    return Segments(time_ns, row, np.searchsorted(flows, flow).astype(np.int64), *places)


def _columns(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, Array]:
    return {name: table[name].to_numpy() for name in names}
