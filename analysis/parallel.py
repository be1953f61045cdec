"""The same work for many runs, side by side on the machine's processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

PARALLEL_FROM = 4
"""Starting worker processes takes about a second: it pays from this many calls on."""
Outcome = TypeVar("Outcome")


def map_parallel(function: Callable[..., Outcome], *arguments: Sequence[Any]) -> list[Outcome]:
    """What `function` returns for the first of all arguments, the second of all, ..., in their order.

    The function must be one of a module, arguments and outcomes such that they can be pickled. An exception ends it.
    """
    count = len(arguments[0])
    workers = min(count, len(os.sched_getaffinity(0)))
    if workers < 2 or count < PARALLEL_FROM:
        return list(map(function, *arguments))
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(function, *arguments))
