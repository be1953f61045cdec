"""Mobile IPv4 below MPTCP: the multihoming architecture of "A Mobile Host-Multihoming Architecture", section 5.1.

Mobile IP gives first contact and survival when both hosts move at once; MPTCP carries established connections over
the home address and all care-of addresses. Programs are unmodified and use the home address; the path manager's
agent on the MN makes the subflows.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from experiments.mechanisms.mobileip import HOME_ADDRESS, HOME_AGENT, MobileIp
from experiments.mechanisms.mptcp import Mptcp
from experiments.testbed import Testbed
from topologies.waiting import wait_until

MANAGER_ROLE = "path-manager"
_READY_TIMEOUT_S = 10.0


class MobileIpMptcp(MobileIp):
    """The home address and every care-of address carry the connection."""

    name: ClassVar[str] = "mip-mptcp"
    label: ClassVar[str] = "Mobile IP + MPTCP"
    summary: ClassVar[str] = "Mobile IPv4 below MPTCP: a subflow over the home agent and one from every care-of address"
    transport: ClassVar[str] = "mptcp"
    carries_udp: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = (*MobileIp.requires, "mptcp", "mptcpize")
    policy: ClassVar[str] = "all"
    """Of the path manager."""

    def prepare(self, bed: Testbed) -> None:
        """As with Mobile IP alone; then MPTCP on both hosts, and the path manager."""
        super().prepare(bed)
        bed.sysctl(bed.cn, "net.mptcp.enabled", 1)
        # A CN that is known to have several addresses announces the others.
        Mptcp._start_agent(bed, bed.cn.name, {name: ["signal"] for name in bed.cn_interfaces()[1:]})
        interfaces = [
            {"name": path.interface, "cost": number} for number, path in enumerate(bed.paths) if path.families != "ipv6"
        ]
        bed.start_agent(bed.mn.name, MANAGER_ROLE, {
            "families": "ipv4", "policy": self.policy, "interface": interfaces,
            "home_address": [{"address": HOME_ADDRESS, "home_agent": HOME_AGENT}],
        })  # fmt: skip
        wait_until(
            lambda: self._covers(bed, [item["name"] for item in interfaces]), _READY_TIMEOUT_S, "the path manager's addresses"
        )

    @staticmethod
    def _covers(bed: Testbed, interfaces: Sequence[Any]) -> bool:
        """Does the path manager know the home address and every address that the MN has?"""
        known = {row["address"] for row in bed.agent_command(bed.mn.name, MANAGER_ROLE, {"cmd": "status"})["addresses"]}
        present = {text for name in interfaces for text in bed.addresses(bed.mn).get(name, []) if ":" not in text}
        return present | {HOME_ADDRESS} <= known

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """mptcpize makes the program's TCP sockets MPTCP sockets."""
        return ["mptcpize", "run", *argv]

    def break_before_make(self, bed: Testbed, old: str, new: str) -> None:
        """The subflows and the binding of the old interface go before the new one is registered."""
        bed.agent_command(bed.mn.name, MANAGER_ROLE, {"cmd": "withhold", "interface": old})
        super().break_before_make(bed, old, new)


class MobileIpMptcpDirect(MobileIpMptcp):
    """The home address only carries what no care-of address does: packets do not pass the home agent."""

    name: ClassVar[str] = "mip-mptcp-direct"
    label: ClassVar[str] = "Mobile IP + MPTCP, direct"
    summary: ClassVar[str] = "as mip-mptcp, the home address' subflow closed while a care-of address carries the connection"
    policy: ClassVar[str] = "coa-only"


class MobileIpMptcpDirectOnly(MobileIpMptcp):
    """The same to the letter: a home address' subflow that was closed stays closed."""

    name: ClassVar[str] = "mip-mptcp-direct-only"
    label: ClassVar[str] = "Mobile IP + MPTCP, direct only"
    summary: ClassVar[str] = "as mip-mptcp-direct, but the home address never joins again"
    policy: ClassVar[str] = "coa-only-no-rejoin"


MIP_MPTCP_MECHANISMS: tuple[type[MobileIpMptcp], ...] = (MobileIpMptcp, MobileIpMptcpDirect, MobileIpMptcpDirectOnly)
