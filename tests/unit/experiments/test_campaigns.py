"""How many runs go on at a time when the user does not say."""

import os

import pytest

from experiments.cli.campaigns import default_jobs
from experiments.guest.qemu import VIRTUAL_TIME


def test_runs_that_mostly_wait_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert default_jobs(None, ["tcp", "mptcp"]) == 6
    assert default_jobs(VIRTUAL_TIME, ["tcp", "proxy-proxy"]) == 3
    assert default_jobs("tcg", ["tcp"]) == 1


@pytest.mark.parametrize("busy", ["proxy-mptcp-multipath", "mip4-multipath", "mip-mptcp-direct"])
def test_agents_that_touch_every_packet_have_the_machine_for_one_run(busy: str) -> None:
    assert default_jobs(None, ["tcp", busy]) == 1
