"""A voice call: constant bit rate UDP."""

from pathlib import Path
from typing import Any, ClassVar

from experiments.model import Scenario
from experiments.workloads.base import Workload


class Voice(Workload):
    """50 packets/s with sequence number and sending time: loss, jitter and gap of a call."""

    kind: ClassVar[str] = "voice"
    summary: ClassVar[str] = "50 packets/s of UDP with sequence number and sending time: loss, jitter, gap"
    program: ClassVar[str] = "voice"
    transport: ClassVar[str] = "udp"
    parameters: ClassVar[dict[str, Any]] = {}

    def _options(self, scenario: Scenario) -> list[str]:
        return ["--seconds", str(scenario.duration_s), "--direction", self.spec.direction]

    def server_command(self, out: Path, address: str, scenario: Scenario) -> list[str]:
        """The CN's side."""
        return super().server_command(out, address, scenario) + self._options(scenario)

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The MN's side, which says hello first."""
        return super().client_command(out, address, bind, scenario, seed) + self._options(scenario)
