"""Run directories and campaign files -> checked values. Nothing is believed that was not looked at.

The layout is that of docs/architecture.md, "Run directory". Every complaint is one line: file, field, remedy.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SCHEMA = 1
STATES = ("complete", "failed", "interrupted", "unsupported")
DEFAULT_RECOVERY_LIMIT_S = 30.0
"""For manifests that do not say after how much silence a connection counts as lost."""
_TRANSPORT_OF_KIND = {"voice": "udp"}
Json = dict[str, Any]


class InputError(ValueError):
    """A file the analysis was given cannot be used. The message names file, field and remedy in one line."""


@dataclass(frozen=True)
class Event:
    """Something the scenario did to the network. `at_s` counts from the scenario's time 0; it is when it happened."""

    at_s: float
    kind: str
    target: str
    planned_s: float


@dataclass(frozen=True)
class PathInfo:
    """One way between MN and CN: its name and the interface of the mobile node it leaves by."""

    name: str
    interface: str
    delay_ms: float | None
    """One-way delay of its access link, when the manifest tells."""


@dataclass(frozen=True)
class CaptureEntry:
    """A capture that the manifest lists; `dropped` is what the runner heard from the capturing program."""

    file: str
    node: str
    interface: str
    dropped: int | None


@dataclass(frozen=True)
class Run:
    """A finished run directory. `manifest` is the file as it is; the rest are its checked parts."""

    path: Path
    manifest: Json
    run_id: str
    state: str
    reason: str | None
    seed: int
    repetition: int
    scenario: str
    scenario_label: str
    planned_events: int
    """Entries of the timeline, in which an event with an end of its own is two."""
    recovery_limit_s: float
    """After so much silence behind the last event the connection was given up."""
    mechanism: str
    mechanism_label: str
    transport: str
    """What the mechanism puts on the wire for a TCP socket: "tcp" or "mptcp"."""
    workload: str
    """Name of the workload, unique in its campaign."""
    workload_label: str
    workload_kind: str
    workload_transport: str
    """What the workload's programs open: "tcp" or "udp" sockets."""
    direction: str
    t0_mono_ns: int
    t0_wall_ns: int
    ended_mono_ns: int
    events: tuple[Event, ...]
    paths: tuple[PathInfo, ...]
    captures: tuple[CaptureEntry, ...]
    clock_spread_ms: float
    folder: str = "workload"
    """Where the records of the workload are."""
    port: int | None = None
    """The server's port, of one flow among several."""

    @property
    def records(self) -> Path:
        """Folder of the workload's records."""
        return self.path / self.folder

    @property
    def label(self) -> str:
        """How the run is called in tables."""
        return f"{self.mechanism_label}, {self.scenario_label}, {self.workload_label}, repetition {self.repetition}"

    def addresses(self, node: str) -> set[str]:
        """All addresses the manifest knows of a node."""
        known = self.manifest.get("addresses", {}).get(node, {})
        return {str(a).split("/")[0] for listed in known.values() for a in listed}


def read_json(path: Path) -> Json:
    """Read a JSON object; InputError names the file and, for bad syntax, the line."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start}: not UTF-8 text: write the file again") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: {error.msg}: the file must be one JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be one JSON object, is a {type(value).__name__}")
    return value


_WORDS = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object", bool: "a boolean"}


def field(source: Json, name: str, kind: type[Any], where: Path | str) -> Any:
    """The value at a dotted name, checked against a type; float accepts whole numbers."""
    value: Any = source
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{where}: {name} is missing: it must be {_WORDS[kind]}")
        value = value[part]
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}: {name} is {json.dumps(value)[:40]}: it must be {_WORDS[kind]}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}: {name} is not finite")
    return value


def check_schema(source: Json, where: Path) -> None:
    """Refuse a file of another schema than this analysis reads."""
    schema = field(source, "schema", int, where)
    if schema != SCHEMA:
        raise InputError(f"{where}: schema is {schema}, this analysis reads {SCHEMA}: use the release that wrote it")


def load_run(path: Path) -> Run:
    """Load manifest and timeline of a finished run. Raises InputError; unfinished (`.partial`) folders are refused."""
    path = path.resolve()
    if path.name.endswith(".partial"):
        raise InputError(f"{path}: unfinished run: wait for its end or delete it")
    if not path.is_dir():
        raise InputError(f"{path}: no such run directory")
    where = path / "manifest.json"
    m = read_json(where)
    check_schema(m, where)
    state = field(m, "state", str, where)
    if state not in STATES:
        raise InputError(f"{where}: state is {state!r}: it must be one of {', '.join(STATES)}")
    done = state == "complete"
    times = {
        name: int(field(m, name, int, where)) if done or isinstance(m.get(name), int) else 0
        for name in ("t0_mono_ns", "t0_wall_ns", "ended_mono_ns")
    }
    listed = field(m, "scenario.events", list, where)
    planned = field(m, "timeline_planned", list, where) if m.get("timeline_planned") is not None else listed
    events, spread = _load_timeline(path / "timeline.jsonl", times["t0_mono_ns"], times["t0_wall_ns"], done)
    transport = field(m, "mechanism.transport", str, where)
    if transport not in ("tcp", "mptcp"):
        raise InputError(f"{where}: mechanism.transport is {transport!r}: it must be tcp or mptcp")
    direction = field(m, "workload.direction", str, where)
    if direction not in ("down", "up"):
        raise InputError(f"{where}: workload.direction is {direction!r}: it must be down or up")
    name, mechanism = field(m, "scenario.name", str, where), field(m, "mechanism.name", str, where)
    workload = _workload(m, where)
    return Run(
        path=path,
        manifest=m,
        run_id=field(m, "run_id", str, where),
        state=state,
        reason=m.get("reason"),
        seed=field(m, "seed", int, where),
        repetition=field(m, "repetition", int, where),
        scenario=name,
        scenario_label=str(m["scenario"].get("label") or name),
        planned_events=len(planned),
        recovery_limit_s=_recovery_limit_s(m, where),
        mechanism=mechanism,
        mechanism_label=str(m["mechanism"].get("label") or mechanism),
        transport=transport,
        workload=workload["name"],
        workload_label=workload["label"],
        workload_kind=workload["kind"],
        workload_transport=workload["transport"],
        direction=direction,
        events=tuple(events),
        paths=tuple(_path(p, i, where) for i, p in enumerate(m.get("paths") or [])),
        captures=tuple(_capture(c, i, where) for i, c in enumerate(m.get("captures") or [])),
        clock_spread_ms=spread,
        t0_mono_ns=times["t0_mono_ns"],
        t0_wall_ns=times["t0_wall_ns"],
        ended_mono_ns=times["ended_mono_ns"],
    )


def _workload(manifest: Json, where: Path) -> dict[str, str]:
    """Name, label, kind and transport of the workload; older manifests only have its kind."""
    kind = field(manifest, "workload.kind", str, where)
    found = {"kind": kind, "name": kind, "transport": _TRANSPORT_OF_KIND.get(kind, "tcp")}
    known = [key for key in ("name", "transport") if manifest["workload"].get(key) is not None]
    found |= {key: field(manifest, f"workload.{key}", str, where) for key in known}
    if found["transport"] not in ("tcp", "udp"):
        raise InputError(f"{where}: workload.transport is {found['transport']!r}: it must be tcp or udp")
    return found | {"label": str(manifest["workload"].get("label") or found["name"])}


def _recovery_limit_s(manifest: Json, where: Path) -> float:
    if manifest.get("recovery_limit_s") is None:
        return DEFAULT_RECOVERY_LIMIT_S
    limit_s = float(field(manifest, "recovery_limit_s", float, where))
    if limit_s <= 0:
        raise InputError(f"{where}: recovery_limit_s is {limit_s:g}: it must be more than 0")
    return limit_s


def _path(entry: Any, index: int, where: Path) -> PathInfo:
    place = f"{where}: paths[{index}]"
    profile = entry.get("profile")
    delay_ms = profile.get("delay_ms") if isinstance(profile, dict) else None
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, (int, float)):
        delay_ms = None
    return PathInfo(field(entry, "name", str, place), field(entry, "interface", str, place), delay_ms)


def _capture(entry: Any, index: int, where: Path) -> CaptureEntry:
    place = f"{where}: captures[{index}]"
    file = field(entry, "file", str, place)
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise InputError(f"{place}: file {file!r} leaves the run directory: it must be a path below it")
    dropped = entry.get("dropped")
    return CaptureEntry(
        file, field(entry, "node", str, place), field(entry, "interface", str, place),
        dropped if isinstance(dropped, int) else None,
    )  # fmt: skip


def _load_timeline(path: Path, t0_mono_ns: int, t0_wall_ns: int, needed: bool) -> tuple[list[Event], float]:
    """Performed events in order, and by how many ms wall and monotonic clock drifted apart between lines."""
    if not path.exists() and not needed:
        return [], 0.0
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    events, offsets = [], [t0_wall_ns - t0_mono_ns]
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: {error.msg}: one JSON object per line is wanted") from error
        mono_ns = field(entry, "mono_ns", int, where)
        offsets.append(field(entry, "wall_ns", int, where) - mono_ns)
        if field(entry, "phase", str, where) == "event":
            kind, target = field(entry, "kind", str, where), str(entry.get("target") or "")
            planned_s = float(field(entry, "planned_s", float, where))
            events.append(Event((mono_ns - t0_mono_ns) / 1e9, kind, target, planned_s))
    return sorted(events, key=lambda event: event.at_s), (max(offsets) - min(offsets)) / 1e6


def load_workload(run: Run, role: str) -> Json | None:
    """`<role>.json` of the workload, or None when the workload has no such side."""
    path = run.records / f"{role}.json"
    return read_json(path) if path.exists() else None


def load_columns(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV of whole numbers with at least these columns; an empty field becomes NaN. Raises InputError."""
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}: it must be CSV with {','.join(columns)}") from error
    for name in columns:
        if name not in table.columns:
            raise InputError(f"{path}: column {name} is missing: it must have {','.join(columns)}")
        if len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path}: column {name} holds something that is no number: write the file again")
    return table[list(columns)]


@dataclass(frozen=True)
class Campaign:
    """A campaign file: which runs belong together and which claims they must show."""

    path: Path
    data: Json
    name: str
    experiment: str
    title: str
    summary: str
    state: str
    runs: tuple[str, ...]
    mechanisms: tuple[tuple[str, str], ...]
    scenarios: tuple[tuple[str, str], ...]
    workloads: tuple[tuple[str, str], ...]
    """Empty in older files: then the runs tell."""
    repetitions: int
    """How often every combination was to be run."""
    claims: tuple[Json, ...]

    def run_path(self, run_id: str) -> Path:
        """Where a run of this campaign lies."""
        return self.path.parent / run_id


def load_campaign(path: Path) -> Campaign:
    """Load and check a campaign file. Raises InputError."""
    path = path.resolve()
    data = read_json(path)
    check_schema(data, path)
    runs = field(data, "runs", list, path)
    for index, run_id in enumerate(runs):
        if not isinstance(run_id, str) or not run_id or "/" in run_id or run_id in (".", ".."):
            raise InputError(f"{path}: runs[{index}] is {json.dumps(run_id)}: it must name a folder beside the file")
    named = {}
    for key in ("mechanisms", "scenarios", "workloads"):
        entries = field(data, key, list, path) if key != "workloads" or data.get(key) is not None else []
        named[key] = tuple(
            (field(e, "name", str, f"{path}: {key}[{i}]"), str(e.get("label") or e["name"])) for i, e in enumerate(entries)
        )
    return Campaign(
        path=path,
        data=data,
        name=field(data, "campaign", str, path),
        experiment=field(data, "experiment", str, path),
        title=str(data.get("title") or data["experiment"]),
        summary=str(data.get("summary") or ""),
        state=field(data, "state", str, path),
        runs=tuple(runs),
        mechanisms=named["mechanisms"],
        scenarios=named["scenarios"],
        workloads=named["workloads"],
        repetitions=field(data, "repetitions", int, path) if data.get("repetitions") is not None else 1,
        claims=tuple(field(data, "claims", list, path)),
    )
