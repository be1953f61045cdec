"""Where two executions of the same run first differ: in a captured packet, a timeline entry or an agent's decision.

Times are compared in scenario time. That two runs differ early and in a small thing is often why they differ later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.packets import CaptureError, read_capture
from analysis.packets.container import Records, open_container
from analysis.packets.schema import TCP
from analysis.rundir import InputError, Json, Run

_NOTHING = "nothing"
_ABSOLUTE = ("mono_ns", "wall_ns")
_SHOWN_FIELDS = 3
_CHUNK_PACKETS = 1 << 17


@dataclass(frozen=True)
class Difference:
    """The first entry of one file that is not the same in two runs. `at_s`: scenario time; the earlier of the two entries."""

    at_s: float
    file: str
    what: str
    first: str
    second: str

    def text(self) -> str:
        """One line: "pcap/mn-mn-wlan.pcapng, packet 1234 at 5.012345678 s: ... against ..."."""
        return f"{self.file}, {self.what} at {self.at_s:.9f} s: {self.first} against {self.second}"


def first_difference(first: Run, second: Run) -> Difference | None:
    """The earliest difference in scenario time over captures, timeline and event logs; None when all of them are the same.

    Both runs must be complete. Raises InputError for a file that cannot be read.
    """
    found = [_capture_difference(first, second, name) for name in _names(first, second, "pcap/*.pcapng")]
    names = [*_names(first, second, "timeline.jsonl"), *_names(first, second, "events/*.jsonl")]
    found += [_line_difference(first, second, name) for name in names]
    return min((each for each in found if each is not None), key=lambda each: each.at_s, default=None)


def _names(first: Run, second: Run, pattern: str) -> list[str]:
    return sorted({path.relative_to(run.path).as_posix() for run in (first, second) for path in run.path.glob(pattern)})


# -- captures ---------------------------------------------------------------------------------------------------------


def _capture_difference(first: Run, second: Run, name: str) -> Difference | None:
    paths = first.path / name, second.path / name
    if _same_bytes(*paths) and first.t0_wall_ns == second.t0_wall_ns:
        return None
    try:
        (data, records), (other_data, others) = (_packets(path) for path in paths)
    except CaptureError as error:
        raise InputError(str(error)) from error
    index = _first_packet(data, records, first.t0_wall_ns, other_data, others, second.t0_wall_ns)
    if index is None:
        return None
    times_s = [
        (int(some.time_ns[index]) - run.t0_wall_ns) / 1e9 if index < some.start.size else None
        for run, some in ((first, records), (second, others))
    ]
    texts = [
        _NOTHING if time_s is None else f"{time_s:.9f} s {_packet_text(path, index)}"
        for path, time_s in zip(paths, times_s, strict=True)
    ]
    if texts[0] == texts[1]:
        told_apart = _bytes_texts(_frame(data, records, index), _frame(other_data, others, index))
        texts = [f"{text} with {more}" for text, more in zip(texts, told_apart, strict=True)]
    return Difference(min(t for t in times_s if t is not None), name, f"packet {index + 1}", *texts)


def _bytes_texts(one: Any, other: Any) -> list[str]:
    """What tells two frames apart that look the same."""
    if one.size != other.size:
        return [f"{frame.size} bytes captured" for frame in (one, other)]
    at = int(np.argmax(one != other))
    return [f"{int(frame[at]):#04x} as byte {at + 1} of the frame" for frame in (one, other)]


def _same_bytes(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.read_bytes() == other.read_bytes()


def _packets(path: Path) -> tuple[Any, Records]:
    """The bytes of a capture and where its packets are; none for a capture that one of the runs does not have."""
    parts: list[Records] = []
    data: Any = np.zeros(0, np.uint8)
    if path.exists():
        container = open_container(path)
        data, parts = container.data, list(container.walk(_CHUNK_PACKETS))
    if not parts:
        return data, Records(*(np.zeros(0, np.int64) for _ in Records._fields))
    return data, Records(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _frame(data: Any, records: Records, index: int) -> Any:
    start = int(records.start[index])
    return data[start : start + int(records.captured[index])]


def _first_packet(data: Any, records: Records, t0_ns: int, other_data: Any, others: Records, other_t0_ns: int) -> int | None:
    """Index of the first packet with another time, length or content; of the first that only one capture has."""
    count = min(records.start.size, others.start.size)
    differs = records.time_ns[:count] - t0_ns != others.time_ns[:count] - other_t0_ns
    differs |= (records.captured[:count] != others.captured[:count]) | (records.length[:count] != others.length[:count])
    end = int(np.argmax(differs)) if differs.any() else count
    for index in range(end):
        if not np.array_equal(_frame(data, records, index), _frame(other_data, others, index)):
            return index
    if end < count:
        return end
    return None if records.start.size == others.start.size else count


def _packet_text(path: Path, index: int) -> str:
    """A packet in a few words: ends, TCP numbers, size."""
    table = read_capture(path).table
    row = {name: int(column[index]) for name, column in table.columns.items()}
    ends = [table.addresses.text(row[name]) or "?" for name in ("src", "dst")]
    if row["protocol"] != TCP:
        return f"{ends[0]} > {ends[1]} protocol {row['protocol']}, {row['length']} bytes"
    numbers = f"seq {row['seq']} ack {row['ack']}, {row['payload_bytes']} bytes of payload"
    return f"{ends[0]}:{row['sport']} > {ends[1]}:{row['dport']} {numbers}"


# -- files of JSON lines ----------------------------------------------------------------------------------------------


def _line_difference(first: Run, second: Run, name: str) -> Difference | None:
    lines, others = list(_lines(first, name)), list(_lines(second, name))
    for number in range(max(len(lines), len(others))):
        pair = [some[number] if number < len(some) else None for some in (lines, others)]
        if pair[0] == pair[1]:
            continue
        at_s = min(entry[0] for entry in pair if entry is not None)
        keys = _differing(pair)
        texts = [_NOTHING if entry is None else _entry_text(entry, keys) for entry in pair]
        return Difference(at_s, name, f"line {number + 1}", texts[0], texts[1])
    return None


def _lines(run: Run, name: str) -> Iterator[tuple[float, Json]]:
    """Scenario time and content of each line, without the times of the machine's clocks."""
    path = run.path / name
    try:
        texts = path.read_text("utf-8").splitlines() if path.exists() else []
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    for number, text in enumerate(texts, 1):
        try:
            entry = json.loads(text)
            at_s = (int(entry["mono_ns"]) - run.t0_mono_ns) / 1e9
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: line {number}: one JSON object per line with mono_ns is wanted") from error
        yield at_s, {key: value for key, value in entry.items() if key not in _ABSOLUTE}


def _differing(pair: Iterable[tuple[float, Json] | None]) -> list[str]:
    entries = [entry[1] for entry in pair if entry is not None]
    if len(entries) < 2:
        return []
    keys = dict.fromkeys([*entries[0], *entries[1]])
    return [key for key in keys if entries[0].get(key) != entries[1].get(key)][:_SHOWN_FIELDS]


def _entry_text(entry: tuple[float, Json], keys: list[str]) -> str:
    """What an entry is, and the fields in which it differs."""
    at_s, fields = entry
    name = str(fields.get("event") or fields.get("kind") or "entry")
    place = str(fields.get("interface") or fields.get("target") or "")
    differing = ", ".join(f"{key} {json.dumps(fields.get(key))}" for key in keys if key not in ("event", "kind"))
    return " ".join(filter(None, (f"{at_s:.9f} s", name, place, differing and f"({differing})")))
