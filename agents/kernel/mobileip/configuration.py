"""What the three roles have in common in their TOML files: the agent itself, keys, flows, settings of path selection."""

from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar

from agents import config
from agents.config import Table
from agents.core.mobileip.security import ReplayStyle, SecurityAssociation
from agents.core.mobileip.selection import Settings, StaticFlow
from agents.wire.mobileip.authentication import Algorithm
from agents.wire.mobileip.values import REGISTRATION_PORT, Selector

NUMBER_MAX: Final = (1 << 31) - 1
KEY_BYTES_MIN: Final = 16
"""RFC 5944 section 5.1: keys of 128 bits must be supported; shorter ones are no keys."""
BACKENDS: Final = ("auto", "kernel", "userspace")
PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "sctp": 132}
T = TypeVar("T")


@dataclass(frozen=True)
class AgentConfig:
    """Of the agent as a program."""

    agent: str
    event_log: str | None
    control: str
    tunnels: str = "auto"
    """Backend: "kernel" (ipip, gre), "userspace", or "auto": the kernel's where it has them."""
    offloads: bool = True
    """Userspace tunnels take and give TCP segments of up to 64 KiB."""
    port: int = REGISTRATION_PORT


def read_agent(top: Table, name: str) -> AgentConfig:
    """The agent's own fields of the top table."""
    return AgentConfig(
        top.text("agent", name),
        top.text("event_log", None),
        top.text("control"),
        top.choice("tunnels", BACKENDS, "auto"),
        top.flag("offloads", True),
        top.number("port", 1, 65535, REGISTRATION_PORT),
    )


def address(table: Table, field: str, default: Any = ...) -> str:
    """An IPv4 address; `default` as it is."""
    text = table.text(field, default)
    if text is default:
        return str(text)
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise table.error(field, f'is {text!r}: must be an IPv4 address, like "10.33.0.10"') from None


def prefix(table: Table, field: str, default: Any = ...) -> str:
    """An IPv4 prefix; `default` as it is."""
    text = table.text(field, default)
    if text is default:
        return str(text)
    try:
        return str(IPv4Network(text))
    except ValueError:
        raise table.error(field, f'is {text!r}: must be an IPv4 prefix, like "10.33.0.0/24"') from None


def association(table: Table) -> SecurityAssociation:
    """A security association from `spi`, `key`, `algorithm` and `replay` of a table."""
    spi = table.number("spi", 256, 0xFFFF_FFFF)
    text = table.text("key")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise table.error("key", "must be hexadecimal digits, two for each octet") from None
    if len(key) < KEY_BYTES_MIN:
        raise table.error("key", f"has {len(key)} octets: must have at least {KEY_BYTES_MIN} (32 hexadecimal digits)")
    algorithm = Algorithm(table.choice("algorithm", [item.value for item in Algorithm], Algorithm.HMAC_MD5.value))
    replay = ReplayStyle(table.choice("replay", [item.value for item in ReplayStyle], ReplayStyle.TIMESTAMPS.value))
    return SecurityAssociation(spi, key, algorithm, replay)


def flow(table: Table) -> StaticFlow:
    """A line of a flow policy, written in the direction from the correspondent to the mobile node."""
    selector = Selector(
        source=_addresses(table, "source"),
        destination=_addresses(table, "destination"),
        spi=_numbers(table, "spi", 0xFFFF_FFFF),
        source_port=_numbers(table, "source_port", 65535),
        destination_port=_numbers(table, "destination_port", 65535),
        traffic_class=_classes(table),
        protocol=_protocol(table),
    )
    bids = table.items("bids", (int,), "binding identifiers: [1, 2]")
    labels = table.items("labels", (int,), "interface labels: [1, 2]")
    drop = table.flag("drop", False)
    if drop is bool(bids or labels):
        raise table.error("bids", "write either bids or labels (preferred first), or drop = true")
    for field, values, largest in (("bids", bids, 254), ("labels", labels, 255)):
        for value in values:
            if not 1 <= value <= largest:
                raise table.error(field, f"{value} must be 1 to {largest}")
    return StaticFlow(selector, tuple(bids), tuple(labels))


def flows(values: Any, where: str) -> tuple[StaticFlow, ...]:
    """Flows from a list of tables that came by the control socket. Raises config.ConfigError."""
    top = Table(where, "", {"flows": values})
    result = []
    for table in top.tables("flows"):
        result.append(flow(table))
        table.finish()
    return tuple(result)


def settings(table: Table) -> Settings:
    """Path selection's settings."""
    return made(table, Settings, scalars(table, Settings, ("flows",)))


def scalars(table: Table, kind: type, leave: Collection[str] = ()) -> dict[str, Any]:
    """Fields of a dataclass under their own names, of the type of their defaults, apart from `leave`."""
    result: dict[str, Any] = {}
    for item in fields(kind):
        if item.name in leave or item.default is MISSING:
            continue
        result[item.name] = _scalar(table, item.name, item.default)
    return result


def _scalar(table: Table, name: str, default: Any) -> Any:
    if isinstance(default, bool):
        return table.flag(name, default)
    if isinstance(default, IntEnum):
        return enum_number(table, name, type(default), default)
    if isinstance(default, Enum):
        return type(default)(table.choice(name, [str(item.value) for item in type(default)], str(default.value)))
    if isinstance(default, int):
        return table.number(name, 0, NUMBER_MAX, default)
    if isinstance(default, float):
        return table.real(name, 0.0, float(NUMBER_MAX), default)
    if default is None:
        found = table.real(name, -float(NUMBER_MAX), float(NUMBER_MAX), float("nan"))
        return None if found != found else found
    if isinstance(default, bytes):
        return str(table.text(name, "")).encode()
    return table.text(name, default)


def enum_number(table: Table, name: str, kind: type[IntEnum], default: IntEnum) -> int:
    """A member of a registry by its name in lower case."""
    words = [item.name.lower() for item in kind]
    return int(kind[table.choice(name, words, default.name.lower()).upper()])


def made(table: Table, kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass; what it refuses is an error of the file. Raises config.ConfigError."""
    try:
        return kind(**values)
    except ValueError as error:
        if isinstance(error, config.ConfigError):
            raise
        raise table.error("", str(error)) from None


def _addresses(table: Table, field: str) -> tuple[str, str] | None:
    text = table.text(field, "")
    if not text:
        return None
    try:
        if "/" in text:
            network = IPv4Network(text)
            return str(network[0]), str(network[-1])
        low, _, high = text.partition("-")
        ends = IPv4Address(low.strip()), IPv4Address((high or low).strip())
    except ValueError:
        raise table.error(field, f'is {text!r}: write an address, "first-last" or a prefix') from None
    if ends[0] > ends[1]:
        raise table.error(field, f"is {text!r}: the first address must not be larger than the last")
    return str(ends[0]), str(ends[1])


def _numbers(table: Table, field: str, largest: int) -> tuple[int, int] | None:
    value = table._get(field, (int, str), 'a number or "first-last"', "")
    if value == "":
        return None
    low, _, high = str(value).partition("-")
    texts = low.strip(), (high or low).strip()
    if not all(text.isdigit() for text in texts) or not int(texts[0]) <= int(texts[1]) <= largest:
        raise table.error(field, f'is {value!r}: write a number up to {largest}, or "first-last"')
    return int(texts[0]), int(texts[1])


def _classes(table: Table) -> tuple[int, int] | None:
    """`dscp`: the six bits of the class; the selector has them in the upper bits of the octet."""
    found = _numbers(table, "dscp", 63)
    return None if found is None else (found[0] << 2, found[1] << 2)


def _protocol(table: Table) -> tuple[int, int] | None:
    value = table._get("protocol", (int, str), f"a number or one of {', '.join(PROTOCOLS)}", "")
    if value == "":
        return None
    number = PROTOCOLS.get(value, -1) if isinstance(value, str) else value
    if not 0 <= number <= 255:
        raise table.error("protocol", f"is {value!r}: write a number or one of {', '.join(PROTOCOLS)}")
    return number, number
