"""Path selection: from what is known of the paths to rules, shares and the way of balancing; of mobile node and home agent.

Every policy is a pure function of the paths, the settings and its own last choice; the last choice is there for hysteresis
only. `SELECTIONS` names them. Negotiated flow bindings come before what a policy chooses (RFC 7629 section 6).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agents.core.mobileip.actions import Balancing, FlowRule, Tunnel
from agents.wire.mobileip.values import Selector

WEIGHT_MAX: Final = 100
"""Shares are whole numbers; the largest is at most this."""


@dataclass(frozen=True, slots=True)
class Path:
    """A usable path: its tunnel and what is known of it. None: not measured, or not configured."""

    bid: int
    tunnel: Tunnel
    label: int = 1
    technology: int = 1
    cost: int = 0
    """Smaller is preferred."""
    capacity_mbit: float | None = None
    """As configured."""
    measured_mbit: float | None = None
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    loss: float | None = None
    """Fraction of the latest probes without an answer, 0 to 1."""
    answered_s: float | None = None
    """Monotonic time of the first answer to a probe since the path is up."""


@dataclass(frozen=True, slots=True)
class StaticFlow:
    """A line of a static policy: packets that match go to the first path named that is there.

    `bids` and `labels` are preferences in order; both empty: the packets are dropped.
    """

    selector: Selector
    bids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the policies may be told."""

    flows: tuple[StaticFlow, ...] = ()
    """Of the policies `static` and `label`."""
    lost_flows_dropped: bool = False
    """What becomes of a flow none of whose paths is there: dropped, or treated like one without a line."""
    hysteresis_ms: float = 5.0
    """`lowest-rtt`, `compound`: another path must be better by at least so much,"""
    hysteresis_fraction: float = 0.1
    """and by this fraction of the present one's value."""
    jitter_weight: float = 2.0
    """`compound`: milliseconds for each millisecond of jitter."""
    loss_weight_ms: float = 1000.0
    """`compound`: milliseconds for a loss of 1."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy wants. `preferred`: the BID of the path it has settled on, for hysteresis (0: none)."""

    rules: tuple[FlowRule, ...] = ()
    shares: tuple[tuple[Tunnel, int], ...] = ()
    balancing: Balancing = Balancing.PER_FLOW
    preferred: int = 0


Selection: TypeAlias = Callable[[Sequence[Path], Settings, Choice], Choice]

DEFAULT_SETTINGS: Final = Settings()
NO_CHOICE: Final = Choice()


def per_flow(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """Equal-cost tunnels, each flow on one of them (RFC 7629 section 6, recommended)."""
    return Choice(shares=_equal(paths))


def per_packet(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """Equal-cost tunnels, each packet on the next (RFC 7629 section 6); packets of a flow overtake each other."""
    return Choice(shares=_equal(paths), balancing=Balancing.PER_PACKET)


def round_robin(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """Each new flow on the next tunnel."""
    return Choice(shares=_equal(paths), balancing=Balancing.ROUND_ROBIN)


def weighted(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """Flows in proportion to capacity: the measured one, else the configured one; a path of unknown capacity gets the mean."""
    known = {path.bid: value for path in paths if (value := _capacity_mbit(path)) is not None}
    if not known:
        return per_flow(paths, settings, last)
    mean = math.fsum(known.values()) / len(known)
    values = [known.get(path.bid, mean) for path in paths]
    return Choice(shares=tuple(zip((path.tunnel for path in paths), _weights(values), strict=True)))


def priority(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """All on the cheapest path; of equally cheap ones, all of them."""
    cheapest = min((path.cost for path in paths), default=0)
    chosen = [path for path in paths if path.cost == cheapest]
    return Choice(shares=_equal(chosen), preferred=chosen[0].bid if chosen else 0)


def lowest_rtt(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """All on the path with the shortest round trip, with hysteresis."""
    return _settle({path.bid: path.rtt_ms for path in paths}, paths, settings, last)


def compound(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """All on the path with the best sum of delay, weighted jitter and weighted loss, with hysteresis."""
    return _settle({path.bid: compound_ms(path, settings) for path in paths}, paths, settings, last)


def first_to_respond(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """All on the path whose first probe was answered first; it keeps the traffic while it is there."""
    kept = [path for path in paths if path.bid == last.preferred]
    answered = [path for path in paths if path.answered_s is not None]
    chosen = kept or sorted(answered, key=lambda path: (path.answered_s, path.bid))[:1]
    return _on_one(chosen[0]) if chosen else per_flow(paths, settings, last)


def static(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """The configured flows by their BIDs, everything else balanced per flow (RFC 7629 section 6)."""
    return _static(paths, settings, {path.bid: path for path in reversed(paths)}, lambda flow: flow.bids)


def label(paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """The configured flows by their interface labels ("Blue"), everything else per flow (RFC 7629 section 4.1, If-Label)."""
    return _static(paths, settings, {path.label: path for path in reversed(paths)}, lambda flow: flow.labels)


SELECTIONS: Final[Mapping[str, Selection]] = {
    "static": static,
    "label": label,
    "per-flow": per_flow,
    "per-packet": per_packet,
    "round-robin": round_robin,
    "weighted": weighted,
    "priority": priority,
    "lowest-rtt": lowest_rtt,
    "first-to-respond": first_to_respond,
    "compound": compound,
}
"""The policies by the names that configurations use."""


def select(name: str, paths: Sequence[Path], settings: Settings = DEFAULT_SETTINGS, last: Choice = NO_CHOICE) -> Choice:
    """What the policy `name` chooses. The order of `paths` does not matter. Raises KeyError for a name that is not there."""
    return SELECTIONS[name](sorted(paths, key=lambda path: path.bid), settings, last)


def compound_ms(path: Path, settings: Settings = DEFAULT_SETTINGS) -> float | None:
    """The compound metric in milliseconds; None: the path has not been measured."""
    if path.rtt_ms is None:
        return None
    return path.rtt_ms + settings.jitter_weight * (path.jitter_ms or 0.0) + settings.loss_weight_ms * (path.loss or 0.0)


@dataclass(slots=True)
class Measurement:
    """What the probes of one path say: smoothed as TCP does it (RFC 6298 section 2), loss over the latest probes."""

    window: int = 20
    """Probes over which loss is counted."""
    rtt_ms: float | None = None
    jitter_ms: float = 0.0
    answered_s: float | None = None
    failures: int = 0
    """Probes without an answer since the last answer."""
    heard_s: float | None = None
    """Monotonic time of the last answer."""
    failing_since_s: float | None = None
    """When the first of the failures was known."""
    _answers: list[bool] = field(default_factory=list)

    @property
    def loss(self) -> float | None:
        """Fraction of the latest probes without an answer."""
        return None if not self._answers else self._answers.count(False) / len(self._answers)

    def add(self, rtt_ms: float | None, now_s: float) -> None:
        """One probe was answered after `rtt_ms`, or (None) not at all. What is no time is no answer."""
        answered = rtt_ms is not None and math.isfinite(rtt_ms) and rtt_ms >= 0
        self._answers = [*self._answers, answered][-self.window :]
        if rtt_ms is None or not answered:
            self.failing_since_s = now_s if not self.failures else self.failing_since_s
            self.failures += 1
            return
        self.failures, self.heard_s, self.failing_since_s = 0, now_s, None
        self.answered_s = now_s if self.answered_s is None else self.answered_s
        if self.rtt_ms is None:
            self.rtt_ms, self.jitter_ms = rtt_ms, rtt_ms / 2
            return
        self.jitter_ms += (abs(rtt_ms - self.rtt_ms) - self.jitter_ms) / 4
        self.rtt_ms += (rtt_ms - self.rtt_ms) / 8


def _equal(paths: Sequence[Path]) -> tuple[tuple[Tunnel, int], ...]:
    return tuple((path.tunnel, 1) for path in paths)


def _on_one(path: Path) -> Choice:
    return Choice(shares=((path.tunnel, 1),), preferred=path.bid)


def _capacity_mbit(path: Path) -> float | None:
    value = path.measured_mbit if path.measured_mbit is not None else path.capacity_mbit
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _weights(values: Sequence[float]) -> list[int]:
    """Whole numbers in about the same proportion, none of them 0."""
    largest = max(values)
    weights = [max(1, round(WEIGHT_MAX * value / largest)) for value in values]
    divisor = math.gcd(*weights)
    return [weight // divisor for weight in weights]


def _settle(values: Mapping[int, float | None], paths: Sequence[Path], settings: Settings, last: Choice) -> Choice:
    """The path with the smallest value; the present one stays unless another is better by the hysteresis."""
    by_bid = {path.bid: path for path in paths}
    known = {bid: value for bid, value in values.items() if value is not None}
    if not known:
        kept = by_bid.get(last.preferred)
        return _on_one(kept) if kept is not None else per_flow(paths, settings, last)
    best = min(known, key=lambda bid: (known[bid], bid))
    present = known.get(last.preferred)
    if present is not None:
        margin = max(settings.hysteresis_ms, settings.hysteresis_fraction * present)
        if present - known[best] < margin:
            best = last.preferred
    return _on_one(by_bid[best])


def _static(
    paths: Sequence[Path], settings: Settings, index: Mapping[int, Path], names: Callable[[StaticFlow], tuple[int, ...]]
) -> Choice:
    rules = []
    for flow in settings.flows:
        if not flow.bids and not flow.labels:
            rules.append(FlowRule(flow.selector, None))
            continue
        there = [index[name] for name in names(flow) if name in index]
        if there:
            rules.append(FlowRule(flow.selector, there[0].tunnel))
        elif names(flow) and settings.lost_flows_dropped:
            rules.append(FlowRule(flow.selector, None))
    return Choice(tuple(rules), _equal(paths))
