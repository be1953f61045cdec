"""The disruption of one event, split into phases: detect, register, join, resume.

All moments are int64 nanoseconds of the capture clock. The phases are disjoint and add up to the time from the event to the
first new in-order data after the interruption.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from analysis.measures.gap import LEAD_S
from analysis.measures.observation import Int64s
from analysis.measures.stalls import STALL_RTTS

LEAD_NS = int(LEAD_S * 1e9)
HABITS = 2
"""By this factor an interruption is longer than every silence shortly before the event."""
PHASES = ("detect", "register", "join", "resume")
NO_INTERRUPTION = "no interruption"
NOT_RECOVERED = "did not recover"


class Span(NamedTuple):
    """A step of signalling: first packet, and the packet that completed it (None: not completed)."""

    begin_ns: int
    end_ns: int | None


class Silence(NamedTuple):
    """An interval without new in-order data; `end_ns` is None when it had not ended when the record ended."""

    begin_ns: int
    end_ns: int | None


class Signal(NamedTuple):
    """The first thing a mechanism did about an event."""

    time_ns: int
    name: str


@dataclass(frozen=True)
class Handover:
    """How one event disrupted a stream. None: there was no such phase, `why` says for each why not.

    `interruption_ms`: length of the first silence that the event caused, None when it never ended; then `at_least_ms` says
    how long it was watched. `recovery_ms`: from the event to the first new in-order data after the silence, that is detect +
    register + join + resume; 0 without an interruption, None when it did not recover. `signal`: what ended the detection.
    """

    event_s: float
    interruption_ms: float | None
    at_least_ms: float | None
    recovery_ms: float | None
    detect_ms: float | None
    register_ms: float | None
    join_ms: float | None
    resume_ms: float | None
    signal: str | None
    why: dict[str, str] = field(default_factory=dict)
    gap_ms: float | None = None
    """The longest interval between arrivals around the event, whether or not it is longer than usual; None: nothing arrived
    before or after it."""
    round_trip_ms: float | None = None
    """Median round trip, queues included, while the gap may begin; of the slowest path that carried data then."""
    gap_beyond_round_trip_ms: float | None = None
    """gap_ms - round_trip_ms."""

    def fields(self) -> dict[str, object]:
        """The same as a dict, times rounded to ns."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def gap_span(arrivals_ns: Int64s, event_ns: int, before_ns: int) -> tuple[int, int] | None:
    """Longest interval between arrivals that ends after the event and begins at most LEAD_S after it, before `before_ns`."""
    first = max(int(np.searchsorted(arrivals_ns, event_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(arrivals_ns, min(event_ns + LEAD_NS, before_ns), side="right"))
    near = arrivals_ns[first : last + 1]
    if near.size < 2:
        return None
    longest = int(np.diff(near).argmax())
    return int(near[longest]), int(near[longest + 1])


def gap_around(arrivals_ns: Int64s, event_ns: int, before_ns: int) -> float | None:
    """Length of `gap_span` in ms."""
    span = gap_span(arrivals_ns, event_ns, before_ns)
    return None if span is None else (span[1] - span[0]) / 1e6


def find_silence(
    arrivals_ns: Int64s, event_ns: int, since_ns: int, rtt_ns: int, until_ns: int, complete: bool
) -> Silence | None:
    """The interruption that an event caused: the first silence that ends after it, begins at most LEAD_S after it, and is
    longer than four round trips and than twice the longest silence in the LEAD_S before it (not before `since_ns`).

    Less is how the stream went before, or ordinary loss recovery, and no interruption: None. A silence that never ended comes
    before all others. `until_ns`: data that comes later is no recovery from this event. `complete`: the end of the stream was
    seen, so that the time after the last data is no silence.
    """
    arrivals = arrivals_ns[arrivals_ns <= until_ns]
    if not arrivals.size:
        return None
    start_ns = max(event_ns - LEAD_NS, since_ns, int(arrivals[0]))
    before = np.concatenate(([start_ns], arrivals[(arrivals > start_ns) & (arrivals < event_ns)], [event_ns]))
    habit_ns = int(np.diff(before).max()) if start_ns < event_ns else 0
    begins, ends = arrivals, np.append(arrivals[1:], until_ns)
    if complete and arrivals.size == arrivals_ns.size:
        begins, ends = begins[:-1], ends[:-1]
    long = ends - begins > max(HABITS * habit_ns, STALL_RTTS * rtt_ns)
    caused = np.flatnonzero(long & (ends > event_ns) & (begins <= event_ns + LEAD_NS))
    if not caused.size:
        return None
    if caused[-1] + 1 == arrivals.size:
        return Silence(int(begins[caused[-1]]), None)
    return Silence(int(begins[caused[0]]), int(ends[caused[0]]))


class Partition(NamedTuple):
    """Lengths in ns of the phases from an event to the first new data. None: there was no such phase."""

    detect: int | None
    register: int | None
    join: int | None
    resume: int


def partition(event_ns: int, resumed_ns: int, signal_ns: int | None, register: Span | None, join: Span | None) -> Partition:
    """Divide [event, resumed] among the phases. Every moment belongs to one phase; where two claim it, the later one has it:
    join before register before detect, and resume is what none of them claims.

    A step counts when it began at or after the event and was completed before data came again: data cannot have waited for
    another. `signal_ns`: the first signal; the begin of a step that counts is a signal, too.
    """
    registered, joined = (_counted(span, event_ns, resumed_ns) for span in (register, join))
    signals = [signal_ns] if signal_ns is not None and event_ns <= signal_ns <= resumed_ns else []
    signals += [span[0] for span in (registered, joined) if span]
    detect = min(signals) - event_ns if signals else None
    join_ns = joined[1] - joined[0] if joined else None
    register_ns = registered[1] - registered[0] if registered else None
    if registered and joined and register_ns is not None:
        register_ns -= max(min(registered[1], joined[1]) - max(registered[0], joined[0]), 0)
    rest = resumed_ns - event_ns - sum(part or 0 for part in (detect, register_ns, join_ns))
    return Partition(detect, register_ns, join_ns, rest)


def _counted(span: Span | None, event_ns: int, resumed_ns: int) -> tuple[int, int] | None:
    """Begin and end of a step that data may have waited for."""
    if span is None or span.end_ns is None:
        return None
    inside = event_ns <= span.begin_ns <= span.end_ns <= resumed_ns
    return (span.begin_ns, span.end_ns) if inside else None


def explain(resumed_ns: int, span: Span | None, none: str, name: str) -> str:
    """Why a step is no phase; `none` when it did not happen at all."""
    if span is None or span.begin_ns > resumed_ns:
        return none
    return f"data came again before {name} was completed" if span.end_ns is not None else f"{name} was never completed"


def split_event(
    event_ns: int,
    t0_ns: int,
    silence: Silence | None,
    until_ns: int,
    signal: Signal | None,
    register: Span | None,
    join: Span | None,
) -> Handover:
    """Phases of one event. `silence` as `find_silence` gives it; times of the result count from `t0_ns`."""
    event_s = (event_ns - t0_ns) / 1e9
    if silence is None:
        return Handover(event_s, None, None, 0.0, None, None, None, None, None, dict.fromkeys(PHASES, NO_INTERRUPTION))
    end_ns = until_ns if silence.end_ns is None else silence.end_ns
    parts = partition(event_ns, end_ns, signal.time_ns if signal else None, register, join)
    why = {}
    if parts.detect is None:
        why["detect"] = "nothing was signalled and nothing was seen sent again because of it"
    if parts.register is None:
        why["register"] = explain(end_ns, register, "no registration", "the registration")
    if parts.join is None:
        why["join"] = explain(end_ns, join, "no MP_JOIN", "MP_JOIN")
    detect, registered, joined, resume = (None if part is None else part / 1e6 for part in parts)
    lasted_ms = (end_ns - silence.begin_ns) / 1e6
    name = signal.name if signal and parts.detect is not None else None
    if silence.end_ns is None:
        why["resume"] = NOT_RECOVERED
        return Handover(event_s, None, lasted_ms, None, detect, registered, joined, None, name, why)
    return Handover(event_s, lasted_ms, None, (end_ns - event_ns) / 1e6, detect, registered, joined, resume, name, why)
