"""`roamlab calibrate`: measure the link emulation against what it is asked for."""

import json
import subprocess
import sys
from typing import Any

import click

from experiments import capsule
from experiments.cli.terminal import console, print_json, table
from experiments.errors import RoamlabError
from topologies.profiles import PRESETS


@click.command()
@click.argument("presets", nargs=-1)
@click.option("--sweep", is_flag=True, help="TCP goodput at 1 to 200 Mbit/s, 15 ms.")
@click.option("--loss", is_flag=True, help="Random and burst loss over 100,000 packets each.")
@click.option("--quick", is_flag=True, help="Shorter measurements with wider statistics.")
@click.option("--all", "everything", is_flag=True, help="Every preset, the sweep and the loss profiles.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def calibrate(presets: tuple[str, ...], *, sweep: bool, loss: bool, quick: bool, everything: bool, as_json: bool) -> int:
    """Measure both directions of a link of each preset (default: all) and print the error.

    Rate, one-way delay and loss come from packet timestamps at both ends, not from the emulation's own record.
    Run it on an otherwise idle machine. Exit code 1 when a measurement misses its target.
    """
    for name in presets:
        if name not in PRESETS:
            raise RoamlabError(f"no profile {name!r}; there are: {', '.join(PRESETS)}")
    names = list(presets) or ([] if (sweep or loss) and not everything else list(PRESETS))
    options = [
        flag for flag, on in (("--sweep", sweep or everything), ("--loss", loss or everything), ("--quick", quick)) if on
    ]
    results = _measure([sys.executable, "-m", "experiments.calibrate", "--inside", *options, *names], quiet=as_json)
    if as_json:
        print_json(results)
    else:
        for result in results:
            _show(result)
    missed = [row for result in results for row in result["rows"] if not row["ok"]]
    if not as_json:
        count = sum(len(result["rows"]) for result in results)
        console.print(f"[red]{len(missed)} of {count} targets missed[/]" if missed else f"[green]all {count} targets met[/]")
    return 1 if missed else 0


def _measure(argv: list[str], *, quiet: bool) -> list[dict[str, Any]]:
    """Run the measurement in a capsule; its results in order. Raises RoamlabError with its last words."""
    results: list[dict[str, Any]] = []
    box = capsule.launch(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert box.process.stdout is not None
    assert box.process.stderr is not None
    try:
        with console.status("starting", spinner="dots") as status:
            for line in box.process.stdout:
                said = json.loads(line)
                if "error" in said:
                    raise RoamlabError(f"calibration: {said['error']}")
                if "result" in said:
                    results.append(said["result"])
                elif not quiet:
                    status.update(str(said.get("progress", "")))
        if box.wait() not in (0, 1):
            lines = box.process.stderr.read().decode(errors="replace").strip().splitlines()
            raise RoamlabError(f"calibration failed: {lines[-1] if lines else 'no reason given'}")
    finally:
        box.close()
    return results


def _show(result: dict[str, Any]) -> None:
    rows = []
    for row in result["rows"]:
        mark = "[green]ok[/]" if row["ok"] else "[red]missed[/]"
        target = "" if row["target"] is None else f"± {row['target']:g}"
        rows.append(
            [row["quantity"], row["direction"], f"{row['asked']:.6g}", f"{row['measured']:.6g}", row["unit"],
             f"{row['error']:+.4g}", target, "" if row["target"] is None else mark]
        )  # fmt: skip
    columns = ["quantity", "direction", "asked", "measured", "unit", "error", "target", ""]
    table(f"{result['profile']}: {result['label']} ({result['backend']})", columns, rows)
