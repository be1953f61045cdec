"""A mobile host behind the proxy, a router and servers in fresh namespaces: the proxy together with the kernel's MPTCP.

`mn` has a path `p0`, `p1`, ... to the router `gw`, each with IPv4 and IPv6; `cn` (and further servers) sit behind it with
two addresses of each family. A path is either a wire whose frames go through Python (rate, delay, middleboxes), or a veth pair.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.emulation.agent_process import Agent
from tests.pcaps import applications as app
from tests.pcaps.wires import Path as Wire
from tests.pcaps.wires import Wires, packet_socket
from topologies.links.interfaces import add_pair, disable_offloads
from topologies.links.netns import inside, new_namespace

READY_S = 30.0
NEVER = 1 << 40


def run(*words: str) -> str:
    """Output of a program. Raises RuntimeError with what it said on its error output."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def mobile(family: int, path: int) -> str:
    """The mobile host's address on a path."""
    return f"10.{path + 1}.0.100" if family == 4 else f"2001:db8:{path + 1}::100"


def server(family: int, second: bool = False, number: int = 0) -> str:
    """An address of a server."""
    return f"10.{64 + number}.0.{2 + second}" if family == 4 else f"2001:db8:{64 + number}::{2 + second}"


class ProxyAgent(Agent):
    """The role `proxy` on a node, as a process."""

    ready_s: ClassVar[float] = 30.0

    def __init__(self, lab: Lab, node: str, config: Mapping[str, Any]) -> None:
        super().__init__(lab, node, "proxy", config)

    def connections(self) -> list[dict[str, Any]]:
        """As the agent tells them."""
        found: list[dict[str, Any]] = self.ask("connections")["connections"]
        return found

    def counter(self, name: str) -> int:
        """One of the core's counters."""
        return int(self.ask("status")["proxy"]["counters"][name])

    def resident_bytes(self) -> int:
        """Resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@dataclass
class Lab:
    """Namespaces, paths and agents; everything is gone after the block of `running`."""

    folder: Path
    paths: int = 2
    wired: bool = True
    servers: tuple[str, ...] = ("cn",)
    rate_mbit: float = 40.0
    delay_ms: float = 3.0
    queue_packets: int = 60
    nodes: dict[str, int] = field(default_factory=dict)
    wires: Wires = field(default_factory=Wires)
    agents: list[ProxyAgent] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Lab]:
        """Build the network and carry frames during the block."""
        with ExitStack() as stack:
            for node in ("mn", "gw", *self.servers, *(("box",) if self.wired else ())):
                self.nodes[node] = new_namespace()
                stack.callback(os.close, self.nodes[node])
                if node != "box":
                    self._prepare(node)
            for number in range(self.paths):
                self._build_path(number)
            for number, node in enumerate(self.servers):
                self._build_server(number, node)
            if self.wired:
                self.wires.start()
                stack.callback(self.wires.stop)
            stack.callback(self._end_agents)
            yield self

    def _end_agents(self) -> None:
        for agent in self.agents:
            if agent.process.poll() is None:
                agent.process.kill()
                agent.process.communicate()

    def command(self, node: str, *words: str) -> str:
        """Run a program in a node."""
        with inside(self.nodes[node]):
            return run(*words)

    def sysctl(self, node: str, name: str, value: int | str) -> None:
        """Set a parameter below /proc/sys/net, its parts separated by `/`."""
        with inside(self.nodes[node]):
            Path("/proc/sys/net", name).write_text(str(value))

    def agent(self, node: str, config: Mapping[str, Any]) -> ProxyAgent:
        """Start the proxy on a node."""
        self.agents.append(ProxyAgent(self, node, config))
        return self.agents[-1]

    def wire(self, path: int) -> Wire:
        """The wire of a path."""
        return self.wires.paths[f"p{path}"]

    def counters(self, node: str, group: str = "MPTcpExt") -> dict[str, int]:
        """Counters of a node's kernel (/proc/net/netstat)."""
        with inside(self.nodes[node]):
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            if names.startswith(f"{group}:"):
                return dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
        return {}

    def limits(self, node: str, subflows: int = 8, accepted: int = 8) -> None:
        """How many subflows the kernel of a node opens and takes."""
        self.command(node, "ip", "mptcp", "limits", "set", "subflows", str(subflows), "add_addr_accepted", str(accepted))

    def _prepare(self, node: str) -> None:
        for name, value in {"all/disable_ipv6": 0, "default/disable_ipv6": 0, "default/accept_ra": 0,
                            "default/router_solicitations": 0}.items():  # fmt: skip
            self.sysctl(node, f"ipv6/conf/{name}", value)
        if node == "gw":
            self.sysctl(node, "ipv4/ip_forward", 1)
            self.sysctl(node, "ipv6/conf/all/forwarding", 1)
        self.command(node, "ip", "link", "set", "lo", "up")

    def _pair(self, node: str, name: str, other: str, other_name: str) -> None:
        """A veth pair with all offloads of veth."""
        with inside(self.nodes[node]):
            run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", other_name,
                "netns", f"/proc/{os.getpid()}/fd/{self.nodes[other]}")  # fmt: skip
        for where, what in ((node, name), (other, other_name)):
            self.command(where, "ip", "link", "set", what, "up")

    def _build_path(self, number: int) -> None:
        name = f"p{number}"
        if self.wired:
            box = self.nodes["box"]
            add_pair(box, f"bm-{name}", self.nodes["mn"], f"mn-{name}", None)
            add_pair(box, f"bg-{name}", self.nodes["gw"], f"gw-{name}", None)
            with inside(box):
                sockets = packet_socket(f"bm-{name}"), packet_socket(f"bg-{name}")
            self.wires.paths[name] = Wire(name, sockets, self.rate_mbit, self.delay_ms, self.queue_packets)
        else:
            self._pair("mn", f"mn-{name}", "gw", f"gw-{name}")
        for family, length in ((4, 24), (6, 64)):
            own = mobile(family, number)
            hop = own.removesuffix("100") + "1"
            self._address("mn", f"mn-{name}", own, length)
            self._address("gw", f"gw-{name}", hop, length)
            version, table = f"-{family}", str(100 + number)
            self.command("mn", "ip", version, "route", "add", "default", "via", hop, "metric", table)
            self.command("mn", "ip", version, "route", "add", "default", "via", hop, "table", table)
            self.command("mn", "ip", version, "rule", "add", "from", own, "lookup", table)

    def _build_server(self, number: int, node: str) -> None:
        self._pair(node, f"{node}-0", "gw", f"gw-{node}")
        if self.wired:
            for where, what in ((node, f"{node}-0"), ("gw", f"gw-{node}")):
                with inside(self.nodes[where]):
                    disable_offloads(what)
        for family, length in ((4, 24), (6, 64)):
            hop = server(family, number=number).removesuffix("2") + "1"
            self._address("gw", f"gw-{node}", hop, length)
            for second in (False, True):
                self._address(node, f"{node}-0", server(family, second, number), length)
            self.command(node, "ip", f"-{family}", "route", "add", "default", "via", hop)

    def _address(self, node: str, device: str, address: str, length: int) -> None:
        self.command(node, "ip", "address", "add", f"{address}/{length}", "dev", device, "nodad")


def is_prefix(receiver: app.Side, sender: app.Side) -> bool:
    """Is what one side has received the beginning of what the other sends?"""
    total = hashlib.sha256()
    for begin in range(0, receiver.received, 1 << 20):
        total.update(app.pattern(begin, min(1 << 20, receiver.received - begin), sender.mark))
    return receiver.received <= sender.sent and total.digest() == receiver.received_hash.digest()


def opened(
    lab: Lab,
    client: str,
    servant: str,
    target: str,
    *,
    port: int,
    mptcp: Sequence[bool],
    source: str = "",
    dual: bool = False,
) -> app.Pair:
    """A connection from one node to another; `mptcp`: whether client and server open MPTCP sockets.

    `dual`: the listener takes both families, and so do joins.
    """
    kinds = [app.IPPROTO_MPTCP if each else socket.IPPROTO_TCP for each in mptcp]
    with inside(lab.nodes[servant]):
        wide = dual or ":" in target
        listener = socket.socket(socket.AF_INET6 if wide else socket.AF_INET, socket.SOCK_STREAM, kinds[1])
        if wide:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if wide else "0.0.0.0", port))
        listener.listen()
        listener.settimeout(READY_S)
    with inside(lab.nodes[client]):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, kinds[0])
        if source:
            sock.bind((source, 0))
        sock.settimeout(READY_S)
        sock.connect((target, port))
    accepted, _ = listener.accept()
    return app.Pair(app.Side("client", sock, b"c", mptcp[0]), app.Side("server", accepted, b"s", mptcp[1]), listener)
