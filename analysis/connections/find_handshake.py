"""Oddities of opening and closing: fallback to TCP, refused joins, SYNs without answer, resets.

Sources: RFC 8684 sections 3.1 (MP_CAPABLE), 3.2 (MP_JOIN), 3.6 (MP_TCPRST) and 3.7 (fallback).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from analysis.connections.authentication import WRONG
from analysis.connections.facts import ERROR, NOTE, WARNING, Facts, Finding, amount, side, span
from analysis.connections.reasons import reset_reason
from analysis.packets import schema
from analysis.packets.schema import DSS_DATA_FIN, DSS_MAP, FIN, OPTIONS_CUT, RST, SYN

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


def find_fallbacks(facts: Facts) -> Iterator[Finding]:
    """Connections that offered MPTCP and went on as TCP, with the packet that decided it and the likely reason."""
    shakes = facts.handshakes
    initial = facts.flow_column("subflow") == 0
    told = facts.connection_column("fallback") != ""
    connection = facts.flow_column("connection")
    infinite = _infinite_mappings(facts)
    confirmed = _confirmed(facts)
    suspect = shakes.offered & (~shakes.accepted | ~confirmed) | shakes.accepted & ~shakes.offered | told[connection]
    suspect[list(infinite)] = True
    versions = _versions(facts)
    suspect[facts.flow[[row for row in versions if _answered_other_version(facts, row, versions)]]] = True
    failed = {option.connection for option in facts.options(schema.MP_FAIL)}
    unmapped = _first_unmapped(facts) if told.any() else (np.zeros(0, np.int64), np.zeros(0, np.bool_))
    for flow in np.flatnonzero(suspect).tolist():
        if not initial[flow] and flow not in infinite:
            continue
        row, reason = _fallback_reason(facts, flow, bool(confirmed[flow]), versions)
        if not reason and flow in infinite:
            row, opener = infinite[flow]
            sender = side(opener == bool(facts.flow_column("opened_by_client")[flow]))
            after = " after MP_FAIL (checksum failure)" if connection[flow] in failed else ""
            reason = f"the {sender} sent an infinite mapping{after}"
        if not reason and initial[flow] and told[connection[flow]]:
            row, reason = _lost_mapping(facts, flow, unmapped)
            reason = reason or str(facts.connection_column("fallback")[connection[flow]])
        if reason:
            row = row if row >= 0 else shakes.first_syn[flow]
            yield facts.finding(flow, row, "fallback", f"Plain TCP instead of MPTCP on {facts.ends(flow)}: {reason}.")


def _infinite_mappings(facts: Facts) -> dict[int, tuple[int, bool]]:
    """Per flow the first mapping of length 0 that is no DATA_FIN: row and whether the opener sent it."""
    table = facts.table
    infinite = ((table["dss_flags"] & (DSS_MAP | DSS_DATA_FIN)) == DSS_MAP) & (table["map_bytes"] == 0) & (facts.flow >= 0)
    rows = facts.first_of(np.flatnonzero(infinite))
    return {flow: (int(rows[flow]), bool(facts.core.from_client[rows[flow]])) for flow in np.flatnonzero(rows >= 0).tolist()}


def _confirmed(facts: Facts) -> Bools:
    """Per flow: the opener sent MP_CAPABLE with both keys, in the third ACK or with the first data."""
    signals = facts.table.signals
    flow = facts.flow[signals["row"]]
    both = (signals["subtype"] == schema.MP_CAPABLE) & (signals["length"] >= 20) & (flow >= 0)
    both &= facts.core.from_client[signals["row"]]
    out = np.zeros(len(facts.core.flows), np.bool_)
    out[flow[both]] = True
    return out


def _versions(facts: Facts) -> dict[int, int]:
    """Version in the MP_CAPABLE of each row with SYN."""
    signals, flags = facts.table.signals, facts.table["flags"]
    chosen = (signals["subtype"] == schema.MP_CAPABLE) & (flags[signals["row"]] & SYN > 0)
    return dict(zip(signals["row"][chosen].tolist(), signals["version"][chosen].tolist(), strict=True))


def _answered_other_version(facts: Facts, row: int, versions: dict[int, int]) -> bool:
    """Whether `row` is the SYN/ACK to a SYN of another version."""
    flow = int(facts.flow[row])
    syn = int(facts.handshakes.first_syn[flow]) if flow >= 0 else -1
    return row == facts.handshakes.answer[flow] and versions.get(syn, versions[row]) != versions[row]


def _fallback_reason(facts: Facts, flow: int, confirmed: bool, versions: dict[int, int]) -> tuple[int, str]:
    """The handshake packet at which MPTCP was lost; "" when the handshake is complete."""
    shakes = facts.handshakes
    syn, answer = int(shakes.first_syn[flow]), int(shakes.answer[flow])
    if shakes.offered[flow] and answer >= 0 and not shakes.accepted[flow]:
        if shakes.plain_syn[flow]:
            waited = span(int(facts.time_ns[answer] - facts.time_ns[syn]))
            sent = amount(int(shakes.syns[flow]), "SYNs")
            return answer, f"SYNs with MP_CAPABLE got no answer; {sent} in all, one without it was answered after {waited}"
        offered = versions.get(syn, -1)
        return answer, f"the SYN/ACK carries no MP_CAPABLE: the server does not speak version {offered}, or it was removed"
    if shakes.accepted[flow] and not shakes.offered[flow] and syn >= 0:
        return answer, "the SYN/ACK carries MP_CAPABLE though the SYN does not: it was removed from the SYN before this point"
    if syn in versions and versions.get(answer, versions[syn]) != versions[syn]:
        return answer, f"the client offered version {versions[syn]}, the server answered with version {versions[answer]}"
    third = int(facts.first_after_syn[flow])
    cut = third >= 0 and facts.table["problems"][third] & OPTIONS_CUT > 0
    if shakes.accepted[flow] and not confirmed and third >= 0 and not cut:
        return third, "neither the third ACK nor the first data carry MP_CAPABLE: it was removed, or the client gave up"
    return -1, ""


def _first_unmapped(facts: Facts) -> tuple[Int64s, Bools]:
    """Per flow * 2 + opener: first row with payload behind the last one with a mapping, -1: none; was there a mapping?"""
    table = facts.table
    payload = (table["payload_bytes"] > 0) & (table["flags"] & RST == 0) & (facts.flow >= 0)
    mapped = table["mp_subtypes"] & (1 << schema.DSS | 1 << schema.MP_CAPABLE) > 0
    stream = facts.flow.astype(np.int64) * 2 + facts.core.from_client
    last = np.full(len(facts.core.flows) * 2, -1, np.int64)
    rows = np.flatnonzero(payload & mapped)
    last[stream[rows]] = rows
    rows = np.flatnonzero(payload & ~mapped)
    rows = rows[rows > last[stream[rows]]][::-1]
    first = np.full(last.size, -1, np.int64)
    first[stream[rows]] = rows
    return first, last >= 0


def _lost_mapping(facts: Facts, flow: int, unmapped: tuple[Int64s, Bools]) -> tuple[int, str]:
    """In which direction, and since when, packets with payload carry no DSS; "" when all do."""
    first, before = unmapped
    found = [(int(first[stream]), stream) for stream in (flow * 2, flow * 2 + 1) if first[stream] >= 0]
    if not found:
        return -1, ""
    row, stream = min(found)
    sender = side(bool(stream % 2) == bool(facts.flow_column("opened_by_client")[flow]))
    when = facts.after(int(facts.flow_column("connection")[flow]), int(facts.time_ns[row]))
    since = f"from {when} on" if before[stream] else "from the first on"
    return row, f"payload of the {sender} carries no DSS {since}: it was removed on the way, or the {sender} fell back"


def find_lost_mappings(facts: Facts) -> Iterator[Finding]:
    """Payload of MPTCP connections that no mapping covers: DSS was removed on the way, or its packet was not captured."""
    unmapped = facts.segment_column("kind") == 3
    if not unmapped.any():
        return
    rows = np.flatnonzero(unmapped)
    connection = facts.segment_column("connection")[rows]
    rows = rows[(facts.connection_column("transport")[connection] == "mptcp")]
    flow = facts.segment_column("flow")[rows]
    size = facts.segment_column("flow_end")[rows] - facts.segment_column("flow_begin")[rows]
    total = np.bincount(flow, weights=size, minlength=len(facts.core.flows))
    count = np.bincount(flow, minlength=len(facts.core.flows))
    first = np.full(len(facts.core.flows), -1, np.int64)
    first[flow[::-1]] = rows[::-1]
    for number in np.flatnonzero(first >= 0).tolist():
        row = int(facts.segment_column("row")[first[number]])
        text = (
            f"{amount(int(total[number]))} in {amount(int(count[number]), 'segments')} on {facts.name(number)} have no DSS "
            "mapping: the option was removed, or its packet is not in the capture."
        )
        yield facts.finding(number, row, "unmapped-data", text)


def find_joins(facts: Facts) -> Iterator[Finding]:
    """MP_JOIN attempts that made no subflow."""
    suspect, tokens, third_acks, false_hmac = _suspect_joins(facts)
    if not suspect:
        return
    reasons = {option.row: reset_reason(option.reason, option.flags) for option in facts.options(schema.MP_TCPRST)}
    keyless = (facts.connection_column("client_key") == 0) & (facts.connection_column("server_key") == 0)
    connection = facts.flow_column("connection")
    for flow in suspect:
        token = tokens.get(flow, -1) if keyless[connection[flow]] else -1
        outcome = _join_outcome(facts, flow, reasons, bool(third_acks[flow]), token, false_hmac.get(flow, 0))
        if outcome:
            row, kind, text = outcome
            yield facts.finding(flow, row, kind, f"MP_JOIN {facts.ends(flow)}: {text}.", ERROR if "hmac" in kind else WARNING)


def _suspect_joins(facts: Facts) -> tuple[list[int], dict[int, int], Bools, dict[int, int]]:
    """Flows whose join may have failed, tokens they sent, per flow whether it has a third ACK, lengths of false options."""
    shakes, signals = facts.handshakes, facts.table.signals
    flow = facts.flow[signals["row"]]
    join = (signals["subtype"] == schema.MP_JOIN) & (flow >= 0)
    third_acks = np.zeros(len(facts.core.flows), np.bool_)
    third_acks[flow[join & (signals["length"] == 24)]] = True
    sound = shakes.accepted_join & (facts.flow_column("join") == "verified") & third_acks
    suspect = shakes.offered_join & ~(sound & (shakes.client_rst < 0) & (shakes.server_rst < 0))
    opening = np.flatnonzero(join & (signals["length"] == 12) & suspect[flow])[::-1]
    tokens = dict(zip(flow[opening].tolist(), signals["token"][opening].tolist(), strict=True))
    wrong = np.flatnonzero(join & (facts.verdicts == WRONG))[::-1] if suspect.any() else np.zeros(0, np.int64)
    false_hmac = dict(zip(flow[wrong].tolist(), signals["length"][wrong].tolist(), strict=True))
    return np.flatnonzero(suspect).tolist(), tokens, third_acks, false_hmac


def _join_outcome(
    facts: Facts, flow: int, reasons: dict[int, str], third_ack: bool, strange_token: int, hmac_of: int
) -> tuple[int, str, str] | None:
    """(row, kind, text) of a join that failed; None when nothing speaks against it."""
    shakes = facts.handshakes
    syn, answer, refused = int(shakes.first_syn[flow]), int(shakes.answer[flow]), int(shakes.server_rst[flow])
    strange = f"; token {strange_token:08x} belongs to no connection seen here" if strange_token >= 0 else ""
    if answer < 0 and refused >= 0:
        reason = reasons.get(refused, "no MP_TCPRST")
        return refused, "join-refused", f"the peer refused it with RST, {reason}{strange}"
    if answer < 0:
        lasted = span(int(facts.time_ns[shakes.last_syn[flow]] - facts.time_ns[syn]))
        sent = amount(int(shakes.syns[flow]), "SYNs")
        return syn, "join-unanswered", f"{sent} within {lasted}, no answer{strange}"
    if not shakes.accepted_join[flow]:
        return answer, "join-stripped", "the SYN/ACK carries no MP_JOIN: the peer is no MPTCP host, or the option was removed"
    resets = [int(row) for row in (shakes.client_rst[flow], shakes.server_rst[flow]) if row >= 0]
    told = "".join(f", then RST with {reasons[row]}" for row in sorted(resets)[:1] if row in reasons)
    if facts.flow_column("join")[flow] == "wrong":
        step = "third ACK" if hmac_of == 24 else "SYN/ACK"
        return answer, "join-wrong-hmac", f"the HMAC of the {step} does not fit the keys of the connection{told}"
    third = int(facts.first_after_syn[flow])
    if not third_ack and third >= 0 and facts.table["problems"][third] & OPTIONS_CUT == 0:
        return third, "join-stripped", f"the third ACK carries no MP_JOIN{told}"
    carried = int(facts.flow_column("payload_up")[flow]) + int(facts.flow_column("payload_down")[flow])
    if resets and not carried:
        row = min(resets)
        if row == shakes.server_rst[flow] or third < 0:
            by = "the peer" if row == shakes.server_rst[flow] else "its opener"
            return row, "join-refused", f"{by} reset it after the SYN/ACK, {reasons.get(row, 'no MP_TCPRST')}"
    return None


def find_unanswered(facts: Facts) -> Iterator[Finding]:
    """SYNs that were sent again or never answered, other than MP_JOIN."""
    shakes = facts.handshakes
    chosen = ~shakes.offered_join & ((shakes.syns > 1) | (shakes.syns > 0) & (shakes.answer < 0))
    for flow in np.flatnonzero(chosen).tolist():
        syn, answer, refused = (int(rows[flow]) for rows in (shakes.first_syn, shakes.answer, shakes.server_rst))
        kind = "MP_CAPABLE SYN" if shakes.offered[flow] else "SYN"
        sent = f"{kind} {facts.ends(flow)} sent {amount(int(shakes.syns[flow]), 'times')}"
        if answer >= 0:
            if shakes.plain_syn[flow] and shakes.offered[flow] and not shakes.accepted[flow]:
                continue  # told as a fallback
            waited = span(int(facts.time_ns[answer] - facts.time_ns[syn]))
            yield facts.finding(flow, syn, "syn-repeated", f"{sent}; answered {waited} after the first.", NOTE)
        elif refused >= 0:
            yield facts.finding(flow, refused, "refused", f"{sent}, refused with RST.", NOTE)
        else:
            lasted = span(int(facts.time_ns[shakes.last_syn[flow]] - facts.time_ns[syn]))
            yield facts.finding(flow, syn, "syn-unanswered", f"{sent} within {lasted}, no answer.")


def find_resets(facts: Facts) -> Iterator[Finding]:
    """Flows that were reset after their handshake, with the reason where MP_TCPRST gives one."""
    shakes = facts.handshakes
    rows = np.where(shakes.client_rst < 0, shakes.server_rst, shakes.client_rst)
    both = (shakes.client_rst >= 0) & (shakes.server_rst >= 0)
    rows = np.where(both, np.minimum(shakes.client_rst, shakes.server_rst), rows)
    told = {(finding.connection, finding.subflow) for finding in find_joins(facts)}
    closed = _closed_at(facts)
    chosen = (rows >= 0) & ((shakes.answer >= 0) | (shakes.first_syn < 0)) & ~((closed >= 0) & (closed < rows))
    flows = np.flatnonzero(chosen).tolist()
    reasons = {option.row: reset_reason(option.reason, option.flags) for option in facts.options(schema.MP_TCPRST)}
    fastclosed = {option.connection for option in facts.options(schema.MP_FASTCLOSE)}
    finished_at = _finished_at(facts)
    for flow in flows:
        row, connection = int(rows[flow]), int(facts.flow_column("connection")[flow])
        if connection in fastclosed or (connection, int(facts.flow_column("subflow")[flow])) in told:
            continue
        mptcp = facts.connection_column("transport")[connection] == "mptcp"
        opener = bool(facts.core.from_client[row])
        sender = side(opener == bool(facts.flow_column("opened_by_client")[flow]))
        reason = reasons.get(row, "without MP_TCPRST" if mptcp else "")
        what = facts.name(flow) if mptcp else facts.ends(flow)
        finished = 0 <= finished_at[connection] < row
        when = facts.after(connection, int(facts.time_ns[row]))
        text = f"The {sender} reset {what} after {when}{', ' if reason else ''}{reason}."
        yield facts.finding(flow, row, "subflow-reset" if mptcp else "reset", text, NOTE if finished else WARNING)


def _closed_at(facts: Facts) -> Int64s:
    """Per flow the row by which both sides had sent FIN; -1 when they had not."""
    rows = np.flatnonzero((facts.table["flags"] & FIN > 0) & (facts.flow >= 0))
    opener = facts.core.from_client[rows]
    ours, theirs = facts.first_of(rows[opener]), facts.first_of(rows[~opener])
    return np.where((ours >= 0) & (theirs >= 0), np.maximum(ours, theirs), -1)


def _finished_at(facts: Facts) -> Int64s:
    """Per connection the row by which both sides had sent DATA_FIN; -1 when they had not."""
    rows = np.flatnonzero((facts.table["dss_flags"] & DSS_DATA_FIN > 0) & (facts.flow >= 0))[::-1]
    flow = facts.flow[rows]
    by_client = facts.core.from_client[rows] == facts.flow_column("opened_by_client")[flow].astype(np.bool_)
    first = np.full((2, len(facts.core.connections)), -1, np.int64)
    first[by_client.astype(np.int64), facts.flow_column("connection")[flow]] = rows
    return np.where((first >= 0).all(axis=0), first.max(axis=0), -1)


HANDSHAKE_FINDERS = (find_fallbacks, find_lost_mappings, find_joins, find_unanswered, find_resets)
