"""The scenario clock: the one place that lets time pass until an absolute moment."""

import time

_SPIN_NS = 200_000  # the kernel wakes a sleeper up to about this late; the rest is waited in short steps


def now_ns() -> int:
    """CLOCK_MONOTONIC in ns: the same clock in every namespace of a run and in the agents' event logs."""
    return time.monotonic_ns()


def wall_ns() -> int:
    """CLOCK_REALTIME in ns: the clock of the capture timestamps."""
    return time.time_ns()


def sleep_until(mono_ns: int) -> None:
    """Return at the absolute CLOCK_MONOTONIC time `mono_ns`, at once when it has passed."""
    while True:
        left_ns = mono_ns - now_ns()
        if left_ns <= 0:
            return
        time.sleep(max(left_ns - _SPIN_NS, 10_000) * 1e-9)
