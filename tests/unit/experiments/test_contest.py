"""The contest: one flow of the mechanism, the others plain TCP, each with a port of its own."""

import pytest

from experiments import mechanisms, workloads
from experiments.errors import RoamlabError
from experiments.model import Workload


def test_only_the_first_flow_is_the_mechanisms() -> None:
    contest = workloads.make(Workload(kind="contest", parameters={"tcp": 3}))
    mptcp = mechanisms.make("mptcp")
    under = {name: contest.mechanism_of(name, mptcp).name for name, _ in contest.flows}  # type: ignore[attr-defined]
    assert under == {"first": "mptcp", "plain-1": "tcp", "plain-2": "tcp", "plain-3": "tcp"}
    plain = contest.mechanism_of("plain-1", mptcp)  # type: ignore[attr-defined]
    assert plain.command(["x"], "mn") == ["x"], "a plain program is not run under mptcpize"


def test_every_flow_has_a_port_of_its_own_and_the_direction() -> None:
    contest = workloads.make(Workload(kind="contest", parameters={"tcp": 15}, direction="up"))
    flows = [flow for _, flow in contest.flows]  # type: ignore[attr-defined]
    assert [flow.port for flow in flows] == list(range(80, 96))
    assert {flow.spec.direction for flow in flows} == {"up"}


@pytest.mark.parametrize("count", [16, 1.5, 0])
def test_bad_numbers_are_named(count: float) -> None:
    with pytest.raises(RoamlabError, match=f"tcp = {count}"):
        workloads.make(Workload(kind="contest", parameters={"tcp": count}))
