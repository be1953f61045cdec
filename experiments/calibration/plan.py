"""What a calibration measures: profiles by kind and name, and how much of each."""

from collections.abc import Collection
from dataclasses import dataclass

from topologies.profiles import GilbertElliott, LinkProfile, profile

EXIT_OK, EXIT_MISSED, EXIT_FAILED, EXIT_UNSUPPORTED = 0, 1, 2, 3
"""Of `python -m experiments.calibrate`."""

SWEEP: dict[str, LinkProfile] = {
    f"{rate:g} Mbit/s": LinkProfile(rate_mbit=rate, delay_ms=15.0) for rate in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
}
"""TCP goodput over rates from 1 to 200 Mbit/s at 15 ms."""

GUEST_SWEEP_MBIT = 50.0
"""Highest rate of the sweep in a guest: at 100 Mbit/s, which presets have, the relay takes more of the CPU than is judged."""

LOSS: dict[str, LinkProfile] = {
    "loss-1%": LinkProfile(delay_ms=1.0, loss=0.01),
    "loss-bursts": LinkProfile(delay_ms=1.0, burst=GilbertElliott(p=0.005, r=0.25, loss_bad=0.8, loss_good=0.001)),
}

JITTER: dict[str, LinkProfile] = {
    "jitter-sparse": LinkProfile(delay_ms=20.0, jitter_ms=5.0),
    "jitter-dense": LinkProfile(delay_ms=20.0, jitter_ms=5.0),
}
JITTER_PACKETS_PER_S = {"jitter-sparse": 80.0, "jitter-dense": 500.0}
"""Sparse: 12.5 ms apart, no packet can meet another one. Dense: 2 ms apart, many would overtake and must wait."""

ORDER: dict[str, LinkProfile] = {
    "reorder-5%": LinkProfile(delay_ms=10.0, reorder=0.05),
    "duplicate-5%": LinkProfile(delay_ms=10.0, duplicate=0.05),
}

CHANGE: dict[str, LinkProfile] = {
    "change to 20 Mbit/s": LinkProfile(rate_mbit=2.0, delay_ms=5.0, queue_packets=50),
    "change to 0.5 Mbit/s": LinkProfile(rate_mbit=2.0, delay_ms=5.0, queue_packets=50),
}
CHANGE_TO_MBIT = {"change to 20 Mbit/s": 20.0, "change to 0.5 Mbit/s": 0.5}

PRESET = "preset"
KINDS = {"sweep": SWEEP, "loss": LOSS, "jitter": JITTER, "order": ORDER, "change": CHANGE}


@dataclass(frozen=True)
class Effort:
    """How much is measured. A guest's CPU carries fewer packets per s, and in virtual time needs fewer of them."""

    delay_packets_per_s: float = 5000.0
    delay_s: float = 10.0
    goodput_s: float = 6.0
    jitter_packets: int = 4000
    order_packets: int = 10_000
    order_packets_per_s: float = 2000.0
    loss_packets: int = 100_000
    loss_packets_per_s: float = 20_000.0


EFFORTS = {
    "full": Effort(),
    "quick": Effort(delay_s=2.0, goodput_s=3.0, jitter_packets=1000, order_packets=4000, loss_packets=20_000),
    "guest": Effort(delay_packets_per_s=500.0, delay_s=2.0, goodput_s=3.0, jitter_packets=2000, loss_packets=30_000,
                    loss_packets_per_s=4000.0),
    "guest-quick": Effort(delay_packets_per_s=500.0, delay_s=1.0, goodput_s=1.0, jitter_packets=500,
                          order_packets=2000, loss_packets=5000, loss_packets_per_s=4000.0),
}  # fmt: skip


def effort_name(*, quick: bool, in_guest: bool) -> str:
    """The name in EFFORTS."""
    if in_guest:
        return "guest-quick" if quick else "guest"
    return "quick" if quick else "full"


def plan(presets: list[str], kinds: Collection[str], *, in_guest: bool) -> list[str]:
    """The items to measure, as kind:name: presets, and everything of those kinds that a guest can carry."""
    items = [f"{PRESET}:{name}" for name in presets]
    for kind in KINDS:
        for name, asked in KINDS[kind].items():
            if kind in kinds and not (kind == "sweep" and in_guest and (asked.rate_mbit or 0) > GUEST_SWEEP_MBIT):
                items.append(f"{kind}:{name}")
    return items


def asked_of(item: str) -> LinkProfile:
    """The profile that an item names. Raises ProfileError."""
    kind, _, name = item.partition(":")
    return KINDS[kind][name] if kind in KINDS else profile(name)
