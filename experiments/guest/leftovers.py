"""Nothing of a guest stays on the host: its folder goes with the process that made it, even when that one is killed.

Three ways, because each has its gap: the process itself removes the folder when it ends; a shell that waits for its death does
when it is killed; where both are killed at once the next start or `roamlab clean` does.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import RoamlabError

PREFIX = "roamlab-guest."
_WAIT_AND_REMOVE = "trap '' INT TERM HUP; read -r _; rm -rf -- \"$1\""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is locked while this process lives and removed when the block ends or this process dies.

    Raises RoamlabError when it cannot be made.
    """
    remove_stale()
    try:
        folder, lock = _new_locked()
    except OSError as error:
        raise RoamlabError(f"{tempfile.gettempdir()}: {error.strerror}: make room or set TMPDIR") from error
    waiting = subprocess.Popen(["sh", "-c", _WAIT_AND_REMOVE, "sh", str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield folder
    finally:
        waiting.communicate()  # the end of its input
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_locked() -> tuple[Path, int]:
    """A folder and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # before it was locked another process took it for a stale one
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def remove_stale(*, dry_run: bool = False) -> list[Path]:
    """Remove this user's folders whose process is gone: nobody holds their lock. The folders."""
    stale = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY)
        except OSError:  # gone meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
            stale.append(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    return stale
