"""The second part of a guest's initramfs: our own programs as they are now, and the task of one boot."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.capsule import ROOT
from experiments.errors import RoamlabError
from experiments.guest import cpio
from experiments.guest.inside import TASK
from topologies.profiles import PROFILES_VARIABLE

_PACKAGES = ("topologies", "agents", "experiments")
_OVER = "programs/"
_HOME = "opt/roamlab"
_PROFILES = "/etc/roamlab-profiles.toml"


def programs(python: str, folder: Path | None = None) -> bytes:
    """An archive with our packages. For the guest's Python, when it is ours, they are compiled: it compiles slowly.

    The same sources give the same bytes. `folder`: where the work is done; without it in the system's temporary folder.
    """
    out = io.BytesIO()
    writer = cpio.Writer(out)
    writer.add(cpio.file("init", Path(__file__).with_name("init.sh"), executable=True))
    with tempfile.TemporaryDirectory(prefix="roamlab-programs.", dir=folder) as work:
        home = Path(work) / _HOME
        for package in _PACKAGES:
            shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
        if python == f"python{sys.version_info.major}.{sys.version_info.minor}":
            _compile(home, Path(work))
        writer.add(cpio.folder(_OVER + _HOME))
        for entry in cpio.tree(home, f"{_OVER}{_HOME}/"):
            writer.add(entry)
    writer.close()
    return out.getvalue()


def _compile(home: Path, work: Path) -> None:
    """Compile the packages, by a process of its own: what has been imported before shows in the compiled form."""
    argv = [sys.executable, "-I", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash",
            "-s", str(work), "-p", "/", str(home)]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        why = lines[-1] if lines else f"exit code {done.returncode}"
        raise RoamlabError(f"our packages cannot be compiled for the guest in {work}: {why}")


def task(content: Mapping[str, Any]) -> bytes:
    """An archive with the task, and with the link profiles of the user's own."""
    out = io.BytesIO()
    writer = cpio.Writer(out)
    environment = {}
    profiles = os.environ.get(PROFILES_VARIABLE)
    if profiles:
        writer.add(cpio.file(_OVER + _PROFILES.lstrip("/"), Path(profiles)))
        environment[PROFILES_VARIABLE] = _PROFILES
    text = json.dumps({**content, "environment": environment})
    writer.add(cpio.file(_OVER + str(TASK).lstrip("/"), text.encode()))
    writer.close()
    return out.getvalue()
