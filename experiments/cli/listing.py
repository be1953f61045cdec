"""`roamlab list`: everything that has a name."""

from typing import Any

import click

from experiments import catalogue, events, mechanisms, workloads
from experiments.cli.terminal import console, print_json, table
from topologies import registry
from topologies.profiles import PRESETS


def everything() -> dict[str, dict[str, str]]:
    """Group -> name -> one line."""
    return {
        "experiments": {name: e.title for name, e in sorted(catalogue.load_all().items())},
        "mechanisms": {name: cls.summary for name, cls in mechanisms.REGISTRY.items()},
        "workloads": {name: cls.summary for name, cls in workloads.REGISTRY.items()},
        "events": {name: _event_line(kind) for name, kind in events.KINDS.items()},
        "topologies": {name: _first_line(cls) for name, cls in registry.TOPOLOGIES.items()},
        "profiles": {name: profile.describe() for name, profile in PRESETS.items()},
    }


def _event_line(kind: events.Kind) -> str:
    parameters = ", ".join(f"{k}={v}" if v is not None else k for k, v in kind.parameters.items())
    return kind.summary + (f" [{parameters}]" if parameters else "")


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


@click.command(name="list", short_help="Everything that has a name.")
@click.argument("group", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_command(group: str | None, as_json: bool) -> None:
    """List experiments, mechanisms, workloads, events, topologies and link profiles (or one GROUP of them)."""
    groups = everything()
    if group is not None and group not in groups:
        raise click.UsageError(f"no group {group!r}; there are: {', '.join(groups)}")
    shown = {name: content for name, content in groups.items() if group in (None, name)}
    if as_json:
        print_json(shown)
        return
    for name, content in shown.items():
        table(
            name,
            ["name", "what it is"],
            [[f"[bold]{key}[/]", line.replace("[", "\\[")] for key, line in content.items()],
        )
        console.print()
