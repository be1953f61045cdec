"""A load of our own: processes that keep the processors busy, to show what depends on the machine and what does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.errors import RoamlabError

_LOOP = "while True: pass"


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many endless loops, until the block ends in any way; the kernel ends them with this process. Raises RoamlabError."""
    argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-I", "-S", "-c", _LOOP]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            started.append(_start(argv))
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def _start(argv: list[str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise RoamlabError("setpriv is not installed: run `make setup` (Debian package util-linux)") from None
