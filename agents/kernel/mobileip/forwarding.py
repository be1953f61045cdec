"""Carries forwarding out: rules of nftables give packets a mark, a rule and a table for each mark lead to a tunnel.

Every change of a home address is one transaction of nft: there is no moment in which packets go the wrong way. What a tunnel
needs exists before anything leads to it and goes after everything that did.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from agents.core.mobileip.actions import Balancing, Encapsulation, Forwarding, Tunnel
from agents.core.source_routing import MAIN_TABLE
from agents.kernel.mobileip import nft_counters, nftables
from agents.kernel.mobileip.netlink import THROW, UNREACHABLE, MobileNetlink
from agents.kernel.mobileip.nft import NftError, nft
from agents.kernel.mobileip.nftables import MARK_MASK, Side, mark_of
from agents.kernel.mobileip.pages import preferring
from agents.kernel.mobileip.parameters import Parameters
from agents.kernel.mobileip.tunnels.manager import Port, Tunnels

MARK_PRIORITY, DELIVER_PRIORITY, HOME_PRIORITY, CONNECTED_PRIORITY, UNBOUND_PRIORITY = 400, 410, 420, 425, 430
"""Of rules: before those of the role netconf (1000 and more)."""
TABLES: Final = range(30_000, 30_000 + 0x1_0000)
"""Routing tables; of a tunnel: TABLES[number]."""
HOME_TABLE, DELIVER_TABLE = 29_999, 29_998
HOME_TABLES: Final = (HOME_TABLE, *range(29_990, DELIVER_TABLE))
"""Of the first home address of a mobile host, and of further ones."""
UNREACHABLE_METRIC: Final = 0xFFFF_0000
_NOTHING: Final[frozenset[str]] = frozenset()


def unsupported_reason() -> str:
    """ "" when this kernel and nft can do all that balancing over tunnels needs, else what they cannot. Changes nothing."""
    one, other = (Tunnel("192.0.2.1", remote) for remote in ("192.0.2.2", "192.0.2.3"))
    numbers = {one.key: 1, other.key: 2}
    text = nftables.base(Side.HOME_AGENT) + nftables.tunnel_chain(1) + nftables.tunnel_chain(2)
    for last, balancing in enumerate(Balancing):
        shape = Forwarding(f"198.51.100.{last + 1}", (), ((one, 1), (other, 1)), balancing)
        text += nftables.home_text(shape, Side.HOME_AGENT, lambda tunnel: numbers[tunnel.key], known=False)
    try:
        nft(text + nftables.removal())
    except NftError as error:
        return str(error)
    return ""


class Forwarder:
    """Rules, routes and marks of one agent. Methods raise OSError with one line."""

    def __init__(self, side: Side, netlink: MobileNetlink, tunnels: Tunnels, parameters: Parameters) -> None:
        self._side, self._netlink, self._tunnels, self._parameters = side, netlink, tunnels, parameters
        self.active: dict[str, Forwarding] = {}
        """By home address, as last asked for."""
        self._in_nft: set[str] = set()
        self._delivered: dict[str, tuple[str, str]] = {}
        self._accepted: dict[str, frozenset[str]] = {}
        """Elements of the set `accepted`, by home address."""
        self._arrived: dict[tuple[str, str, int], str] = {}
        """Elements of the map `arrived`, by tunnel."""
        self._unmarked: list[Port] = []
        """Open tunnels that are to be in it."""
        self._users: dict[tuple[str, str, int], set[str]] = {}
        """Home addresses whose forwarding names a tunnel."""
        self._round_robin: set[str] = set()
        """Home addresses whose flows must be learned."""
        self._learning = False
        self.homes: set[str] = set()
        """Mobile node: home addresses that packets out of tunnels may be for, besides those that are forwarded."""

    # -- begin and end ------------------------------------------------------------------------------------------------
    def install(self) -> None:
        """Begin; what a former agent left is removed."""
        self._clean()
        try:
            nft(nftables.base(self._side))
        except NftError as error:
            raise NftError(error.errno or 0, f"{error}: this kernel cannot mark packets as needed (unsupported)") from None
        self._parameters.set("net/ipv4/conf/all/rp_filter", 0)
        if self._side is not Side.MOBILE_NODE:
            self._parameters.set("net/ipv4/ip_forward", 1)
        if self._side is Side.HOME_AGENT:
            self._parameters.set("net/ipv4/fwmark_reflect", 1)
        if self._side is not Side.MOBILE_NODE:
            self._netlink.change_rule(DELIVER_PRIORITY, DELIVER_TABLE, add=True)

    def remove(self) -> None:
        """Nothing of ours is left afterwards."""
        for home in list(self._delivered):
            self.deliver(home, "", None)
        self._clean()
        self._parameters.restore()

    def _clean(self) -> None:
        self._netlink.remove_rules(range(MARK_PRIORITY, UNBOUND_PRIORITY + 1))
        nft(nftables.removal())
        self._netlink.flush_routes(range(min(HOME_TABLES), TABLES.stop))

    # -- tunnels ------------------------------------------------------------------------------------------------------
    def open(self, tunnel: Tunnel) -> Port:
        """The tunnel exists, and a mark leads to it."""
        known = self._tunnels.find(tunnel)
        if known is not None and known.tunnel.interface != tunnel.interface:
            self.close(known.tunnel)
            known = None
        port = self._tunnels.open(tunnel)
        if known is None:
            table = TABLES[port.number]
            self._netlink.set_route(table, "0.0.0.0", 0, kind=UNREACHABLE, metric=UNREACHABLE_METRIC)
            self._netlink.set_route(table, "0.0.0.0", 0, interface=port.device, gateway=port.gateway)
            self._netlink.change_rule(MARK_PRIORITY, table, add=True, mark=mark_of(port.number), mask=MARK_MASK)
            if _wraps(port):
                self._unmarked.append(port)
            self._update([nftables.tunnel_chain(port.number)], self._waiting_for(tunnel))
        return port

    def close(self, tunnel: Tunnel) -> None:
        """The tunnel is gone. Where forwarding still names it, packets take the other tunnels, or are dropped."""
        port = self._tunnels.find(tunnel)
        if port is None:
            return
        users = self._waiting_for(tunnel)
        self._unmarked = [other for other in self._unmarked if other is not port]
        self._update([], users, without=tunnel)
        self._nft(nftables.tunnel_removal(port.number))
        table = TABLES[port.number]
        self._netlink.change_rule(MARK_PRIORITY, table, add=False, mark=mark_of(port.number), mask=MARK_MASK)
        self._netlink.delete_route(table, "0.0.0.0", 0)
        self._netlink.delete_route(table, "0.0.0.0", 0, UNREACHABLE_METRIC)
        self._tunnels.close(tunnel)
        if self._side is Side.HOME_AGENT:
            for home in users:
                self._point(home)

    def _waiting_for(self, tunnel: Tunnel) -> list[str]:
        return list(self._users.get(tunnel.key, ()))

    def _remember(self, forwarding: Forwarding) -> None:
        """What is asked for from now on, and which tunnels it names."""
        home, before = forwarding.home_address, self.active.pop(forwarding.home_address, None)
        for tunnel in _tunnels_of(before) if before else ():
            users = self._users.get(tunnel.key, set())
            users.discard(home)
            if not users:
                self._users.pop(tunnel.key, None)
        self._round_robin.discard(home)
        if not (forwarding.rules or forwarding.shares or forwarding.accept):
            return
        self.active[home] = forwarding
        for tunnel in _tunnels_of(forwarding):
            self._users.setdefault(tunnel.key, set()).add(home)
        if forwarding.balancing is Balancing.ROUND_ROBIN:
            self._round_robin.add(home)

    # -- home addresses -----------------------------------------------------------------------------------------------
    def forward(self, *forwardings: Forwarding) -> None:
        """Replace the forwarding of home addresses, in one transaction. Tunnels that are not open are left out as yet."""
        for forwarding in forwardings:
            self._remember(forwarding)
        homes = list(dict.fromkeys(forwarding.home_address for forwarding in forwardings))
        self._update([], homes)
        if self._side is Side.HOME_AGENT:
            for home in homes:
                self._point(home)

    def _point(self, home: str) -> None:
        """Without a mark the home address leads to one of its tunnels: ARP is answered only for what is elsewhere."""
        port = first_usable(self.active.get(home), self._tunnels)
        if port is None:
            self._netlink.delete_route(DELIVER_TABLE, home, 32)
        else:
            self._netlink.set_route(DELIVER_TABLE, home, 32, interface=port.device, gateway=port.gateway)

    def deliver(self, home_address: str, interface: str, link_address: str | None) -> None:
        """Foreign agent: packets for a visitor go to it on its link; None: no longer."""
        before = self._delivered.pop(home_address, None)
        if before and before != (interface, link_address):
            self._netlink.change_neighbour(before[0], home_address, before[1], add=False)
        if link_address is None:
            self._netlink.delete_route(DELIVER_TABLE, home_address, 32)
        else:
            if link_address:
                self._netlink.change_neighbour(interface, home_address, link_address, add=True)
            self._netlink.set_route(DELIVER_TABLE, home_address, 32, interface=interface)
            self._delivered[home_address] = (interface, link_address)
        self._update([], [])

    def reverse(self, home_address: str, tunnel: Tunnel | None) -> None:
        """Foreign agent: packets from a visitor go into the tunnel; None: they are routed as they are."""
        self.forward(Forwarding(home_address, shares=((tunnel, 1),) if tunnel else ()))

    # -- nft ----------------------------------------------------------------------------------------------------------
    def _number(self, tunnel: Tunnel, without: Tunnel | None = None) -> int | None:
        port = self._tunnels.find(tunnel)
        return None if port is None or (without is not None and tunnel.key == without.key) else port.number

    def _update(self, before: list[str], homes: Iterable[str], without: Tunnel | None = None) -> None:
        """One transaction: `before`, the chains of `homes`, and who may come out of which tunnel.

        The work is that for `homes` and for tunnels that come or go, however many others there are.
        """
        homes = list(dict.fromkeys(homes))
        text = "".join(before)
        known: dict[str, bool] = {}
        for home in homes:
            item = self.active.get(home)
            known[home] = item is not None and bool(item.rules or item.shares)
            if item is not None and known[home]:
                text += nftables.home_text(
                    item, self._side, lambda tunnel: self._number(tunnel, without), known=home in self._in_nft
                )  # fmt: skip
            elif home in self._in_nft:
                text += nftables.home_removal(home)
        accepted = self._accepted_after(homes, without)
        old, new = (frozenset().union(*parts) for parts in ((self._accepted.get(home, _NOTHING) for home in accepted),
                                                            accepted.values()))  # fmt: skip
        text += nftables.elements("accepted", old, new)
        coming = {port.tunnel.key: f'"{port.device}" : {mark_of(port.number):#x}' for port in self._unmarked}
        going = self._arrived.get(without.key) if without is not None else None
        text += nftables.elements("arrived", [going] if going else [], coming.values())
        learning = bool(self._round_robin)
        text += nftables.learning(learning) if learning != self._learning else ""
        self._nft(text)
        self._in_nft.difference_update(home for home in homes if not known[home])
        self._in_nft.update(home for home in homes if known[home])
        for home, elements in accepted.items():
            self._accepted[home] = elements
            if not elements:
                del self._accepted[home]
        self._arrived |= coming
        self._unmarked.clear()
        if without is not None:
            self._arrived.pop(without.key, None)
        self._learning = learning

    def _accepted_after(self, homes: Iterable[str], without: Tunnel | None) -> dict[str, frozenset[str]]:
        """Elements of the set `accepted` (device, home address) by home address; home addresses not named stay as they are."""
        gone = without.key if without is not None else None
        if self._side is Side.HOME_AGENT:
            result = {}
            for home in homes:
                item = self.active.get(home)
                ports = [self._tunnels.find(tunnel) for tunnel in (item.accept if item else ()) if tunnel.key != gone]
                result[home] = frozenset(f'"{port.device}" . {home}' for port in ports if port is not None)
            return result
        # A few home addresses, which every tunnel may carry.
        may = set(self._delivered) if self._side is Side.FOREIGN_AGENT else self.homes | set(self.active)
        devices = [port.device for port in self._tunnels.ports.values() if _wraps(port) and port.tunnel.key != gone]
        return {
            home: frozenset(f'"{device}" . {home}' for device in devices) if home in may else _NOTHING
            for home in may | set(self._accepted)
        }

    @staticmethod
    def _nft(text: str) -> None:
        if text:
            nft(text)

    # -- for people ---------------------------------------------------------------------------------------------------
    def counters(self) -> dict[str, int]:
        """Packets dropped: out of a tunnel but of no binding, and by the policy."""
        try:
            return nft_counters.packets(nftables.TABLE, nftables.COUNTERS)
        except OSError:
            return {}

    def rows(self, limit: int, wanted: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The forwarding of home addresses: at most so many, those that are `wanted` first."""
        homes = preferring((home for home in wanted if home in self.active), self.active, limit)
        return [
            {
                "home_address": home, "balancing": item.balancing.value,
                "rules": [{"selector": _text(rule.selector), "tunnel": _name(rule.tunnel)} for rule in item.rules],
                "shares": [{"tunnel": _name(tunnel), "weight": weight} for tunnel, weight in item.shares],
                "accept": [_name(tunnel) for tunnel in item.accept],
            }
            for home, item in ((home, self.active[home]) for home in homes)
        ]  # fmt: skip


class HomeAddress:
    """Mobile node: where the home address lives and how this host sends from it.

    It is an address of lo all the time. Away, sockets without an address of their own use it, and a rule leads
    them to the tunnels; the marks then choose among these. Sockets that are bound to a care-of address or to an interface
    are let alone. Of several home addresses (`number` 0, 1, ...) they use the first.
    """

    def __init__(self, netlink: MobileNetlink, prefix_length: int, congestion_control: str = "", number: int = 0) -> None:
        self._netlink, self._prefix_length, self._congestion_control = netlink, prefix_length, congestion_control
        self._table, self._preferred = HOME_TABLES[number], number == 0
        self.address = ""
        self.at_home = ""
        """The interface of the home link, while there."""
        self._unbound = self._connected = False

    def adopt(self, address: str) -> None:
        """Begin to use an address; a former one is given up."""
        if address == self.address:
            return
        self.drop()
        self.address = address
        self._netlink.add_address("lo", address)
        for group, length in (("224.0.0.0", 4), ("255.255.255.255", 32)):
            self._netlink.set_route(self._table, group, length, kind=THROW)
        self._netlink.set_route(self._table, "0.0.0.0", 0, kind=UNREACHABLE, metric=UNREACHABLE_METRIC)
        self._netlink.change_rule(HOME_PRIORITY, self._table, add=True, source=address)

    def away(self, port: Port | None) -> None:
        """Send by tunnels (any of them: marks decide); None: there is no way, and what uses the home address waits."""
        if self.at_home:
            return
        if port is None:
            self._set_unbound(False)
            self._netlink.delete_route(self._table, "0.0.0.0", 0)
            return
        self._set_route("0.0.0.0", 0, port.device, port.gateway)
        self._set_unbound(True)

    def arrive(self, interface: str, network: str, gateway: str) -> None:
        """On the home link: an ordinary host there. `network`: address of the prefix."""
        self.at_home = interface
        self._netlink.add_address(interface, self.address, self._prefix_length)
        self._set_route(network, self._prefix_length, interface)
        if gateway:
            self._set_route("0.0.0.0", 0, interface, gateway)
        else:
            self._netlink.delete_route(self._table, "0.0.0.0", 0)
        self._set_unbound(True)

    def leave(self, network: str) -> None:
        """Not on the home link any more."""
        interface, self.at_home = self.at_home, ""
        if interface:
            self._netlink.delete_route(self._table, network, self._prefix_length)
            self._netlink.delete_address(interface, self.address, self._prefix_length)
            self.away(None)

    def drop(self) -> None:
        """Give the address up."""
        if not self.address:
            return
        self._set_unbound(False)
        if self.at_home:
            self._netlink.delete_address(self.at_home, self.address, self._prefix_length)
            self.at_home = ""
        self._netlink.change_rule(HOME_PRIORITY, self._table, add=False, source=self.address)
        self._netlink.flush_routes(range(self._table, self._table + 1))
        self._netlink.delete_address("lo", self.address)
        self.address = ""

    def _set_route(self, destination: str, length: int, interface: str, gateway: str = "") -> None:
        self._netlink.set_route(
            self._table, destination, length, interface=interface, gateway=gateway, source=self.address,
            congestion_control=self._congestion_control,
        )  # fmt: skip

    def _set_unbound(self, on: bool) -> None:
        if not self._preferred:
            return
        if on != self._unbound:
            self._netlink.change_rule(UNBOUND_PRIORITY, self._table, add=on, source="0.0.0.0")
            self._unbound = on
        if (on and not self.at_home) != self._connected:
            # On visited links neighbours are reached directly, and routers above all: the kernel looks for the way to
            # the gateway of a new route like a socket without address does.
            self._connected = not self._connected
            self._netlink.change_rule(
                CONNECTED_PRIORITY, MAIN_TABLE, add=self._connected, source="0.0.0.0", specific=True
            )  # fmt: skip


def first_usable(forwarding: Forwarding | None, tunnels: Tunnels) -> Port | None:
    """An open tunnel that the forwarding sends by."""
    found = (tunnels.find(tunnel) for tunnel in (_ways_of(forwarding) if forwarding else ()))
    return next((port for port in found if port is not None), None)


def _ways_of(forwarding: Forwarding) -> list[Tunnel]:
    """Those by which packets leave."""
    result = [tunnel for tunnel, _weight in forwarding.shares]
    return result + [rule.tunnel for rule in forwarding.rules if rule.tunnel is not None]


def _tunnels_of(forwarding: Forwarding) -> list[Tunnel]:
    """All that it names."""
    return _ways_of(forwarding) + list(forwarding.accept)


def _wraps(port: Port) -> bool:
    """Whether packets come out of it here."""
    return port.tunnel.encapsulation is not Encapsulation.NONE


def _name(tunnel: Tunnel | None) -> str:
    if tunnel is None:
        return "drop"
    return f"{tunnel.local} {tunnel.remote}" + (f" bid {tunnel.bid}" if tunnel.bid else "")


def _text(selector: Any) -> str:
    found = {name: getattr(selector, name) for name in selector.__slots__}
    plain = replace(selector, explicit_end=frozenset())
    return ", ".join(
        f"{name} {value}" for name, value in found.items() if value and name in plain.__slots__ and name != "explicit_end"
    )
