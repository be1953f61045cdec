"""Which MPTCP endpoints the kernel's path manager shall have, from the addresses that exist. Pure.

The in-kernel path manager ignores interfaces and addresses that come and go: an endpoint whose address is missing is not
tried again, one whose address is gone stays. So every usable address of a configured interface has an endpoint, and no other.
Removing an endpoint closes its subflows and tells the peer (RM_ADDR, RFC 8684 section 3.4.2); adding one joins existing
connections at once.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

FLAGS = ("subflow", "signal", "backup", "fullmesh")
KEEP, REMOVE = "keep", "remove"


@dataclass(frozen=True)
class Policy:
    """What the configuration says of one interface."""

    name: str
    flags: frozenset[str] = frozenset({"subflow"})
    on_carrier_loss: str = KEEP
    """"keep": the subflow waits for the carrier; "remove": it is closed and the peer is told."""
    families: frozenset[int] = frozenset({4, 6})
    """IP versions whose addresses become endpoints. Linux 6.18 counts an endpoint of the other family as used by a
    connection that cannot use it, and after some changes of address starts no more subflows: choose the one that is needed."""


@dataclass(frozen=True)
class Interface:
    """A configured interface that exists."""

    name: str
    index: int
    carrier: bool


@dataclass(frozen=True)
class Address:
    """A usable global address."""

    index: int
    address: str


@dataclass(frozen=True)
class Endpoint:
    """An endpoint; `number` is the kernel's address id, 0 when it has none yet, and does not count in comparisons."""

    address: str
    index: int
    flags: frozenset[str]
    number: int = 0

    @property
    def key(self) -> str:
        """The kernel allows one endpoint per address."""
        return str(ipaddress.ip_address(self.address))


@dataclass(frozen=True)
class Add:
    """Action: add the endpoint."""

    endpoint: Endpoint


@dataclass(frozen=True)
class Delete:
    """Action: delete the endpoint by its number."""

    endpoint: Endpoint


@dataclass(frozen=True)
class SetBackup:
    """Action: change the priority of the endpoint's subflows, live (MP_PRIO)."""

    endpoint: Endpoint
    backup: bool


Action: TypeAlias = Add | Delete | SetBackup


def check_flags(flags: Iterable[str]) -> frozenset[str]:
    """The flags as a set. Raises ValueError on an unknown one and on combinations that the kernel refuses."""
    result = frozenset(flags)
    unknown = sorted(result - set(FLAGS))
    if unknown:
        raise ValueError(f"{unknown[0]!r}: valid are {', '.join(FLAGS)}")
    if {"signal", "fullmesh"} <= result:
        raise ValueError("signal and fullmesh exclude each other")
    if not result & {"subflow", "signal"}:
        raise ValueError("subflow or signal must be among them")
    return result


def desired_endpoints(
    policies: Sequence[Policy],
    interfaces: Sequence[Interface],
    addresses: Sequence[Address],
    backup: Mapping[str, bool] | None = None,
    withheld: Iterable[str] = (),
) -> frozenset[Endpoint]:
    """Endpoints for the present addresses.

    backup: interface name -> priority that overrides the configured one. withheld: interfaces that shall have none.
    """
    by_name = {policy.name: policy for policy in policies}
    hidden = set(withheld)
    result = set()
    for interface in interfaces:
        policy = by_name.get(interface.name)
        if policy is None or interface.name in hidden:
            continue
        if not interface.carrier and policy.on_carrier_loss == REMOVE:
            continue
        flags = policy.flags
        override = (backup or {}).get(interface.name)
        if override is not None:
            flags = flags | {"backup"} if override else flags - {"backup"}
        for address in addresses:
            ip = ipaddress.ip_address(address.address)
            if address.index == interface.index and not ip.is_link_local and ip.version in policy.families:
                result.add(Endpoint(address.address, interface.index, flags))
    return frozenset(result)


def diff(desired: Iterable[Endpoint], actual: Iterable[Endpoint], managed: Iterable[int]) -> list[Action]:
    """Actions that lead from `actual` to `desired`. Endpoints of interfaces that are not `managed` (indices) stay.

    Deletions come first: the kernel has few endpoints and refuses a second one with the same address.
    """
    wanted = {endpoint.key: endpoint for endpoint in desired}
    indices = set(managed)
    deletions: list[Action] = []
    changes: list[Action] = []
    present: set[str] = set()
    for endpoint in sorted(actual, key=lambda item: item.key):
        target = wanted.get(endpoint.key)
        if target is None:
            if endpoint.index in indices:
                deletions.append(Delete(endpoint))
        elif target.index != endpoint.index or (target.flags ^ endpoint.flags) - {"backup"}:
            deletions.append(Delete(endpoint))
        else:
            present.add(endpoint.key)
            if target.flags != endpoint.flags:
                changes.append(SetBackup(endpoint, "backup" in target.flags))
    additions: list[Action] = [Add(endpoint) for key, endpoint in sorted(wanted.items()) if key not in present]
    return deletions + changes + additions


def rejoin(actual: Iterable[Endpoint], index: int) -> list[Action]:
    """Delete and add the endpoints of an interface: existing connections join from it again."""
    own = sorted((endpoint for endpoint in actual if endpoint.index == index), key=lambda item: item.key)
    return [*(Delete(endpoint) for endpoint in own), *(Add(replace(endpoint, number=0)) for endpoint in own)]


def apply(actions: Iterable[Action], actual: Iterable[Endpoint]) -> frozenset[Endpoint]:
    """What `actual` becomes. Raises ValueError where the kernel would refuse."""
    state = {endpoint.key: endpoint for endpoint in actual}
    for action in actions:
        key = action.endpoint.key
        if isinstance(action, Add):
            if key in state:
                raise ValueError(f"{key} exists")
            state[key] = action.endpoint
        elif key not in state:
            raise ValueError(f"{key} does not exist")
        elif isinstance(action, Delete):
            del state[key]
        else:
            flags = state[key].flags
            state[key] = replace(state[key], flags=flags | {"backup"} if action.backup else flags - {"backup"})
    return frozenset(state.values())
