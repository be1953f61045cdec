"""Does a path still work? Silent subflows raise suspicion, probes decide, answers bring a path back.

event        UP          SUSPECT                  DOWN
silent       SUSPECT     -                        -
progress     -           UP                       -
answered     -           UP                       UP after `restore_answers` in a row and the hold-down
unanswered   -           DOWN after probe_failures (counts from anew)
timed out    DOWN        DOWN                     -       (only where no probe was ever answered)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agents.core.path_manager.config import Detection
from agents.core.path_manager.values import Log, Probe, Subflow

NEVER: Final = float("inf")
FRESH_S: Final = 0.3
"""A path that was heard from within this time needs no question before something is sent by it that is sent only once."""
STRANGER_FACTOR: Final = 3
"""So many times more probes must fail where the peer has answered by other paths only: this one may filter them."""
LEARN_TRIES: Final = 3
"""Probes of a new path: does the peer answer at all?"""


class Health(Enum):
    """What is believed of a path."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class Sign(Enum):
    """What is observed."""

    SILENT = "silent"
    PROGRESS = "progress"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    TIMED_OUT = "timed-out"


@dataclass(slots=True)
class PathHealth:
    """One pair of addresses."""

    local: str
    remote: str
    settings: Detection
    health: Health = Health.UP
    since_s: float = 0.0
    answered_ever: bool = False
    peer_answers: bool = False
    """The peer has answered a probe by another path."""
    rtt_ms: float = 0.0
    deviation_ms: float = 0.0
    learn_left: int = LEARN_TRIES
    failures: int = 0
    """Probes in a row without answer."""
    answers: int = 0
    """In a row since the path was found dead."""
    relapses: int = 0
    rest_until_s: float = 0.0
    heard_s: float = -NEVER
    """When something came by it, as far as is known."""
    quiet_until_s: float = 0.0
    """No suspicion before."""
    probe_at_s: float = 0.0
    cause: str = ""

    def feed(self, sign: Sign, now_s: float) -> list[Log]:
        """Take a sign; what to log if that changes the belief."""
        work = _TABLE.get((self.health, sign))
        before = self.health
        if work is not None:
            work(self, now_s)
        if self.health is before:
            return []
        self.since_s = now_s
        fields = {"local": self.local, "remote": self.remote, "cause": self.cause or sign.value}
        return [Log(f"path-{self.health.value}", fields)]

    def probe_answered(self, rtt_ms: float | None, now_s: float) -> list[Log]:
        """The result of a probe."""
        if rtt_ms is None:
            return self.feed(Sign.UNANSWERED, now_s)
        self.answered_ever, self.learn_left, self.failures, self.heard_s = True, 0, 0, now_s
        self.rtt_ms = self.rtt_ms or rtt_ms
        return self.feed(Sign.ANSWERED, now_s)

    def doubt(self, now_s: float) -> list[Log]:
        """Somebody wants to know for certain."""
        self.quiet_until_s = now_s
        return self.feed(Sign.SILENT, now_s)

    def due_probe(self, now_s: float) -> Probe | None:
        """The probe to send now, if any."""
        if self.probe_at_s > now_s or not self._wanted():
            return None
        interval_s = self.settings.probe_interval_s if self.health is Health.SUSPECT else self.settings.restore_interval_s
        self.probe_at_s = now_s + interval_s
        if self.health is Health.UP:
            self.learn_left -= 1
        return Probe(self.local, self.remote, self._timeout_s())

    def next_probe_s(self) -> float:
        """When `due_probe` gives one."""
        return self.probe_at_s if self._wanted() else NEVER

    def worth_keeping(self, now_s: float) -> bool:
        """Whether a path without subflow has a history that matters."""
        return self.health is Health.DOWN or (bool(self.relapses) and now_s - self.since_s <= self.settings.stable_s)

    def threshold_s(self) -> float:
        """Silence longer than this is suspicious."""
        wanted_s = (self.settings.silence_rtts * self.rtt_ms + 4 * self.deviation_ms) / 1000.0
        return min(max(wanted_s, self.settings.silence_min_s), self.settings.silence_max_s)

    def _wanted(self) -> bool:
        if not self.settings.enabled:
            return False
        return self.health is not Health.UP or (not self.answered_ever and self.learn_left > 0)

    def _timeout_s(self) -> float:
        wanted_s = (self.rtt_ms + 4 * self.deviation_ms) / 1000.0
        return min(max(wanted_s, self.settings.probe_timeout_min_s), self.settings.silence_max_s)

    # -- the table's actions ------------------------------------------------------------------------------------------
    def _suspect(self, now_s: float) -> None:
        if now_s < self.quiet_until_s:
            return
        self.health, self.failures, self.probe_at_s = Health.SUSPECT, 0, now_s

    def _clear(self, now_s: float) -> None:
        self.health, self.failures = Health.UP, 0

    def _acquit(self, now_s: float) -> None:
        self._clear(now_s)
        self.quiet_until_s = now_s + self.settings.suspect_again_s

    def _missed(self, now_s: float) -> None:
        self.failures += 1
        limit = self.settings.probe_failures * (1 if self.answered_ever else STRANGER_FACTOR)
        if self.failures >= limit and (self.answered_ever or self.peer_answers):
            self._die(now_s, "probes unanswered")

    def _timed_out(self, now_s: float) -> None:
        if not self.answered_ever:
            self._die(now_s, "retransmission time-outs")

    def _die(self, now_s: float, cause: str) -> None:
        if self.since_s and now_s - self.since_s > self.settings.stable_s:
            self.relapses = 0
        hold_s = min(self.settings.hold_s * 2.0**self.relapses, self.settings.hold_max_s)
        self.health, self.cause, self.answers = Health.DOWN, cause, 0
        self.rest_until_s, self.relapses = now_s + hold_s, min(self.relapses + 1, 16)
        self.probe_at_s = now_s + self.settings.restore_interval_s

    def _recovering(self, now_s: float) -> None:
        self.answers += 1
        if self.answers >= self.settings.restore_answers and now_s >= self.rest_until_s:
            self.cause = ""
            self._clear(now_s)

    def _still_dead(self, now_s: float) -> None:
        self.answers = 0
        if not self.answered_ever and now_s >= self.rest_until_s:
            # Probes tell nothing here: only a new subflow can show whether it works again.
            self.cause = ""
            self._clear(now_s)


_Work = Callable[[PathHealth, float], None]
_TABLE: Final[dict[tuple[Health, Sign], _Work]] = {
    (Health.UP, Sign.SILENT): PathHealth._suspect,
    (Health.UP, Sign.TIMED_OUT): PathHealth._timed_out,
    (Health.SUSPECT, Sign.PROGRESS): PathHealth._clear,
    (Health.SUSPECT, Sign.ANSWERED): PathHealth._acquit,
    (Health.SUSPECT, Sign.UNANSWERED): PathHealth._missed,
    (Health.SUSPECT, Sign.TIMED_OUT): PathHealth._timed_out,
    (Health.DOWN, Sign.ANSWERED): PathHealth._recovering,
    (Health.DOWN, Sign.UNANSWERED): PathHealth._still_dead,
}


_Key = tuple[int, str, int, str, int]


def _key(subflow: Subflow) -> _Key:
    return subflow.token, subflow.local, subflow.local_port, subflow.remote, subflow.remote_port


@dataclass(slots=True)
class _Seen:
    """What was last read of a subflow."""

    bytes_received: int
    changed_s: float = -NEVER


@dataclass(slots=True)
class Watch:
    """The health of all paths."""

    settings: Detection
    paths: dict[tuple[str, str], PathHealth] = field(default_factory=dict)
    _seen: dict[_Key, _Seen] = field(default_factory=dict)
    _received_s: dict[int, float] = field(default_factory=dict)
    """Token -> when the connection received data last, by whatever subflow."""

    def observe(self, subflows: list[Subflow], now_s: float) -> list[Log]:
        """Take the measurements of all subflows; paths without a subflow are kept while they are dead."""
        logs: list[Log] = []
        self._note(subflows, now_s)
        open_ones = [subflow for subflow in subflows if subflow.established and self.settings.enabled]
        for subflow in open_ones:
            self.paths.setdefault(subflow.path, PathHealth(*subflow.path, self.settings))
        stalled = self._stalled(open_ones, now_s)
        for subflow in open_ones:
            logs += self._judge(self.paths[subflow.path], subflow, now_s, stalled=subflow.token in stalled)
        used = {subflow.path for subflow in subflows}
        self.paths = {key: path for key, path in self.paths.items() if key in used or path.worth_keeping(now_s)}
        return logs

    def _note(self, subflows: list[Subflow], now_s: float) -> None:
        present = {}
        for subflow in subflows:
            seen = self._seen.get(_key(subflow))
            if seen is None:
                # After a restart the kernel knows when something came; an acknowledgement counts as well.
                seen = _Seen(subflow.bytes_received)
                if subflow.bytes_received:
                    seen.changed_s = now_s - subflow.idle_ms / 1000.0
                    self._received_s[subflow.token] = max(self._received_s.get(subflow.token, -NEVER), seen.changed_s)
            present[_key(subflow)] = seen
            if subflow.bytes_received != seen.bytes_received:
                seen.bytes_received, seen.changed_s = subflow.bytes_received, now_s
                self._received_s[subflow.token] = now_s
        self._seen = present
        tokens = {subflow.token for subflow in subflows}
        self._received_s = {token: at_s for token, at_s in self._received_s.items() if token in tokens}

    def _receiving(self, subflow: Subflow, now_s: float) -> bool:
        return now_s - self._seen[_key(subflow)].changed_s <= self.settings.activity_s

    def _silent(self, subflow: Subflow) -> bool:
        return subflow.idle_ms / 1000.0 > self.paths[subflow.path].threshold_s()

    def _stalled(self, subflows: list[Subflow], now_s: float) -> set[int]:
        """Connections that received data a moment ago and now nothing at all.

        The peer may have turned to a subflow that died while it was idle: then any of them can be the dead one.
        """
        receiving = {token for token, at_s in self._received_s.items() if now_s - at_s <= self.settings.activity_s}
        return receiving - {subflow.token for subflow in subflows if not self._silent(subflow)}

    def _judge(self, path: PathHealth, subflow: Subflow, now_s: float, *, stalled: bool) -> list[Log]:
        if not self._silent(subflow):
            # What is congested is not silent: the time that it takes there is what an answer may take.
            path.heard_s = now_s - subflow.idle_ms / 1000.0
            path.rtt_ms, path.deviation_ms = subflow.rtt_ms or path.rtt_ms, subflow.rtt_deviation_ms
            return path.feed(Sign.PROGRESS, now_s)
        if subflow.retransmits >= self.settings.retransmits:
            logs = path.feed(Sign.TIMED_OUT, now_s)
            if logs:
                return logs
        if subflow.unacknowledged or stalled or self._receiving(subflow, now_s):
            return path.feed(Sign.SILENT, now_s)
        return []

    def probe_answered(self, local: str, remote: str, rtt_ms: float | None, now_s: float) -> list[Log]:
        """The result of a probe; of a path that is forgotten it says nothing."""
        path = self.paths.get((local, remote))
        if path is None:
            return []
        if rtt_ms is not None:
            for other in self.paths.values():
                other.peer_answers |= other.remote == remote
        return path.probe_answered(rtt_ms, now_s)

    def dead(self, local: str, remote: str) -> bool:
        """Whether the path is believed to be silently dead."""
        path = self.paths.get((local, remote))
        return path is not None and path.health is Health.DOWN

    def trusted(self, local: str, remote: str, now_s: float) -> bool:
        """Whether nothing speaks against the path, and something for it."""
        path = self.paths.get((local, remote))
        if path is None or not self.settings.enabled:
            return True
        return path.health is Health.UP and (now_s - path.heard_s <= FRESH_S or not path.answered_ever)

    def doubt(self, local: str, remote: str, now_s: float) -> list[Log]:
        """Ask a path whether it works."""
        path = self.paths.get((local, remote))
        return path.doubt(now_s) if path is not None and self.settings.enabled else []

    def forget(self, usable: set[str]) -> None:
        """Addresses that are gone have no history: when they come back the network may be another one."""
        self.paths = {key: path for key, path in self.paths.items() if key[0] in usable}

    def due_probes(self, now_s: float) -> list[Probe]:
        """The probes to send now."""
        found = (path.due_probe(now_s) for path in self.paths.values())
        return [probe for probe in found if probe is not None]

    def next_probe_s(self) -> float:
        """When the next one is due."""
        return min((path.next_probe_s() for path in self.paths.values()), default=NEVER)
