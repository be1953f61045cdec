"""The workload of several flows: what it starts, and clear words when its numbers are wrong."""

from pathlib import Path

import pytest

from experiments import workloads
from experiments.errors import RoamlabError
from experiments.manifest import why_not_carried
from experiments.model import RunSpec, Scenario, Workload

SCENARIO = Scenario(name="calm", duration_s=3.0)


def test_flows_have_programs_ports_and_names_of_their_own() -> None:
    mix = workloads.make(Workload(kind="mix", parameters={"bulk": 2, "voice": 1, "rpc": 1}, direction="up"))
    flows = dict(mix.flows)  # type: ignore[attr-defined]
    assert {name: flow.port for name, flow in flows.items()} == {"bulk-1": 80, "bulk-2": 81, "voice-1": 5004, "rpc-1": 5060}
    for flow in flows.values():
        commands = [flow.server_command(Path("/x"), "192.0.2.1", SCENARIO),
                    flow.client_command(Path("/x"), "192.0.2.1", "10.33.0.10", SCENARIO, 1)]  # fmt: skip
        assert all(command[command.index("--port") + 1] == str(flow.port) for command in commands)
    assert flows["voice-1"].spec.direction == "up"


def test_without_numbers_there_is_one_of_each() -> None:
    mix = workloads.make(Workload(kind="mix"))
    assert [name for name, _ in mix.flows] == ["bulk-1", "voice-1", "rpc-1"]  # type: ignore[attr-defined]


def test_a_mechanism_for_tcp_does_not_carry_a_mix_with_a_call() -> None:
    def why(mechanism: str, **flows: int) -> str | None:
        workload = Workload(kind="mix", parameters=flows)
        return why_not_carried(
            RunSpec(experiment="e", scenario=SCENARIO, mechanism=mechanism, workload=workload, seed=1, repetition=0)
        )

    assert why("mptcp", bulk=1, voice=1) == "MPTCP carries TCP connections; mix has flows of UDP"
    assert why("mptcp", bulk=1, rpc=1) is None
    assert why("mip4", bulk=1, voice=1) is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"bulk": 17}, ["bulk = 17", "at most 16"]),
        ({"bulk": 1.5}, ["bulk = 1.5", "whole number"]),
        ({"bulk": 0}, ["bulk = 0"]),
        ({"video": 1}, ["unknown parameter video"]),
    ],
)
def test_bad_numbers_are_named(parameters: dict[str, float], words: list[str]) -> None:
    with pytest.raises(RoamlabError) as error:
        workloads.make(Workload(kind="mix", parameters=parameters))
    assert all(word in str(error.value) for word in words), str(error.value)
