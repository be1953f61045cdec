"""Role `foreign-agent`: advertises a care-of address on its links, relays registrations, delivers to visitors."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents import config
from agents.config import Table
from agents.core.mobileip.actions import Action, Deliver, Now, ReverseTunnel
from agents.core.mobileip.foreign_agent import ForeignAgent
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig, LinkConfig
from agents.core.mobileip.security import SecurityAssociation
from agents.kernel.eventlog import EventLog
from agents.kernel.mobileip import configuration as read
from agents.kernel.mobileip import links
from agents.kernel.mobileip.configuration import AgentConfig
from agents.kernel.mobileip.driver import Driver, serve
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.pages import Page


@dataclass(frozen=True)
class ForeignAgentFile:
    """What the TOML file says."""

    agent: AgentConfig
    core: ForeignAgentConfig


def read_config(path: str) -> ForeignAgentFile:
    """The configuration in a TOML file. Raises config.ConfigError."""
    top = config.load(path)
    agent = read.read_agent(top, "foreign-agent")
    values = read.scalars(top, ForeignAgentConfig, ("prohibited", "home_agents"))
    values |= {
        "care_of_address": read.address(top, "care_of_address"),
        "links": tuple(map(_link, top.tables("link"))),
        "prohibited": frozenset(top.texts("prohibited", [])),
        "home_agents": frozenset(top.texts("home_agents", [])),
        "mobile_associations": dict(map(_association, top.tables("mobile_node"))),
        "home_associations": dict(map(_association, top.tables("home_agent"))),
    }
    top.finish()
    if not values["links"]:
        raise top.error("link", "is missing: write [[link]] with interface and address")
    return ForeignAgentFile(agent, read.made(top, ForeignAgentConfig, values))


def _link(table: Table) -> LinkConfig:
    result = LinkConfig(table.text("interface"), read.address(table, "address"), table.number("prefix_length", 8, 30, 24))
    table.finish()
    return result


def _association(table: Table) -> tuple[str, SecurityAssociation]:
    result = read.address(table, "address"), read.association(table)
    table.finish()
    return result


class ForeignAgentDriver(Driver):
    """The agent of the role."""

    side = Side.FOREIGN_AGENT

    def __init__(self, file: ForeignAgentFile, core: ForeignAgent, log: EventLog) -> None:
        super().__init__(file.agent, core, log, {link.interface for link in file.core.links})
        self.foreign_agent = core

    def performers(self) -> dict[type, Callable[[Any], None]]:
        """What carries out an action, by its type."""
        return {**super().performers(), Deliver: self._deliver, ReverseTunnel: self._reverse}

    def set_up(self) -> None:
        """Hear solicitations; visitors send to each other by this agent, which must not tell them of shorter ways."""
        assert self.listener is not None
        for name in self.interfaces:
            self.listener.join(name)
            self.parameters.set(f"net/ipv4/conf/{name}/send_redirects", 0)
        self.parameters.set("net/ipv4/conf/all/send_redirects", 0)

    def heard(self, message: links.Heard, at: Now) -> list[Action]:
        """A visitor's solicitation."""
        if message.data[:1] != bytes((links.SOLICITATION,)):
            return []
        return self.foreign_agent.handle_solicitation(message.data, message.interface, at)

    def unreachable(self, destination: str, code: int) -> None:
        """Whoever asked for this home agent is told."""
        self.feed(self.foreign_agent.handle_unreachable, destination, code)

    def _deliver(self, action: Deliver) -> None:
        self.forwarder.deliver(action.home_address, action.interface, action.link_address)

    def _reverse(self, action: ReverseTunnel) -> None:
        self.forwarder.reverse(action.home_address, action.tunnel)

    def core_bindings(self, page: Page) -> tuple[list[dict[str, Any]], int]:
        """The visitors."""
        visitors: list[dict[str, Any]] = self.core.status().get("visitors", [])
        return page.of(visitors), len(visitors)


def run(path: str) -> None:
    """The role's entry point. Raises config.ConfigError, OSError."""
    file = read_config(path)
    core = ForeignAgent(file.core, os.urandom)
    serve(file.agent, lambda log: ForeignAgentDriver(file, core, log))
