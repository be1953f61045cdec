"""Hosts whose addresses, rules and routes are kept by the agent `netconf`: mobile nodes and multihomed hosts."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topologies.nodes import LinuxHost, NodeError, check_program, end_program
from topologies.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parent.parent
SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path (sun_path without the final zero)."""
CONTROL_TIMEOUT_S = 10.0


def to_toml(table: Mapping[str, Any]) -> str:
    """Text of a TOML file: scalars, lists and inline tables first, then lists of tables."""
    plain = {key: value for key, value in table.items() if not _is_table_list(value)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if key in plain:
            continue
        for row in value:
            lines += ["", f"[[{key}]]", *(f"{name} = {_toml_value(item)}" for name, item in row.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    # JSON strings are TOML strings but for two things: no surrogate pairs, and DEL must be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def control_request(path: Path, request: Mapping[str, Any], timeout_s: float = CONTROL_TIMEOUT_S) -> dict[str, Any]:
    """Send one request to an agent's control socket and return the reply.

    Raises OSError when nobody answers, NodeError when the agent refuses the request.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line:
        raise ConnectionResetError(f"{path}: the agent closed the connection without a reply")
    reply: dict[str, Any] = json.loads(line)
    if not reply.get("ok"):
        raise NodeError(f"{path}: {request.get('cmd')}: {reply.get('error')}")
    return reply


class AgentHost(LinuxHost):
    """A host that runs `netconf`.

    interfaces: one table per interface: name, table, metric, ipv4 ("dhcp", "static", "off"), ipv6 ("ra", "static",
    "off"), leases (DHCP leases to get, 2 where the link has two prefixes), addresses and gateways for "static".
    expected: interface -> {"families": "dual", "prefixes": 1}: what `wait_configured` waits for. start_agent: False
    leaves the interfaces alone until somebody calls `start_netconf()`.
    """

    extra_sysctls: dict[str, str | int] = {}

    def __init__(
        self,
        name: str,
        interfaces: Sequence[Mapping[str, Any]] = (),
        expected: Mapping[str, Mapping[str, Any]] | None = None,
        start_agent: bool = True,
        **params: Any,
    ) -> None:
        self.interfaces = [dict(row) for row in interfaces]
        self.expected = {key: dict(value) for key, value in (expected or {}).items()}
        self.start_agent = start_agent
        self._netconf: subprocess.Popen[bytes] | None = None
        super().__init__(name, **params)

    def config(self, **params: Any) -> dict[str, Any]:
        """Start netconf; it goes on working after this call (see `wait_configured`)."""
        result = super().config(**params)
        if self.start_agent and self.interfaces:
            self.start_netconf()
        return result

    def terminate(self) -> None:
        """Stop netconf, then the node."""
        self.stop_netconf()
        super().terminate()

    # -- the agent ----------------------------------------------------------------------------------------------------
    @property
    def agent_name(self) -> str:
        """Name of the agent in its event log."""
        return f"{self.name}-netconf"

    @property
    def control_path(self) -> Path:
        """The agent's control socket."""
        return self.state_dir / "netconf.sock"

    def start_netconf(self) -> None:
        """Write the configuration and start the agent; NodeError when the socket's path is too long."""
        self.stop_netconf()
        if len(str(self.control_path).encode()) > SOCKET_PATH_MAX:
            raise NodeError(f"{self.control_path}: too long for a socket: set ROAMLAB_STATE_DIR to a shorter path")
        configuration: dict[str, Any] = {
            "agent": self.agent_name,
            "state_dir": str(self.state_dir),
            "event_log": str(self.shared_dir("events") / f"{self.agent_name}.jsonl"),
            "control": str(self.control_path),
        }
        if self.congestion_control is not None:
            configuration["congestion_control"] = self.congestion_control
        configuration["interface"] = self.interfaces
        path = self.state_dir / "netconf.toml"
        path.write_text(to_toml(configuration), encoding="utf-8")
        self.control_path.unlink(missing_ok=True)
        self._netconf = self.spawn_agent("netconf", path)

    def spawn_agent(self, role: str, configuration: Path) -> "subprocess.Popen[bytes]":
        """Start `python -m agents ROLE --config FILE` in this node; the caller ends it before the node ends."""
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        arguments = [sys.executable, "-m", "agents", role, "--config", str(configuration)]
        return self.spawn(arguments, self._agent_log(role), env=env)

    def stop_netconf(self) -> None:
        """End the agent and wait for it. Addresses and routes stay as they are. Harmless when it does not run."""
        process, self._netconf = self._netconf, None
        end_program(process)

    def check(self) -> None:
        """Raise NodeError when netconf has ended by itself: node, program, exit code and its last words.

        Costs one system call while it runs.
        """
        check_program(self.name, "netconf", self._netconf, lambda: self._agent_log("netconf"))

    def _agent_log(self, role: str) -> Path:
        return self.shared_dir("logs") / f"{self.name}-{role}.log"

    def netconf(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """One command to the agent: "status", "release", "acquire", "prefer" (the last three with interface=...).

        release with other=True: the automatic IPv6 address after the next acquire differs. Raises NodeError, OSError.
        """
        return control_request(self.control_path, {"cmd": cmd, **fields})

    # -- waiting ------------------------------------------------------------------------------------------------------
    def wait_configured(self, timeout_s: float = 20.0, interfaces: Sequence[str] | None = None) -> dict[str, Any]:
        """Wait until the interfaces have the addresses and gateways that their networks give; returns the status.

        interfaces: names (default: all). Raises TimeoutError naming what is missing, NodeError when the agent ended.
        """
        names = [row["name"] for row in self.interfaces] if interfaces is None else list(interfaces)
        missing: list[str] = ["netconf answers"]

        def configured() -> dict[str, Any] | None:
            self.check()
            try:
                status = self.netconf("status")
            except (ConnectionError, FileNotFoundError):
                return None
            missing[:] = [text for name in names for text in self._missing(status, name)]
            return None if missing or not status["settled"] else status

        try:
            result = wait_until(configured, timeout_s, self.name, poll_s=0.02)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; missing: {'; '.join(missing) or 'settled'}") from None
        assert result is not None
        return result

    def _missing(self, status: Mapping[str, Any], name: str) -> list[str]:
        """What an interface still lacks, in words."""
        rows = [row for row in status["interfaces"] if row["name"] == name]
        if not rows:
            return [f"{name} is not configured"]
        row, wanted = rows[0], self.expected.get(name, {})
        families, prefixes = wanted.get("families", "dual"), int(wanted.get("prefixes", 1))
        result = []
        for family, mark in (("ipv4", "."), ("ipv6", ":")):
            if families not in ("dual", family):
                continue
            have = [address for address in row["addresses"] if mark in address]
            if len(have) < prefixes:
                result.append(f"{name}: {prefixes - len(have)} {family} address(es)")
            if not any(mark in gateway for gateway in row["gateways"]):
                result.append(f"{name}: {family} gateway")
        return result


class MobileHost(AgentHost):
    """The mobile node: one interface per access network, addresses by DHCP and router advertisements."""

    kind = "mobile-host"


class StaticHost(AgentHost):
    """A host with several interfaces and fixed addresses that still routes by source address: a multihomed CN."""

    kind = "host"
    extra_sysctls: dict[str, str | int] = {"net/ipv6/conf/default/accept_ra": 0}
