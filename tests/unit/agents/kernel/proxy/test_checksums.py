"""Checksums of packets that arrive without one: the same as by the arithmetic of the wire, whatever the size."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.kernel.proxy.checksums import LARGE_BYTES, large_ones_sum, with_checksum
from agents.wire.checksum import ones_sum
from agents.wire.tcp import build


@given(st.binary(max_size=300))
def test_both_sums_are_the_same(data: bytes) -> None:
    assert large_ones_sum(memoryview(data)) == ones_sum(data)


@pytest.mark.parametrize("data", [b"\xff" * 60_000, bytes(60_001), b"\xff\xfe" * 32_767, b"\0\1" * 30_000])
def test_large_sums_do_not_overflow(data: bytes) -> None:
    assert large_ones_sum(memoryview(data)) == ones_sum(data)


def test_without_numpy_the_sum_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(9001)
    expected = large_ones_sum(memoryview(data))
    monkeypatch.setattr("agents.kernel.proxy.checksums.numpy", None)
    assert large_ones_sum(memoryview(data)) == expected


@given(st.sampled_from([4, 16]), st.integers(0, 300) | st.integers(LARGE_BYTES - 2, LARGE_BYTES + 70), st.integers(0, 65535))
def test_a_checksum_is_computed_whatever_was_there(length: int, size: int, wrong: int) -> None:
    payload = random.Random(size).randbytes(size)
    packet = build(bytes(length - 1) + b"\1", 1, bytes(length - 1) + b"\2", 2, 3, 4, 0x10, 5, b"", payload)
    at = (20 if length == 4 else 40) + 16
    damaged = packet[:at] + wrong.to_bytes(2, "big") + packet[at + 2 :]
    assert with_checksum(damaged) == packet
