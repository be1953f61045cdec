"""`roamlab analyse`: what captures hold."""

import os
import sys

import click


@click.command(
    short_help="What a capture holds: connections, subflows, gaps.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def analyse(arguments: tuple[str, ...]) -> None:
    """The analysis is a program of its own and takes over here, with its options and its help."""
    os.environ["ROAMLAB_PROGRAM"] = "roamlab"
    os.execv(sys.executable, [sys.executable, "-P", "-m", "analysis", "analyse", *arguments])
