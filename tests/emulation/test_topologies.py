"""Every topology builds, its hosts get their addresses, and packets take the way that their source address says.

Each test runs one check_* function of this module inside fresh namespaces, several checks per network that is built.
"""

import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation

ROOT = Path(__file__).resolve().parent.parent.parent
MN = Path(sys.executable).parent / "mn"
UNSHARE = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
# The PATH of an ordinary user of Debian lacks the folders where Mininet's programs are.
PREPARE = 'PATH="$PATH:/usr/sbin:/sbin"; mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"'
TIMEOUT_S = 60.0


def in_namespaces(arguments: list[str], user_namespace: bool | None = None, stdin: str = "") -> str:
    """Run a program in fresh namespaces and return its output; the test fails with all of it when it fails."""
    if user_namespace is None:
        user_namespace = os.geteuid() != 0
    options = ["--user", "--map-root-user"] if user_namespace else []
    done = subprocess.run(
        [*UNSHARE, *options, "sh", "-c", PREPARE, "sh", *arguments],
        cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def run_check(module: str, name: str, *arguments: str, user_namespace: bool | None = None) -> None:
    """Run `check_<name>(*arguments)` of a test module in fresh namespaces."""
    in_namespaces([sys.executable, "-m", module, name, *arguments], user_namespace)


@contextmanager
def built(topology: str, params: dict[str, Any] | None = None, start_agents: bool = True) -> Iterator[tuple[Any, Any]]:
    """A running network and its Topo; the MN (and a CN that an agent configures) is ready."""
    from mininet.net import Mininet

    from topologies.links.wire import wire
    from topologies.registry import make

    Mininet.inited = True  # no changes of the machine's limits
    topo = make(topology, params)
    net = Mininet(topo=topo, controller=None)
    try:
        net.start()
        for host in net.hosts:
            if start_agents and hasattr(host, "wait_configured"):
                host.wait_configured()
        yield net, topo
    finally:
        net.stop()
        wire().close()
    # Nodes take their programs with them.
    left = [text for text in map(command_line, Path("/proc").iterdir()) if any(word in text for word in PROGRAMS)]
    assert not left, left


PROGRAMS = ("dnsmasq", "udhcpc", "-m agents", "mininet:")


def command_line(process: Path) -> str:
    """Command line of a process; "" when it is none, or gone."""
    try:
        return (process / "cmdline").read_text().replace("\0", " ") if process.name.isdecimal() else ""
    except OSError:
        return ""


def addresses_of(net: Any, interface: str, node: str = "mn") -> list[str]:
    """Global addresses of an interface, as its agent reports them."""
    rows = net[node].netconf("status")["interfaces"]
    return [address for row in rows if row["name"] == interface for address in row["addresses"]]


def ping(net: Any, source: str, destination: str, count: int = 5) -> tuple[bool, str]:
    """Whether all packets from `source` were answered, and the output."""
    # After the last packet ping waits for one interval at least; a busy machine may be late by tens of milliseconds.
    arguments = ["ping", "-n", "-l", "3", "-i", "0.3", "-c", str(count), "-W", "0.5", "-I", source, destination]
    output, errors, status = net["mn"].pexec(arguments)
    return status == 0 and f"{count} received" in output, output + errors


def sent(net: Any, router: str, interface: str) -> int:
    """Packets that an interface has sent."""
    return int(net[router].run(["cat", f"/sys/class/net/{interface}/statistics/tx_packets"]))


def uplinks(topo: Any, path: Any) -> list[tuple[str, str]]:
    """(access router, interface) of the ways from an access router towards the core."""
    links = [link for link in topo.plan.router_links if path.access_router in (link.a, link.b)]
    return [(path.access_router, link.a_interface if link.a == path.access_router else link.b_interface) for link in links]


def check_paths(net: Any, topo: Any) -> None:
    """A ping from each address of the MN to each address of the CN leaves by the address's own access router."""
    for path in topo.paths():
        addresses = addresses_of(net, path.interface)
        wanted = {"dual": {4, 6}, "ipv4": {4}, "ipv6": {6}}[path.families]
        assert {ipaddress.ip_address(address).version for address in addresses} == wanted
        assert len(addresses) == path.prefixes * len(wanted), addresses
        others = [end for other in topo.paths() if other is not path for end in uplinks(topo, other)]
        for address in addresses:
            for target in topo.cn_addresses(net)["ipv6" if ":" in address else "ipv4"]:
                before = [sent(net, *end) for end in others]
                own_before = sum(sent(net, *end) for end in uplinks(topo, path))
                good, text = ping(net, address, target)
                assert good, text
                # A few packets of neighbour discovery are not the ping.
                assert sum(sent(net, *end) for end in uplinks(topo, path)) - own_before >= 5, f"{address} went elsewhere"
                assert all(sent(net, *end) - was <= 3 for end, was in zip(others, before, strict=True)), f"{address} leaked"


def check_default() -> None:
    from topologies import addressing

    with built("mobile") as (net, topo):
        check_paths(net, topo)
        for number, path in enumerate(topo.paths(), start=1):
            prefixes = addressing.network_prefixes("access", number)
            assert prefixes.ipv4 is not None
            assert prefixes.ipv6 is not None
            assert addressing.slaac_address(prefixes.ipv6, topo.mac(path.interface)) in addresses_of(net, path.interface)
            first, last = (ipaddress.IPv4Address(text) for text in addressing.dhcp_range(prefixes.ipv4))
            leased = [ipaddress.IPv4Address(text) for text in addresses_of(net, path.interface) if "." in text]
            assert all(first <= address <= last for address in leased)
        for node in ("mn", "cn"):
            state = net[node].congestion_control_state()
            assert state["congestion_control"] == "cubic"
            assert congestion_control_in_use(net, node, topo) == "cubic"
        check_sysctls(net)
        check_no_leak(net, topo)


def check_sysctls(net: Any) -> None:
    """What a node reports is what its own namespace has now."""
    mn, core = net["mn"].sysctls(), net["core"].sysctls()
    assert (mn["net.ipv4.ip_forward"], core["net.ipv4.ip_forward"]) == ("0", "1")
    assert (mn["net.ipv4.conf.all.rp_filter"], mn["net.ipv4.tcp_no_metrics_save"]) == ("0", "1")
    assert core["net.ipv6.conf.all.forwarding"] == "1"
    assert mn["net.ipv6.conf.mn-wlan.accept_ra"] == net["mn"].run(["cat", "/proc/sys/net/ipv6/conf/mn-wlan/accept_ra"]).strip()
    assert len(mn["net.ipv4.tcp_rmem"].split(" ")) == 3
    assert {"net.ipv4.tcp_congestion_control", "net.ipv4.tcp_wmem", "net.ipv4.tcp_sack", "net.ipv4.tcp_timestamps",
            "net.ipv4.tcp_ecn", "net.ipv4.conf.all.ignore_routes_with_linkdown"} <= set(mn)  # fmt: skip
    net["mn"].run(["sysctl", "-qw", "net.ipv4.tcp_ecn=0"])
    assert net["mn"].sysctls() == {**mn, "net.ipv4.tcp_ecn": "0"}
    net["mn"].run(["sysctl", "-qw", f"net.ipv4.tcp_ecn={mn['net.ipv4.tcp_ecn']}"])


def congestion_control_in_use(net: Any, node: str, topo: Any) -> str:
    """What a TCP socket of the node really uses towards the other one (asked of the kernel after the handshake)."""
    other = "cn" if node == "mn" else "mn"
    target = topo.cn_addresses()["ipv4"][0] if other == "cn" else addresses_of(net, "mn-wlan")[0]
    listen = "import socket; s = socket.create_server(('', 7)); print('on', flush=True); s.accept()[0].recv(1)"
    ask = (
        f"import socket; s = socket.create_connection(({target!r}, 7), 5);"
        "print(s.getsockopt(6, 13, 16).rstrip(bytes(1)).decode())"
    )
    server = net[other].popen([sys.executable, "-c", listen], stdout=subprocess.PIPE)
    assert server.stdout.readline()
    answer = net[node].run([sys.executable, "-c", ask]).strip()
    server.communicate(timeout=5)
    return str(answer)


def check_no_leak(net: Any, topo: Any) -> None:
    """While wlan is away, packets from its addresses are refused here instead of leaving by lte, and lte works."""
    wlan, lte = topo.paths()
    link = net.linksBetween(net["mn"], net[wlan.access_router])[0]
    addresses = addresses_of(net, wlan.interface)
    lte_addresses = addresses_of(net, lte.interface)
    targets = topo.cn_addresses()

    def refused() -> None:
        before = sent(net, "mn", lte.interface)
        for address in addresses:
            good, text = ping(net, address, targets["ipv6" if ":" in address else "ipv4"][0], count=3)
            assert not good, text
        assert sent(net, "mn", lte.interface) - before <= 3, "packets left by the other interface"
        for address in lte_addresses:
            good, text = ping(net, address, targets["ipv6" if ":" in address else "ipv4"][0])
            assert good, text

    link.set_carrier(False)
    wait_state(net, wlan.interface, carrier=False)
    assert addresses_of(net, wlan.interface) == addresses, "carrier loss takes no address away"
    for address in addresses:
        # The kernel marks routes a moment after the interface.
        route = ["ip", "route", "get", targets["ipv6" if ":" in address else "ipv4"][0], "from", address]
        wait_until(lambda route=route: "No route" in net["mn"].pexec(route)[1], 5.0, f"{address} unreachable")
    refused()
    link.set_carrier(True)
    net["mn"].wait_configured()
    check_paths(net, topo)

    net["mn"].run(["ip", "link", "set", wlan.interface, "down"])
    wait_state(net, wlan.interface, up=False)
    refused()
    net["mn"].run(["ip", "link", "set", wlan.interface, "up"])
    net["mn"].wait_configured()
    assert sorted(addresses_of(net, wlan.interface)) == sorted(addresses)
    check_paths(net, topo)


def wait_state(net: Any, interface: str, **wanted: Any) -> None:
    """Wait until the agent reports these values for an interface of the MN, and has nothing left to do."""

    def reached() -> bool:
        status = net["mn"].netconf("status")
        row = next(row for row in status["interfaces"] if row["name"] == interface)
        return bool(status["settled"]) and all(row[key] == value for key, value in wanted.items())

    wait_until(reached, 10.0, f"{interface} {wanted}")


def check_named(name: str) -> None:
    with built(name) as (net, topo):
        check_paths(net, topo)
        for number in range(1, topo.homes + 1):
            for address in net[f"ha{number}"].addresses[f"ha{number}-hr{number}"]:
                own = next(text for path in topo.paths() for text in addresses_of(net, path.interface)
                           if (":" in text) == (":" in address))  # fmt: skip
                good, text = ping(net, own, address.split("/")[0])
                assert good, text
        if topo.paths()[0].prefixes == 2:
            check_providers(net, topo)


def check_providers(net: Any, topo: Any) -> None:
    """Each prefix of the link goes out, and comes back, through its own provider."""
    path = topo.paths()[0]
    for address in addresses_of(net, path.interface):
        before = {name: sent(net, name, f"{name}-core") for name in ("isp1", "isp2")}
        back = {name: sent(net, name, f"{name}-{path.access_router}") for name in ("isp1", "isp2")}
        good, text = ping(net, address, topo.cn_addresses()["ipv6" if ":" in address else "ipv4"][0])
        assert good, text
        router = net[path.access_router]
        first = any(ipaddress.ip_address(address) in network for network in router.prefixes[0].networks())
        own, other = ("isp1", "isp2") if first else ("isp2", "isp1")
        assert sent(net, own, f"{own}-core") - before[own] >= 5
        assert sent(net, own, f"{own}-{path.access_router}") - back[own] >= 5
        assert sent(net, other, f"{other}-core") - before[other] <= 3
        # What the router is connected to itself is not a question of the source.
        near = topo.plan.link_between(path.access_router, other).address_of(other, 6 if ":" in address else 4)
        good, text = ping(net, address, near)
        assert good, text


def check_families() -> None:
    with built("mobile", {"access": "wlan:wlan:ipv4+lte:lte:ipv6", "homes": 0}) as (net, topo):
        check_paths(net, topo)
        for number, interface in ((1, "mn-wlan"), (2, "mn-lte")):
            (before,) = addresses_of(net, interface)
            net["mn"].netconf("release", interface=interface, other=True)
            other = net[f"ar{number}"].serve_other_address(topo.mac(interface))
            assert (other is None) == (interface == "mn-lte"), "no DHCP where there is no IPv4"
            net["mn"].netconf("acquire", interface=interface)
            net["mn"].wait_configured()
            (now,) = addresses_of(net, interface)
            assert now != before
            assert other in (None, now)
        check_paths(net, topo)


def check_middleboxes() -> None:
    access = [{"name": "wlan", "middlebox": "nat"}, {"name": "lte", "middlebox": "firewall"}]
    with built("mobile", {"access": access}) as (net, topo):
        check_paths(net, topo)
        seen = peer_seen_by_cn(net, topo, "mn-wlan")
        assert seen not in addresses_of(net, "mn-wlan")
        assert ipaddress.ip_address(seen) in ipaddress.ip_network("10.255.0.0/16"), seen
        inside = next(text for text in addresses_of(net, "mn-lte") if "." in text)
        assert peer_seen_by_cn(net, topo, "mn-lte") == inside
        assert net["cn"].pexec(["ping", "-c1", "-W1", inside])[2] != 0, "the firewall lets nobody in"
        net["mb2"].apply(firewall=False, rules=["add rule inet middlebox forward ip protocol tcp drop"])
        assert net["cn"].pexec(["ping", "-c1", "-W1", inside])[2] == 0
        assert net["mn"].pexec(connect_command(topo, inside))[2] != 0, "the added rule drops TCP"
        check_rebinding(net, topo)


def check_middleboxes_elsewhere() -> None:
    """Boxes before the home network and the CN: only what is opened from inside passes, and rules take effect."""
    no_mptcp = "add rule inet middlebox forward tcp option mptcp exists drop"
    params = {"access": "wlan", "homes": 1, "home_middlebox": "firewall", "cn_middlebox": {"rules": [no_mptcp]}}
    with built("mobile", params) as (net, topo):
        check_paths(net, topo)
        own = next(text for text in addresses_of(net, "mn-wlan") if "." in text)
        agent = net["ha1"].addresses["ha1-hr1"][0].split("/")[0]
        assert not ping(net, own, agent, count=1)[0], "the firewall of the home network lets nobody in"
        assert net["ha1"].pexec(["ping", "-c1", "-W1", own])[2] == 0
        assert peer_seen_by_cn(net, topo, "mn-wlan") == own, "TCP passes"
        target = topo.cn_addresses()["ipv4"][0]
        listen = (
            "import socket; s = socket.socket(2, 1, 262); s.setsockopt(1, socket.SO_REUSEADDR, 1); s.bind(('', 9)); s.listen();"
            "print('on', flush=True); s.accept()"
        )
        connect = f"import socket; s = socket.socket(2, 1, 262); s.settimeout(0.5); s.connect(({target!r}, 9))"
        for rules, passes in ((None, False), ([], True)):
            server = net["cn"].popen([sys.executable, "-c", listen], stdout=subprocess.PIPE)
            assert server.stdout.readline()
            if rules is not None:
                net["mbc1"].apply(rules=rules)
            _output, errors, status = net["mn"].pexec([sys.executable, "-c", connect])
            assert (status == 0) == passes, errors
            server.kill()
            server.communicate()
        net["mbc1"].apply(firewall=True)
        assert not ping(net, own, target, count=1)[0], "the firewall of the CN lets nobody in"
        assert net["cn"].pexec(["ping", "-c1", "-W1", own])[2] == 0


def check_rebinding(net: Any, topo: Any) -> None:
    """After the translator has forgotten everything the same flow comes from another port."""
    target, source = topo.cn_addresses()["ipv4"][0], next(text for text in addresses_of(net, "mn-wlan") if "." in text)
    receive = (
        f"import socket; s = socket.socket(2, 2); s.bind(({target!r}, 9)); print('on', flush=True)\n"
        "while True: print(s.recvfrom(9)[1][1], flush=True)"
    )
    send = (
        f"import socket; s = socket.socket(2, 2); s.bind(({source!r}, 7777)); s.connect(({target!r}, 9))\n"
        "while input(): s.send(b'x')"
    )
    receiver = net["cn"].popen([sys.executable, "-c", receive], stdout=subprocess.PIPE)
    assert receiver.stdout.readline()
    sender = net["mn"].popen([sys.executable, "-c", send], stdin=subprocess.PIPE)
    ports = []
    for number in range(3):
        if number == 2:
            net["mb1"].rebind()
        sender.stdin.write(b"go\n")
        sender.stdin.flush()
        ports.append(int(receiver.stdout.readline()))
    for process in (sender, receiver):
        process.kill()
        process.communicate()
    assert ports[0] == ports[1] != ports[2], ports


def connect_command(topo: Any, source: str) -> list[str]:
    target = topo.cn_addresses()["ipv4"][0]
    return [sys.executable, "-c", f"import socket; socket.create_connection(({target!r}, 9), 1, ({source!r}, 0))"]


def peer_seen_by_cn(net: Any, topo: Any, interface: str) -> str:
    """Address from which a TCP connection of the MN arrives."""
    source = next(text for text in addresses_of(net, interface) if "." in text)
    listen = "import socket; s = socket.create_server(('', 9)); print('on', flush=True); print(s.accept()[1][0])"
    server = net["cn"].popen([sys.executable, "-c", listen], stdout=subprocess.PIPE)
    assert server.stdout.readline()
    net["mn"].run(connect_command(topo, source))
    return str(server.communicate(timeout=5)[0].decode().strip())


def check_renumbering() -> None:
    with built("mobile", {"access": "wlan"}) as (net, topo):
        router = net["ar1"]
        before = addresses_of(net, "mn-wlan")
        new = router.renumber()

        def both() -> bool:
            now = [ipaddress.ip_address(text) for text in addresses_of(net, "mn-wlan")]
            return all(any(address in network for address in now) for network in new.networks())

        wait_until(both, 10.0, "addresses from the new prefixes")
        net["mn"].wait_configured()
        old6, new6 = (text for text in addresses_of(net, "mn-wlan") if ":" in text)
        if ipaddress.ip_address(old6) in new.ipv6:
            old6, new6 = new6, old6
        assert old6 in before, "the deprecated address stays while it is valid"
        assert "deprecated" in net["mn"].run(["ip", "-6", "addr", "show", "to", old6])
        assert "deprecated" not in net["mn"].run(["ip", "-6", "addr", "show", "to", new6])
        old4 = next(text for text in before if "." in text)
        assert old4 not in addresses_of(net, "mn-wlan"), "DHCP has replaced the old address"
        for address in addresses_of(net, "mn-wlan"):
            good, text = ping(net, address, topo.cn_addresses()["ipv6" if ":" in address else "ipv4"][0])
            assert good, text
        router.restart_services()
        check_programs_are_watched(net)
        router.stop_services()
        router.check()
        assert "dnsmasq" not in router.run(["ps", "ax"])


def check_programs_are_watched(net: Any) -> None:
    """netconf and dnsmasq that end by themselves are an error; stopped on purpose they are none."""
    mn, router = net["mn"], net["ar1"]
    for node, program, process in ((mn, "netconf", mn._netconf), (router, "dnsmasq", router._dnsmasq)):
        node.check()
        process.kill()
        process.wait()
        with pytest.raises(RuntimeError, match=rf"^{node.name}: {program} has ended with exit code -9 \(SIGKILL\): "):
            node.check()
    mn.stop_netconf()
    router.stop_services()
    for node in (mn, router):
        node.check()


def test_default() -> None:
    run_check(__name__, "default")


def test_named_in_user_namespace() -> None:
    run_check(__name__, "named", "multihomed-home", user_namespace=True)


@pytest.mark.parametrize("name", ["several-interfaces", "multihomed-visited", "multihomed-cn", "mobile-cn"])
def test_named(name: str) -> None:
    run_check(__name__, "named", name)


@pytest.mark.parametrize("check", ["families", "middleboxes", "middleboxes_elsewhere", "renumbering"])
def test_network(check: str) -> None:
    run_check(__name__, check)


def test_mininet_command_line() -> None:
    """The command of the docstring works; `mn` puts addresses in place of names."""
    commands = "py net['mn'].wait_configured()['settled']\nmn ping -c 1 cn\nexit\n"
    output = in_namespaces(
        [sys.executable, str(MN), "--custom", "topologies/mobile.py", "--topo", "mobile,access=wlan", "--controller", "none"],
        stdin=commands,
    )
    assert "1 received" in output, output


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
