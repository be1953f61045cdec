"""Damage on the way between two capture points, found in aligned packets.

Every finder gets the packets as they were sent (at the point they passed first) and as they arrived (at the other one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.connections.alignment import Alignment
from analysis.connections.facts import ERROR, NOTE, WARNING, amount, endpoint, side, span
from analysis.connections.pairing import Pair
from analysis.connections.signalling import OptionTexts, option_kinds
from analysis.packets import schema
from analysis.packets.schema import ACK, DSS_ACK, DSS_MAP, FIN, RST, SYN
from analysis.sequence import merge_intervals, signed32

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]

_OPTION_NAMES = {
    schema.HAS_MSS: "MSS",
    schema.HAS_WSCALE: "window scale",
    schema.HAS_SACK_PERMITTED: "SACK permitted",
    schema.HAS_SACK: "SACK",
    schema.HAS_TIMESTAMPS: "timestamps",
    schema.HAS_FAST_OPEN: "TCP Fast Open",
    schema.HAS_AUTH: "authentication",
    schema.HAS_UNKNOWN: "an unknown option",
}
_COMPARED_PAYLOADS = 5000
"""The payload of so many packets is compared byte by byte."""
_SLACK_NS = 1_000_000_000
"""A packet is outside the time of a capture when it is so far from its first or last packet."""


class Damage(NamedTuple):
    """One row of `Comparison.damage`."""

    pair: int
    flow_a: int
    flow_b: int
    direction: str
    kind: str
    what: str
    count: int  # type: ignore[assignment]
    time_ns: int
    row: int
    text: str
    weight: str


DAMAGE_COLUMNS = Damage._fields


@dataclass(frozen=True)
class Crossing:
    """Aligned packets by direction of travel. `sent` and `arrived`: indices into `aligned` of packets seen at both points.

    `near`: per pair, the first point is nearer to the client. `lost`: indices of packets that only the point they passed
    first saw, `appeared`: only the other one.
    """

    core: Reconstruction
    pairs: list[Pair]
    aligned: Alignment
    near: Bools
    sent: Int64s
    arrived: Int64s
    lost: Int64s
    appeared: Int64s

    @classmethod
    def of(cls, core: Reconstruction, pairs: list[Pair], aligned: Alignment, near: Bools) -> Crossing:
        """Sort the packets by direction of travel."""
        before = (near[aligned.pair] == aligned.up) != aligned.second
        sent = np.flatnonzero(before & (aligned.mate >= 0))
        alone = aligned.mate < 0
        lost, appeared = np.flatnonzero(before & alone), np.flatnonzero(~before & alone)
        return cls(core, pairs, aligned, near, sent, aligned.mate[sent], lost, appeared)

    def column(self, name: str, index: Int64s) -> Array:
        """A column of the packet table for these packets."""
        return self.core.packets[name][self.aligned.row[index]]

    def groups(self, index: Int64s) -> Iterator[tuple[int, Int64s]]:
        """Indices by pair * 2 + up, in order of time."""
        if not index.size:
            return
        number = self.aligned.group(index)
        order = np.argsort(number, kind="stable")
        edges = np.flatnonzero(np.diff(number[order])) + 1
        for part in np.split(index[order], edges):
            yield int(self.aligned.group(part[0])), part

    def damage(self, group: int, index: int, kind: str, what: str, count: int, text: str, weight: str = WARNING) -> Damage:
        """A row about one direction of a pair; `index`: the first packet."""
        pair = self.pairs[group // 2]
        place = int(self.aligned.time_ns[index]), int(self.aligned.row[index])
        direction = "up" if group % 2 else "down"
        return Damage(group // 2, pair.first, pair.second, direction, kind, what, int(count), *place, text, weight)


def find_damage(crossing: Crossing, offset_ms: float) -> list[tuple[Any, ...]]:
    """All damage of the paired flows. `offset_ms`: clock of the second point minus that of the first, NaN unknown."""
    rows: list[tuple[Any, ...]] = []
    for finder in FINDERS:
        rows += finder(crossing)
    return rows + list(_losses(crossing, offset_ms))


def _sender(group: int) -> str:
    return side(group % 2 == 1)


# --- headers -----------------------------------------------------------------------------------------------------


def _translations(crossing: Crossing) -> Iterator[Damage]:
    """Addresses and ports that differ (NAT)."""
    flows = crossing.core.flows
    columns = {name: flows[name].tolist() for name in ("client", "client_port", "server", "server_port", "first_ns")}
    for number, pair in enumerate(crossing.pairs):
        for name in ("client", "server"):
            there = {"client": "server", "server": "client"}[name] if pair.flipped else name
            here = endpoint(columns[name][pair.first], columns[f"{name}_port"][pair.first])
            other = endpoint(columns[there][pair.second], columns[f"{there}_port"][pair.second])
            if here != other:
                text = f"The {name} {here} at A is {other} at B."
                place = columns["first_ns"][pair.first], -1
                yield Damage(number, pair.first, pair.second, "", "translated", name, 1, *place, text, NOTE)


def _shifts(crossing: Crossing) -> Iterator[Damage]:
    """Initial sequence numbers that differ, and SACK blocks that were not shifted with them."""
    aligned, table = crossing.aligned, crossing.core.packets
    firsts = dict(crossing.groups(crossing.sent))
    for pair, up in np.argwhere(aligned.shift != 0).tolist():
        group = pair * 2 + up
        part = firsts.get(group)
        if part is not None:
            text = f"Sequence numbers of the {_sender(group)} are shifted by {aligned.shift[pair, up]:+,} from A to B."
            yield crossing.damage(group, int(part[0]), "sequence-shifted", "sequence numbers", part.size, text, NOTE)
    with_sack = crossing.column("options", crossing.sent) & crossing.column("options", crossing.arrived) & schema.HAS_SACK > 0
    sent, arrived = crossing.sent[with_sack], crossing.arrived[with_sack]
    left = [table.sack[table.sack_start[aligned.row[index]], 0].astype(np.int64) for index in (sent, arrived)]
    moved = signed32(left[1] - left[0])
    expected = aligned.shift[aligned.pair[sent], 1 - aligned.up[sent].astype(np.int64)]
    for group, part in crossing.groups(sent[(expected != 0) & (moved == 0)]):
        text = (
            f"SACK blocks in {amount(part.size, 'packets')} of the {_sender(group)} were not shifted with the sequence "
            "numbers: the receiver must discard them."
        )
        yield crossing.damage(group, int(part[0]), "sack-not-shifted", "SACK", part.size, text, ERROR)


def _headers(crossing: Crossing) -> Iterator[Damage]:
    """TOS, flags and window fields that changed."""
    control = SYN | FIN | RST
    for name, kind, what, mask in (
        ("tos", "tos-changed", "DSCP and ECN", 0xFF),
        ("flags", "flags-changed", "TCP flags", 0xFFF & ~control & ~schema.PSH),
        ("window", "window-changed", "window", 0xFFFF),
    ):
        before, after = (crossing.column(name, index) & mask for index in (crossing.sent, crossing.arrived))
        changed = before != after
        for group, part in crossing.groups(crossing.sent[changed]):
            first = part[0]
            values = [int(crossing.column(name, index)[0]) & mask for index in (part[:1], crossing.aligned.mate[part[:1]])]
            shown = " > ".join(f"{value:,}" if name == "window" else f"{value:#x}" for value in values)
            text = f"{what} changed in {amount(part.size, 'packets')} of the {_sender(group)}, first {shown}."
            yield crossing.damage(group, int(first), kind, what, part.size, text, NOTE)


# --- options -----------------------------------------------------------------------------------------------------


def _segment_names(crossing: Crossing, index: Int64s) -> Array:
    """What kind of segment carries an option: "SYN", "SYN/ACK" or "segment"."""
    flags = crossing.column("flags", index)
    return np.where(flags & SYN == 0, "segment", np.where(flags & ACK > 0, "SYN/ACK", "SYN"))


def _options(crossing: Crossing) -> Iterator[Damage]:
    """TCP and MPTCP options that were removed or added."""
    names = _segment_names(crossing, crossing.sent)
    mptcp = {1 << number: name for number, name in enumerate(schema.SUBTYPE_NAMES)}
    for column, options in (("options", _OPTION_NAMES), ("mp_subtypes", mptcp)):
        before, after = (crossing.column(column, index) for index in (crossing.sent, crossing.arrived))
        if (before == after).all():
            continue
        for bit, name in options.items():
            for kind, changed in (("removed", before & ~after & bit), ("added", after & ~before & bit)):
                for segment in ("SYN", "SYN/ACK", "segment"):
                    chosen = (changed > 0) & (names == segment)
                    having = (names == segment) & ((before if kind == "removed" else after) & bit > 0)
                    yield from _option_rows(crossing, name, kind, segment, crossing.sent[chosen], crossing.sent[having])


def _option_rows(crossing: Crossing, name: str, kind: str, segment: str, changed: Int64s, having: Int64s) -> Iterator[Damage]:
    totals = {group: part.size for group, part in crossing.groups(having)} if changed.size else {}
    for group, part in crossing.groups(changed):
        of = f"{part.size:,} of {amount(totals[group], segment + 's')}" if totals[group] > 1 else f"the {segment}"
        text = f"{name} was {kind} {'from' if kind == 'removed' else 'in'} {of} of the {_sender(group)}."
        weight = NOTE if kind == "added" or name == "SACK" else WARNING
        yield crossing.damage(group, int(part[0]), f"option-{kind}", f"{name} of {segment}", part.size, text, weight)


def _values(crossing: Crossing) -> Iterator[Damage]:
    """Option values that were rewritten: MSS, window scale, timestamps, DSS."""
    options = crossing.column("options", crossing.sent) & crossing.column("options", crossing.arrived)
    dss = crossing.column("dss_flags", crossing.sent) & crossing.column("dss_flags", crossing.arrived)
    for columns, what, present in (
        (("mss",), "MSS", options & schema.HAS_MSS > 0),
        (("wscale",), "window scale", options & schema.HAS_WSCALE > 0),
        (("tsval", "tsecr"), "timestamps", options & schema.HAS_TIMESTAMPS > 0),
        (("dss_flags",), "DSS flags", dss > 0),
        (("dack",), "data ACK", dss & DSS_ACK > 0),
        (("dsn", "ssn", "map_bytes"), "DSS mapping", dss & DSS_MAP > 0),
    ):
        changed = np.zeros(present.size, np.bool_)
        for column in columns:
            before, after = crossing.column(column, crossing.sent), crossing.column(column, crossing.arrived)
            if column in ("dack", "dsn"):
                # The same number in 4 and in 8 bytes.
                before, after = before & np.uint64(0xFFFFFFFF), after & np.uint64(0xFFFFFFFF)
            changed |= present & (before != after)
        for group, part in crossing.groups(crossing.sent[changed]):
            place = part[:1], crossing.aligned.mate[part[:1]]
            values = [", ".join(str(int(crossing.column(column, index)[0])) for column in columns) for index in place]
            text = f"{what} changed in {amount(part.size, 'packets')} of the {_sender(group)}, first {' > '.join(values)}."
            clamped = what == "MSS" and int(values[1]) < int(values[0])
            kind = "mss-clamped" if clamped else "option-changed"
            yield crossing.damage(group, int(part[0]), kind, what, part.size, text, NOTE if clamped else WARNING)


def _mptcp_contents(crossing: Crossing) -> Iterator[Damage]:
    """MPTCP options other than DSS whose bytes differ: keys, tokens, nonces, HMACs, addresses."""
    aligned, signals = crossing.aligned, crossing.core.packets.signals
    index_of = np.full(len(crossing.core.packets), -1, np.int64)
    index_of[aligned.row[crossing.sent]] = np.arange(crossing.sent.size)
    here = np.flatnonzero(index_of[signals["row"]] >= 0)
    position = index_of[signals["row"][here]]
    mate_row = aligned.row[crossing.arrived[position]]
    low = np.searchsorted(signals["row"], mate_row)
    size = signals["row"].size
    kept, partner = np.zeros(here.size, np.bool_), np.full(here.size, -1, np.int64)
    for step in range(3):  # a packet has room for three of these options at most
        there = np.minimum(low + step, size - 1)
        same = (low + step < size) & (signals["row"][there] == mate_row)
        same &= signals["subtype"][there] == signals["subtype"][here]
        kept |= same & (signals["raw"][there] == signals["raw"][here]).all(axis=1)
        partner = np.where(same & (partner < 0), there, partner)
    differs = np.flatnonzero(~kept & (partner >= 0))
    names = option_kinds(signals, here[differs], crossing.core.packets["flags"][signals["row"][here[differs]]])
    texts = OptionTexts(crossing.core.packets) if names else None
    changed: dict[tuple[int, str], list[tuple[int, int, int]]] = {}
    for name, at in zip(names, differs.tolist(), strict=True):
        index = int(crossing.sent[position[at]])
        changed.setdefault((int(aligned.group(index)), name), []).append((index, int(here[at]), int(partner[at])))
    for (group, name), found in changed.items():
        assert texts is not None
        index, mine, other = found[0]
        values = [texts.of(name, place) for place in (mine, other)]
        if values[0] == values[1]:
            values = [signals["raw"][place, : signals["length"][place]].tobytes().hex() for place in (mine, other)]
        shown = " > ".join(values)
        text = f"{name} changed in {amount(len(found), 'packets')} of the {_sender(group)}, first {shown}."
        yield crossing.damage(group, index, "option-changed", name, len(found), text)


# --- payload -----------------------------------------------------------------------------------------------------


def _jumps(crossing: Crossing) -> Iterator[Damage]:
    """Sequence numbers that shift in mid-stream: payload became longer or shorter on the way."""
    jump = crossing.aligned.jump
    for group, part in crossing.groups(crossing.sent[jump[crossing.sent] != 0]):
        if (np.abs(jump[part]) > 1 << 24).any():
            continue
        text = (
            f"From here on the stream of the {_sender(group)} is shifted by {jump[part[0]]:+,} bytes (at last "
            f"{jump[part[-1]]:+,}): payload changed its length on the way (application gateway, proxy)."
        )
        yield crossing.damage(group, int(part[0]), "payload-length-changed", "payload", part.size, text)


def _contents(crossing: Crossing) -> Iterator[Damage]:
    """Payload bytes that differ, as far as they were captured."""
    table, aligned = crossing.core.packets, crossing.aligned
    chosen = (aligned.payload[crossing.sent] > 0) & (aligned.jump[crossing.sent] == 0)
    chosen &= crossing.column("payload_captured", crossing.sent) > 0
    changed = []
    for index in crossing.sent[chosen][:_COMPARED_PAYLOADS].tolist():
        here, there = (table.payload(int(aligned.row[i])) for i in (index, aligned.mate[index]))
        size = min(len(here), len(there))
        if here[:size] != there[:size]:
            changed.append(index)
    for group, part in crossing.groups(np.array(changed, np.int64)):
        text = f"The payload of {amount(part.size, 'segments')} of the {_sender(group)} was changed on the way."
        yield crossing.damage(group, int(part[0]), "payload-changed", "payload", part.size, text, ERROR)


def _reordering(crossing: Crossing) -> Iterator[Damage]:
    """Packets that arrived after one that was sent later (RFC 4737 section 3.3)."""
    aligned = crossing.aligned
    for group, part in crossing.groups(crossing.sent):
        arrival = np.argsort(aligned.mate[part], kind="stable")
        late = arrival < np.maximum.accumulate(arrival)
        if late.any():
            first = int(part[arrival[np.flatnonzero(late)[0]]])
            count = int(late.sum())
            text = f"{amount(count, 'packets')} of the {_sender(group)} arrived behind packets sent later."
            yield crossing.damage(group, first, "reordered", "packets", count, text, NOTE)


# --- packets at one point only -----------------------------------------------------------------------------------


def _losses(crossing: Crossing, offset_ms: float) -> Iterator[Damage]:
    """Segments cut otherwise, packets lost, packets injected, and what the other capture cannot have seen."""
    aligned = crossing.aligned
    outside = _outside(crossing, 0 if np.isnan(offset_ms) else int(offset_ms * 1e6))
    lost, appeared = crossing.lost[~outside[crossing.lost]], crossing.appeared[~outside[crossing.appeared]]
    for group, part in crossing.groups(np.flatnonzero(outside & (aligned.mate < 0))):
        text = f"{amount(part.size, 'packets')} of the {_sender(group)} outside the time of the other capture."
        yield crossing.damage(group, int(part[0]), "not-captured", "packets", part.size, text, NOTE)
    again = _resegmented(crossing, lost, appeared)
    yield from _cut_otherwise(crossing, lost[again[lost]], appeared[again[appeared]])
    totals = {group: part.size for group, part in crossing.groups(np.concatenate((crossing.sent, crossing.lost)))}
    for group, part in crossing.groups(lost[~again[lost]]):
        size = int(aligned.payload[part].sum())
        lasted = int(aligned.time_ns[part[-1]] - aligned.time_ns[part[0]])
        text = (
            f"{part.size:,} of {amount(totals[group], 'packets')} of the {_sender(group)} did not arrive "
            f"({amount(size)} of payload), the last {span(lasted)} after the first."
        )
        yield crossing.damage(group, int(part[0]), "lost", "packets", part.size, text)
    injected = appeared[~again[appeared]]
    reset = crossing.column("flags", injected) & RST > 0
    for chosen, kind, what in ((reset, "reset-injected", "RSTs"), (~reset, "injected", "packets")):
        for group, part in crossing.groups(injected[chosen]):
            sender, weight = _sender(group), ERROR if kind == "reset-injected" else WARNING
            text = (
                f"{amount(part.size, what)} in the name of the {sender}, not seen at the {sender}'s side: injected on the way, "
                "or lost by the capture there."
            )
            yield crossing.damage(group, int(part[0]), kind, what, part.size, text, weight)


def _outside(crossing: Crossing, offset_ns: int) -> Bools:
    """Packets before the first or after the last packet of the other point's capture."""
    aligned = crossing.aligned
    common_ns = aligned.time_ns - np.where(aligned.second, offset_ns, 0)
    out = np.zeros(aligned.row.size, np.bool_)
    for second in (False, True):
        there = common_ns[aligned.second != second]
        if there.size:
            early, late = common_ns < there.min() - _SLACK_NS, common_ns > there.max() + _SLACK_NS
            out |= (aligned.second == second) & (early | late)
    return out


def _resegmented(crossing: Crossing, lost: Int64s, appeared: Int64s) -> Bools:
    """Of the packets seen at one point only: those whose payload bytes the other point saw in segments cut otherwise."""
    aligned = crossing.aligned
    out = np.zeros(aligned.row.size, np.bool_)
    parts = {group: part[aligned.payload[part] > 0] for group, part in crossing.groups(lost)}
    for group, part in crossing.groups(appeared):
        mine, theirs = part[aligned.payload[part] > 0], parts.get(group, np.zeros(0, np.int64))
        for these, those in ((mine, theirs), (theirs, mine)):
            if these.size and those.size:
                begin, end = merge_intervals(aligned.seq[those], aligned.seq[those] + aligned.payload[those])
                first = aligned.seq[these]
                at = np.searchsorted(end, first, side="right")
                inside = (at < end.size) & (begin[np.minimum(at, end.size - 1)] < first + aligned.payload[these])
                out[these[inside]] = True
    return out


def _cut_otherwise(crossing: Crossing, sent: Int64s, arrived: Int64s) -> Iterator[Damage]:
    """Segments that were coalesced or split, per direction."""
    there = dict(crossing.groups(arrived))
    for group, part in crossing.groups(sent):
        count = there[group].size if group in there else 0
        kind, why = ("coalesced", "receive") if count < part.size else ("split", "segmentation")
        text = (
            f"{amount(part.size, 'segments')} of the {_sender(group)} arrived as {count:,} cut otherwise: a proxy, or {why} "
            "offload at the capturing host."
        )
        yield crossing.damage(group, int(part[0]), kind, "segments", part.size, text, NOTE)


FINDERS: tuple[Callable[[Crossing], Iterator[Damage]], ...] = (
    _translations, _shifts, _headers, _options, _values, _mptcp_contents, _jumps, _contents, _reordering,
)  # fmt: skip
