"""The state of a mobile node: one `Route` for each interface, and what they share."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from agents.core.mobileip.actions import Action, Encapsulation, Forwarding, Tunnel
from agents.core.mobileip.discovery import Discovery
from agents.core.mobileip.mobile_node_config import InterfaceConfig, InterfaceState, MobileNodeConfig
from agents.core.mobileip.registration_messages import Identifications, Sent
from agents.core.mobileip.registration_states import BOUND, State
from agents.core.mobileip.selection import NO_CHOICE, Choice, Measurement, StaticFlow
from agents.wire.mobileip.values import FlowBinding, Selector

NEVER = math.inf
CORRECTIONS_MAX = 5
"""Requests changed after refusals, one after the other; then it counts as refused."""


@dataclass(frozen=True, slots=True)
class CareOf:
    """A care-of address and the way to register it."""

    address: str
    co_located: bool
    destination: str
    """Of the requests: the home agent or the foreign agent."""
    source: str
    link_address: str = ""
    agent: str = ""
    """The foreign agent that the requests pass; "": none."""


class Purpose(Enum):
    """What an exchange is for."""

    REGISTER = "register"
    DEREGISTER = "deregister"
    RETURN = "return"
    """From the home link: deregister everything."""
    WITHDRAW = "withdraw"
    """Deregister the binding of another interface."""


@dataclass(slots=True)
class Exchange:
    """A request and its repetitions until a reply comes."""

    purpose: Purpose
    care_of: CareOf
    due_s: float
    """When it is sent (again)."""
    bulk: bool = False
    overwrite: bool = False
    tries: int = 0
    corrections: int = 0
    sent: Sent | None = None
    """The latest; only its reply counts (RFC 5944 section 3.6.2.1)."""
    flows: tuple[FlowBinding, ...] = ()


@dataclass(slots=True)
class Binding:
    """What the home agent has granted."""

    care_of: CareOf
    tunnel: Tunnel
    sent_s: float
    """When it was asked for: the lifetime counts from here (RFC 5944 section 3.6.2.1)."""
    lifetime_s: float
    identification: int
    keepalive_s: float = 0.0
    """0: the path needs none."""
    refresh_s: float = NEVER

    @property
    def expires_s(self) -> float:
        """End of the lifetime."""
        return self.sent_s + self.lifetime_s


@dataclass(slots=True)
class Route:
    """One interface with its registration."""

    config: InterfaceConfig
    interface: InterfaceState
    discovery: Discovery
    state: State = State.DETACHED
    strong: bool = False
    """The signal is good enough (with hysteresis)."""
    held: bool = False
    """Not to be registered, by command."""
    care_of: CareOf | None = None
    exchange: Exchange | None = None
    binding: Binding | None = None
    confirmed: bool = False
    """The home agent knows the BID, as far as is known here."""
    remote_until_s: float = -NEVER
    """Until then the home agent may have this BID,"""
    remote_care_of: str = ""
    """with this care-of address."""
    wait_until_s: float = NEVER
    avoid_until_s: float = -NEVER
    """Single binding: it was refused or dead, others are taken instead until then."""
    sent_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=2))
    # -- flows --------------------------------------------------------------------------------------------------------
    flows_told: tuple[FlowBinding, ...] = ()
    """What the home agent has accepted with this BID."""
    flows_remote: frozenset[Selector] = frozenset()
    """Flows that it may have with this BID, also after the binding has gone: a set outlives it."""
    flows_heard: tuple[FlowBinding, ...] = ()
    """What the home agent has sent in its replies."""
    # -- what refusals have taught ------------------------------------------------------------------------------------
    lifetime_max_s: int = 0xFFFF
    reverse_tunnel: bool = True
    plain_encapsulation: bool = False
    direct_delivery: bool = False
    udp: bool = True
    udp_force: bool = False
    challenge: bytes | None = None
    # -- probes -------------------------------------------------------------------------------------------------------
    validated: bool = False
    deaths: int = 0
    measurement: Measurement = field(default_factory=Measurement)
    probe_due_s: float = NEVER
    probe_overdue_s: float = NEVER
    """A probe is under way; when nothing is heard of it by then, it has failed."""

    @property
    def name(self) -> str:
        """Of the interface."""
        return self.config.name

    @property
    def bid(self) -> int:
        """Binding identifier."""
        return self.config.bid

    @property
    def bound(self) -> bool:
        """Whether packets may take its tunnel."""
        return self.state in BOUND and self.binding is not None

    @property
    def encapsulation(self) -> Encapsulation:
        """The one to ask for."""
        return Encapsulation.IP_IN_IP if self.plain_encapsulation else self.config.encapsulation


@dataclass(slots=True)
class Withdrawal:
    """The binding of an interface that is gone, on its way out."""

    care_of_address: str
    exchange: Exchange | None = None
    """None: no interface is there to send by."""
    carrier: str = ""
    """Interface by which the latest request went."""


@dataclass(slots=True)
class Node:
    """Everything that a mobile node knows."""

    config: MobileNodeConfig
    random_bytes: Callable[[int], bytes]
    identifications: Identifications
    home_address: str
    home_agent: str
    multipath: bool
    flows: tuple[StaticFlow, ...]
    routes: dict[str, Route] = field(default_factory=dict)
    withdrawals: dict[int, Withdrawal] = field(default_factory=dict)
    started: bool = False
    active: str = ""
    """Single binding: the interface that is or will be registered."""
    pinned: str = ""
    """Single binding: the interface chosen by command."""
    challenger: str = ""
    """Single binding: a better interface, not there for long enough yet,"""
    challenger_since_s: float = 0.0
    rejoining: bool = False
    """All bindings go, and come again without flow policy."""
    choice: Choice = NO_CHOICE
    forwarding: Forwarding | None = None
    opened: dict[tuple[str, str, int], Tunnel] = field(default_factory=dict)
    expected: set[tuple[str, str, int]] = field(default_factory=set)
    """Of those the ones that are open for a request without reply: to receive only."""
    draining: dict[tuple[str, str, int], float] = field(default_factory=dict)
    logs: list[Action] = field(default_factory=list)
    homes: list[Action] = field(default_factory=list)
    sends: list[Action] = field(default_factory=list)

    def by_bid(self, bid: int) -> Route | None:
        """The interface with this binding identifier."""
        return next((route for route in self.routes.values() if route.bid == bid), None)

    def bound(self) -> list[Route]:
        """Interfaces whose tunnels are there."""
        return [route for route in self.routes.values() if route.bound]

    @property
    def at_home(self) -> bool:
        """Whether an interface is on the home link."""
        return any(route.state in (State.RETURNING, State.AT_HOME) for route in self.routes.values())
