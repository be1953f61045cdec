"""Hosts and routers as Mininet nodes: addresses, static routes and kernel parameters from constructor parameters.

All of it works for root and inside an unprivileged user namespace: only parameters of the node's own network namespace
are set. A node raises NodeError, naming itself and the command, when the kernel refuses something.
"""

import contextlib
import ipaddress
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mininet.node import Node

from topologies.addressing import Route
from topologies.sysctl import read_sysctls, write_sysctls

SOURCE_TABLE_BASE = 100
"""First routing table of a router that chooses its provider by source address."""
SOURCE_RULE_PREFERENCE = 1000
STOP_TIMEOUT_S = 5.0
"""A program that has not ended by then is killed."""

# accept_dad=0: addresses are usable at once, without the second of duplicate address detection: the MACs of a topology
# are unique by construction. tcp_no_metrics_save: no connection inherits what an earlier one measured.
BASE_SYSCTLS: dict[str, str | int] = {
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/accept_redirects": 0,
    "net/ipv4/conf/default/accept_redirects": 0,
    "net/ipv4/conf/all/arp_ignore": 1,
    "net/ipv4/conf/all/arp_announce": 2,
    "net/ipv4/tcp_no_metrics_save": 1,
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_redirects": 0,
    "net/ipv6/conf/default/accept_redirects": 0,
    "net/ipv6/conf/all/use_tempaddr": 0,
    "net/ipv6/conf/default/use_tempaddr": 0,
}
# Forwarding comes first: switching it resets other parameters.
ROUTER_SYSCTLS: dict[str, str | int] = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/default/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/ipv6/conf/default/accept_ra": 0,
}
# What decides results, for the record of a run: how TCP behaves, then what is forwarded, accepted and still used.
REPORTED_SYSCTLS = (
    *(f"net/ipv4/tcp_{name}" for name in (
        "congestion_control", "no_metrics_save", "rmem", "wmem", "moderate_rcvbuf", "window_scaling", "sack", "dsack",
        "timestamps", "ecn", "recovery", "early_retrans", "frto", "reordering", "retries1", "retries2", "syn_retries",
        "synack_retries", "orphan_retries", "slow_start_after_idle", "limit_output_bytes", "notsent_lowat", "mtu_probing",
        "fastopen", "keepalive_time",
    )),
    "net/core/rmem_max", "net/core/wmem_max",
    *(f"net/mptcp/{name}" for name in (
        "enabled", "scheduler", "path_manager", "pm_type", "checksum_enabled", "stale_loss_cnt", "add_addr_timeout",
        "allow_join_initial_addr_port", "close_timeout", "blackhole_timeout", "syn_retrans_before_tcp_fallback",
    )),
    "net/ipv4/ip_forward",
)  # fmt: skip
# Parameters with one value for "all", one for "default" (interfaces to come) and one for each interface.
REPORTED_INTERFACE_SYSCTLS = {
    "net/ipv4/conf": ("rp_filter", "forwarding", "ignore_routes_with_linkdown", "arp_ignore", "arp_announce"),
    "net/ipv6/conf": ("disable_ipv6", "accept_ra", "forwarding", "ignore_routes_with_linkdown", "accept_dad", "use_tempaddr"),
}


class NodeError(RuntimeError):
    """A node could not be configured: names the node, what was tried and what the system answered."""


def end_program(process: "subprocess.Popen[bytes] | None") -> None:
    """SIGTERM, SIGKILL when it does not end, and wait for it. Harmless without a process."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_program(node: str, program: str, process: "subprocess.Popen[bytes] | None", log: Callable[[], Path]) -> None:
    """Raise NodeError with exit code and last log line when a program of a node has ended. Harmless without a process.

    log: asked for the log's path only then.
    """
    if process is None or process.poll() is None:
        return
    code = process.returncode
    with contextlib.suppress(ValueError):
        code = f"{code} ({signal.Signals(-code).name})"
    try:
        lines = log().read_text(errors="replace").strip().splitlines() or ["its log is empty"]
    except OSError as error:
        lines = [f"its log cannot be read: {error.strerror}"]
    raise NodeError(f"{node}: {program} has ended with exit code {code}: {lines[-1]}")


class LinuxHost(Node):
    """A host with static addresses and routes.

    addresses: interface name -> ["10.65.0.2/24", "2001:db8:401::2/64"].
    routes: topologies.addressing.Route values.
    congestion_control: TCP congestion control of the host (None: leave the kernel's choice). A network namespace may
    refuse it as a sysctl; then every route carries it, locked. `congestion_control_state()` says which.
    sack: whether its TCP offers selective acknowledgements (RFC 2018).
    """

    extra_sysctls: dict[str, str | int] = {"net/ipv6/conf/default/accept_ra": 0}
    kind = "host"

    def __init__(
        self,
        name: str,
        addresses: dict[str, list[str]] | None = None,
        routes: Sequence[Route] = (),
        congestion_control: str | None = "cubic",
        sack: bool = True,
        **params: Any,
    ) -> None:
        self.addresses = addresses or {}
        self.routes = list(routes)
        self.congestion_control = congestion_control
        self._congestion_how = "kernel"
        self._own_state_dir: tempfile.TemporaryDirectory[str] | None = None
        super().__init__(name, **params)
        try:
            write_sysctls(self.pid, {**self.extra_sysctls, **BASE_SYSCTLS, "net/ipv4/tcp_sack": int(sack)})
        except OSError as error:
            raise NodeError(f"{name}: {error}") from error

    # Mininet calls this after all links exist.
    def config(self, **params: Any) -> dict[str, Any]:
        """Apply addresses and routes. `ip` and `mac`, which Mininet makes up for every host, are not used."""
        params.update(ip=None, mac=None)
        result: dict[str, Any] = super().config(**params)
        self._choose_congestion_control()
        self.configure_addresses()
        return result

    def configure_addresses(self) -> None:
        """Give the interfaces their addresses, then set the static routes."""
        for interface, addresses in self.addresses.items():
            self._note_address(interface, addresses)
        self.ip_batch(self._address_lines(self.addresses))
        for version in (4, 6):
            self.ip_batch(self._route_lines(version), version)

    def terminate(self) -> None:
        """End the node's shell and remove its temporary folder."""
        super().terminate()
        if self._own_state_dir is not None:
            self._own_state_dir.cleanup()
            self._own_state_dir = None

    # -- commands -----------------------------------------------------------------------------------------------------
    def run(self, arguments: Sequence[str], stdin: str = "") -> str:
        """Run a program in the node to its end and return its standard output; NodeError when it fails."""
        process = self.popen(list(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate(stdin.encode())
        if process.returncode != 0:
            text = errors.decode(errors="replace").strip() or f"exit status {process.returncode}"
            raise NodeError(f"{self.name}: {' '.join(arguments)}: {text}" + (f"\n{stdin.strip()}" if stdin else ""))
        return str(output.decode(errors="replace"))

    def ip_batch(self, lines: Iterable[str], version: int | None = None) -> None:
        """Several `ip` commands in one process; NodeError with all of them when one fails.

        version: 4 or 6 where a command does not say it itself (rules)."""
        text = "".join(f"{line}\n" for line in lines)
        if text:
            self.run(["ip", *([f"-{version}"] if version else []), "-batch", "-"], text)

    def spawn(self, arguments: Sequence[str], log: Path, env: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a long-running program in the node; what it prints is appended to `log`.

        It gets SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG), so start nodes from the main thread.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            process: subprocess.Popen[bytes] = self.popen(
                list(arguments), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env,
                mncmd=["setpriv", "--pdeathsig", "KILL", "mnexec", "-da", str(self.pid)],
            )  # fmt: skip
        return process

    # -- state --------------------------------------------------------------------------------------------------------
    @property
    def state_dir(self) -> Path:
        """Folder of this node for leases, sockets and configuration.

        ROAMLAB_STATE_DIR/<node>, or a temporary folder that `terminate` removes."""
        base = os.environ.get("ROAMLAB_STATE_DIR")
        if base:
            path: Path = Path(base) / self.name
            path.mkdir(parents=True, exist_ok=True)
            return path
        if self._own_state_dir is None:
            self._own_state_dir = tempfile.TemporaryDirectory(prefix=f"roamlab-{self.name}-", ignore_cleanup_errors=True)
        return Path(self._own_state_dir.name)

    def shared_dir(self, name: str) -> Path:
        """Folder shared by all nodes ("events", "logs") below ROAMLAB_STATE_DIR, else the node's own."""
        base = os.environ.get("ROAMLAB_STATE_DIR")
        path = (Path(base) if base else self.state_dir) / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def congestion_control_state(self) -> dict[str, str]:
        """{"congestion_control": "cubic", "how": "sysctl" | "route" | "kernel"}"""
        if self.congestion_control is None:
            name = self.run(["cat", "/proc/sys/net/ipv4/tcp_congestion_control"]).strip()
            return {"congestion_control": name, "how": "kernel"}
        return {"congestion_control": self.congestion_control, "how": self._congestion_how}

    def sysctls(self) -> dict[str, str]:
        """What the kernel has now, in this node's namespace, for the parameters that decide results.

        {"net.ipv4.tcp_sack": "1", "net.ipv6.conf.mn-wlan.accept_ra": "2", ...}: REPORTED_SYSCTLS, and for "all",
        "default" and each interface REPORTED_INTERFACE_SYSCTLS. What this kernel or namespace does not have is left out.
        """
        names = list(REPORTED_SYSCTLS)
        for interface in ("all", "default", *self.nameToIntf):
            names += [f"{part}/{interface}/{name}" for part, rows in REPORTED_INTERFACE_SYSCTLS.items() for name in rows]
        return {name.replace("/", "."): value for name, value in read_sysctls(self.pid, names).items()}

    # -- internals ----------------------------------------------------------------------------------------------------
    def _choose_congestion_control(self) -> None:
        if self.congestion_control is None:
            return
        try:
            write_sysctls(self.pid, {"net/ipv4/tcp_congestion_control": self.congestion_control})
        except OSError:
            # Namespaces may only choose what the host allows to everybody; a route attribute is not restricted.
            self._congestion_how = "route"
        else:
            self._congestion_how = "sysctl"

    @property
    def _congestion_suffix(self) -> str:
        if self._congestion_how == "route":
            return f" congctl lock {self.congestion_control}"
        return ""

    def _address_lines(self, addresses: dict[str, list[str]]) -> list[str]:
        lines = []
        for interface, values in addresses.items():
            for value in values:
                flags = " nodad" if ":" in value else ""
                if not self._congestion_suffix:
                    lines.append(f"addr add {value} dev {interface}{flags}")
                    continue
                # The kernel's own route to the connected prefix cannot carry attributes: replace it.
                prefix = f"{_network_of(value)} dev {interface}{self._congestion_suffix}"
                lines += [f"addr add {value} dev {interface}{flags} noprefixroute", f"route add {prefix}"]
        return lines

    def _route_lines(self, version: int) -> list[str]:
        """Commands for the static routes of one family; a route by source gets a table and a rule."""
        lines: list[str] = []
        sources: list[str] = []
        for route in self.routes:
            if ipaddress.ip_address(route.gateway).version != version:
                continue
            destination = "default" if route.destination.startswith("default") else route.destination
            line = f"route add {destination} via {route.gateway}{self._congestion_suffix}"
            if route.source is None:
                lines.append(line)
                continue
            if route.source not in sources:
                sources.append(route.source)
            number = sources.index(route.source)
            table, preference = SOURCE_TABLE_BASE + number, SOURCE_RULE_PREFERENCE + 1 + number
            lines += [f"{line} table {table}", f"rule add from {route.source} lookup {table} pref {preference}"]
        if sources:
            # Destinations that the node knows itself come first; only defaults depend on the source.
            lines.append(f"rule add from all lookup main suppress_prefixlength 0 pref {SOURCE_RULE_PREFERENCE}")
        return lines

    def _note_address(self, interface: str, addresses: list[str]) -> None:
        """Tell Mininet, so that its command line can put addresses in place of node names."""
        intf = self.nameToIntf.get(interface)
        if intf is None:
            raise NodeError(f"{self.name}: no interface {interface}: it has {', '.join(self.nameToIntf) or 'none'}")
        for address in addresses:
            if ":" not in address and intf.ip is None:
                intf.ip, length = address.split("/")
                intf.prefixLen = int(length)


def _network_of(interface_address: str) -> str:
    return str(ipaddress.ip_interface(interface_address).network)


class Router(LinuxHost):
    """Forwards IPv4 and IPv6, no reverse-path filter, no redirects; static routes, also by source prefix."""

    extra_sysctls = ROUTER_SYSCTLS
    kind = "router"

    def __init__(self, name: str, congestion_control: str | None = None, **params: Any) -> None:
        super().__init__(name, congestion_control=congestion_control, **params)


class HomeAgentHost(LinuxHost):
    """A host on the home link with a fixed address: the place of a home agent."""

    kind = "home-agent"
