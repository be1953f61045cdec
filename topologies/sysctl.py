"""Kernel parameters of a node's network namespace, read and written without starting a program there."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from topologies.links.netns import inside, namespace_of


@contextmanager
def network_namespace(pid: int) -> Iterator[None]:
    """The calling thread is in the network namespace of process `pid` for the length of the block.

    /proc/sys/net means that namespace; /proc/net does not (it follows the main thread).
    """
    namespace = namespace_of(pid)
    try:
        with inside(namespace):
            yield
    finally:
        os.close(namespace)


def write_sysctls(pid: int, values: Mapping[str, str | int]) -> None:
    """Set parameters ("net/ipv4/ip_forward": 1) in the network namespace of `pid`.

    Raises OSError naming the parameter and the value.
    """
    with network_namespace(pid):
        for name, value in values.items():
            try:
                with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
                    file.write(f"{value}\n")
            except OSError as error:
                raise OSError(error.errno, f"{name} = {value}: {error.strerror}") from error


def read_sysctls(pid: int, names: Iterable[str]) -> dict[str, str]:
    """Values of those parameters that exist and can be read in the network namespace of `pid`; runs of blanks are one."""
    values: dict[str, str] = {}
    with network_namespace(pid):
        for name in names:
            with suppress(OSError), open(f"/proc/sys/{name}", encoding="ascii") as file:
                values[name] = " ".join(file.read().split())
    return values


def read_sysctl(pid: int, name: str) -> str:
    """Value of a parameter in the network namespace of `pid`."""
    with network_namespace(pid), open(f"/proc/sys/{name}", encoding="ascii") as file:
        return file.read().strip()
