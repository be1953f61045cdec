"""An analysis -> one self-contained HTML page with figures, the DSN plots of which can be zoomed.

Everything in the page stems from captures of strangers: texts are escaped, and the page's policy lets run no script but its
own and load nothing.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from analysis.charts.axes import count_text
from analysis.charts.interactive import FrameNumbers, frame_numbers, script_hash, script_text
from analysis.connections.facts import endpoint
from analysis.files import printable, write_atomically
from analysis.html import environment
from analysis.page_sections import connection_section, mobility_section, ways_of

if TYPE_CHECKING:
    from analysis.examination import Analysis

DETAILS_MAX = 6
"""So many connections are shown with figures."""
ROWS_MAX = 200
"""Rows of the table of connections."""
GENERAL_MAX = 50
PAGE_POINTS = 400_000
PLOT_POINTS_MIN, PLOT_POINTS_MAX = 20_000, 200_000
"""Points of all interactive plots together, and what a single one gets at least and at most."""
LINK_TYPES = {
    0: "BSD loopback", 1: "Ethernet", 101: "raw IP", 108: "OpenBSD loopback", 113: "Linux cooked", 228: "raw IPv4",
    229: "raw IPv6", 276: "Linux cooked v2",
}  # fmt: skip
"""Names of the usual link types (LINKTYPE_ registry of tcpdump.org)."""
WEIGHTS = ("error", "warning", "note")


def write_page(analysis: Analysis, out: Path) -> Path:
    """Write the page to `out` (its folder is made if need be) and return it.

    The connections of the summary are shown with figures, the most interesting `DETAILS_MAX` of them. Raises OSError.
    """
    summary, rec = analysis.summary, analysis.rec
    chosen = [row for row in summary["connections"] if row["number"] in set(most_interesting(analysis))]
    plots = sum(len(ways_of(rec, row["number"])) for row in chosen)
    points = min(max(PAGE_POINTS // max(plots, 1), PLOT_POINTS_MIN), PLOT_POINTS_MAX)
    numbers = _numbers(analysis)
    sections = [connection_section(rec, row, points, numbers) for row in chosen]
    total = summary["connections_total"]
    html = (
        environment()
        .get_template("analysis.html.j2")
        .render(
            title=_title(summary),
            sentence=_sentence(summary),
            files=[_file_row(file) for file in summary["files"]],
            points=summary["capture_points"],
            between_points=summary["between_points"],
            packets=_packet_facts(summary["packets"]),
            connections=_connection_rows(analysis, {row["number"] for row in chosen}),
            connections_total=total,
            sections=sections,
            left_out=total - len(sections),
            findings=_general_findings(analysis),
            mobility=None if analysis.mobility is None else mobility_section(analysis.mobility, int(summary["start_ns"])),
            script=Markup(script_text()),
            script_hash=script_hash(),
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html)
    return out


def most_interesting(analysis: Analysis) -> list[int]:
    """Numbers of the connections worth figures: with errors, then with warnings or several subflows, then the largest."""
    findings = analysis.rec.findings
    weights = findings.groupby("connection")["weight"].agg(set).to_dict() if len(findings) else {}

    def interest(row: dict[str, Any]) -> tuple[int, int]:
        found = weights.get(row["number"], set())
        size = row["payload_up"] + row["payload_down"]
        points = 4 * ("error" in found) + 2 * ("warning" in found) + 2 * (row["subflows_count"] > 1)
        return points + (row["transport"] == "mptcp") if size or points else -1, size

    rows = [{**row, "subflows_count": len(row["subflows"])} for row in analysis.summary["connections"]]
    return [row["number"] for row in sorted(rows, key=interest, reverse=True)[:DETAILS_MAX]]


def _numbers(analysis: Analysis) -> FrameNumbers | None:
    """Frame numbers of the files; None without packets."""
    tables = [capture.table for capture in analysis.captures]
    return frame_numbers([printable(capture.path.name) for capture in analysis.captures], tables) if tables else None


def _title(summary: dict[str, Any]) -> str:
    names = [Path(file["file"]).name for file in summary["files"]]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no captures"


def _sentence(summary: dict[str, Any]) -> str:
    """What there is, in one sentence."""
    mptcp, total = summary["connections_mptcp"], summary["connections_total"]
    parts = [count_text(summary["packets"]["total"], "packet"), count_text(mptcp, "MPTCP connection")]
    parts.append(count_text(total - mptcp, "TCP connection"))
    if summary["mobile_ip"]:
        parts.append(count_text(summary["mobile_ip"]["registrations_total"], "mobility registration"))
    found = summary["findings_total"]
    return f"{', '.join(parts)}. {count_text(found, 'finding') if found else 'Nothing odd'}."


def _file_row(file: dict[str, Any]) -> dict[str, Any]:
    """A file with its health in words."""
    problems = []
    if file["damage"]:
        problems.append(("broken", f"damaged: {file['damage']}"))
    if file["dropped"]:
        problems.append(("broken", f"{count_text(file['dropped'], 'packet')} lost by the capturing program"))
    if not file["packets"]:
        problems.append(("mixed", "no packets"))
    if not problems:
        problems.append(("survived", "whole, nothing lost" if file["dropped"] == 0 else "whole; losses not recorded"))
    interfaces: dict[str, None] = {}
    for interface in file["interfaces"]:
        kind = LINK_TYPES.get(interface["link_type"], f"link type {interface['link_type']}")
        interfaces[f"{interface['name']} ({kind})" if interface["name"] else kind] = None
    named = list(interfaces)
    return file | {
        "name": Path(file["file"]).name,
        "folder": str(Path(file["file"]).parent),
        "problems": problems,
        "interfaces": ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else ""),
        "from": _moment(file["first_ns"]) if file["packets"] else "–",
    }


def _moment(time_ns: int) -> str:
    """A moment in UTC with milliseconds; a number of seconds where the calendar ends."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"{time_ns / 1e9:.3f} s"


def _packet_facts(packets: dict[str, Any]) -> list[tuple[str, str]]:
    """What kinds of packets there are, and which could not be read."""
    names = {"tcp": "TCP", "mptcp": "with MPTCP options", "udp": "UDP", "icmp": "ICMP", "icmpv6": "ICMPv6",
             "mobility_header": "Mobility Header", "other": "other"}  # fmt: skip
    facts = [(names[key], f"{packets[key]:,}".replace(",", "\u202f")) for key in names if packets.get(key)]
    facts += [(f"in tunnels: {name}", f"{count:,}") for name, count in packets.get("tunnels", {}).items()]
    return facts + [(name.replace("_", " "), f"{count:,}") for name, count in packets.get("problems", {}).items()]


def _connection_rows(analysis: Analysis, detailed: set[int]) -> dict[str, Any]:
    """Rows of the table of connections: those with figures, then the largest, in order of their numbers."""
    table, findings = analysis.rec.connections, analysis.rec.findings
    if table.empty:
        return {"rows": [], "left_out": 0}
    size = (table["payload_up"] + table["payload_down"]).where(~table.index.isin(detailed), 1 << 62)
    kept = table.loc[size.sort_values(ascending=False, kind="stable").index[:ROWS_MAX].sort_values()]
    count = findings.groupby(["connection", "weight"]).size().to_dict() if len(findings) else {}
    start_ns = int(analysis.summary["start_ns"])
    rows = []
    for index, row in zip(kept.index, kept.to_dict("records"), strict=True):
        number = int(str(index))
        up = row["bytes_up"] > row["bytes_down"]
        gap_ms = row["gap_up_ms" if up else "gap_down_ms"]
        version = f" v{row['version']}" if row["version"] >= 0 else ""
        rows.append(
            {
                "number": number,
                "detailed": number in detailed,
                "kind": f"MPTCP{version}" if row["transport"] == "mptcp" else "TCP",
                "point": int(row.get("point", 0)),
                "fallback": row["fallback"],
                "client": _breakable(str(row["client"]), int(row["client_port"])),
                "server": _breakable(str(row["server"]), int(row["server_port"])),
                "start_s": (int(row["first_ns"]) - start_ns) / 1e9,
                "duration_s": (int(row["last_ns"]) - int(row["first_ns"])) / 1e9,
                "subflows": int(row["subflows"]),
                "bytes_up": int(row["bytes_up"]),
                "bytes_down": int(row["bytes_down"]),
                "gap_ms": None if gap_ms != gap_ms else float(gap_ms),
                "findings": [(weight, count[number, weight]) for weight in WEIGHTS if (number, weight) in count],
            }
        )  # fmt: skip
    return {"rows": rows, "left_out": len(table) - len(rows)}


def _breakable(address: str, port: int) -> str:
    """An endpoint; long IPv6 addresses in their shortest form."""
    try:
        return endpoint(ipaddress.ip_address(address).compressed, port)
    except ValueError:
        return endpoint(address, port)


def _general_findings(analysis: Analysis) -> list[Any]:
    """Findings that belong to no connection."""
    findings = analysis.rec.findings
    return list(findings.loc[findings["connection"] < 0].head(GENERAL_MAX).itertuples()) if len(findings) else []
