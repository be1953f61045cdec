"""The bench of a calibration: two hosts and one emulated link, captures at both ends, and numbered packets.

Both ends are captured by packet rings of the kernel, whose timestamps are of one clock.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mininet.node import Node

from experiments.calibration.cpu import cpu_use
from experiments.clock import now_ns, sleep_until
from topologies.links.link import EmulatedLink
from topologies.links.netns import inside, namespace_of
from topologies.links.ring import Arrival, Ring, Timer, bind_ring_socket, make_ring_socket
from topologies.profiles import LinkProfile

PORT = 5009
_SLOT_BYTES = 128


class CalibrationError(RuntimeError):
    """A measurement that could not be made, with the reason."""


@dataclass(frozen=True)
class End:
    """One host of the bench."""

    node: Node
    interface: str
    address: str
    namespace: int


@dataclass(frozen=True)
class Bench:
    """Two hosts and the link between them."""

    left: End
    right: End
    link: EmulatedLink

    def ways(self) -> tuple[tuple[str, End, End], ...]:
        """(direction, sender, receiver)."""
        return (("forward", self.left, self.right), ("back", self.right, self.left))


class Passed(NamedTuple):
    """What both captures saw of numbered packets, by number."""

    sent: dict[int, Arrival]
    received: dict[int, Arrival]
    cpu_busy: float | None
    """Busy share of the CPUs while they were sent at a pace; None when the sender took all the CPU it could get."""
    duplicates: int
    """Packets that arrived more often than once."""


@contextlib.contextmanager
def bench(asked: LinkProfile, seed: int) -> Iterator[Bench]:
    """Two hosts joined by an emulated link of the profile."""
    nodes = [Node(name) for name in ("left", "right")]
    link = EmulatedLink(*nodes, intfName1="left-0", intfName2="right-0", profile=asked, seed=seed)
    ends = []
    try:
        for number, node in enumerate(nodes, start=1):
            node.cmd(f"ip addr add 10.99.0.{number}/24 dev {node.name}-0")
            # Metrics of the first transfer would be the starting point of the second.
            node.cmd("sysctl -qw net.ipv4.tcp_no_metrics_save=1")
            ends.append(End(node, f"{node.name}-0", f"10.99.0.{number}", namespace_of(node.pid)))
        for end, port in ((ends[0], link.port2), (ends[1], link.port1)):
            other = ends[1] if end is ends[0] else ends[0]
            # Address resolution would be among the packets that are measured.
            end.node.cmd(f"ip neigh replace {other.address} lladdr {port.mac} dev {end.interface} nud permanent")
        yield Bench(ends[0], ends[1], link)
    finally:
        link.delete()
        for node in nodes:
            node.terminate()
            node.cleanup()


@contextlib.contextmanager
def capture(end: End, packets: int) -> Iterator[Ring]:
    """A capture of headers on an interface that holds so many packets; nobody need read it meanwhile."""
    slots = max(1024, 1 << (packets - 1).bit_length())
    with inside(end.namespace):
        ring_socket = make_ring_socket(slots=slots, slot_bytes=_SLOT_BYTES, outgoing=True)
        bind_ring_socket(ring_socket, end.interface)
    ring = Ring(ring_socket, slots=slots, slot_bytes=_SLOT_BYTES)
    try:
        yield ring
    finally:
        ring.close()


def complete(ring: Ring) -> list[Arrival]:
    """All that was captured. Raises CalibrationError when packets are missing."""
    frames = ring.read_all()
    if ring.count_drops():
        raise CalibrationError(f"the capture lost {ring.drops} packets: the machine is too busy to calibrate")
    return frames


def _udp_numbers(frames: list[Arrival]) -> tuple[dict[int, Arrival], int]:
    """Our UDP packets by sequence number, of duplicates the first; and how many duplicates there were."""
    numbers: dict[int, Arrival] = {}
    count = 0
    for item in frames:
        frame = item.frame
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == PORT.to_bytes(2, "big"):
            count += 1
            numbers.setdefault(int.from_bytes(frame[42:46], "big"), item)
    return numbers, count - len(numbers)


def _udp_socket(end: End, address: tuple[str, int] | None = None) -> socket.socket:
    with inside(end.namespace):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if address:
        udp.connect(address)
    else:
        udp.bind((end.address, PORT))
    return udp


def send_udp(
    sender: End, receiver: End, count: int, payload_bytes: int, packets_per_s: float | None, quiet_s: float,
    *, then: Callable[[], None] = lambda: None,
) -> Passed:  # fmt: skip
    """Send numbered packets, evenly spaced or (None) back to back; return what both captures saw until `quiet_s` after them.

    `then` is called once all have been sent.
    """
    padding = bytes(payload_bytes - 4)
    busy = None
    with (
        capture(sender, count + 1000) as out,
        capture(receiver, 2 * count + 1000) as into,
        _udp_socket(receiver),
        _udp_socket(sender, (receiver.address, PORT)) as udp,
    ):
        if packets_per_s is None:
            for number in range(count):
                udp.send(struct.pack("!I", number) + padding)
        else:
            with cpu_use() as use:
                _send_paced(udp, count, padding, packets_per_s)
            busy = use.busy
        then()
        wait_quiet(quiet_s)
        sent, _ = _udp_numbers(complete(out))
        received, duplicates = _udp_numbers(complete(into))
        return Passed(sent, received, busy, duplicates)


def _send_paced(udp: socket.socket, count: int, padding: bytes, packets_per_s: float) -> None:
    # Above 10,000 wake-ups per s the sender would disturb what it measures: send small groups then.
    group = max(1, round(packets_per_s / 10_000))
    timer = Timer()
    start_ns = time.monotonic_ns() + 10_000_000
    for number in range(count):
        if number % group == 0:
            timer.arm(start_ns + int(number / packets_per_s * 1e9))
            select.select([timer], [], [])
        udp.send(struct.pack("!I", number) + padding)
    timer.close()


def wait_quiet(quiet_s: float) -> None:
    """Until nothing can be in flight any more: delay and queue of the link (`drain_s`) have passed."""
    sleep_until(now_ns() + int(quiet_s * 1e9))


def drain_s(asked: LinkProfile, frame_bytes: int) -> float:
    """How long frames of that size can be under way: delay, a full queue, and some time for the hosts."""
    rate_mbit = asked.mean_rate_mbit
    queue_s = 0.0 if rate_mbit is None else (asked.queue_limit or 0) * frame_bytes * 8 / (rate_mbit * 1e6)
    return (asked.delay_ms + asked.jitter_ms) / 1000 + queue_s + 0.1
