"""When a path is suspect, dead, and alive again: every sign in every state."""

from dataclasses import replace
from itertools import product

import pytest

from agents.core.path_manager.config import Detection
from agents.core.path_manager.health import FRESH_S, STRANGER_FACTOR, Health, PathHealth, Sign, Watch
from agents.core.path_manager.values import Subflow

SETTINGS = Detection()
ROW = Subflow(1, "10.1.0.100", 40_000, "10.65.0.2", 443, rtt_ms=30.0, rtt_deviation_ms=2.0)
PATH = ROW.path


def path(**values: object) -> PathHealth:
    return replace(PathHealth(*PATH, SETTINGS, answered_ever=True), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("health", "sign"), list(product(Health, Sign)))
def test_every_sign_in_every_state(health: Health, sign: Sign) -> None:
    one = path(health=health)
    logs = one.feed(sign, 10.0)
    allowed = {
        (Health.UP, Sign.SILENT): Health.SUSPECT,
        (Health.SUSPECT, Sign.PROGRESS): Health.UP,
        (Health.SUSPECT, Sign.ANSWERED): Health.UP,
    }
    assert one.health is allowed.get((health, sign), health)
    assert bool(logs) == (one.health is not health)


def test_death_by_probes_and_recovery_with_hold_down() -> None:
    one = path()
    one.feed(Sign.SILENT, 10.0)
    for number in range(SETTINGS.probe_failures):
        assert one.health is Health.SUSPECT
        one.probe_answered(None, 10.1 + number / 100)
    assert one.health is Health.DOWN
    for _ in range(SETTINGS.restore_answers):
        one.probe_answered(30.0, 10.5)
    assert one.health is Health.DOWN, "the hold-down has not passed"
    one.probe_answered(30.0, 10.5 + SETTINGS.hold_s)
    assert one.health is Health.UP


def test_a_missed_answer_begins_the_count_anew() -> None:
    one = path(health=Health.DOWN)
    for answer in (30.0, 30.0, None, 30.0, 30.0):
        one.probe_answered(answer, 100.0)
    assert one.health is Health.DOWN
    one.probe_answered(30.0, 100.0)
    assert one.health is Health.UP


def test_relapses_wait_longer_each_time() -> None:
    one, now_s, waits = path(), 10.0, []
    for _ in range(4):
        one._die(now_s, "probes unanswered")
        waits.append(one.rest_until_s - now_s)
        one.health, one.since_s = Health.UP, now_s
        now_s += 1.0
    assert waits == [1.0, 2.0, 4.0, 8.0]
    one._die(now_s + SETTINGS.stable_s + 1, "probes unanswered")
    assert one.rest_until_s - (now_s + SETTINGS.stable_s + 1) == 1.0, "long ago"


@pytest.mark.parametrize(("peer_answers", "health"), [(False, Health.SUSPECT), (True, Health.DOWN)])
def test_a_path_that_never_answered(peer_answers: bool, health: Health) -> None:
    one = path(answered_ever=False, peer_answers=peer_answers)
    one.feed(Sign.SILENT, 10.0)
    for _ in range(SETTINGS.probe_failures * STRANGER_FACTOR):
        one.probe_answered(None, 10.1)
    assert one.health is health


def test_time_outs_count_where_probes_tell_nothing() -> None:
    watch = Watch(SETTINGS)
    row = replace(ROW, unacknowledged=4, idle_ms=500, retransmits=SETTINGS.retransmits)
    watch.observe([replace(row, retransmits=0)], 10.0)
    assert not watch.dead(*PATH)
    watch.observe([row], 10.1)
    assert watch.dead(*PATH)
    # It is tried again, later and later.
    known = watch.paths[PATH]
    watch.probe_answered(*PATH, None, 10.1 + SETTINGS.hold_s)
    assert known.health is Health.UP


@pytest.mark.parametrize(
    ("row", "suspect"),
    [
        (replace(ROW, idle_ms=50), False),
        (replace(ROW, idle_ms=200, unacknowledged=1), True),
        (replace(ROW, idle_ms=200), False),
        (replace(ROW, idle_ms=200, unacknowledged=1, established=False), False),
        (replace(ROW, idle_ms=200, unacknowledged=1, rtt_ms=400.0), True),
    ],
)
def test_what_is_suspicious(row: Subflow, suspect: bool) -> None:
    watch = Watch(SETTINGS)
    watch.observe([replace(ROW, idle_ms=0)], 9.9)
    watch.observe([row], 10.0)
    assert (watch.paths[PATH].health is Health.SUSPECT) == suspect


def test_congestion_is_not_silence() -> None:
    """A long queue shows as a long round trip before: the threshold grows with it."""
    watch = Watch(SETTINGS)
    watch.observe([replace(ROW, rtt_ms=400.0, rtt_deviation_ms=20.0)], 9.9)
    watch.observe([replace(ROW, rtt_ms=400.0, idle_ms=700, unacknowledged=9)], 10.0)
    assert watch.paths[PATH].health is Health.UP


def test_receiver_becomes_suspicious_too() -> None:
    watch = Watch(SETTINGS)
    watch.observe([ROW], 9.9)
    watch.observe([replace(ROW, bytes_received=5000)], 10.0)
    watch.observe([replace(ROW, bytes_received=5000, idle_ms=150)], 10.15)
    assert watch.paths[PATH].health is Health.SUSPECT


def test_trust_needs_a_fresh_sign() -> None:
    watch = Watch(SETTINGS)
    watch.observe([ROW], 10.0)
    watch.probe_answered(*PATH, 30.0, 10.0)
    assert watch.trusted(*PATH, 10.0 + FRESH_S / 2)
    assert not watch.trusted(*PATH, 10.0 + 2 * FRESH_S)
    assert watch.doubt(*PATH, 10.6)
    assert watch.due_probes(10.6)


def test_forgotten_addresses_have_no_history() -> None:
    watch = Watch(SETTINGS)
    watch.observe([ROW], 10.0)
    watch.paths[PATH]._die(10.0, "probes unanswered")
    watch.forget(set())
    assert not watch.dead(*PATH)
    assert watch.probe_answered(*PATH, 1.0, 11.0) == []


def test_switched_off() -> None:
    watch = Watch(Detection(enabled=False))
    watch.observe([replace(ROW, idle_ms=9000, unacknowledged=9, retransmits=9)], 10.0)
    assert not watch.paths
    assert watch.trusted(*PATH, 10.0)


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match="silence_min_s"):
        Detection(silence_min_s=2.0)
    with pytest.raises(ValueError, match="hold_s"):
        Detection(hold_s=100.0)
