"""One direction of a link as a pure state machine: which frame leaves when. No sockets, no clock.

A frame passes, in this order: the rate limiter with its drop-tail queue, loss, duplication, the delay line. All times
are ns on one clock that the caller chooses. The limiter is a virtual clock: the time at which a frame has left
it is known when the frame arrives, so one `offer` per frame and one ordered line of frames are all that is needed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from topologies.profiles import LinkProfile
from topologies.traces import Playback

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Bound of the frames in flight in one direction: 200 Mbit/s for 2.5 s."""

FRAME_OVERHEAD_BYTES = 160
"""What a waiting frame costs besides its bytes: the tuple, two integers, the object header."""


class InFlight(NamedTuple):
    """A frame in the delay line."""

    release_ns: int
    """When it leaves the link."""
    depart_ns: int
    """When it left, or will have left, the rate limiter."""
    frame: bytes


@dataclass(slots=True)
class Counters:
    """What happened to the frames of one direction so far."""

    offered: int = 0
    offered_bytes: int = 0
    dropped_queue: int = 0
    """The queue of the rate limiter was full, or a trace had ended."""
    dropped_loss: int = 0
    dropped_blackhole: int = 0
    dropped_memory: int = 0
    """The delay line held MAX_LINE_BYTES: the profile asks for more than this program holds."""
    dropped_flushed: int = 0
    """In flight when the link was cut."""
    duplicated: int = 0
    reordered: int = 0


class Shaper:
    """Applies a LinkProfile to the frames of one direction. The same seed and input give the same output.

    `line` holds the frames in flight ordered by release time; `express` those that skip the delay.
    """

    __slots__ = (
        "_bad",
        "_burst",
        "_busy_until_ns",
        "_delay_ns",
        "_duplicate",
        "_jitter_ns",
        "_last_release_ns",
        "_line_bytes",
        "_loss",
        "_ns_per_byte",
        "_plain",
        "_playback",
        "_queue_limit",
        "_random",
        "_reorder",
        "_waiting",
        "blackhole",
        "counters",
        "express",
        "line",
        "profile",
    )

    def __init__(self, profile: LinkProfile, rng: Random, start_ns: int = 0) -> None:
        self.counters = Counters()
        self.line: deque[InFlight] = deque()
        self.express: deque[InFlight] = deque()
        self.blackhole = False
        self._random: Callable[[], float] = rng.random
        self._bad = False
        self._busy_until_ns: int = 0
        self._last_release_ns: int = 0
        self._line_bytes: int = 0
        # Frames in the limiter, the one in transmission included: (time at which it will have left, bytes).
        self._waiting: deque[tuple[int, int]] = deque()
        self._configure(profile, start_ns)

    def _configure(self, profile: LinkProfile, now_ns: int) -> None:
        self.profile = profile
        self._delay_ns = round(profile.delay_ms * 1e6)
        self._jitter_ns = round(profile.jitter_ms * 1e6)
        self._loss = profile.loss
        self._burst = profile.burst
        self._reorder = profile.reorder
        self._duplicate = profile.duplicate
        self._ns_per_byte = 0.0 if profile.rate_mbit is None else 8000.0 / profile.rate_mbit
        self._playback = None if profile.trace is None else Playback(profile.trace, now_ns)
        # One more than may wait: the frame in transmission is in `_waiting` too.
        limit = profile.queue_limit
        self._queue_limit = None if limit is None else limit + 1
        self._plain = not (
            profile.jitter_ms or profile.loss or profile.burst or profile.reorder or profile.duplicate or profile.trace
        )

    def offer(self, arrival_ns: int, frame: bytes) -> None:
        """Take a frame that arrived at `arrival_ns` (non-decreasing from call to call)."""
        length = len(frame)
        counters = self.counters
        counters.offered += 1
        counters.offered_bytes += length
        if self.blackhole:
            counters.dropped_blackhole += 1
            return
        if self._line_bytes + length + FRAME_OVERHEAD_BYTES > MAX_LINE_BYTES:
            counters.dropped_memory += 1
            return
        depart_ns = arrival_ns
        limit = self._queue_limit
        if limit is not None:
            waiting = self._waiting
            while waiting and waiting[0][0] <= arrival_ns:
                waiting.popleft()
            if len(waiting) >= limit:
                counters.dropped_queue += 1
                return
            served_ns = self._serve(arrival_ns, length)
            if served_ns is None:
                counters.dropped_queue += 1
                return
            depart_ns = served_ns
            waiting.append((depart_ns, length))
        if self._plain:
            release_ns = depart_ns + self._delay_ns
            # After a change to a shorter delay nothing overtakes what is still in flight.
            if release_ns < self._last_release_ns:
                release_ns = self._last_release_ns
            else:
                self._last_release_ns = release_ns
            self.line.append(InFlight(release_ns, depart_ns, frame))
            self._line_bytes += length + FRAME_OVERHEAD_BYTES
            return
        self._disturb(depart_ns, frame)

    def _serve(self, arrival_ns: int, length: int) -> int | None:
        """Time at which the limiter is done with a frame; None when it never will be."""
        ready_ns = self._busy_until_ns
        if ready_ns < arrival_ns:
            ready_ns = arrival_ns
        if self._playback is not None:
            depart_ns = self._playback.serve(ready_ns, length)
            if depart_ns is None:
                return None
        else:
            # Rounding to whole ns errs by less than 1 ns in the 60,000 ns of a full frame at 200 Mbit/s.
            depart_ns = ready_ns + int(length * self._ns_per_byte + 0.5)
        self._busy_until_ns = depart_ns
        return depart_ns

    def _disturb(self, depart_ns: int, frame: bytes) -> None:
        """Loss, duplication, reordering and jitter of a frame that has left the limiter."""
        random = self._random
        counters = self.counters
        burst = self._burst
        if burst is not None:
            lost = random() < (burst.loss_bad if self._bad else burst.loss_good)
            if random() < (burst.r if self._bad else burst.p):
                self._bad = not self._bad
        else:
            lost = self._loss > 0 and random() < self._loss
        if lost:
            counters.dropped_loss += 1
            return
        copies = 1
        if self._duplicate and random() < self._duplicate:
            copies = 2
            counters.duplicated += 1
        if self._reorder and random() < self._reorder:
            counters.reordered += 1
            line = self.express
            release_ns = depart_ns
        else:
            line = self.line
            release_ns = depart_ns + self._delay_ns
            if self._jitter_ns:
                release_ns += int((2 * random() - 1) * self._jitter_ns)
            release_ns = self._last_release_ns = max(release_ns, self._last_release_ns)
        for _ in range(copies):
            line.append(InFlight(release_ns, depart_ns, frame))
            self._line_bytes += len(frame) + FRAME_OVERHEAD_BYTES

    def next_release_ns(self) -> int | None:
        """When the next frame leaves; None when nothing is in flight."""
        if self.express:
            first_ns = self.express[0][0]
            return min(first_ns, self.line[0][0]) if self.line else first_ns
        return self.line[0][0] if self.line else None

    def take(self, now_ns: int) -> list[InFlight]:
        """Remove and return the frames that have left the link by `now_ns`, oldest release first."""
        taken: list[InFlight] = []
        line = self.line
        while line and line[0][0] <= now_ns:
            taken.append(line.popleft())
        if self.express:
            while self.express and self.express[0][0] <= now_ns:
                taken.append(self.express.popleft())
            taken.sort(key=_by_release)
        for entry in taken:
            self._line_bytes -= len(entry[2]) + FRAME_OVERHEAD_BYTES
        return taken

    def update(self, profile: LinkProfile, now_ns: int) -> None:
        """Change the profile. Frames in flight stay, in order; those that wait for the limiter get the new rate.

        A frame in transmission finishes with the share of it that is left. A smaller queue refuses
        new frames and keeps those it has. Each frame keeps the delay it has drawn.
        """
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            waiting.popleft()
        old_ns_per_byte = self._ns_per_byte
        old_waiting = list(waiting)
        waiting.clear()
        self._configure(profile, now_ns)
        self._busy_until_ns = now_ns
        moved: dict[int, int] = {}
        for index, (depart_ns, length) in enumerate(old_waiting):
            if index == 0 and old_ns_per_byte:
                length = max(1, min(length, round((depart_ns - now_ns) / old_ns_per_byte)))
            new_depart_ns = now_ns
            if self._queue_limit is not None:
                served_ns = self._serve(now_ns, length)
                # A trace that ends never delivers: leave such a frame where the old profile put it.
                new_depart_ns = depart_ns if served_ns is None else served_ns
                waiting.append((new_depart_ns, length))
            moved[depart_ns] = new_depart_ns
        if moved:
            self._move(moved)

    def _move(self, moved: dict[int, int]) -> None:
        """Shift the frames that were waiting to their new times of departure, keeping the order."""
        for line in (self.line, self.express):
            previous_ns = 0
            for index, (release_ns, depart_ns, frame) in enumerate(line):
                new_depart_ns = moved.get(depart_ns)
                if new_depart_ns is not None:
                    release_ns = max(previous_ns, release_ns - depart_ns + new_depart_ns)
                    line[index] = InFlight(release_ns, new_depart_ns, frame)
                previous_ns = release_ns
        self._last_release_ns = self.line[-1][0] if self.line else 0

    def flush(self) -> int:
        """Drop all frames in flight and in the queue; return how many."""
        count = len(self.line) + len(self.express)
        self.counters.dropped_flushed += count
        self.line.clear()
        self.express.clear()
        self._waiting.clear()
        self._line_bytes = 0
        self._busy_until_ns = 0
        self._last_release_ns = 0
        if self._playback is not None:
            self._playback.rewind()
        return count


def _by_release(entry: InFlight) -> int:
    return entry[0]
