"""Claims of a campaign -> verdicts.

A claim bounds a metric for some mechanisms in some scenarios. It holds when every (mechanism, scenario) holds. A
connection that never recovered has an unbounded gap: it fails every upper bound and is never averaged away.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.results import Result, Spread, gap_spread
from analysis.rundir import Campaign, InputError, Json, field

VERDICTS = ("fails", "not judged", "unsupported", "holds")
"""In order of weight: the heaviest verdict of its parts is the verdict of a claim."""
_UNITS = {"_ms": "ms", "_s": "s", "_mbit": "Mbit/s", "_bytes": "bytes", "_us": "us"}
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
_AGGREGATES = ("median", "max", "min", "all")


@dataclass(frozen=True)
class Part:
    """A claim for one mechanism in one scenario. `spread` holds the repetitions, `reason` why there is no verdict."""

    mechanism: str
    scenario: str
    verdict: str
    spread: Spread
    reason: str


@dataclass(frozen=True)
class Claim:
    """A checked claim of a campaign file with its verdict."""

    id: str
    text: str
    metric: str
    aggregate: str
    op: str
    value: float
    unit: str
    published: str | None
    source_key: str | None
    source_where: str
    verdict: str
    parts: tuple[Part, ...]

    @property
    def yes_or_no(self) -> bool:
        """The metric is a yes or a no, and is counted instead of averaged."""
        return self.metric in ("survived", "hash_ok", "judged")

    @property
    def same_everywhere(self) -> str:
        """For a yes-or-no metric with the same answer in all runs of all parts: that answer in words, else ""."""
        answers = [value for part in self.parts for value in part.spread.values]
        if not self.yes_or_no or len(set(answers)) != 1 or any(part.reason for part in self.parts):
            return ""
        return f"{'yes' if answers[0] else 'no'} in {len(answers)} of {len(answers)} runs"

    @property
    def bound_text(self) -> str:
        """The bound in words a table can show."""
        if self.yes_or_no:
            return f"{self.metric.replace('_', ' ')}: {'yes' if self.value else 'no'} ({self.aggregate})"
        sign = {"<=": "≤", ">=": "≥", "==": "="}[self.op]
        return f"{self.aggregate} {self.metric} {sign} {self.value:g} {self.unit}".strip()


def evaluate_claims(campaign: Campaign, results: list[Result]) -> list[Claim]:
    """Evaluate all claims of a campaign. Raises InputError for a claim that cannot be understood."""
    return [_evaluate(claim, f"{campaign.path}: claims[{i}]", results) for i, claim in enumerate(campaign.claims)]


def _evaluate(claim: Any, where: str, results: list[Result]) -> Claim:
    if not isinstance(claim, dict):
        raise InputError(f"{where}: must be an object")
    metric, aggregate = field(claim, "metric", str, where), field(claim, "aggregate", str, where)
    op, unit = field(claim, "bound.op", str, where), str(claim["bound"].get("unit") or "")
    if op not in _COMPARE:
        raise InputError(f"{where}: bound.op is {op!r}: it must be one of {', '.join(_COMPARE)}")
    if aggregate not in _AGGREGATES:
        raise InputError(f"{where}: aggregate is {aggregate!r}: it must be one of {', '.join(_AGGREGATES)}")
    raw = claim["bound"].get("value")
    if not isinstance(raw, (bool, int, float)) or not math.isfinite(raw):
        raise InputError(f"{where}: bound.value is {raw!r}: it must be a number, true or false")
    expected = next((u for suffix, u in _UNITS.items() if metric.endswith(suffix)), None)
    if expected is not None and unit and unit.lower().removesuffix("/s") != expected.lower().removesuffix("/s"):
        raise InputError(f"{where}: bound.unit is {unit!r}: {metric} is in {expected}")
    needed = int(claim.get("min_repetitions") or 1)
    parts = tuple(
        _part(mechanism, scenario, results, metric, aggregate, op, float(raw), needed)
        for mechanism in field(claim, "mechanisms", list, where)
        for scenario in field(claim, "scenarios", list, where)
    )
    if not parts:
        raise InputError(f"{where}: mechanisms and scenarios must each name at least one")
    source = claim.get("source") or {}
    return Claim(
        id=field(claim, "id", str, where),
        text=field(claim, "text", str, where),
        metric=metric,
        aggregate=aggregate,
        op=op,
        value=float(raw),
        unit=unit or expected or "",
        published=claim.get("published"),
        source_key=source.get("key"),
        source_where=str(source.get("where") or ""),
        verdict=min((part.verdict for part in parts), key=VERDICTS.index),
        parts=parts,
    )


def _part(
    mechanism: str,
    scenario: str,
    results: list[Result],
    metric: str,
    aggregate: str,
    op: str,
    bound: float,
    needed: int,
) -> Part:
    runs = [r for r in results if r.run and r.run.mechanism == mechanism and r.run.scenario == scenario]
    judged = [r for r in runs if r.judged]
    spread = spread_of(judged, metric)

    def no_verdict(verdict: str, reason: str) -> Part:
        return Part(mechanism, scenario, verdict, spread, reason)

    unsupported = [r for r in runs if r.metrics.get("verdict") == "unsupported"]
    if unsupported and not judged:
        return no_verdict("unsupported", unsupported[0].why_not)
    if spread.count < needed:
        why = next((r.why_not for r in runs if r.why_not), "" if judged else "there is no such run")
        if judged and not spread.count:
            why = f"the runs have no {metric}"
        return no_verdict("not judged", f"{spread.count} of {needed} repetitions" + (f": {why}" if why else ""))
    return Part(mechanism, scenario, "holds" if _holds(spread, aggregate, op, bound) else "fails", spread, "")


def _holds(spread: Spread, aggregate: str, op: str, bound: float) -> bool:
    """Compare; an open end counts as infinite and fails an upper bound whatever the aggregate."""
    compare = _COMPARE[op]
    if spread.open_ends and op != ">=":
        return False
    values = [*spread.values, *(math.inf for _ in spread.open_ends)]
    if aggregate == "all":
        return all(compare(value, bound) for value in values)
    if aggregate == "median" and spread.open_ends:
        values = [statistics.median_low(values)]
    chosen = max(values) if aggregate == "max" else min(values) if aggregate == "min" else statistics.median(values)
    return compare(chosen, bound)


def spread_of(results: list[Result], metric: str) -> Spread:
    """A metric over judged runs; `metric` may be dotted (`voice.loss`, `bytes_per_path.lte`)."""
    if metric == "gap_ms":
        return gap_spread(results)
    values = (_lookup(r.metrics, metric) for r in results)
    return Spread(tuple(v for v in values if v is not None))


def _lookup(metrics: Json, name: str) -> float | None:
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (bool, int, float)) else None
