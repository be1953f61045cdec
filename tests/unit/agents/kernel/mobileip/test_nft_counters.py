"""Counters of nftables: messages, and a kernel's answer that is cut off or says something else."""

import struct

import pytest

from agents.kernel.mobileip import nft_counters
from agents.kernel.mobileip.nft_counters import answer, request


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def kernel_says(packets: int, kind: int = 10 << 8 | 18) -> bytes:
    counter = attribute(1, struct.pack("!Q", 9_000)) + attribute(2, struct.pack("!Q", packets))
    body = b"\2\0\0\0" + attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4 | 0x8000, counter)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_what_is_asked() -> None:
    data = request("roamlab", "lost", 7)
    assert struct.unpack_from("=IHHII", data) == (len(data), 10 << 8 | 19, 1, 7, 0)
    assert len(data) % 4 == 0
    assert dict(nft_counters.attributes(data[20:])) == {1: b"roamlab\0", 2: b"lost\0", 3: b"\0\0\0\1"}


def test_what_the_kernel_says() -> None:
    assert answer(kernel_says(12)) == 12
    assert answer(kernel_says(12, kind=2)) is None, "an error"


@pytest.mark.parametrize("length", range(64))
def test_an_answer_that_is_cut_off_is_none(length: int) -> None:
    whole = kernel_says(12)
    assert len(whole) == 64
    assert answer(whole[:length]) is None
