"""Configuration of the three roles: the samples of docs/mobile-ip.md, and one line for every mistake."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agents.config import ConfigError
from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceConfig, MobileNodeConfig
from agents.core.mobileip.selection import StaticFlow
from agents.kernel.mobileip import foreign_agent, home_agent, mobile_node
from agents.kernel.mobileip.configuration import AgentConfig, flows
from agents.wire.mobileip.authentication import Algorithm
from agents.wire.mobileip.values import AccessTechnology, Selector

READERS: dict[str, Callable[[str], Any]] = {
    "home-agent": home_agent.read_config,
    "mobile-node": mobile_node.read_config,
    "foreign-agent": foreign_agent.read_config,
}
PAGE = Path(__file__).parents[5] / "docs" / "mobile-ip.md"
KEY = 'spi = 256\nkey = "00112233445566778899aabbccddeeff"\n'
HOME = 'addresses = ["10.33.0.2"]\n'
NODE = f'[[mobile_node]]\nhome_address = "10.33.0.100"\n{KEY}'
MOBILE = f'home_address = "10.33.0.100"\nhome_network = "10.33.0.0/24"\nhome_agent = "10.33.0.2"\n{KEY}'
INTERFACE = '[[interface]]\nname = "mn-wlan"\nbid = 1\n'
SECOND = '[[home]]\nhome_address = "10.34.0.100"\nhome_network = "10.34.0.0/24"\nhome_agent = "10.34.0.2"\n'
FOREIGN = 'care_of_address = "10.8.0.2"\n'
LINK = '[[link]]\ninterface = "fa-1"\naddress = "10.9.0.1"\n'


def samples() -> dict[str, str]:
    blocks = re.findall(r"```toml\n# role: (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(blocks)


def read(tmp_path: Path, role: str, text: str) -> Any:
    path = tmp_path / "agent.toml"
    path.write_text(text if "control =" in text else 'control = "c"\n' + text, encoding="utf-8")
    return READERS[role](str(path))


@pytest.mark.parametrize("role", READERS)
def test_the_samples_of_the_manual(tmp_path: Path, role: str) -> None:
    result = read(tmp_path, role, samples()[role])
    assert result.agent.control.startswith("/tmp/")


def test_every_field_of_the_samples_arrives(tmp_path: Path) -> None:
    home = read(tmp_path, "home-agent", samples()["home-agent"])
    assert (home.home_interface, home.state, home.power_safe) == ("ha1-eth0", "/tmp/ha1.sqlite", True)
    assert home.core.encapsulations == {Encapsulation.IP_IN_IP, Encapsulation.GRE}
    node = home.core.mobile_nodes[0]
    assert (node.home_address, node.multipath, node.labels[1].capacity_mbit) == ("10.33.0.100", True, 20.0)
    assert node.policy == (StaticFlow(Selector(protocol=(17, 17), source_port=(5060, 5061)), (2, 1)),)
    assert home.core.limits.bindings_per_home == 8

    mobile = read(tmp_path, "mobile-node", samples()["mobile-node"])
    wlan, lte = mobile.core.interfaces
    assert (wlan.technology, wlan.bid, lte.encapsulation, lte.cost) == (AccessTechnology.WLAN, 1, Encapsulation.UDP, 1)
    assert mobile.core.association.algorithm is Algorithm.HMAC_MD5
    assert mobile.core.discovery.solicitation_interval_s == 1.0
    assert mobile.home_gateway == "10.33.0.1"

    foreign = read(tmp_path, "foreign-agent", samples()["foreign-agent"])
    assert foreign.core.home_associations["10.33.0.2"].spi == 300
    assert foreign.core.links[0].interface == "fa-eth1"


def test_a_second_home_address_shares_what_it_does_not_name(tmp_path: Path) -> None:
    shared, own = (read(tmp_path, "mobile-node", MOBILE + INTERFACE + SECOND + more).homes
                   for more in ("", 'home_gateway = "10.34.0.1"\n' + KEY.replace("256", "257")))  # fmt: skip
    assert [home.core.home_address for home in shared] == ["10.33.0.100", "10.34.0.100"]
    assert [home.core.home_agent for home in shared] == ["10.33.0.2", "10.34.0.2"]
    assert shared[1].core.interfaces == shared[0].core.interfaces
    assert [home.core.association.spi for home in shared] == [256, 256]
    assert own[1].core.association.spi == 257
    assert own[1].gateway == "10.34.0.1"
    by_nai = MOBILE.replace('home_address = "10.33.0.100"', 'nai = "mn@example.org"')
    with pytest.raises(ConfigError, match="home_address is missing"):
        read(tmp_path, "mobile-node", by_nai + INTERFACE + SECOND)


def test_keys_by_node_and_nai(tmp_path: Path) -> None:
    text = HOME + 'pool = ["10.33.0.101"]\n[[mobile_node]]\nnai = "mn@example.org"\n' + KEY
    text += '[[security]]\nnode = "mn@example.org"\nspi = 257\nkey = "' + "ab" * 32 + '"\nalgorithm = "hmac-sha256"\n'
    node = read(tmp_path, "home-agent", text).core.mobile_nodes[0]
    assert [(item.spi, item.algorithm) for item in node.associations] == [
        (256, Algorithm.HMAC_MD5),
        (257, Algorithm.HMAC_SHA256),
    ]


@pytest.mark.parametrize(
    ("role", "text", "message"),
    [
        ("home-agent", HOME, r"mobile_node: is missing"),
        ("home-agent", NODE, r"addresses: is missing"),
        ("home-agent", HOME + NODE + "colour = 1\n", r"mobile_node\[0\]\.colour: is not known here"),
        ("home-agent", HOME + 'encapsulations = ["minimal"]\n' + NODE, r"encapsulations: 'minimal' must be one of ipip, gre"),
        ("home-agent", HOME + 'home_interface = "eth0"\n' + NODE, r"home_prefix: is missing"),
        ("home-agent", HOME + NODE + '[[flow]]\nnode = "10.33.0.9"\nbids = [1]\n', r"flow: node '10.33.0.9' is no"),
        ("home-agent", HOME + NODE.replace("256", "255"), r"spi: is 255: must be a whole number from 256"),
        (
            "home-agent",
            HOME + NODE.replace("00112233445566778899aabbccddeeff", "0011"),
            r"key: has 2 octets: must have at least 16",
        ),
        ("home-agent", HOME + NODE.replace("00112233445566778899aabbccddeeff", "secret"), r"key: must be hexadecimal"),
        ("home-agent", HOME + NODE + 'selection = "best"\n', r"selection: is 'best': must be one of"),
        ("home-agent", 'addresses = ["10.33.0.256"]\n' + NODE, r"10\.33\.0\.256"),
        ("mobile-node", MOBILE, r"interface: is missing"),
        ("mobile-node", MOBILE + INTERFACE.replace("1\n", "255\n"), r"bid: is 255: must be a whole number from 1 to 254"),
        ("mobile-node", MOBILE + INTERFACE + INTERFACE, r"two interfaces have the same name"),
        ("mobile-node", MOBILE.replace("10.33.0.0/24", "10.33.0.1/24") + INTERFACE, r"home_network: is .*prefix"),
        ("mobile-node", MOBILE + INTERFACE + "[[flow]]\nbids = [1]\ndrop = true\n", r"flow\[0\]\.bids: write either bids"),
        (
            "mobile-node",
            MOBILE + INTERFACE + "[[flow]]\nbids = [1]\nsource_port = 70000\n",
            r"source_port: is 70000: write a number up",
        ),
        ("mobile-node", MOBILE + INTERFACE + '[[flow]]\nbids = [1]\nprotocol = "x"\n', r"protocol: is 'x'"),
        ("mobile-node", MOBILE + INTERFACE + '[[flow]]\nbids = [1]\nsource = "10.0.0.9-10.0.0.1"\n', r"must not be larger"),
        ("mobile-node", MOBILE.replace('home_address = "10.33.0.100"\n', "") + INTERFACE, r"home_address: is missing"),
        ("mobile-node", MOBILE + INTERFACE + SECOND + SECOND, r"home\[1\]\.home_address: 10.34.0.100 is there twice"),
        ("mobile-node", MOBILE + INTERFACE + SECOND + "nai = 'x'\n", r"home\[0\]\.nai: is not known here"),
        ("foreign-agent", FOREIGN, r"link: is missing"),
        ("foreign-agent", FOREIGN + "advertisement_lifetime_s = 1\n" + LINK, r"three intervals"),
        ("foreign-agent", LINK, r"care_of_address: is missing"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(tmp_path: Path, role: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, role, text)
    assert str(caught.value).startswith(str(tmp_path / "agent.toml") + ": ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", [AgentConfig, HomeAgentConfig, MobileNode, MobileNodeConfig, InterfaceConfig, ForeignAgentConfig]
)
def test_the_manual_names_every_field(kind: type) -> None:
    inside = {
        "associations",
        "association",
        "home_associations",
        "mobile_associations",
        "foreign_associations",
        "policy",
        "labels",
    }
    tables = {"mobile_nodes", "foreign_agents", "interfaces", "links", "flows", "limits", "settings", "discovery"}
    text = PAGE.read_text(encoding="utf-8")
    missing = [field.name for field in fields(kind) if field.name not in inside | tables and f"`{field.name}`" not in text]
    assert missing == []


def test_the_manual_names_every_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for driver in (home_agent.HomeAgentDriver, mobile_node.MobileNodeDriver, foreign_agent.ForeignAgentDriver):
        for command in driver.commands(object.__new__(driver)):
            assert f"| `{command}` |" in text


def test_flows_of_a_command() -> None:
    wanted = [{"source": "10.65.0.0/24", "destination_port": "1-9", "dscp": 46, "spi": 300, "labels": [2]}, {"drop": True}]
    one, other = flows(wanted, "policy")
    assert one.labels == (2,)
    assert one.selector == Selector(
        source=("10.65.0.0", "10.65.0.255"), destination_port=(1, 9), traffic_class=(0xB8, 0xB8), spi=(300, 300)
    )
    assert other == StaticFlow(Selector())
    for wrong in ("x", [1], [{"colour": 1, "drop": True}]):
        with pytest.raises(ConfigError):
            flows(wrong, "policy")
