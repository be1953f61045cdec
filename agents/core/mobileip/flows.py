"""Which flow takes which tunnel: the flow policy of a home address on the home agent (RFC 7629 sections 4.2 and 5.3).

Order, the first match wins:
  1. the operator's policy, as written;
  2. the flow bindings of the mobile node: the set that was accepted last comes first, each set in the order of its message.
     A set that a refresh repeats keeps its place; one with which a binding comes (back) goes first. Of two rules with the
     same selector only the first counts, so that of rules that contradict each other the newer one wins;
  3. what the selection policy adds, and its shares for the rest.

A set belongs to the binding whose request carried it and is replaced by the next set of that binding. It outlives the binding
while the home address has another one: its flows fall back to the next BID and return with the first. A rule none of
whose bindings is there drops its packets or counts as absent, as configured.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agents.core.mobileip.actions import Balancing, FlowRule, Forwarding, Tunnel
from agents.core.mobileip.bindings import Binding
from agents.core.mobileip.selection import NO_CHOICE, Choice, Path, Settings, StaticFlow, select
from agents.wire.mobileip import codec, selectors
from agents.wire.mobileip.values import FlowAction, FlowBinding, Selector, SelectorFormat

BID_MAX: Final = 254
"""0 and 255 are reserved (RFC 7629 section 4.1)."""
BIDS_MAX: Final = 8
"""Of a flow binding (RFC 7629 section 4.2)."""
OFFERED_MAX: Final = 48
OFFERED_OCTETS_MAX: Final = 1000
"""Of all flow bindings in a reply: with the rest it must fit into a message."""


def is_well_formed(flow: FlowBinding) -> bool:
    """Whether a flow binding may be in a request here: IPv4 selectors only, one BID with DROP, one to eight with FORWARD."""
    if flow.selector is None or flow.selector_format != SelectorFormat.IPV4:
        return False
    if flow.action == FlowAction.DROP:
        return len(flow.bids) == 1
    return flow.action == FlowAction.FORWARD and 1 <= len(flow.bids) <= BIDS_MAX


def bids_known(flows: Iterable[FlowBinding], known: Iterable[int]) -> bool:
    """Whether all BIDs that packets are to be forwarded to are known (RFC 7629 section 5.2); the BID of DROP is ignored."""
    bids = set(known)
    return all(bids.issuperset(flow.bids) for flow in flows if flow.action == FlowAction.FORWARD)


@dataclass(frozen=True)
class Label:
    """What the operator knows of the paths with an interface label (RFC 7629 section 4.1): for the selection policies."""

    cost: int = 0
    capacity_mbit: float | None = None


_UNKNOWN_LABEL: Final = Label()


@dataclass(slots=True)
class FlowSets:
    """The flow bindings of one home address, by the BID whose request carried them (0: one without BID)."""

    sets: dict[int, tuple[FlowBinding, ...]] = field(default_factory=dict)
    """The one that was accepted last is last."""

    def replace(self, bid: int, flows: tuple[FlowBinding, ...], *, comes: bool = False) -> bool:
        """The set that a request carried; False: it is there already. `comes`: the binding is a new one.

        While a binding is away the others may carry sets that do not name it: its own must come before them when it returns.
        """
        if self.sets.get(bid) == flows and not comes:
            return False
        self.sets.pop(bid, None)
        self.sets[bid] = flows
        return True

    def keep_only(self, bid: int) -> list[int]:
        """Forget the other sets; their BIDs."""
        gone = [other for other in self.sets if other != bid]
        for other in gone:
            del self.sets[other]
        return gone

    def count_without(self, bid: int) -> int:
        """Flow bindings in the other sets."""
        return sum(len(flows) for other, flows in self.sets.items() if other != bid)

    def ordered(self) -> list[FlowBinding]:
        """All, in the order in which they are tried."""
        return [flow for flows in reversed(self.sets.values()) for flow in flows]


@dataclass(slots=True)
class Policy:
    """All that decides on the forwarding of one home address, apart from its bindings."""

    selection: str = "per-flow"
    settings: Settings = field(default_factory=Settings)
    operator: tuple[StaticFlow, ...] = ()
    labels: Mapping[int, Label] = field(default_factory=dict)
    flows: FlowSets = field(default_factory=FlowSets)
    choice: Choice = NO_CHOICE
    """The last one, for hysteresis."""


def forwarding(home_address: str, bindings: Sequence[Binding], policy: Policy) -> Forwarding:
    """The forwarding of a home address with these bindings, in the order in which they were made.

    Without BIDs the newest binding has all packets: RFC 5944 would have them copied to each simultaneous binding.
    """
    if not bindings:
        policy.choice = NO_CHOICE
        return Forwarding(home_address)
    used = [binding for binding in bindings if binding.bid] or [bindings[-1]]
    policy.choice = choice = select(policy.selection, [_path(item, policy) for item in used], policy.settings, policy.choice)
    rules = [*_operator_rules(policy, used), *_negotiated_rules(policy, used), *choice.rules]
    return Forwarding(
        home_address,
        _without_shadowed(rules),
        _merged(choice.shares),
        choice.balancing if choice.shares else Balancing.PER_FLOW,
        tuple(dict.fromkeys(binding.tunnel for binding in bindings if binding.reverse_tunnel)),
    )


def _path(binding: Binding, policy: Policy) -> Path:
    known = policy.labels.get(binding.label, _UNKNOWN_LABEL)
    return Path(binding.bid, binding.tunnel, binding.label, binding.technology, known.cost, known.capacity_mbit)


def _operator_rules(policy: Policy, bindings: Sequence[Binding]) -> Iterable[FlowRule]:
    by_bid = {binding.bid: binding.tunnel for binding in bindings}
    by_label: dict[int, Tunnel] = {}
    for binding in sorted(bindings, key=lambda item: item.bid):
        by_label.setdefault(binding.label, binding.tunnel)
    for flow in policy.operator:
        if not flow.bids and not flow.labels:
            yield FlowRule(flow.selector, None)
            continue
        tunnel = _first(flow.bids, by_bid.get) or _first(flow.labels, by_label.get)
        if tunnel is not None or policy.settings.lost_flows_dropped:
            yield FlowRule(flow.selector, tunnel)


def _negotiated_rules(policy: Policy, bindings: Sequence[Binding]) -> Iterable[FlowRule]:
    by_bid = {binding.bid: binding.tunnel for binding in bindings}
    for flow in policy.flows.ordered():
        if flow.selector is None:
            continue
        if flow.action == FlowAction.DROP:
            yield FlowRule(flow.selector, None)
            continue
        tunnel = _first(flow.bids, by_bid.get)
        if tunnel is not None or policy.settings.lost_flows_dropped:
            yield FlowRule(flow.selector, tunnel)


def _first(names: Iterable[int], tunnel_of: Callable[[int], Tunnel | None]) -> Tunnel | None:
    return next((tunnel for tunnel in map(tunnel_of, names) if tunnel is not None), None)


def _without_shadowed(rules: Iterable[FlowRule]) -> tuple[FlowRule, ...]:
    """Of rules with the same selector the first."""
    kept: dict[Selector, FlowRule] = {}
    for rule in rules:
        kept.setdefault(replace(rule.selector, explicit_end=frozenset()), rule)
    return tuple(kept.values())


def _merged(shares: Iterable[tuple[Tunnel, int]]) -> tuple[tuple[Tunnel, int], ...]:
    """Two BIDs may have one care-of address, and so one tunnel."""
    weights: dict[Tunnel, int] = {}
    for tunnel, weight in shares:
        weights[tunnel] = weights.get(tunnel, 0) + weight
    return tuple(weights.items())


def offered(operator: Sequence[StaticFlow], bid: int) -> tuple[FlowBinding, ...]:
    """The operator's flows as a reply says them: those with BIDs, and those that are dropped. `bid` fills the octet of DROP.

    Flows with labels only are not said: labels are a matter of static policies on both ends (RFC 7629 section 4.1).
    """
    said = (flow for flow in operator if flow.bids or not flow.labels)
    return tuple(
        selectors.flow_binding(FlowAction.FORWARD if flow.bids else FlowAction.DROP, flow.bids or (bid,), flow.selector)
        for flow in said
    )


def can_be_offered(operator: Sequence[StaticFlow]) -> bool:
    """Whether `check_operator_policy` passes."""
    try:
        check_operator_policy(operator)
    except ValueError:
        return False
    return True


def check_operator_policy(operator: Sequence[StaticFlow]) -> None:
    """Raises ValueError for flows that cannot be said in a reply: IPv6, more than eight BIDs, too many."""
    if any(not 1 <= bid <= BID_MAX for flow in operator for bid in flow.bids):
        raise ValueError(f"the BIDs of a flow are 1 to {BID_MAX}")
    flows = offered(operator, 1)
    wrong = next((flow for flow in flows if not is_well_formed(flow)), None)
    if wrong is not None or any(flow.selector.version != 4 for flow in operator):
        raise ValueError("an operator's flow has an IPv4 selector and at most eight BIDs")
    if len(flows) > OFFERED_MAX:
        raise ValueError(f"{len(flows)} flows, at most {OFFERED_MAX} fit into a reply")
    octets = sum(len(codec.encode_extension(flow)) for flow in flows)
    if octets > OFFERED_OCTETS_MAX:
        raise ValueError(f"the operator's flows take {octets} octets in a reply, at most {OFFERED_OCTETS_MAX} are possible")
