"""The time of a call: monotonic seconds and the wall clock as an NTP timestamp."""

import time
from typing import Final

from agents.core.mobileip.actions import Now

NTP_EPOCH_S: Final = 2_208_988_800
"""1970 in seconds since 1900."""


def now() -> Now:
    """The present time."""
    return Now(time.monotonic(), ntp_of(time.time_ns()))


def ntp_of(unix_ns: int) -> int:
    """64-bit NTP timestamp of a time in ns since 1970; the era of 2036 begins at 0 again."""
    seconds, rest = divmod(unix_ns, 10**9)
    return ((seconds + NTP_EPOCH_S & 0xFFFF_FFFF) << 32) | (rest << 32) // 10**9
