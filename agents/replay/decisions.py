"""The mapping tables of a proxy, built again from its event log: `place`, `mapping`, `subflow-dead`, `handover` and the others.

The log has a line when a table gets an entry, not when one grows. Space on a subflow is given without gaps: an entry reaches
to where the next one on its subflow begins, and the last one to the next entry of a living subflow. Acknowledged entries, which
the proxy forgets, stay.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.core.proxy.tables import IntervalMap

END: Final = 1 << 62
"""Of an entry that may still grow."""


class LogError(ValueError):
    """An event log that cannot be read; one line."""


@dataclass
class SubflowTable:
    """What is known of one subflow."""

    number: int
    local: str = ""
    remote: str = ""
    state: str = "established"
    received: IntervalMap[None] = field(default_factory=IntervalMap)
    """s -> t."""

    @property
    def living(self) -> bool:
        """Does it still hold its place?"""
        return not self.state.startswith("dead")


@dataclass
class Place:
    """Data that was given space on a subflow: t from `start`, s from `ssn`."""

    subflow: int
    start: int
    ssn: int
    length: int | None = None
    """None: the last one of its subflow, so far."""


@dataclass
class ConnectionTables:
    """What is known of one connection."""

    number: int
    state: str = "established"
    active: int | None = 0
    subflows: dict[int, SubflowTable] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    """In the order of time."""

    def subflow(self, number: int) -> SubflowTable:
        """One that may be new."""
        return self.subflows.setdefault(number, SubflowTable(number))

    def place(self, subflow: int, start: int, ssn: int) -> None:
        """Data has its place. A retransmission that went where it was is no entry."""
        before = next((item for item in reversed(self.places) if item.subflow == subflow and item.length is None), None)
        if before is not None:
            if before.ssn <= ssn and start - ssn == before.start - before.ssn:
                return
            if ssn < before.ssn:
                return
            before.length = ssn - before.ssn
        self.places.append(Place(subflow, start, ssn))

    def send(self) -> IntervalMap[int]:
        """The SEND table: t -> s on the subflow of this number."""
        table: IntervalMap[int] = IntervalMap()
        for number, item in enumerate(self.places):
            end = END if item.length is None else item.start + item.length
            if item.length is None and not self.subflows[item.subflow].living:
                end = max((later.start for later in self.places[number + 1 :] if later.start > item.start), default=END)
            elif item.length is None:
                above = (start for start, _end, _shift, owner in table.entries() if self.subflows[owner].living)
                end = min((start for start in above if start > item.start), default=END)
            table.replace(item.start, end, item.ssn - item.start, item.subflow)
        return table


@dataclass
class Tables:
    """All connections of a log up to a moment."""

    connections: dict[int, ConnectionTables] = field(default_factory=dict)
    lines: int = 0
    last_s: float = 0.0

    def take(self, row: Mapping[str, Any]) -> None:
        """One event."""
        event, number = row.get("event"), row.get("connection")
        if not isinstance(number, int):
            return
        connection = self.connections.setdefault(number, ConnectionTables(number))
        subflow = row.get("subflow")
        match event:
            case "established":
                connection.subflow(0)
            case "join" | "joined":
                item = connection.subflow(row["subflow"])
                item.local, item.remote = str(row["local"]), str(row["remote"])
                item.state = "join-sent" if event == "join" else "established"
                if event == "joined" and connection.active is None:
                    connection.active = item.number
            case "place":
                for piece in row["pieces"]:
                    connection.subflow(piece["subflow"])
                    connection.place(piece["subflow"], piece["start"], piece["ssn"])
            case "mapping":
                start, shift = row["ssn"], row["dsn"] - row["ssn"]
                connection.subflow(row["subflow"]).received.replace(start, END, shift, None)
            case "handover" | "followed":
                connection.active = row["to"]
            case "subflow-dead":
                connection.subflow(row["subflow"]).state = f"dead: {row['why']}"
                connection.active = row["active"]
            case "subflow-fin":
                connection.subflow(row["subflow"]).state = "closed by the peer"
            case "fallback":
                connection.state = f"fallback: {row['why']}"
            case "local-fin":
                connection.state = "this host has finished"
            case "reset-by-host" | "reset-by-peer" | "freed":
                connection.state = str(event) + (f": {row['why']}" if "why" in row else "")
            case _:
                if isinstance(subflow, int):
                    connection.subflow(subflow)

    def to_json(self) -> list[dict[str, Any]]:
        """For programs. `end` is None where an entry reaches on."""
        return [
            {
                "connection": connection.number,
                "state": connection.state,
                "active": connection.active,
                "send": [
                    {"start": start, "end": _end(end), "subflow": owner, "ssn": start + shift}
                    for start, end, shift, owner in connection.send().entries()
                ],
                "subflows": [
                    {
                        "subflow": item.number,
                        "local": item.local,
                        "remote": item.remote,
                        "state": item.state,
                        "received": [
                            {"ssn": start, "end": _end(end), "dsn": start + shift}
                            for start, end, shift, _owner in item.received.entries()
                        ],
                    }
                    for item in connection.subflows.values()
                ],
            }
            for connection in self.connections.values()
        ]


def _end(value: int) -> int | None:
    return None if value >= END // 2 else value


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of an event log with `at_s`, seconds from the first one. Raises LogError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LogError(f"{path}: is no event log: not UTF-8") from None
    rows: list[dict[str, Any]] = []
    begin: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("mono_ns"), int) or "event" not in row:
            raise LogError(f"{path}: line {number} is no event of an agent")
        begin = row["mono_ns"] if begin is None else begin
        rows.append({**row, "at_s": (row["mono_ns"] - begin) / 1e9})
    if not rows:
        raise LogError(f"{path}: has no events")
    return rows


def tables_of(rows: Iterable[Mapping[str, Any]], until_s: float | None = None) -> Tables:
    """The tables after all events, or after those up to `until_s`. Raises LogError for an event that lacks something."""
    tables = Tables()
    for row in rows:
        if until_s is not None and row["at_s"] > until_s:
            break
        try:
            tables.take(row)
        except (KeyError, TypeError, ValueError) as error:
            raise LogError(f"event {tables.lines + 1} ({row.get('event')}): {error!r}") from None
        tables.lines += 1
        tables.last_s = row["at_s"]
    return tables
