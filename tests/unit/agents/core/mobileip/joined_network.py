"""Mobile node, home agent and perhaps a foreign agent in memory, joined by a network that loses, repeats and reorders."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from agents.core.mobileip.actions import (
    Action,
    CloseTunnel,
    Datagram,
    Forwarding,
    Now,
    OpenTunnel,
    Probe,
    SendIcmp,
    SendMessage,
    Store,
    Tunnel,
)
from agents.core.mobileip.foreign_agent import ForeignAgent
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig, LinkConfig
from agents.core.mobileip.home_agent import HomeAgent
from agents.core.mobileip.home_agent_config import HomeAgentConfig
from agents.core.mobileip.home_agent_config import MobileNode as ServedNode
from agents.core.mobileip.mobile_node import MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceConfig, InterfaceState, MobileNodeConfig
from agents.wire.mobileip import selectors
from tests.unit.agents.core.mobileip.mn_parts import EPOCH_S, HOME, HOME_AGENT, HOME_NETWORK, KEY, LTE, WLAN

FA = "10.1.0.1"
MN_LINK_ADDRESS, FA_LINK_ADDRESS = "02::2", "02::1"
STEPS_MAX = 50_000


@dataclass
class Weather:
    """What the network does to messages."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_max_s: float = 0.05


@dataclass
class Ends:
    """The forwarding plane of one end, as its actions have left it."""

    opened: dict[Any, Tunnel] = field(default_factory=dict)
    forwarding: Forwarding | None = None

    def perform(self, action: Action) -> None:
        """Tunnels must be there while rules name them."""
        if isinstance(action, OpenTunnel):
            self.opened[action.tunnel.key] = action.tunnel
        elif isinstance(action, CloseTunnel):
            assert action.tunnel.key in self.opened, "closed without being open"
            del self.opened[action.tunnel.key]
            self._check()
        elif isinstance(action, Forwarding):
            self.forwarding = action
            self._check()

    def _check(self) -> None:
        if self.forwarding is None:
            return
        named = [tunnel for tunnel, _weight in self.forwarding.shares]
        named += [rule.tunnel for rule in self.forwarding.rules if rule.tunnel is not None]
        for tunnel in named:
            assert tunnel.key in self.opened, f"packets are sent into {tunnel}, which is not open"

    def way(self, packet: selectors.PacketFields) -> tuple[int, ...] | None:
        """BIDs that a packet from CN to MN (or its mirror image) may take; None: it is dropped."""
        if self.forwarding is None:
            return ()
        for rule in self.forwarding.rules:
            if selectors.matches(rule.selector, packet):
                return None if rule.tunnel is None else (rule.tunnel.bid,)
        return tuple(sorted(tunnel.bid for tunnel, _weight in self.forwarding.shares))


class World:
    """Everything, at one time. Skews are what the wall clocks are ahead of the true time."""

    def __init__(
        self, seed: int = 1, weather: Weather | None = None, foreign: bool = False, skew_s: float = 0.0,
        served: dict[str, Any] | None = None, **config: Any,
    ) -> None:  # fmt: skip
        self.draw = random.Random(seed)
        self.weather = weather or Weather()
        self.now_s, self.skew_s = 0.0, skew_s
        self.stored: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.interfaces: dict[str, InterfaceState] = {}
        self.silent: set[str] = set()
        """Interfaces that look fine and carry nothing."""
        wlan = replace(WLAN, co_located=not foreign)
        interfaces: tuple[InterfaceConfig, ...] = (wlan, replace(LTE, foreign_agent=False))
        known: dict[str, Any] = {"interfaces": interfaces, "lifetime_s": 20, "association": KEY}
        self.config = MobileNodeConfig(HOME, HOME_NETWORK, HOME_AGENT, **(known | config))
        node = ServedNode((KEY,), HOME, multipath=True, **(served or {}))
        self.agent_config = HomeAgentConfig((HOME_AGENT,), (node,), HOME_NETWORK)
        self.ends = {"mn": Ends(), "ha": Ends()}
        self.agent: HomeAgent | None = None
        self.foreign = None
        if foreign:
            config_fa = ForeignAgentConfig(
                FA, (LinkConfig("wlan", FA),), advertisement_interval_s=2.0, advertisement_lifetime_s=6
            )
            self.foreign = ForeignAgent(config_fa, self.draw.randbytes)
        self.start_agent()
        self.node = MobileNode(self.config, self.draw.randbytes)
        self.perform("mn", self.node.start(self.time("mn")))
        if self.foreign is not None:
            self.perform("fa", self.foreign.start(self.time("fa")))

    # -- time ---------------------------------------------------------------------------------------------------------
    def time(self, who: str) -> Now:
        """As this node sees it."""
        wall = EPOCH_S + self.now_s + (self.skew_s if who == "mn" else 0.0)
        return Now(self.now_s, int(wall) << 32 | int(wall % 1 * (1 << 32)))

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Something that happens in a while."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._number), what))

    def run(self, seconds: float, after_each: Callable[[], None] = lambda: None) -> None:
        """Time passes."""
        end_s = self.now_s + seconds
        for _ in range(STEPS_MAX):
            cores: list[tuple[str, Any]] = [("mn", self.node), ("ha", self.agent), ("fa", self.foreign)]
            times = [(core.next_deadline(), who, core) for who, core in cores if core is not None]
            due = min((time for time, _who, _core in times if time is not None), default=end_s)
            first = min(due, self._events[0][0] if self._events else end_s)
            if first >= end_s:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, first)
            if self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            else:
                for time, who, core in times:
                    if time is not None and time <= self.now_s:
                        self.perform(who, core.handle_timer(self.time(who)))
            after_each()
        raise AssertionError("a deadline that never passes")

    # -- nodes --------------------------------------------------------------------------------------------------------
    def start_agent(self) -> None:
        """The home agent begins with what is stored."""
        self.ends["ha"] = Ends()
        self.agent = HomeAgent(self.agent_config, self.draw.randbytes, {name: dict(rows) for name, rows in self.stored.items()})
        self.perform("ha", self.agent.start(self.time("ha")))

    def stop_agent(self) -> None:
        """The home agent dies."""
        self.agent = None

    def restart_node(self) -> None:
        """The mobile node has forgotten everything; its forwarding plane is empty."""
        self.ends["mn"] = Ends()
        self.node = MobileNode(self.config, self.draw.randbytes)
        self.perform("mn", self.node.start(self.time("mn")))
        self.tell_interfaces()

    def attach(self, interface: str, address: str | None) -> None:
        """The interface has a link, with this address or none."""
        self.interfaces[interface] = InterfaceState(interface, address=address)
        self.tell_interfaces()

    def detach(self, interface: str) -> None:
        """The interface has lost its link."""
        self.interfaces.pop(interface, None)
        self.tell_interfaces()

    def tell_interfaces(self) -> None:
        """The mobile node hears of its interfaces."""
        self.perform("mn", self.node.interfaces_changed(list(self.interfaces.values()), self.time("mn")))

    # -- network ------------------------------------------------------------------------------------------------------
    def perform(self, who: str, actions: list[Action]) -> None:
        """What a core has asked for."""
        for action in actions:
            if who in self.ends:
                self.ends[who].perform(action)
            if isinstance(action, SendMessage):
                self._send(who, action)
            elif isinstance(action, SendIcmp):
                self._send_icmp(who, action)
            elif isinstance(action, Probe):
                self._probe(action)
            elif isinstance(action, Store):
                rows = self.stored.setdefault(action.table, {})
                rows.pop(action.key, None)
                if action.value is not None:
                    rows[action.key] = action.value

    def _copies(self) -> list[float]:
        """Delays of the copies that arrive."""
        count = 1 + (self.draw.random() < self.weather.duplication)
        delays = [self.draw.uniform(0.001, self.weather.delay_max_s) for _ in range(count)]
        return [delay for delay in delays if self.draw.random() >= self.weather.loss]

    def _works(self, interface: str) -> bool:
        return interface in self.interfaces and interface not in self.silent

    def _send(self, who: str, message: SendMessage) -> None:
        if who == "mn" and not self._works(message.interface):
            return
        for delay_s in self._copies():
            self.later(delay_s, lambda: self._arrive(who, message))

    def _arrive(self, who: str, message: SendMessage) -> None:
        datagram = Datagram(message.data, message.source, 434, message.destination, ttl=message.ttl)
        if message.destination == HOME_AGENT:
            if self.agent is not None:
                self.perform("ha", self.agent.handle_datagram(datagram, self.time("ha")))
        elif message.destination == FA and self.foreign is not None:
            at_fa = replace(datagram, interface="wlan" if who == "mn" else "", link_address=MN_LINK_ADDRESS)
            self.perform("fa", self.foreign.handle_datagram(at_fa, self.time("fa")))
        else:
            self._arrive_at_node(who, message, datagram)

    def _arrive_at_node(self, who: str, message: SendMessage, datagram: Datagram) -> None:
        for name, interface in self.interfaces.items():
            here = interface.address == message.destination or (who == "fa" and message.link_address and name == "wlan")
            home = message.destination == HOME and self.config.is_home(interface.address)
            if (here or home) and self._works(name):
                at_mn = replace(datagram, interface=name, link_address=FA_LINK_ADDRESS)
                self.perform("mn", self.node.handle_datagram(at_mn, self.time("mn")))
                return

    def _send_icmp(self, who: str, icmp: SendIcmp) -> None:
        if self.foreign is None or not self._works("wlan") or icmp.interface != "wlan":
            return
        foreign = self.foreign
        for delay_s in self._copies():
            if who == "fa":
                self.later(delay_s, lambda: self._works("wlan") and self.perform("mn", self.node.handle_advertisement(
                    icmp.data, FA, FA_LINK_ADDRESS, "wlan", self.time("mn"))))  # fmt: skip
            else:
                self.later(delay_s, lambda: self.perform("fa", foreign.handle_solicitation(icmp.data, "wlan", self.time("fa"))))

    def _probe(self, probe: Probe) -> None:
        """It comes back when the path works and the home agent has the binding."""
        lost = self.draw.random() < self.weather.loss
        delay_s = self.draw.uniform(0.002, 2 * self.weather.delay_max_s)

        def result() -> None:
            known = any(bid in (0, probe.bid) and self._leads_to(care_of, probe) for bid, care_of in self.of_agent())
            good = not lost and known and self._works(probe.tunnel.interface) and delay_s < probe.timeout_s
            self.perform("mn", self.node.probe_result(probe.bid, delay_s * 1000 if good else None, self.time("mn")))

        self.later(min(delay_s, probe.timeout_s), result)

    def _leads_to(self, care_of: str, probe: Probe) -> bool:
        return care_of in (probe.tunnel.local, probe.tunnel.remote)

    # -- what both ends think -------------------------------------------------------------------------------------------
    def of_node(self) -> set[tuple[int, str]]:
        """(BID, care-of address) of the bindings that the mobile node has."""
        multipath = self.node.status()["multipath"]
        return {(item["bid"] if multipath else 0, item["care_of"]) for item in self.node.bindings()}

    def of_agent(self) -> set[tuple[int, str]]:
        """The same of the home agent; a dead one has those stored, which is not looked at."""
        return set() if self.agent is None else {(item["bid"], item["care_of_address"]) for item in self.agent.bindings()}


class Disagreement:
    """For how long a binding has been known at one end only."""

    def __init__(self, world: World, limit_s: float) -> None:
        self.world, self.limit_s = world, limit_s
        self._since: dict[tuple[str, int, str], float] = {}

    def look(self) -> None:
        """Fails when an end is alone with a binding for too long."""
        world = self.world
        if world.agent is None:
            return
        node, agent = world.of_node(), world.of_agent()
        # While the mobile node asks for a binding, the home agent may grant it again and again before a reply arrives.
        asking = {0 if item["bid"] and not world.node.status()["multipath"] else item["bid"]
                  for item in world.node.status()["interfaces"] if item["state"] in ("registering", "refreshing")}  # fmt: skip
        alone = {("mn", *item) for item in node - agent} | {("ha", *item) for item in agent - node if item[0] not in asking}
        self._since = {item: self._since.get(item, world.now_s) for item in alone}
        for item, since_s in self._since.items():
            assert world.now_s - since_s <= self.limit_s, f"{item} since {since_s}, now {world.now_s}"
