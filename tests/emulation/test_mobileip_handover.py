"""Handovers while both networks work: a voice-like stream in both directions loses no datagram."""

import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.emulation.mobileip_lab import CORRESPONDENT, HOME_ADDRESS, Lab, lab
from tests.emulation.test_mobileip_kernel import bound, used
from tests.emulation.test_topologies import run_check
from topologies.links.netns import inside
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
SPACING_S = 0.002
"""Denser than voice (20 ms): a gap of a few milliseconds cannot hide between two datagrams."""
PORT = 5004
BETWEEN_S, SETTLE_S, LAST_S = 0.6, 1.0, 3.0


@dataclass
class Stream:
    """Numbered datagrams at a fixed rate, both ways at once, in this thread."""

    ends: tuple[socket.socket, socket.socket]
    sent: int = 0
    got: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))
    """By the end that has received them: mobile node, correspondent."""

    def run(self, seconds: float) -> None:
        """Send and receive for so long."""
        begun, first = time.monotonic(), self.sent
        while time.monotonic() < begun + seconds:
            while begun + (self.sent - first) * SPACING_S <= time.monotonic():
                for end in self.ends:
                    end.send(struct.pack("!I", self.sent) + bytes(156))
                self.sent += 1
            self.take(begun + (self.sent - first) * SPACING_S - time.monotonic())

    def take(self, seconds: float) -> None:
        """What arrives."""
        for end in select.select(self.ends, [], [], max(0.0, seconds))[0]:
            self.got[self.ends.index(end)].add(struct.unpack("!I", end.recv(2000)[:4])[0])

    def lost(self) -> tuple[list[int], list[int]]:
        """Numbers that did not arrive: at the mobile node, at the correspondent."""
        end_s = time.monotonic() + LAST_S
        while any(len(got) < self.sent for got in self.got) and time.monotonic() < end_s:
            self.take(0.1)
        missing = [sorted(set(range(self.sent)) - got) for got in self.got]
        return missing[0], missing[1]


def stream(net: Lab) -> Stream:
    ends = []
    for node, own, peer in (("mn", HOME_ADDRESS, CORRESPONDENT), ("cn", CORRESPONDENT, HOME_ADDRESS)):
        with inside(net.nodes[node]):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((own, PORT))
        sock.connect((peer, PORT))
        ends.append(sock)
    return Stream((ends[0], ends[1]))


def move(flow: Stream, steps: Sequence[Callable[[], Any]]) -> None:
    """Each step in the middle of the stream: commands take their time in a thread of their own."""
    flow.run(SETTLE_S)
    with ThreadPoolExecutor(1) as others:
        for step in steps:
            done = others.submit(step)
            while not done.done():
                flow.run(BETWEEN_S / 4)
            done.result()
            flow.run(BETWEEN_S)
    flow.run(SETTLE_S)


def check_single(encapsulation: str) -> None:
    """One binding: WLAN to LTE and back, some times, make before break."""
    with lab() as net:
        how = {"encapsulation": encapsulation}
        home = net.home_agent(udp_forced=True, encapsulations=["ipip", "gre"])
        mobile = net.mobile_node(multipath=False, p0=how, p1={**how, "cost": 1})
        used(mobile, 1)
        flow = stream(net)
        names = ["mn-p1", "mn-p0"] * 3
        move(flow, [lambda name=name: mobile.ask("handover", interface=name) for name in names])  # type: ignore[misc]
        assert flow.lost() == ([], [])
        assert flow.sent > 1000
        # The old tunnels are taken down at both ends after a short while.
        for agent in (home, mobile):
            wait_until(lambda agent=agent: len(agent.ask("status")["tunnels"]) == 1, 10.0, "old tunnels are gone")  # type: ignore[misc]
            assert agent.ask("status")["tunnels"][0]["encapsulation"] == encapsulation


def check_several() -> None:
    """Several bindings: one is taken off and comes back, then the other."""
    with lab() as net:
        home, mobile = net.home_agent(), net.mobile_node()
        bound(home, 2)
        used(mobile, 2)
        flow = stream(net)
        steps: list[Callable[[], Any]] = []
        for name in ("mn-p0", "mn-p1"):
            steps += [
                lambda name=name: mobile.ask("deregister", interface=name),
                lambda name=name: (mobile.ask("register", interface=name), used(mobile, 2), bound(home, 2)),
            ]
        move(flow, steps * 2)
        assert flow.lost() == ([], [])
        bound(home, 2)


@pytest.mark.parametrize("words", [("single", "ipip"), ("single", "udp"), ("several",)])
def test_no_datagram_is_lost_while_both_networks_work(words: tuple[str, ...]) -> None:
    run_check(__name__, *words)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
