"""Which flow at one capture point is which at another, although addresses, ports and sequence numbers may differ there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.packets import schema
from analysis.packets.schema import ACK, SYN

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Int64s = npt.NDArray[np.int64]
_PATTERN = 10
"""So many payload sizes per direction make the pattern of a flow."""
_LEAST_PATTERN = 6


class Pair(NamedTuple):
    """One flow at both points. `flipped`: what is the client at the first point counts as server at the second one."""

    first: int
    second: int
    paired_by: str
    flipped: bool


class _Flows:
    """What flows can be recognised by, one entry per flow number."""

    def __init__(self, core: Reconstruction) -> None:
        flows = core.flows
        columns = (flows[name].tolist() for name in ("client", "client_port", "server", "server_port"))
        clients, client_ports, servers, server_ports = columns
        self.client = list(zip(clients, client_ports, strict=True))
        self.server = list(zip(servers, server_ports, strict=True))
        self.client_isn: list[int] = flows["client_isn"].tolist()
        self.server_isn: list[int] = flows["server_isn"].tolist()
        self.first_ns: list[int] = flows["first_ns"].tolist()
        self.keys: dict[int, Hashable] = {}
        self.nonces: dict[int, Hashable] = {}
        self.syn_time: dict[int, int] = {}
        self._read_options(core)
        self.pattern = _patterns(core)

    def _read_options(self, core: Reconstruction) -> None:
        table, signals = core.packets, core.packets.signals
        flags = table["flags"]
        answer = flags[signals["row"]] & (SYN | ACK) == (SYN | ACK)
        keyed = np.flatnonzero((signals["subtype"] == schema.MP_CAPABLE) & answer & (core.flow[signals["row"]] >= 0))
        for index in keyed.tolist():
            self.keys[int(core.flow[signals["row"][index]])] = int(signals["sender_key"][index])
        opening = flags[signals["row"]] & (SYN | ACK) == SYN
        joined = np.flatnonzero((signals["subtype"] == schema.MP_JOIN) & opening & (core.flow[signals["row"]] >= 0))
        for index in joined.tolist():
            self.nonces[int(core.flow[signals["row"][index]])] = int(signals["token"][index]), int(signals["nonce"][index])
        stamped = (flags & (SYN | ACK) == SYN) & (table["options"] & schema.HAS_TIMESTAMPS > 0) & (core.flow >= 0)
        for row in np.flatnonzero(stamped)[::-1].tolist():
            self.syn_time[int(core.flow[row])] = int(table["tsval"][row])

    def ends(self, flow: int) -> Hashable:
        """Both ends, whoever opened the flow."""
        return tuple(sorted((self.client[flow], self.server[flow])))

    def isns(self, flow: int) -> Hashable | None:
        """Both initial sequence numbers."""
        seen = self.client_isn[flow] >= 0 and self.server_isn[flow] >= 0
        return (self.client_isn[flow], self.server_isn[flow]) if seen else None


def _patterns(core: Reconstruction) -> dict[int, tuple[int, ...]]:
    """Per flow the sizes of its first payload segments, those of the opener positive and the others negative."""
    size = core.packets["payload_bytes"].astype(np.int64)
    rows = np.flatnonzero((size > 0) & (core.flow >= 0))
    rows = rows[np.argsort(core.flow[rows], kind="stable")]
    flow, signed = core.flow[rows], np.where(core.from_client[rows], size[rows], -size[rows])
    starts = np.flatnonzero(np.concatenate(([True], flow[1:] != flow[:-1]))) if rows.size else np.zeros(0, np.int64)
    ends = np.minimum(np.append(starts[1:], rows.size), starts + 2 * _PATTERN)
    return {
        int(flow[start]): tuple(signed[start:end].tolist())
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        if end - start >= _LEAST_PATTERN
    }


def _steps(f: _Flows) -> list[tuple[str, Callable[[int], Any], bool]]:
    """(how, key of a flow or None, whether flows of one key may be paired in order of time), the surest first."""
    return [
        ("endpoints and sequence numbers", lambda n: (f.ends(n), f.isns(n)) if f.isns(n) else None, True),
        ("endpoints and sequence numbers", lambda n: (f.ends(n), f.client_isn[n]) if f.client_isn[n] >= 0 else None, True),
        ("endpoints", f.ends, True),
        ("MPTCP keys", f.keys.get, False),
        ("MPTCP token and nonce", f.nonces.get, False),
        ("sequence numbers", f.isns, True),
        ("sequence number of the client", lambda n: f.client_isn[n] if f.client_isn[n] >= 0 else None, False),
        ("sequence number of the server", lambda n: f.server_isn[n] if f.server_isn[n] >= 0 else None, False),
        ("server and timestamp of the SYN", lambda n: (f.server[n], f.syn_time[n]) if n in f.syn_time else None, False),
        ("timestamp of the SYN", f.syn_time.get, False),
        ("server and payload sizes", lambda n: (f.server[n], f.pattern[n]) if n in f.pattern else None, False),
        ("payload sizes", f.pattern.get, False),
    ]


def pair_flows(core: Reconstruction, first: Iterable[int], second: Iterable[int]) -> list[Pair]:
    """Pair flows of one capture point with those of another, each at most once, in order of the first ones.

    Sure signs come first: the same endpoints with the same initial sequence numbers, the same endpoints, MPTCP keys,
    tokens and nonces, sequence numbers, the timestamp of the SYN, and at last the sizes of the first payload segments.
    A sign that several flows share on one side counts only where both sides have as many of them, in order of time.
    """
    flows = _Flows(core)
    left, right = list(first), list(second)
    pairs: list[Pair] = []
    for how, key, in_order in _steps(flows):
        here, there = _grouped(flows, left, key), _grouped(flows, right, key)
        for sign, mine in here.items():
            theirs = there.get(sign, [])
            if len(mine) == len(theirs) and (in_order or len(mine) == 1):
                for a, b in zip(mine, theirs, strict=True):
                    flipped = flows.client[a] != flows.client[b] and flows.client[a] == flows.server[b]
                    pairs.append(Pair(a, b, how, flipped))
        done, also_done = {pair.first for pair in pairs}, {pair.second for pair in pairs}
        left = [flow for flow in left if flow not in done]
        right = [flow for flow in right if flow not in also_done]
    return sorted(pairs)


def _grouped(flows: _Flows, numbers: list[int], key: Callable[[int], Any]) -> dict[Any, list[int]]:
    """Flow numbers by key, in order of time; flows without one are left out."""
    out: dict[Any, list[int]] = {}
    for number in sorted(numbers, key=lambda flow: flows.first_ns[flow]):
        sign = key(number)
        if sign is not None:
            out.setdefault(sign, []).append(number)
    return out
