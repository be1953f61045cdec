"""What the commands that run experiments share: what is run, where, and what is made of it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from experiments import catalogue
from experiments.capsule import ROOT
from experiments.cli.guest import open_guest, print_times
from experiments.cli.options import profiles_option
from experiments.cli.terminal import ProgressObserver, QuietObserver
from experiments.guest.qemu import VIRTUAL_TIME
from experiments.mechanisms import REGISTRY
from experiments.model import Experiment
from experiments.places import Here, Place
from experiments.runner import Campaign

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-m", "--mechanism", "mechanism_names", multiple=True, help="Only this mechanism; may be repeated."),
    click.option("-s", "--scenario", "scenario_names", multiple=True, help="Only this scenario; may be repeated."),
    click.option("-w", "--workload", "workload_kind", help="Another workload than the experiment's own."),
    click.option(
        "-j",
        "--jobs",
        type=click.IntRange(1, 64),
        help="Runs at a time. Default: two for every CPU; one in guests, and where agents touch every packet.",
    ),
    click.option("--seed", type=click.IntRange(0, 2**31), help="Seed of the first repetition."),
    click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True),
    click.option("--json", "as_json", is_flag=True, help="As JSON on standard output."),
    profiles_option,
)


def campaign_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options that choose what of an experiment is run, and how."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose(
    experiment: str, *, scenarios: tuple[str, ...], mechanisms: tuple[str, ...], workload_kind: str | None
) -> Experiment:
    """The part of an experiment (a name or a Python file) that is wanted. Raises RoamlabError with the valid names."""
    wanted = catalogue.load(experiment).only(scenarios=scenarios, mechanisms=mechanisms)
    if workload_kind is None:
        return wanted
    return replace(wanted, workloads=tuple(replace(w, kind=workload_kind, name="", parameters={}) for w in wanted.workloads))


@dataclass(frozen=True)
class Plan:
    """How an experiment is run. `guest`: the flavour of guest, None natively."""

    experiment: Experiment
    guest: str | None
    repetitions: int
    seed: int
    same_seed: bool
    jobs: int | None
    results: Path
    as_json: bool
    busy_processes: int = 0

    def execute(self) -> Campaign:
        """Run it, showing the progress. Raises RoamlabError; an interruption ends the runs and is raised again."""
        planned = self.experiment.runs(repetitions=self.repetitions, seed=self.seed, same_seed=self.same_seed)
        with contextlib.ExitStack() as stack:
            guest = self.guest
            place: Place = Here() if guest is None else stack.enter_context(open_guest(guest, quiet=self.as_json))
            observer = QuietObserver() if self.as_json else stack.enter_context(ProgressObserver(len(list(planned))))
            campaign = Campaign(
                experiment=self.experiment,
                results=self.results,
                observer=observer,
                jobs=self.jobs or default_jobs(guest, self.experiment.mechanisms),
                repetitions=self.repetitions,
                seed=self.seed,
                same_seed=self.same_seed,
                busy_processes=self.busy_processes,
                command=["roamlab", *sys.argv[1:]],
                place=place,
            )
            campaign.execute()
        if guest is not None and not self.as_json:
            print_times(campaign.folder, campaign.states)
        return campaign


def default_jobs(guest: str | None, mechanisms: Sequence[str]) -> int:
    """Runs at a time: most native runs wait, others fill a CPU, as does a guest in virtual time; guests in real time disturb
    each other.
    """
    cpus = os.cpu_count() or 1
    if guest is not None:
        return cpus if guest == VIRTUAL_TIME else 1
    return 1 if any(REGISTRY[name].fills_cpu for name in mechanisms) else 2 * cpus


def analysis_command(*arguments: str | Path) -> list[str]:
    """The analysis of campaigns is another program: the two meet at the run directories."""
    return [sys.executable, "-P", "-m", "analysis", *map(str, arguments)]


def analyse(arguments: Sequence[str | Path]) -> int:
    """Run it in this terminal; its exit code."""
    return subprocess.run(analysis_command(*arguments), env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode


def make_report(campaign_file: Path, *, as_json: bool) -> int:
    """Analyse a campaign; prints matrix, claims and the report's path; 0 when every claim holds."""
    return analyse(["report", campaign_file.resolve(), *(["--json"] if as_json else [])])
