"""The workload of a run in the captures of one node: what arrived of its data, when, and over which interface.

The reconstruction (`analysis.connections`) says what was on the wire; here the connection is found that the workload used. A
capture also shows segments that the host then discards, for example after it lost the address they are sent to: only what it
acknowledged counts as arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.connections import Reconstruction, delivery
from analysis.packets import PacketTable, schema

Endpoint = tuple[str, int]
Int64s = npt.NDArray[np.int64]


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
    rec: Reconstruction, devices: Sequence[str], local: Endpoint | None, peer: Endpoint | None, addresses: set[str],
    towards_node: bool,
) -> Stream | None:  # fmt: skip
    """Follow the workload's data through the packets of one node with `addresses`.

    `devices`: name of the node's interface for each capture point of `rec.packets`. `local`, `peer`: the initial flow's
    endpoints as the application on that node saw them, if known. `towards_node`: the data flows to this node. Returns None
    when there is no TCP flow at all.
    """
    found = find_stream(rec, local, peer, addresses, towards_node)
    return None if found is None else _stream(rec, devices, *found, at_receiver=towards_node)


def find_stream(
    rec: Reconstruction, local: Endpoint | None, peer: Endpoint | None, addresses: set[str], towards_node: bool
) -> tuple[int, bool] | None:  # fmt: skip
    """Number of the connection that the workload used, and whether its data flows from client to server.

    Arguments and None as for `trace_stream`.
    """
    number = _pick(rec.flows, local, peer, addresses)
    if number is None:
        return None
    flow: Any = rec.flows.loc[number]
    client, server = (flow["client"], flow["client_port"]), (flow["server"], flow["server_port"])
    here = local if local in (client, server) else None
    node_opened = client == here if here is not None else client[0] in addresses
    node_is_client = node_opened == bool(flow["opened_by_client"])
    return int(flow["connection"]), node_is_client != towards_node


def _pick(flows: pd.DataFrame, local: Endpoint | None, peer: Endpoint | None, addresses: set[str]) -> int | None:
    """The flow that the workload opened.

    Without the application's endpoints, or when the capture shows other addresses, the flow with most payload towards the
    node that did not join another connection.
    """
    known = list(zip(flows["client"], flows["client_port"], flows["server"], flows["server_port"], strict=True))
    for number, (client, client_port, server, server_port) in zip(flows.index, known, strict=True):
        if local is not None and peer is not None and {(client, client_port), (server, server_port)} == {local, peer}:
            return int(number)
    candidates = flows[flows["subflow"] == 0]
    ports = {endpoint[1] for endpoint in (local, peer) if endpoint is not None}
    matching = candidates[candidates["server_port"].isin(ports)]
    chosen = candidates if matching.empty else matching
    if chosen.empty:
        return None
    towards = np.where(chosen["client"].isin(addresses), chosen["payload_down"], chosen["payload_up"])
    return int(chosen.index[int(np.argmax(towards))])


def _stream(rec: Reconstruction, devices: Sequence[str], connection: int, up: bool, at_receiver: bool) -> Stream:
    way = "up" if up else "down"
    facts: Any = rec.connections.loc[connection]
    flows = rec.flows[rec.flows["connection"] == connection]
    time_ns, delivered = delivery(rec, connection, up, at_receiver=at_receiver)
    _, anything = delivery(rec, connection, up, by="arrival")
    segments = rec.segments[(rec.segments["connection"] == connection) & (rec.segments["up"] == up)]
    # A segment that spans several mappings is several rows.
    rows, first, which = np.unique(segments["row"].to_numpy(), return_index=True, return_inverse=True)
    sizes = (segments["flow_end"] - segments["flow_begin"]).to_numpy(np.int64)
    names = np.array([*devices, ""], object)
    packets = pd.DataFrame(
        {
            "time_ns": segments["time_ns"].to_numpy()[first],
            "device": names[rec.packets["interface"][rows]] if rows.size else np.zeros(0, object),
            "payload_bytes": np.bincount(which, sizes, rows.size).astype(np.int64),
            "subflow": segments["subflow"].to_numpy()[first],
        }
    )
    return Stream(
        transport=str(facts["transport"]),
        notes=_notes(rec, facts, flows, way),
        time_ns=time_ns,
        delivered_bytes=delivered,
        arrived_bytes=int(anything[-1]) if anything.size else 0,
        packets=packets,
        payload_bytes=int(facts[f"payload_{way}"]),
        repeated_bytes=int(facts[f"duplicate_{way}"]),
        reinjected_bytes=int(facts[f"reinjected_{way}"]),
        subflows=tuple(_subflow(rec, devices, int(number), flow, way) for number, flow in flows.iterrows()),  # type: ignore[call-overload]
    )


def _notes(rec: Reconstruction, facts: Any, flows: pd.DataFrame, way: str) -> tuple[str, ...]:
    """What makes the record of this direction doubtful, and why it is not MPTCP."""
    notes = []
    if facts["fallback"]:
        notes.append(f"fell back to TCP: {facts['fallback']}")
    elif facts["transport"] == "mptcp" and facts[f"unmapped_{way}"]:
        notes.append(f"{facts[f'unmapped_{way}']} bytes came without a data sequence mapping")
    if facts["transport"] == "tcp" and not facts["fallback"]:
        notes.append("MP_CAPABLE was not offered")
    unseen = flows[(flows["client_isn"] < 0) | (flows["server_isn"] < 0)]
    notes += [f"no handshake of {row.client} port {row.client_port} in the capture" for row in unseen.itertuples()]
    cut = np.isin(rec.flow, flows.index.to_numpy()) & (rec.packets["problems"] & schema.OPTIONS_CUT > 0)
    return (*notes, "the snap length cuts TCP options") if cut.any() else tuple(notes)


def _subflow(rec: Reconstruction, devices: Sequence[str], number: int, flow: Any, way: str) -> dict[str, object]:
    interfaces = np.unique(rec.packets["interface"][rec.flow == number])
    return {
        "client": [str(flow["client"]), int(flow["client_port"])],
        "server": [str(flow["server"]), int(flow["server_port"])],
        "devices": sorted({devices[i] for i in interfaces}),
        "first_ns": int(flow["first_ns"]),
        "payload_bytes": int(flow[f"payload_{way}"]),
        "repeated_bytes": int(flow[f"repeated_{way}"]),
    }


def datagram_arrivals(table: PacketTable, devices: Sequence[str], addresses: set[str]) -> pd.DataFrame:
    """Packets of the busiest UDP flow towards a node: columns time_ns, device, payload_bytes; in order of time."""
    codes = [table.addresses.code(address) for address in sorted(addresses)]
    usable = (table["protocol"] == schema.UDP) & (table["problems"] & schema.UNUSABLE == 0)
    rows = np.flatnonzero(usable & np.isin(table["dst"], codes))
    ports = table["sport"][rows].astype(np.int64) << 16 | table["dport"][rows]
    if rows.size:
        kinds, which = np.unique(ports, return_inverse=True)
        rows = rows[which == np.bincount(which, table["payload_bytes"][rows], kinds.size).argmax()]
    return pd.DataFrame(
        {
            "time_ns": table["time_ns"][rows],
            "device": np.array([*devices, ""], object)[table["interface"][rows]] if rows.size else np.zeros(0, object),
            "payload_bytes": table["payload_bytes"][rows].astype(np.int64),
        }
    )
