"""What nodes write for others to read: configuration files and rule sets. The nodes themselves: tests/emulation."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.access_router import AccessRouter, dnsmasq_configuration
from topologies.addressing import PrefixPair, Route, network_prefixes
from topologies.middlebox import Middlebox
from topologies.mobile_host import to_toml
from topologies.nodes import LinuxHost, NodeError, check_program

FIRST, SECOND = network_prefixes("access", 1), network_prefixes("access", 1, variant="second")


def dnsmasq(prefixes: list[PrefixPair], deprecated: list[PrefixPair] | None = None, **hosts: str) -> list[str]:
    return dnsmasq_configuration("ar1-br", prefixes, deprecated or [], hosts, Path("/state")).splitlines()


def test_dnsmasq_serves_both_families() -> None:
    lines = dnsmasq([FIRST])
    assert "dhcp-range=10.1.0.100,10.1.0.199,255.255.255.0,120" in lines
    assert "dhcp-range=2001:db8:1::,ra-only,64,7200" in lines
    assert {"enable-ra", "dhcp-authoritative", "no-ping", "port=0", "keep-in-foreground", "interface=ar1-br"} <= set(lines)
    assert "dhcp-leasefile=/state/leases" in lines
    assert "group=" in lines, "a user namespace refuses to change groups"


def test_dnsmasq_of_one_family() -> None:
    assert not [line for line in dnsmasq([FIRST.only("ipv4")]) if line.startswith(("enable-ra", "ra-param")) or "::" in line]
    assert not [line for line in dnsmasq([FIRST.only("ipv6")]) if line.startswith("dhcp-range=10.")]


def test_dnsmasq_second_prefix_is_for_the_second_client() -> None:
    lines = dnsmasq([FIRST, SECOND])
    assert "dhcp-range=tag:!second,10.1.0.100,10.1.0.199,255.255.255.0,120" in lines
    assert "dhcp-range=tag:second,10.129.0.100,10.129.0.199,255.255.255.0,120" in lines


def test_dnsmasq_deprecated_prefix() -> None:
    lines = dnsmasq([SECOND], [FIRST])
    assert "dhcp-range=2001:db8:1::,ra-only,64,deprecated" in lines
    assert not [line for line in lines if "10.1.0." in line]


def test_dnsmasq_fixed_hosts() -> None:
    text = dnsmasq_configuration("b", [FIRST], [], {"02:00:00:00:00:01": "10.1.0.199"}, Path("/s"))
    assert "dhcp-host=02:00:00:00:00:01,10.1.0.199\n" in text


def test_access_router_needs_one_or_two_prefixes() -> None:
    with pytest.raises(ValueError, match="give one or two"):
        AccessRouter("ar1", prefixes=[])


def middlebox(**values: object) -> Middlebox:
    """A middlebox without a namespace."""
    box = object.__new__(Middlebox)
    for name, value in {"name": "mb1", "outside": "mb1-core", "nat": False, "firewall": False, "rules": [],
                        "_random_ports": False, **values}.items():  # fmt: skip
        setattr(box, name, value)
    return box


def test_middlebox_rules() -> None:
    assert "drop" not in middlebox().ruleset()
    assert 'oifname "mb1-core" meta nfproto ipv4 masquerade;' in middlebox(nat=True).ruleset()
    assert "masquerade fully-random" in middlebox(nat=True, _random_ports=True).ruleset()
    firewall = middlebox(firewall=True).ruleset()
    assert 'iifname "mb1-core" ct state new drop' in firewall
    assert "masquerade" not in firewall
    assert middlebox(rules=["add rule inet middlebox forward drop"]).ruleset().endswith("forward drop\n")


def test_middlebox_must_know_its_outside() -> None:
    with pytest.raises(NodeError, match="mb1: nat and firewall need"):
        middlebox(nat=True, outside=None).ruleset()


def test_no_other_ipv4_address_where_there_is_no_dhcp() -> None:
    router = object.__new__(AccessRouter)
    router.prefixes, router.services = [FIRST.only("ipv6")], True
    router.leases = dict  # type: ignore[method-assign]
    assert router.serve_other_address("02:00:00:00:00:01") is None


def ended(program: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["sh", "-c", program])
    process.wait()
    return process


def test_a_program_that_has_ended_is_named_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\nlast words\n")
    check_program("ar1", "dnsmasq", None, lambda: log)
    with pytest.raises(NodeError, match=r"^ar1: dnsmasq has ended with exit code 3: last words$"):
        check_program("ar1", "dnsmasq", ended("exit 3"), lambda: log)
    with pytest.raises(
        NodeError, match=r"^mn: netconf has ended with exit code -9 \(SIGKILL\): its log cannot be read: No such"
    ):
        check_program("mn", "netconf", ended("kill -9 $$"), lambda: tmp_path / "none")


def test_a_program_that_runs_costs_no_look_at_its_log() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        check_program("mn", "netconf", process, lambda: pytest.fail("not asked for"))
    finally:
        process.kill()
        process.wait()


def host(**values: object) -> LinuxHost:
    """A host without a namespace."""
    node = object.__new__(LinuxHost)
    defaults = {"name": "h", "congestion_control": "cubic", "_congestion_how": "sysctl", "routes": []}
    for name, value in {**defaults, **values}.items():
        setattr(node, name, value)
    return node


def test_routes_carry_the_congestion_control_where_the_sysctl_is_refused() -> None:
    routes = [Route("default4", "10.1.0.1"), Route("default6", "2001:db8::1")]
    assert host(routes=routes)._route_lines(4) == ["route add default via 10.1.0.1"]
    refused = host(routes=routes, _congestion_how="route")
    assert refused._route_lines(6) == ["route add default via 2001:db8::1 congctl lock cubic"]
    assert refused._address_lines({"h-x": ["10.1.0.2/24"]}) == [
        "addr add 10.1.0.2/24 dev h-x noprefixroute",
        "route add 10.1.0.0/24 dev h-x congctl lock cubic",
    ]
    assert host()._address_lines({"h-x": ["2001:db8::2/64"]}) == ["addr add 2001:db8::2/64 dev h-x nodad"]


def test_routes_by_source_have_tables_and_rules() -> None:
    routes = [Route("default4", "10.255.1.2", "10.1.0.0/24"), Route("default4", "10.255.2.2", "10.129.0.0/24")]
    assert host(routes=routes)._route_lines(4) == [
        "route add default via 10.255.1.2 table 100",
        "rule add from 10.1.0.0/24 lookup 100 pref 1001",
        "route add default via 10.255.2.2 table 101",
        "rule add from 10.129.0.0/24 lookup 101 pref 1002",
        "rule add from all lookup main suppress_prefixlength 0 pref 1000",
    ]


scalars = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
tables = st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), st.one_of(scalars, st.lists(scalars, max_size=3)))


@given(tables, tables, st.lists(tables, min_size=1, max_size=3))
def test_toml_round_trip(top: dict[str, object], table: dict[str, object], rows: list[dict[str, object]]) -> None:
    value = {**top, "interface": rows, "limits-": table}
    assert tomllib.loads(to_toml(value)) == value
