"""Stalls, round trips, overhead and paths: small tables with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures.overhead import is_signalling, message_bytes, stream_overhead
from analysis.measures.paths import bytes_per_path, path_of
from analysis.measures.roundtrips import RoundTrip, echo_times, flow_round_trip
from analysis.measures.stalls import find_stalls, stall_threshold_ms
from analysis.packets import schema
from analysis.packets.schema import ACK, HAS_TIMESTAMPS, SYN
from analysis.packets.table import PacketTable, Point

MS = 1_000_000


def table(**columns) -> PacketTable:
    size = max(np.size(values) for values in columns.values())
    out = PacketTable.empty(size)
    for name, values in columns.items():
        out.columns[name][:] = values
    return out


# --- stalls ----------------------------------------------------------------------------------------------------------


def test_the_threshold_is_four_round_trips_but_200_ms_at_least():
    assert [stall_threshold_ms(rtt) for rtt in (None, 0.0, 50.0, 50.1, 300.0)] == pytest.approx([200, 200, 200, 200.4, 1200])


def test_stalls_count_with_their_whole_length():
    times = np.array([0.0, 0.2, 0.5, 1.5, 1.6])
    assert find_stalls(times, 200.0, True, 9.0) == (2, pytest.approx(1300), pytest.approx(1000))
    assert find_stalls(times, 200.0, False, 9.0) == (3, pytest.approx(8700), pytest.approx(7400))
    assert find_stalls(times, 200.0, False, 1.0) == (2, pytest.approx(1300), pytest.approx(1000))


def test_no_data_no_stall():
    assert find_stalls(np.zeros(0), 200.0, False, 9.0) == (0, 0.0, 0.0)


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1), st.integers(200, 2_000), st.integers(-(10**5), 10**5))
def test_stalls_do_not_depend_on_the_clock(moments_ms, threshold_ms, shift_ms):
    moments = np.sort(np.array(moments_ms))
    stalls = find_stalls(moments / 1e3, threshold_ms + 0.5, False, 11.0)
    moved = find_stalls((moments + shift_ms) / 1e3, threshold_ms + 0.5, False, 11.0 + shift_ms / 1e3)
    assert moved == pytest.approx(stalls, abs=1e-3)
    assert stalls.total_ms <= 11_000 - moments[0] + 1e-6
    assert stalls.longest_ms <= stalls.total_ms + 1e-6


# --- round trips -----------------------------------------------------------------------------------------------------


def test_a_stamp_is_timed_from_its_first_packet_to_its_first_echo():
    sent, echoed = np.array([0, 1, 10, 20]) * MS, np.array([5, 13, 14, 30]) * MS
    found = echo_times(sent, np.array([7, 7, 8, 9]), echoed, np.array([7, 8, 8, 6]))
    assert (found / MS).tolist() == [5, 3]  # 9 was never echoed, 6 never sent
    assert not echo_times(sent[:0], sent[:0], echoed, echoed).size


def test_both_sides_make_the_path():
    # At the capture point: 2 ms to the client and back, 20 ms to the server and back; 24 ms once.
    rows = [(0, True, 1, 0), (20, False, 51, 1), (22, True, 2, 51), (46, False, 52, 2), (48, True, 3, 52)]
    at, up, value, echo = zip(*rows, strict=True)
    packets = table(time_ns=np.array(at) * MS, tsval=value, tsecr=echo, options=HAS_TIMESTAMPS, flags=[SYN] + [ACK] * 4)
    assert flow_round_trip(packets, np.arange(5), np.array(up)) == RoundTrip(22.0, 24.0)
    assert flow_round_trip(packets, np.arange(1), np.array(up[:1])) == RoundTrip(None, None)
    packets.columns["options"][:] = 0
    assert flow_round_trip(packets, np.arange(5), np.array(up)) == RoundTrip(None, None)


# --- overhead --------------------------------------------------------------------------------------------------------

DSS, PRIO = 1 << schema.DSS, 1 << schema.MP_PRIO
#            from sender, payload, header, flags, MPTCP subtypes
PACKETS = [
    (False, 0, 60, SYN, 1 << schema.MP_CAPABLE),
    (True, 1000, 72, ACK, DSS),
    (False, 0, 64, ACK, DSS),  # pure acknowledgment
    (True, 0, 52, ACK, 0),  # acknowledges the other direction
    (False, 300, 52, ACK, 0),  # payload of the other direction
    (False, 0, 56, ACK, DSS | PRIO),
    (True, 500, 92, ACK, DSS | PRIO),  # its header counts as data's
]


def test_headers_acknowledgments_and_signalling_add_up():
    sender, payload, header, flags, subtypes = zip(*PACKETS, strict=True)
    packets = table(payload_bytes=payload, overhead_bytes=header, flags=flags, mp_subtypes=subtypes, ip_version=4)
    rows = np.arange(len(PACKETS))
    assert is_signalling(packets, rows).tolist() == [True, False, False, False, False, True, False]
    found = stream_overhead(packets, rows, np.array(sender))
    assert found == (72 + 92, 64, 60 + 56, 20 + 32 + 24 + 16 + 52, 2)
    assert found.total_bytes == 344
    assert message_bytes(packets, rows[1:3]) == 1000 + 72 + 64
    packets.columns["ip_version"][:] = 6
    assert stream_overhead(packets, rows, np.array(sender)).extra_bytes == 0 + 12 + 4 + 0 + 32


def test_a_data_fin_without_payload_is_signalling():
    packets = table(flags=[ACK], mp_subtypes=[DSS], dss_flags=[schema.DSS_DATA_FIN | schema.DSS_MAP])
    assert is_signalling(packets, np.arange(1)).tolist() == [True]


# --- paths -----------------------------------------------------------------------------------------------------------


def test_paths_by_interface():
    packets = table(interface=[0, 1, 1, 2])
    packets.points = tuple(Point("f", name, 1) for name in ("mn-wlan", "mn-lte", "mn-usb"))
    names = {"mn-wlan": "wlan", "mn-lte": "lte", "mn-5g": "5g"}
    sizes = np.array([1, 10, 100, 1000])
    assert bytes_per_path(packets, np.arange(4), sizes, names) == {"wlan": 1, "lte": 110, "5g": 0, "mn-usb": 1000}
    assert bytes_per_path(packets, np.arange(0), sizes[:0], names) == {"wlan": 0, "lte": 0, "5g": 0, "mn-usb": 0}


def test_paths_by_outermost_addresses():
    packets = PacketTable.empty(3)
    mn, cn, ha, coa = (packets.addresses.code(text) for text in ("10.33.0.5", "10.64.0.2", "10.33.0.1", "10.1.0.100"))
    for name, values in {
        "src": cn,
        "dst": mn,
        "outer_src": [0, ha, ha],
        "outer_dst": [0, coa, coa],
        "tunnel": [0, 1, 1],
    }.items():
        packets.columns[name][:] = values
    number, texts = path_of(packets, np.arange(3))
    assert [texts[n] for n in number] == ["10.64.0.2 > 10.33.0.5", *["10.33.0.1 > 10.1.0.100"] * 2]
    assert bytes_per_path(packets, np.arange(0), np.zeros(0)) == {}
