"""A short soak run of the proxy (`make soak` is the long one): one round of each role, peer and IP version, with trouble."""

import json
import subprocess
import sys

import pytest

from tests.emulation.test_topologies import ROOT

pytestmark = pytest.mark.emulation


def test_short_soak() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.proxy", "--gb", "0.03", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert told["bad"] == []
    assert told["worrying"] == {}
    assert told["good"], told["problems"]
    assert told["rounds"] >= 8
    assert told["bytes"] >= 27_000_000
