"""The one place that waits by polling: until a condition holds, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, what: str, poll_s: float = 0.01) -> T:
    """Poll `condition` every `poll_s` seconds until it is true; return what it returned.

    Raises TimeoutError naming `what` when it did not become true within `timeout_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(poll_s)
