"""The columns of the tables of a reconstruction.

Direction: `up` is what the connection's client sends to its server, `down` the opposite; that holds for payload and for the
data that is acknowledged. In `flows`, "client" is the opener of the flow. Bytes are payload bytes unless said otherwise, times
are ns since the Unix epoch. -1 (NaN in columns in ms) stands for unknown.
"""

from __future__ import annotations

from typing import NamedTuple


class TableColumn(NamedTuple):
    """One column: name and meaning with unit. A name ending in `_*` stands for two columns, `_up` and `_down`."""

    name: str
    meaning: str


FLOWS = (
    TableColumn("connection", "number of the connection"),
    TableColumn("subflow", "number within the connection; 0 is the initial one, the others in order of their first packet"),
    TableColumn("point", "capturing interface, an index into `packets.points`; -1: several"),
    TableColumn("client", "address of the opener"),
    TableColumn("client_port", "its port"),
    TableColumn("server", "address of the other end"),
    TableColumn("server_port", "its port"),
    TableColumn("opened_by_client", "False: the connection's server opened this joined flow"),
    TableColumn("first_ns", "first packet"),
    TableColumn("last_ns", "last packet"),
    TableColumn("established_ns", "first segment of the opener after the SYN/ACK"),
    TableColumn("handshake_ms", "from the first SYN to that"),
    TableColumn("client_isn", "initial sequence number; also known from a SYN/ACK alone"),
    TableColumn("server_isn", "initial sequence number"),
    TableColumn("end", '"fin", "reset" (a RST before both FINs) or "open"'),
    TableColumn("backup", "one side set the B flag in MP_JOIN"),
    TableColumn("client_id", "address id of the opener; 0 on an initial MPTCP subflow"),
    TableColumn("server_id", "address id of the other end"),
    TableColumn("join", 'HMACs of MP_JOIN: "verified", "wrong", "no keys", "unanswered", "" when it is no join'),
    TableColumn("packets_*", "packets"),
    TableColumn("payload_*", "payload, repetitions included"),
    TableColumn("unique_*", "distinct bytes of the subflow's stream"),
    TableColumn("repeated_*", "payload beyond these: retransmitted by TCP"),
    TableColumn("reinjected_*", "distinct bytes of the subflow with data that was sent before: sent again by MPTCP"),
    TableColumn("data_*", "bytes of the data stream that this subflow was the first to carry"),
    TableColumn("out_of_order_*", "segments that filled a hole below bytes seen earlier"),
    TableColumn("overhead_*", "bytes of IP, tunnel and TCP headers"),
)

CONNECTIONS = (
    TableColumn("transport", '"mptcp" when offered, accepted, confirmed and not fallen back, else "tcp"'),
    TableColumn("version", "of MPTCP: 1 or 0, as in the SYN/ACK"),
    TableColumn("client", "address of the client, on the initial subflow"),
    TableColumn("client_port", "its port"),
    TableColumn("server", "address of the server, on the initial subflow"),
    TableColumn("server_port", "its port"),
    TableColumn("first_ns", "first packet"),
    TableColumn("last_ns", "last packet"),
    TableColumn("subflows", "number of flows"),
    TableColumn("point", "number of the capture point"),
    TableColumn("client_key", "64 bits, 0 unseen"),
    TableColumn("server_key", "64 bits, 0 unseen"),
    TableColumn("client_token", "first 32 bits of the key's hash"),
    TableColumn("server_token", "first 32 bits of the key's hash"),
    TableColumn(
        "client_idsn", "DSN of the first byte of `up`: from the key, without a right one the first seen; 0 in plain TCP"
    ),
    TableColumn("server_idsn", "DSN of the first byte of `down`, likewise"),
    TableColumn(
        "keys", '"verified" by a token or the first DSN or DATA_ACK, "seen", "wrong" (the first DSN disagrees), "none"'
    ),
    TableColumn("checksum", "one side requires DSS checksums"),
    TableColumn("fallback", 'why it is plain TCP though MPTCP was offered, "" otherwise'),
    TableColumn("fastclose", "MP_FASTCLOSE was sent"),
    TableColumn("data_fin_*", "DATA_FIN was sent"),
    TableColumn("bytes_*", "distinct bytes of the data stream"),
    TableColumn("delivered_*", "bytes delivered in order, up to the first hole (see `delivery`)"),
    TableColumn("payload_*", "payload of all flows, repetitions included"),
    TableColumn("duplicate_*", "payload beyond the first copy of each byte of the data stream"),
    TableColumn("unmapped_*", "payload without a mapping, therefore without a place in the data stream"),
    TableColumn("missed_*", "bytes that were acknowledged but are not in the capture, where captured ones follow"),
    TableColumn("reinjected_*", "sum of that of the flows"),
    TableColumn("depth_*", "most bytes that lay beyond the first hole of the data stream at one moment"),
    TableColumn("gap_*_ms", "longest time between two moments at which the data stream grew in order; ms"),
)

SEGMENTS = (
    TableColumn("time_ns", "time of the packet"),
    TableColumn("row", "row of `packets`"),
    TableColumn("connection", "number of the connection"),
    TableColumn("subflow", "number of the subflow in it"),
    TableColumn("flow", "number of the flow"),
    TableColumn("up", "sent by the connection's client"),
    TableColumn("begin", "offset in the data stream from its first byte; -1: no mapping, or before the first byte seen"),
    TableColumn("end", "offset behind the last byte, likewise"),
    TableColumn("flow_begin", "offset in the subflow's own stream; negative: before the first byte seen"),
    TableColumn("flow_end", "offset behind the last byte"),
    TableColumn("new_bytes", "bytes of the data stream that nobody carried before"),
    TableColumn("kind", "FIRST, RETRANSMISSION, REINJECTION or UNMAPPED"),
)

ACKS = (
    TableColumn("time_ns", "time of the packet"),
    TableColumn("row", "row of `packets`"),
    TableColumn("connection", "number of the connection"),
    TableColumn("subflow", "number of the subflow in it"),
    TableColumn("flow", "number of the flow"),
    TableColumn("up", "the data acknowledged was sent by the connection's client"),
    TableColumn("data_ack", "offset in the data stream up to which it is acknowledged; -1 without DATA_ACK"),
    TableColumn("flow_ack", "offset in the subflow's stream"),
)


def names(columns: tuple[TableColumn, ...]) -> list[str]:
    """Names of all columns, both directions spelt out."""
    ways = ("up", "down")
    return [name for column in columns for name in dict.fromkeys(column.name.replace("*", way) for way in ways)]
