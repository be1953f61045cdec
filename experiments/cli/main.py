"""The command group, its common behaviour on errors and signals."""

import ctypes
import importlib
import signal
import sys

import click

from experiments.errors import RoamlabError
from experiments.version import version

_PR_SET_PDEATHSIG = 1
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_EPILOG = """\b
Start here:
  roamlab doctor                 what this machine can do
  roamlab list                   experiments, mechanisms, events, topologies ...
  roamlab run demo               TCP beside MPTCP when the WLAN is lost (2 minutes)
  roamlab run outage --scenario blackhole --mechanism mptcp --repeat 5
  roamlab shell mobile           look around in the network yourself
  roamlab ctl                    the agents of what is running, and commands to them
  roamlab watch                  bindings and tunnels of Mobile IP, once a second
  roamlab analyse trace.pcapng   connections, subflows and gaps in any capture
  roamlab proxy replay X.pcapng  the MPTCP proxy's decisions on a capture again

Nothing touches the host's network: every run lives in namespaces of its own and
leaves nothing but its folder in results/. No root is needed where the kernel
allows user namespaces. End a long run with Ctrl-C; what was finished stays."""


COMMANDS = {
    "doctor": "doctor:doctor", "list": "listing:list_command", "run": "run:run", "shell": "shell:shell", "ctl": "ctl:ctl",
    "watch": "watch:watch", "proxy": "proxy:proxy",
    "repeatability": "repeatability:repeatability", "guest": "guest:guest",
    "analyse": "analyse:analyse", "calibrate": "calibrate:calibrate", "report": "report:report", "claims": "claims:claims",
    "clean": "clean:clean",
}  # fmt: skip
"""Name -> module and function. Each is imported when it is wanted: an analysis needs no emulation."""


class _Group(click.Group):
    """Imports a command when it is called, all of them for the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"experiments.cli.{module}"), function)
        return command


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version(), prog_name="roamlab")
def cli() -> None:
    """roamlab: what happens to a live connection when a host moves, gains a network or loses one?

    An emulation testbed for mobile, multihomed hosts: real Linux stacks in network namespaces, packet captures, and verdicts
    computed from those captures.
    """


class Ended(BaseException):
    """SIGTERM or SIGHUP: end as on Ctrl-C."""


def _raise_ended(number: int, _frame: object) -> None:
    raise Ended(f"{signal.Signals(number).name}")


def _end_with_the_parent() -> None:
    """The death of the parent shell is a hang-up, terminal or not; `nohup` protects from both."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_ended)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)


def main() -> None:
    """Entry point: one clear line for every error, exit code 1 (failed), 2 (usage) or 130 (interrupted)."""
    _end_with_the_parent()
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except RoamlabError as error:
        click.echo(f"roamlab: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort, Ended) as error:
        click.echo(f"roamlab: interrupted{f' by {error}' if str(error) else ''}; finished runs are kept", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(EXIT_FAILED)
