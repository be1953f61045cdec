"""Sections of the page of an analysis: one connection with its figures, and Mobile IP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.charts.axes import bytes_text, duration_text
from analysis.charts.bindings import binding_timeline
from analysis.charts.distributions import delivery_distribution_figure
from analysis.charts.dsn import dsn_figure, mapping_figure
from analysis.charts.interactive import FrameNumbers, plot_data
from analysis.charts.rates import outstanding_figure, subflow_goodput_figure
from analysis.charts.signalling import mobility_sequence_chart, mptcp_sequence_chart
from analysis.connections.facts import endpoint
from analysis.html import embed

if TYPE_CHECKING:
    from analysis.connections import Reconstruction
    from analysis.mobileip import Mobility

MINOR_SHARE = 0.1
"""The direction with less data has figures of its own from this share of the other one on."""
MINOR_SEGMENTS = 20
FINDINGS_MAX, SUBFLOWS_MAX, TABLE_MAX = 60, 60, 40
Facts = list[tuple[str, str]]


def ways_of(rec: Reconstruction, number: int) -> list[bool]:
    """Directions of a connection (True: client to server) worth figures, the one with more data first."""
    segments = rec.segments
    up = segments["up"].to_numpy(np.bool_)[segments["connection"].to_numpy() == number]
    counts = {True: int(up.sum()), False: int(up.size - up.sum())}
    row: Any = rec.connections.loc[number]
    size = {True: int(row["payload_up"]), False: int(row["payload_down"])}
    ways = sorted((way for way in counts if counts[way]), key=lambda way: -size[way])
    return [
        way for way in ways if way == ways[0] or (size[way] >= MINOR_SHARE * size[ways[0]] and counts[way] >= MINOR_SEGMENTS)
    ]


def connection_section(rec: Reconstruction, row: dict[str, Any], points: int, numbers: FrameNumbers | None) -> dict[str, Any]:
    """What the page shows of one connection. row: of the summary. `points`: limit of an interactive plot."""
    number, mptcp = int(row["number"]), row["transport"] == "mptcp"
    ways = [_way(rec, number, up, mptcp, points, numbers) for up in ways_of(rec, number)]
    signalling = None
    if len(rec.signals) and bool((rec.signals["connection"] == number).any()):
        signalling = embed(mptcp_sequence_chart(rec, number), f"Who sent which signal when in connection {number}")
    findings = rec.findings.loc[rec.findings["connection"] == number] if len(rec.findings) else rec.findings
    first_ns = int(rec.connections["first_ns"].loc[number])
    return {
        "number": number,
        "mptcp": mptcp,
        "point": int(row.get("point", 0)),
        "title": f"{_ends(row['client'])} → {_ends(row['server'])}",
        "facts": _facts(row),
        "subflows": row["subflows"][:SUBFLOWS_MAX],
        "subflows_left_out": max(len(row["subflows"]) - SUBFLOWS_MAX, 0),
        "ways": ways,
        "signalling": signalling,
        "findings": [
            found | {"after_s": (found["time_ns"] - first_ns) / 1e9 if found["time_ns"] >= 0 else None}
            for found in findings.head(FINDINGS_MAX).to_dict("records")
        ],
        "findings_left_out": max(len(findings) - FINDINGS_MAX, 0),
    }


def _ends(pair: list[Any]) -> str:
    return endpoint(str(pair[0]), int(pair[1]))


def _way(
    rec: Reconstruction, number: int, up: bool, mptcp: bool, points: int, numbers: FrameNumbers | None
) -> dict[str, Any]:  # fmt: skip
    """Figures of one direction."""
    way = "client to server" if up else "server to client"
    where = f"connection {number}, {way}"
    pictures = [(embed(subflow_goodput_figure(rec, number, up), f"Goodput of the subflows over time, {where}"), "goodput")]
    if mptcp:
        pictures.append(
            (embed(mapping_figure(rec, number, up), f"Places in the subflows over places in the data, {where}"), "mapping")
        )
    pictures.append(
        (embed(outstanding_figure(rec, number, up), f"Bytes sent and not acknowledged over time, {where}"), "outstanding")
    )
    pictures.append((embed(delivery_distribution_figure(rec, number, up), f"Times between deliveries, {where}"), "deliveries"))
    alt = f"Data sequence numbers over time, {where}"
    return {
        "name": way,
        "plot": {
            "alt": alt,
            "data": plot_data(rec, number, up, points, numbers),
            "fallback": embed(dsn_figure(rec, number, up), alt, svg_limit_bytes=0),
        },
        "pictures": [{"picture": picture, "about": about} for picture, about in pictures],
    }


def _facts(row: dict[str, Any]) -> Facts:
    """What is known of a connection, in words; nothing that is not."""
    mptcp = row["transport"] == "mptcp"
    facts: Facts = [("lasted", f"{duration_text(row['duration_s'])} from {row['start_s']:.3f} s on")]
    if mptcp:
        facts.append(("MPTCP", _version(row)))
        for side in ("client", "server"):
            if row[f"{side}_token"] or row[f"{side}_key"]:
                idsn = row[f"{side}_idsn"]
                facts.append(
                    (
                        f"{side}",
                        f"token {row[f'{side}_token'] or 'unknown'}"
                        + (f", first data byte has DSN {int(idsn, 16)}" if idsn else ""),
                    )
                )
        facts.append(("keys", _KEYS.get(row["keys"], row["keys"])))
    if row["fallback"]:
        facts.append(("fallback to TCP", row["fallback"]))
    for way, name in (("up", "client to server"), ("down", "server to client")):
        facts += _direction(row, way, name)
    return facts


_KEYS = {
    "verified": "seen and right: token or first DSN are their hash",
    "seen": "seen, nothing to check them by",
    "wrong": "seen, but they disagree with token or first DSN",
    "none": "not seen: joins cannot be verified",
}


def _version(row: dict[str, Any]) -> str:
    words = [f"version {row['version']}" if row["version"] >= 0 else "version unknown"]
    words.append("DSS checksums" if row["checksum"] else "no DSS checksums")
    if row["fastclose"]:
        words.append("ended by MP_FASTCLOSE")
    fins = [side for side, way in (("client", "up"), ("server", "down")) if row[f"data_fin_{way}"]]
    words.append(f"DATA_FIN by {' and '.join(fins)}" if fins else "no DATA_FIN")
    return ", ".join(words)


def _direction(row: dict[str, Any], way: str, name: str) -> Facts:
    """Amounts of one direction, when it carried anything."""
    size = row[f"bytes_{way}"]
    if not row[f"payload_{way}"]:
        return []
    words = [f"{bytes_text(size)} of data, {bytes_text(row[f'delivered_{way}'])} of it without a hole"]
    if row[f"rate_{way}_mbit"]:
        words.append(f"{row[f'rate_{way}_mbit']:.3g} Mbit/s on average")
    if row[f"duplicate_{way}"]:
        words.append(
            f"{bytes_text(row[f'duplicate_{way}'])} sent again, {bytes_text(row[f'reinjected_{way}'])} of it reinjected"
        )
    if row[f"depth_{way}"]:
        words.append(f"out of order by up to {bytes_text(row[f'depth_{way}'])}")
    if row[f"gap_{way}_ms"] is not None:
        words.append(f"longest time without new in-order data {duration_text(row[f'gap_{way}_ms'] / 1e3)}")
    return [(name, "; ".join(words))]


def mobility_section(mobility: Mobility, start_ns: int) -> dict[str, Any]:
    """What the page shows of Mobile IP; times are seconds since `start_ns`."""
    messages, bindings = mobility.messages, mobility.bindings
    kinds = (
        messages.loc[~messages["copy"].astype(bool), "kind"].value_counts(sort=False) if len(messages) else pd.Series(dtype=int)
    )
    registrations = mobility.registrations
    routine = (
        (registrations["kind"] == "refresh") & (registrations["result"] == "accepted") & (registrations["retransmissions"] == 0)
    )
    pictures = []
    if len(bindings):
        end_ns = max(int(bindings["to_ns"].max()), int(bindings["from_ns"].max()), int(messages["time_ns"].max()))
        pictures.append(embed(binding_timeline(bindings, start_ns, end_ns), "Bindings over time"))
    if len(messages):
        pictures.append(embed(mobility_sequence_chart(messages, start_ns=start_ns), "Who sent which mobility message when"))
    return {
        "messages": [(str(kind), int(count)) for kind, count in kinds.items()],
        "left_out": mobility.left_out,
        "pictures": pictures,
        "registrations": _records(registrations.loc[~routine], start_ns),
        "registrations_total": int((~routine).sum()),
        "refreshes": int(routine.sum()),
        "handovers": _records(mobility.handovers, start_ns),
        "handovers_total": len(mobility.handovers),
        "tunnels": _records(mobility.tunnels, start_ns),
        "tunnels_total": len(mobility.tunnels),
        "rows_max": TABLE_MAX,
    }


def _records(table: pd.DataFrame, start_ns: int) -> list[dict[str, Any]]:
    """The first rows as plain values: moments in s since `start_ns`, missing numbers None."""
    out = []
    for row in table.head(TABLE_MAX).to_dict("records"):
        plain: dict[str, Any] = {}
        for name, value in row.items():
            key = str(name)
            if key.endswith("_ns"):
                plain[f"{key[:-3]}_s"] = (int(value) - start_ns) / 1e9 if int(value) >= 0 else None
            else:
                plain[key] = None if isinstance(value, float) and not np.isfinite(value) else value
        out.append(plain)
    return out
