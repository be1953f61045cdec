"""What happens in the guest after it has booted: the task of this boot, its reports, and what it hands back.

    python -m experiments.guest.inside          started by init.sh

Tasks: "run" (one run of an experiment, in a capsule as on any machine), "calibrate" (measurements of the link emulation, in a
capsule as well), "probe" (what this kernel can do), "command" and "shell". Reports are JSON lines on the second serial port,
which the host reads while the guest runs. Results are handed back when the run is over: a guest in virtual time must not wait
for the host while it measures.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from experiments import capsule, features
from experiments.clock import now_ns
from experiments.rundir import RunDirectory, write_json

TASK = Path("/etc/roamlab-task.json")
RESULTS = Path("/results")
REPORTS = Path("/dev/ttyS1")
TERMINAL = Path("/dev/hvc0")
RESULTS_PORT = "results"
_MEASURING_STARTS, _MEASURING_ENDS = "ready", "finishing"


class Reports:
    """JSON lines to the host, each with the guest's time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def send(self, report: Mapping[str, Any]) -> None:
        """One line."""
        line = {**report, "guest_s": round(now_ns() * 1e-9, 3)}
        self._out.write(json.dumps(line).encode() + b"\n")
        self._out.flush()


def busy_and_total(stat: str) -> tuple[int, int]:
    """Busy and all ticks of the CPUs, from the text of /proc/stat (proc(5): user nice system idle iowait irq softirq steal)."""
    ticks = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class _CpuUse:
    """The part of the CPU's time that was used between two moments."""

    def __init__(self) -> None:
        self._start: tuple[int, int] | None = None
        self.busy: float | None = None

    def follow(self, phase: object) -> None:
        """The run says what it does."""
        if phase == _MEASURING_STARTS:
            self._start = self._now()
        elif phase == _MEASURING_ENDS and self._start is not None:
            busy, total = (new - old for new, old in zip(self._now(), self._start, strict=True))
            self.busy = round(busy / total, 4) if total else None

    @staticmethod
    def _now() -> tuple[int, int]:
        return busy_and_total(Path("/proc/stat").read_text())


def run(task: Mapping[str, Any], reports: Reports) -> int:
    """Execute one run as the runner does on the host, and hand its folder back."""
    order = task["order"]
    directory = RunDirectory(Path(order["folder"]), order["run_id"])
    directory.create()
    order_path = directory.path / "logs" / "order.json"
    write_json(order_path, order)
    use = _CpuUse()
    with (directory.path / "logs" / "console.log").open("wb") as console:
        box = capsule.launch([sys.executable, "-m", "experiments.inside", str(order_path)],
                             stdout=subprocess.PIPE, stderr=console.fileno())  # fmt: skip
    assert box.process.stdout is not None
    for line in box.process.stdout:
        try:
            report = json.loads(line)
        except ValueError:
            continue
        use.follow(report.get("phase"))
        reports.send(report)
    code = box.wait()
    box.close()
    directory.release()
    reports.send({"phase": "handing back", "cpu_busy": use.busy})
    folder = directory.final if directory.final.is_dir() else directory.path
    with _port(RESULTS_PORT).open("wb", buffering=0) as port:
        left_out = ["--exclude=./.reserve", "--exclude=./logs/order.json"]
        subprocess.run(["tar", "-c", *left_out, "-C", str(folder), "."], stdout=port, check=True)
    return code


def calibrate(task: Mapping[str, Any], reports: Reports) -> int:
    """Measure the link emulation; what the measurement says is reported."""
    argv = [sys.executable, "-m", "experiments.calibrate", "--inside", *task["arguments"]]
    box = capsule.launch(argv, stdout=subprocess.PIPE)
    assert box.process.stdout is not None
    for line in box.process.stdout:
        with suppress(ValueError, TypeError):  # a library's word, not ours
            reports.send(json.loads(line))
    code = box.wait()
    box.close()
    return code


def probe(_task: Mapping[str, Any], reports: Reports) -> int:
    """Try every feature of this kernel."""
    reports.send({"features": features.probe(), "machine": features.describe_machine()})
    return 0


def command(task: Mapping[str, Any], _reports: Reports) -> int:
    """Run a command; its output goes to the host's terminal."""
    with TERMINAL.open("wb", buffering=0) as out:
        return subprocess.run(task["argv"], stdout=out, stderr=out, cwd="/root").returncode


def shell(_task: Mapping[str, Any], _reports: Reports) -> int:
    """A login of its own on the host's terminal."""
    return subprocess.run(["setsid", "--ctty", "--wait", "bash", "--norc", "-i"], cwd="/root",
                          stdin=TERMINAL.open("rb"), stdout=TERMINAL.open("wb"), stderr=subprocess.STDOUT,
                          env={**os.environ, "PS1": "guest# ", "TERM": "linux"}).returncode  # fmt: skip


TASKS = {"run": run, "calibrate": calibrate, "probe": probe, "command": command, "shell": shell}


def _port(name: str) -> Path:
    """The device of a virtio-serial port by its name; there is no udev here that would make links."""
    for folder in Path("/sys/class/virtio-ports").iterdir():
        if (folder / "name").exists() and (folder / "name").read_text().strip() == name:
            return Path("/dev") / folder.name
    raise OSError(f"no virtio-serial port {name!r}")


def main() -> None:
    """Do the task; the last report holds its exit code."""
    task = json.loads(TASK.read_text())
    os.environ.update(task["environment"])
    with REPORTS.open("wb", buffering=0) as out:
        reports = Reports(out)
        reports.send({"phase": "booted"})
        try:
            code = TASKS[task["task"]](task, reports)
        except Exception as error:  # the boundary of the guest: the host shows it
            reports.send({"phase": "end", "code": 1, "error": f"{type(error).__name__}: {error}"})
            raise
        reports.send({"phase": "end", "code": code})


if __name__ == "__main__":
    main()
