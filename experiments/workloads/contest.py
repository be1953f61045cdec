"""One download under the mechanism beside plain TCP ones: who gets how much of what they share?"""

from collections.abc import Iterator
from typing import Any, ClassVar

from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.mechanisms.tcp import Tcp
from experiments.model import Workload as WorkloadSpec
from experiments.workloads.base import Workload
from experiments.workloads.bulk import Bulk
from experiments.workloads.mix import Mix, first_port, ports_of

FIRST = "first"
PLAIN_MAX = len(ports_of("bulk")) - 1


class Contest(Mix):
    """`first` runs under the mechanism, `plain-1` ... are TCP connections from the address of the MN's first path."""

    kind: ClassVar[str] = "contest"
    summary: ClassVar[str] = "a download under the mechanism, and so many plain TCP downloads (tcp, 1) beside it"
    parameters: ClassVar[dict[str, Any]] = {"tcp": 1}

    def __init__(self, spec: WorkloadSpec) -> None:
        super().__init__(spec)
        self.plain = Tcp()

    def _flows(self) -> Iterator[tuple[str, Workload]]:
        count = self.values["tcp"]
        if count != int(count) or count > PLAIN_MAX:
            raise RoamlabError(f"workload {self.kind}: tcp = {count!r} must be a whole number, at most {PLAIN_MAX}")
        for number, name in enumerate([FIRST, *(f"plain-{i + 1}" for i in range(int(count)))]):
            flow = Bulk(WorkloadSpec(kind="bulk", direction=self.spec.direction))
            flow.port = first_port("bulk") + number
            yield name, flow

    def mechanism_of(self, name: str, mechanism: Mechanism) -> Mechanism:
        """Only the first flow is the mechanism's."""
        return mechanism if name == FIRST else self.plain
