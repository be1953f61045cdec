"""Probes through the tunnels of a mobile node: validation of a new path, measurements, keepalives, and death."""

from agents.core.mobileip.actions import Encapsulation, Log, Now, Probe
from agents.core.mobileip.mobile_node_situation import care_of, link_is_up
from agents.core.mobileip.mobile_node_state import NEVER, Node, Route
from agents.core.mobileip.selection import Measurement

RETRY_S = 1.0
"""After a probe without an answer the next one goes so much later."""
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
    """What became of the probe that is under way. True: the path must be given up, another one works."""
    if route.probe_overdue_s == NEVER:
        return False
    route.probe_overdue_s = NEVER
    route.measurement.add(rtt_ms, now.monotonic_s)
    if not route.measurement.failures:
        if not route.validated:
            node.logs.append(Log("path-validated", {"interface": route.name, "bid": route.bid, "rtt_ms": rtt_ms}))
        route.validated, route.deaths = True, 0
        route.probe_due_s = now.monotonic_s + _interval_s(node, route)
        return False
    route.probe_due_s = now.monotonic_s + RETRY_S
    return _judge_failures(node, route)


def _judge_failures(node: Node, route: Route) -> bool:
    if route.measurement.failures < node.config.probe_failures:
        return False
    if route.measurement.failures == node.config.probe_failures:
        node.logs.append(Log("path-dead", {"interface": route.name, "bid": route.bid}))
    route.validated = False
    plain = route.binding is not None and route.binding.tunnel.encapsulation is not Encapsulation.UDP
    if route.measurement.answered_s is None and plain and node.config.nat_traversal:
        route.udp_force = True  # something on the way lets nothing but UDP and TCP pass (RFC 3519 section 3.1)
    if not _has_substitute(node, route):
        return False
    route.deaths += 1
    return True


def _has_substitute(node: Node, route: Route) -> bool:
    others = [other for other in node.routes.values() if other is not route]
    if node.multipath:
        return any(other.bound and other.validated for other in others)
    return any(link_is_up(other) and not other.held and care_of(node, other) is not None for other in others)
