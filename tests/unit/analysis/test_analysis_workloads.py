"""Workloads other than the bulk stream, and programs that died with their node."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic as syn
from synthetic import LOSS, MONO0, OUTAGE, WALL0, Scene, Subflow, dying_scene, handover_scene, manifest, run_metrics, write_run

from analysis.metrics import evaluate
from analysis.rundir import InputError, load_run


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


def test_iperf3_may_end_with_data_under_way(tmp_path):
    scene = handover_scene(0.4)
    total = scene.progress()[-1][1]
    ends = {"sum_received": {"bytes": total - 700_000}, "sum_sent": {"bytes": total + 300_000}}
    assert iperf_run(tmp_path / "a", scene, {"start": {}, "end": ends})["agreement"]["ok"] is True
    ends["sum_sent"]["bytes"] = total - 500_000
    assert iperf_run(tmp_path / "b", scene, {"start": {}, "end": ends})["agreement"]["ok"] is False


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
