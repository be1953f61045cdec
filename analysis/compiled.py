"""Compiled kernels: loops over packets that numpy cannot express, compiled by numba and kept on disk.

Importing numba takes longer than many a command runs, so it is imported when the first kernel is called. Compiled code is
kept in the user's cache directory, not beside the sources: an installed package may be read-only, and numba itself does not
notice that something a kernel uses in another file has changed. A folder of the cache therefore belongs to one state of
the sources.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_KEPT_FOLDERS = 4
_PRUNED_AFTER_S = 24 * 3600.0  # a younger folder may be in use by another process
_lock = RLock()
_waiting: dict[int, list[_Kernel[Any, Any]]] = {}
"""Kernels not yet handed to numba, by the identity of their module's globals."""


class _Kernel(Generic[P, R]):
    """A function that is handed to numba, with all kernels of its module, when it is called first."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.dispatcher: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        dispatcher = self.dispatcher
        if dispatcher is None:
            _hand_over(self.function.__globals__)
            dispatcher = self.dispatcher
            assert dispatcher is not None
        return dispatcher(*args, **kwargs)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a kernel: compiled without Python objects and without the GIL, and cached on disk.

    A kernel may call kernels of its own module only. Call it with arrays of the same types and layout every time: another
    combination is another compilation. numba checks no index; `NUMBA_BOUNDSCHECK=1` with a `NUMBA_CACHE_DIR` of its own
    makes it do so.
    """
    kernel = _Kernel(function)
    with _lock:
        _waiting.setdefault(id(function.__globals__), []).append(kernel)
    return kernel


def _hand_over(module: dict[str, Any]) -> None:
    """Make numba's dispatchers of all kernels of a module. They replace the names so that kernels find each other."""
    import numba

    config: Any = numba.config
    with _lock:
        before = config.CACHE_DIR
        if not before:
            config.CACHE_DIR = str(cache_folder())
        try:
            for kernel in _waiting.pop(id(module), []):
                kernel.dispatcher = numba.njit(cache=True, nogil=True)(kernel.function)
                if module.get(kernel.function.__name__) is kernel:
                    module[kernel.function.__name__] = kernel.dispatcher
        finally:
            config.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path:
    """Folder for the compiled code of these sources. A private temporary one when the user's cache cannot be written."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roamlab"
        folder = base / f"kernels-{_digest_of_sources(Path(__file__).parent)}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.utime(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        folder = Path(tempfile.mkdtemp(prefix="roamlab-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    _prune(base, folder)
    return folder


def cold() -> bool:
    """Whether there is no compiled code of these sources yet, so that the first call takes its time."""
    return not os.environ.get("NUMBA_CACHE_DIR") and not any(cache_folder().iterdir())


def _digest_of_sources(root: Path) -> str:
    """Digest of names, sizes and times of change of all files in the folders in which there are kernels."""
    marker = b"from analysis." + b"compiled import"
    sources = sorted(root.rglob("*.py"))
    folders = {path.parent for path in sources if marker in path.read_bytes()}
    digest = hashlib.sha256()
    for path in sources:
        if path.parent in folders:
            state = path.stat()
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _prune(base: Path, current: Path) -> None:
    """Remove the folders of former sources except the newest few."""
    others = [path for path in base.glob("kernels-*") if path != current]
    aged = sorted(((_changed_s(path), path) for path in others), reverse=True)
    for changed_s, path in aged[_KEPT_FOLDERS - 1 :]:
        if time.time() - changed_s > _PRUNED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0
