"""Several flows at once: each has its own figures and paths, and the run is as good as its worst flow."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic as syn
from synthetic import LOSS, MONO0, WALL0, campaign_file, claim, handover_scene, manifest, write_run

from analysis.__main__ import main
from analysis.measures.ways import phases_of
from analysis.metrics import evaluate
from analysis.rundir import InputError, load_run


def mixed_run(folder, *, voice_until_s=12.0, sent=550, change=None):
    """A download from port 5001 with a gap of 400 ms, and a call from port 5004 that moves from WLAN to LTE at 5 s."""
    scene = handover_scene(0.4, mptcp=False)
    times = [1.0 + 0.02 * number for number in range(sent)]
    heard = [at_s for at_s in times if at_s < voice_until_s]
    for at_s in heard:
        device = "mn-wlan" if at_s < 5.0 else "mn-lte"
        packet = syn.udp(syn.CN, 5004, "10.1.0.100", 7000, 172)
        scene.records[device].append((WALL0 + round(at_s * 1e9), packet))
    description = manifest("r1", "mip4", "tcp", "carrier-loss", LOSS, 12.0)
    description["workload"]["kind"] = "mix"
    path = write_run(folder / "r1", scene, description)
    bulk, voice = path / "workload" / "bulk-1", path / "workload" / "voice-1"
    for part in (bulk, voice):
        part.mkdir()
    for name in ("progress.csv", "sender.json", "receiver.json"):
        (path / "workload" / name).rename(bulk / name)
    rows = [
        f"{number},{MONO0 + round(at_s * 1e9)},{MONO0 + round(at_s * 1e9) if at_s in heard else ''}"
        for number, at_s in enumerate(times)
    ]
    (voice / "samples.csv").write_text("seq,sent_mono_ns,received_mono_ns\n" + "\n".join(rows) + "\n")
    (voice / "sender.json").write_text(json.dumps({"role": "sender", "packets": sent}))
    flows = [
        {"name": "bulk-1", "kind": "bulk", "transport": "tcp", "port": 5001, "parameters": {}},
        {"name": "voice-1", "kind": "voice", "transport": "udp", "port": 5004, "parameters": {}},
    ]
    (path / "workload" / "flows.json").write_text(json.dumps({"flows": flows}))
    if change:
        change(path)
    return path


def test_every_flow_is_measured_alone_and_the_run_is_its_worst_flow(tmp_path):
    metrics, series = evaluate(load_run(mixed_run(tmp_path)))
    assert metrics["judged"], metrics["why_not"]
    bulk, voice = metrics["flows"]["bulk-1"], metrics["flows"]["voice-1"]
    assert bulk["gap_ms"] == pytest.approx(400, abs=3)
    assert voice["gap_ms"] == pytest.approx(20, abs=1)
    assert voice["voice"]["loss"] == 0
    assert metrics["gap_ms"] == bulk["gap_ms"]
    assert metrics["survived"]
    assert metrics["goodput_mbit"] == bulk["goodput_mbit"]
    assert (
        metrics["bytes_per_path"]["lte"] == voice["bytes_per_path"]["lte"] == 172 * sum(1.0 + 0.02 * n >= 5 for n in range(550))
    )
    before, after = voice["phases"]
    assert (before["down"]["wlan"], after["down"]["lte"]) == (1.0, 1.0)
    assert after["settled"]["down"] == {"wlan": 0.0, "lte": 1.0}
    assert bulk["phases"][1]["up"]["wlan"] == 1.0
    assert bulk["phases"][0]["tunnelled_share"] == 0.0
    assert series is not None
    assert sum(series.paths["lte"]) > 0
    assert series.totals[-1] == bulk["bytes_total"]


def test_a_flow_that_dies_breaks_the_run(tmp_path):
    metrics, _ = evaluate(load_run(mixed_run(tmp_path, voice_until_s=5.0)))
    assert not metrics["survived"]
    assert metrics["gap_ms"] is None
    assert metrics["flows"]["bulk-1"]["survived"]


def test_a_missing_record_is_named_with_its_flow(tmp_path):
    path = mixed_run(tmp_path, change=lambda path: (path / "workload" / "voice-1" / "samples.csv").unlink())
    metrics, _ = evaluate(load_run(path))
    assert not metrics["judged"]
    assert "voice-1/samples.csv: missing" in metrics["why_not"]


def test_a_disagreement_names_the_flow(tmp_path):
    metrics, _ = evaluate(load_run(mixed_run(tmp_path, sent=500, change=lambda path: _say_less(path / "workload" / "voice-1"))))
    assert "voice-1: the application counted" in metrics["why_not"]
    assert not metrics["agreement"]["ok"]
    assert metrics["agreement"]["flows"]["bulk-1"]["ok"]


def _say_less(folder):
    lines = (folder / "samples.csv").read_text().splitlines()
    (folder / "samples.csv").write_text("\n".join(lines[:-50]) + "\n")


@pytest.mark.parametrize("text", ["[]", '{"flows": [{"name": "x"}]}', '{"flows": 3}'])
def test_a_wrong_list_of_flows_is_named(tmp_path, text):
    path = mixed_run(tmp_path, change=lambda path: (path / "workload" / "flows.json").write_text(text))
    with pytest.raises(InputError, match=r"flows\.json"):
        evaluate(load_run(path))


def test_the_report_shows_such_a_run_and_claims_reach_into_flows_and_phases(tmp_path, capsys):
    (tmp_path / "c").mkdir()
    mixed_run(tmp_path / "c")
    claims = [
        claim(id="lte", metric="flows.voice-1.phases.1.down.lte", op=">=", value=1.0, unit="", mechanisms=["mip4"]),
        claim(id="gap", metric="flows.bulk-1.gap_ms", op="<=", value=100.0, mechanisms=["mip4"]),
    ]
    campaign = campaign_file(tmp_path / "c", ["r1"], ["mip4"], ["carrier-loss"], claims)
    main(["report", str(campaign), "--json"])
    verdicts = {row["id"]: row["verdict"] for row in json.loads(capsys.readouterr().out)["claims"]}
    assert verdicts == {"lte": "holds", "gap": "fails"}
    assert "400" in campaign.with_suffix(".html").read_text()


def test_phases_count_packets_by_path_direction_and_half():
    times = np.array([0.5, 1.5, 2.5, 3.5, 3.6])
    towards = np.array([True, False, True, True, False])
    path = np.array([0, 0, 0, 1, 1])
    rows = phases_of(times, towards, path, ("wlan", "lte"), np.array([True, True, True, False, True]), [2.0], 4.0)
    assert [(row["begins_s"], row["ends_s"]) for row in rows] == [(0.0, 2.0), (2.0, 4.0)]
    assert rows[0]["packets_down"] == {"wlan": 1, "lte": 0}
    assert rows[0]["up"] == {"wlan": 1.0, "lte": 0.0}
    assert rows[1]["down"] == {"wlan": 0.5, "lte": 0.5}
    assert rows[1]["settled"]["down"] == {"wlan": 0.0, "lte": 1.0}
    assert rows[1]["tunnelled_share"] == pytest.approx(2 / 3, abs=1e-6)
    assert rows[0]["settled"]["down"] == {"wlan": None, "lte": None}


def test_phases_of_no_packets():
    nothing = np.zeros(0)
    rows = phases_of(nothing, nothing == 1, nothing.astype(int), ("wlan",), nothing == 1, [], 3.0)
    assert rows[0]["down"] == {"wlan": None}
    assert rows[0]["tunnelled_share"] is None
