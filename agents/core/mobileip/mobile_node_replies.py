"""Replies to a mobile node: which request they answer, whether they are genuine, and what follows (RFC 5944 section 3.6.2)."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agents.core.mobileip import mobile_node_machine as machine
from agents.core.mobileip.actions import Datagram, Encapsulation, Log, Now
from agents.core.mobileip.flow_policy import why_unacceptable
from agents.core.mobileip.mobile_node_probes import begin_probes
from agents.core.mobileip.mobile_node_state import CORRECTIONS_MAX, NEVER, Binding, Exchange, Node, Purpose, Route
from agents.core.mobileip.mobile_node_tunnels import granted
from agents.core.mobileip.registration_codes import Code, name_of
from agents.core.mobileip.registration_messages import MASK32, authenticated_length, foreign_authentic, read_reply
from agents.core.mobileip.registration_replies import Reaction, is_foreign, reaction_to
from agents.core.mobileip.registration_states import BOUND, Event
from agents.wire.mobileip.values import (
    INFINITE_LIFETIME_S,
    NO_ADDRESS,
    Challenge,
    Extension,
    FlowBinding,
    Reply,
    UdpTunnelReply,
)


def handle_reply(node: Node, datagram: Datagram, now: Now) -> None:
    """One datagram. What is not a genuine reply to the latest request is discarded, with its reason in the log."""
    reply = read_reply(datagram.data)
    if reply is None:
        _discard(node, "not a reply")
        return
    found = _asked(node, reply)
    if found is None:
        _discard(node, "no request with this identification")
        return
    route, exchange = found
    if reply.home_address != node.home_address and node.home_address != NO_ADDRESS:
        _discard(node, "another home address")
        return
    count = authenticated_length(datagram.data, reply, node.config.association)
    reason = _why_not_genuine(node, exchange, reply, datagram, count)
    if reason:
        _discard(node, reason)
        return
    protected = reply.extensions[: count or 0]
    fields = {"interface": route.name, "bid": route.bid, "code": reply.code, "meaning": name_of(reply.code)}
    node.logs.append(Log("reply", {**fields, "purpose": exchange.purpose.value, "lifetime_s": reply.lifetime_s}))
    _learn_challenge(route, reply)
    if exchange.purpose is Purpose.WITHDRAW:
        _withdrawn(node, route, exchange, reply, now)
    else:
        _react(node, route, exchange, reply, protected, now)


def _discard(node: Node, reason: str) -> None:
    node.logs.append(Log("discard", {"reason": reason}))


def _asked(node: Node, reply: Reply) -> tuple[Route, Exchange] | None:
    """The request that the reply is about: the low half of the identification is the request's (RFC 5944 section 3.6.2.1)."""
    low = reply.identification & MASK32
    for route in node.routes.values():
        if route.exchange is not None and route.exchange.sent is not None and route.exchange.sent.low == low:
            return route, route.exchange
    for bid, withdrawal in node.withdrawals.items():
        exchange, gone = withdrawal.exchange, node.by_bid(bid)
        if gone is not None and exchange is not None and exchange.sent is not None and exchange.sent.low == low:
            return gone, exchange
    return None


def _why_not_genuine(node: Node, exchange: Exchange, reply: Reply, datagram: Datagram, count: int | None) -> str:
    """Why the reply is not believed; "": it is. A foreign agent's refusal cannot have the home agent's authenticator."""
    agent = exchange.care_of.agent
    shared = node.config.foreign_associations.get(agent)
    if agent and shared is not None and not foreign_authentic(datagram.data, reply, shared):
        return "authenticator of the foreign agent"
    if is_foreign(reply.code):
        return "" if agent and datagram.source == agent else "refusal of a foreign agent that was not asked"
    if count is None:
        return "authenticator of the home agent"
    if reply.home_agent != node.home_agent and reply.code != Code.UNKNOWN_HOME_AGENT:
        return "another home agent"
    return ""


def _learn_challenge(route: Route, reply: Reply) -> None:
    for extension in reply.extensions:
        if isinstance(extension, Challenge):
            route.challenge = extension.value


# -- accepted ---------------------------------------------------------------------------------------------------------
def _react(node: Node, route: Route, exchange: Exchange, reply: Reply, protected: tuple[Extension, ...], now: Now) -> None:
    reaction = reaction_to(reply.code)
    assert exchange.sent is not None
    if reaction is Reaction.ACCEPT:
        _accepted(node, route, exchange, reply, protected, now)
        return
    event = _REACTIONS[reaction](node, route, exchange, reply, now)
    if event is Event.AGAIN and exchange.corrections >= CORRECTIONS_MAX:
        event = Event.REFUSED
    if event is not None:
        machine.feed(node, route, event, now)


def _accepted(node: Node, route: Route, exchange: Exchange, reply: Reply, protected: tuple[Extension, ...], now: Now) -> None:
    assert exchange.sent is not None
    request = exchange.sent.request
    node.identifications.accept(request.identification, reply.identification)
    if node.home_address == NO_ADDRESS:
        node.home_address = reply.home_address
    if exchange.purpose is Purpose.REGISTER and min(reply.lifetime_s, request.lifetime_s) == 0:
        machine.feed(node, route, Event.REFUSED, now)
        return
    if exchange.purpose is Purpose.REGISTER:
        _bind(node, route, exchange, reply, protected, now)
    else:
        route.remote_until_s = -NEVER
        if exchange.bulk:
            for other in node.routes.values():
                other.flows_remote = frozenset()
    machine.feed(node, route, Event.ACCEPTED, now)
    if exchange.purpose is Purpose.REGISTER:
        _spread(node, route, exchange, now)


def _bind(node: Node, route: Route, exchange: Exchange, reply: Reply, protected: tuple[Extension, ...], now: Now) -> None:
    assert exchange.sent is not None
    request, sent_s = exchange.sent.request, exchange.sent.sent_s
    granted_s = min(reply.lifetime_s, request.lifetime_s)
    lifetime_s = NEVER if granted_s == INFINITE_LIFETIME_S else float(granted_s)
    udp = next((item for item in protected if isinstance(item, UdpTunnelReply) and item.code == 0), None)
    tunnel = granted(node, route, exchange.care_of, udp is not None)
    before, keepalive_s = route.binding, float((udp.keepalive_s or node.config.keepalive_s) if udp is not None else 0.0)
    binding = Binding(exchange.care_of, tunnel, sent_s, lifetime_s, request.identification, keepalive_s)
    binding.refresh_s = sent_s + lifetime_s * node.config.refresh_fraction
    route.binding = binding
    route.remote_until_s = binding.expires_s
    if exchange.flows:
        route.flows_told = exchange.flows
        route.flows_remote = frozenset(flow.selector for flow in exchange.flows if flow.selector is not None)
    heard = tuple(item for item in protected if isinstance(item, FlowBinding))
    for reason in filter(None, map(why_unacceptable, heard)):
        node.logs.append(Log("flow-binding-refused", {"interface": route.name, "reason": reason}))
    # What the home agent does not say any more is not its policy any more; a bulk refresh speaks for all bindings.
    for told in node.bound() if exchange.bulk else ():
        told.flows_heard = ()
    route.flows_heard = tuple(item for item in heard if not why_unacceptable(item))
    if before is None or before.tunnel != tunnel or before.tunnel.encapsulation is not tunnel.encapsulation:
        begin_probes(node, route, now.monotonic_s)


def _spread(node: Node, route: Route, exchange: Exchange, now: Now) -> None:
    """What an accepted request means for the other bindings: B extends them, O has removed them."""
    assert route.binding is not None
    for other in list(node.routes.values()):
        if other is route:
            continue
        if exchange.bulk and other.remote_until_s > now.monotonic_s:
            other.remote_until_s = max(other.remote_until_s, route.binding.expires_s)
            if other.state in BOUND and other.binding is not None:
                _extend(other.binding, route.binding)
        if exchange.overwrite:
            other.remote_until_s, other.confirmed = -NEVER, False
            node.withdrawals.pop(other.bid, None)
            other.flows_told, other.flows_remote = (), frozenset()
            if other.bound:
                machine.feed(node, other, Event.DUE, now)


def _extend(binding: Binding, by: Binding) -> None:
    if by.expires_s > binding.expires_s:
        binding.sent_s, binding.lifetime_s, binding.refresh_s = by.sent_s, by.lifetime_s, by.refresh_s


def _withdrawn(node: Node, gone: Route, exchange: Exchange, reply: Reply, now: Now) -> None:
    """The reply to a withdrawal. Whatever it says but 133: nothing more can be done about the binding."""
    assert exchange.sent is not None
    request = exchange.sent.request
    if reaction_to(reply.code) is Reaction.RESYNCHRONISE and exchange.corrections < CORRECTIONS_MAX:
        node.identifications.mismatch(request.identification, reply.identification, now.ntp)
        exchange.corrections += 1
        exchange.due_s = max(now.monotonic_s, exchange.sent.sent_s + 1.0)
        return
    del node.withdrawals[gone.bid]
    if reaction_to(reply.code) is Reaction.ACCEPT:
        node.identifications.accept(request.identification, reply.identification)
        gone.remote_until_s = -NEVER


# -- refused ----------------------------------------------------------------------------------------------------------
def _resynchronise(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    assert exchange.sent is not None
    node.identifications.mismatch(exchange.sent.request.identification, reply.identification, now.ntp)
    return Event.AGAIN


def _shorten(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    assert exchange.sent is not None
    if not 0 < reply.lifetime_s < exchange.sent.request.lifetime_s:
        return Event.REFUSED
    route.lifetime_max_s = reply.lifetime_s
    return Event.AGAIN


def _next_home_agent(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    """The reply to a request to the broadcast address names the home agent's own (RFC 5944 section 3.6.1.2)."""
    address = ipaddress.IPv4Address(reply.home_agent)
    network = ipaddress.IPv4Network(node.config.home_network)
    odd = address.is_multicast or address.is_unspecified or address == network.broadcast_address or address.is_reserved
    if odd or reply.home_agent == node.home_agent:
        return Event.REFUSED
    node.home_agent = reply.home_agent
    if route.care_of is not None and not route.care_of.agent:
        route.care_of = replace(route.care_of, destination=node.home_agent)
        exchange.care_of = route.care_of
    return Event.AGAIN


def _no_multipath(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    """Multipath is off for good; plain registration of one interface (RFC 7629 section 5.1)."""
    if not node.multipath:
        return Event.REFUSED
    node.multipath = False
    node.withdrawals.clear()
    node.active = route.name
    exchange.bulk = exchange.overwrite = False
    node.logs.append(Log("multipath-disabled", {"interface": route.name}))
    return Event.AGAIN


def _reregister(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    """The home agent does not know a BID that the flows name: register those bindings again (RFC 7629 section 5.1)."""
    named = {bid for flow in exchange.flows for bid in flow.bids} - {route.bid}
    for other in node.routes.values():
        if other.bid in named and other.bound:
            other.confirmed = False
            machine.feed(node, other, Event.DUE, now)
    return Event.AGAIN if named else Event.REFUSED


def _no_reverse_tunnel(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    was, route.reverse_tunnel = route.reverse_tunnel, False
    return Event.AGAIN if was else Event.REFUSED


def _reverse_tunnel(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    was, route.reverse_tunnel = route.reverse_tunnel, True
    return Event.REFUSED if was else Event.AGAIN


def _no_udp(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    was, route.udp = route.udp, False
    return Event.AGAIN if was else Event.REFUSED


def _ip_in_ip(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    was, route.plain_encapsulation = route.encapsulation, True
    return Event.REFUSED if was is Encapsulation.IP_IN_IP else Event.AGAIN


def _direct_delivery(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    was, route.direct_delivery = route.direct_delivery, True
    return Event.REFUSED if was or not node.config.encapsulating_delivery else Event.AGAIN


def _next_challenge(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    fresh = route.challenge is not None or route.discovery.current is not None
    return Event.AGAIN if fresh else Event.REFUSED


def _other_agent(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    return Event.SILENT if len(route.discovery.agents) > 1 and not exchange.corrections else Event.REFUSED


def _later(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> None:
    """The exchange goes on by itself."""


def _refused(node: Node, route: Route, exchange: Exchange, reply: Reply, now: Now) -> Event:
    return Event.REFUSED


_REACTIONS: Final[dict[Reaction, Callable[[Node, Route, Exchange, Reply, Now], Event | None]]] = {
    Reaction.RESYNCHRONISE: _resynchronise,
    Reaction.SHORTEN: _shorten,
    Reaction.NEXT_HOME_AGENT: _next_home_agent,
    Reaction.NO_MULTIPATH: _no_multipath,
    Reaction.REREGISTER: _reregister,
    Reaction.NO_REVERSE_TUNNEL: _no_reverse_tunnel,
    Reaction.REVERSE_TUNNEL: _reverse_tunnel,
    Reaction.NO_UDP: _no_udp,
    Reaction.IP_IN_IP: _ip_in_ip,
    Reaction.DIRECT_DELIVERY: _direct_delivery,
    Reaction.NEXT_CHALLENGE: _next_challenge,
    Reaction.OTHER_AGENT: _other_agent,
    Reaction.LATER: _later,
    Reaction.REFUSED: _refused,
}
