"""The beginning of a run's connection: who called whom, by which protocol, and when a care-of address joined."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic as syn
from synthetic import Scene, Subflow, handover_scene, run_metrics
from test_analysis_routes import home_run, rewrite

from analysis.metrics import evaluate
from analysis.rundir import Json, load_run


@pytest.fixture(autouse=True)
def _home_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(syn.ADDRESSES, "home", "10.33.0.10")


def test_a_care_of_address_joins_the_home_address(tmp_path: Path) -> None:
    contact = home_run(tmp_path, direct=True)["contact"]
    assert (contact["opened_by"], contact["at_home_address"]) == ("mn", True)
    assert (contact["mptcp"], contact["why_tcp"], contact["joins"]) == (True, None, 1)
    assert contact["care_of_join_ms"] == pytest.approx(3550, abs=10), "first SYN at 0.1 s, join from 3.5 to 3.65 s"


def test_without_a_join_there_is_no_time(tmp_path: Path) -> None:
    contact = home_run(tmp_path, direct=False)["contact"]
    assert (contact["joins"], contact["care_of_join_ms"]) == (0, None)


def test_a_join_whose_beginning_of_the_connection_is_not_there_has_no_time(tmp_path: Path) -> None:
    scene = Scene()
    wlan = Subflow("mn-wlan", 40000)
    syn.steady(scene, wlan, 0.2, 6.0, 0)
    found = run_metrics(tmp_path, scene, [])["contact"]
    assert found is None or found["care_of_join_ms"] is None


def test_plain_tcp_says_why(tmp_path: Path) -> None:
    m = run_metrics(tmp_path, handover_scene(0.3, mptcp=False), mechanism="tcp", transport="tcp")
    contact = m["contact"]
    assert (contact["mptcp"], contact["why_tcp"]) == (False, "MP_CAPABLE was not offered")
    assert (contact["at_home_address"], contact["joins"]) == (False, 0)
    assert m["remark"] is None, "nothing else was expected"


def test_the_report_says_that_a_mechanism_fell_back(tmp_path: Path) -> None:
    def change(description: Json) -> None:
        description["mechanism"]["falls_back"] = True

    m = run_metrics(tmp_path, handover_scene(0.3, mptcp=False), mechanism="tcp", transport="tcp", change=change)
    assert m["remark"] == "plain TCP: MP_CAPABLE was not offered"


def test_other_workloads_have_none(tmp_path: Path) -> None:
    def change(description: Json) -> None:
        description["workload"]["kind"] = "iperf3"

    assert run_metrics(tmp_path, handover_scene(0.3), change=change)["contact"] is None


def test_what_came_before_the_stream_is_on_the_wire_as_well(tmp_path: Path) -> None:
    assert run_metrics(tmp_path, handover_scene(0.3))["judged"]
    rewrite(tmp_path / "r1" / "workload" / "receiver.json", preface_bytes=48)
    m, _ = evaluate(load_run(tmp_path / "r1"))
    assert "the captures" in m["why_not"], "48 bytes are missing there"
