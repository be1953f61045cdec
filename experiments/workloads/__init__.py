"""The workloads by kind. A new one is a module with a class, and its line here."""

from experiments.errors import RoamlabError
from experiments.model import Workload as WorkloadSpec
from experiments.workloads.again import Again
from experiments.workloads.base import Workload
from experiments.workloads.bulk import Bulk
from experiments.workloads.contest import Contest
from experiments.workloads.iperf import Iperf3
from experiments.workloads.mix import Mix
from experiments.workloads.rpc import Rpc
from experiments.workloads.voice import Voice

REGISTRY: dict[str, type[Workload]] = {cls.kind: cls for cls in (Bulk, Iperf3, Voice, Rpc, Mix, Contest, Again)}


def make(spec: WorkloadSpec) -> Workload:
    """The workload that `spec` describes. Raises RoamlabError that lists the valid kinds or parameters."""
    try:
        cls = REGISTRY[spec.kind]
    except KeyError:
        raise RoamlabError(f"no workload {spec.kind!r}; there are: {', '.join(REGISTRY)}") from None
    return cls(spec)
