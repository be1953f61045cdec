"""All runs of a campaign with their metrics, and the words and numbers by which tables show them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from analysis.metrics import measure
from analysis.parallel import map_parallel
from analysis.rundir import Campaign, Json, Run, load_run
from analysis.series import Series


@dataclass(frozen=True)
class Result:
    """A run of a campaign. `run` is None when its folder is missing or unfinished; `metrics` then says why."""

    run_id: str
    run: Run | None
    metrics: Json
    series: Series | None

    @property
    def judged(self) -> bool:
        """The run counts as a measurement."""
        return bool(self.metrics.get("judged"))

    @property
    def why_not(self) -> str:
        """Why the run is no measurement, or "" when it is one."""
        return "" if self.judged else str(self.metrics.get("why_not") or "")


def load_results(campaign: Campaign, refresh: bool = False) -> list[Result]:
    """Measure every run of the campaign, side by side on the machine's processors. Raises InputError."""
    paths = [campaign.run_path(run_id) for run_id in campaign.runs]
    return map_parallel(_result, paths, [refresh] * len(paths))


def _result(path: Path, refresh: bool) -> Result:
    if not path.exists():
        partial = path.with_name(path.name + ".partial").exists()
        why = "unfinished" if partial else "the run directory is missing"
        verdict = "interrupted" if partial else "failed"
        return Result(path.name, None, {"verdict": verdict, "judged": False, "why_not": why}, None)
    metrics, series = measure(path, refresh)
    return Result(path.name, load_run(path), metrics, series)


def seconds_text(at_least_ms: float) -> str:
    """An interval that only has a lower bound, e.g. "> 30 s"."""
    seconds = at_least_ms / 1e3
    return f"> {int(seconds + 1e-6)} s" if seconds >= 10 else f"> {int(seconds * 10 + 1e-6) / 10:.1f} s"


def number_text(value: float, unit: str = "") -> str:
    """Three significant digits, hundreds and more kept whole: 0.07, 412, 4400; from 10 s on, ms are shown as s."""
    if unit == "ms" and abs(value) >= 10_000:
        return f"{value / 1e3:.3g} s"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


@dataclass(frozen=True)
class Spread:
    """A metric over repetitions. `open_ends`: lower bounds of those without a number, never averaged."""

    values: tuple[float, ...]
    open_ends: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        """Number of repetitions."""
        return len(self.values) + len(self.open_ends)

    def median_text(self, unit: str = "") -> str:
        """The median, or the open end as soon as there is one."""
        if self.open_ends:
            text = seconds_text(min(self.open_ends))
            return f"{text} in {len(self.open_ends)} of {self.count}" if self.values else text
        return number_text(statistics.median(self.values), unit) if self.values else "–"

    @property
    def width(self) -> float | None:
        """Largest less smallest: the spread. None below two repetitions; infinite when only some have a number."""
        if self.count < 2:
            return None
        if self.values and self.open_ends:
            return math.inf
        numbers = self.values or self.open_ends
        return max(numbers) - min(numbers)

    def width_text(self, unit: str = "") -> str:
        """The spread, "" for a single value."""
        if self.width is None:
            return ""
        return "not all recovered" if math.isinf(self.width) else number_text(self.width, unit)

    def range_text(self, unit: str = "") -> str:
        """Smallest to largest, "" for a single value."""
        if self.count < 2 or not self.values:
            return ""
        low = number_text(min(self.values), unit)
        high = seconds_text(max(self.open_ends)) if self.open_ends else number_text(max(self.values), unit)
        shared = unit and high.endswith(f" {unit}")
        return f"{low.removesuffix(f' {unit}') if shared else low} … {high}"

    def spread_text(self, unit: str = "") -> str:
        """Smallest to largest with their difference: "399 … 401 ms, spread 2 ms"; "" for a single value."""
        text = self.range_text(unit)
        return f"{text}, spread {number_text(self.width or 0, unit)}" if text and not self.open_ends else text


def gap_spread(results: Iterable[Result]) -> Spread:
    """Gaps of judged runs in ms."""
    gaps, ends = [], []
    for result in results:
        value, bound = result.metrics.get("gap_ms"), result.metrics.get("gap_at_least_ms")
        if value is not None:
            gaps.append(float(value))
        elif bound is not None:
            ends.append(float(bound))
    return Spread(tuple(gaps), tuple(ends))


WORDS = {
    "survived": ("✓", "survived"),
    "broken": ("✗", "broken"),
    "mixed": ("◐", "mixed"),
    "unsupported": ("–", "unsupported"),
    "not judged": ("?", "not judged"),
    "failed": ("!", "failed"),
    "interrupted": ("!", "interrupted"),
    "no run": ("·", "no run"),
}
"""Symbol and word of every verdict: colour is never the only carrier."""


BREAK_MS = 1000.0
"""From this gap on a survived outage is shown as a break: a second without a response interrupts a person's flow of
thought (J. Nielsen, Usability Engineering, 1993, section 5.5)."""


@dataclass(frozen=True)
class Cell:
    """One field of the matrix: a mechanism in a scenario with a workload, over all repetitions."""

    mechanism: str
    scenario: str
    workload: str
    verdict: str
    spread: Spread
    survived: int
    judged: int
    reasons: tuple[str, ...]
    results: tuple[Result, ...] = field(repr=False)

    @property
    def broke(self) -> bool:
        """Every repetition survived, but in at least one the application noticed."""
        return self.verdict == "survived" and max(self.spread.values, default=0.0) >= BREAK_MS

    @property
    def symbol(self) -> str:
        """Sign of the verdict."""
        return WORDS[self.verdict][0]

    @property
    def word(self) -> str:
        """Verdict, with numbers when repetitions differ."""
        if self.verdict == "mixed":
            return f"survived {self.survived} of {self.judged}"
        if self.broke:
            return "survived after a break"
        return WORDS[self.verdict][1]

    @property
    def detail(self) -> str:
        """Why there is no verdict, or what stands beside it."""
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Row:
    """One row of the matrix. `label` names the workload only where the campaign has several."""

    mechanism: str
    workload: str
    label: str
    cells: tuple[Cell, ...]


def workloads_of(campaign: Campaign, results: list[Result]) -> dict[str, str]:
    """Names and labels of a campaign's workloads: those its file lists, then any that only the runs know."""
    seen = {r.run.workload: r.run.workload_label for r in results if r.run}
    return dict(campaign.workloads) | {name: label for name, label in seen.items() if name not in dict(campaign.workloads)}


def build_matrix(campaign: Campaign, results: list[Result]) -> list[Row]:
    """Rows: mechanisms, for one workload after the other; columns: scenarios; all in the order of the campaign file."""
    workloads = workloads_of(campaign, results) or {"": ""}
    return [
        Row(
            mechanism,
            workload,
            f"{label} · {workload_label}" if len(workloads) > 1 else label,
            tuple(
                _cell(mechanism, scenario, workload, select(results, mechanism, scenario, workload), campaign.repetitions)
                for scenario, _ in campaign.scenarios
            ),
        )
        for workload, workload_label in workloads.items()
        for mechanism, label in campaign.mechanisms
    ]


def select(results: list[Result], mechanism: str, scenario: str, workload: str) -> list[Result]:
    """The repetitions of one combination."""
    wanted = mechanism, scenario, workload
    return [r for r in results if r.run and (r.run.mechanism, r.run.scenario, r.run.workload) == wanted]


def coverage(results: list[Result], planned: int) -> tuple[str, ...]:
    """What keeps the judged runs from being all that was planned: "2 of 3 runs judged", then why; () when they are."""
    total = max(planned, len(results))
    judged = sum(r.judged for r in results)
    if judged == total:
        return ()
    reasons = dict.fromkeys(r.why_not for r in results if r.why_not)
    missing = total - len(results)
    if missing:
        reasons["there is no such run" if not results else f"{missing} {'run is' if missing == 1 else 'runs are'} missing"] = (
            None
        )
    return f"{judged} of {total} runs judged", *reasons


def _cell(mechanism: str, scenario: str, workload: str, results: list[Result], planned: int) -> Cell:
    judged = [r for r in results if r.judged]
    survived = sum(bool(r.metrics.get("survived")) for r in judged)
    verdicts = [str(r.metrics.get("verdict")) for r in results]
    if "failed" in verdicts or "interrupted" in verdicts:
        verdict = "failed" if "failed" in verdicts else "interrupted"
    elif judged:
        verdict = "survived" if survived == len(judged) else "broken" if not survived else "mixed"
    elif not results:
        verdict = "no run"
    else:
        verdict = "unsupported" if "unsupported" in verdicts else "not judged"
    reasons = coverage(results, planned)
    if not judged:
        reasons = reasons[1:] if results else ()
    remarks = dict.fromkeys(str(r.metrics["remark"]) for r in judged if r.metrics.get("remark"))
    spread = gap_spread(judged)
    return Cell(mechanism, scenario, workload, verdict, spread, survived, len(judged), (*reasons, *remarks), tuple(results))
