"""Mobile node, home agent and correspondent in fresh namespaces, with the roles of Mobile IPv4 as processes.

`mn` has a path `mn-p0`, `mn-p1`, ... (10.1.0.0/24, 10.2.0.0/24, ...) to the router `gw`. `ha` is on the home link 10.33.0.0/24
behind the same router, and so is `cn` on 10.65.0.0/24. Addresses and rules of the mobile node are static here.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.emulation.agent_process import Agent
from tests.emulation.proxy_lab import is_prefix, opened, run
from topologies.links.interfaces import disable_offloads
from topologies.links.netns import inside, new_namespace
from topologies.waiting import wait_until

HOME_ADDRESS, HOME_NETWORK, HOME_AGENT, HOME_ROUTER = "10.33.0.100", "10.33.0.0/24", "10.33.0.2", "10.33.0.1"
CORRESPONDENT = "10.65.0.2"
KEY = "00112233445566778899aabbccddeeff"
SPI = 256
TCP_PORT = 5001


def care_of(path: int) -> str:
    """The mobile node's address on a path."""
    return f"10.{path + 1}.0.100"


@dataclass
class Lab:
    """Namespaces and agents; everything is gone after the block of `running`."""

    folder: Path
    paths: int = 2
    nodes: dict[str, int] = field(default_factory=dict)
    agents: list[Agent] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Lab]:
        """Build the network."""
        with ExitStack() as stack:
            for node in ("mn", "gw", "ha", "cn"):
                self.nodes[node] = new_namespace()
                stack.callback(os.close, self.nodes[node])
                self.command(node, "ip", "link", "set", "lo", "up")
                for name in ("all", "default"):
                    self.sysctl(node, f"ipv4/conf/{name}/rp_filter", 0)
            self.sysctl("gw", "ipv4/ip_forward", 1)
            for path in range(self.paths):
                self._path(path)
            self._stub("ha", HOME_AGENT, HOME_ROUTER)
            self._stub("cn", CORRESPONDENT, "10.65.0.1")
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

    def sysctl(self, node: str, name: str, value: int) -> None:
        """Set a parameter below /proc/sys/net."""
        with inside(self.nodes[node]):
            Path("/proc/sys/net", name).write_text(str(value))

    def _path(self, number: int) -> None:
        near, far, own = f"mn-p{number}", f"gw-p{number}", care_of(number)
        hop = own.removesuffix("100") + "1"
        self.pair("mn", near, own, "gw", far, hop)
        table = str(100 + number)
        self.command("mn", "ip", "route", "add", "default", "via", hop, "metric", table)
        self.command("mn", "ip", "route", "add", "default", "via", hop, "table", table)
        self.command("mn", "ip", "rule", "add", "priority", "1000", "from", own, "lookup", table)

    def _stub(self, node: str, own: str, hop: str) -> None:
        self.pair(node, f"{node}-0", own, "gw", f"gw-{node}", hop)
        self.command(node, "ip", "route", "add", "default", "via", hop)

    def pair(self, node: str, name: str, own: str, other: str, other_name: str, hop: str) -> None:
        """A link without offloads: a packet in a capture is one on a wire."""
        with inside(self.nodes[node]):
            peer = f"/proc/{os.getpid()}/fd/{self.nodes[other]}"
            run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", other_name, "netns", peer)
        for where, what, address in ((node, name, own), (other, other_name, hop)):
            with inside(self.nodes[where]):
                disable_offloads(what)
            self.command(where, "ip", "address", "add", f"{address}/24", "dev", what)
            self.command(where, "ip", "link", "set", what, "up")

    # -- agents -------------------------------------------------------------------------------------------------------
    def agent(self, node: str, role: str, config: Mapping[str, Any], program: tuple[str, ...] = ()) -> Agent:
        """Start a role on a node."""
        self.agents.append(Agent(self, node, role, config, program))
        return self.agents[-1]

    def home_agent(self, **fields: Any) -> Agent:
        """The home agent, on the home link."""
        node = {"home_address": HOME_ADDRESS, "spi": SPI, "key": KEY, "multipath": True, **fields.pop("node", {})}
        config = {
            "addresses": [HOME_AGENT], "home_prefix": HOME_NETWORK, "home_interface": "ha-0",
            "state": str(self.folder / "ha.sqlite"), "mobile_node": [node], **fields,
        }  # fmt: skip
        return self.agent("ha", "home-agent", config)

    def mobile_node(self, **fields: Any) -> Agent:
        """The mobile node with all paths."""
        interfaces = [{"name": f"mn-p{path}", "bid": path + 1, "foreign_agent": False, **fields.pop(f"p{path}", {})}
                      for path in range(self.paths)]  # fmt: skip
        config = {
            "home_address": HOME_ADDRESS, "home_network": HOME_NETWORK, "home_agent": HOME_AGENT, "spi": SPI, "key": KEY,
            "interface": interfaces, **fields,
        }  # fmt: skip
        return self.agent("mn", "mobile-node", config)


@contextmanager
def lab(paths: int = 2) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), paths).running() as built:
        yield built


def ping(net: Lab, node: str, target: str, *options: str) -> bool:
    with inside(net.nodes[node]):
        words = ["ping", "-c", "1", "-W", "1", *options, target]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def transfer(net: Lab, client: str, server: str, target: str, amount: int, source: str = "", port: int = TCP_PORT) -> None:
    """So many bytes by TCP, one way, with the right hash."""
    pair = opened(net, client, server, target, port=port, mptcp=(False, False), source=source)  # type: ignore[arg-type]
    go_on(pair, amount)
    close(pair)


def go_on(pair: Any, amount: int) -> None:
    """`amount` more bytes arrive from the client, and they are the right ones."""
    goal = pair.client.sent + amount

    def moved() -> bool:
        while pair.client.sent < goal and pair.client.send(goal - pair.client.sent):
            pass
        while pair.server.receive():
            pass
        return bool(pair.server.received >= goal)

    wait_until(moved, 20.0, f"{amount} bytes arrive", 0.001)
    assert pair.server.received_hash.hexdigest() == pair.client.sent_hash.hexdigest()
    assert is_prefix(pair.server, pair.client)


def close(pair: Any) -> None:
    for sock in (pair.client.socket, pair.server.socket, pair.listener):
        sock.close()
