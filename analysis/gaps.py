"""Gap, goodput and jitter by their names of old; they live in `analysis.measures`."""

from analysis.measures.datagrams import jitter_ms
from analysis.measures.gap import (
    GAP_TOLERANCE_MS,
    GAP_TOLERANCE_SHARE,
    LEAD_S,
    Floats,
    Gap,
    gaps_agree,
    longest_gap,
    tolerance_ms,
)
from analysis.measures.goodput import phase_rates, rate_mbit

__all__ = [
    "GAP_TOLERANCE_MS", "GAP_TOLERANCE_SHARE", "LEAD_S", "Floats", "Gap", "gaps_agree", "jitter_ms", "longest_gap",
    "phase_rates", "rate_mbit", "tolerance_ms",
]  # fmt: skip
