"""What a home agent with 10,000 bindings says of itself: a page, quickly, with the counts."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from agents.core.mobileip.actions import Forwarding, Tunnel
from agents.core.mobileip.bindings import Binding
from agents.core.mobileip.home_agent import HomeAgent
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.kernel.mobileip.forwarding import Forwarder
from agents.kernel.mobileip.home_agent import HomeAgentDriver
from agents.kernel.mobileip.nftables import Side
from agents.kernel.mobileip.pages import ROWS, Page
from agents.kernel.mobileip.tunnels.manager import Port, Tunnels
from agents.kernel.proxy.agent import Problems
from tests.unit.agents.core.mobileip.ha_parts import ASSOCIATION

COUNT = 10_000
QUICK_S = 0.5
"""Of processor time. All rows take several times as long; a look of `roamlab watch` comes every second."""


@pytest.fixture(scope="module")
def agent() -> Any:
    """A driver without a kernel, whose core holds the bindings of 5,000 mobile nodes with two tunnels each."""
    homes = [f"10.64.{number // 250}.{number % 250 + 1}" for number in range(COUNT // 2)]
    nodes = tuple(MobileNode((ASSOCIATION,), home, multipath=True) for home in homes)
    core = HomeAgent(HomeAgentConfig(("10.33.0.2",), nodes, "10.64.0.0/16"), bytes, {})
    driver: Any = object.__new__(HomeAgentDriver)
    driver.core = driver.home_agent = core
    driver.config = SimpleNamespace(agent="home-agent")
    driver.problems = Problems(SimpleNamespace(write=lambda *_, **__: None))  # type: ignore[arg-type]
    driver.proxy_arp = SimpleNamespace(defended=set(homes))
    driver.tunnels = object.__new__(Tunnels)
    driver.tunnels.ports, driver.tunnels.strangers = {}, {}
    driver.forwarder = Forwarder(Side.HOME_AGENT, None, driver.tunnels, None)  # type: ignore[arg-type]
    driver.forwarder.counters = dict
    for number, home in enumerate(homes):
        ways = []
        for bid in (1, 2):
            tunnel = Tunnel("10.33.0.2", f"10.{bid}.{number // 250}.{number % 250 + 1}", bid=bid)
            core._state.table.put(Binding(home, bid, tunnel.remote, tunnel, 600, time.monotonic() + 600, None))
            driver.tunnels.ports[tunnel.key] = Port(tunnel, len(driver.tunnels.ports) + 1, "lo", "kernel", 1480)
            ways.append(tunnel)
        driver.forwarder.active[home] = Forwarding(home, shares=tuple((way, 1) for way in ways), accept=tuple(ways))
    return driver


def test_status_is_a_page_with_the_counts_of_all(agent: Any) -> None:
    begun_s = time.process_time()
    said = agent.status()
    text = json.dumps(said)
    assert time.process_time() - begun_s < QUICK_S
    assert len(text) < 1000 * ROWS
    assert [len(said[name]) for name in ("bindings", "tunnels", "defended")] == [ROWS] * 3
    assert said["counts"] == {"bindings": COUNT, "tunnels": COUNT, "forwarding": COUNT // 2, "defended": COUNT // 2}


@pytest.mark.parametrize("first", [0, 5000, COUNT - 3])
def test_the_page_has_the_tunnels_and_the_forwarding_of_its_bindings(agent: Any, first: int) -> None:
    said = agent.status(Page(first, 20))
    assert len(said["bindings"]) == min(20, COUNT - first)
    ends = {(row["local"], row["remote"]) for row in said["tunnels"]}
    assert {(row["local"], row["remote"]) for row in said["bindings"]} <= ends
    assert {row["home_address"] for row in said["bindings"]} <= {row["home_address"] for row in said["forwarding"]}


def test_all_pages_together_are_all_bindings(agent: Any) -> None:
    rows = []
    while len(page := agent.bindings_said(Page(len(rows), 3000))["bindings"]):
        rows += page
    assert len({(row["home_address"], row["bid"]) for row in rows}) == COUNT == agent.bindings_said()["count"]
