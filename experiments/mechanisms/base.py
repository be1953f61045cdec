"""What a mechanism is: how each host copes with mobility and multihoming. One small class per mechanism."""

from typing import TYPE_CHECKING, ClassVar

from experiments.errors import RoamlabError

if TYPE_CHECKING:
    from experiments.testbed import Testbed


class Mechanism:
    """Base class: hosts that do nothing special. Override what differs; register the class in the package."""

    name: ClassVar[str]
    label: ClassVar[str]
    summary: ClassVar[str]
    transport: ClassVar[str] = "tcp"
    """What the captures must show on the wire: "tcp" or "mptcp"."""
    falls_back: ClassVar[bool] = False
    """It is MPTCP on the MN, and "tcp" on the wire since a peer has none: the report says so of each run."""
    carries_udp: ClassVar[bool] = True
    """False: UDP passes it by, so that a UDP workload would not show the mechanism."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of features in `experiments.features` without which the verdict is `unsupported`."""
    fills_cpu: ClassVar[bool] = False
    """Its agents touch every packet in Python: unless the user says otherwise, such runs are measured one at a time."""
    homes: ClassVar[int] = 0
    """Home networks, each with a home agent's node, that the topology must have for it; it gets them if it has fewer."""

    def prepare(self, bed: "Testbed") -> None:
        """Set up every host before the workload starts; return when the mechanism is ready."""

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """The command line that runs an unmodified program on a node under this mechanism."""
        return argv

    def client_address(self, bed: "Testbed") -> str | None:
        """The address that the MN's program binds to, or None to leave the choice to the kernel."""
        return None

    def server_address(self, bed: "Testbed") -> str:
        """The address of the CN that the MN's program connects to."""
        return bed.cn_address(bed.family)

    def contact_address(self, bed: "Testbed") -> str:
        """The address of the MN that the CN calls: where its programs can be found, or that of the first path."""
        return self.client_address(bed) or bed.address_on(bed.paths[0].interface)

    def other_client_address(self, bed: "Testbed") -> str | None:
        """What a program of the MN binds to when a connection from `client_address` has failed; by default the same."""
        return self.client_address(bed)

    def handover_begins(self, bed: "Testbed", old: str, new: str) -> None:
        """A planned handover from interface `old` to `new` begins: both work, `old` will go."""

    def break_before_make(self, bed: "Testbed", old: str, new: str) -> None:
        """Everything on interface `old` is given up at once and goes on over `new`. Raises RoamlabError if it cannot."""
        raise RoamlabError(f"mechanism {self.name} has no command that gives up one path for another")

    def signal_changed(self, bed: "Testbed", interface: str, dbm: float) -> None:
        """The strength of an interface's signal is another now; no emulated link tells by itself."""
