"""The flow policy of a mobile node: what it tells the home agent, and the rules of both ends (RFC 7629 sections 4.2, 5.1).

Selectors are written in the direction from CN to MN everywhere; whoever installs rules at the mobile node mirrors them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from agents.core.mobileip.actions import FlowRule, Tunnel
from agents.core.mobileip.selection import StaticFlow
from agents.wire.errors import WireError
from agents.wire.mobileip import selectors
from agents.wire.mobileip.values import FlowAction, FlowBinding, SelectorFormat

BIDS_MAX: Final = 8
"""Binding identifiers that one Flow Binding extension carries (section 4.2)."""


def to_bindings(flows: Iterable[StaticFlow], known: Collection[int], own_bid: int) -> tuple[FlowBinding, ...]:
    """What a request says of the policy: only of BIDs that the home agent knows, or it would refuse with 153.

    A flow none of whose paths is known is left out. DROP carries exactly one BID, whose value nobody reads.
    """
    result = []
    for flow in flows:
        if is_drop(flow):
            result.append(selectors.flow_binding(FlowAction.DROP, (own_bid,), flow.selector))
            continue
        bids = tuple(bid for bid in flow.bids if bid in known)[:BIDS_MAX]
        if bids:
            result.append(selectors.flow_binding(FlowAction.FORWARD, bids, flow.selector))
    return tuple(result)


def is_drop(flow: StaticFlow) -> bool:
    """A line that names no path drops its packets."""
    return not flow.bids and not flow.labels


def by_bid(flows: Iterable[StaticFlow], labels: Mapping[int, int]) -> tuple[StaticFlow, ...]:
    """The lines with their labels replaced by BIDs, the smallest BID of a label first. `labels`: of each BID."""
    result = []
    for flow in flows:
        bids = list(flow.bids)
        for wanted in flow.labels:
            bids += [bid for bid in sorted(labels) if labels[bid] == wanted and bid not in bids]
        if bids or is_drop(flow):
            result.append(StaticFlow(flow.selector, tuple(bids)))
    return tuple(result)


def to_rules(bindings: Iterable[FlowBinding], usable: Mapping[int, Tunnel], lost_dropped: bool = False) -> tuple[FlowRule, ...]:
    """Forwarding of flow bindings: each on the first of its BIDs that is usable (section 4.2, figure 6).

    lost_dropped: a flow none of whose paths is usable is dropped; else it is balanced like flows without a binding.
    """
    result = []
    for binding in bindings:
        if binding.selector is None:
            continue
        there = [usable[bid] for bid in binding.bids if bid in usable]
        if binding.action == FlowAction.DROP:
            result.append(FlowRule(binding.selector, None))
        elif there:
            result.append(FlowRule(binding.selector, there[0]))
        elif lost_dropped:
            result.append(FlowRule(binding.selector, None))
    return tuple(result)


def why_unacceptable(binding: FlowBinding) -> str:
    """Why a flow binding that the home agent has sent cannot be honoured; "" when it can (checklist 13 to 16)."""
    if binding.action not in (FlowAction.DROP, FlowAction.FORWARD):
        return "action is not known"
    if not 1 <= len(binding.bids) <= BIDS_MAX:
        return "number of binding identifiers"
    if binding.action == FlowAction.DROP and len(binding.bids) != 1:
        return "drop with more than one binding identifier"
    if binding.selector_format == SelectorFormat.RESERVED:
        return "selector format 0"
    if binding.selector is None:
        return "selector cannot be read"
    return ""


def merged(first: Sequence[FlowBinding], second: Sequence[FlowBinding]) -> tuple[FlowBinding, ...]:
    """Both, without those of `second` whose flows `first` names exactly."""
    named = {binding.selector for binding in first}
    return (*first, *(binding for binding in second if binding.selector not in named))


def checked(flows: Iterable[StaticFlow]) -> tuple[StaticFlow, ...]:
    """The lines, when each can be said on the wire. Raises ValueError for one that cannot."""
    result = tuple(flows)
    for flow in result:
        try:
            selectors.encode(flow.selector)
        except WireError as error:
            raise ValueError(f"flow {flow.selector}: {error}") from None
        if any(not 1 <= bid <= 254 for bid in flow.bids):
            raise ValueError(f"flow {flow.selector}: binding identifiers are 1 to 254")
    return result
