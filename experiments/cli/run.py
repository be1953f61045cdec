"""`roamlab run`: execute an experiment and report."""

from pathlib import Path

import click

from experiments.cli.campaigns import Plan, campaign_options, choose, make_report
from experiments.cli.guest import WithGuest, guest_option
from experiments.cli.terminal import console
from experiments.errors import RoamlabError


@click.command(cls=WithGuest, short_help="Run an experiment and report.")
@click.argument("experiment")
@click.option("-n", "--repeat", type=click.IntRange(1, 1000), help="Repetitions of every cell (seed, seed + 1, ...).")
@click.option("--same-seed", is_flag=True, help="Every repetition has the same seed: what differs then is not chance.")
@campaign_options
@guest_option
@click.option("--no-report", is_flag=True, help="Only run; analyse later with `roamlab report`.")
def run(
    experiment: str,
    repeat: int | None,
    same_seed: bool,
    mechanism_names: tuple[str, ...],
    scenario_names: tuple[str, ...],
    workload_kind: str | None,
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
    wanted = choose(experiment, scenarios=scenario_names, mechanisms=mechanism_names, workload_kind=workload_kind)
    plan = Plan(
        experiment=wanted,
        guest=guest,
        repetitions=repeat or wanted.repetitions,
        seed=wanted.seed if seed is None else seed,
        same_seed=same_seed,
        jobs=jobs,
        results=results,
        as_json=as_json,
    )
    campaign = plan.execute()
    if no_report:
        if not as_json:
            console.print(f"campaign: {campaign.file}")
        return 1 if campaign.failed else 0
    code = make_report(campaign.file, as_json=as_json)
    if code not in (0, 1):
        raise RoamlabError(f"the analysis ended with exit code {code}; run `roamlab report {campaign.file}` to try again")
    return 1 if campaign.failed else code
