"""How well runs repeat: the spread of every metric over the repetitions of two campaigns, side by side.

One campaign is the reference (native runs), the other one is judged (runs in the guest). The **spread** of a metric is the
largest less the smallest value of all repetitions of one combination of scenario, mechanism and workload.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analysis.differences import Difference, first_difference
from analysis.results import Result, Spread, gap_spread, load_results, select
from analysis.rundir import Campaign, InputError, Json, Run

TOLERANCE_MS = 1.0
TOLERANCE_SHARE = 0.01
"""A figure repeats when its spread is at most this share of its median; of times 1 ms is always allowed."""
REFERENCE_SHARE = 0.1
"""The spread of a handover gap may be at most this share of its spread in the reference."""
VERDICTS = ("fails", "not judged", "holds")
"""In order of weight."""
GAP = "gap_ms"
MAIN = (GAP, "goodput_mbit", "bytes_per_path.", "retransmitted_bytes", "reinjected_bytes", "voice.loss", "voice.jitter_ms",
        "rpc.latency_p50_ms", "rpc.latency_p99_ms")  # fmt: skip
"""Metrics that are always shown, in this order; a name that ends in a point means all below it."""
_VIRTUAL_TIME = "virtual-time"
_NO_MEASUREMENT = ("schema", "version", "repetition", "seed", "subflows", "gap_at_least_ms", "relay_late_p99_us")


@dataclass(frozen=True)
class Side:
    """One campaign of a comparison."""

    campaign: Campaign
    results: tuple[Result, ...]

    @property
    def flavour(self) -> str | None:
        """The guest's flavour, None when the runs were native."""
        return next((flavour for run in self.runs if (flavour := _flavour(run)) is not None), None)

    @property
    def name(self) -> str:
        """ "native" or "guest"."""
        return "native" if self.flavour is None else "guest"

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that have a folder."""
        return tuple(result.run for result in self.results if result.run is not None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that were used."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def judged(self) -> int:
        """How many of its runs are measurements."""
        return sum(result.judged for result in self.results)


@dataclass(frozen=True)
class Row:
    """One metric of one combination. `tolerance`: the largest spread that is allowed, in the metric's unit."""

    scenario: str
    mechanism: str
    workload: str
    metric: str
    reference: Spread
    judged: Spread
    tolerance: float | None
    verdict: str
    reason: str

    @property
    def ratio(self) -> float | None:
        """Spread of the judged runs over the reference's; None when there is nothing to divide by."""
        if self.reference.width is None or self.judged.width is None or not self.reference.width:
            return None
        return self.judged.width / self.reference.width

    @property
    def main(self) -> bool:
        """It belongs into a short table."""
        return _rank(self.metric) < len(MAIN)


@dataclass(frozen=True)
class Deviation:
    """Two runs of the same seed in virtual time that are not the same, and where that begins."""

    first: Run
    second: Run
    difference: Difference


@dataclass(frozen=True)
class Repeatability:
    """The whole comparison. `compared`: pairs of runs that should be the same to the nanosecond."""

    reference: Side
    judged: Side
    rows: tuple[Row, ...]
    compared: int
    deviations: tuple[Deviation, ...]

    @property
    def verdict(self) -> str:
        """The heaviest of all rows."""
        return min((row.verdict for row in self.rows), key=VERDICTS.index)


def compare_campaigns(first: Campaign, second: Campaign, refresh: bool = False) -> Repeatability:
    """Measure and compare two campaigns; of a native one and one in the guest the latter is judged, else the second.

    Raises InputError when a file cannot be used or the campaigns have no combination in common.
    """
    sides = [Side(campaign, tuple(load_results(campaign, refresh))) for campaign in (first, second)]
    if sides[0].flavour is not None and sides[1].flavour is None:
        sides.reverse()
    rows = tuple(_rows(*sides))
    if not rows:
        raise InputError(
            f"{first.path} and {second.path}: no scenario, mechanism and workload has figures in both: compare campaigns "
            "of one experiment whose runs ended well"
        )
    pairs = list(_pairs(sides))
    found = [(one, other, first_difference(one, other)) for one, other in pairs]
    deviations = tuple(Deviation(one, other, difference) for one, other, difference in found if difference is not None)
    return Repeatability(sides[0], sides[1], rows, len(pairs), deviations)


def _flavour(run: Run) -> str | None:
    guest = run.manifest.get("guest")
    return str(guest.get("flavour")) if isinstance(guest, dict) else None


def _combinations(side: Side) -> dict[tuple[str, str, str], None]:
    """Scenario, mechanism and workload of all runs, in the order of the campaign file."""
    runs = side.runs
    scenarios, mechanisms = ([name for name, _ in named] for named in (side.campaign.scenarios, side.campaign.mechanisms))
    known = [run for run in runs if run.scenario in scenarios and run.mechanism in mechanisms]
    known.sort(key=lambda run: (scenarios.index(run.scenario), run.workload, mechanisms.index(run.mechanism)))
    return dict.fromkeys((run.scenario, run.mechanism, run.workload) for run in known)


def _rows(reference: Side, judged: Side) -> Iterator[Row]:
    for scenario, mechanism, workload in (c for c in _combinations(judged) if c in _combinations(reference)):
        place = mechanism, scenario, workload
        old, new = (select(list(side.results), *place) for side in (reference, judged))
        names = dict.fromkeys(name for result in new for name in numbers(result.metrics))
        if any(result.metrics.get("gap_at_least_ms") is not None for result in new):
            names[GAP] = None
        for name in sorted(names, key=lambda name: (_rank(name), name)):
            before, after = _spread(old, name), _spread(new, name)
            tolerance = tolerance_of(name, after)
            verdict, reason = _judge(name, before, after, tolerance, new)
            yield Row(scenario, mechanism, workload, name, before, after, tolerance, verdict, reason)


def _rank(metric: str) -> int:
    """Place of a metric in `MAIN`, or behind it."""
    return next(
        (i for i, name in enumerate(MAIN) if metric == name or (name[-1] == "." and metric.startswith(name))), len(MAIN)
    )


def numbers(metrics: Json) -> dict[str, float]:
    """All figures of a metrics.json by dotted name; entries of a list by their number; yes and no as 1 and 0."""
    found: dict[str, float] = {}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, (bool, int, float)):
            found[name] = float(value)
        elif isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                collect(inner, f"{name}.{key}" if name else str(key))

    collect({key: value for key, value in metrics.items() if key not in _NO_MEASUREMENT}, "")
    return found


def _spread(results: list[Result], name: str) -> Spread:
    """A metric over the repetitions, of runs that are not judged as well: that figures are spoiled shows in their spread."""
    if name == GAP:
        return gap_spread(results)
    found = [numbers(result.metrics).get(name) for result in results]
    return Spread(tuple(value for value in found if value is not None))


def tolerance_of(metric: str, spread: Spread) -> float | None:
    """The largest spread with which a metric repeats, in its own unit; None when there is no value."""
    known = spread.values or spread.open_ends
    if not known:
        return None
    share = TOLERANCE_SHARE * abs(statistics.median(known))
    if metric.endswith("_ms"):
        return max(TOLERANCE_MS, share)
    return max(TOLERANCE_MS / 1e3, share) if metric.endswith("_s") or metric.startswith("events_s.") else share


def _judge(name: str, before: Spread, after: Spread, tolerance: float | None, runs: list[Result]) -> tuple[str, str]:
    """Verdict on a metric, and why it does not hold."""
    unjudged = [result for result in runs if not result.judged]
    if unjudged:
        return "not judged", f"{len(runs) - len(unjudged)} of {len(runs)} runs judged: {unjudged[0].why_not}"
    if after.width is None or tolerance is None:
        return "not judged", f"{after.count} of {len(runs)} runs have it: two are needed"
    if after.count < len(runs):
        return "fails", f"{after.count} of {len(runs)} runs have it"
    if after.width > tolerance:
        return "fails", "the spread is larger than the tolerance"
    if name == GAP and before.width is None:
        return "not judged", "fewer than two runs to compare with"
    if name == GAP and before.width is not None and after.width > REFERENCE_SHARE * before.width:
        return "fails", "the spread is more than a tenth of the one it is compared with"
    return "holds", ""


def _pairs(sides: list[Side]) -> Iterator[tuple[Run, Run]]:
    """Runs of a campaign in virtual time that are the same run: the first one and each other."""
    groups: dict[tuple[str, str, str, str, int], list[Run]] = {}
    for side in sides:
        for run in side.runs:
            if run.state == "complete" and _flavour(run) == _VIRTUAL_TIME:
                place = side.campaign.name, run.scenario, run.mechanism, run.workload, run.seed
                groups.setdefault(place, []).append(run)
    for first, *others in groups.values():
        for other in others:
            yield first, other
