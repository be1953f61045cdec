"""Parameters of the namespace that agents change while they run, and that get their old values back."""

import contextlib
from pathlib import Path


class Parameters:
    """Below /proc/sys. `set` may be repeated."""

    def __init__(self, root: str = "/proc/sys") -> None:
        self._root = Path(root)
        self._before: dict[Path, str] = {}

    def set(self, name: str, value: int) -> None:
        """Set "net/ipv4/ip_forward". Raises OSError with name and value; one that an interface does not have is left out."""
        path = self._root / name
        try:
            before = path.read_text().strip()
            if before != str(value):
                path.write_text(f"{value}\n")
                self._before.setdefault(path, before)
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
