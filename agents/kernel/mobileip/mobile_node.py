"""Role `mobile-node`: a host with a home address, registered over its networks."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Final

from agents import config
from agents.config import Table
from agents.core.mobileip.actions import Action, AtHome, Encapsulation, Forwarding, Now, Probe
from agents.core.mobileip.discovery import DiscoveryConfig
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
from agents.kernel.mobileip.forwarding import HomeAddress, first_usable
from agents.kernel.mobileip.home_agent import policy_of
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.probes import Probes
from agents.wire.mobileip.values import NO_ADDRESS, AccessTechnology

_PARAMETERS: Final = {"rp_filter": 0, "arp_ignore": 1, "arp_announce": 2}
"""Of the physical interfaces: on a visited link nobody may learn by ARP of the home address (RFC 5944 section 4.6)."""


@dataclass(frozen=True)
class MobileNodeFile:
    """What the TOML file says."""

    agent: AgentConfig
    core: MobileNodeConfig
    home_gateway: str = ""
    """Router of the home link; "": the one that the interface's default route names."""
    congestion_control: str = ""
    """Of TCP connections that use the home address; "": what the namespace has."""


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
    for table in (discovery, selection, top):
        table.finish()
    if not values["interfaces"]:
        raise top.error("interface", "is missing: write [[interface]] with name and bid")
    if values["home_address"] == NO_ADDRESS and not values["nai"]:
        raise top.error("home_address", "is missing: write it, or an nai for which the home agent gives one")
    return MobileNodeFile(agent, read.made(top, MobileNodeConfig, values), gateway, congestion_control)


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


class MobileNodeDriver(Driver):
    """The agent of the role."""

    side = Side.MOBILE_NODE

    def __init__(self, file: MobileNodeFile, core: MobileNode, log: EventLog) -> None:
        names = {interface.name for interface in file.core.interfaces}
        super().__init__(file.agent, core, log, names)
        self.mobile_node, self._file = core, file
        self._network = IPv4Network(file.core.home_network)
        self._home = HomeAddress(self.netlink, self._network.prefixlen, file.congestion_control)
        self._announcer = Announcer()
        self._probes: Probes | None = None
        self._states: list[InterfaceState] | None = None
        self._signals: dict[str, float] = {}

    def performers(self) -> dict[type, Callable[[Any], None]]:
        """What carries out an action, by its type."""
        return {**super().performers(), Forwarding: self._forward, AtHome: self._at_home, Probe: self._probe}

    def set_up(self) -> None:
        """The home address is there from the beginning, if it is known."""
        for name in self.interfaces:
            self._prepare(name)
        if self._file.core.home_address != NO_ADDRESS:
            self._adopt(self._file.core.home_address)

    def _prepare(self, name: str) -> None:
        for parameter, value in _PARAMETERS.items():
            self.parameters.set(f"net/ipv4/conf/{name}/{parameter}", value)

    def tear_down(self) -> None:
        """The home address is gone."""
        if self._probes is not None:
            self._probes.close()
        self._announcer.close()
        self._home.drop()

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
        addresses: dict[int, list[str]] = {}
        for item in self.netlink.addresses():
            if len(item.address) == 4 and item.usable and not item.pinned:
                addresses.setdefault(item.index, []).append(".".join(map(str, item.address)))
        result = []
        for link in self.netlink.links():
            if link.name not in self.interfaces:
                continue
            found = addresses.get(link.index, [])
            # While it is here as a visitor would be, the home address is no care-of address.
            found = [text for text in found if text != self._home.address] or (found if not self._home.at_home else [])
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
    def _adopt(self, home_address: str) -> None:
        if home_address in (self._home.address, NO_ADDRESS):
            return
        self._home.adopt(home_address)
        self.forwarder.homes = {home_address}
        if self._probes is not None:
            self._probes.close()
        token = int.from_bytes(os.urandom(2), "big")
        self._probes = Probes(home_address, self._file.core.home_agent, token, self._probed)
        self.log.write("home-address", address=home_address)

    def _forward(self, forwarding: Forwarding) -> None:
        self._adopt(forwarding.home_address)
        self.forwarder.forward(forwarding)
        self._home.away(first_usable(forwarding, self.tunnels))

    def _at_home(self, action: AtHome) -> None:
        network = str(self._network.network_address)
        if not action.here:
            self._announcer.end(self._home.address)
            self._home.leave(network)
            self._home.away(first_usable(self.forwarder.active.get(self._home.address), self.tunnels))
            self.log.write("home-left", interface=action.interface)
            return
        if self._home.at_home and self._home.at_home != action.interface:
            self._home.leave(network)
        gateway = self._file.home_gateway or self.netlink.default_gateway(action.interface)
        self._home.arrive(action.interface, network, gateway)
        self._announcer.begin(self._home.address, action.interface)
        self.log.write("home-reached", interface=action.interface, gateway=gateway)

    def _probe(self, probe: Probe) -> None:
        port = self.tunnels.find(probe.tunnel)
        if self._probes is None:
            raise OSError(0, "there is no home address to probe from")
        self._probes.send(probe, port.number if port else None)

    def _probed(self, probe: Probe, rtt_ms: float | None) -> None:
        self.feed(self.mobile_node.probe_result, probe.bid, rtt_ms)

    # -- commands -----------------------------------------------------------------------------------------------------
    def commands(self) -> Mapping[str, Handler]:
        """Control commands by name."""
        return {
            **super().commands(), "register": self._register, "deregister": self._deregister, "policy": self._policy,
            "handover": self._handover, "signal": self._signal,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Everything, for people."""
        states = [_row(state) for state in self._states or ()]
        return {**super().status(), "home_address": self._home.address, "at_home": self._home.at_home, "interfaces": states}

    def _register(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.register, self._named(request))

    def _deregister(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.deregister, self._named(request))

    def _handover(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.command(self.mobile_node.handover, text_field(request, "interface"))

    def _policy(self, request: dict[str, Any]) -> dict[str, Any]:
        flows = policy_of(request)
        return self.command(self.mobile_node.set_policy, self._file.core.flows if flows is None else flows)

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
    core = MobileNode(file.core, os.urandom)
    serve(file.agent, lambda log: MobileNodeDriver(file, core, log))
