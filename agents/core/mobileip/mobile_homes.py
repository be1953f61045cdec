"""A mobile host with one home address or several, each registered with a home agent of its own (RFC 5944 section 1.1).

Every home address is a `MobileNode`; they share the host's interfaces and know nothing of each other, so that the loss of a
home agent is the loss of one home address. What leaves here says for which home address it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents.core.mobileip.actions import Action, AtHome, Datagram, Log, Now, Probe
from agents.core.mobileip.mobile_node import MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceState
from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip.peek import peek


class MobileHomes:
    """`nodes` by home address, the preferred one first; "" is an address that its home agent will give (alone only)."""

    def __init__(self, nodes: dict[str, MobileNode]) -> None:
        if not nodes or ("" in nodes and len(nodes) > 1):
            raise ValueError("several home addresses must all be known")
        self._nodes = nodes

    # -- inputs -------------------------------------------------------------------------------------------------------
    def start(self, now: Now) -> list[Action]:
        """Begin to register."""
        return self._all(lambda node: node.start(now))

    def interfaces_changed(self, interfaces: Iterable[InterfaceState], now: Now) -> list[Action]:
        """The state of all interfaces; one that is not listed is not there."""
        states = list(interfaces)
        return self._all(lambda node: node.interfaces_changed(states, now))

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        """A datagram to the registration port: for the home address that it names, else the first, which discards it."""
        message = peek(datagram.data)
        named = message.home_address if message is not None else ""
        home = named if named in self._nodes else next(iter(self._nodes))
        return self._of(home, self._nodes[home].handle_datagram(datagram, now))

    def handle_advertisement(self, heard: bytes, source: str, link_address: str, interface: str, now: Now) -> list[Action]:
        """An ICMP router advertisement."""
        return self._all(lambda node: node.handle_advertisement(heard, source, link_address, interface, now))

    def probe_result(self, probe: Probe, rtt_ms: float | None, now: Now) -> list[Action]:
        """The answer to a `Probe`, or None: there was none."""
        return self._of(probe.home_address, self._nodes[probe.home_address].probe_result(probe.bid, rtt_ms, now))

    def handle_timer(self, now: Now) -> list[Action]:
        """Time has passed."""
        return self._all(lambda node: node.handle_timer(now))

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called (monotonic seconds); None: not at all."""
        deadlines = (node.next_deadline() for node in self._nodes.values())
        return min((at_s for at_s in deadlines if at_s is not None), default=None)

    # -- commands: for every home address -----------------------------------------------------------------------------
    def register(self, interface: str | None, now: Now) -> list[Action]:
        """As `MobileNode.register`."""
        return self._all(lambda node: node.register(interface, now))

    def deregister(self, interface: str | None, now: Now) -> list[Action]:
        """As `MobileNode.deregister`."""
        return self._all(lambda node: node.deregister(interface, now))

    def set_policy(self, flows: Sequence[StaticFlow], now: Now) -> list[Action]:
        """As `MobileNode.set_policy`."""
        return self._all(lambda node: node.set_policy(flows, now))

    def handover(self, interface: str, now: Now) -> list[Action]:
        """As `MobileNode.handover`."""
        return self._all(lambda node: node.handover(interface, now))

    # -- for people ---------------------------------------------------------------------------------------------------
    def status(self) -> dict[str, Any]:
        """The first home address, and below `further` the others."""
        first, *others = (node.status() for node in self._nodes.values())
        return {**first, "further": others} if others else first

    def bindings(self) -> list[dict[str, Any]]:
        """What the home agents have granted; every row names its home address."""
        return [
            {"home_address": node.status()["home_address"], **row} for node in self._nodes.values() for row in node.bindings()
        ]

    # -- inside -------------------------------------------------------------------------------------------------------
    def _all(self, work: Callable[[MobileNode], list[Action]]) -> list[Action]:
        return [action for home, node in self._nodes.items() for action in self._of(home, work(node))]

    def _of(self, home: str, actions: list[Action]) -> list[Action]:
        if not home:
            return actions
        return [self._named(home, action) for action in actions]

    def _named(self, home: str, action: Action) -> Action:
        if isinstance(action, AtHome | Probe):
            return replace(action, home_address=home)
        if isinstance(action, Log) and len(self._nodes) > 1:
            return Log(action.event, {"home_address": home, **action.fields})
        return action
