"""The agents on real kernels: addresses come and go, connections live on, MPTCP endpoints follow."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.emulation.test_topologies import addresses_of, built, check_paths, ping, run_check, wait_state
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation

# Sends a counter every 10 ms for ever; the receiver prints what it has got when it is told to stop.
# sys.argv: protocol (6 TCP, 262 MPTCP), address of the sender, address of the receiver
SENDER = """
import socket, sys, threading
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
s.bind((sys.argv[2], 5001))
s.listen()
print("on", flush=True)
c = s.accept()[0]
t = threading.Event()
n = 0
while not t.wait(0.01):
    c.sendall(b"%08d" % n)
    n += 1
"""
RECEIVER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
s.bind((sys.argv[3], 0))
s.connect((sys.argv[2], 5001))
n = 0
with s.makefile("rb") as stream:
    while True:
        block = stream.read(8)
        if not block: break
        assert int(block) == n, (block, n)
        n += 1
        print(n, flush=True)
"""


class Transfer:
    """A TCP connection from CN to MN that counts; `progress` is how far it has come."""

    def __init__(self, net: Any, target: str, source: str, protocol: int = 6) -> None:
        arguments = [str(protocol), target, source]
        self.server = net["cn"].popen([sys.executable, "-c", SENDER, *arguments], stdout=subprocess.PIPE)
        assert self.server.stdout.readline()
        self.path = net["mn"].state_dir / f"progress-{source}"
        with open(self.path, "wb") as file:
            self.client = net["mn"].popen([sys.executable, "-c", RECEIVER, *arguments], stdout=file, stderr=subprocess.PIPE)

    def progress(self) -> int:
        """Blocks received."""
        lines = self.path.read_text().split()
        return int(lines[-1]) if lines else 0

    def goes_on(self, timeout_s: float = 10.0) -> None:
        """Wait until more has come than now."""
        before = self.progress()
        wait_until(lambda: self.progress() > before + 5 or self.client.poll() is not None, timeout_s, "more bytes")
        assert self.client.poll() is None, self.client.stderr.read()

    def close(self) -> None:
        for process in (self.client, self.server):
            process.kill()
            process.communicate()


def events(net: Any, agent: str = "netconf") -> list[dict[str, Any]]:
    """The event log of an agent of the MN."""
    path = net["mn"].shared_dir("events") / f"mn-{agent}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_connection_survives() -> None:
    """After a carrier loss both families get the same address again, at once, and TCP does not notice more than the gap."""
    with built("mobile", {"access": "wlan"}) as (net, topo):
        link = net.linksBetween(net["mn"], net["ar1"])[0]
        before = addresses_of(net, "mn-wlan")
        targets = topo.cn_addresses()
        transfers = [Transfer(net, targets["ipv6" if ":" in own else "ipv4"][0], own) for own in before]
        for transfer in transfers:
            transfer.goes_on()
        link.set_carrier(False)
        wait_state(net, "mn-wlan", carrier=False)
        link.set_carrier(True)
        wait_state(net, "mn-wlan", carrier=True)
        for transfer in transfers:
            transfer.goes_on()
        wait_until(lambda: [row["event"] for row in events(net)].count("lease") >= 2, 5.0, "the lease is confirmed")
        assert addresses_of(net, "mn-wlan") == before
        assert not [row for row in events(net) if row["event"] in ("address-removed", "failed")]
        log = events(net)
        back = max(number for number, row in enumerate(log) if row["event"] == "link" and row["carrier"])
        after = {row["event"]: row["mono_ns"] - log[back]["mono_ns"] for row in log[back:]}
        assert after["start-dhcp"] < 50e6, "the DHCP client starts at once"
        assert after["solicit"] < 100e6, "routers are asked at once"

        # Whatever somebody else takes away comes back.
        own4 = next(text for text in before if "." in text)
        net["mn"].run(["ip", "addr", "del", f"{own4}/24", "dev", "mn-wlan"])
        net["mn"].run(["ip", "route", "flush", "table", "101"])
        net["mn"].run(["ip", "rule", "del", "from", own4])
        for transfer in transfers:
            transfer.goes_on()
        check_paths(net, topo)
        for transfer in transfers:
            transfer.close()


def check_release() -> None:
    with built("mobile") as (net, topo):
        before = addresses_of(net, "mn-wlan")
        assert net["mn"].netconf("release", interface="mn-wlan", other=True)["addresses"] == []
        net["ar1"].advertise()
        good, text = ping(net, addresses_of(net, "mn-lte")[0], topo.cn_addresses()["ipv4"][0])
        assert good, text
        other = net["ar1"].serve_other_address(topo.mac("mn-wlan"))
        net["ar1"].advertise()
        assert addresses_of(net, "mn-wlan") == [], "the addresses stay away"
        _output, errors, _status = net["mn"].pexec(["ip", "-6", "route", "get", topo.cn_addresses()["ipv6"][0], "from",
                                                    next(text for text in before if ":" in text)])  # fmt: skip
        assert errors, "a lost address sends nothing"
        net["mn"].netconf("acquire", interface="mn-wlan")
        net["mn"].wait_configured()
        now = addresses_of(net, "mn-wlan")
        assert other in now
        assert len(now) == 2
        assert not set(now) & set(before), "both families have other addresses"
        check_paths(net, topo)

        def device() -> str:
            return str(net["mn"].run(["ip", "route", "get", topo.cn_addresses()["ipv4"][0]]))

        assert "mn-wlan" in device()
        net["mn"].netconf("prefer", interface="mn-lte")
        assert "mn-lte" in device()
        assert "mn-lte" in net["mn"].run(["ip", "-6", "route", "get", topo.cn_addresses()["ipv6"][0]])
        with pytest.raises(RuntimeError, match=r"no interface 'x': there are mn-wlan, mn-lte"):
            net["mn"].netconf("prefer", interface="x")

        check_overrun(net, topo)

        # An interface that vanishes and comes back.
        link = net.linksBetween(net["mn"], net["ar2"])[0]
        gone = addresses_of(net, "mn-lte")
        link.set_present(False)
        wait_state(net, "mn-lte", present=False)
        assert not set(gone) & set(addresses_of(net, "mn-lte"))
        link.set_present(True)
        net["mn"].wait_configured()
        check_paths(net, topo)


def check_overrun(net: Any, topo: Any) -> None:
    """An agent that could not read for long loses events, but not the state."""
    mn = net["mn"]
    agent = mn._netconf.pid
    own = next(text for text in addresses_of(net, "mn-wlan") if "." in text)
    os.kill(agent, signal.SIGSTOP)
    mn.ip_batch(["rule del from " + own])
    mn.ip_batch(f"route {word} 192.0.2.{number % 250}/32 dev lo" for number in range(4000) for word in ("add", "del"))
    os.kill(agent, signal.SIGCONT)
    wait_until(lambda: "events-lost" in [row["event"] for row in events(net)], 10.0, "the overrun is noticed")
    wait_until(lambda: own in mn.run(["ip", "rule"]), 10.0, "the rule is back")


def check_roaming() -> None:
    """Home, then a visited network, then another one: old addresses go, new ones come, old routers are forgotten."""
    from topologies.links.wire import wire

    access = [{"name": "wlan", "attached": False}, {"name": "lte", "attached": False}]
    with built("mobile", {"access": access, "homes": 1, "at_home": True}) as (net, topo):
        link = net.linksBetween(net["mn"], net["hr1"])[0]
        home = addresses_of(net, "mn-home")
        for place in ("ar1/ap1", "ar2/ap2", "hr1/ap2"):
            point = topo.attachment_points[place]
            port = wire().add_port(net[point.router], point.port)
            net[point.router].adopt_port(port)
            link.set_carrier(False)
            link.attach(port)
            link.set_carrier(True)
            networks = net[point.router].prefixes[0].networks()

            def moved(networks: Any = networks) -> bool:
                own = [ipaddress.ip_address(text) for text in addresses_of(net, "mn-home")]
                return len(own) == 2 and all(any(address in network for network in networks) for address in own)

            wait_until(moved, 10.0, f"addresses of {place} only")
            net["mn"].wait_configured()
            for own in addresses_of(net, "mn-home"):
                good, text = ping(net, own, topo.cn_addresses()["ipv6" if ":" in own else "ipv4"][0])
                assert good, text
            defaults = net["mn"].run(["ip", "-6", "route", "show", "default", "proto", "ra"]).splitlines()
            assert len(defaults) == 1, defaults
        assert addresses_of(net, "mn-home") == home, "back home the old addresses are there again"


def check_mptcp() -> None:
    from topologies.mobile_host import control_request, to_toml

    with built("mobile") as (net, topo):
        mn = net["mn"]
        control, path = mn.state_dir / "mptcp.sock", mn.state_dir / "mptcp.toml"
        path.write_text(
            to_toml(
                {
                    "agent": "mn-mptcp-endpoints",
                    "control": str(control),
                    "event_log": str(mn.shared_dir("events") / "mn-mptcp-endpoints.jsonl"),
                    "limits": {"subflows": 4, "add_addr_accepted": 2},
                    "interface": [
                        {"name": "mn-wlan", "flags": ["subflow"]},
                        {"name": "mn-lte", "flags": ["subflow", "backup"], "on_carrier_loss": "remove"},
                    ],
                }
            )
        )
        agent = mn.spawn_agent("mptcp-endpoints", path)
        wait_until(control.exists, 10.0, "the control socket")

        def ask(cmd: str, **fields: Any) -> dict[str, Any]:
            return control_request(control, {"cmd": cmd, **fields})

        def endpoints(interface: str) -> dict[str, list[str]]:
            rows = ask("status")["endpoints"]
            return {row["address"]: row["flags"] for row in rows if row["interface"] == interface}

        def follows(interface: str, addresses: list[str]) -> None:
            wait_until(lambda: sorted(endpoints(interface)) == sorted(addresses), 10.0, f"endpoints {addresses}")

        follows("mn-wlan", addresses_of(net, "mn-wlan"))
        follows("mn-lte", addresses_of(net, "mn-lte"))
        assert ask("status")["limits"] == {"subflows": 4, "add_addr_accepted": 2}
        assert all(flags == ["backup", "subflow"] for flags in endpoints("mn-lte").values())
        assert mn.run(["ip", "mptcp", "endpoint"]).count("backup") == 2

        mn.netconf("release", interface="mn-wlan")
        follows("mn-wlan", [])
        mn.netconf("acquire", interface="mn-wlan")
        mn.wait_configured()
        follows("mn-wlan", addresses_of(net, "mn-wlan"))

        link = net.linksBetween(mn, net["ar2"])[0]
        link.set_carrier(False)
        follows("mn-lte", [])
        link.set_carrier(True)
        follows("mn-lte", addresses_of(net, "mn-lte"))
        link = net.linksBetween(mn, net["ar1"])[0]
        link.set_carrier(False)
        wait_state(net, "mn-wlan", carrier=False)
        follows("mn-wlan", addresses_of(net, "mn-wlan"))
        link.set_carrier(True)

        ask("prio", interface="mn-lte", priority="active")
        assert all(flags == ["subflow"] for flags in endpoints("mn-lte").values())
        numbers = [row["number"] for row in ask("status")["endpoints"] if row["interface"] == "mn-wlan"]
        ask("rejoin", interface="mn-wlan")
        again = [row["number"] for row in ask("status")["endpoints"] if row["interface"] == "mn-wlan"]
        assert len(again) == 2
        assert numbers != again
        ask("remove", interface="mn-wlan")
        assert endpoints("mn-wlan") == {}
        ask("add", interface="mn-wlan")
        follows("mn-wlan", addresses_of(net, "mn-wlan"))
        with pytest.raises(RuntimeError, match="must be"):
            ask("prio", interface="mn-lte", priority="high")

        check_join(net, topo, ask)

        # An address whose packets would leave elsewhere has no endpoint: its only join would fail.
        mn.stop_netconf()
        mn.run(["ip", "addr", "add", "10.77.0.1/32", "dev", "mn-lte"])
        mn.run(["ip", "addr", "add", "10.77.0.2/32", "dev", "mn-wlan"])
        wait_until(lambda: "10.77.0.2" in endpoints("mn-wlan"), 5.0, "an endpoint for the address with a path")
        assert "10.77.0.1" not in endpoints("mn-lte")
        mn.run(["ip", "rule", "add", "from", "10.77.0.1", "lookup", "102"])
        wait_until(lambda: "10.77.0.1" in endpoints("mn-lte"), 5.0, "the endpoint comes with the path")
        agent.terminate()
        agent.wait(5)
        assert agent.returncode == 0


def check_join(net: Any, topo: Any, ask: Any) -> None:
    """A live MPTCP connection gets a second subflow from an address that appears later."""
    net["mn"].netconf("release", interface="mn-lte")
    own = next(text for text in addresses_of(net, "mn-wlan") if "." in text)
    target = topo.cn_addresses()["ipv4"][0]
    transfer = Transfer(net, target, own, protocol=262)

    def subflows() -> int:
        return str(net["mn"].run(["ss", "-Htn", "dst", target])).count("ESTAB")

    wait_until(lambda: subflows() == 1, 5.0, "the first subflow")
    net["mn"].netconf("acquire", interface="mn-lte")
    wait_until(lambda: subflows() == 2, 10.0, "a subflow from the address that has appeared")
    transfer.goes_on()
    net.linksBetween(net["mn"], net["ar1"])[0].set_blackhole(True)
    transfer.goes_on()
    transfer.close()


@pytest.mark.parametrize("check", ["connection_survives", "release", "roaming", "mptcp"])
def test_agents(check: str) -> None:
    run_check(__name__, check)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
