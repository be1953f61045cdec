"""Measurement of jitter: mean and standard deviation of the one-way delay, against a simulation of what the profile means."""

import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from experiments.calibration.bench import Bench, CalibrationError, drain_s, send_udp
from experiments.calibration.measure import (
    SMALL_PAYLOAD_BYTES,
    TARGET_DELAY_P50_US,
    TARGET_LOSS_SIGMA,
    UDP_HEADERS_BYTES,
)
from experiments.calibration.rows import make_row
from topologies.profiles import LinkProfile

_SIMULATIONS = 40


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def simulate(asked: LinkProfile, sent_us: Iterable[float], random: Random) -> list[float]:
    """Delays in us of packets sent at these times: each uniform around the profile's, and none overtakes.

    Written out here and not taken from the shaper, whose mistakes would otherwise be on both sides.
    """
    middle_us, jitter_us = asked.delay_ms * 1000, asked.jitter_ms * 1000
    delays_us = []
    last_us = -math.inf
    for at_us in sent_us:
        last_us = max(last_us, at_us + middle_us + (2 * random.random() - 1) * jitter_us)
        delays_us.append(last_us - at_us)
    return delays_us


def measure_jitter(
    test: Bench, direction: str, asked: LinkProfile, packets_per_s: float, seconds: float
) -> list[dict[str, Any]]:
    """Mean and standard deviation of the one-way delay in us of evenly spaced small packets.

    `asked` and its statistical error come from simulations of the same sequence; the target adds that of the delay.
    """
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    count = int(packets_per_s * seconds)
    quiet_s = drain_s(asked, SMALL_PAYLOAD_BYTES + UDP_HEADERS_BYTES)
    sent, received, busy, _ = send_udp(sender, receiver, count, SMALL_PAYLOAD_BYTES, packets_per_s, quiet_s)
    if len(received) < count:
        raise CalibrationError(f"only {len(received)} of {count} packets arrived over a link without loss")
    measured = mean_and_deviation([(received[number].arrival_ns - sent[number].arrival_ns) / 1000 for number in sorted(sent)])
    sent_us = [sent[number].arrival_ns / 1000 for number in sorted(sent)]
    simulated = [mean_and_deviation(simulate(asked, sent_us, Random(seed))) for seed in range(_SIMULATIONS)]
    rows = []
    for index, quantity in enumerate(("mean delay", "deviation of delay")):
        expected, error = mean_and_deviation([statistics[index] for statistics in simulated])
        target = TARGET_LOSS_SIGMA * error + TARGET_DELAY_P50_US
        row = make_row(quantity, "us", expected, measured[index], measured[index] - expected, target)
        row.update(packets=count, packets_per_s=round(packets_per_s), cpu_busy=busy, chance=True)
        rows.append(row)
    return rows
