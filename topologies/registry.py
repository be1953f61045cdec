"""Topologies by name."""

from collections.abc import Mapping
from typing import Any

from topologies.mobile import MobileTopo, topos

TOPOLOGIES: dict[str, type[MobileTopo]] = dict(topos)


def make(name: str, params: Mapping[str, Any] | None = None) -> MobileTopo:
    """A topology from its name and parameters.

    Raises ValueError, one line, on an unknown name or parameter (listing the valid ones) and on a bad value.
    """
    if name not in TOPOLOGIES:
        raise ValueError(f"no topology {name!r}: there are {', '.join(TOPOLOGIES)}")
    return TOPOLOGIES[name](**dict(params or {}))


def with_homes(name: str, params: Mapping[str, Any], homes: int) -> dict[str, Any]:
    """The parameters, with at least so many home networks; links of access networks keep their random numbers."""
    default = TOPOLOGIES[name].parameters()["homes"] if name in TOPOLOGIES else 0
    wanted = params.get("homes", default)
    return {**params, "homes": homes} if isinstance(wanted, int) and wanted < homes else dict(params)
