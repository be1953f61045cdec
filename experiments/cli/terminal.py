"""How the command line looks: one console, tables and the progress of a campaign."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.model import RECOVERY_LIMIT_S, RunSpec

console = Console(highlight=False)
_MARKS = {"complete": "[green]✓[/]", "unsupported": "[yellow]–[/]", "failed": "[red]✗[/]", "interrupted": "[red]![/]"}


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    json.dump(data, sys.stdout, indent=1)
    sys.stdout.write("\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal."""
    view = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*row)
    console.print(view)


class QuietObserver:
    """JSON lines on standard error: progress for machines."""

    def run_started(self, spec: RunSpec) -> None:
        """One line."""
        self._say("started", spec)

    def run_progress(self, spec: RunSpec, report: Mapping[str, Any]) -> None:
        """Nothing: machines want results."""

    def run_ended(self, spec: RunSpec, state: str, reason: str | None) -> None:
        """One line."""
        self._say("ended", spec, state=state, reason=reason)

    @staticmethod
    def _say(what: str, spec: RunSpec, **fields: Any) -> None:
        print(json.dumps({"run": what, "name": spec.slug, **fields}), file=sys.stderr, flush=True)


class ProgressObserver:
    """A bar for the campaign and one for every active run; a line for every run that has ended."""

    def __init__(self, total_runs: int) -> None:
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self.whole = self.progress.add_task("runs", total=total_runs, note=f"0/{total_runs}")
        self.total, self.done = total_runs, 0
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressObserver":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def run_started(self, spec: RunSpec) -> None:
        """A new bar."""
        self.tasks[spec.slug] = self.progress.add_task(
            f"  {spec.scenario.name} · {spec.mechanism}", total=spec.scenario.last_s, note="starting"
        )

    def run_progress(self, spec: RunSpec, report: Mapping[str, Any]) -> None:
        """The bar follows the scenario's time; the note says what happens."""
        task, phase = self.tasks[spec.slug], report.get("phase")
        if phase == "event":
            self.progress.update(task, note=f"{report.get('kind')} {report.get('target')}")
        elif phase == "running":
            t_s, total_s = (
                float(report.get("t_s", 0)),
                self.progress.tasks[self.progress.task_ids.index(task)].total or 1,
            )
            note = f"{report.get('bytes', 0) / 1e6:.1f} MB"
            if t_s > total_s + 1:
                note = f"waiting for recovery, at most {RECOVERY_LIMIT_S:.0f} s"
            self.progress.update(task, completed=min(t_s, total_s), note=note)
        else:
            self.progress.update(task, note=str(phase))
        if "guest_s" in report:  # beside the wall time that the bar shows anyway
            shown = self.progress.tasks[self.progress.task_ids.index(task)].fields["note"]
            self.progress.update(task, note=f"{shown} · guest {report['guest_s']:.1f} s, wall")

    def run_ended(self, spec: RunSpec, state: str, reason: str | None) -> None:
        """A lasting line above the bars."""
        self.progress.remove_task(self.tasks.pop(spec.slug))
        self.done += 1
        self.progress.update(self.whole, completed=self.done, note=f"{self.done}/{self.total}")
        text = f"{_MARKS.get(state, '?')} {spec.scenario.name} · {spec.mechanism} · {spec.workload.kind} · seed {spec.seed}"
        console.print(text + (f"  [red]{state}: {reason}[/]" if reason else ""))
