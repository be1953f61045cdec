"""What can happen to the network during a run, and the timeline that makes it happen on time.

Every kind of event is one function with the names and default values of its parameters beside it. An event that has a
beginning and an end of its own (a planned handover) becomes two entries of the timeline.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments import crash
from experiments.clock import now_ns, wall_ns
from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.model import Event
from experiments.testbed import Testbed
from topologies.mobile import MobileTopo


@dataclass(frozen=True)
class Context:
    """What an event may act on."""

    bed: Testbed
    mechanism: Mechanism


Action = Callable[[Context, str, Mapping[str, Any]], str | None]
"""Performs the event on a target with parameters; may return a note for the timeline."""


class _Required:
    def __repr__(self) -> str:
        return "..."


REQUIRED = _Required()
"""Default of a parameter that must be given."""


@dataclass(frozen=True)
class Kind:
    """One kind of event."""

    name: str
    target: str
    """What `target` names: "interface" (of the MN, or of a mobile CN), "mn-interface" (of the MN: its mechanism is told),
    "link" (either end of an access link), "node", "router" (access or home), "middlebox"."""
    parameters: Mapping[str, Any]
    """Names and default values; REQUIRED has none."""
    summary: str
    perform: Action
    begin: Callable[[Context, str], None] | None = None
    """What is done of all events of one moment before the rest of any: hosts that move at once lose their networks at once."""


KINDS: dict[str, Kind] = {}


def _kind(
    name: str, target: str, begin: Callable[[Context, str], None] | None = None, **parameters: Any
) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        KINDS[name] = Kind(name, target, parameters, summary, function, begin)
        return function

    return register


# -- losing and regaining a network -----------------------------------------------------------------------------------


@_kind("carrier-loss", "interface")
def _carrier_loss(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """NO-CARRIER: the radio is gone, the interface stays administratively up, its routes stay (linkdown)."""
    context.bed.link_of(target).set_carrier(False, end=context.bed.end_of(target))


@_kind("carrier-return", "interface")
def _carrier_return(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The radio is back."""
    context.bed.link_of(target).set_carrier(True, end=context.bed.end_of(target))


@_kind("interface-down", "interface")
def _interface_down(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Administratively down: the kernel removes its routes."""
    context.bed.run(context.bed.owner_of(target), ["ip", "link", "set", target, "down"])


@_kind("interface-up", "interface")
def _interface_up(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Administratively up again."""
    context.bed.run(context.bed.owner_of(target), ["ip", "link", "set", target, "up"])


@_kind("blackhole-on", "link", direction="both")
def _blackhole_on(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Packets vanish, every interface stays up: nobody is told."""
    context.bed.link_of(target).set_blackhole(True, direction=parameters["direction"])


@_kind("blackhole-off", "link", direction="both")
def _blackhole_off(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Packets pass again."""
    context.bed.link_of(target).set_blackhole(False, direction=parameters["direction"])


@_kind("address-remove", "interface", another=True)
def _address_remove(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The interface loses its addresses; with `another` the next ones will differ."""
    bed = context.bed
    bed.owner_of(target).netconf("release", interface=target, other=bool(parameters["another"]))
    if parameters["another"]:
        bed.node(bed.path_of(target).access_router).serve_other_address(bed.topo.mac(target))


@_kind("address-assign", "interface")
def _address_assign(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The interface asks for addresses again (DHCP, router solicitation)."""
    context.bed.owner_of(target).netconf("acquire", interface=target)


@_kind("interface-appears", "interface")
def _interface_appears(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """An interface that did not exist so far is plugged in."""
    context.bed.link_of(target).set_present(True)


@_kind("interface-vanishes", "interface")
def _interface_vanishes(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The interface is unplugged: it does not exist any more."""
    context.bed.link_of(target).set_present(False)


# -- moving -----------------------------------------------------------------------------------------------------------


def _detach(context: Context, target: str) -> None:
    """Carrier lost."""
    context.bed.link_of(target).set_carrier(False, end=context.bed.end_of(target))


def _move(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """After `_detach`: joined to another attachment point, carrier back."""
    bed = context.bed
    bed.attach(target, parameters["to"])
    bed.link_of(target).set_carrier(True, end=bed.end_of(target))
    return f"now at {parameters['to']}"


@_kind("reattach", "interface", _detach, to=REQUIRED)
def _reattach(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The interface leaves its access router and attaches to another one: a new prefix by DHCP or RA."""
    return _move(context, target, parameters)


@_kind("l2-roam", "interface", _detach, to=REQUIRED)
def _l2_roam(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The interface moves to another port of the same bridge: same subnet, same addresses."""
    return _move(context, target, parameters)


@_kind("planned-handover", "mn-interface", to=REQUIRED, overlap_s=1.0)
def _planned_handover(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The mechanism is told; after `overlap_s` with both networks the old interface goes administratively down."""
    context.mechanism.handover_begins(context.bed, target, parameters["to"])
    return f"from {target} to {parameters['to']}"


@_kind("prefer", "mn-interface", over=REQUIRED)
def _prefer(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The mechanism is told to move the traffic to this interface; nothing is taken away."""
    context.mechanism.handover_begins(context.bed, parameters["over"], target)
    return f"{target} over {parameters['over']}"


@_kind("break-before-make", "mn-interface", to=REQUIRED)
def _break_before_make(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The mechanism is told to give up this interface at once and to go on over another one; the network stays as it is."""
    context.mechanism.break_before_make(context.bed, target, parameters["to"])
    return f"from {target} to {parameters['to']}"


# -- the network changes ----------------------------------------------------------------------------------------------


@_kind("renumber", "router", prefix4=None, prefix6=None)
def _renumber(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The access network gets other prefixes; the old IPv6 prefix is deprecated."""
    context.bed.node(target).renumber(prefix4=parameters["prefix4"], prefix6=parameters["prefix6"])


@_kind("nat-rebind", "middlebox")
def _nat_rebind(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The NAT forgets its mappings: the next packet of a flow gets another port."""
    context.bed.node(target).rebind()


@_kind("profile-change", "link", direction="both", profile=None, rate_mbit=None, delay_ms=None, jitter_ms=None, loss=None)
def _profile_change(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """Rate, delay, jitter or loss of a link change, or it takes another named profile."""
    link = context.bed.link_of(target)
    fields = {k: v for k, v in parameters.items() if k not in ("direction", "profile") and v is not None}
    new = replace(context.bed.profile_of(target, parameters["profile"]), **fields)
    link.set_profile(new, direction=parameters["direction"])
    return str(new.describe())


# Receiver sensitivity of 802.11n at 20 MHz (IEEE 802.11-2012, table 20-23) and the data rate of that modulation, one stream.
_SENSITIVITY_DBM_TO_MBIT = (
    (-64, 65.0),
    (-65, 58.5),
    (-66, 52.0),
    (-70, 39.0),
    (-74, 26.0),
    (-77, 19.5),
    (-79, 13.0),
    (-82, 6.5),
)


@_kind("signal-strength", "mn-interface", dbm=REQUIRED)
def _signal_strength(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The received signal changes: the link's rate follows 802.11n's sensitivity table, below -82 dBm the carrier is lost."""
    bed, dbm = context.bed, float(parameters["dbm"])
    context.mechanism.signal_changed(bed, target, dbm)
    rate = next((mbit for limit, mbit in _SENSITIVITY_DBM_TO_MBIT if dbm >= limit), None)
    link, end = bed.link_of(target), bed.end_of(target)
    if rate is None:
        link.set_carrier(False, end=end)
        return "below sensitivity: carrier lost"
    base = bed.path_of(target).profile
    best_mbit = _SENSITIVITY_DBM_TO_MBIT[0][1]
    new = replace(base, rate_mbit=base.rate_mbit * rate / best_mbit if base.rate_mbit else rate)
    link.set_profile(new)
    link.set_carrier(True, end=end)
    return str(new.describe())


@_kind("node-crash", "node")
def _node_crash(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """Everything that runs on the node ends without a word on the network."""
    ended = crash.crash(context.bed, target)
    return f"killed {', '.join(ended) or 'nothing'}"


@_kind("node-restart", "node")
def _node_restart(context: Context, target: str, parameters: Mapping[str, Any]) -> str:
    """The crashed node is back: its services and agents start again; it knows no old connection."""
    started = crash.restart(context.bed, target)
    return f"started {', '.join(started) or 'nothing'}"


@_kind("node-mute", "node")
def _node_mute(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Packets to, from and through the node vanish, its interfaces stay up: a router takes its whole network along."""
    crash.mute(context.bed, target)


@_kind("node-unmute", "node")
def _node_unmute(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """Packets pass the node again."""
    crash.unmute(context.bed, target)


_LOST = ("priority", "10", "blackhole", "to")
"""Words of the rule that drops what goes to a prefix, before all others."""


@_kind("prefix-lost", "node", prefix=REQUIRED)
def _prefix_lost(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The node silently drops what goes to a prefix: this way fails in one direction, others to the same host do not."""
    context.bed.run(context.bed.node(target), ["ip", "rule", "add", *_LOST, parameters["prefix"]])


@_kind("prefix-back", "node", prefix=REQUIRED)
def _prefix_back(context: Context, target: str, parameters: Mapping[str, Any]) -> None:
    """The node has its way to the prefix again."""
    context.bed.run(context.bed.node(target), ["ip", "rule", "del", *_LOST, parameters["prefix"]])


# -- the timeline -----------------------------------------------------------------------------------------------------


def check(event: Event) -> None:
    """Raises RoamlabError when the event's kind or parameters are not known, or one is missing."""
    if event.kind not in KINDS:
        raise RoamlabError(f"no event {event.kind!r}; there are: {', '.join(sorted(KINDS))}")
    kind = KINDS[event.kind]
    unknown = sorted(set(event.parameters) - set(kind.parameters))
    if unknown:
        valid = ", ".join(kind.parameters) or "none"
        raise RoamlabError(f"event {event.kind}: unknown parameter {', '.join(unknown)}; it has: {valid}")
    if not event.target:
        raise RoamlabError(f"event {event.kind}: target is missing; it names a {kind.target}")
    missing = [n for n, default in kind.parameters.items() if default is REQUIRED and event.parameters.get(n) in (None, "")]
    if missing:
        raise RoamlabError(f"event {event.kind}: parameter {', '.join(missing)} is missing")
    for name, value in event.parameters.items():
        numeric = name.endswith(("_s", "_ms", "_mbit", "dbm")) or name == "loss"
        if numeric and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
            raise RoamlabError(f"event {event.kind}: {name} = {value!r} must be a number")


def check_targets(timeline: tuple[Event, ...], topo: MobileTopo) -> None:
    """Raises RoamlabError when an event names something that the topology has not, and lists what it has."""
    links = topo.graph()["links"]
    mine, others = ([path.interface for path in paths] for paths in (topo.paths(), topo.cn_paths()))
    mobile = {"mn", *(["cn"] if others else [])}
    ends = [link[f"{end}_interface"] for link in links for end in ("a", "b") if mobile & {link["a"], link["b"]}]
    kinds = {node["name"]: node["kind"] for node in topo.graph()["nodes"]}
    valid = {
        "interface": mine + others,
        "mn-interface": mine,
        "link": ends,
        "node": list(kinds),
        "router": [name for name, kind in kinds.items() if kind in ("access-router", "home-router")],
        "middlebox": [name for name, kind in kinds.items() if kind == "middlebox"],
    }
    for event in timeline:
        target = KINDS[event.kind].target
        if event.target not in valid[target]:
            there = ", ".join(valid[target]) or "none here"
            target = target.removeprefix("mn-")
            raise RoamlabError(f"event {event.kind}: no {target} {event.target!r} in this topology; there are: {there}")
    users = {name: point.occupied_by for name, point in topo.attachment_points.items()}
    for interface, point in attachments(timeline):
        if point not in users:
            raise RoamlabError(f"no attachment point {point!r}; there are: {', '.join(sorted(users))}")
        users[point] = users[point] or interface
        if users[point] != interface:
            raise RoamlabError(f"attachment point {point} is for one interface: {users[point]} and {interface} cannot share it")


def expand(events: tuple[Event, ...]) -> list[Event]:
    """The entries of the timeline in order: an event with an end of its own becomes two."""
    entries = []
    for event in events:
        check(event)
        entries.append(event)
        if event.kind == "planned-handover":
            overlap_s = event.parameters.get("overlap_s", KINDS[event.kind].parameters["overlap_s"])
            entries.append(Event(at_s=event.at_s + overlap_s, kind="interface-down", target=event.target))
    return sorted(entries, key=lambda event: event.at_s)


def absent_at_start(events: tuple[Event, ...]) -> tuple[str, ...]:
    """Interfaces that appear during the scenario, so that they must not exist when it starts."""
    first: dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.at_s):
        if event.kind in ("interface-appears", "interface-vanishes"):
            first.setdefault(event.target, event.kind)
    return tuple(target for target, kind in first.items() if kind == "interface-appears")


def out_of_range_at_start(events: tuple[Event, ...]) -> tuple[str, ...]:
    """Interfaces whose carrier comes during the scenario before it has gone, so that it must not be there at the start."""
    first: dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.at_s):
        if event.kind in ("carrier-loss", "carrier-return"):
            first.setdefault(event.target, event.kind)
    return tuple(target for target, kind in first.items() if kind == "carrier-return")


def attachments(events: tuple[Event, ...]) -> tuple[tuple[str, str], ...]:
    """(interface, attachment point) of every move, so that the ports exist before the run starts."""
    return tuple((e.target, e.parameters["to"]) for e in events if e.kind in ("reattach", "l2-roam"))


def perform(event: Event, context: Context, t0_mono_ns: int) -> dict[str, Any]:
    """Make the event happen; its line for the timeline."""
    return perform_at_once([event], context, t0_mono_ns)[0]


def perform_at_once(events: Sequence[Event], context: Context, t0_mono_ns: int) -> list[dict[str, Any]]:
    """Make events of one moment happen, in order, after all have begun; their lines for the timeline, by time."""
    begun: dict[int, tuple[int, int]] = {}
    for number, event in enumerate(events):
        begin = KINDS[event.kind].begin
        if begin is not None:
            begun[number] = now_ns(), wall_ns()
            begin(context, event.target)
    lines = []
    for number, event in enumerate(events):
        kind = KINDS[event.kind]
        began_ns, began_wall_ns = begun.get(number) or (now_ns(), wall_ns())
        note = kind.perform(context, event.target, {**kind.parameters, **event.parameters})
        lines.append({
            "kind": event.kind, "target": event.target, "planned_s": event.at_s,
            "at_s": (began_ns - t0_mono_ns) * 1e-9, "done_s": (now_ns() - t0_mono_ns) * 1e-9,
            "mono_ns": began_ns, "wall_ns": began_wall_ns,
            "parameters": dict(event.parameters), "phase": "event", "note": note or "",
        })  # fmt: skip
    return sorted(lines, key=lambda line: int(line["mono_ns"]))
