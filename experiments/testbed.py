"""The network of one run: Mininet's nodes and links, the programs in them, and what the run directory gets from them."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mininet.net import Mininet
from mininet.node import Node

from experiments.errors import RoamlabError
from experiments.processes import NodeProcess
from topologies import registry
from topologies.links.link import EmulatedLink
from topologies.links.wire import wire
from topologies.mobile import Path as AccessPath
from topologies.mobile_host import control_request, to_toml
from topologies.nodes import NodeError
from topologies.profiles import LinkProfile, profile
from topologies.waiting import wait_until

_CONFIGURED_TIMEOUT_S = 30.0
_CONTROL_TIMEOUT_S = 10.0
_STATE = Path("/run/roamlab/state")


class Testbed:
    """Built from a topology name and its parameters; `directory` is the run directory."""

    def __init__(
        self,
        topology: str,
        parameters: Mapping[str, Any],
        directory: Path,
        *,
        seed: int = 1,
        absent: tuple[str, ...] = (),
        silent: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.processes: list[NodeProcess] = []
        self._agents: dict[tuple[str, str], tuple[NodeProcess, Mapping[str, Any]]] = {}
        """(node, role) -> the agent and the configuration it was started with."""
        self._ports: dict[tuple[str, str], Any] = {}
        self.ever_crashed: set[str] = set()
        self.crashed: dict[str, dict[str, Mapping[str, Any]]] = {}
        """Crashed nodes and the agents that they had (see `experiments.crash`)."""
        self._absent, self._silent = absent, silent
        """Interfaces that come later, and those that have no carrier yet."""
        self._share_folders()
        Mininet.inited = True  # Mininet's own init would raise limits and sysctls of the whole host
        self.topo = registry.make(topology, {"seed": seed, **parameters})
        self.net = Mininet(topo=self.topo, controller=None, waitConnected=False)
        self.paths: list[AccessPath] = list(self.topo.paths())
        self.cn_paths: list[AccessPath] = list(self.topo.cn_paths())
        """Of a mobile CN; else empty."""

    def _share_folders(self) -> None:
        """Nodes keep their state in the capsule's /run, and their logs and events in the run directory."""
        _STATE.mkdir(parents=True, exist_ok=True)
        for part in ("events", "logs"):
            (_STATE / part).unlink(missing_ok=True)
            (_STATE / part).symlink_to(self.directory.resolve() / part)
        os.environ["ROAMLAB_STATE_DIR"] = str(_STATE)

    def start(self) -> None:
        """Bring the network up; return when MN and mobile CN have their addresses (but on interfaces that appear later)."""
        for interface in self._absent:
            self.link_of(interface).set_present(False)
        for interface in self._silent:
            self.link_of(interface).set_carrier(False, end=self.end_of(interface))
        self.net.start()
        for host, paths in self.mobile_hosts():
            present = [path.interface for path in paths if path.interface not in (*self._absent, *self._silent)]
            host.wait_configured(_CONFIGURED_TIMEOUT_S, interfaces=present)

    # -- nodes and links ------------------------------------------------------------------------------------------

    @property
    def mn(self) -> Any:
        """The mobile node."""
        return self.node("mn")

    @property
    def cn(self) -> Any:
        """The correspondent node."""
        return self.node("cn")

    def mobile_hosts(self) -> list[tuple[Any, list[AccessPath]]]:
        """The MN, and the CN where it is mobile as well, with their paths."""
        return [(self.mn, self.paths), *([(self.cn, self.cn_paths)] if self.cn_paths else [])]

    def owner_of(self, interface: str) -> Any:
        """The mobile host that has an access interface: the MN, or a mobile CN. Raises RoamlabError."""
        for host, paths in self.mobile_hosts():
            if any(path.interface == interface for path in paths):
                return host
        known = ", ".join(path.interface for _, paths in self.mobile_hosts() for path in paths)
        raise RoamlabError(f"no mobile host has {interface!r}; there are: {known}")

    def node(self, name: str) -> Any:
        """A node by name. Raises RoamlabError that lists the valid names."""
        if name not in self.net:
            raise RoamlabError(f"no node {name!r}; there are: {', '.join(sorted(self.net.keys()))}")
        return self.net[name]

    def link_of(self, interface: str) -> EmulatedLink:
        """The emulated link that ends in `interface`. Raises RoamlabError that lists the valid names."""
        links = {i.name: link for link in self.net.links if isinstance(link, EmulatedLink) for i in (link.intf1, link.intf2)}
        if interface not in links:
            raise RoamlabError(f"no emulated link at {interface!r}; there are: {', '.join(sorted(links))}")
        return links[interface]

    def end_of(self, interface: str) -> int:
        """1 or 2: which end of its link the interface is."""
        return 1 if self.link_of(interface).intf1.name == interface else 2

    def profile_of(self, interface: str, name: str | None) -> LinkProfile:
        """The named profile, or without a name the one that the link of `interface` has now."""
        if name is not None:
            return profile(name)
        return self.link_of(interface).profile or LinkProfile()

    def prepare_attachments(self, moves: tuple[tuple[str, str], ...]) -> None:
        """Make the ports to which interfaces will move, and remember where each interface is now."""
        for interface in {interface for interface, _ in moves}:
            self._ports.setdefault((interface, self._home_point(interface)), self.link_of(interface).port2)
        for interface, point in moves:
            if (interface, point) in self._ports:
                continue
            points = self.topo.attachment_points
            if point not in points:
                raise RoamlabError(f"no attachment point {point!r}; there are: {', '.join(sorted(points))}")
            router = self.node(points[point].router)
            port = wire().add_port(router, points[point].port)
            router.adopt_port(port.name)
            self._ports[interface, point] = port

    def _home_point(self, interface: str) -> str:
        far = self.link_of(interface).port2
        return next((name for name, point in self.topo.attachment_points.items() if point.port == far.name), far.name)

    def attach(self, interface: str, point: str) -> None:
        """Join an interface of a mobile host to a prepared attachment point.

        The bridge there learns its MAC at once, as an access point announces a station that has roamed to it.
        """
        port = self._ports[interface, point]
        self.link_of(interface).attach(port)
        port.learn_station(self.topo.mac(interface))

    def path_of(self, interface: str) -> AccessPath:
        """The path that starts with an interface of the MN, or of a mobile CN."""
        paths = [*self.paths, *self.cn_paths]
        for path in paths:
            if path.interface == interface:
                return path
        raise RoamlabError(f"no path over {interface!r}; there are: {', '.join(p.interface for p in paths)}")

    def run(self, node: Node, argv: list[str], *, check: bool = True) -> str:
        """Run a short command in a node and return its output. Raises RoamlabError with its error text."""
        process = node.popen(argv)
        try:
            out, err = process.communicate(timeout=_CONTROL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RoamlabError(f"{node.name}: {shlex.join(argv)}: no end within {_CONTROL_TIMEOUT_S:g} s") from None
        if check and process.returncode != 0:
            raise RoamlabError(f"{node.name}: {shlex.join(argv)}: {err.decode(errors='replace').strip() or 'failed'}")
        return str(out.decode(errors="replace"))

    def addresses(self, node: Node) -> dict[str, list[str]]:
        """Global addresses per interface, IPv4 before IPv6, as the kernel has them now."""
        found: dict[str, list[str]] = {}
        for entry in json.loads(self.run(node, ["ip", "-j", "address", "show", "scope", "global"]) or "[]"):
            infos = sorted((i for i in entry.get("addr_info", []) if "local" in i), key=lambda info: info["family"])
            usable = [i["local"] for i in infos if not i.get("deprecated") and not i.get("tentative")]
            if usable and entry.get("ifname"):
                found[entry["ifname"]] = usable
        return found

    def address_on(self, interface: str, family: int | None = None) -> str:
        """The MN's first address on an interface, of the run's IP version."""
        wanted = family or self.family
        for address in self.addresses(self.mn).get(interface, []):
            if (":" in address) == (wanted == 6):
                return address
        raise RoamlabError(f"mn has no IPv{wanted} address on {interface}")

    family = 4

    def cn_address(self, family: int) -> str:
        """The CN's first address of an IP version."""
        for addresses in self.addresses(self.cn).values():
            for address in addresses:
                if (":" in address) == (family == 6):
                    return address
        raise RoamlabError(f"cn has no IPv{family} address")

    def cn_announced(self) -> list[str]:
        """The CN's interfaces whose addresses its peer does not know by itself: all but the first; of a mobile CN all."""
        return [path.interface for path in self.cn_paths] or list(self.addresses(self.cn))[1:]

    def listen_address(self, family: int) -> str:
        """Where the CN's program listens: at its first address; a mobile one at all, since each may be joined some day."""
        return {4: "0.0.0.0", 6: "::"}[family] if self.cn_paths else self.cn_address(family)

    def sysctl(self, node: Node, name: str, value: object, *, optional: bool = False) -> None:
        """Set a sysctl of the node's namespace; an `optional` one may be missing in this kernel."""
        self.run(node, ["sysctl", "-q", *(["-e"] if optional else []), "-w", f"{name}={value}"])

    def all_sysctls(self) -> dict[str, str]:
        """The sysctls of the end hosts that decide results, as the kernel has them, "node:name" to value."""
        return {f"{node.name}:{name}": value for node in (self.mn, self.cn) for name, value in node.sysctls().items()}

    def describe(self) -> dict[str, Any]:
        """Paths and drawing of the network, for the manifest."""
        return {"paths": [path.to_dict() for path in self.paths], "graph": self.topo.graph()}

    def capture_points(self) -> list[tuple[str, str]]:
        """(node, interface) of every capture; interfaces that appear later cannot be captured on the MN."""
        points = [(point["node"], point["interface"]) for point in self.topo.capture_points()]
        return [(node, interface) for node, interface in points if interface not in self._absent]

    def congestion_control(self) -> dict[str, Any]:
        """The congestion control of the end hosts and how it was set."""
        return {node.name: node.congestion_control_state() for node in (self.mn, self.cn)}

    def reset_link_statistics(self) -> None:
        """Forget what the wire did while the network was being built."""
        wire().reset_stats()

    def link_statistics(self) -> dict[str, Any]:
        """What the wire did: backend, lateness, counters of every link."""
        return wire().stats()

    # -- programs -------------------------------------------------------------------------------------------------

    def spawn(self, node: Node, argv: list[str], name: str, *, reports: bool = False) -> NodeProcess:
        """Start a program in a node; its output goes to logs/NAME.log."""
        process = NodeProcess(node, argv, name, self.directory / "logs", reports=reports)
        self.processes.append(process)
        return process

    def start_agent(self, node_name: str, role: str, config: Mapping[str, Any]) -> None:
        """Write the agent's TOML and start it in its node; return when its control socket answers."""
        folder = self.directory / "agents"
        folder.mkdir(exist_ok=True)
        name = f"{node_name}-{role}"
        path = folder / f"{name}.toml"
        common = {"agent": name, "event_log": str(self.directory / "events" / f"{name}.jsonl"),
                  "control": str(self._control_path(node_name, role))}  # fmt: skip
        path.write_text(to_toml({**common, **config}))
        self._control_path(node_name, role).unlink(missing_ok=True)
        argv = [sys.executable, "-m", "agents", role, "--config", str(path)]
        process = self.spawn(self.node(node_name), argv, name)
        self._agents[node_name, role] = process, config

        def answers() -> bool:
            if not process.running():
                raise RoamlabError(process.why_ended())
            try:
                control_request(self._control_path(node_name, role), {"cmd": "status"})
            except (FileNotFoundError, ConnectionError):  # a socket is there before it listens
                return False
            return True

        wait_until(answers, _CONTROL_TIMEOUT_S, f"agent {role} on {node_name}")

    @staticmethod
    def _control_path(node_name: str, role: str) -> Path:
        return Path("/run/roamlab") / f"{node_name}-{role}.sock"  # short: a socket's path has at most 107 characters

    def agent_command(self, node_name: str, role: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request to an agent's control socket. Raises RoamlabError with the agent's error."""
        try:
            return control_request(self._control_path(node_name, role), request)
        except (OSError, NodeError) as error:
            raise RoamlabError(f"agent {role} on {node_name}: {error}") from error

    def forget_agents(self, node_name: str) -> dict[str, Mapping[str, Any]]:
        """The agents of a node that is going to crash, role to configuration; they are no longer watched."""
        roles = [role for name, role in self._agents if name == node_name]
        return {role: self._agents.pop((node_name, role))[1] for role in roles}

    def check(self) -> None:
        """Raises an error when an agent, a daemon or the link emulation has died: what follows would mean nothing."""
        wire().check()
        for process, _ in self._agents.values():
            if not process.running():
                raise RoamlabError(process.why_ended())
        for node in self.net.hosts:
            if node.name not in self.crashed and hasattr(node, "check"):
                node.check()
