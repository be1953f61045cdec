"""The mobile node of Mobile IPv4 with one binding or several (RFC 5944 section 3.6, RFC 3024, RFC 3519, RFC 7629 section 5.1).

Every input returns what is to be done, in this order: tunnels that open, forwarding, tunnels that close, the home address on
the home link, messages, probes. Times are those of the call.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents.core.mobileip import mobile_node_forwarding, mobile_node_machine, mobile_node_replies
from agents.core.mobileip.actions import Action, Datagram, Log, Now, SendIcmp
from agents.core.mobileip.discovery import Discovery, Finding
from agents.core.mobileip.flow_policy import checked
from agents.core.mobileip.mobile_node_config import InterfaceState, MobileNodeConfig
from agents.core.mobileip.mobile_node_probes import judge, note_probe, send_due_probes
from agents.core.mobileip.mobile_node_situation import link_is_up
from agents.core.mobileip.mobile_node_state import NEVER, Node, Route
from agents.core.mobileip.mobile_node_warnings import flow_warnings
from agents.core.mobileip.registration_messages import Identifications
from agents.core.mobileip.registration_states import Event
from agents.core.mobileip.selection import StaticFlow
from agents.wire.errors import WireError
from agents.wire.mobileip import advertisement
from agents.wire.mobileip.values import Advertisement

ALL_AGENTS = "224.0.0.11"
"""All mobility agents: where solicitations go (RFC 5944 section 2.2)."""


class MobileNode:
    """One home address. Remote input never raises."""

    def __init__(self, config: MobileNodeConfig, random_bytes: Callable[[int], bytes]) -> None:
        identifications = Identifications(config.association.replay, random_bytes)
        self._node = Node(
            config, random_bytes, identifications, config.home_address, config.home_agent, config.multipath, config.flows
        )
        for interface in config.interfaces:
            needs = replace(config.discovery, home_agent=config.discovery.home_agent or config.home_agent)
            state = InterfaceState(interface.name, up=False, carrier=False)
            route = Route(interface, state, Discovery(needs), reverse_tunnel=config.reverse_tunnel)
            self._node.routes[interface.name] = route

    # -- inputs -------------------------------------------------------------------------------------------------------
    def start(self, now: Now) -> list[Action]:
        """Begin to register."""
        self._node.started = True
        self._warn()
        mobile_node_machine.expect_leftovers(self._node, now)
        return self._finish(now)

    def interfaces_changed(self, interfaces: Iterable[InterfaceState], now: Now) -> list[Action]:
        """The state of all interfaces; one that is not listed is not there."""
        found = {interface.name: interface for interface in interfaces}
        for name, route in self._node.routes.items():
            route.interface = found.get(name, InterfaceState(name, up=False, carrier=False))
        mobile_node_machine.take_interfaces(self._node)
        return self._finish(now)

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        """A datagram to the registration port."""
        mobile_node_replies.handle_reply(self._node, datagram, now)
        return self._finish(now)

    def handle_advertisement(
        self, heard: Advertisement | bytes, source: str, link_address: str, interface: str, now: Now
    ) -> list[Action]:
        """An ICMP router advertisement, as octets or already read."""
        route = self._node.routes.get(interface)
        if route is None or not link_is_up(route):
            return []
        if not isinstance(heard, Advertisement):
            try:
                heard = advertisement.decode(heard)
            except WireError as error:
                return [Log("discard", {"reason": f"advertisement: {error}"})]
        finding = route.discovery.handle_advertisement(heard, source, link_address, now.monotonic_s)
        self._note_finding(route, finding, now)
        return self._finish(now)

    def probe_result(self, bid: int, rtt_ms: float | None, now: Now) -> list[Action]:
        """The answer to a `Probe`, or None: there was none."""
        route = self._node.by_bid(bid)
        if route is not None and note_probe(self._node, route, rtt_ms, now):
            for judged, event in judge(self._node, now):
                mobile_node_machine.feed(self._node, judged, event, now)
        return self._finish(now)

    def handle_timer(self, now: Now) -> list[Action]:
        """Time has passed: nothing is done twice when it is called too early or again."""
        for route in self._node.routes.values():
            if link_is_up(route) and self._node.started:
                finding, solicit = route.discovery.handle_timer(now.monotonic_s)
                if solicit and route.config.foreign_agent:
                    solicitation = SendIcmp(advertisement.encode_solicitation(), ALL_AGENTS, route.name)
                    self._node.sends.append(solicitation)
                self._note_finding(route, finding, now)
        mobile_node_machine.handle_deadlines(self._node, now)
        return self._finish(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called (monotonic seconds); None: not at all."""
        if not self._node.started:
            return None
        times = mobile_node_machine.deadlines(self._node)
        times += [route.probe_overdue_s for route in self._node.routes.values()]
        times += [route.probe_due_s for route in self._node.bound()]
        times += self._node.draining.values()
        earliest_s = min(times, default=NEVER)
        return None if earliest_s == NEVER else earliest_s

    # -- commands -----------------------------------------------------------------------------------------------------
    def register(self, interface: str | None, now: Now) -> list[Action]:
        """Register an interface (None: all) now, also one that was taken off. Raises KeyError for a name not configured."""
        for route in self._named(interface):
            route.held = False
            mobile_node_machine.feed(self._node, route, Event.DUE, now)
        return self._finish(now)

    def deregister(self, interface: str | None, now: Now) -> list[Action]:
        """Take the binding of an interface away, or (None) all at once by one request with B. Raises KeyError."""
        for route in self._named(interface):
            route.held = True
            if interface is not None:
                mobile_node_machine.feed(self._node, route, Event.LEAVE, now)
        if interface is None:
            mobile_node_machine.leave_all(self._node, now)
        return self._finish(now)

    def set_policy(self, flows: Sequence[StaticFlow], now: Now) -> list[Action]:
        """Another flow policy. Raises ValueError for one that cannot be said on the wire."""
        self._node.flows = checked(flows)
        self._node.logs.append(Log("policy", {"flows": len(self._node.flows)}))
        self._warn()
        return self._finish(now)

    def handover(self, interface: str, now: Now) -> list[Action]:
        """Single binding: register through this interface from now on, while it can. Raises KeyError."""
        self._named(interface)
        self._node.pinned = interface
        self._node.logs.append(Log("handover", {"interface": interface}))
        return self._finish(now)

    def status(self) -> dict[str, Any]:
        """For people: the node and its interfaces."""
        node = self._node
        return {
            "home_address": node.home_address, "home_agent": node.home_agent, "multipath": node.multipath,
            "at_home": node.at_home, "active": node.active, "interfaces": [_describe(route) for route in node.routes.values()],
            "withdrawals": sorted(node.withdrawals), "warnings": flow_warnings(node),
        }  # fmt: skip

    def bindings(self) -> list[dict[str, Any]]:
        """What the home agent has granted and not taken back, as far as is known here."""
        return [
            {"interface": route.name, "bid": route.bid, "care_of": route.binding.care_of.address, "label": route.config.label,
             "technology": route.config.technology, "encapsulation": route.binding.tunnel.encapsulation.value,
             "expires_s": route.binding.expires_s, "validated": route.validated}
            for route in self._node.bound() if route.binding is not None
        ]  # fmt: skip

    # -- inside -------------------------------------------------------------------------------------------------------
    def _named(self, interface: str | None) -> list[Route]:
        return list(self._node.routes.values()) if interface is None else [self._node.routes[interface]]

    def _warn(self) -> None:
        self._node.logs += [Log("policy-warning", {"what": text}) for text in flow_warnings(self._node)]

    def _note_finding(self, route: Route, finding: Finding, now: Now) -> None:
        if finding is Finding.NOTHING:
            return
        self._node.logs.append(Log("agent", {"interface": route.name, "finding": finding.value}))
        if finding is Finding.RESTARTED and route.care_of is not None and route.care_of.agent:
            mobile_node_machine.feed(self._node, route, Event.DUE, now)

    def _finish(self, now: Now) -> list[Action]:
        node = self._node
        mobile_node_machine.settle(node, now)
        forwarding = mobile_node_forwarding.apply(node, now)
        probes = send_due_probes(node, now)
        result = [*node.logs, *forwarding, *node.homes, *node.sends, *probes]
        node.logs, node.homes, node.sends = [], [], []
        return result


def _describe(route: Route) -> dict[str, Any]:
    measured = route.measurement
    return {
        "name": route.name, "bid": route.bid, "state": route.state.value, "held": route.held, "validated": route.validated,
        "care_of": route.care_of.address if route.care_of is not None else None,
        "agent": route.care_of.agent if route.care_of is not None else "", "rtt_ms": measured.rtt_ms, "loss": measured.loss,
    }  # fmt: skip
