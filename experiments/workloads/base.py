"""What a workload is: a server program on the CN, a client program on the MN, and how their start and end are seen.

Where a workload has the parameter `opened_by`, the CN may have the client.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.model import Scenario
from experiments.model import Workload as WorkloadSpec
from experiments.ports import PORT
from experiments.processes import NodeProcess

if TYPE_CHECKING:
    from experiments.testbed import Testbed

START_TIMEOUT_S = 30.0
MN, CN = "mn", "cn"
ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}


class RunningWorkload:
    """A workload under way: the two programs and the moment at which the scenario's time 0 is."""

    def __init__(self, bed: "Testbed", server: NodeProcess, client: NodeProcess, started_ns: int) -> None:
        self.server, self.client, self.t0_mono_ns = server, client, started_ns
        self.crashed_nodes = bed.ever_crashed
        self.bytes = 0
        self.last_bytes_ns: int | None = None
        """When the receiver last reported new bytes; None when the workload does not report them."""

    def finished(self) -> bool:
        """Have both programs ended?"""
        for process in (self.client, self.server):  # only a receiver reports bytes
            while (report := process.next_report(0)) is not None:
                if report.get("event") != "done" and report.get("bytes", 0) > self.bytes:
                    self.bytes, self.last_bytes_ns = report["bytes"], report.get("mono_ns", now_ns())
        return not self.client.running() and not self.server.running()

    def check(self) -> None:
        """Raises RoamlabError when a program has failed (an application that lost its connection has not failed)."""
        for process in (self.client, self.server):
            crashed = process.node_name in self.crashed_nodes
            if not crashed and not process.running() and process.process.returncode != 0:
                raise RoamlabError(process.why_ended())

    def stop(self) -> None:
        """End what still runs; the programs write their summaries."""
        self.client.end()
        self.server.end()


class Workload:
    """Base class for workloads made of our own peer programs. Defaults are for one TCP or UDP exchange on `PORT`."""

    kind: ClassVar[str]
    summary: ClassVar[str]
    program: ClassVar[str]
    """Module of the peer program in `experiments.peers`."""
    transport: ClassVar[str] = "tcp"
    """"tcp" or "udp": what the programs open."""
    parameters: ClassVar[dict[str, Any]] = {}
    """Names and default values of the parameters."""
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Parameters that are one of several words; all others are numbers."""

    def __init__(self, spec: WorkloadSpec) -> None:
        unknown = sorted(set(spec.parameters) - set(self.parameters))
        if unknown:
            valid = ", ".join(self.parameters) or "none"
            raise RoamlabError(f"workload {self.kind}: unknown parameter {', '.join(unknown)}; it has: {valid}")
        for name, value in spec.parameters.items():
            if value is None and self.parameters[name] is None:
                continue
            if name in self.choices:
                if value not in self.choices[name]:
                    words = ", ".join(self.choices[name])
                    raise RoamlabError(f"workload {self.kind}: {name} = {value!r} must be one of {words}")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e15:
                raise RoamlabError(f"workload {self.kind}: {name} = {value!r} must be a number, at least 1")
        self.spec = spec
        self.values = {**self.parameters, **spec.parameters}
        self.port = PORT

    def transports(self) -> set[str]:
        """What its programs open: "tcp", "udp"."""
        return {self.transport}

    def _peer(self, role: str, out: Path, address: str) -> list[str]:
        module = f"experiments.peers.{self.program}"
        return [sys.executable, "-m", module, role, "--out", str(out), "--address", address, "--port", str(self.port)]

    def server_command(self, out: Path, address: str, scenario: Scenario) -> list[str]:
        """The program on the CN, or on the MN when the CN calls."""
        return self._peer("serve", out, address)

    def client_command(self, out: Path, address: str, bind: str | None, scenario: Scenario, seed: int) -> list[str]:
        """The program on the MN, or on the CN when that calls."""
        return self._peer("connect", out, address) + (["--bind", bind] if bind else [])

    @property
    def called(self) -> bool:
        """Does the CN open the connection?"""
        return bool(self.values.get("opened_by") == CN)

    def serve(self, out: Path, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, suffix: str = "") -> NodeProcess:
        """Start the program that is called, with its records in the folder `out`; it will report `ready`."""
        if self.called:
            # A server is joined at all its addresses: a kernel refuses a join to one without a listener.
            node, address = bed.mn, ANY_ADDRESS[scenario.family]
        else:
            node, address = bed.cn, bed.listen_address(scenario.family)
        command = self.server_command(out, address, scenario)
        return bed.spawn(node, mechanism.command(command, node.name), f"server{suffix}", reports=True)

    def connect(
        self, out: Path, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, seed: int, suffix: str = ""
    ) -> NodeProcess:
        """Start the program that opens the connection; it will report `connected`."""
        node, address, bind = bed.mn, mechanism.server_address(bed), mechanism.client_address(bed)
        if self.called:
            node, address, bind = bed.cn, mechanism.contact_address(bed), None
        command = self.client_command(out, address, bind, scenario, seed)
        return bed.spawn(node, mechanism.command(command, node.name), f"client{suffix}", reports=True)

    def start(self, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, seed: int) -> RunningWorkload:
        """Start server and client; return when the connection is there: that is time 0 of the scenario."""
        out = bed.directory / "workload"
        server = self.serve(out, bed, mechanism, scenario)
        server.expect("ready", START_TIMEOUT_S)
        return self.running(bed, server, self.connect(out, bed, mechanism, scenario, seed))

    @staticmethod
    def running(bed: "Testbed", server: NodeProcess, client: NodeProcess) -> RunningWorkload:
        """The workload, as soon as the client says that it is connected."""
        connected = client.expect("connected", START_TIMEOUT_S)
        return RunningWorkload(bed, server, client, int(connected.get("mono_ns", now_ns())))
