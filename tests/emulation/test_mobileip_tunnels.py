"""Tunnels of Mobile IPv4 on real kernels: IP in IP, GRE and UDP, with both kinds of inner interface, and the kernel's own."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from agents.core.mobileip.actions import Encapsulation, Tunnel
from agents.kernel.mobileip.netlink import MobileNetlink
from agents.kernel.mobileip.tunnels import inner
from agents.kernel.mobileip.tunnels.manager import OVERHEAD, Tunnels
from agents.wire.mobileip.values import REGISTRATION_PORT
from tests.emulation.mobileip_lab import CORRESPONDENT, HOME_AGENT, TCP_PORT, Lab, care_of, lab, ping, transfer
from tests.emulation.test_topologies import run_check
from topologies.links.netns import inside
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
INSIDE = {"mn": "192.168.7.1", "cn": "192.168.7.2"}
"""Inner addresses of the two ends of a tunnel that no agent has made."""


class Ends:
    """Both ends of a tunnel between mn (path 0) and cn, with an inner address each."""

    def __init__(self, net: Lab, encapsulation: Encapsulation, stack: ExitStack) -> None:
        self.net, self.problems = net, []  # type: ignore[var-annotated]
        self.outer = {"mn": (care_of(0), CORRESPONDENT, "mn-p0"), "cn": (CORRESPONDENT, care_of(0), "cn-0")}
        self.tunnels: dict[str, Tunnels] = {}
        self.tunnel: dict[str, Tunnel] = {}
        for node, (local, remote, interface) in self.outer.items():
            port = REGISTRATION_PORT if encapsulation is Encapsulation.UDP else 0
            tunnel = self.tunnel[node] = Tunnel(local, remote, encapsulation, port, interface)
            with inside(net.nodes[node]):
                netlink = MobileNetlink()
                made = self.tunnels[node] = Tunnels(
                    netlink, lambda *_: None, lambda kind, fields: self.problems.append((kind, fields)), backend="userspace"
                )
                stack.callback(self.end, node)
                device = made.open(tunnel).device
                assert made.open(tunnel).device == device, "opening again changes nothing"
            other = INSIDE["cn" if node == "mn" else "mn"]
            net.command(node, "ip", "address", "add", f"{INSIDE[node]}/32", "dev", device)
            net.command(node, "ip", "route", "add", other, "dev", device, "src", INSIDE[node])

    def end(self, node: str) -> None:
        with inside(self.net.nodes[node]):
            self.tunnels[node].shut_down()

    def row(self, node: str) -> dict[str, Any]:
        return self.tunnels[node].status()[0]


@contextmanager
def captured(net: Lab, node: str, interface: str) -> Iterator[list[bytes]]:
    """IPv4 packets on an interface during the block, in and out."""
    frames: list[bytes] = []
    with inside(net.nodes[node]):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    sock.bind((interface, 0x0003))
    sock.settimeout(0.1)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                data, address = sock.recvfrom(0x10000)
            except TimeoutError:
                continue
            if address[1] == 0x0800:
                frames.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield frames
    finally:
        stop.set()
        reader.join()
        sock.close()


def refuse_tun(*_values: object, **_options: object) -> int:
    raise PermissionError(13, "/dev/net/tun: Permission denied")


def check_tunnel(word: str, inside_by: str) -> None:
    """Ping, TCP, what is copied to the outer header, sizes, path MTU, strangers, and that nothing is left."""
    encapsulation = Encapsulation(word)
    if inside_by == "pair":
        inner.open_tun = refuse_tun  # type: ignore[assignment]
    with lab(1) as net, ExitStack() as stack:
        ends = Ends(net, encapsulation, stack)
        assert ("mip1x" in net.command("mn", "ip", "link")) is (inside_by == "pair")
        mtu = 1500 - OVERHEAD[encapsulation]
        with captured(net, "gw", "gw-p0") as frames:
            assert ping(net, "mn", INSIDE["cn"])
            assert ping(net, "mn", INSIDE["cn"], "-M", "do", "-s", str(mtu - 28), "-Q", "0xb8"), "largest packet, with DF"
            assert not ping(net, "mn", INSIDE["cn"], "-M", "do", "-s", str(mtu - 27)), "larger than the tunnel"
            assert ping(net, "mn", INSIDE["cn"], "-M", "dont", "-s", "3000"), "cut in front of the tunnel"
            wait_until(lambda: len([frame for frame in frames if len(frame) > 600]) >= 6, 5.0, "the frames are seen")
        protocol = {Encapsulation.IP_IN_IP: 4, Encapsulation.GRE: 47, Encapsulation.UDP: 17}[encapsulation]
        at = OVERHEAD[encapsulation]
        assert {frame[9] for frame in frames} == {protocol}, "only tunnelled packets: no ICMP protocol unreachable"
        assert max(len(frame) for frame in frames) <= 1500
        for frame in frames:
            assert frame[1] == frame[at + 1], "TOS is copied"
            assert frame[6] & 0x40 == frame[at + 6] & 0x40, "DF is copied"
            assert frame[6] & 0x20 == 0, "the outer packet is no fragment"
        assert {frame[1] for frame in frames} == {0, 0xB8}
        assert {frame[6] & 0x40 for frame in frames} == {0, 0x40}

        for client, server in (("mn", "cn"), ("cn", "mn")):
            transfer(net, client, server, INSIDE[server], 4_000_000)
        assert ends.row("mn")["dropped"] == ends.row("cn")["dropped"] == {}

        # A smaller link behind the router: the tunnel learns it and TCP goes on.
        net.command("gw", "ip", "link", "set", "gw-cn", "mtu", "1300")
        transfer(net, "mn", "cn", INSIDE["cn"], 1_000_000, port=TCP_PORT + 1)
        assert ends.row("mn")["mtu"] == 1300 - OVERHEAD[encapsulation]
        assert ends.row("mn")["icmp_relayed"] >= 1
        net.command("gw", "ip", "link", "set", "gw-cn", "mtu", "1500")

        if encapsulation is not Encapsulation.UDP:
            check_stranger(net, ends, protocol)
        for node in ("mn", "cn"):
            with inside(net.nodes[node]):
                ends.tunnels[node].close(ends.tunnel[node])
                ends.tunnels[node].close(ends.tunnel[node])
            assert "mip" not in net.command(node, "ip", "link")


def check_stranger(net: Lab, ends: Ends, protocol: int) -> None:
    """A well-formed packet from an address that is no tunnel's end."""
    counts: list[int] = []

    def calm() -> bool:  # the connections before it have said their last word
        counts.append(ends.row("cn")["received_packets"])
        return len(counts) > 5 and counts[-1] == counts[-6]

    wait_until(calm, 10.0, "no more packets", 0.1)
    before = counts[-1]
    packet = (
        b"\x45\0\0\x1c"
        + bytes(4)
        + b"\x40\x11\0\0"
        + socket.inet_aton(INSIDE["mn"])
        + socket.inet_aton(INSIDE["cn"])
        + bytes(8)
    )
    with inside(net.nodes["ha"]), socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
        sock.sendto((b"\0\0\x08\0" if protocol == 47 else b"") + packet, (CORRESPONDENT, 0))
    wait_until(lambda: ends.tunnels["cn"].strangers, 5.0, "the stranger is counted")
    assert ends.tunnels["cn"].strangers == {HOME_AGENT: 1}
    assert ends.row("cn")["received_packets"] == before


def check_kernel_backend() -> None:
    """What a kernel without ipip says; one with it carries packets."""
    with lab(1) as net, inside(net.nodes["mn"]):
        tunnels = Tunnels(MobileNetlink(), lambda *_: None, lambda *_: None, backend="kernel")
        tunnel = Tunnel(care_of(0), CORRESPONDENT, Encapsulation.IP_IN_IP, 0, "mn-p0")
        try:
            reason = tunnels.kernel_reason(Encapsulation.IP_IN_IP)
            if reason:
                with pytest.raises(OSError, match=r"kernel ipip tunnels: .*write tunnels"):
                    tunnels.open(tunnel)
                print(f"unsupported: kernel ipip tunnels: {reason}")
            else:
                assert tunnels.open(tunnel).backend == "kernel"
        finally:
            tunnels.shut_down()


@pytest.mark.parametrize(
    ("encapsulation", "inside_by"), [("ipip", "tun"), ("gre", "tun"), ("udp", "tun"), ("ipip", "pair"), ("udp", "pair")]
)
def test_tunnel(encapsulation: str, inside_by: str) -> None:
    run_check(__name__, "tunnel", encapsulation, inside_by)


def test_kernel_backend() -> None:
    run_check(__name__, "kernel_backend")


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
