"""The event log of an agent: one JSON line per decision, with timestamps that join to the packet captures."""

import json
import sys
import time
from types import TracebackType
from typing import Any, TextIO


class EventLog:
    """Appends lines {"mono_ns", "wall_ns", "agent", "event", ...}; every line is written at once.

    path: file to append to; None: standard error.
    """

    def __init__(self, agent: str, path: str | None) -> None:
        self.agent = agent
        self._file: TextIO = sys.stderr if path is None else open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def write(self, event: str, **fields: Any) -> None:
        """Record one decision; values that are no JSON are written as text."""
        line = {"mono_ns": time.monotonic_ns(), "wall_ns": time.time_ns(), "agent": self.agent, "event": event, **fields}
        self._file.write(json.dumps(line, default=str) + "\n")

    def close(self) -> None:
        """No more lines."""
        if self._file is not sys.stderr:
            self._file.close()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
