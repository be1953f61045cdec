"""The tables of an event log: the proxy's own, after runs in memory, and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.replay import __main__ as program
from agents.replay.decisions import LogError, read, tables_of
from tests.proxy.transfers import Plan, prepare


def event(at_ms: int, name: str, **fields: Any) -> dict[str, Any]:
    return {"mono_ns": 10**9 + at_ms * 10**6, "wall_ns": 0, "agent": "proxy", "event": name, **fields}


BREAK = [
    event(0, "addresses", addresses=[]),
    event(1, "established", connection=1, opened_here=True, token="a", remote_token="b", checksum=False, sack=True),
    event(2, "place", connection=1, start=1, end=1001, pieces=[{"subflow": 0, "ssn": 1, "start": 1, "end": 1001}]),
    event(3, "mapping", connection=1, subflow=0, ssn=1, dsn=1, length=1000),
    event(10, "join", connection=1, subflow=1, local="10.2.0.1", remote="10.64.0.1", backup=False),
    event(10, "subflow-dead", connection=1, subflow=0, why="handover", active=None),
    event(10, "handover", connection=1, to=1, address="10.2.0.1", **{"break": True}),
    event(20, "joined", connection=1, subflow=1, local="10.2.0.1", remote="10.64.0.1", round_trip_s=0.01),
    event(21, "place", connection=1, start=9001, end=10001, pieces=[{"subflow": 1, "ssn": 1, "start": 9001, "end": 10001}]),
    event(22, "place", connection=1, start=5001, end=6001, pieces=[{"subflow": 1, "ssn": 1001, "start": 5001, "end": 6001}]),
    event(30, "freed", connection=1, why="time wait", state="time-wait"),
]


def log(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "proxy.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_break_by_hand(tmp_path: Path) -> None:
    rows = read(log(tmp_path, BREAK))
    (found,) = tables_of(rows, 0.025).to_json()
    assert found["active"] == 1
    assert found["send"] == [
        {"start": 1, "end": 5001, "subflow": 0, "ssn": 1},
        {"start": 5001, "end": 9001, "subflow": 1, "ssn": 1001},
        {"start": 9001, "end": 10001, "subflow": 1, "ssn": 1},
    ]
    assert [item["state"] for item in found["subflows"]] == ["dead: handover", "established"]
    assert found["subflows"][0]["received"] == [{"ssn": 1, "end": None, "dsn": 1}]
    assert tables_of(rows).connections[1].state == "freed: time wait"
    (before,) = tables_of(rows, 0.005).to_json()
    assert before["send"] == [{"start": 1, "end": None, "subflow": 0, "ssn": 1}]
    assert before["active"] == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log(tmp_path, BREAK)
    assert program.main(["decisions", str(path), "--events", "--at", "0.025"]) == program.SAME
    text = capsys.readouterr().out
    assert "connection 1: established, active subflow 1" in text
    assert "subflow 1, s 1001" in text
    assert "joined" in text
    assert program.main(["decisions", str(path), "--json"]) == program.SAME
    assert json.loads(capsys.readouterr().out)["events"] == len(BREAK)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "has no events"),
        ("{}\n", "line 1 is no event"),
        ('{"mono_ns": 1, "event": "started"}\nnothing\n', "line 2 is no event"),
        ('{"mono_ns": 1, "event": "place", "connection": 1}\n', "event 1 (place)"),
    ],
)
def test_a_bad_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str) -> None:
    path = tmp_path / "x.jsonl"
    if text is not None:
        path.write_text(text)
    assert program.main(["decisions", str(path)]) == program.UNUSABLE
    found = capsys.readouterr().err
    assert message in found
    assert len(found.splitlines()) == 1


def test_the_tables_are_those_of_the_proxy(tmp_path: Path) -> None:
    """At many moments of random runs: what the proxy still remembers is what the log says."""
    checked = 0
    for seed in range(24):
        run = prepare(Plan(seed, commands=2, boxes=False))
        proxy: Any = run.near.proxy
        seen: list[tuple[int, list[tuple[int, int, int, int]]]] = []

        def look(run: Any = run, proxy: Any = proxy, seen: Any = seen) -> None:
            for connection in proxy._numbered.values():
                entries = [(a, b, shift, owner.number) for a, b, shift, owner in connection.send.entries()]
                seen.append((len(run.near.log), entries))

        for tenth in range(1, 30):
            run.later(tenth / 10, look)
        run.run()
        if any(item.event == "established" and not item.fields["sack"] for _at, item in run.near.log):
            continue  # space is reserved after a break, which is no event
        rows = [{"at_s": 0.0, "event": item.event, **item.fields} for _at, item in run.near.log]
        for count, entries in seen:
            if not entries:
                continue
            (tables,) = tables_of(rows[:count]).connections.values()
            send = tables.send()
            for start, end, shift, owner in entries:
                for t in (start, end - 1):
                    at = send.index(t)
                    assert at >= 0
                    assert (send.shifts[at], send.owners[at]) == (shift, owner), (seed, t)
                    checked += 1
    assert checked > 20


def test_a_log_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LogError, match="not UTF-8"):
        read(path)
