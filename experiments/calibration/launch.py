"""Starts a calibration: in a capsule on this machine, or in guests.

    python -m experiments.calibration.launch JOB          one boot of a guest; started by `in_guests`

In guests every profile and backend has a boot of its own: no measurement depends on what was measured before it, both backends
start from the same state, and boots can be side by side.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

from experiments import capsule
from experiments.calibration.plan import EXIT_MISSED, EXIT_OK, EXIT_UNSUPPORTED, asked_of
from experiments.calibration.rows import failed_row
from experiments.errors import RoamlabError
from experiments.guest.image import Image
from experiments.guest.machine import Machine
from experiments.guest.place import GuestPlace

_BOOT_DEADLINE_S = 1800.0
"""Wall time after which a guest counts as hanging: several times what the longest measurement takes on a busy machine."""

Follow = Callable[[dict[str, Any]], None]


class Unsupported(RoamlabError):
    """A backend does not work here; the reason."""


def in_capsule(items: Sequence[str], effort: str, backend: str | None, follow: Follow) -> list[dict[str, Any]]:
    """Measure on this machine; results in order. Raises Unsupported, and RoamlabError with the measurement's last words."""
    results: list[dict[str, Any]] = []
    unsupported = None
    argv = [sys.executable, "-m", "experiments.calibrate", "--inside", *arguments(items, effort, backend)]
    with tempfile.TemporaryFile() as errors:
        box = capsule.launch(argv, stdout=subprocess.PIPE, stderr=errors.fileno())
        assert box.process.stdout is not None
        try:
            for line in box.process.stdout:
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # a library's word, not ours
                if "error" in said:
                    raise RoamlabError(f"calibration: {said['error']}")
                unsupported = said.get("unsupported", unsupported)
                if "result" in said:
                    results.append(said["result"])
                follow(said)
            code = box.wait()
        finally:
            box.close()
        if code == EXIT_UNSUPPORTED:
            raise Unsupported(str(unsupported))
        if code not in (EXIT_OK, EXIT_MISSED):
            raise RoamlabError(f"calibration failed: {_last_line(errors)}")
    return results


def arguments(items: Sequence[str], effort: str, backend: str | None) -> list[str]:
    """Of `python -m experiments.calibrate --inside`."""
    return ["--effort", effort, *(["--backend", backend] if backend else []), "--", *items]


@dataclass
class Boot:
    """One profile on one backend in one guest."""

    item: str
    backend: str | None
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    result: dict[str, Any] | None = None
    last: dict[str, Any] = field(default_factory=dict)
    """The last thing it reported."""

    @property
    def out(self) -> IO[bytes]:
        """Its reports, unbuffered: what has been read is no longer readable."""
        assert self.process.stdout is not None
        return self.process.stdout


def in_guests(
    place: GuestPlace, items: Sequence[str], effort: str, backends: Sequence[str | None], at_a_time: int,
    follow: Callable[[list[Boot], Boot, dict[str, Any]], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure every item on every backend, so many guests at a time; results in that order.

    `follow` gets the running boots, the one that reported, and its report; the last one of a boot is {"ended": {...}}.
    A boot that fails gives a result with one failed row. When this function is left, no guest is.
    """
    planned = [(item, backend) for item in items for backend in backends]
    finished: dict[tuple[str, str | None], dict[str, Any]] = {}
    waiting = list(reversed(planned))
    running: dict[int, Boot] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                boot = _start(place, *waiting.pop(), effort)
                running[boot.out.fileno()] = boot
            for descriptor in wait(list(running)):
                assert isinstance(descriptor, int)
                boot = running[descriptor]
                line = boot.out.readline()
                report = json.loads(line) if line else {"ended": _end(boot)}
                boot.last = report
                boot.result = report.get("result", boot.result)
                if not line:
                    del running[descriptor]
                    finished[boot.item, boot.backend] = {**_result(boot), "guest": report["ended"]}
                follow(list(running.values()), boot, report)
    finally:
        for boot in running.values():
            boot.process.kill()  # QEMU ends with it
            boot.process.wait()
    return [finished[key] for key in planned]


def _start(place: GuestPlace, item: str, backend: str | None, effort: str) -> Boot:
    job = {"image": str(place.image.folder), "folder": str(place.folder), "flavour": place.flavour,
           "arguments": arguments([item], effort, backend)}  # fmt: skip
    argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "experiments.calibration.launch", json.dumps(job)]
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the boot
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
                               env=capsule.environment(), start_new_session=True)  # fmt: skip
    return Boot(item, backend, process, errors)


def _end(boot: Boot) -> dict[str, Any]:
    """What the end of a boot says: guest_s and wall_s, or why it failed."""
    code = boot.process.wait()
    if code == 0 and "wall_s" in boot.last:
        return {"guest_s": boot.last["guest_s"], "wall_s": boot.last["wall_s"]}
    return {"why": f"{_last_line(boot.errors)} (exit code {code})"}


def _result(boot: Boot) -> dict[str, Any]:
    ended = boot.last["ended"]
    if boot.result is not None and "why" not in ended:
        return boot.result
    kind, _, name = boot.item.partition(":")
    asked = asked_of(boot.item)
    row = {"direction": "both", **failed_row("everything", ended.get("why", "the guest measured nothing"))}
    return {"profile": name, "kind": kind, "label": asked.describe(), "asked": asked.to_dict(),
            "backend": boot.backend or "unknown", "rows": [row], "ok": False}  # fmt: skip


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def _say(report: dict[str, Any]) -> None:
    print(json.dumps(report), flush=True)


def one_boot(job: dict[str, Any]) -> None:
    """Boot a guest, measure, pass its reports on; the last one has guest_s and wall_s. Raises RoamlabError."""
    with tempfile.TemporaryDirectory(prefix="console.", dir=job["folder"]) as folder:
        machine = Machine(Image(Path(job["image"])), Path(job["folder"]), Path(folder) / "console.log", job["flavour"])
        outcome = machine.execute({"task": "calibrate", "arguments": job["arguments"]}, _BOOT_DEADLINE_S, _say)
    said = [report[key] for report in outcome.reports for key in ("error", "unsupported") if key in report]
    if said:
        raise RoamlabError(str(said[-1]))
    if outcome.code not in (EXIT_OK, EXIT_MISSED):
        raise RoamlabError(f"the measurement in the guest ended with exit code {outcome.code}")
    _say({"guest_s": round(outcome.guest_s, 3), "wall_s": round(outcome.wall_s, 3)})


def main() -> None:
    """The last line on standard error says what was wrong."""
    try:
        one_boot(json.loads(sys.argv[1]))
    except (RoamlabError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
