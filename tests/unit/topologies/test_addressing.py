"""The address plan: no two things share an address, and every route leads over a link that exists."""

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies import addressing as ad


def all_networks() -> list[ad.Network]:
    result: list[ad.Network] = []
    for kind in ("access", "home", "correspondent"):
        variants = ("first",) if kind == "correspondent" else ("first", "second", "spare")
        for index, variant in itertools.product(range(1, ad.MAX_NETWORKS + 1), variants):
            result += ad.network_prefixes(kind, index, variant=variant).networks()
    plan = ad.AddressPlan()
    for number in range(20):
        link = plan.connect(f"a{number}", f"b{number}")
        result += [ipaddress.IPv4Network(f"{link.a_ipv4}/30", strict=False)]
        result += [ipaddress.IPv6Network(f"{link.a_ipv6}/64", strict=False)]
    return result


def test_no_two_networks_overlap() -> None:
    networks = all_networks()
    for family in (4, 6):
        ordered = sorted((network for network in networks if network.version == family), key=lambda item: item.network_address)
        for one, other in itertools.pairwise(ordered):
            assert not one.overlaps(other), (one, other)  # type: ignore[arg-type]


def test_the_published_plan() -> None:
    assert [str(item) for item in ad.network_prefixes("access", 1).networks()] == ["10.1.0.0/24", "2001:db8:1::/64"]
    assert [str(item) for item in ad.network_prefixes("home", 2).networks()] == ["10.34.0.0/24", "2001:db8:202::/64"]
    assert [str(item) for item in ad.network_prefixes("correspondent", 1).networks()] == ["10.65.0.0/24", "2001:db8:401::/64"]
    link = ad.AddressPlan().connect("ar1", "core")
    assert (link.a_interface, link.b_interface) == ("ar1-core", "core-ar1")
    assert (link.a_ipv4, link.b_ipv4, link.b_ipv6) == ("10.255.1.1", "10.255.1.2", "2001:db8:ff00:1::2")


def test_families() -> None:
    assert ad.network_prefixes("access", 1, "ipv4").ipv6 is None
    assert ad.network_prefixes("access", 1, "ipv6").host(1) == ["2001:db8:1::1/64"]
    with pytest.raises(ValueError, match="families is 'both': choose one of dual, ipv4, ipv6"):
        ad.network_prefixes("access", 1, "both")


@pytest.mark.parametrize("index", [0, 16])
def test_numbers_have_an_end(index: int) -> None:
    with pytest.raises(ValueError, match="at most 15"):
        ad.network_prefixes("access", index)


def test_slaac_address_of_rfc_4291() -> None:
    """RFC 4291 appendix A: the universal bit is inverted and ff:fe goes into the middle."""
    network = ipaddress.IPv6Network("2001:db8:1::/64")
    assert ad.slaac_address(network, "34:56:78:9a:bc:de") == "2001:db8:1:0:3656:78ff:fe9a:bcde"


@given(st.tuples(st.integers(0, 255), st.integers(0, 255)), st.tuples(st.integers(0, 255), st.integers(0, 255)))
def test_macs_are_unique_local_unicast(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (ad.mac_address(*one) == ad.mac_address(*other)) == (one == other)
    assert int(ad.mac_address(*one).split(":")[0], 16) & 3 == 2


def test_interface_names_fit() -> None:
    assert ad.interface_name("mn", "wlan") == "mn-wlan"
    with pytest.raises(ValueError, match="at most 15, choose a name of at most 12"):
        ad.interface_name("mn", "a-very-long-name")


def test_dhcp_range_leaves_room_for_fixed_addresses() -> None:
    first, last = ad.dhcp_range(ipaddress.IPv4Network("10.1.0.0/24"))
    assert (first, last) == ("10.1.0.100", "10.1.0.199")


def test_uplink_routes_up_and_down() -> None:
    plan = ad.AddressPlan()
    plan.connect("ar1", "mb1")
    plan.connect("mb1", "core")
    networks = ad.network_prefixes("access", 1).networks()
    plan.uplink(["ar1", "mb1", "core"], networks)
    assert ad.Route("default4", "10.255.1.2") in plan.routes["ar1"]
    assert ad.Route("default6", "2001:db8:ff00:2::2") in plan.routes["mb1"]
    assert ad.Route("10.1.0.0/24", "10.255.2.1") in plan.routes["core"]
    assert ad.Route("2001:db8:1::/64", "2001:db8:ff00:1::1") in plan.routes["mb1"]


def test_translator_hides_ipv4_only_from_the_core() -> None:
    plan = ad.AddressPlan()
    plan.connect("ar1", "mb1")
    plan.connect("mb1", "core")
    plan.uplink(["ar1", "mb1", "core"], ad.network_prefixes("access", 1).networks(), hide4=True)
    assert {route.destination for route in plan.routes["core"]} == {"2001:db8:1::/64"}
    assert ad.Route("10.1.0.0/24", "10.255.1.1") in plan.routes["mb1"]


def test_provider_by_source() -> None:
    plan = ad.AddressPlan()
    plan.connect("ar1", "isp1")
    plan.connect("isp1", "core")
    plan.uplink(["ar1", "isp1", "core"], ad.network_prefixes("access", 1).networks(), by_source=True)
    assert plan.routes["ar1"] == [
        ad.Route("default4", "10.255.1.2", "10.1.0.0/24"),
        ad.Route("default6", "2001:db8:ff00:1::2", "2001:db8:1::/64"),
    ]
    assert all(route.source is None for route in plan.routes["isp1"] + plan.routes["core"])


def test_unknown_links() -> None:
    plan = ad.AddressPlan()
    link = plan.connect("a", "b")
    with pytest.raises(ValueError, match="no router link between a and c"):
        plan.link_between("a", "c")
    with pytest.raises(ValueError, match="c is not on the link"):
        link.address_of("c", 4)
