"""The essence of an analysis as plain data: what the terminal prints, `--json` gives and the page begins with.

Names carry units. Directions: `up` is from the connection's client to its server. Times of events are seconds since the first
packet of all captures. `rate_*_mbit`: distinct bytes over the whole life of the connection or subflow; the goodput of
docs/metrics.md is in `analysis.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.connections import Reconstruction
from analysis.connections.compare import Comparison
from analysis.files import printable
from analysis.mobileip import Mobility
from analysis.packets import Capture, schema

Summary = dict[str, Any]
SCHEMA = 1
FINDINGS_SHOWN = 100
_PROBLEMS = {
    schema.NOT_IP: "not_ip", schema.IP_CUT: "ip_header_cut", schema.IP_MALFORMED: "ip_malformed",
    schema.FRAGMENT: "first_fragments", schema.LATER_FRAGMENT: "later_fragments", schema.TRANSPORT_CUT: "transport_header_cut",
    schema.TRANSPORT_MALFORMED: "transport_malformed", schema.OPTIONS_CUT: "options_cut",
    schema.OPTIONS_MALFORMED: "options_malformed", schema.LENGTH_CLIPPED: "length_beyond_frame",
    schema.LENGTH_ZERO: "length_zero_offload", schema.TOO_DEEP: "nested_too_deep",
}  # fmt: skip


def summarise(
    captures: Sequence[Capture],
    rec: Reconstruction,
    mobility: Mobility | None,
    comparisons: Mapping[tuple[int, int], Comparison],
    points: Sequence[int],
    most: int,
) -> Summary:
    """Summarise an analysis, the `most` largest connections one by one. `points`: capture point of each interface."""
    start_ns = int(rec.packets["time_ns"][0]) if len(rec.packets) else 0
    chosen = largest(rec, most)
    return {
        "schema": SCHEMA,
        "start_ns": start_ns,
        "files": [_file(capture) for capture in captures],
        "capture_points": _points(rec, points),
        "packets": _packets(rec),
        "connections_total": len(rec.connections),
        "connections_mptcp": int((rec.connections["transport"] == "mptcp").sum()),
        "connections": [_connection(rec, number, start_ns) for number in chosen],
        "findings_total": len(rec.findings),
        "findings": [_finding(row, start_ns) for _, row in _weightiest(rec.findings).iterrows()],
        "between_points": [_between(pair, compared, start_ns) for pair, compared in comparisons.items()],
        "mobile_ip": None if mobility is None else _mobile_ip(mobility, start_ns),
    }


def largest(rec: Reconstruction, most: int) -> list[int]:
    """Numbers of the connections that carried most, MPTCP before plain TCP, in order of their beginning."""
    table = rec.connections
    if table.empty:
        return []
    size = table["payload_up"].to_numpy(np.int64) + table["payload_down"].to_numpy(np.int64)
    order = np.lexsort((table.index.to_numpy(), -size, table["transport"].to_numpy() != "mptcp"))
    return sorted(int(n) for n in table.index.to_numpy()[order[:most]])


def _file(capture: Capture) -> Summary:
    time_ns = capture.table["time_ns"]
    first, last = (int(time_ns.min()), int(time_ns.max())) if time_ns.size else (0, 0)
    return {
        "file": printable(capture.path),
        "interfaces": [{"name": i.name, "link_type": i.link_type, "snap_bytes": i.snap_bytes} for i in capture.interfaces],
        "packets": capture.packets,
        "bytes": int(capture.table["length"].sum(dtype=np.int64)),
        "first_ns": first,
        "last_ns": last,
        "duration_s": round((last - first) / 1e9, 6),
        "dropped": capture.dropped,
        "damage": capture.damage,
    }


def _points(rec: Reconstruction, points: Sequence[int]) -> list[list[str]]:
    """For each capture point its files, with the interfaces in them."""
    named: list[dict[str, list[str]]] = [{} for _ in range(max(points, default=-1) + 1)]
    for point, number in zip(rec.packets.points, points, strict=True):
        named[number].setdefault(Path(point.file).name, []).append(point.interface)
    return [[f"{file} ({', '.join(names)})" if any(names) else file for file, names in files.items()] for files in named]


def _packets(rec: Reconstruction) -> Summary:
    table = rec.packets
    protocol, problems = table["protocol"], table["problems"]
    counts = {
        name: int((protocol == number).sum())
        for name, number in (("tcp", schema.TCP), ("udp", schema.UDP), ("icmp", schema.ICMP), ("icmpv6", schema.ICMPV6),
                             ("mobility_header", schema.MOBILITY))
    }  # fmt: skip
    tunnels = np.bincount(table["tunnel"], minlength=len(schema.TUNNEL_NAMES))
    return {
        "total": len(table),
        **counts,
        "other": len(table) - sum(counts.values()),
        "mptcp": int((table["options"] & schema.HAS_MPTCP > 0).sum()),
        "tunnels": {name: int(n) for name, n in zip(schema.TUNNEL_NAMES, tunnels, strict=True) if name and n},
        "problems": {name: int((problems & bit > 0).sum()) for bit, name in _PROBLEMS.items() if (problems & bit > 0).any()},
    }


def _connection(rec: Reconstruction, number: int, start_ns: int) -> Summary:
    row: Any = rec.connections.loc[number]
    flows = rec.flows[rec.flows["connection"] == number]
    duration_s = (int(row["last_ns"]) - int(row["first_ns"])) / 1e9
    found = rec.findings[rec.findings["connection"] == number]
    signals = rec.signals[rec.signals["connection"] == number] if len(rec.signals) else rec.signals
    out = {"number": number, **_plain(row)}
    out |= {
        "client": [str(row["client"]), int(row["client_port"])],
        "server": [str(row["server"]), int(row["server_port"])],
        "start_s": round((int(row["first_ns"]) - start_ns) / 1e9, 6),
        "duration_s": round(duration_s, 6),
        "rate_up_mbit": _mbit(int(row["bytes_up"]), duration_s),
        "rate_down_mbit": _mbit(int(row["bytes_down"]), duration_s),
        "signals": {str(kind): int(n) for kind, n in signals["kind"].value_counts(sort=False).items()},
        "subflows": [_subflow(index, flow, start_ns) for index, flow in flows.iterrows()],
        "findings": len(found),
    }
    for name in ("client_port", "server_port", "first_ns", "last_ns"):
        out.pop(name)
    return out


def _subflow(index: Any, flow: Any, start_ns: int) -> Summary:
    duration_s = (int(flow["last_ns"]) - int(flow["first_ns"])) / 1e9
    out = {"flow": int(index), **_plain(flow)}
    out |= {
        "client": [str(flow["client"]), int(flow["client_port"])],
        "server": [str(flow["server"]), int(flow["server_port"])],
        "start_s": round((int(flow["first_ns"]) - start_ns) / 1e9, 6),
        "duration_s": round(duration_s, 6),
        "established": int(flow["established_ns"]) >= 0,
        "rate_up_mbit": _mbit(int(flow["data_up"]), duration_s),
        "rate_down_mbit": _mbit(int(flow["data_down"]), duration_s),
    }
    for name in ("connection", "client_port", "server_port", "first_ns", "last_ns", "established_ns"):
        out.pop(name)
    return out


def _plain(row: pd.Series[Any]) -> Summary:
    """A row of a table as JSON knows values; 64-bit keys as hexadecimal text, since JSON's readers round them."""
    out: Summary = {}
    for name, value in row.items():
        key = str(name)
        if key.endswith(("_key", "_idsn")):
            out[key] = f"{int(value):016x}" if value else None
        elif key.endswith("_token"):
            out[key] = f"{int(value):08x}" if int(value) >= 0 else None
        elif isinstance(value, (bool, np.bool_)):
            out[key] = bool(value)
        elif isinstance(value, (int, np.integer)):
            out[key] = int(value)
        elif isinstance(value, (float, np.floating)):
            out[key] = None if not np.isfinite(value) else round(float(value), 6)
        else:
            out[key] = str(value)
    return out


def _mbit(size: int, duration_s: float) -> float | None:
    return round(size * 8 / 1e6 / duration_s, 6) if duration_s > 0 else None


def _weightiest(findings: pd.DataFrame) -> pd.DataFrame:
    """The findings that matter most, in order of time."""
    if findings.empty:
        return findings
    rank = findings["weight"].map({"error": 0, "warning": 1}).fillna(2)
    return findings.loc[rank.sort_values(kind="stable").index[:FINDINGS_SHOWN]].sort_values("time_ns", kind="stable")


def _finding(row: Any, start_ns: int) -> Summary:
    out = _plain(row)
    out["time_s"] = round((int(row["time_ns"]) - start_ns) / 1e9, 6) if int(row["time_ns"]) >= 0 else None
    out.pop("time_ns")
    return out


def _between(pair: tuple[int, int], compared: Comparison, start_ns: int) -> Summary:
    """What happened between two capture points."""
    return {
        "points": list(pair),
        "flows_paired": len(compared.pairs),
        "clock_offset_ms": None if np.isnan(compared.clock_offset_ms) else round(compared.clock_offset_ms, 6),
        "damage": [_finding(row, start_ns) for _, row in _weightiest(compared.damage).iterrows()],
        "delays": [_plain(row) for _, row in compared.delays.iterrows()][:FINDINGS_SHOWN],
    }


def _mobile_ip(mobility: Mobility, start_ns: int) -> Summary:
    """Counts of messages, and the short tables as they are."""
    out: Summary = {"messages": {str(k): int(n) for k, n in mobility.messages["kind"].value_counts(sort=False).items()}}
    for name in ("registrations", "bindings", "tunnels"):
        table: pd.DataFrame = getattr(mobility, name)
        out[f"{name}_total"] = len(table)
        out[name] = [_timed(row, start_ns) for _, row in table.head(FINDINGS_SHOWN).iterrows()]
    return out


def _timed(row: Any, start_ns: int) -> Summary:
    """A row with its moments in seconds since the first packet."""
    out: Summary = {}
    for name, value in _plain(row).items():
        if name.endswith("_ns") and isinstance(value, int):
            out[f"{name[:-3]}_s"] = round((value - start_ns) / 1e9, 6) if value >= 0 else None
        else:
            out[name] = value
    return out
