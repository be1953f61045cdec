"""Where runs execute: in a capsule on this machine, or elsewhere with the same order and the same reports."""

import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from experiments import capsule, features


class Box(Protocol):
    """What a run executes in. Its standard output holds the run's reports; a line on its standard input releases it."""

    @property
    def process(self) -> "subprocess.Popen[bytes]": ...

    def ask_to_end(self) -> None: ...

    def close(self) -> None: ...

    def wait(self, timeout_s: float | None = None) -> int: ...


class Place(Protocol):
    """Starts runs, and knows what they find there."""

    @property
    def name(self) -> str: ...

    def probe(self) -> dict[str, str | None]:
        """Features and programs: None when available, else why not."""

    def describe(self) -> dict[str, Any]:
        """Kernel, machine and versions for the manifest."""

    def wall_limit_s(self, limit_s: float) -> float:
        """How long a run may take here that would take at most `limit_s` natively."""

    def launch(self, order_path: Path, console: BinaryIO, wall_limit_s: float) -> Box:
        """Start the run of an order. Errors go to `console`; after `wall_limit_s` the runner ends it."""


class Here:
    """A capsule on this machine."""

    name = "capsule"

    def probe(self) -> dict[str, str | None]:
        """By trial."""
        return features.probe()

    def describe(self) -> dict[str, Any]:
        """This machine."""
        return features.describe_machine()

    def wall_limit_s(self, limit_s: float) -> float:
        """The same."""
        return limit_s

    def launch(self, order_path: Path, console: BinaryIO, wall_limit_s: float) -> Box:
        """In a new capsule."""
        argv = [sys.executable, "-m", "experiments.inside", str(order_path)]
        return capsule.launch(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console.fileno())
