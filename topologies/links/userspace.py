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
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from topologies.links.netns import LinkError, inside
from topologies.links.ring import bind_ring_socket, make_ring_socket
from topologies.profiles import LinkProfile

REPLY_TIMEOUT_S = 10.0
"""Requests take well below a ms; a relay that starts may take longer on a busy machine."""

_ROOT = Path(__file__).resolve().parents[2]


class RelayError(LinkError):
    """The relay has ended or does not answer: all emulated links are dead."""


class _RingPool:
    """Ring sockets made ahead by threads: each takes the kernel 20 ms, which neither a link nor an event should wait for."""

    AHEAD = 4

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._makers = ThreadPoolExecutor(self.AHEAD, thread_name_prefix="ring-maker")
        self._made = deque(self._makers.submit(self._make) for _ in range(self.AHEAD))

    def _make(self) -> socket.socket:
        with inside(self._namespace):
            return make_ring_socket()

    def take(self) -> socket.socket:
        """A ring socket in the wire that is bound to nothing. Raises LinkError."""
        self._made.append(self._makers.submit(self._make))
        return self._made.popleft().result()

    def dispose(self, ring_socket: socket.socket) -> None:
        """Close a ring socket, which takes as long, without waiting for it."""
        self._makers.submit(ring_socket.close)

    def close(self) -> None:
        """Release what was not taken."""
        self._makers.shutdown(wait=True)
        for future in self._made:
            with contextlib.suppress(LinkError):
                future.result().close()


class UserspaceBackend:
    """One relay process for all links of a wire. Thread safe."""

    name = "userspace"

    def __init__(self, namespace: int) -> None:
        self._lock = threading.Lock()
        self._pool = _RingPool(namespace)
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
                # A session of its own: with autogroup scheduling the relay then competes as one of few groups for the CPU,
                # not as one of many processes of the run; and Ctrl-C in a terminal does not reach it first.
                start_new_session=True,
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
        ring_socket = self._pool.take()
        bind_ring_socket(ring_socket, outer)
        try:
            self._request("add_port", fds=[ring_socket.fileno()], port=port)
        except LinkError:
            ring_socket.close()
            raise
        self._sockets[port] = ring_socket

    def remove_port(self, port: int) -> None:
        """Close the ring of a port."""
        self._request("remove_port", port=port)
        self._pool.dispose(self._sockets.pop(port))

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
        """Start lateness and all counters anew."""
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
        self._pool.close()
        for ring_socket in self._sockets.values():
            ring_socket.close()
