"""Packet tables as Arrow tables and Parquet files, one row per packet; what a packet does not have is null.

The columns are those of `schema.COLUMNS` with these differences: `time` is a timestamp, addresses and capture points are text,
`sack` is a list of edges (left, right, left, right ...), and the first MPTCP option of each kind has columns of its own
(`SIGNAL_FIELDS`). A file is written chunk by chunk, so that memory does not grow with the capture.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.files import written_atomically
from analysis.packets import schema
from analysis.packets.reader import Stream
from analysis.packets.table import PacketTable, Point

SIGNAL_FIELDS: tuple[tuple[str, int, str, str], ...] = (
    # column, subtype, column of the signals table, condition on its row
    ("capable_version", schema.MP_CAPABLE, "version", ""),
    ("capable_flags", schema.MP_CAPABLE, "flags", "length >= 4"),
    ("sender_key", schema.MP_CAPABLE, "sender_key", "length >= 12"),
    ("receiver_key", schema.MP_CAPABLE, "receiver_key", "length >= 20"),
    ("capable_data_bytes", schema.MP_CAPABLE, "data_bytes", "length >= 22"),
    ("join_token", schema.MP_JOIN, "token", "length == 12"),
    ("join_nonce", schema.MP_JOIN, "nonce", "length < 24"),
    ("join_id", schema.MP_JOIN, "address_id", "length < 24"),
    ("join_backup", schema.MP_JOIN, "backup", "length < 24"),
    ("join_hmac", schema.MP_JOIN, "hmac", "hmac_bytes > 0"),
    ("add_id", schema.ADD_ADDR, "address_id", ""),
    ("add_echo", schema.ADD_ADDR, "echo", ""),
    ("add_address", schema.ADD_ADDR, "address", "address > 0"),
    ("add_port", schema.ADD_ADDR, "port", "port > 0"),
    ("add_hmac", schema.ADD_ADDR, "hmac", "hmac_bytes > 0"),
    ("remove_ids", schema.REMOVE_ADDR, "ids", "length > 3"),
    ("prio_backup", schema.MP_PRIO, "backup", ""),
    ("fail_dsn", schema.MP_FAIL, "dsn", "length >= 12"),
    ("fastclose_key", schema.MP_FASTCLOSE, "receiver_key", "length >= 12"),
    ("reset_reason", schema.MP_TCPRST, "reason", "length >= 4"),
    ("reset_flags", schema.MP_TCPRST, "flags", "length >= 4"),
)
_FLAGS = ("join_backup", "add_echo", "prio_backup")
_OF_TCP = ("seq", "ack", "flags", "window")
_OF_OPTION = {
    "mss": schema.HAS_MSS,
    "wscale": schema.HAS_WSCALE,
    "tsval": schema.HAS_TIMESTAMPS,
    "tsecr": schema.HAS_TIMESTAMPS,
}
_OF_DSS = {"dss_flags": 31, "dack": schema.DSS_ACK, "dsn": schema.DSS_MAP, "ssn": schema.DSS_MAP, "map_bytes": schema.DSS_MAP}
_REPEATING = ["src", "dst", "file", "interface", "tunnel", "outer_src", "outer_dst", "protocol", "ip_version"]
Bools = npt.NDArray[np.bool_]


def arrow_table(table: PacketTable, points: tuple[Point, ...] | None = None) -> pa.Table:
    """A packet table as an Arrow table. `points`: where the packets were captured, if not `table.points`."""
    columns = table.columns
    points = table.points if points is None else points
    tcp = columns["protocol"] == schema.TCP
    out: dict[str, Any] = {"time": pa.array(columns["time_ns"]).view(pa.timestamp("ns", "UTC"))}
    out["file"] = _named(columns["interface"], [point.file for point in points])
    out["interface"] = _named(columns["interface"], [point.interface for point in points])
    texts = pa.array(table.addresses.texts())
    for name in schema.NAMES[2:]:
        values = columns[name]
        if name in ("src", "dst", "outer_src", "outer_dst"):
            out[name] = _addresses(values, texts)
        elif name == "tunnel":
            out[name] = pa.DictionaryArray.from_arrays(_masked(values.astype(np.int8), values > 0), list(schema.TUNNEL_NAMES))
        elif name in _OF_TCP:
            out[name] = _masked(values, tcp)
        elif name in _OF_OPTION:
            out[name] = _masked(values, columns["options"] & _OF_OPTION[name] > 0)
        elif name in _OF_DSS:
            out[name] = _masked(values, columns["dss_flags"] & _OF_DSS[name] > 0)
        elif name == "dss_checksum":
            out[name] = _masked(values, values > 0)
        else:
            out[name] = pa.array(values)
    mask = pa.array(np.concatenate((table.sack_start[1:] == table.sack_start[:-1], [False])))
    offsets = pa.array(
        (table.sack_start * 2).astype(np.int32), mask=None if len(table) == 0 else mask.to_numpy(zero_copy_only=False)
    )
    out["sack"] = pa.ListArray.from_arrays(offsets, pa.array(table.sack.reshape(-1)))
    return pa.table(out | _signals(table, texts))


def _named(numbers: npt.NDArray[Any], names: list[str]) -> pa.Array:
    """Numbers as the names they stand for; the same name may have several numbers."""
    distinct = {name: place for place, name in enumerate(dict.fromkeys(names))}
    place = np.array([distinct[name] for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(place[numbers] if names else numbers.astype(np.int32)), pa.array(list(distinct), pa.string())
    )


def _masked(values: npt.NDArray[Any], there: Bools) -> pa.Array:
    return pa.array(values, mask=~there)


def _addresses(codes: npt.NDArray[np.int32], texts: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes == 0), texts)


def _signals(table: PacketTable, texts: pa.Array) -> dict[str, pa.Array]:
    """One column per field of the rare MPTCP options; of several of one kind in a packet the first."""
    signals, count = table.signals, len(table)
    out: dict[str, pa.Array] = {}
    for name, subtype, field, condition in SIGNAL_FIELDS:
        chosen = np.flatnonzero((signals["subtype"] == subtype) & _holds(signals, condition))
        rows, first = np.unique(signals["row"][chosen], return_index=True)
        chosen = chosen[first]
        index = np.full(count, -1, np.int32)
        index[rows] = np.arange(rows.size)
        if field in ("hmac", "ids"):
            at = signals["hmac_at"][chosen] if field == "hmac" else np.full(chosen.size, 3)
            stop = at + signals["hmac_bytes"][chosen] if field == "hmac" else signals["length"][chosen]
            raw = signals["raw"]
            values = pa.array([raw[c, a:b].tobytes() for c, a, b in zip(chosen, at, stop, strict=True)], pa.binary())
        elif field == "address":
            values = texts.take(pa.array(signals[field][chosen]))
        else:
            kept = signals[field][chosen]
            values = pa.array(kept.astype(np.bool_) if name in _FLAGS else kept)
        out[name] = values.take(pa.array(index, mask=index < 0)) if rows.size else pa.nulls(count, values.type)
    return out


def _holds(signals: dict[str, npt.NDArray[Any]], condition: str) -> Any:
    """The rows for which a condition like "length >= 12" is true."""
    if not condition:
        return True
    name, relation, number = condition.split()
    values = signals[name].astype(np.int64)
    return {">=": values >= int(number), "==": values == int(number), "<": values < int(number), ">": values > int(number)}[
        relation
    ]


class Writer:
    """A Parquet file under way: tables are written by a thread of its own while the next one is being made.

    The file gets its name when it is complete; nothing is left of an unfinished one. OSError names the file.
    """

    def __init__(self, path: Path) -> None:
        self._place = written_atomically(path)
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Writer:
        self._scratch = self._place.__enter__()
        return self

    def write(self, table: PacketTable, points: tuple[Point, ...] | None = None) -> None:
        """Append a table. At most one is waiting to be written."""
        self._wait()
        table.addresses.texts()  # here: the book must not change while the thread reads it
        self._pending = self._thread.submit(self._write, table, points)

    def _write(self, table: PacketTable, points: tuple[Point, ...] | None) -> None:
        arrow = arrow_table(table, points)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._scratch, arrow.schema, compression="lz4", use_dictionary=_REPEATING, write_statistics=["time"]
            )
        self._writer.write_table(arrow, row_group_size=len(arrow) or None)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                self._finish()
            except BaseException as failure:
                self._abandon()
                self._place.__exit__(type(failure), failure, failure.__traceback__)
                raise
        else:
            self._abandon()
        self._place.__exit__(kind, error, trace)

    def _finish(self) -> None:
        self._wait()
        if self._writer is None:
            self._write(PacketTable.empty(), ())
        assert self._writer is not None
        self._writer.close()
        self._thread.shutdown()

    def _abandon(self) -> None:
        """Let go of the file; the first error is the one that is told."""
        self._thread.shutdown()
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()


def write_parquet(streams: Iterable[Stream], path: Path) -> int:
    """Write the packets of captures, one file behind the other, without keeping them; returns their number."""
    count = 0
    with Writer(path) as writer:
        for stream in streams:
            for table in stream.chunks():
                writer.write(table, stream.points())
                count += len(table)
    return count
