"""Data of the interactive plot, unpacked the way its script does it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import transfers as tr
from hypothesis import given
from hypothesis import strategies as st

from analysis.charts.interactive import frame_numbers, pack, plot_data, script_hash, script_text, zigzag
from analysis.packets import merge, read_captures

CAPTURES = Path(__file__).parents[3] / "pcaps" / "kernel"


def unpack(text: str, count: int, kinds: str) -> list[list[int]]:
    """Columns of numbers; kinds: per column "n" as it is, "u" sums of steps, "s" sums of signed steps."""
    raw, at, out = base64.b64decode(text), 0, []
    for kind in kinds:
        column, total = [], 0
        for _ in range(count):
            value = shift = 0
            while True:
                byte = raw[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
            if kind == "s":
                value = -(value + 1) // 2 if value % 2 else value // 2
            total = value if kind == "n" else total + value
            column.append(total)
        out.append(column)
    assert at == len(raw)
    return out


@given(st.lists(st.integers(0, 2**62), max_size=50))
def test_numbers_come_back(values):
    assert unpack(pack([np.array(values, np.int64)]), len(values), "n") == [values]


@given(st.lists(st.integers(-(2**61), 2**61), max_size=20))
def test_signed_numbers_come_back(values):
    array = np.array(values, np.int64)
    packed = (
        pack([zigzag(np.diff(array, prepend=np.int64(0)))])
        if abs(np.diff(array.astype(object), prepend=0)).max(initial=0) < 2**61
        else None
    )
    if packed is not None:
        assert unpack(packed, len(values), "s") == [values]


def test_all_segments_and_acks():
    rec = tr.handover()
    data = json.loads(json.dumps(plot_data(rec, 0, False, numbers=frame_numbers(["capture.pcap"], [rec.packets]))))
    table, segments = data["segments"], rec.segments
    time, begin, size, code, subflow, file, frame = unpack(table["data"], table["count"], "usnnnns")
    assert table["count"] == table["total"] == len(segments)
    assert time == ((segments["time_ns"] - tr.START_NS) // 1000).tolist()
    assert begin == segments["begin"].tolist()
    assert set(size) == {tr.SIZE}
    assert [c % 4 for c in code] == segments["kind"].tolist()
    assert [c // 4 for c in code] == subflow == segments["subflow"].tolist()
    assert set(file) == {0}
    assert frame == (segments["row"] + 1).tolist()
    acks = rec.acks.loc[rec.acks["data_ack"] >= 0]
    columns = unpack(data["acks"]["data"], data["acks"]["count"], "usnnns")
    assert columns[1] == acks["data_ack"].tolist()
    assert columns[5] == (acks["row"] + 1).tolist()
    assert data["completeTo"] == 0
    assert data["kindCounts"][tr.REINJECTION] == 40
    assert data["idsn"] == str(tr.CONNECTION["server_idsn"])
    assert data["gap"] == pytest.approx([1.95, 2.40], abs=0.05)


def test_too_many_points_are_thinned_but_no_rare_one_is_lost():
    rec = tr.handover(40)
    data = plot_data(rec, 0, False, points_max=6000)
    table = data["segments"]
    assert table["total"] == len(rec.segments)
    assert table["count"] <= 6000
    assert data["acks"]["count"] <= 3000
    code = unpack(table["data"], table["count"], "usnnnns")[3]
    kinds = np.bincount([c % 4 for c in code], minlength=4)
    counts = np.bincount(rec.segments["kind"], minlength=4)
    assert kinds[tr.RETRANSMISSION] == counts[tr.RETRANSMISSION] > 0
    assert kinds[tr.REINJECTION] == counts[tr.REINJECTION] > 0
    assert 0.5 < data["completeTo"] < 100


def test_frame_numbers_are_those_of_the_files():
    """Two real files merged and then cut down to TCP packets to a port: numbers count every record of each file."""
    paths = sorted(CAPTURES.glob("handover-carrier-v4.*.pcapng.gz"))
    captures = read_captures(paths)
    assert len(captures) == 2
    merged = merge(captures)
    table = merged.take(np.flatnonzero((merged["protocol"] == 6) & (merged["dport"] == 5001)))
    numbers = frame_numbers([c.path.name for c in captures], [c.table for c in captures])
    file, frame = numbers.find(table["interface"].astype(np.int64), table["payload_at"])
    assert set(file) == {0, 1}
    for index, capture in enumerate(captures):
        mine = file == index
        for name in ("time_ns", "seq", "sport"):
            assert (capture.table[name][frame[mine] - 1] == table[name][mine]).all()


def test_script_cannot_end_its_own_tag():
    assert "</" not in script_text()
    assert script_hash().startswith("sha256-")
