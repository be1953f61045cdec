"""The kernel's links, addresses, routes and rules: events, snapshots and changes.

Events only say that something is different (and, for advertised prefixes, what); a snapshot says how things are. So a lost
event does no harm: an overrun of the event socket asks for a new snapshot.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from typing import Any, TypeAlias

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agents.core import source_routing as sr

ROUTE_PROTOCOL = 200
"""Marks routes and rules that belong to the agent (RTPROT_*, FRA_PROTOCOL); numbers below 200 have other owners."""
PIN_PROTOCOL = 201
"""Marks what belongs to the proxy: addresses that it keeps alive on lo are no addresses of any network (IFA_PROTO)."""
RTPROT_RA = 9
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_OPTIMISTIC, IFA_F_TENTATIVE, IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE = (
    0x02, 0x08, 0x04, 0x40, 0x80, 0x200,
)  # fmt: skip
RTM_NEWPREFIX = 52
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
# RTNLGRP_*: link, IPv4 address, route and rule, IPv6 address, route, prefix and rule.
GROUPS = (1, 5, 7, 8, 9, 11, 18, 19)
RECEIVE_BUFFER_BYTES = 1 << 20
RTAX_CC_ALGO = 16


class KernelError(OSError):
    """The kernel refused an operation; the text names namespace, operation and reason."""


@dataclass(frozen=True)
class PrefixEvent:
    """A router advertised a prefix for automatic addresses."""

    index: int
    prefix: str
    valid_s: int
    preferred_s: int


@dataclass(frozen=True)
class Changed:
    """Something else changed; a snapshot tells what."""


@dataclass(frozen=True)
class Overrun:
    """Events were lost."""


Event: TypeAlias = PrefixEvent | Changed | Overrun


@dataclass(frozen=True)
class Link:
    """An interface of the namespace."""

    index: int
    name: str
    up: bool
    carrier: bool
    mac: str
    carrier_changes: int = 0
    """How often the carrier came or went: shows an interruption that was too short to be seen."""


@dataclass
class Snapshot:
    """The state of the namespace."""

    links: dict[str, Link] = field(default_factory=dict)
    addresses: list[sr.Address] = field(default_factory=list)
    """Global addresses that can be used."""
    automatic: set[tuple[int, str]] = field(default_factory=set)
    """(interface index, address) of IPv6 addresses that the kernel made from an advertised prefix."""
    routing: sr.Routing = field(default_factory=sr.Routing)
    """Routes and rules that belong to the agent."""
    routers: dict[int, list[str]] = field(default_factory=dict)
    """Interface index -> gateways of announced IPv6 default routes."""


def parse_events(data: bytes) -> Iterator[Event]:
    """The events in what one read from the event socket gave; malformed rests are ignored."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16 or at + length > len(data):
            return
        body = data[at + 16 : at + length]
        at += (length + 3) & ~3
        if kind == RTM_NEWPREFIX and len(body) >= 12:
            event = _parse_prefix(body)
            if event is not None:
                yield event
        else:
            yield Changed()


def carrier(flags: int) -> bool:
    """Whether the flags of an interface say that frames can pass."""
    return flags & (IFF_RUNNING | IFF_LOWER_UP) == IFF_RUNNING | IFF_LOWER_UP


def _parse_prefix(body: bytes) -> PrefixEvent | None:
    """struct prefixmsg, then the attributes PREFIX_ADDRESS and PREFIX_CACHEINFO (preferred, valid, in s)."""
    index, _kind, prefix_length = struct.unpack_from("=iBB", body, 4)
    address, lifetimes, at = b"", (0, 0), 12
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        value = body[at + 4 : at + length]
        if kind == 1 and len(value) == 16:
            address = value
        elif kind == 2 and len(value) >= 8:
            lifetimes = struct.unpack_from("=II", value)
        at += (length + 3) & ~3
    if not address or prefix_length > 128:
        return None
    prefix = str(IPv6Network((IPv6Address(address), prefix_length), strict=False))
    return PrefixEvent(index, prefix, lifetimes[1], lifetimes[0])


class Kernel:
    """Netlink in the present network namespace, for an asyncio program."""

    def __init__(self, on_events: Callable[[list[Event]], None]) -> None:
        self._on_events = on_events
        self._netlink = AsyncIPRoute()
        self._events: socket.socket | None = None
        self._namespace = os.readlink("/proc/self/ns/net")

    async def start(self) -> None:
        """Open the sockets; from now on `on_events` is called."""
        await self._netlink.setup_endpoint()
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        events.bind((0, 0))
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        for group in GROUPS:
            events.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._events = events
        asyncio.get_running_loop().add_reader(events.fileno(), self._read_events)

    def close(self) -> None:
        """Close the sockets."""
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        self._netlink.close()

    def _read_events(self) -> None:
        assert self._events is not None
        result: list[Event] = []
        while True:
            try:
                result += parse_events(self._events.recv(1 << 16))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                result.append(Overrun())
        if result:
            self._on_events(result)

    # -- reading ------------------------------------------------------------------------------------------------------
    async def snapshot(self) -> Snapshot:
        """Read everything."""
        result = Snapshot()
        async for message in await self._netlink.get_links():
            name, flags = message.get("ifname"), message["flags"]
            result.links[name] = Link(
                message["index"], name, bool(flags & IFF_UP), carrier(flags), message.get("address") or "",
                message.get("carrier_changes") or 0,
            )  # fmt: skip
        async for message in await self._netlink.get_addr():
            flags = message.get("flags") or 0
            unusable = flags & IFA_F_DADFAILED or (flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC)
            if message["scope"] != SCOPE_UNIVERSE or unusable or message.get("proto") == PIN_PROTOCOL:
                continue
            text = message.get("local") if message["family"] == socket.AF_INET else message.get("address")
            result.addresses.append(sr.Address(message["index"], text, message["prefixlen"]))
            if message["family"] == socket.AF_INET6 and not flags & IFA_F_PERMANENT:
                result.automatic.add((message["index"], text))
        routes: set[sr.Route] = set()
        rules: set[sr.Rule] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            async for message in await self._netlink.get_routes(family=family):
                self._take_route(message, routes, result.routers)
            async for message in await self._netlink.get_rules(family=family):
                if message.get("protocol") == ROUTE_PROTOCOL and message.get("src"):
                    table = 0 if message["action"] == FR_ACT_UNREACHABLE else message.get("table")
                    version = 4 if family == socket.AF_INET else 6
                    rules.add(sr.Rule(version, message.get("src"), table, message.get("priority")))
        result.routing = sr.Routing(frozenset(rules), frozenset(routes))
        return result

    @staticmethod
    def _take_route(message: Any, routes: set[sr.Route], routers: dict[int, list[str]]) -> None:
        table, index = message.get("table"), message.get("oif")
        if message["proto"] == RTPROT_RA and message["dst_len"] == 0 and table == sr.MAIN_TABLE and message.get("gateway"):
            routers.setdefault(index, []).append(message.get("gateway"))
        if message["proto"] != ROUTE_PROTOCOL:
            return
        destination = "default" if message["dst_len"] == 0 else f"{message.get('dst')}/{message['dst_len']}"
        unreachable = message["type"] == RTN_UNREACHABLE
        metrics = message.get("metrics")
        congestion = (metrics.get("RTAX_CC_ALGO") if metrics is not None else None) or ""
        routes.add(
            sr.Route(
                table, 4 if message["family"] == socket.AF_INET else 6, destination, message.get("priority") or 0,
                None if unreachable else index, message.get("gateway") or "", congestion,
            )
        )  # fmt: skip

    async def leaves_by(self, address: str) -> int | None:
        """Index of the interface by which a packet from this address to the default route would leave; None: refused."""
        version, target = (6, "2001:db8:ffff:ffff::1") if ":" in address else (4, "192.0.2.1")
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            messages = await self._netlink.route("get", family=family, dst=target, src=address)
        except NetlinkError:
            return None
        usable = [message.get("oif") for message in messages if message["type"] == RTN_UNICAST]
        return usable[0] if usable else None

    # -- changing -----------------------------------------------------------------------------------------------------
    async def perform(self, action: sr.Action) -> None:
        """Carry out one routing action. Raises KernelError."""
        if isinstance(action, sr.AddRoute | sr.DeleteRoute):
            command = "add" if isinstance(action, sr.AddRoute) else "del"
            await self._call(f"route {command} {action.route}", self._netlink.route, command, **_route_spec(action.route))
        else:
            command = "add" if isinstance(action, sr.AddRule) else "del"
            await self._call(f"rule {command} {action.rule}", self._netlink.rule, command, **_rule_spec(action.rule))

    async def add_address(self, address: sr.Address) -> None:
        """Add an address without the kernel's own route to its prefix: the agent adds that. Raises KernelError."""
        flags = IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if address.version == 6 else 0)
        spec = {"index": address.index, "address": address.address, "prefixlen": address.prefix_length, "flags": flags}
        await self._call(f"address add {address}", self._netlink.addr, "add", **spec)

    async def remove_address(self, address: sr.Address) -> None:
        """Remove an address. Raises KernelError."""
        spec = {"index": address.index, "address": address.address, "prefixlen": address.prefix_length}
        await self._call(f"address del {address}", self._netlink.addr, "del", **spec)

    async def remove_announced_default(self, index: int, gateway: str) -> None:
        """Remove the default route that the kernel made from a router advertisement. Raises KernelError."""
        spec = {"family": socket.AF_INET6, "dst": "default", "gateway": gateway, "oif": index, "proto": RTPROT_RA}
        await self._call(f"route del default via {gateway}", self._netlink.route, "del", **spec)

    async def _call(self, what: str, method: Any, command: str, **spec: Any) -> None:
        try:
            await method(command, **spec)
        except NetlinkError as error:
            text = f"{self._namespace}: {what}: {os.strerror(error.code)}"
            raise KernelError(error.code, text) from error

    def set_sysctl(self, name: str, value: str | int) -> None:
        """Set a parameter of the namespace ("net/ipv6/conf/eth0/accept_ra"). Raises KernelError."""
        try:
            with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
                file.write(f"{value}\n")
        except OSError as error:
            raise KernelError(error.errno, f"{self._namespace}: {name} = {value}: {error.strerror}") from error


def _route_spec(route: sr.Route) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "family": socket.AF_INET if route.version == 4 else socket.AF_INET6,
        "dst": route.destination,
        "table": route.table,
        "priority": route.metric,
        "proto": ROUTE_PROTOCOL,
    }
    if route.index is None:
        return {**spec, "type": "unreachable"}
    spec["oif"] = route.index
    if route.gateway:
        spec["gateway"] = route.gateway
    elif route.version == 4:
        spec["scope"] = SCOPE_LINK
    if route.congestion_control:
        spec["metrics"] = {"cc_algo": route.congestion_control, "lock": 1 << RTAX_CC_ALGO}
    return spec


def _rule_spec(rule: sr.Rule) -> dict[str, Any]:
    length = 32 if rule.version == 4 else 128
    spec: dict[str, Any] = {
        "family": socket.AF_INET if rule.version == 4 else socket.AF_INET6,
        "src": f"{rule.source}/{length}",
        "priority": rule.priority,
        "protocol": ROUTE_PROTOCOL,
    }
    if rule.table == 0:
        return {**spec, "action": FR_ACT_UNREACHABLE}
    return {**spec, "table": rule.table, "action": FR_ACT_TO_TBL}
