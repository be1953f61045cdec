"""Agent discovery and move detection of a mobile node, for one interface (RFC 5944 section 2.4).

Algorithm 1: an agent is there until its advertisement's lifetime is over (section 2.4.2.1). Algorithm 2: an agent on another
prefix means a move (section 2.4.2.2); without prefix lengths only algorithm 1 is used.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agents.wire.mobileip.values import INFINITE_LIFETIME_S, Advertisement, MobilityAgent

AGENTS_MAX: Final = 16
"""Agents remembered of one link; who forges more pushes the oldest out, never the one in use."""
SEQUENCE_AFTER_ROLLOVER: Final = 256
"""After 0xffff comes 256: a smaller number means that the agent has restarted (section 2.3.2)."""
FAST_SOLICITATIONS: Final = 3
"""So many with the first interval, then it doubles (section 2.4)."""


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Times of agent discovery, and what an agent must offer."""

    solicitation_interval_s: float = 1.0
    solicitation_interval_max_s: float = 60.0
    prefix_moves: bool = True
    """Algorithm 2."""
    reverse_tunnel: bool = False
    """Only agents that offer it (T)."""
    gre: bool = False
    """Only agents that offer it (G)."""
    home_agent: str = ""
    """Its advertisement means home."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A mobility agent as last heard."""

    source: str
    link_address: str
    offer: MobilityAgent
    networks: frozenset[str]
    """Prefixes of its router addresses; empty: it names none."""
    routers: tuple[str, ...]
    expires_s: float
    challenge: bytes | None = None

    @property
    def lifetime_max_s(self) -> int:
        """Longest registration that it accepts."""
        return self.offer.lifetime_s


class Finding(Enum):
    """What an input has meant."""

    NOTHING = "nothing"
    FOUND = "found"
    """There was no agent in use, and now there is one."""
    MOVED = "moved"
    """Another agent is in use: a new prefix, or the old one has fallen silent."""
    RESTARTED = "restarted"
    """The agent in use has lost its visitor list."""
    CHANGED = "changed"
    """The agent in use has another care-of address, or its flags have changed."""
    LOST = "lost"
    """No agent is in use any more."""
    HOME = "home"
    """The home agent itself advertises here."""


@dataclass(slots=True)
class Discovery:
    """Agents heard on one link. `current`: the one in use."""

    config: DiscoveryConfig
    current: Agent | None = None
    at_home: bool = False
    """The home agent is heard here."""
    agents: dict[str, Agent] = field(default_factory=dict)
    _solicit_at_s: float | None = None
    _solicitations: int = 0
    _home_until_s: float = 0.0

    def start(self, now_s: float) -> None:
        """The link is new: nothing that was heard before counts, and agents are asked for at once."""
        self.stop()
        self._solicit_from(now_s)

    def stop(self) -> None:
        """The link is gone."""
        self.current, self.at_home = None, False
        self.agents.clear()
        self._solicit_at_s = None

    def rest(self) -> None:
        """No agent is needed: listen only."""
        self._solicit_at_s = None

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do (monotonic seconds)."""
        times = [] if self._solicit_at_s is None else [self._solicit_at_s]
        if self.at_home:
            times.append(self._home_until_s)
        times += [agent.expires_s for agent in self.agents.values()]
        return min(times, default=None)

    def handle_advertisement(self, heard: Advertisement, source: str, link_address: str, now_s: float) -> Finding:
        """An advertisement has come in. One without mobility agent extension is a plain router's and says nothing here."""
        if heard.agent is None:
            return Finding.NOTHING
        if heard.agent.home_agent and self._is_home_agent(heard, source):
            return self._home(heard, now_s)
        agent = self._agent(heard, source, link_address, now_s)
        before = self.agents.get(source)
        if heard.lifetime_s == 0:
            return self._forget(source, now_s)
        if before is not None and _is_old(before.offer.sequence, heard.agent.sequence):
            return Finding.NOTHING
        self._remember(agent)
        if self.at_home:
            return Finding.NOTHING
        if self.current is None:
            return self._adopt(agent, Finding.FOUND)
        if self.current.source == source:
            return self._update(agent)
        if self._has_moved_to(agent):
            return self._adopt(agent, Finding.MOVED)
        return Finding.NOTHING

    def handle_timer(self, now_s: float) -> tuple[Finding, bool]:
        """Time has passed: what it meant, and whether to send a solicitation now."""
        finding = Finding.NOTHING
        if self.at_home and self._home_until_s <= now_s:
            self.at_home = False
            finding = Finding.LOST
        for source in [source for source, agent in self.agents.items() if agent.expires_s <= now_s]:
            lost = self._forget(source, now_s)
            finding = lost if lost is not Finding.NOTHING else finding
        if finding is Finding.LOST and self.current is None:
            self._solicit_from(now_s)
        if self._solicit_at_s is None or self._solicit_at_s > now_s:
            return finding, False
        self._solicitations += 1
        doublings = max(0, self._solicitations - FAST_SOLICITATIONS)
        interval_s = self.config.solicitation_interval_s * 2.0 ** min(doublings, 32)
        self._solicit_at_s = now_s + min(interval_s, self.config.solicitation_interval_max_s)
        return finding, True

    def refused(self, now_s: float) -> Finding:
        """The agent in use does not take us: another one, if there is any."""
        if self.current is None:
            return Finding.NOTHING
        source = self.current.source
        others = [agent for agent in self._candidates() if agent.source != source]
        if not others:
            return Finding.NOTHING
        return self._adopt(others[0], Finding.MOVED)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _solicit_from(self, now_s: float) -> None:
        self._solicit_at_s, self._solicitations = now_s, 0

    def _is_home_agent(self, heard: Advertisement, source: str) -> bool:
        home_agent = self.config.home_agent
        return bool(home_agent) and (source == home_agent or home_agent in [address for address, _ in heard.routers])

    def _home(self, heard: Advertisement, now_s: float) -> Finding:
        if heard.lifetime_s == 0:
            was, self.at_home = self.at_home, False
            return Finding.LOST if was else Finding.NOTHING
        new = not self.at_home
        self.at_home, self._home_until_s, self._solicit_at_s = True, now_s + heard.lifetime_s, None
        self.current = None
        return Finding.HOME if new else Finding.NOTHING

    def _agent(self, heard: Advertisement, source: str, link_address: str, now_s: float) -> Agent:
        assert heard.agent is not None
        networks = frozenset(_networks(zip((address for address, _ in heard.routers), heard.prefix_lengths, strict=False)))
        routers = tuple(address for address, _ in heard.routers)
        return Agent(source, link_address, heard.agent, networks, routers, now_s + heard.lifetime_s, heard.challenge)

    def _remember(self, agent: Agent) -> None:
        self.agents.pop(agent.source, None)
        while len(self.agents) >= AGENTS_MAX:
            in_use = self.current.source if self.current is not None else ""
            del self.agents[next(source for source in self.agents if source != in_use)]
        self.agents[agent.source] = agent

    def _usable(self, agent: Agent) -> bool:
        offer = agent.offer
        if not offer.foreign_agent or not offer.care_of_addresses:
            return False
        if offer.busy:
            return False
        return (offer.reverse_tunnel or not self.config.reverse_tunnel) and (offer.gre or not self.config.gre)

    def _candidates(self) -> list[Agent]:
        """Usable agents, the latest heard first."""
        return [agent for agent in reversed(self.agents.values()) if self._usable(agent)]

    def _adopt(self, agent: Agent, finding: Finding) -> Finding:
        if not self._usable(agent):
            return Finding.NOTHING
        self.current, self._solicit_at_s = agent, None
        return finding

    def _update(self, agent: Agent) -> Finding:
        """News of the agent in use. Busy does not matter to those who are registered (section 2.1.1, B)."""
        assert self.current is not None
        before, self.current = self.current, agent
        if _has_restarted(before.offer.sequence, agent.offer.sequence):
            return Finding.RESTARTED
        same = before.offer.care_of_addresses == agent.offer.care_of_addresses
        return Finding.NOTHING if same and before.link_address == agent.link_address else Finding.CHANGED

    def _has_moved_to(self, agent: Agent) -> bool:
        """Algorithm 2: both name their prefixes, and have none in common."""
        assert self.current is not None
        both = self.config.prefix_moves and self.current.networks and agent.networks
        return bool(both) and not self.current.networks & agent.networks

    def _forget(self, source: str, now_s: float) -> Finding:
        self.agents.pop(source, None)
        if self.current is None or self.current.source != source:
            return Finding.NOTHING
        self.current = None
        for agent in self._candidates():
            return self._adopt(agent, Finding.MOVED)
        self._solicit_from(now_s)
        return Finding.LOST


def registration_lifetime_s(wanted_s: int, agent: Agent | None) -> int:
    """The lifetime to ask for: not more than the agent advertises (section 3.6.1.3)."""
    if agent is None or agent.lifetime_max_s == INFINITE_LIFETIME_S:
        return wanted_s
    return min(wanted_s, agent.lifetime_max_s)


def _has_restarted(before: int, sequence: int) -> bool:
    return sequence < before and sequence < SEQUENCE_AFTER_ROLLOVER


def _is_old(before: int, sequence: int) -> bool:
    """An advertisement that another one has overtaken: smaller, neither a restart nor the rollover."""
    rollover = before > 0xFFFF - SEQUENCE_AFTER_ROLLOVER and sequence < 2 * SEQUENCE_AFTER_ROLLOVER
    return sequence < before and not rollover and not _has_restarted(before, sequence)


def _networks(pairs: Iterable[tuple[str, int]]) -> Iterable[str]:
    for address, length in pairs:
        if 0 < length <= 32:
            yield str(ipaddress.ip_network(f"{address}/{length}", strict=False))
