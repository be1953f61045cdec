"""Statistics of a direction start anew without disturbing what is in flight."""

from random import Random

from topologies.links.relay import Direction
from topologies.links.shaper import Shaper
from topologies.profiles import LinkProfile


def test_reset_keeps_what_is_in_flight() -> None:
    way = Direction(Shaper(LinkProfile(delay_ms=10), Random(1), 0))
    fresh = way.stats()
    for number in range(3):
        way.shaper.offer(number, bytes(100))
    way.delivered, way.delivered_bytes, way.dropped_carrier, way.dropped_send = 4, 400, 5, 6
    way.lateness.add(1_000_000)
    assert way.stats()["offered"] == 3
    way.reset()
    assert way.stats() == {**fresh, "in_flight": 3}
    way.shaper.offer(4, bytes(60))
    assert (way.stats()["offered"], way.stats()["offered_bytes"]) == (1, 60)
