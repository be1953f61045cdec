"""Role `mptcp-endpoints`: keeps the kernel's MPTCP endpoints in step with the addresses that exist."""

import asyncio
import errno
from dataclasses import dataclass
from typing import Any

from agents import config
from agents.core import mptcp_endpoints as core
from agents.kernel.control import CommandError, Handler, text_field
from agents.kernel.eventlog import EventLog
from agents.kernel.mptcp_pm import PathManager
from agents.kernel.netlink import KernelError, Snapshot
from agents.kernel.reconciler import Reconciler

LIMIT_MAX = 8
"""Largest value that the kernel takes (MPTCP_PM_ADDR_MAX)."""
RECONCILE_ROUNDS = 8
_FAMILIES = {"dual": frozenset({4, 6}), "ipv4": frozenset({4}), "ipv6": frozenset({6})}
_HARMLESS = {errno.EEXIST, errno.ENOENT, errno.EADDRNOTAVAIL}


@dataclass(frozen=True)
class EndpointsConfig:
    """The configuration of the agent."""

    agent: str
    event_log: str | None
    control: str
    subflows: int
    add_addr_accepted: int
    policies: tuple[core.Policy, ...]


def read_config(path: str) -> EndpointsConfig:
    """The configuration in a TOML file. Raises config.ConfigError."""
    top = config.load(path)
    limits = top.table("limits")
    result = EndpointsConfig(
        top.text("agent", "mptcp-endpoints"),
        top.text("event_log", None),
        top.text("control"),
        limits.number("subflows", 0, LIMIT_MAX, LIMIT_MAX),
        limits.number("add_addr_accepted", 0, LIMIT_MAX, LIMIT_MAX),
        tuple(_read_policy(table) for table in top.tables("interface")),
    )
    limits.finish()
    top.finish()
    names = [policy.name for policy in result.policies]
    for name in names:
        if names.count(name) > 1:
            raise top.error("interface", f"two tables for {name!r}: keep one")
    return result


def _read_policy(table: config.Table) -> core.Policy:
    name, words = table.text("name"), table.texts("flags", ["subflow"])
    loss = table.choice("on_carrier_loss", (core.KEEP, core.REMOVE), core.KEEP)
    families = _FAMILIES[table.choice("families", tuple(_FAMILIES), "dual")]
    table.finish()
    try:
        return core.Policy(name, core.check_flags(words), loss, families)
    except ValueError as error:
        raise table.error("flags", str(error)) from None


class MptcpEndpoints(Reconciler):
    """The agent."""

    def __init__(self, configuration: EndpointsConfig, log: EventLog) -> None:
        super().__init__(configuration.control, log)
        self.config = configuration
        self.path_manager = PathManager()
        self.snapshot = Snapshot()
        self.endpoints: list[core.Endpoint] = []
        self._backup: dict[str, bool] = {}
        self._withheld: set[str] = set()
        self._seen: dict[str, int] = {}

    def commands(self) -> dict[str, Handler]:
        """Control commands by name."""
        return {
            "status": self._status, "prio": self._prio, "add": self._add, "remove": self._remove, "rejoin": self._rejoin,
        }  # fmt: skip

    async def set_up(self) -> None:
        """Turn MPTCP on and set the limits."""
        self.kernel.set_sysctl("net/mptcp/enabled", 1)
        await self.path_manager.start()
        await self.path_manager.set_limits(self.config.subflows, self.config.add_addr_accepted)
        self.log.write("started", subflows=self.config.subflows, add_addr_accepted=self.config.add_addr_accepted)

    async def tear_down(self) -> None:
        """The endpoints stay."""
        self.path_manager.close()

    async def reconcile(self) -> None:
        """Compare the endpoints with the addresses."""
        for _round in range(RECONCILE_ROUNDS):
            self.inbox.clear()
            self.snapshot = await self.kernel.snapshot()
            self.endpoints = await self.path_manager.show()
            changed = False
            for action in core.diff(self._desired(), self.endpoints, self._managed()):
                if isinstance(action, core.Add) and not await self._usable(action.endpoint):
                    continue
                changed = True
                await self._perform(action)
            if not changed and not self.inbox:
                break

    async def _usable(self, endpoint: core.Endpoint) -> bool:
        """Whether packets from the address leave by its interface: a join is tried once, at the moment of adding.

        The route or rule that is still missing comes with an event, and so another comparison.
        """
        return await self.kernel.leaves_by(endpoint.address) == endpoint.index

    def _managed(self) -> set[int]:
        """Indices of the configured interfaces, those that are gone included: their endpoints must go as well."""
        for policy in self.config.policies:
            link = self.snapshot.links.get(policy.name)
            if link is not None:
                self._seen[f"{policy.name}/{link.index}"] = link.index
        return set(self._seen.values())

    def _desired(self) -> frozenset[core.Endpoint]:
        links = [self.snapshot.links[policy.name] for policy in self.config.policies if policy.name in self.snapshot.links]
        interfaces = [core.Interface(link.name, link.index, link.up and link.carrier) for link in links]
        addresses = [core.Address(address.index, address.address) for address in self.snapshot.addresses]
        return core.desired_endpoints(self.config.policies, interfaces, addresses, self._backup, self._withheld)

    async def _perform(self, action: core.Action) -> None:
        endpoint = action.endpoint
        what = {
            "address": endpoint.address, "interface": self._name_of(endpoint.index),
            "flags": sorted(endpoint.flags), "number": endpoint.number,
        }  # fmt: skip
        if isinstance(action, core.Add):
            await self.attempt("endpoint-added", what, self.path_manager.add(endpoint), _HARMLESS)
        elif isinstance(action, core.Delete):
            await self.attempt("endpoint-deleted", what, self.path_manager.delete(endpoint.number), _HARMLESS)
        else:
            what["backup"] = action.backup
            work = self.path_manager.set_flags(endpoint.address, action.backup)
            await self.attempt("priority-changed", what, work, _HARMLESS)

    def _name_of(self, index: int) -> str | None:
        return next((link.name for link in self.snapshot.links.values() if link.index == index), None)

    # -- control ------------------------------------------------------------------------------------------------------
    def _named(self, request: dict[str, Any]) -> core.Policy:
        name = text_field(request, "interface")
        for policy in self.config.policies:
            if policy.name == name:
                return policy
        raise CommandError(f"no interface {name!r}: there are {', '.join(item.name for item in self.config.policies)}")

    async def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        async with self.lock:
            return {
                "agent": self.config.agent,
                "settled": not self.inbox and not self.failures,
                "limits": await self.path_manager.show_limits(),
                "failures": list(self.failures.values()),
                "withheld": sorted(self._withheld),
                "endpoints": self._endpoint_rows(await self.path_manager.show()),
            }

    def _endpoint_rows(self, endpoints: list[core.Endpoint]) -> list[dict[str, Any]]:
        return [
            {
                "number": endpoint.number, "address": endpoint.address, "interface": self._name_of(endpoint.index),
                "flags": sorted(endpoint.flags),
            }
            for endpoint in endpoints
        ]  # fmt: skip

    async def _change(self) -> dict[str, Any]:
        await self.step()
        if self.failures:
            raise CommandError("; ".join(self.failures.values()))
        return {"endpoints": self._endpoint_rows(self.endpoints)}

    async def _prio(self, request: dict[str, Any]) -> dict[str, Any]:
        policy, priority = self._named(request), text_field(request, "priority")
        if priority not in ("backup", "active"):
            raise CommandError(f'priority {priority[:100]!r}: must be "backup" or "active"')
        async with self.lock:
            self.log.write("prio", interface=policy.name, priority=priority)
            self._backup[policy.name] = priority == "backup"
            return await self._change()

    async def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._named(request)
        async with self.lock:
            self.log.write("add", interface=policy.name)
            self._withheld.discard(policy.name)
            return await self._change()

    async def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._named(request)
        async with self.lock:
            self.log.write("remove", interface=policy.name)
            self._withheld.add(policy.name)
            return await self._change()

    async def _rejoin(self, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._named(request)
        async with self.lock:
            self.log.write("rejoin", interface=policy.name)
            link = self.snapshot.links.get(policy.name)
            for action in core.rejoin(await self.path_manager.show(), link.index if link else -1):
                await self._perform(action)
            return await self._change()


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, KernelError."""
    configuration = read_config(path)
    with EventLog(configuration.agent, configuration.event_log) as log:
        try:
            asyncio.run(_main(configuration, log))
        except KernelError as error:
            log.write("failed", what=str(error))
            raise


async def _main(configuration: EndpointsConfig, log: EventLog) -> None:
    await MptcpEndpoints(configuration, log).run()
