"""Runs in guests: one boot for every run, so that no run depends on what ran before it."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from experiments import features
from experiments.capsule import environment
from experiments.errors import RoamlabError
from experiments.guest import image, qemu
from experiments.guest.machine import GuestError, Machine, guest_folder
from experiments.guest.packages import Say
from experiments.places import Box
from experiments.rundir import read_json, write_json

_PROBE_WALL_S = 600.0
_KVM_PROBE_S = 5.0
_SLOWEST = 8.0
"""Wall time per guest time that a run may take: emulation on a machine that is busy with other things."""
_BOOT_WALL_S = 120.0
_OWN_END_S = 10.0


@dataclass
class GuestBox:
    """The process that boots a guest for one run; the guest ends with it."""

    process: "subprocess.Popen[bytes]"

    def ask_to_end(self) -> None:
        """The guest is cut off: what it has not handed back is lost."""
        self.process.terminate()

    def close(self) -> None:
        """The same at once."""
        self.process.kill()

    def wait(self, timeout_s: float | None = None) -> int:
        """Exit code: 0 when the run is complete or unsupported."""
        return self.process.wait(timeout_s)


@dataclass
class GuestPlace:
    """Guests of one flavour, with an image that is there."""

    image: image.Image
    folder: Path
    flavour: str
    name = "guest"

    def probe(self) -> dict[str, str | None]:
        """What the guest's kernel can do; tried once for each image and flavour."""
        found: dict[str, str | None] = self._probed()["features"]
        return found

    def describe(self) -> dict[str, Any]:
        """The guest, as the manifest shows it."""
        guest = {
            "flavour": self.flavour,
            "qemu": qemu.version(),
            "image": self.image.folder.name,
            "memory_mib": qemu.MEMORY_MIB,
        }
        return {**self._probed()["machine"], "guest": {**guest, "kernel": self.image.describe()["kernel"]}}

    def wall_limit_s(self, limit_s: float) -> float:
        """Guest time may pass slowly."""
        return _BOOT_WALL_S + _SLOWEST * limit_s

    def launch(self, order_path: Path, console: BinaryIO, wall_limit_s: float) -> Box:
        """Boot a guest for the run."""
        job = {"order": str(order_path), "image": str(self.image.folder), "folder": str(self.folder), "flavour": self.flavour,
               "deadline_s": wall_limit_s - _OWN_END_S}  # fmt: skip
        argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "experiments.guest.supervise", json.dumps(job)]
        return GuestBox(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console.fileno(),
                                         env=environment(), start_new_session=True))  # fmt: skip

    def _probed(self) -> dict[str, Any]:
        key = hashlib.sha256(Path(features.__file__).read_bytes()).hexdigest()[:8]
        path = self.image.folder / f"probe-{self.flavour}-{key}.json"
        if not path.exists():
            console = self.folder / "probe-console.log"
            outcome = Machine(self.image, self.folder, console, self.flavour).execute({"task": "probe"}, _PROBE_WALL_S)
            write_json(path, next(report for report in outcome.reports if "features" in report))
        return read_json(path)


@contextmanager
def guest_place(flavour: str, say: Say) -> Iterator[GuestPlace]:
    """Everything that is needed to start guests; the image is built when there is none. Raises RoamlabError."""
    qemu.require()
    found = image.get(say)
    with guest_folder(found) as folder:
        place = GuestPlace(found, folder, flavour)
        if flavour == qemu.KVM:
            require_kvm(place)
        say("trying the guest's kernel")
        place.probe()
        yield place


def require_kvm(place: GuestPlace) -> None:
    """Raises RoamlabError when a guest with KVM does not boot in a few seconds: /dev/kvm may exist and not work."""
    remedy = "use --guest=virtual-time or --guest=tcg"
    if not Path("/dev/kvm").exists():
        raise RoamlabError(f"KVM: there is no /dev/kvm here: {remedy}")
    task: Mapping[str, Any] = {"task": "command", "argv": ["true"]}
    try:
        Machine(place.image, place.folder, place.folder / "kvm-console.log", qemu.KVM).execute(task, _KVM_PROBE_S)
    except GuestError as error:
        raise RoamlabError(f"KVM does not boot a guest here: {error}; {remedy}") from error
