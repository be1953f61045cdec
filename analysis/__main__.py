"""Command line: `python -m analysis metrics RUN_DIR...` and `python -m analysis report CAMPAIGN.json`.

Exit codes: 0 every claim holds or is unsupported, 1 a claim does not hold or a run failed, 2 the input is unusable.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.claims import Claim, evaluate_claims
from analysis.metrics import measure
from analysis.report import summary_sentence, write_report
from analysis.results import Cell, Result, build_matrix, load_results
from analysis.rundir import Campaign, InputError, load_campaign

COLOURS = {
    "survived": "green", "holds": "green", "broken": "red", "fails": "red", "failed": "red", "mixed": "yellow",
    "not judged": "yellow", "interrupted": "yellow", "unsupported": "dim", "no run": "dim",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Run directories to metrics and reports.")
    commands = parser.add_subparsers(dest="command", required=True)
    metrics = commands.add_parser("metrics", help="compute metrics.json of runs, print one JSON line per run")
    metrics.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    report = commands.add_parser("report", help="judge a campaign's claims and write its report")
    report.add_argument("campaign", type=Path, metavar="CAMPAIGN.json")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="where to write the report (default: beside it)")
    report.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    report.add_argument("--refresh", action="store_true", help="compute metrics again that exist already")
    options = parser.parse_args(arguments)
    try:
        if options.command == "metrics":
            return _metrics(options.runs)
        return _report(options.campaign, options.out, options.json, options.refresh)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _metrics(paths: list[Path]) -> int:
    """Compute and print; a directory that cannot be used does not keep the others from being measured."""
    code = 0
    for path in paths:
        try:
            metrics, _ = measure(path, refresh=True)
        except InputError as error:
            print(error, file=sys.stderr)
            code = 2
            continue
        print(json.dumps(metrics), flush=True)
        if metrics["verdict"] in ("failed", "interrupted"):
            code = max(code, 1)
    return code


def _report(path: Path, out: Path | None, as_json: bool, refresh: bool) -> int:
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


def _print(
    campaign: Campaign, matrix: list[list[Cell]], claims: list[Claim], results: list[Result], target: Path
) -> None:
    console = Console()
    table = Table(title=campaign.title, show_lines=True)
    table.add_column("mechanism")
    for _, label in campaign.scenarios:
        table.add_column(escape(label))
    for (_, label), row in zip(campaign.mechanisms, matrix, strict=True):
        table.add_row(escape(label), *(_cell_text(cell) for cell in row))
    console.print(table)
    if claims:
        listing = Table(title="claims", show_lines=True, expand=True)
        listing.add_column("verdict", no_wrap=True)
        for name, ratio in (("claim", 4), ("measured", 5), ("bound", 3), ("published", 2)):
            listing.add_column(name, ratio=ratio)
        for claim in claims:
            colour = COLOURS[claim.verdict]
            listing.add_row(
                f"[{colour}]{claim.verdict}[/]", escape(claim.text), escape(_measured(claim)),
                escape(claim.bound_text), escape(claim.published or ""),
            )  # fmt: skip
        console.print(listing)
    console.print(escape(summary_sentence(results, claims)))
    print(target)


def _cell_text(cell: Cell) -> str:
    colour = COLOURS[cell.verdict]
    lines = [f"[{colour}]{escape(f'{cell.symbol} {cell.word}')}[/]"]
    if cell.spread.count:
        spread = cell.spread.range_text("ms")
        lines.append(escape(cell.spread.median_text("ms")) + (f" [dim]({escape(spread)})[/]" if spread else ""))
    if cell.detail:
        lines.append(f"[dim]{escape(cell.detail)}[/]")
    return "\n".join(lines)


def _measured(claim: Claim) -> str:
    """Medians of the parts, one line each."""
    if claim.same_everywhere:
        return claim.same_everywhere
    lines = []
    for part in claim.parts:
        head = f"{part.mechanism}, {part.scenario}: " if len(claim.parts) > 1 else ""
        if claim.yes_or_no and part.spread.count:
            text = f"{sum(part.spread.values):.0f} of {part.spread.count} yes"
        else:
            text = part.spread.median_text(claim.unit) if part.spread.count else ""
        lines.append(head + " ".join(filter(None, (text, part.reason))))
    return "\n".join(lines)


def _document(
    campaign: Campaign, results: list[Result], matrix: list[list[Cell]], claims: list[Claim], target: Path, code: int
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
                "verdict": cell.verdict,
                "survived": cell.survived,
                "judged": cell.judged,
                "gap_ms": list(cell.spread.values),
                "gap_at_least_ms": list(cell.spread.open_ends),
                "reasons": list(cell.reasons),
            }
            for row in matrix
            for cell in row
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
                        "verdict": part.verdict,
                        "values": list(part.spread.values),
                        "open_ends": list(part.spread.open_ends),
                        "median": None
                        if part.spread.open_ends or not part.spread.values
                        else statistics.median(part.spread.values),
                        "reason": part.reason or None,
                    }
                    for part in claim.parts
                ],
            }
            for claim in claims
        ],
        "runs": [{"run_id": r.run_id, "verdict": r.metrics.get("verdict"), "why_not": r.why_not or None} for r in results],
    }


if __name__ == "__main__":
    sys.exit(main())
