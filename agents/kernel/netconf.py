"""Role `netconf`: addresses, rules and routes of a mobile or multihomed host.

One loop: events and deadlines go to the pure cores (attachment, source routing); then the desired state is compared with a
snapshot of the kernel's, and the difference is carried out. Whatever was missed or changed by somebody else is found in the
next comparison. Nothing is polled.
"""

import asyncio
import errno
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Any

from agents import config
from agents.core import attachment as at
from agents.core import source_routing as sr
from agents.kernel.control import CommandError, Handler, text_field
from agents.kernel.dhcp import ClientEnded, DhcpClients, DhcpEvent, LeaseGiven, LeaseLost
from agents.kernel.eventlog import EventLog
from agents.kernel.netlink import KernelError, Link, Overrun, PrefixEvent, Snapshot
from agents.kernel.reconciler import Reconciler
from agents.kernel.solicitation import solicit

ANNOUNCED_METRIC_BASE = 30_000
"""Metric of the kernel's own announced default routes: ours, with the interface's metric, come first."""
CLIENT_RESTART_S = 1.0
STABLE_SECRET_BASE = 0x726F_616D_6C61_6200_0000_0000_0000_0000
"""Secrets for other IPv6 addresses count from here: the same in every run."""
RECONCILE_ROUNDS = 8
"""Comparisons in a row before others get a turn."""
# What a change meets when the kernel has meanwhile done it itself.
_HARMLESS = {errno.EEXIST, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENODEV}


@dataclass(frozen=True)
class InterfaceConfig:
    """One [[interface]] of the configuration."""

    name: str
    table: int
    metric: int
    ipv4: str
    ipv6: str
    leases: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]


@dataclass(frozen=True)
class NetconfConfig:
    """The configuration of the agent."""

    agent: str
    state_dir: str
    event_log: str | None
    control: str
    congestion_control: str
    interfaces: tuple[InterfaceConfig, ...]


def read_config(path: str) -> NetconfConfig:
    """The configuration in a TOML file. Raises config.ConfigError."""
    top = config.load(path)
    agent, state_dir, control = top.text("agent", "netconf"), top.text("state_dir"), top.text("control")
    event_log, congestion = top.text("event_log", None), top.text("congestion_control", "")
    interfaces = [_read_interface(table) for table in top.tables("interface")]
    top.finish()
    for what in ("name", "table"):
        values = [getattr(interface, what) for interface in interfaces]
        for value in values:
            if values.count(value) > 1:
                raise top.error("interface", f"two interfaces have the {what} {value!r}: give each its own")
    return NetconfConfig(agent, state_dir, event_log, control, congestion, tuple(interfaces))


def _read_interface(table: config.Table) -> InterfaceConfig:
    result = InterfaceConfig(
        table.text("name"),
        table.number("table", 1, 252),
        table.number("metric", 2, 29_999, 100),
        table.choice("ipv4", ("dhcp", "static", "off"), "dhcp"),
        table.choice("ipv6", ("ra", "static", "off"), "ra"),
        table.number("leases", 1, 2, 1),
        tuple(table.texts("addresses", [])),
        tuple(table.texts("gateways", [])),
    )
    for name, values, parse in (("addresses", result.addresses, ip_interface), ("gateways", result.gateways, ip_address)):
        for value in values:
            try:
                version = parse(value).version
            except ValueError:
                raise table.error(name, f"{value!r} is no address: write for example 10.0.0.2/24") from None
            if (result.ipv4 if version == 4 else result.ipv6) != "static":
                raise table.error(name, f'{value!r} needs ipv{version} = "static"')
    table.finish()
    return result


@dataclass
class _State:
    config: InterfaceConfig
    attachment: at.Attachment
    index: int = 0
    """0: absent"""
    carrier_changes: int = 0
    identity: int = 0
    """How often other automatic addresses were asked for."""
    restart_at_s: dict[int, float] = field(default_factory=dict)


class Netconf(Reconciler):
    """The agent."""

    def __init__(self, configuration: NetconfConfig, log: EventLog) -> None:
        super().__init__(configuration.control, log)
        self.config = configuration
        self.states = {
            item.name: _State(item, at.Attachment(item.leases if item.ipv4 == "dhcp" else 0, follow_routers=item.ipv6 == "ra"))
            for item in configuration.interfaces
        }
        self.dhcp = DhcpClients(configuration.state_dir, self.put)
        self.snapshot = Snapshot()
        self.preferred = ""
        self.settled = False
        self._congestion_how = "kernel"
        self._own: dict[tuple[int, str], int] = {}
        self._stale: list[str] = []
        self._held: set[str] = set()

    def commands(self) -> dict[str, Handler]:
        """Control commands by name."""
        return {"status": self._status, "release": self._release, "acquire": self._acquire, "prefer": self._prefer}

    async def set_up(self) -> None:
        """Choose how congestion control is set; open the way by which DHCP clients report."""
        if self.config.congestion_control:
            try:
                self.kernel.set_sysctl("net/ipv4/tcp_congestion_control", self.config.congestion_control)
            except KernelError:
                # Namespaces may only choose what the host allows to everybody; a route attribute is not restricted.
                self._congestion_how = "route"
            else:
                self._congestion_how = "sysctl"
        self.dhcp.open()
        self.log.write("started", interfaces=list(self.states), congestion_control=self._congestion())

    async def tear_down(self) -> None:
        """End the DHCP clients; addresses and routes stay."""
        await self.dhcp.close()

    def deadlines_s(self) -> list[float | None]:
        """Of all attachments and of DHCP clients to be started again."""
        times = [state.attachment.next_deadline_s() for state in self.states.values()]
        return times + [time_s for state in self.states.values() for time_s in state.restart_at_s.values()]

    def _congestion(self) -> dict[str, str]:
        return {"congestion_control": self.config.congestion_control, "how": self._congestion_how}

    # -- the loop's body ----------------------------------------------------------------------------------------------
    async def reconcile(self) -> None:
        """Handle what has happened, then bring the kernel to the desired state."""
        for _round in range(RECONCILE_ROUNDS):
            self.snapshot = await self.kernel.snapshot()
            # Links first: a prefix that is heard now may belong to another network than before.
            await self._handle_links()
            await self._handle_inbox()
            changed = await self._apply()
            if not changed and not self.inbox:
                break
        self.settled = not self.failures and not self.inbox

    def _state_of(self, index: int) -> _State | None:
        return next((state for state in self.states.values() if state.index == index and index), None)

    async def _handle_inbox(self) -> None:
        inbox, self.inbox = self.inbox, []
        for event in inbox:
            now_s = self.now_s()
            if isinstance(event, PrefixEvent):
                state = self._state_of(event.index)
                if state is not None:
                    self._note_routers(state)
                    if event.prefix not in state.attachment.prefixes:
                        self.log.write("prefix-heard", interface=state.config.name, prefix=event.prefix)
                    await self._perform(state, state.attachment.handle_prefix(event.prefix, event.valid_s, now_s))
            elif isinstance(event, Overrun):
                self.log.write("events-lost")
            elif isinstance(event, LeaseGiven | LeaseLost | ClientEnded):
                await self._handle_dhcp(event, now_s)

    async def _handle_dhcp(self, event: DhcpEvent, now_s: float) -> None:
        state = self.states[event.interface]
        if isinstance(event, LeaseGiven):
            self.log.write("lease", interface=event.interface, slot=event.slot, lease_s=event.lease_s, **vars(event.lease))
            await self._perform(state, state.attachment.handle_lease(event.slot, event.lease, now_s))
        elif isinstance(event, LeaseLost):
            self.log.write("lease-lost", interface=event.interface, slot=event.slot)
            await self._perform(state, state.attachment.handle_lease_lost(event.slot))
        elif isinstance(event, ClientEnded):
            self.log.write("dhcp-client-ended", interface=event.interface, slot=event.slot, status=event.status)
            state.restart_at_s[event.slot] = now_s + CLIENT_RESTART_S

    async def _handle_links(self) -> None:
        """What the snapshot says of links and routers, and deadlines that are due."""
        for name, state in self.states.items():
            link = self.snapshot.links.get(name)
            if link is not None and link.index != state.index:
                if state.index:
                    # Another interface has the name: the old one went without a trace.
                    await self._link(state, False, False, False)
                self._prepare(state, link)
            if link is not None and state.attachment.ready and link.carrier_changes >= state.carrier_changes + 2:
                # Interrupted and back before anybody could look.
                await self._link(state, True, link.up, False)
            state.carrier_changes = link.carrier_changes if link is not None else 0
            await self._link(state, link is not None, link is not None and link.up, link is not None and link.carrier)
            self._note_routers(state)
            now_s = self.now_s()
            await self._perform(state, state.attachment.handle_deadline(now_s))
            for slot in [slot for slot, time_s in state.restart_at_s.items() if time_s <= now_s]:
                del state.restart_at_s[slot]
                await self._perform(state, state.attachment.handle_client_ended(slot, now_s))

    def _prepare(self, state: _State, link: Link) -> None:
        """An interface has appeared: set its parameters and take over what the kernel has already learned."""
        state.index, name = link.index, link.name
        self.log.write("interface-present", interface=name, index=link.index)
        values: dict[str, str | int] = {
            f"net/ipv4/conf/{name}/ignore_routes_with_linkdown": 1,
            f"net/ipv6/conf/{name}/ignore_routes_with_linkdown": 1,
            f"net/ipv6/conf/{name}/accept_ra": 2 if state.config.ipv6 == "ra" and not state.attachment.released else 0,
            f"net/ipv6/conf/{name}/ra_defrtr_metric": ANNOUNCED_METRIC_BASE + link.index,
        }
        for parameter, value in values.items():
            try:
                self.kernel.set_sysctl(parameter, value)
            except KernelError as error:
                self.log.write("failed", what=str(error))
        for address in self.snapshot.addresses:
            if address.index == link.index and (address.index, address.address) in self.snapshot.automatic:
                state.attachment.handle_prefix(address.network, 1, self.now_s())

    async def _link(self, state: _State, present: bool, up: bool, carrier: bool) -> None:
        before = state.attachment.ready
        actions = state.attachment.handle_link(present, up, carrier, self.now_s())
        if not present and state.index:
            self.log.write("interface-absent", interface=state.config.name)
            self._own = {key: length for key, length in self._own.items() if key[0] != state.index}
            state.index = 0
        if before != state.attachment.ready:
            self.log.write("link", interface=state.config.name, present=present, up=up, carrier=carrier)
        if not state.attachment.ready:
            state.restart_at_s.clear()
        await self._perform(state, actions)

    def _note_routers(self, state: _State) -> None:
        state.attachment.handle_routers(self.snapshot.routers.get(state.index, []))

    async def _perform(self, state: _State, actions: list[at.Action]) -> None:
        """Carry out what the attachment core decided."""
        name = state.config.name
        for action in actions:
            self.log.write(_event_name(action), interface=name, **vars(action))
            try:
                if isinstance(action, at.StartDhcp):
                    await self.dhcp.start(name, action.slot, action.request)
                elif isinstance(action, at.StopDhcp):
                    self.dhcp.stop(name, action.slot)
                elif isinstance(action, at.Solicit):
                    link = self.snapshot.links.get(name)
                    solicit(name, link.mac if link else "")
                elif isinstance(action, at.DropPrefix):
                    await self._drop_automatic(state, action.prefix)
                elif isinstance(action, at.DropRouter):
                    await self.kernel.remove_announced_default(state.index, action.gateway)
                elif isinstance(action, at.DropAll):
                    await self._drop_all(state)
                elif isinstance(action, at.ListenToRouters):
                    self.kernel.set_sysctl(f"net/ipv6/conf/{name}/accept_ra", 2 if action.on else 0)
            except OSError as error:
                # Also a solicitation without a link-local address yet; the next one is already planned.
                self.log.write("failed", what=str(error))

    async def _drop_automatic(self, state: _State, prefix: str) -> None:
        for address in self.snapshot.addresses:
            if (state.index, address.address) in self.snapshot.automatic and address.index == state.index:
                if prefix and not at.same_prefix(address.address, prefix):
                    continue
                await self.kernel.remove_address(address)

    async def _drop_all(self, state: _State) -> None:
        for gateway in self.snapshot.routers.get(state.index, []):
            await self.kernel.remove_announced_default(state.index, gateway)
        await self._drop_automatic(state, "")

    # -- desired against actual ---------------------------------------------------------------------------------------
    async def _apply(self) -> bool:
        """Carry out the difference; whether there was one.

        Rules and routes come before the addresses that need them and stale rules before addresses go: whoever reacts to a
        new address finds its path working. New addresses come before old ones go, because the kernel removes all IPv4
        routes of an interface with its last address.
        """
        change = sr.address_diff(self._desired_addresses(), self._managed_addresses(), self._own)
        addresses = [item for item in self.snapshot.addresses if item not in change.remove] + list(change.add)
        self._stale = sr.remember(self._stale, self._held, [item.address for item in addresses])
        indices = {state.index for state in self.states.values() if state.index}
        self._held = {item.address for item in addresses if item.index in indices}
        desired = sr.desired_routing(
            self._interfaces(), addresses, self._gateways(), self._stale,
            self.config.congestion_control if self._congestion_how == "route" else "", self.preferred,
        )  # fmt: skip
        actions = sr.diff(desired, self.snapshot.routing)
        for action in actions:
            await self._try(_event_name(action), _describe(action), self.kernel.perform(action))
        for address in change.add:
            if await self._try("address-added", self._named_address(address), self.kernel.add_address(address)):
                self._own[(address.index, address.address)] = address.prefix_length
        for address in change.remove:
            if await self._try("address-removed", self._named_address(address), self.kernel.remove_address(address)):
                self._own.pop((address.index, address.address), None)
        return bool(actions or change.add or change.remove)

    def _managed_addresses(self) -> list[sr.Address]:
        indices = {state.index for state in self.states.values() if state.index}
        actual = [address for address in self.snapshot.addresses if address.index in indices]
        wanted = {(address.index, address.address) for address in [*actual, *self._desired_addresses()]}
        self._own = {key: length for key, length in self._own.items() if key in wanted}
        return actual

    def _named_address(self, address: sr.Address) -> dict[str, Any]:
        name = next((state.config.name for state in self.states.values() if state.index == address.index), None)
        return {"interface": name, "address": address.address, "prefix_length": address.prefix_length}

    async def _try(self, event: str, what: dict[str, Any], work: Any) -> bool:
        return await self.attempt(event, what, work, _HARMLESS)

    def _desired_addresses(self) -> list[sr.Address]:
        result = []
        for state in self.states.values():
            if not state.index or state.attachment.released:
                continue
            leases = [(lease.address, lease.prefix_length) for lease in state.attachment.leases]
            static = [ip_interface(value) for value in state.config.addresses]
            up = self._is_up(state)
            for address, length in leases + [(str(item.ip), item.network.prefixlen) for item in static]:
                # The kernel takes the IPv6 addresses of an interface that is administratively down away.
                if up or ":" not in address:
                    result.append(sr.Address(state.index, address, length))
        return result

    def _is_up(self, state: _State) -> bool:
        link = self.snapshot.links.get(state.config.name)
        return link is not None and link.up

    def _interfaces(self) -> list[sr.Interface]:
        return [
            sr.Interface(state.index, name, state.config.table, state.config.metric, self._is_up(state))
            for name, state in self.states.items()
            if state.index
        ]

    def _gateways(self) -> list[sr.Gateway]:
        result = []
        for state in self.states.values():
            if state.attachment.released:
                continue
            addresses = [lease.router for lease in state.attachment.leases if lease.router]
            addresses += [*state.config.gateways, *state.attachment.routers]
            result += [sr.Gateway(state.index, address) for address in addresses]
        return result

    # -- control ------------------------------------------------------------------------------------------------------
    async def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        async with self.lock:
            return {
                "agent": self.config.agent,
                "settled": self.settled and not self.inbox,
                "congestion_control": self._congestion(),
                "preferred": self.preferred,
                "stale": self._stale,
                "failures": list(self.failures.values()),
                "interfaces": [self._interface_status(state) for state in self.states.values()],
            }

    def _interface_status(self, state: _State) -> dict[str, Any]:
        link = self.snapshot.links.get(state.config.name)
        routes = self.snapshot.routing.routes
        return {
            "name": state.config.name,
            "present": link is not None,
            "up": link is not None and link.up,
            "carrier": link is not None and link.carrier,
            "table": state.config.table,
            "metric": state.config.metric,
            "released": state.attachment.released,
            "addresses": [item.address for item in self.snapshot.addresses if item.index == state.index],
            "gateways": sorted(route.gateway for route in routes if route.table == state.config.table and route.gateway),
            "leases": [vars(lease) for lease in state.attachment.leases],
            "prefixes": state.attachment.prefixes,
        }

    def _named(self, request: dict[str, Any]) -> _State:
        name = text_field(request, "interface")
        if name not in self.states:
            raise CommandError(f"no interface {name!r}: there are {', '.join(self.states)}")
        return self.states[name]

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        state, other = self._named(request), request.get("other", False)
        if not isinstance(other, bool):
            raise CommandError('"other" must be true or false')
        async with self.lock:
            self.log.write("release", interface=state.config.name, other=other)
            await self._perform(state, state.attachment.release())
            if other:
                # Automatic IPv6 addresses come from this number from now on (RFC 7217), not from the MAC.
                state.identity += 1
                name = f"net/ipv6/conf/{state.config.name}/stable_secret"
                self.kernel.set_sysctl(name, str(ip_address(STABLE_SECRET_BASE + state.identity)))
            await self.step()
            return self._interface_status(state)

    async def _acquire(self, request: dict[str, Any]) -> dict[str, Any]:
        state = self._named(request)
        async with self.lock:
            self.log.write("acquire", interface=state.config.name)
            await self._perform(state, state.attachment.acquire(self.now_s()))
            await self.step()
            return self._interface_status(state)

    async def _prefer(self, request: dict[str, Any]) -> dict[str, Any]:
        state = self._named(request)
        async with self.lock:
            self.preferred = state.config.name
            self.log.write("prefer", interface=state.config.name)
            await self.step()
            return {"preferred": self.preferred}


def _event_name(action: object) -> str:
    """StartDhcp -> start-dhcp"""
    name = type(action).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _describe(action: sr.Action) -> dict[str, Any]:
    return dict(vars(action.route if isinstance(action, sr.AddRoute | sr.DeleteRoute) else action.rule))


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError."""
    configuration = read_config(path)
    with EventLog(configuration.agent, configuration.event_log) as log:
        asyncio.run(_main(configuration, log))


async def _main(configuration: NetconfConfig, log: EventLog) -> None:
    await Netconf(configuration, log).run()
