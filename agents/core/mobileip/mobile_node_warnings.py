"""What a mobile node's flow policy asks for and nobody will do: said when it is set, and in the status."""

from agents.core.mobileip.flow_policy import BIDS_MAX, is_drop
from agents.core.mobileip.mobile_node_state import Node
from agents.core.mobileip.selection import StaticFlow


def flow_warnings(node: Node) -> list[str]:
    """One line for each reason."""
    if not node.flows:
        return []
    if not node.multipath:
        why = "multipath is off" if not node.config.multipath else "the home agent has refused several bindings (code 152)"
        return [f"the flow policy has no effect: {why}, so there is one tunnel for all flows"]
    result = []
    if not node.config.exchange_flows:
        result.append(
            "exchange_flows is off: the home agent is not told of the flow policy, packets to the home address follow its own; "
            "set exchange_flows, or give the home agent the same policy"
        )
    return result + [text for number, flow in enumerate(node.flows, 1) if (text := _of_flow(node, number, flow))]


def _of_flow(node: Node, number: int, flow: StaticFlow) -> str:
    known = {route.bid for route in node.routes.values()}
    labels = {route.config.label for route in node.routes.values()}
    if flow.selector.version != 4:
        return f"flow {number} selects IPv6, which these tunnels do not carry: it matches nothing"
    strange = [f"BID {bid}" for bid in flow.bids if bid not in known]
    strange += [f"label {label}" for label in flow.labels if label not in labels]
    named = len(flow.bids) + len(flow.labels)
    if strange and len(strange) == named and not is_drop(flow):
        return f"flow {number} names no interface of this node ({', '.join(strange)}): nobody will honour it"
    if strange:
        return f"flow {number}: no interface has {', '.join(strange)}"
    if len(flow.bids) > BIDS_MAX:
        return f"flow {number}: of its {len(flow.bids)} BIDs the first {BIDS_MAX} are told to the home agent"
    return ""
