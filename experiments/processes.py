"""Programs that run inside nodes: started, watched and ended; their output is kept in the run directory."""

import json
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Protocol

from experiments.clock import now_ns
from experiments.errors import RoamlabError

_LAST_LINES = 3


class Node(Protocol):
    """What is needed of a Mininet node."""

    name: str
    pid: int

    def popen(self, *args: Any, **kwargs: Any) -> "subprocess.Popen[bytes]": ...


class NodeProcess:
    """One program in a node. With `reports=True` its standard output is read as JSON lines."""

    def __init__(self, node: Node, argv: list[str], name: str, logs: Path, *, reports: bool = False) -> None:
        self.name = name
        self.node_name = node.name
        self.log_path = logs / f"{name}.log"
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        with self.log_path.open("ab") as log:
            self.process = node.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if reports else log, stderr=log)
        if reports:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log_path.open("ab") as log:
            for line in self.process.stdout:
                try:
                    report = json.loads(line)
                except ValueError:
                    report = None
                if isinstance(report, dict):
                    self._reports.put(report)
                else:  # a program's ordinary output
                    log.write(line)

    def next_report(self, timeout_s: float) -> dict[str, Any] | None:
        """The next JSON line, or None when none came in time."""
        try:
            return self._reports.get(timeout=max(timeout_s, 0)) if timeout_s > 0 else self._reports.get_nowait()
        except queue.Empty:
            return None

    def expect(self, event: str, timeout_s: float) -> dict[str, Any]:
        """Wait for the report whose "event" is `event`. Raises RoamlabError when the program ends or time is up."""
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        while now_ns() < deadline_ns:
            report = self.next_report(0.05)
            if report is None:
                if self.process.poll() is not None and self._reports.empty():
                    raise RoamlabError(self.why_ended())
                continue
            if report.get("event") == "error":
                raise RoamlabError(f"{self.name} on {self.node_name}: {report.get('reason')}")
            if report.get("event") == event:
                return report
        raise RoamlabError(f"{self.name} on {self.node_name}: no {event!r} within {timeout_s:g} s")

    def running(self) -> bool:
        """Is the program still there?"""
        return self.process.poll() is None

    def why_ended(self) -> str:
        """One line: exit code and the end of its log."""
        code = self.process.poll()
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
        except OSError:
            lines = []
        return f"{self.name} on {self.node_name} ended with exit code {code}: {' | '.join(lines) or 'no output'}"

    def end(self, number: int = signal.SIGTERM, grace_s: float = 5.0) -> int:
        """Ask it to end with a signal, kill it after `grace_s`; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self._reader is not None:
            self._reader.join(grace_s)
        return code
