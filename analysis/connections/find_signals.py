"""Oddities of signalling in established connections: failures, aborts, addresses, priorities, wrong keys.

Sources: RFC 8684 sections 3.3.8 (MP_PRIO), 3.4 (addresses), 3.5 (fast close), 3.7 (MP_FAIL), 3.1 and 3.2 (keys and HMACs).
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator

import numpy as np

from analysis.connections.authentication import WRONG
from analysis.connections.facts import ERROR, NOTE, WARNING, Facts, Finding, Option, Traffic, amount, side, span
from analysis.packets import schema

_FOREVER_NS = np.iinfo(np.int64).max
_MOST_CHANGES = 50
"""So many changes of priority, and so many removals of addresses, are examined per connection."""
_DRAIN_NS = 1_000_000_000
"""Data already assigned to a subflow may go on for this long after it became backup or its address was removed."""


def find_failures(facts: Facts) -> Iterator[Finding]:
    """MP_FAIL: a data checksum was wrong (RFC 8684 section 3.7)."""
    seen: Counter[tuple[int, bool, int]] = Counter()
    for option in facts.options(schema.MP_FAIL):
        key = option.connection, option.from_client, option.dsn
        seen[key] += 1
        if seen[key] == 1:
            sender = side(option.from_client)
            text = f"The {sender} reports a wrong data checksum from DSN {option.dsn} on {facts.name(option.flow)} (MP_FAIL)."
            yield facts.finding(option.flow, option.row, "mp-fail", text, ERROR)


def find_fastcloses(facts: Facts) -> Iterator[Finding]:
    """MP_FASTCLOSE: one side aborted the connection; the first one per connection and side."""
    seen = set()
    for option in facts.options(schema.MP_FASTCLOSE):
        if (option.connection, option.from_client) not in seen:
            seen.add((option.connection, option.from_client))
            when = facts.after(option.connection, option.time_ns)
            text = f"The {side(option.from_client)} aborted the connection with MP_FASTCLOSE after {when}."
            yield facts.finding(option.flow, option.row, "fastclose", text)


def find_wrong_keys(facts: Facts) -> Iterator[Finding]:
    """Keys, tokens, HMACs and initial DSNs that contradict each other. Joins have finders of their own."""
    for connection in np.flatnonzero(facts.connection_column("keys") == "wrong").tolist():
        text = "The keys of the handshake do not give the tokens of joins or the first DSN: something changed the handshake."
        yield facts.of_connection(connection, facts.connection_column("first_ns")[connection], "wrong-keys", text, ERROR)
    if not facts.table.signals["row"].size:
        return
    wrong = set(np.flatnonzero(facts.verdicts == WRONG).tolist())
    told = set()
    for subtype, kind, what in (
        (schema.MP_CAPABLE, "wrong-keys", "MP_CAPABLE echoes other keys than those exchanged"),
        (schema.MP_FASTCLOSE, "wrong-keys", "MP_FASTCLOSE has another key than the receiver's, which must ignore it"),
        (schema.ADD_ADDR, "add-addr-wrong-hmac", "The HMAC of ADD_ADDR does not fit the keys, the receiver must ignore it"),
    ):
        for option in facts.options(subtype) if wrong else ():
            key = subtype, option.connection, option.from_client, option.address_id
            if option.place in wrong and key not in told:
                told.add(key)
                text = f"{what} (from the {side(option.from_client)}, id {option.address_id})."
                yield facts.finding(option.flow, option.row, kind, text.replace(", id 0)", ")"), ERROR)


def find_addresses(facts: Facts) -> Iterator[Finding]:
    """Advertised addresses without echo (version 1) and those that no subflow ever used."""
    advertised: dict[tuple[int, bool, int, int], list[Option]] = {}
    echoed = set()
    address = facts.table.signals["address"]
    for option in facts.options(schema.ADD_ADDR):
        key = option.connection, option.from_client ^ option.echo, option.address_id, int(address[option.place])
        if option.echo:
            echoed.add(key)
        else:
            advertised.setdefault(key, []).append(option)
    ends = _addresses_in_use(facts, {key[0] for key in advertised})
    for key, options in advertised.items():
        first = options[0]
        connection, from_client, number, code = key
        text = f"ADD_ADDR id {number} {facts.table.addresses.text(code)} of the {side(from_client)}"
        left = int(facts.connection_column("last_ns")[connection]) - first.time_ns
        if facts.connection_column("version")[connection] != 0 and key not in echoed:
            sent = f"{text} was sent {amount(len(options), 'times')} and never echoed, in the {span(left)} left"
            yield facts.finding(first.flow, first.row, "add-addr-not-echoed", f"{sent}.", NOTE if left < _DRAIN_NS else WARNING)
        if facts.table.addresses.text(code) not in ends[connection]:
            unused = f"{text}: no subflow was opened to or from this address in the {span(left)} left."
            yield facts.finding(first.flow, first.row, "address-unused", unused, NOTE)


def _addresses_in_use(facts: Facts, connections: set[int]) -> dict[int, set[str]]:
    """Addresses of all flows of these connections, those of failed attempts included."""
    client, server = facts.flow_column("client"), facts.flow_column("server")
    return {
        connection: {str(end[flow]) for flow in facts.flows_of.get(connection, []) for end in (client, server)}
        for connection in connections
    }


def find_removals(facts: Facts) -> Iterator[Finding]:
    """REMOVE_ADDR of an address that goes on being used, or of an id nobody knows (RFC 8684 section 3.4.2)."""
    removals = facts.options(schema.REMOVE_ADDR)
    facts.prepare_traffic({option.connection for option in removals})
    known = {(o.connection, o.from_client, o.address_id) for o in facts.options(schema.ADD_ADDR) if not o.echo}
    by_id: dict[tuple[int, bool, int], list[int]] = {}
    for connection in {option.connection for option in removals}:
        for flow in facts.flows_of[connection]:
            for of_client in (False, True):
                by_id.setdefault((connection, of_client, facts.side_id(flow, of_client)), []).append(flow)
    seen = set()
    examined: Counter[int] = Counter()
    for option in removals:
        for number in facts.removed_ids(option):
            key = option.connection, option.from_client, number, option.time_ns // _DRAIN_NS
            if key in seen or examined[option.connection] == _MOST_CHANGES:
                continue
            seen.add(key)
            examined[option.connection] += 1
            users = by_id.get(key[:3], [])
            removed = f"The {side(option.from_client)} removed its address id {number} (REMOVE_ADDR)"
            if not users and key[:3] not in known:
                text = f"{removed}, which no subflow has and no ADD_ADDR announced."
                yield facts.finding(option.flow, option.row, "remove-addr-unknown", text, NOTE)
            for flow in users:
                spent = [facts.traffic(flow, up, option.time_ns, _FOREVER_NS) for up in (False, True)]
                carried, last_ns = sum(part.payload_bytes for part in spent), max(part.last_ns for part in spent)
                if carried and facts.flow_column("first_ns")[flow] < option.time_ns:
                    lasted, new = last_ns - option.time_ns, sum(part.new_bytes for part in spent)
                    text = (
                        f"{removed}, but {facts.name(flow)} carried {amount(carried)} more ({new:,} of them new), the last "
                        f"{span(lasted)} later."
                    )
                    weight = WARNING if new and lasted > _DRAIN_NS else NOTE
                    yield facts.finding(flow, option.row, "remove-addr-in-use", text, weight)


# --- priorities ----------------------------------------------------------------------------------------------------


def find_priorities(facts: Facts) -> Iterator[Finding]:
    """What MP_PRIO changed: payload that the other side still sent on a subflow after it became backup."""
    changes = _priority_changes(facts)
    if not changes:
        return
    facts.prepare_traffic({option.connection for option, _ in changes})
    states = _backup_states(facts, changes)
    examined: Counter[int] = Counter()
    for option, flow in changes:
        if option.backup and not _state(states, flow, option.from_client, option.time_ns - 1):
            examined[option.connection] += 1
            if examined[option.connection] <= _MOST_CHANGES:
                yield from _priority_finding(facts, option, flow, states)


def _priority_changes(facts: Facts) -> list[tuple[Option, int]]:
    """Every MP_PRIO with the flow it speaks of: its own, or in version 0 the one of the address id."""
    out = []
    for option in facts.options(schema.MP_PRIO):
        flows = [option.flow]
        if option.length > 3:
            mates = facts.flows_of[option.connection]
            flows = [f for f in mates if facts.side_id(f, option.from_client) == option.address_id] or flows
        out += [(option, flow) for flow in flows]
    return out


_States = dict[tuple[int, bool], list[tuple[int, bool]]]


def _backup_states(facts: Facts, changes: list[tuple[Option, int]]) -> _States:
    """(flow, whether the connection's client said so) -> [(time, backup)] in order of time, from MP_JOIN and MP_PRIO on."""
    states: _States = {}
    for option in facts.options(schema.MP_JOIN):
        if option.length in (12, 16):
            states.setdefault((option.flow, option.from_client), []).append((option.time_ns, option.backup))
    for option, flow in changes:
        states.setdefault((flow, option.from_client), []).append((option.time_ns, option.backup))
    for told in states.values():
        told.sort()
    return states


def _state(states: _States, flow: int, of_client: bool, time_ns: int) -> bool:
    """Whether that side had made the flow backup by that time."""
    told = states.get((flow, of_client), [])
    before = bisect.bisect_right(told, (time_ns, True))
    return before > 0 and told[before - 1][1]


def _active_again(states: _States, flow: int, of_client: bool, time_ns: int) -> int:
    """When that side next said that the flow is not backup; far in the future when it never did."""
    told = states.get((flow, of_client), [])
    later = told[bisect.bisect_right(told, (time_ns, True)) :]
    return next((time for time, backup in later if not backup), int(_FOREVER_NS))


def _priority_finding(facts: Facts, option: Option, flow: int, states: _States) -> Iterator[Finding]:
    """What the peer of the sender of an MP_PRIO with B did while another subflow was active."""
    until = _active_again(states, flow, option.from_client, option.time_ns)
    mates = [f for f in facts.flows_of[option.connection] if f != flow]
    start = min((_active_from(facts, f, option, states) for f in mates), default=_FOREVER_NS)
    if start >= until:
        return
    here = _towards(facts, flow, option, start, until)
    others = [_towards(facts, f, option, start, until) for f in mates]
    elsewhere, last_elsewhere = sum(part.payload_bytes for part in others), max(part.last_ns for part in others)
    peer = side(not option.from_client)
    said = f"MP_PRIO of the {side(option.from_client)} made {facts.name(flow)} backup"
    if not here.packets:
        if elsewhere:
            text = f"{said}: the {peer} obeyed at once, {amount(elsewhere)} went over other subflows."
            yield facts.finding(flow, option.row, "priority-obeyed", text, NOTE)
        return
    lasted = here.last_ns - start
    middle = start + (max(here.last_ns, last_elsewhere) - start) // 2
    late = _towards(facts, flow, option, middle, until)
    ignored = late.packets > 0 and lasted > _DRAIN_NS and any(_towards(facts, f, option, middle, until).packets for f in mates)
    text = (
        f"{said}: the {peer} still sent {amount(here.payload_bytes)} in {amount(here.packets, 'segments')} there, the last "
        f"{span(lasted)} after it, and {amount(elsewhere)} over other subflows."
    )
    kind, weight = ("priority-ignored", WARNING) if ignored else ("priority-obeyed", NOTE)
    yield facts.finding(flow, option.row, kind, text, weight)


def _towards(facts: Facts, flow: int, option: Option, begin_ns: int, end_ns: int) -> Traffic:
    """Payload towards the sender of `option`."""
    return facts.traffic(flow, not option.from_client, begin_ns, end_ns)


def _active_from(facts: Facts, flow: int, option: Option, states: _States) -> int:
    """When, at or after an MP_PRIO, `flow` is established and not backup; far in the future when it never is."""
    established, last = int(facts.flow_column("established_ns")[flow]), int(facts.flow_column("last_ns")[flow])
    if established < 0 or last <= option.time_ns:
        return int(_FOREVER_NS)
    start = max(established, option.time_ns)
    if not _state(states, flow, option.from_client, start):
        return start
    return _active_again(states, flow, option.from_client, start)


def find_strange_options(facts: Facts) -> Iterator[Finding]:
    """MPTCP options of unknown subtypes: how many per connection."""
    signals = facts.table.signals
    strange = np.flatnonzero((signals["subtype"] > schema.MP_TCPRST) & (facts.flow[signals["row"]] >= 0))
    count: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], tuple[int, int]] = {}
    for index in strange.tolist():
        row = int(signals["row"][index])
        flow = int(facts.flow[row])
        key = int(facts.flow_column("connection")[flow]), int(signals["subtype"][index])
        count[key] += 1
        first.setdefault(key, (flow, row))
    for key, (flow, row) in first.items():
        text = f"{amount(count[key], 'options')} of MPTCP subtype {key[1]}, which RFC 8684 does not define."
        yield facts.finding(flow, row, "unknown-option", text, NOTE)


SIGNAL_FINDERS = (
    find_failures, find_fastcloses, find_wrong_keys, find_addresses, find_removals, find_priorities, find_strange_options,
)  # fmt: skip
