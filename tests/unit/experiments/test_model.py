"""Experiments as data: what is accepted, what is refused, and that a run survives its way through JSON."""

import json

import pytest

from experiments.errors import RoamlabError
from experiments.model import Bound, Claim, Event, Experiment, RunSpec, Scenario, Workload

SCENARIOS = (
    Scenario(name="calm"),
    Scenario(name="storm", events=(Event(at_s=2.0, kind="carrier-loss", target="mn-wlan"),), parameters={"homes": 1}),
)


def experiment(**changes: object) -> Experiment:
    claim = Claim(
        id="c", text="t", metric="gap_ms", bound=Bound(op="<=", value=1.0), mechanisms=("tcp", "mptcp"), scenarios=("storm",)
    )
    values = {
        "name": "e",
        "title": "t",
        "summary": "s",
        "scenarios": SCENARIOS,
        "mechanisms": ("tcp", "mptcp"),
        "claims": (claim,),
    }
    return Experiment(**{**values, **changes})  # type: ignore[arg-type]


def test_run_goes_through_json_unchanged() -> None:
    for spec in experiment().runs(repetitions=2, seed=7):
        assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_every_cell_and_repetition_is_run_once_with_paired_seeds() -> None:
    specs = list(experiment().runs(repetitions=3, seed=10))
    assert len({spec.slug for spec in specs}) == len(specs) == 2 * 2 * 3
    assert {(spec.repetition, spec.seed) for spec in specs} == {(0, 10), (1, 11), (2, 12)}


def test_part_of_an_experiment_keeps_the_claims_about_that_part() -> None:
    part = experiment().only(scenarios=("storm",), mechanisms=("tcp",))
    assert [s.name for s in part.scenarios] == ["storm"]
    assert part.claims[0].mechanisms == ("tcp",)
    assert experiment().only(scenarios=("calm",)).claims == ()


def test_a_comparison_needs_all_that_is_compared() -> None:
    bound = Bound(op="<=", value=1.0, others=("tcp",))
    claim = Claim(id="c", text="t", metric="gap_ms", bound=bound, mechanisms=("mptcp",), scenarios=("storm",))
    assert experiment(claims=(claim,)).only(scenarios=("storm",)).claims == (claim,)
    assert experiment(claims=(claim,)).only(mechanisms=("mptcp",)).claims == ()
    with pytest.raises(RoamlabError, match="claim c names tcp"):
        experiment(claims=(claim,), mechanisms=("mptcp",))
    for value in (True, "x", 0.0, float("inf")):
        with pytest.raises(RoamlabError, match="above 0"):
            Bound(op="<=", value=value, others=("tcp",))


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"scenarios": ("strom",)}, ["'strom'", "calm, storm"]), ({"mechanisms": ("sctp",)}, ["'sctp'", "tcp, mptcp"])],
)
def test_unknown_names_list_the_valid_ones(asked: dict[str, tuple[str, ...]], words: list[str]) -> None:
    with pytest.raises(RoamlabError) as error:
        experiment().only(**asked)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("at_s", [-1.0, float("nan"), float("inf")])
def test_events_need_a_time(at_s: float) -> None:
    with pytest.raises(RoamlabError, match="at_s"):
        Event(at_s=at_s, kind="carrier-loss", target="mn-wlan")


def test_doubles_and_dangling_claims_are_refused() -> None:
    with pytest.raises(RoamlabError, match="calm is there twice"):
        experiment(scenarios=(*SCENARIOS, Scenario(name="calm")))
    with pytest.raises(RoamlabError, match="claim c names storm"):
        experiment(scenarios=SCENARIOS[:1])
    with pytest.raises(RoamlabError, match="direction"):
        Workload(direction="sideways")
    with pytest.raises(RoamlabError, match="operator"):
        Bound(op="<", value=1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"duration_s": float("nan")}, "duration_s = nan"),
        ({"duration_s": -1}, "duration_s = -1"),
        ({"duration_s": "long"}, "duration_s = 'long'"),
        ({"family": 5}, "family = 5"),
        ({"name": "../x"}, "scenario name '../x'"),
    ],
)
def test_bad_scenarios_name_the_field(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RoamlabError) as error:
        Scenario(**{"name": "s", **fields})  # type: ignore[arg-type]
    assert words in str(error.value)


def test_two_workloads_of_a_kind_need_names() -> None:
    both = (Workload(), Workload(direction="up"))
    with pytest.raises(RoamlabError, match="workload bulk is there twice"):
        experiment(workloads=both)
    named = experiment(workloads=(both[0], Workload(direction="up", name="upload")))
    assert len({spec.slug for spec in named.runs(repetitions=1, seed=1)}) == 8
