"""Requests and responses over one connection."""

from pathlib import Path
from typing import Any, ClassVar

from experiments.model import Scenario
from experiments.workloads.base import Workload


class Rpc(Workload):
    """A request every 50 ms and its response: latency of each, a stall shows as one long latency."""

    kind: ClassVar[str] = "rpc"
    summary: ClassVar[str] = "request/response over one connection: latency of every exchange"
    program: ClassVar[str] = "rpc"
    parameters: ClassVar[dict[str, Any]] = {"interval_ms": 50, "response_bytes": 1024}

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The client asks."""
        options = ["--seconds", str(scenario.duration_s), "--interval-ms", str(self.values["interval_ms"]),
                   "--response-bytes", str(int(self.values["response_bytes"]))]  # fmt: skip
        return super().client_command(out, address, bind, scenario, seed) + options
