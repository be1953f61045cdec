"""Which path packets took: by the interface they were captured on, or by their outermost addresses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.measures.observation import Array, Int64s
from analysis.packets.table import PacketTable


def path_of(table: PacketTable, rows: Int64s, names: Mapping[str, str] | None = None) -> tuple[Int64s, list[str]]:
    """Number of the path of each row, and the paths' names.

    `names`: interface -> path, for captures of one multihomed host, one capture per interface; an interface that belongs to
    no path keeps its own name. Without it a path is "source > destination" of the outermost IP packet, so that traffic in
    a tunnel is a path of its own.
    """
    if names is not None:
        interfaces = [point.interface for point in table.points] or [""]
        texts = [names.get(name, name) for name in interfaces]
        kinds = [*dict.fromkeys((*names.values(), *texts))]
        lookup = np.array([kinds.index(text) for text in texts], np.int64)
        return lookup[np.minimum(table["interface"][rows], lookup.size - 1)], kinds
    tunnelled = table["tunnel"][rows] > 0
    ends = [np.where(tunnelled, table[f"outer_{end}"][rows], table[end][rows]).astype(np.int64) for end in ("src", "dst")]
    pairs, number = np.unique(ends[0] << 32 | ends[1], return_inverse=True)
    book = table.addresses
    return number.astype(np.int64), [f"{book.text(pair >> 32)} > {book.text(pair & 0xFFFFFFFF)}" for pair in pairs.tolist()]


def bytes_per_path(table: PacketTable, rows: Int64s, sizes: Array, names: Mapping[str, str] | None = None) -> dict[str, int]:
    """Bytes by path; with `names` also paths that carried nothing."""
    number, kinds = path_of(table, rows, names)
    counts = np.bincount(number, weights=sizes, minlength=len(kinds))
    return {kind: int(count) for kind, count in zip(kinds, counts.tolist(), strict=True)}
