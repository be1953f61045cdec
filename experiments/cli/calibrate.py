"""`roamlab calibrate`: measure the link emulation against what it is asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from experiments import capsule
from experiments.cli.options import profiles_option
from experiments.cli.terminal import console, print_json, table
from experiments.errors import RoamlabError
from experiments.features import describe_machine
from topologies.profiles import PRESETS, named_profiles


@click.command(short_help="Measure the link emulation.")
@click.argument("presets", nargs=-1)
@click.option("--sweep", is_flag=True, help="TCP goodput at 1 to 200 Mbit/s, 15 ms.")
@click.option("--loss", is_flag=True, help="Random and burst loss over 100,000 packets each.")
@click.option("--quick", is_flag=True, help="Shorter measurements with wider statistics.")
@click.option("--all", "everything", is_flag=True, help="Every preset, the sweep and the loss profiles.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also write the tables to this file.")
@profiles_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def calibrate(
    presets: tuple[str, ...], *, sweep: bool, loss: bool, quick: bool, everything: bool, markdown: Path | None, as_json: bool
) -> int:
    """Measure both directions of a link of each preset (default: all) and print the error.

    Rate, one-way delay and loss come from packet timestamps at both ends, not from the emulation's own record.
    Run it on an otherwise idle machine. Exit code 1 when a measurement misses its target.
    """
    for name in presets:
        if name not in named_profiles():
            raise RoamlabError(f"no profile {name!r}; there are: {', '.join(named_profiles())}")
    if markdown is not None:
        _write_page(markdown, "")  # an unwritable page is better known before the measurement
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
    if markdown is not None:
        _write_page(markdown, _markdown(results))
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
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # a library's word, not ours
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


def _write_page(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if not text else "w") as file:
            file.write(text)
    except OSError as error:
        raise RoamlabError(f"{path}: cannot be written: {error.strerror}") from error


def _markdown(results: list[dict[str, Any]]) -> str:
    """The same tables as a page, with the command that makes it and the machine that it is about."""
    machine = describe_machine()
    lines = [
        "# Calibration of the link emulation",
        "",
        f"Made by `roamlab {' '.join(sys.argv[1:])}` on Linux {machine['kernel']}, {machine['machine']}.",
        "Measured from packet timestamps at both ends. `asked` is the profile, or for TCP goodput the ideal: the share of the",
        "rate that is left after all headers; rates count Ethernet frames without their check sequence.",
    ]
    for result in results:
        lines += ["", f"## {result['profile']}: {result['label']}", ""]
        lines += ["| quantity | direction | asked | measured | unit | error | target | |", "|---|---|--:|--:|---|--:|--:|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(result, plain=True)]
    return "\n".join(lines) + "\n"


def _rows(result: dict[str, Any], *, plain: bool = False) -> list[list[str]]:
    rows = []
    for row in result["rows"]:
        mark = "ok" if row["ok"] else "missed"
        if not plain:
            mark = f"[{'green' if row['ok'] else 'red'}]{mark}[/]"
        target = "" if row["target"] is None else f"± {row['target']:g}"
        rows.append(
            [row["quantity"], row["direction"], f"{row['asked']:.6g}", f"{row['measured']:.6g}", row["unit"],
             f"{row['error']:+.4g}", target, "" if row["target"] is None else mark]
        )  # fmt: skip
    return rows


def _show(result: dict[str, Any]) -> None:
    columns = ["quantity", "direction", "asked", "measured", "unit", "error", "target", ""]
    table(f"{result['profile']}: {result['label']} ({result['backend']})", columns, _rows(result))
