"""Sets of intervals, and maps from intervals of one sequence space to another: the SEND and RECV tables.

Intervals are half open. Neighbours that continue each other are one entry, so that a table has one entry between two handovers,
however many packets passed (paper section 3.3).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

Interval = tuple[int, int]
Owner = TypeVar("Owner")


class IntervalSet:
    """Disjoint, ascending, non-adjacent intervals."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __iter__(self) -> Iterator[Interval]:
        return iter(zip(self.starts, self.ends, strict=True))

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, start: int, end: int) -> bool:
        """Include an interval; False when all of it was there already."""
        if start >= end:
            return False
        starts, ends = self.starts, self.ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            return True
        first = bisect_left(ends, start)  # the first that touches or follows
        last = bisect_right(starts, end)  # behind the last that touches
        if first == last:
            starts.insert(first, start)
            ends.insert(first, end)
            return True
        if starts[first] <= start and end <= ends[first]:
            return False
        start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        return True

    def overlaps(self, start: int, end: int) -> bool:
        """Is any of it there?"""
        at = bisect_right(self.ends, start)
        return at < len(self.starts) and self.starts[at] < end

    def covers(self, start: int, end: int) -> bool:
        """Is all of it there?"""
        at = bisect_right(self.starts, start) - 1
        return at >= 0 and end <= self.ends[at]

    def drop_below(self, limit: int) -> None:
        """Forget everything below `limit`."""
        count = bisect_right(self.ends, limit)
        if count:
            del self.starts[:count], self.ends[:count]
        if self.starts and self.starts[0] < limit:
            self.starts[0] = limit


class Piece(NamedTuple, Generic[Owner]):
    """A part of an interval: [start, end) maps to [start + shift, end + shift). Without an entry `shift` is None."""

    start: int
    end: int
    shift: int | None
    owner: Owner | None


class IntervalMap(Generic[Owner]):
    """Disjoint, ascending entries [start, end) -> owner and shift. Entries that continue each other are merged."""

    __slots__ = ("ends", "owners", "shifts", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.shifts: list[int] = []
        self.owners: list[Owner] = []

    def __len__(self) -> int:
        return len(self.starts)

    def entries(self) -> Iterator[tuple[int, int, int, Owner]]:
        """(start, end, shift, owner), ascending."""
        return iter(zip(self.starts, self.ends, self.shifts, self.owners, strict=True))

    def index(self, key: int) -> int:
        """Of the entry that holds `key`, or -1."""
        at = bisect_right(self.starts, key) - 1
        return at if at >= 0 and key < self.ends[at] else -1

    def pieces(self, start: int, end: int) -> list[Piece[Owner]]:
        """[start, end) cut along the entries, gaps included."""
        found: list[Piece[Owner]] = []
        at = max(bisect_right(self.starts, start) - 1, 0)
        while start < end:
            while at < len(self.starts) and self.ends[at] <= start:
                at += 1
            if at == len(self.starts) or self.starts[at] >= end:
                found.append(Piece(start, end, None, None))
                break
            if self.starts[at] > start:
                found.append(Piece(start, self.starts[at], None, None))
                start = self.starts[at]
            stop = min(end, self.ends[at])
            found.append(Piece(start, stop, self.shifts[at], self.owners[at]))
            start = stop
        return found

    def append(self, start: int, end: int, shift: int, owner: Owner) -> bool:
        """Add an interval above all others; True when it began a new entry. Raises ValueError when it is not above."""
        if self.ends and start < self.ends[-1]:
            raise ValueError(f"[{start}, {end}) does not follow {self.ends[-1]}")
        if self.ends and self.ends[-1] == start and self.shifts[-1] == shift and self.owners[-1] is owner:
            self.ends[-1] = end
            return False
        self.starts.append(start)
        self.ends.append(end)
        self.shifts.append(shift)
        self.owners.append(owner)
        return True

    def replace(self, start: int, end: int, shift: int, owner: Owner) -> None:
        """Map an interval, whatever was there."""
        if start >= end:
            return
        first = bisect_right(self.ends, start)
        last = bisect_left(self.starts, end)
        rows: list[tuple[int, int, int, Owner]] = []
        if first < last:
            if self.starts[first] < start:
                rows.append((self.starts[first], start, self.shifts[first], self.owners[first]))
            rows.append((start, end, shift, owner))
            if self.ends[last - 1] > end:
                rows.append((end, self.ends[last - 1], self.shifts[last - 1], self.owners[last - 1]))
        else:
            rows.append((start, end, shift, owner))
        if first > 0:
            first -= 1
            rows.insert(0, (self.starts[first], self.ends[first], self.shifts[first], self.owners[first]))
        if last < len(self.starts):
            rows.append((self.starts[last], self.ends[last], self.shifts[last], self.owners[last]))
            last += 1
        self._set(first, last, _merged(rows))

    def _set(self, first: int, last: int, rows: list[tuple[int, int, int, Owner]]) -> None:
        self.starts[first:last] = [row[0] for row in rows]
        self.ends[first:last] = [row[1] for row in rows]
        self.shifts[first:last] = [row[2] for row in rows]
        self.owners[first:last] = [row[3] for row in rows]

    def drop_below(self, limit: int) -> None:
        """Forget everything below `limit`."""
        count = bisect_right(self.ends, limit)
        if count:
            del self.starts[:count], self.ends[:count], self.shifts[:count], self.owners[:count]
        if self.starts and self.starts[0] < limit:
            self.starts[0] = limit


def _merged(rows: list[tuple[int, int, int, Owner]]) -> list[tuple[int, int, int, Owner]]:
    result = [rows[0]]
    for row in rows[1:]:
        start, end, shift, owner = result[-1]
        if end == row[0] and shift == row[2] and owner is row[3]:
            result[-1] = (start, row[1], shift, owner)
        else:
            result.append(row)
    return result
