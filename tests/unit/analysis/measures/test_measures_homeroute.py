"""The direct way and the one over the home agent, of made-up subflows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.measures.homeroute import WayRoundTrips, data_round_trip_ms, direct_since_ns, find_home, forwarded
from analysis.packets import PacketTable

HOME, COA, OTHER, CN = "10.33.0.10", "10.1.0.100", "10.2.0.100", "10.65.0.2"


def reconstruction(flows: list[tuple[int, str, int]], segments: list[tuple[int, int, int]] = []) -> Any:  # noqa: B006 - read
    """Flows: connection, client, established (ns, -1: never). Segments: time (ns), flow, bytes."""
    table = pd.DataFrame(flows, columns=["connection", "client", "established_ns"]).assign(server=CN)
    rows = pd.DataFrame(segments, columns=["time_ns", "flow", "flow_end"]).assign(flow_begin=0)
    return SimpleNamespace(flows=table, segments=rows)


def trips(*least_ms: float) -> WayRoundTrips:
    return WayRoundTrips(np.arange(len(least_ms)), np.array(least_ms), np.arange(len(least_ms)) == 0)


def test_the_first_subflow_from_a_care_of_address_is_what_counts() -> None:
    rec = reconstruction([(0, HOME, 10), (0, OTHER, 40), (0, COA, 30), (0, "10.9.9.9", -1)])
    assert direct_since_ns(rec, [0], HOME) == 30


def test_of_several_connections_the_last_one_counts() -> None:
    flows = [(0, HOME, 10), (0, COA, 30), (1, HOME, 12), (1, COA, 50)]
    assert direct_since_ns(reconstruction(flows), [0, 1], HOME) == 50
    assert direct_since_ns(reconstruction(flows[:3]), [0, 1], HOME) is None
    assert direct_since_ns(reconstruction([(0, HOME, 10), (0, COA, -1)]), [0], HOME) is None
    assert direct_since_ns(reconstruction(flows), [], HOME) is None


def test_round_trips_are_weighted_by_the_payload_of_the_interval() -> None:
    rec = reconstruction([(0, HOME, 1), (0, COA, 2), (0, OTHER, 3)], [(5, 0, 900), (10, 1, 300), (11, 2, 100), (20, 0, 500)])
    ways = trips(150.0, 30.0, 70.0)
    assert data_round_trip_ms(rec, ways, 10, 20) == pytest.approx((3 * 30 + 70) / 4)
    assert data_round_trip_ms(rec, ways, 0, 10) == 150.0
    assert data_round_trip_ms(rec, ways, 12, 20) is None


def test_a_way_without_a_round_trip_leaves_it_unknown() -> None:
    rec = reconstruction([(0, HOME, 1), (0, COA, 2)], [(5, 0, 900), (6, 1, 900)])
    assert data_round_trip_ms(rec, trips(150.0, np.nan), 0, 10) is None
    assert data_round_trip_ms(rec, trips(150.0, np.nan), 0, 6) == 150.0


def test_nothing_captured_tells_no_home() -> None:
    assert find_home(PacketTable.empty(), {COA}) is None
    assert forwarded(PacketTable.empty(), SimpleNamespace(address=1, agent=2), [5001]).size == 0  # type: ignore[arg-type]
