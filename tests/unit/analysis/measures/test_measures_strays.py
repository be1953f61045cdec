"""Data on the old subflow after MP_PRIO: hand-made transfers, captured at both ends, in which the cause of each is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from analysis.connections import reconstruct
from analysis.measures import measure_stream, observe
from analysis.measures.pairs import arrivals
from analysis.measures.strays import (
    EQUAL_PRIORITY,
    IN_FLIGHT,
    QUEUED,
    REINJECTED,
    RETRANSMITTED,
    UNEXPLAINED,
    demands,
    find_strays,
)
from tests.unit.analysis.connections.connection_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    START_NS,
    Scene,
    dss,
    first_dsn,
    prio,
    timestamps,
)

SIZE = 1000
DELAYS_MS = (15.0, 2.0)


@dataclass
class Wire:
    """A download over two subflows, seen at the server (sent) and at the client (received). Times are those of the sender."""

    sent: Scene = field(default_factory=Scene)
    received: Scene = field(default_factory=Scene)
    next_ssn: list[int] = field(default_factory=lambda: [1, 1])
    place: int = 0
    heard: list[float] = field(default_factory=lambda: [0.0, 0.0])  # the newest timestamp of the client, to be echoed

    def __post_init__(self) -> None:
        self.lines = []
        for scene in (self.sent, self.received):
            first = scene.initial(0)
            second = scene.line("10.0.2.1:2000", "10.0.9.9:80", isn=(7000, 800_000))
            second.join(50, address_id=1)
            self.lines.append((first, second))
        for flow in (0, 1):  # an exchange, so that the round trip can be known
            self.data(100, flow)
            self.ack(100 + 2 * DELAYS_MS[flow], flow, 100)
            self.data(101 + 2 * DELAYS_MS[flow], flow)

    def data(self, ms: float, flow: int, place: int | None = None, ssn: int | None = None, lost: bool = False) -> None:
        """A segment; without `place` the next of the stream, with `ssn` a repetition on its own subflow."""
        if place is None:
            place, self.place = self.place, self.place + 1
        if ssn is None:
            ssn, self.next_ssn[flow] = self.next_ssn[flow], self.next_ssn[flow] + SIZE
        mapping = dss(first_dsn(CLIENT_KEY), first_dsn(SERVER_KEY) + place * SIZE, ssn, SIZE)
        options = timestamps(round(ms), round(self.heard[flow])) + mapping
        for point, at_ms in enumerate((ms, ms + DELAYS_MS[flow])):
            if point == 0 or not lost:
                self.lines[point][flow].send(at_ms, False, "PA", ssn, size=SIZE, options=options)

    def ack(self, ms: float, flow: int, stamp: float) -> None:
        """An acknowledgment that reaches the sender at `ms` and echoes the timestamp of the segment sent at `stamp`."""
        self.heard[flow] = ms - DELAYS_MS[flow]
        options = timestamps(round(self.heard[flow]), round(stamp)) + dss(first_dsn(SERVER_KEY) + self.place * SIZE)
        for point, at_ms in enumerate((ms, ms - DELAYS_MS[flow])):
            self.lines[point][flow].send(at_ms, True, "A", 1, self.next_ssn[flow], options=options)

    def prio(self, ms: float, flow: int, backup: bool) -> None:
        """MP_PRIO of the client that reaches the sender at `ms`."""
        for point, at_ms in enumerate((ms, ms - DELAYS_MS[flow])):
            self.lines[point][flow].send(at_ms, True, "A", 1, self.next_ssn[flow], options=prio(backup))

    def leave(self, old: int, ms: float) -> None:
        """The client asks for the other subflow at `ms`; each option arrives after its own delay."""
        self.prio(ms + DELAYS_MS[1 - old], 1 - old, False)
        self.prio(ms + DELAYS_MS[old], old, True)

    def observations(self):
        tables = [reconstruct(scene.table()) for scene in (self.sent, self.received)]
        return [observe(rec, 0, False) for rec in tables]

    def causes(self, number: int = 0):
        """(when it left in ms, cause) of every stray of a demand."""
        sent, received = self.observations()
        strays = find_strays(sent, received)[number]
        left_ms = (sent.segments.time_ns[strays.sent] - START_NS) / 1e6
        return list(zip(left_ms.tolist(), strays.cause.tolist(), strict=True)), strays


def test_data_of_before_the_demand_was_in_flight_or_queued():
    wire = Wire()
    for ms in (990, 995, 1001):  # two arrive after MP_PRIO has reached the sender, the third leaves only then
        wire.data(ms - 20 if ms == 990 else ms, 0)
    wire.leave(0, 998)  # reaches the sender at 1000 (new subflow) and 1013 (old one)
    wire.data(1010, 0)  # queued behind it, before anything was given to the other subflow
    wire.data(1002, 1)
    found, strays = wire.causes()
    assert found == [(995, IN_FLIGHT), (1001, QUEUED), (1010, QUEUED)]
    assert (strays.demand.old, strays.demand.new) == (0, 1)
    assert (strays.demand.asked_ns - START_NS, strays.demand.told_ns - strays.demand.asked_ns) == (10**9, 13_000_000)


def test_data_scheduled_between_the_two_options():
    wire = Wire()
    wire.data(999, 0)
    wire.leave(0, 998)
    wire.data(1001, 1)
    wire.data(1003, 0)  # later in the stream than what the new subflow has got
    wire.data(1004, 1)
    assert wire.causes()[0] == [(999, IN_FLIGHT), (1003, EQUAL_PRIORITY)]


def test_a_sender_that_waits_for_both_options_used_the_old_subflow_at_equal_priority():
    wire = Wire()
    wire.leave(0, 998)
    wire.data(1005, 0)
    wire.data(1014, 1)
    assert wire.causes()[0] == [(1005, EQUAL_PRIORITY)]


def test_data_after_a_pause_of_the_old_subflow_cannot_have_been_queued():
    wire = Wire()
    wire.leave(0, 998)
    wire.data(1001, 1)
    for ms in (1003, 1020, 1040):  # 30 ms are the round trip
        wire.data(ms, 0)
    wire.data(1075, 0)
    assert wire.causes()[0] == [(1003, EQUAL_PRIORITY), (1020, EQUAL_PRIORITY), (1040, EQUAL_PRIORITY), (1075, UNEXPLAINED)]


@pytest.mark.parametrize("used_at_ms", [None, 1200])
def test_a_sender_that_does_not_follow_is_not_explained(used_at_ms):
    wire = Wire()
    wire.leave(0, 998)
    for ms in range(1001, 1150, 10):
        wire.data(ms, 0)
    if used_at_ms:
        wire.data(used_at_ms, 1)
    found, _ = wire.causes()
    assert len(found) == 15
    assert {cause for _, cause in found} == {UNEXPLAINED}


def test_repetitions_are_told_apart_and_judged():
    wire = Wire()
    wire.data(990, 0, lost=True)
    wire.data(991, 0)
    lost, came = wire.next_ssn[0] - 2 * SIZE, wire.next_ssn[0] - SIZE
    wire.leave(0, 998)
    wire.data(1001, 1)
    wire.data(1030, 0, wire.place - 3, ssn=lost)
    wire.data(1031, 0, wire.place - 2, ssn=came)
    wire.data(1032, 0, wire.place - 1)  # the new subflow's data, on the old one
    found, strays = wire.causes()
    assert found == [(991, IN_FLIGHT), (1030, RETRANSMITTED), (1031, RETRANSMITTED), (1032, REINJECTED)]
    assert (strays.again, strays.needless) == (3, 2)
    assert strays.received[1] >= 0


def test_lost_strays_are_strays_and_matched_copies_are_their_own():
    wire = Wire()
    wire.leave(0, 998)
    wire.data(1001, 0, lost=True)
    wire.data(1002, 1)
    wire.data(1035, 0, wire.place - 2, ssn=wire.next_ssn[0] - SIZE)
    sent, received = wire.observations()
    partner = arrivals(sent, received)
    left_ms = (sent.segments.time_ns - START_NS) / 1e6
    assert left_ms[partner < 0].tolist() == [1001]
    travelled = received.segments.time_ns[partner[partner >= 0]] - sent.segments.time_ns[partner >= 0]
    assert set(np.round(travelled / 1e6).tolist()) == set(DELAYS_MS)
    assert wire.causes()[0] == [(1001, QUEUED), (1035, RETRANSMITTED)]


def test_every_demand_ends_with_the_next_one():
    wire = Wire()
    wire.leave(0, 998)
    wire.data(1001, 1)
    wire.leave(1, 1998)  # "backup" comes first here: subflow 1 is the faster one
    wire.data(2001, 0)
    wire.data(2002, 1)
    sent, _ = wire.observations()
    first, second = demands(sent)
    assert (first.old, first.new, second.old, second.new) == (0, 1, 1, 0)
    assert first.until_ns == second.asked_ns
    assert wire.causes(0)[0] == []
    assert wire.causes(1)[0] == [(2002, EQUAL_PRIORITY)]


def test_mp_prio_of_the_datas_sender_is_no_demand():
    wire = Wire()
    for point in (0, 1):
        wire.lines[point][0].send(1000, False, "A", wire.next_ssn[0], options=prio(True))
    assert demands(wire.observations()[0]) == []


def test_figures_of_a_stream():
    wire = Wire()
    wire.data(990, 0)
    wire.leave(0, 998)
    wire.data(1001, 0)
    wire.data(1002, 1)
    sent, received = wire.observations()
    (switch,) = measure_stream(received.rec, 0, False, sent=sent)["switches"]
    counts = {name: count for name, count in switch.items() if name.endswith("_packets") and count}
    assert counts == {"in_flight_packets": 1, "queued_packets": 1}
    assert switch["last_stray_ms"] == 1.0
    assert switch["told_ms"] == 13.0
    assert measure_stream(received.rec, 0, False)["switches"] == []
