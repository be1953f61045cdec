"""What a home agent keeps across restarts, as JSON values: bindings, flow bindings, the operator's policies.

Tables: `bindings` and `flows` under "home address|key", `policies` under the home address, `replay` under "name|SPI",
`homes` under the name of the mobile node. What cannot be read is as if it had never been stored.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from agents.core.mobileip.actions import Encapsulation, Now, Tunnel
from agents.core.mobileip.bindings import Binding
from agents.core.mobileip.security import ntp_difference
from agents.core.mobileip.selection import StaticFlow
from agents.wire.errors import WireError
from agents.wire.mobileip import selectors
from agents.wire.mobileip.values import FlowBinding, Selector, SelectorFormat

Value: TypeAlias = dict[str, Any]
BINDINGS: Final = "bindings"
FLOWS: Final = "flows"
POLICIES: Final = "policies"
REPLAY: Final = "replay"
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError)
_VERSIONS: Final = {4: SelectorFormat.IPV4, 6: SelectorFormat.IPV6}


def place(home_address: str, key: object) -> str:
    """The key of a row."""
    return f"{home_address}|{key}"


def binding_value(binding: Binding) -> Value:
    """A binding as a row."""
    return {
        "home_address": binding.home_address,
        "bid": binding.bid,
        "care_of_address": binding.care_of_address,
        "local": binding.tunnel.local,
        "remote": binding.tunnel.remote,
        "remote_port": binding.tunnel.remote_port,
        "encapsulation": binding.tunnel.encapsulation.value,
        "lifetime_s": binding.lifetime_s,
        "expires_ntp": binding.expires_ntp,
        "label": binding.label,
        "technology": binding.technology,
        "co_located": binding.co_located,
        "reverse_tunnel": binding.reverse_tunnel,
        "broadcast": binding.broadcast,
    }


def binding_from(value: Value, now: Now) -> Binding | None:
    """The binding of a row; None: it has expired, or cannot be read."""
    try:
        expires_ntp = value["expires_ntp"]
        left_s = math.inf if expires_ntp is None else ntp_difference(expires_ntp, now.ntp) / (1 << 32)
        tunnel = Tunnel(
            value["local"], value["remote"], Encapsulation(value["encapsulation"]), value["remote_port"], bid=value["bid"]
        )
        return None if left_s <= 0 else Binding(
            value["home_address"], value["bid"], value["care_of_address"], tunnel, value["lifetime_s"],
            now.monotonic_s + left_s, expires_ntp, value["label"], value["technology"], value["co_located"],
            value["reverse_tunnel"], value["broadcast"],
        )  # fmt: skip
    except _UNREADABLE:
        return None


def flows_value(flows: Sequence[FlowBinding], order: int) -> Value:
    """A set of flow bindings as a row. `order`: sets with a higher one are tried first."""
    said = [
        {"action": flow.action, "bids": list(flow.bids), "format": flow.selector_format, "selector": flow.raw_selector.hex()}
        for flow in flows
    ]
    return {"order": order, "flows": said}


def flows_from(value: Value) -> tuple[int, tuple[FlowBinding, ...]] | None:
    """Order and flow bindings of a row; None: it cannot be read."""
    try:
        return int(value["order"]), tuple(map(_flow_from, value["flows"]))
    except (*_UNREADABLE, WireError):
        return None


def _flow_from(value: Mapping[str, Any]) -> FlowBinding:
    raw = bytes.fromhex(value["selector"])
    selector = selectors.decode(value["format"], raw)
    return FlowBinding(value["action"], tuple(value["bids"]), value["format"], raw, selector)


def policy_value(policy: Sequence[StaticFlow]) -> Value:
    """An operator's policy as a row."""
    return {
        "flows": [
            {"version": flow.selector.version, "selector": selectors.encode(flow.selector).hex(),
             "bids": list(flow.bids), "labels": list(flow.labels)}
            for flow in policy
        ]
    }  # fmt: skip


def policy_from(value: Value) -> tuple[StaticFlow, ...] | None:
    """The policy of a row; None: it cannot be read."""
    try:
        return tuple(StaticFlow(_selector(flow), tuple(flow["bids"]), tuple(flow["labels"])) for flow in value["flows"])
    except (*_UNREADABLE, WireError):
        return None


def _selector(flow: Mapping[str, Any]) -> Selector:
    return selectors.decode(_VERSIONS[flow["version"]], bytes.fromhex(flow["selector"]))
