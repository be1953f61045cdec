"""The configuration of the role `proxy`."""

from dataclasses import dataclass, fields
from enum import Enum
from ipaddress import ip_network
from typing import Any, Final

from agents import config
from agents.core.proxy.config import ProxyConfig
from agents.kernel.proxy.rules import QUEUES, Filter, ports

FIRST_QUEUE: Final = 40
NUMBER_MAX: Final = 1_000_000
POLICIES: Final = ("manual", "follow", "cheapest", "lowest-rtt")


@dataclass(frozen=True)
class InterfaceConfig:
    """One [[interface]]: what it costs to use it."""

    name: str
    cost: int


@dataclass(frozen=True)
class AgentConfig:
    """The configuration of the agent."""

    agent: str
    event_log: str | None
    control: str
    first_queue: int
    gso: bool
    filters: tuple[Filter, ...]
    interfaces: tuple[InterfaceConfig, ...]
    """Empty: every interface but lo, at cost 0."""
    proxy: ProxyConfig


def read_config(path: str) -> AgentConfig:
    """The configuration in a TOML file. Raises config.ConfigError."""
    top = config.load(path)
    result = AgentConfig(
        top.text("agent", "proxy"),
        top.text("event_log", None),
        top.text("control"),
        top.number("queue", 0, 0x10000 - QUEUES, FIRST_QUEUE),
        top.flag("gso", True),
        tuple(_read_filter(table) for table in top.tables("filter")),
        tuple(_read_interface(table) for table in top.tables("interface")),
        _read_proxy(top.table("proxy")),
    )
    top.finish()
    if not result.filters:
        raise top.error("filter", "is missing: write [[filter]] with remote_ports, local_ports, prefixes or cgroup")
    names = [interface.name for interface in result.interfaces]
    for name in names:
        if names.count(name) > 1:
            raise top.error("interface", f"two tables for {name!r}: keep one")
    return result


def _read_filter(table: config.Table) -> Filter:
    found = {}
    for name in ("remote_ports", "local_ports"):
        try:
            found[name] = ports(table.items(name, (int, str), 'ports: [5001, "6000-6010"]'))
        except ValueError as error:
            if isinstance(error, config.ConfigError):
                raise
            raise table.error(name, str(error)) from None
    prefixes = table.texts("prefixes", [])
    for prefix in prefixes:
        try:
            ip_network(prefix)
        except ValueError:
            raise table.error("prefixes", f'{prefix!r} is no prefix: write for example "10.64.0.0/24"') from None
    cgroup = table.text("cgroup", "")
    if any(character.isspace() or character in "\"'\\" for character in cgroup):
        raise table.error("cgroup", f"{cgroup!r}: must be a path without blanks and quotes")
    table.finish()
    result = Filter(found["remote_ports"], found["local_ports"], tuple(prefixes), cgroup)
    if result == Filter():
        raise table.error("remote_ports", "is missing, and so is all else: a filter needs ports, prefixes or a cgroup")
    return result


def _read_interface(table: config.Table) -> InterfaceConfig:
    result = InterfaceConfig(table.text("name"), table.number("cost", 0, NUMBER_MAX, 0))
    table.finish()
    return result


def _read_proxy(table: config.Table) -> ProxyConfig:
    """Every field of ProxyConfig under its own name, of the type of its default."""
    values: dict[str, Any] = {}
    for item in fields(ProxyConfig):
        default = item.default
        if item.name == "policy":
            values[item.name] = table.choice(item.name, POLICIES, default)
        elif isinstance(default, bool):
            values[item.name] = table.flag(item.name, default)
        elif isinstance(default, int):
            values[item.name] = table.number(item.name, 0, NUMBER_MAX, default)
        elif isinstance(default, float):
            values[item.name] = table.real(item.name, 0.0, float(NUMBER_MAX), default)
        elif isinstance(default, Enum):
            words = [str(member.value) for member in type(default)]
            values[item.name] = type(default)(table.choice(item.name, words, str(default.value)))
        else:
            values[item.name] = table.text(item.name, default)
    table.finish()
    try:
        return ProxyConfig(**values)
    except ValueError as error:
        raise table.error("", str(error)) from None
