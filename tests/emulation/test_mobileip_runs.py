"""One short run of every mechanism of Mobile IPv4 through the command line, judged from its captures."""

from pathlib import Path
from typing import Any

import pytest

from tests.emulation.one_run import metrics_of_run

pytestmark = pytest.mark.emulation

SHORT = Path(__file__).with_name("short_mobileip.py")
ON_WLAN, ON_LTE = {"wlan": 1.0, "lte": 0.0}, {"wlan": 0.0, "lte": 1.0}


def metrics_of(results: Path, mechanism: str, scenario: str = "carrier-loss") -> dict[str, Any]:
    """Run the short experiment's scenario; its metrics."""
    return metrics_of_run(str(SHORT), results, mechanism, scenario)


@pytest.mark.parametrize("mechanism", ["mip4", "mip4-fa", "mip4-multipath", "mip4-multipath-backup", "mip4-multipath-packets"])
def test_connections_of_the_home_address_survive(tmp_path: Path, mechanism: str) -> None:
    metrics = metrics_of(tmp_path, mechanism)
    assert metrics["survived"], {name: flow["survived"] for name, flow in metrics["flows"].items()}
    assert metrics["mobileip"]["accepted"] >= 1
    # To a foreign agent packets go as they are; everything else is in a tunnel on the access link.
    tunnelled = 0.0 if mechanism == "mip4-fa" else 1.0
    for name, flow in metrics["flows"].items():
        before, without, _ = flow["phases"]
        assert {before["tunnelled_share"], without["tunnelled_share"]} == {tunnelled}, name
        assert without["settled"]["down"] == ON_LTE, name
        if mechanism in ("mip4", "mip4-fa", "mip4-multipath-backup"):
            assert before["down"] == before["up"] == ON_WLAN, name
        if mechanism == "mip4-multipath":  # one tunnel, the same in both directions
            assert before["down"] in (ON_WLAN, ON_LTE), name
            assert before["down"] == before["up"], name
    if mechanism == "mip4-multipath-packets":
        shares = metrics["flows"]["bulk-1"]["phases"][0]["down"]
        assert 0.4 <= shares["wlan"] <= 0.6, shares


def test_flow_bindings_decide_in_both_directions(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, "mip4-multipath-flows")
    assert metrics["survived"]
    assert metrics["mobileip"]["own_interface"]
    for name, wanted in (("bulk-1", ON_WLAN), ("voice-1", ON_LTE), ("rpc-1", ON_WLAN)):
        before, without, _ = metrics["flows"][name]["phases"]
        assert before["down"] == before["up"] == wanted, name
        assert without["settled"]["down"] == ON_LTE, name


def test_behind_translators_the_tunnels_are_udp(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, "mip4", "behind-nat")
    assert metrics["survived"]
    assert metrics["mobileip"]["tunnels"] == "UDP (RFC 3519)"
