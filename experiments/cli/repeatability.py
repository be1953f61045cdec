"""`roamlab repeatability`: how well runs repeat, natively and in the guest."""

from pathlib import Path

import click

from experiments.cli.campaigns import Plan, analyse, campaign_options, choose
from experiments.cli.guest import WithGuest, guest_option
from experiments.cli.terminal import console
from experiments.errors import RoamlabError
from experiments.guest.qemu import VIRTUAL_TIME
from experiments.load import busy_processes, processors
from experiments.rundir import read_json

_REPETITIONS = 3


@click.command(cls=WithGuest, short_help="How well runs repeat, natively and in the guest.")
@click.argument("what", nargs=-1, required=True)
@click.option("-n", "--repeat", type=click.IntRange(2, 1000), default=_REPETITIONS, show_default=True, help="Repetitions.")
@click.option("--other-seeds", is_flag=True, help="Repetition k has seed + k, as in `run --repeat`: chance shows as well.")
@click.option("--load", is_flag=True, help="Keep every CPU busy with an endless loop meanwhile.")
@campaign_options
@guest_option
@click.option("--all-metrics", is_flag=True, help="Show every metric, not only the main ones.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also write the table to this file.")
def repeatability(
    what: tuple[str, ...],
    repeat: int,
    other_seeds: bool,
    load: bool,
    mechanism_names: tuple[str, ...],
    scenario_names: tuple[str, ...],
    workload_kind: str | None,
    jobs: int | None,
    seed: int | None,
    results: Path,
    as_json: bool,
    guest: str | None,
    all_metrics: bool,
    markdown: Path | None,
) -> int:
    """Run an experiment several times natively and in the guest, and compare the spread of every metric.

    WHAT is an experiment; all repetitions have the same seed. Or WHAT is two campaign files
    results/EXPERIMENT/CAMPAIGN.json: then these are compared and nothing is run.

    Exit code 0: every figure of the guest repeats within 1 ms or 1 %, and every handover gap with at most a tenth of its
    native spread; 1: otherwise.
    """
    campaigns = _existing(what)
    if not campaigns:
        wanted = choose(what[0], scenarios=scenario_names, mechanisms=mechanism_names, workload_kind=workload_kind)
        busy = processors() if load else 0
        with busy_processes(busy):
            for flavour in (None, guest or VIRTUAL_TIME):
                plan = Plan(
                    experiment=wanted,
                    guest=flavour,
                    repetitions=repeat,
                    seed=wanted.seed if seed is None else seed,
                    same_seed=not other_seeds,
                    jobs=jobs,
                    results=results,
                    as_json=as_json,
                    busy_processes=busy,
                )
                if not as_json:
                    console.print(f"[bold]{'natively' if flavour is None else f'in the guest, {flavour}'}[/]")
                campaigns.append(plan.execute().file)
    options = [("--json", as_json), ("--all-metrics", all_metrics), ("--markdown", markdown is not None)]
    flags = [flag for flag, on in options if on]
    code = analyse(["repeatability", *(path.resolve() for path in campaigns), *flags, *([markdown] if markdown else [])])
    if code not in (0, 1):
        names = " ".join(map(str, campaigns))
        raise RoamlabError(f"the analysis ended with exit code {code}; run `roamlab repeatability {names}` to try again")
    return code


def _existing(what: tuple[str, ...]) -> list[Path]:
    """The campaign files that were named; none when it is an experiment. Raises RoamlabError."""
    files = [Path(name) for name in what if name.endswith(".json")]
    if len(what) == 1 and not files:
        return []
    if len(what) != 2 or len(files) != 2:
        raise RoamlabError("repeatability: name one experiment, or two campaign files results/EXPERIMENT/CAMPAIGN.json")
    for path in files:
        read_json(path)
    return files
