"""The network of one run: Mininet's nodes and links, the programs in them, and what the run directory gets from them."""

import json
import shlex
import signal
import socket
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
from topologies.profiles import LinkProfile, profile
from topologies.waiting import wait_until

_CONFIGURED_TIMEOUT_S = 30.0
_CONTROL_TIMEOUT_S = 10.0


def toml_text(data: Mapping[str, Any]) -> str:
    """TOML of nested tables and arrays of tables with JSON-like values (a JSON string or number is a TOML one)."""
    plain = {k: v for k, v in data.items() if not isinstance(v, Mapping) and not _is_table_array(v)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items() if value is not None]
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += [f"[{key}]", toml_text(value)]
        elif _is_table_array(value):
            for item in value:
                lines += [f"[[{key}]]", toml_text(item)]
    return "\n".join(lines)


def _is_table_array(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


class Testbed:
    """Built from a topology name and its parameters; `directory` is the run directory."""

    def __init__(self, topology: str, parameters: Mapping[str, Any], directory: Path, *, absent: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.processes: list[NodeProcess] = []
        self._agents: dict[tuple[str, str], NodeProcess] = {}
        self._sysctls: dict[str, str] = {}
        self._ports: dict[tuple[str, str], Any] = {}
        self._crashed: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        self._agent_configs: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._absent = absent
        Mininet.inited = True  # Mininet's own init would raise limits and sysctls of the whole host
        self.topo = registry.make(topology, dict(parameters))
        self.net = Mininet(topo=self.topo, controller=None, waitConnected=False)
        self.paths: list[AccessPath] = list(self.topo.paths())

    def start(self) -> None:
        """Bring the network up; return when the MN has its addresses (but on interfaces that appear later)."""
        for interface in self._absent:
            self.link_of(interface).set_present(False)
        self.net.start()
        self.mn.wait_configured(_CONFIGURED_TIMEOUT_S, absent=self._absent)

    # -- nodes and links ------------------------------------------------------------------------------------------

    @property
    def mn(self) -> Any:
        """The mobile node."""
        return self.node("mn")

    @property
    def cn(self) -> Any:
        """The correspondent node."""
        return self.node("cn")

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

    def emulated_interfaces(self, node_name: str) -> list[str]:
        """Interfaces of a node that are ends of emulated links."""
        node = self.node(node_name)
        links = [link for link in self.net.links if isinstance(link, EmulatedLink)]
        return [i.name for link in links for i in (link.intf1, link.intf2) if i.node is node]

    def profile_of(self, interface: str, name: str | None) -> LinkProfile:
        """The named profile, or without a name the one that the link of `interface` was built with."""
        if name is not None:
            return profile(name)
        return self.link_of(interface).profile or LinkProfile()

    def prepare_attachments(self, moves: tuple[tuple[str, str], ...]) -> None:
        """Make the ports to which interfaces will move, and remember where each interface is now."""
        for interface in {interface for interface, _ in moves}:
            self._ports[interface, self._home_point(interface)] = self.link_of(interface).far_port
        for interface, point in moves:
            if (interface, point) in self._ports:
                continue
            points = self.topo.attachment_points()
            if point not in points:
                raise RoamlabError(f"no attachment point {point!r}; there are: {', '.join(sorted(points))}")
            router = self.node(points[point].router)
            port = wire().add_port(router, f"{router.name}-x{len(self._ports)}")
            router.adopt_port(port.intf)
            self._ports[interface, point] = port

    def _home_point(self, interface: str) -> str:
        far = self.link_of(interface).intf2
        return next((name for name, p in self.topo.attachment_points().items() if p.interface == far.name), far.name)

    def attach(self, interface: str, point: str) -> None:
        """Join an interface of the MN to a prepared attachment point; the bridge there learns of it as an access point tells it."""
        port = self._ports[interface, point]
        self.link_of(interface).attach(port)
        port.intf.node.associate(port.intf.name, self.mn.intf(interface).MAC())

    def path_of(self, interface: str) -> AccessPath:
        """The path that starts with an interface of the MN."""
        for path in self.paths:
            if path.interface == interface:
                return path
        raise RoamlabError(f"no path over {interface!r}; there are: {', '.join(p.interface for p in self.paths)}")

    def run(self, node: Node, argv: list[str], *, check: bool = True) -> str:
        """Run a short command in a node and return its output. Raises RoamlabError with its error text."""
        process = node.popen(argv)
        out, err = process.communicate(timeout=_CONTROL_TIMEOUT_S)
        if check and process.returncode != 0:
            raise RoamlabError(f"{node.name}: {shlex.join(argv)}: {err.decode(errors='replace').strip() or 'failed'}")
        return str(out.decode(errors="replace"))

    def addresses(self, node: Node) -> dict[str, list[str]]:
        """Global addresses per interface, IPv4 before IPv6, as the kernel has them now."""
        found: dict[str, list[str]] = {}
        for entry in json.loads(self.run(node, ["ip", "-j", "address", "show", "scope", "global"]) or "[]"):
            infos = sorted(entry.get("addr_info", []), key=lambda info: info["family"])
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

    def cn_interfaces(self) -> list[str]:
        """The CN's interfaces that have addresses, first link first."""
        return list(self.addresses(self.cn))

    def sysctl(self, node: Node, name: str, value: object) -> None:
        """Set a sysctl of the node's namespace and record it."""
        self.run(node, ["sysctl", "-q", "-w", f"{name}={value}"])
        self._sysctls[f"{node.name}:{name}"] = str(value)

    @property
    def sysctls(self) -> dict[str, str]:
        """Every sysctl that was set on purpose, "node:name" to value."""
        return dict(self._sysctls)

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
        common = {"node": node_name, "event_log": str(self.directory / "events" / f"{name}.jsonl"),
                  "control": str(self._control_path(node_name, role))}  # fmt: skip
        path.write_text(toml_text({**common, **config}) + "\n")
        argv = [sys.executable, "-m", "agents", role, "--config", str(path)]
        process = self.spawn(self.node(node_name), argv, name)
        self._agent_configs[node_name, role] = config
        self._agents[node_name, role] = process
        def answers() -> bool:
            if not process.running():
                raise RoamlabError(process.why_ended())
            return self._control_path(node_name, role).exists()

        wait_until(answers, _CONTROL_TIMEOUT_S, f"agent {role} on {node_name}")

    @staticmethod
    def _control_path(node_name: str, role: str) -> Path:
        return Path("/run/roamlab") / f"{node_name}-{role}.sock"  # short: a socket's path has at most 107 characters

    def agent_command(self, node_name: str, role: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request to an agent's control socket. Raises RoamlabError with the agent's error."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_CONTROL_TIMEOUT_S)
            try:
                sock.connect(str(self._control_path(node_name, role)))
                sock.sendall(json.dumps(request).encode() + b"\n")
                reply = json.loads(sock.makefile("rb").readline() or b"{}")
            except OSError as error:
                raise RoamlabError(f"agent {role} on {node_name}: {error}") from error
        if not reply.get("ok", "error" not in reply):
            raise RoamlabError(f"agent {role} on {node_name}: {reply.get('error', 'no answer')}")
        return dict(reply)

    def crash(self, node_name: str) -> None:
        """Kill every program of a node at once; its agents are remembered for `restart`."""
        node = self.node(node_name)
        for process in self.processes:
            if process.node_name == node_name:
                process.end(signal.SIGKILL)
        self._crashed[node_name] = [(role, self._agent_configs[name, role]) for name, role in self._agents if name == node_name]
        for role, _ in self._crashed[node_name]:
            del self._agents[node_name, role]
        if hasattr(node, "stop_services"):
            node.stop_services()

    def restart(self, node_name: str) -> list[str]:
        """Start the services and agents of a crashed node again; their names."""
        node = self.node(node_name)
        if hasattr(node, "restart_services"):
            node.restart_services()
        agents = self._crashed.pop(node_name, [])
        for role, config in agents:
            self._control_path(node_name, role).unlink(missing_ok=True)
            self.start_agent(node_name, role, config)
        return [role for role, _ in agents]

    def check(self) -> None:
        """Raises RoamlabError when an agent has died: nothing measured after that would mean anything."""
        for process in self._agents.values():
            if not process.running():
                raise RoamlabError(process.why_ended())

    def close(self) -> None:
        """End the programs; the capsule takes the rest."""
        for process in reversed(self.processes):
            process.end(grace_s=2.0)
        self.net.stop()
