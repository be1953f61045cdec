"""Emulated links in real namespaces, as root and as an ordinary user.

Each check runs in a process of its own inside fresh namespaces: `python -m tests.emulation.test_links NAME`.
No check judges how fast the machine is; `roamlab calibrate` does that.
"""

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from mininet.net import Mininet
from mininet.node import Node
from mininet.topo import Topo
from pyroute2 import IPRoute

from experiments.calibration.bench import bench
from experiments.calibration.measure import measure_delay, measure_goodput, measure_loss, measure_queue, with_room
from experiments.clock import now_ns, sleep_until
from topologies.links import netem
from topologies.links.checksum import complete
from topologies.links.interfaces import SIOCETHTOOL
from topologies.links.link import EmulatedLink
from topologies.links.netns import LinkError, inside, namespace_of
from topologies.links.ring import Ring, bind_ring_socket, make_ring_socket
from topologies.links.shaper import Shaper
from topologies.links.userspace import RelayError, UserspaceBackend
from topologies.links.wire import Port, Wire, wire
from topologies.profiles import GilbertElliott, LinkProfile, ProfileError
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
ROOT = Path(__file__).resolve().parents[2]
NOBODY = "65534"
PORT = 5001
HOST_MS = 1000.0
"""More than the busiest machine adds to a median round trip, far less than a delay in s where ms were asked for."""
UNSUPPORTED = 77
"""Exit status of a check that this kernel cannot run."""


# ---- a bench of two hosts


def quiet_node(name: str) -> Node:
    """A host that sends nothing of its own accord."""
    node = Node(name)
    node.cmd("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    return node


class Pair:
    """Hosts a (10.0.0.1) and b (10.0.0.2) that speak no IPv6 and need no ARP, joined by a link."""

    def __init__(self, names: tuple[str, str] = ("a", "b"), **parameters: object) -> None:
        one, other = names
        self.a, self.b = quiet_node(one), quiet_node(other)
        self.link = EmulatedLink(self.a, self.b, intfName1=f"{one}-0", intfName2=f"{other}-0", **parameters)
        self.address(self.a, f"{one}-0", "10.0.0.1", "10.0.0.2", self.link.port2)
        self.address(self.b, f"{other}-0", "10.0.0.2", "10.0.0.1", self.link.port1)

    @staticmethod
    def address(node: Node, interface: str, own: str, other: str, port: Port) -> None:
        node.cmd(f"ip addr add {own}/24 dev {interface}")
        node.cmd(f"ip neigh replace {other} lladdr {port.mac} dev {interface} nud permanent")

    def ping(self, count: int = 3, to: str = "10.0.0.2") -> list[float]:
        """Round-trip times in ms of the answers that came."""
        out = self.a.cmd(f"ping -n -c {count} -i 0.02 -W 1 {to}")
        return [float(value) for value in re.findall(r"time=([0-9.]+)", out)]

    def udp(self, node: Node, to: str | None = None) -> socket.socket:
        with in_node(node):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if to:
            sock.connect((to, PORT))
        else:
            sock.bind(("", PORT))
            sock.setblocking(False)
        return sock

    def flags(self, node: Node, interface: str) -> str:
        return str(node.cmd(f"ip -o link show {interface}")).partition("<")[2].partition(">")[0]


@contextlib.contextmanager
def in_node(node: Node) -> Iterator[None]:
    namespace = namespace_of(node.pid)
    try:
        with inside(namespace):
            yield
    finally:
        os.close(namespace)


def capture(node: Node, interface: str) -> Ring:
    with in_node(node):
        ring_socket = make_ring_socket()
        bind_ring_socket(ring_socket, interface)
    return Ring(ring_socket)


def numbers(sock: socket.socket) -> list[int]:
    """Sequence numbers of the datagrams that have arrived, in order of arrival."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(int.from_bytes(sock.recv(2048)[:4], "big"))
    return found


def collect(sock: socket.socket, quiet_s: float = 0.3, enough: int | None = None) -> list[int]:
    """Like `numbers`, until there are `enough` or nothing has come for a while."""
    found = numbers(sock)
    last_s = time.monotonic()

    def quiet() -> bool:
        nonlocal last_s
        new = numbers(sock)
        found.extend(new)
        if new:
            last_s = time.monotonic()
        return (enough is not None and len(found) >= enough) or time.monotonic() - last_s > quiet_s

    wait_until(quiet, 30, "the link falls silent", poll_s=0.01)
    return found


def datagram(number: int, length: int = 100) -> bytes:
    return struct.pack("!I", number) + bytes(length - 4)


def transfer(sender: socket.socket, receiver: socket.socket, count: int) -> list[int]:
    """Send numbered datagrams, no more than 200 of them under way: a socket may hold no more than 300."""
    found = []
    for number in range(count):
        sender.send(datagram(number))
        if number % 50 == 49:
            found += collect(receiver, 0.1, enough=number + 1 - 150 - len(found))
    return found + collect(receiver)


# ---- checks: what a profile does


def check_delay() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=20), profile_back=LinkProfile(delay_ms=10))
    times_ms = pair.ping(10)
    assert len(times_ms) == 10
    assert min(times_ms) >= 30.0
    assert statistics.median(times_ms) < 30.0 + HOST_MS
    stats = pair.link.stats()
    assert stats["forward"]["delivered"] == stats["forward"]["offered"] == 10
    assert stats["back"]["delivered_bytes"] == 10 * 98


def check_unshaped() -> None:
    """Less than a link of 100 ms each way on the same machine: nothing is added."""
    shaped = Pair(profile=LinkProfile(delay_ms=100), names=("c", "d"))
    assert min(Pair().ping(10)) < min(shaped.ping(3))


def check_loss_is_the_model() -> None:
    """The packets that arrive are exactly those that the pure shaper lets pass with the same seed."""
    profile = LinkProfile(delay_ms=1, loss=0.1)
    pair = Pair(profile=profile, seed="7/0")
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    came = transfer(sender, receiver, 2000)
    model = Shaper(profile, Random("7/0/a:a-0/b:b-0/forward"))
    for number in range(2000):
        model.offer(number, datagram(number))
    expected = [int.from_bytes(entry.frame[:4], "big") for entry in model.line]
    assert came == expected
    assert 120 < 2000 - len(expected) < 280
    assert pair.link.stats()["forward"]["dropped_loss"] == 2000 - len(expected)


def check_jitter_keeps_order() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=20, jitter_ms=20))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    assert transfer(sender, receiver, 500) == list(range(500))


def check_reorder_and_duplicate() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=50, reorder=0.2, duplicate=0.2))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    came = transfer(sender, receiver, 500)
    stats = pair.link.stats()["forward"]
    assert set(came) == set(range(500))
    assert came != sorted(came)
    assert len(came) == 500 + stats["duplicated"]
    assert stats["reordered"] > 50


def check_queue_drops_the_tail() -> None:
    pair = Pair(profile=LinkProfile(rate_mbit=1, delay_ms=30, queue_packets=10))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    for number in range(60):
        sender.send(datagram(number, 1472))
    came = collect(receiver)
    # One in transmission, ten waiting, and what left (12 ms each) while the burst was sent on a slow machine.
    assert came[:11] == list(range(11))
    assert len(came) < 30
    assert pair.link.stats()["forward"]["dropped_queue"] == 60 - len(came)


def check_change_of_profile_keeps_order() -> None:
    pair = Pair(profile=LinkProfile(rate_mbit=1, delay_ms=200, queue_packets=1000))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    for number in range(100):
        sender.send(datagram(number))
    pair.link.set_profile(LinkProfile(rate_mbit=100, delay_ms=1, queue_packets=1000))
    for number in range(100, 200):
        sender.send(datagram(number))
    assert collect(receiver) == list(range(200))
    assert pair.link.describe() == "100 Mbit/s 1 ms"


def check_trace() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".trace") as file:
        file.write("\n".join(str(20 * n) for n in range(1, 11)))
        file.flush()
        pair = Pair(profile={"trace": file.name, "queue_packets": 100})
        receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
        started_s = time.monotonic()
        for number in range(20):
            sender.send(datagram(number, 1472))
        wait_until(lambda: pair.link.stats()["forward"]["delivered"] == 20, 10, "all delivered")
        # 20 full packets at one per 20 ms.
        assert time.monotonic() - started_s >= 0.36
        assert collect(receiver) == list(range(20))


# ---- checks: events


def check_carrier() -> None:
    pair = Pair(profile="lan")
    assert pair.ping()
    # Equal indices at both ends would make the kernel report carrier up to 1 s late.
    outer = re.search(r"a-0@if(\d+)", pair.a.cmd("ip -o link show a-0"))
    assert outer is not None
    assert int(outer.group(1)) >= 1_000_000
    pair.link.set_carrier(False, 1)
    flags = pair.flags(pair.a, "a-0").split(",")
    assert "NO-CARRIER" in flags
    assert "UP" in flags
    assert "linkdown" in pair.a.cmd("ip route show 10.0.0.0/24")
    assert "10.0.0.1" in pair.a.cmd("ip addr show a-0")
    assert "NO-CARRIER" not in pair.flags(pair.b, "b-0")
    assert not pair.ping(1)
    pair.link.set_carrier(True, 1)
    assert "LOWER_UP" in pair.flags(pair.a, "a-0")
    assert len(pair.ping()) == 3
    pair.link.set_carrier(False)
    assert "NO-CARRIER" in pair.flags(pair.b, "b-0")
    pair.link.set_carrier(True)
    assert len(pair.ping()) == 3


def check_carrier_loss_drops_what_is_in_flight() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=200))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    sender.send(datagram(1))
    wait_until(lambda: pair.link.stats()["forward"]["in_flight"] == 1, 5, "datagram in flight", poll_s=0.001)
    pair.link.set_carrier(False)
    pair.link.set_carrier(True)
    sender.send(datagram(2))
    assert collect(receiver, 0.5) == [2]


def check_blackhole() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=100))
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    sender.send(datagram(1))
    wait_until(lambda: pair.link.stats()["forward"]["in_flight"] == 1, 5, "datagram in flight", poll_s=0.001)
    pair.link.set_blackhole(True, "forward")
    sender.send(datagram(2))
    assert collect(receiver, 0.3) == []
    assert "NO-CARRIER" not in pair.flags(pair.a, "a-0") + pair.flags(pair.b, "b-0")
    back_receiver, back_sender = pair.udp(pair.a), pair.udp(pair.b, "10.0.0.1")
    back_sender.send(datagram(3))
    assert collect(back_receiver) == [3]
    pair.link.set_blackhole(False, "forward")
    sender.send(datagram(4))
    assert collect(receiver) == [4]
    stats = pair.link.stats()["forward"]
    assert (stats["dropped_blackhole"], stats["dropped_flushed"]) == (1, 1)


def check_present() -> None:
    pair = Pair(profile="lan")
    assert pair.ping()
    mac = pair.a.cmd("cat /sys/class/net/a-0/address").strip() or pair.link.port1.mac
    pair.link.set_present(False)
    pair.link.set_present(False)
    assert "a-0" not in pair.a.cmd("ip -o link")
    assert "10.0.0.0/24" not in pair.a.cmd("ip route")
    assert "NO-CARRIER" not in pair.flags(pair.b, "b-0")
    with pytest.raises(LinkError, match="a-0 is not present"):
        pair.link.set_carrier(False, 1)
    pair.link.set_present(True)
    assert pair.link.port1.mac == mac
    assert mac in pair.a.cmd("ip -o link show a-0")
    pair.address(pair.a, "a-0", "10.0.0.1", "10.0.0.2", pair.link.port2)
    assert len(pair.ping()) == 3


def check_attach() -> None:
    """A station moves between two access points; a port is taken from one link by another."""
    pair = Pair(profile=LinkProfile(delay_ms=20))
    second = wire().add_port(pair.b, "b-1")
    pair.b.cmd("ip addr add 10.0.1.2/24 dev b-1")
    pair.a.cmd("ip addr add 10.0.1.1/24 dev a-0")
    pair.b.cmd(f"ip neigh replace 10.0.1.1 lladdr {pair.link.port1.mac} dev b-1 nud permanent")
    pair.a.cmd(f"ip neigh replace 10.0.1.2 lladdr {second.mac} dev a-0 nud permanent")
    assert len(pair.ping()) == 3
    assert not pair.ping(1, "10.0.1.2")
    pair.b.cmd("ping -c 1 -W 1 10.0.1.1")
    wait_until(lambda: wire().stats()["unjoined"] == 1, 5, "the frame of a port without link is read")
    pair.link.attach(second)
    assert not pair.ping(1)
    times_ms = pair.ping(3, "10.0.1.2")
    assert len(times_ms) == 3
    assert min(times_ms) >= 40  # the profile went with it
    pair.link.attach(None)
    assert not pair.ping(1, "10.0.1.2")
    pair.link.attach(pair.link.port2)
    assert len(pair.ping()) == 3
    other = EmulatedLink(quiet_node("c"), pair.b, intfName1="c-0", intfName2="b-2")
    other.attach(pair.link.port2)
    ring = capture(pair.b, "b-0")
    nowhere = pair.link.stats()["forward"]["dropped_carrier"]
    assert not pair.ping(1)
    # What the station sends now reaches nobody.
    assert ring.read_all() == []
    ring.close()
    assert pair.link.stats()["forward"]["dropped_carrier"] == nowhere + 1
    pair.link.attach(pair.link.port2)
    assert len(pair.ping()) == 3
    with pytest.raises(LinkError, match="own end"):
        pair.link.attach(pair.link.port1)


def check_replugged_while_attached_elsewhere() -> None:
    pair = Pair()
    second = wire().add_port(pair.b, "b-1")
    pair.link.attach(second)
    pair.link.set_present(False)
    pair.link.set_present(True)
    assert pair.link.joined_to is second
    ring = capture(pair.b, "b-1")
    pair.a.cmd("ip addr add 10.0.0.1/24 dev a-0; ping -c 1 -W 1 10.0.0.9")
    assert ring.read_all()


# ---- checks: frames


def offload(node: Node, interface: str, command: int, value: int = 0) -> int:
    """An ETHTOOL_G* or ETHTOOL_S* command with one value."""
    import ctypes

    buffer = ctypes.create_string_buffer(struct.pack("II", command, value))
    with in_node(node), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sQ16x", interface.encode(), ctypes.addressof(buffer)))
    return int(struct.unpack_from("I", buffer, 4)[0])


def check_offloads_are_off() -> None:
    pair = Pair()
    for node, interface in ((pair.a, "a-0"), (pair.b, "b-0")):
        for get in (0x16, 0x1E, 0x23, 0x2B):  # tx checksum, TSO, GSO, GRO
            assert offload(node, interface, get) == 0


def check_the_wire_is_silent() -> None:
    """Only hosts speak: no address resolution, router solicitation or MLD from the outer ends."""
    pair = Pair()
    rings = [capture(pair.a, "a-0"), capture(pair.b, "b-0")]
    for up in (False, True):
        pair.link.set_carrier(up)
    sleep_until(now_ns() + 2_000_000_000)
    assert [ring.read_all() for ring in rings] == [[], []]


def check_frames_are_not_changed() -> None:
    """Addresses, ethertype, VLAN tag, length and padding arrive as they were sent."""
    pair = Pair()
    ring = capture(pair.b, "b-0")
    head = bytes.fromhex("020000000001020000000002")
    frames = [
        head + bytes.fromhex("81002005 0800") + b"tagged" * 20,
        head + bytes.fromhex("88a80064 81000007 0800") + b"twice" * 20,
        head + bytes.fromhex("88b5") + b"x",
        head + bytes.fromhex("0800") + bytes(range(250)) * 6,
    ]
    with in_node(pair.a):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind(("a-0", 0))
    for frame in frames:
        raw.send(frame)
    got: list[bytes] = []

    def received() -> bool:
        ring.receive(100, lambda _at_ns, frame: got.append(frame))
        return len(got) == len(frames)

    wait_until(received, 5, "all frames")
    assert got == frames


def check_checksums_are_completed() -> None:
    pair = Pair()
    offload(pair.a, "a-0", 0x17, 1)  # a person switches tx checksum offload on
    ring = capture(pair.b, "b-0")
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    sender.send(datagram(5))
    assert collect(receiver) == [5]
    (arrival,) = ring.read_all()
    assert complete(arrival.frame) == arrival.frame
    assert wire().stats()["ports"]["a:a-0"]["checksums_completed"] == 1


def check_jumbo_frames_are_counted() -> None:
    pair = Pair()
    with inside(wire().namespace), IPRoute() as netlink:
        for port in (pair.link.port1, pair.link.port2):
            netlink.link("set", ifname=port.outer, mtu=4000)
    pair.a.cmd("ip link set a-0 mtu 4000")
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    sender.send(datagram(1, 3000))
    sender.send(datagram(2, 1000))
    assert collect(receiver) == [2]
    assert wire().stats()["ports"]["a:a-0"]["oversize"] == 1


RING_FRAMES = 1024
"""What waits for a relay that does not read; the rest is dropped and counted."""


def check_statistics_start_anew() -> None:
    pair = Pair(profile=LinkProfile(delay_ms=5))
    statistics_start_anew(pair)
    ports = {f"{port.node.name}:{port.name}": port for port in (pair.link.port1, pair.link.port2)}
    backend = wire().backend
    assert isinstance(backend, UserspaceBackend)
    os.kill(backend.pid, signal.SIGSTOP)
    sender = pair.udp(pair.a, "10.0.0.2")
    for number in range(1200):
        sender.send(datagram(number))
    os.kill(backend.pid, signal.SIGCONT)

    def ring_is_read() -> bool:
        way = pair.link.stats()["forward"]
        return way["offered"] >= RING_FRAMES and way["in_flight"] == 0

    wait_until(ring_is_read, 5, "the ring is read")
    before = wire().stats()
    assert before["ports"]["a:a-0"]["ring_drops"] > 0
    wire().reset_stats()
    after = wire().stats()
    assert set(after["ports"]) == set(ports)
    assert not any(any(counters.values()) for counters in after["ports"].values())
    assert (after["frames"], after["late_max_us"]) == (0, 0.0)
    assert after["cpu_s"] < before["cpu_s"]
    # An interface that comes back has new counters in the kernel.
    pair.link.set_present(False)
    pair.link.set_present(True)
    assert all(value >= 0 for counters in wire().stats()["ports"].values() for value in counters.values())


def statistics_start_anew(pair: Pair) -> None:
    """On whichever backend, also when a direction has been cut in between."""
    assert len(pair.ping()) == 3
    assert pair.link.stats()["forward"]["delivered"] >= 3
    wire().reset_stats()
    assert not any(any(way.values()) for way in pair.link.stats().values())
    assert len(pair.ping(4)) == 4
    for direction in ("forward", "back"):
        pair.link.set_blackhole(True, direction)
        pair.link.set_blackhole(False, direction)
    for way in pair.link.stats().values():
        assert (way["offered"], way["delivered"], way["delivered_bytes"]) == (4, 4, 4 * 98)


def check_ring_overrun_is_counted() -> None:
    pair = Pair()
    backend = wire().backend
    assert isinstance(backend, UserspaceBackend)
    sender = pair.udp(pair.a, "10.0.0.2")
    os.kill(backend.pid, signal.SIGSTOP)
    for number in range(1200):
        sender.send(datagram(number))
    os.kill(backend.pid, signal.SIGCONT)
    wait_until(lambda: pair.link.stats()["forward"]["offered"] == RING_FRAMES, 5, "the ring is read")
    stats = wire().stats()
    assert stats["ports"]["a:a-0"]["ring_drops"] == 1200 - 1024
    assert stats["late_max_us"] > 0


# ---- checks: life and errors


def check_death_of_the_relay_is_noticed() -> None:
    pair = Pair()
    backend = wire().backend
    assert isinstance(backend, UserspaceBackend)
    backend.check()
    os.kill(backend.pid, signal.SIGKILL)
    with pytest.raises(RelayError, match="the link relay was killed by SIGKILL; all emulated links are dead"):
        pair.link.set_blackhole(True)
    with pytest.raises(RelayError, match="killed by SIGKILL"):
        wire().check()


def check_relay_dies_with_its_owner() -> None:
    for thread in (False, True):
        code = (
            "import sys, threading\n"
            "from topologies.links.wire import Wire\n"
            "def start():\n"
            "    global wire; wire = Wire('userspace'); wire.backend.stats(); print(wire.backend.pid, flush=True)\n"
            + ("t = threading.Thread(target=start); t.start(); t.join()\n" if thread else "start()\n")
            + "sys.stdin.readline()\nwire.backend.stats()\nprint('alive', flush=True)\nsys.stdin.readline()\n"
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdin is not None
        assert owner.stdout is not None
        relay = int(owner.stdout.readline())
        owner.stdin.write("\n")
        owner.stdin.flush()
        # A relay that was tied to a thread would have died with that thread.
        assert owner.stdout.readline() == "alive\n"
        owner.kill()
        owner.wait()
        wait_until(lambda: not running(relay), 5, "the relay ends")  # noqa: B023


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def check_errors_are_one_clear_line() -> None:
    a, b = Node("a"), Node("b")
    EmulatedLink(a, b, intfName1="a-0", intfName2="b-0")
    for parameters, expected, kind in [
        ({"intfName1": "a-0", "intfName2": "b-1"}, "a: cannot make interface a-0: File exists", LinkError),
        ({"intfName1": "a-1", "intfName2": "b-0"}, "b: cannot make interface b-0: File exists", LinkError),
        ({"intfName1": "a" * 16}, "interface name 'aaaaaaaaaaaaaaaa': must have 1 to 15", LinkError),
        ({"profile": "wifi"}, "preset 'wifi': no such preset; there are wlan", ProfileError),
        ({"profile": {"delay": 5}}, "delay: no such field; a profile has rate_mbit", ProfileError),
    ]:
        with pytest.raises(kind) as caught:
            EmulatedLink(a, b, **parameters)  # type: ignore[arg-type]
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    # A failed link leaves no interface behind.
    assert "a-1" not in a.cmd("ip -o link")
    link = EmulatedLink(a, b, intfName1="a-9", intfName2="b-9")
    with pytest.raises(LinkError, match="direction 'up': must be one of forward, back, both"):
        link.set_blackhole(True, "up")
    with pytest.raises(LinkError, match="end 3: must be 1, 2 or None"):
        link.set_carrier(True, 3)
    os.environ["ROAMLAB_LINKS"] = "fast"
    with pytest.raises(LinkError, match="ROAMLAB_LINKS = 'fast': must be netem or userspace"):
        Wire()


def check_calibration_finds_what_is_wrong() -> None:
    profile = LinkProfile(rate_mbit=10, delay_ms=5, loss=0.01)
    with bench(with_room(profile), 1) as test:
        (good,) = measure_loss(test, "forward", profile, 10_000, 4_000)
        (bad,) = measure_loss(test, "back", dataclasses.replace(profile, loss=0.03), 10_000, 4_000)
    assert good["ok"]
    assert not bad["ok"]
    certain = dataclasses.replace(profile, loss=0.0)
    with bench(certain, 1) as test:
        (queue,) = measure_queue(test, "forward", certain)
        (larger,) = measure_queue(test, "forward", dataclasses.replace(certain, queue_packets=40))
        p50, _ = measure_delay(test, "back", dataclasses.replace(certain, delay_ms=2), 500, 0.5)
        (goodput,) = measure_goodput(test, "back", dataclasses.replace(certain, rate_mbit=11), 1, 1)
    assert abs(queue["error"]) <= 5
    assert larger["measured"] == pytest.approx(queue["measured"], abs=5)
    assert p50["measured"] > 4900
    assert not p50["ok"]
    assert 0.5 < goodput["measured"] < 9.7
    assert not goodput["ok"]
    assert goodput["unit"] == "Mbit/s"
    assert goodput["error"] == pytest.approx(goodput["measured"] - goodput["asked"])
    assert goodput["target"] == pytest.approx(0.01 * goodput["asked"])
    for row in (good, bad, queue, larger, p50, goodput):
        assert row["ok"] == (abs(row["error"]) <= row["target"]), row


def check_tc_moves_frames_where_netem_is_missing() -> None:
    """All of the netem backend but the discipline itself: a plain queue takes its place."""
    netem.limiter = lambda _profile: "pfifo limit 100"
    netem.delay_line = lambda _profile: "pfifo limit 100"
    os.environ["ROAMLAB_LINKS"] = "netem"
    netem.probe = lambda: None
    exercise_events()
    assert wire().stats()["backend"] == "netem"


def check_netem() -> None:
    """The same events, and the profile, where the kernel has netem."""
    os.environ["ROAMLAB_LINKS"] = "netem"
    missing = netem.probe()
    if missing is not None:
        print(f"no netem here: {missing}")
        raise SystemExit(UNSUPPORTED)
    exercise_events()
    pair = Pair(profile=LinkProfile(rate_mbit=1, delay_ms=30, queue_packets=10), names=("c", "d"))
    assert min(pair.ping()) >= 60
    receiver, sender = pair.udp(pair.b), pair.udp(pair.a, "10.0.0.2")
    for number in range(60):
        sender.send(datagram(number, 1472))
    came = collect(receiver)
    assert came[:11] == list(range(11))
    assert len(came) < 30
    assert pair.link.stats()["forward"]["dropped_queue"] == 60 - len(came)
    pair.link.set_profile(LinkProfile(delay_ms=20, jitter_ms=20))
    assert transfer(sender, receiver, 500) == list(range(500))
    pair.link.set_profile(LinkProfile(delay_ms=1, loss=0.2))
    assert 680 < len(transfer(sender, receiver, 1000)) < 920
    pair.link.set_profile(LinkProfile(delay_ms=1, burst=GilbertElliott(p=0.05, r=0.2)))
    assert 500 < len(transfer(sender, receiver, 1000)) < 980


def exercise_events() -> None:
    """Every event of a link, on whichever backend."""
    pair = Pair(profile=LinkProfile(delay_ms=5))
    statistics_start_anew(pair)
    assert len(pair.ping()) == 3
    pair.link.set_carrier(False, 1)
    assert "NO-CARRIER" in pair.flags(pair.a, "a-0")
    assert not pair.ping(1)
    pair.link.set_carrier(True)
    assert len(pair.ping()) == 3
    for direction in ("forward", "back", "both"):
        pair.link.set_blackhole(True, direction)
        assert not pair.ping(1)
        pair.link.set_blackhole(False, direction)
        assert len(pair.ping()) == 3
    second = wire().add_port(pair.b, "b-1")
    pair.link.attach(second)
    assert not pair.ping(1)
    ring = capture(pair.b, "b-1")
    pair.ping(1)
    assert ring.read_all()
    pair.link.attach(pair.link.port2)
    assert len(pair.ping()) == 3
    pair.link.set_present(False)
    pair.link.set_present(True)
    pair.address(pair.a, pair.link.port1.name, "10.0.0.1", "10.0.0.2", pair.link.port2)
    assert len(pair.ping()) == 3
    pair.link.set_profile("wlan")
    assert len(pair.ping()) == 3
    stats = pair.link.stats()
    assert stats["forward"]["delivered"] >= 20
    other = EmulatedLink(quiet_node("e"), pair.b, intfName1="e-0", intfName2="b-2")
    other.attach(pair.link.port2)
    assert not pair.ping(1)
    other.delete()
    pair.link.attach(pair.link.port2)
    assert len(pair.ping()) == 3
    pair.link.delete()


def check_topology() -> None:
    """As `mn --custom` uses it: a Topo whose links name their class and a preset."""

    class Line(Topo):
        def build(self) -> None:
            for name in ("h1", "h2"):
                self.addHost(name)
            self.addLink("h1", "h2", cls=EmulatedLink, profile="wlan", profile_back={"preset": "wlan", "loss": 0.0})

    net = Mininet(topo=Line(), controller=None)
    net.start()
    assert net.pingAll() == 0.0
    assert net.links[0].describe() == "20 Mbit/s 15 ms"
    assert "h1-eth0" in net["h1"].cmd("ip -o link")
    net.stop()
    with inside(wire().namespace), IPRoute() as netlink:
        assert [link.get("ifname") for link in netlink.get_links()] == ["lo"]


# ---- run the checks

CHECKS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): value for name, value in list(globals().items()) if name.startswith("check_")
}
UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
AS_USER = ["unshare", "--user", "--map-root-user", *UNSHARE[1:]]


def command(who: str) -> list[str]:
    if os.geteuid() != 0:
        return AS_USER
    if who == "root":
        return UNSHARE
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *AS_USER]


WHO = ["root", "user"] if os.geteuid() == 0 else ["user"]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", CHECKS)
def test_links(name: str, who: str) -> None:
    for program in ("unshare", "mnexec", "setpriv"):
        assert shutil.which(program), f"{program} is missing: run tools/setup.sh"
    environment = {key: value for key, value in os.environ.items() if key != "ROAMLAB_LINKS"}
    environment["ROAMLAB_LINKS"] = "userspace"
    environment["HOME"] = "/"
    done = subprocess.run(
        [*command(who), sys.executable, "-B", "-m", "tests.emulation.test_links", name],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == UNSUPPORTED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
