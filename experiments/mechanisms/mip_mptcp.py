"""Mobile IPv4 below MPTCP: the multihoming architecture of "A Mobile Host-Multihoming Architecture", section 5.1.

Mobile IP gives first contact and survival when both hosts move at once; MPTCP carries established connections over
the home address and all care-of addresses. Programs are unmodified and use the home address; the path manager's
agent on the MN makes the subflows.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from experiments.mechanisms import mobile_peer
from experiments.mechanisms.home import Home
from experiments.mechanisms.mobileip import MobileIp
from experiments.mechanisms.mptcp import Mptcp
from experiments.testbed import Testbed
from topologies.mobile import Path
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
        if bed.cn_paths:
            mobile_peer.manage(self, bed)
        else:
            Mptcp._start_agent(bed, bed.cn.name, {name: ["signal"] for name in bed.cn_announced()})
        paths = [path for path in bed.paths if path.families != "ipv6"]
        self.start_path_manager(bed, bed.mn, [self.home, *self.further_homes], paths)

    def start_path_manager(self, bed: Testbed, host: Any, homes: Sequence[Home], paths: Sequence[Path]) -> None:
        """Start the path manager of a mobile host; return when it knows the home addresses and those of the host's networks."""
        interfaces = [{"name": path.interface, "cost": number} for number, path in enumerate(paths)]
        bed.start_agent(host.name, MANAGER_ROLE, {
            "families": "ipv4", "policy": self.policy, "interface": interfaces,
            "home_address": [{"address": home.address, "home_agent": home.agent} for home in homes],
        })  # fmt: skip
        wait_until(lambda: self._covers(bed, host, homes, paths), _READY_TIMEOUT_S, "the path manager's addresses")

    @staticmethod
    def _covers(bed: Testbed, host: Any, homes: Sequence[Home], paths: Sequence[Path]) -> bool:
        """Does the path manager know the home addresses and every address that the host has?"""
        known = {row["address"] for row in bed.agent_command(host.name, MANAGER_ROLE, {"cmd": "status"})["addresses"]}
        present = {text for path in paths for text in bed.addresses(host).get(path.interface, []) if ":" not in text}
        return present | {home.address for home in homes} <= known

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """mptcpize makes the program's TCP sockets MPTCP sockets."""
        return ["mptcpize", "run", *argv]

    def handover_begins(self, bed: Testbed, old: str, new: str) -> None:
        """The binding as with Mobile IP alone; the old interface's subflows become backup: make before break."""
        super().handover_begins(bed, old, new)
        bed.agent_command(bed.mn.name, MANAGER_ROLE, {"cmd": "leave", "interface": old})

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


class MobileIpMptcpBackup(MobileIpMptcp):
    """The home address' subflow stays, for when every care-of address fails."""

    name: ClassVar[str] = "mip-mptcp-backup"
    label: ClassVar[str] = "Mobile IP + MPTCP, home backup"
    summary: ClassVar[str] = "as mip-mptcp, the home address' subflow is a backup of those of the care-of addresses"
    policy: ClassVar[str] = "hoa-backup"


class MobileIpMptcpCheapest(MobileIpMptcp):
    """Only the cheapest network that works carries data."""

    name: ClassVar[str] = "mip-mptcp-cheapest"
    label: ClassVar[str] = "Mobile IP + MPTCP, cheapest"
    summary: ClassVar[str] = "as mip-mptcp, all subflows but that of the preferred network's care-of address are backups"
    policy: ClassVar[str] = "cheapest"


class MobileIpMptcpPlainPeer(MobileIpMptcp):
    """The CN has no MPTCP: a connection falls back to TCP, which Mobile IP alone carries."""

    name: ClassVar[str] = "mip-mptcp-plain-cn"
    label: ClassVar[str] = "Mobile IP + MPTCP, CN without"
    summary: ClassVar[str] = "as mip-mptcp, but the CN has no MPTCP: connections fall back to TCP over the home agent"
    transport: ClassVar[str] = "tcp"
    falls_back: ClassVar[bool] = True

    def prepare(self, bed: Testbed) -> None:
        """The same, and MPTCP is off on the CN."""
        super().prepare(bed)
        bed.sysctl(bed.cn, "net.mptcp.enabled", 0)

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """The CN's programs are as they are."""
        return argv if node_name == "cn" else super().command(argv, node_name)


MIP_MPTCP_MECHANISMS: tuple[type[MobileIpMptcp], ...] = (
    MobileIpMptcp,
    MobileIpMptcpDirect,
    MobileIpMptcpDirectOnly,
    MobileIpMptcpBackup,
    MobileIpMptcpCheapest,
    MobileIpMptcpPlainPeer,
)
