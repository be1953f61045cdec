"""What the path manager knows and what it asks for. Times in monotonic seconds unless the name says otherwise."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from agents.core.mptcp_endpoints import Endpoint


class Kind(Enum):
    """What a local address is to a mobile host."""

    HOME = "hoa"
    CARE_OF = "coa"


class Role(Enum):
    """What a policy makes of an address, for one connection."""

    ACTIVE = "active"
    BACKUP = "backup"
    CLOSED = "closed"
    """No subflow, as soon as another one is up."""


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A usable address of this host: packets from it have a way to leave."""

    address: str
    kind: Kind = Kind.CARE_OF
    interface: str = ""
    index: int = 0
    """Of the interface that its packets must leave by; 0: routing decides, as for a home address."""
    cost: int = 0
    domain: str = ""
    """Security domain: a connection never has addresses of two."""
    home_agent: str = ""
    leaving: bool = False
    """It will go soon: others shall carry what it does."""


@dataclass(frozen=True, slots=True)
class Subflow:
    """A subflow as the kernel tells it, with TCP's measurements."""

    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int = 0
    remote_id: int = 0
    backup: bool = False
    established: bool = True
    rtt_ms: float = 0.0
    rtt_deviation_ms: float = 0.0
    unacknowledged: int = 0
    """Segments that wait for an acknowledgement."""
    retransmits: int = 0
    """Time-outs in a row."""
    idle_ms: int = 0
    """Since anything was received on it."""
    bytes_received: int = 0

    @property
    def path(self) -> tuple[str, str]:
        """Local and remote address."""
        return self.local, self.remote


@dataclass(frozen=True, slots=True)
class Connection:
    """An MPTCP connection, by the addresses that its program sees."""

    token: int
    local: str
    remote: str
    remote_port: int
    server: bool = False
    """The peer has opened it: it cannot be joined from here, only be told of addresses."""
    fallback: bool = False
    """It has become plain TCP."""


@dataclass(frozen=True, slots=True)
class Announced:
    """Event: the peer has announced an address."""

    token: int
    remote_id: int
    address: str
    port: int = 0
    """0: the one of the connection."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Event: the peer has taken an address back."""

    token: int
    remote_id: int


@dataclass(frozen=True, slots=True)
class SubflowClosed:
    """Event: a subflow has ended; error: errno, 0 for none."""

    token: int
    local: str
    remote: str
    error: int = 0


Event: TypeAlias = Announced | Withdrawn | SubflowClosed


# -- actions ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CreateSubflow:
    """Userspace path manager: join the connection (MP_JOIN, RFC 8684 section 3.2)."""

    token: int
    local: str
    local_id: int
    index: int
    remote: str
    remote_port: int
    backup: bool


@dataclass(frozen=True, slots=True)
class DestroySubflow:
    """Userspace path manager: close one subflow; the peer learns it by this subflow only."""

    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Userspace path manager: tell the peer an address (ADD_ADDR)."""

    token: int
    address: str
    local_id: int
    index: int
    backup: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Userspace path manager: tell the peer by another subflow that an address is gone (REMOVE_ADDR): it closes its side."""

    token: int
    local_id: int
    address: str


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Userspace path manager: make a subflow backup or active (MP_PRIO)."""

    token: int
    local: str
    local_id: int
    remote: str
    remote_port: int
    backup: bool


@dataclass(frozen=True, slots=True)
class AddEndpoint:
    """In-kernel path manager: all connections join from the address."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DeleteEndpoint:
    """In-kernel path manager: the address' subflows are closed, in all connections."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SetEndpointBackup:
    """In-kernel path manager: priority of the endpoint's subflows, in all connections."""

    endpoint: Endpoint
    backup: bool


@dataclass(frozen=True, slots=True)
class CloseInitial:
    """In-kernel path manager: close the subflows by which connections were opened from this address."""

    address: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Send an echo request; `PathManager.probe_result` wants the answer, or None after the time-out."""

    local: str
    remote: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the event log."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


Action: TypeAlias = (
    CreateSubflow | DestroySubflow | Announce | Remove | SetPriority
    | AddEndpoint | DeleteEndpoint | SetEndpointBackup | CloseInitial | Probe | Log
)  # fmt: skip
