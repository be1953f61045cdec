"""A running guest: started, watched and ended; its reports are read while it runs.

A guest ends in one of these ways: its task's last report; a panic or a power-off without one; the deadline in wall time;
the end of this process, which takes QEMU with it.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.guest import qemu, sources
from experiments.guest.image import Image
from experiments.guest.leftovers import temporary_folder

_POLL_S = 0.1
_LAST_LINES = 6
_PANIC = "Kernel panic"
_END_GRACE_S = 10.0

Report = dict[str, Any]
Follow = Callable[[Report], None]


class GuestError(RoamlabError):
    """The guest did not do its task."""


@dataclass
class Outcome:
    """How a task ended."""

    code: int
    guest_s: float
    wall_s: float
    results: Path
    """The archive that the guest handed back, empty for most tasks. It vanishes with the machine's folder."""
    reports: list[Report] = field(default_factory=list)


class LineReader:
    """The complete JSON lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> Iterator[Report]:
        """What has come since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if isinstance(report, dict):
                yield report


@contextmanager
def guest_folder(image: Image) -> Iterator[Path]:
    """A folder for the files of boots, with the part of the initramfs that all of them share. Raises RoamlabError."""
    with temporary_folder() as folder:
        try:
            (folder / "programs.cpio").write_bytes(sources.programs(image.describe()["python"], folder))
        except OSError as error:
            raise RoamlabError(f"{folder}: {error.strerror}: make room or set TMPDIR") from error
        yield folder


@dataclass
class Machine:
    """One boot of a guest. `folder` comes from `guest_folder`; `console` keeps what the kernel said."""

    image: Image
    folder: Path
    console: Path
    flavour: str = qemu.VIRTUAL_TIME
    seed: int = 1
    memory_mib: int = qemu.MEMORY_MIB
    terminal: bool = False

    def execute(self, task: Mapping[str, Any], deadline_s: float | None, follow: Follow = lambda report: None) -> Outcome:
        """Boot, do the task, end. `follow` sees every report. Raises GuestError with the console's last lines."""
        qemu.require(self.memory_mib)
        work = Path(tempfile.mkdtemp(prefix="boot.", dir=self.folder))
        initrd = work / "initrd"
        try:
            with initrd.open("wb") as out:
                for part in (self.image.initramfs, self.folder / "programs.cpio"):
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 22)
                out.write(sources.task(task))
        except OSError as error:
            raise GuestError(f"{initrd}: {error.strerror}: the guest's image does not fit; make room or set TMPDIR") from error
        boot = qemu.Boot(
            flavour=self.flavour,
            kernel=self.image.kernel,
            root=self.image.root,
            root_bytes=self.image.root.stat().st_size,
            initrd=initrd,
            console=self.console,
            reports=work / "reports",
            results=work / "results",
            seed=self.seed,
            memory_mib=self.memory_mib,
            terminal=self.terminal,
        )
        return self._watch(boot, deadline_s, follow)

    def _watch(self, boot: qemu.Boot, deadline_s: float | None, follow: Follow) -> Outcome:
        start_ns = now_ns()
        error_path = boot.reports.with_name("qemu.log")
        reports: list[Report] = []
        reader = LineReader(boot.reports)
        with error_path.open("wb") as errors:
            process = subprocess.Popen(
                qemu.command_line(boot), stderr=errors, stdin=None if self.terminal else subprocess.DEVNULL
            )
        try:
            running = True
            while running:
                running = not _ended(process, _POLL_S)
                for report in reader.read():
                    reports.append(report)
                    follow(report)
                wall_s = (now_ns() - start_ns) * 1e-9
                if running and deadline_s is not None and wall_s > deadline_s:
                    raise GuestError(f"no end within {deadline_s:.0f} s of wall time: the guest hangs{self._last_words()}")
        finally:
            process.kill()
            process.wait()
            boot.initrd.unlink(missing_ok=True)
        if not reports or reports[-1].get("phase") != "end":
            raise GuestError(self._why_ended(process.returncode, error_path.read_text(errors="replace")))
        last = reports[-1]
        if "error" in last:
            raise GuestError(f"inside the guest: {last['error']}{self._last_words()}")
        return Outcome(int(last["code"]), float(last["guest_s"]), (now_ns() - start_ns) * 1e-9, boot.results, reports)

    def _why_ended(self, code: int, errors: str) -> str:
        text = self._console_text()
        if _PANIC in text:
            line = next(line for line in text.splitlines() if _PANIC in line)
            return f"the guest's kernel panicked: {line[line.index(_PANIC) :].strip()}{self._last_words()}"
        if errors.strip():
            return f"QEMU ended with exit code {code}: {errors.strip().splitlines()[-1]}"
        return f"the guest ended without a result (QEMU's exit code {code}){self._last_words()}"

    def _console_text(self) -> str:
        try:
            return self.console.read_text(errors="replace")
        except OSError:
            return ""

    def _last_words(self) -> str:
        """The end of the console as part of a message of one line."""
        lines = [line.strip() for line in self._console_text().splitlines() if line.strip()][-_LAST_LINES:]
        return f"; the console ({self.console}) ends with: {' | '.join(lines)}" if lines else "; its console is empty"


def _ended(process: "subprocess.Popen[bytes]", wait_s: float) -> bool:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True
