"""Where an interface of a mobile node stands: which event follows from link, addresses, agents heard and what is wanted."""

from agents.core.mobileip.mobile_node_state import CareOf, Node, Route
from agents.core.mobileip.registration_states import BOUND, Event


def link_is_up(route: Route) -> bool:
    """Whether the interface can send, with a signal that is good enough."""
    return route.interface.up and route.interface.carrier and route.strong


def judge_signal(route: Route) -> None:
    """Hysteresis: begin at the minimum, end below it (`signal_hysteresis_db`)."""
    low, signal = route.config.signal_min_dbm, route.interface.signal_dbm
    if low is None or signal is None:
        route.strong = True
    else:
        route.strong = signal >= (low - route.config.signal_hysteresis_db if route.strong else low)


def is_home(node: Node, route: Route) -> bool:
    """An advertisement of the home agent, or an address of the home network (RFC 5944 section 2.4.3)."""
    return route.discovery.at_home or node.config.is_home(route.interface.address)


def care_of(node: Node, route: Route) -> CareOf | None:
    """The care-of address that the interface can register now: its own, else a foreign agent's."""
    config, agent = route.config, route.discovery.current if route.config.foreign_agent else None
    address = route.interface.address
    if config.co_located and address is not None:
        if agent is not None and agent.offer.registration_required:
            # R bit: by the agent, also with an address of one's own (RFC 5944 section 2.1.1).
            return CareOf(address, True, agent.source, address, agent.link_address, agent.source)
        return CareOf(address, True, node.home_agent, address)
    if agent is None:
        return None
    return CareOf(agent.offer.care_of_addresses[0], False, agent.source, node.home_address, agent.link_address, agent.source)


def situation(node: Node, route: Route) -> tuple[Event, CareOf | None]:
    """The event that says how the interface stands now; it means nothing when it stands like that already."""
    if not link_is_up(route):
        return Event.DOWN, None
    if is_home(node, route):
        home = CareOf(node.home_address, True, node.home_agent, node.home_address)
        return Event.HOME, home
    found = care_of(node, route)
    if found is None:
        return Event.LINK, None
    if route.held or node.rejoining or any(is_home(node, other) and link_is_up(other) for other in node.routes.values()):
        return Event.STANDBY, found
    if not node.multipath and not _is_wanted(node, route):
        return Event.STANDBY, found
    return (Event.CARE_OF if route.care_of == found else Event.MOVED), found


def _is_wanted(node: Node, route: Route) -> bool:
    """Single binding: the active interface, and until that is registered the one before, unless it goes first."""
    active = node.routes.get(node.active)
    if active is None or active is route:
        return active is route
    return node.config.overlap and route.state in BOUND and not active.bound


def choose_active(node: Node, now_s: float) -> None:
    """Single binding: the interface to register: the cheapest, but the present one until another is cheaper for long enough."""
    candidates = [route for route in node.routes.values() if _is_candidate(node, route)]
    candidates = [route for route in candidates if route.avoid_until_s <= now_s] or candidates
    if not candidates:
        node.challenger = ""
        return
    names = [route.name for route in candidates]
    if node.pinned in names:
        node.active, node.challenger = node.pinned, ""
        return
    best = min(candidates, key=lambda route: (route.config.cost, route.bid))
    present = node.routes.get(node.active)
    if present is None or present.name not in names:
        node.active, node.challenger = best.name, ""
    elif best.config.cost >= present.config.cost:
        node.challenger = ""
    elif node.challenger != best.name:
        node.challenger, node.challenger_since_s = best.name, now_s
    if node.challenger and now_s >= node.challenger_since_s + node.config.cost_hysteresis_s:
        node.active, node.challenger = node.challenger, ""


def _is_candidate(node: Node, route: Route) -> bool:
    return link_is_up(route) and not route.held and not is_home(node, route) and care_of(node, route) is not None
