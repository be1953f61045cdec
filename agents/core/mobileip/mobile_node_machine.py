"""The machine of a mobile node: events of the table become effects, until nothing changes any more."""

from collections.abc import Callable
from typing import Final

from agents.core.mobileip import mobile_node_requests as requests
from agents.core.mobileip.actions import AtHome, Log, Now
from agents.core.mobileip.discovery import Finding
from agents.core.mobileip.mobile_node_situation import choose_active, judge_signal, link_is_up, situation
from agents.core.mobileip.mobile_node_state import NEVER, Exchange, Node, Purpose, Route, Withdrawal
from agents.core.mobileip.registration_states import TABLE, Effect, Event, State

DEAD_WAIT_S: Final = 2.0
"""After a path was found dead for the first time it is tried again after so long; doubles."""
DEREGISTER_TRIES: Final = 3
_WITHOUT_BINDING: Final = frozenset((State.DETACHED, State.DISCOVERING, State.IDLE))
_ROUNDS_MAX: Final = 8
"""Changes of one interface can change what is wanted of another; more rounds than that would be a fault of the table."""


def feed(node: Node, route: Route, event: Event, now: Now) -> bool:
    """One event of one interface. False: it means nothing in the present state."""
    found = TABLE.get((route.state, event))
    if found is None:
        return False
    effects, state = found
    before, route.state = route.state, state
    if state is not before:
        fields = {"interface": route.name, "bid": route.bid, "from": before.value, "to": state.value, "event": event.value}
        node.logs.append(Log("state", fields))
    for effect in effects:
        _EFFECTS[effect](node, route, now)
    return True


def settle(node: Node, now: Now) -> None:
    """Bring every interface to where link, addresses and wishes want it; tell the home agent what has changed; send."""
    if not node.started:
        return
    _forget_policy(node, now)
    for _ in range(_ROUNDS_MAX):
        if not node.multipath:
            choose_active(node, now.monotonic_s)
        changed = [_settle_route(node, route, now) for route in node.routes.values()]
        if not any(changed):
            break
    _settle_withdrawals(node, now)
    _settle_flows(node, now)
    requests.send_due(node, now)


def _settle_route(node: Node, route: Route, now: Now) -> bool:
    event, found = situation(node, route)
    if event is Event.DOWN:
        route.discovery.stop()
    before = route.care_of
    route.care_of = found
    if event is Event.MOVED and not feed(node, route, event, now):
        # In states that register nothing yet, another care-of address is one like any other.
        event = Event.CARE_OF
    if event is not Event.MOVED:
        return feed(node, route, event, now)
    return before != found


def leave_all(node: Node, now: Now) -> None:
    """Deregister every binding by one request with B."""
    leader = min(node.bound(), key=lambda route: (not route.validated, route.bid), default=None)
    if leader is not None:
        feed(node, leader, Event.LEAVE, now)
        if leader.exchange is not None:
            leader.exchange.bulk = node.multipath


def _forget_policy(node: Node, now: Now) -> None:
    """A set of flows is replaced by the next set of the same BID only: no set, or no such binding any more, means "as before".

    So that flows which are not wanted any more go, all bindings go and come again.
    """
    if node.rejoining:
        node.rejoining = any(route.state is State.DEREGISTERING for route in node.routes.values())
    elif node.multipath and node.bound() and _stale_flows(node):
        node.rejoining = True
        leave_all(node, now)


def _stale_flows(node: Node) -> bool:
    wanted = {flow.selector for flow in node.flows}
    asking = (State.REGISTERED, State.REFRESHING, State.REGISTERING)
    lost = [route for route in node.routes.values() if not node.flows or route.state not in asking]
    return any(route.flows_remote - wanted for route in lost)


def expect_leftovers(node: Node, now: Now) -> None:
    """At the start: the home agent may have bindings of an earlier life, and bulk refreshes would keep them for ever."""
    if node.config.bulk_refresh:
        for route in node.routes.values():
            route.remote_until_s = now.monotonic_s + node.config.lifetime_s


def _settle_withdrawals(node: Node, now: Now) -> None:
    for route in node.routes.values():
        if route.state in _WITHOUT_BINDING and not node.at_home and route.bid not in node.withdrawals:
            _withdraw(node, route, now)
    for bid, withdrawal in list(node.withdrawals.items()):
        gone = node.by_bid(bid)
        if gone is None or gone.remote_until_s <= now.monotonic_s or node.at_home or not node.multipath:
            del node.withdrawals[bid]
        elif withdrawal.exchange is not None and withdrawal.carrier:
            by = node.routes[withdrawal.carrier]
            if not by.bound:
                withdrawal.exchange, withdrawal.carrier = None, ""


def _settle_flows(node: Node, now: Now) -> None:
    """Tell the home agent of a policy that has changed, or that names a binding it did not know before."""
    for route in node.routes.values():
        if route.state is not State.REGISTERED or not _may_refresh(node, route):
            continue
        wanted = requests.wanted_flows(node, route)
        if wanted == route.flows_told:
            continue
        if wanted:
            feed(node, route, Event.DUE, now)


def _may_refresh(node: Node, route: Route) -> bool:
    """With a single binding, a request of another interface would move it."""
    return node.multipath or route.name == node.active


# -- effects ----------------------------------------------------------------------------------------------------------
def _discover(node: Node, route: Route, now: Now) -> None:
    if route.config.foreign_agent and link_is_up(route):
        route.discovery.start(now.monotonic_s)


def _request(node: Node, route: Route, now: Now) -> None:
    if route.care_of is not None:
        bulk = node.config.bulk_refresh and route.state is State.REFRESHING
        requests.begin(node, route, Purpose.REGISTER, route.care_of, now, bulk)


def _retry(node: Node, route: Route, now: Now) -> None:
    if route.exchange is not None:
        route.exchange.due_s = requests.earliest_s(route, now.monotonic_s, False)
        route.exchange.tries = 0
        route.exchange.corrections += 1


def _forget(node: Node, route: Route, now: Now) -> None:
    route.exchange, route.wait_until_s = None, NEVER


def _establish(node: Node, route: Route, now: Now) -> None:
    route.exchange, route.wait_until_s, route.confirmed = None, NEVER, True
    withdrawal = node.withdrawals.pop(route.bid, None)
    sent = withdrawal.exchange.sent if withdrawal is not None and withdrawal.exchange is not None else None
    if route.binding is not None and sent is not None and sent.request.identification > route.binding.identification:
        # The withdrawal may still arrive, and take away what was just granted.
        route.binding.refresh_s = now.monotonic_s
    if route.binding is not None and not route.binding.care_of.agent:
        route.discovery.rest()
    if not node.multipath:
        for other in node.routes.values():
            if other is not route:
                other.remote_until_s = -NEVER


def _drop(node: Node, route: Route, now: Now) -> None:
    if route.binding is not None:
        fields = {"interface": route.name, "bid": route.bid, "care_of": route.binding.care_of.address}
        node.logs.append(Log("binding-dropped", fields))
    route.binding, route.confirmed, route.validated = None, False, False
    route.flows_told, route.flows_heard = (), ()
    route.probe_due_s = route.probe_overdue_s = NEVER
    if route.avoid_until_s == NEVER:
        route.avoid_until_s = now.monotonic_s + _wait_s(node, route)


def _withdraw(node: Node, route: Route, now: Now) -> None:
    if node.multipath and node.config.withdraw_lost and route.remote_until_s > now.monotonic_s:
        node.withdrawals[route.bid] = Withdrawal(route.remote_care_of)


def _deregister(node: Node, route: Route, now: Now) -> None:
    care_of = route.binding.care_of if route.binding is not None else route.care_of
    if care_of is not None:
        requests.begin(node, route, Purpose.DEREGISTER, care_of, now)


def _return(node: Node, route: Route, now: Now) -> None:
    node.homes.append(AtHome(route.name, True))
    if route.care_of is not None:
        requests.begin(node, route, Purpose.RETURN, route.care_of, now, bulk=True)


def _home_settled(node: Node, route: Route, now: Now) -> None:
    """Others may have heard the home agent answer for the address in between: announce it again (RFC 5944 section 4.6)."""
    node.homes.append(AtHome(route.name, True))
    for other in node.routes.values():
        other.remote_until_s = -NEVER


def _depart(node: Node, route: Route, now: Now) -> None:
    node.homes.append(AtHome(route.name, False))


def _wait_s(node: Node, route: Route) -> float:
    if not route.deaths:
        return node.config.denied_wait_s
    return min(node.config.denied_wait_s, DEAD_WAIT_S * 2.0 ** min(route.deaths - 1, 16))


def _wait(node: Node, route: Route, now: Now) -> None:
    route.exchange, route.wait_until_s = None, now.monotonic_s + _wait_s(node, route)
    route.avoid_until_s = route.wait_until_s


def _other_agent(node: Node, route: Route, now: Now) -> None:
    if route.discovery.refused(now.monotonic_s) is Finding.MOVED:
        node.logs.append(Log("agent", {"interface": route.name, "finding": "refused"}))


_EFFECTS: Final[dict[Effect, Callable[[Node, Route, Now], None]]] = {
    Effect.DISCOVER: _discover,
    Effect.REQUEST: _request,
    Effect.RETRY: _retry,
    Effect.FORGET: _forget,
    Effect.ESTABLISH: _establish,
    Effect.DROP: _drop,
    Effect.WITHDRAW: _withdraw,
    Effect.DEREGISTER: _deregister,
    Effect.RETURN: _return,
    Effect.SETTLE: _home_settled,
    Effect.DEPART: _depart,
    Effect.WAIT: _wait,
    Effect.OTHER_AGENT: _other_agent,
}


# -- time -------------------------------------------------------------------------------------------------------------
def handle_deadlines(node: Node, now: Now) -> None:
    """Lifetimes that are over, refreshes and waits that are due, rounds without a reply."""
    now_s = now.monotonic_s
    for route in node.routes.values():
        if route.binding is not None and route.binding.expires_s <= now_s:
            node.logs.append(Log("binding-expired", {"interface": route.name, "bid": route.bid}))
            feed(node, route, Event.EXPIRED, now)
        exchange = route.exchange
        if exchange is not None and exchange.tries and exchange.due_s <= now_s and not exchange.tries % _round(node, exchange):
            node.logs.append(Log("no-reply", {"interface": route.name, "tries": exchange.tries}))
            feed(node, route, Event.SILENT, now)
        if route.avoid_until_s <= now_s:
            route.avoid_until_s = -NEVER
        if route.wait_until_s <= now_s:
            route.wait_until_s = NEVER
            feed(node, route, Event.WAITED, now)
        if route.state is State.REGISTERED and route.binding is not None and route.binding.refresh_s <= now_s:
            _refresh(node, route, now)


def _round(node: Node, exchange: Exchange) -> int:
    """So many requests, then something else is tried; a binding that shall go can be withdrawn by another interface."""
    limit = node.config.attempts_max
    return min(limit, DEREGISTER_TRIES) if exchange.purpose is Purpose.DEREGISTER else limit


def _refresh(node: Node, route: Route, now: Now) -> None:
    assert route.binding is not None
    if not _may_refresh(node, route):
        route.binding.refresh_s = NEVER
    elif node.config.bulk_refresh and _bulk_under_way(node):
        route.binding.refresh_s = now.monotonic_s + node.config.retry_first_s
    else:
        feed(node, route, Event.DUE, now)


def _bulk_under_way(node: Node) -> bool:
    """Another interface refreshes for all, and has not been without reply for long."""
    exchanges = [route.exchange for route in node.routes.values() if route.state is State.REFRESHING]
    return any(exchange is not None and exchange.bulk and exchange.tries <= 2 for exchange in exchanges)


def deadlines(node: Node) -> list[float]:
    """When `handle_deadlines`, the discovery or the sending has something to do."""
    times = [withdrawal.exchange.due_s for withdrawal in node.withdrawals.values() if withdrawal.exchange is not None]
    times += [route.remote_until_s for bid in node.withdrawals if (route := node.by_bid(bid)) is not None]
    if node.challenger:
        times.append(node.challenger_since_s + node.config.cost_hysteresis_s)
    for route in node.routes.values():
        times.append(route.wait_until_s)
        if not node.multipath and route.avoid_until_s > -NEVER:
            times.append(route.avoid_until_s)
        if route.exchange is not None:
            times.append(route.exchange.due_s)
        if route.binding is not None:
            times.append(route.binding.expires_s)
            if route.state is State.REGISTERED:
                times.append(route.binding.refresh_s)
        found = route.discovery.next_deadline()
        if found is not None and link_is_up(route):
            times.append(found)
    return times


def take_interfaces(node: Node) -> None:
    """The signal of every interface is judged once for each report."""
    for route in node.routes.values():
        judge_signal(route)
