"""The loop of the three roles: inputs go to the core, its actions are carried out in their order.

A failure of one action is logged and the others go on; a defect of the core is logged and the agent goes on. What must be
durable is on the disk before anything else of the same batch is done; further datagrams are taken meanwhile.
"""

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from agents.core.mobileip import actions as act
from agents.core.mobileip.actions import Action, Datagram, Now, Tunnel
from agents.kernel.control import CommandError, ControlServer, Handler
from agents.kernel.eventlog import EventLog
from agents.kernel.mobileip import links
from agents.kernel.mobileip.arp import ProxyArp
from agents.kernel.mobileip.clock import now
from agents.kernel.mobileip.configuration import AgentConfig
from agents.kernel.mobileip.forwarding import Forwarder
from agents.kernel.mobileip.netlink import MobileNetlink
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.pages import FIRST_PAGE, Page, page_of
from agents.kernel.mobileip.parameters import Parameters
from agents.kernel.mobileip.sockets import RegistrationSocket
from agents.kernel.mobileip.store import Batch, Commits
from agents.kernel.mobileip.tunnels.manager import Tunnels
from agents.kernel.proxy.agent import Problems

TIMER_LEAST_S: Final = 0.001
"""Between two looks at the core's deadlines: datagrams wait as well."""
REFRESH_S: Final = 30.0
"""How often old path MTUs are looked for."""
UNCOMMITTED_MAX: Final = 16
"""Batches that may wait for the disk; then datagrams wait in the socket's buffer."""
COMMIT_TIMEOUT_S: Final = 10.0
"""How long commands and the end of the agent wait for the disk."""
FORWARDED_AT_ONCE: Final = 256
"""Home addresses in one transaction of nft."""
_AFTER_FORWARDING: Final = (act.SendMessage, act.Log, act.DefendAddress, act.ReleaseAddress)
_TUNNEL_DATA: Final = 4
_LINE_FIELDS: Final = ("mono_ns", "wall_ns", "agent", "event")


class Core(Protocol):
    """What every role's core has."""

    def start(self, now: Now) -> list[Action]:
        """Begin."""

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        """A datagram to the registration port."""

    def handle_timer(self, now: Now) -> list[Action]:
        """A deadline has passed."""

    def next_deadline(self) -> float | None:
        """Monotonic seconds."""

    def status(self) -> dict[str, Any]:
        """For people."""


class Driver:
    """An agent. Roles add commands, sources of events and actions of their own by subclassing.

    interfaces: links on which agent discovery and link addresses matter; empty: none.
    """

    side = Side.HOME_AGENT

    def __init__(self, configuration: AgentConfig, core: Core, log: EventLog, interfaces: set[str]) -> None:
        self.config, self.core, self.log = configuration, core, log
        self.interfaces = interfaces
        self.problems = Problems(log)
        self.netlink = MobileNetlink()
        self.parameters = Parameters(note=f"{configuration.control}.parameters")
        self.tunnels = Tunnels(
            self.netlink, self._from_tunnel, self._from_engine,
            backend=configuration.tunnels, port=configuration.port, offloads=configuration.offloads,
        )  # fmt: skip
        self.forwarder = Forwarder(self.side, self.netlink, self.tunnels, self.parameters)
        self.registration = RegistrationSocket(configuration.port)
        self.listener = links.LinkListener(interfaces) if interfaces else None
        self.commits: Commits | None = None
        self._uncommitted = 0
        """Batches on their way to the disk: what comes later must not be done before them."""
        self._committed_all = asyncio.Event()
        self._committed_all.set()
        self._reading = True
        self.proxy_arp: ProxyArp | None = None
        self._control = ControlServer(configuration.control, self.commands())
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._perform_one: dict[type, Callable[[Any], None]] = self.performers()

    # -- for roles ----------------------------------------------------------------------------------------------------
    def commands(self) -> Mapping[str, Handler]:
        """Control commands by name."""
        return {
            "status": lambda request: self.status(page_of(request)),
            "bindings": lambda request: self.bindings_said(page_of(request)),
        }

    def performers(self) -> dict[type, Callable[[Any], None]]:
        """What carries out an action, by its type."""
        return {
            act.SendMessage: self._send_message,
            act.SendIcmp: self._send_icmp,
            act.OpenTunnel: lambda action: self._open(action.tunnel),
            act.CloseTunnel: lambda action: self._close(action.tunnel),
            act.Forwarding: self.forwarder.forward,
            act.Log: self._log,
        }

    def set_up(self) -> None:
        """Before the core starts. Raises OSError."""

    def tear_down(self) -> None:
        """After the last action, before forwarding is removed."""

    def heard(self, message: links.Heard, at: Now) -> list[Action]:
        """A message of agent discovery."""
        return []

    def unreachable(self, destination: str, code: int) -> None:
        """A message came back with ICMP "destination unreachable"."""

    def network_changed(self) -> None:
        """Interfaces or addresses have changed."""

    # -- life ---------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises OSError when the kernel refuses to start."""
        self._loop = loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            left = self.parameters.recover()
            if left:
                self.log.write("recovered", parameters=left)
            self.forwarder.install()
            self.set_up()
            loop.add_reader(self.registration.fileno(), self._on_datagrams)
            loop.add_reader(self.netlink.fileno(), self._on_network)
            if self.listener is not None:
                loop.add_reader(self.listener.fileno(), self._on_link)
            self.log.write("agent-started", pid=os.getpid())
            self.feed(self.core.start)
            self.network_changed()
            with contextlib.suppress(TimeoutError):
                await self.carried_out()
            self._refresh()
            await self._control.start()
            await stop.wait()
        finally:
            await self._control.close()
            with contextlib.suppress(TimeoutError):
                await self.carried_out()
            self._end()

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        descriptors = [self.registration.fileno(), self.netlink.fileno()]
        for descriptor in descriptors + ([self.listener.fileno()] if self.listener else []):
            loop.remove_reader(descriptor)
        steps: list[Callable[[], None]] = [
            self.tear_down,
            self.forwarder.remove,
            self.tunnels.shut_down,
            self.parameters.restore,
        ]
        steps += [source.close for source in (self.listener, self.commits) if source is not None]
        for step in [*steps, self.registration.close, self.netlink.close]:
            try:
                step()
            except OSError as error:
                self.log.write("failed", what=str(error))
        self.log.write("stopped", problems=self.problems.counts)

    # -- inputs -------------------------------------------------------------------------------------------------------
    def feed(self, work: Callable[..., list[Action]], *values: Any) -> None:
        """Call the core with the values and the time, then do what it wants."""
        self.perform(self._call(work, *values))
        self.plan()

    def _call(self, work: Callable[..., list[Action]], *values: Any) -> list[Action]:
        try:
            return work(*values, now())
        except Exception as error:
            self.defect(error)
            return []

    def defect(self, error: Exception) -> None:
        """An error of ours: it is logged with its place."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        self._problem("defect", what=repr(error)[:300], where=f"{os.path.basename(last.filename)}:{last.lineno}")

    def _problem(self, kind: str, **fields: Any) -> None:
        self.problems.note(kind, now().monotonic_s, **fields)

    def _on_datagrams(self) -> None:
        self._take(self.registration.receive())
        for destination, code in self.registration.unreachable():
            self.unreachable(destination, code)

    def _take(self, datagrams: list[Datagram]) -> None:
        """One batch: all that it changes is stored at once."""
        if self.listener is not None:
            self._on_link()
        pending: list[Action] = []
        for datagram in datagrams:
            if datagram.data[:1] == bytes((_TUNNEL_DATA,)):
                self._problem("stranger", source=datagram.source, port=datagram.source_port)
                continue
            pending += self._call(self.core.handle_datagram, self._with_link_address(datagram))
        self.perform(pending)
        self.plan()

    def _with_link_address(self, datagram: Datagram) -> Datagram:
        if self.listener is None:
            return datagram
        known = self.listener.link_address(datagram.interface, datagram.source)
        return Datagram(
            datagram.data, datagram.source, datagram.source_port, datagram.destination, datagram.interface, datagram.ttl, known
        )

    def _from_tunnel(self, tunnel: Tunnel, data: bytes, ttl: int) -> None:
        """In the engine's thread: a registration message came by a UDP tunnel's socket."""
        datagram = Datagram(data, tunnel.remote, tunnel.remote_port, tunnel.local, tunnel.interface, ttl)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._take, [datagram])

    def _from_engine(self, kind: str, fields: dict[str, Any]) -> None:
        """In the engine's thread: something for the log."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: self._problem(kind, **fields))

    def _on_link(self) -> None:
        assert self.listener is not None
        for message in self.listener.read():
            self.perform(self._call(self.heard, message))
        self.plan()

    def _on_network(self) -> None:
        if self.netlink.read_events():
            self.registration.forget_names()
            self.tunnels.refresh()
            self.network_changed()

    def _refresh(self) -> None:
        self.tunnels.refresh()
        asyncio.get_running_loop().call_later(REFRESH_S, self._refresh)

    # -- time ---------------------------------------------------------------------------------------------------------
    def plan(self) -> None:
        """Wake up at the core's next deadline."""
        try:
            deadline_s = self.core.next_deadline()
        except Exception as error:
            self.defect(error)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(deadline_s, loop.time() + TIMER_LEAST_S), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.feed(self.core.handle_timer)

    # -- actions ------------------------------------------------------------------------------------------------------
    def perform(self, wanted: list[Action]) -> None:
        """Carry out actions, in their order: at once, or when all that is to be stored is on the disk."""
        rest: list[Action] = [action for action in wanted if not isinstance(action, act.Store)]
        rows = [action for action in wanted if isinstance(action, act.Store)] if self.commits is not None else []
        if self.commits is None or not (rows or (rest and self._uncommitted)):
            self._carry_out(rest)
            return
        self._uncommitted += 1
        self._committed_all.clear()
        self._read_on()
        self.commits.put(Batch(rows, rest))

    def _from_commits(self, batches: list[Batch], error: Exception | None) -> None:
        """In the thread of the disk."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.committed, batches, error)

    def committed(self, batches: list[Batch], error: Exception | None) -> None:
        """The rows of these batches are on the disk, or the disk has refused them all."""
        rest = [action for batch in batches for action in batch.then]
        if error is not None:
            # Without durable state no reply may leave: the mobile nodes ask again.
            self._problem("failed", what=str(error) or repr(error))
            rest = [action for action in rest if not isinstance(action, act.SendMessage)]
        self._carry_out(rest)
        self._uncommitted -= len(batches)
        if not self._uncommitted:
            self._committed_all.set()
        self._read_on()

    def _read_on(self) -> None:
        """Take datagrams while not too much waits for the disk."""
        wanted = self._uncommitted < UNCOMMITTED_MAX
        if wanted == self._reading or self._loop is None:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self.registration.fileno(), self._on_datagrams)
        else:
            self._loop.remove_reader(self.registration.fileno())

    async def carried_out(self) -> None:
        """All that has been decided so far is done. Raises TimeoutError when the disk does not answer."""
        await asyncio.wait_for(self._committed_all.wait(), COMMIT_TIMEOUT_S)

    def _carry_out(self, rest: list[Action]) -> None:
        if self.side is not Side.HOME_AGENT:
            for action in rest:
                self._attempt(action)
            return
        for item in gathered(rest):
            if isinstance(item, list):
                self._forward_together(item)
            else:
                self._attempt(item)

    def _forward_together(self, group: list[act.Forwarding]) -> None:
        """Forwarding of many home addresses: together, and what the kernel refuses then one by one."""
        try:
            self.forwarder.forward(*group)
        except OSError:
            for action in group:
                self._attempt(action)

    def _attempt(self, action: Action) -> None:
        work = self._perform_one.get(type(action))
        if work is None:
            self._problem("failed", what=f"this role cannot do {type(action).__name__}")
            return
        try:
            work(action)
        except OSError as error:
            self._problem(f"failed-{type(action).__name__}", what=error.strerror or str(error), action=str(action)[:300])
        except Exception as error:
            self.defect(error)

    def _log(self, action: act.Log) -> None:
        # A field cannot have the name of one that every line has.
        fields = {f"{name}_" if name in _LINE_FIELDS else name: value for name, value in action.fields.items()}
        self.log.write(action.event, **fields)

    def _open(self, tunnel: Tunnel) -> None:
        known = self.tunnels.find(tunnel) is not None
        if tunnel.encapsulation is act.Encapsulation.NONE and self.listener is not None:
            # Without an address on the link nobody answers our ARP: the advertisement has told the agent's address.
            link_address = self.listener.link_address(tunnel.interface, tunnel.remote)
            if link_address:
                self.netlink.change_neighbour(tunnel.interface, tunnel.remote, link_address, add=True)
        port = self.forwarder.open(tunnel)
        if not known:
            self.log.write(
                "tunnel-open", device=port.device, local=tunnel.local, remote=tunnel.remote, remote_port=tunnel.remote_port,
                encapsulation=tunnel.encapsulation.value, backend=port.backend, mtu=port.mtu, interface=tunnel.interface,
                bid=tunnel.bid,
            )  # fmt: skip

    def _close(self, tunnel: Tunnel) -> None:
        port = self.tunnels.find(tunnel)
        self.forwarder.close(tunnel)
        if port is not None:
            counters = port.pipe.counters() if port.pipe else {}
            self.log.write("tunnel-closed", device=port.device, local=tunnel.local, remote=tunnel.remote, **counters)
            if tunnel.encapsulation is act.Encapsulation.NONE:
                self.netlink.change_neighbour(tunnel.interface, tunnel.remote, "00:00:00:00:00:00", add=False)

    def _send_message(self, message: act.SendMessage) -> None:
        if message.link_address and message.interface and self.listener is not None:
            packet = links.udp_packet(message, message.source or "0.0.0.0", self.config.port)
            self.listener.send(packet, message.interface, message.link_address)
        else:
            self.registration.send(message)

    def _send_icmp(self, message: act.SendIcmp) -> None:
        if self.listener is None:
            raise OSError(0, "no interface for agent discovery is configured")
        target = links.group_link_address(message.destination) or self.listener.link_address(
            message.interface, message.destination
        )
        if not target:
            raise OSError(0, f"no link address of {message.destination} on {message.interface}")
        packet = links.icmp_packet(message, self.address_on(message.interface))
        self.listener.send(packet, message.interface, target)

    def address_on(self, interface: str) -> str:
        """An IPv4 address of an interface; 0.0.0.0 when it has none."""
        index = next((link.index for link in self.netlink.links() if link.name == interface), 0)
        found = (item.address for item in self.netlink.addresses() if item.index == index and len(item.address) == 4)
        return ".".join(map(str, next(found, bytes(4))))

    # -- commands -----------------------------------------------------------------------------------------------------
    def command(self, work: Callable[..., list[Action]], *values: Any) -> dict[str, Any]:
        """A command to the core; its refusals go to the client."""
        try:
            wanted = work(*values, now())
        except KeyError as error:
            raise CommandError(f"{error.args[0] if error.args else error} is not configured") from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.perform(wanted)
        self.plan()
        return self.bindings_said()

    def bindings_said(self, page: Page = FIRST_PAGE) -> dict[str, Any]:
        """A page of the core's bindings, with the time that is left instead of a deadline, and how many there are."""
        rows, count = self.core_bindings(page)
        return {"bindings": self.with_time_left(rows), "count": count}

    def core_bindings(self, page: Page) -> tuple[list[dict[str, Any]], int]:
        """A page of bindings as the core says them, and how many it has."""
        rows: list[dict[str, Any]] = getattr(self.core, "bindings", list)()
        return page.of(rows), len(rows)

    @staticmethod
    def with_time_left(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Seconds that are left (None: for ever) instead of deadlines."""
        at_s, result = now().monotonic_s, []
        for row in rows:
            expires_s = row.get("expires_s")
            left_s = None if expires_s is None else round(expires_s - at_s, 3)
            result.append({**{name: value for name, value in row.items() if name != "expires_s"}, "remaining_s": left_s})
        return result

    def status(self, page: Page = FIRST_PAGE) -> dict[str, Any]:
        """For people: a page of each list, and in `counts` how long the lists are."""
        said = self.bindings_said(page)
        counts = {"bindings": said["count"], "tunnels": len(self.tunnels.ports), "forwarding": len(self.forwarder.active)}
        return {
            "agent": self.config.agent, "pid": os.getpid(), "problems": dict(self.problems.counts), "core": self.core.status(),
            "bindings": said["bindings"], "tunnels": self.tunnels.status(page.limit),
            "forwarding": self.forwarder.rows(page.limit), "packets": self.forwarder.counters(),
            "strangers": dict(self.tunnels.strangers), "counts": counts,
        }  # fmt: skip


def gathered(wanted: Sequence[Action]) -> list[Action | list[act.Forwarding]]:
    """Actions with the forwardings of many home addresses in groups: each transaction of nft waits for the whole kernel (RCU).

    Tunnels are opened before a group, and what came between its members follows it: no reply leaves before its packets can.
    """
    result: list[Action | list[act.Forwarding]] = []
    group: list[act.Forwarding] = []
    behind: list[Action] = []

    def close_group() -> None:
        for start in range(0, len(group), FORWARDED_AT_ONCE):
            part = group[start : start + FORWARDED_AT_ONCE]
            result.append(part if len(part) > 1 else part[0])
        result.extend(behind)
        group.clear()
        behind.clear()

    for action in wanted:
        if isinstance(action, act.Forwarding):
            group.append(action)
        elif group and isinstance(action, _AFTER_FORWARDING):
            behind.append(action)
        else:
            if not isinstance(action, act.OpenTunnel):
                close_group()
            result.append(action)
    close_group()
    return result


def serve(configuration: AgentConfig, make: Callable[[EventLog], Driver]) -> None:
    """Run an agent until SIGTERM. Raises OSError when the kernel refuses to start."""

    async def main() -> None:
        await make(log).run()

    with EventLog(configuration.agent, configuration.event_log) as log:
        try:
            asyncio.run(main())
        except OSError as error:
            log.write("failed", what=error.strerror or str(error))
            raise
