"""The measurements of a calibration: each gives rows with quantity, unit, asked, measured, error, target and ok.

`error` and `target` have the unit of the row; a row is ok while the error is at most the target. `cpu_busy` is the busy share
of the CPUs meanwhile, `chance` tells that a target is a number of standard deviations. Per direction:
* one-way delay error in us: measured delay minus what the profile demands of this very sequence of packets;
* TCP goodput in Mbit/s in steady state, against rate x payload / frame (the rate counts Ethernet frames without FCS);
* loss as a share, within so many standard deviations (for bursts: with the variance of the Gilbert-Elliott chain, and the
  mean length of runs of lost packets besides);
* queue: packets that waited for the rate limiter when the first one was dropped.
"""

import contextlib
import math
import socket
import struct
import threading
import time
from dataclasses import replace
from typing import Any

from experiments.calibration.bench import PORT, Bench, CalibrationError, capture, complete, drain_s, send_udp, wait_quiet
from experiments.calibration.cpu import cpu_use
from experiments.calibration.rows import make_row
from topologies.links.netns import inside
from topologies.links.ring import Arrival
from topologies.links.wire import wire
from topologies.profiles import MAX_QUEUE_PACKETS, GilbertElliott, LinkProfile
from topologies.traces import Playback

TARGET_DELAY_P50_US = 100.0
TARGET_DELAY_P99_US = 500.0
TARGET_GOODPUT_PERCENT = 1.0
TARGET_LOSS_SIGMA = 4.5

SMALL_PAYLOAD_BYTES = 64
LARGE_PAYLOAD_BYTES = 1472
UDP_HEADERS_BYTES = 14 + 20 + 8
_TCP_PAYLOAD_SHARE = 1448 / 1514  # MSS with timestamps in a full frame


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def with_room(asked: LinkProfile) -> LinkProfile:
    """The profile with a queue that never overflows: what is lost then is lost by chance alone."""
    return replace(asked, queue_packets=MAX_QUEUE_PACKETS, queue_bdp=None)


def without_chance(asked: LinkProfile) -> LinkProfile:
    """The profile without all that is random: what is left can be foretold packet by packet."""
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
    frame_bytes = SMALL_PAYLOAD_BYTES + UDP_HEADERS_BYTES
    if asked.mean_rate_mbit is not None:
        packets_per_s = min(packets_per_s, 0.6 * asked.mean_rate_mbit * 1e6 / 8 / frame_bytes)
    count = int(packets_per_s * seconds)
    quiet_s = drain_s(asked, frame_bytes)
    sent, received, busy, _ = send_udp(sender, receiver, count, SMALL_PAYLOAD_BYTES, packets_per_s, quiet_s)
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
        make_row("one-way delay p50", "us", asked.delay_ms * 1000, p50_ms * 1000, p50_us, TARGET_DELAY_P50_US),
        make_row("one-way delay p99", "us", asked.delay_ms * 1000, p99_ms * 1000, p99_us, TARGET_DELAY_P99_US),
    ]
    for row in rows:
        row.update(packets=len(errors_us), packets_per_s=round(packets_per_s), cpu_busy=busy)
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
        listener = socket.create_server((receiver.address, PORT))
    with inside(sender.namespace):
        client = socket.socket()
    for end in (listener, client):
        # The sysctl that chooses the default is closed to namespaces; the socket option is not.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    thread = threading.Thread(target=_sink, args=(listener,), daemon=True)
    with capture(receiver, packets) as ring, listener, client:
        thread.start()
        client.settimeout(30.0)
        client.connect((receiver.address, PORT))
        start_ns = time.monotonic_ns()
        chunk = bytes(64 * 1024)
        with cpu_use() as use:
            while time.monotonic() < deadline_s:
                client.sendall(chunk)
        frames = complete(ring)
        # Do not wait for what is still queued in the socket.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    thread.join(30.0)
    # What is still in the queue would be in the way of the next measurement.
    wait_quiet(drain_s(asked, 1514))
    begin_ns = start_ns + int(warm_up_s * 1e9)
    measured_mbit = _goodput_mbit(frames, begin_ns, begin_ns + int(seconds * 1e9))
    target_mbit = TARGET_GOODPUT_PERCENT / 100 * ideal_mbit
    row = make_row("TCP goodput", "Mbit/s", ideal_mbit, measured_mbit, measured_mbit - ideal_mbit, target_mbit)
    row.update(cpu_busy=use.busy)
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
        if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[36:38] != PORT.to_bytes(2, "big"):
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


def _ring_drops() -> int:
    """Frames that the kernel could not hand to the link emulation so far."""
    return sum(int(port.get("ring_drops") or 0) for port in wire().stats()["ports"].values())


def measure_loss(test: Bench, direction: str, asked: LinkProfile, packets: int, packets_per_s: float) -> list[dict]:
    """Share of packets lost, and how far that is from the profile in standard deviations."""
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    frame_bytes = SMALL_PAYLOAD_BYTES + UDP_HEADERS_BYTES
    if asked.mean_rate_mbit is not None:
        packets_per_s = min(packets_per_s, 0.8 * asked.mean_rate_mbit * 1e6 / 8 / frame_bytes)
    quiet_s = drain_s(asked, frame_bytes)
    overrun = _ring_drops()
    sent, received, busy, _ = send_udp(sender, receiver, packets, SMALL_PAYLOAD_BYTES, packets_per_s, quiet_s)
    if _ring_drops() > overrun:
        raise CalibrationError("loss: the machine was too busy, frames were lost before the relay: try again when it is idle")
    lost = len(sent.keys() - received.keys())
    share = asked.mean_loss
    variance = asked.burst.variance_factor() if asked.burst else share * (1 - share)
    sigma = (lost - share * len(sent)) / math.sqrt(variance * len(sent)) if variance else float(lost)
    target = TARGET_LOSS_SIGMA * math.sqrt(variance / len(sent))
    row = make_row("loss", "share", share, lost / len(sent), lost / len(sent) - share, target)
    row.update(packets=len(sent), sigma=sigma, cpu_busy=busy, chance=True)
    rows = [row]
    if asked.burst and 0 < lost < len(sent):
        rows.append({**_burst_row(asked.burst, sorted(sent), received), "cpu_busy": busy})
    return rows


def mean_run(burst: GilbertElliott) -> float:
    """Mean number of consecutive losses of the chain: losses per loss that follows a packet that was not lost.

    Infinite when every packet is lost.
    """
    bad, good = burst.bad_share, 1 - burst.bad_share
    both_lost = (
        bad * burst.loss_bad * ((1 - burst.r) * burst.loss_bad + burst.r * burst.loss_good)
        + good * burst.loss_good * (burst.p * burst.loss_bad + (1 - burst.p) * burst.loss_good)
    )  # fmt: skip
    first_of_run = burst.stationary_loss - both_lost
    return burst.stationary_loss / first_of_run if first_of_run else math.inf


def _burst_row(burst: GilbertElliott, numbers: list[int], received: dict[int, Arrival]) -> dict[str, Any]:
    """Mean length of runs of lost packets; such lengths are nearly independent and nearly geometric."""
    runs = losses = 0
    previous_lost = False
    for number in numbers:
        lost = number not in received
        losses += lost
        runs += lost and not previous_lost
        previous_lost = lost
    asked, measured = mean_run(burst), losses / runs
    target = TARGET_LOSS_SIGMA * math.sqrt(asked * (asked - 1) / runs)
    return {
        **make_row("mean burst", "packets", asked, measured, measured - asked, target),
        "packets": len(numbers),
        "chance": True,
    }


def measure_queue(test: Bench, direction: str, asked: LinkProfile) -> list[dict]:
    """Packets waiting for the rate limiter when the first one was dropped."""
    limit = asked.queue_limit
    if limit is None or asked.trace is not None:
        return []
    sender, receiver = next((a, b) for name, a, b in test.ways() if name == direction)
    quiet_s = drain_s(asked, 1514)
    # While the burst is sent some packets leave the queue, on fast links a good part.
    sent, received, _, _ = send_udp(sender, receiver, 2 * limit + 200, LARGE_PAYLOAD_BYTES, None, quiet_s)
    dropped = [number for number in sorted(sent) if number not in received]
    if not dropped:
        raise CalibrationError("the burst did not fill the queue: the sender is slower than the link")
    moment_ns = sent[dropped[0]].arrival_ns
    delay_ns = asked.delay_ms * 1e6
    gone = sum(1 for number in range(dropped[0]) if received[number].arrival_ns - delay_ns <= moment_ns)
    # One of the rest is in transmission.
    waiting = dropped[0] - gone - 1
    row = make_row("queue", "packets", limit, waiting, waiting - limit, 1.0)
    return [row]
