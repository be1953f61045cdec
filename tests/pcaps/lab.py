"""A mobile node and a server joined by wires: fresh namespaces for one capture, made and removed in some 0.1 s.

Addresses: the mobile node has host 100 in one network per path, the server one address (and a second one) behind all paths.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.pcaps.wires import Path as Wire
from tests.pcaps.wires import Wires, packet_socket
from topologies.links.interfaces import add_pair, disable_offloads, set_up, wait_carrier
from topologies.links.netns import inside, new_namespace
from topologies.waiting import wait_until

UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
INSIDE = "ROAMLAB_CAPTURE_LAB"
PATHS = ("wlan", "lte")
SERVER = {4: "10.64.0.1", 6: "2001:db8:64::1"}
SERVER2 = {4: "10.65.0.1", 6: "2001:db8:65::1"}
LENGTH = {4: 32, 6: 128}
MARKER_PORT = 9
CAPTURE_FILTER = f"tcp or udp port {MARKER_PORT}"


def enter_capsule() -> None:
    """Run this program again in namespaces of its own, which end with it. Returns inside; does not return outside."""
    if os.environ.get(INSIDE):
        return
    unshare = UNSHARE if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", *UNSHARE[1:]]
    module = sys.modules["__main__"].__spec__
    program = ["-m", module.name] if module else [sys.argv[0]]
    os.environ[INSIDE] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, *program, *sys.argv[1:]])


def run(*words: str) -> str:
    """Output of a program. Raises CalledProcessError with what it said on its error output."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def mobile_address(family: int, path: str) -> str:
    """The mobile node's address on a path."""
    index = PATHS.index(path) + 1
    return f"10.{index}.0.100" if family == 4 else f"2001:db8:{index}::100"


def gateway(family: int, path: str) -> str:
    """The next hop of the mobile node on a path: the server itself, or the NAT before it."""
    index = PATHS.index(path) + 1
    return f"10.{index}.0.1" if family == 4 else f"2001:db8:{index}::1"


def translated_address(family: int, path: str) -> str:
    """The address behind which a NAT on that path hides the mobile node."""
    index = PATHS.index(path) + 11
    return f"10.{index}.0.100" if family == 4 else f"2001:db8:{index}::100"


def _prefix(address: str) -> str:
    return f"{address}/24" if "." in address else f"{address}/64"


@dataclass
class Lab:
    """Namespaces `mn`, `cn`, `box` (and `nat`), the wires between them, the captures that run."""

    family: int
    nat: tuple[str, ...] = ()
    rate_mbit: float = 8.0
    delay_ms: float = 10.0
    queue_packets: int = 25
    nodes: dict[str, int] = field(default_factory=dict)
    wires: Wires = field(default_factory=Wires)

    @contextmanager
    def running(self) -> Iterator[Lab]:
        """Build, carry frames for the length of the block, take everything away."""
        with ExitStack() as stack:
            for node in ("mn", "cn", "box", *(("nat",) if self.nat else ())):
                self.nodes[node] = new_namespace()
                stack.callback(os.close, self.nodes[node])
            self._configure_nodes()
            for path in PATHS:
                self._build_path(path)
            self._configure_routes()
            self.wires.start()
            stack.callback(self.wires.stop)
            yield self

    def command(self, node: str, *words: str) -> str:
        """Run a program in a node."""
        with inside(self.nodes[node]):
            return run(*words)

    def sysctl(self, node: str, **values: int | str) -> None:
        """Set kernel parameters below /proc/sys/net of a node; `__` stands for `/`."""
        with inside(self.nodes[node]):
            for name, value in values.items():
                Path("/proc/sys/net", *name.split("__")).write_text(str(value))

    def wire(self, path: str) -> Wire:
        return self.wires.paths[path]

    def carrier(self, path: str, up: bool) -> None:
        """Give or take the carrier of the mobile node's interface on a path."""
        with inside(self.nodes["box"]):
            set_up(f"bm-{path}", up, noarp=True)
        wait_carrier(self.nodes["mn"], f"mn-{path}", up)

    def counters(self, node: str) -> dict[str, int]:
        """The MPTCP counters of a node that are not 0."""
        with inside(self.nodes[node]):
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        found = {}
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            if names.startswith("MPTcpExt:"):
                pairs = zip(names.split()[1:], map(int, values.split()[1:]), strict=True)
                found = {name: value for name, value in pairs if value and not name.endswith(("CurrEstab", "WndShared"))}
        return found

    def open_sockets(self, node: str) -> list[str]:
        """TCP sockets of a node that still talk."""
        return self.command(node, "ss", "-Htan", "exclude", "time-wait", "exclude", "listening").splitlines()

    def _configure_nodes(self) -> None:
        for node in self.nodes:
            if node == "box":
                continue
            self.sysctl(node, ipv6__conf__all__disable_ipv6=0, ipv6__conf__default__disable_ipv6=0)
            # Router solicitations and the like would be noise in the captures.
            self.sysctl(node, ipv6__conf__default__accept_ra=0, ipv6__conf__default__router_solicitations=0)
            self.command(node, "ip", "link", "set", "lo", "up")
        if self.nat:
            self.sysctl("nat", ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)

    def _build_path(self, path: str) -> None:
        nodes, box = self.nodes, self.nodes["box"]
        outer = f"bc-{path}"
        add_pair(box, f"bm-{path}", nodes["mn"], f"mn-{path}", None)
        if path in self.nat:  # mobile node - wire - NAT - server
            add_pair(box, outer, nodes["nat"], f"nm-{path}", None)
            add_pair(nodes["nat"], f"nc-{path}", nodes["cn"], f"cn-{path}", None)
            with inside(nodes["nat"]):
                disable_offloads(f"nc-{path}")
                run("ip", "link", "set", f"nc-{path}", "arp", "on")
        else:
            add_pair(box, outer, nodes["cn"], f"cn-{path}", None)
        with inside(box):
            sockets = packet_socket(f"bm-{path}"), packet_socket(outer)
        self.wires.paths[path] = Wire(path, sockets, self.rate_mbit, self.delay_ms, self.queue_packets)

    def _address(self, node: str, device: str, address: str) -> None:
        self.command(node, "ip", "address", "add", _prefix(address), "dev", device, "nodad")

    def _configure_routes(self) -> None:
        version = f"-{self.family}"
        servers = [f"{text}/{LENGTH[self.family]}" for text in (SERVER[self.family], SERVER2[self.family])]
        for server in servers:
            self.command("cn", "ip", "address", "add", server, "dev", "lo")
        for number, path in enumerate(PATHS, 1):
            mobile, hop = mobile_address(self.family, path), gateway(self.family, path)
            self._address("mn", f"mn-{path}", mobile)
            if path in self.nat:
                hidden = translated_address(self.family, path)
                beyond = hidden.removesuffix("100") + "1"
                self._address("nat", f"nm-{path}", hop)
                self._address("nat", f"nc-{path}", hidden)
                self._address("cn", f"cn-{path}", beyond)
                self.command("nat", "ip", version, "rule", "add", "iif", f"nm-{path}", "lookup", str(200 + number))
                for server in servers:
                    self.command("nat", "ip", version, "route", "add", server, "via", beyond, "table", str(200 + number))
                family = "ip" if self.family == 4 else "ip6"
                self.command("nat", "nft", f"table {family} n {{ chain post {{ type nat hook postrouting priority 100; "
                             f"oifname nc-{path} masquerade random; }}; }}")  # fmt: skip
            else:
                self._address("cn", f"cn-{path}", hop)
            table = str(100 + number)
            for server in servers:
                self.command("mn", "ip", version, "route", "add", server, "via", hop, "table", table)
                self.command("mn", "ip", version, "route", "add", server, "via", hop, "metric", table)
            # A server that joins by itself does so from its address on the link.
            self.command("mn", "ip", version, "route", "add", hop, "dev", f"mn-{path}", "table", table)
            self.command("mn", "ip", version, "route", "add", "unreachable", "default", "table", table, "metric", "4000")
            self.command("mn", "ip", version, "rule", "add", "from", mobile, "lookup", table)
        # A packet in the capture is one on the wire: nothing is segmented after the capture point.
        for node, letter in (("mn", "m"), ("cn", "c")):
            for path in PATHS:
                self.command(node, "ip", "link", "set", f"{letter}n-{path}", "gso_max_segs", "1")


class Recording:
    """dumpcap on interfaces of one node, one pcapng file. It has every packet from its construction to `stop`."""

    def __init__(self, lab: Lab, node: str, interfaces: list[str], out: Path, snaplen: int, kept: str) -> None:
        self.lab, self.node, self.interfaces, self.out = lab, node, interfaces, out
        self.dropped: int | None = None
        # Before the first -i these hold for every interface.
        # By default dumpcap queues no more than 1000 packets between its threads and loses the others.
        words = ["-B", "64", "-N", "1000000", "-C", "500000000", "-f", kept, *(["-s", str(snaplen)] if snaplen else [])]
        words += [word for name in interfaces for word in ("-i", name)]
        with inside(lab.nodes[node]):
            self.process = subprocess.Popen(["dumpcap", "-q", *words, "-w", str(out)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if line.startswith("File:"):
                return
        raise RuntimeError(f"dumpcap on {node} ended at once")

    def stop(self) -> None:
        """End after a packet of our own is in the file: dumpcap drops what it has not yet fetched from the kernel."""
        marks = {name: f"end of the capture on {name}".encode() for name in self.interfaces}
        for name, mark in marks.items():
            self._send_mark(name, mark)
        wait_until(lambda: all(mark in self.out.read_bytes() for mark in marks.values()), 10, "last packets in the capture")
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr
        said = self.process.stderr.read()
        self.process.wait()
        losses = re.findall(r"received/dropped on interface.*?: \d+/(\d+)", said)
        self.dropped = sum(map(int, losses))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _send_mark(self, interface: str, mark: bytes) -> None:
        path = interface.split("-")[1]
        target = gateway(self.lab.family, path)
        if self.node != "mn":
            target = mobile_address(self.lab.family, path)
            if path in self.lab.nat:
                target = translated_address(self.lab.family, path)
        kind = socket.AF_INET if self.lab.family == 4 else socket.AF_INET6
        with inside(self.lab.nodes[self.node]), socket.socket(kind, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sender.sendto(mark, (target, MARKER_PORT))


def save_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
