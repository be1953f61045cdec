"""Role `mobile-node`: a host with a home address or several, registered over its networks."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any, Final

from agents import config
from agents.config import Table
from agents.core.mobileip.actions import Action, AtHome, Encapsulation, Forwarding, Now, Probe
from agents.core.mobileip.discovery import DiscoveryConfig
from agents.core.mobileip.mobile_homes import MobileHomes
from agents.core.mobileip.mobile_node import MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceConfig, InterfaceState, MobileNodeConfig
from agents.core.mobileip.selection import SELECTIONS
from agents.kernel.control import CommandError, Handler, text_field
from agents.kernel.eventlog import EventLog
from agents.kernel.mobileip import configuration as read
from agents.kernel.mobileip import links
from agents.kernel.mobileip.arp import Announcer
from agents.kernel.mobileip.configuration import AgentConfig
from agents.kernel.mobileip.driver import Driver, serve
from agents.kernel.mobileip.forwarding import HOME_TABLES, HomeAddress, first_usable
from agents.kernel.mobileip.home_agent import policy_of
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.pages import FIRST_PAGE, Page
from agents.kernel.mobileip.probes import Probes
from agents.wire.mobileip.values import NO_ADDRESS, AccessTechnology

_PARAMETERS: Final = {"rp_filter": 0, "arp_ignore": 1, "arp_announce": 2}
"""Of the physical interfaces: on a visited link nobody may learn by ARP of the home address (RFC 5944 section 4.6)."""


@dataclass(frozen=True)
class HomeFile:
    """A home address as the TOML file describes it."""

    core: MobileNodeConfig
    gateway: str = ""
    """Router of the home link; "": the one that the interface's default route names."""


@dataclass(frozen=True)
class MobileNodeFile:
    """What the TOML file says."""

    agent: AgentConfig
    core: MobileNodeConfig
    home_gateway: str = ""
    congestion_control: str = ""
    """Of TCP connections that use a home address; "": what the namespace has."""
    further: tuple[HomeFile, ...] = ()
    """Home addresses besides the first: same networks, home agents of their own."""

    @property
    def homes(self) -> tuple[HomeFile, ...]:
        """All home addresses, the preferred one first."""
        return HomeFile(self.core, self.home_gateway), *self.further


def read_config(path: str) -> MobileNodeFile:
    """The configuration in a TOML file. Raises ConfigError."""
    top = config.load(path)
    agent = read.read_agent(top, "mobile-node")
    gateway, congestion_control = read.address(top, "home_gateway", ""), top.text("congestion_control", "")
    leave = ("flows", "selection", "settings", "discovery", "nai")
    values = read.scalars(top, MobileNodeConfig, leave)
    discovery, selection = top.table("discovery"), top.table("settings")
    values |= {
        "home_address": read.address(top, "home_address", NO_ADDRESS),
        "home_network": read.prefix(top, "home_network"),
        "home_agent": read.address(top, "home_agent"),
        "association": read.association(top),
        "nai": str(top.text("nai", "")).encode(),
        "interfaces": tuple(map(_interface, top.tables("interface"))),
        "flows": tuple(map(_flow, top.tables("flow"))),
        "selection": top.choice("selection", tuple(SELECTIONS), "per-flow"),
        "settings": read.settings(selection),
        "discovery": read.made(discovery, DiscoveryConfig, read.scalars(discovery, DiscoveryConfig)),
        "foreign_associations": dict(map(_foreign_agent, top.tables("foreign_agent"))),
    }
    further = top.tables("home")
    for table in (discovery, selection, top):
        table.finish()
    if not values["interfaces"]:
        raise top.error("interface", "is missing: write [[interface]] with name and bid")
    if values["home_address"] == NO_ADDRESS and not values["nai"]:
        raise top.error("home_address", "is missing: write it, or an nai for which the home agent gives one")
    core = read.made(top, MobileNodeConfig, values)
    return MobileNodeFile(agent, core, gateway, congestion_control, _further_homes(top, core, further))


def _further_homes(top: Table, first: MobileNodeConfig, tables: list[Table]) -> tuple[HomeFile, ...]:
    """Tables [[home]]: what differs from the first home address; without `spi` its security association is shared."""
    if tables and first.home_address == NO_ADDRESS:
        raise top.error("home", "several home addresses must all be written: home_address is missing")
    if len(tables) >= len(HOME_TABLES):
        raise top.error("home", f"at most {len(HOME_TABLES)} home addresses")
    result, known = [], {first.home_address}
    for table in tables:
        values: dict[str, Any] = {"home_address": read.address(table, "home_address")}
        values |= {"home_network": read.prefix(table, "home_network"), "home_agent": read.address(table, "home_agent")}
        gateway = read.address(table, "home_gateway", "")
        if table.has("spi"):
            values["association"] = read.association(table)
        table.finish()
        if values["home_address"] in known:
            raise table.error("home_address", f"{values['home_address']} is there twice")
        known.add(values["home_address"])
        result.append(HomeFile(replace(first, **values), gateway))
    return tuple(result)


def _interface(table: Table) -> InterfaceConfig:
    values = read.scalars(table, InterfaceConfig, ("technology", "encapsulation"))
    words = [item.name.lower() for item in AccessTechnology if item]
    values |= {
        "name": table.text("name"),
        "bid": table.number("bid", 1, 254),
        "technology": int(AccessTechnology[table.choice("technology", words, "virtual").upper()]),
        "encapsulation": Encapsulation(table.choice("encapsulation", ("ipip", "gre", "udp"), "ipip")),
    }
    table.finish()
    return read.made(table, InterfaceConfig, values)


def _flow(table: Table) -> Any:
    result = read.flow(table)
    table.finish()
    return result


def _foreign_agent(table: Table) -> tuple[str, Any]:
    result = read.address(table, "address"), read.association(table)
    table.finish()
    return result


@dataclass
class _Place:
    """A home address in this namespace."""

    file: HomeFile
    network: IPv4Network
    home: HomeAddress
    probes: Probes | None = None


class MobileNodeDriver(Driver):
    """The agent of the role."""

    side = Side.MOBILE_NODE

    def __init__(self, file: MobileNodeFile, core: MobileHomes, log: EventLog) -> None:
        names = {interface.name for interface in file.core.interfaces}
        super().__init__(file.agent, core, log, names)
        self.mobile_node, self._file = core, file
        self._places = [self._place(number, home) for number, home in enumerate(file.homes)]
        self._announcer = Announcer()
        self._states: list[InterfaceState] | None = None
        self._signals: dict[str, float] = {}

    def _place(self, number: int, home: HomeFile) -> "_Place":
        network = IPv4Network(home.core.home_network)
        address = HomeAddress(self.netlink, network.prefixlen, self._file.congestion_control, number)
        return _Place(home, network, address)

    def performers(self) -> dict[type, Callable[[Any], None]]:
        """What carries out an action, by its type."""
        return {**super().performers(), Forwarding: self._forward, AtHome: self._at_home, Probe: self._probe}

    def set_up(self) -> None:
        """A home address is there from the beginning, if it is known."""
        for name in self.interfaces:
            self._prepare(name)
        for place in self._places:
            self._adopt(place, place.file.core.home_address)

    def _prepare(self, name: str) -> None:
        for parameter, value in _PARAMETERS.items():
            self.parameters.set(f"net/ipv4/conf/{name}/{parameter}", value)

    def tear_down(self) -> None:
        """No home address any more."""
        self._announcer.close()
        for place in self._places:
            if place.probes is not None:
                place.probes.close()
            place.home.drop()

    # -- surroundings -------------------------------------------------------------------------------------------------
    def network_changed(self) -> None:
        """Tell the core of its interfaces when they are different."""
        states = self._interface_states()
        if states != self._states:
            for state in states:
                self._prepare(state.name)
            self._states = states
            self.log.write("interfaces", interfaces=[_row(state) for state in states])
            self.feed(self.mobile_node.interfaces_changed, states)

    def _interface_states(self) -> list[InterfaceState]:
        before = {state.name: state.address for state in self._states or ()}
        own, at_home = {place.home.address for place in self._places}, any(place.home.at_home for place in self._places)
        addresses: dict[int, list[str]] = {}
        for item in self.netlink.addresses():
            if len(item.address) == 4 and item.usable and not item.pinned:
                addresses.setdefault(item.index, []).append(".".join(map(str, item.address)))
        result = []
        for link in self.netlink.links():
            if link.name not in self.interfaces:
                continue
            found = addresses.get(link.index, [])
            # While it is here as a visitor would be, a home address is no care-of address.
            found = [text for text in found if text not in own] or (found if not at_home else [])
            last = before.get(link.name)
            chosen = last if last in found else next(iter(found), None)
            signal = self._signals.get(link.name)
            result.append(InterfaceState(link.name, link.up, link.carrier, chosen, signal_dbm=signal))
        return result

    def heard(self, message: links.Heard, at: Now) -> list[Action]:
        """An agent's advertisement."""
        if message.data[:1] != bytes((links.ADVERTISEMENT,)):
            return []
        return self.mobile_node.handle_advertisement(
            message.data, message.source, message.link_address, message.interface, at
        )  # fmt: skip

    # -- actions ------------------------------------------------------------------------------------------------------
    def _of(self, home_address: str) -> "_Place":
        """Where a home address is kept; one that no configuration names has been given to the only one."""
        return next((place for place in self._places if place.home.address == home_address), self._places[0])

    def _adopt(self, place: "_Place", home_address: str) -> None:
        if home_address in (place.home.address, NO_ADDRESS):
            return
        place.home.adopt(home_address)
        self.forwarder.homes = {item.home.address for item in self._places if item.home.address}
        if place.probes is not None:
            place.probes.close()
        token = int.from_bytes(os.urandom(2), "big")
        place.probes = Probes(home_address, place.file.core.home_agent, token, self._probed)
        self.log.write("home-address", address=home_address)

    def _forward(self, forwarding: Forwarding) -> None:
        place = self._of(forwarding.home_address)
        self._adopt(place, forwarding.home_address)
        self.forwarder.forward(forwarding)
        place.home.away(first_usable(forwarding, self.tunnels))

    def _at_home(self, action: AtHome) -> None:
        place = self._of(action.home_address)
        home, network = place.home, str(place.network.network_address)
        if not action.here:
            self._announcer.end(home.address)
            home.leave(network)
            home.away(first_usable(self.forwarder.active.get(home.address), self.tunnels))
            self.log.write("home-left", interface=action.interface)
            return
        if home.at_home and home.at_home != action.interface:
            home.leave(network)
        gateway = place.file.gateway or self.netlink.default_gateway(action.interface)
        home.arrive(action.interface, network, gateway)
        self._announcer.begin(home.address, action.interface)
        self.log.write("home-reached", interface=action.interface, gateway=gateway)

    def _probe(self, probe: Probe) -> None:
        port, probes = self.tunnels.find(probe.tunnel), self._of(probe.home_address).probes
        if probes is None:
            raise OSError(0, "there is no home address to probe from")
        probes.send(probe, port.number if port else None)

    def _probed(self, probe: Probe, rtt_ms: float | None) -> None:
        self.feed(self.mobile_node.probe_result, probe, rtt_ms)

    # -- commands -----------------------------------------------------------------------------------------------------
    def commands(self) -> Mapping[str, Handler]:
        """Control commands by name."""
        return {
            **super().commands(), "register": self._register, "deregister": self._deregister, "policy": self._policy,
            "handover": self._handover, "signal": self._signal,
        }  # fmt: skip

    def status(self, page: Page = FIRST_PAGE) -> dict[str, Any]:
        """Everything, for people."""
        states = [_row(state) for state in self._states or ()]
        homes = [{"home_address": place.home.address, "home_agent": place.file.core.home_agent, "at_home": place.home.at_home}
                 for place in self._places]  # fmt: skip
        first = {name: homes[0][name] for name in ("home_address", "at_home")}
        return {**super().status(page), **first, "homes": homes, "interfaces": states}

    def _register(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.register, self._named(request))

    def _deregister(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.deregister, self._named(request))

    def _handover(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.handover, text_field(request, "interface"))

    def _policy(self, request: dict[str, Any]) -> dict[str, Any]:
        flows = policy_of(request)
        said = self.command(self.mobile_node.set_policy, self._file.core.flows if flows is None else flows)
        return {**said, "warnings": self.core.status()["warnings"]}

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        """The strength of a signal, which no emulated link has: for scenarios."""
        name, value = text_field(request, "interface"), request.get("dbm")
        if name not in self.interfaces:
            raise CommandError(f"{name} is not configured")
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise CommandError('"dbm" must be a number')
        if value is None:
            self._signals.pop(name, None)
        else:
            self._signals[name] = float(value)
        self.network_changed()
        return {"signals": dict(self._signals)}

    @staticmethod
    def _named(request: dict[str, Any]) -> str | None:
        return text_field(request, "interface") if "interface" in request else None


def _row(state: InterfaceState) -> dict[str, Any]:
    return {
        "name": state.name, "up": state.up, "carrier": state.carrier, "address": state.address, "signal_dbm": state.signal_dbm
    }  # fmt: skip


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, OSError."""
    file = read_config(path)
    nodes = {"" if home.core.home_address == NO_ADDRESS else home.core.home_address: MobileNode(home.core, os.urandom)
             for home in file.homes}  # fmt: skip
    core = MobileHomes(nodes)
    serve(file.agent, lambda log: MobileNodeDriver(file, core, log))
