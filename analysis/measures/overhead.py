"""What a stream costs beside its payload: headers, acknowledgments and signalling, in bytes of IP packets.

Link-layer headers are not counted: they differ by link and the capture point adds its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.measures.observation import Bools, Int64s
from analysis.packets import schema
from analysis.packets.schema import DSS_DATA_FIN, FIN, RST, SYN
from analysis.packets.table import PacketTable

_PLAIN_TCP_BYTES = {4: 40, 6: 60}
"""IP header and TCP header without options."""


class Overhead(NamedTuple):
    """Bytes beside the payload. `extra_bytes` is the part of all of it that plain IP and TCP headers without options would
    not have had: TCP options, extension headers, tunnel headers. `signalling_packets` counts packets, the others bytes."""

    header_bytes: int
    ack_bytes: int
    signalling_bytes: int
    extra_bytes: int
    signalling_packets: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.header_bytes + self.ack_bytes + self.signalling_bytes


def is_signalling(table: PacketTable, rows: Int64s) -> Bools:
    """Packets without payload that say something about the connection: SYN, FIN, RST, DATA_FIN, MPTCP options but DSS."""
    options = (table["mp_subtypes"][rows] & np.uint16(0xFFFF ^ (1 << schema.DSS))) > 0
    flags = (table["flags"][rows] & (SYN | FIN | RST)) > 0
    data_fin = (table["dss_flags"][rows] & DSS_DATA_FIN) > 0
    signalling: Bools = (table["payload_bytes"][rows] == 0) & (options | flags | data_fin)
    return signalling


def stream_overhead(table: PacketTable, rows: Int64s, from_sender: Bools) -> Overhead:
    """Overhead of one direction of a connection.

    Headers of the packets with its payload, pure acknowledgments from its receiver, and the signalling packets of both
    sides. An acknowledgment that rides on payload of the other direction belongs to that one.
    """
    size = table["overhead_bytes"][rows].astype(np.int64)
    empty = table["payload_bytes"][rows] == 0
    signalling = is_signalling(table, rows)
    data, acks = from_sender & ~empty, ~from_sender & empty & ~signalling
    own = data | acks | signalling
    plain = np.zeros(rows.size, np.int64)
    for version, least in _PLAIN_TCP_BYTES.items():
        plain[table["ip_version"][rows] == version] = least
    extra = int(np.maximum(size - plain, 0)[own].sum())
    header, ack, signals = (int(size[chosen].sum()) for chosen in (data, acks, signalling))
    return Overhead(header, ack, signals, extra, int(signalling.sum()))


def message_bytes(table: PacketTable, rows: Int64s) -> int:
    """IP bytes of whole packets, as of the messages of a mobility protocol."""
    return int(table["overhead_bytes"][rows].astype(np.int64).sum() + table["payload_bytes"][rows].astype(np.int64).sum())
