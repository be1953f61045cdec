"""`roamlab guest`: the guest with Debian's stock kernel, and what other commands need of it."""

import os
import sys
import tempfile
import termios
import tty
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from experiments.cli.terminal import console
from experiments.errors import RoamlabError
from experiments.guest import image, qemu
from experiments.guest.machine import GuestError, Machine, guest_folder
from experiments.guest.packages import Say
from experiments.guest.place import GuestPlace, guest_place, require_kvm
from experiments.guest.supervise import CPU_LIMIT
from experiments.rundir import read_json

guest_option: Callable[[Any], Any] = click.option(
    "--guest", is_flag=False, flag_value=qemu.VIRTUAL_TIME, type=click.Choice(qemu.FLAVOURS), metavar="[=FLAVOUR]",
    help="Run in a guest with Debian's stock kernel: virtual-time (the default; independent of this machine's load), tcg, kvm.",
)  # fmt: skip


class WithGuest(click.Command):
    """A command with `--guest`, behind which a flavour may follow or anything else: `run --guest outage`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What follows is the option's value only when it is a flavour."""
        for at, word in enumerate(args):
            if word == "--guest" and args[at + 1 : at + 2] and args[at + 1] not in qemu.FLAVOURS:
                args[at] = f"--guest={qemu.VIRTUAL_TIME}"
        return super().parse_args(ctx, args)


@contextmanager
def _saying(*, quiet: bool) -> Iterator[Say]:
    """Progress of the preparations: one line that changes, or lines on standard error."""
    if quiet or not console.is_terminal:
        last = ""

        def say(text: str) -> None:
            nonlocal last
            step = text.partition(":")[0].rstrip("0123456789 of")
            if step != last:
                print(f"guest: {text}", file=sys.stderr, flush=True)
            last = step

        yield say
        return
    with console.status("guest") as status:
        yield lambda text: status.update(f"guest: {text}")


@contextmanager
def open_guest(flavour: str, *, quiet: bool) -> Iterator[GuestPlace]:
    """Guests of a flavour, ready to start; says what it does until then."""
    with ExitStack() as stack:
        with _saying(quiet=quiet) as say:
            place = stack.enter_context(guest_place(flavour, say))
        yield place


def print_times(folder: Path, run_ids: Iterable[str]) -> None:
    """How long the guests of a campaign took, and which were too busy for their figures to mean the network's."""
    found = [read_json(folder / run_id / "manifest.json").get("guest", {}) for run_id in run_ids]
    timed = [guest for guest in found if "wall_s" in guest]
    if not timed:
        return
    guest_s, wall_s = (sum(guest[name] for guest in timed) for name in ("guest_s", "wall_s"))
    console.print(
        f"guest time {guest_s:.0f} s in {wall_s:.0f} s of wall time, {len(timed)} boot{'s' if len(timed) > 1 else ''} included"
    )
    limited = sum(guest["cpu_limited"] for guest in timed)
    if limited:
        console.print(
            f"[yellow]cpu-limited:[/] {limited} of {len(timed)} runs used more than {CPU_LIMIT:.0%} of the guest's CPU; "
            "their figures show the emulation's speed"
        )


@click.group(short_help="The guest with Debian's stock kernel.")
def guest() -> None:
    """A virtual machine under QEMU with Debian's stock kernel, in which experiments run as on this machine.

    Its default flavour has virtual time: the clock counts instructions and skips idle time, so that figures do not depend on
    what else this machine does.
    """


@guest.command(short_help="Build its image.")
@click.option("--renew", is_flag=True, help="Build it again, with the newest packages.")
def build(renew: bool) -> None:
    """Build the guest's image, unless it is there already. `run --guest` does so by itself."""
    qemu.require()
    with _saying(quiet=False) as say:
        found = image.get(say, renew=renew)
    told = found.describe()
    console.print(f"{told['release']}, kernel {told['kernel']}, {told['root_bytes'] / 1e6:.0f} MB: {found.folder}")


@guest.command(short_help="A shell in it.", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--flavour", type=click.Choice(qemu.FLAVOURS), default=qemu.TCG, show_default=True)
@click.option(
    "--memory", "memory_mib", type=click.IntRange(256, 65536), default=qemu.MEMORY_MIB, show_default=True, help="MiB."
)
@click.option("--timeout", "deadline_s", type=click.FloatRange(min=1), help="End it after so many seconds of wall time.")
@click.argument("command", nargs=-1)
def shell(flavour: str, memory_mib: int, deadline_s: float | None, command: tuple[str, ...]) -> int:
    """Boot a guest and open a shell in it, or run COMMAND in it and end with its exit code.

    Nothing is kept and there is no network. Leave the shell with exit.
    """
    qemu.require(memory_mib)
    with _saying(quiet=False) as say:
        found = image.get(say)
    if not command and not sys.stdin.isatty():
        raise RoamlabError("guest shell: standard input is no terminal; give a COMMAND")
    with guest_folder(found) as folder:
        if flavour == qemu.KVM:
            require_kvm(GuestPlace(found, folder, flavour))
        with _console_log() as log:
            machine = Machine(found, folder, log, flavour, memory_mib=memory_mib, terminal=True)
            task = {"task": "command", "argv": list(command)} if command else {"task": "shell"}
            with _raw_terminal(not command):
                outcome = machine.execute(task, deadline_s)
    return outcome.code


@contextmanager
def _console_log() -> Iterator[Path]:
    """A file for what the kernel says. It stays only when the guest failed and said something: then the message names it."""
    descriptor, name = tempfile.mkstemp(prefix="roamlab-guest-console.", suffix=".log")
    os.close(descriptor)
    log, wanted = Path(name), False
    try:
        yield log
    except GuestError:
        wanted = log.stat().st_size > 0
        raise
    finally:
        if not wanted:
            log.unlink(missing_ok=True)


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C included."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
