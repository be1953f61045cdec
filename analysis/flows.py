"""TCP flows and MPTCP connections in the packets of one node.

A flow is one TCP connection between two endpoints; a second handshake on the same endpoints is another flow. An MPTCP
connection is an initial flow and the flows joined to it by token (RFC 8684 sections 3.1 and 3.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.options import DSS_DATA_FIN

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
Endpoint = tuple[str, int]


@dataclass(frozen=True)
class Flow:
    """One TCP flow. `packets` holds both directions in order of time; `from_client` is parallel to its rows.

    The initial sequence numbers are None when the capture began after the handshake.
    """

    packets: pd.DataFrame
    from_client: pd.Series[bool]
    client: Endpoint
    server: Endpoint
    client_isn: int | None
    server_isn: int | None

    def payload(self, towards_client: bool) -> int:
        """Payload bytes of one direction, repetitions included."""
        chosen = ~self.from_client if towards_client else self.from_client
        return int(self.packets.loc[chosen, "payload_bytes"].sum())


@dataclass(frozen=True)
class Connection:
    """The flows of one transport connection and what it was on the wire.

    `client_is_opener` is parallel to `flows`: False where the connection's server opened the joined flow.
    `transport`: "mptcp" when MP_CAPABLE was offered, accepted and echoed and nothing fell back, else "tcp".
    """

    flows: tuple[Flow, ...]
    client_is_opener: tuple[bool, ...]
    transport: str
    client_key: int | None
    server_key: int | None
    notes: tuple[str, ...] = field(default=())


def token_of(key: int) -> int:
    """Token of an MPTCP key (RFC 8684 section 3.2): the most significant 32 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(key.to_bytes(8, "big")).digest()[:4], "big")


def first_dsn_of(key: int) -> int:
    """DSN of the first data byte (RFC 8684 section 3.1): the last 64 bits of the key's SHA-256, plus one."""
    return (int.from_bytes(hashlib.sha256(key.to_bytes(8, "big")).digest()[24:32], "big") + 1) % 2**64


def find_flows(packets: pd.DataFrame) -> list[Flow]:
    """All TCP flows in one node's packets (`captures` columns, in order of time), the earliest first."""
    tcp = packets[packets["protocol"] == 6]
    if tcp.empty:
        return []
    addresses, _ = pd.factorize(pd.concat([tcp["src"].astype(str), tcp["dst"].astype(str)]))
    source = addresses[: len(tcp)].astype(np.int64) << 16 | tcp["sport"].to_numpy(np.int64)
    target = addresses[len(tcp) :].astype(np.int64) << 16 | tcp["dport"].to_numpy(np.int64)
    low, _ = pd.factorize(np.minimum(source, target))
    high, _ = pd.factorize(np.maximum(source, target))
    pair, _ = pd.factorize(low.astype(np.int64) << 32 | high)
    flows: list[Flow] = []
    for rows in pd.Series(np.arange(len(tcp))).groupby(pair).indices.values():
        flows += _split(tcp.iloc[np.sort(rows)])
    return sorted(flows, key=lambda flow: int(flow.packets["time_ns"].iloc[0]))


def _split(packets: pd.DataFrame) -> list[Flow]:
    """Flows between one pair of endpoints: a SYN with a new sequence number starts another one."""
    flags = packets["flags"].to_numpy()
    opening = (flags & (SYN | ACK)) == SYN
    seq = packets["seq"].to_numpy(np.int64)
    starts = [0]
    last: int | None = None
    for row in np.flatnonzero(opening).tolist():
        if last is not None and seq[row] != last:
            starts.append(row)
        last = int(seq[row])
    return [_flow(packets.iloc[a:b]) for a, b in zip(starts, [*starts[1:], len(packets)], strict=True)]


def _flow(packets: pd.DataFrame) -> Flow:
    """Name the opener (client) of a flow; without a handshake the first sender counts as client."""
    flags = packets["flags"].to_numpy()
    syn, syn_ack = np.flatnonzero((flags & (SYN | ACK)) == SYN), np.flatnonzero((flags & (SYN | ACK)) == (SYN | ACK))
    first = packets.iloc[int(syn[0]) if syn.size else int(syn_ack[0]) if syn_ack.size else 0]
    source, target = (str(first["src"]), int(first["sport"])), (str(first["dst"]), int(first["dport"]))
    client, server = (target, source) if not syn.size and syn_ack.size else (source, target)
    from_client = (packets["src"].astype(str) == client[0]) & (packets["sport"] == client[1])
    return Flow(
        packets,
        from_client,
        client,
        server,
        int(packets["seq"].iloc[syn[0]]) if syn.size else None,
        int(packets["seq"].iloc[syn_ack[0]]) if syn_ack.size else None,
    )


def connection_of(first: Flow, flows: list[Flow]) -> Connection:
    """The connection whose initial flow is `first`, with the flows of `flows` that joined it."""
    p, mine = first.packets, first.from_client.to_numpy()
    flags, cap = p["flags"].to_numpy(), p["cap_bytes"].to_numpy()
    syn, ack = (flags & SYN) > 0, (flags & ACK) > 0
    offered = syn & ~ack & (cap == 4)
    accepted = syn & ack & (cap == 12)
    echoed = mine & ~syn & (cap >= 20)
    notes: list[str] = []
    if not (offered.any() and accepted.any() and echoed.any()):
        missing = "offered" if not offered.any() else "accepted" if not accepted.any() else "confirmed"
        return Connection((first,), (True,), "tcp", None, None, (f"MP_CAPABLE was not {missing}",))
    versions = p["cap_version"].to_numpy()[accepted]
    if not (versions == 1).all():
        return Connection((first,), (True,), "tcp", None, None, (f"MPTCP version {versions[0]} is not understood",))
    echo = p.iloc[int(np.flatnonzero(echoed)[0])]
    client_key, server_key = int(echo["sender_key"]), int(echo["receiver_key"])
    if server_key != int(p["sender_key"].to_numpy()[accepted][0]):
        notes.append("the third ACK echoes another key than the server sent")
    joined, opened_by_client = [first], [True]
    for flow in flows:
        openings = flow.packets[(flow.packets["flags"] & (SYN | ACK) == SYN) & (flow.packets["join_bytes"] == 12)]
        if flow is first or openings.empty:
            continue
        token = int(openings["join_token"].iloc[0])
        if token in (token_of(server_key), token_of(client_key)):
            joined.append(flow)
            opened_by_client.append(token == token_of(server_key))
    transport = "mptcp"
    if any(_infinite_mapping(flow) for flow in joined):
        transport = "tcp"
        notes.append("fell back to TCP by an infinite mapping")
    return Connection(tuple(joined), tuple(opened_by_client), transport, client_key, server_key, tuple(notes))


def _infinite_mapping(flow: Flow) -> bool:
    """True when a DSS mapping of length 0 was sent (RFC 8684 section 3.7)."""
    p = flow.packets
    infinite = (p["dsn_bytes"] > 0) & (p["map_bytes"] == 0) & (p["dss_flags"] & DSS_DATA_FIN == 0)
    return bool(infinite.any())


def pick_flow(flows: list[Flow], local: Endpoint | None, peer: Endpoint | None, addresses: set[str]) -> Flow | None:
    """The initial flow of the workload, seen from the node that has `addresses`.

    `local` and `peer` are what the application saw on that node; without them, or when the capture shows other
    addresses, the flow with most payload towards the node that did not join another connection.
    """
    for flow in flows:
        if local is not None and peer is not None and {flow.client, flow.server} == {local, peer}:
            return flow
    candidates = [flow for flow in flows if not (flow.packets["join_bytes"] == 12).any()]
    ports = {endpoint[1] for endpoint in (local, peer) if endpoint is not None}
    matching = [flow for flow in candidates if flow.server[1] in ports]
    return max(matching or candidates, key=lambda flow: flow.payload(flow.client[0] in addresses), default=None)
