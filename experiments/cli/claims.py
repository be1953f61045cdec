"""`roamlab claims`: a page with the verdicts of experiments, claim by claim."""

from pathlib import Path

import click

from experiments.cli.campaigns import analyse
from experiments.cli.report import latest_campaign
from experiments.errors import RoamlabError
from experiments.rundir import read_json


@click.command(short_help="A page with verdicts, claim by claim.")
@click.argument("what", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page (Markdown).")
@click.option("--title", default="", help="Heading of the page.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True)
def claims(what: tuple[str, ...], output: Path, title: str, results: Path) -> int:
    """Write what each claim says, what was measured, its verdict and a figure.

    WHAT is experiments (the newest campaign of each), folders results/EXPERIMENT, or campaign files.

    The figures are in a folder beside the page. Exit code 0: every claim holds or is unsupported; 1: otherwise.
    """
    files = [_campaign(name, results) for name in what]
    for path in files:
        read_json(path)
    options = ["--title", title] if title else []
    code = analyse(["claims", *(path.resolve() for path in files), "--output", output, *options])
    if code not in (0, 1):
        raise RoamlabError(f"the analysis ended with exit code {code}")
    return code


def _campaign(name: str, results: Path) -> Path:
    """The campaign file that is meant. Raises RoamlabError."""
    path = Path(name)
    if name.endswith(".json"):
        return path
    return latest_campaign(path.parent, path.name) if path.is_dir() else latest_campaign(results, name)
