"""Run directories with known answers -> metrics and the reasons not to judge."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import synthetic as syn
from synthetic import MONO0, WALL0, Scene, Subflow, dying_scene, handover_scene, manifest, write_run

from analysis import gaps
from analysis.gaps import Gap, gaps_agree, jitter_ms
from analysis.metrics import evaluate, measure
from analysis.rundir import InputError, load_run

LOSS = [(5.0, "carrier-loss", "mn-wlan")]
OUTAGE = [(5.0, "blackhole-on", "mn-wlan"), (8.0, "blackhole-off", "mn-wlan")]


def run_metrics(folder, scene, events=LOSS, mechanism="mptcp", transport="mptcp", duration_s=12.0, change=None, **more):
    description = manifest("r1", mechanism, transport, "carrier-loss", events, duration_s)
    if change:
        change(description)
    path = write_run(folder / "r1", scene, description, **more)
    return evaluate(load_run(path))[0]


longest_gap, phase_rates = (partial(f, recovery_s=30.0) for f in (gaps.longest_gap, gaps.phase_rates))


# --- the gap itself ---


def arrivals(*spans, step=0.01):
    return np.concatenate([np.arange(a, b, step) for a, b in spans])


def test_gap_is_the_longest_silence_in_the_window():
    times = arrivals((0.0, 1.0), (2.5, 5.0), (5.4, 9.0))  # the silence from 1 s on is before the window
    gap = longest_gap(times, [5.0], True, 10.0)
    assert gap.gap_ms == pytest.approx(410, abs=1)
    assert gap.start_s == pytest.approx(4.99)


def test_silence_that_begins_before_the_window_counts_from_its_edge():
    gap = longest_gap(arrivals((0.0, 3.0), (4.6, 9.0)), [5.0], True, 9.0)
    assert (gap.start_s, gap.gap_ms) == (4.0, pytest.approx(600, abs=1))


def test_unrecovered_gap_has_no_number():
    assert longest_gap(arrivals((0.0, 5.0)), [5.0], False, 40.0) == Gap(None, pytest.approx(30010, abs=1), pytest.approx(4.99))
    assert longest_gap(arrivals((0.0, 5.005)), [5.0], False, 40.0).at_least_ms == pytest.approx(30000, abs=1)
    assert longest_gap(arrivals((0.0, 5.0)), [5.0], False, 20.0).at_least_ms == pytest.approx(15010, abs=1)


def test_packets_still_under_way_at_the_event_are_no_recovery():
    gap = longest_gap(arrivals((0.0, 5.03)), [5.0], False, 40.0)
    assert gap.gap_ms is None
    assert gap.at_least_ms == pytest.approx(30000, abs=1)


def test_recovery_after_the_limit_is_none():
    assert longest_gap(arrivals((0.0, 5.0), (36.0, 40.0)), [5.0], True, 40.0).gap_ms is None


def test_a_later_stall_of_an_unfinished_transfer_counts():
    assert longest_gap(arrivals((0.0, 5.0), (5.5, 7.0)), [5.0], False, 30.0).at_least_ms == pytest.approx(23010, abs=1)
    assert longest_gap(arrivals((0.0, 5.0), (5.5, 7.0)), [5.0], True, 30.0).gap_ms == pytest.approx(510, abs=1)


def test_long_transfers_are_not_open_ended():
    assert longest_gap(arrivals((0.0, 5.0), (5.2, 60.0)), [5.0], False, 60.0).gap_ms == pytest.approx(210, abs=1)


def test_without_events_the_first_second_is_left_out():
    gap = longest_gap(arrivals((0.0, 0.1), (0.9, 4.0), (4.3, 6.0)), [], True, 6.0)
    assert gap.gap_ms == pytest.approx(310, abs=1)


def test_nothing_at_all():
    assert longest_gap(np.zeros(0), [5.0], False, 9.0) == Gap(None, None, None)


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [(100, 119, True), (100, 121, False), (2000, 2090, True), (2000, 2120, False), (None, None, True), (None, 100, False)],
)
def test_tolerance(first, second, agree):
    assert gaps_agree(Gap(first, None, 0), Gap(second, None, 0)) is agree


def test_rates_before_during_after():
    times = arrivals((0.0, 4.0), (6.0, 8.0), step=0.1)
    totals = np.arange(1, times.size + 1) * 1000
    rates = phase_rates(times, totals, [4.0, 6.0], True, 9.0)
    assert rates["goodput_before_mbit"] == pytest.approx(0.08, rel=0.05)
    assert rates["goodput_during_mbit"] == pytest.approx(0.0, abs=0.01)
    assert rates["goodput_after_mbit"] == pytest.approx(0.08, rel=0.06)


def test_jitter_of_rfc3550():
    sent = np.arange(5) * 0.02
    assert jitter_ms(sent, sent + 0.1) == pytest.approx((0.0, 0.0), abs=1e-9)
    last, highest = jitter_ms(sent, sent + np.array([0.1, 0.116, 0.116, 0.116, 0.116]))
    assert highest == pytest.approx(1.0)
    assert last == pytest.approx(1.0 * (15 / 16) ** 3)


# --- bulk ---


def test_handover_to_another_subflow(tmp_path):
    m = run_metrics(tmp_path, handover_scene(0.4))
    assert (m["verdict"], m["judged"], m["survived"], m["hash_ok"]) == ("survived", True, True, True)
    assert m["gap_ms"] == pytest.approx(400, abs=1)
    assert m["agreement"]["gap_capture_ms"] == pytest.approx(400, abs=1)
    assert m["bytes_per_path"]["wlan"] + m["bytes_per_path"]["lte"] == m["bytes_total"]
    assert m["retransmitted_bytes"] == syn.SEGMENT
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
    assert "transport on the wire is tcp, declared is mptcp (MP_CAPABLE was not accepted)" in m["why_not"]


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


# --- other workloads ---


def samples_run(folder, kind, sent, received, scene=None, events=LOSS, change=None, complete=True):
    description = manifest("r1", "tcp", "tcp", "carrier-loss", events, 12.0)
    description["workload"]["kind"] = kind
    description["workload"]["parameters"]["response_bytes"] = 200
    if change:
        change(description)
    scene = scene or Scene(mptcp=False)
    if kind == "voice":
        for at_s in received:
            if at_s is not None:
                scene.records["mn-wlan"].append((WALL0 + round(at_s * 1e9), syn.udp(syn.CN, 9, "10.1.0.100", 7000, 160)))
    path = write_run(folder / "r1", scene, description, progress=[], complete=complete)
    rows = [
        f"{i},{MONO0 + round(s * 1e9)},{'' if r is None else MONO0 + round(r * 1e9)}"
        for i, (s, r) in enumerate(zip(sent, received, strict=True))
    ]
    (path / "workload" / "samples.csv").write_text("seq,sent_mono_ns,received_mono_ns\n" + "\n".join(rows) + "\n")
    (path / "workload" / "progress.csv").unlink()
    return evaluate(load_run(path))[0]


def test_voice(tmp_path):
    sent = (np.arange(400) * 0.02 + 1.0).tolist()
    received = [None if 5.0 <= s < 5.5 else s + 0.03 for s in sent]
    m = samples_run(tmp_path, "voice", sent, received)
    assert m["judged"], m["why_not"]
    assert m["voice"] == {"sent": 400, "received": 375, "loss": 0.0625, "jitter_ms": 0.0, "jitter_max_ms": 0.0}
    assert m["gap_ms"] == pytest.approx(520, abs=1)
    assert m["bytes_per_path"]["wlan"] == 375 * 160
    assert m["survived"]


def test_voice_that_stays_away(tmp_path):
    sent = (np.arange(1000) * 0.02 + 1.0).tolist()
    m = samples_run(tmp_path, "voice", sent, [None if s >= 5.0 else s + 0.01 for s in sent])
    assert (m["survived"], m["gap_ms"]) == (False, None)
    assert m["verdict"] == "broken"


def test_request_response(tmp_path):
    scene = Scene(mptcp=False)
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    sent = (np.arange(90) * 0.1 + 0.5).tolist()
    received = [max(s + 0.04, 5.9 if s >= 4.99 else 0.0) + i * 1e-6 for i, s in enumerate(sent)]  # one answer holds up all
    for index, at_s in enumerate(received):
        scene.data(flow, at_s, 200, 200 * index)
    m = samples_run(tmp_path, "rpc", sent, received, scene)
    assert m["agreement"]["total_application"] == m["agreement"]["total_capture"] == 90 * 200
    assert m["rpc"]["requests"] == m["rpc"]["answered"] == 90
    assert m["rpc"]["latency_p50_ms"] == pytest.approx(40, abs=0.1)
    assert m["rpc"]["latency_max_ms"] == pytest.approx(900, abs=0.1)
    assert m["rpc"]["longest_stall_ms"] == pytest.approx(960, abs=0.1)
    assert m["judged"], m["why_not"]


def rpc_run(folder, answers, on_the_wire, complete=True, **more):
    """Answers of 200 bytes every 100 ms; the application counts `answers` of the `on_the_wire` bytes."""
    scene = Scene(mptcp=False)
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    times = [0.54 + 0.1 * index for index in range(answers)]
    for index in range(-(-on_the_wire // 200)):
        size = min(200, on_the_wire - 200 * index)
        scene.data(flow, (times[index] if index < answers else times[-1] + 0.001), size, 200 * index)
    return samples_run(folder, "rpc", [t - 0.04 for t in times], times, scene, complete=complete, **more)


@pytest.mark.parametrize(
    ("answers", "on_the_wire", "complete", "judged"),
    [
        (90, 18000, True, True), (90, 18200, True, False), (90, 17800, True, False),
        (40, 8000, False, True), (40, 8150, False, True), (40, 7800, False, False),
    ],
)  # fmt: skip
def test_answers_must_be_as_many_bytes_as_the_captures_show(tmp_path, answers, on_the_wire, complete, judged):
    m = rpc_run(tmp_path, answers, on_the_wire, complete)
    assert m["judged"] is judged, m["why_not"]
    if not judged:
        assert f"the application counted {answers * 200}, the captures {on_the_wire} of its data" in m["why_not"]


def test_answers_of_unknown_size_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json: workload\.parameters\.response_bytes is None"):
        rpc_run(tmp_path, 90, 18000, change=lambda d: d["workload"]["parameters"].pop("response_bytes"))


def test_answers_always_come_down(tmp_path):
    assert rpc_run(tmp_path, 90, 18000, change=lambda d: d["workload"].update(direction="up"))["judged"]


def voice_run(folder, change=None):
    sent = (np.arange(400) * 0.02 + 1.0).tolist()
    return samples_run(folder, "voice", sent, [s + 0.03 for s in sent], change=change)


def test_udp_is_not_compared_with_the_transport_of_tcp_sockets(tmp_path):
    m = voice_run(tmp_path)
    assert (m["agreement"]["transport_declared"], m["agreement"]["transport_seen"]) == ("udp", "udp")


@pytest.mark.parametrize("named", [True, False])
def test_udp_says_nothing_about_mptcp(tmp_path, named):
    def change(manifest):
        manifest["mechanism"] = {"name": "mptcp", "label": "MPTCP", "transport": "mptcp"}
        if named:
            manifest["workload"]["transport"] = "udp"

    m = voice_run(tmp_path, change)
    assert (m["verdict"], m["why_not"]) == ("not judged", "the workload is UDP, which MPTCP does not carry")


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


# --- crashed nodes ---

CRASH = [(5.0, "node-crash", "mn"), (8.0, "node-restart", "mn")]


@pytest.mark.parametrize("missing", [("receiver.json", "progress.csv"), ("receiver.json",), ("progress.csv",)])
def test_a_receiver_that_crashed_did_not_survive(tmp_path, missing):
    for events, folder in ((CRASH, tmp_path / "crash"), (OUTAGE, tmp_path / "other")):
        run_metrics(folder, dying_scene(mptcp=True), events, duration_s=40.0, complete=False)
        for name in missing:
            (folder / "r1" / "workload" / name).unlink()
    m, series = evaluate(load_run(tmp_path / "crash" / "r1"))
    assert (m["verdict"], m["survived"], m["hash_ok"]) == ("broken", False, False), m["why_not"]
    assert m["remark"] == "no record of the receiver"
    assert m["gap_ms"] is None
    assert m["gap_at_least_ms"] == pytest.approx(33000, abs=10)
    assert m["bytes_per_path"]["wlan"] > 0
    assert series is not None
    m = evaluate(load_run(tmp_path / "other" / "r1"))[0]
    assert m["verdict"] == "not judged"
    assert m["why_not"] == "; ".join(f"workload/{name}: missing" for name in missing)


def test_a_sender_that_crashed_leaves_the_receivers_record(tmp_path):
    for events, folder in (([(5.0, "node-crash", "cn")], tmp_path / "crash"), (LOSS, tmp_path / "other")):
        run_metrics(folder, dying_scene(mptcp=True), events, duration_s=40.0, complete=False)
        (folder / "r1" / "workload" / "sender.json").unlink()
    m = evaluate(load_run(tmp_path / "crash" / "r1"))[0]
    assert (m["verdict"], m["remark"], m["agreement"]["ok"]) == ("broken", "no record of the sender", True)
    assert evaluate(load_run(tmp_path / "other" / "r1"))[0]["why_not"] == "workload/sender.json: missing"


@pytest.mark.parametrize(("kind", "file"), [("voice", "samples.csv"), ("rpc", "samples.csv"), ("rpc", "receiver.json")])
def test_other_receivers_that_crashed(tmp_path, kind, file):
    for events, folder in ((CRASH, tmp_path / "crash"), (OUTAGE, tmp_path / "other")):
        times = (np.arange(500) * 0.02 + 0.951).tolist()  # the network brings datagrams to a dead host as well
        samples_run(folder, kind, times, times, dying_scene(), events)
        (folder / "r1" / "workload" / file).unlink()
    m = evaluate(load_run(tmp_path / "crash" / "r1"))[0]
    assert (m["verdict"], m["survived"], m["remark"]) == ("broken", False, "no record of the receiver"), m["why_not"]
    assert (m["gap_ms"], m["gap_at_least_ms"]) == (None, pytest.approx(9010, abs=10))  # watched until 14 s
    m = evaluate(load_run(tmp_path / "other" / "r1"))[0]
    assert (m["verdict"], m["why_not"]) == ("not judged", f"workload/{file}: missing")


def test_loss_is_unknown_without_the_talkers_record(tmp_path):
    times = (np.arange(200) * 0.02 + 0.95).tolist()
    samples_run(tmp_path, "voice", times, times, events=[(4.9, "node-crash", "cn")])
    (tmp_path / "r1" / "workload" / "sender.json").unlink()
    m = evaluate(load_run(tmp_path / "r1"))[0]
    assert (m["voice"]["loss"], m["voice"]["sent"], m["remark"]) == (None, None, "no record of the sender")


def iperf_run(folder, scene, report):
    description = manifest("r1", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0)
    description["workload"]["kind"] = "iperf3"
    path = write_run(folder / "r1", scene, description)
    for name in ("progress.csv", "receiver.json", "sender.json"):
        (path / "workload" / name).unlink()
    (path / "workload" / "iperf3.json").write_text(json.dumps(report))
    return evaluate(load_run(path))[0]


def test_iperf3(tmp_path):
    scene = handover_scene(0.4)
    total = scene.progress()[-1][1]
    m = iperf_run(tmp_path, scene, {"start": {}, "end": {"sum_received": {"bytes": total - 37}}})
    assert (m["judged"], m["survived"]) == (True, True)
    assert m["gap_ms"] == pytest.approx(400, abs=1)


def test_iperf3_must_have_received_what_the_captures_show(tmp_path):
    m = iperf_run(tmp_path, handover_scene(0.4), {"start": {}, "end": {"sum_received": {"bytes": 1000}}})
    assert m["why_not"].startswith("the application counted 1000, the captures 5701250")


def test_iperf3_with_an_error(tmp_path):
    m = iperf_run(tmp_path, handover_scene(0.4), {"start": {}, "end": {}, "error": "control socket has closed"})
    assert (m["survived"], m["error"]) == (False, "control socket has closed")


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


@pytest.mark.parametrize(("late_us", "judged"), [(3749, True), (3751, False)])
def test_lateness_is_measured_against_the_shortest_delay(tmp_path, late_us, judged):
    def change(manifest):
        manifest["relay"]["late_p99_us"] = late_us
        manifest["paths"][0]["profile"] = {"delay_ms": 15.0}
        manifest["paths"][1]["profile"] = {"delay_ms": 35.0}

    assert run_metrics(tmp_path, handover_scene(0.4), change=change)["judged"] is judged


def test_iperf3_may_end_with_data_under_way(tmp_path):
    scene = handover_scene(0.4)
    total = scene.progress()[-1][1]
    ends = {"sum_received": {"bytes": total - 700_000}, "sum_sent": {"bytes": total + 300_000}}
    assert iperf_run(tmp_path / "a", scene, {"start": {}, "end": ends})["agreement"]["ok"] is True
    ends["sum_sent"]["bytes"] = total - 500_000
    assert iperf_run(tmp_path / "b", scene, {"start": {}, "end": ends})["agreement"]["ok"] is False
