"""Configuration files: every mistake is one line that names file, field and remedy, and status 2."""

from pathlib import Path

import pytest

from agents.__main__ import ROLES, main
from agents.config import ConfigError
from agents.kernel import mptcp_endpoints, netconf

NETCONF = """
state_dir = "/tmp"
control = "/tmp/control"
[[interface]]
name = "mn-wlan"
table = 101
"""
ENDPOINTS = """
control = "/tmp/control"
[[interface]]
name = "mn-wlan"
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return str(path)


def test_defaults(tmp_path: Path) -> None:
    read = netconf.read_config(write(tmp_path, NETCONF))
    assert read.interfaces[0] == netconf.InterfaceConfig("mn-wlan", 101, 100, "dhcp", "ra", 1, (), ())
    assert mptcp_endpoints.read_config(write(tmp_path, ENDPOINTS)).subflows == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "is no TOML"),
        ("", "agent.toml: control: is missing|agent.toml: state_dir: is missing"),
        (NETCONF.replace("101", "300"), r"interface\[0\].table: is 300: must be a whole number from 1 to 252"),
        (NETCONF.replace("101", "true"), r"interface\[0\].table: is True: must be a whole number"),
        (NETCONF.replace("101", '"x"'), r"interface\[0\].table: is 'x'"),
        (NETCONF + "tabel = 3", r"interface\[0\].tabel: is not known here: valid are name, table"),
        (NETCONF + 'ipv4 = "dhpc"', r'interface\[0\].ipv4: is \'dhpc\': must be one of "dhcp", "static", "off"'),
        (NETCONF + 'addresses = ["10.0.0.1/24"]', r'needs ipv4 = "static"'),
        (NETCONF + 'ipv4 = "static"\naddresses = ["10.0.0.1/99"]', "is no address"),
        (NETCONF + 'ipv4 = "static"\naddresses = [1]', "must be a list of texts"),
        (NETCONF + '[[interface]]\nname = "b"\ntable = 101', "two interfaces have the table 101"),
        (NETCONF + '[[interface]]\nname = "mn-wlan"\ntable = 102', "two interfaces have the name"),
        ("interface = 3\n" + NETCONF.split("[[")[0], r"must be tables: \[\[interface\]\]"),
    ],
)
def test_netconf_mistakes(tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as raised:
        netconf.read_config(path)
    assert str(raised.value).startswith(path)
    assert main(["netconf", "--config", path]) == 2
    errors = capsys.readouterr().err
    assert errors.strip() == str(raised.value)
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENDPOINTS + 'flags = ["signal", "fullmesh"]', r"interface\[0\].flags: signal and fullmesh exclude"),
        (ENDPOINTS + 'on_carrier_loss = "drop"', r'must be one of "keep", "remove"'),
        (ENDPOINTS + "[limits]\nsubflows = 9", r"limits.subflows: is 9: must be a whole number from 0 to 8"),
        (ENDPOINTS + "[limits]\nflows = 1", "limits.flows: is not known here"),
        (ENDPOINTS + ENDPOINTS.split("\n", 2)[2], "two tables for 'mn-wlan'"),
    ],
)
def test_endpoints_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        mptcp_endpoints.read_config(path)
    assert main(["mptcp-endpoints", "--config", path]) == 2


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["netconf", "--config", "/nonexistent/x.toml"]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_help_lists_the_roles(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert all(role in text for role in ROLES)
