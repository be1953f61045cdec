"""`python -m analysis analyse`, which is `roamlab analyse`: what captures hold."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from analysis.compiled import cold
from analysis.files import printable, written_atomically
from analysis.packets.selection import find_captures

_COLD = " (first use: compiling for this machine, some 15 seconds)"
TABLES = ("flows", "connections", "segments", "acks", "signals", "findings")


def analyse(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code. Complaints are one line on standard error."""
    try:
        _check_outputs(options)
        if options.parquet and not (options.json or options.html or options.tables):
            return _only_packets(options)
        return _everything(options)
    except ValueError as error:
        print(f"{'roamlab' if 'ROAMLAB_PROGRAM' in os.environ else 'analysis'}: {printable(error)}", file=sys.stderr)
        return 2


def _check_outputs(options: argparse.Namespace) -> None:
    """An output that cannot be written is better known before the work."""
    if options.connections < 1:
        raise ValueError(f"--connections: {options.connections} is no number of connections: give at least 1")
    used = {path.resolve() for path in find_captures(options.files)}
    for name in ("html", "parquet", "tables"):
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        if path.resolve() in used:
            raise ValueError(f"--{name}: {path} is also an input or another output: choose another name")
        used.add(path.resolve())
        folder = path if name == "tables" else path.parent
        if name != "tables" and path.exists() and not path.is_file():
            raise ValueError(f"--{name}: {path} is a folder or a device: give the name of a file")
        if name == "tables" and not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(f"--{name}: {folder} is no folder that can be written: choose another place")


@contextmanager
def _busy(text: str, quiet: bool) -> Iterator[Any]:
    """A line on the terminal while something takes its time; nothing when nobody watches."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status(text, spinner="dots") as status:
        yield status.update


def _only_packets(options: argparse.Namespace) -> int:
    """`--parquet` alone: chunk by chunk, whatever the size of the captures."""
    from analysis.packets import AddressBook, open_stream
    from analysis.packets.parquet import Writer
    from analysis.packets.selection import choose

    book, count, damaged = AddressBook(), 0, []
    paths = find_captures(options.files)
    streams = [open_stream(path, book) for path in paths]  # what is no capture is known before anything is written
    with _busy("reading" + _COLD * cold(), False) as say, Writer(options.parquet) as writer:
        for stream in streams:
            for table in stream.chunks():
                chosen = choose(table, options.host, options.port)
                writer.write(chosen, stream.points())
                count += len(chosen)
                say(escape(f"{printable(stream.container.path)}: {count / 1e6:.1f} million packets"))
            damage = stream.damage()
            if damage:
                damaged.append(f"{stream.container.path}: {damage}; what was before it is in the table")
    print(f"{printable(options.parquet)}: {count:,} packets, {options.parquet.stat().st_size / 1e6:.1f} MB")
    for line in damaged:
        print(printable(line), file=sys.stderr)
    return 1 if damaged else 0


def _everything(options: argparse.Namespace) -> int:
    from analysis.examination import examine

    with _busy("reading and reconstructing" + _COLD * cold(), options.json) as say:
        found = examine(options.files, options.points, options.host, options.port, options.connections)
        outputs: dict[str, str] = {}
        if options.parquet:
            from analysis.packets.parquet import Writer

            say("writing the packets")
            with Writer(options.parquet) as writer:
                writer.write(found.rec.packets)
            outputs["parquet"] = str(options.parquet)
        if options.tables:
            say("writing the tables")
            _write_tables(found, options.tables)
            outputs["tables"] = str(options.tables)
        if options.html:
            from analysis.page import write_page

            say("drawing")
            write_page(found, options.html)
            outputs["html"] = str(options.html)
    if options.json:
        json.dump(found.summary | {"outputs": outputs}, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        from analysis.commands.summary_view import show

        show(found.summary, Console(highlight=False))
        for path in outputs.values():
            print(printable(path))
    damaged = [capture for capture in found.captures if capture.damage]
    for capture in damaged:
        print(printable(f"{capture.path}: {capture.damage}; it was read as far as it goes"), file=sys.stderr)
    return 1 if damaged else 0


def _write_tables(found: Any, folder: Path) -> None:
    """Every table of the analysis as a Parquet file of its own."""
    folder.mkdir(exist_ok=True)
    tables = {name: getattr(found.rec, name) for name in TABLES}
    for (a, b), compared in found.comparisons.items():
        tables[f"damage_{a}_{b}"] = compared.damage
    if found.mobility is not None:
        tables |= found.mobility.tables()
    for name, table in tables.items():
        with written_atomically(folder / f"{name}.parquet") as scratch:
            table.to_parquet(scratch)
