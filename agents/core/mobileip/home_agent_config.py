"""What a home agent is told at its start. Every table that it keeps has a limit here."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.flows import Label, check_operator_policy
from agents.core.mobileip.security import SecurityAssociation, by_spi
from agents.core.mobileip.selection import DEFAULT_SETTINGS, SELECTIONS, Settings, StaticFlow
from agents.wire.mobileip.values import INFINITE_LIFETIME_S, RequestFlag


@dataclass(frozen=True)
class MobileNode:
    """A mobile node that this home agent serves. Raises ValueError when it has neither address nor NAI."""

    associations: tuple[SecurityAssociation, ...]
    home_address: str = ""
    """"": it gets one from the pool, by its NAI (RFC 2794)."""
    nai: bytes = b""
    enabled: bool = True
    """False: its requests are answered with 129."""
    multipath: bool = False
    """It may register several care-of addresses (RFC 7629); else 152."""
    policy: tuple[StaticFlow, ...] = ()
    """The operator's flow policy: comes before what the mobile node asks for. Flows with BIDs and flows that are dropped are
    sent in replies to requests with a Multipath extension (RFC 7629 section 4.2)."""
    selection: str = "per-flow"
    """How the rest is spread: a name in `selection.SELECTIONS`."""
    settings: Settings = DEFAULT_SETTINGS
    """Of the selection; `lost_flows_dropped` holds for all flows with a rule, also for negotiated ones."""
    labels: Mapping[int, Label] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.home_address and not self.nai:
            raise ValueError("a mobile node needs a home address or an NAI")
        if not self.associations:
            raise ValueError(f"{self.name} has no security association")
        if self.selection not in SELECTIONS:
            raise ValueError(f"{self.name}: {self.selection!r} is none of {', '.join(SELECTIONS)}")

    @property
    def name(self) -> str:
        """What state of this mobile node is stored under: its NAI if it has one, else its address."""
        return self.nai.decode("utf-8", "backslashreplace") if self.nai else self.home_address

    @cached_property
    def by_spi(self) -> dict[int, SecurityAssociation]:
        """Raises ValueError when an SPI is there twice."""
        return by_spi(self.associations)


@dataclass(frozen=True)
class ForeignAgentEntry:
    """A foreign agent with which a security association is shared: its requests must carry extension 34, replies do."""

    address: str
    associations: tuple[SecurityAssociation, ...]

    @cached_property
    def by_spi(self) -> dict[int, SecurityAssociation]:
        """Raises ValueError when an SPI is there twice."""
        return by_spi(self.associations)


@dataclass(frozen=True)
class Limits:
    """How much a home agent takes. Rates are those of token buckets."""

    bindings_per_home: int = 16
    """Beyond it: 135. At most 254, the number of BIDs."""
    bindings: int = 20_000
    """Of all home addresses; beyond it: 130."""
    flows_per_home: int = 64
    """Flow bindings that are held for a home address; beyond it: 130."""
    requests_per_s: float = 10.0
    """Valid requests of one mobile node; more are discarded before they are decoded."""
    requests_burst: float = 300.0
    """So many at once: as many as there may be bindings."""
    refusals_per_s: float = 2.0
    """Answers to requests whose authentication or identification is wrong: for each source and for each home address."""
    refusals_burst: float = 10.0
    refusals_total_per_s: float = 100.0
    """The same, for all together."""
    sources: int = 4096
    """Sources and home addresses whose rates are remembered."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class HomeAgentConfig:
    """Every default is that of the RFCs, or what a testbed wants. Raises ValueError for what contradicts itself."""

    addresses: tuple[str, ...]
    """Unicast addresses of the agent; the first is named in replies to requests that reached a broadcast address."""
    mobile_nodes: tuple[MobileNode, ...]
    home_prefix: str = ""
    """The home network, as "10.0.0.0/24": its addresses are defended by proxy ARP. "": a virtual network without a link."""
    pool: tuple[str, ...] = ()
    """Home addresses for mobile nodes that ask for one by NAI."""
    foreign_agents: tuple[ForeignAgentEntry, ...] = ()
    max_lifetime_s: int = 1800
    """The longest registration lifetime that is granted; 65535: for ever."""
    replay_window_s: float = 7.0
    reverse_tunnel: bool = True
    """Reverse tunnels are offered; else 137."""
    reverse_tunnel_required: bool = False
    """A request without the T bit is answered with 138."""
    encapsulations: frozenset[Encapsulation] = frozenset((Encapsulation.IP_IN_IP,))
    """Offered for what does not travel in UDP. Minimal encapsulation never is."""
    udp_tunnel: bool = True
    """NAT traversal (RFC 3519) is offered."""
    udp_forced: bool = False
    """A mobile node may ask for UDP also when no NAT is seen (F bit)."""
    udp_always: bool = False
    """Every mobile node that can do it must use UDP tunnels."""
    keepalive_s: int = 110
    """Interval for mobile nodes behind a NAT (RFC 3519 section 3.2)."""
    simultaneous: bool = False
    """The S bit keeps older bindings of a mobile node without RFC 7629. Packets go to the newest only."""
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a home agent needs an address")
        for text in (*self.addresses, *self.pool, *(node.home_address for node in self.mobile_nodes if node.home_address)):
            ipaddress.IPv4Address(text)
        if self.home_prefix:
            ipaddress.IPv4Network(self.home_prefix)
        if not 1 <= self.limits.bindings_per_home <= 254:
            raise ValueError("bindings_per_home must be 1 to 254, the BIDs that exist")
        if not 1 <= self.max_lifetime_s <= INFINITE_LIFETIME_S:
            raise ValueError(f"max_lifetime_s {self.max_lifetime_s} is outside of 1 to {INFINITE_LIFETIME_S}")
        if Encapsulation.IP_IN_IP not in self.encapsulations:
            raise ValueError("IP in IP must be offered (RFC 5944 section 1.7)")
        if self.reverse_tunnel_required and not self.reverse_tunnel:
            raise ValueError("reverse tunnels cannot be required and not offered")
        self._check_unique()
        for node in self.mobile_nodes:
            by_spi(node.associations)
            check_operator_policy(node.policy)
        for agent in self.foreign_agents:
            by_spi(agent.associations)

    def _check_unique(self) -> None:
        homes = [node.home_address for node in self.mobile_nodes if node.home_address]
        nais = [node.nai for node in self.mobile_nodes if node.nai]
        for what, names in (("home address", [*homes, *self.pool]), ("NAI", nais), ("address", list(self.addresses))):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} is configured twice")

    @cached_property
    def home_network(self) -> ipaddress.IPv4Network | None:
        """Of the home link; None for a virtual network."""
        return ipaddress.IPv4Network(self.home_prefix) if self.home_prefix else None

    def foreign_agent_of(self, source: str, care_of_address: str, flags: RequestFlag) -> ForeignAgentEntry | None:
        """The agent by which a request came, if an association is shared: by its source or its care-of address."""
        by_source = self._foreign_agents.get(source)
        if by_source is not None or flags & RequestFlag.DECAPSULATION_BY_MN:
            return by_source
        return self._foreign_agents.get(care_of_address)

    @cached_property
    def _foreign_agents(self) -> dict[str, ForeignAgentEntry]:
        return {agent.address: agent for agent in self.foreign_agents}

    @cached_property
    def broadcasts(self) -> frozenset[str]:
        """Addresses by which a home agent is asked for its own (RFC 5944 section 3.8.2.1)."""
        network = self.home_network
        return frozenset(("255.255.255.255", *([str(network.broadcast_address)] if network else [])))
