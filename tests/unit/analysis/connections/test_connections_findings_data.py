"""Oddities of data, time and priorities, each from a hand-made scene that shows nothing else."""

from __future__ import annotations

import pytest
from connection_findings import found, joined, only, texts
from connection_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    Scene,
    add_addr,
    dss,
    first_dsn,
    join_syn,
    mp_fail,
    prio,
    remove_addr,
    token,
)
from work import count_calls

from analysis.connections import reconstruct
from analysis.connections.findings import MOST_OF_A_KIND, find

# --- priorities --------------------------------------------------------------------------------------------------


def priority_scene(after: list[tuple[float, int]]) -> Scene:
    """Download over subflow 0; at 1000 ms the client makes it backup. `after`: (ms, subflow) of later segments."""
    scene = Scene()
    lines = [scene.initial(), joined(scene)]
    offset, places = 0, [0, 0]
    for ms, number in [(200 + 10 * n, 0) for n in range(20)] + after:
        lines[number].data(ms, False, offset, 1000, ssn=places[number] + 1)
        offset, places[number] = offset + 1000, places[number] + 1000
        lines[number].dack(ms + 1, False, offset, places[number] + 1)
    lines[0].send(1000, True, options=prio(True))
    scene.packets.sort(key=lambda packet: packet[0])
    return scene


def test_priority_obeyed_at_once():
    text = only(priority_scene([(1010 + n, 1) for n in range(50)]), "priority-obeyed")
    assert text.endswith("made subflow 0 (10.0.1.1:1000 > 10.0.9.9:80) backup: the server obeyed at once, "
                         "50,000 bytes went over other subflows.")  # fmt: skip


def test_priority_obeyed_after_what_was_under_way():
    scene = priority_scene([(1010 + 20 * n, 0) for n in range(5)] + [(1200 + 10 * n, 1) for n in range(100)])
    text = only(scene, "priority-obeyed")
    assert "still sent 5,000 bytes in 5 segments there, the last 90 ms after it, and 100,000 bytes over other subflows" in text


def test_priority_ignored():
    scene = priority_scene(sorted([(1010 + 100 * n, 0) for n in range(50)] + [(1015 + 100 * n, 1) for n in range(50)]))
    findings = found(scene)
    assert findings["kind"].tolist() == ["priority-ignored"]
    assert "still sent 50,000 bytes in 50 segments there, the last 4.91 s after it" in findings["text"].iloc[0]


def test_a_slow_drain_of_less_than_a_second_is_no_disobedience():
    scene = priority_scene(sorted([(1010 + 20 * n, 0) for n in range(40)] + [(1015 + 20 * n, 1) for n in range(40)]))
    assert "the last 790 ms after it" in only(scene, "priority-obeyed")


def test_backup_that_is_used_because_nothing_else_is_there_is_no_disobedience():
    scene = Scene()
    line = scene.initial()
    line.send(100, True, options=prio(True))
    for n in range(20):
        line.data(200 + 100 * n, False, n * 1000)
        line.dack(201 + 100 * n, False, n * 1000 + 1000)
    assert found(scene).empty


# --- data --------------------------------------------------------------------------------------------------------


def test_acknowledged_data_that_is_not_in_the_capture():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.data(22, True, 3000)
    line.dack(30, True, 4000)
    line.data(32, True, 4000)
    line.dack(40, True, 5000)
    [text] = texts(scene, "capture-incomplete")
    assert text.startswith(
        "The server acknowledged 2,000 bytes of the client's data that are not in the capture, the first at offset 1,000"
    )


def test_acknowledgment_beyond_all_data():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.dack(30, True, 1501, 1001)
    text = only(scene, "ack-beyond-data")
    assert text.startswith("The server acknowledged 500 bytes beyond the last of the client's data seen (1,000 bytes)")


def test_acknowledgment_of_a_data_fin_is_nothing():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.send(21, True, "A", 1001, options=dss(first_dsn(SERVER_KEY), first_dsn(CLIENT_KEY) + 1000, 0, 1, fin=True))
    line.dack(30, True, 1001, 1001)
    assert found(scene).empty


def test_acknowledgments_before_their_data():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.dack(30, True, 3000, 3001)
    line.data(31, True, 1000, 2000)
    [text] = texts(scene, "ack-before-data")
    assert text.startswith("1 acknowledgment of the server came before their data, by up to 2,000 bytes")


def test_contradicting_mappings():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.data(21, True, 1000)
    line.data(22, True, 5000, 1000, ssn=1)
    [text] = texts(scene, "contradicting-mapping")
    first = first_dsn(CLIENT_KEY)
    assert text.startswith("SSN 1 of subflow 0 (10.0.1.1:1000 > 10.0.9.9:80) is mapped to two places")
    assert f"DSN {first} (64 bits), 1,000 bytes" in text
    assert f"DSN {first + 5000} (64 bits), 1,000 bytes" in text


def test_mappings_that_are_repeated_or_cut_differently_agree():
    scene = Scene()
    line = scene.initial()
    for ms, offset, size in ((20, 0, 2000), (21, 1000, 1000), (22, 0, 2000), (23, 500, 700)):
        line.data(ms, True, offset, size)
    assert texts(scene, "contradicting-mapping") == []


def test_repeated_data():
    scene = Scene()
    first = scene.initial()
    second = joined(scene)
    first.data(200, True, 0)
    first.data(201, True, 1000)
    first.data(202, True, 1000)
    second.data(203, True, 1000, ssn=1)
    first.dack(210, True, 2000)
    text = only(scene, "duplicate-data")
    assert text.startswith(
        "2,000 bytes (50.0 %) of the client's payload are repetitions: 1,000 retransmitted by TCP, 1,000 rein"
    )


def test_fins_without_data_fin():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.dack(25, True, 1000)
    line.send(26, True, "A", 1001, options=dss(first_dsn(SERVER_KEY), first_dsn(CLIENT_KEY) + 1000, 0, 1, fin=True))
    line.send(30, True, "FA", 1001)
    line.send(40, False, "FA", 1, 1002)
    assert only(scene, "data-fin-missing") == "All subflows ended with FIN, but no DATA_FIN of the server was seen."


def test_malformed_options():
    scene = Scene()
    line = scene.initial()
    line.send(20, True, options=bytes.fromhex("1e01ffff"))
    line.send(21, True, options=bytes.fromhex("080a0000"))
    text = only(scene, "options-malformed")
    assert text.startswith("2 packets with malformed TCP options")


def test_stall_names_the_subflows_before_and_after():
    scene = Scene()
    first = scene.initial()
    second = joined(scene)
    first.data(200, False, 0)
    first.dack(210, False, 1000)
    first.data(220, False, 1000)
    second.data(1100, False, 1000, ssn=1)
    second.dack(1120, False, 2000, 1001)
    text = texts(scene, "stall")
    assert text == [
        "Data of the server waited 900 ms for progress of the acknowledgments, from 0.220 s on; the last acknowledgment before "
        "came on subflow 0, the next on subflow 1."
    ]


def test_a_pause_of_the_application_is_no_stall():
    scene = Scene()
    line = scene.initial()
    for n in range(3):
        line.data(100 + 5000 * n, True, n * 1000)
        line.dack(110 + 5000 * n, True, n * 1000 + 1000)
    assert found(scene).empty


def test_silence_behind_the_last_acknowledgment_is_nothing():
    scene = Scene()
    line = scene.line()
    line.handshake(0)
    line.send(20, True, "PA", 1, 1, 1000)
    line.send(30, False, "A", 1, 1001)
    line.send(9000, True, "FA", 1001)
    assert found(scene).empty


def test_stall_in_plain_tcp_and_data_never_acknowledged():
    scene = Scene()
    line = scene.line()
    line.handshake(0)
    line.send(20, True, "PA", 1, 1, 1000)
    line.send(4020, True, "PA", 1, 1, 1000)
    line.send(4030, False, "A", 1, 1001)
    line.send(4040, True, "PA", 1001, 1, 500)
    line.send(5040, True, "PA", 1001, 1, 500)
    findings = found(scene)
    kinds = dict(zip(findings["kind"], findings["text"], strict=True))
    assert kinds["stall"] == "Data of the client waited 4.01 s for progress of the acknowledgments, from 0.020 s on."
    assert kinds["unacknowledged"].startswith("500 bytes of the client's data were not acknowledged")


def test_zero_window():
    scene = Scene()
    line = scene.initial()
    for ms, window in ((20, 0), (60, 0), (120, 500), (130, 0), (150, 800)):
        line.send(ms, False, window=window)
    text = only(scene, "zero-window")
    assert text.startswith("The server closed its window 2 times, 120 ms in all, 100 ms at the longest")


def test_silent_subflow():
    scene = Scene()
    first = scene.initial()
    joined(scene)
    for n in range(20):
        first.data(200 + 100 * n, True, n * 10_000, 10_000)
        first.dack(201 + 100 * n, True, n * 10_000 + 10_000)
    text = only(scene, "silent-subflow")
    assert (
        text == "Subflow 1 (10.0.2.1:1001 > 10.0.9.9:80) was active for 1.99 s without payload; others carried 200,000 bytes."
    )


def test_a_backup_subflow_may_be_silent():
    scene = Scene()
    first = scene.initial()
    joined(scene, backup=1)
    for n in range(20):
        first.data(200 + 100 * n, True, n * 10_000, 10_000)
        first.dack(201 + 100 * n, True, n * 10_000 + 10_000)
    assert found(scene).empty


def test_many_findings_of_a_kind_are_counted():
    scene = Scene()
    line = scene.initial()
    for number in range(40):
        line.send(20 + number, False, options=mp_fail(number))
    failures = texts(scene, "mp-fail")
    assert len(failures) == MOST_OF_A_KIND + 1
    assert failures[-1] == "and 35 more of this kind."


def test_nothing_in_nothing():
    assert found(Scene()).empty


@pytest.mark.parametrize("flows", [4000])
def test_cost_is_linear_in_signalling(flows):
    """Four times the joins, removals, priorities and advertisements of one connection may not cost sixteen times."""

    def calls(count: int) -> int:
        scene = Scene()
        first = scene.initial()
        for number in range(count):
            line = scene.line(f"10.{2 + number // 65536}.{number // 256 % 256}.{number % 256}:1001")
            line.send(100 + number, True, "S", 0, options=join_syn(token(SERVER_KEY), number, number % 256))
            first.send(100.1 + number, True, options=prio(number % 2 == 0))
            first.send(100.2 + number, True, options=remove_addr(number % 256))
            first.send(100.3 + number, False, options=add_addr((SERVER_KEY, CLIENT_KEY), number % 256, "10.0.8.8"))
        core = reconstruct(scene.table())
        return count_calls(lambda: find(core))

    calls(10)  # compiles
    assert calls(flows) < 6 * calls(flows // 4)
