"""The checksum as arithmetic modulo 65535, against the loop of RFC 1071."""

from hypothesis import given
from hypothesis import strategies as st

from agents.wire.checksum import MODULUS, folded, ones_sum


def loop(data: bytes) -> int:
    """RFC 1071 section 4.1: add 16-bit words, add the carries, return the sum."""
    total = 0
    for at in range(0, len(data) - 1, 2):
        total += data[at] << 8 | data[at + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_example_of_rfc_1071_section_3() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ones_sum(data) == 0xDDF2
    assert folded(ones_sum(data)) == 0xDDF2 ^ 0xFFFF == 0x220D


@given(st.binary(max_size=3000))
def test_the_sum_is_that_of_the_loop(data: bytes) -> None:
    assert ones_sum(data) == loop(data) % MODULUS
    assert ones_sum(memoryview(data)) == ones_sum(data)


@given(st.binary(max_size=200))
def test_a_packet_with_its_checksum_adds_up_to_all_ones(data: bytes) -> None:
    data += b"\0" * (len(data) % 2)
    field = folded(ones_sum(data))
    assert 0 <= field < 0xFFFF
    total = loop(data + field.to_bytes(2, "big"))
    assert total == 0xFFFF or (total == 0 and not any(data))


@given(st.lists(st.binary(max_size=100).map(lambda part: part[: len(part) // 2 * 2])))
def test_sums_of_parts_add_up(parts: list[bytes]) -> None:
    assert sum(map(ones_sum, parts)) % MODULUS == ones_sum(b"".join(parts))


@given(st.binary(min_size=20, max_size=60), st.binary(min_size=4, max_size=4), st.integers(0, 4))
def test_an_incremental_update_is_a_full_one(data: bytes, new: bytes, word: int) -> None:
    """RFC 1624: the field of a changed packet from the old sum, the old words and the new words."""
    at = word * 4
    changed = data[:at] + new + data[at + 4 :]
    assert folded(ones_sum(data) - ones_sum(data[at : at + 4]) + ones_sum(new)) == folded(ones_sum(changed))


def test_all_zero_and_all_ones_are_the_same_sum() -> None:
    assert ones_sum(b"") == ones_sum(b"\0\0") == ones_sum(b"\xff\xff") == 0
    assert folded(0) == folded(0xFFFF) == 0
