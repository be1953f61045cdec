"""What the core alone costs: `python -m tests.bench.proxy_core`; part of `make bench-proxy`.

The packets of one connection pass the proxy in memory, as Linux sends them: timestamps, no loss, one mapping for many segments,
an acknowledgement for every second one. CPU time counts, so that other programs disturb little.
"""

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from agents.core.proxy.actions import Action
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.proxy import Proxy
from agents.wire import mptcp, tcp
from agents.wire.mptcp import Capable, Dss
from agents.wire.tcp import ACK, SYN

NEAR, FAR = (bytes((10, 0, 0, 1)), 40_000), (bytes((10, 0, 0, 2)), 80)
NEAR_ISN, FAR_ISN, FAR_KEY = 1_000_000, 7_000_000, b"far--key"
PAYLOAD = 1424
SEGMENTS_IN_A_MAPPING = 44
WINDOW = 4096
SYN_OPTIONS = bytes((2, 4, 1460 >> 8, 1460 & 255, 4, 2, 1, 3, 3, 7))
PACKETS = 20_000
PARTS = 10
"""The best of so many counts: what disturbs only takes time."""
STEADY_PACKETS = 500
UNDER_WAY = (125_000, 1_250_000, 12_500_000)
"""Bytes that are not acknowledged: 100 Mbit/s at round trips of 10 ms, 100 ms, 1 s."""


def _stamp(tick: int) -> bytes:
    return tcp.timestamps_option(5_000_000 + tick, 3_000_000 + tick)


def _syn_options(*parts: bytes) -> bytes:
    body = SYN_OPTIONS + b"".join(parts)
    return body + b"\x01" * (-len(body) % 4)


@dataclass
class Rig:
    """A proxy with one open connection, and what both ends of it send."""

    proxy: Proxy
    idsn_near: int
    idsn_far: int

    def data_from_network(self, number: int) -> bytes:
        """The peer's data: DSN of 64 bits, data ACK of 32, the mapping of a whole superpacket."""
        offset = number * PAYLOAD
        size = SEGMENTS_IN_A_MAPPING * PAYLOAD
        begin = offset // size * size
        dss = Dss(self.idsn_near + 1, False, (self.idsn_far + 1 + begin) % 2**64, True, 1 + begin, size)
        options = _stamp(number >> 6) + mptcp.encode_dss(dss)
        return tcp.build(*FAR, *NEAR, FAR_ISN + 1 + offset, NEAR_ISN + 1, ACK, WINDOW, options, bytes(PAYLOAD))

    def ack_from_host(self, number: int) -> bytes:
        """All up to this packet has arrived."""
        return tcp.build(*NEAR, *FAR, NEAR_ISN + 1, FAR_ISN + 1 + (number + 1) * PAYLOAD, ACK, WINDOW, _stamp(number >> 6))

    def data_from_host(self, number: int) -> bytes:
        """Plain TCP, full-sized for the MSS that the proxy makes."""
        return tcp.build(*NEAR, *FAR, NEAR_ISN + 1 + number * PAYLOAD, FAR_ISN + 1, ACK, WINDOW, _stamp(number >> 6),
                         bytes(PAYLOAD))  # fmt: skip

    def ack_from_network(self, number: int) -> bytes:
        """The peer's, at both levels."""
        end = 1 + (number + 1) * PAYLOAD
        options = _stamp(number >> 6) + mptcp.encode_dss(Dss(self.idsn_near + end))
        return tcp.build(*FAR, *NEAR, FAR_ISN + 1, NEAR_ISN + end, ACK, WINDOW, options)


def open_connection() -> Rig:
    """The handshake, opened by this host, and one data ACK that shows it is over."""
    proxy = Proxy(ProxyConfig(), lambda count: b"near-key"[:count])
    actions: list[Action] = []
    rig = Rig(proxy, mptcp.initial_dsn(b"near-key"), mptcp.initial_dsn(FAR_KEY))
    capable = mptcp.encode(Capable(mptcp.FLAG_HMAC_SHA256, mptcp.VERSION, FAR_KEY))
    stamps = tcp.timestamps_option(5_000_000, 3_000_000)
    syn = tcp.build(*NEAR, *FAR, NEAR_ISN, 0, SYN, 65_535, _syn_options(b"\x08\x0a" + stamps[4:8] + bytes(4)))
    answer = tcp.build(*FAR, *NEAR, FAR_ISN, NEAR_ISN + 1, SYN | ACK, 65_535, _syn_options(stamps[2:], capable))
    third = tcp.build(*NEAR, *FAR, NEAR_ISN + 1, FAR_ISN + 1, ACK, WINDOW, stamps)
    dss = mptcp.encode_dss(Dss(rig.idsn_near + 1))
    shown = tcp.build(*FAR, *NEAR, FAR_ISN + 1, NEAR_ISN + 1, ACK, WINDOW, stamps + dss)
    assert isinstance(proxy.outbound(syn, 0.0, actions), bytes)
    assert isinstance(proxy.inbound(answer, 0.0, actions), bytes)
    assert isinstance(proxy.outbound(third, 0.0, actions), bytes)
    proxy.inbound(shown, 0.0, actions)
    return rig


Call = Callable[..., object]


def _seconds(call: Call, packets: list[bytes], now: float, actions: list[Action]) -> float:
    """CPU time of the packets. All must be answered with a packet."""
    begun = time.process_time()
    answers = [call(packet, now, actions) for packet in packets]
    taken = time.process_time() - begun
    actions.clear()  # the first one of each kind leaves a line for the log
    assert all(isinstance(answer, bytes) for answer in answers)
    return taken


def _one_way(
    rig: Rig, data: Callable[[int], bytes], ack: Callable[[int], bytes], calls: tuple[Call, Call]
) -> tuple[float, float]:
    """Least CPU time for a packet of data and for an ACK, in microseconds."""
    actions: list[Action] = []
    best = [1e9, 1e9]
    batch = 16
    for part in range(PARTS):
        begin = part * PACKETS // PARTS
        taken = [0.0, 0.0]
        counts = [0, 0]
        for first in range(begin, begin + PACKETS // PARTS, batch):
            numbers = range(first, first + batch)
            sets = ([data(number) for number in numbers], [ack(number) for number in numbers if number & 1])
            for which in (0, 1):
                taken[which] += _seconds(calls[which], sets[which], 1.0 + first / 100_000, actions)
                counts[which] += len(sets[which])
        best = [min(before, seconds / count) for before, seconds, count in zip(best, taken, counts, strict=True)]
    return best[0] * 1e6, best[1] * 1e6


def measure() -> dict[str, float]:
    """Microseconds of CPU time for each kind of packet, and packets for a CPU second in each direction."""
    result: dict[str, float] = {}
    rig = open_connection()
    data, ack = _one_way(rig, rig.data_from_network, rig.ack_from_host, (rig.proxy.inbound, rig.proxy.outbound))
    result |= {"down_data_us": data, "down_ack_us": ack, "down_per_cpu_s": 1.5e6 / (data + ack / 2)}
    rig = open_connection()
    data, ack = _one_way(rig, rig.data_from_host, rig.ack_from_network, (rig.proxy.outbound, rig.proxy.inbound))
    result |= {"up_data_us": data, "up_ack_us": ack, "up_per_cpu_s": 1.5e6 / (data + ack / 2)}
    return result


def memory() -> dict[str, int]:
    """Bytes of a proxy with one connection, by the bytes that it has sent and that are not acknowledged."""
    return {str(under_way): _held(under_way) for under_way in UNDER_WAY}


def _held(under_way: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        rig = open_connection()
        actions: list[Action] = []
        ahead = under_way // PAYLOAD
        for number in range(ahead + STEADY_PACKETS):
            rig.proxy.outbound(rig.data_from_host(number), 1.0, actions)
            if number >= ahead:
                rig.proxy.inbound(rig.ack_from_network(number - ahead), 1.0, actions)
            actions.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    print(json.dumps({key: round(value, 2) for key, value in measure().items()} | {"held": memory()}))
    sys.exit(0)
