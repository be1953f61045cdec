"""The topologies as data: nothing is built here."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from topologies import mobile
from topologies.access_network import AccessNetwork, access_network, access_networks
from topologies.links.link import EmulatedLink
from topologies.middlebox_settings import MiddleboxSettings
from topologies.plain_link import PlainLink
from topologies.profiles import PRESETS, LinkProfile
from topologies.registry import TOPOLOGIES, make


def kinds(topo: mobile.MobileTopo) -> dict[str, str]:
    return {node["name"]: node["kind"] for node in topo.graph()["nodes"]}


def test_default() -> None:
    topo = make("mobile")
    assert [(path.name, path.interface, path.access_router) for path in topo.paths()] == [
        ("wlan", "mn-wlan", "ar1"), ("lte", "mn-lte", "ar2"),
    ]  # fmt: skip
    assert [path.profile for path in topo.paths()] == [PRESETS["wlan"], PRESETS["lte"]]
    assert topo.cn_addresses() == {"ipv4": ["10.65.0.2"], "ipv6": ["2001:db8:401::2"]}
    assert kinds(topo)["mn"] == "mobile-host"
    assert {"node": "mn", "interface": "mn-wlan"} in topo.capture_points()
    assert {"node": "cn", "interface": "cn-cr1"} in topo.capture_points()
    assert "20 Mbit/s" in topo.describe()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_is_consistent(name: str) -> None:
    topo = make(name)
    graph = topo.graph()
    json.dumps({**graph, "paths": [path.to_dict() for path in topo.paths()]})
    names = {node["name"] for node in graph["nodes"]}
    assert names == set(topo.nodes())
    ends = [row[f"{end}_interface"] for row in graph["links"] for end in ("a", "b")]
    assert len(ends) == len(set(ends)), "interface names are unique"
    assert len({topo.mac(interface) for interface in ends}) == len(ends), "MACs are unique"
    for _a, _b, info in topo.links(withInfo=True):
        emulated = info["node1"] in ("mn", "cn") and info["node2"].startswith(("ar", "hr"))
        assert info["cls"] is (EmulatedLink if emulated else PlainLink)
        assert ("profile" in info) == emulated
    for point in topo.attachment_points.values():
        assert point.router in names
        assert point.occupied_by is None or point.occupied_by in ends
        assert (point.port in ends) == (point.occupied_by is not None)
    for path in topo.paths():
        assert path.access_router in names
    interfaces = topo.nodeInfo("mn")["interfaces"]
    assert [row["name"] for row in interfaces] == [path.interface for path in topo.paths()]
    assert len({row["table"] for row in interfaces}) == len(interfaces)
    assert TOPOLOGIES[name].__doc__


def test_named_configurations() -> None:
    assert {"ha1", "ha2", "hr1", "hr2"} <= set(make("several-interfaces").nodes())
    home = make("multihomed-home")
    assert [(path.name, path.access_router, path.prefixes) for path in home.paths()] == [("home", "hr1", 2)]
    assert kinds(home)["isp2"] == "provider"
    assert home.attachment_points["ar1/ap1"].occupied_by is None
    assert home.attachment_points["hr1/ap1"].occupied_by == "mn-home"
    visited = make("multihomed-visited")
    assert visited.paths()[0].prefixes == 2
    assert visited.nodeInfo("ar1")["prefixes"][1].ipv4 is not None
    assert make("multihomed-cn").cn_addresses()["ipv4"] == ["10.65.0.2", "10.66.0.2"]


def test_a_mobile_cn_is_attached_like_the_mn() -> None:
    topo = make("mobile-cn", {"cn_access": ["wlan", {"name": "eth", "profile": "lan"}, {"name": "b", "profile": "lte",
                                                                                        "attached": False}]})  # fmt: skip
    assert [(path.interface, path.access_router) for path in topo.cn_paths()] == [("cn-wlan", "ar3"), ("cn-eth", "ar4")]
    assert [path.interface for path in topo.paths()] == ["mn-wlan", "mn-lte"], "paths are those of the MN"
    assert [row["table"] for row in topo.nodeInfo("cn")["interfaces"]] == [101, 102]
    assert topo.attachment_points["ar5/ap1"].occupied_by is None
    assert kinds(topo)["cn"] == "mobile-host"
    assert "cr1" not in topo.nodes()
    assert {"ha1", "ha2"} <= set(topo.nodes())
    assert {"node": "cn", "interface": "cn-eth"} in topo.capture_points()
    assert topo.cn_addresses() == {"ipv4": [], "ipv6": []}
    assert "cn: mobile" in topo.describe()


def test_a_mobile_cn_changes_nothing_else() -> None:
    """The MN, its networks and the random numbers of its links are those of the same topology with a CN that stays."""
    still, mobile_cn = make("mobile", {"homes": 2}), make("mobile-cn")
    for name in ("mn", "ar1", "ar2", "ha1", "hr2"):
        assert still.nodeInfo(name) == mobile_cn.nodeInfo(name)
    seeds = [
        [info["seed"] for _a, _b, info in topo.links(withInfo=True) if info["node1"] == "mn"] for topo in (still, mobile_cn)
    ]
    assert seeds[0] == seeds[1]


def test_middlebox_is_on_the_path() -> None:
    topo = make("mobile", {"access": [{"name": "wlan", "middlebox": "nat"}]})
    assert topo.nodeInfo("mb1")["outside"] == "mb1-core"
    assert topo.nodeInfo("mb1")["nat"] is True
    assert not [route for route in topo.plan.routes["core"] if route.destination.startswith("10.1.")]


@pytest.mark.parametrize("written", ["nat", {"nat": True}, MiddleboxSettings(nat=True)])
def test_middleboxes_on_every_kind_of_path(written: Any) -> None:
    values = {"access": [{"name": "wlan", "middlebox": written}], "homes": 2, "home_middlebox": written,
              "cn_links": 2, "cn_middlebox": written}  # fmt: skip
    topo = make("mobile", values)
    boxes = [name for name, kind in kinds(topo).items() if kind == "middlebox"]
    assert boxes == ["mb1", "mbh1", "mbh2", "mbc1", "mbc2"]
    for box in boxes:
        info = topo.nodeInfo(box)
        assert (info["outside"], info["nat"], info["firewall"], info["rules"]) == (f"{box}-core", True, False, [])
    known = {route.destination for route in topo.plan.routes["core"]}
    assert not [text for text in known if "." in text], "what a translator hides has no route"
    assert {"2001:db8:1::/64", "2001:db8:201::/64", "2001:db8:402::/64"} <= known


def test_middlebox_of_the_cn_adds_no_delay() -> None:
    rule = "add rule inet middlebox forward udp dport 9 drop"
    topo = make("mobile", {"access": "wlan", "core": "lan", "cn_middlebox": {"firewall": True, "rules": [rule]}})
    shaped = [(info["node1"], info["node2"]) for _a, _b, info in topo.links(withInfo=True) if info["cls"] is EmulatedLink]
    assert shaped == [("mn", "ar1"), ("mbc1", "core")]
    assert topo.nodeInfo("mbc1")["rules"] == [rule]
    assert "10.65.0.0/24" in {route.destination for route in topo.plan.routes["core"]}
    plain = make("mobile", {"access": "wlan", "core": "lan"})
    assert "mbc1" not in plain.nodes()
    forwards = make("mobile", {"access": "wlan", "cn_middlebox": {}}).nodeInfo("mbc1")
    assert (forwards["nat"], forwards["firewall"], forwards["rules"]) == (False, False, [])


@pytest.mark.parametrize(
    ("params", "shaped"),
    [
        ({"homes": 2}, [("hr1", "core"), ("hr2", "core")]),
        ({"homes": 1, "home_middlebox": "firewall"}, [("mbh1", "core")]),
        ({"homes": 1, "home_prefixes": 2}, [("isp1", "core"), ("isp2", "core")]),
        ({}, []),
    ],
)
def test_a_home_network_far_away(params: dict[str, Any], shaped: list[tuple[str, str]]) -> None:
    topo = make("mobile", {**params, "home_uplink": {"rate_mbit": 100.0, "delay_ms": 30.0}})
    links = [(a, b, info) for a, b, info in topo.links(withInfo=True) if info["cls"] is EmulatedLink and info["node1"] != "mn"]
    assert [(info["node1"], info["node2"]) for _a, _b, info in links] == shaped
    assert all(info["profile"].delay_ms == 30.0 for _a, _b, info in links)


def link_seeds(seed: int) -> list[Any]:
    topo = make("mobile", {"core": "lan", "seed": seed})
    return [info["seed"] for _a, _b, info in topo.links(withInfo=True) if info["cls"] is EmulatedLink]


def test_seed_reaches_every_link() -> None:
    one, other = link_seeds(1), link_seeds(2)
    assert one == link_seeds(1)
    assert len(set(one + other)) == len(one) + len(other) == 6, "no link draws like another one, of this run or another"
    assert all(seed.startswith("1/") for seed in one)
    default = make("mobile").links(withInfo=True)
    assert [info["seed"][:2] for _a, _b, info in default if "seed" in info] == ["0/", "0/"]


def test_access_networks_may_be_written_in_several_ways() -> None:
    whole = AccessNetwork("wlan", PRESETS["wlan"])
    assert access_networks("wlan") == access_networks([whole]) == access_networks([{"name": "wlan"}]) == (whole,)
    assert access_network("radio:lte:ipv6") == AccessNetwork("radio", PRESETS["lte"], "ipv6")
    own = access_network({"name": "dsl2", "profile": {"rate_mbit": 3}})
    assert own.profile == LinkProfile(rate_mbit=3)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mobil", {}, "no topology 'mobil': there are mobile, several-interfaces"),
        ("mobile", {"acces": "wlan"}, "has no parameter 'acces': valid are access, homes"),
        ("mobile", {"homes": 3}, "homes = 3: must be a number from 0 to 2"),
        ("mobile", {"homes": "1"}, "homes = '1': must be a number"),
        ("mobile", {"access": "wlan+wlan"}, "two access networks are called 'wlan'"),
        ("mobile", {"access": "foo"}, "no such preset"),
        ("mobile", {"access": "wlan:wlan:both"}, "families = 'both': one of dual, ipv4, ipv6"),
        ("mobile", {"access": [{"name": "wlan", "mtu": 3}]}, "no field 'mtu': valid are name, profile"),
        ("mobile", {"access": [{"profile": "wlan"}]}, "without a name"),
        ("mobile", {"access": [{"name": "w-x", "profile": "wlan"}]}, "letters and digits only"),
        ("mobile", {"access": [{"name": "wlan", "prefixes": 3}]}, "prefixes = 3: 1 or 2"),
        ("mobile", {"access": [{"name": "wlan", "aps": 0}]}, "aps = 0: 1 or 2"),
        ("mobile", {"access": [{"name": "wlan", "middlebox": "x"}]}, "middlebox = 'x'"),
        ("mobile", {"access": [{"name": "wlan", "middlebox": "nat", "prefixes": 2}]}, "needs prefixes = 1"),
        ("mobile", {"access": [{"name": "wlan", "middlebox": ["nat"]}]}, 'wlan: middlebox = .*: "nat", "firewall", a table'),
        (
            "mobile",
            {"access": [{"name": "wlan", "middlebox": {"NAT": True}}]},
            "wlan: middlebox has no field 'NAT': valid are nat",
        ),
        ("mobile", {"cn_middlebox": "x"}, "cn_middlebox = 'x'"),
        ("mobile", {"cn_middlebox": {"nat": 1}}, "cn_middlebox: nat = 1: true or false"),
        ("mobile", {"cn_middlebox": {"rules": "drop"}}, "cn_middlebox: rules = 'drop': a list of nft commands"),
        ("mobile", {"cn_middlebox": {"rules": [3]}}, "a list of nft commands"),
        ("mobile", {"homes": 1, "home_middlebox": "x"}, "home_middlebox = 'x'"),
        ("mobile", {"home_middlebox": "nat"}, "home_middlebox needs a home network"),
        ("mobile", {"homes": 1, "home_prefixes": 2, "home_middlebox": "nat"}, "home_middlebox needs home_prefixes=1"),
        ("mobile", {"seed": -1}, "seed = -1: must be a whole number"),
        ("mobile", {"seed": True}, "seed = True: must be a whole number"),
        ("mobile", {"seed": "1"}, "seed = '1': must be a whole number"),
        ("mobile", {"access": [{"name": "averylongnetwork", "profile": "wlan"}]}, "choose a name of at most"),
        ("mobile", {"access": []}, "the MN has no interface"),
        ("mobile", {"at_home": True}, "at_home needs a home network"),
        ("mobile", {"core": "fast"}, "no such preset"),
        ("mobile", {"cn_access": [{"name": "wlan", "attached": False}]}, "the mobile CN has no interface"),
        ("mobile", {"cn_access": "wlan", "cn_links": 2}, "cn_links is for a CN with a network of its own"),
        ("mobile-cn", {"cn_middlebox": "nat"}, "cn_middlebox is for a CN with a network of its own"),
    ],
)
def test_mistakes_are_one_line(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        make(name, params)
    assert "\n" not in str(raised.value)


def test_mininet_finds_the_topologies() -> None:
    """`mn --custom` executes the file without importing it."""
    found = runpy.run_path(str(Path(mobile.__file__)))["topos"]
    assert set(found) == set(TOPOLOGIES)
    assert found["mobile"](homes=1).homes == 1
