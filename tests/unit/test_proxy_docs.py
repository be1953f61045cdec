"""docs/proxy.md names every setting of the proxy with its default, and every command."""

import re
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.policy import POLICIES
from agents.kernel.proxy.commands import Commands
from agents.kernel.proxy.configuration import FIRST_QUEUE, AgentConfig, InterfaceConfig, read_config
from agents.kernel.proxy.rules import Filter
from experiments.cli.main import COMMANDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "proxy.md").read_text()
KEYS = {"first_queue": "queue", "filters": "[[filter]]", "interfaces": "[[interface]]", "proxy": "[proxy]"}
"""Fields of AgentConfig whose key has another name."""


def table(head: str) -> dict[str, list[str]]:
    """The rows of the table whose first row begins with `head`: first cell without backquotes -> other cells."""
    lines = TEXT.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = {}
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


def written(value: Any) -> str:
    """As TOML has it."""
    if isinstance(value, Enum):
        value = value.value
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def test_every_field_of_the_core_with_its_default() -> None:
    rows = table("`[proxy]` | default")
    assert list(rows) == [item.name for item in fields(ProxyConfig)], "the same fields in the same order"
    for item in fields(ProxyConfig):
        assert rows[item.name][0] == f"`{written(item.default)}`", item.name
        assert rows[item.name][1], f"{item.name}: what does it mean?"


def test_every_key_of_the_agent(tmp_path: Path) -> None:
    rows = table("key | default")
    assert set(rows) == {KEYS.get(item.name, item.name) for item in fields(AgentConfig)}
    path = tmp_path / "proxy.toml"
    path.write_text('control = "c"\n[[filter]]\nlocal_ports = [1]\n')
    found = read_config(str(path))
    assert rows["agent"][0] == f"`{written(found.agent)}`"
    assert rows["queue"][0] == f"`{FIRST_QUEUE}`"
    assert rows["gso"][0] == f"`{written(found.gso)}`"


@pytest.mark.parametrize(("head", "kind"), [("`[[filter]]` | meaning", Filter), ("`[[interface]]` | meaning", InterfaceConfig)])
def test_every_key_of_the_tables(head: str, kind: Any) -> None:
    assert set(table(head)) == {item.name for item in fields(kind)}


def test_every_command_and_policy() -> None:
    assert set(table("command | parameters")) == set(Commands(None, None).table())
    assert set(table("`policy` | subflows")) == set(POLICIES)


def test_what_is_referred_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
    if "roamlab proxy" in TEXT:
        assert "proxy" in COMMANDS


def test_the_coverage_page_names_files_that_exist() -> None:
    text = (DOCS / "rfc-coverage.md").read_text()
    root = DOCS.parent
    places = {
        "## The lightweight MPTCP proxy": ["agents/core/proxy", "tests/unit/agents/core/proxy", "tests/unit/proxy_models", ""],
        "## Mobile IPv4": [
            "agents/wire/mobileip", "agents/core/mobileip", "agents/kernel/mobileip", "tests/unit/agents/wire/mobileip",
            "tests/unit/agents/core/mobileip", "tests/unit/agents/kernel/mobileip", "tests/emulation", "",
        ],
    }  # fmt: skip
    for heading, folders in places.items():
        part = text[text.index(heading + "\n") + 1 :].split("\n## ")[0]
        for name in re.findall(r"`([\w/]+\.py)`", part):
            assert any((root / folder / name).exists() for folder in folders), name
    for target in re.findall(r"\]\(([^)#]+\.md)\)", text + (DOCS / "errata.md").read_text()):
        assert (DOCS / target).exists(), target
