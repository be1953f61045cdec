"""The configuration of the role: every mistake is one line that says what to write."""

from dataclasses import fields
from pathlib import Path

import pytest

from agents.config import ConfigError
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.projection import AckTranslation
from agents.kernel.proxy.configuration import FIRST_QUEUE, read_config
from agents.kernel.proxy.rules import Filter

FILTER = '[[filter]]\nremote_ports = [5001, "6000-6010"]\n'


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "proxy.toml"
    path.write_text('control = "/run/proxy.sock"\n' + text)
    return read_config(str(path))


def test_defaults(tmp_path: Path) -> None:
    result = read(tmp_path, FILTER)
    assert result.proxy == ProxyConfig()
    assert (result.first_queue, result.gso, result.interfaces) == (FIRST_QUEUE, True, ())
    assert result.filters == (Filter(("5001", "6000:6010")),)


def test_everything(tmp_path: Path) -> None:
    text = """
agent = "mn-proxy"
queue = 50
gso = false
[[filter]]
local_ports = [80]
prefixes = ["10.0.0.0/8", "2001:db8::/32"]
cgroup = "a/b"
[[interface]]
name = "mn-wlan"
cost = 3
[proxy]
policy = "cheapest"
checksum = true
join_rto_s = 1
subflows_max = 4
ack_translation = "conservative"
"""
    result = read(tmp_path, text)
    assert result.filters == (Filter((), ("80",), ("10.0.0.0/8", "2001:db8::/32"), "a/b"),)
    assert (result.agent, result.first_queue, result.gso) == ("mn-proxy", 50, False)
    assert [(item.name, item.cost) for item in result.interfaces] == [("mn-wlan", 3)]
    proxy = result.proxy
    assert (proxy.policy, proxy.checksum, proxy.join_rto_s, proxy.subflows_max) == ("cheapest", True, 1.0, 4)
    assert proxy.ack_translation is AckTranslation.CONSERVATIVE


@pytest.mark.parametrize("item", fields(ProxyConfig), ids=lambda item: item.name)
def test_every_field_of_the_core_can_be_set_and_its_type_is_checked(tmp_path: Path, item: object) -> None:
    with pytest.raises(ConfigError, match=rf"proxy\.{item.name}: .*must be"):
        read(tmp_path, f"{FILTER}[proxy]\n{item.name} = []\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"filter: is missing: write \[\[filter\]\]"),
        ("[[filter]]\n", "a filter needs ports, prefixes or a cgroup"),
        ("[[filter]]\nremote_ports = [0]\n", r"filter\[0\].remote_ports: 0 is no port"),
        ("[[filter]]\nremote_ports = [true]\n", "must be ports"),
        ('[[filter]]\nprefixes = ["10.0.0.1/8"]\n', "is no prefix"),
        ('[[filter]]\ncgroup = "a b"\n', "without blanks"),
        (FILTER + "queue = 1\n", "queue: is not known here"),
        ("queue = 65533\n" + FILTER, "from 0 to 65532"),
        (FILTER + '[[interface]]\nname = "a"\n[[interface]]\nname = "a"\n', "two tables for 'a'"),
        (FILTER + '[proxy]\npolicy = "best"\n', 'one of "manual"'),
        (FILTER + "[proxy]\njoin_rto_s = -1\n", "a number from 0"),
        (FILTER + "[proxy]\nspeed = 1\n", "proxy.speed: is not known here"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
