"""Requests and responses over one TCP connection: the latency of every exchange.

    python -m experiments.peers.rpc serve   --address A --port P --out DIR
    python -m experiments.peers.rpc connect --address A --port P --out DIR --seconds S [--bind B]
           [--interval-ms 50] [--response-bytes 1024]

The client sends the next request when its time has come and the last response is complete: a stall shows as one long latency.
"""

import itertools
import select
import socket
import struct
from pathlib import Path

from experiments.clock import now_ns, sleep_until
from experiments.peers import common
from experiments.peers.common import connect, listen, names, names_if_known, report, until_end_requested, write_summary

_REQUEST = struct.Struct("!IqI100x")  # sequence number, sending time (ns), wanted response size (bytes)


def _read_exactly(sock: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def serve(sock: socket.socket, out: Path) -> None:
    """Answer every request; write sender.json."""
    answered, error = 0, None
    with until_end_requested():
        try:
            while (data := _read_exactly(sock, _REQUEST.size)) is not None:
                sequence, _, size = _REQUEST.unpack(data)
                sock.sendall(struct.pack("!I", sequence).ljust(size, b"r"))
                answered += 1
        except OSError as problem:
            error = str(problem)
    write_summary(out / "sender.json", {"role": "sender", "responses": answered, "error": error, **names_if_known(sock)})
    report("done", role="sender")


def ask(sock: socket.socket, out: Path, seconds: float, interval_ms: float, response_bytes: int) -> None:
    """Send requests for `seconds`; write samples.csv and receiver.json."""
    samples: list[tuple[int, int, int]] = []
    pending: tuple[int, int] | None = None
    complete, error = False, None
    start_ns = now_ns()
    end_ns = start_ns + int(seconds * 1e9)
    with until_end_requested():
        try:
            for sequence in itertools.count():
                due_ns = start_ns + int(sequence * interval_ms * 1e6)
                if max(due_ns, now_ns()) >= end_ns:
                    break
                sleep_until(due_ns)
                sent_ns = now_ns()
                pending = (sequence, sent_ns)
                sock.sendall(_REQUEST.pack(sequence, sent_ns, response_bytes))
                if _read_exactly(sock, response_bytes) is None:
                    error = "the server closed the connection"
                    break
                samples.append((sequence, sent_ns, now_ns()))
                pending = None
            complete = error is None
        except OSError as problem:
            error = str(problem)
    with (out / "samples.csv").open("w") as file:
        file.write("seq,sent_mono_ns,received_mono_ns\n")
        file.writelines(f"{seq},{sent},{received}\n" for seq, sent, received in samples)
    summary = {"role": "receiver", "responses": len(samples), "complete": complete, "error": error,
               "unanswered_since_mono_ns": pending[1] if pending else None, **names_if_known(sock)}  # fmt: skip
    write_summary(out / "receiver.json", summary)
    sock.close()
    report("done", role="receiver", responses=len(samples))


def main() -> None:
    """Command line, see the module's text."""
    parser = common.options("serve", "connect")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--interval-ms", type=float, default=50.0)
    parser.add_argument("--response-bytes", type=int, default=1024)
    options = parser.parse_args()
    if options.role == "serve":
        # The listener stays open, as in any server: Linux answers an MPTCP join through it.
        listener = listen(options.address, options.port)
        sock, _ = listener.accept()
        select.select([sock], [], [])
        report("connected", mono_ns=now_ns(), **names(sock))
        serve(sock, options.out)
    else:
        sock = connect(options.address, options.port, options.bind)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        report("connected", mono_ns=now_ns(), **names(sock))
        ask(sock, options.out, options.seconds, options.interval_ms, options.response_bytes)


if __name__ == "__main__":
    main()
