"""`roamlab shell`: Mininet's own command line inside a capsule."""

import json
import sys
import tomllib
from typing import Any

import click

from experiments import capsule
from experiments.cli.options import profiles_option
from experiments.errors import RoamlabError


def parse_parameters(texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs with TOML values; a bare word is a string. Raises RoamlabError."""
    parameters = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise RoamlabError(f"parameter {text!r}: write it as NAME=VALUE")
        try:
            parameters[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parameters[name] = value
    return parameters


@click.command(short_help="Mininet's command line in a topology.")
@click.argument("topology", default="mobile")
@click.option("-p", "--parameter", "parameters", multiple=True, help="NAME=VALUE for the topology; may be repeated.")
@profiles_option
def shell(topology: str, parameters: tuple[str, ...]) -> int:
    """Build TOPOLOGY (default: mobile) and open Mininet's command line in it.

    Besides Mininet's own commands: `event KIND TARGET [NAME=VALUE ...]` makes an event happen,
    `events` lists them. Leave with exit.
    """
    order = json.dumps({"topology": topology, "parameters": parse_parameters(parameters)})
    box = capsule.launch([sys.executable, "-m", "experiments.shell_inside", order], stdin=None, interactive=True)
    try:
        return box.wait()
    finally:
        box.close()
