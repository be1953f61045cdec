"""What an operator's flow policy asks for and nobody will do: said when it is set, and in the status."""

from collections.abc import Sequence
from typing import Final

from agents.core.mobileip.bindings import Binding
from agents.core.mobileip.selection import StaticFlow

WARNINGS_MAX: Final = 20
"""In a status."""


def warnings_of(policy: Sequence[StaticFlow], multipath: bool, bindings: Sequence[Binding]) -> list[str]:
    """One line for each reason. `multipath`: the home address may have several bindings."""
    leading = [flow for flow in policy if flow.bids or flow.labels]
    if not leading:
        return []
    if not multipath:
        return ["the flow policy has no effect: multipath is off for this mobile node, its binding has no BID"]
    if not bindings:
        return []
    bids, labels = {item.bid for item in bindings}, {item.label for item in bindings}
    if bids == {0}:
        return ["the flow policy has no effect: the mobile node has registered without the Multipath extension"]
    result = []
    for number, flow in enumerate(policy, 1):
        if (flow.bids or flow.labels) and not bids.intersection(flow.bids) and not labels.intersection(flow.labels):
            names = [f"BID {bid}" for bid in flow.bids] + [f"label {label}" for label in flow.labels]
            result.append(f"flow {number}: no binding with {' or '.join(names)} now")
    if any(not flow.bids for flow in leading):
        result.append("flows with labels only are not told to the mobile node: it needs the same policy (RFC 7629 section 4.1)")
    return result
