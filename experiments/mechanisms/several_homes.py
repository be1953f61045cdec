"""A mobile node with two home addresses: of two home agents, or of one home network with two providers.

"Since the MN has multiple interfaces, it may have multiple CoAs and even multiple HoAs. These can all be added to the MPTCP
connection" ("A Mobile Host-Multihoming Architecture", section 5.1). Programs use the first home address; Mobile IP alone does
not move their connections to the other one (section 4).
"""

from collections.abc import Sequence
from typing import ClassVar

from experiments.mechanisms.base import Mechanism
from experiments.mechanisms.home import Home
from experiments.mechanisms.mip_mptcp import MobileIpMptcp, MobileIpMptcpDirect
from experiments.mechanisms.mobileip import MobileIp, MobileIpMultipath
from experiments.testbed import Testbed

_AGENTS: Sequence[Home] = (Home(2),)
_PREFIXES: Sequence[Home] = (Home(variant="second"),)


class TwoHomes(MobileIp):
    """Two home networks, each with a home agent; one binding at each."""

    name: ClassVar[str] = "mip4-homes"
    label: ClassVar[str] = "Mobile IPv4, 2 HoAs"
    summary: ClassVar[str] = "as mip4, with a second home address that has a home agent of its own"
    homes: ClassVar[int] = 2
    further_homes: ClassVar[Sequence[Home]] = _AGENTS

    def other_client_address(self, bed: Testbed) -> str | None:
        """The second home address."""
        return self.further_homes[0].address


class TwoHomesMultipath(TwoHomes, MobileIpMultipath):
    """Two home networks; every visited network has a binding at each home agent."""

    name: ClassVar[str] = "mip4-multipath-homes"
    label: ClassVar[str] = "Mobile IPv4, multipath, 2 HoAs"
    summary: ClassVar[str] = "as mip4-multipath, with a second home address that has a home agent of its own"


class TwoHomesMptcp(TwoHomes, MobileIpMptcp):
    """Both home addresses and every care-of address carry the connection."""

    name: ClassVar[str] = "mip-mptcp-homes"
    label: ClassVar[str] = "Mobile IP + MPTCP, 2 HoAs"
    summary: ClassVar[str] = "as mip-mptcp, with a subflow over a second home agent besides"


class TwoHomesMptcpDirect(TwoHomes, MobileIpMptcpDirect):
    """The home addresses only carry what no care-of address does."""

    name: ClassVar[str] = "mip-mptcp-direct-homes"
    label: ClassVar[str] = "Mobile IP + MPTCP, direct, 2 HoAs"
    summary: ClassVar[str] = "as mip-mptcp-direct, with a second home address that has a home agent of its own"


class TwoPrefixes(TwoHomes):
    """One home network with two providers (home_prefixes=2), a home address and a binding for each."""

    name: ClassVar[str] = "mip4-prefixes"
    label: ClassVar[str] = "Mobile IPv4, multihomed home"
    summary: ClassVar[str] = "as mip4, in a home network with two providers: a home address of each, one home agent"
    homes: ClassVar[int] = 1
    further_homes: ClassVar[Sequence[Home]] = _PREFIXES


class TwoPrefixesMptcp(TwoPrefixes, MobileIpMptcp):
    """Home addresses of both providers and every care-of address carry the connection."""

    name: ClassVar[str] = "mip-mptcp-prefixes"
    label: ClassVar[str] = "Mobile IP + MPTCP, multihomed home"
    summary: ClassVar[str] = "as mip-mptcp, in a home network with two providers: a subflow over each"


SEVERAL_HOMES_MECHANISMS: tuple[type[Mechanism], ...] = (
    TwoHomes,
    TwoHomesMultipath,
    TwoHomesMptcp,
    TwoHomesMptcpDirect,
    TwoPrefixes,
    TwoPrefixesMptcp,
)
