"""`roamlab doctor`: what this machine can do, what needs it, what happens without it."""

import click

from experiments import features
from experiments.cli.terminal import console, print_json, table
from experiments.errors import RoamlabError


@click.command(short_help="What this machine can do.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> int:
    """Try every kernel feature and program; say what needs it and which fallback is used.

    Exit code 1 when something is missing without which nothing runs.
    """
    found = features.probe()
    machine = features.describe_machine()
    try:
        features.require_basics(found)
        problem = None
    except RoamlabError as error:
        problem = str(error)
    if as_json:
        print_json({**machine, "features": found, "problem": problem})
        return 1 if problem else 0
    console.print(f"[bold]{machine['kernel']}[/] on {machine['machine']}, Python {machine['versions']['python']}")
    rows = [["capsule", _mark(found["capsule"], True, ""), "everything", "", found["capsule"] or ""]]
    for feature in features.FEATURES:
        why = found[feature.name]
        rows.append([feature.name, _mark(why, feature.required, feature.fallback), feature.needed_by,
                     "" if why is None else (feature.fallback or "unsupported"), why or ""])  # fmt: skip
    table("Kernel features, tried in a capsule", ["feature", "", "needed by", "without it", "why not"], rows)
    rows = [[p.name, _mark(found[p.name], p.required, ""), p.needed_by, found[p.name] or ""] for p in features.PROGRAMS]
    table("Programs", ["program", "", "needed by", "remedy"], rows)
    console.print(f"[red]{problem}[/]" if problem else "[green]Ready.[/] Try: roamlab run demo")
    return 1 if problem else 0


def _mark(why: str | None, required: bool, fallback: str) -> str:
    if why is None:
        return "[green]yes[/]"
    if required:
        return "[red]MISSING[/]"
    return "[yellow]fallback[/]" if fallback else "[yellow]no[/]"
