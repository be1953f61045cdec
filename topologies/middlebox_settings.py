"""What a middlebox on a path does, and how people write it down. Pure; the box itself is in topologies/middlebox.py."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias


@dataclass(frozen=True)
class MiddleboxSettings:
    """What a box between an access, home or correspondent network and the core does besides forwarding."""

    nat: bool = False
    """Translates IPv4 addresses of the network behind it, which then cannot be reached from outside by IPv4."""
    firewall: bool = False
    """Connections may only be opened from the network behind it."""
    rules: tuple[str, ...] = ()
    """nft commands, for example "add rule inet middlebox forward tcp option mptcp exists drop"."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, the same that `middlebox_settings` reads."""
        return {**asdict(self), "rules": list(self.rules)}


MiddleboxLike: TypeAlias = MiddleboxSettings | Mapping[str, Any] | str | None

NAMED = {"nat": MiddleboxSettings(nat=True), "firewall": MiddleboxSettings(firewall=True)}

_FIELDS = tuple(item.name for item in fields(MiddleboxSettings))


def middlebox_settings(value: MiddleboxLike, what: str = "middlebox") -> MiddleboxSettings | None:
    """Settings from themselves, "nat", "firewall", a table of the fields, or None (no box).

    A table without anything is a box that forwards and can be given rules later. Raises ValueError, one line that starts
    with `what`.
    """
    if value is None or isinstance(value, MiddleboxSettings):
        return value
    if isinstance(value, str) and value in NAMED:
        return NAMED[value]
    if not isinstance(value, Mapping):
        raise ValueError(f'{what} = {value!r}: "nat", "firewall", a table with {", ".join(_FIELDS)}, or leave out')
    for key in value:
        if key not in _FIELDS:
            raise ValueError(f"{what} has no field {key!r}: valid are {', '.join(_FIELDS)}")
    for key in ("nat", "firewall"):
        if not isinstance(value.get(key, False), bool):
            raise ValueError(f"{what}: {key} = {value[key]!r}: true or false")
    rules = value.get("rules", ())
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, str) and rule.strip() for rule in rules):
        raise ValueError(f"{what}: rules = {rules!r}: a list of nft commands")
    return MiddleboxSettings(value.get("nat", False), value.get("firewall", False), tuple(rules))
