"""Runs whose data goes over a home agent, or directly: what `metrics.json` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic as syn
from synthetic import WALL0, Scene, Subflow, handover_scene, run_metrics

from analysis.rundir import Json

HOME, AGENT = "10.33.0.10", "10.33.0.2"
COA = syn.ADDRESSES["mn-wlan"]
CLIENT_PORT = 40000
WAY_S = 0.075
"""One way between mobile and correspondent node over the home agent."""


class HomeScene(Scene):
    """The initial subflow is that of the home address, in a tunnel on the WLAN; the home agent's link is captured, too."""

    def __init__(self) -> None:
        super().__init__()
        self.records["ha1-hr1"] = []
        self.delay_s = WAY_S

    def _tunnelled(self, at_s: float, frame: bytes, mobile_sends: bool) -> None:
        ends = (COA, AGENT) if mobile_sends else (AGENT, COA)
        outer = syn.ip(*ends, 4, frame[14:])
        moments = {"mn-wlan": 0.0, "ha1-hr1": WAY_S / 2}
        for name, away_s in moments.items():
            self.records[name].append((WALL0 + round((at_s + (away_s if mobile_sends else -away_s)) * 1e9), outer))
        far_s = at_s + (WAY_S if mobile_sends else -WAY_S) / 2
        self.records["ha1-hr1"].append((WALL0 + round(far_s * 1e9), frame))

    def down(self, flow: Subflow, at_s: float, frame: bytes, arrives: bool = True) -> None:
        if flow.device != "home":
            super().down(flow, at_s, frame, arrives)
            return
        self.records["cn-eth0"].append((WALL0 + round((at_s - WAY_S) * 1e9), frame))
        self._tunnelled(at_s, frame, mobile_sends=False)

    def up(self, flow: Subflow, at_s: float, frame: bytes) -> None:
        if flow.device != "home":
            super().up(flow, at_s, frame)
            return
        self.records["cn-eth0"].append((WALL0 + round((at_s + WAY_S) * 1e9), frame))
        self._tunnelled(at_s, frame, mobile_sends=True)


@pytest.fixture(autouse=True)
def _home_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(syn.ADDRESSES, "home", HOME)


def home_run(folder: Path, direct: bool, agent_captured: bool = True, peer: str = HOME, late_bytes: int = 0) -> Json:
    """The home address' subflow carries data until 4 s, then the care-of address', when there is one."""
    scene = HomeScene()
    home = scene.open(Subflow("home", CLIENT_PORT), 0.1)
    end_s = 4.0 if direct else 12.0
    position = syn.steady(scene, home, 0.5, end_s, 0)
    if direct:
        coa = scene.open(Subflow("mn-wlan", 40001, initial=False, client_isn=77, server_isn=88), 3.5)
        position = syn.steady(scene, coa, 4.0, 12.0, position)
    for _ in range(late_bytes // syn.SEGMENT):
        scene.data(home, 11.0, syn.SEGMENT, position)
        position += syn.SEGMENT

    def change(description: Json) -> None:
        description["addresses"]["mn"].pop("home")
        description["addresses"]["mn"]["lo"] = [HOME]
        if agent_captured:
            entry = {"file": "pcap/ha1-ha1-hr1.pcapng", "node": "ha1", "interface": "ha1-hr1", "received": 1, "dropped": 0}
            description["captures"].append(entry)

    run_metrics(folder, scene, [], change=change, mechanism="mip-mptcp")
    for role, local, far in (
        ("receiver", [HOME, CLIENT_PORT], [syn.CN, 5001]),
        ("sender", [syn.CN, 5001], [peer, CLIENT_PORT]),
    ):
        rewrite(folder / "r1" / "workload" / f"{role}.json", local=local, peer=far)
    from analysis.metrics import evaluate
    from analysis.rundir import load_run

    return evaluate(load_run(folder / "r1"))[0]


def rewrite(path: Path, **fields: Any) -> None:
    import json

    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_data_leaves_the_way_over_the_home_agent(tmp_path: Path) -> None:
    m = home_run(tmp_path, direct=True)
    assert m["judged"], m["why_not"]
    use = m["home_agent"]
    assert (use["home_address"], use["home_agent"], use["seen_at"]) == (HOME, AGENT, "ha1")
    assert use["application_uses_home_address"] is True
    assert use["direct_since_s"] == pytest.approx(3.65, abs=0.01)
    assert use["settled_from_s"] == pytest.approx(6.65, abs=0.01)
    assert (use["settled_bytes"], use["settled_mbit"]) == (0, 0.0)
    over_home = round(3.5 * 4e6 / 8)
    assert use["bytes"] == pytest.approx(over_home, abs=2 * syn.SEGMENT)
    assert use["share"] == pytest.approx(3.5 / 11.5, abs=0.01)
    assert use["before_bytes"] == pytest.approx(3.15 * 4e6 / 8, abs=0.05 * 4e6 / 8)
    assert use["last_data_s"] == pytest.approx(4.0, abs=0.06)
    assert len(use["over_time_mbit"]) == len(use["direct_over_time_mbit"]) == 24
    for rates, inside in ((use["over_time_mbit"], slice(2, 7)), (use["direct_over_time_mbit"], slice(8, 24))):
        assert rates[inside] == pytest.approx([4.0] * len(rates[inside]), rel=0.05)
    assert set(use["over_time_mbit"][8:]) == {0.0}


def test_late_bytes_over_the_home_agent_are_seen(tmp_path: Path) -> None:
    assert home_run(tmp_path, direct=True, late_bytes=4 * syn.SEGMENT)["home_agent"]["settled_bytes"] == 4 * syn.SEGMENT


def test_everything_over_the_home_agent(tmp_path: Path) -> None:
    use = home_run(tmp_path, direct=False)["home_agent"]
    assert (use["share"], use["direct_since_s"], use["settled_from_s"]) == (1.0, None, 3.0)
    assert use["settled_mbit"] == pytest.approx(4.0, rel=0.02)
    assert use["before_bytes"] == use["bytes"]


def test_without_a_capture_at_the_home_agent_the_mobile_node_tells(tmp_path: Path) -> None:
    there, here = (home_run(tmp_path / name, True, captured)["home_agent"] for name, captured in (("a", True), ("b", False)))
    assert (there["seen_at"], here["seen_at"]) == ("ha1", "mn")
    assert here["bytes"] == there["bytes"]


def test_another_address_in_a_program_is_noticed(tmp_path: Path) -> None:
    assert home_run(tmp_path, direct=True, peer=COA)["home_agent"]["application_uses_home_address"] is False


def test_without_a_tunnel_there_is_no_home_agent(tmp_path: Path) -> None:
    m = run_metrics(tmp_path, handover_scene(0.4))
    assert m["home_agent"] is None
    assert m["audit"]["mptcp_options"] == ["DSS", "MP_CAPABLE", "MP_JOIN"]
    assert (m["audit"]["non_standard"], m["audit"]["messages"]) == (0, 0)


def test_plain_tcp_is_not_audited(tmp_path: Path) -> None:
    assert run_metrics(tmp_path, handover_scene(3.5, mptcp=False), mechanism="tcp", transport="tcp")["audit"] is None


def test_load_follows_the_events_of_the_scenario(tmp_path: Path) -> None:
    def change(description: Json) -> None:
        for path, rate_mbit in zip(description["paths"], (20.0, 10.0), strict=True):
            path["profile"] = {"rate_mbit": rate_mbit}
        description["scenario"]["events"][0]["parameters"] = {"rate_mbit": 5.0}

    m = run_metrics(tmp_path, handover_scene(0.4), [(5.0, "profile-change", "mn-wlan")], change=change)
    before, after = m["load"]["phases"]
    assert (before["capacity"], after["capacity"]) == ({"wlan": 20.0, "lte": 10.0}, {"wlan": 5.0, "lte": 10.0})
    assert (before["ends_s"], after["ends_s"]) == (5.0, 12.0)
    assert before["goodput_mbit"] == pytest.approx(4.0 * 4.8 / 5, rel=0.02)
    assert before["share"]["wlan"] == pytest.approx(1.0, abs=0.001)
    assert after["share"] == {"wlan": 0.0, "lte": 1.0}
    assert after["settled"]["goodput_mbit"] == pytest.approx(4.0, rel=0.02)
    headers = 14 + 20 + 20 + len(syn.dss(1, 1, 1, dack=5)) + 2  # two bytes of padding
    assert after["settled"]["rate"]["lte"] == pytest.approx(4.0 * (syn.SEGMENT + headers) / syn.SEGMENT, rel=0.02)
    assert m["load"]["wire_bytes"]["wlan"] > m["bytes_per_path"]["wlan"]


@pytest.mark.parametrize(
    ("parameters", "wlan_mbit"),
    [
        ({"rate_mbit": 5.0, "direction": "back"}, 5.0),
        ({"rate_mbit": 5.0, "direction": "forward"}, 20.0),
        ({"delay_ms": 50.0}, 20.0),
        ({"profile": "lte"}, None),
    ],
)
def test_only_the_direction_of_the_data_counts(tmp_path: Path, parameters: Json, wlan_mbit: float | None) -> None:
    def change(description: Json) -> None:
        description["paths"][0]["profile"] = {"rate_mbit": 20.0}
        description["scenario"]["events"][0]["parameters"] = parameters

    m = run_metrics(tmp_path, handover_scene(0.4), [(5.0, "profile-change", "mn-wlan")], change=change)
    assert m["load"]["phases"][-1]["capacity"]["wlan"] == wlan_mbit
