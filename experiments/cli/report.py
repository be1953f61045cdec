"""`roamlab report`: analyse a campaign again."""

from pathlib import Path

import click

from experiments.cli.campaigns import make_report
from experiments.errors import RoamlabError
from experiments.rundir import read_json


def latest_campaign(results: Path, experiment: str) -> Path:
    """The newest campaign file of an experiment. Raises RoamlabError that lists what there is."""
    folder = results / experiment
    campaigns = sorted(folder.glob("*.json"))
    if not campaigns:
        there = ", ".join(sorted(p.name for p in results.glob("*") if list(p.glob("*.json")))) or "none"
        raise RoamlabError(f"no campaign of {experiment!r} in {results}/; experiments with results: {there}")
    return campaigns[-1]


@click.command(short_help="Analyse a campaign again.")
@click.argument("what")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Verdicts and metrics as JSON on standard output.")
def report(what: str, results: Path, as_json: bool) -> int:
    """Analyse a campaign and write its HTML report.

    WHAT is an experiment (its newest campaign) or a campaign file results/EXPERIMENT/CAMPAIGN.json.
    """
    path = Path(what) if what.endswith(".json") else latest_campaign(results, what)
    read_json(path)
    return make_report(path, as_json=as_json)
