"""Route optimisation and load of Mobile IP with MPTCP: what the experiments ask for exists."""

from dataclasses import fields

import pytest

from agents.core.path_manager.config import POLICIES
from analysis.measures.audit import Audit
from analysis.measures.homeroute import HomeAgentUse
from analysis.measures.loads import LinkUse, Load, LoadPhase
from analysis.references import load_references
from experiments import catalogue, events
from experiments.catalogue import mip_mptcp_load as load
from experiments.catalogue import mip_mptcp_route_optimisation as route
from experiments.mechanisms import REGISTRY
from experiments.mechanisms.mip_mptcp import MIP_MPTCP_MECHANISMS
from experiments.model import Experiment, Scenario
from topologies.links.link import EmulatedLink
from topologies.registry import make

EXPERIMENTS = (route.EXPERIMENT, load.EXPERIMENT)
METRICS = {"survived", "goodput_mbit"}
METRICS |= {f"home_agent.{field.name}" for field in fields(HomeAgentUse)} | {f"audit.{field.name}" for field in fields(Audit)}


def is_metric(name: str, scenario: Scenario) -> bool:
    if not name.startswith("load."):
        return name in METRICS
    first, *rest = name.split(".")[1:]
    if first != "phases":
        paths = {path.name for path in make(scenario.topology, dict(scenario.parameters)).paths()}
        return first in {field.name for field in fields(Load)} and rest[0] in paths
    number, *inner = rest
    known = {field.name for kind in (LinkUse, LoadPhase) for field in fields(kind)}
    changes = {event.at_s for event in scenario.events if event.kind == "profile-change"}
    return int(number) <= len(changes) and all(part in known for part in inner)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_claims_ask_for_metrics_that_their_runs_have(experiment: Experiment) -> None:
    assert experiment.name in catalogue.load_all()
    scenarios = {scenario.name: scenario for scenario in experiment.scenarios}
    for claim in experiment.claims:
        assert all(is_metric(claim.metric, scenarios[name]) for name in claim.scenarios), claim.id
        assert claim.source is None or claim.source.key in load_references()
    assert experiment.repetitions >= 5


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_scenarios_can_be_built(experiment: Experiment) -> None:
    assert set(experiment.mechanisms) <= set(REGISTRY)
    for scenario in experiment.scenarios:
        timeline = tuple(events.expand(scenario.events))
        events.check_targets(timeline, make(scenario.topology, {**scenario.parameters}))


def test_only_the_home_network_is_far_away() -> None:
    for scenario in route.SCENARIOS:
        topo = make(scenario.topology, dict(scenario.parameters))
        shaped = {(a, b): info["profile"] for a, b, info in topo.links(withInfo=True) if info["cls"] is EmulatedLink}
        assert shaped["hr1", "core"].delay_ms == route.HOME_MS
        assert {a for a, _ in shaped} == {"hr1", "mn"}


def test_rates_change_for_both_networks_at_once() -> None:
    assert {event.target: event.parameters["rate_mbit"] for event in load.CHANGE.events} == load.AFTER_MBIT
    profiles = {path.interface: path.profile.rate_mbit for path in make("mobile", dict(load.CHANGE.parameters)).paths()}
    assert profiles == load.BEFORE_MBIT


def test_every_policy_of_the_path_manager_is_a_mechanism() -> None:
    assert {cls.policy for cls in MIP_MPTCP_MECHANISMS} == set(POLICIES)
