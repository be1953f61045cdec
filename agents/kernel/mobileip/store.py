"""Durable state of a home agent: rows of JSON in an SQLite file, and a thread that waits for the disk.

While one transaction is on its way to the disk the next requests are verified; what they change goes together into the next
transaction (group commit). So the number of registrations a second does not depend on how slow the disk is.
"""

import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agents.core.mobileip.actions import Action, Store

CLOSE_TIMEOUT_S: Final = 10.0


class StoreError(OSError):
    """The file cannot be used; one line with the remedy."""

    def __str__(self) -> str:
        return self.strerror or ""


class StateFile:
    """Rows (table, key) -> value. What `save` has returned from is there after SIGKILL, and after a loss of power as well.

    power_safe: wait for the disk in every transaction; without it the newest rows may be lost with the power, never with the
    process. timeout_s: how long another process may hold the file. One thread at a time may use it. Raises StoreError.
    """

    def __init__(self, path: str, *, power_safe: bool = True, timeout_s: float = 5.0) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=timeout_s, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}")
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS state "
                "(kind TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            verdict = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise self._failure(error) from None
        if verdict != "ok":
            raise self._failure(sqlite3.DatabaseError(verdict))

    def load(self) -> dict[str, dict[str, Any]]:
        """Everything: table -> key -> value. Raises StoreError."""
        result: dict[str, dict[str, Any]] = {}
        try:
            for kind, key, text in self._database.execute("SELECT kind, key, value FROM state"):
                result.setdefault(kind, {})[key] = json.loads(text)
        except (sqlite3.Error, ValueError) as error:
            raise self._failure(error) from None
        return result

    def save(self, rows: Iterable[Store]) -> None:
        """Carry out all of them in one transaction. Raises StoreError; then none of them is there."""
        latest = {(row.table, row.key): row.value for row in rows}
        if not latest:
            return
        put = [(kind, key, json.dumps(value)) for (kind, key), value in latest.items() if value is not None]
        gone = [name for name, value in latest.items() if value is None]
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", put)
                self._database.executemany("DELETE FROM state WHERE kind = ? AND key = ?", gone)
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _failure(self, error: Exception) -> StoreError:
        text = " ".join(str(error).split())
        return StoreError(0, f"{self._path}: cannot be used: {text}; move it away to begin without bindings")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look at the network has brought: rows for the disk, and what may be done as soon as they are there."""

    rows: Sequence[Store] = ()
    then: Sequence[Action] = field(default=())


class Commits:
    """Saves batches in a thread of its own, in their order, as many in one transaction as have come meanwhile.

    done(batches, error) is called in that thread; with an error none of their rows is on the disk.
    """

    def __init__(self, file: StateFile, done: Callable[[list[Batch], Exception | None], None]) -> None:
        self._file, self._done = file, done
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="commits", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Save it soon."""
        self._batches.put(batch)

    def close(self) -> None:
        """Save what has come, then end and close the file."""
        self._batches.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._file.close()

    def _run(self) -> None:
        while True:
            batches, ends = self._waiting()
            error: Exception | None = None
            if batches:
                try:
                    self._file.save(row for batch in batches for row in batch.rows)
                except Exception as failure:  # also a value that is no JSON: nobody else would hear of it
                    error = failure
                self._done(batches, error)
            if ends:
                return

    def _waiting(self) -> tuple[list[Batch], bool]:
        """All that has come; waits for the first one. True: it is the end."""
        found: list[Batch] = []
        item = self._batches.get()
        while item is not None:
            found.append(item)
            try:
                item = self._batches.get_nowait()
            except queue.Empty:
                return found, False
        return found, True
