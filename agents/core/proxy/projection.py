"""ACK number projection (paper section 3.5): acknowledgements carried from one sequence space into another.

An acknowledgement is a set of intervals: everything below the ACK number, and the SACK blocks. Each is projected through the
mapping table; the projected interval that holds the last ACK number gives the new one, those above it become SACK blocks.
The same function serves both directions.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from agents.core.proxy.tables import Interval, IntervalMap, IntervalSet


class AckTranslation(Enum):
    """How ACK numbers are translated; the first two exist to be compared with (paper figure 5)."""

    AGGRESSIVE = "aggressive"
    """Reverse lookup of the last acknowledged byte: acknowledges too much when the mapping is not monotonous."""
    CONSERVATIVE = "conservative"
    """The lowest number that may be unacknowledged; no selective acknowledgements."""
    PROJECTION = "projection"


def project(table: IntervalMap[Any], acknowledged: Iterable[Interval], seen: IntervalSet | None = None) -> list[Interval]:
    """Images of acknowledged intervals of the table's target space in its key space: ascending, disjoint, non-adjacent.

    `seen`: only these keys count. A mapping may be larger than what has arrived: what was not seen must not be acknowledged.
    """
    image = IntervalSet()
    blocks = list(acknowledged)
    for start, end, shift, _owner in table.entries():
        for left, right in blocks:
            low, high = max(start, left - shift), min(end, right - shift)
            if low < high:
                image.add(low, high)
    return intersection(image, seen) if seen is not None else list(image)


def project_forward(table: IntervalMap[Any], acknowledged: Iterable[Interval]) -> list[Interval]:
    """Images of acknowledged intervals of the table's key space in its target space."""
    image = IntervalSet()
    for left, right in acknowledged:
        for piece in table.pieces(left, right):
            if piece.shift is not None:
                image.add(piece.start + piece.shift, piece.end + piece.shift)
    return list(image)


def intersection(one: Iterable[Interval], other: Iterable[Interval]) -> list[Interval]:
    """What is in both; each ascending and disjoint."""
    result: list[Interval] = []
    left, right = list(one), list(other)
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low < high:
            result.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return result


def advance(last: int, blocks: Sequence[Interval]) -> tuple[int, list[Interval]]:
    """The ACK number after `last`, and the blocks above it, from ascending disjoint blocks."""
    above: list[Interval] = []
    for left, right in blocks:
        if left <= last:
            last = max(last, right)
        else:
            above.append((left, right))
    return last, above
