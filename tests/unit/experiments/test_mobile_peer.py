"""A CN that is mobile as well: it gets the MN's agents, in a home network of its own; and the experiment that moves it."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.measures.movement import Movement
from analysis.measures.phases import Handover
from analysis.references import load_references
from experiments import events, mechanisms
from experiments.catalogue import mip_mptcp_movement as movement
from experiments.errors import RoamlabError
from experiments.mechanisms import mobile_peer
from tests.unit.experiments.test_mobileip import Bed
from topologies import registry

PLACES = {"access": "wlan", "cn_access": "wlan", "homes": 2}
OF_PEER = {"10.33.0.10": "10.34.0.10", "mn-wlan": "cn-wlan"}


class PeerBed(Bed):
    """A testbed whose CN is mobile."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        super().__init__(folder, parameters)
        self.cn = SimpleNamespace(name="cn", congestion_control_state=self.mn.congestion_control_state)

    def addresses(self, node: Any) -> dict[str, list[str]]:
        return {"cn-wlan": ["10.2.0.100"]} if node.name == "cn" else super().addresses(node)

    def start_agent(self, node: str, role: str, config: Mapping[str, Any]) -> None:
        if role == "path-manager":
            self.started.append((node, role, config))
        else:
            super().start_agent(node, role, config)

    def agent_command(self, node: str, role: str, request: dict[str, Any]) -> dict[str, Any]:
        if role == "path-manager":
            known = ["10.33.0.10", "10.1.0.100"] if node == "mn" else ["10.34.0.10", "10.2.0.100"]
            return {"addresses": [{"address": address} for address in known]}
        text = json.dumps(super().agent_command(node, role, request))
        for own, peer in OF_PEER.items() if node in ("cn", "ha2") else ():
            text = text.replace(own, peer)
        answer: dict[str, Any] = json.loads(text)
        return answer


def started(folder: Path, name: str, places: Mapping[str, Any] = PLACES) -> tuple[Any, dict[tuple[str, str], Any]]:
    bed, mechanism = PeerBed(folder, places), mechanisms.make(name)
    bed.mechanism = name
    mechanism.prepare(bed)  # type: ignore[arg-type]
    assert mechanism.server_address(bed) == mobile_peer.HOME.address  # type: ignore[arg-type]
    assert mechanism.client_address(bed) == "10.33.0.10"  # type: ignore[arg-type]
    return mechanism, {(node, role): file for node, role, file in bed.started}


def test_both_hosts_are_mobile_nodes(tmp_path: Path) -> None:
    _, files = started(tmp_path, "mip4")
    assert set(files) == {("ha1", "home-agent"), ("mn", "mobile-node"), ("ha2", "home-agent"), ("cn", "mobile-node")}
    home, mobile = files["ha2", "home-agent"].core, files["cn", "mobile-node"].core
    assert home.addresses == (mobile.home_agent,) == ("10.34.0.2",)
    assert home.home_prefix == mobile.home_network == "10.34.0.0/24"
    assert [interface.name for interface in mobile.interfaces] == ["cn-wlan"]


@pytest.mark.parametrize(("name", "policy"), [("mip-mptcp", "all"), ("mip-mptcp-direct-only", "coa-only-no-rejoin")])
def test_both_hosts_have_a_path_manager_with_the_same_policy(tmp_path: Path, name: str, policy: str) -> None:
    _, files = started(tmp_path, name)
    for node, address in (("mn", "10.33.0.10"), ("cn", "10.34.0.10")):
        config = files[node, "path-manager"]
        assert config["policy"] == policy
        assert [home["address"] for home in config["home_address"]] == [address]
        assert [interface["name"] for interface in config["interface"]] == [f"{node}-wlan"]
    assert ("cn", "mptcp-endpoints") not in files


def test_without_a_home_network_of_its_own_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RoamlabError, match="the topology needs homes=2"):
        started(tmp_path, "mip4", {**PLACES, "homes": 1})


def test_the_experiment_fits_its_topologies_and_the_metrics() -> None:
    experiment = movement.EXPERIMENT
    assert set(experiment.mechanisms) <= set(mechanisms.REGISTRY)
    known = {f"movement.{name}" for name in Movement.__dataclass_fields__}
    known |= {f"{event}.{name}" for event in (movement.LOSS, movement.CLOSED) for name in Handover.__dataclass_fields__}
    for claim in experiment.claims:
        assert claim.metric in known | {"survived", "gap_ms"}, claim.id
        assert claim.source is None or claim.source.key in load_references()
        assert set(claim.bound.other_scenarios) <= {scenario.name for scenario in experiment.scenarios}
    for scenario in experiment.scenarios:
        topo = registry.make(scenario.topology, registry.with_homes(scenario.topology, scenario.parameters, 1))
        timeline = events.expand(scenario.events)
        events.check_targets(tuple(timeline), topo)
        assert all(event.at_s < scenario.duration_s for event in timeline)
    assert experiment.repetitions >= 5


@pytest.mark.parametrize("scenario", [*movement.OVERLAPS.values(), movement.LATER], ids=lambda scenario: scenario.name)
def test_the_metric_of_smoothness_is_that_of_the_old_network_s_end(scenario: Any) -> None:
    timeline = events.expand(scenario.events)
    last = timeline[-1]
    if scenario is movement.ABRUPT:
        assert [(event.kind, event.target) for event in timeline] == [
            ("carrier-loss", "mn-wlan"), ("carrier-return", "mn-lte"),
        ]  # fmt: skip
        return
    number = int((movement.CLOSED if scenario is movement.LATER else movement.LOSS).rsplit(".", 1)[1])
    assert len(timeline) == number + 1
    assert last.kind in ("carrier-loss", "interface-down")
