"""`python -m analysis repeatability`: the spread of each metric in two campaigns, side by side.

Exit codes: 0 every figure of the judged campaign repeats, 1 one does not or could not be judged.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.files import write_atomically
from analysis.repeatability import (
    GAP,
    REFERENCE_SHARE,
    TOLERANCE_MS,
    TOLERANCE_SHARE,
    Repeatability,
    Row,
    Side,
    compare_campaigns,
)
from analysis.results import Spread, number_text
from analysis.rundir import Json, load_campaign

_COLOURS = {"holds": "green", "fails": "red", "not judged": "yellow"}


def repeatability(paths: tuple[Path, Path], markdown: Path | None, as_json: bool, every_metric: bool, refresh: bool) -> int:
    """Do it; returns the exit code. Raises InputError."""
    first, second = (load_campaign(path) for path in paths)
    found = compare_campaigns(first, second, refresh)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(markdown, page(found))
    if as_json:
        print(json.dumps(document(found), indent=1))
    else:
        _print(found, every_metric)
    return 0 if found.verdict == "holds" else 1


# -- words --------------------------------------------------------------------------------------------------------------


def shown_rows(found: Repeatability, every_metric: bool) -> list[Row]:
    """The rows of a table: the main metrics, and whatever does not hold; or all."""
    return [row for row in found.rows if every_metric or row.main or row.verdict == "fails"]


def side_names(found: Repeatability) -> tuple[str, str]:
    """What the two campaigns are called: "native" and "guest", with a number when both are the same."""
    old, new = found.reference.name, found.judged.name
    return (old, new) if old != new else (f"{old} 1", f"{new} 2")


def row_texts(row: Row) -> list[str]:
    """Metric, median and spread on both sides, ratio, tolerance; in the unit that the metric's name ends with."""
    return [
        row.metric,
        row.reference.median_text(),
        row.reference.width_text() or "–",
        row.judged.median_text(),
        row.judged.width_text() or "–",
        "–" if row.ratio is None or math.isnan(row.ratio) else number_text(row.ratio),
        "–" if row.tolerance is None else number_text(row.tolerance),
    ]


def place_text(found: Repeatability, row: Row) -> str:
    """Scenario and mechanism of a row; the workload where there are several."""
    several = len({each.workload for each in found.rows}) > 1
    return f"{row.scenario} · {row.mechanism}" + (f" · {row.workload}" if several else "")


def side_text(side: Side) -> str:
    """A campaign in one sentence: where and when it ran, seeds, load, how many of its runs are measurements."""
    manifest = side.runs[0].manifest if side.runs else {}
    guest = manifest.get("guest") or {}
    where = f"{guest.get('flavour')}, QEMU {guest.get('qemu')}, " if guest else ""
    busy = side.campaign.data.get("busy_processes") or 0
    load = f"beside {busy} processes that keep the processors busy" if busy else "with no load of its own"
    seeds = f"seed{'s' if len(side.seeds) > 1 else ''} {', '.join(map(str, side.seeds))}"
    return (
        f"{where}Linux {manifest.get('kernel')}, {manifest.get('machine')}; {side.campaign.repetitions} repetitions with "
        f"{seeds}, {load}; {side.judged} of {len(side.results)} runs are measurements (campaign {side.campaign.name})"
    )


def sentences(found: Repeatability) -> list[str]:
    """What the table shows, in words."""
    old, new = side_names(found)
    within = sum(row.verdict == "holds" for row in found.rows)
    gaps = [row for row in found.rows if row.metric == GAP]
    held = sum(row.verdict == "holds" for row in gaps)
    out = [
        f"{within} of {len(found.rows)} figures ({new}) repeat within {TOLERANCE_MS:g} ms or "
        f"{TOLERANCE_SHARE:.0%}, whichever is larger.",
        f"{held} of {len(gaps)} handover gaps do so with at most {REFERENCE_SHARE:.0%} of the spread that they have in the "
        f"other campaign ({old}).",
    ]
    return [*out, _packets_sentence(found)]


def _packets_sentence(found: Repeatability) -> str:
    if not found.compared:
        why = "in real time" if found.judged.flavour != "virtual-time" else "no two complete runs of one seed"
        return f"Packets and decisions of repetitions were not compared one by one: {why}."
    if not found.deviations:
        return (
            f"Every packet, event and decision is the same in all repetitions of a run, to the nanosecond ({found.compared} "
            "pairs of runs in virtual time)."
        )
    return f"{len(found.deviations)} of {found.compared} pairs of runs in virtual time are not the same; the first difference:"


def deviation_texts(found: Repeatability) -> list[str]:
    """The first differing event of each pair of runs that should be the same."""
    return [f"{d.first.run_id} and {d.second.run_id}: {d.difference.text()}" for d in found.deviations]


# -- forms --------------------------------------------------------------------------------------------------------------


def _print(found: Repeatability, every_metric: bool) -> None:
    console = Console(highlight=False)
    old, new = side_names(found)
    title = f"Repeatability: {found.judged.campaign.title}"
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for column in (old, "spread", new, "spread", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("", no_wrap=True)
    last = ""
    for row in shown_rows(found, every_metric):
        place = place_text(found, row)
        if place != last:
            table.add_row(f"[bold]{escape(place)}[/]")
            last = place
        *figures, _ = row_texts(row)  # what is allowed the last lines say
        table.add_row(*(escape(text) for text in figures), f"[{_COLOURS[row.verdict]}]{row.verdict}[/]")
        if row.reason:
            table.add_row(f"[dim]  {escape(row.reason)}[/]")
    console.print(table)
    console.print(f"[dim]Medians of the repetitions; spread: largest less smallest. Ratio: {new} to {old}.[/]")
    for name, side in ((old, found.reference), (new, found.judged)):
        console.print(escape(f"{name}: {side_text(side)}."))
    for text in sentences(found) + deviation_texts(found):
        console.print(escape(text))


def page(found: Repeatability) -> str:
    """The comparison as a page, with the commands that make it and the machine that it is about."""
    sides = found.reference, found.judged
    commands = dict.fromkeys(
        shlex.join(map(str, side.campaign.data["command"])) for side in sides if side.campaign.data.get("command")
    )
    old, new = side_names(found)
    lines = [
        f"# Repeatability of {found.judged.campaign.experiment}",
        "",
        f"Made by {' and '.join(f'`{command}`' for command in commands)}.",
        "Spread: largest less smallest value of all repetitions. Ratio: spread in the second campaign over the first one's.",
        "Allowed: the tolerance; a handover gap (`gap_ms`) must besides have at most a tenth of the other spread.",
        "",
        *(f"* **{name}**: {side_text(side)}" for name, side in zip((old, new), sides, strict=True)),
        "",
        *sentences(found),
        *(f"* {text}" for text in deviation_texts(found)),
        "",
        f"| run | metric | {old} median | {old} spread | {new} median | {new} spread | ratio | allowed | verdict |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in shown_rows(found, False):
        verdict = row.verdict + (f": {row.reason}" if row.reason else "")
        lines.append(f"| {' | '.join(_cells([place_text(found, row), *row_texts(row), verdict]))} |")
    return "\n".join(lines) + "\n"


def _cells(texts: Iterable[str]) -> list[str]:
    return [text.replace("|", "\\|") for text in texts]


def document(found: Repeatability) -> Json:
    """Everything that was compared, as data; all metrics."""
    return {
        "verdict": found.verdict,
        "tolerance_ms": TOLERANCE_MS,
        "tolerance_share": TOLERANCE_SHARE,
        "gap_reference_share": REFERENCE_SHARE,
        "sides": [
            {
                "name": side.name,
                "flavour": side.flavour,
                "campaign": os.fspath(side.campaign.path),
                "repetitions": side.campaign.repetitions,
                "seeds": list(side.seeds),
                "busy_processes": side.campaign.data.get("busy_processes"),
                "runs": len(side.results),
                "judged": side.judged,
            }
            for side in (found.reference, found.judged)
        ],
        "rows": [
            {
                "scenario": row.scenario,
                "mechanism": row.mechanism,
                "workload": row.workload,
                "metric": row.metric,
                "reference": _figures(row.reference),
                "judged": _figures(row.judged),
                "ratio": _finite(row.ratio),
                "tolerance": row.tolerance,
                "verdict": row.verdict,
                "reason": row.reason or None,
            }
            for row in found.rows
        ],
        "compared": found.compared,
        "differences": [
            {
                "runs": [deviation.first.run_id, deviation.second.run_id],
                "at_s": deviation.difference.at_s,
                "file": deviation.difference.file,
                "what": deviation.difference.what,
                "first": deviation.difference.first,
                "second": deviation.difference.second,
            }
            for deviation in found.deviations
        ],
    }


def _figures(spread: Spread) -> Json:
    known = spread.values and not spread.open_ends
    return {
        "values": list(spread.values),
        "open_ends": list(spread.open_ends),
        "median": statistics.median(spread.values) if known else None,
        "spread": _finite(spread.width),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
