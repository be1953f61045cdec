"""The userspace backend: starts the relay process and sends it requests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topologies.links.netns import LinkError, inside
from topologies.links.ring import open_ring_socket
from topologies.profiles import LinkProfile

REPLY_TIMEOUT_S = 10.0
"""Requests take well below a ms; a relay that starts may take longer on a busy machine."""

_ROOT = Path(__file__).resolve().parents[2]


class RelayError(LinkError):
    """The relay has ended or does not answer: all emulated links are dead."""


class UserspaceBackend:
    """One relay process for all links of a wire. Thread safe."""

    name = "userspace"

    def __init__(self, namespace: int) -> None:
        self._lock = threading.Lock()
        self._namespace = namespace
        self._sockets: dict[int, socket.socket] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the relay
        self._received = b""
        ours, theirs = socket.socketpair()
        ours.settimeout(REPLY_TIMEOUT_S)
        self._control = ours
        # The parent-death signal follows the thread that starts the relay, so only the main thread may ask for it.
        # The relay also ends when the control socket closes, which covers all other cases.
        tied = int(threading.current_thread() is threading.main_thread())
        words = [str(theirs.fileno()), str(namespace), str(os.getpid()), str(tied)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "topologies.links.relay", *words],
                pass_fds=(theirs.fileno(), namespace),
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
            )

    @property
    def pid(self) -> int:
        """Process id of the relay."""
        return self._process.pid

    def _request(self, cmd: str, *, fds: Sequence[int] = (), **values: Any) -> Any:
        line = json.dumps({"cmd": cmd, **values}).encode() + b"\n"
        with self._lock:
            try:
                if fds:
                    socket.send_fds(self._control, [line], fds)
                else:
                    self._control.sendall(line)
                while b"\n" not in self._received:
                    data = self._control.recv(1 << 20)
                    if not data:
                        raise ConnectionResetError
                    self._received += data
            except TimeoutError as error:
                # A reply that comes later would be taken for that of the next request.
                self._control.close()
                raise RelayError(f"the link relay did not answer {cmd!r} within {REPLY_TIMEOUT_S:g} s") from error
            except OSError as error:
                raise RelayError(self._obituary()) from error
            line, self._received = self._received.split(b"\n", 1)
        reply = json.loads(line)
        if not reply["ok"]:
            raise LinkError(reply["error"])
        return reply["value"]

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        if code is None:
            how = "closed its control socket"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with status {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return f"the link relay {how}; all emulated links are dead{last}"

    def check(self) -> None:
        """Raise RelayError when the relay is no longer there."""
        if self._process.poll() is not None:
            raise RelayError(self._obituary())

    def add_port(self, port: int, outer: str) -> None:
        """Open a packet ring on the outer end of a veth pair."""
        with inside(self._namespace):
            ring_socket = open_ring_socket(outer)
        try:
            self._request("add_port", fds=[ring_socket.fileno()], port=port)
        except LinkError:
            ring_socket.close()
            raise
        self._sockets[port] = ring_socket

    def remove_port(self, port: int) -> None:
        """Close the ring of a port."""
        self._request("remove_port", port=port)
        self._sockets.pop(port).close()

    def add_link(self, link: int, forward: LinkProfile, back: LinkProfile, seed: str) -> None:
        """Make a link without ends."""
        self._request("add_link", link=link, forward=forward.to_dict(), back=back.to_dict(), seed=seed)

    def remove_link(self, link: int) -> None:
        """Forget a link."""
        self._request("remove_link", link=link)

    def attach(self, link: int, a: int | None, b: int | None) -> None:
        """Make `a` and `b` the ends of a link."""
        self._request("attach", link=link, a=a, b=b)

    def set_profile(self, link: int, direction: str, profile: LinkProfile) -> None:
        """Change the profile of a link."""
        self._request("set_profile", link=link, direction=direction, profile=profile.to_dict())

    def set_blackhole(self, link: int, direction: str, on: bool) -> None:
        """Switch silent loss of everything on or off."""
        self._request("set_blackhole", link=link, direction=direction, on=on)

    def flush(self, link: int) -> None:
        """Drop what is in flight on a link."""
        self._request("flush", link=link)

    def stats(self) -> dict[str, Any]:
        """Counters of all links and ports, and the lateness of the relay."""
        value: dict[str, Any] = self._request("stats")
        for part in ("links", "ports"):
            value[part] = {int(number): item for number, item in value[part].items()}
        return value

    def reset(self) -> None:
        """Forget the lateness so far."""
        self._request("reset")

    def close(self) -> None:
        """End the relay: it exits when its control socket closes."""
        self._control.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
        for ring_socket in self._sockets.values():
            ring_socket.close()
