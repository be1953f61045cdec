"""Archives for the kernel's initramfs: the "newc" form of cpio, written without root privilege.

Owner of every entry is root whoever builds it, and device nodes are entries, not files of the host. Several archives may
follow each other in one file; a later entry replaces an earlier one of the same name.
Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_ALIGNMENT = 4
_END = "TRAILER!!!"
_COPY_BYTES = 1 << 20
BLOCK_BYTES = 512
"""An archive is filled up to this, so that another one can follow."""


@dataclass(frozen=True)
class Entry:
    """A file, folder, symbolic link or device. `mode` includes the type; `device` is (major, minor)."""

    name: str
    mode: int
    content: bytes | Path = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """A folder that everybody may read."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, content: bytes | Path, *, executable: bool = False) -> Entry:
    """A regular file, read from a path or given as bytes."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), content)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))


def character_device(name: str, major: int, minor: int) -> Entry:
    """A character device that root may use."""
    return Entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))


def tree(root: Path, prefix: str = "", wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Entry]:
    """Everything below `root`, parents first, in a fixed order. `wanted` sees names relative to `root`.

    What is not a folder, file or symbolic link is left out. A folder that is not wanted is left out with all it holds.
    """
    for path in sorted(root.iterdir()):
        yield from _below(path, root, prefix, wanted)


def _below(path: Path, root: Path, prefix: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    relative = path.relative_to(root).as_posix()
    if not wanted(relative):
        return
    mode = path.lstat().st_mode
    name = prefix + relative
    if stat.S_ISLNK(mode):
        yield link(name, os.readlink(path))
    elif stat.S_ISREG(mode):
        yield Entry(name, stat.S_IFREG | stat.S_IMODE(mode), path)
    elif stat.S_ISDIR(mode):
        yield folder(name)
        for child in sorted(path.iterdir()):
            yield from _below(child, root, prefix, wanted)


class Writer:
    """Writes entries to a file; `close()` completes the archive."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0
        self._written = 0

    def add(self, entry: Entry) -> None:
        """Write one entry. Raises OSError when its file cannot be read or the disk is full."""
        self._inode += 1
        if isinstance(entry.content, Path):
            with entry.content.open("rb") as source:
                size = os.fstat(source.fileno()).st_size
                self._header(entry, size)
                copied = 0
                while copied < size and (data := source.read(min(_COPY_BYTES, size - copied))):
                    self._put(data)
                    copied += len(data)
                if copied != size:
                    raise OSError(f"{entry.content}: became shorter while it was read")
        else:
            self._header(entry, len(entry.content))
            self._put(entry.content)
        self._align(_ALIGNMENT)

    def close(self) -> None:
        """Write the end mark."""
        self._inode = 0
        self._header(Entry(_END, 0), 0)
        self._align(BLOCK_BYTES)

    def _header(self, entry: Entry, size: int) -> None:
        name = os.fsencode(entry.name) + b"\0"
        fields = (self._inode, entry.mode, 0, 0, 1, 0, size, 0, 0, *entry.device, len(name), 0)
        if size > 0xFFFFFFFF:
            raise OSError(f"{entry.name}: {size} bytes are more than an archive can hold")
        self._put(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._align(_ALIGNMENT)

    def _align(self, to_bytes: int) -> None:
        self._put(bytes(-self._written % to_bytes))

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)
