"""Calibration: does an emulated link do what its profile says? Measured by captures at both ends, not by the relay.

Runs inside a capsule: two hosts and one emulated link per measurement. Both ends are captured by packet rings of the
kernel, whose timestamps are of one clock. `python -m experiments.calibrate --inside wlan lte` prints JSON lines.

Quantities, per direction:
* one-way delay error in us: measured delay minus what the profile demands of this very sequence of packets;
* TCP goodput in Mbit/s in steady state, against rate x payload / frame (the rate counts Ethernet frames without FCS);
* loss, with its deviation in standard deviations (for bursts: with the variance of the Gilbert-Elliott chain);
* queue: packets that waited for the rate limiter when the first one was dropped.
"""

import argparse
import contextlib
import json
import math
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mininet.node import Node

from topologies.links.link import EmulatedLink
from topologies.links.netns import inside, namespace_of
from topologies.links.ring import Arrival, Ring, Timer, bind_ring_socket, make_ring_socket
from topologies.links.wire import wire
from topologies.profiles import MAX_QUEUE_PACKETS, PRESETS, GilbertElliott, LinkProfile, profile
from topologies.traces import Playback
from topologies.waiting import wait_until

SWEEP_RATES_MBIT = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
SWEEP_DELAY_MS = 15.0

TARGET_DELAY_P50_US = 100.0
TARGET_DELAY_P99_US = 500.0
TARGET_GOODPUT_PERCENT = 1.0
TARGET_LOSS_SIGMA = 4.5

LOSS_PROFILES: dict[str, LinkProfile] = {
    "loss-1%": LinkProfile(delay_ms=1.0, loss=0.01),
    "loss-bursts": LinkProfile(delay_ms=1.0, burst=GilbertElliott(p=0.005, r=0.25, loss_bad=0.8, loss_good=0.001)),
}

Progress = Callable[[str], None]

_SMALL_PAYLOAD_BYTES = 64
_LARGE_PAYLOAD_BYTES = 1472
_UDP_HEADERS_BYTES = 14 + 20 + 8
_TCP_PAYLOAD_SHARE = 1448 / 1514  # MSS with timestamps in a full frame
_PORT = 5009
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


def _complete(ring: Ring) -> list[Arrival]:
    frames = ring.read_all()
    if ring.count_drops():
        raise CalibrationError(f"the capture lost {ring.drops} packets: the machine is too busy to calibrate")
    return frames


def _udp_numbers(frames: list[Arrival]) -> dict[int, Arrival]:
    """Our UDP packets by sequence number; of duplicates the first."""
    numbers: dict[int, Arrival] = {}
    for item in frames:
        frame = item.frame
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == _PORT.to_bytes(2, "big"):
            numbers.setdefault(int.from_bytes(frame[42:46], "big"), item)
    return numbers


def _udp_socket(end: End, address: tuple[str, int] | None = None) -> socket.socket:
    with inside(end.namespace):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if address:
        udp.connect(address)
    else:
        udp.bind((end.address, _PORT))
    return udp


def _send_udp(
    sender: End, receiver: End, count: int, payload_bytes: int, packets_per_s: float | None, drain_s: float
) -> tuple[dict[int, Arrival], dict[int, Arrival]]:
    """Send numbered packets, evenly spaced or (None) back to back; return what both captures saw, by number."""
    padding = bytes(payload_bytes - 4)
    with (
        capture(sender, count + 1000) as out,
        capture(receiver, 2 * count + 1000) as into,
        _udp_socket(receiver),
        _udp_socket(sender, (receiver.address, _PORT)) as udp,
    ):
        if packets_per_s is None:
            for number in range(count):
                udp.send(struct.pack("!I", number) + padding)
        else:
            _send_paced(udp, count, padding, packets_per_s)
        _wait_quiet(drain_s)
        return _udp_numbers(_complete(out)), _udp_numbers(_complete(into))


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


def _wait_quiet(quiet_s: float) -> None:
    """Until nothing can be in flight any more: delay and queue of the link have passed."""
    end_s = time.monotonic() + quiet_s
    wait_until(lambda: time.monotonic() >= end_s, quiet_s + 10, "packets in flight arrive", poll_s=0.02)


def _drain_s(asked: LinkProfile, frame_bytes: int) -> float:
    rate_mbit = asked.mean_rate_mbit
    queue_s = 0.0 if rate_mbit is None else (asked.queue_limit or 0) * frame_bytes * 8 / (rate_mbit * 1e6)
    return (asked.delay_ms + asked.jitter_ms) / 1000 + queue_s + 0.1


def _row(quantity: str, unit: str, asked: float, measured: float, error: float, target: float | None) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "unit": unit,
        "asked": asked,
        "measured": measured,
        "error": error,
        "target": target,
        "ok": target is None or abs(error) <= target,
    }


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def with_room(asked: LinkProfile) -> LinkProfile:
    """The profile with a queue that never overflows: what is lost then is lost by chance alone."""
    return replace(asked, queue_packets=MAX_QUEUE_PACKETS, queue_bdp=None)


def _without_chance(asked: LinkProfile) -> LinkProfile:
    return replace(asked, jitter_ms=0.0, loss=0.0, burst=None, reorder=0.0, duplicate=0.0)


def _due_ns(asked: LinkProfile, sent: dict[int, Arrival]) -> dict[int, float]:
    """When each packet should arrive, from the times at which the packets really left the sender.

    Written out here and not taken from the shaper, whose mistakes would otherwise be on both sides.
    """
    due_ns: dict[int, float] = {}
    playback = None
    free_ns = 0.0
    for number, (sent_ns, _, length) in sorted(sent.items()):
        if asked.trace is not None:
            playback = playback or Playback(asked.trace, sent_ns)
            free_ns = playback.serve(max(sent_ns, int(free_ns)), length) or free_ns
        else:
            free_ns = max(sent_ns, free_ns) + (length * 8000 / asked.rate_mbit if asked.rate_mbit else 0.0)
        due_ns[number] = free_ns + asked.delay_ms * 1e6
    return due_ns


def measure_delay(test: Bench, direction: str, asked: LinkProfile, packets_per_s: float, seconds: float) -> list[dict]:
    """One-way delay error of small packets, p50 and p99 of its absolute value in us."""
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    frame_bytes = _SMALL_PAYLOAD_BYTES + _UDP_HEADERS_BYTES
    if asked.mean_rate_mbit is not None:
        packets_per_s = min(packets_per_s, 0.6 * asked.mean_rate_mbit * 1e6 / 8 / frame_bytes)
    count = int(packets_per_s * seconds)
    drain_s = _drain_s(asked, frame_bytes)
    sent, received = _send_udp(sender, receiver, count, _SMALL_PAYLOAD_BYTES, packets_per_s, drain_s)
    errors_us = [
        (received[number].arrival_ns - due_ns) / 1000 for number, due_ns in _due_ns(asked, sent).items() if number in received
    ]
    if len(errors_us) < 0.99 * count:
        raise CalibrationError(f"only {len(errors_us)} of {count} packets arrived over a link without loss")
    errors_us.sort()
    absolute = sorted(abs(error) for error in errors_us)
    p50_us, p99_us = _quantile(errors_us, 0.5), _quantile(absolute, 0.99)
    p50_ms = asked.delay_ms + p50_us / 1000
    p99_ms = asked.delay_ms + p99_us / 1000
    rows = [
        _row("one-way delay p50", "us", asked.delay_ms * 1000, p50_ms * 1000, p50_us, TARGET_DELAY_P50_US),
        _row("one-way delay p99", "us", asked.delay_ms * 1000, p99_ms * 1000, p99_us, TARGET_DELAY_P99_US),
    ]
    for row in rows:
        row.update(packets=len(errors_us), packets_per_s=round(packets_per_s))
    return rows


def measure_goodput(test: Bench, direction: str, asked: LinkProfile, warm_up_s: float, seconds: float) -> list[dict]:
    """TCP goodput (cubic) in Mbit/s after the warm-up, from the receiver's capture."""
    rate_mbit = asked.mean_rate_mbit
    if rate_mbit is None:
        return []
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    ideal_mbit = rate_mbit * _TCP_PAYLOAD_SHARE
    packets = int((warm_up_s + seconds + 2) * rate_mbit * 1e6 / 8 / 1514 * 2) + 5000
    deadline_s = time.monotonic() + warm_up_s + seconds + 1.0
    with inside(receiver.namespace):
        listener = socket.create_server((receiver.address, _PORT))
    with inside(sender.namespace):
        client = socket.socket()
    for end in (listener, client):
        # The sysctl that chooses the default is closed to namespaces; the socket option is not.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    thread = threading.Thread(target=_sink, args=(listener,), daemon=True)
    with capture(receiver, packets) as ring, listener, client:
        thread.start()
        client.settimeout(30.0)
        client.connect((receiver.address, _PORT))
        start_ns = time.monotonic_ns()
        chunk = bytes(64 * 1024)
        while time.monotonic() < deadline_s:
            client.sendall(chunk)
        frames = _complete(ring)
        # Do not wait for what is still queued in the socket.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    thread.join(30.0)
    # What is still in the queue would be in the way of the next measurement.
    _wait_quiet(_drain_s(asked, 1514))
    begin_ns = start_ns + int(warm_up_s * 1e9)
    measured_mbit = _goodput_mbit(frames, begin_ns, begin_ns + int(seconds * 1e9))
    error = 100 * (measured_mbit / ideal_mbit - 1)
    row = _row("TCP goodput", "Mbit/s", ideal_mbit, measured_mbit, measured_mbit - ideal_mbit, None)
    row.update(error_percent=error, target_percent=TARGET_GOODPUT_PERCENT, ok=abs(error) <= TARGET_GOODPUT_PERCENT)
    return [row]


def _sink(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    with connection, contextlib.suppress(ConnectionError):
        while connection.recv_into(buffer):
            pass


def _goodput_mbit(frames: list[Arrival], begin_ns: int, end_ns: int) -> float:
    """New bytes per time between two arrivals of data, one near each end of the window."""
    highest = 0
    base: int | None = None
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None
    for arrival_ns, frame, length in frames:
        if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[36:38] != _PORT.to_bytes(2, "big"):
            continue
        header = 34 + (frame[46] >> 4) * 4
        payload = min(length - 14, int.from_bytes(frame[16:18], "big")) + 14 - header
        if payload <= 0:
            continue
        sequence = int.from_bytes(frame[38:42], "big")
        if base is None:
            base = sequence
        # Distance from the first byte, unwrapped around the highest one seen.
        offset = highest + (((sequence + payload - base - highest) + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        highest = max(highest, offset)
        if arrival_ns >= begin_ns:
            if first is None:
                first = (arrival_ns, highest)
            if arrival_ns <= end_ns:
                last = (arrival_ns, highest)
    if first is None or last is None or last[0] <= first[0]:
        raise CalibrationError("the TCP transfer stalled: no data in the measured window")
    return (last[1] - first[1]) * 8000 / (last[0] - first[0])


def measure_loss(test: Bench, direction: str, asked: LinkProfile, packets: int, packets_per_s: float) -> list[dict]:
    """Share of packets lost, and how far that is from the profile in standard deviations."""
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    frame_bytes = _SMALL_PAYLOAD_BYTES + _UDP_HEADERS_BYTES
    if asked.mean_rate_mbit is not None:
        packets_per_s = min(packets_per_s, 0.8 * asked.mean_rate_mbit * 1e6 / 8 / frame_bytes)
    drain_s = _drain_s(asked, frame_bytes)
    sent, received = _send_udp(sender, receiver, packets, _SMALL_PAYLOAD_BYTES, packets_per_s, drain_s)
    lost = len(sent.keys() - received.keys())
    share = asked.mean_loss
    variance = asked.burst.variance_factor() if asked.burst else share * (1 - share)
    sigma = (lost - share * len(sent)) / math.sqrt(variance * len(sent)) if variance else float(lost)
    row = _row("loss", "share", share, lost / len(sent), lost / len(sent) - share, None)
    row.update(packets=len(sent), sigma=sigma, target_sigma=TARGET_LOSS_SIGMA, ok=abs(sigma) <= TARGET_LOSS_SIGMA)
    if asked.burst:
        row["mean_burst_packets"] = _mean_burst(sorted(sent), received)
    return [row]


def _mean_burst(numbers: list[int], received: dict[int, Arrival]) -> float:
    """Mean length of runs of consecutive losses."""
    bursts = losses = 0
    previous_lost = False
    for number in numbers:
        lost = number not in received
        losses += lost
        bursts += lost and not previous_lost
        previous_lost = lost
    return losses / bursts if bursts else 0.0


def measure_queue(test: Bench, direction: str, asked: LinkProfile) -> list[dict]:
    """Packets waiting for the rate limiter when the first one was dropped."""
    limit = asked.queue_limit
    if limit is None or asked.trace is not None:
        return []
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    drain_s = _drain_s(asked, 1514)
    # While the burst is sent some packets leave the queue, on fast links a good part.
    sent, received = _send_udp(sender, receiver, 2 * limit + 200, _LARGE_PAYLOAD_BYTES, None, drain_s)
    dropped = [number for number in sorted(sent) if number not in received]
    if not dropped:
        raise CalibrationError("the burst did not fill the queue: the sender is slower than the link")
    moment_ns = sent[dropped[0]].arrival_ns
    delay_ns = asked.delay_ms * 1e6
    gone = sum(1 for number in range(dropped[0]) if received[number].arrival_ns - delay_ns <= moment_ns)
    # One of the rest is in transmission.
    waiting = dropped[0] - gone - 1
    row = _row("queue", "packets", limit, waiting, waiting - limit, 1.0)
    return [row]


def calibrate(
    profile_name: str,
    asked: LinkProfile,
    *,
    packets_per_s: float = 5000.0,
    quick: bool = False,
    seed: int = 1,
    goodput_only: bool = False,
    progress: Progress = lambda _text: None,
) -> dict[str, Any]:
    """Measure one profile in both directions; {"profile", "label", "asked", "backend", "rows", "relay"}.

    Delay, goodput and queue are measured without the random parts of the profile, loss with them. Each row has
    quantity, direction, unit, asked, measured, error, target and ok. `goodput_only` is for sweeps over rates.
    """
    certain = _without_chance(asked)
    round_trip_s = 2 * asked.delay_ms / 1000
    # Slow start, the loss burst at its end and the first recovery take some tens of round trips.
    warm_up_s = max(3.0, 40 * round_trip_s)
    goodput_s = max(3.0 if quick else 6.0, 4 * round_trip_s)
    delay_s = 2.0 if quick else 10.0
    rows: list[dict] = []
    wire().reset_lateness()
    for direction in ("forward", "back"):
        steps: list[tuple[str, Callable[[Bench], list[dict]]]] = [
            (
                "TCP goodput",
                partial(measure_goodput, direction=direction, asked=certain, warm_up_s=warm_up_s, seconds=goodput_s),
            )
        ]
        if not goodput_only:
            delay = partial(measure_delay, direction=direction, asked=certain, packets_per_s=packets_per_s, seconds=delay_s)
            steps.insert(0, ("delay", delay))
            steps.append(("queue", partial(measure_queue, direction=direction, asked=certain)))
        found: list[dict] = []
        with bench(certain, seed) as test:
            for what, step in steps:
                progress(f"{profile_name} {direction}: {what}")
                found += step(test)
        if asked.mean_loss and not goodput_only:
            progress(f"{profile_name} {direction}: loss")
            with bench(with_room(asked), seed) as test:
                found += measure_loss(test, direction, asked, 20_000 if quick else 100_000, 20_000)
        rows += [{"direction": direction, **row} for row in found]
    return _result(profile_name, asked, rows)


def calibrate_loss(
    name: str, asked: LinkProfile, *, quick: bool = False, seed: int = 1, progress: Progress = lambda _text: None
) -> dict[str, Any]:
    """Measure only the loss of a profile, in both directions."""
    rows: list[dict] = []
    for direction in ("forward", "back"):
        progress(f"{name} {direction}: loss")
        with bench(with_room(asked), seed) as test:
            found = measure_loss(test, direction, asked, 20_000 if quick else 100_000, 20_000)
        rows += [{"direction": direction, **row} for row in found]
    return _result(name, asked, rows)


def _result(name: str, asked: LinkProfile, rows: list[dict]) -> dict[str, Any]:
    stats = wire().stats()
    return {
        "profile": name,
        "label": asked.describe(),
        "asked": asked.to_dict(),
        "backend": stats["backend"],
        "rows": rows,
        "ok": all(row["ok"] for row in rows),
        "relay": {key: value for key, value in stats.items() if key not in ("links", "ports")},
    }


def sweep(*, quick: bool = False, progress: Progress = lambda _text: None) -> Iterator[dict[str, Any]]:
    """TCP goodput over rates from 1 to 200 Mbit/s at 15 ms."""
    for rate_mbit in SWEEP_RATES_MBIT:
        asked = LinkProfile(rate_mbit=rate_mbit, delay_ms=SWEEP_DELAY_MS)
        yield calibrate(f"{rate_mbit:g} Mbit/s", asked, quick=quick, goodput_only=True, progress=progress)


def main(arguments: list[str] | None = None) -> int:
    """Print JSON lines: {"progress": text} while measuring, {"result": {...}} per profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", action="store_true", help="this process is in a capsule already")
    parser.add_argument("--sweep", action="store_true", help="TCP goodput from 1 to 200 Mbit/s")
    parser.add_argument("--loss", action="store_true", help="loss of two test profiles over 100,000 packets")
    parser.add_argument("--quick", action="store_true", help="shorter measurements, wider statistics")
    parser.add_argument("--packets-per-s", type=float, default=5000.0, help="for the delay measurement")
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(PRESETS)}")
    options = parser.parse_args(arguments)
    if not options.inside:
        parser.error("run this through `roamlab calibrate`, which makes a capsule")

    def say(kind: str, value: object) -> None:
        print(json.dumps({kind: value}), flush=True)

    def progress(text: str) -> None:
        say("progress", text)

    good = True
    try:
        for name in options.presets:
            result = calibrate(name, profile(name), packets_per_s=options.packets_per_s, quick=options.quick, progress=progress)
            good &= result["ok"]
            say("result", result)
        if options.loss:
            for name, asked in LOSS_PROFILES.items():
                result = calibrate_loss(name, asked, quick=options.quick, progress=progress)
                good &= result["ok"]
                say("result", result)
        if options.sweep:
            for result in sweep(quick=options.quick, progress=progress):
                good &= result["ok"]
                say("result", result)
    except (CalibrationError, ValueError) as error:
        say("error", str(error))
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
