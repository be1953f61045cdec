"""Network namespaces: make one, work inside one. Without helper programs, so that it takes microseconds."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class LinkError(RuntimeError):
    """A link or interface operation that failed; one line that says which and why."""


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def enter(namespace: int) -> None:
    """Move the calling thread into a network namespace, given as a file descriptor."""
    _call("setns", namespace, CLONE_NEWNET)


def current() -> int:
    """A file descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def namespace_of(pid: int) -> int:
    """A file descriptor of the network namespace of a process."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LinkError(f"no network namespace of process {pid}: {error.strerror}; has the node ended?") from error


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Run a block in a network namespace. Affects the calling thread only; sockets made inside stay there."""
    home = current()
    try:
        enter(namespace)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def new_namespace() -> int:
    """Make a network namespace that lives as long as the returned file descriptor. IPv6 is off in it, ARP unused."""
    home = current()
    try:
        try:
            _call("unshare", CLONE_NEWNET)
        except PermissionError as error:
            raise LinkError("cannot make a network namespace: not permitted; run inside the capsule or as root") from error
        try:
            _silence_ipv6()
            return current()
        finally:
            enter(home)
    finally:
        os.close(home)


def _silence_ipv6() -> None:
    # Without this the outer ends would send router solicitations, MLD reports and DAD probes into every link.
    for scope in ("all", "default"):
        path = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if path.exists():
            path.write_text("1")
