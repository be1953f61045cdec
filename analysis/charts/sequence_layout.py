"""What a message sequence chart shows in which row: repetitions folded, quiet stretches compressed, the rest shortened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

CYCLE_MAX = 4
"""Longest pattern of messages that is recognised when it repeats."""
REPEATS_MIN = 3
"""Shown once from so many repetitions on."""
EVENTS_MAX = 20_000
"""Events that are looked at; the rest is counted."""
LIFELINES_MAX = 10
QUIET_MIN_S = 0.01
OTHERS = "other addresses"
NO_HOST = ""


@dataclass(frozen=True)
class Message:
    """A row with an arrow. Rows of one `block` happened `repeats` times one after the other, the last time at `until_ns`."""

    time_ns: int
    source: str
    target: str
    label: str
    kind: str
    again: bool = False
    block: int = -1
    repeats: int = 1
    until_ns: int = 0


@dataclass(frozen=True)
class Quiet:
    """A row for a long time without messages."""

    seconds: float


@dataclass(frozen=True)
class Omitted:
    """A row for messages that are not shown."""

    count: int


Item = Message | Quiet | Omitted


@dataclass(frozen=True)
class Lifeline:
    """One column: an address (or several, as `OTHERS`) of a host."""

    name: str
    host: str


def fold(messages: Sequence[Message]) -> list[Message]:
    """The messages with consecutive repetitions of up to `CYCLE_MAX` of them shown once, as a block."""
    numbers: dict[tuple[str, ...], int] = {}
    keys = [numbers.setdefault((m.source, m.target, m.label, m.kind), len(numbers)) for m in messages]
    out: list[Message] = []
    at = block = 0
    while at < len(messages):
        length, repeats = _best_cycle(keys, at)
        until_ns = messages[at + length * repeats - 1].time_ns
        for m in messages[at : at + length]:
            out.append(Message(m.time_ns, m.source, m.target, m.label, m.kind, m.again, block, repeats, until_ns))
        at += length * repeats
        block += 1
    return out


def _best_cycle(keys: list[int], at: int) -> tuple[int, int]:
    """Length and number of repetitions of the pattern that begins here and saves most rows; (1, 1) for none."""
    best, saved = (1, 1), 0
    for length in range(1, CYCLE_MAX + 1):
        pattern, repeats = keys[at : at + length], 1
        while keys[at + repeats * length : at + (repeats + 1) * length] == pattern:
            repeats += 1
        if repeats >= REPEATS_MIN and (repeats - 1) * length > saved:
            best, saved = (length, repeats), (repeats - 1) * length
    return best


def with_quiet(messages: Sequence[Message]) -> list[Item]:
    """The messages with a row where it was quiet for long: 20 times the usual pause and 2 % of everything."""
    if not messages:
        return []
    pauses = [max(b.time_ns - max(a.until_ns, a.time_ns), 0) / 1e9 for a, b in pairwise(messages)]
    span_s = (max(m.until_ns for m in messages) - messages[0].time_ns) / 1e9
    limit_s = max(QUIET_MIN_S, span_s / 50, 20 * float(np.median(pauses)) if len(pauses) > 8 else 0.0)
    out: list[Item] = [messages[0]]
    for pause_s, message in zip(pauses, messages[1:], strict=True):
        if pause_s >= limit_s:
            out.append(Quiet(pause_s))
        out.append(message)
    return out


def arrange(events: pd.DataFrame) -> list[Item]:
    """Rows of the chart for events (columns as of `sequence_chart`), all of them or the first `EVENTS_MAX`."""
    ordered = events.sort_values("time_ns", kind="stable")
    again = ordered["again"] if "again" in ordered else pd.Series(False, index=ordered.index)
    head = slice(0, EVENTS_MAX)
    columns = [ordered[name].iloc[head] for name in ("time_ns", "source", "target", "label", "kind")]
    messages = [
        Message(int(time_ns), str(source), str(target), str(label), str(kind), bool(repeated))
        for time_ns, source, target, label, kind, repeated in zip(*columns, again.iloc[head], strict=True)
    ]
    items = with_quiet(fold(messages))
    if len(ordered) > EVENTS_MAX:
        items.append(Omitted(len(ordered) - EVENTS_MAX))
    return items


def count_messages(items: Sequence[Item]) -> int:
    """How many messages the rows stand for."""
    total = 0
    for item in items:
        if isinstance(item, Message):
            total += item.repeats
        elif isinstance(item, Omitted):
            total += item.count
    return total


def shortened(items: list[Item], rows_max: int) -> list[Item]:
    """At most `rows_max` rows: the beginning, the end, and between them how many messages were left out."""
    if len(items) <= rows_max:
        return items
    tail = max(rows_max // 3, 1)
    head = max(rows_max - tail - 1, 1)
    return [*items[:head], Omitted(count_messages(items[head:-tail])), *items[-tail:]]


def lifelines(items: Sequence[Item], hosts: Mapping[str, str]) -> list[Lifeline]:
    """Columns in the order of `hosts`, then of first appearance; rare addresses beyond `LIFELINES_MAX` share the last."""
    used: dict[str, int] = {}
    for item in items:
        if isinstance(item, Message):
            for name in (item.source, item.target):
                used[name] = used.get(name, 0) + item.repeats
    names = [*(name for name in hosts if name in used), *(name for name in used if name not in hosts)]
    groups = list(dict.fromkeys(hosts.get(name, NO_HOST) for name in names))
    if len(names) > LIFELINES_MAX:
        kept = set(sorted(names, key=lambda name: -used[name])[: LIFELINES_MAX - 1])
        names = [name for name in names if name in kept]
        out = [Lifeline(name, group) for group in groups for name in names if hosts.get(name, NO_HOST) == group]
        return [*out, Lifeline(OTHERS, NO_HOST)]
    return [Lifeline(name, group) for group in groups for name in names if hosts.get(name, NO_HOST) == group]
