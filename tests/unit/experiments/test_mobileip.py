"""Mobile IPv4 as a mechanism: what its agents are told, what it asks of them, and that its experiments fit their topologies."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.kernel.mobileip import foreign_agent, home_agent, mobile_node
from experiments import catalogue, events, features, mechanisms
from experiments.capsule import ROOT
from experiments.errors import Unsupported
from experiments.mechanisms.home import Home
from experiments.mechanisms.mobileip import MOBILE_IP_MECHANISMS, MobileIp
from experiments.mechanisms.several_homes import SEVERAL_HOMES_MECHANISMS
from topologies import registry
from topologies.mobile_host import to_toml

NAMES = [cls.name for cls in MOBILE_IP_MECHANISMS]
TWO_HOMES = [cls.name for cls in SEVERAL_HOMES_MECHANISMS if cls.transport == "tcp"]
EXPERIMENTS = ["mip4-outage", "mip4-handover", "ha-restart", "flow-binding", "aggregation", "nat", "roaming", "balancing",
               "mip-mptcp-failures", "mip-mptcp-orders", "mip-mptcp-providers", "mip-mptcp-late-address",
               "mip-mptcp-contact"]  # fmt: skip
THREE = {"access": ["wlan", "lte", {"name": "cdma", "profile": "lte"}], "homes": 1}
READERS = {"home-agent": home_agent.read_config, "mobile-node": mobile_node.read_config,
           "foreign-agent": foreign_agent.read_config}  # fmt: skip


class Bed:
    """What a mechanism sees of the testbed: it remembers what was started and asked."""

    family = 4

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self.folder, self.topo = folder, registry.make("mobile", parameters)
        self.paths, self.cn_paths = self.topo.paths(), self.topo.cn_paths()
        self.started: list[tuple[str, str, Any]] = []
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        state = {"congestion_control": "cubic", "how": "route"}
        self.mn = SimpleNamespace(name="mn", congestion_control_state=lambda: state)
        self.cn = SimpleNamespace(name="cn")

    def node(self, name: str) -> Any:
        return SimpleNamespace(name=name, bridge=f"{name}-br", state_dir=self.folder)

    def addresses(self, node: Any) -> dict[str, list[str]]:
        if node.name == "mn":
            return {path.interface: [f"10.{number}.0.100"] for number, path in enumerate(self.paths, 1)}
        return {node.bridge: ["10.1.0.1", "2001:db8:1::1"]}

    def sysctl(self, *words: Any, **options: Any) -> None:
        pass

    def start_agent(self, node: str, role: str, config: Mapping[str, Any]) -> None:
        path = self.folder / f"{node}-{role}.toml"
        path.write_text(to_toml({"agent": role, "control": "/x.sock", **config}))
        self.started.append((node, role, READERS[role](str(path))))

    def agent_command(self, node: str, role: str, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((node, role, request))
        cls = mechanisms.REGISTRY[self.mechanism]
        homes = [home.address for home in (cls.home, *cls.further_homes)]  # type: ignore[attr-defined]
        rows = [
            {"name": path.interface, "bid": number, "validated": True, "state": "registered"}
            for number, path in enumerate(self.paths, 1)
        ]
        registered = rows if cls.settings["multipath"] else rows[:1]  # type: ignore[attr-defined]
        cores: list[dict[str, Any]] = [{"home_address": home, "interfaces": rows} for home in homes]
        status = {
            "forwarding": [{"home_address": home, "shares": {"mn-wlan": 1}, "rules": ["r"] * 3} for home in homes],
            "core": {**cores[0], "further": cores[1:]}, "homes": [{"home_address": home, "at_home": ""} for home in homes],
        }  # fmt: skip
        wanted = [{"home_address": home, **row} for home in homes for row in registered]
        replies: dict[str, dict[str, Any]] = {"status": status, "bindings": {"bindings": wanted}}
        return replies.get(request["cmd"], {})

    mechanism = "mip4"


def prepared(folder: Path, name: str, parameters: Mapping[str, Any] = THREE) -> tuple[Any, Bed]:
    bed, mechanism = Bed(folder, parameters), mechanisms.make(name)
    bed.mechanism = name
    mechanism.prepare(bed)  # type: ignore[arg-type]
    return mechanism, bed


@pytest.mark.parametrize("name", NAMES)
def test_the_agents_accept_what_they_are_told(tmp_path: Path, name: str) -> None:
    mechanism, bed = prepared(tmp_path, name)
    assert mechanism.client_address(bed) == "10.33.0.10"
    files = {(node, role): file for node, role, file in bed.started}
    home, mobile = files["ha1", "home-agent"], files["mn", "mobile-node"]
    assert home.core.addresses == (mobile.core.home_agent,)
    assert home.core.home_prefix == mobile.core.home_network == "10.33.0.0/24"
    assert home.core.mobile_nodes[0].associations[0].key == mobile.core.association.key
    assert home.core.mobile_nodes[0].multipath == mobile.core.multipath
    assert home.core.mobile_nodes[0].selection == mobile.core.selection
    assert [interface.name for interface in mobile.core.interfaces] == ["mn-wlan", "mn-lte", "mn-cdma"]
    assert (("ar1", "foreign-agent") in files) == (name == "mip4-fa")
    assert mobile.congestion_control == "cubic"


def test_flow_bindings_name_the_paths_that_there_are(tmp_path: Path) -> None:
    _, bed = prepared(tmp_path, "mip4-multipath-flows")
    mobile = bed.started[-1][2].core
    assert mobile.exchange_flows
    assert [flow.bids for flow in mobile.flows] == [(1, 3, 2), (2, 1, 3), (1, 2, 3)]
    assert mobile.flows[0].selector.source_port == (80, 95)
    _, bed = prepared(tmp_path, "mip4-multipath-flows", {"homes": 1})
    assert [flow.bids for flow in bed.started[-1][2].core.flows] == [(1, 2), (2, 1), (1, 2)]


def test_a_preferred_network_is_told_to_both_ends_or_negotiated(tmp_path: Path) -> None:
    for name, receivers in (("mip4-multipath", ["mn", "ha1"]), ("mip4-multipath-flows", ["mn"])):
        mechanism, bed = prepared(tmp_path, name)
        bed.asked.clear()
        mechanism.handover_begins(bed, "mn-wlan", "mn-lte")
        policies = [(node, request["flows"]) for node, _, request in bed.asked if request["cmd"] == "policy"]
        assert [node for node, _ in policies] == receivers
        assert policies[0][1] == [{"destination": "10.33.0.10", "bids": [2, 1, 3]}]


def test_one_binding_changes_its_interface(tmp_path: Path) -> None:
    mechanism, bed = prepared(tmp_path, "mip4")
    bed.asked.clear()
    mechanism.break_before_make(bed, "mn-wlan", "mn-lte")
    assert [(request["cmd"], request["interface"]) for _, _, request in bed.asked] == [
        ("deregister", "mn-wlan"), ("handover", "mn-lte")]  # fmt: skip


def test_signal_strength_is_told_to_the_mobile_node(tmp_path: Path) -> None:
    mechanism, bed = prepared(tmp_path, "mip4")
    mechanism.signal_changed(bed, "mn-wlan", -75.0)
    assert bed.asked[-1] == ("mn", "mobile-node", {"cmd": "signal", "interface": "mn-wlan", "dbm": -75.0})


def test_ipv6_is_not_carried(tmp_path: Path) -> None:
    bed = Bed(tmp_path, THREE)
    bed.family = 6
    with pytest.raises(Unsupported, match="IPv4 only"):
        MobileIp().prepare(bed)  # type: ignore[arg-type]


def test_without_nft_s_hashes_the_verdict_is_unsupported_with_its_reason() -> None:
    for cls in MOBILE_IP_MECHANISMS:
        reason = features.why_unsupported(cls.requires, {"nft-flows": "no jhash"})
        assert reason == "needs nft-flows (no jhash)"
    known = {feature.name for feature in features.FEATURES} | {program.name for program in features.PROGRAMS}
    assert all(name in known for cls in MOBILE_IP_MECHANISMS for name in cls.requires)


def test_the_topology_gets_the_home_network_that_the_mechanism_needs() -> None:
    assert registry.with_homes("mobile", {}, 1) == {"homes": 1}
    assert registry.with_homes("mobile", {"homes": 2}, 1) == {"homes": 2}
    assert registry.with_homes("several-interfaces", {}, 1) == {}
    assert registry.with_homes("mobile", {"access": "wlan"}, 0) == {"access": "wlan"}
    topo = registry.make("mobile", registry.with_homes("mobile", {}, MobileIp.homes))
    assert Home().agent in str(topo.plan.addresses["ha1"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_fit_their_topologies(name: str) -> None:
    experiment = catalogue.load(name)
    assert set(experiment.mechanisms) <= set(mechanisms.REGISTRY)
    assert experiment.claims
    homes = max(mechanisms.REGISTRY[mechanism].homes for mechanism in experiment.mechanisms)
    sources = (ROOT / "docs" / "references.bib").read_text()
    for claim in experiment.claims:
        assert claim.source is None or f"{{{claim.source.key}," in sources, claim.id
        assert isinstance(claim.bound.value, (int, float)), claim.id
    for scenario in experiment.scenarios:
        parameters = registry.with_homes(scenario.topology, scenario.parameters, homes)
        events.check_targets(scenario.events, registry.make(scenario.topology, parameters))
        assert all(event.at_s < scenario.duration_s for event in scenario.events)


def test_homes_are_places_that_the_topology_has() -> None:
    topo = registry.make("mobile", {"homes": 2, "home_prefixes": 2})
    homes = [Home(number, variant=variant) for number in (1, 2) for variant in ("first", "second")]
    for home in homes:
        given = topo.plan.addresses[home.agent_node][home.agent_interface]
        assert f"{home.agent}/24" in given
        assert home.address not in str(given)
    assert len({home.address for home in homes}) == len(homes)
    assert Home(2, 11).address == "10.34.0.11"


@pytest.mark.parametrize("name", TWO_HOMES)
def test_a_second_home_address_is_known_to_its_home_agent(tmp_path: Path, name: str) -> None:
    cls = mechanisms.REGISTRY[name]
    parameters = {**THREE, "homes": cls.homes, "home_prefixes": 3 - cls.homes}
    mechanism, bed = prepared(tmp_path, name, parameters)
    served = {node: file.core for node, role, file in bed.started if role == "home-agent"}
    assert list(served) == ["ha1", "ha2"][: cls.homes]
    (mobile,) = (file for _, role, file in bed.started if role == "mobile-node")
    for home in mobile.homes:
        (agent,) = (core for core in served.values() if home.core.home_agent in core.addresses)
        assert home.core.home_address in [node.home_address for node in agent.mobile_nodes]
        assert any(home.core.home_agent in str(addresses) for addresses in bed.topo.plan.addresses.values())
    assert [home.core.home_address for home in mobile.homes] == [
        mechanism.client_address(bed), mechanism.other_client_address(bed)]  # fmt: skip
