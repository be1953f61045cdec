"""`roamlab watch`: bindings and tunnels of Mobile IPv4 in what runs now, once a second."""

import contextlib
import threading
import time

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from experiments import control
from experiments.cli.mobileip_tables import bindings_table, errors, tunnels_table
from experiments.cli.terminal import console, print_json
from experiments.control import AgentSocket
from experiments.errors import RoamlabError
from experiments.mobileip_state import ROLES, Sample, look, report, unsaid, view

_LEAST_ROWS, _LINES_AROUND = 4, 12
_FILE_WIDTH = 120
"""Columns where there is no terminal."""


@click.command(short_help="Bindings and tunnels of Mobile IP in what runs now.")
@click.argument("agent", required=False)
@click.option("--run", default="", help="Which run, if several are under way: a part of its folder, or the process id.")
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Print one table and end; so it is when the output is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def watch(agent: str | None, run: str, interval: float, once: bool, as_json: bool) -> int:
    """Show bindings (BID, care-of address, label, lifetime that is left, state) and tunnels with their rates in both
    directions, of all agents of Mobile IP that run now, or of AGENT, written NODE/ROLE or NODE. End with Ctrl-C.

    \b
    roamlab watch
    roamlab watch mn/mobile-node
    roamlab watch ha1 --json
    """
    chosen = choose(agent, run)
    if as_json or once or not console.is_terminal or console.is_dumb_terminal:
        before = [look(item) for item in chosen]
        threading.Event().wait(interval)
        samples = [look(item) for item in chosen]
        if as_json:
            print_json(report(samples, before))
        else:
            console.print(picture(samples, before, None), width=max(console.width, 0 if console.is_terminal else _FILE_WIDTH))
        return 1 if all(item.error for item in samples) else 0
    with contextlib.suppress(KeyboardInterrupt):
        _live(agent, run, interval)
    return 0


def choose(name: str | None, run: str) -> list[AgentSocket]:
    """The agents to watch. Raises RoamlabError that says what to do when there are none."""
    known = control.agents()
    fitting = [item for item in known if run in ("", str(item.capsule)) or (run and run in item.what)]
    able = [item for item in fitting if item.role in ROLES]
    if name is not None:
        able = [item for item in able if name in (item.name, item.node)]
    if able:
        return able
    if not known:
        raise RoamlabError(
            "nothing runs: start a run with a mechanism of Mobile IP (`roamlab list mechanisms`) in another terminal"
        )
    there = ", ".join(sorted({item.name for item in fitting})) or "none"
    wanted = f"no agent of Mobile IP {name!r}" if name is not None else "no agent of Mobile IP runs"
    raise RoamlabError(f"{wanted}: there are {there}; `roamlab ctl` lists all")


def picture(samples: list[Sample], before: list[Sample], lines: int | None) -> RenderableType:
    """Both tables; `lines`: how many the terminal has."""
    rows, ways = view(samples, before)
    most = None if lines is None else max(_LEAST_ROWS, (lines - _LINES_AROUND) // 2)
    return Group(
        *errors(samples),
        bindings_table(rows, most, unsaid(samples, "bindings")),
        tunnels_table(ways, most, unsaid(samples, "tunnels")),
    )


def _live(name: str | None, run: str, interval_s: float) -> None:
    pause, before = threading.Event(), list[Sample]()
    with Live(console=console, auto_refresh=False, screen=True) as screen:
        while True:
            begun_s = time.monotonic()
            try:
                samples = [look(item) for item in choose(name, run)]
            except RoamlabError as error:  # what ran has ended; the next run is shown when it is there
                samples = []
                shown: RenderableType = Text(f"waiting: {error}")
            else:
                shown = picture(samples, before, console.height)
            screen.update(Group(Text(f"{time.strftime('%H:%M:%S')} · Ctrl-C ends", style="dim"), shown), refresh=True)
            before = samples
            pause.wait(max(0.0, interval_s - (time.monotonic() - begun_s)))
