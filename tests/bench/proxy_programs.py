"""Programs of the proxy benchmark: `python -m tests.bench.proxy_programs PROGRAM ...`. Each does one thing until it is ended.

server ADDRESS PORT PROTOCOL       does what the first byte of a connection asks for
client MODE ADDRESS PORT SECONDS   measures; prints one JSON object
accept GSO                         NFQUEUE without a proxy: every packet is accepted as it is
identity FILE.toml ADDRESS         the agent with a core that builds every packet anew
relay PORT ADDRESS PORT            the alternative: two connections, TCP here and MPTCP there, spliced together
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

MPTCP = 262
BLOCK = 1 << 18
EXCHANGES = 2_000
FIRST_EXCHANGES = 100
"""Not counted: connections, caches and windows are new."""
_SPLICE_MOVE_NONBLOCK = 1 | 2


def _listen(address: str, port: int, protocol: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1024)
    return listener


def server(address: str, port: str, protocol: str) -> None:
    """D: send for the seconds in the next byte; U: count until the end; P: echo; H: hold."""
    listener = _listen(address, int(port), int(protocol))
    print("on", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        try:
            what = connection.recv(2)
            if what[:1] == b"D":
                end, block = time.monotonic() + what[1] / 10, bytes(BLOCK)
                while time.monotonic() < end:
                    connection.sendall(block)
            elif what[:1] == b"U":
                count, buffer = 0, bytearray(BLOCK)
                while read := connection.recv_into(buffer):
                    count += read
                connection.sendall(struct.pack("!Q", count))
            elif what[:1] == b"P":
                while block := connection.recv(4096):
                    connection.sendall(block)
            else:
                connection.recv(1)
        except OSError:
            return


def client(mode: str, address: str, port: str, amount: str) -> None:
    """Measure one connection, or hold many. `amount`: seconds, or connections."""
    if mode == "hold":
        _hold(address, int(port), int(amount))
        return
    connection = socket.create_connection((address, int(port)), 10)
    connection.settimeout(20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    measures: dict[str, Callable[[socket.socket, float], dict[str, float]]] = {"down": _down, "up": _up, "ping": _ping}
    print(json.dumps(measures[mode](connection, float(amount))))


def _down(connection: socket.socket, seconds: float) -> dict[str, float]:
    connection.sendall(b"D" + bytes([int(seconds * 10)]))
    buffer, count, begun = bytearray(BLOCK), 0, time.monotonic()
    while read := connection.recv_into(buffer):
        count += read
    return {"bytes": count, "s": time.monotonic() - begun}


def _up(connection: socket.socket, seconds: float) -> dict[str, float]:
    connection.sendall(b"U\0")
    block, begun = bytes(BLOCK), time.monotonic()
    while time.monotonic() < begun + seconds:
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)
    (count,) = struct.unpack("!Q", connection.recv(8))
    return {"bytes": count, "s": time.monotonic() - begun}


def _ping(connection: socket.socket, _seconds: float) -> dict[str, float]:
    connection.sendall(b"P\0")
    taken = []
    for _ in range(FIRST_EXCHANGES + EXCHANGES):
        begun = time.perf_counter_ns()
        connection.sendall(bytes(100))
        left = 100
        while left:
            left -= len(connection.recv(left))
        taken.append((time.perf_counter_ns() - begun) / 1e3)
    taken = sorted(taken[FIRST_EXCHANGES:])
    return {"p50_us": taken[len(taken) // 2], "p99_us": taken[len(taken) * 99 // 100]}


def _hold(address: str, port: int, count: int) -> None:
    held = []
    for _ in range(count):
        held.append(socket.create_connection((address, port), 10))
        held[-1].sendall(b"H\0")
    print(json.dumps({"connections": len(held)}), flush=True)
    sys.stdin.read()


def accept(gso: str) -> None:
    """The cost of the queue alone."""
    from agents.core.proxy.actions import Verdict
    from agents.kernel.proxy.nfqueue import NfQueue, open_queues

    queue = NfQueue(open_queues([40, 41], gso=gso == "gso"), own_mark=0, release_mark=0)
    waiting = select.epoll()
    waiting.register(queue.fileno(), select.EPOLLIN)
    print("on", flush=True)
    while True:
        waiting.poll()
        queue.drain(lambda *_: Verdict.PASS)


def identity(path: str, address: str) -> None:
    """The agent with a core that reads every segment and writes it again."""
    from agents.kernel.proxy.agent import serve
    from agents.kernel.proxy.configuration import read_config
    from tests.emulation.proxy_inside import Translator

    serve(read_config(path), Translator([address], far=False))


class _Way:
    """Bytes in one direction, through a pipe that never leaves the kernel."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.out, self.into = os.pipe2(os.O_NONBLOCK)
        self.waiting = 0
        self.ended = False

    def move(self) -> bool:
        """As much as goes now; whether this way is over."""
        while True:
            moved = False
            if not self.ended:
                try:
                    read = os.splice(self.source.fileno(), self.into, BLOCK, flags=_SPLICE_MOVE_NONBLOCK)
                    self.ended, moved = read == 0, read > 0
                    self.waiting += read
                except BlockingIOError:
                    pass
            if self.waiting:
                try:
                    written = os.splice(self.out, self.target.fileno(), self.waiting, flags=_SPLICE_MOVE_NONBLOCK)
                    self.waiting -= written
                    moved = moved or written > 0
                except BlockingIOError:
                    pass
            if not moved:
                break
        if self.ended and not self.waiting:
            with contextlib.suppress(OSError):
                self.target.shutdown(socket.SHUT_WR)
            return True
        return False

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.out)
        os.close(self.into)


def relay(port: str, far: str, far_port: str) -> None:
    """Accept TCP, connect MPTCP, move bytes between them with splice()."""
    listener = _listen("127.0.0.1", int(port), 0)
    waiting = select.epoll()
    waiting.register(listener.fileno(), select.EPOLLIN)
    pairs: dict[int, list[_Way]] = {}
    print("on", flush=True)
    while True:
        for fd, _events in waiting.poll():
            if fd == listener.fileno():
                near, _ = listener.accept()
                other = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
                other.connect((far, int(far_port)))
                ways = [_Way(near, other), _Way(other, near)]
                for end in (near, other):
                    end.setblocking(False)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pairs[end.fileno()] = ways
                    waiting.register(end.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            elif fd in pairs:
                ways = pairs[fd]
                try:
                    over = [way.move() for way in ways]
                except OSError:
                    over = [True]
                if all(over):
                    for end in (ways[0].source, ways[1].source):
                        pairs.pop(end.fileno(), None)
                        waiting.unregister(end.fileno())
                        end.close()
                    for way in ways:
                        way.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    globals()[sys.argv[1]](*sys.argv[2:])
