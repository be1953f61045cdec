"""The TOML file of the path manager."""

from dataclasses import MISSING, dataclass, fields
from ipaddress import ip_address
from typing import Any

from agents import config
from agents.config import Table
from agents.core.path_manager.config import POLICIES, Detection, OnDeath, PathManagerConfig

COST_MAX = 1_000_000


@dataclass(frozen=True)
class Interface:
    """An interface whose addresses are care-of addresses."""

    name: str
    cost: int = 0
    domain: str = ""


@dataclass(frozen=True)
class Home:
    """A home address that is told here and not by an agent."""

    address: str
    home_agent: str = ""
    cost: int = 0
    domain: str = ""


@dataclass(frozen=True)
class MobileNode:
    """A mobile node's agent on this host, which tells its home address."""

    control: str
    cost: int = 0
    domain: str = ""


@dataclass(frozen=True)
class PathManagerFile:
    """What the file says."""

    agent: str
    event_log: str | None
    control: str
    core: PathManagerConfig
    interfaces: tuple[Interface, ...]
    homes: tuple[Home, ...]
    mobile_nodes: tuple[MobileNode, ...]
    families: frozenset[int]


def read_config(path: str) -> PathManagerFile:
    """The configuration in a TOML file. Raises config.ConfigError."""
    top = config.load(path)
    agent, log, control = top.text("agent", "path-manager"), top.text("event_log", None), top.text("control")
    interfaces = tuple(map(_interface, top.tables("interface")))
    homes = tuple(map(_home, top.tables("home_address")))
    nodes = tuple(map(_mobile_node, top.tables("mobile_node")))
    families = {"ipv4": frozenset({4}), "ipv6": frozenset({6}), "dual": frozenset({4, 6})}
    versions = families[top.choice("families", tuple(families), "dual")]
    if not interfaces:
        raise top.error("interface", "is missing: write [[interface]] with name")
    _once(top, "interface", [item.name for item in interfaces])
    _once(top, "home_address", [item.address for item in homes])
    core = _core(
        top, frozenset([item.domain for item in interfaces] + [item.domain for item in homes] + [item.domain for item in nodes])
    )
    top.finish()
    return PathManagerFile(agent, log, control, core, interfaces, homes, nodes, versions)


def _once(top: Table, field: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise top.error(field, f"two tables for {name!r}: keep one")


def _core(top: Table, domains: frozenset[str]) -> PathManagerConfig:
    default = PathManagerConfig()
    values: dict[str, Any] = {
        "userspace": top.choice("path_manager", ("userspace", "kernel"), "userspace") == "userspace",
        "policy": top.choice("policy", tuple(POLICIES), default.policy),
        "remote_addresses": top.choice("remote_addresses", ("all", "initial"), default.remote_addresses),
        "subflows_max": top.number("subflows_max", 1, 8, default.subflows_max),
        "announce": top.flag("announce", default.announce),
        "retry_s": top.real("retry_s", 0.01, 3600, default.retry_s),
        "retry_max_s": top.real("retry_max_s", 0.01, 3600, default.retry_max_s),
        "join_timeout_s": top.real("join_timeout_s", 0.1, 3600, default.join_timeout_s),
        "domains": domains,
        "detection": _detection(top.table("detection")),
    }
    try:
        return PathManagerConfig(**values)
    except ValueError as error:
        raise top.error("domain", str(error)) from None


def _detection(table: Table) -> Detection:
    values: dict[str, Any] = {}
    for field in fields(Detection):
        default = field.default
        assert default is not MISSING
        if isinstance(default, OnDeath):
            values[field.name] = OnDeath(table.choice(field.name, [item.value for item in OnDeath], default.value))
        elif isinstance(default, bool):
            values[field.name] = table.flag(field.name, default)
        elif isinstance(default, int):
            values[field.name] = table.number(field.name, 1, 1000, default)
        else:
            values[field.name] = table.real(field.name, 0.001, 86_400, default)
    table.finish()
    try:
        return Detection(**values)
    except ValueError as error:
        raise table.error(str(error).split()[0], str(error)) from None


def _interface(table: Table) -> Interface:
    result = Interface(table.text("name"), table.number("cost", 0, COST_MAX, 0), table.text("domain", ""))
    table.finish()
    return result


def _home(table: Table) -> Home:
    result = Home(
        _address(table, "address", ...), _address(table, "home_agent", ""), table.number("cost", 0, COST_MAX, 0),
        table.text("domain", ""),
    )  # fmt: skip
    table.finish()
    return result


def _mobile_node(table: Table) -> MobileNode:
    result = MobileNode(table.text("control"), table.number("cost", 0, COST_MAX, 0), table.text("domain", ""))
    table.finish()
    return result


def _address(table: Table, field: str, default: Any) -> str:
    text = table.text(field, default)
    if not text:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        raise table.error(field, f"is {text!r}: must be an IP address") from None
