"""Which processes and namespaces of a test are alive: found by a mark in their environment."""

import os
import uuid
from pathlib import Path

MARK = "ROAMLAB_TEST_MARK"


def new_mark() -> str:
    """A value that no other process has."""
    return uuid.uuid4().hex


def marked(mark: str) -> dict[int, str]:
    """Processes of the host whose environment holds the mark: process id to command line. Zombies have ended."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def namespaces(pids: list[int]) -> set[str]:
    """Network and PID namespaces of processes."""
    found = set()
    for pid in pids:
        for kind in ("net", "pid", "mnt"):
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue
    return found


def all_processes() -> list[int]:
    """Every process of the host."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
