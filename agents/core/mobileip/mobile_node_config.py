"""What a mobile node is told: at its start (configuration) and while it runs (the state of its interfaces)."""

import ipaddress
from dataclasses import dataclass, field

from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.discovery import DiscoveryConfig
from agents.core.mobileip.draining import DRAIN_S
from agents.core.mobileip.flow_policy import checked
from agents.core.mobileip.security import SecurityAssociation
from agents.core.mobileip.selection import SELECTIONS, Settings, StaticFlow
from agents.wire.mobileip.values import AccessTechnology


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """What the kernel and DHCP say of an interface now."""

    name: str
    up: bool = True
    carrier: bool = True
    address: str | None = None
    """From DHCP or configuration; None: there is none."""
    gateway: str | None = None
    signal_dbm: float | None = None
    """None: not known, and then it does not matter."""


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """An interface that may be registered. Raises ValueError for values that RFC 7629 forbids."""

    name: str
    bid: int
    technology: int = AccessTechnology.VIRTUAL
    label: int = 1
    cost: int = 0
    """Smaller is preferred."""
    capacity_mbit: float | None = None
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    foreign_agent: bool = True
    """Agents heard here may be used."""
    co_located: bool = True
    """An address of its own may be registered; preferred when both are possible."""
    signal_min_dbm: float | None = None
    """Too weak to begin below this,"""
    signal_hysteresis_db: float = 5.0
    """and to go on when it is weaker by so much."""

    def __post_init__(self) -> None:
        if not 1 <= self.bid <= 254:
            raise ValueError(f"interface {self.name}: binding identifier {self.bid} is not 1 to 254 (RFC 7629 section 4.1)")
        if not 1 <= self.label <= 255:
            raise ValueError(f"interface {self.name}: label {self.label} is not 1 to 255 (RFC 7629 section 4.1)")
        if self.technology not in list(AccessTechnology) or self.technology == AccessTechnology.RESERVED:
            raise ValueError(f"interface {self.name}: access technology {self.technology} is not in the registry of RFC 5213")


@dataclass(frozen=True, slots=True)
class MobileNodeConfig:
    """Every default is what a host with several networks wants. Raises ValueError for what cannot work."""

    home_address: str
    home_network: str
    """Prefix of the home link; an address in it on an interface means home."""
    home_agent: str
    association: SecurityAssociation
    """Shared with the home agent; its replay style is the one used."""
    interfaces: tuple[InterfaceConfig, ...]
    multipath: bool = True
    """Several bindings (RFC 7629); off: one binding, of the preferred interface."""
    lifetime_s: int = 300
    refresh_fraction: float = 0.6
    """A binding is refreshed after this part of its lifetime."""
    retry_first_s: float = 1.0
    """First wait for a reply; doubles. Never less than 1 s (RFC 5944 section 3.6.3)."""
    retry_max_s: float = 32.0
    attempts_max: int = 6
    """So many requests without a reply, then another agent or way is tried."""
    denied_wait_s: float = 30.0
    """How long a refusal that nothing can be done about stands."""
    bulk_refresh: bool = False
    """One request refreshes all bindings (B)."""
    strict_overwrite: bool = False
    """A new care-of address is sent with O=1 as the text says, and the others are registered again."""
    withdraw_lost: bool = True
    """The binding of an interface that is gone or dead is deregistered through another one."""
    exchange_flows: bool = False
    """The flow policy goes to the home agent in Flow Binding extensions; else both ends are configured alike."""
    flows: tuple[StaticFlow, ...] = ()
    lost_flows_dropped: bool = False
    selection: str = "per-flow"
    """Policy for packets of no flow binding: a name of `selection.SELECTIONS`."""
    settings: Settings = field(default_factory=Settings)
    reverse_tunnel: bool = True
    """T bit (RFC 3024)."""
    broadcasts: bool = False
    """B bit of a request."""
    encapsulating_delivery: bool = False
    """Behind a foreign agent: tunnel to the agent (RFC 3024 section 3.3)."""
    nat_traversal: bool = False
    """Ask for UDP tunnelling where there is a NAT (RFC 3519)."""
    nat_force: bool = False
    keepalive_s: float = 110.0
    """RFC 3519 section 4.9; the home agent's value has precedence."""
    nai: bytes = b""
    """Network access identifier (RFC 2794), for a home address that the home agent assigns."""
    foreign_associations: dict[str, SecurityAssociation] = field(default_factory=dict)
    """Shared with foreign agents, by their address."""
    overlap: bool = True
    """Single binding: the old path works until the new one does; else it goes first (break before make)."""
    drain_s: float = DRAIN_S
    """A tunnel that was replaced takes packets for so long."""
    validate: bool = True
    """No traffic on a path before a probe through its tunnel has been answered."""
    probe_timeout_s: float = 1.0
    probe_interval_s: float = 0.0
    """Between probes of a validated path; 0: none but keepalives."""
    probe_failures: int = 3
    """So many probes in a row without an answer: the path is dead."""
    cost_hysteresis_s: float = 0.0
    """Single binding: a better interface must have been there for so long."""
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)

    def __post_init__(self) -> None:
        ipaddress.IPv4Network(self.home_network)
        ipaddress.IPv4Address(self.home_address)
        ipaddress.IPv4Address(self.home_agent)
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection {self.selection!r} is not one of {', '.join(SELECTIONS)}")
        for what, values in (
            ("name", [i.name for i in self.interfaces]),
            ("binding identifier", [i.bid for i in self.interfaces]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"two interfaces have the same {what}")
        if not 1.0 <= self.retry_first_s <= self.retry_max_s:
            raise ValueError("retry_first_s must be at least 1 s and at most retry_max_s (RFC 5944 section 3.6.3)")
        if not 1 <= self.lifetime_s <= 0xFFFF or not 0.1 <= self.refresh_fraction <= 0.95:
            raise ValueError("lifetime_s is 1 to 65535, refresh_fraction 0.1 to 0.95")
        checked(self.flows)

    def is_home(self, address: str | None) -> bool:
        """Whether an address lies in the home network. Text that is no address does not."""
        try:
            return address is not None and ipaddress.IPv4Address(address) in ipaddress.IPv4Network(self.home_network)
        except ValueError:
            return False
