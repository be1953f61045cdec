"""Sequence numbers that wrap, against plain counting."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.sequence import MASK32, MASK64, newer32, unwrap32, unwrap64

SAME = settings(derandomize=True, deadline=None)

OFFSETS = st.one_of(
    st.integers(0, 1 << 70),
    st.builds(lambda wraps, near: max(wraps * 2**32 + near, 0), st.integers(0, 1 << 34), st.integers(-5, 5)),
)


@SAME
@given(OFFSETS, st.integers(0, MASK32), st.integers(-(2**31) + 1, 2**31))
def test_unwrap32_finds_every_offset_near_the_expected_one(offset: int, initial: int, distance: int) -> None:
    assert unwrap32((initial + offset) & MASK32, initial, offset + distance) == offset


@SAME
@given(OFFSETS, st.integers(0, MASK64), st.integers(-(2**63) + 1, 2**63))
def test_unwrap64_finds_every_offset_near_the_expected_one(offset: int, initial: int, distance: int) -> None:
    assert unwrap64((initial + offset) & MASK64, initial, offset + distance) == offset


@SAME
@given(st.integers(0, MASK32), st.integers(0, MASK32), st.integers(-(2**40), 2**40))
def test_unwrap32_never_goes_further_than_half_the_space(value: int, initial: int, near: int) -> None:
    found = unwrap32(value, initial, near)
    assert (found + initial - value) & MASK32 == 0
    assert -(2**31) <= found - near < 2**31


def test_what_lies_before_the_initial_number_is_negative() -> None:
    assert unwrap32(4, 5, 0) == -1
    assert unwrap32(MASK32, 0, 1) == -1
    assert unwrap64(MASK64, 0, 1) == -1
    assert unwrap32(0, MASK32, 1) == 1
    assert unwrap64(0, MASK64, 1) == 1


@SAME
@given(st.integers(0, MASK32), st.integers(0, MASK32))
def test_newer32_is_an_order_of_half_the_space(a: int, b: int) -> None:
    assert newer32(a, b) == (0 < (a - b) % 2**32 < 2**31)
    assert not (newer32(a, b) and newer32(b, a))
    assert not newer32(a, a)


def test_newer32_across_the_wrap() -> None:
    assert newer32(0, MASK32)
    assert not newer32(MASK32, 0)
    assert newer32(2**31 - 1, 0)
    assert not newer32(2**31, 0)
