"""Role `home-agent`: bindings of mobile nodes, tunnels to them, ARP for them on the home link."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agents import config
from agents.config import ConfigError, Table
from agents.core.mobileip import actions as act
from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.flows import Label
from agents.core.mobileip.home_agent import HomeAgent
from agents.core.mobileip.home_agent_config import ForeignAgentEntry, HomeAgentConfig, Limits, MobileNode
from agents.core.mobileip.security import SecurityAssociation
from agents.core.mobileip.selection import SELECTIONS, StaticFlow
from agents.kernel.control import CommandError, Handler, text_field
from agents.kernel.eventlog import EventLog
from agents.kernel.mobileip import configuration as read
from agents.kernel.mobileip.arp import ProxyArp
from agents.kernel.mobileip.configuration import AgentConfig
from agents.kernel.mobileip.driver import Driver, serve
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.pages import FIRST_PAGE, Page
from agents.kernel.mobileip.store import Commits, StateFile

_ENCAPSULATIONS: Final = ("ipip", "gre")


@dataclass(frozen=True)
class HomeAgentFile:
    """What the TOML file says."""

    agent: AgentConfig
    core: HomeAgentConfig
    home_interface: str = ""
    """On the home link; "": a virtual home network."""
    state: str = ""
    """SQLite file; "": bindings do not outlive the process."""
    power_safe: bool = True


def read_config(path: str) -> HomeAgentFile:
    """The configuration in a TOML file. Raises ConfigError."""
    top = config.load(path)
    agent = read.read_agent(top, "home-agent")
    interface, state, power_safe = top.text("home_interface", ""), top.text("state", ""), top.flag("power_safe", True)
    leave = ("addresses", "mobile_nodes", "foreign_agents", "pool", "encapsulations", "limits", "home_prefix")
    values = read.scalars(top, HomeAgentConfig, leave)
    words = top.texts("encapsulations", ["ipip"])
    for word in words:
        if word not in _ENCAPSULATIONS:
            raise top.error("encapsulations", f"{word!r} must be one of {', '.join(_ENCAPSULATIONS)}")
    limits = top.table("limits")
    values |= {
        "addresses": tuple(top.texts("addresses")),
        "home_prefix": read.prefix(top, "home_prefix", ""),
        "pool": tuple(top.texts("pool", [])),
        "encapsulations": frozenset(map(Encapsulation, words)),
        "limits": read.made(limits, Limits, read.scalars(limits, Limits)),
        "foreign_agents": tuple(map(_foreign_agent, top.tables("foreign_agent"))),
        "mobile_nodes": _mobile_nodes(top),
    }
    limits.finish()
    top.finish()
    if interface and not values["home_prefix"]:
        raise top.error("home_prefix", 'is missing: a home_interface needs it, like "10.33.0.0/24"')
    return HomeAgentFile(agent, read.made(top, HomeAgentConfig, values), interface, state, power_safe)


def _foreign_agent(table: Table) -> ForeignAgentEntry:
    result = ForeignAgentEntry(read.address(table, "address"), (read.association(table),))
    table.finish()
    return result


def _mobile_nodes(top: Table) -> tuple[MobileNode, ...]:
    flows: dict[str, list[StaticFlow]] = {}
    for table in top.tables("flow"):
        name = table.text("node")
        flows.setdefault(name, []).append(read.flow(table))
        table.finish()
    keys: dict[str, list[SecurityAssociation]] = {}
    for table in top.tables("security"):
        keys.setdefault(table.text("node"), []).append(read.association(table))
        table.finish()
    labels = {}
    for table in top.tables("label"):
        labels[table.number("label", 1, 255)] = read.made(table, Label, read.scalars(table, Label))
        table.finish()
    selection = top.table("settings")
    common = {"labels": labels, "settings": read.settings(selection)}
    selection.finish()
    result = []
    for table in top.tables("mobile_node"):
        node = _mobile_node(table, keys, common)
        result.append(replace(node, policy=tuple(flows.pop(node.name, ()))))
    for name in [*flows, *keys]:
        raise top.error("flow" if name in flows else "security", f"node {name!r} is no [[mobile_node]]")
    if not result:
        raise top.error("mobile_node", "is missing: write [[mobile_node]] with home_address, spi and key")
    return tuple(result)


def _mobile_node(table: Table, keys: dict[str, list[SecurityAssociation]], common: Mapping[str, Any]) -> MobileNode:
    values = read.scalars(table, MobileNode, ("home_address", "policy", "selection", "settings", "labels"))
    values["home_address"] = read.address(table, "home_address", "")
    values["selection"] = table.choice("selection", tuple(SELECTIONS), "per-flow")
    name = values["nai"].decode() or values["home_address"]
    associations = (read.association(table), *keys.pop(name, ()))
    table.finish()
    return read.made(table, MobileNode, {"associations": associations, **values, **common})


class HomeAgentDriver(Driver):
    """The agent of the role."""

    side = Side.HOME_AGENT

    def __init__(self, file: HomeAgentFile, core: HomeAgent, log: EventLog, store: StateFile | None) -> None:
        super().__init__(file.agent, core, log, {file.home_interface} if file.home_interface else set())
        self.home_agent, self._home_interface = core, file.home_interface
        self.commits = Commits(store, self._from_commits) if store is not None else None

    def set_up(self) -> None:
        """Proxy ARP on the home link."""
        self.proxy_arp = ProxyArp(self.netlink, self.parameters, self._home_interface)
        self._perform_one[act.DefendAddress] = lambda action: self._proxy().defend(action.address)
        self._perform_one[act.ReleaseAddress] = lambda action: self._proxy().release(action.address)

    def _proxy(self) -> ProxyArp:
        assert self.proxy_arp is not None
        return self.proxy_arp

    def tear_down(self) -> None:
        """Nobody answers for the home addresses any more."""
        if self.proxy_arp is not None:
            self.proxy_arp.close()

    def commands(self) -> Mapping[str, Handler]:
        """Control commands by name."""
        return {**super().commands(), "deregister": self._deregister, "policy": self._policy}

    def status(self, page: Page = FIRST_PAGE) -> dict[str, Any]:
        """For people: a page of bindings with the tunnels and the forwarding that they use, then others."""
        said = super().status(page)
        defended = self.proxy_arp.defended if self.proxy_arp else set()
        homes = [row["home_address"] for row in said["bindings"]]
        ends = [(row["local"], row["remote"], row["remote_port"]) for row in said["bindings"]]
        said |= {"forwarding": self.forwarder.rows(page.limit, homes), "tunnels": self.tunnels.status(page.limit, ends)}
        said["counts"]["defended"] = len(defended)
        return {**said, "defended": sorted(defended)[: page.limit]}

    def core_bindings(self, page: Page) -> tuple[list[dict[str, Any]], int]:
        """Only those of the page are made."""
        return self.home_agent.bindings(page.first, page.limit), self.home_agent.status()["bindings"]

    async def _deregister(self, request: dict[str, Any]) -> dict[str, Any]:
        bid = request.get("bid")
        if bid is not None and (not isinstance(bid, int) or isinstance(bid, bool)):
            raise CommandError('"bid" must be a whole number')
        self.command(self.home_agent.deregister, text_field(request, "home_address"), bid)
        await self.carried_out()
        return self.bindings_said()

    async def _policy(self, request: dict[str, Any]) -> dict[str, Any]:
        rules = policy_of(request)
        home_address = text_field(request, "home_address")
        self.command(self.home_agent.set_policy, home_address, rules)
        await self.carried_out()
        return {**self.bindings_said(), "warnings": self.home_agent.flow_warnings(home_address)}


def policy_of(request: dict[str, Any]) -> tuple[StaticFlow, ...] | None:
    """The flows of a command `policy`; None: without any the configured ones are meant. Raises CommandError."""
    if "flows" not in request:
        return None
    try:
        return read.flows(request["flows"], "policy")
    except ConfigError as error:
        raise CommandError(str(error)) from None


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, OSError."""
    file = read_config(path)
    store = StateFile(file.state, power_safe=file.power_safe) if file.state else None
    core = HomeAgent(file.core, os.urandom, store.load() if store else {})
    serve(file.agent, lambda log: HomeAgentDriver(file, core, log, store))
