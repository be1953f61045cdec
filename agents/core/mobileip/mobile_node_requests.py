"""Requests of a mobile node: what they say, when they are sent, and when they are sent again."""

from agents.core.mobileip.actions import Encapsulation, Log, Now, SendMessage
from agents.core.mobileip.discovery import registration_lifetime_s
from agents.core.mobileip.flow_policy import by_bid, to_bindings
from agents.core.mobileip.mobile_node_state import NEVER, CareOf, Exchange, Node, Purpose, Route, Withdrawal
from agents.core.mobileip.registration_messages import ForeignPart, Sent, encode_request
from agents.core.mobileip.security import ReplayStyle
from agents.core.mobileip.selection import StaticFlow
from agents.wire.errors import WireError
from agents.wire.mobileip.values import (
    INFINITE_LIFETIME_S,
    NO_FLAGS,
    REGISTRATION_PORT,
    Extension,
    FlowBinding,
    Multipath,
    Nai,
    Request,
    RequestFlag,
    Tunnelled,
    UdpTunnelRequest,
)

SPACING_S = 1.0
"""Between requests of one interface, on average also over new care-of addresses (RFC 5944 section 3.6.3)."""


def begin(node: Node, route: Route, purpose: Purpose, care_of: CareOf, now: Now, bulk: bool = False) -> None:
    """A new exchange of the interface; what was under way does not matter any more."""
    now_s = now.monotonic_s
    overwrite = purpose is Purpose.REGISTER and _overwrites(node, route, care_of, now_s)
    fresh = route.binding is None or route.binding.care_of != care_of
    route.exchange = Exchange(purpose, care_of, earliest_s(route, now_s, fresh), bulk and node.multipath, overwrite)
    route.wait_until_s = NEVER


def earliest_s(route: Route, now_s: float, fresh: bool) -> float:
    """When the next request may leave: one in a second; a new care-of address may come at once, but not again and again."""
    if not route.sent_at_s:
        return now_s
    if not fresh:
        return max(now_s, route.sent_at_s[-1] + SPACING_S)
    return now_s if len(route.sent_at_s) < 2 else max(now_s, route.sent_at_s[0] + 2 * SPACING_S)


def _overwrites(node: Node, route: Route, care_of: CareOf, now_s: float) -> bool:
    """Strict mode: another care-of address for a BID that the home agent has (RFC 7629 section 5.1, O)."""
    known = route.remote_until_s > now_s and route.remote_care_of != care_of.address
    return node.multipath and node.config.strict_overwrite and known


def wanted_flows(node: Node, route: Route, alone: bool = False) -> tuple[FlowBinding, ...]:
    """The flow policy as the home agent can take it now, in a request of this interface. `alone`: it will know no other BID."""
    if not (node.config.exchange_flows and node.multipath):
        return ()
    known = {other.bid for other in node.routes.values() if other.bound and other.confirmed and not alone} | {route.bid}
    return to_bindings(policy(node), known, route.bid)


def policy(node: Node) -> tuple[StaticFlow, ...]:
    """The configured flows, by BID."""
    return by_bid(node.flows, {route.bid: route.config.label for route in node.routes.values()})


def send_due(node: Node, now: Now) -> None:
    """Send every request whose time has come. With nonces one at a time: each reply brings the next one's nonce.

    Those that have been sent least go first: one interface without replies must not keep the others from asking.
    """
    for route in sorted(node.routes.values(), key=lambda route: route.exchange.tries if route.exchange is not None else 0):
        exchange = route.exchange
        if exchange is not None and exchange.due_s <= now.monotonic_s and not _must_wait(node, exchange, now.monotonic_s):
            _send(node, route, route, exchange, exchange.care_of.address, now)
    for bid, withdrawal in node.withdrawals.items():
        _send_withdrawal(node, bid, withdrawal, now)


def _must_wait(node: Node, exchange: Exchange, now_s: float) -> bool:
    if node.identifications.style is ReplayStyle.TIMESTAMPS:
        return False
    others = [route.exchange for route in node.routes.values()] + [item.exchange for item in node.withdrawals.values()]
    busy_s = [o.due_s for o in others if o is not None and o is not exchange and o.sent is not None and o.due_s > now_s]
    if busy_s:
        exchange.due_s = min(busy_s)
    return bool(busy_s)


def carrier(node: Node) -> Route | None:
    """The interface by which another one's binding is withdrawn: registered with an address of its own, validated if possible.

    A foreign agent would take the deregistration for that of its own visitor.
    """
    able = [route for route in node.bound() if route.binding is not None and not route.binding.care_of.agent]
    return min(able, key=lambda route: (not route.validated, route.bid), default=None)


def _send_withdrawal(node: Node, bid: int, withdrawal: Withdrawal, now: Now) -> None:
    gone, by = node.by_bid(bid), carrier(node)
    if gone is None or by is None or by is gone or by.binding is None:
        withdrawal.exchange = None
        return
    if withdrawal.exchange is None:
        withdrawal.exchange = Exchange(Purpose.WITHDRAW, by.binding.care_of, now.monotonic_s)
    exchange = withdrawal.exchange
    if exchange.due_s > now.monotonic_s or _must_wait(node, exchange, now.monotonic_s):
        return
    exchange.care_of, withdrawal.carrier = by.binding.care_of, by.name
    # The BID says which binding is meant; its care-of address may be unknown after a restart.
    _send(node, by, gone, exchange, withdrawal.care_of_address or by.binding.care_of.address, now)


def _send(node: Node, by: Route, subject: Route, exchange: Exchange, care_of_address: str, now: Now) -> None:
    """One request, through `by`, about the binding of `subject`."""
    identification = node.identifications.next(now.ntp)
    foreign = _foreign_part(node, by, exchange.care_of)
    exchange.flows = wanted_flows(node, subject, exchange.overwrite) if exchange.purpose is Purpose.REGISTER else ()
    request = _request(node, subject, exchange, care_of_address, identification, exchange.flows)
    try:
        data = encode_request(request, node.config.association, foreign)
    except WireError as error:
        node.logs.append(Log("flow-policy-too-long", {"interface": subject.name, "error": str(error)}))
        request = _request(node, subject, exchange, care_of_address, identification, ())
        data = encode_request(request, node.config.association, foreign)
    exchange.sent = Sent(request, now.monotonic_s, foreign)
    exchange.tries += 1
    exchange.due_s = now.monotonic_s + _patience_s(node, exchange.tries)
    if by is subject:
        by.sent_at_s.append(now.monotonic_s)
    subject.flows_remote |= {flow.selector for flow in exchange.flows if flow.selector is not None}
    if request.lifetime_s:
        _note_remote(subject, request, now.monotonic_s)
    care_of = exchange.care_of
    ttl = 255 if care_of.agent and RequestFlag.REVERSE_TUNNEL in request.flags else 64
    node.sends.append(
        SendMessage(data, care_of.destination, REGISTRATION_PORT, care_of.source, by.name, ttl, care_of.link_address)
    )
    node.logs.append(Log("request", {
        "interface": by.name, "bid": subject.bid, "purpose": exchange.purpose.value, "care_of": care_of_address,
        "try": exchange.tries, "lifetime_s": request.lifetime_s, "identification": f"{identification:016x}",
        "bulk": exchange.bulk, "overwrite": exchange.overwrite, "flows": len(exchange.flows),
    }))  # fmt: skip


def _note_remote(route: Route, request: Request, now_s: float) -> None:
    """From now on the home agent may have this binding, whether its reply arrives or not."""
    until_s = NEVER if request.lifetime_s == INFINITE_LIFETIME_S else now_s + request.lifetime_s
    route.remote_until_s = max(route.remote_until_s, until_s)
    route.remote_care_of = request.care_of_address


def _patience_s(node: Node, tries: int) -> float:
    return min(node.config.retry_first_s * 2.0 ** min(tries - 1, 32), node.config.retry_max_s)


def _foreign_part(node: Node, route: Route, care_of: CareOf) -> ForeignPart:
    agent = route.discovery.current
    if not care_of.agent:
        return ForeignPart()
    challenge = route.challenge if route.challenge is not None else (agent.challenge if agent is not None else None)
    delivery = node.config.encapsulating_delivery and route.reverse_tunnel and not route.direct_delivery
    return ForeignPart(challenge, delivery, node.config.foreign_associations.get(care_of.agent))


def _request(
    node: Node, subject: Route, exchange: Exchange, care_of_address: str, identification: int, flows: tuple[FlowBinding, ...]
) -> Request:
    registers = exchange.purpose is Purpose.REGISTER
    extensions: list[Extension] = []
    if node.config.nai:
        extensions.append(Nai(node.config.nai))
    if registers and asks_for_udp(node, subject, exchange.care_of):
        force = node.config.nat_force or subject.udp_force or subject.config.encapsulation is Encapsulation.UDP
        inner = Tunnelled.GRE if subject.encapsulation is Encapsulation.GRE else Tunnelled.IP_IN_IP
        extensions.append(UdpTunnelRequest(force, bool(exchange.care_of.agent), inner))
    if node.multipath:
        config = subject.config
        extensions.append(Multipath(subject.bid, config.label, config.technology, exchange.bulk, exchange.overwrite))
    extensions += flows
    flags = NO_FLAGS if exchange.purpose is Purpose.RETURN else _flags(node, subject, exchange.care_of)
    lifetime_s = _lifetime_s(node, subject, exchange.care_of) if registers else 0
    return Request(node.home_address, node.home_agent, care_of_address, lifetime_s, identification, flags, tuple(extensions))


def asks_for_udp(node: Node, route: Route, care_of: CareOf) -> bool:
    """Whether a request of the interface asks for UDP tunnelling (RFC 3519)."""
    configured = node.config.nat_traversal or route.encapsulation is Encapsulation.UDP
    return configured and route.udp and care_of.co_located


def _flags(node: Node, route: Route, care_of: CareOf) -> RequestFlag:
    flags = NO_FLAGS
    if care_of.co_located:
        flags |= RequestFlag.DECAPSULATION_BY_MN
    if node.config.broadcasts:
        flags |= RequestFlag.BROADCAST
    if route.encapsulation is Encapsulation.GRE:
        flags |= RequestFlag.GRE
    if route.reverse_tunnel:
        flags |= RequestFlag.REVERSE_TUNNEL
    return flags


def _lifetime_s(node: Node, route: Route, care_of: CareOf) -> int:
    wanted_s = min(node.config.lifetime_s, route.lifetime_max_s)
    return registration_lifetime_s(wanted_s, route.discovery.current if care_of.agent else None)
