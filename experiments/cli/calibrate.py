"""`roamlab calibrate`: measure the link emulation against what it is asked for, and its backends against each other."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from experiments.calibration import compare, page
from experiments.calibration.launch import Boot, Unsupported, in_capsule, in_guests
from experiments.calibration.plan import EFFORTS, effort_name, plan
from experiments.cli.guest import WithGuest, guest_option, open_guest
from experiments.cli.options import profiles_option
from experiments.cli.terminal import console, print_json, table
from experiments.errors import RoamlabError
from experiments.features import describe_machine
from experiments.guest.qemu import VIRTUAL_TIME
from topologies.profiles import PRESETS, named_profiles

BOTH = "both"
_COLOURS = {"ok": "green", "missed": "red", "cpu-limited": "yellow", "not judged": "yellow", "no target": "white"}


@click.command(short_help="Measure the link emulation.", cls=WithGuest)
@click.argument("presets", nargs=-1)
@click.option("--sweep", is_flag=True, help="TCP goodput at 1 to 200 Mbit/s (in the guest to 50), 15 ms.")
@click.option("--loss", is_flag=True, help="Random and burst loss over 100,000 packets each, in the guest 30,000.")
@click.option("--jitter", is_flag=True, help="Jitter of packets that cannot meet and of packets that must wait for each other.")
@click.option("--order", is_flag=True, help="Reordering and duplication.")
@click.option("--change", is_flag=True, help="A change of rate while frames wait.")
@click.option("--quick", is_flag=True, help="Shorter measurements with wider statistics.")
@click.option("--all", "everything", is_flag=True, help="Every preset, the sweep, loss, jitter, order and change.")
@click.option("--backend", type=click.Choice([*compare.BACKENDS, BOTH]),
              help="What makes the links; both: side by side. Default: what links get here; with --guest both.")  # fmt: skip
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also write the tables to this file.")
@profiles_option
@guest_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def calibrate(
    presets: tuple[str, ...],
    *,
    sweep: bool,
    loss: bool,
    jitter: bool,
    order: bool,
    change: bool,
    quick: bool,
    everything: bool,
    backend: str | None,
    markdown: Path | None,
    guest: str | None,
    as_json: bool,
) -> int:
    """Measure both directions of a link of each preset (default: all) and print the error.

    Rate, one-way delay and loss come from packet timestamps at both ends, not from the emulation's own record.
    Run it on an otherwise idle machine, or in a guest with virtual time. Exit code 1 when a measurement misses its target or
    the backends differ.
    """
    for name in presets:
        if name not in named_profiles():
            raise RoamlabError(f"no profile {name!r}; there are: {', '.join(named_profiles())}")
    if markdown is not None:
        _write_page(markdown, "")  # an unwritable page is better known before the measurement
    asked = {"sweep": sweep, "loss": loss, "jitter": jitter, "order": order, "change": change}
    kinds = [kind for kind, on in asked.items() if on or everything]
    items = plan(
        list(dict.fromkeys(presets)) or ([] if kinds and not everything else list(PRESETS)), kinds, in_guest=guest is not None
    )
    effort = effort_name(quick=quick, in_guest=guest is not None)
    if guest is None:
        document = _here(items, effort, backend, quiet=as_json)
    else:
        document = _in_guest(guest, items, effort, backend, quiet=as_json)
    document["effort"] = asdict(EFFORTS[effort])
    comparison = compare.compare(document["results"], in_guest=guest is not None)
    counts = compare.count_states(document["results"], comparison, in_guest=guest is not None)
    if markdown is not None:
        _write_page(markdown, page.page(document, f"roamlab {' '.join(sys.argv[1:])}"))
    if as_json:
        print_json({**document, "comparison": comparison, "counts": counts})
    else:
        _show(document, comparison)
        _show_counts(counts)
    return 1 if counts["missed"] or counts["failed"] or counts["differs"] else 0


def _here(items: list[str], effort: str, backend: str | None, *, quiet: bool) -> dict[str, Any]:
    """Measure in capsules on this machine, one backend after the other."""
    document: dict[str, Any] = {"machine": describe_machine(), "guest": None, "unsupported": {}, "results": []}
    names: list[str | None] = list(compare.BACKENDS) if backend == BOTH else [backend]
    with console.status("starting", spinner="dots") as status:

        def follow(said: Mapping[str, Any]) -> None:
            if not quiet and "progress" in said:
                status.update(" · ".join(word for word in (name, str(said["progress"])) if word))

        for name in names:
            try:
                document["results"] += in_capsule(items, effort, name, follow)
            except Unsupported as error:
                if backend != BOTH:
                    remedy = "; leave --backend out, or measure in the guest: --guest" if backend else ""
                    raise RoamlabError(f"{error}{remedy}") from error
                document["unsupported"][name] = str(error)
    return document


def _in_guest(flavour: str, items: list[str], effort: str, backend: str | None, *, quiet: bool) -> dict[str, Any]:
    """Measure in guests. In real time one at a time: side by side they would disturb each other."""
    names = list(compare.BACKENDS) if backend in (None, BOTH) else [backend]
    at_a_time = (os.cpu_count() or 1) if flavour == VIRTUAL_TIME else 1
    done = 0
    with open_guest(flavour, quiet=quiet) as place, console.status("booting", spinner="dots") as status:

        def follow(running: list[Boot], boot: Boot, said: Mapping[str, Any]) -> None:
            nonlocal done
            if "ended" in said:
                done += 1
                if quiet:
                    line = {"boot": "ended", "item": boot.item, "backend": boot.backend, **said["ended"]}
                    print(json.dumps(line), file=sys.stderr, flush=True)
                else:
                    console.print(_ended(boot, said["ended"]))
            if not quiet:
                status.update(" · ".join([f"{done}/{len(items) * len(names)}", *(_progress(one) for one in running)]))

        results = in_guests(place, items, effort, names, at_a_time, follow)
        machine = place.describe()
    return {"machine": machine, "guest": machine["guest"], "unsupported": {}, "results": results}


def _progress(boot: Boot) -> str:
    """What a guest does, and its time."""
    said = boot.last.get("progress", f"{boot.item.partition(':')[2]}: {boot.last.get('phase', 'booting')}")
    return f"{boot.backend}: {said} (guest {boot.last.get('guest_s', 0.0):.0f} s)"


def _ended(boot: Boot, ended: Mapping[str, Any]) -> str:
    name = f"{boot.item.partition(':')[2]} · {boot.backend}"
    if "why" in ended:
        return f"[red]✗[/] {name}  [red]{ended['why']}[/]"
    return f"[green]✓[/] {name} · guest {ended['guest_s']:.0f} s in {ended['wall_s']:.0f} s"


def _write_page(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if not text else "w") as file:
            file.write(text)
    except OSError as error:
        raise RoamlabError(f"{path}: cannot be written: {error.strerror}") from error


def _show(document: Mapping[str, Any], comparison: list[dict[str, Any]]) -> None:
    """Pairs where both backends were measured, else what was."""
    compared = {(item["kind"], item["profile"]) for item in comparison}
    for item in comparison:
        cells = page.short_pair_rows(item)
        table(f"{item['profile']}: {item['label']}, errors", page.SHORT_PAIR_COLUMNS, [_coloured(row) for row in cells])
    for result in document["results"]:
        if (result["kind"], result["profile"]) not in compared:
            cells = page.rows(result, in_guest=document["guest"] is not None)
            table(
                f"{result['profile']}: {result['label']} ({result['backend']})", page.COLUMNS, [_coloured(row) for row in cells]
            )
    for name, why in document["unsupported"].items():
        console.print(f"[yellow]{name}: unsupported:[/] {why}")


def _coloured(cells: list[str]) -> list[str]:
    return [*cells[:-1], f"[{_COLOURS.get(cells[-1], 'red')}]{cells[-1]}[/]"]


def _show_counts(counts: Mapping[str, int]) -> None:
    total = sum(counts.values()) - counts["differs"] - counts["no target"]
    told = [f"{counts[name]} {name}" for name in ("missed", "failed", "cpu-limited", "no target", "differs") if counts[name]]
    bad = counts["missed"] or counts["failed"] or counts["differs"]
    text = f"{counts['ok']} of {total} targets met" if told else f"all {total} targets met"
    console.print(f"[{'red' if bad else 'green'}]{', '.join([text, *told])}[/]")
