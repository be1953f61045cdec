"""`roamlab run`: execute an experiment and report."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click

from experiments import catalogue
from experiments.capsule import ROOT
from experiments.cli.guest import guest_option, open_guest, print_times
from experiments.cli.options import profiles_option
from experiments.cli.terminal import ProgressObserver, QuietObserver, console
from experiments.errors import RoamlabError
from experiments.guest.qemu import VIRTUAL_TIME
from experiments.places import Here, Place
from experiments.runner import Campaign


def report_command(campaign_file: Path, *, as_json: bool) -> list[str]:
    """The analysis of a campaign is another program: the two meet at the run directories."""
    return [sys.executable, "-P", "-m", "analysis", "report", str(campaign_file.resolve()), *(["--json"] if as_json else [])]


def make_report(campaign_file: Path, *, as_json: bool) -> int:
    """Analyse a campaign; prints matrix, claims and the report's path; 0 when every claim holds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(report_command(campaign_file, as_json=as_json), env=environment).returncode


def default_jobs(guest: str | None) -> int:
    """Runs at a time: native runs mostly wait, a guest in virtual time fills a CPU, guests in real time disturb each other."""
    cpus = os.cpu_count() or 1
    return 2 * cpus if guest is None else cpus if guest == VIRTUAL_TIME else 1


@click.command(short_help="Run an experiment and report.")
@click.argument("experiment")
@click.option("-m", "--mechanism", "mechanism_names", multiple=True, help="Only this mechanism; may be repeated.")
@click.option("-s", "--scenario", "scenario_names", multiple=True, help="Only this scenario; may be repeated.")
@click.option("-w", "--workload", "workload_kind", help="Another workload than the experiment's own.")
@click.option("-n", "--repeat", type=click.IntRange(1, 1000), help="Repetitions of every cell (seed, seed + 1, ...).")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), help="Runs at a time. Default: two for every CPU, one in guests.")
@click.option("--seed", type=click.IntRange(0, 2**31), help="Seed of the first repetition.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Verdicts and metrics as JSON on standard output.")
@profiles_option
@guest_option
@click.option("--no-report", is_flag=True, help="Only run; analyse later with `roamlab report`.")
def run(
    experiment: str,
    mechanism_names: tuple[str, ...],
    scenario_names: tuple[str, ...],
    workload_kind: str | None,
    repeat: int | None,
    jobs: int | None,
    seed: int | None,
    results: Path,
    as_json: bool,
    guest: str | None,
    no_report: bool,
) -> int:
    """Run EXPERIMENT (a name of `roamlab list`, or a Python file of your own) and report.

    Exit code 0: every run is complete and every claim holds (or is unsupported here); 1: otherwise.
    """
    wanted = catalogue.load(experiment).only(scenarios=scenario_names, mechanisms=mechanism_names)
    if workload_kind is not None:
        wanted = replace(
            wanted, workloads=tuple(replace(w, kind=workload_kind, name="", parameters={}) for w in wanted.workloads)
        )
    repetitions = repeat or wanted.repetitions
    first_seed = wanted.seed if seed is None else seed
    total = len(list(wanted.runs(repetitions=repetitions, seed=first_seed)))
    with contextlib.ExitStack() as stack:
        place: Place = Here() if guest is None else stack.enter_context(open_guest(guest, quiet=as_json))
        observer = QuietObserver() if as_json else stack.enter_context(ProgressObserver(total))
        campaign = Campaign(
            experiment=wanted,
            results=results,
            observer=observer,
            jobs=jobs or default_jobs(guest),
            repetitions=repetitions,
            seed=first_seed,
            command=["roamlab", *sys.argv[1:]],
            place=place,
        )
        campaign_file = campaign.execute()
    if guest is not None and not as_json:
        print_times(campaign_file.parent, campaign.states)
    failed = [run_id for run_id, state in campaign.states.items() if state in ("failed", "interrupted")]
    if no_report:
        if not as_json:
            console.print(f"campaign: {campaign_file}")
        return 1 if failed else 0
    code = make_report(campaign_file, as_json=as_json)
    if code not in (0, 1):
        raise RoamlabError(f"the analysis ended with exit code {code}; run `roamlab report {campaign_file}` to try again")
    return 1 if failed else code
