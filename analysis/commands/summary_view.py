"""A summary in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.connections.facts import endpoint
from analysis.summary import Summary

_WEIGHTS = {"error": "red", "warning": "yellow", "note": "dim"}
_KEYS = {
    "verified": "keys agree with tokens or numbers", "seen": "keys seen", "none": "no keys in the capture",
    "wrong": "[red]keys contradict tokens[/]",
}  # fmt: skip
_JOINS = {"verified": "HMAC verified", "wrong": "[red]HMAC wrong[/]", "no keys": "no keys to verify"}
_RARE = ("ADD_", "REMOVE", "MP_PRIO", "MP_FAIL", "MP_FAST", "MP_TCPRST")
_TEXT_COLUMNS = ("", "from", "to", "notes", "file", "interfaces")
_PROTOCOLS = {
    "tcp": "TCP", "udp": "UDP", "icmp": "ICMP", "icmpv6": "ICMPv6", "mobility_header": "mobility headers", "other": "other",
}  # fmt: skip
_FINDINGS_SHOWN = 15


def show(summary: Summary, console: Console) -> None:
    """Print files, connections with their subflows, Mobile IP, and what is odd."""
    _files(summary, console)
    for connection in summary["connections"]:
        _connection(connection, len(summary["capture_points"]) > 1, console)
    hidden = summary["connections_total"] - len(summary["connections"])
    if hidden > 0:
        console.print(f"[dim]{hidden:,} smaller connections are not shown: --connections N shows more.[/]\n")
    if not summary["connections_total"]:
        console.print("[yellow]There is no TCP connection in these packets.[/]\n")
    for between in summary["between_points"]:
        _between(between, console)
    if summary["mobile_ip"]:
        _mobile_ip(summary["mobile_ip"], console)
    _findings(summary, console)


def bytes_text(value: float | None) -> str:
    """A number of bytes with a decimal prefix."""
    if value is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} B"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column, justify="left" if column in _TEXT_COLUMNS else "right", overflow="fold", no_wrap=column in ("from", "to")
        )
    return table


def _files(summary: Summary, console: Console) -> None:
    table = _table("", "file", "interfaces", "packets", "seconds", "bytes", "dropped")
    for file in summary["files"]:
        names = ", ".join(i["name"] or "–" for i in file["interfaces"][:4]) + (" …" if len(file["interfaces"]) > 4 else "")
        dropped = "?" if file["dropped"] is None else f"{file['dropped']:,}"
        row = [
            Path(file["file"]).name,
            names,
            f"{file['packets']:,}",
            f"{file['duration_s']:.3f}",
            bytes_text(file["bytes"]),
            dropped,
        ]
        table.add_row(*map(escape, row))
        if file["damage"]:
            table.add_row(f"[red]damaged: {escape(file['damage'])}[/]")
    console.print(table)
    packets = summary["packets"]
    parts = [f"{packets[name]:,} {word}" for name, word in _PROTOCOLS.items() if packets[name]]
    parts += [f"{count:,} in {name} tunnels" if name != "route-optimised" else f"{count:,} route-optimised"
              for name, count in packets["tunnels"].items()]  # fmt: skip
    console.print(f"{', '.join(parts) or 'no packets'}; {packets['mptcp']:,} with MPTCP options")
    for name, count in packets["problems"].items():
        console.print(f"[yellow]{count:,} packets: {name.replace('_', ' ')}[/]")
    if len(summary["capture_points"]) > 1:
        for n, names in enumerate(summary["capture_points"]):
            console.print(f"Capture point {n}: {escape(', '.join(names))}")
    console.print()


def _connection(c: Summary, several_points: bool, console: Console) -> None:
    kind = "TCP" if c["transport"] == "tcp" else f"MPTCP v{c['version']}" if c["version"] >= 0 else "MPTCP"
    where = f"  [dim]at point {c['point']}[/]" if several_points else ""
    console.print(f"[bold]{c['number']}  {kind}  {escape(endpoint(*c['client']))} → {escape(endpoint(*c['server']))}[/]{where}")
    console.print(f"   from {c['start_s']:.3f} s, {c['duration_s']:.3f} s long; {_amounts(c)}")
    notes = []
    if c["fallback"]:
        notes.append(f"[yellow]fell back to TCP: {escape(c['fallback'])}[/]")
    if c["transport"] == "mptcp":
        words = {
            "verified": "keys agree with tokens or numbers",
            "seen": "keys seen",
            "none": "no keys in the capture",
            "wrong": "[red]keys contradict tokens[/]",
        }
        notes.append(words.get(c["keys"], ""))
        notes += ["checksums"] if c["checksum"] else []
        notes += ["[yellow]ended by MP_FASTCLOSE[/]"] if c["fastclose"] else []
    for way in ("down", "up"):
        if c[f"duplicate_{way}"]:
            sent_again = f", {bytes_text(c[f'reinjected_{way}'])} of them reinjected" if c[f"reinjected_{way}"] else ""
            notes.append(f"{bytes_text(c[f'duplicate_{way}'])} sent more than once {way}{sent_again}")
        if c[f"depth_{way}"]:
            notes.append(f"out of order up to {bytes_text(c[f'depth_{way}'])} {way}")
    if notes:
        console.print("   " + "; ".join(note for note in notes if note))
    if c["transport"] == "mptcp" or len(c["subflows"]) > 1:
        _subflows(c, console)
    rare = [f"{kind} {count}" for kind, count in c["signals"].items() if kind.startswith(_RARE)]
    if rare:
        console.print(f"   [dim]{escape(', '.join(rare))}[/]")
    console.print()


def _amounts(c: Summary) -> str:
    """What went either way, with its rate and longest silence."""
    parts = []
    for way in ("down", "up"):
        if c[f"delivered_{way}"] or c[f"payload_{way}"]:
            rate = c[f"rate_{way}_mbit"]
            gap = c[f"gap_{way}_ms"]
            text = f"{bytes_text(c[f'delivered_{way}'])} {way}"
            text += f" at {rate:.2f} Mbit/s" if rate is not None else ""
            parts.append(text + (f", longest gap {gap:.0f} ms" if gap is not None else ""))
    return "; ".join(parts) or "no data"


def _subflows(c: Summary, console: Console) -> None:
    """One line per subflow; where it goes to only when that is not the same everywhere."""
    several = len({flow["server"][0] for flow in c["subflows"]}) > 1
    table = _table("", "", "from", *(["to"] if several else []), "s", "data down", "data up", "again", "notes")
    for flow in c["subflows"]:
        again = flow["repeated_down"] + flow["repeated_up"] + flow["reinjected_down"] + flow["reinjected_up"]
        table.add_row(
            str(flow["subflow"]), escape(flow["client"][0]), *([escape(flow["server"][0])] if several else []),
            f"{flow['start_s']:.3f}", bytes_text(flow["data_down"]), bytes_text(flow["data_up"]),
            bytes_text(again) if again else "", ", ".join(_notes(flow)),
        )  # fmt: skip
    console.print(table)


def _notes(flow: Summary) -> list[str]:
    """What is special about a subflow."""
    notes = [] if flow["subflow"] == 0 else [_JOINS.get(flow["join"], flow["join"])]
    notes += ["backup"] if flow["backup"] else []
    notes += ["opened by the server"] if not flow["opened_by_client"] else []
    notes += ["[yellow]never established[/]"] if not flow["established"] else []
    notes += {"reset": ["[yellow]reset[/]"], "open": ["not closed"]}.get(flow["end"], [])
    return [note for note in notes if note]


def _between(b: Summary, console: Console) -> None:
    """What happened on the way between two capture points."""
    offset = "" if b["clock_offset_ms"] is None else f", their clocks differ by {abs(b['clock_offset_ms']):.3f} ms"
    console.print(
        f"[bold]Between points {b['points'][0]} (A) and {b['points'][1]} (B)[/]  {b['flows_paired']} flows at both{offset}"
    )
    table = Table.grid(padding=(0, 1, 0, 0))
    for damage in b["damage"][:_FINDINGS_SHOWN]:
        time_s = "" if damage["time_s"] is None else f"{damage['time_s']:.3f} s"
        table.add_row(f"   [{_WEIGHTS.get(damage['weight'], '')}]{damage['weight']}[/]", time_s, escape(damage["text"]))
    console.print(table if b["damage"] else "   [green]Every packet came through unchanged.[/]")
    console.print()


def _mobile_ip(found: Summary, console: Console) -> None:
    console.print("[bold]Mobile IP[/]  " + escape(", ".join(f"{count} {kind}" for kind, count in found["messages"].items())))
    if found["registrations"]:
        table = _table("", "s", "from", "to", "notes", "ms")
        for r in found["registrations"][:_FINDINGS_SHOWN]:
            result = str(r.get("result", "")) + (f" ({r['code_text']})" if r.get("code_text") else "")
            latency = r.get("latency_ms")
            table.add_row(
                "" if r.get("request_s") is None else f"{r['request_s']:.3f}", escape(str(r.get("care_of_address", ""))),
                escape(str(r.get("peer", ""))), escape(f"{r.get('kind', '')} of {r.get('home_address', '')}: {result}"),
                "" if latency is None else f"{latency:.1f}",
            )  # fmt: skip
        console.print(table)
    console.print()


def _findings(summary: Summary, console: Console) -> None:
    found = summary["findings"]
    if not found:
        console.print("[green]Nothing odd was found.[/]")
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    heavy = [f for f in found if f["weight"] != "note"]
    shown = (heavy or found)[:_FINDINGS_SHOWN]
    for f in shown:
        colour = _WEIGHTS.get(f["weight"], "")
        time_s = "" if f["time_s"] is None else f"{f['time_s']:.3f} s"
        where = "" if f["connection"] < 0 else f"connection {f['connection']}"
        table.add_row(f"[{colour}]{f['weight']}[/]", time_s, where, escape(f["text"]))
    console.print(table)
    rest = summary["findings_total"] - len(shown)
    if rest > 0:
        console.print(f"[dim]{rest:,} more: --json or --html tells all.[/]")
