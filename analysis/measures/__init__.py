"""Metrics with one definition for every mechanism: plain TCP, MPTCP, proxies, Mobile IP, UDP.

`measure_stream` measures one direction of one connection of a reconstruction, `measure_datagrams` one flow of datagrams; the
other names are the measures they are made of, pure functions over arrays. docs/metrics.md has the definition of every key.
"""

from analysis.measures.datagrams import Datagrams, datagrams_of, jitter_ms, measure_datagrams, unwrap16
from analysis.measures.delivery import Delivery, deliver
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
from analysis.measures.observation import Index, Observation, observe
from analysis.measures.phases import Handover
from analysis.measures.stream import BETWEEN, RECEIVER, SENDER, measure_all, measure_stream

__all__ = [
    "BETWEEN", "GAP_TOLERANCE_MS", "GAP_TOLERANCE_SHARE", "LEAD_S", "RECEIVER", "SENDER", "Datagrams", "Delivery", "Floats",
    "Gap", "Handover", "Index", "Observation", "datagrams_of", "deliver", "gaps_agree", "jitter_ms", "longest_gap",
    "measure_all", "measure_datagrams", "measure_stream", "observe", "phase_rates", "rate_mbit", "tolerance_ms", "unwrap16",
]  # fmt: skip
