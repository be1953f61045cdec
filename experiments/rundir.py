"""Run directories and campaign files, written so that an interrupted run is never taken for a complete one.

A run is written in `<run-id>.partial` and renamed after its manifest, the last file, has been synced. Files that others read
are replaced atomically. Nothing that was written before is ever overwritten: run ids carry the campaign.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.errors import RoamlabError

PARTIAL = ".partial"
SCHEMA = 1
RESERVE = ".reserve"
RESERVE_BYTES = 1_000_000
"""Held back from the start, so that a run that fills the disk can still write down that it did."""


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path` by `data` as JSON: readers see the old file or the new one, also after a crash or on a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RoamlabError(f"{path}: cannot be written: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def new_campaign_id(folder: Path) -> str:
    """A campaign name that nobody used in `folder`: UTC time, with a number where two start in one second."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        campaign = stamp + suffix
        try:
            # Exclusive creation decides between two runners that start together.
            (folder / f"{campaign}.json").open("x").close()
        except FileExistsError:
            continue
        except OSError as error:
            raise RoamlabError(f"{folder}: cannot be written: {error.strerror}") from error
        return campaign
    raise RoamlabError(f"{folder}: too many campaigns in one second")


class RunDirectory:
    """The folder of one run while it is written."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.final = folder / run_id
        self.path = folder / (run_id + PARTIAL)
        self._lock_fd = -1

    def create(self) -> None:
        """Make the folder and its parts. Raises RoamlabError when it exists or cannot be made."""
        try:
            self.path.mkdir(parents=True)
            for part in ("pcap", "events", "workload", "logs"):
                (self.path / part).mkdir()
            with (self.path / RESERVE).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            # Held until this process ends: who finds the folder unlocked knows that its runner is gone.
            self._lock_fd = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        except OSError as error:
            raise RoamlabError(f"{self.path}: cannot be made: {error.strerror}") from error

    def release(self) -> None:
        """The runner is done with the folder."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def finish(self, manifest: Mapping[str, Any]) -> Path:
        """Write the manifest last and give the folder its final name."""
        (self.path / RESERVE).unlink(missing_ok=True)
        write_json(self.path / "manifest.json", manifest)
        sync_folder(self.path)
        self.path.rename(self.final)
        sync_folder(self.final.parent)
        return self.final


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps(data) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises RoamlabError that names the file and the line."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise RoamlabError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise RoamlabError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(data, dict):
        raise RoamlabError(f"{path}: not a JSON object")
    return data
