"""Plain TCP bound to one path: the baseline that everything else is compared with."""

from typing import ClassVar

from experiments.mechanisms.base import Mechanism
from experiments.testbed import Testbed


class Tcp(Mechanism):
    """One TCP connection from the MN's address on the first path."""

    name: ClassVar[str] = "tcp"
    label: ClassVar[str] = "TCP"
    summary: ClassVar[str] = "one TCP connection, bound to the address of the first path"

    def prepare(self, bed: Testbed) -> None:
        """MPTCP is switched off, so that no program can use it by accident."""
        for node in (bed.mn, bed.cn):
            bed.sysctl(node, "net.mptcp.enabled", 0, optional=True)

    def client_address(self, bed: Testbed) -> str | None:
        """The address of the first path."""
        return bed.address_on(bed.paths[0].interface)
