"""What a topology needs to know of one access network, and how people write it down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from topologies.addressing import FAMILIES
from topologies.middlebox_settings import MiddleboxLike, MiddleboxSettings, middlebox_settings
from topologies.profiles import LinkProfile, profile


@dataclass(frozen=True)
class AccessNetwork:
    """One access network: an access router with attachment points, one subnet, and the link of the MN to it."""

    name: str
    """Name of the path and, after "mn-", of the MN's interface."""
    profile: LinkProfile = field(default_factory=LinkProfile)
    families: str = "dual"
    prefixes: int = 1
    """2: two prefixes on the link, each from a provider of its own."""
    aps: int = 2
    """Attachment points; the MN starts at the first one."""
    middlebox: MiddleboxLike = None
    """Between the access router and the core: "nat", "firewall", or a table of MiddleboxSettings."""
    attached: bool = True
    """Whether the MN starts with an interface here; otherwise it can be moved here."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.isalnum():
            raise ValueError(f"access network name {self.name!r}: letters and digits only")
        if self.families not in FAMILIES:
            raise ValueError(f"access network {self.name}: families = {self.families!r}: one of {', '.join(FAMILIES)}")
        if self.prefixes not in (1, 2):
            raise ValueError(f"access network {self.name}: prefixes = {self.prefixes!r}: 1 or 2")
        if self.aps not in (1, 2):
            raise ValueError(f"access network {self.name}: aps = {self.aps!r}: 1 or 2")
        if self.box is not None and self.prefixes == 2:
            raise ValueError(f"access network {self.name}: a middlebox needs prefixes = 1")

    @property
    def box(self) -> MiddleboxSettings | None:
        """What `middlebox` means."""
        return middlebox_settings(self.middlebox, f"access network {self.name}: middlebox")

    @property
    def label(self) -> str:
        """For drawings: "WLAN 20 Mbit/s 15 ms"."""
        return f"{self.name.upper()} {self.profile.describe()}".strip()


AccessLike: TypeAlias = AccessNetwork | Mapping[str, Any] | str

_FIELDS = tuple(item.name for item in fields(AccessNetwork))


def access_network(value: AccessLike) -> AccessNetwork:
    """One access network from itself, a table of its fields, or "name[:preset[:families]]".

    Where no profile is given the preset with the network's name is meant. Raises ValueError, one line.
    """
    if isinstance(value, AccessNetwork):
        return value
    if isinstance(value, str):
        parts = value.split(":")
        if len(parts) > 3:
            raise ValueError(f"access network {value!r}: write name[:preset[:families]]")
        value = dict(zip(("name", "profile", "families"), parts, strict=False))
    if not isinstance(value, Mapping):
        raise ValueError(f"access network {value!r}: must be a table with {', '.join(_FIELDS)}")
    unknown = [key for key in value if key not in _FIELDS]
    if unknown:
        raise ValueError(f"access network has no field {unknown[0]!r}: valid are {', '.join(_FIELDS)}")
    if "name" not in value:
        raise ValueError("access network without a name")
    values = dict(value)
    values["profile"] = profile(values.get("profile", values["name"]))
    return AccessNetwork(**values)


def access_networks(value: Sequence[AccessLike] | str) -> tuple[AccessNetwork, ...]:
    """All access networks of a topology from a list, or from one string as on the command line: "wlan+lte:lte:ipv4".

    Raises ValueError when a name occurs twice.
    """
    items = [access_network(item) for item in (value.split("+") if isinstance(value, str) else value)]
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two access networks are called {name!r}")
    return tuple(items)
