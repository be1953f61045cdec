"""Visitors of a foreign agent, and requests that wait for their replies (RFC 5944 section 3.7.1)."""

from dataclasses import dataclass, field

from agents.core.mobileip.actions import Encapsulation
from agents.wire.mobileip.values import Request


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the links a mobile node is."""

    interface: str
    link_address: str
    source: str
    source_port: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that was passed on."""

    request: Request
    place: Place
    until_s: float

    @property
    def key(self) -> tuple[str, int]:
        """What the reply repeats: home address, low half of the identification."""
        return self.request.home_address, self.request.identification & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Visitor:
    """A mobile node that is registered through this agent."""

    home_address: str
    home_agent: str
    care_of_address: str
    place: Place
    expires_s: float
    reverse: Encapsulation | None
    """Its packets go to the home agent in this encapsulation; None: no reverse tunnel."""
    forward: Encapsulation = Encapsulation.IP_IN_IP
    decapsulates: bool = False
    """It has a co-located care-of address: nothing is delivered here."""


@dataclass(slots=True)
class Visitors:
    """The visitor list. Both tables are bounded by the configuration."""

    present: dict[str, Visitor] = field(default_factory=dict)
    pending: dict[tuple[str, int], Pending] = field(default_factory=dict)

    def expired(self, now_s: float) -> list[Visitor]:
        """Visitors whose lifetime is over."""
        return [visitor for visitor in self.present.values() if visitor.expires_s <= now_s]

    def overdue(self, now_s: float) -> list[Pending]:
        """Requests whose replies have not come in time."""
        return [pending for pending in self.pending.values() if pending.until_s <= now_s]

    def next_deadline(self) -> float | None:
        """When the next one of either is over."""
        times = [visitor.expires_s for visitor in self.present.values()]
        times += [pending.until_s for pending in self.pending.values()]
        return min(times, default=None)

    def waiting_of(self, home_address: str) -> list[Pending]:
        """Requests of a mobile node that wait."""
        return [pending for pending in self.pending.values() if pending.request.home_address == home_address]
