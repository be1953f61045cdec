"""Made-up reconstructions: tables as `analysis.connections.reconstruct` returns them, without a capture behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from analysis.connections.model import Reconstruction
from analysis.packets.schema import TCP
from analysis.packets.table import PacketTable, Point

FIRST, RETRANSMISSION, REINJECTION, UNMAPPED = range(4)
START_NS = 1_700_000_000_000_000_000
SIZE = 1420
FLOW = {
    "connection": 0, "subflow": 0, "point": 0, "client": "10.0.1.2", "client_port": 40000, "server": "10.0.9.2",
    "server_port": 5001, "opened_by_client": True, "first_ns": START_NS, "last_ns": START_NS, "established_ns": START_NS,
    "handshake_ms": 30.0, "client_isn": 1, "server_isn": 2, "end": "fin", "backup": False, "client_id": 0, "server_id": 0,
    "join": "", "packets_up": 0, "packets_down": 0, "payload_up": 0, "payload_down": 0, "unique_up": 0, "unique_down": 0,
    "repeated_up": 0, "repeated_down": 0, "reinjected_up": 0, "reinjected_down": 0, "data_up": 0, "data_down": 0,
    "out_of_order_up": 0, "out_of_order_down": 0, "overhead_up": 0, "overhead_down": 0,
}  # fmt: skip
CONNECTION = {
    "transport": "mptcp", "version": 1, "client": "10.0.1.2", "client_port": 40000, "server": "10.0.9.2",
    "server_port": 5001, "first_ns": START_NS, "last_ns": START_NS, "subflows": 2,
    "client_key": 0x1122334455667788, "server_key": 0x99AABBCCDDEEFF00,
    "client_token": 0x1F2E3D4C, "server_token": 0x5B6A7988, "client_idsn": 0xFEDCBA9876543210,
    "server_idsn": 0xFFFFFFFFFFFFF000,
    "keys": "verified", "checksum": False, "fallback": "", "fastclose": False, "data_fin_up": False, "data_fin_down": True,
    "bytes_up": 0, "bytes_down": 0, "delivered_up": 0, "delivered_down": 0, "payload_up": 0, "payload_down": 0,
    "duplicate_up": 0, "duplicate_down": 0, "unmapped_up": 0, "unmapped_down": 0,
    "reinjected_up": 0, "reinjected_down": 0, "depth_up": 0, "depth_down": 0,
    "gap_up_ms": np.nan, "gap_down_ms": np.nan,
}  # fmt: skip
SEGMENT = (
    "time_ns", "row", "connection", "subflow", "flow", "up", "begin", "end", "flow_begin", "flow_end", "new_bytes", "kind",
)  # fmt: skip
ACK = ("time_ns", "row", "connection", "subflow", "flow", "up", "data_ack", "flow_ack")
SIGNAL = ("time_ns", "row", "connection", "subflow", "flow", "from_client", "kind", "text", "verified", "repeated")
FINDING = ("time_ns", "row", "connection", "subflow", "kind", "text", "weight")


TEXTS = ("text", "verified", "weight")


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns have their types even without a row."""
    words = {*TEXTS, "kind"} if "text" in frame else set()
    flags = {"up", "from_client", "repeated"}
    return frame.astype({name: "str" if name in words else "bool" if name in flags else "int64" for name in frame.columns})


@dataclass
class Transfer:
    """Collects the events of one connection's download and makes tables of them."""

    paths: list[tuple[str, str]] = field(default_factory=lambda: [("10.0.1.2", "10.0.9.2"), ("10.0.2.2", "10.0.9.2")])
    number: int = 0
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    acks: list[tuple[Any, ...]] = field(default_factory=list)
    signals: list[tuple[Any, ...]] = field(default_factory=list)
    findings: list[tuple[Any, ...]] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)  # next free byte of each subflow
    row: int = 0
    lag: int = 10 * SIZE  # so much less than was sent is acknowledged on a subflow

    def _next(self, at_s: float) -> tuple[int, int]:
        self.row += 1
        return START_NS + round(at_s * 1e9), self.row - 1

    def send(self, at_s: float, subflow: int, begin: int, size: int = SIZE, kind: int = FIRST, up: bool = False) -> None:
        """A segment; a begin of -1 is unmapped."""
        start = self.place.get(subflow, 0)
        if kind == RETRANSMISSION:
            start -= size
        self.place[subflow] = start + size
        end = begin + size if begin >= 0 else -1
        fresh = size if kind == FIRST and begin >= 0 else 0
        self.segments.append(
            (*self._next(at_s), self.number, subflow, subflow, up, begin, end, start, start + size, fresh, kind)
        )

    def acknowledge(self, at_s: float, subflow: int, data_ack: int, up: bool = False) -> None:
        self.acks.append(
            (*self._next(at_s), self.number, subflow, subflow, up, data_ack, max(self.place.get(subflow, 0) - self.lag, 0))
        )

    def signal(
        self, at_s: float, subflow: int, kind: str, from_client: bool = True, text: str = "", repeated: bool = False
    ) -> None:
        self.signals.append((*self._next(at_s), self.number, subflow, subflow, from_client, kind, text, "", repeated))

    def find(self, at_s: float, subflow: int, kind: str, text: str, weight: str = "warning") -> None:
        self.findings.append((*self._next(at_s), self.number, subflow, kind, text, weight))

    def tables(self, **facts: Any) -> Reconstruction:
        """The tables, in order of time. `facts`: columns of the connection."""
        frames = [
            typed(pd.DataFrame(rows, columns=list(columns))).sort_values("time_ns", kind="stable", ignore_index=True)
            for rows, columns in ((self.segments, SEGMENT), (self.acks, ACK), (self.signals, SIGNAL), (self.findings, FINDING))
        ]
        last_ns = max([START_NS, *(int(f["time_ns"].max()) for f in frames if len(f))])
        segments = frames[0]
        flows = []
        for subflow, (client, server) in enumerate(self.paths):
            mine = segments.loc[segments["subflow"] == subflow]
            sent = int((mine["flow_end"] - mine["flow_begin"]).sum())
            again = mine.loc[mine["kind"] == REINJECTION]
            flows.append(
                FLOW | {
                    "connection": self.number, "subflow": subflow, "client": client, "server": server,
                    "client_port": 40000 + subflow,
                    "payload_down": sent, "packets_down": len(mine), "data_down": int(mine["new_bytes"].sum()),
                    "reinjected_down": int((again["end"] - again["begin"]).sum()), "last_ns": last_ns,
                    "join": "verified" if subflow else "", "handshake_ms": 30.0 + 10 * subflow,
                }
            )  # fmt: skip
        total = int(segments["new_bytes"].sum())
        connection = CONNECTION | {
            "last_ns": last_ns, "subflows": len(self.paths), "bytes_down": total, "delivered_down": total,
            "payload_down": int((segments["flow_end"] - segments["flow_begin"]).sum()),
        }  # fmt: skip
        connection |= {"client": self.paths[0][0], "server": self.paths[0][1]} | facts
        for frame in frames:
            frame["flow"] = frame.get("subflow", 0)
        table = pd.DataFrame(flows)
        return joined([(frames, table, pd.DataFrame([connection], index=[self.number]))])


def joined(parts: Sequence[tuple[list[pd.DataFrame], pd.DataFrame, pd.DataFrame]]) -> Reconstruction:
    """One reconstruction of the tables of several connections; rows are numbered in order of time, one packet each."""
    firsts = np.cumsum([0] + [len(part[1]) for part in parts])
    parts = [
        ([frame.assign(flow=frame["flow"] + first) for frame in tables], flows.set_axis(flows.index + first), connections)
        for (tables, flows, connections), first in zip(parts, firsts, strict=False)
    ]
    frames = []
    for index in range(4):
        frames.append(pd.concat([part[0][index] for part in parts]).sort_values("time_ns", kind="stable", ignore_index=True))
    times = np.concatenate([frame["time_ns"].to_numpy(np.int64) for frame in frames[:3]])
    place = np.empty(times.size, np.int64)
    place[np.argsort(times, kind="stable")] = np.arange(times.size)
    for frame, rows in zip(frames, np.split(place, np.cumsum([len(frame) for frame in frames[:3]])[:2]), strict=False):
        frame["row"] = rows
    packets = PacketTable.empty(times.size)
    packets.columns["time_ns"][:] = np.sort(times)
    packets.columns["payload_at"][:] = 54 + 100 * np.arange(times.size)
    packets.columns["protocol"][:] = TCP
    packets.points = (Point("capture.pcap", "eth0", 1),)
    flows, connections = (pd.concat([part[index] for part in parts]) for index in (1, 2))
    segments, acks, signals, findings = frames
    nothing = np.zeros(times.size, np.int32), np.zeros(times.size, np.bool_)
    return Reconstruction(packets, *nothing, flows, connections, segments, acks, signals, findings)


def together(*several: Reconstruction) -> Reconstruction:
    """Several made-up connections in one reconstruction; their numbers must differ."""
    return joined([([r.segments, r.acks, r.signals, r.findings], r.flows, r.connections) for r in several])


def analysis(rec: Reconstruction, path: str = "capture.pcap", mobility: Any = None, most: int = 10) -> Any:
    """An `analysis.examination.Analysis` of one undamaged file."""
    from analysis.summary import summarise

    interface = SimpleNamespace(name="eth0", link_type=1, snap_bytes=128)
    capture = SimpleNamespace(path=Path(path), interfaces=(interface,), dropped=0, damage=None, packets=len(rec.packets))
    capture.table = rec.packets
    summary = summarise([capture], rec, mobility, {}, [0], most)
    return SimpleNamespace(captures=[capture], rec=rec, mobility=mobility, comparisons={}, summary=summary)


def handover(stretch: int = 1, break_s: float = 0.4, number: int = 0) -> Reconstruction:
    """A download that loses its first path at 2 s and goes on over the second `break_s` later, until about 5 s.

    Before the break both paths carry a little; what was on its way on the first is reinjected on the second. `stretch`:
    so many times the segments per second.
    """
    t = Transfer(number=number)
    step = SIZE // 1
    for at_s, subflow, kinds in ((0.0, 0, ("MP_CAPABLE SYN", "MP_CAPABLE SYN/ACK", "MP_CAPABLE ACK")),
                                 (0.09, 1, ("MP_JOIN SYN", "MP_JOIN SYN/ACK", "MP_JOIN ACK"))):  # fmt: skip
        for index, kind in enumerate(kinds):
            t.signal(
                at_s + 0.03 * ((index + 1) // 2),
                subflow,
                kind,
                index != 1,
                f"key {index}" if subflow == 0 else "token 5b6a7988",
            )
    place, rate = 0, 300 * stretch
    for n in range(int(2.0 * rate) - int(0.1 * rate)):
        at_s = 0.1 + n / rate
        t.send(at_s, int(n % 5 == 4), place)
        if n % (50 * stretch) == 49 * stretch:
            t.send(at_s + 0.05, int(n % 5 == 4), place, kind=RETRANSMISSION)
        if n % 2:
            t.acknowledge(at_s + 0.015, int(n % 5 == 4), place - 10 * step)
        place += step
    lost = list(range(place - 40 * stretch * step, place, step))
    t.signal(2.0, 1, "MP_PRIO", True, "backup off")
    t.signal(2.0 + break_s - 0.05, 1, "REMOVE_ADDR", True, "id 0")
    t.signal(2.0 + break_s - 0.04, 1, "ADD_ADDR", False, "id 3 10.0.8.2")
    t.signal(2.0 + break_s - 0.03, 1, "ADD_ADDR echo", True, "id 3")
    for index, begin in enumerate(lost):
        t.send(2.0 + break_s - 0.02 + index / rate / 3, 1, begin, kind=REINJECTION)
    begin_s = 2.0 + break_s
    for n in range(int((5.0 - begin_s) * rate)):
        at_s = begin_s + n / rate
        t.send(at_s, 1, place)
        if n % 2:
            t.acknowledge(at_s + 0.02, 1, place - 10 * step)
        place += step
    t.signal(5.0, 1, "DATA_FIN", False)
    t.signal(5.05, 1, "FIN", False)
    t.signal(5.06, 1, "FIN", True)
    t.find(2.2, 0, "silent path", "Subflow 0 carried nothing after 2.0 s.", "warning")
    return t.tables()
