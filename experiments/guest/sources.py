"""The second part of a guest's initramfs: our own programs as they are now, and the task of one boot."""

import io
import json
import os
import py_compile
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.capsule import ROOT
from experiments.guest import cpio
from experiments.guest.inside import TASK
from topologies.profiles import PROFILES_VARIABLE

_PACKAGES = ("topologies", "agents", "experiments")
_OVER = "programs/"
_HOME = f"{_OVER}opt/roamlab"
_PROFILES = "/etc/roamlab-profiles.toml"


def programs(python: str) -> bytes:
    """An archive with our packages. For the guest's Python, when it is ours, they are compiled: it compiles slowly."""
    compiled = python == f"python{sys.version_info.major}.{sys.version_info.minor}"
    out = io.BytesIO()
    writer = cpio.Writer(out)
    writer.add(cpio.file("init", Path(__file__).with_name("init.sh"), executable=True))
    writer.add(cpio.folder(_HOME))
    for package in _PACKAGES:
        writer.add(cpio.folder(f"{_HOME}/{package}"))
        for entry in cpio.tree(ROOT / package, f"{_HOME}/{package}/", lambda name: "__pycache__" not in name):
            writer.add(entry)
            if compiled and entry.name.endswith(".py") and isinstance(entry.content, Path):
                for more in _compiled(entry.name, entry.content):
                    writer.add(more)
    writer.close()
    return out.getvalue()


def _compiled(name: str, path: Path) -> Iterator[cpio.Entry]:
    """The compiled form of a module, never compared with its source."""
    folder, _, module = name.rpartition("/")
    with tempfile.NamedTemporaryFile() as target:
        py_compile.compile(str(path), target.name, f"/{name.removeprefix(_OVER)}", doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)  # fmt: skip
        data = Path(target.name).read_bytes()
    yield cpio.folder(f"{folder}/__pycache__")
    yield cpio.file(f"{folder}/__pycache__/{module.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc", data)


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
