"""`roamlab watch` and `roamlab ctl` on real agents of Mobile IPv4: a home agent, a mobile node with two paths, traffic."""

import json
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments import control
from experiments.cli.ctl import ctl
from experiments.cli.terminal import console
from experiments.cli.watch import watch
from experiments.control import AgentSocket
from experiments.errors import RoamlabError
from tests.emulation.mobileip_lab import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, Lab, care_of
from tests.emulation.test_mobileip_kernel import bound, transfer, used
from tests.emulation.test_topologies import run_check
from topologies.links.netns import inside

pytestmark = pytest.mark.emulation


def said(command: object, *words: str) -> str:
    """What a command prints; its error is raised."""
    console.width = 160
    result = CliRunner().invoke(command, list(words), standalone_mode=False)  # type: ignore[arg-type]
    if result.exception:
        raise result.exception
    return result.output


def check_watch() -> None:
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), 2).running() as net:
        home, mobile = net.home_agent(), net.mobile_node(p0={"label": 7}, exchange_flows=True)
        bound(home, 2)
        used(mobile, 2)
        known = [AgentSocket(1, "run", node, agent.role, agent.control) for node, agent in (("ha1", home), ("mn", mobile))]
        control.agents = lambda *_: known  # type: ignore[assignment]
        transfer(net, "mn", "cn", CORRESPONDENT, 1_000_000)
        check_bindings(net)
        check_commands()
        mobile.end()
        assert "mn/mobile-node: no answer" in said(watch, "--once")
        with pytest.raises(RoamlabError, match=r"mn/mobile-node: .*has it just ended"):
            said(ctl, "mn/mobile-node")
        home.end()


@contextmanager
def sending(sock: socket.socket) -> Iterator[None]:
    """About a hundred packets of 1000 octets a second."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.01):
            sock.sendto(bytes(1000), (CORRESPONDENT, 9))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def check_bindings(net: Lab) -> None:
    """Both ends say the same of both bindings; packets that are sent show as a rate."""
    with inside(net.nodes["mn"]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, sending(sock):
        found = json.loads(said(watch, "--json", "--interval", "0.5"))
    assert [row["agent"] for row in found["agents"]] == ["ha1/home-agent", "mn/mobile-node"]
    rows = {(row["agent"], row["bid"]): row for row in found["bindings"]}
    for bid in (1, 2):
        for agent, state in (("ha1/home-agent", "used"), ("mn/mobile-node", "registered")):
            row = rows[agent, bid]
            assert (row["home_address"], row["care_of"], row["state"]) == (HOME_ADDRESS, care_of(bid - 1), state)
            assert 0 < row["remaining_s"] <= 300
            assert row["tunnel"].startswith("mip")
    assert [rows[agent, 1]["label"] for agent in ("ha1/home-agent", "mn/mobile-node")] == [7, 7]
    ways = {(row["agent"], row["remote"], row["local"]): row for row in found["tunnels"]}
    carried = sum(ways["ha1/home-agent", care_of(path), HOME_AGENT]["received_bytes"] for path in (0, 1))
    assert carried > 1_000_000
    for agent, way in (("mn/mobile-node", "out"), ("ha1/home-agent", "in")):
        assert sum(row[f"{way}_packets_s"] for row in ways.values() if row["agent"] == agent) > 10
        assert sum(row[f"{way}_mbit"] for row in ways.values() if row["agent"] == agent) > 10 * 8000 / 1e6


def check_commands() -> None:
    """Commands to both roles, and what is wrong in one line."""
    assert "tunnels 2 expired 0" in " ".join(said(ctl, "ha1/home-agent").split())
    assert care_of(1) in said(ctl, "mn/mobile-node", "bindings")
    assert json.loads(said(ctl, "ha1/home-agent", "bindings", "--json"))["bindings"][0]["bid"] == 1
    flows = 'flows=[{protocol = "udp", drop = true}]'
    told = said(ctl, "mn/mobile-node", "policy", flows)
    assert "-> drop" in told, told
    assert "registered" not in said(ctl, "mn/mobile-node", "deregister", "interface=mn-p1").splitlines()[-1]
    assert care_of(0) not in said(ctl, "ha1/home-agent", "deregister", f"home_address={HOME_ADDRESS}", "bid=1")
    said(ctl, "mn/mobile-node", "register")
    for words, text in (
        (["ha1/home-agent", "register"], r"no command 'register' \(mobile-node has it\): there are status, bindings"),
        (["ha1/home-agent", "deregister", "home_address=10.33.0.99"], "10.33.0.99 has no such binding"),
        (["mn/mobile-node", "register", "interface=mn-p9"], "mn-p9 is not configured"),
        (["mn/mobile-node", "policy", "flows=[{protocol = 1}]"], "write either bids or labels"),
        (["mn/mobile-node", "policy", "flows"], "write it as NAME=VALUE"),
    ):
        with pytest.raises(RoamlabError, match=text):
            said(ctl, *words)


def test_watch_and_ctl_of_real_agents() -> None:
    run_check(__name__, "watch")


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
