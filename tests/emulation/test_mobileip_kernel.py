"""The agents of Mobile IPv4 on real kernels: registrations, flows and policies, durable state, roaming, NAT, netconf.

The mobile node and the home agent are the roles themselves; the correspondent is a plain host.
"""

import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.wire.checksum import folded, ones_sum
from tests.emulation.mobileip_lab import (
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    TCP_PORT,
    Agent,
    Lab,
    care_of,
    close,
    go_on,
    lab,
    ping,
    transfer,
)
from tests.emulation.proxy_lab import opened
from tests.emulation.test_agents import Transfer, events
from tests.emulation.test_topologies import built, check_paths, run_check
from topologies.links.netns import inside, namespace_of, new_namespace
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
UDP_PORT, DROPPED_PORT = 5300, 5999
ECHO = """
import socket, sys
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in sys.argv[2:]]
import selectors
selector = selectors.DefaultSelector()
for sock, port in zip(sockets, sys.argv[2:]):
    sock.bind((sys.argv[1], int(port)))
    selector.register(sock, selectors.EVENT_READ)
print("on", flush=True)
while True:
    for key, _ in selector.select():
        data, source = key.fileobj.recvfrom(2000)
        key.fileobj.sendto(data, source)
"""


def bound(home: Agent, number: int) -> None:
    wait_until(lambda: len(home.ask("bindings")["bindings"]) == number, 15.0, f"{number} bindings at the home agent")


def used(mobile: Agent, number: int) -> None:
    """The mobile node spreads packets over so many tunnels."""

    def ready() -> bool:
        shares = [row["shares"] for row in mobile.ask("status")["forwarding"]]
        return bool(shares) and len(shares[0]) == number

    wait_until(ready, 15.0, f"{number} tunnels are used")


def packets(agent: Agent, key: str, end: str) -> dict[str, int]:
    """Packets by tunnel, named by the care-of address."""
    return {row[end]: row[key] for row in agent.ask("status")["tunnels"]}


def taken(mobile: Agent, home: Agent, work: Any) -> tuple[str, str]:
    """The care-of addresses by which the packets of `work` left the mobile node and came back to it; "": none did."""

    def figures() -> tuple[dict[str, int], dict[str, int]]:
        return packets(mobile, "sent_packets", "local"), packets(home, "sent_packets", "remote")

    before = figures()
    work()
    after = figures()
    grown = [[name for name in new if new[name] > old.get(name, 0)] for old, new in zip(before, after, strict=True)]
    assert all(len(names) <= 1 for names in grown), f"more than one tunnel: {grown}"
    return "".join(grown[0]), "".join(grown[1])


def ask_udp(net: Lab, port: int, own_port: int, answered: bool = True) -> None:
    """One datagram to the correspondent's echo, and its answer. Unbound: the source is the home address."""
    with inside(net.nodes["mn"]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", own_port))
        sock.settimeout(5.0 if answered else 0.3)
        sock.connect((CORRESPONDENT, port))
        assert sock.getsockname()[0] == HOME_ADDRESS
        try:
            sock.send(b"x")
            assert sock.recv(10) == b"x"
            assert answered
        except (TimeoutError, PermissionError):
            assert not answered


@contextmanager
def echo(net: Lab, *ports: int) -> Iterator[None]:
    with inside(net.nodes["cn"]):
        process = subprocess.Popen(
            [sys.executable, "-c", ECHO, CORRESPONDENT, *map(str, ports)], stdout=subprocess.PIPE, text=True
        )
    try:
        assert process.stdout
        assert process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def check_flows() -> None:
    """Register over both paths; every flow stays on one tunnel, both ways; a lost path, its return, the home agent's death."""
    with lab() as net:
        home, mobile = net.home_agent(), net.mobile_node()
        bound(home, 2)
        used(mobile, 2)
        assert ping(net, "cn", HOME_ADDRESS), "proxy ARP on the home link, tunnel, and back"
        assert not ping(net, "cn", HOME_ADDRESS, "-M", "do", "-s", "1470"), "too big for the tunnel"
        assert "mtu 1480" in net.command("cn", "ip", "route", "get", HOME_ADDRESS), "the home agent told the correspondent"
        with echo(net, UDP_PORT):
            ways = [taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT, port)) for port in range(41_000, 41_024)]
            assert all(there == back for there, back in ways), f"another tunnel on the way back: {ways}"
            assert {there for there, _ in ways} == {care_of(0), care_of(1)}

            # Several connections at once, so that both tunnels have some.
            pairs = [opened(net, "mn", "cn", CORRESPONDENT, port=TCP_PORT + number, mptcp=(False, False))
                     for number in range(4)]  # type: ignore[arg-type]  # fmt: skip
            back = opened(net, "cn", "mn", HOME_ADDRESS, port=TCP_PORT + 9, mptcp=(False, False))  # type: ignore[arg-type]
            for pair in (*pairs, back):
                assert HOME_ADDRESS in (pair.client.names[0][0], pair.client.names[1][0])
                go_on(pair, 200_000)

            stay = next(port for port, way in zip(range(41_000, 41_024), ways, strict=True) if way[0] == care_of(0))
            move = next(port for port, way in zip(range(41_000, 41_024), ways, strict=True) if way[0] == care_of(1))
            net.command("mn", "ip", "link", "set", "mn-p1", "down")
            used(mobile, 1)
            bound(home, 1)
            for pair in (*pairs, back):
                go_on(pair, 200_000)
            for port in (stay, move):
                assert taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT, port)) == (care_of(0), care_of(0))

            net.command("mn", "ip", "link", "set", "mn-p1", "up")
            net.command("mn", "ip", "route", "add", "default", "via", "10.2.0.1", "table", "101")
            bound(home, 2)
            used(mobile, 2)
            assert taken(mobile, home, lambda: ask_udp(net, UDP_PORT, stay)) == (care_of(0), care_of(0))
            assert taken(mobile, home, lambda: ask_udp(net, UDP_PORT, move)) == (care_of(1), care_of(1))

            check_restart(net, home, pairs[0])
            for pair in (*pairs, back):
                go_on(pair, 100_000)
                close(pair)
        problems = [row for agent in (home, mobile) for row in agent.events() if row["event"].startswith(("failed", "defect"))]
        assert problems == []
        check_end(net, home, mobile)


def check_restart(net: Lab, home: Agent, pair: Any) -> None:
    """Killed and started again, the home agent has its bindings: nobody registers, and packets flow."""
    requests = len(home.events("registration"))
    before = [(row["bid"], row["care_of_address"]) for row in home.ask("bindings")["bindings"]]
    home.end(signal.SIGKILL)
    home.start()
    assert [(row["bid"], row["care_of_address"]) for row in home.ask("bindings")["bindings"]] == before
    go_on(pair, 200_000)
    assert len(home.events("registration")) == requests, "the bindings came from the disk"
    assert ping(net, "cn", HOME_ADDRESS)


def check_end(net: Lab, home: Agent, mobile: Agent) -> None:
    """After SIGTERM nothing is left: no rule, route, address, interface, neighbour; parameters are what they were."""
    mobile.end()
    home.end()
    for node in ("mn", "ha"):
        assert net.command(node, "nft", "list", "ruleset") == ""
        left = net.command(node, "ip", "rule") + net.command(node, "ip", "route", "show", "table", "all")
        left += net.command(node, "ip", "address") + net.command(node, "ip", "neighbour", "show", "proxy")
        assert HOME_ADDRESS not in left
        assert "mip" not in left
        assert "proto 202" not in left, left
    assert net.command("mn", "sysctl", "-n", "net.ipv4.conf.mn-p0.arp_ignore").strip() == "0"
    assert net.command("ha", "sysctl", "-n", "net.ipv4.fwmark_reflect").strip() == "0", "also after an agent that was killed"
    assert [row["event"] for row in home.events("recovered")] == ["recovered"]
    assert not list(net.folder.glob("*.parameters*"))


def check_policy() -> None:
    """Flow bindings that the mobile node sends: each flow on its tunnel in both directions, by preference, or dropped."""
    flows = [
        {"protocol": "udp", "source_port": UDP_PORT, "bids": [2, 1]},
        {"protocol": "udp", "source_port": UDP_PORT + 1, "bids": [1, 2]},
        {"protocol": "udp", "source_port": DROPPED_PORT, "drop": True},
    ]
    with lab() as net:
        home, mobile = net.home_agent(), net.mobile_node(exchange_flows=True, flow=flows)
        bound(home, 2)
        used(mobile, 2)
        wanted = [f"{HOME_AGENT} {care_of(1)} bid 2", f"{HOME_AGENT} {care_of(0)} bid 1", "drop"]

        def told() -> bool:
            return [row["tunnel"] for row in home.ask("status")["forwarding"][0]["rules"]] == wanted

        wait_until(told, 10.0, "the rules")
        with echo(net, UDP_PORT, UDP_PORT + 1, DROPPED_PORT):
            for port in range(42_000, 42_006):
                assert taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT, port)) == (care_of(1), care_of(1))
                assert taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT + 1, port)) == (care_of(0), care_of(0))
            ask_udp(net, DROPPED_PORT, 42_100, answered=False)
            assert mobile.ask("status")["packets"]["dropped_by_policy"] >= 1
            net.command("mn", "ip", "link", "set", "mn-p1", "down")
            used(mobile, 1)
            bound(home, 1)
            assert taken(mobile, home, lambda: ask_udp(net, UDP_PORT, 42_000)) == (care_of(0), care_of(0))
            net.command("mn", "ip", "link", "set", "mn-p1", "up")
            net.command("mn", "ip", "route", "add", "default", "via", "10.2.0.1", "table", "101")
            bound(home, 2)
            used(mobile, 2)
            # The home agent hears of it in the request that follows the path's validation.
            wait_until(told, 10.0, "the home agent uses the path again")
            assert taken(mobile, home, lambda: ask_udp(net, UDP_PORT, 42_000)) == (care_of(1), care_of(1))

        # The operator's word comes before it.
        home.ask("policy", home_address=HOME_ADDRESS, flows=[{"protocol": "udp", "source_port": UDP_PORT, "bids": [1]}])
        with pytest.raises(Exception, match=r"write either bids or labels"):
            home.ask("policy", home_address=HOME_ADDRESS, flows=[{"protocol": "udp"}])
        with echo(net, UDP_PORT):
            # The next reply tells the mobile node, too: until then its packets take the old way.
            assert taken(mobile, home, lambda: ask_udp(net, UDP_PORT, 42_000))[1] == care_of(0)
        check_spoofed(net, home)


def check_spoofed(net: Lab, home: Agent) -> None:
    """Out of a tunnel of a binding, but not from its home address: dropped and counted (RFC 3024 section 4)."""
    inner = (
        struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0)
        + socket.inet_aton("10.33.0.77")
        + socket.inet_aton(CORRESPONDENT)
    )
    inner = inner[:10] + folded(ones_sum(inner)).to_bytes(2, "big") + inner[12:] + struct.pack("!HHHH", 9, 9, 8, 0)
    with inside(net.nodes["mn"]), socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as sock:
        sock.bind((care_of(0), 0))
        sock.sendto(inner, (HOME_AGENT, 0))
    wait_until(lambda: home.ask("status")["packets"]["not_of_a_binding"] == 1, 5.0, "the packet is dropped and counted")


FOREIGN_AGENT, VISITED = "10.9.0.1", "10.9.0.0/24"


def check_foreign_agent() -> None:
    """Without an address on the visited link: discovery, registration through the agent, delivery, reverse tunnel; and home."""
    with lab(0) as net:
        net.nodes["fa"] = stub = new_namespace()
        net.command("fa", "ip", "link", "set", "lo", "up")
        net.pair("fa", "fa-0", "10.8.0.2", "gw", "gw-fa", "10.8.0.1")
        net.command("fa", "ip", "route", "add", "default", "via", "10.8.0.1")
        net.pair("mn", "mn-p0", "10.9.0.99", "fa", "fa-1", FOREIGN_AGENT)
        net.command("mn", "ip", "address", "flush", "dev", "mn-p0")
        home = net.home_agent()
        agent = net.agent("fa", "foreign-agent", {
            "care_of_address": "10.8.0.2", "advertisement_interval_s": 1.0, "advertisement_lifetime_s": 3,
            "link": [{"interface": "fa-1", "address": FOREIGN_AGENT}],
        })  # fmt: skip
        net.paths = 1
        mobile = net.mobile_node(p0={"foreign_agent": True}, multipath=False)
        bound(home, 1)
        wait_until(lambda: agent.ask("bindings")["bindings"], 10.0, "the visitor is there")
        wait_until(lambda: mobile.ask("status")["forwarding"], 10.0, "the mobile node uses the agent")
        assert home.ask("bindings")["bindings"][0]["care_of_address"] == "10.8.0.2"
        assert ping(net, "cn", HOME_ADDRESS)
        transfer(net, "mn", "cn", CORRESPONDENT, 500_000)
        transfer(net, "cn", "mn", HOME_ADDRESS, 500_000, port=TCP_PORT + 1)
        row = agent.ask("status")["tunnels"][0]
        assert row["sent_bytes"] > 500_000, "reverse tunnel"
        assert row["received_bytes"] > 500_000
        problems = [
            row for one in (home, agent, mobile) for row in one.events() if row["event"].startswith(("failed", "defect"))
        ]
        assert problems == []
        mobile.ask("deregister")
        bound(home, 0)
        home.end()
        home.control.unlink(missing_ok=True)
        mobile.ask("register")
        wait_until(lambda: mobile.events("reply")[-1]["code"] == 82, 10.0, "code 82: the home agent's port is unreachable")
        for one in (mobile, agent):
            one.end()
        for node in ("fa", "ha"):
            assert net.command(node, "nft", "list", "ruleset") == ""
            assert net.command(node, "sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
        assert HOME_ADDRESS not in net.command("fa", "ip", "neighbour") + net.command(
            "fa", "ip", "route", "show", "table", "all"
        )
        os.close(stub)


def check_home() -> None:
    """Away, home, away: a connection opened at a visited network lives on; at home there is no tunnel."""
    with lab(1) as net:
        gw = lambda *words: net.command("gw", "ip", *words)  # noqa: E731
        gw("link", "add", "home", "type", "bridge")
        gw("address", "flush", "dev", "gw-ha")
        gw("address", "add", "10.33.0.1/24", "dev", "home")
        gw("link", "set", "gw-ha", "master", "home")
        gw("link", "set", "home", "up")
        net.pair("mn", "mn-p1", "10.33.0.50", "gw", "gw-p1", "10.99.0.1")
        gw("address", "flush", "dev", "gw-p1")
        gw("link", "set", "gw-p1", "master", "home")
        net.command("mn", "ip", "link", "set", "mn-p1", "down")
        net.paths = 2
        home, mobile = net.home_agent(), net.mobile_node(home_gateway="10.33.0.1")
        bound(home, 1)
        used(mobile, 1)
        pair = opened(net, "mn", "cn", CORRESPONDENT, port=TCP_PORT, mptcp=(False, False))  # type: ignore[arg-type]
        go_on(pair, 200_000)
        for _ in range(2):
            net.command("mn", "ip", "link", "set", "mn-p1", "up")
            wait_until(lambda: mobile.ask("status")["at_home"] == "mn-p1", 15.0, "the mobile node is at home")
            bound(home, 0)
            wait_until(lambda: not mobile.ask("status")["tunnels"], 10.0, "no tunnel")
            wait_until(lambda: home.ask("status")["defended"] == [], 5.0, "nobody answers for the home address")
            go_on(pair, 200_000)
            assert ping(net, "cn", HOME_ADDRESS)
            own = net.command("mn", "ip", "-br", "link", "show", "dev", "mn-p1").split()[2]
            assert own in gw("neighbour", "show", HOME_ADDRESS), "the home link knows where the address is"
            assert ping(net, "ha", HOME_ADDRESS), "as a neighbour of the home agent"
            net.command("mn", "ip", "link", "set", "mn-p1", "down")
            bound(home, 1)
            used(mobile, 1)
            go_on(pair, 200_000)
            assert ping(net, "cn", HOME_ADDRESS)
        close(pair)
        problems = [row for one in (home, mobile) for row in one.events() if row["event"].startswith(("failed", "defect"))]
        assert problems == []
        mobile.end()
        home.end()


def check_nat() -> None:
    """Behind a NAT: UDP tunnels, made because the home agent sees another source; several at once."""
    with lab() as net:
        net.command("gw", "nft", "add table ip nat")
        net.command("gw", "nft", "add chain ip nat post { type nat hook postrouting priority 100; }")
        net.command("gw", "nft", "add rule ip nat post ip saddr { 10.1.0.0/24, 10.2.0.0/24 } oifname gw-ha masquerade")
        home, mobile = net.home_agent(), net.mobile_node(nat_traversal=True)
        bound(home, 2)
        used(mobile, 2)
        rows = home.ask("status")["tunnels"]
        assert {(row["encapsulation"], row["remote"]) for row in rows} == {("udp", "10.33.0.1")}
        assert len({row["remote_port"] for row in rows}) == 2
        assert ping(net, "cn", HOME_ADDRESS)
        transfer(net, "mn", "cn", CORRESPONDENT, 500_000)
        transfer(net, "cn", "mn", HOME_ADDRESS, 500_000, port=TCP_PORT + 1)
        with echo(net, UDP_PORT):
            for port in range(41_000, 41_012):
                ask_udp(net, UDP_PORT, port)
        mobile.ask("deregister")
        bound(home, 0)
        problems = [row for one in (home, mobile) for row in one.events() if row["event"].startswith(("failed", "defect"))]
        assert problems == []


def check_netconf() -> None:
    """Beside `netconf` in a topology: care-of addresses from DHCP, a network lost and back, one connection."""
    with built("mobile", {"homes": 1}) as (net, topo), tempfile.TemporaryDirectory() as folder:
        place = SimpleNamespace(folder=Path(folder), nodes={name: namespace_of(net[name].pid) for name in ("mn", "ha1")})
        key = {"spi": 256, "key": "00112233445566778899aabbccddeeff"}
        home = Agent(place, "ha1", "home-agent", {  # type: ignore[arg-type]
            "addresses": [HOME_AGENT], "home_prefix": "10.33.0.0/24", "home_interface": "ha1-hr1",
            "state": str(Path(folder) / "ha.sqlite"), "mobile_node": [{"home_address": HOME_ADDRESS, "multipath": True, **key}],
        })  # fmt: skip
        mobile = Agent(place, "mn", "mobile-node", {  # type: ignore[arg-type]
            "home_address": HOME_ADDRESS, "home_network": "10.33.0.0/24", "home_agent": HOME_AGENT, **key,
            "congestion_control": "reno",
            "interface": [{"name": "mn-wlan", "bid": 1}, {"name": "mn-lte", "bid": 2}],
        })  # fmt: skip
        bound(home, 2)
        used(mobile, 2)
        target = topo.cn_addresses()["ipv4"][0]
        line = Transfer(net, target, HOME_ADDRESS)
        line.goes_on()
        info = net["mn"].run(["ss", "-tin", "src", HOME_ADDRESS])
        assert " reno " in info, info
        for _ in range(2):
            net["mn"].netconf("release", interface="mn-wlan")
            bound(home, 1)
            used(mobile, 1)
            line.goes_on()
            net["mn"].netconf("acquire", interface="mn-wlan")
            bound(home, 2)
            used(mobile, 2)
            line.goes_on()
        assert [row for row in events(net) if row["event"] == "failed"] == []
        problems = [row for one in (home, mobile) for row in one.events() if row["event"].startswith(("failed", "defect"))]
        assert problems == []
        line.close()
        mobile.end()
        home.end()
        check_paths(net, topo)


def check_balancing() -> None:
    """Round robin: flows in turn, each on one tunnel both ways. Per packet: one flow on both tunnels."""
    with lab() as net:
        home, mobile = net.home_agent(node={"selection": "round-robin"}), net.mobile_node(selection="round-robin")
        bound(home, 2)
        used(mobile, 2)
        with echo(net, UDP_PORT):
            ways = [taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT, port)) for port in range(41_000, 41_008)]
            assert all(there == back for there, back in ways), ways
            assert [there for there, _ in ways].count(care_of(0)) == 4
            again = [taken(mobile, home, lambda port=port: ask_udp(net, UDP_PORT, port)) for port in range(41_000, 41_008)]
            assert again == ways
        mobile.end()
        home.end()
        (net.folder / "ha.sqlite").unlink()

        home, mobile = net.home_agent(node={"selection": "per-packet"}), net.mobile_node(selection="per-packet")
        bound(home, 2)
        used(mobile, 2)
        before = packets(mobile, "sent_packets", "local"), packets(home, "sent_packets", "remote")
        with echo(net, UDP_PORT):
            for _ in range(6):
                ask_udp(net, UDP_PORT, 41_000)
        after = packets(mobile, "sent_packets", "local"), packets(home, "sent_packets", "remote")
        for old, new in zip(before, after, strict=True):
            assert {name: new[name] - old[name] for name in new} == {care_of(0): 3, care_of(1): 3}


def check_home_agent_store() -> None:
    """A damaged file: one line and no start."""
    with lab(1) as net:
        (net.folder / "ha.sqlite").write_bytes(b"no database" * 100)
        with pytest.raises(RuntimeError, match=r"ha\.sqlite: cannot be used: .*move it away"):
            net.home_agent()
        digest = hashlib.sha256((net.folder / "ha.sqlite").read_bytes()).hexdigest()
        assert digest == hashlib.sha256(b"no database" * 100).hexdigest(), "it is left as it was"


@pytest.mark.parametrize(
    "check", ["flows", "policy", "foreign_agent", "home", "nat", "netconf", "balancing", "home_agent_store"]
)
def test_mobileip_kernel(check: str) -> None:
    run_check(__name__, check)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
