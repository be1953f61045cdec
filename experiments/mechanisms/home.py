"""Home networks: which addresses home router, home agent and mobile host have there, and on which node the agent runs."""

from dataclasses import dataclass

from topologies.addressing import network_prefixes
from topologies.mobile import HA_HOST_PART

_ROUTER_PART = 1
MOBILE_PART = 10
"""Host part of a home address: not one that the home link's DHCP server gives."""


@dataclass(frozen=True)
class Home:
    """A mobile host's place in home network `number` (1, 2: nodes hr1 and ha1, hr2 and ha2 of the topology).

    `host_part`: of the home address; hosts that share a home network need different ones. `variant`: prefix of the home
    link, "first", or "second" of a home network with two providers.
    """

    number: int = 1
    host_part: int = MOBILE_PART
    variant: str = "first"

    def _host(self, part: int) -> str:
        return network_prefixes("home", self.number, "ipv4", self.variant).host(part)[0].split("/")[0]

    @property
    def network(self) -> str:
        """Prefix of the home link."""
        return str(network_prefixes("home", self.number, "ipv4", self.variant).networks()[0])

    @property
    def router(self) -> str:
        """Address of the home link's router."""
        return self._host(_ROUTER_PART)

    @property
    def agent(self) -> str:
        """Address of the home agent."""
        return self._host(HA_HOST_PART)

    @property
    def address(self) -> str:
        """The home address."""
        return self._host(self.host_part)

    @property
    def agent_node(self) -> str:
        """Node of the home agent."""
        return f"ha{self.number}"

    @property
    def agent_interface(self) -> str:
        """Its interface on the home link."""
        return f"ha{self.number}-hr{self.number}"
