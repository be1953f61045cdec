"""Captures -> everything that is known about them: packets, connections, mobility signalling, and a summary of it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.connections import Reconstruction, guess_points, reconstruct
from analysis.connections.compare import Comparison, compare
from analysis.mobileip import Mobility, read_mobility
from analysis.packets import Capture, PacketTable, merge, read_captures
from analysis.packets.selection import choose, find_captures
from analysis.summary import Summary, summarise


@dataclass
class Analysis:
    """What was found in some captures. `mobility` is None when there is no Mobile IP in them."""

    captures: list[Capture]
    rec: Reconstruction
    mobility: Mobility | None
    comparisons: dict[tuple[int, int], Comparison]
    """By numbers of the capture points: what happened to the packets between them."""
    summary: Summary


def capture_points(table: PacketTable, how: str) -> list[int]:
    """For each interface the number of its capture point. `how`: "one", "files" (each file is one), or "auto"."""
    if how == "one":
        return [0] * len(table.points)
    if how == "files":
        files = list(dict.fromkeys(point.file for point in table.points))
        return [files.index(point.file) for point in table.points]
    return [int(n) for n in guess_points(table)]


def examine(
    paths: Sequence[Path], points: str = "auto", host: str | None = None, port: int | None = None, connections: int = 10
) -> Analysis:
    """Read and analyse captures. `connections`: the summary tells of so many, the largest.

    Raises ValueError (CaptureError for a file) with one line for the user.
    """
    captures = read_captures(find_captures(paths))
    table = choose(merge(captures), host, port)
    numbers = capture_points(table, points)
    rec = reconstruct(table, numbers)
    mobility = read_mobility(rec.packets)
    found = mobility if mobility.present else None
    compared = compare_points(rec)
    return Analysis(captures, rec, found, compared, summarise(captures, rec, found, compared, numbers, connections))


def compare_points(rec: Reconstruction) -> dict[tuple[int, int], Comparison]:
    """The first capture point that saw flows against every other one."""
    first, *others = sorted({int(point) for point in rec.connections["point"]}) or [0]
    return {(first, other): compare(rec, first, other) for other in others}
