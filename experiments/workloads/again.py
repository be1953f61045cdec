"""A download, and a new connection some seconds later: what can still be reached when the first one has lost its way?"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.mechanisms.base import Mechanism
from experiments.model import Scenario
from experiments.model import Workload as WorkloadSpec
from experiments.processes import NodeProcess
from experiments.workloads.base import RunningWorkload, Workload
from experiments.workloads.bulk import Bulk
from experiments.workloads.mix import Mix, first_port

if TYPE_CHECKING:
    from experiments.testbed import Testbed

FIRST, AGAIN = "first", "again"


class _Late(Bulk):
    """A bulk transfer that begins `after_s` later than the others and ends with them, from the MN's other address."""

    after_s: float

    def connect(
        self, out: Path, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, seed: int, suffix: str = ""
    ) -> NodeProcess:
        """Start the MN's program, which waits."""
        command = self.client_command(out, mechanism.server_address(bed), mechanism.other_client_address(bed), scenario, seed)
        return bed.spawn(bed.mn, mechanism.command(command, bed.mn.name), f"client{suffix}", reports=True)

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The same, later and shorter."""
        rest = replace(scenario, duration_s=max(1.0, scenario.duration_s - self.after_s))
        return [*super().client_command(out, address, bind, rest, seed), "--after-s", str(self.after_s)]


class Again(Mix):
    """`first` starts at once from the MN's address; `again` is a new connection, from another address if there is one."""

    kind: ClassVar[str] = "again"
    summary: ClassVar[str] = "a download, and a new one (after_s, 8) from the other home address where there are two"
    parameters: ClassVar[dict[str, Any]] = {"after_s": 8.0}

    def _flows(self) -> Iterator[tuple[str, Workload]]:
        late = _Late(WorkloadSpec(kind="bulk", direction=self.spec.direction))
        late.after_s = float(self.values["after_s"])
        for number, (name, flow) in enumerate([(FIRST, Bulk(late.spec)), (AGAIN, late)]):
            flow.port = first_port("bulk") + number
            yield name, flow

    def running(self, bed: "Testbed", server: NodeProcess, client: NodeProcess) -> RunningWorkload:  # type: ignore[override]
        """Time 0 is when the first one is connected; the other one is not waited for."""
        if client.name.endswith(AGAIN):
            return RunningWorkload(bed, server, client, 0)
        return super().running(bed, server, client)
