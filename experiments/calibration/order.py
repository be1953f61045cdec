"""Measurement of reordering and duplication: shares of packets that overtake others, and that arrive twice."""

import math
from typing import Any

from experiments.calibration.bench import Bench, drain_s, send_udp
from experiments.calibration.measure import SMALL_PAYLOAD_BYTES, TARGET_LOSS_SIGMA, UDP_HEADERS_BYTES
from experiments.calibration.rows import make_row
from topologies.profiles import LinkProfile


def measure_order(test: Bench, direction: str, asked: LinkProfile, packets: int, packets_per_s: float) -> list[dict[str, Any]]:
    """Shares of evenly spaced packets, each against the profile's probability within so many standard deviations.

    A packet that skips the delay shows by arriving in less than half of it.
    """
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    quiet_s = drain_s(asked, SMALL_PAYLOAD_BYTES + UDP_HEADERS_BYTES)
    passed = send_udp(sender, receiver, packets, SMALL_PAYLOAD_BYTES, packets_per_s, quiet_s)
    half_ns = asked.delay_ms * 1e6 / 2
    early = sum(item.arrival_ns - passed.sent[number].arrival_ns < half_ns for number, item in passed.received.items())
    rows = []
    for quantity, probability, count in (
        ("reordered", asked.reorder, early),
        ("duplicated", asked.duplicate, passed.duplicates),
        ("lost", 0.0, packets - len(passed.received)),
    ):
        measured = count / packets
        target = TARGET_LOSS_SIGMA * math.sqrt(probability * (1 - probability) / packets)
        row = make_row(quantity, "share", probability, measured, measured - probability, target)
        row.update(packets=packets, packets_per_s=round(packets_per_s), cpu_busy=passed.cpu_busy, chance=True)
        rows.append(row)
    return rows
