"""The tunnel of a mobile node's binding: the one that was granted, and those that a request may bring.

The home agent sends into a new tunnel as soon as it has granted it: packets can arrive before its reply does. Therefore the
tunnels that a request asks for are open from the moment at which it leaves, to receive only: forwarding names them later.
"""

from agents.core.mobileip.actions import Encapsulation, Tunnel
from agents.core.mobileip.mobile_node_requests import asks_for_udp
from agents.core.mobileip.mobile_node_state import CareOf, Node, Purpose, Route
from agents.wire.mobileip.values import REGISTRATION_PORT


def granted(node: Node, route: Route, care_of: CareOf, in_udp: bool) -> Tunnel:
    """The tunnel of the path: to the home agent from an own care-of address, else plain packets to the foreign agent."""
    bid = route.bid if node.multipath else 0
    if not care_of.co_located:
        wraps = node.config.encapsulating_delivery and route.reverse_tunnel and not route.direct_delivery
        how = Encapsulation.IP_IN_IP if wraps else Encapsulation.NONE
        return Tunnel(node.home_address, care_of.agent, how, interface=route.name, bid=bid)
    if in_udp:
        return Tunnel(care_of.address, node.home_agent, Encapsulation.UDP, REGISTRATION_PORT, route.name, bid)
    plain = Encapsulation.IP_IN_IP if route.encapsulation is Encapsulation.UDP else route.encapsulation
    return Tunnel(care_of.address, node.home_agent, plain, interface=route.name, bid=bid)


def expected(node: Node) -> list[Tunnel]:
    """Tunnels through which packets may come before the reply to a request that is under way."""
    result = []
    for route in node.routes.values():
        exchange = route.exchange
        if exchange is None or exchange.sent is None or exchange.purpose is not Purpose.REGISTER:
            continue
        care_of = exchange.care_of
        if not care_of.co_located or (route.binding is not None and route.binding.care_of == care_of):
            continue
        result.append(granted(node, route, care_of, False))
        if asks_for_udp(node, route, care_of):
            result.append(granted(node, route, care_of, True))
    return result
