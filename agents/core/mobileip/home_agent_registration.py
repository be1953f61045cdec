"""An authentic Registration Request as the home agent sees it: what it says, and what follows from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from agents.core.mobileip.actions import Datagram, Encapsulation, Tunnel
from agents.core.mobileip.bindings import Binding, Key
from agents.core.mobileip.home_agent_config import ForeignAgentEntry, HomeAgentConfig, MobileNode
from agents.core.mobileip.security import SecurityAssociation
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Extension,
    FlowBinding,
    Multipath,
    Nai,
    Request,
    RequestFlag,
    UdpTunnelRequest,
)

_FOREIGN_HOME: Final = AuthenticationKind.FOREIGN_HOME


@dataclass(frozen=True)
class Registration:
    """An authentic request and all that the checks look at."""

    config: HomeAgentConfig
    datagram: Datagram
    request: Request
    node: MobileNode
    homes: Mapping[str, MobileNode]
    """All home addresses that are served."""
    home_address: str
    """That of the request, or the one that the mobile node has or gets from the pool; "" when there is none for it."""
    owns_home_address: bool
    """False: it asks for one that is not its own."""
    bindings: Mapping[Key, Binding]
    """Those of the home address."""
    flows_elsewhere: Callable[[int], int]
    """Flow bindings that the home address keeps when the set of this BID is replaced."""
    bindings_in_all: int
    different: Callable[[Tunnel], tuple[Tunnel, int] | None]
    """See `TunnelUsers.different`."""
    _covered: tuple[Extension, ...] = field(init=False)
    _behind: int = field(init=False)

    def __post_init__(self) -> None:
        extensions = self.request.extensions
        at = next(
            place
            for place, item in enumerate(extensions)
            if isinstance(item, Authentication) and item.kind is AuthenticationKind.MOBILE_HOME
        )
        object.__setattr__(self, "_covered", extensions[:at])
        object.__setattr__(self, "_behind", at + 1)

    # -- what it says -------------------------------------------------------------------------------------------------
    @cached_property
    def multipaths(self) -> tuple[Multipath, ...]:
        """Before the authenticator; what stands behind it has no effect (RFC 7629 section 4.1)."""
        return tuple(item for item in self._covered if isinstance(item, Multipath))

    @property
    def multipath(self) -> Multipath | None:
        """The Multipath extension; of several the first."""
        return self.multipaths[0] if self.multipaths else None

    @cached_property
    def flows(self) -> tuple[FlowBinding, ...]:
        """Flow bindings before the authenticator."""
        return tuple(item for item in self._covered if isinstance(item, FlowBinding))

    @cached_property
    def nais(self) -> tuple[bytes, ...]:
        """Network access identifiers before the authenticator."""
        return tuple(item.value for item in self._covered if isinstance(item, Nai))

    @cached_property
    def udp(self) -> UdpTunnelRequest | None:
        """The request for a UDP tunnel (RFC 3519)."""
        return next((item for item in self._covered if isinstance(item, UdpTunnelRequest)), None)

    @property
    def deregisters(self) -> bool:
        """Lifetime 0."""
        return self.request.lifetime_s == 0

    @property
    def lacks_address(self) -> bool:
        """It asks for a home address, and the pool has none."""
        return self.owns_home_address and not self.home_address and not self.deregisters

    @property
    def bid(self) -> int:
        """0 without a Multipath extension."""
        return self.multipath.bid if self.multipath else 0

    @property
    def co_located(self) -> bool:
        """The mobile node ends the tunnel itself (D bit)."""
        return bool(self.request.flags & RequestFlag.DECAPSULATION_BY_MN)

    @property
    def home_agent(self) -> str:
        """Our address that the mobile node uses, or ought to use."""
        wanted = self.request.home_agent
        return wanted if wanted in self.config.addresses else self.config.addresses[0]

    @cached_property
    def foreign_agent(self) -> ForeignAgentEntry | None:
        """The foreign agent behind the request if we share an association with it."""
        return self.config.foreign_agent_of(self.datagram.source, self.request.care_of_address, self.request.flags)

    @cached_property
    def foreign_home(self) -> tuple[tuple[int, Authentication], ...]:
        """Foreign-Home authentication extensions, which stand behind the Mobile-Home one, with their offsets."""
        behind = zip(self.request.offsets[self._behind :], self.request.extensions[self._behind :], strict=True)
        return tuple((at, item) for at, item in behind if isinstance(item, Authentication) and item.kind is _FOREIGN_HOME)

    @property
    def foreign_association(self) -> SecurityAssociation | None:
        """What the reply's extension 34 is made with: the association that the request used, else the first one shared."""
        agent = self.foreign_agent
        if agent is None:
            return None
        first = agent.associations[0]
        return agent.by_spi.get(self.foreign_home[0][1].spi, first) if self.foreign_home else first

    # -- what follows from it -----------------------------------------------------------------------------------------
    @cached_property
    def behind_nat(self) -> bool:
        """The source is not the care-of address (RFC 3519 section 4.6), and no foreign agent on the way explains it (R bit)."""
        if self.udp is None or self.datagram.source == self.request.care_of_address:
            return False
        return not (self.udp.registration_required and self.co_located)

    @cached_property
    def in_udp(self) -> bool:
        """Packets will travel in UDP."""
        if self.udp is None or not self.config.udp_tunnel or (self.udp.registration_required and self.co_located):
            return False
        return self.behind_nat or self.config.udp_always or (self.udp.force and self.config.udp_forced)

    @cached_property
    def tunnel(self) -> Tunnel:
        """The tunnel of the binding: to the observed source in UDP, else to the care-of address."""
        if self.in_udp:
            return Tunnel(self.home_agent, self.datagram.source, Encapsulation.UDP, self.datagram.source_port, bid=self.bid)
        encapsulation = Encapsulation.GRE if self.request.flags & RequestFlag.GRE else Encapsulation.IP_IN_IP
        return Tunnel(self.home_agent, self.request.care_of_address, encapsulation, bid=self.bid)

    @property
    def key(self) -> Key:
        """Of the binding that the request is about."""
        return self.bid or self.request.care_of_address

    @property
    def keeps_others(self) -> bool:
        """Other bindings of its kind stay."""
        if self.multipath is not None:
            return not self.multipath.overwrite
        return self.config.simultaneous and bool(self.request.flags & RequestFlag.SIMULTANEOUS)

    @cached_property
    def replaced(self) -> list[Key]:
        """Bindings that go when this one comes.

        A mobile node is in one mode at a time: bindings with and without BID exclude each other.
        """
        same_kind = [key for key, item in self.bindings.items() if bool(item.bid) == bool(self.bid)]
        kept = same_kind if self.keeps_others else []
        return [key for key in self.bindings if key not in kept and key != self.key]

    @cached_property
    def bids_afterwards(self) -> set[int]:
        """The BIDs that exist when the request has been accepted; its own is one of them."""
        return {key for key in self.bindings if isinstance(key, int) and key not in self.replaced} | {self.bid} - {0}
