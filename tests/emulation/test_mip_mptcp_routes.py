"""Mobile IP with MPTCP: the way over the home agent is left, the load follows the rates; one run each, from its captures."""

from pathlib import Path

import pytest

from experiments.catalogue import mip_mptcp_load as load
from experiments.catalogue import mip_mptcp_route_optimisation as route
from tests.emulation.one_run import metrics_of_run

pytestmark = pytest.mark.emulation


def test_a_closed_home_address_is_still_the_programs_address(tmp_path: Path) -> None:
    metrics = metrics_of_run(route.EXPERIMENT.name, tmp_path, route.DIRECT, route.MOVES.name)
    assert metrics["survived"]
    use = metrics["home_agent"]
    assert use["application_uses_home_address"]
    assert use["seen_at"] == "ha1"
    assert use["bytes"] > 0, "the connection began over the home agent"
    assert use["settled_bytes"] == 0
    assert use["direct_round_trip_ms"] < use["round_trip_ms"] / 2
    audit = metrics["audit"]
    assert (audit["non_standard_kinds"], audit["non_standard"]) == ({}, 0)
    assert {"RRQ", "RRP"} <= set(audit["mobile_ip_messages"]), "the binding moves with the mobile node"
    assert {"MP_CAPABLE", "MP_JOIN", "DSS", "REMOVE_ADDR"} <= set(audit["mptcp_options"])


def test_mobile_ip_alone_has_no_other_way(tmp_path: Path) -> None:
    use = metrics_of_run(route.EXPERIMENT.name, tmp_path, route.ONLY_MOBILE_IP, route.ONE.name)["home_agent"]
    assert (use["share"], use["direct_since_s"]) == (1.0, None)
    assert use["settled_round_trip_ms"] >= route.OVER_HOME_MS


def test_the_cheapest_network_carries_what_it_can(tmp_path: Path) -> None:
    metrics = metrics_of_run(load.EXPERIMENT.name, tmp_path, load.CHEAPEST, load.STEADY.name)
    assert metrics["load"]["wire_share"]["lte"] <= load.METERED
    assert metrics["load"]["phases"][0]["settled"]["share"]["wlan"] >= 1 - load.METERED
