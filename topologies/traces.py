"""Traces of cellular links in mahimahi's format: when a link could deliver, measured in the field.

A trace is a text file with one integer per line: a time in ms after the start at which the link can deliver 1500 bytes
(one *delivery opportunity*). A time that occurs n times stands for n opportunities. The last time is the length of
the trace; there it starts again. Bytes of an opportunity can be shared by several small packets, a packet may
need several opportunities, and an opportunity that nobody waits for is lost.
Source: R. Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC 2015, section 4 (mm-link).
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPPORTUNITY_BYTES = 1500
"""Bytes that one line of a trace delivers: an IP packet of full size."""

ETHERNET_HEADER_BYTES = 14
"""Not counted against opportunities, as they were recorded in IP packets."""

MAX_OPPORTUNITIES = 5_000_000
NS_PER_MS = 1_000_000


class TraceError(ValueError):
    """A trace file that cannot be used; one line that names the file and the line number."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Delivery opportunities of a link over time, played `loops` times (None: without end)."""

    file: str
    """Absolute path of the file that this was read from."""

    times_ms: tuple[int, ...] = field(repr=False)
    """Non-decreasing times of the opportunities, in ms after the start; the last one is the length."""

    loops: int | None = None
    """How often the trace is played. After the last time the link delivers nothing more."""

    @property
    def duration_ms(self) -> int:
        """Length of one loop in ms."""
        return self.times_ms[-1]

    @property
    def mean_rate_mbit(self) -> float:
        """Average rate of IP bytes in Mbit/s."""
        return len(self.times_ms) * OPPORTUNITY_BYTES * 8 / (self.duration_ms * 1000)

    def to_dict(self) -> dict[str, Any]:
        """What a configuration file says: the file and the number of loops."""
        return {"file": self.file, "loops": self.loops}


def load_trace(path: str | Path, loops: int | None = None) -> Trace:
    """Read a mahimahi trace. Raises TraceError naming file and line."""
    if loops is not None and (isinstance(loops, bool) or not isinstance(loops, int) or loops < 1):
        raise TraceError(f"{path}: loops = {loops!r}: must be a whole number of at least 1, or left out for no end")
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise TraceError(f"{path}: cannot read the trace: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: not a trace: byte {error.start} is not ASCII text") from error
    times_ms: list[int] = []
    previous_ms = 0
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip()
        if not word:
            continue
        # str.isdigit() accepts no sign, no "_" and no fraction; int() would accept more than mahimahi does.
        if not word.isdigit() or len(word) > 12:
            raise TraceError(f"{path}:{number}: {word[:40]!r} is not a time in whole ms")
        time_ms = int(word)
        if time_ms < previous_ms:
            raise TraceError(f"{path}:{number}: {time_ms} ms comes after {previous_ms} ms: times must not decrease")
        previous_ms = time_ms
        times_ms.append(time_ms)
        if len(times_ms) > MAX_OPPORTUNITIES:
            raise TraceError(f"{path}:{number}: more than {MAX_OPPORTUNITIES} lines: cut the trace")
    if not times_ms:
        raise TraceError(f"{path}: the trace is empty: it needs one time in ms per line")
    if times_ms[-1] == 0:
        raise TraceError(f"{path}: the trace has no duration: its last time is 0 ms")
    return Trace(file=str(Path(path).resolve()), times_ms=tuple(times_ms), loops=loops)


def trace_from(value: object) -> Trace:
    """A Trace from what a configuration says: a Trace, a path, or {"file": path, "loops": n}."""
    if isinstance(value, Trace):
        return value
    if isinstance(value, str | Path):
        return load_trace(value)
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"file", "loops"})
        if unknown:
            raise TraceError(f"unknown key {unknown[0]!r}: a trace has file and loops")
        if not isinstance(value.get("file"), str):
            raise TraceError("file is missing: a trace is {file = PATH, loops = N}")
        return load_trace(value["file"], value.get("loops"))
    raise TraceError(f"{value!r} is no trace: give a path or {{file = PATH, loops = N}}")


class Playback:
    """A trace that is being played: turns packets into times of departure, in ns on the caller's clock."""

    __slots__ = ("_left_bytes", "_length", "_loop_ns", "_next", "_start_ns", "_times_ns", "_total")

    def __init__(self, trace: Trace, start_ns: int) -> None:
        self._times_ns = [time_ms * NS_PER_MS for time_ms in trace.times_ms]
        self._length = len(self._times_ns)
        self._loop_ns = trace.duration_ms * NS_PER_MS
        self._total = None if trace.loops is None else trace.loops * self._length
        self._start_ns = start_ns
        self._next = 0  # index of the opportunity in use, counted over all loops
        self._left_bytes = OPPORTUNITY_BYTES

    def _time_ns(self, index: int) -> int:
        loop, position = divmod(index, self._length)
        return self._start_ns + loop * self._loop_ns + self._times_ns[position]

    def rewind(self) -> None:
        """Forget the frames served so far; time goes on."""
        self._next = 0
        self._left_bytes = OPPORTUNITY_BYTES

    def serve(self, ready_ns: int, frame_bytes: int) -> int | None:
        """Time at which a frame that is ready at `ready_ns` has left, or None when the trace has ended before.

        Frames are served in the order of the calls.
        """
        left = self._left_bytes
        index = self._next
        if self._time_ns(index) < ready_ns:
            # What passed before the frame was there is lost: go to the first opportunity that is not over.
            loop, offset_ns = divmod(ready_ns - self._start_ns, self._loop_ns)
            found = loop * self._length + bisect_left(self._times_ns, offset_ns)
            # A time equal to the length of the loop is time 0 of the next one: it was passed over by divmod.
            while found > index + 1 and self._time_ns(found - 1) >= ready_ns:
                found -= 1
            index = max(index + 1, found)
            left = OPPORTUNITY_BYTES
        need = max(1, frame_bytes - ETHERNET_HEADER_BYTES)
        if need > left:
            need -= left
            steps, need = divmod(need, OPPORTUNITY_BYTES)
            index += steps + (1 if need else 0)
            left = OPPORTUNITY_BYTES - need if need else 0
        else:
            left -= need
        departs_ns = self._time_ns(index)
        ended = self._total is not None and index >= self._total
        if left == 0:
            index += 1
            left = OPPORTUNITY_BYTES
        if ended:
            return None
        self._next, self._left_bytes = index, left
        return departs_ns
