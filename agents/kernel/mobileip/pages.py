"""Long lists in answers of control sockets: an agent may have thousands of bindings, so a page at a time is said."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, TypeVar

from agents.kernel.control import CommandError

T = TypeVar("T")
ROWS: Final = 200
"""Rows of each list when the client does not say how many."""


@dataclass(frozen=True, slots=True)
class Page:
    """The rows from number `first` (0: the beginning), at most `limit`."""

    first: int = 0
    limit: int = ROWS

    def of(self, rows: Iterable[T]) -> list[T]:
        """These rows of a list."""
        return list(islice(rows, self.first, self.first + self.limit))


FIRST_PAGE: Final = Page()


def page_of(request: dict[str, Any]) -> Page:
    """What a request asks for. Raises CommandError."""
    values = {"first": request.get("first", 0), "limit": request.get("limit", ROWS)}
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise CommandError(f'"{name}" must be a whole number, 0 or more')
    return Page(**values)


def preferring(names: Iterable[T], all_names: Iterable[T], limit: int) -> Iterator[T]:
    """At most `limit` different names: those that are wanted, then others."""
    return islice(dict.fromkeys(chain(names, islice(all_names, limit))), limit)
