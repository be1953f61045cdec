"""The command `roamlab`."""

from experiments.cli.main import main

__all__ = ["main"]
