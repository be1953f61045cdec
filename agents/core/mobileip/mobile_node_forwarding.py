"""What a mobile node asks of the forwarding plane: tunnels and rules for its bindings (RFC 7629 sections 5.1, 6)."""

from agents.core.mobileip.actions import Action, CloseTunnel, FlowRule, Forwarding, Log, Now, OpenTunnel, Tunnel
from agents.core.mobileip.flow_policy import merged, to_bindings, to_rules
from agents.core.mobileip.mobile_node_requests import policy
from agents.core.mobileip.mobile_node_state import Node, Route
from agents.core.mobileip.mobile_node_tunnels import expected
from agents.core.mobileip.selection import NO_CHOICE, Path, select


def usable(node: Node) -> list[Route]:
    """The interfaces that packets may take: those whose path has been validated; while there is none, those registered."""
    bound = node.bound()
    return [route for route in bound if route.validated] or bound


def apply(node: Node, now: Now) -> list[Action]:
    """Actions that bring the forwarding plane to the present bindings: tunnels open first, then rules, then tunnels close."""
    bound = {route.binding.tunnel.key: route.binding.tunnel for route in node.bound() if route.binding is not None}
    tunnels = {tunnel.key: tunnel for tunnel in expected(node)} | bound
    result: list[Action] = []
    for key, tunnel in tunnels.items():
        before = node.opened.get(key)
        node.draining.pop(key, None)
        if before is None or before.encapsulation is not tunnel.encapsulation or before.interface != tunnel.interface:
            if before is not None:
                result.append(CloseTunnel(before))
            result.append(OpenTunnel(tunnel))
            node.opened[key] = tunnel
        elif key in bound and key in node.expected:
            # Once more, for the kernel may have refused it before its binding was there.
            result.append(OpenTunnel(tunnel))
            node.opened[key] = tunnel
    node.expected = set(tunnels) - set(bound)
    result += _forwarding(node)
    result += _close(node, tunnels, now.monotonic_s)
    return result


def _close(node: Node, tunnels: dict[tuple[str, str, int], Tunnel], now_s: float) -> list[Action]:
    """Tunnels without binding. One whose packets may still be under way is drained first, while its address exists."""
    result: list[Action] = []
    for key in [key for key in node.opened if key not in tunnels]:
        tunnel = node.opened[key]
        if key not in node.draining:
            node.draining[key] = now_s + (node.config.drain_s if _can_drain(node, tunnel) else 0.0)
        if node.draining[key] <= now_s or not _can_drain(node, tunnel):
            del node.opened[key], node.draining[key]
            result.append(CloseTunnel(tunnel))
    return result


def _can_drain(node: Node, tunnel: Tunnel) -> bool:
    route = node.routes.get(tunnel.interface)
    there = route is not None and route.interface.up and route.interface.address == tunnel.local
    return there and node.config.overlap and not node.at_home and bool(node.bound())


def _forwarding(node: Node) -> list[Action]:
    wanted = _wanted(node)
    if wanted == node.forwarding or (node.forwarding is None and not wanted.shares and not wanted.rules):
        return []
    node.forwarding = wanted
    fields = {
        "rules": [rule.tunnel.interface if rule.tunnel else "drop" for rule in wanted.rules],
        "shares": {tunnel.interface: weight for tunnel, weight in wanted.shares},
        "balancing": wanted.balancing.value,
    }
    return [wanted, Log("forwarding", fields)]


def _wanted(node: Node) -> Forwarding:
    routes = usable(node)
    accept = tuple(sorted(route.binding.tunnel for route in node.bound() if route.binding is not None))
    if not routes:
        node.choice = NO_CHOICE
        return Forwarding(node.home_address)
    choice = select(node.config.selection, [_path(route) for route in routes], node.config.settings, node.choice)
    node.choice = choice
    return Forwarding(node.home_address, (*_rules(node, routes), *choice.rules), choice.shares, choice.balancing, accept)


def _rules(node: Node, routes: list[Route]) -> tuple[FlowRule, ...]:
    """The flow policy, told to the home agent or configured there as well; what that one has sent comes before it."""
    if not node.multipath:
        return ()
    tunnels = {route.bid: route.binding.tunnel for route in routes if route.binding is not None}
    heard = merged((), ())
    for route in sorted(node.bound(), key=lambda route: route.bid):
        heard = merged(heard, route.flows_heard)
    own = to_bindings(policy(node), tunnels_known(node), routes[0].bid)
    return to_rules(merged(heard, own), tunnels, node.config.lost_flows_dropped)


def tunnels_known(node: Node) -> set[int]:
    """All binding identifiers that the node has: for rules it does not matter what the home agent knows already."""
    return {route.bid for route in node.routes.values()}


def _path(route: Route) -> Path:
    assert route.binding is not None
    config, measured = route.config, route.measurement
    return Path(
        route.bid, route.binding.tunnel, config.label, config.technology, config.cost, config.capacity_mbit, None,
        measured.rtt_ms, measured.jitter_ms if measured.rtt_ms is not None else None, measured.loss, measured.answered_s,
    )  # fmt: skip
