"""What the cores of Mobile IPv4 want done. The kernel side carries the actions of one call out in their order."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from agents.wire.mobileip.values import Selector


class Encapsulation(Enum):
    """How packets travel between tunnel ends."""

    IP_IN_IP = "ipip"
    GRE = "gre"
    UDP = "udp"
    NONE = "none"
    """Plain packets to the next hop `remote`: what a mobile node does behind a foreign agent's care-of address."""


@dataclass(frozen=True, slots=True, order=True)
class Tunnel:
    """A point-to-point link between this agent's `local` and `remote` outer address. Ports are 0 unless UDP carries it."""

    local: str
    remote: str
    encapsulation: Encapsulation = field(default=Encapsulation.IP_IN_IP, compare=False)
    remote_port: int = 0
    interface: str = field(default="", compare=False)
    """The physical interface that the outer packets must leave by ("": the routing table decides)."""
    bid: int = field(default=0, compare=False)
    """Of the binding: what both ends call this tunnel (0: it has none). Balancing goes by it, so that both ends put a flow on
    the same tunnel also when a NAT is between them, and a new care-of address moves no other flows."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells tunnels apart."""
        return self.local, self.remote, self.remote_port


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A message to a UDP port, from `source` and, where given, through the interface `interface`."""

    data: bytes
    destination: str
    port: int
    source: str = ""
    interface: str = ""
    ttl: int = 64
    link_address: str = ""
    """Destination MAC address, for a host that has no address on this link yet ("": by neighbour discovery)."""


@dataclass(frozen=True, slots=True)
class SendIcmp:
    """An ICMP message (advertisement or solicitation) on a link."""

    data: bytes
    destination: str
    interface: str
    ttl: int = 1


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    """The tunnel must exist; opening one that exists changes nothing."""

    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class CloseTunnel:
    """The tunnel must not exist any more; no route uses it by now."""

    tunnel: Tunnel


class Balancing(Enum):
    """How packets without a rule of their own are spread over several tunnels (RFC 7629 section 6)."""

    PER_FLOW = "per-flow"
    PER_PACKET = "per-packet"
    ROUND_ROBIN = "round-robin"
    """Every new flow goes to the next tunnel and stays there; its answers take the same one."""


@dataclass(frozen=True, slots=True)
class FlowRule:
    """Packets that match `selector` (written in the direction CN to MN on both sides) take `tunnel`; None: they are dropped."""

    selector: Selector
    tunnel: Tunnel | None


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Complete forwarding of one home address; the newest replaces all before.

    `rules` are tried in order; what none matches is spread over `shares` (tunnel, weight) in the way of `balancing`. Without
    rules and shares the home address is not forwarded at all: at home, or not registered.
    `accept`: outer sources from which reverse-tunnelled packets of this home address are taken (RFC 3024 section 4).
    """

    home_address: str
    rules: tuple[FlowRule, ...] = ()
    shares: tuple[tuple[Tunnel, int], ...] = ()
    balancing: Balancing = Balancing.PER_FLOW
    accept: tuple[Tunnel, ...] = ()


@dataclass(frozen=True, slots=True)
class Deliver:
    """Foreign agent: packets for the home address from a tunnel go to this host on the local link (None: no longer)."""

    home_address: str
    interface: str
    link_address: str | None


@dataclass(frozen=True, slots=True)
class ReverseTunnel:
    """Foreign agent: packets from the home address go through `tunnel` (None: no longer)."""

    home_address: str
    tunnel: Tunnel | None


@dataclass(frozen=True, slots=True)
class DefendAddress:
    """Home agent: answer ARP for the home address on the home link and announce it (gratuitous ARP); RFC 5944 section 4.6."""

    address: str


@dataclass(frozen=True, slots=True)
class ReleaseAddress:
    """Home agent: stop answering ARP for the address; the mobile node announces itself."""

    address: str


@dataclass(frozen=True, slots=True)
class AtHome:
    """Mobile node: use the home address on `interface` without tunnels (True, with gratuitous ARP), or stop (False)."""

    interface: str
    here: bool
    home_address: str = ""
    """Which one, of a host with several."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Mobile node: send an echo request from the home address to the home agent through the tunnel of binding `bid`.

    Asks for one answer: its round-trip time, or that none came in `timeout_s`. Keeps mappings of NATs alive as well
    (RFC 3519 section 4.9).
    """

    bid: int
    tunnel: Tunnel
    timeout_s: float
    home_address: str = ""
    """Which one, of a host with several."""


@dataclass(frozen=True, slots=True)
class Store:
    """Durable state: `value` (JSON) under `key` in `table`; None removes it. On disk before any later SendMessage leaves."""

    table: str
    key: str
    value: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Log:
    """A decision, for the event log."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


Action: TypeAlias = (
    SendMessage | SendIcmp | OpenTunnel | CloseTunnel | Forwarding | Deliver | ReverseTunnel | DefendAddress | ReleaseAddress
    | AtHome | Probe | Store | Log
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram as it came: what the cores are shown. `interface` is the one it came in by."""

    data: bytes
    source: str
    source_port: int
    destination: str
    interface: str = ""
    ttl: int = 64
    link_address: str = ""
    """MAC address of the sender on the link."""


@dataclass(frozen=True, slots=True)
class Now:
    """The time of one call: monotonic seconds for deadlines; wall time as a 64-bit NTP timestamp (RFC 5944 section 5.7)."""

    monotonic_s: float
    ntp: int
