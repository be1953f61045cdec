"""MPTCP with coupled congestion control: the linked increases of RFC 6356 instead of one control for each subflow.

Linux couples nothing; a BPF program does where kernel and rights allow it (`experiments.lia`).
"""

import sys
from typing import ClassVar

from experiments.errors import RoamlabError
from experiments.lia import own_name
from experiments.mechanisms.base import Mechanism
from experiments.mechanisms.mip_mptcp import MobileIpMptcp
from experiments.mechanisms.mptcp import Mptcp
from experiments.testbed import Testbed

_READY_TIMEOUT_S = 60.0
_SYSCTL = "net.ipv4.tcp_congestion_control"
FEATURE = "lia"


class LinkedIncreases(Mechanism):
    """What comes before another mechanism's class: every TCP socket of MN and CN has linked increases.

    Without MPTCP they are Reno, so that connections of plain programs are, too.
    """

    def prepare(self, bed: Testbed) -> None:
        """As without; then the kernel gets the congestion control, under a name of this run's own.

        Raises RoamlabError where every route prescribes another one: such connections would never use it.
        """
        super().prepare(bed)
        name = own_name()
        holder = bed.spawn(bed.cn, [sys.executable, "-m", "experiments.lia", name], "lia", reports=True)
        holder.expect("ready", _READY_TIMEOUT_S)
        for node in (bed.mn, bed.cn):
            if node.congestion_control_state()["how"] == "route":
                raise RoamlabError(
                    f"mechanism {self.name}: the routes of {node.name} lock their congestion control; give the topology "
                    "congestion_control = reno"
                )
            bed.sysctl(node, _SYSCTL, name)
            node.congestion_control = name


class MptcpLia(LinkedIncreases, Mptcp):
    """Kernel MPTCP, coupled."""

    name: ClassVar[str] = "mptcp-lia"
    label: ClassVar[str] = "MPTCP, coupled"
    summary: ClassVar[str] = "as mptcp, with the linked increases of RFC 6356"
    requires: ClassVar[tuple[str, ...]] = (*Mptcp.requires, FEATURE)


class MobileIpMptcpLia(LinkedIncreases, MobileIpMptcp):
    """Mobile IP below MPTCP, coupled, as the architecture has it (section 5.1)."""

    name: ClassVar[str] = "mip-mptcp-lia"
    label: ClassVar[str] = "Mobile IP + MPTCP, coupled"
    summary: ClassVar[str] = "as mip-mptcp, with the linked increases of RFC 6356"
    requires: ClassVar[tuple[str, ...]] = (*MobileIpMptcp.requires, FEATURE)


LIA_MECHANISMS: tuple[type[Mechanism], ...] = (MptcpLia, MobileIpMptcpLia)
