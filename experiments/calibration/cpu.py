"""How busy the CPUs were while something was measured.

In a guest in virtual time the CPU is slow, and what it cannot carry shows as an error of the link. The share comes from the
idle time of the kernel, which is exact to 10 ms; busy times are sampled by the tick, and traffic may keep step with the tick.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.clock import now_ns


@dataclass
class CpuUse:
    """The busy share of all CPUs, 0 to 1; None until the measured time is over."""

    busy: float | None = None


def busy_share(elapsed_s: float, idle_s: float, cpus: int) -> float | None:
    """Share of the CPUs' time that was not idle; None when no time passed."""
    if elapsed_s <= 0:
        return None
    return round(min(1.0, max(0.0, 1 - idle_s / (elapsed_s * cpus))), 3)


def idle_s(uptime: str) -> float:
    """Idle time of all CPUs since boot, from the text of /proc/uptime."""
    return float(uptime.split()[1])


@contextmanager
def cpu_use() -> Iterator[CpuUse]:
    """Measure from here to the end of the block."""
    use = CpuUse()
    start_ns, start_idle_s = now_ns(), _idle_s()
    yield use
    use.busy = busy_share((now_ns() - start_ns) * 1e-9, _idle_s() - start_idle_s, os.cpu_count() or 1)


def _idle_s() -> float:
    return idle_s(Path("/proc/uptime").read_text())
