"""Measurement of a change of rate while frames wait: how long after it the last of them has arrived.

No target, because the backends differ by their construction: the userspace relay gives waiting frames the new rate, netem has
set the times of frames when they came, and a change is for those that come later.
"""

from dataclasses import replace
from typing import Any

from experiments.calibration.bench import Bench, CalibrationError, drain_s, send_udp
from experiments.calibration.measure import LARGE_PAYLOAD_BYTES, UDP_HEADERS_BYTES
from experiments.calibration.rows import make_row
from experiments.clock import now_ns
from topologies.profiles import LinkProfile

FRAME_BYTES = LARGE_PAYLOAD_BYTES + UDP_HEADERS_BYTES


def left_ms(asked: LinkProfile, new_rate_mbit: float, frames: int, passed_ms: float) -> float:
    """Time to the last arrival of frames that came together `passed_ms` before the rate changed, if all get the new rate."""
    bits = frames * FRAME_BYTES * 8
    left_bits = max(0.0, bits - passed_ms * 1000 * (asked.rate_mbit or 0.0))
    return left_bits / (new_rate_mbit * 1000) + asked.delay_ms


def measure_change(test: Bench, direction: str, asked: LinkProfile, new_rate_mbit: float) -> list[dict[str, Any]]:
    """ms from the change to the last arrival of a queue full of frames, beside what it is when they get the new rate."""
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    limit = asked.queue_limit
    assert limit is not None
    new = replace(asked, rate_mbit=new_rate_mbit)
    slower = min(asked, new, key=lambda profile: profile.rate_mbit or 0.0)
    changed_ns = 0

    def change() -> None:
        nonlocal changed_ns
        test.link.set_profile(new, direction)
        changed_ns = now_ns()

    passed = send_udp(sender, receiver, limit, LARGE_PAYLOAD_BYTES, None, drain_s(slower, FRAME_BYTES), then=change)
    if len(passed.received) < limit:
        raise CalibrationError(f"only {len(passed.received)} of {limit} packets arrived over a link without loss")
    first_ns = min(item.arrival_ns for item in passed.sent.values())
    last_ns = max(item.arrival_ns for item in passed.received.values())
    expected_ms = left_ms(asked, new_rate_mbit, limit, (changed_ns - first_ns) / 1e6)
    measured_ms = (last_ns - changed_ns) / 1e6
    row = make_row("queue after the change", "ms", expected_ms, measured_ms, measured_ms - expected_ms, None)
    return [{**row, "packets": limit}]
