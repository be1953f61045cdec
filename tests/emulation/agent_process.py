"""An agent as a process in a node of a test's network: started, asked, ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from topologies.links.netns import inside
from topologies.mobile_host import control_request, to_toml
from topologies.waiting import wait_until


class Place(Protocol):
    """What an agent needs of its network: a folder for its files, and the namespaces of the nodes."""

    folder: Path
    nodes: dict[str, int]


class Agent:
    """A role on a node, as a process."""

    ready_s: ClassVar[float] = 20.0

    def __init__(self, lab: Place, node: str, role: str, config: Mapping[str, Any], program: tuple[str, ...] = ()) -> None:
        self.lab, self.node, self.role = lab, node, role
        self.control, self.log = lab.folder / f"{node}.sock", lab.folder / f"{node}.jsonl"
        self.file = lab.folder / f"{node}.toml"
        self.program = program or ("agents", role, "--config", str(self.file))
        self.file.write_text(to_toml({"control": str(self.control), "event_log": str(self.log), **config}))
        self.start()

    def start(self) -> None:
        """Start the process; returns when it takes commands."""
        self.control.unlink(missing_ok=True)
        with inside(self.lab.nodes[self.node]):
            words = [sys.executable, "-m", *self.program]
            self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        wait_until(
            lambda: self.control.exists() or self.process.poll() is not None, self.ready_s, f"{self.role} takes commands"
        )
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.role} on {self.node}: {self.process.communicate()[1]}")

    def ask(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """A command; the reply."""
        return control_request(self.control, {"cmd": cmd, **fields}, 20.0)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Lines of the event log, of some kinds or all."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [row for row in found if not kinds or row["event"] in kinds]

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process. Raises RuntimeError when it ends otherwise than it should."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        errors = self.process.communicate(timeout=20)[1]
        if self.process.returncode != (0 if number == signal.SIGTERM else -number):
            raise RuntimeError(f"{self.role} on {self.node}: {self.process.returncode}: {errors}")
