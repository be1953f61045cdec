"""`roamlab doctor`: what this machine can do, what needs it, what happens without it."""

import platform

import click

from experiments import features
from experiments.cli.guest import WithGuest, guest_option, open_guest
from experiments.cli.terminal import console, print_json, table
from experiments.errors import RoamlabError


@click.command(cls=WithGuest, short_help="What this machine can do.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@guest_option
def doctor(as_json: bool, guest: str | None) -> int:
    """Try every kernel feature and program; say what needs it and which fallback is used.

    With --guest: this machine's kernel beside the guest's, tried in the same way.
    Exit code 1 when something is missing without which nothing runs.
    """
    if guest is not None:
        return compare_with_guest(guest, as_json=as_json)
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


def compare_with_guest(flavour: str, *, as_json: bool) -> int:
    """The table of both kernels; 0 when experiments run in the guest."""
    here = features.probe()
    with open_guest(flavour, quiet=as_json) as place:
        there, machine = place.probe(), place.describe()
    try:
        features.require_basics(there)
        problem = None
    except RoamlabError as error:
        problem = str(error)
    if as_json:
        print_json({"host": {**features.describe_machine(), "features": here}, "guest": {**machine, "features": there},
                    "problem": problem})  # fmt: skip
        return 1 if problem else 0
    kernels = [platform.release(), machine["kernel"]]
    console.print(f"guest: {flavour}, QEMU {machine['guest']['qemu']}, {machine['guest']['memory_mib']} MiB")
    rows = [[f.name, _mark(here[f.name], f.required, f.fallback), _mark(there[f.name], f.required, f.fallback), f.needed_by,
             here[f.name] or there[f.name] or ""] for f in (_CAPSULE, *features.FEATURES)]  # fmt: skip
    table("Kernel features, tried on both kernels", ["feature", *kernels, "needed by", "why not"], rows)
    lacking = [p.name for p in features.PROGRAMS if there[p.name] is not None and p.required]
    console.print(f"[red]{problem}[/]" if problem else "[green]Ready.[/] Try: roamlab run demo --guest")
    if lacking:
        console.print(f"[yellow]not in the guest:[/] {', '.join(lacking)}")
    return 1 if problem else 0


_CAPSULE = features.Feature("capsule", "", "everything", required=True)


def _mark(why: str | None, required: bool, fallback: str) -> str:
    if why is None:
        return "[green]yes[/]"
    if required:
        return "[red]MISSING[/]"
    return "[yellow]fallback[/]" if fallback else "[yellow]no[/]"
