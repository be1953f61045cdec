"""Durable state of a home agent: rows of JSON in an SQLite file, one transaction for each batch of datagrams."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from agents.core.mobileip.actions import Store


class StoreError(OSError):
    """The file cannot be used; one line with the remedy."""

    def __str__(self) -> str:
        return self.strerror or ""


class StateFile:
    """Rows (table, key) -> value. What `save` has returned from is there after SIGKILL, and after a loss of power as well.

    power_safe: wait for the disk in every transaction; without it the newest rows may be lost with the power, never with the
    process. timeout_s: how long another process may hold the file. Raises StoreError.
    """

    def __init__(self, path: str, *, power_safe: bool = True, timeout_s: float = 5.0) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=timeout_s)
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
