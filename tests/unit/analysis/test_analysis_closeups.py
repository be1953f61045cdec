"""What the figures around events show: chosen from captures at both ends."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from analysis.closeups import moments, trace_origin
from analysis.connections.model import FIRST, REINJECTION, RETRANSMISSION
from analysis.html import small
from analysis.measures.strays import IN_FLIGHT, QUEUED
from analysis.style import PALETTE, new_figure
from tests.unit.analysis.connections.connection_scene import START_NS
from tests.unit.analysis.measures.test_measures_strays import Wire

EVENTS = ((0.99, "prefer wlan"),)


def busy(gap_ms: float = 0, at_ms: int = 1100) -> Wire:
    """Data every 5 ms on subflow 0, from 0.9 to 2 s but for a gap."""
    wire = Wire()
    for ms in (*range(900, at_ms, 5), *np.arange(at_ms + gap_ms, 2000, 5)):
        wire.data(float(ms), 0)
        wire.ack(float(ms) + 40, 0, float(ms))
    return wire


def test_a_quiet_event_is_shown_from_50_ms_before_to_150_ms_after():
    _, received = busy().observations()
    (moment,) = moments(received, None, EVENTS, START_NS, 2.0)
    assert moment.span_s == pytest.approx((0.94, 1.14))
    assert moment.gap_s is not None
    assert moment.gap_s[1] - moment.gap_s[0] == pytest.approx(0.005, abs=0.001)


def test_a_gap_is_shown_whole():
    _, received = busy(gap_ms=300).observations()
    (moment,) = moments(received, None, EVENTS, START_NS, 2.0)
    assert moment.gap_s == pytest.approx((1.110, 1.415), abs=0.002)
    assert moment.span_s[0] < 0.94
    assert 1.415 < moment.span_s[1] < 1.6


def test_a_late_gap_is_only_told_unless_it_is_long():
    _, received = busy(gap_ms=60, at_ms=1500).observations()
    (moment,) = moments(received, None, EVENTS, START_NS, 2.0)
    assert moment.span_s == pytest.approx((0.94, 1.14))
    assert moment.elsewhere == "the longest gap within 1 s, 65 ms, begins 520 ms after the event"
    _, received = busy(gap_ms=250, at_ms=1500).observations()
    (moment,) = moments(received, None, EVENTS, START_NS, 2.0)
    assert moment.gap_s == pytest.approx((1.51, 1.765), abs=0.002)
    assert moment.span_s[1] > 1.765
    assert not moment.elsewhere


def test_a_silence_without_an_end_lasts_until_the_end():
    wire = Wire()
    for ms in range(900, 1000, 5):
        wire.data(ms, 0)
        wire.ack(ms + 40, 0, ms)
    _, received = wire.observations()
    (moment,) = moments(received, None, ((1.02, "carrier-loss wlan"),), START_NS, 4.0)
    assert moment.gap_s == pytest.approx((1.01, 4.0), abs=0.002)
    assert moment.span_s[1] > 4.0


def test_strays_are_shown_to_the_last():
    wire = busy()
    wire.leave(0, 985)
    wire.data(990, 1)
    sent, received = wire.observations()
    _, origin = trace_origin(received, sent)
    (moment,) = moments(received, origin, ((0.985, "prefer lte"),), START_NS, 2.0)
    assert moment.span_s[1] > 1.9


def test_kinds_losses_and_strays_come_from_the_senders_capture():
    wire = Wire()
    wire.data(980, 0)
    wire.data(990, 0, lost=True)
    lost = wire.next_ssn[0] - 1000
    wire.leave(0, 998)
    wire.data(1001, 0)
    wire.data(1002, 1)
    wire.data(1030, 0, wire.place - 3, ssn=lost)
    wire.data(1040, 1, wire.place - 2)
    sent, received = wire.observations()
    assert set(received.segments.kind.tolist()) == {FIRST, REINJECTION}  # the receiver has not seen the lost copy
    rec, origin = trace_origin(received, sent)
    came_ms = ((rec.segments["time_ns"] - START_NS) / 1e6).tolist()
    kinds = dict(zip(came_ms, rec.segments["kind"].tolist(), strict=True))
    assert {ms: kind for ms, kind in kinds.items() if kind != FIRST} == {1045: RETRANSMISSION, 1042: REINJECTION}
    assert ((origin.lost["time_ns"] - START_NS) / 1e6).tolist() == [990]
    assert list(zip(((origin.strays["time_ns"] - START_NS) / 1e6).tolist(), origin.strays["cause"], strict=True))[:2] == [
        (1016, QUEUED),
        (1045, 3),
    ]
    assert IN_FLIGHT not in set(origin.strays["cause"])
    assert [words for _, words in origin.heard] == ["MP_PRIO 1 active at sender", "MP_PRIO 0 backup at sender"]


def test_small_pictures_keep_the_colours():
    figure = new_figure(3, 2)
    axes = figure.add_subplot()
    for row, colour in enumerate(PALETTE):
        axes.axhspan(row, row + 1, color=colour)
    picture = small(figure, "colours")
    image = Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1])))
    assert image.mode == "P"
    seen = {colour for _, colour in image.convert("RGB").getcolors(1 << 16)}
    assert {tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in PALETTE} <= seen
