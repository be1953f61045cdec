"""Role `path-manager`: which of a mobile host's addresses carry its MPTCP connections, and what becomes of dead paths."""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from agents.core.path_manager import values as act
from agents.core.path_manager.config import POLICIES
from agents.core.path_manager.manager import PathManager
from agents.kernel.control import CommandError, Handler, text_field
from agents.kernel.eventlog import EventLog
from agents.kernel.netlink import Changed, KernelError, Overrun
from agents.kernel.path_manager import genl_mptcp
from agents.kernel.path_manager.commands import Commands
from agents.kernel.path_manager.configuration import PathManagerFile, read_config
from agents.kernel.path_manager.diagnostics import ConnectionRow, Diagnostics, SubflowRow
from agents.kernel.path_manager.probes import Probes
from agents.kernel.path_manager.surroundings import Surroundings
from agents.kernel.reconciler import Reconciler

USERSPACE, IN_KERNEL = 1, 0
"""net.mptcp.pm_type"""
LIMIT_MAX = 8
ROUNDS_MAX = 8
"""Of reading and planning, in one go: actions have consequences."""
_LINE_FIELDS = ("mono_ns", "wall_ns", "agent", "event")


@dataclass(frozen=True)
class _MptcpEvent:
    """An event of the group `mptcp_pm_events`."""

    values: dict[str, Any]


class PathManagerAgent(Reconciler):
    """The agent."""

    def __init__(self, file: PathManagerFile, log: EventLog) -> None:
        super().__init__(file.control, log)
        self.file = file
        self.core = PathManager(file.core)
        self.commands_to_kernel = Commands()
        self.diagnostics = Diagnostics()
        self.surroundings = Surroundings(file, self.kernel)
        self.probes = Probes(lambda probe, rtt_ms: self.put((probe, rtt_ms)))
        self._events: socket.socket | None = None
        self._servers: dict[int, bool] = {}
        self._stale = True
        self.overruns = 0

    def commands(self) -> dict[str, Handler]:
        """Control commands by name."""
        return {
            "status": self._status, "policy": self._policy, "refresh": self._refresh,
            "withhold": self._withhold, "leave": self._leave, "release": self._release,
        }  # fmt: skip

    def deadlines_s(self) -> list[float | None]:
        """When the core wants to be called."""
        return [self.core.next_deadline(self.now_s())]

    # -- life ---------------------------------------------------------------------------------------------------------
    async def set_up(self) -> None:
        """MPTCP is on, with the path manager of the configuration. Raises KernelError."""
        if not os.path.exists("/proc/sys/net/mptcp/enabled"):
            raise KernelError(errno.ENOTSUP, "this kernel has no MPTCP (CONFIG_MPTCP is off): nothing to manage")
        self.kernel.set_sysctl("net/mptcp/enabled", 1)
        self.kernel.set_sysctl("net/mptcp/pm_type", USERSPACE if self.file.core.userspace else IN_KERNEL)
        await self.commands_to_kernel.start()
        if not self.file.core.userspace:
            await self.commands_to_kernel.set_limits(self.file.core.subflows_max, self._accepted())
        self._events = self.commands_to_kernel.event_socket()
        asyncio.get_running_loop().add_reader(self._events.fileno(), self._read_events)
        self.log.write("started", policy=self.core.policy_name, userspace=self.file.core.userspace, pid=os.getpid())

    def _accepted(self) -> int:
        return LIMIT_MAX if self.file.core.remote_addresses == "all" else 0

    async def tear_down(self) -> None:
        """Subflows and endpoints stay: connections outlive the agent."""
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
        self.probes.close()
        self.diagnostics.close()
        self.commands_to_kernel.close()

    def _read_events(self) -> None:
        assert self._events is not None
        while True:
            try:
                data = self._events.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.put(Overrun())
                continue
            for values in genl_mptcp.parse_events(data):
                self.put(_MptcpEvent(values))

    # -- the loop -----------------------------------------------------------------------------------------------------
    async def reconcile(self) -> None:
        """Take what happened, read the sockets, do what the core wants."""
        for _round in range(ROUNDS_MAX):
            inbox, self.inbox[:] = list(self.inbox), []
            sockets_changed = self._note(inbox)
            if self._stale:
                await self._read_addresses()
            sockets_due = self.core.next_reading_s(self.now_s()) <= self.now_s()
            acted = False
            if sockets_changed or sockets_due or _round == 0:
                acted = await self._read_sockets()
            for event in inbox:
                acted |= await self._take(event)
            acted |= await self._perform(self.core.handle_timer(self.now_s()))
            if not acted and not self.inbox and self.core.next_reading_s(self.now_s()) > self.now_s():
                return

    def _note(self, inbox: list[Any]) -> bool:
        """Whether the sockets must be read again."""
        result = False
        for event in inbox:
            if isinstance(event, Overrun):
                self.overruns += 1
                self.log.write("overrun", what="events were lost: everything is read again")
                self._stale = result = True
            elif isinstance(event, Changed):
                self._stale = True
            elif isinstance(event, _MptcpEvent):
                values = event.values
                if values["event"] in ("created", "established") and "token" in values:
                    self._servers[values["token"]] = values["server_side"]
                result = True
        return result

    async def _read_addresses(self) -> None:
        self._stale = False
        try:
            usable, present = await self.surroundings.read()
        except KernelError as error:
            self._stale = True
            self.failures["addresses"] = str(error)
            return
        self.probes.forget({item.address for item in usable})
        if usable != self.core.addresses or not self.core.addresses:
            await self._perform(self.core.addresses_changed(usable, present, self.now_s()))

    async def _read_sockets(self) -> bool:
        try:
            rows, subflows = self.diagnostics.connections(), self.diagnostics.subflows()
            connections = self._connections([row for row in rows if row.token])
            endpoints = [] if self.file.core.userspace else await self.commands_to_kernel.endpoints()
        except KernelError as error:
            self.failures["sockets"] = str(error)
            return False
        rows_of_subflows = [_subflow(row) for row in subflows]
        return await self._perform(self.core.sockets_read(connections, rows_of_subflows, self.now_s(), endpoints))

    def _connections(self, rows: list[ConnectionRow]) -> list[act.Connection]:
        unknown = any(row.token not in self._servers for row in rows)
        listening = self.diagnostics.listening_ports() if unknown else set()
        for row in rows:
            self._servers.setdefault(row.token, row.local_port in listening)
        tokens = {row.token for row in rows}
        self._servers = {token: value for token, value in self._servers.items() if token in tokens}
        return [
            act.Connection(row.token, row.local, row.remote, row.remote_port, self._servers[row.token], row.fallback)
            for row in rows
        ]

    async def _take(self, event: Any) -> bool:
        if isinstance(event, tuple):
            probe, rtt_ms = event
            return await self._perform(self.core.probe_result(probe.local, probe.remote, rtt_ms, self.now_s()))
        if isinstance(event, _MptcpEvent):
            known = _core_event(event.values)
            if known is not None:
                return await self._perform(self.core.handle_event(known, self.now_s()))
        return False

    async def _perform(self, actions: list[act.Action]) -> bool:
        """Carry out actions; whether one has changed something."""
        acted = False
        for action in actions:
            if isinstance(action, act.Log):
                fields = {f"{name}_" if name in _LINE_FIELDS else name: value for name, value in action.fields.items()}
                self.log.write(action.event, **fields)
            elif isinstance(action, act.Probe):
                index = next((item.index for item in self.core.addresses if item.address == action.local), 0)
                self.probes.send(action, index)
            else:
                acted |= await self._change(action)
        return acted

    async def _change(self, action: Any) -> bool:
        try:
            await self.commands_to_kernel.perform(action)
        except KernelError as error:
            self.log.write("refused", action=repr(action), what=str(error), errno=error.errno)
            return await self._perform(self.core.action_failed(action, error.errno or 0, self.now_s()))
        self.core.action_done(action)
        self.log.write("done", action=type(action).__name__, **_fields(action))
        return True

    # -- control ------------------------------------------------------------------------------------------------------
    async def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        async with self.lock:
            return {
                "agent": self.file.agent, "pid": os.getpid(), **self.core.status(), "overruns": self.overruns,
                "failures": list(self.failures.values()), "silent_mobile_nodes": dict(self.surroundings.silent),
                "withheld": sorted(self.surroundings.withheld),
                "policies": list(POLICIES),
            }  # fmt: skip

    async def _policy(self, request: dict[str, Any]) -> dict[str, Any]:
        name = text_field(request, "policy")
        async with self.lock:
            try:
                actions = self.core.set_policy(name, self.now_s())
            except ValueError as error:
                raise CommandError(str(error)) from None
            await self._perform(actions)
            await self.step()
            return {"policy": name}

    async def _refresh(self, _request: dict[str, Any]) -> dict[str, Any]:
        """The Mobile IP layer, or a person, says that addresses have changed."""
        async with self.lock:
            self._stale = True
            await self.step()
            return {"addresses": self.core.status()["addresses"]}

    async def _withhold(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give the addresses of an interface up, though they are there."""
        self.surroundings.withheld.add(self._named(request))
        return await self._refresh(request)

    async def _leave(self, request: dict[str, Any]) -> dict[str, Any]:
        """An interface will go soon: its addresses are backup while another one works."""
        name = self._named(request)
        async with self.lock:
            await self._perform(self.core.leave(name, self.now_s()))
            self._wake.set()
            return {"leaving": name}

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        """Use an interface again."""
        self.surroundings.withheld.discard(self._named(request))
        if self.core.leaving == self._named(request):
            self.core.leaving = ""
        return await self._refresh(request)

    def _named(self, request: dict[str, Any]) -> str:
        name = text_field(request, "interface")
        if all(item.name != name for item in self.file.interfaces):
            raise CommandError(f"{name[:100]} is not configured")
        return name


def _fields(action: Any) -> dict[str, Any]:
    return {name: getattr(action, name) for name in action.__slots__ if name not in _LINE_FIELDS}


def _subflow(row: SubflowRow) -> act.Subflow:
    return act.Subflow(
        row.token, row.local, row.local_port, row.remote, row.remote_port, row.local_id, row.remote_id, row.backup,
        row.established, row.rtt_ms, row.rtt_deviation_ms, row.unacknowledged, row.retransmits, row.idle_ms, row.bytes_received,
    )  # fmt: skip


def _core_event(values: dict[str, Any]) -> act.Event | None:
    """What the core wants to know of an event; None for those that a reading of the sockets tells."""
    token = values.get("token")
    if token is None:
        return None
    if values["event"] == "announced" and values.get("daddr"):
        return act.Announced(token, values.get("rem_id", 0), values["daddr"], values.get("dport", 0))
    if values["event"] == "removed":
        return act.Withdrawn(token, values.get("rem_id", 0))
    if values["event"] == "sub_closed" and values.get("saddr"):
        return act.SubflowClosed(token, values["saddr"], values.get("daddr", ""), values.get("error", 0))
    return None


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, KernelError."""
    file = read_config(path)
    with EventLog(file.agent, file.event_log) as log:
        try:
            asyncio.run(_main(file, log))
        except KernelError as error:
            log.write("failed", what=str(error))
            raise


async def _main(file: PathManagerFile, log: EventLog) -> None:
    await PathManagerAgent(file, log).run()
