"""Claims of a campaign -> verdicts.

A claim bounds a metric for some mechanisms in some scenarios with some workloads. It holds when every combination holds,
and only when every planned repetition of it was judged: which runs happen to be judged is not chance, a mechanism that
breaks also breaks records. A connection that never recovered has no gap: it fails every bound and is never averaged away.

A bound may be what other mechanisms have in the same scenario, or the same mechanism in other ones, with the same workload.
Such a claim is judged only when all runs of all of them were. There a connection that never recovered counts as longer than
any that did.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from analysis.results import Result, Spread, coverage, gap_spread, select, workloads_of
from analysis.rundir import Campaign, InputError, Json, field

VERDICTS = ("fails", "not judged", "unsupported", "holds")
"""In order of weight: the heaviest verdict of its parts is the verdict of a claim."""
_UNITS = {"_ms": "ms", "_s": "s", "_mbit": "Mbit/s", "_bytes": "bytes", "_us": "us"}
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
_GAPS = ("gap_ms", "rpc.longest_stall_ms")
"""Metrics that have an open end when the connection did not recover."""
_AGGREGATES = ("median", "max", "min", "all")


@dataclass(frozen=True)
class Part:
    """A claim for one mechanism in one scenario with one workload.

    `workload_label` is "" when the campaign has one workload only. `spread` holds the judged repetitions, `reason` what
    is missing beside them.
    """

    mechanism: str
    scenario: str
    workload: str
    workload_label: str
    verdict: str
    spread: Spread
    reason: str
    others: tuple[tuple[str, Spread], ...] = ()
    """Mechanisms, or scenarios, that it is compared with, and what they have."""

    def others_text(self, unit: str = "") -> str:
        """Medians of what it is compared with: "mptcp 512 ms, mip4 1.2 s"; "" without any."""
        return ", ".join(f"{name} {spread.median_text(unit)}" for name, spread in self.others)


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
    others: tuple[str, ...] = ()
    """Mechanisms, or scenarios, whose aggregate, times `value`, is the bound."""

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
        if self.others:
            factor = "" if self.value == 1 else f"{self.value:g} × "
            return f"{self.aggregate} {self.metric} {sign} {factor}that of {', '.join(self.others)}"
        return f"{self.aggregate} {self.metric} {sign} {self.value:g} {self.unit}".strip()


def evaluate_claims(campaign: Campaign, results: list[Result]) -> list[Claim]:
    """Evaluate all claims of a campaign. Raises InputError for a claim that cannot be understood."""
    return [_evaluate(campaign, claim, f"{campaign.path}: claims[{i}]", results) for i, claim in enumerate(campaign.claims)]


def _evaluate(campaign: Campaign, claim: Any, where: str, results: list[Result]) -> Claim:
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
    known = workloads_of(campaign, results) or {"": ""}
    asked = field(claim, "workloads", list, where) if claim.get("workloads") else list(known)
    others, elsewhere = (
        tuple(str(name) for name in claim["bound"].get(key) or ()) for key in ("others", "other_scenarios")
    )  # fmt: skip
    bound = _Bound(metric, aggregate, op, float(raw))
    parts = []
    for workload in asked:
        label = known.get(workload, str(workload)) if len(known) > 1 else ""
        for mechanism in field(claim, "mechanisms", list, where):
            for scenario in field(claim, "scenarios", list, where):
                runs = select(results, mechanism, scenario, workload)
                verdict, spread, reason = _judge(runs, bound, campaign.repetitions, needed, bool(others or elsewhere))
                part = Part(mechanism, scenario, workload, label, verdict, spread, reason)
                theirs = {name: select(results, name, scenario, workload) for name in others}
                theirs |= {name: select(results, mechanism, name, workload) for name in elsewhere}
                if theirs:
                    part = _compare(part, theirs, bound, campaign.repetitions, needed)
                parts.append(part)
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
        parts=tuple(parts),
        others=others or elsewhere,
    )


@dataclass(frozen=True)
class _Bound:
    """What a claim asks of the repetitions of a combination."""

    metric: str
    aggregate: str
    op: str
    value: float


def _judge(
    runs: list[Result], bound: _Bound, planned: int, needed: int, only_complete: bool = False
) -> tuple[str, Spread, str]:
    """Verdict over the repetitions of one combination, their figures, and what is missing.

    `planned`: how many runs there should be; `needed`: fewer figures than this prove nothing. What is missing keeps a
    claim from holding; what fails without it fails. `only_complete`: say only whether there is all that is needed, as the
    bound is not known yet.
    """
    judged = [r for r in runs if r.judged]
    spread = spread_of(judged, bound.metric)
    if runs and all(r.metrics.get("verdict") == "unsupported" for r in runs):
        return "unsupported", spread, runs[0].why_not
    head, *reasons = coverage(runs, planned) or ("",)
    if not head and spread.count < len(judged):
        head, reasons = f"{spread.count} of {len(judged)} runs have {bound.metric}", []
    elif not head and spread.count < needed:
        head, reasons = f"{spread.count} of {needed} repetitions that the claim needs", []
    reason = f"{head}: {'; '.join(reasons)}" if reasons else head
    if not only_complete and spread.count and not _holds(spread, bound):
        return "fails", spread, reason
    return ("not judged" if reason else "holds"), spread, reason


def _compare(own: Part, runs_of: dict[str, list[Result]], bound: _Bound, planned: int, needed: int) -> Part:
    """`own`, of which only is known what was measured, judged by what the other mechanisms have."""
    judged = {name: _judge(runs, bound, planned, needed, only_complete=True) for name, runs in runs_of.items()}
    spreads = tuple((name, spread) for name, (_, spread, _) in judged.items())
    verdicts = [own.verdict, *(verdict for verdict, _, _ in judged.values())]
    reasons = [own.reason] + [f"{name}: {reason}" for name, (_, _, reason) in judged.items() if reason]
    verdict = min(verdicts, key=VERDICTS.index)
    if verdict == "holds":
        held = all(_holds(own.spread, replace(bound, value=bound.value * _figure(spread, bound))) for _, spread in spreads)
        verdict = "holds" if held else "fails"
    return replace(own, verdict=verdict, reason="; ".join(filter(None, reasons)), others=spreads)


def _figure(spread: Spread, bound: _Bound) -> float:
    """The figure of another mechanism that is the bound; a connection that never recovered has an endless gap.

    With "all" every repetition must be within the bound: the other's strictest one.
    """
    values = [*spread.values, *(math.inf for _ in spread.open_ends)]
    if bound.aggregate == "median":
        return statistics.median(values)
    strictest = min if bound.op == "<=" else max
    return {"max": max, "min": min, "all": strictest}[bound.aggregate](values)


def _holds(spread: Spread, bound: _Bound) -> bool:
    """Compare; where a connection did not recover there is no gap to compare, and nothing holds."""
    if spread.open_ends:
        return False
    compare, values = _COMPARE[bound.op], spread.values
    if bound.aggregate == "all":
        return all(compare(value, bound.value) for value in values)
    if bound.aggregate == "median":
        return compare(statistics.median(values), bound.value)
    return compare(max(values) if bound.aggregate == "max" else min(values), bound.value)


def spread_of(results: list[Result], metric: str) -> Spread:
    """A metric over judged runs; `metric` may be dotted (`voice.loss`, `stream.handovers.0.recovery_ms`)."""
    if metric in _GAPS:
        return gap_spread(results)
    values = (_lookup(r.metrics, metric) for r in results)
    return Spread(tuple(v for v in values if v is not None))


def _lookup(metrics: Json, name: str) -> float | None:
    value: Any = metrics
    for part in name.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (bool, int, float)) else None
