"""Home addresses that a home agent serves: the configured ones, and those given from a pool by NAI (RFC 2794)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.core.mobileip.actions import Store
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.wire.mobileip.values import NO_ADDRESS

TABLE: Final = "homes"


class HomeAddresses:
    """`served` maps home addresses to mobile nodes. One from the pool stays with its mobile node while there are others."""

    def __init__(self, config: HomeAgentConfig, stored: Mapping[str, dict[str, Any]]) -> None:
        self.served: dict[str, MobileNode] = {node.home_address: node for node in config.mobile_nodes if node.home_address}
        self._given: dict[str, str] = {}
        """By the name of the mobile node, the longest known first."""
        self._free = dict.fromkeys(config.pool)
        by_name = {node.name: node for node in config.mobile_nodes if not node.home_address}
        for name, value in stored.items():
            address = value.get("home_address") if isinstance(value, dict) else None
            if name in by_name and address in self._free:
                self._give(by_name[name], address)

    def resolve(self, node: MobileNode, asked: str) -> str | None:
        """The home address that a request is about; "": there is none left; None: it is not this mobile node's.

        Nothing is given away yet: see `commit`.
        """
        own = node.home_address or self._given.get(node.name, "")
        if asked == NO_ADDRESS:
            return own or next(iter(self._free), "")
        if own:
            return own if asked == own else None
        return asked if asked in self._free else None

    def reclaim(self, is_bound: Callable[[str], bool]) -> list[Store]:
        """Make an address free whose mobile node has no binding, the longest known first; none when there is no such."""
        name = next((name for name, address in self._given.items() if not is_bound(address)), None)
        if name is None:
            return []
        address = self._given.pop(name)
        del self.served[address]
        self._free[address] = None
        return [Store(TABLE, name, None)]

    def commit(self, node: MobileNode, address: str) -> list[Store]:
        """The request for this address was accepted."""
        if address in self.served:
            return []
        self._give(node, address)
        return [Store(TABLE, node.name, {"home_address": address})]

    def _give(self, node: MobileNode, address: str) -> None:
        del self._free[address]
        self._given[node.name] = address
        self.served[address] = node
