"""Parameters of the namespace that agents change while they run, and that get their old values back.

An agent that is killed cannot put anything back. It has written down beforehand what it was going to change: the next one with
the same note finds the old values there.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


class Parameters:
    """Below /proc/sys. `set` may be repeated. note: file for the old values; "": a killed agent's changes stay."""

    def __init__(self, root: str = "/proc/sys", note: str = "") -> None:
        self._root, self._note = Path(root), Path(note) if note else None
        self._before: dict[Path, str] = {}
        self._wanted: dict[Path, str] = {}

    def recover(self) -> list[str]:
        """Put back what a killed agent has left here; the names of those parameters.

        Only in the namespace for which the note was written, and only what still has the value that was set.
        """
        names = []
        for path, values in self._left().items():
            with contextlib.suppress(OSError):
                if Path(path).read_text().strip() == values["set"]:
                    Path(path).write_text(f"{values['before']}\n")
                    names.append(os.path.relpath(path, self._root))
        self._forget()
        return names

    def set(self, name: str, value: int) -> None:
        """Set "net/ipv4/ip_forward". Raises OSError with name and value; one that an interface does not have is left out."""
        path = self._root / name
        try:
            before = path.read_text().strip()
            if before != str(value):
                self._before.setdefault(path, before)
                self._wanted[path] = str(value)
                self._write_note()
                path.write_text(f"{value}\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OSError(error.errno, f"{name} = {value}: {error.strerror}") from None

    def restore(self) -> None:
        """Old values again; interfaces that are gone have none."""
        for path, value in self._before.items():
            with contextlib.suppress(OSError):
                path.write_text(value + "\n")
        self._before.clear()
        self._wanted.clear()
        self._forget()

    # -- the note -----------------------------------------------------------------------------------------------------
    def _write_note(self) -> None:
        if self._note is None:
            return
        values = {str(path): {"before": before, "set": self._wanted[path]} for path, before in self._before.items()}
        draft = self._note.with_name(self._note.name + ".new")
        with contextlib.suppress(OSError):  # without it a killed agent's changes stay, and nothing else
            draft.write_text(json.dumps({"namespace": _namespace(), "parameters": values}))
            draft.replace(self._note)

    def _left(self) -> dict[str, dict[str, str]]:
        if self._note is None:
            return {}
        try:
            note: Any = json.loads(self._note.read_text())
            found = {str(path): {"before": str(values["before"]), "set": str(values["set"])}
                     for path, values in note["parameters"].items()}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return found if note.get("namespace") == _namespace() else {}

    def _forget(self) -> None:
        if self._note is not None:
            self._note.unlink(missing_ok=True)


def _namespace() -> str:
    """Which network namespace this is: its number is used again after the next boot."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.stat('/proc/self/ns/net').st_ino}"
