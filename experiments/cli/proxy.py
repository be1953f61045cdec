"""`roamlab proxy`: the lightweight MPTCP proxy without a network, from captures and event logs."""

import os
import sys

import click


@click.command(
    short_help="Replay captures through the MPTCP proxy; tables from its log.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def proxy(arguments: tuple[str, ...]) -> None:
    """The agents are programs of their own: this one takes over here, with its options and its help."""
    os.environ["ROAMLAB_PROGRAM"] = "roamlab"
    os.execv(sys.executable, [sys.executable, "-P", "-m", "agents.replay", *arguments])
