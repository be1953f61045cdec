"""One short run of every mechanism of Mobile IPv4 through the command line, judged from its captures."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.metrics import evaluate
from analysis.rundir import load_run
from experiments.capsule import ROOT, environment

pytestmark = pytest.mark.emulation

ROAMLAB = ROOT / ".venv" / "bin" / "roamlab"
SHORT = Path(__file__).with_name("short_mobileip.py")
RUN_TIMEOUT_S = 180.0
DISTURBED = ("link relay was late", "gap is", "ms late", "voice-1: the application counted")
"""What a busy machine makes of a run: its figures are not used, but it must have worked. Of a call, packets that arrive right
behind the reply, before the mobile node has opened its tunnel, are in the captures only."""
ON_WLAN, ON_LTE = {"wlan": 1.0, "lte": 0.0}, {"wlan": 0.0, "lte": 1.0}


def metrics_of(results: Path, mechanism: str, scenario: str = "carrier-loss") -> dict[str, Any]:
    """Run it; its metrics. It ended well, or something disturbed the measurement and nothing else."""
    argv = [
        str(ROAMLAB),
        "run",
        str(SHORT),
        "--results",
        str(results),
        "--json",
        "--no-report",
        "-m",
        mechanism,
        "-s",
        scenario,
    ]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    (manifest,) = results.glob("short-mobileip/*/manifest.json")
    found = json.loads(manifest.read_text())
    assert found["state"] == "complete", found["reason"]
    metrics, _ = evaluate(load_run(manifest.parent))
    for problem in (metrics["why_not"] or "").split("; "):
        assert not problem or any(word in problem for word in DISTURBED), problem
    return metrics


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
