"""Role `proxy`: the lightweight MPTCP proxy of this host (Hampel and Klein): TCP inside, MPTCP outside.

The core decides; this is what it decides on and with: packets from the queues, addresses and interfaces, time, commands.
"""

import asyncio
import os
import signal
import traceback
from typing import Any, Final, Protocol

from agents.core.proxy.actions import Action, Answer, Deliver, Isolate, Log, Offload, Send, Verdict
from agents.core.proxy.config import LocalAddress
from agents.core.proxy.proxy import Proxy
from agents.kernel.control import ControlServer
from agents.kernel.eventlog import EventLog
from agents.kernel.netlink import KernelError
from agents.kernel.proxy.checksums import with_checksum
from agents.kernel.proxy.commands import Commands
from agents.kernel.proxy.configuration import AgentConfig, read_config
from agents.kernel.proxy.nfqueue import NfQueue, kernel_counters, open_queues
from agents.kernel.proxy.pinning import Pins
from agents.kernel.proxy.raw import RawSender
from agents.kernel.proxy.rtnetlink import Link, RtNetlink, text
from agents.kernel.proxy.rules import OWN_MARK, QUEUES, RELEASE_MARK, Rules
from agents.kernel.proxy.surroundings import GSO_MAX_BYTES, Parameters, alive, local_addresses, smallest_mtu

UNPIN_CHECK_S: Final = 10.0
"""How often connections on vanished addresses are looked for, while there are such addresses."""
PROBLEM_INTERVAL_S: Final = 1.0
"""A problem of the same kind is logged so often at most; it is counted in any case."""
TIMER_LEAST_S: Final = 0.001
"""Between two looks at the core's timers: it may ask again at once, but packets wait as well."""
_OUTBOUND, _INBOUND, _OUTBOUND_MIDDLE, _INBOUND_MIDDLE = range(QUEUES)


class Core(Protocol):
    """What the agent needs of agents.core.proxy.proxy.Proxy."""

    def outbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = ...) -> Answer:
        """A packet of this host's TCP."""

    def inbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = ...) -> Answer:
        """A packet from the network."""

    def knows(self, packet: bytes) -> bool:
        """Whether the packet belongs to a connection of the proxy, in either direction."""

    def application_addresses(self) -> set[bytes]:
        """Local addresses that this host's TCP uses in connections of the proxy."""

    def address_pairs(self) -> set[tuple[bytes, bytes]]:
        """Local and remote addresses of all connections, as this host's TCP knows them."""

    def next_deadline(self) -> float | None:
        """Monotonic seconds."""

    def handle_timer(self, now: float, actions: list[Action]) -> None:
        """A deadline has passed."""

    def shut_down(self, actions: list[Action]) -> None:
        """End every connection."""

    def addresses_changed(self, addresses: list[LocalAddress], now: float, actions: list[Action]) -> None:
        """All local addresses, after a change."""

    def status(self) -> dict[str, Any]:
        """For people."""

    def connections(self) -> list[dict[str, Any]]:
        """For people."""


class Problems:
    """Counts what goes wrong, and logs the first of a kind in every PROBLEM_INTERVAL_S."""

    def __init__(self, log: EventLog) -> None:
        self.counts: dict[str, int] = {}
        self._log = log
        self._next_s: dict[str, float] = {}

    def note(self, kind: str, now: float, **fields: Any) -> None:
        """Something of a kind went wrong."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if now >= self._next_s.get(kind, 0.0):
            self._next_s[kind] = now + PROBLEM_INTERVAL_S
            self._log.write(kind, count=self.counts[kind], **fields)


class ProxyAgent:
    """The agent: one event loop, nothing polled but vanished addresses."""

    def __init__(self, configuration: AgentConfig, core: Core, log: EventLog) -> None:
        self.config, self.core, self.log = configuration, core, log
        self.problems = Problems(log)
        self.raw = RawSender(
            lambda address, reason: self.problems.note("send-failed", self._now(), address=address, reason=reason)
        )
        self.netlink = RtNetlink()
        self.pins = Pins(self.netlink, log)
        self.parameters = Parameters()
        self.addresses: list[LocalAddress] = []
        self.commands = Commands(core, self)
        self._queues = range(configuration.first_queue, configuration.first_queue + QUEUES)
        link = open_queues(self._queues, gso=configuration.gso)
        self._queue = NfQueue(link, own_mark=OWN_MARK, release_mark=RELEASE_MARK)
        self._rules = Rules(configuration.filters, configuration.first_queue, configuration.control + ".xtables.lock")
        self._control = ControlServer(configuration.control, self.commands.table())
        self._costs = {item.name: item.cost for item in configuration.interfaces}
        self._actions: list[Action] = []
        self._timer: asyncio.TimerHandle | None = None
        self._unpin: asyncio.TimerHandle | None = None
        self._overruns = 0
        self._gso_before: dict[int, int] = {}

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises OSError when the kernel refuses to start."""
        self._rules.check_alone()
        loop = asyncio.get_running_loop()
        self._now = loop.time  # type: ignore[method-assign]
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            self.pins.adopt()
            self.refresh()
            # The queues have an owner before rules lead to them.
            loop.add_reader(self._queue.fileno(), self._on_packets)
            self._rules.install()
            self.log.write("started", queues=list(self._queues), gso=self.config.gso, addresses=self._rows())
            loop.add_reader(self.netlink.fileno(), self._on_change)
            await self._control.start()
            await stop.wait()
        finally:
            loop.remove_reader(self._queue.fileno())
            loop.remove_reader(self.netlink.fileno())
            await self._control.close()
            self._tear_down()

    def _tear_down(self) -> None:
        self.core.shut_down(self._actions)
        self.perform()
        try:
            self._rules.remove()
        except OSError as error:
            self.log.write("failed", what=error.strerror or str(error))
        self.pins.close()
        self.parameters.restore()
        for index, size in self._gso_before.items():
            self._set_gso_max(index, size)
        self._queue.close()
        self.raw.close()
        self.netlink.close()
        self.log.write("stopped", **self.counters())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    # -- packets ------------------------------------------------------------------------------------------------------
    def _on_packets(self) -> None:
        self._queue.drain(self._show, self._actions, self.perform)
        if self._queue.counters.overruns != self._overruns:
            self._overruns = self._queue.counters.overruns
            self.problems.note("queue-overrun", self._now())
        self.plan()

    def _show(self, queue: int, packet: bytes, offload: Offload) -> Answer:
        """The core's answer to a packet. A defect of ours must not end the agent: the packet is lost, like any other may be."""
        which = queue - self._queues[0]
        try:
            if which >= _OUTBOUND_MIDDLE:
                if not self.core.knows(packet):
                    return Verdict.RELEASE
                which -= _OUTBOUND_MIDDLE
            if which == _OUTBOUND:
                answer = self.core.outbound(packet, self._now(), self._actions, offload)
                if isinstance(answer, bytes):
                    self._hold(packet)
            else:
                if offload is not Offload.NONE:
                    packet = with_checksum(packet)
                answer = self.core.inbound(packet, self._now(), self._actions, Offload.NONE)
            if self._actions:
                self._write_logs()
        except Exception as error:
            self._defect(error, packet=packet[:80].hex())
            return Verdict.DROP
        return answer

    def _defect(self, error: Exception, **fields: Any) -> None:
        """An error of ours; it is logged with its place, and the agent goes on."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        self.problems.note("defect", self._now(), what=repr(error)[:300], where=where, **fields)

    def _hold(self, packet: bytes) -> None:
        source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        if source not in self.pins.held:
            self.pins.hold(source)

    def perform(self) -> None:
        """Carry out what the core wants done, in its order."""
        pending = self._actions[:]
        self._actions.clear()
        for action in pending:
            if type(action) is Send:
                self.raw.send(action.packet)
            elif type(action) is Deliver:
                self.raw.deliver(action.packet)
            elif type(action) is Isolate:
                self.pins.isolate((action.local, action.remote))
                self._watch_pins()
            elif type(action) is Log:
                self.log.write(action.event, **action.fields)

    def _write_logs(self) -> None:
        """Log lines need not keep their place among the packets: a batch goes on."""
        for action in self._actions:
            if type(action) is Log:
                self.log.write(action.event, **action.fields)
        self._actions[:] = [action for action in self._actions if type(action) is not Log]

    @property
    def actions(self) -> list[Action]:
        """Where the core puts its actions; `perform` carries them out."""
        return self._actions

    # -- time ---------------------------------------------------------------------------------------------------------
    def plan(self) -> None:
        """Wake up at the core's next deadline. A timer that rings early costs less than moving it with every packet."""
        deadline = self.core.next_deadline()
        if deadline is not None:
            deadline = max(deadline, self._now() + TIMER_LEAST_S)
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self._now():
            try:
                self.core.handle_timer(self._now(), self._actions)
            except Exception as error:
                self._defect(error)
            self.perform()
        self.plan()

    # -- surroundings -------------------------------------------------------------------------------------------------
    def _on_change(self) -> None:
        if self.netlink.read_events():
            self.refresh()

    def refresh(self) -> None:
        """Look at interfaces and addresses; tell the core when they have changed."""
        try:
            links, found = self.netlink.links(), self.netlink.addresses()
        except KernelError as error:
            self.problems.note("failed", self._now(), what=error.strerror)
            return
        self._prepare(links)
        self.pins.set_mtu(smallest_mtu(links, self._costs))
        self.pins.update(alive(links, found), self.core.application_addresses())
        self._watch_pins()
        addresses = local_addresses(links, found, self._costs, lambda address: self.netlink.leaves_by(address, OWN_MARK))
        if addresses != self.addresses:
            for gone in {item.address for item in self.addresses} - {item.address for item in addresses}:
                self.raw.forget(gone)
            self.addresses = addresses
            self.log.write("addresses", addresses=self._rows())
            try:
                self.core.addresses_changed(addresses, self._now(), self._actions)
            except Exception as error:
                self._defect(error)
            self.perform()
            self.plan()

    def _prepare(self, links: list[Link]) -> None:
        names = ["all", *(link.name for link in links if link.name != "lo" and (not self._costs or link.name in self._costs))]
        for name in names:
            refused = self.parameters.set(name)
            if refused:
                self.problems.note("failed", self._now(), what=refused)
        if not self.config.gso:
            return
        for link in links:
            if link.gso_max_bytes > GSO_MAX_BYTES and (link.name in names or link.name == "lo"):
                self._gso_before.setdefault(link.index, link.gso_max_bytes)
                self._set_gso_max(link.index, GSO_MAX_BYTES)

    def _set_gso_max(self, index: int, size: int) -> None:
        try:
            self.netlink.set_gso_max(index, size)
        except KernelError as error:
            self.problems.note("failed", self._now(), what=error.strerror)

    def _watch_pins(self) -> None:
        """Addresses that are gone, and routes of connections, must be let go when connections end, which is no event."""
        if self._unpin is None and (self.pins.detoured or self.pins.isolated):
            self._unpin = asyncio.get_running_loop().call_later(UNPIN_CHECK_S, self._check_pins)

    def _check_pins(self) -> None:
        self._unpin = None
        self.pins.let_go(self.core.address_pairs())
        self.refresh()

    # -- for the control socket ---------------------------------------------------------------------------------------
    def counters(self) -> dict[str, Any]:
        """What has happened so far."""
        sent = {"sent": self.raw.sent, "delivered": self.raw.delivered, "failed": self.raw.failed}
        return {"queue": vars(self._queue.counters).copy(), "raw": sent, "problems": dict(self.problems.counts)}

    def state(self) -> dict[str, Any]:
        """The agent's own part of `status`."""
        return {
            "agent": self.config.agent,
            "pid": os.getpid(),
            **self.counters(),
            "kernel": kernel_counters(self._queues),
            "addresses": self._rows(),
            "pinned": sorted(map(text, self.pins.held)),
            "detoured": sorted(map(text, self.pins.detoured)),
        }

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"address": text(item.address), "interface": item.interface, "usable": item.usable, "cost": item.cost}
            for item in self.addresses
        ]


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, OSError."""
    configuration = read_config(path)
    serve(configuration, Proxy(configuration.proxy, os.urandom))


def serve(configuration: AgentConfig, core: Core) -> None:
    """Run the agent with a core until SIGTERM. Raises OSError when the kernel refuses to start."""

    async def main() -> None:
        await ProxyAgent(configuration, core, log).run()

    with EventLog(configuration.agent, configuration.event_log) as log:
        try:
            asyncio.run(main())
        except OSError as error:
            log.write("failed", what=error.strerror or str(error))
            raise
