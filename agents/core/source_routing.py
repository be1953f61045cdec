"""Routing by source address on a host with several networks: which rules and routes there shall be, and what to change.

Every interface has a table of its own: the connected prefixes, a default route, and an unreachable default of worse metric,
so that packets from an address of a dead interface end here instead of leaving by another one. Every address has a rule
that leads to the table of its interface. An address that the host had and lost gets an unreachable rule: a connection that
still uses it must not send from another network (RFC 2827 filters would drop it, and it would look like a working path).
Pure: the kernel's state is an argument, actions are the result.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAIN_TABLE = 254
RULE_PRIORITY = 1000
STALE_RULE_PRIORITY = 1100
TABLE_METRIC = 10
UNREACHABLE_METRIC = 0xFFFF_0000
STALE_LIMIT = 32
"""Lost addresses that are remembered; the oldest is forgotten first."""


@dataclass(frozen=True)
class Interface:
    """A configured interface that exists."""

    index: int
    name: str
    table: int
    metric: int
    """Metric of its routes in the main table: unbound sockets use the interface with the lowest."""
    up: bool = True
    """Administratively up. Without carrier the routes stay; without this the kernel takes none."""


@dataclass(frozen=True)
class Address:
    """A global unicast address on an interface of the host, configured or not."""

    index: int
    address: str
    prefix_length: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version

    @property
    def network(self) -> str:
        """The connected prefix."""
        return str(ipaddress.ip_interface(f"{self.address}/{self.prefix_length}").network)


@dataclass(frozen=True)
class Gateway:
    """A router that announced itself, was leased or configured; in a sequence the preferred one comes first."""

    index: int
    address: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version


@dataclass(frozen=True, order=True)
class Route:
    """A route. `index` None and `gateway` "": unreachable. `gateway` "" with an index: connected."""

    table: int
    version: int
    destination: str
    """"default" or a prefix"""
    metric: int
    index: int | None = None
    gateway: str = ""
    congestion_control: str = ""

    @property
    def unreachable(self) -> bool:
        """Whether packets that meet it are refused."""
        return self.index is None

    @property
    def key(self) -> tuple[int, int, str, int]:
        """What the kernel tells routes apart by."""
        return (self.table, self.version, self.destination, self.metric)


@dataclass(frozen=True, order=True)
class Rule:
    """A rule for one source address; `table` 0: packets from it are unreachable."""

    version: int
    source: str
    table: int
    priority: int = RULE_PRIORITY


@dataclass(frozen=True)
class Routing:
    """All rules and routes that belong to the agent."""

    rules: frozenset[Rule] = frozenset()
    routes: frozenset[Route] = frozenset()


@dataclass(frozen=True)
class AddRoute:
    """Action: the route must be added."""

    route: Route


@dataclass(frozen=True)
class DeleteRoute:
    """Action: the route must go."""

    route: Route


@dataclass(frozen=True)
class AddRule:
    """Action: the rule must be added."""

    rule: Rule


@dataclass(frozen=True)
class DeleteRule:
    """Action: the rule must go."""

    rule: Rule


Action: TypeAlias = AddRoute | DeleteRoute | AddRule | DeleteRule


def desired_routing(
    interfaces: Sequence[Interface],
    addresses: Sequence[Address],
    gateways: Sequence[Gateway],
    stale: Iterable[str] = (),
    congestion_control: str = "",
    preferred: str = "",
) -> Routing:
    """Rules and routes for the present state.

    stale: addresses that were on a configured interface and are gone (see `remember`). congestion_control: carried by
    every route, "" for none. preferred: name of the interface whose routes in the main table come before all others.
    """
    rules: set[Rule] = set()
    routes: set[Route] = set()
    present = {address.address for address in addresses}
    for interface in interfaces:
        for version in (4, 6):
            routes.add(Route(interface.table, version, "default", UNREACHABLE_METRIC))
        own = [address for address in addresses if address.index == interface.index]
        for address in own:
            rules.add(Rule(address.version, address.address, interface.table))
        if not interface.up:
            continue
        metric = 1 if interface.name == preferred else interface.metric
        for table, table_metric in ((interface.table, TABLE_METRIC), (MAIN_TABLE, metric)):
            for address in own:
                routes.add(
                    Route(table, address.version, address.network, table_metric, interface.index, "", congestion_control)
                )
            for version in (4, 6):
                gateway = _first_usable(version, own, [item for item in gateways if item.index == interface.index])
                if gateway:
                    route = Route(table, version, "default", table_metric, interface.index, gateway, congestion_control)
                    routes.add(route)
    for lost in stale:
        if lost not in present:
            rules.add(Rule(ipaddress.ip_address(lost).version, lost, 0, STALE_RULE_PRIORITY))
    return Routing(frozenset(rules), frozenset(routes))


def _first_usable(version: int, own: Sequence[Address], gateways: Sequence[Gateway]) -> str:
    """First gateway that can be reached from an address of its family; "" when there is none."""
    mine = [address for address in own if address.version == version]
    for gateway in gateways:
        if gateway.version != version or not mine:
            continue
        target = ipaddress.ip_address(gateway.address)
        if target.is_link_local or any(target in ipaddress.ip_network(address.network) for address in mine):
            return gateway.address
    return ""


def remember(stale: Sequence[str], before: Iterable[str], now: Iterable[str]) -> list[str]:
    """The lost addresses after a change from `before` to `now`: what came back is forgotten, what went is added."""
    present = set(now)
    kept = [address for address in stale if address not in present]
    kept += [address for address in sorted(set(before) - present) if address not in kept]
    return kept[-STALE_LIMIT:]


def diff(desired: Routing, actual: Routing) -> list[Action]:
    """Actions that lead from `actual` to `desired`; empty when they are the same.

    Order: an unreachable default comes first and goes last, so that a table is never empty while a rule leads to it;
    connected routes come before the defaults that need them; rules come after routes and go before them.
    """
    gone = sorted(actual.routes - desired.routes, key=_removal_order)
    missing = sorted(desired.routes - actual.routes, key=_creation_order)
    missing_rules = sorted(desired.rules - actual.rules)
    gone_rules = sorted(actual.rules - desired.rules)
    # A route that takes the place of another one cannot be added before that is gone.
    taken = {route.key for route in missing}
    first = [route for route in gone if route.key in taken]
    last = [route for route in gone if route.key not in taken]
    result: list[Action] = [AddRoute(route) for route in missing if route.unreachable]
    result += [DeleteRoute(route) for route in first]
    result += [AddRoute(route) for route in missing if not route.unreachable]
    result += [AddRule(rule) for rule in missing_rules]
    result += [DeleteRule(rule) for rule in gone_rules]
    result += [DeleteRoute(route) for route in last]
    return result


def _creation_order(route: Route) -> tuple[bool, bool, Route]:
    return (not route.unreachable, route.destination == "default", _comparable(route))


def _removal_order(route: Route) -> tuple[bool, bool, Route]:
    return (route.unreachable, route.destination != "default", _comparable(route))


def _comparable(route: Route) -> Route:
    """`index` None does not compare with numbers."""
    if route.index is not None:
        return route
    return Route(route.table, route.version, route.destination, route.metric, 0, "", route.congestion_control)


def apply(actions: Iterable[Action], actual: Routing) -> Routing:
    """What `actual` becomes when the kernel performs the actions in order.

    Raises ValueError where the kernel would refuse: adding over an existing key, deleting what is not there.
    """
    rules, routes = set(actual.rules), set(actual.routes)
    for action in actions:
        if isinstance(action, AddRoute):
            if any(route.key == action.route.key for route in routes):
                raise ValueError(f"{action.route} would meet an existing one")
            routes.add(action.route)
        elif isinstance(action, DeleteRoute):
            if action.route not in routes:
                raise ValueError(f"{action.route} does not exist")
            routes.remove(action.route)
        elif isinstance(action, AddRule):
            rules.add(action.rule)
        else:
            rules.discard(action.rule)
    return Routing(frozenset(rules), frozenset(routes))


@dataclass(frozen=True)
class AddressChange:
    """What `address_diff` asks for: addresses to add and to remove."""

    add: tuple[Address, ...]
    remove: tuple[Address, ...]


def address_diff(desired: Iterable[Address], actual: Iterable[Address], own: Mapping[tuple[int, str], int]) -> AddressChange:
    """Addresses to add and to remove on the configured interfaces.

    own: (interface index, address) -> prefix length of what the agent itself added before. Addresses of others are
    never removed.
    """
    wanted, present = set(desired), set(actual)
    mine = {Address(index, address, length) for (index, address), length in own.items()}
    return AddressChange(
        tuple(sorted(wanted - present, key=_address_order)), tuple(sorted((mine - wanted) & present, key=_address_order))
    )


def _address_order(address: Address) -> tuple[int, int, str]:
    return (address.index, address.version, address.address)
