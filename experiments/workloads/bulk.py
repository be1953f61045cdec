"""Bulk transfer of a seeded stream, verified by SHA-256."""

from pathlib import Path
from typing import Any, ClassVar

from experiments.model import Scenario
from experiments.workloads.base import CN, MN, Workload


class Bulk(Workload):
    """One connection, as fast as the transport allows; `bytes`, or as long as the scenario lasts."""

    kind: ClassVar[str] = "bulk"
    summary: ClassVar[str] = "seeded byte stream over one connection, verified by SHA-256, every read recorded"
    program: ClassVar[str] = "bulk"
    parameters: ClassVar[dict[str, Any]] = {"bytes": None, "opened_by": MN}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"opened_by": (MN, CN)}

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The client says in which direction, how much and from which seed."""
        size = self.values["bytes"]
        amount = ["--bytes", str(int(size))] if size else ["--seconds", str(scenario.duration_s)]
        command = super().client_command(out, address, bind, scenario, seed)
        # The program's "down" is from server to client, a workload's from CN to MN.
        towards_client = (self.spec.direction == "down") != self.called
        return [*command, "--direction", "down" if towards_client else "up", "--seed", str(seed), *amount]
