"""iperf3 as it is: the tool that everybody compares with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.model import Scenario
from experiments.ports import PORT
from experiments.processes import NodeProcess
from experiments.workloads.base import RunningWorkload, Workload
from topologies.waiting import wait_until

if TYPE_CHECKING:
    from experiments.testbed import Testbed

_START_TIMEOUT_S = 20.0


class RunningIperf(RunningWorkload):
    """iperf3 under way. Its client prints its JSON result at the end, on standard output."""

    def check(self) -> None:
        """iperf3 exits with 1 when its connection is lost: a result, not a failure of the run."""

    def stop(self) -> None:
        """End both programs and keep the client's result in workload/iperf3.json."""
        super().stop()
        try:
            result = json.loads(self.client.log_path.read_text())
        except ValueError:
            result = {"error": "iperf3 printed no result"}
        self.client.log_path.parent.parent.joinpath("workload", "iperf3.json").write_text(json.dumps(result, indent=1))


class Iperf3(Workload):
    """`iperf3 -c`, one stream by default."""

    kind: ClassVar[str] = "iperf3"
    summary: ClassVar[str] = "the iperf3 program, unmodified; its JSON result is kept"
    program: ClassVar[str] = "iperf3"
    parameters: ClassVar[dict[str, Any]] = {"streams": 1}

    def server_command(self, out: Path, address: str, scenario: Scenario) -> list[str]:
        """One test, then the server ends."""
        return ["iperf3", "-s", "-1", "-p", str(PORT), "-B", address, "--forceflush"]

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The MN's side."""
        reverse = ["-R"] if self.spec.direction == "down" else []
        local = ["-B", bind] if bind else []
        return ["iperf3", "-c", address, "-p", str(PORT), "-t", str(round(scenario.duration_s)), "-J",
                "-P", str(int(self.values["streams"])), *reverse, *local]  # fmt: skip

    def start(self, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, seed: int) -> RunningWorkload:
        """Start both; time 0 is when the data connections are there."""
        out = bed.directory / "workload"
        serve = self.server_command(out, bed.listen_address(scenario.family), scenario)
        server = bed.spawn(bed.cn, mechanism.command(serve, bed.cn.name), "iperf3-server")
        self._wait_for(server, "Server listening")
        command = self.client_command(out, mechanism.server_address(bed), mechanism.client_address(bed), scenario, seed)
        client = bed.spawn(bed.mn, mechanism.command(command, bed.mn.name), "iperf3-client")
        wait_until(
            lambda: self._connections(bed, client) > int(self.values["streams"]), _START_TIMEOUT_S, "iperf3's connections"
        )
        return RunningIperf(bed, server, client, now_ns())

    @staticmethod
    def _connections(bed: "Testbed", client: NodeProcess) -> int:
        """Established connections at the server's port: control and data. iperf3 itself tells only a second later."""
        if not client.running():
            raise RoamlabError(client.why_ended())
        argv = ["ss", "-Htn", "state", "established", f"( sport = :{PORT} )"]
        return len(bed.run(bed.cn, argv).splitlines())

    @staticmethod
    def _wait_for(process: NodeProcess, text: str) -> None:
        def said() -> bool:
            if text in process.log_path.read_text(errors="replace"):
                return True
            if not process.running():
                raise RoamlabError(process.why_ended())
            return False

        wait_until(said, _START_TIMEOUT_S, f"{process.name}: {text!r}")
