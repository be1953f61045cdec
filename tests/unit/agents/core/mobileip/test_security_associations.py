"""Security associations and replay protection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.security import ReplayGuard, ReplayStyle, SecurityAssociation, by_spi, ntp_difference

NOW = 3_900_000_000 << 32
SECOND = 1 << 32


def random_bytes(count: int) -> bytes:
    return bytes(range(1, count + 1))


def test_reserved_spis_and_empty_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="SPI 255"):
        SecurityAssociation(255, b"k")
    with pytest.raises(ValueError, match="empty key"):
        SecurityAssociation(256, b"")
    with pytest.raises(ValueError, match="twice"):
        by_spi([SecurityAssociation(256, b"k"), SecurityAssociation(256, b"l")])


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(SecurityAssociation(256, b"secret"))


@pytest.mark.parametrize(("offset_s", "taken"), [(0, True), (7, True), (-7, True), (7.5, False), (-7.5, False), (3600, False)])
def test_a_timestamp_must_be_within_the_window(offset_s: float, taken: bool) -> None:
    assert ReplayGuard(ReplayStyle.TIMESTAMPS).check(NOW + int(offset_s * SECOND), NOW) is taken


def test_timestamps_must_rise_strictly() -> None:
    guard = ReplayGuard(ReplayStyle.TIMESTAMPS)
    assert guard.accept(NOW, random_bytes) == NOW
    assert not guard.check(NOW, NOW)
    assert not guard.check(NOW - 1, NOW)
    assert guard.check(NOW + 1, NOW)


def test_timestamps_go_on_over_the_end_of_the_era() -> None:
    end = (1 << 64) - 5
    guard = ReplayGuard(ReplayStyle.TIMESTAMPS, highest=end)
    assert guard.check(3, end)
    assert not guard.check(end - SECOND, 3)


def test_a_mismatch_carries_the_time_here_and_the_low_half_of_the_request() -> None:
    guard = ReplayGuard(ReplayStyle.TIMESTAMPS)
    assert guard.mismatch(0x11111111_22222222, NOW + 0x33333333, random_bytes) == NOW | 0x22222222


def test_the_first_request_with_a_nonce_is_a_mismatch_and_the_second_is_taken() -> None:
    guard = ReplayGuard(ReplayStyle.NONCES)
    assert not guard.check(5, NOW)
    offered = guard.mismatch(5, NOW, random_bytes)
    assert offered & 0xFFFFFFFF == 5
    second = offered & ~0xFFFFFFFF | 6
    assert guard.check(second, NOW)
    answered = guard.accept(second, random_bytes)
    assert answered & 0xFFFFFFFF == 6
    assert answered >> 32 != second >> 32
    assert not guard.check(second, NOW)


def test_replayed_nonces_do_not_change_the_next_one() -> None:
    guard = ReplayGuard(ReplayStyle.NONCES, nonce=7)
    assert guard.mismatch(1 << 32, NOW, random_bytes) >> 32 == 7
    assert guard.check(7 << 32, NOW)


@pytest.mark.parametrize("style", ReplayStyle)
def test_a_guard_comes_back_from_its_value(style: ReplayStyle) -> None:
    guard, other = ReplayGuard(style), ReplayGuard(style)
    guard.accept(NOW, random_bytes)
    other.restore(guard.as_value())
    assert other == guard
    other.restore({"highest": "x", "nonce": None})
    assert other == guard


@given(st.integers(0, (1 << 64) - 1), st.integers(-(1 << 62), 1 << 62))
def test_the_difference_of_timestamps_is_what_was_added(start: int, step: int) -> None:
    assert ntp_difference((start + step) % (1 << 64), start) == step
