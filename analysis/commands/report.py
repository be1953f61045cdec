"""`python -m analysis report`: judge a campaign's claims, write its report, say the essential in the terminal.

Exit codes: 0 every claim holds or is unsupported, 1 a claim does not hold or a run failed.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.claims import Claim, Part, evaluate_claims
from analysis.report import summary_sentence, write_report
from analysis.results import Cell, Result, Row, build_matrix, load_results
from analysis.rundir import Campaign, load_campaign

COLOURS = {
    "survived": "green", "holds": "green", "broken": "red", "fails": "red", "failed": "red", "mixed": "yellow",
    "not judged": "yellow", "interrupted": "yellow", "unsupported": "dim", "no run": "dim",
}  # fmt: skip
_NO_BREAK = "\u00a0"
_PARTS_SHOWN = 3
"""Of more cells than this the terminal names the smallest and the largest; the report has all."""


def report(path: Path, out: Path | None, as_json: bool, refresh: bool) -> int:
    """Do it; returns the exit code. Raises InputError."""
    campaign = load_campaign(path)
    results = load_results(campaign, refresh)
    matrix = build_matrix(campaign, results)
    claims = evaluate_claims(campaign, results)
    target = (out or campaign.path.with_suffix(".html")).resolve()
    write_report(campaign, results, matrix, claims, target)
    code = exit_code(results, claims)
    if as_json:
        print(json.dumps(_document(campaign, results, matrix, claims, target, code), indent=1))
    else:
        _print(campaign, matrix, claims, results, target)
    return code


def exit_code(results: list[Result], claims: list[Claim]) -> int:
    """0 when every claim holds or is unsupported and no run failed, else 1."""
    failed = any(r.metrics.get("verdict") in ("failed", "interrupted") for r in results)
    return int(failed or any(claim.verdict not in ("holds", "unsupported") for claim in claims))


def _print(campaign: Campaign, matrix: list[Row], claims: list[Claim], results: list[Result], target: Path) -> None:
    console = Console(highlight=False)
    table = Table(title=escape(campaign.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for _, label in campaign.scenarios:
        table.add_column(escape(label), overflow="fold", vertical="bottom")
    for row in matrix:
        table.add_row(escape(row.label), *(_cell_text(cell) for cell in row.cells))
    console.print(table)
    console.print("[dim]✓ survived, ✗ broken; the figure is the handover gap, the longest time without new bytes.[/]\n")
    listing = Table.grid(padding=(0, 2, 0, 0))
    for claim in claims:
        listing.add_row(f"[{COLOURS[claim.verdict]}]{claim.verdict}[/]", escape(claim.text))
        for line in _measured(claim):
            listing.add_row("", f"[dim]{escape(line)}[/]")
    console.print(listing)
    console.print()
    console.print(escape(summary_sentence(results, claims)))
    print(target)


def _cell_text(cell: Cell) -> str:
    colour = "yellow" if cell.broke else COLOURS[cell.verdict]
    if not cell.spread.count:
        return f"[{colour}]{escape(f'{cell.symbol} {cell.word}')}[/]"
    words = cell.symbol if cell.verdict in ("survived", "broken") else f"{cell.symbol} {cell.word}"
    spread = cell.spread.spread_text("ms")
    median = cell.spread.median_text("ms").replace(" ", _NO_BREAK)
    return f"[{colour}]{words}{_NO_BREAK}{escape(median)}[/]" + (f"\n[dim]{escape(spread)}[/]" if spread else "")


def _measured(claim: Claim) -> list[str]:
    """What was measured, in a line or two; then every part that has no verdict, with its reason."""
    lines = []
    counted = [part for part in claim.parts if part.spread.count]
    if claim.same_everywhere:
        lines.append(f"{claim.same_everywhere} (asked: {claim.bound_text})")
    elif counted:
        medians = [f"{part.spread.median_text(claim.unit)} ({_place(part)})" for part in counted]
        if claim.yes_or_no:
            medians = [f"{sum(part.spread.values):.0f} of {part.spread.count} yes ({_place(part)})" for part in counted]
        if len(medians) > _PARTS_SHOWN and not any(part.spread.open_ends for part in counted):
            ordered = sorted(counted, key=lambda part: statistics.median(part.spread.values))
            ends = [f"{part.spread.median_text(claim.unit)} ({_place(part)})" for part in (ordered[0], ordered[-1])]
            medians = [f"{len(counted)} medians from {ends[0]} to {ends[1]}"]
        lines.append(f"{', '.join(medians)}; asked: {claim.bound_text}")
        lines += [f"{part.others_text(claim.unit)} ({_place(part)})" for part in counted if part.others]
    silent: dict[str, list[str]] = {}
    for part in claim.parts:
        if part.reason:
            silent.setdefault(part.reason, []).append(_place(part))
    return lines + [f"{'; '.join(places)}: {reason}" for reason, places in silent.items()]


def _place(part: Part) -> str:
    return f"{part.mechanism}{part.workload_label and f' · {part.workload_label}'}, {part.scenario}"


def _document(
    campaign: Campaign, results: list[Result], matrix: list[Row], claims: list[Claim], target: Path, code: int
) -> dict[str, Any]:
    """Everything the report judges, as data."""
    return {
        "campaign": campaign.name,
        "experiment": campaign.experiment,
        "report": os.fspath(target),
        "exit_code": code,
        "matrix": [
            {
                "mechanism": cell.mechanism,
                "scenario": cell.scenario,
                "workload": cell.workload,
                "verdict": cell.verdict,
                "survived": cell.survived,
                "judged": cell.judged,
                "gap_ms": list(cell.spread.values),
                "gap_at_least_ms": list(cell.spread.open_ends),
                "reasons": list(cell.reasons),
            }
            for row in matrix
            for cell in row.cells
        ],
        "claims": [
            {
                "id": claim.id,
                "verdict": claim.verdict,
                "metric": claim.metric,
                "bound": claim.bound_text,
                "published": claim.published,
                "parts": [
                    {
                        "mechanism": part.mechanism,
                        "scenario": part.scenario,
                        "workload": part.workload,
                        "verdict": part.verdict,
                        "values": list(part.spread.values),
                        "open_ends": list(part.spread.open_ends),
                        "median": None
                        if part.spread.open_ends or not part.spread.values
                        else statistics.median(part.spread.values),
                        "reason": part.reason or None,
                        "others": {name: list(spread.values) for name, spread in part.others},
                    }
                    for part in claim.parts
                ],
            }
            for claim in claims
        ],
        "runs": [{"run_id": r.run_id, "verdict": r.metrics.get("verdict"), "why_not": r.why_not or None} for r in results],
    }
