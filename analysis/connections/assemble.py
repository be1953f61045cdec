"""From a packet table to flows, connections, segments and acknowledgments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.connections.datanumbers import find_data_numbers
from analysis.connections.flows import find_flows
from analysis.connections.membership import find_membership
from analysis.connections.model import Reconstruction
from analysis.connections.offers import CAPABLE, JOIN, read_offers
from analysis.connections.payload import find_payload
from analysis.connections.positions import find_positions
from analysis.connections.tables import Core, acks_table, connections_table, fallbacks, flows_table, segments_table, texts
from analysis.packets.table import PacketTable


def reconstruct(table: PacketTable, points: Sequence[int] | None = None) -> Reconstruction:
    """Reconstruct all TCP flows and MPTCP connections of a packet table.

    `points`: number of the capture point of each interface (see `guess_points`); default: one point for all, which is right
    for the interfaces of one host. What was seen at two points makes two flows, and connections do not span points. Raises
    ValueError when `points` does not name all interfaces.
    """
    core = reconstruct_core(table, points)
    from analysis.connections.findings import find
    from analysis.connections.signalling import build_signals

    core.signals = build_signals(core)
    core.findings = find(core)
    return core


def reconstruct_core(table: PacketTable, points: Sequence[int] | None = None) -> Reconstruction:
    """The same without `signals` and `findings`, which stay empty."""
    packets = table.sorted_by_time()
    flows = find_flows(packets, points)
    positions = find_positions(packets, flows)
    offers = read_offers(packets, flows)
    member = find_membership(packets, flows, offers)
    mptcp = np.isin(offers.state[member.initial], (CAPABLE, JOIN))
    mapped = np.repeat(mptcp, 2)
    streams = member.streams
    keyed = (member.keys != 0).reshape(-1)
    first_dsns = member.first_dsns.reshape(-1)
    initial = np.repeat(member.initial[member.connection] == np.arange(flows.count), 2)
    stream_of = np.where(mapped[streams], streams, np.int32(-1))
    numbers = find_data_numbers(packets, positions, stream_of, first_dsns, keyed, initial)
    payload, fallen = find_payload(packets, positions, offers, member, mptcp, numbers)
    core = Core(packets, flows, positions, offers, member, mptcp, numbers, payload, fallen)
    flow_rows = flows_table(core)
    fallback = fallbacks(core)
    acks = acks_table(core, ~mptcp | (fallback != ""))
    out = Reconstruction(
        packets=packets,
        flow=flows.flow,
        from_client=flows.from_client,
        flows=flow_rows,
        connections=connections_table(core, flow_rows, fallback, acks),
        segments=segments_table(core),
        acks=acks,
        signals=pd.DataFrame(),
        findings=pd.DataFrame(),
    )
    if (offers.state == JOIN).any():
        from analysis.connections.authentication import verify_joins

        verdicts, codes = np.unique(verify_joins(out).astype(str), return_inverse=True)
        flow_rows["join"] = texts(codes.astype(np.int8), verdicts)
    return out
