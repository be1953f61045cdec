"""What a foreign agent is told at its start."""

from dataclasses import dataclass, field

from agents.core.mobileip.security import SecurityAssociation


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """A link with visitors."""

    interface: str
    address: str
    """The agent's own on this link, in its advertisements."""
    prefix_length: int = 24


@dataclass(frozen=True, slots=True)
class ForeignAgentConfig:
    """Every default is what RFC 5944 recommends. Raises ValueError for what cannot work."""

    care_of_address: str
    links: tuple[LinkConfig, ...]
    advertisement_interval_s: float = 10.0
    """A third of the advertisements' lifetime (RFC 5944 section 2.3)."""
    advertisement_lifetime_s: int = 30
    lifetime_max_s: int = 1800
    """Longest registration that is passed on (69)."""
    registration_required: bool = False
    """R bit: co-located mobile nodes must register here, too."""
    reverse_tunnel: bool = True
    """T bit; else 74."""
    reverse_tunnel_mandatory: bool = False
    """A request without T is refused with 75."""
    encapsulating_delivery: bool = False
    """RFC 3024 section 3.3; else 79."""
    gre: bool = False
    """G bit; else 72."""
    visitors_max: int = 1000
    pending_max: int = 200
    """Requests without a reply; more are refused with 66. At full load B is advertised."""
    pending_s: float = 7.0
    """So long a reply is waited for, then the mobile node gets 78."""
    solicitations_per_s: float = 1.0
    """Answers to solicitations of one link (RFC 5944 section 2.3: at most one in a second)."""
    requests_per_s: float = 20.0
    """Requests of one link-layer address that are looked at; more are discarded."""
    requests_burst: int = 20
    challenge: bool = False
    """Advertise challenges and demand one (RFC 4721)."""
    challenges_kept: int = 2
    """The latest challenges that are taken (RFC 4721, CHALLENGE_WINDOW)."""
    mobile_associations: dict[str, SecurityAssociation] = field(default_factory=dict)
    """Shared with mobile nodes, by home address: extension 33 is demanded of them and put into their replies."""
    home_associations: dict[str, SecurityAssociation] = field(default_factory=dict)
    """Shared with home agents, by address: extension 34."""
    prohibited: frozenset[str] = frozenset()
    """Home addresses that are refused with 65."""
    home_agents: frozenset[str] = frozenset()
    """Home agents that requests may go to; empty: any. Others: 65."""

    def __post_init__(self) -> None:
        if not self.links or len({link.interface for link in self.links}) != len(self.links):
            raise ValueError("a foreign agent needs links, each with an interface of its own")
        if self.advertisement_interval_s * 3 > self.advertisement_lifetime_s + 1e-9:
            raise ValueError("the advertisements' lifetime must be three intervals (RFC 5944 section 2.3)")
