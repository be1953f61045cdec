"""Bindings with all that hangs on them: tunnels, forwarding, proxy ARP, flow bindings, durable state.

`change` is the one way in which bindings come, change and go. Its actions are in an order in which no packet meets a tunnel
that is not there: stored, opened, forwarded, defended; then closed and released. A tunnel that a mobile node has left is
drained before it closes.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agents.core.mobileip import flows as flow_rules
from agents.core.mobileip import home_agent_stored as stored_values
from agents.core.mobileip.actions import (
    Action,
    CloseTunnel,
    DefendAddress,
    Encapsulation,
    Forwarding,
    Now,
    OpenTunnel,
    ReleaseAddress,
    Store,
    Tunnel,
)
from agents.core.mobileip.bindings import Binding, BindingTable, Key, TunnelUsers
from agents.core.mobileip.draining import Drained, Draining
from agents.core.mobileip.flows import FlowSets, Policy
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.selection import StaticFlow
from agents.wire.mobileip.values import FlowBinding


@dataclass(frozen=True, slots=True)
class Change:
    """What a request, a deadline or the operator makes of the bindings of a home address."""

    home_address: str
    put: tuple[Binding, ...] = ()
    removed: tuple[Key, ...] = ()
    carrier: int = 0
    """BID of the request that carries `flows`."""
    flows: tuple[FlowBinding, ...] = ()
    """Empty: the set that there is stays."""
    flows_of_others: bool = True
    """False: the sets of other BIDs are forgotten."""
    drain_from_s: float | None = None
    """The mobile node has asked for it at this time: what it has sent through its former tunnels is still taken. None: no."""


@dataclass(slots=True)
class _Steps:
    """Actions of one change, by their place in the order."""

    stored: list[Action] = field(default_factory=list)
    opened: list[Action] = field(default_factory=list)
    closed: list[Action] = field(default_factory=list)
    drained: list[Drained] = field(default_factory=list)
    """Tunnels that are not drained any more."""
    reforward: bool = False
    comes: bool = False
    """A binding is put that was not there."""


class HomeAgentState:
    """The state of all home addresses."""

    def __init__(self, config: HomeAgentConfig, nodes: Mapping[str, MobileNode]) -> None:
        self.table = BindingTable()
        self.tunnels = TunnelUsers()
        self.draining = Draining()
        """Each entry is one of the users of its tunnel."""
        self._nodes = nodes
        self._home_network = config.home_network
        self._policies: dict[str, Policy] = {}
        """Of home addresses with bindings."""
        self._overrides: dict[str, tuple[StaticFlow, ...]] = {}
        """The operator's policies that replace configured ones."""
        self._forwarding: dict[str, Forwarding] = {}
        """What was said last."""
        self._flow_order = 0

    # -- questions ----------------------------------------------------------------------------------------------------
    def operator_policy(self, home_address: str) -> tuple[StaticFlow, ...]:
        """The operator's flows for a home address."""
        override = self._overrides.get(home_address)
        return override if override is not None else self._nodes[home_address].policy

    def flows_elsewhere(self, home_address: str, bid: int) -> int:
        """Flow bindings that other BIDs of the home address carried."""
        policy = self._policies.get(home_address)
        return policy.flows.count_without(bid) if policy else 0

    def flows(self, home_address: str) -> Mapping[int, tuple[FlowBinding, ...]]:
        """The flow bindings of a home address by the BIDs that carried them."""
        policy = self._policies.get(home_address)
        return policy.flows.sets if policy else {}

    def different(self, tunnel: Tunnel) -> tuple[Tunnel, int] | None:
        """See `TunnelUsers.different`; what is merely drained gives way."""
        found = self.tunnels.different(tunnel)
        users = found[1] - len(self.draining.users(tunnel.key)) if found is not None else 0
        return (found[0], users) if found is not None and users else None

    # -- changes ------------------------------------------------------------------------------------------------------
    def change(self, change: Change) -> list[Action]:
        """Carry a change out."""
        home_address = change.home_address
        was_bound = bool(self.table.of(home_address))
        steps = _Steps()
        for binding in change.put:
            self._put(binding, steps, change.drain_from_s)
        for key in change.removed:
            self._remove(home_address, key, steps, change.drain_from_s)
        is_bound = bool(self.table.of(home_address))
        if is_bound or was_bound:
            self._take_flows(change, is_bound, steps)
        actions = [*steps.stored, *steps.opened]
        if steps.reforward:
            actions += self._forward(home_address)
        if is_bound and not was_bound and self._is_on_home_link(home_address):
            actions.append(DefendAddress(home_address))
        actions += steps.closed
        actions += self._not_drained(steps.drained)
        if was_bound and not is_bound and self._is_on_home_link(home_address):
            actions.append(ReleaseAddress(home_address))
        return actions

    def end_drains(self, now_s: float) -> list[Action]:
        """Close the tunnels that have been drained for long enough."""
        return self._not_drained(self.draining.over(now_s))

    def _not_drained(self, ended: Sequence[Drained]) -> list[Action]:
        actions: list[Action] = []
        for home_address in dict.fromkeys(item.home_address for item in ended):
            actions += self._forward(home_address)
        return actions + [CloseTunnel(item.tunnel) for item in ended if self.tunnels.release(item.tunnel)]

    def _put(self, binding: Binding, steps: _Steps, drain_from_s: float | None = None) -> None:
        old = self.table.put(binding)
        steps.comes |= old is None
        row = stored_values.place(binding.home_address, binding.key)
        steps.stored.append(Store(stored_values.BINDINGS, row, stored_values.binding_value(binding)))
        if old is not None and _same_way(old, binding):
            # Without a BID the newest binding has the packets, and this one is the newest now.
            steps.reforward |= not binding.bid and len(self.table.of(binding.home_address)) > 1
            return
        steps.reforward = True
        self._end_different_drains(binding, steps)
        other = self.tunnels.different(binding.tunnel)
        if other is not None:
            # Same ends, another encapsulation: there is no moment with both.
            steps.opened += [Forwarding(binding.home_address), CloseTunnel(other[0]), OpenTunnel(binding.tunnel)]
            self._forwarding.pop(binding.home_address, None)
            self.tunnels.reopened(binding.tunnel)
        if self.tunnels.acquire(binding.tunnel):
            steps.opened.append(OpenTunnel(binding.tunnel))
        if (again := self.draining.end(binding.home_address, binding.tunnel)) is not None:
            self.tunnels.release(again.tunnel)
        if old is not None:
            self._leave(old, steps, drain_from_s)

    def _end_different_drains(self, binding: Binding, steps: _Steps) -> None:
        """Tunnels with the same ends and another encapsulation that are only drained go before this one comes."""
        if self.tunnels.different(binding.tunnel) is None:
            return
        for item in self.draining.users(binding.tunnel.key):
            self.draining.end(item.home_address, item.tunnel)
            if item.home_address == binding.home_address:
                # Its new forwarding names the new tunnel, which is not open yet.
                steps.opened.append(Forwarding(item.home_address))
                self._forwarding.pop(item.home_address, None)
            else:
                steps.opened += self._forward(item.home_address)
            if self.tunnels.release(item.tunnel):
                steps.opened.append(CloseTunnel(item.tunnel))

    def _leave(self, old: Binding, steps: _Steps, drain_from_s: float | None) -> None:
        """A binding does not use its tunnel any more. Drained are tunnels from which its packets came."""
        if drain_from_s is not None and old.reverse_tunnel:
            steps.drained += self.draining.begin(old.home_address, old.tunnel, drain_from_s)
        elif self.tunnels.release(old.tunnel):
            steps.closed.append(CloseTunnel(old.tunnel))

    def _remove(self, home_address: str, key: Key, steps: _Steps, drain_from_s: float | None) -> None:
        old = self.table.remove(home_address, key)
        if old is None:
            return
        steps.reforward = True
        steps.stored.append(Store(stored_values.BINDINGS, stored_values.place(home_address, key), None))
        self._leave(old, steps, drain_from_s)

    def _take_flows(self, change: Change, is_bound: bool, steps: _Steps) -> None:
        home_address = change.home_address
        if not is_bound:
            policy = self._policies.pop(home_address)
            steps.stored += [_forget_flows(home_address, bid) for bid in policy.flows.sets]
            return
        sets = self._policy(home_address).flows
        if not change.flows_of_others:
            gone = sets.keep_only(change.carrier)
            steps.stored += [_forget_flows(home_address, bid) for bid in gone]
            steps.reforward |= bool(gone)
        if change.flows and sets.replace(change.carrier, change.flows, comes=steps.comes):
            self._flow_order += 1
            value = stored_values.flows_value(change.flows, self._flow_order)
            steps.stored.append(Store(stored_values.FLOWS, stored_values.place(home_address, change.carrier), value))
            steps.reforward = True

    def _policy(self, home_address: str) -> Policy:
        policy = self._policies.get(home_address)
        if policy is None:
            node = self._nodes[home_address]
            operator = self.operator_policy(home_address)
            policy = Policy(node.selection, node.settings, operator, node.labels, FlowSets())
            self._policies[home_address] = policy
        return policy

    def _forward(self, home_address: str) -> list[Action]:
        """The forwarding if it is another one than before."""
        bindings = list(self.table.of(home_address).values())
        if bindings:
            new = flow_rules.forwarding(home_address, bindings, self._policy(home_address))
        else:
            new = Forwarding(home_address)
        drained = self.draining.of(home_address)
        if drained:
            new = replace(new, accept=tuple(dict.fromkeys((*new.accept, *drained))))
        said = self._forwarding.pop(home_address, None)
        if bindings or drained:
            self._forwarding[home_address] = new
        return [] if said is not None and _all_of(said) == _all_of(new) else [new]

    def _is_on_home_link(self, home_address: str) -> bool:
        return self._home_network is not None and ipaddress.IPv4Address(home_address) in self._home_network

    # -- the operator -------------------------------------------------------------------------------------------------
    def set_policy(self, home_address: str, policy: tuple[StaticFlow, ...] | None) -> list[Action]:
        """Replace the operator's flows of a home address; None: the configured ones again."""
        if policy is None:
            self._overrides.pop(home_address, None)
        else:
            self._overrides[home_address] = policy
        value = None if policy is None else stored_values.policy_value(policy)
        actions: list[Action] = [Store(stored_values.POLICIES, home_address, value)]
        if home_address in self._policies:
            self._policies[home_address].operator = self.operator_policy(home_address)
            actions += self._forward(home_address)
        return actions

    # -- a restart ----------------------------------------------------------------------------------------------------
    def restore(self, stored: Mapping[str, Mapping[str, dict[str, Any]]], now: Now) -> list[Action]:
        """Take over what was stored, and say what the kernel needs for it. Rows that mean nothing any more are removed."""
        self._restore_policies(stored.get(stored_values.POLICIES, {}))
        actions: list[Action] = []
        steps = _Steps()
        for row, value in stored.get(stored_values.BINDINGS, {}).items():
            binding = stored_values.binding_from(value, now)
            if binding is None or binding.home_address not in self._nodes or self.tunnels.different(binding.tunnel):
                actions.append(Store(stored_values.BINDINGS, row, None))
                continue
            self._put(binding, steps)
        homes = list(dict.fromkeys(binding.home_address for binding in self.table))
        actions += self._restore_flows(stored.get(stored_values.FLOWS, {}))
        actions += steps.opened
        for home_address in homes:
            actions += self._forward(home_address)
            if self._is_on_home_link(home_address):
                actions.append(DefendAddress(home_address))
        return actions

    def _restore_policies(self, rows: Mapping[str, dict[str, Any]]) -> None:
        for home_address, value in rows.items():
            policy = stored_values.policy_from(value)
            if policy is not None and flow_rules.can_be_offered(policy):
                self._overrides[home_address] = policy

    def _restore_flows(self, rows: Mapping[str, dict[str, Any]]) -> Iterable[Action]:
        found = []
        for row, value in rows.items():
            home_address, _, bid = row.partition("|")
            flows = stored_values.flows_from(value)
            if flows is None or not bid.isdecimal() or not self.table.of(home_address):
                yield Store(stored_values.FLOWS, row, None)
            else:
                found.append((flows[0], home_address, int(bid), flows[1]))
        for order, home_address, carrier, said in sorted(found, key=lambda item: item[0]):
            self._policy(home_address).flows.replace(carrier, said)
            self._flow_order = max(self._flow_order, order)


def _same_way(one: Binding, other: Binding) -> bool:
    """Whether both lead packets along the same way."""
    return (
        one.tunnel.key == other.tunnel.key
        and one.tunnel.encapsulation is other.tunnel.encapsulation
        and (one.label, one.technology, one.reverse_tunnel) == (other.label, other.technology, other.reverse_tunnel)
    )


def _all_of(said: Forwarding) -> tuple[Forwarding, list[tuple[int, Encapsulation]]]:
    """Everything in it, also what does not count when tunnels are compared."""
    tunnels = [tunnel for tunnel, _ in said.shares]
    tunnels += [rule.tunnel for rule in said.rules if rule.tunnel is not None]
    return said, [(tunnel.bid, tunnel.encapsulation) for tunnel in (*tunnels, *said.accept)]


def _forget_flows(home_address: str, bid: int) -> Store:
    return Store(stored_values.FLOWS, stored_values.place(home_address, bid), None)
