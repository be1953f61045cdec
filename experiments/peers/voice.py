"""A constant bit rate voice stream over UDP: 50 packets/s with sequence number and sending time (G.711-sized by default).

    python -m experiments.peers.voice serve   --address A --port P --out DIR --seconds S --direction down|up
    python -m experiments.peers.voice connect --address A --port P --out DIR --seconds S --direction down|up [--bind B]

The MN's side says hello once a second, as a softphone keeps its NAT binding open; the CN answers the latest source address.
"""

import select
import socket
import struct
from pathlib import Path

from experiments.clock import now_ns
from experiments.peers import common
from experiments.peers.common import CONNECT_TIMEOUT_S, family_of, report, until_end_requested, write_summary

PACKETS_PER_S = 50
PAYLOAD_BYTES = 172  # RTP header and 20 ms of G.711
_DRAIN_S = 2.0
_PACKET = struct.Struct("!4sIq")  # mark, sequence number, CLOCK_MONOTONIC at sending (ns)
_VOICE, _HELLO = b"vois", b"helo"


class Side:
    """One end of the call: sends when it is the talker, records when it is the listener."""

    def __init__(self, sock: socket.socket, talks: bool, out: Path) -> None:
        self.sock, self.talks, self.out = sock, talks, out
        self.peer: tuple[object, ...] | None = None
        self.sent = 0
        self.samples: list[tuple[int, int, int]] = []

    def pump(self, until_ns: int) -> None:
        """Receive whatever comes until `until_ns`."""
        while (left_ns := until_ns - now_ns()) > 0:
            if not select.select([self.sock], [], [], left_ns * 1e-9)[0]:
                return
            try:
                data, peer = self.sock.recvfrom(2048)
            except OSError:  # an ICMP error of an earlier packet: the network's matter, not ours
                continue
            if len(data) < _PACKET.size:
                continue
            mark, sequence, sent_ns = _PACKET.unpack_from(data)
            if mark == _HELLO or self.peer is None:
                self.peer = peer
            if mark == _VOICE:
                self.samples.append((sequence, sent_ns, now_ns()))

    def send(self, mark: bytes, sequence: int) -> None:
        """Send one packet to the peer; a network that is unreachable now loses it, as it should."""
        data = _PACKET.pack(mark, sequence, now_ns()).ljust(PAYLOAD_BYTES, b"\0")
        try:
            self.sock.sendto(data, self.peer)  # type: ignore[arg-type]
        except OSError:
            return

    def call(self, seconds: float, says_hello: bool) -> None:
        """Talk or listen for `seconds`, then drain."""
        start_ns = now_ns()
        period_ns = 10**9 // PACKETS_PER_S
        count = int(seconds * PACKETS_PER_S)
        for sequence in range(count):
            self.pump(start_ns + sequence * period_ns)
            if self.talks:
                self.send(_VOICE, sequence)
                self.sent += 1
            if says_hello and sequence % PACKETS_PER_S == 0:
                self.send(_HELLO, sequence)
        self.pump(start_ns + count * period_ns + int(_DRAIN_S * 1e9))

    def write(self) -> None:
        """Write this side's summary, and the samples of the listener."""
        if self.talks:
            write_summary(self.out / "sender.json", {"role": "sender", "packets": self.sent, "packets_per_s": PACKETS_PER_S})
            return
        with (self.out / "samples.csv").open("w") as file:
            file.write("seq,sent_mono_ns,received_mono_ns\n")
            file.writelines(f"{seq},{sent},{received}\n" for seq, sent, received in self.samples)
        write_summary(self.out / "receiver.json", {"role": "receiver", "packets": len(self.samples)})


def main() -> None:
    """Command line, see the module's text."""
    parser = common.options("serve", "connect")
    parser.add_argument("--direction", choices=["down", "up"], default="down")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    serves = options.role == "serve"
    sock = socket.socket(family_of(options.address), socket.SOCK_DGRAM)
    side = Side(sock, talks=(options.direction == "down") == serves, out=options.out)
    if serves:
        sock.bind((options.address, options.port))
        report("ready")
    else:
        if options.bind:
            sock.bind((options.bind, 0))
        side.peer = (options.address, options.port)
    with until_end_requested():
        deadline_ns = now_ns() + int(CONNECT_TIMEOUT_S * 1e9)
        answered = False
        while now_ns() < deadline_ns and not answered:
            if not serves:
                side.send(_HELLO, 0)
            before = side.peer if serves else None
            ready = select.select([sock], [], [], 0.2)[0]
            if ready:
                _, peer = sock.recvfrom(2048)
                side.peer = peer
                answered = True
                if serves and before is None:
                    side.send(_HELLO, 0)
        if not answered:
            report("error", reason=f"no answer from {options.address} port {options.port}")
            raise SystemExit(3)
        report("connected", mono_ns=now_ns())
        side.call(options.seconds, says_hello=not serves)
    side.write()
    report("done", role="sender" if side.talks else "receiver", packets=side.sent or len(side.samples))


if __name__ == "__main__":
    main()
