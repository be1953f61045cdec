"""Bulk transfer of a seeded byte stream over one TCP connection, hashed at both ends.

    python -m experiments.peers.bulk serve   --address A --port P --out DIR
    python -m experiments.peers.bulk connect --address A --port P --out DIR [--bind B]
           --direction down|up --seed N (--seconds S | --bytes N) [--after-s S]

The client's first line says what to do; "down" means that the server sends. With `--after-s` the client connects so much
later. The receiver records every read.
"""

import hashlib
import json
import random
import socket
import sys
from array import array
from pathlib import Path
from typing import Any

from experiments.clock import now_ns, sleep_until
from experiments.peers import common
from experiments.peers.common import connect, listen, names, names_if_known, report, until_end_requested, write_summary

_BLOCK_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
_REPORT_EVERY_NS = 250_000_000


def send_stream(sock: socket.socket, order: dict[str, Any], out: Path) -> None:
    """Send the stream of `order` ("seed", and "bytes" or "seconds"), end it, wait for the peer's end; write sender.json."""
    source = random.Random(order["seed"])
    sha = hashlib.sha256()
    sent, complete, error = 0, False, None
    limit_bytes = order.get("bytes", sys.maxsize)
    end_ns = now_ns() + int(order["seconds"] * 1e9) if "seconds" in order else sys.maxsize
    connected_ns = now_ns()
    ends = names_if_known(sock)
    with until_end_requested():
        try:
            while now_ns() < end_ns and sent < limit_bytes:
                block = memoryview(source.randbytes(_BLOCK_BYTES))
                block = block[: limit_bytes - sent]
                while block:
                    count = sock.send(block)
                    sha.update(block[:count])
                    sent += count
                    block = block[count:]
            sock.shutdown(socket.SHUT_WR)
            complete = sock.recv(1) == b""  # the receiver closes after it has read the end of the stream
        except OSError as problem:
            error = str(problem)
    summary = {"role": "sender", "bytes": sent, "sha256": sha.hexdigest(), "complete": complete, "error": error,
               "connected_mono_ns": connected_ns, "ended_mono_ns": now_ns(), **ends}  # fmt: skip
    write_summary(out / "sender.json", summary)
    report("done", role="sender", bytes=sent, error=error)


def receive_stream(sock: socket.socket, out: Path, preface_bytes: int = 0) -> None:
    """Receive until the end of the stream; write progress.csv (every read) and receiver.json.

    `preface_bytes`: what came before it on the same connection; on the wire it is part of the stream.
    """
    sha = hashlib.sha256()
    times_ns, totals = array("q"), array("q")
    received, complete, error = 0, False, None
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    connected_ns = next_report_ns = now_ns()
    with until_end_requested():
        try:
            while True:
                count = sock.recv_into(buffer)
                time_ns = now_ns()
                if count == 0:
                    complete = True
                    break
                sha.update(view[:count])
                received += count
                times_ns.append(time_ns)
                totals.append(received)
                if time_ns >= next_report_ns:
                    report("first-bytes" if len(times_ns) == 1 else "progress", mono_ns=time_ns, bytes=received)
                    next_report_ns = time_ns + _REPORT_EVERY_NS
        except OSError as problem:
            error = str(problem)
    summary = {"role": "receiver", "bytes": received, "sha256": sha.hexdigest(), "complete": complete, "error": error,
               "connected_mono_ns": connected_ns, "ended_mono_ns": now_ns(), "preface_bytes": preface_bytes,
               **names_if_known(sock)}  # fmt: skip
    sock.close()
    with (out / "progress.csv").open("w") as file:
        file.write("t_mono_ns,bytes\n")
        file.writelines(f"{t},{b}\n" for t, b in zip(times_ns, totals, strict=True))
    write_summary(out / "receiver.json", summary)
    report("done", role="receiver", bytes=received, error=error)


def _read_order(sock: socket.socket) -> tuple[dict[str, Any], int]:
    """The client's line, and its length in bytes."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise SystemExit("bulk: the client left before it said what to do")
        line += byte
    order: dict[str, Any] = json.loads(line)
    return order, len(line)


def main() -> None:
    """Command line, see the module's text."""
    parser = common.options("serve", "connect")
    parser.add_argument("--direction", choices=["down", "up"], default="down")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--after-s", type=float, default=0.0)
    options = parser.parse_args()
    preface_bytes = 0
    if options.role == "serve":
        # The listener stays open, as in any server: Linux answers an MPTCP join through it.
        listener = listen(options.address, options.port)
        sock, _ = listener.accept()
        order, preface_bytes = _read_order(sock)
    else:
        sleep_until(now_ns() + int(options.after_s * 1e9))
        sock = connect(options.address, options.port, options.bind)
        order = {"direction": options.direction, "seed": options.seed}
        order |= {"bytes": options.bytes} if options.bytes is not None else {"seconds": options.seconds}
        sock.sendall(json.dumps(order).encode() + b"\n")
    report("connected", mono_ns=now_ns(), **names(sock))
    if (order["direction"] == "down") == (options.role == "serve"):
        send_stream(sock, order, options.out)
    else:
        receive_stream(sock, options.out, preface_bytes)


if __name__ == "__main__":
    main()
