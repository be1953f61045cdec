"""Several flows at once: downloads, voice calls and requests, each with programs, port and records of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.model import Scenario
from experiments.model import Workload as WorkloadSpec
from experiments.ports import HTTP_PORTS, RPC_PORTS, VOICE_PORTS
from experiments.rundir import write_json
from experiments.workloads.base import START_TIMEOUT_S, RunningWorkload, Workload
from experiments.workloads.bulk import Bulk
from experiments.workloads.rpc import Rpc
from experiments.workloads.voice import Voice

if TYPE_CHECKING:
    from experiments.testbed import Testbed

_KINDS: dict[str, tuple[type[Workload], str]] = {
    "bulk": (Bulk, HTTP_PORTS),
    "voice": (Voice, VOICE_PORTS),
    "rpc": (Rpc, RPC_PORTS),
}


def ports_of(kind: str) -> range:
    """The ports of the flows of a kind."""
    first, last = map(int, _KINDS[kind][1].split("-"))
    return range(first, last + 1)


def first_port(kind: str) -> int:
    """The port of the first flow of a kind."""
    return ports_of(kind)[0]


class RunningMix(RunningWorkload):
    """All flows under way; it has ended when the last one has."""

    def __init__(self, flows: list[RunningWorkload]) -> None:
        self.flows = flows
        self.t0_mono_ns = max(flow.t0_mono_ns for flow in flows)
        self.bytes = 0
        self.last_bytes_ns: int | None = None

    def finished(self) -> bool:
        """Have all programs ended?"""
        ended = [flow.finished() for flow in self.flows]
        self.bytes = sum(flow.bytes for flow in self.flows)
        self.last_bytes_ns = max((flow.last_bytes_ns for flow in self.flows if flow.last_bytes_ns is not None), default=None)
        return all(ended)

    def check(self) -> None:
        """Raises RoamlabError when a program of a flow has failed."""
        for flow in self.flows:
            flow.check()

    def stop(self) -> None:
        """End what still runs."""
        for flow in self.flows:
            flow.stop()


class Mix(Workload):
    """`bulk` downloads from ports 80 on, `voice` calls from port 5004 on, `rpc` dialogues from port 5060 on; or one of each."""

    kind: ClassVar[str] = "mix"
    summary: ClassVar[str] = "several flows at once: so many of bulk (HTTP's port 80), voice (5004), rpc (SIP's port 5060)"
    parameters: ClassVar[dict[str, Any]] = dict.fromkeys(_KINDS)

    def __init__(self, spec: WorkloadSpec) -> None:
        super().__init__(spec)
        self.flows = list(self._flows())

    def _flows(self) -> Iterator[tuple[str, Workload]]:
        chosen = any(value is not None for value in self.spec.parameters.values())
        for kind, (cls, _) in _KINDS.items():
            ports = ports_of(kind)
            count = (self.values[kind] or 0) if chosen else 1
            if count != int(count) or count > len(ports):
                raise RoamlabError(f"workload {self.kind}: {kind} = {count!r} must be a whole number, at most {len(ports)}")
            for number in range(int(count)):
                flow = cls(WorkloadSpec(kind=kind, direction=self.spec.direction))
                flow.port = ports[number]
                yield f"{kind}-{number + 1}", flow

    def transports(self) -> set[str]:
        """Of all flows."""
        return {flow.transport for _, flow in self.flows}

    def mechanism_of(self, name: str, mechanism: Mechanism) -> Mechanism:
        """The mechanism under which a flow's programs run."""
        return mechanism

    def start(self, bed: "Testbed", mechanism: Mechanism, scenario: Scenario, seed: int) -> RunningMix:
        """Start all; time 0 is when the last one is connected. workload/flows.json says which they are."""
        folder = bed.directory / "workload"
        under = {name: self.mechanism_of(name, mechanism) for name, _ in self.flows}
        rows = [
            {"name": name, "kind": flow.kind, "transport": flow.transport, "port": flow.port, "parameters": flow.values,
             "wire": under[name].transport}
            for name, flow in self.flows
        ]  # fmt: skip
        write_json(folder / "flows.json", {"flows": rows})
        for name, _ in self.flows:
            (folder / name).mkdir()
        servers = [flow.serve(folder / name, bed, under[name], scenario, f"-{name}") for name, flow in self.flows]
        for server in servers:
            server.expect("ready", START_TIMEOUT_S)
        clients = [
            flow.connect(folder / name, bed, under[name], scenario, seed + number, f"-{name}")
            for number, (name, flow) in enumerate(self.flows)
        ]
        return RunningMix([self.running(bed, *both) for both in zip(servers, clients, strict=True)])

    def server_command(self, out: Path, address: str, scenario: Scenario) -> list[str]:
        """Not used: each flow has a server of its own."""
        raise NotImplementedError(self.kind)
