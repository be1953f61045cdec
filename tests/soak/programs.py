"""Programs of the soak run: `python -m tests.soak.programs PROGRAM ...`.

peer listen|connect LOCAL REMOTE PORT MPTCP SEED COUNT EXPECTED   sends COUNT and reads EXPECTED bytes, prints "all", waits for
                                           the end of its input, ends its stream, reads to the end; prints one JSON object
hold QUEUE MILLISECONDS                                  NFQUEUE: every packet is let go a little later than those behind it
"""

from __future__ import annotations

import hashlib
import json
import random
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

MPTCP = 262
POOL_BYTES = 4_194_301
"""A prime: what lands a whole number of segments or mappings away from its place differs from what belongs there."""
BLOCK_BYTES = 1 << 18


class Sender(threading.Thread):
    """Sends the bytes of a seed."""

    def __init__(self, sock: socket.socket, seed: int, count: int) -> None:
        super().__init__(daemon=True)
        pool = random.Random(seed).randbytes(POOL_BYTES)
        self._pool = memoryview(pool + pool[:BLOCK_BYTES])
        self._socket, self._count = sock, count
        self.sent, self.digest, self.error = 0, hashlib.sha256(), ""

    def run(self) -> None:
        try:
            while self.sent < self._count:
                at = self.sent % POOL_BYTES
                block = self._pool[at : at + min(BLOCK_BYTES, self._count - self.sent)]
                self._socket.sendall(block)
                self.digest.update(block)
                self.sent += len(block)
        except OSError as error:
            self.error = str(error)


def peer(role: str, local: str, remote: str, port: str, mptcp: str, seed: str, count: str, expected: str) -> None:
    """One end of a connection."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, MPTCP if mptcp == "1" else socket.IPPROTO_TCP)
    # What a namespace has by default depends on the machine, and BBR's pacing can fall to kilobits behind delayed ACKs.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    sock.settimeout(30)
    listener = None
    if role == "listen":
        listener = sock
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Any address: joins come to others.
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", int(port)))
        listener.listen()
        print("on", flush=True)
        sock, _ = listener.accept()
    else:
        sock.bind((local, 0))
        sock.connect((remote, int(port)))
    sock.settimeout(None)
    sender = Sender(sock, int(seed), int(count))
    sender.start()
    received, digest, error = 0, hashlib.sha256(), ""
    buffer = bytearray(BLOCK_BYTES)
    view = memoryview(buffer)
    try:
        while received < int(expected) and (length := sock.recv_into(buffer)):
            digest.update(view[:length])
            received += length
        sender.join(60)
        # The end of a stream has its own time: Linux takes no new subflow any more once a side has ended.
        print("all", flush=True)
        sys.stdin.read()
        sock.shutdown(socket.SHUT_WR)
        while length := sock.recv_into(buffer):
            digest.update(view[:length])
            received += length
    except OSError as problem:
        error = str(problem)
        sender.join(1)
    told: dict[str, Any] = {
        "sent": sender.sent, "sent_sha256": sender.digest.hexdigest(), "received": received,
        "received_sha256": digest.hexdigest(), "error": error or sender.error,
    }  # fmt: skip
    print(json.dumps(told), flush=True)


def hold(queue: str, milliseconds: str) -> None:
    """Packets of a queue wait; those that the rules do not send here overtake them."""
    from agents.core.proxy.actions import Answer, Offload, Verdict
    from agents.kernel.proxy.nfqueue import NfQueue, open_queues

    def show(_queue: int, _packet: bytes, _offload: Offload) -> Answer:
        return Verdict.PASS

    held = NfQueue(open_queues([int(queue)], gso=True), own_mark=0, release_mark=0)
    print("on", flush=True)
    while True:
        select.select([held], [], [])
        select.select([], [], [], float(milliseconds) / 1000)
        held.drain(show)


PROGRAMS: dict[str, Callable[..., None]] = {"peer": peer, "hold": hold}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
