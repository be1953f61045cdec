"""Files that others may read while they are written, and names of files in texts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A scratch file that gets the name `path` when the block ends well and vanishes when it does not.

    A reader sees the old or the new file, never half. Errors of the system name `path`.
    """
    target = path.resolve()  # a link stays a link
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield scratch
        scratch.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never half."""
    with written_atomically(path) as scratch:
        scratch.write_text(text, "utf-8")


def printable(text: object) -> str:
    """A text of a stranger, a file name for example, in one line and without control characters."""
    plain = os.fsencode(str(text)).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
