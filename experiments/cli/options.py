"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from experiments.errors import RoamlabError
from topologies.profiles import PROFILES_VARIABLE, ProfileError, load_profiles


def _use_profiles(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Check the file now; everything that is started from here reads it again through the environment."""
    if path is None:
        return
    try:
        load_profiles(path)
    except ProfileError as error:
        raise RoamlabError(str(error)) from error
    os.environ[PROFILES_VARIABLE] = str(path.resolve())


profiles_option: Callable[[Any], Any] = click.option(
    "--profiles", type=click.Path(path_type=Path, dir_okay=False), callback=_use_profiles, expose_value=False, is_eager=True,
    help="A TOML file with link profiles of your own, by name.",
)  # fmt: skip
