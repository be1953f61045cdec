"""Interval sets and maps, against models that hold every number by itself."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agents.core.proxy.tables import Interval, IntervalMap, IntervalSet

BASES = (0, 2**32 - 30, 2**64 - 30)
"""Offsets never wrap: numbers beyond 32 and 64 bits are numbers like others."""
KEYS = st.integers(0, 60)


class Owner:
    """Compared by identity, as subflows are."""


OWNERS = (Owner(), Owner(), None)


class SetMachine(RuleBasedStateMachine):
    """IntervalSet against a set of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.model, self.base = IntervalSet(), set[int](), 0

    @initialize(base=st.sampled_from(BASES))
    def begin(self, base: int) -> None:
        self.base = base

    def span(self, start: int, end: int) -> set[int]:
        return set(range(self.base + start, self.base + end))

    @rule(start=KEYS, end=KEYS)
    def add(self, start: int, end: int) -> None:
        span = self.span(start, end)
        assert self.real.add(self.base + start, self.base + end) == bool(span - self.model)
        self.model |= span

    @rule(start=KEYS, length=st.integers(1, 20))
    def ask(self, start: int, length: int) -> None:
        span = self.span(start, start + length)
        left, right = self.base + start, self.base + start + length
        assert self.real.covers(left, right) == (span <= self.model)
        assert self.real.overlaps(left, right) == bool(span & self.model)

    @rule(limit=KEYS)
    def drop_below(self, limit: int) -> None:
        self.real.drop_below(self.base + limit)
        self.model = {number for number in self.model if number >= self.base + limit}

    @invariant()
    def same(self) -> None:
        assert {number for left, right in self.real for number in range(left, right)} == self.model
        runs = list(self.real)
        assert len(self.real) == len(runs)
        assert all(left < right for left, right in runs)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(runs)), "adjacent ones are not merged"


Row = tuple[int, Owner | None]


class MapMachine(RuleBasedStateMachine):
    """IntervalMap against a dict of every key."""

    def __init__(self) -> None:
        super().__init__()
        self.real: IntervalMap[Owner | None] = IntervalMap()
        self.model: dict[int, Row] = {}
        self.base = 0

    @initialize(base=st.sampled_from(BASES))
    def begin(self, base: int) -> None:
        self.base = base

    @rule(gap=st.integers(0, 3), length=st.integers(1, 12), shift=st.integers(-2, 2), owner=st.sampled_from(OWNERS))
    def append(self, gap: int, length: int, shift: int, owner: Owner | None) -> None:
        start = max(self.model, default=self.base - 1) + 1 + gap
        row = (shift, owner)
        continues = start - 1 in self.model and self.model[start - 1] == row
        assert self.real.append(start, start + length, shift, owner) != continues
        self.model.update(dict.fromkeys(range(start, start + length), row))

    @rule(start=KEYS, length=st.integers(0, 20), shift=st.integers(-2, 2), owner=st.sampled_from(OWNERS))
    def replace(self, start: int, length: int, shift: int, owner: Owner | None) -> None:
        start += self.base
        self.real.replace(start, start + length, shift, owner)
        self.model.update(dict.fromkeys(range(start, start + length), (shift, owner)))

    @rule(start=KEYS)
    def append_below(self, start: int) -> None:
        if self.model and self.base + start <= max(self.model):
            before = list(self.real.entries())
            with pytest.raises(ValueError, match="does not follow"):
                self.real.append(self.base + start, self.base + start + 1, 0, None)
            assert list(self.real.entries()) == before

    @rule(start=KEYS, length=st.integers(0, 30))
    def pieces(self, start: int, length: int) -> None:
        start += self.base
        at = start
        for piece in self.real.pieces(start, start + length):
            assert piece.start == at
            assert piece.end > at
            for key in range(piece.start, piece.end):
                expected = self.model.get(key)
                assert (piece.shift, piece.owner) == (expected if expected is not None else (None, None))
            at = piece.end
        assert at == start + length

    @rule(key=KEYS)
    def index(self, key: int) -> None:
        at = self.real.index(self.base + key)
        expected = self.model.get(self.base + key)
        assert (at >= 0) == (expected is not None)
        if expected is not None:
            assert (self.real.shifts[at], self.real.owners[at]) == expected

    @rule(limit=KEYS)
    def drop_below(self, limit: int) -> None:
        self.real.drop_below(self.base + limit)
        self.model = {key: row for key, row in self.model.items() if key >= self.base + limit}

    @invariant()
    def same(self) -> None:
        rows = list(self.real.entries())
        assert {key: (shift, owner) for start, end, shift, owner in rows for key in range(start, end)} == self.model
        assert len(rows) == len(self.real)
        for (_, end, shift, owner), (start, _, after, other) in itertools.pairwise(rows):
            assert end <= start
            assert end < start or (shift, owner) != (after, other), "entries that continue each other are not merged"


TestSet = SetMachine.TestCase
TestSet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
TestMap = MapMachine.TestCase
TestMap.settings = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)


def test_one_entry_whatever_the_number_of_packets() -> None:
    table: IntervalMap[Owner | None] = IntervalMap()
    begun = [table.append(n * 1000, (n + 1) * 1000, 7, OWNERS[0]) for n in range(5000)]
    assert begun == [True] + [False] * 4999
    assert list(table.entries()) == [(0, 5_000_000, 7, OWNERS[0])]


def test_a_replacement_that_restores_the_old_mapping_merges_again() -> None:
    table: IntervalMap[Owner | None] = IntervalMap()
    table.append(0, 30, 5, OWNERS[0])
    table.replace(10, 20, 9, OWNERS[1])
    assert len(table) == 3
    table.replace(10, 20, 5, OWNERS[0])
    assert list(table.entries()) == [(0, 30, 5, OWNERS[0])]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(KEYS, KEYS)), KEYS)
def test_the_order_of_additions_makes_no_difference(spans: list[Interval], limit: int) -> None:
    one, other = IntervalSet(), IntervalSet()
    for start, end in spans:
        one.add(start, end)
    for start, end in reversed(spans):
        other.add(start, end)
    one.drop_below(limit)
    other.drop_below(limit)
    assert list(one) == list(other)
