"""Which files and which packets of them are looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.packets.table import PacketTable

_NAME = re.compile(r"\.pcap(ng)?\d*(\.(gz|zst))?$")
RUN_FOLDER = "pcap"
"""Where a run directory keeps its captures."""


def find_captures(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of folders (a run, or a folder of captures) the captures in them. Raises ValueError."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        folder = path / RUN_FOLDER if (path / RUN_FOLDER).is_dir() else path
        inside = sorted(p for p in folder.iterdir() if p.is_file() and _NAME.search(p.name) and not p.name.startswith("."))
        if not inside:
            raise ValueError(f"{folder}: no capture in this folder: name files, or the folder of a run")
        found += inside
    known: set[Path] = set()
    for path in found:
        if path.resolve() in known:
            raise ValueError(f"{path}: named twice: name each capture once")
        known.add(path.resolve())
    return found


def choose(table: PacketTable, host: str | None, port: int | None) -> PacketTable:
    """Only the packets from or to an address (also as a tunnel's end) or a port. Raises ValueError."""
    if host is None and port is None:
        return table
    keep = np.ones(len(table), np.bool_)
    if host is not None:
        try:
            code = table.addresses.code(host)
        except ValueError as error:
            raise ValueError(f"--host: {host!r} is no IP address: give one, for example 10.1.0.100") from error
        keep &= np.logical_or.reduce([table[name] == code for name in ("src", "dst", "outer_src", "outer_dst")])
    if port is not None:
        keep &= (table["sport"] == port) | (table["dport"] == port)
    return table.take(keep)
