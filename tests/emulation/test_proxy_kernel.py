"""The proxy's kernel side on real kernels: queues, rules, raw sockets, addresses that live on.

The core is one that translates addresses only, at both ends (proxy_inside): what goes wrong here is not its fault.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.emulation.test_agents import Transfer
from tests.emulation.test_topologies import addresses_of, built, run_check, wait_state
from topologies.mobile_host import control_request, to_toml
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
PORT = 5001
PLAIN_PORT = 5004
"""Proxied here, not at the other end."""


class Agent:
    """A proxy agent with the translating core on a node."""

    def __init__(self, net: Any, name: str, homes: list[str], config: dict[str, Any], *, far: bool = False) -> None:
        self.node = net[name]
        self.control = self.node.state_dir / "proxy.sock"
        self.log = self.node.shared_dir("events") / f"{name}-proxy.jsonl"
        self.file = self.node.state_dir / "proxy.toml"
        self.file.write_text(to_toml({"control": str(self.control), "event_log": str(self.log), **config}))
        self.order = json.dumps({"homes": homes, "far": far})
        self.start()

    def start(self) -> None:
        self.control.unlink(missing_ok=True)
        words = [sys.executable, "-m", "tests.emulation.proxy_inside", str(self.file), self.order]
        self.process = self.node.popen(words, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: self.control.exists() or self.process.poll() is not None, 10.0, "the control socket")
        assert self.process.poll() is None, self.process.communicate()

    def ask(self, cmd: str, **fields: Any) -> dict[str, Any]:
        return control_request(self.control, {"cmd": cmd, **fields})

    def end(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)
        _, errors = self.process.communicate(timeout=10)
        assert self.process.returncode == (0 if number == signal.SIGTERM else -number), errors

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def rules(self) -> list[str]:
        found = [self.node.run([program, "-t", "mangle", "-S"]) for program in ("iptables", "ip6tables")]
        return [line for line in "".join(found).splitlines() if "ROAMLAB-PROXY" in line]


def both_ends(net: Any, topo: Any) -> tuple[Agent, Agent, list[str], dict[str, str]]:
    """Agents at MN and CN, the MN's addresses on wlan, the CN's by family."""
    homes = addresses_of(net, "mn-wlan")
    targets = {family: found[0] for family, found in topo.cn_addresses().items()}
    interfaces = [{"name": "mn-wlan"}, {"name": "mn-lte", "cost": 1}]
    mine = Agent(net, "mn", homes, {"filter": [{"remote_ports": [PORT, f"5003-{PLAIN_PORT}"]}], "interface": interfaces})
    other = Agent(net, "cn", homes, {"filter": [{"local_ports": [PORT]}]}, far=True)
    return mine, other, homes, targets


def transfers(net: Any, homes: list[str], targets: dict[str, str]) -> list[Transfer]:
    return [Transfer(net, targets["ipv6" if ":" in home else "ipv4"], home) for home in homes]


def check_life() -> None:
    """Both families pass the queues, nothing else does; what a dead agent and an orderly end leave behind."""
    with built("mobile") as (net, topo):
        mine, _other, homes, targets = both_ends(net, topo)
        lines = transfers(net, homes, targets)
        for line in lines:
            line.goes_on()
        state = mine.ask("status")
        assert state["proxy"]["outbound"] > 5
        assert state["proxy"]["inbound"] > 5
        assert state["proxy"]["asked"] == 0, "every packet was recognised by its connection's mark"
        assert state["problems"] == {}
        assert sorted(state["pinned"]) == sorted(homes)
        assert state["detoured"] == []
        assert {row["interface"]: row["cost"] for row in state["addresses"]} == {"mn-wlan": 0, "mn-lte": 1}
        assert all(row["usable"] for row in state["addresses"])

        # Other traffic is not shown; what fits a filter is.
        shown = mine.ask("status")["proxy"]["outbound"]
        for line in lines:
            line.server.send_signal(signal.SIGSTOP)
        assert echo(net, 5002, targets["ipv4"]) == "hello"
        settled = mine.ask("status")["proxy"]["outbound"]
        assert echo(net, 5002, targets["ipv6"]) == "hello"
        assert mine.ask("status")["proxy"]["outbound"] - settled <= 2, "a delayed ACK at most"
        assert echo(net, PLAIN_PORT, targets["ipv6"]) == "hello"
        assert mine.ask("status")["proxy"]["outbound"] >= max(shown, settled) + 4
        for line in lines:
            line.server.send_signal(signal.SIGCONT)

        # Killed: live connections stop, because their segments must not pass; new ones become plain TCP.
        rules = mine.rules()
        mine.end(signal.SIGKILL)
        assert mine.rules() == rules
        count = ["OUTPUT", "-p", "tcp", "--dport", str(PORT), "!", "--syn"]
        net["mn"].run(["iptables", "-I", *count])
        old = next(line for line, home in zip(lines, homes, strict=True) if "." in home)
        old.client.kill()  # so that its TCP has something to say
        lines.remove(old)
        for line in lines:
            frozen(line)
        assert net["mn"].run(["iptables", "-vnxL", "OUTPUT"]).splitlines()[2].split()[0] == "0", "untranslated segments left"
        net["mn"].run(["iptables", "-D", *count])
        old.close()
        assert echo(net, PLAIN_PORT, targets["ipv4"]) == "hello"

        # A new agent takes the rules and addresses over.
        mine.start()
        assert mine.rules() == rules
        assert sorted(mine.ask("status")["pinned"]) == sorted(homes)
        for line in lines:
            line.goes_on()
        for line in lines:
            line.close()
        mine.end(signal.SIGTERM)
        assert mine.rules() == []
        assert "10." not in net["mn"].run(["ip", "addr", "show", "dev", "lo"])
        assert "2001:" not in net["mn"].run(["ip", "addr", "show", "dev", "lo"])
        assert "8684" not in net["mn"].run(["ip", "rule"]) + net["mn"].run(["ip", "-6", "rule"])
        check_release(net, mine, targets)


def check_release(net: Any, agent: Agent, targets: dict[str, str]) -> None:
    """The proxy itself, and a server that speaks plain TCP: the connection is let alone after its handshake."""
    agent.control.unlink(missing_ok=True)
    process = net["mn"].spawn_agent("proxy", agent.file)
    wait_until(agent.control.exists, 10.0, "the control socket")
    for target in targets.values():
        before = agent.ask("status")["proxy"]["counters"]
        assert echo(net, PLAIN_PORT, target) == "hello"
        after = agent.ask("status")["proxy"]["counters"]
        # Strays belong to connections of the agents before.
        shown = {way: after[way] - before[way] for way in ("outbound", "inbound", "stray")}
        assert shown["outbound"] + shown["inbound"] - shown["stray"] == 2, f"more than SYN and SYN/ACK: {shown}"
    process.terminate()
    assert process.wait(10) == 0
    assert agent.rules() == []


ECHO = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET
s = socket.create_server((sys.argv[2], int(sys.argv[1])), family=family)
print("on", flush=True)
c = s.accept()[0]
c.sendall(c.recv(100))
"""
ASK = """
import socket, sys
s = socket.create_connection((sys.argv[2], int(sys.argv[1])), 5)
s.sendall(b"hello")
print(s.recv(100).decode())
"""


def echo(net: Any, port: int, target: str) -> str:
    """What comes back of a short connection from MN to CN."""
    server = net["cn"].popen([sys.executable, "-c", ECHO, str(port), target], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline()
        return str(net["mn"].run([sys.executable, "-c", ASK, str(port), target])).strip()
    finally:
        server.kill()
        server.communicate()


def frozen(line: Transfer) -> None:
    """No more bytes arrive."""
    with pytest.raises(TimeoutError):
        line.goes_on(0.7)


def tx_packets(net: Any, interface: str) -> int:
    return int(net["mn"].run(["cat", f"/sys/class/net/{interface}/statistics/tx_packets"]))


def check_vanish() -> None:
    """Interface down, carrier loss, address removed: connections go on by the other interface, and come back."""
    with built("mobile") as (net, topo):
        mine, _other, homes, targets = both_ends(net, topo)
        lines = transfers(net, homes, targets)
        for line in lines:
            line.goes_on()
        link = net.linksBetween(net["mn"], net["ar1"])[0]
        away = addresses_of(net, "mn-lte")

        def move(addresses: list[str], **options: Any) -> None:
            for address in addresses:
                mine.ask("handover", address=address, **options)
            before = tx_packets(net, "mn-lte")
            for line in lines * 4:
                line.goes_on()
            assert (tx_packets(net, "mn-lte") - before > 5) is (addresses == away)

        def back() -> None:
            net["mn"].wait_configured()
            usable = lambda: {row["address"] for row in mine.ask("status")["addresses"] if row["usable"]}  # noqa: E731
            wait_until(lambda: set(homes) <= usable(), 10.0, "the addresses are usable again")
            assert mine.ask("status")["detoured"] == []
            move(homes)

        losses = {
            "carrier": (lambda: link.set_carrier(False), lambda: link.set_carrier(True)),
            "down": (lambda: net["mn"].run(["ip", "link", "set", "mn-wlan", "down"]),
                     lambda: net["mn"].run(["ip", "link", "set", "mn-wlan", "up"])),
            "released": (lambda: net["mn"].netconf("release", interface="mn-wlan"),
                         lambda: net["mn"].netconf("acquire", interface="mn-wlan")),
        }  # fmt: skip
        for name, (lose, regain) in losses.items():
            lose()
            wait_until(lambda: sorted(mine.ask("status")["detoured"]) == sorted(homes), 5.0, f"{name}: the detour")
            # By raw sockets as well: each packet dropped and sent again, or delivered.
            move(away, break_first=name == "down")
            assert [row["event"] for row in mine.events() if row["event"] in ("defect", "failed", "send-failed")] == []
            regain()
            back()
        assert mine.ask("status")["kernel"]["dropped_queue_full"] == 0
        wait_state(net, "mn-wlan", carrier=True)
        for line in lines:
            line.close()


@pytest.mark.parametrize("check", ["life", "vanish"])
def test_proxy_kernel(check: str) -> None:
    run_check(__name__, check)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
