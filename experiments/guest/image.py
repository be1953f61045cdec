"""The guest's image: kernel, initramfs and root file system, built once for each state of its inputs.

The folder of an image is complete or does not exist.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.errors import RoamlabError
from experiments.guest import recipe
from experiments.guest.build import Build, release
from experiments.guest.packages import Say
from experiments.rundir import read_json

_FREE_BYTES = 1_600_000_000
_KEPT_IMAGES = 3
_REMEDY = "make the image again with `roamlab guest build --renew`, or set XDG_CACHE_HOME to a folder of yours"
_SOURCES = ("recipe.py", "build.py", "cpio.py", "packages.py")


@dataclass(frozen=True)
class Image:
    """A complete image."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel, as QEMU loads it."""
        return self.folder / "kernel"

    @property
    def initramfs(self) -> Path:
        """The first part of the initramfs, to be followed by archives with what belongs to one boot."""
        return self.folder / "initramfs.cpio"

    @property
    def root(self) -> Path:
        """The root file system, ext4, only read."""
        return self.folder / "root.ext4"

    def describe(self) -> dict[str, Any]:
        """Kernel version, package versions, time of the build."""
        return read_json(self.folder / "image.json")

    def check(self) -> None:
        """Raises RoamlabError when a part of it is missing or cannot be read."""
        for path in (self.kernel, self.initramfs, self.root, self.folder / "image.json"):
            try:
                path.open("rb").close()
            except OSError as error:
                raise RoamlabError(f"{path}: {error.strerror}: {_REMEDY}") from error
        try:
            self.describe()
        except RoamlabError as error:
            raise RoamlabError(f"{error}: {_REMEDY}") from error


def cache_folder() -> Path:
    """Where images are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roamlab" / "guest"


def digest() -> str:
    """Names the state of everything that an image is made from here: recipe, distribution, Python packages."""
    state = hashlib.sha256(release().encode())
    for name in _SOURCES:
        state.update(Path(__file__).with_name(name).read_bytes())
    try:
        names = [*recipe.python_distributions(), *recipe.PYTHON_NAMED]
        state.update(json.dumps([(name, metadata.version(name)) for name in names]).encode())
    except metadata.PackageNotFoundError as error:
        raise RoamlabError(f"Python package {error.name} is not installed: run `make setup`") from error
    return state.hexdigest()[:16]


def get(say: Say, *, renew: bool = False) -> Image:
    """The image, built when it is not there yet. `renew`: built again, with the newest packages. Raises RoamlabError."""
    image = Image(cache_folder() / digest())
    if renew or not _is_there(image):
        with _alone(say):
            if renew or not _is_there(image):  # another process may have built it meanwhile
                _build_into(image.folder, say)
    image.check()
    with contextlib.suppress(OSError):  # not ours: then nobody removes it either
        os.utime(image.folder)
    return image


def _is_there(image: Image) -> bool:
    try:
        return image.folder.is_dir()
    except OSError as error:  # a folder above it may not be entered
        raise RoamlabError(f"{image.folder}: {error.strerror}: {_REMEDY}") from error


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    """One build at a time; the others wait for its result."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another build of the image")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        remedy = "make room, or set XDG_CACHE_HOME to a folder that can be written"
        raise RoamlabError(f"{folder}: guest image cannot be built: {error.strerror or error}: {remedy}") from error


def _forget_old(folder: Path) -> None:
    """Keep the images that were used last: other checkouts may use one, and an older one is built again in half a minute."""
    images = [path for path in folder.iterdir() if (path / "image.json").exists()]
    for path in sorted(images, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_IMAGES:]:
        shutil.rmtree(path, ignore_errors=True)


def _build_into(final: Path, say: Say) -> None:
    if platform.machine() != "x86_64":
        raise RoamlabError(f"the guest's image can only be built on x86-64, this machine is {platform.machine()}")
    free = shutil.disk_usage(final.parent).free
    if free < _FREE_BYTES:
        raise RoamlabError(f"{final.parent}: only {free // 10**6} MB free, building the guest's image takes "
                           f"{_FREE_BYTES // 10**6} MB: make room or set XDG_CACHE_HOME")  # fmt: skip
    for left in final.parent.glob("*.partial"):  # of builds that were killed: only one runs at a time
        shutil.rmtree(left, ignore_errors=True)
    partial = final.with_name(final.name + ".partial")
    partial.mkdir()
    try:
        with tempfile.TemporaryDirectory(dir=partial, prefix="work.") as work:
            Build(Path(work), partial, say).all_steps()
        if final.is_dir():
            shutil.rmtree(final)
        partial.rename(final)
        _forget_old(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
