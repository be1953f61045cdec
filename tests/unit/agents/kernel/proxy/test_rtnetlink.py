"""Answers of the kernel: links and addresses, whatever the bytes are."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from agents.kernel.proxy.rtnetlink import Address, Link, attributes, parse_address, parse_link

V4, V6 = bytes((10, 0, 0, 1)), bytes(range(16))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def address(family: int, value: bytes, *more: bytes, scope: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BBBBI", family, 24, flags, scope, 3) + attribute(1, value) + b"".join(more)


def test_a_link() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 0x10041, 0) + attribute(3, b"wlan\0") + attribute(4, struct.pack("=I", 1400))
    assert parse_link(body + attribute(41, struct.pack("=I", 60000))) == Link(7, "wlan", True, True, 1400, 60000)
    down = struct.pack("=BxHiII", 0, 1, 7, 0x1001, 0) + attribute(3, b"wlan\0")
    assert parse_link(down) == Link(7, "wlan", True, False, 0, 0)
    assert parse_link(struct.pack("=BxHiII", 0, 1, 7, 0, 0)) is None


def test_addresses_of_both_families() -> None:
    assert parse_address(address(2, b"\1\1\1\1", attribute(2, V4))) == Address(3, V4, True, False)
    assert parse_address(address(10, V6)) == Address(3, V6, True, False)


def test_local_scopes_are_none_of_ours_but_pinned_ones_are() -> None:
    assert parse_address(address(2, V4, scope=254)) is None
    assert parse_address(address(10, V6, scope=253)) is None
    assert parse_address(address(2, V4, attribute(11, b"\xc9"), scope=254)) == Address(3, V4, True, True)


def test_duplicate_address_detection() -> None:
    tentative, optimistic, failed = (attribute(8, struct.pack("=I", flags)) for flags in (0x40, 0x44, 0x08))
    usable = [parse_address(address(10, V6, more)) for more in (tentative, optimistic, failed)]
    assert [item is not None and item.usable for item in usable] == [False, True, False]


def test_a_family_that_is_none() -> None:
    assert parse_address(address(2, V6)) is None
    assert parse_address(address(10, V4)) is None
    assert parse_address(address(28, V4)) is None


@given(st.binary(max_size=120))
def test_no_bytes_make_the_readers_fail(data: bytes) -> None:
    parse_link(data)
    parse_address(data)
    attributes(data, 0, len(data) + 9)
