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
from analysis.charts.view import Timeline
from analysis.packets import merge, read_captures

CAPTURES = Path(__file__).parents[3] / "pcaps" / "kernel"


PACKED = {"time": "u", "begin": "s", "size": "s", "code": "n", "subflow": "n", "file": "n", "frame": "s"}


def columns_of(table: dict) -> dict[str, list[int]]:
    """Columns of a table as the script reads them; those that were left out are zeros."""
    names = table["columns"]
    found = unpack(table["data"], table["count"], "".join(PACKED[name] for name in names))
    return {name: [0] * table["count"] for name in PACKED} | dict(zip(names, found, strict=True))


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
    segments, got = rec.segments, columns_of(data["segments"])
    assert data["segments"]["count"] == data["segments"]["total"] == len(segments)
    assert got["time"] == ((segments["time_ns"] - tr.START_NS) // 1000).tolist()
    assert got["begin"] == segments["begin"].tolist()
    assert set(got["size"]) == {tr.SIZE}
    assert [c % 4 for c in got["code"]] == segments["kind"].tolist()
    first = [group["subflow"] for group in data["groups"]]
    carriers = [first[c // 4] + more for c, more in zip(got["code"], got["subflow"], strict=True)]
    assert carriers == segments["subflow"].tolist()
    assert not {"subflow", "file"} & set(data["segments"]["columns"])  # nothing but zeros: one file, a colour for each subflow
    assert got["frame"] == (segments["row"] + 1).tolist()
    acks, got = rec.acks.loc[rec.acks["data_ack"] >= 0], columns_of(data["acks"])
    assert got["begin"] == acks["data_ack"].tolist()
    assert [first[c // 4] for c in got["code"]] == acks["subflow"].tolist()
    assert got["frame"] == (acks["row"] + 1).tolist()
    assert data["start"] == 0
    assert data["completeTo"] == 0
    assert data["kindCounts"][tr.REINJECTION] == 40
    assert data["idsn"] == str(tr.CONNECTION["server_idsn"])
    assert data["gap"] == pytest.approx([1.95, 2.40], abs=0.05)


def test_too_many_points_are_thinned_but_no_rare_one_is_lost():
    rec = tr.handover(40)
    data = plot_data(rec, 0, False, points_max=6000)
    table = data["segments"]
    assert table["total"] == len(rec.segments)
    assert 3000 < table["count"] <= 6000
    assert 1500 < data["acks"]["count"] <= 3000
    code = columns_of(table)["code"]
    kinds = np.bincount([c % 4 for c in code], minlength=4)
    counts = np.bincount(rec.segments["kind"], minlength=4)
    assert kinds[tr.RETRANSMISSION] == counts[tr.RETRANSMISSION] > 0
    assert kinds[tr.REINJECTION] == counts[tr.REINJECTION] > 0
    assert 0.5 < data["completeTo"] < 100


def test_subflows_that_share_a_colour_keep_their_numbers():
    t = tr.Transfer(paths=[(f"10.0.{n % 2}.2", "10.0.9.2") for n in range(9)])
    for index in range(90):
        t.send(index * 0.01, index % 9, index * tr.SIZE)
    data = plot_data(t.tables(subflows=9), 0, False)
    got = columns_of(data["segments"])
    first = [group["subflow"] for group in data["groups"]]
    assert first == [0, 1]
    assert [first[c // 4] + more for c, more in zip(got["code"], got["subflow"], strict=True)] == [i % 9 for i in range(90)]


def test_timeline_moves_the_clock_and_brings_events_and_gap():
    """Zero 2 s before the first packet: times as packed stay, what is shown begins at 2 s."""
    rec = tr.handover()
    events = ((4.0, "carrier-loss mn-wlan"), (99.0, "too late"))
    timeline = Timeline("a run", tr.START_NS - 2_000_000_000, (0.0, 9.0), events, (3.9, 9.0), "> 5 s", {0: "wlan"})
    plain, data = plot_data(rec, 0, False), plot_data(rec, 0, False, timeline=timeline)
    assert data["segments"] == plain["segments"]
    assert (data["title"], data["start"], data["span"]) == ("a run", 2.0, [0.0, 9.0])
    assert data["events"] == [[4.0, "carrier-loss mn-wlan"]]
    assert plain["events"] == []
    assert [[at_s - 2, text] for at_s, text in data["marks"]] == [[pytest.approx(at_s), text] for at_s, text in plain["marks"]]
    assert (data["gap"], data["gapText"]) == ([3.9, 9.0], "the gap, > 5 s")
    assert plain["gapText"].startswith("longest time without new in-order data, ")
    assert [group["label"] for group in data["groups"]] == ["0 · 10.0.1.2 (wlan)", "1 · 10.0.2.2"]


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
