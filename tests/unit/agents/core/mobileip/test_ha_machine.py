"""Random histories: the home agent against a dictionary, and against a kernel that complains of actions in a wrong order."""

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.core.mobileip.actions import (
    Action,
    CloseTunnel,
    DefendAddress,
    Encapsulation,
    Forwarding,
    OpenTunnel,
    ReleaseAddress,
)
from agents.core.mobileip.draining import DRAIN_S
from agents.wire.mobileip.values import FlowAction, FlowBinding, RequestFlag, UdpTunnelRequest
from tests.unit.agents.core.mobileip.ha_parts import (
    CO_LOCATED,
    HOME,
    HTTP,
    HTTPS,
    VOICE,
    Bench,
    config,
    drop,
    forward,
    multipath,
    node,
)

OTHER = "10.64.0.51"
HOMES = st.sampled_from((HOME, OTHER))
CARE_OFS = st.sampled_from(("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.4.0.1"))
BIDS = st.integers(1, 3)
LIFETIMES = st.integers(1, 60)
SELECTORS = st.sampled_from((HTTP, HTTPS, VOICE))
FLOWS = st.lists(
    st.one_of(
        st.builds(lambda selector, bids: forward(selector, *bids), SELECTORS, st.lists(BIDS, min_size=1, max_size=3)),
        st.builds(drop, SELECTORS),
    ),
    max_size=2,
)


@dataclass
class Kernel:
    """Carries actions out and complains."""

    tunnels: dict[tuple[str, str, int], Encapsulation] = field(default_factory=dict)
    forwarding: dict[str, Forwarding] = field(default_factory=dict)
    defended: set[str] = field(default_factory=set)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, OpenTunnel):
                assert action.tunnel.key not in self.tunnels, "opened twice"
                self.tunnels[action.tunnel.key] = action.tunnel.encapsulation
            elif isinstance(action, CloseTunnel):
                assert not any(action.tunnel.key in keys_of(item) for item in self.forwarding.values()), "in use"
                assert self.tunnels.pop(action.tunnel.key) is action.tunnel.encapsulation
            elif isinstance(action, Forwarding):
                assert keys_of(action) <= set(self.tunnels), "leads to a tunnel that is not open"
                self.forwarding[action.home_address] = action
            elif isinstance(action, DefendAddress):
                assert action.address not in self.defended
                self.defended.add(action.address)
            elif isinstance(action, ReleaseAddress):
                self.defended.remove(action.address)


def keys_of(item: Forwarding) -> set[tuple[str, str, int]]:
    tunnels = [tunnel for tunnel, _ in item.shares] + [rule.tunnel for rule in item.rules if rule.tunnel] + list(item.accept)
    return {tunnel.key for tunnel in tunnels}


class HomeAgentMachine(RuleBasedStateMachine):
    """The model: home -> BID (0: none) -> care-of address and end; flow sets in the order of their acceptance."""

    def __init__(self) -> None:
        super().__init__()
        both = frozenset((Encapsulation.IP_IN_IP, Encapsulation.GRE))
        self.bench = Bench(config(node(), node(home_address=OTHER), encapsulations=both))
        self.kernel = Kernel()
        self.model: dict[str, dict[int, tuple[str, float]]] = {HOME: {}, OTHER: {}}
        self.drained: dict[tuple[str, str, int], float] = {}
        """Tunnels without binding, since when."""
        self.flows: dict[str, dict[int, tuple[FlowBinding, ...]]] = {HOME: {}, OTHER: {}}

    def send(self, home: str, care_of: str, *extensions: Any, **fields: Any) -> int:
        reply = self.bench.register(care_of, *extensions, home_address=home, **fields)
        self.kernel.perform(self.bench.actions)
        return reply.code

    def forget_flows(self) -> None:
        for home, bindings in self.model.items():
            if not bindings:
                self.flows[home] = {}

    @rule(
        home=HOMES, care_of=CARE_OFS, bid=BIDS, lifetime_s=LIFETIMES, flows=FLOWS,
        how=st.sampled_from(("", "bulk", "overwrite")), nat=st.sampled_from((0, 0, 5001, 5002)),
    )  # fmt: skip
    def register(
        self, home: str, care_of: str, bid: int, lifetime_s: int, flows: list[FlowBinding], how: str, nat: int
    ) -> None:
        extensions: list[Any] = [multipath(bid, **({how: True} if how else {})), *flows]
        sent: dict[str, Any] = {"lifetime_s": lifetime_s}
        if nat:
            extensions.append(UdpTunnelRequest())
            sent |= {"source": "192.0.2.1" if home == HOME else "192.0.2.2", "port": nat + 10 * bid}
        code = self.send(home, care_of, *extensions, **sent)
        held = self.model[home]
        kept = {} if how == "overwrite" else {key: value for key, value in held.items() if key}
        known = set(kept) | {bid}
        wanted = {name for flow in flows if flow.action == FlowAction.FORWARD for name in flow.bids}
        if code == 139:
            return
        assert code == (0 if wanted <= known else 153)
        if code:
            return
        end_s = self.bench.now_s + lifetime_s
        new = bid not in held
        if how == "bulk":
            kept = {key: (value[0], end_s) for key, value in kept.items()}
        self.model[home] = kept | {bid: (care_of, end_s)}
        sets = self.flows[home]
        if how == "overwrite":
            sets = {key: value for key, value in sets.items() if key == bid}
        if flows and (new or sets.get(bid) != tuple(flows)):
            sets = {key: value for key, value in sets.items() if key != bid} | {bid: tuple(flows)}
        self.flows[home] = sets

    @rule(home=HOMES, care_of=CARE_OFS, lifetime_s=LIFETIMES, gre=st.booleans())
    def register_plainly(self, home: str, care_of: str, lifetime_s: int, gre: bool) -> None:
        flags = CO_LOCATED | (RequestFlag.GRE if gre else RequestFlag(0))
        code = self.send(home, care_of, lifetime_s=lifetime_s, flags=flags)
        if code == 139:
            return
        assert code == 0
        self.model[home] = {0: (care_of, self.bench.now_s + lifetime_s)}
        self.flows[home] = {}

    @rule(home=HOMES, bid=BIDS, bulk=st.booleans())
    def deregister(self, home: str, bid: int, bulk: bool) -> None:
        assert self.send(home, "10.1.0.1", multipath(bid, bulk=bulk), lifetime_s=0) == 0
        self.model[home] = {} if bulk else {key: value for key, value in self.model[home].items() if key != bid}
        self.forget_flows()

    @rule(home=HOMES)
    def return_home(self, home: str) -> None:
        assert self.send(home, home, lifetime_s=0) == 0
        self.model[home] = {}
        self.forget_flows()

    @rule(step_s=st.integers(1, 40))
    def wait(self, step_s: int) -> None:
        self.kernel.perform(self.bench.advance(step_s))
        for home, bindings in self.model.items():
            self.model[home] = {key: value for key, value in bindings.items() if value[1] > self.bench.now_s}
        self.forget_flows()

    @rule()
    def restart(self) -> None:
        self.kernel = Kernel()
        self.kernel.perform(self.bench.restart())

    @invariant()
    def same_bindings(self) -> None:
        held: dict[str, dict[int, tuple[str, float]]] = {HOME: {}, OTHER: {}}
        for item in self.bench.agent.bindings():
            held[item["home_address"]][item["bid"]] = item["care_of_address"], item["expires_s"]
        for home, expected in self.model.items():
            assert {bid: value[0] for bid, value in held[home].items()} == {bid: value[0] for bid, value in expected.items()}
            assert all(math.isclose(held[home][bid][1], value[1]) for bid, value in expected.items())

    @invariant()
    def the_kernel_agrees(self) -> None:
        bindings = self.bench.agent.bindings()
        ends = {(item["local"], item["remote"], item["remote_port"]): item["encapsulation"] for item in bindings}
        assert {key: value.value for key, value in self.kernel.tunnels.items() if key in ends} == ends
        now_s = self.bench.now_s
        self.drained = {key: self.drained.get(key, now_s) for key in self.kernel.tunnels if key not in ends}
        accepted = {tunnel.key for item in self.kernel.forwarding.values() for tunnel in item.accept}
        for key, since_s in self.drained.items():
            assert now_s < since_s + DRAIN_S, "drained for too long"
            assert key in accepted, "open for nothing"
        assert self.kernel.defended == {home for home, held in self.model.items() if held}
        for home, held in self.model.items():
            shares = self.kernel.forwarding.get(home, Forwarding(home)).shares
            own = {(item["local"], item["remote"], item["remote_port"]) for item in bindings if item["home_address"] == home}
            assert {tunnel.key for tunnel, _ in shares} == own
            assert sum(weight for _, weight in shares) == len(held)

    @invariant()
    def flows_go_where_they_should(self) -> None:
        of_bid = {
            (item["home_address"], item["bid"]): (item["local"], item["remote"], item["remote_port"])
            for item in self.bench.agent.bindings()
        }
        for home, sets in self.flows.items():
            expected = {}
            for flow in (flow for flows in reversed(sets.values()) for flow in flows):
                there = [of_bid[home, bid] for bid in flow.bids if (home, bid) in of_bid]
                if flow.action == FlowAction.DROP:
                    expected.setdefault(flow.selector, None)
                elif there:
                    expected.setdefault(flow.selector, there[0])
            rules = self.kernel.forwarding.get(home, Forwarding(home)).rules
            assert {rule.selector: rule.tunnel.key if rule.tunnel else None for rule in rules} == expected


TestHomeAgent = HomeAgentMachine.TestCase
TestHomeAgent.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
