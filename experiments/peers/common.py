"""What the workload programs share: JSON reports on standard output, summaries, and an end on request.

These programs use plain sockets and know nothing of mechanisms: that is the point of running them.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONNECT_TIMEOUT_S = 20.0


class EndRequested(Exception):
    """SIGTERM: the run's time is over; write down what there is."""


def _raise_end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: the summary must be written
    raise EndRequested


@contextlib.contextmanager
def until_end_requested() -> Iterator[None]:
    """Run the body until it ends or SIGTERM arrives, which ends it quietly."""
    signal.signal(signal.SIGTERM, _raise_end)
    with contextlib.suppress(EndRequested):
        yield
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def options(*roles: str) -> argparse.ArgumentParser:
    """The options that every peer has: role, address and port of the CN, folder for results, address to bind to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=roles)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bind")
    return parser


def report(event: str, **fields: Any) -> None:
    """One JSON line for the runner."""
    print(json.dumps({"event": event, **fields}), flush=True)


def write_summary(path: Path, data: dict[str, Any]) -> None:
    """Write one side's summary, synced, never half."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET6 for an address with colons, else AF_INET."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(address: str, port: int) -> socket.socket:
    """A TCP socket that listens on `address`; reports `ready`."""
    server = socket.socket(family_of(address), socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(4)
    report("ready")
    return server


def connect(address: str, port: int, bind: str | None) -> socket.socket:
    """A TCP connection to the peer, from `bind` when given. Reports the error and exits with code 3 when there is none."""
    client = socket.socket(family_of(address), socket.SOCK_STREAM)
    client.settimeout(CONNECT_TIMEOUT_S)
    try:
        if bind:
            client.bind((bind, 0))
        client.connect((address, port))
    except OSError as error:
        report("error", reason=f"connect to {address} port {port} from {bind or 'any address'}: {error}")
        sys.exit(3)
    client.settimeout(None)
    return client


def names(sock: socket.socket) -> dict[str, list[Any]]:
    """Local and peer address and port, for the summary."""
    return {"local": list(sock.getsockname()[:2]), "peer": list(sock.getpeername()[:2])}


def names_if_known(sock: socket.socket) -> dict[str, list[Any] | None]:
    """The same; None for a connection that was reset: the kernel has forgotten its names."""
    try:
        return {**names(sock)}
    except OSError:
        return {"local": None, "peer": None}
