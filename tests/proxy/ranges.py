"""Sets of whole numbers as sorted, disjoint, half-open ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """A set of numbers, kept as ranges [left, right)."""

    __slots__ = ("_left", "_right")

    def __init__(self) -> None:
        self._left: list[int] = []
        self._right: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._left, self._right, strict=True)

    def __bool__(self) -> bool:
        return bool(self._left)

    def __len__(self) -> int:
        return len(self._left)

    @property
    def total(self) -> int:
        """How many numbers."""
        return sum(self._right) - sum(self._left)

    @property
    def highest(self) -> int:
        """The end of the last range. There must be one."""
        return self._right[-1]

    def add(self, left: int, right: int) -> int:
        """Add a range; returns how many numbers are new."""
        if left >= right:
            return 0
        first = bisect_left(self._right, left)
        last = bisect_right(self._left, right)
        present = 0
        begin, end = left, right
        if first < last:
            for i in range(first, last):
                present += max(0, min(right, self._right[i]) - max(left, self._left[i]))
            begin, end = min(left, self._left[first]), max(right, self._right[last - 1])
        self._left[first:last] = [begin]
        self._right[first:last] = [end]
        return right - left - present

    def cut_below(self, edge: int) -> None:
        """Forget what lies below `edge`."""
        gone = bisect_right(self._right, edge)
        del self._left[:gone], self._right[:gone]
        if self._left and self._left[0] < edge:
            self._left[0] = edge

    def clear(self) -> None:
        """Forget everything."""
        self._left.clear()
        self._right.clear()

    def covers(self, left: int, right: int) -> bool:
        """Whether all of [left, right) is in the set."""
        at = bisect_right(self._left, left) - 1
        return left >= right or (at >= 0 and self._right[at] >= right)

    def within(self, left: int, right: int) -> list[tuple[int, int]]:
        """The parts of the set that lie in [left, right)."""
        first, last = bisect_right(self._right, left), bisect_left(self._left, right)
        return [(max(left, self._left[i]), min(right, self._right[i])) for i in range(first, last)]

    def gaps(self, left: int, right: int) -> list[tuple[int, int]]:
        """The parts of [left, right) that are not in the set."""
        gaps = []
        for begin, end in self.within(left, right):
            if begin > left:
                gaps.append((left, begin))
            left = end
        if left < right:
            gaps.append((left, right))
        return gaps
