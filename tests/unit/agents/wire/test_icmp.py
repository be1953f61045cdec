"""ICMP messages about packets that were too big: what is written is read again, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.wire.icmp import TooBig, parse_too_big, too_big

ENDS = {4: (b"\x0a\x01\x00\x64", b"\x0a\x41\x00\x02"), 6: (bytes(15) + b"\x01", bytes(15) + b"\x02")}


def message(version: int, mtu: int = 1340, seq: int = 77) -> bytes:
    near, far = ENDS[version]
    return too_big(near, 40_000, far, 80, seq, 1500, mtu)


@pytest.mark.parametrize("version", [4, 6])
@given(mtu=st.integers(576, 65535), seq=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(version: int, mtu: int, seq: int) -> None:
    near, far = ENDS[version]
    assert parse_too_big(message(version, mtu, seq)) == TooBig(near, 40_000, far, 80, seq, mtu)


@pytest.mark.parametrize("version", [4, 6])
def test_cut_and_damaged_messages_are_no_messages(version: int) -> None:
    whole = message(version)
    assert all(parse_too_big(whole[:length]) is None for length in range(len(whole)))
    first = {4: 20, 6: 40}[version]
    for place in range(first, len(whole)):
        assert parse_too_big(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :]) is None


@given(st.binary(max_size=120))
def test_any_bytes(data: bytes) -> None:
    parse_too_big(data)
    parse_too_big(b"\x45" + bytes(8) + b"\x01" + data)
