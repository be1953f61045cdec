"""Probes through the tunnels of a mobile node: validation of a new path, measurements, keepalives, and death."""

from agents.core.mobileip.actions import Encapsulation, Log, Now, Probe
from agents.core.mobileip.mobile_node_requests import SPACING_S, earliest_s
from agents.core.mobileip.mobile_node_situation import care_of, link_is_up
from agents.core.mobileip.mobile_node_state import NEVER, Node, Route
from agents.core.mobileip.registration_states import Event, State
from agents.core.mobileip.selection import Measurement

RETRY_S = 1.0
"""After a probe without an answer the next one goes so much later, or sooner where probes are more frequent."""
OVERDUE_S = 1.0
"""Whoever sends probes must say what became of one within its timeout and so much more."""


def begin_probes(node: Node, route: Route, now_s: float) -> None:
    """A new tunnel: nothing is known of it."""
    route.measurement = Measurement()
    route.validated = not node.config.validate
    route.probe_due_s = now_s if node.config.validate or _interval_s(node, route) < NEVER else NEVER
    route.probe_overdue_s = NEVER


def _interval_s(node: Node, route: Route) -> float:
    """Between probes of a validated path: what is configured, and what keeps the mapping of a NAT."""
    intervals = [node.config.probe_interval_s, route.binding.keepalive_s if route.binding is not None else 0.0]
    return min((interval for interval in intervals if interval > 0), default=NEVER)


def send_due_probes(node: Node, now: Now) -> list[Probe]:
    """The probes whose time has come. One of which nothing was heard for too long has failed."""
    result = []
    for route in node.routes.values():
        if route.probe_overdue_s <= now.monotonic_s:
            note_probe(node, route, None, now)
        if route.bound and route.binding is not None and route.probe_due_s <= now.monotonic_s:
            route.probe_due_s = NEVER
            route.probe_overdue_s = now.monotonic_s + node.config.probe_timeout_s + OVERDUE_S
            result.append(Probe(route.bid, route.binding.tunnel, node.config.probe_timeout_s))
    return result


def note_probe(node: Node, route: Route, rtt_ms: float | None, now: Now) -> bool:
    """What became of the probe that is under way. False: there was none."""
    if route.probe_overdue_s == NEVER:
        return False
    route.probe_overdue_s = NEVER
    was_silent = is_silent(node, route)
    route.measurement.add(rtt_ms, now.monotonic_s)
    if route.measurement.failures:
        route.probe_due_s = now.monotonic_s + min(RETRY_S, _interval_s(node, route))
        _note_failure(node, route)
        return True
    if not route.validated:
        node.logs.append(Log("path-validated", {"interface": route.name, "bid": route.bid, "rtt_ms": rtt_ms}))
    route.validated, route.deaths = True, 0
    route.probe_due_s = now.monotonic_s + _interval_s(node, route)
    if was_silent:
        _end_silence(node, now.monotonic_s)
    return True


def _note_failure(node: Node, route: Route) -> None:
    if not is_silent(node, route):
        return
    if route.measurement.failures == node.config.probe_failures:
        node.logs.append(Log("path-dead", {"interface": route.name, "bid": route.bid}))
    route.validated = False
    plain = route.binding is not None and route.binding.tunnel.encapsulation is not Encapsulation.UDP
    if route.measurement.answered_s is None and plain and node.config.nat_traversal:
        route.udp_force = True  # something on the way lets nothing but UDP and TCP pass (RFC 3519 section 3.1.1)


def is_silent(node: Node, route: Route) -> bool:
    """So many probes in a row without an answer."""
    return route.measurement.failures >= node.config.probe_failures


def judge(node: Node, now: Now) -> list[tuple[Route, Event]]:
    """What follows for paths that are silent. One is given up when another works, for then it is the path that is at fault.

    When all are silent at the same time it is the home agent: the paths are kept and probed on, so that traffic flows as soon
    as it is back, and it is asked for the bindings again, for it may have lost them.
    """
    events = []
    for route in node.bound():
        if not is_silent(node, route):
            events += _revived(node, route)
        elif node.multipath:
            events += _judge_of_several(node, route, now.monotonic_s)
        else:
            events += _judge_single(node, route)
    return events


def _judge_of_several(node: Node, route: Route, now_s: float) -> list[tuple[Route, Event]]:
    others = [other for other in node.bound() if other is not route]
    if any(_answers_since(other, route) for other in others):
        route.deaths += 1
        return [(route, Event.DEAD)]
    for other in others:
        if other.validated and other.probe_overdue_s == NEVER:
            other.probe_due_s = now_s  # nothing was heard of it meanwhile: ask
    return _ask_again(route) if all(is_silent(node, other) for other in others) else []


def _answers_since(other: Route, silent: Route) -> bool:
    """Whether the other path has worked since this one has not."""
    heard_s, since_s = other.measurement.heard_s, silent.measurement.failing_since_s
    works = other.validated and not other.measurement.failures
    return works and heard_s is not None and since_s is not None and heard_s >= since_s


def _judge_single(node: Node, route: Route) -> list[tuple[Route, Event]]:
    """Another interface is tried; until it is registered, this one stays, for it may be the home agent that is silent."""
    others = [other for other in node.routes.values() if other is not route]
    if not any(link_is_up(other) and not other.held and care_of(node, other) is not None for other in others):
        return _ask_again(route)
    if not node.config.overlap:
        route.deaths += 1
        return [(route, Event.DEAD)]
    if route.avoid_until_s < NEVER:
        route.deaths += 1
        route.avoid_until_s = NEVER
    return []


def _ask_again(route: Route) -> list[tuple[Route, Event]]:
    return [(route, Event.DUE)] if route.state is State.REGISTERED else []


def _revived(node: Node, route: Route) -> list[tuple[Route, Event]]:
    """Single binding: the path works after all. The home agent may have heard of the other one meanwhile: tell it."""
    if route.avoid_until_s < NEVER or not route.validated:
        return []
    route.avoid_until_s = -NEVER
    if node.multipath or node.pinned not in ("", route.name):
        return []
    node.active, node.challenger = route.name, ""
    return [(route, Event.DUE)]


def _end_silence(node: Node, now_s: float) -> None:
    """The home agent answers again. Other paths were silent because it was: they are judged anew, and probed at once.

    Who waits long for its next request waits no longer than the rate demands.
    """
    for route in node.routes.values():
        if route.bound and is_silent(node, route):
            route.measurement.failures = 0
            if route.probe_overdue_s == NEVER:
                route.probe_due_s = now_s
        if route.exchange is not None and route.exchange.tries:
            route.exchange.due_s = min(route.exchange.due_s, earliest_s(route, now_s, False))
    for withdrawal in node.withdrawals.values():
        exchange = withdrawal.exchange
        if exchange is not None and exchange.sent is not None:
            exchange.due_s = min(exchange.due_s, max(now_s, exchange.sent.sent_s + SPACING_S))
