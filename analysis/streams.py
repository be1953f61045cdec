"""What arrived of a byte stream, when, and over which interface: from captures alone.

Plain TCP: coverage of the sequence space. MPTCP (RFC 8684): each subflow delivers in its own order, its DSS mappings
place the bytes in the data stream, and the data stream is delivered as far as it is complete. A receiver sees
exactly that, so the result can be compared with what the application recorded. A capture also shows segments that the
host then discards, for example after it lost the address they are sent to: only what it acknowledged counts as arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.flows import ACK, RST, Connection, Endpoint, Flow, connection_of, find_flows, first_dsn_of, pick_flow
from analysis.options import DSS_DATA_FIN
from analysis.sequence import Int64s, covered, frontier, merge_intervals, signed32, signed64, union_bytes, unwrap32


@dataclass(frozen=True)
class Segments:
    """Payload of one flow in one direction, in order of time: positions in the subflow's own byte stream.

    `answers`: what the receiver sent on the flow; `accepted_bytes`: how far it ever acknowledged the subflow.
    """

    time_ns: Int64s
    device: npt.NDArray[np.object_]
    begin: Int64s
    end: Int64s
    accepted_bytes: int
    answers: pd.DataFrame
    rows: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """One direction of one connection as one node saw it.

    `time_ns`, `delivered_bytes`: moments (capture clock) at which the in-order data stream grew, and how far it then
    reached, by what the receiver acknowledged. `arrived_bytes`: how far it reached with all that was on the wire: a host
    that lost its route may still take data that it cannot acknowledge any more. `packets`: time_ns, device,
    payload_bytes, subflow of every segment with payload, repetitions included. `repeated_bytes` counts payload bytes
    beyond the first copy of each data byte, `reinjected_bytes` those of them that went over another subflow.
    `subflows`: one row per flow.
    """

    transport: str
    notes: tuple[str, ...]
    time_ns: Int64s
    delivered_bytes: Int64s
    arrived_bytes: int
    packets: pd.DataFrame
    payload_bytes: int
    repeated_bytes: int
    reinjected_bytes: int
    subflows: tuple[dict[str, object], ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of the data stream that arrived without a hole before them."""
        return int(self.delivered_bytes[-1]) if self.delivered_bytes.size else 0


def trace_stream(
    packets: pd.DataFrame, local: Endpoint | None, peer: Endpoint | None, addresses: set[str], towards_node: bool
) -> Stream | None:
    """Follow the workload's data through one node's packets.

    `packets`: `captures` columns and `device` (interface name), in order of time, of one node with `addresses`.
    `local`, `peer`: the initial flow's endpoints as the application on that node saw them, if known.
    `towards_node`: the data flows to this node. Returns None when there is no TCP flow at all.
    """
    flows = find_flows(packets)
    first = pick_flow(flows, local, peer, addresses)
    if first is None:
        return None
    here = local if local in (first.client, first.server) else None
    node_is_client = first.client == here if here is not None else first.client[0] in addresses
    connection = connection_of(first, flows)
    return _deliver(connection, data_from_client=node_is_client != towards_node)


def _segments(flow: Flow, from_opener: bool) -> Segments:
    """Segments with payload of one direction of a flow."""
    side = flow.from_client if from_opener else ~flow.from_client
    sent = flow.packets[side]
    isn = flow.client_isn if from_opener else flow.server_isn
    notes: list[str] = []
    if isn is None:
        isn = (int(sent["seq"].iloc[0]) - 1) % 2**32 if len(sent) else 0
        notes.append(f"no handshake of {flow.client[0]} port {flow.client[1]} in the capture")
    if bool(sent["options_cut"].any()):
        notes.append("the snap length cuts TCP options")
    relative = unwrap32(sent["seq"].to_numpy(), isn)
    filled = (sent["payload_bytes"] > 0).to_numpy()
    rows = sent[filled].assign(relative=relative[filled])
    begin = rows["relative"].to_numpy(np.int64) - 1
    size = rows["payload_bytes"].to_numpy(np.int64)
    fresh = begin >= 0  # a keep-alive probe repeats the byte before the stream
    rows, begin, size = rows[fresh], begin[fresh], size[fresh]
    device = rows["device"].to_numpy(object)
    answers = flow.packets[~side & (flow.packets["flags"] & (ACK | RST) == ACK)]
    accepted = int(unwrap32(answers["ack"].to_numpy(), isn).max(initial=1)) - 1
    time_ns = rows["time_ns"].to_numpy(np.int64)
    return Segments(time_ns, device, begin, begin + size, accepted, answers, rows, tuple(notes))


def _in_order_index(segments: Segments) -> Int64s:
    """For each segment the index of the one whose arrival completed the subflow up to its end; their number if none."""
    reached = frontier(segments.begin, segments.end)
    return np.searchsorted(reached, segments.end, side="left").astype(np.int64)


def _data_position(rows: pd.DataFrame, column: str, first_dsn: int) -> Int64s:
    """Data sequence numbers of 4 or 8 bytes, in order of time, as positions in the data stream."""
    numbers = rows[column].to_numpy(np.uint64)
    short = unwrap32(numbers & np.uint64(0xFFFFFFFF), first_dsn & 0xFFFFFFFF)
    return np.where(rows[f"{column}_bytes"] == 8, signed64(numbers - np.uint64(first_dsn)), short)


def _data_acknowledged(parts: Sequence[Segments], first_dsn: int) -> int:
    """How far the receiver ever acknowledged the data stream, on any subflow."""
    answers = pd.concat([part.answers[part.answers["dack_bytes"] > 0] for part in parts])
    return int(_data_position(answers.sort_values("time_ns", kind="stable"), "dack", first_dsn).max(initial=0))


def _runs(parts: Sequence[Segments], first_dsn: int) -> list[pd.DataFrame]:
    """Per subflow its mappings, merged to runs of constant offset: columns start, stop (subflow), shift (to data)."""
    tables = []
    for number, part in enumerate(parts):
        rows = part.rows
        explicit = rows[(rows["dsn_bytes"] > 0) & (rows["map_bytes"] > 0)]
        relative = explicit["relative"].to_numpy(np.int64)
        start = relative + signed32((explicit["ssn"].to_numpy(np.int64) - relative) & 0xFFFFFFFF) - 1
        fin = (explicit["dss_flags"].to_numpy(np.int64) & DSS_DATA_FIN) > 0
        table = explicit[["time_ns", "dsn", "dsn_bytes"]].assign(
            subflow=number, start=start, size=explicit["map_bytes"].to_numpy(np.int64) - fin
        )
        tables.append(table[table["size"] > 0])
    every = pd.concat(tables).sort_values("time_ns", kind="stable")
    every["shift"] = _data_position(every, "dsn", first_dsn) - every["start"]
    every["stop"] = every["start"] + every["size"]
    out = []
    for number, part in enumerate(parts):
        found = every.loc[every["subflow"] == number, ["start", "stop", "shift"]]
        implied = part.rows.loc[part.rows["cap_data_bytes"] > 0, "cap_data_bytes"].to_numpy(np.int64)
        if number == 0 and implied.size:  # MP_CAPABLE on the first data: it maps the stream's beginning
            found = pd.concat([pd.DataFrame({"start": [0], "stop": [int(implied.max())], "shift": [0]}), found])
        out.append(_merge(found.astype(np.int64)))
    return out


def _merge(mappings: pd.DataFrame) -> pd.DataFrame:
    """Join mappings that continue or repeat each other."""
    table = mappings.drop_duplicates().sort_values(["shift", "start"])
    if table.empty:
        return table
    reach = table.groupby("shift")["stop"].cummax()
    gap = table["start"].gt(reach.shift()) | table["shift"].ne(table["shift"].shift())
    joined = table.groupby(gap.cumsum()).agg(start=("start", "min"), stop=("stop", "max"), shift=("shift", "first"))
    return joined.sort_values("start").reset_index(drop=True)


@dataclass(frozen=True)
class _Pieces:
    """Parts of segments placed in the data stream; `segment` is the index of the segment each came from."""

    segment: Int64s
    begin: Int64s
    end: Int64s
    unmapped_bytes: int


def _place(part: Segments, runs: pd.DataFrame) -> _Pieces:
    """Place subflow bytes in the data stream; a segment that spans several runs is split."""
    start, stop = runs["start"].to_numpy(np.int64), runs["stop"].to_numpy(np.int64)
    shift = runs["shift"].to_numpy(np.int64)
    pieces: list[tuple[Int64s, Int64s, Int64s]] = []
    segment, begin, end = np.arange(part.begin.size), part.begin, part.end
    unmapped = 0
    while segment.size and start.size:
        index = np.searchsorted(start, begin, side="right") - 1
        inside = (index >= 0) & (begin < stop[index])
        until = np.where(inside, np.minimum(end, stop[index]), end)
        following = np.minimum(index + 1, start.size - 1)
        until = np.where(~inside & (start[following] > begin), np.minimum(end, start[following]), until)
        unmapped += int((until - begin)[~inside].sum())
        pieces.append((segment[inside], (begin + shift[index])[inside], (until + shift[index])[inside]))
        left = until < end
        segment, begin, end = segment[left], until[left], end[left]
    if not start.size:
        unmapped = int((end - begin).sum())
    columns = [np.concatenate(c) for c in zip(*pieces, strict=True)] if pieces else [np.zeros(0, np.int64)] * 3
    return _Pieces(columns[0], columns[1], columns[2], unmapped)


def _deliver(connection: Connection, data_from_client: bool) -> Stream:
    """Merge the subflows of a connection into the data stream of one direction."""
    parts = [
        _segments(flow, from_opener=data_from_client == opener_is_client)
        for flow, opener_is_client in zip(connection.flows, connection.client_is_opener, strict=True)
    ]
    notes = [*connection.notes, *dict.fromkeys(note for part in parts for note in part.notes)]
    transport, acknowledged = connection.transport, 0
    if connection.client_key is None or connection.server_key is None:
        pieces = [_Pieces(np.arange(part.begin.size), part.begin, part.end, 0) for part in parts]
    else:
        first_dsn = first_dsn_of(connection.client_key if data_from_client else connection.server_key)
        runs = _runs(parts, first_dsn)
        acknowledged = _data_acknowledged(parts, first_dsn)
        pieces = [_place(part, table) for part, table in zip(parts, runs, strict=True)]
        unmapped = sum(piece.unmapped_bytes for piece in pieces)
        if unmapped and sum(part.begin.size > 0 for part in parts) == 1:
            transport = "tcp"
            notes.append(f"fell back to TCP: {unmapped} bytes came without a data sequence mapping")
            pieces = [_place(part, _open_ended(table)) for part, table in zip(parts, runs, strict=True)]
        elif unmapped:
            notes.append(f"{unmapped} bytes came without a data sequence mapping")
    stream = _merge_parts(parts, pieces, connection, acknowledged)
    return replace(stream, transport=transport, notes=tuple(notes))


@dataclass(frozen=True)
class _Arrivals:
    """Placed bytes with the moment at which their subflow was complete up to them."""

    time_ns: Int64s
    begin: Int64s
    end: Int64s
    accepted: npt.NDArray[np.bool_]


def _arrivals(part: Segments, piece: _Pieces) -> _Arrivals:
    """When the pieces of a subflow became available, and which of them the receiver acknowledged on the subflow."""
    ready = _in_order_index(part)
    able = ready[piece.segment] < part.time_ns.size
    segment = piece.segment[able]
    time_ns = np.maximum(part.time_ns[ready[segment]], part.time_ns[segment])
    return _Arrivals(time_ns, piece.begin[able], piece.end[able], part.begin[segment] < part.accepted_bytes)


def _delivered(arrivals: Sequence[_Arrivals], acknowledged: int) -> tuple[Int64s, Int64s]:
    """Moments at which the data stream grew, and how far.

    What was acknowledged on its subflow counts. Beside that only what the receiver acknowledged at data level though no
    acknowledged segment carried it: taken by the host just before the subflow went away.
    """
    time_ns, begin, end = (np.concatenate([getattr(a, name) for a in arrivals]) for name in ("time_ns", "begin", "end"))
    taken = np.concatenate([a.accepted for a in arrivals])
    known = merge_intervals(begin[taken], end[taken])
    taken |= ~covered(begin, end, *known) & (end <= acknowledged)
    order = np.argsort(time_ns[taken], kind="stable")
    time_ns = time_ns[taken][order]
    reached = frontier(begin[taken][order], end[taken][order])
    last = np.diff(time_ns, append=np.int64(2**62)) > 0  # of what arrived at one moment the final state counts
    grew = np.zeros(reached.size, np.bool_)
    grew[last] = np.diff(reached[last], prepend=0) > 0
    return time_ns[grew], reached[grew]


def _open_ended(runs: pd.DataFrame) -> pd.DataFrame:
    """After a fallback the last mapping goes on for ever (RFC 8684 section 3.7)."""
    if runs.empty:
        return pd.DataFrame({"start": [0], "stop": [2**62], "shift": [0]})
    out = runs.copy()
    out.loc[out.index[-1], "stop"] = 2**62
    return out


def _merge_parts(parts: Sequence[Segments], pieces: Sequence[_Pieces], connection: Connection, acknowledged: int) -> Stream:
    """Delivery, repetitions and the table of subflows; `acknowledged` is the receiver's last DATA_ACK."""
    subflows, packets = [], []
    unique = 0
    for number, (part, flow) in enumerate(zip(parts, connection.flows, strict=True)):
        own = union_bytes(part.begin, part.end)
        unique += own
        sizes = part.end - part.begin
        table = {"time_ns": part.time_ns, "device": part.device, "payload_bytes": sizes, "subflow": number}
        packets.append(pd.DataFrame(table))
        subflows.append(
            {
                "client": list(flow.client),
                "server": list(flow.server),
                "devices": sorted({str(d) for d in flow.packets["device"].unique()}),
                "first_ns": int(flow.packets["time_ns"].iloc[0]),
                "payload_bytes": int(sizes.sum()),
                "repeated_bytes": int(sizes.sum()) - own,
            }
        )
    every = pd.concat(packets, ignore_index=True).sort_values("time_ns", kind="stable", ignore_index=True)
    data = union_bytes(np.concatenate([p.begin for p in pieces]), np.concatenate([p.end for p in pieces]))
    lost_place = sum(piece.unmapped_bytes for piece in pieces)
    payload = int(every["payload_bytes"].sum())
    arrivals = [_arrivals(*pair) for pair in zip(parts, pieces, strict=True)]
    time_ns, delivered_bytes = _delivered(arrivals, acknowledged)
    _, anything = _delivered([replace(a, accepted=np.ones(a.begin.size, np.bool_)) for a in arrivals], 0)
    return Stream(
        transport="",
        notes=(),
        time_ns=time_ns,
        delivered_bytes=delivered_bytes,
        arrived_bytes=int(anything[-1]) if anything.size else 0,
        packets=every,
        payload_bytes=payload,
        repeated_bytes=payload - data - lost_place,
        reinjected_bytes=unique - data - lost_place,
        subflows=tuple(subflows),
    )


def datagram_arrivals(packets: pd.DataFrame, addresses: set[str]) -> pd.DataFrame:
    """Packets of the busiest UDP flow towards a node: columns time_ns, device, payload_bytes; in order of time."""
    udp = packets[(packets["protocol"] == 17) & packets["dst"].astype(str).isin(addresses)]
    columns = ["time_ns", "device", "payload_bytes"]
    if udp.empty:
        return udp[columns]
    ports, _ = pd.factorize(udp["sport"].to_numpy(np.int64) << 16 | udp["dport"].to_numpy(np.int64))
    busiest = np.bincount(ports, udp["payload_bytes"].to_numpy(np.float64)).argmax()
    return pd.DataFrame(udp[columns][ports == busiest]).reset_index(drop=True)
