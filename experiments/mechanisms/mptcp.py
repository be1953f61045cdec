"""The kernel's MPTCP v1 (RFC 8684) with its in-kernel path manager, endpoints kept in step with the addresses."""

from typing import ClassVar

from experiments.mechanisms.base import Mechanism
from experiments.testbed import Testbed
from topologies.waiting import wait_until

_SUBFLOW_LIMIT = 8
_READY_TIMEOUT_S = 10.0


class Mptcp(Mechanism):
    """Every path of the MN carries a subflow; programs are unmodified and run under mptcpize."""

    name: ClassVar[str] = "mptcp"
    label: ClassVar[str] = "MPTCP"
    summary: ClassVar[str] = "kernel MPTCP v1, a subflow on every path, all active"
    transport: ClassVar[str] = "mptcp"
    carries_udp: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ("mptcp", "mptcpize")
    further_path_flags: ClassVar[tuple[str, ...]] = ("subflow",)
    """Endpoint flags of every path but the first."""

    def prepare(self, bed: Testbed) -> None:
        """Switch MPTCP on, start the endpoint agent on the MN and on a CN with several addresses."""
        for node in (bed.mn, bed.cn):
            bed.sysctl(node, "net.mptcp.enabled", 1)
        flags = {path.interface: ["subflow"] if i == 0 else list(self.further_path_flags) for i, path in enumerate(bed.paths)}
        self._start_agent(bed, bed.mn.name, flags)
        self._start_agent(bed, bed.cn.name, {name: ["signal"] for name in bed.cn_announced()})
        wait_until(lambda: self._endpoints_cover(bed), _READY_TIMEOUT_S, "MPTCP endpoints on the MN")

    @staticmethod
    def _start_agent(bed: Testbed, node: str, flags: dict[str, list[str]]) -> None:
        family = f"ipv{bed.family}"  # see `Policy.families` of the agent
        bed.start_agent(
            node,
            "mptcp-endpoints",
            {
                "limits": {"subflows": _SUBFLOW_LIMIT, "add_addr_accepted": _SUBFLOW_LIMIT},
                "interface": [{"name": name, "flags": names, "families": family} for name, names in flags.items()],
            },
        )

    @staticmethod
    def _endpoints_cover(bed: Testbed) -> bool:
        """Does every address that the MN has on a path have its endpoint?"""
        status = bed.agent_command(bed.mn.name, "mptcp-endpoints", {"cmd": "status"})
        present = {row["address"] for row in status["endpoints"]}
        addresses = {a for path in bed.paths for a in bed.addresses(bed.mn).get(path.interface, [])}
        return {a for a in addresses if (":" in a) == (bed.family == 6)} <= present

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """mptcpize makes the program's TCP sockets MPTCP sockets."""
        return ["mptcpize", "run", *argv]

    def handover_begins(self, bed: Testbed, old: str, new: str) -> None:
        """The new path carries the traffic (MP_PRIO) while the old one still works."""
        bed.agent_command(bed.mn.name, "mptcp-endpoints", {"cmd": "prio", "interface": new, "priority": "active"})
        bed.agent_command(bed.mn.name, "mptcp-endpoints", {"cmd": "prio", "interface": old, "priority": "backup"})


class MptcpBackup(Mptcp):
    """As `Mptcp`, but the second path only carries data when the first one fails."""

    name: ClassVar[str] = "mptcp-backup"
    label: ClassVar[str] = "MPTCP, 2nd path backup"
    summary: ClassVar[str] = "kernel MPTCP v1, the second path is a backup subflow"
    further_path_flags: ClassVar[tuple[str, ...]] = ("subflow", "backup")
