"""What several finders need: handshakes per flow, MPTCP options per connection, traffic of a few flows over time."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.connections.authentication import verify_options
from analysis.connections.ledger import keep_ledger
from analysis.packets import schema
from analysis.packets.schema import ACK, RST, SYN
from analysis.packets.signals import removed_ids

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]

NOTE, WARNING, ERROR = "note", "warning", "error"


class Finding(NamedTuple):
    """One oddity. `row` and `subflow` are -1 where the whole connection is meant."""

    time_ns: int
    row: int
    connection: int
    subflow: int
    kind: str
    text: str
    weight: str


class Option(NamedTuple):
    """One MPTCP option: where it was sent, and `place`, its index in `packets.signals`."""

    place: int
    row: int
    time_ns: int
    flow: int
    connection: int
    from_client: bool
    address_id: int
    backup: bool
    echo: bool
    flags: int
    reason: int
    length: int
    dsn: int


class Handshakes(NamedTuple):
    """Per flow: first rows (-1: none) and what the segments of the handshake carried."""

    syns: Int64s
    first_syn: Int64s
    last_syn: Int64s
    answer: Int64s
    client_rst: Int64s
    server_rst: Int64s
    offered: Array
    offered_join: Array
    plain_syn: Array
    accepted: Array
    accepted_join: Array


class Traffic(NamedTuple):
    """Payload of one flow and direction in a span of time, bytes that nobody carried before in it; `last_ns` -1: none."""

    payload_bytes: int
    new_bytes: int
    packets: int
    last_ns: int


class Facts:
    """Lazy tables over a reconstruction. Arrays of `flow_column` and `connection_column` are indexed by their numbers."""

    def __init__(self, core: Reconstruction) -> None:
        self.core = core
        self.table = core.packets
        self.flow = core.flow
        self.time_ns = core.packets["time_ns"]
        self._columns: dict[tuple[str, str], Array] = {}
        self._traffic: dict[int, list[Array]] = {}

    def flow_column(self, name: str) -> Array:
        """One column of `flows` as an array."""
        return self._column("flows", name)

    def connection_column(self, name: str) -> Array:
        """One column of `connections` as an array."""
        return self._column("connections", name)

    def segment_column(self, name: str) -> Array:
        """One column of `segments` as an array."""
        return self._column("segments", name)

    def ack_column(self, name: str) -> Array:
        """One column of `acks` as an array."""
        return self._column("acks", name)

    def _column(self, table: str, name: str) -> Array:
        if (table, name) not in self._columns:
            self._columns[table, name] = getattr(self.core, table)[name].to_numpy()
        return self._columns[table, name]

    # --- texts ---

    def after(self, connection: int, time_ns: int) -> str:
        """Time since the first packet of the connection, as text."""
        return f"{(time_ns - int(self.connection_column('first_ns')[connection])) / 1e9:.3f} s"

    def ends(self, flow: int) -> str:
        """Both ends of a flow, opener first."""
        column = self.flow_column
        client = endpoint(column("client")[flow], column("client_port")[flow])
        return f"{client} > {endpoint(column('server')[flow], column('server_port')[flow])}"

    def name(self, flow: int) -> str:
        """Number and ends of a subflow."""
        return f"subflow {self.flow_column('subflow')[flow]} ({self.ends(flow)})"

    def finding(self, flow: int, row: int, kind: str, text: str, weight: str = WARNING) -> Finding:
        """A finding about a flow, at a packet."""
        place = int(self.flow_column("connection")[flow]), int(self.flow_column("subflow")[flow])
        return Finding(int(self.time_ns[row]), int(row), *place, kind, text, weight)

    def of_connection(self, connection: int, time_ns: int, kind: str, text: str, weight: str = WARNING) -> Finding:
        """A finding about a connection as a whole."""
        return Finding(int(time_ns), -1, int(connection), -1, kind, text, weight)

    # --- rows ---

    def first_of(self, rows: Int64s) -> Int64s:
        """First of `rows` for each flow; -1 where there is none. The rows must be usable ones."""
        first = np.full(len(self.core.flows), -1, np.int64)
        first[self.flow[rows[::-1]]] = rows[::-1]
        return first

    @cached_property
    def handshakes(self) -> Handshakes:
        """SYN, SYN/ACK and RST of every flow."""
        flags = self.table["flags"]
        row = np.flatnonzero((flags & (SYN | RST) > 0) & (self.flow >= 0))
        bits, opener, options = flags[row], self.core.from_client[row], self.table["mp_subtypes"][row]
        syn, rst = (bits & (SYN | RST)) == SYN, (bits & RST) > 0
        opening, answer = syn & (bits & ACK == 0) & opener, syn & (bits & ACK > 0) & ~opener
        capable, join = (options & 1 << schema.MP_CAPABLE) > 0, (options & 1 << schema.MP_JOIN) > 0

        def any_of(chosen: Array) -> Array:
            out = np.zeros(len(self.core.flows), np.bool_)
            out[self.flow[row[chosen]]] = True
            return out

        last = np.full(len(self.core.flows), -1, np.int64)
        last[self.flow[row[opening]]] = row[opening]
        return Handshakes(
            np.bincount(self.flow[row[opening]], minlength=len(self.core.flows)),
            self.first_of(row[opening]),
            last,
            self.first_of(row[answer]),
            self.first_of(row[rst & opener]),
            self.first_of(row[rst & ~opener]),
            any_of(opening & capable),
            any_of(opening & join),
            any_of(opening & ~capable & ~join),
            any_of(answer & capable),
            any_of(answer & join),
        )

    @cached_property
    def first_after_syn(self) -> Int64s:
        """First row of each flow's opener that is neither SYN nor RST: the third ACK, when it was captured; else -1."""
        chosen = (self.table["flags"] & (SYN | RST) == 0) & (self.flow >= 0) & self.core.from_client
        return self.first_of(np.flatnonzero(chosen))

    # --- options ---

    @cached_property
    def verdicts(self) -> Array:
        """Verdict on each option of `packets.signals` (see `authentication.verify_options`)."""
        return verify_options(self.core)

    @cached_property
    def _used_options(self) -> Int64s:
        return np.flatnonzero(self.flow[self.table.signals["row"]] >= 0)

    def options(self, subtype: int) -> list[Option]:
        """All options of a subtype on usable flows, in order of time."""
        signals = self.table.signals
        index = self._used_options[signals["subtype"][self._used_options] == subtype]
        row = signals["row"][index]
        flow = self.flow[row]
        from_client = self.core.from_client[row] == self.flow_column("opened_by_client")[flow].astype(np.bool_)
        columns = [index, row, self.time_ns[row], flow, self.flow_column("connection")[flow], from_client]
        names = ("address_id", "backup", "echo", "flags", "reason", "length", "dsn")
        columns += [signals[name][index].astype(np.bool_ if name in ("backup", "echo") else np.uint64) for name in names]
        return [Option(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]

    def removed_ids(self, option: Option) -> list[int]:
        """Address ids in a REMOVE_ADDR."""
        return removed_ids(self.table.signals, option.place)

    def side_id(self, flow: int, of_client: bool) -> int:
        """Address id of the connection's client or server on a flow; -1 unknown. The first subflow has id 0 on both sides."""
        if self.flow_column("subflow")[flow] == 0:
            return 0
        opener = of_client == bool(self.flow_column("opened_by_client")[flow])
        return int(self.flow_column("client_id" if opener else "server_id")[flow])

    @cached_property
    def flows_of(self) -> dict[int, list[int]]:
        """Flow numbers of every MPTCP connection with more than one flow or any MPTCP option, in order."""
        connection = self.flow_column("connection")
        wanted = np.zeros(len(self.core.connections), np.bool_)
        wanted[connection[self.flow[self.table.signals["row"][self._used_options]]]] = True
        out: dict[int, list[int]] = {}
        for flow in np.flatnonzero(wanted[connection]).tolist():
            out.setdefault(int(connection[flow]), []).append(flow)
        return out

    # --- traffic ---

    @cached_property
    def accounts(self) -> Int64s:
        """The ledger of both directions of every connection (see `ledger.keep_ledger`); row: connection * 2 + up.

        Numbers are offsets in the data stream; in plain TCP in the stream of the flow.
        """
        mptcp = self.connection_column("transport") == "mptcp"
        owner, acker = (column("connection").astype(np.int64) for column in (self.segment_column, self.ack_column))
        end = np.where(mptcp[owner], self.segment_column("end"), self.segment_column("flow_end"))
        offset = np.where(mptcp[acker], self.ack_column("data_ack"), self.ack_column("flow_ack"))
        return keep_ledger(
            self.segment_column("row").astype(np.int64),
            owner * 2 + self.segment_column("up"),
            self.segment_column("time_ns").astype(np.int64),
            end.astype(np.int64),
            self.ack_column("row").astype(np.int64),
            acker * 2 + self.ack_column("up"),
            self.ack_column("time_ns").astype(np.int64),
            offset.astype(np.int64),
            len(self.core.connections) * 2,
        )

    def by_direction(self, name: str) -> Array:
        """Columns NAME_down and NAME_up of `connections` as one array; index: connection * 2 + up."""
        return np.stack([self.connection_column(f"{name}_{way}") for way in ("down", "up")], axis=1).reshape(-1)

    def prepare_traffic(self, connections: set[int]) -> None:
        """Sort the segments of the flows of these connections by flow and direction, once for all questions about them."""
        wanted = np.zeros(len(self.core.flows), np.bool_)
        for connection in connections:
            flows = self.flows_of.get(connection, [])
            if flows and flows[0] * 2 not in self._traffic:
                wanted[flows] = True
        if not wanted.any():
            return
        rows = np.flatnonzero(wanted[self.segment_column("flow")])
        key = self.segment_column("flow")[rows].astype(np.int64) * 2 + self.segment_column("up")[rows]
        order = np.argsort(key, kind="stable")
        rows, key = rows[order], key[order]
        size = self.segment_column("flow_end")[rows] - self.segment_column("flow_begin")[rows]
        total, new = (np.concatenate(([0], np.cumsum(part))) for part in (size, self.segment_column("new_bytes")[rows]))
        times = self.segment_column("time_ns")[rows]
        numbers = (np.flatnonzero(wanted)[:, None] * 2 + np.arange(2)).reshape(-1)
        low, high = (np.searchsorted(key, numbers, side=side_of).tolist() for side_of in ("left", "right"))
        for number, first, stop in zip(numbers.tolist(), low, high, strict=True):
            self._traffic[number] = [times[first:stop], total[first : stop + 1], new[first : stop + 1]]

    def traffic(self, flow: int, up: bool, begin_ns: int, end_ns: int) -> Traffic:
        """Payload segments of a prepared flow with begin_ns < time < end_ns; `up` is towards the connection's server."""
        times, total, new = self._traffic[flow * 2 + up]
        low = int(np.searchsorted(times, begin_ns, side="right"))
        high = int(np.searchsorted(times, end_ns, side="left"))
        if high <= low:
            return Traffic(0, 0, 0, -1)
        return Traffic(int(total[high] - total[low]), int(new[high] - new[low]), high - low, int(times[high - 1]))


def endpoint(address: Any, port: Any) -> str:
    """Address and port as text, IPv6 in brackets (RFC 3986 section 3.2.2)."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def side(of_client: bool) -> str:
    """Name of an end of a connection."""
    return "client" if of_client else "server"


def amount(count: int, unit: str = "bytes") -> str:
    """A number with its unit, digits grouped; the unit loses its s for 1."""
    return f"{count:,} {unit[:-1] if count == 1 else unit}"


def span(duration_ns: int) -> str:
    """A duration as text."""
    if duration_ns < 10_000_000:
        return f"{duration_ns / 1e6:.1f} ms"
    return f"{duration_ns / 1e6:.0f} ms" if duration_ns < 1_000_000_000 else f"{duration_ns / 1e9:.2f} s"
