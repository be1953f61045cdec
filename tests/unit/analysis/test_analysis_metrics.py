"""Run directories with known answers -> metrics and the reasons not to judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic as syn
from synthetic import LOSS, OUTAGE, Scene, Subflow, dying_scene, handover_scene, manifest, run_metrics, write_run

from analysis.metrics import evaluate, measure
from analysis.rundir import InputError, load_run

# --- bulk ---


def test_handover_to_another_subflow(tmp_path):
    m = run_metrics(tmp_path, handover_scene(0.4))
    assert (m["verdict"], m["judged"], m["survived"], m["hash_ok"]) == ("survived", True, True, True)
    assert m["gap_ms"] == pytest.approx(400, abs=1)
    assert m["agreement"]["gap_capture_ms"] == pytest.approx(400, abs=1)
    assert m["bytes_per_path"]["wlan"] + m["bytes_per_path"]["lte"] == m["bytes_total"]
    assert m["retransmitted_bytes"] == 0
    assert m["reinjected_bytes"] == syn.SEGMENT
    assert m["transport"] == "mptcp"
    assert m["goodput_before_mbit"] == pytest.approx(4.0, rel=0.02)
    assert m["goodput_during_mbit"] is None


def test_dead_connection(tmp_path):
    m = run_metrics(tmp_path, dying_scene(), mechanism="tcp", transport="tcp", duration_s=40.0, complete=False)
    assert (m["verdict"], m["judged"], m["survived"]) == ("broken", True, False)
    assert m["gap_ms"] is None
    assert m["gap_at_least_ms"] == pytest.approx(30000, abs=10)


def test_data_taken_but_not_acknowledged_before_the_end_is_no_disagreement(tmp_path):
    """Routes went first, then the address: for some ms the host took segments and could not answer them."""
    scene = dying_scene()
    wlan = Subflow("mn-wlan", 40000)
    position = sum(size for _, _, size in scene.arrivals)
    for index in range(7):
        offset = position + index * syn.SEGMENT
        frame = syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, wlan.server_isn + 1 + offset, 1, syn.ACK, syn.SEGMENT)
        scene.down(wlan, 5.001 + index / 1000, frame)
        scene.arrivals.append((5.001 + index / 1000, offset, syn.SEGMENT))
    m = run_metrics(tmp_path, scene, mechanism="tcp", transport="tcp", duration_s=40.0, complete=False)
    assert (m["judged"], m["verdict"]) == (True, "broken"), m["why_not"]
    assert m["agreement"]["total_application"] == m["agreement"]["total_capture"] + 7 * syn.SEGMENT


def test_two_events(tmp_path):
    m = run_metrics(tmp_path, handover_scene(3.5, mptcp=False), OUTAGE, "tcp", "tcp")
    assert m["judged"]
    assert m["gap_ms"] == pytest.approx(3500, abs=1)
    assert m["goodput_during_mbit"] == pytest.approx(0.0, abs=0.01)


def test_different_hashes_do_not_survive(tmp_path):
    run_metrics(tmp_path, handover_scene(0.4))
    path = tmp_path / "r1" / "workload" / "sender.json"
    path.write_text(path.read_text().replace("abab", "acab"))
    m = evaluate(load_run(tmp_path / "r1"))[0]
    assert (m["hash_ok"], m["survived"], m["verdict"]) == (False, False, "broken")


@pytest.mark.parametrize("shift_s", [0.015, 0.04])
def test_application_and_capture_must_tell_the_same_gap(tmp_path, shift_s):
    scene = handover_scene(0.4)
    rows = [(t + (shift_s if t > 5.0 else 0), n) for t, n in scene.progress()]
    m = run_metrics(tmp_path, scene, progress=rows)
    assert m["judged"] is (shift_s < 0.02)
    if shift_s > 0.02:
        assert "440 ms for the application but 400 ms in the captures" in m["why_not"]
        assert m["verdict"] == "not judged"


def test_bytes_must_agree(tmp_path):
    scene = handover_scene(0.4)
    rows = scene.progress()
    m = run_metrics(tmp_path, scene, progress=[*rows[:-1], (rows[-1][0], rows[-1][1] - 1)])
    assert not m["judged"]
    assert "the application counted" in m["why_not"]


def test_fallback_is_not_judged_as_mptcp(tmp_path):
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1, answer=False)
    for index in range(1000):
        scene.data(flow, 0.2 + index / 100, 1000, 1000 * index, bare=True)
    m = run_metrics(tmp_path, scene)
    assert not m["judged"]
    assert (
        "transport on the wire is tcp, declared is mptcp (fell back to TCP: the SYN/ACK carried no MP_CAPABLE)" in m["why_not"]
    )


def test_dropped_packets(tmp_path):
    m = run_metrics(tmp_path, handover_scene(0.4), dropped=3)
    assert (m["judged"], m["captures_complete"]) == (False, False)
    assert "captures lost packets (mn-mn-wlan 3" in m["why_not"]


def test_damaged_capture(tmp_path):
    run_metrics(tmp_path, handover_scene(0.4))
    path = tmp_path / "r1" / "pcap" / "cn-cn-eth0.pcapng"
    path.write_bytes(path.read_bytes()[:-50])
    m = evaluate(load_run(tmp_path / "r1"))[0]
    assert not m["captures_complete"]
    assert "pcap/cn-cn-eth0.pcapng: byte" in m["why_not"]


def test_missing_capture(tmp_path):
    run_metrics(tmp_path, handover_scene(0.4))
    (tmp_path / "r1" / "pcap" / "mn-mn-lte.pcapng").unlink()
    m = evaluate(load_run(tmp_path / "r1"))[0]
    assert not m["judged"]
    assert str(tmp_path) not in m["why_not"]


@pytest.mark.parametrize(("late_us", "judged"), [(999, True), (1001, False)])
def test_late_relay(tmp_path, late_us, judged):
    m = run_metrics(tmp_path, handover_scene(0.4), change=lambda d: d["relay"].update(late_p99_us=late_us))
    assert m["judged"] is judged


def test_no_relay_at_all_is_fine(tmp_path):
    assert run_metrics(tmp_path, handover_scene(0.4), change=lambda d: d.update(relay=None))["judged"]


def test_event_that_never_happened(tmp_path):
    run_metrics(tmp_path, handover_scene(0.4))
    (tmp_path / "r1" / "timeline.jsonl").write_text("")
    assert "0 of 1 planned events" in evaluate(load_run(tmp_path / "r1"))[0]["why_not"]


def test_transfer_that_ends_too_early(tmp_path):
    m = run_metrics(tmp_path, handover_scene(0.4, end_s=7.0), OUTAGE)
    assert "before the last event" in m["why_not"]


def test_stepped_clock(tmp_path):
    run_metrics(tmp_path, handover_scene(0.4))
    path = tmp_path / "r1" / "timeline.jsonl"
    line = json.loads(path.read_text())
    path.write_text(json.dumps(line | {"wall_ns": line["wall_ns"] + 10_000_000}) + "\n")
    assert "wall clock moved by 10.0 ms" in evaluate(load_run(tmp_path / "r1"))[0]["why_not"]


@pytest.mark.parametrize("state", ["failed", "unsupported", "interrupted"])
def test_states_that_are_no_measurement(tmp_path, state):
    m = run_metrics(tmp_path, Scene(), change=lambda d: d.update(state=state, reason="because"))
    assert (m["verdict"], m["judged"], m["why_not"]) == (state, False, "because")


def test_measure_writes_once_and_reads_back(tmp_path):
    path = write_run(tmp_path / "r1", handover_scene(0.4), manifest("r1", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0))
    metrics, series = measure(path)
    assert json.loads((path / "metrics.json").read_text()) == metrics
    assert sum(sum(rates) for rates in series.paths.values()) * 0.1 / 8 * 1e6 == pytest.approx(metrics["bytes_total"], rel=1e-3)
    assert series.gap == (pytest.approx(4.998), pytest.approx(5.398))
    (path / "pcap" / "mn-mn-lte.pcapng").unlink()
    assert measure(path) == (metrics, series)  # read, not computed again
    assert not measure(path, refresh=True)[0]["judged"]


def test_a_real_run_of_the_kernel_agrees_with_itself():
    """tests/pcaps/real-mptcp: 600 kB by the kernel's MPTCP with loss of carrier half-way."""
    run = load_run(Path(__file__).resolve().parents[2] / "pcaps" / "real-mptcp")
    m, series = evaluate(run)
    assert m["why_not"] is None
    assert m["survived"]
    assert m["bytes_total"] == m["agreement"]["total_capture"] == 600_000
    assert m["transport"] == "mptcp"
    assert len(m["subflows"]) == 2
    assert m["bytes_per_path"]["wlan"] > 100_000 < m["bytes_per_path"]["lte"]
    assert abs(m["agreement"]["gap_application_ms"] - m["agreement"]["gap_capture_ms"]) < 5
    assert 150 < m["gap_ms"] < 1000
    assert series is not None


# --- events and limits ---


@pytest.mark.parametrize(("late_ms", "word"), [(49, None), (51, "late"), (-51, "early")])
def test_events_happen_when_they_are_planned(tmp_path, late_ms, word):
    run_metrics(tmp_path, handover_scene(0.4))
    path = tmp_path / "r1" / "timeline.jsonl"
    line = json.loads(path.read_text())
    path.write_text(json.dumps(line | {"planned_s": line["planned_s"] - late_ms / 1e3}) + "\n")
    why = evaluate(load_run(tmp_path / "r1"))[0]["why_not"]
    assert why == (word and f"event carrier-loss mn-wlan was 51 ms {word}")


def test_a_planned_handover_is_two_entries_of_the_timeline(tmp_path):
    planned = [{"at_s": 3.0, "kind": "planned-handover", "target": "mn-wlan"},
               {"at_s": 5.0, "kind": "interface-down", "target": "mn-wlan"}]  # fmt: skip
    m = run_metrics(tmp_path, handover_scene(0.4), change=lambda d: d.update(timeline_planned=planned))
    assert m["why_not"] == "timeline.jsonl: 1 of 2 planned events were performed"
    assert run_metrics(tmp_path, handover_scene(0.4), change=lambda d: d.update(timeline_planned=planned[:1]))["judged"]


def test_the_recovery_limit_is_that_of_the_run(tmp_path):
    scene = handover_scene(3.0, mptcp=False)
    m = [
        run_metrics(tmp_path, scene, LOSS, "tcp", "tcp", change=lambda d, s=s: d.update(recovery_limit_s=s)) for s in (2.0, 4.0)
    ]
    assert [(x["survived"], x["gap_ms"] is None) for x in m] == [(False, True), (True, False)]
    assert all(x["judged"] for x in m)
    dead = run_metrics(
        tmp_path, dying_scene(), LOSS, "tcp", "tcp", 20.0, lambda d: d.update(recovery_limit_s=2.0), complete=False
    )
    assert dead["gap_at_least_ms"] == pytest.approx(2000, abs=10)


def lose(place, counter):
    def change(manifest):
        relay = manifest["relay"]
        emulated = dict.fromkeys(
            ("dropped_queue", "dropped_loss", "dropped_blackhole", "dropped_flushed", "dropped_carrier"), 9
        )
        relay["links"] = {"mn-wlan<->ar1-ap1": {"forward": {"dropped_send": 0, **emulated}, "back": {"dropped_memory": 0}}}
        relay["ports"] = {"mn:mn-wlan": {"ring_drops": 0, "oversize": 0, "checksums_completed": 5}}
        if counter:
            (relay["ports"]["mn:mn-wlan"] if place.startswith("port") else relay["links"]["mn-wlan<->ar1-ap1"]["back"])[
                counter
            ] = 3

    return change


@pytest.mark.parametrize(
    ("place", "counter"),
    [
        ("mn-wlan<->ar1-ap1 back", "dropped_send"), ("mn-wlan<->ar1-ap1 back", "dropped_memory"),
        ("port mn:mn-wlan", "ring_drops"), ("port mn:mn-wlan", "oversize"), ("", ""),
    ],
)  # fmt: skip
def test_packets_that_the_emulator_itself_lost(tmp_path, place, counter):
    m = run_metrics(tmp_path, handover_scene(0.4), change=lose(place, counter))
    assert m["why_not"] == (f"the link emulation lost packets of its own ({place} {counter} 3)" if counter else None)


@pytest.mark.parametrize(("late_us", "judged"), [(3749, True), (3751, False)])
def test_lateness_is_measured_against_the_shortest_delay(tmp_path, late_us, judged):
    def change(manifest):
        manifest["relay"]["late_p99_us"] = late_us
        manifest["paths"][0]["profile"] = {"delay_ms": 15.0}
        manifest["paths"][1]["profile"] = {"delay_ms": 35.0}

    assert run_metrics(tmp_path, handover_scene(0.4), change=change)["judged"] is judged


# --- bad input ---


def test_partial_folder_is_refused(tmp_path):
    (tmp_path / "r1.partial").mkdir()
    with pytest.raises(InputError, match="unfinished"):
        load_run(tmp_path / "r1.partial")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("state"), "manifest.json: state is missing: it must be text"),
        (lambda d: d.update(state="done"), "state is 'done': it must be one of"),
        (lambda d: d.update(schema=2), "schema is 2, this analysis reads 1"),
        (lambda d: d.update(seed="x"), 'seed is "x": it must be a whole number'),
        (lambda d: d["mechanism"].update(transport="sctp"), "mechanism.transport is 'sctp'"),
        (lambda d: d["workload"].update(direction="left"), "workload.direction is 'left'"),
        (lambda d: d["workload"].update(transport="sctp"), "workload.transport is 'sctp': it must be tcp or udp"),
        (lambda d: d["workload"].update(name=7), "workload.name is 7: it must be text"),
        (lambda d: d.update(recovery_limit_s=0), "recovery_limit_s is 0: it must be more than 0"),
        (lambda d: d.update(timeline_planned=3), "timeline_planned is 3: it must be a list"),
        (lambda d: d["captures"][0].update(file="../x"), "captures[0]: file '../x' leaves the run directory"),
        (lambda d: d["captures"].append(7), "captures[3]: file is missing"),
        (lambda d: d["scenario"].pop("events"), "scenario.events is missing"),
    ],
)
def test_bad_manifest_names_file_and_field(tmp_path, change, message):
    description = manifest("r1", "mptcp", "mptcp", "carrier-loss", LOSS)
    change(description)
    path = tmp_path / "r1"
    path.mkdir()
    (path / "timeline.jsonl").write_text("")
    (path / "manifest.json").write_text(json.dumps(description))
    with pytest.raises(InputError) as info:
        load_run(path)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("manifest.json", "{", "manifest.json: line 1"),
        ("manifest.json", "[]", "must be one JSON object"),
        ("timeline.jsonl", "{]\n", "timeline.jsonl: line 1"),
        ("timeline.jsonl", "{}\n", "timeline.jsonl: line 1: mono_ns is missing"),
        ("workload/progress.csv", "t,bytes\n1,2\n", "progress.csv: column t_mono_ns is missing"),
        ("workload/progress.csv", "t_mono_ns,bytes\n1,two\n", "column bytes holds something that is no number"),
        ("workload/progress.csv", "", "progress.csv: "),
        ("workload/receiver.json", "nope", "receiver.json: line 1"),
    ],
)
def test_bad_files_name_file_and_place(tmp_path, file, text, message):
    path = write_run(tmp_path / "r1", handover_scene(0.4), manifest("r1", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0))
    (path / file).write_text(text)
    with pytest.raises(InputError) as info:
        evaluate(load_run(path))
    assert message in str(info.value)
    assert "\n" not in str(info.value)
