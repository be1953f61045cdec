"""How well runs repeat: spreads side by side, their verdicts, and the first event in which two runs differ."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import synthetic as syn
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ADDRESSES, CN, MONO0, WALL0, campaign_file, handover_scene, manifest, write_run

from analysis.__main__ import main
from analysis.differences import first_difference
from analysis.repeatability import MAIN, Row, _judge, compare_campaigns, numbers, tolerance_of
from analysis.results import Spread
from analysis.rundir import InputError, load_campaign, load_run

LOSS = [(5.0, "carrier-loss", "mn-wlan")]
VIRTUAL = {"flavour": "virtual-time", "kernel": "6.1", "qemu": "7.2", "cpu_busy": 0.3, "cpu_limited": False}


def run(folder, name, gap_s=0.4, change=None, **more):
    """A run with a gap of a known length. `change` gets the scene before it is written."""
    scene = handover_scene(gap_s, end_s=7.0)
    if change:
        change(scene)
    description = manifest(name, "mptcp", "mptcp", "carrier-loss", LOSS, 7.0, **more)
    return write_run(folder / name, scene, description)


def campaign(folder, name, gaps_s, **more):
    """A campaign with a repetition for each gap."""
    runs = [f"{name}-r{k}" for k in range(len(gaps_s))]
    for k, gap_s in enumerate(gaps_s):
        run(folder, runs[k], gap_s, repetition=k, campaign=name, **more)
    path = campaign_file(folder, runs, ["mptcp"], ["carrier-loss"], campaign=name, repetitions=len(runs), busy_processes=2)
    return path.rename(folder / f"{name}.json")


def compared(*paths):
    return compare_campaigns(*(load_campaign(path) for path in paths))


def row(found, metric="gap_ms") -> Row:
    return next(r for r in found.rows if r.metric == metric)


# --- the comparison ---


@pytest.fixture
def pair(tmp_path):
    """A native campaign whose gaps differ by 100 ms, and one in the guest that repeats itself."""
    return campaign(tmp_path, "a", [0.3, 0.4]), campaign(tmp_path, "b", [0.4, 0.4], guest=VIRTUAL)


def test_guest_is_judged_by_the_native_runs_in_either_order(pair):
    for paths in (pair, pair[::-1]):
        found = compared(*paths)
        assert (found.reference.name, found.judged.name, found.verdict) == ("native", "guest", "holds")
        gap = row(found)
        assert gap.reference.width == pytest.approx(100, abs=1)
        assert (gap.judged.width, gap.ratio, gap.tolerance) == (0, 0, pytest.approx(4, abs=0.1))
        assert (found.compared, found.deviations) == (1, ())
    names = [r.metric for r in found.rows]
    assert names[0] == "gap_ms"
    assert {"goodput_mbit", "bytes_per_path.wlan", "stream.handovers.0.recovery_ms", "survived", "events_s.0"} <= set(names)
    assert not [name for name in names if name.startswith(("schema", "seed", "subflows", "repetition"))]


def test_spread_above_the_tolerance_fails(tmp_path):
    found = compared(campaign(tmp_path, "a", [0.1, 0.9]), campaign(tmp_path, "b", [0.4, 0.41], guest=VIRTUAL))
    assert (row(found).verdict, row(found).reason) == ("fails", "the spread is larger than the tolerance")
    assert found.verdict == "fails"
    assert "carrier-loss" not in found.deviations[0].difference.text()
    assert found.deviations[0].first.run_id == "b-r0"


def judge(before, after, name="gap_ms", judged=True):
    runs = [SimpleNamespace(judged=judged, why_not="lost packets") for _ in range(after.count)]
    return _judge(name, before, after, tolerance_of(name, after), runs)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((10, 20), (30.0, 31.0), "holds"),  # 1 ms, a tenth of 10 ms
        ((10, 19), (30.0, 31.0), "fails"),  # more than a tenth
        ((10, 90), (30.0, 31.1), "fails"),  # more than 1 ms and than 1 %
        ((10, 90), (1000.0, 1008.0), "holds"),  # 0.8 %
        ((10, 10), (30.0, 30.0), "holds"),
        ((10,), (30.0, 30.0), "not judged"),
        ((10, 90), (30.0,), "not judged"),
    ],
)
def test_verdict_on_a_gap(before, after, verdict):
    assert judge(Spread(before), Spread(after))[0] == verdict


def test_other_metrics_have_only_the_tolerance():
    assert judge(Spread((5, 5)), Spread((100.0, 101.0)), "goodput_mbit")[0] == "holds"
    assert judge(Spread((5, 5)), Spread((100.0, 101.1)), "goodput_mbit")[0] == "fails"
    assert judge(Spread((5, 5)), Spread((0, 1)), "retransmitted_bytes")[0] == "fails"
    assert judge(Spread((5, 5)), Spread((5.0, 5.0009)), "gap_start_s")[0] == "holds"


def test_runs_that_are_no_measurement_are_not_judged():
    verdict, reason = judge(Spread((1, 9)), Spread((3, 3)), judged=False)
    assert (verdict, reason) == ("not judged", "0 of 2 runs judged: lost packets")


def test_repetitions_of_which_one_did_not_recover_do_not_repeat():
    mixed = Spread((400.0,), (30_000.0,))
    assert mixed.width == math.inf
    assert judge(Spread((1, 900)), mixed)[0] == "fails"
    assert judge(mixed, Spread((3, 3)))[0] == "holds"
    never = Spread((), (30_000.0, 30_000.2))
    assert (never.width, judge(mixed, never)[0]) == (pytest.approx(0.2), "holds")


def test_a_figure_that_one_repetition_lacks_does_not_repeat():
    runs = [SimpleNamespace(judged=True) for _ in range(3)]
    assert _judge("x_ms", Spread((1, 2)), Spread((3, 3)), 1.0, runs) == ("fails", "2 of 3 runs have it")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
def test_spread_does_not_depend_on_the_order(values):
    assert Spread(tuple(values)).width == Spread(tuple(values[::-1])).width == max(values) - min(values)


def test_numbers_of_nested_metrics():
    metrics = {"schema": 1, "a": {"b": 2, "none": None, "text": "x"}, "list": [{"c": 3.5}, 4], "yes": True, "seed": 7}
    assert numbers(metrics) == {"a.b": 2, "list.0.c": 3.5, "list.1": 4, "yes": 1}
    assert MAIN[0] == "gap_ms"


def test_campaigns_without_a_common_combination_are_refused(tmp_path):
    native = campaign(tmp_path, "a", [0.3, 0.4])
    other = campaign_file(tmp_path, [], ["tcp"], ["carrier-loss"])
    with pytest.raises(InputError, match=r"a\.json.*no scenario, mechanism and workload has figures in both"):
        compared(native, other)


def test_command_prints_json_table_and_page(pair, tmp_path, capsys):
    page = tmp_path / "new" / "page.md"
    assert main(["repeatability", *map(str, pair), "--json", "--markdown", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [side["name"] for side in told["sides"]] == ["native", "guest"]
    assert told["rows"][0]["judged"]["spread"] == 0
    assert len(told["rows"]) > 50
    text = page.read_text()
    assert "| carrier-loss · mptcp | gap_ms | 350 | 100 | 400 | 0 | 0 | 4 | holds |" in text
    assert "2 repetitions with seed 1, beside 2 processes that keep the processors busy" in text
    assert "Every packet, event and decision is the same" in text
    assert main(["repeatability", *map(str, pair)]) == 0
    short = capsys.readouterr().out
    assert main(["repeatability", *map(str, pair), "--all-metrics"]) == 0
    assert "stream.efficiency" in capsys.readouterr().out
    assert "stream.efficiency" not in short


def test_command_fails_and_names_the_first_difference(tmp_path, capsys):
    native, guest = campaign(tmp_path, "a", [0.1, 0.9]), campaign(tmp_path, "b", [0.4, 0.45], guest=VIRTUAL)
    assert main(["repeatability", str(native), str(guest)]) == 1
    assert "b-r0 and b-r1: pcap/" in " ".join(capsys.readouterr().out.split())


def test_packets_in_real_time_and_of_different_seeds_are_not_compared(tmp_path):
    native, guest = campaign(tmp_path, "a", [0.3, 0.4]), campaign(tmp_path, "b", [0.4, 0.4], guest=VIRTUAL)
    manifest_path = tmp_path / "b-r1" / "manifest.json"
    manifest_path.write_text(json.dumps(json.loads(manifest_path.read_text()) | {"seed": 2}))
    found = compared(native, guest)
    assert (found.compared, found.judged.seeds) == (0, (1, 2))
    real = campaign(tmp_path, "c", [0.4, 0.4], guest=VIRTUAL | {"flavour": "tcg"})
    assert compared(native, real).compared == 0


# --- the first difference ---


def two_runs(tmp_path, change=None):
    return load_run(run(tmp_path, "one")), load_run(run(tmp_path, "two", change=change))


def test_same_runs_do_not_differ(tmp_path):
    assert first_difference(*two_runs(tmp_path)) is None


def test_a_shift_of_all_clocks_is_no_difference(tmp_path):
    """Runs that started at other times of the machine's clocks are the same in scenario time."""
    first, second = two_runs(tmp_path)
    moved = 12_345
    scene = handover_scene(0.4, end_s=7.0)
    scene.records = {name: [(t + moved, frame) for t, frame in records] for name, records in scene.records.items()}
    more = {"t0_wall_ns": WALL0 + moved, "t0_mono_ns": MONO0 + moved}
    write_run(second.path, scene, manifest("two", "mptcp", "mptcp", "carrier-loss", LOSS, 7.0, **more))
    timeline = second.path / "timeline.jsonl"
    entry = json.loads(timeline.read_text())
    timeline.write_text(json.dumps(entry | {"mono_ns": entry["mono_ns"] + moved, "wall_ns": entry["wall_ns"] + moved}) + "\n")
    assert first_difference(first, load_run(second.path)) is None


def test_a_packet_with_another_number_is_named(tmp_path):
    def change(scene):
        at, frame = scene.records["mn-wlan"][7]
        old = bytearray(frame)
        old[14 + 20 + 4 + 3] += 1  # lowest byte of the TCP sequence number
        scene.records["mn-wlan"][7] = (at, bytes(old))

    found = first_difference(*two_runs(tmp_path, change))
    assert (found.file, found.what) == ("pcap/mn-mn-wlan.pcapng", "packet 8")
    sequence = [int(text.split("seq ")[1].split()[0]) for text in (found.first, found.second)]
    assert sequence[1] == sequence[0] + 1
    assert f"{CN}:5001 > {ADDRESSES['mn-wlan']}:40000" in found.first or f"{ADDRESSES['mn-wlan']}:40000 > " in found.first


def test_a_byte_that_no_column_shows_is_named(tmp_path):
    def change(scene):
        at, frame = scene.records["mn-wlan"][7]
        scene.records["mn-wlan"][7] = (at, b"\x0e" + frame[1:])

    found = first_difference(*two_runs(tmp_path, change))
    assert found.first.endswith("with 0x02 as byte 1 of the frame")
    assert found.second.endswith("with 0x0e as byte 1 of the frame")


def test_a_packet_a_nanosecond_later_is_named(tmp_path):
    def change(scene):
        at, frame = scene.records["cn-eth0"][20]
        scene.records["cn-eth0"][20] = (at + 1, frame)

    found = first_difference(*two_runs(tmp_path, change))
    assert found.file == "pcap/cn-cn-eth0.pcapng"
    assert found.first != found.second


def test_a_packet_too_many_is_named(tmp_path):
    def change(scene):
        scene.records["mn-lte"].append((WALL0 + 9_000_000_000, scene.records["mn-lte"][-1][1]))

    found = first_difference(*two_runs(tmp_path, change))
    assert (found.first, found.at_s) == ("nothing", pytest.approx(9.0))


def test_the_earliest_of_all_files_is_named(tmp_path):
    def change(scene):
        scene.records["mn-lte"].append((WALL0 + 9_000_000_000, scene.records["mn-lte"][-1][1]))

    first, second = two_runs(tmp_path, change)
    line = {"mono_ns": MONO0 + 2_000_000_000, "wall_ns": 1, "agent": "mn-netconf", "event": "lease", "interface": "mn-lte"}
    for run_, address in ((first, "10.2.0.100"), (second, "10.2.0.101")):
        (run_.path / "events" / "mn-netconf.jsonl").write_text(json.dumps(line | {"address": address}) + "\n")
    found = first_difference(first, second)
    assert (found.at_s, found.file, found.what) == (2.0, "events/mn-netconf.jsonl", "line 1")
    assert found.first == '2.000000000 s lease mn-lte (address "10.2.0.100")'


def test_files_that_cannot_be_read_are_named(tmp_path):
    first, second = two_runs(tmp_path)
    (second.path / "events" / "x.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"x\.jsonl: line 1"):
        first_difference(first, second)
    (second.path / "events" / "x.jsonl").unlink()
    (second.path / "pcap" / "cn-cn-eth0.pcapng").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cn-cn-eth0"):
        first_difference(first, second)


def test_a_run_that_used_too_much_of_the_guest_is_not_judged(tmp_path):
    def metrics(name, **guest):
        return syn.evaluate(load_run(run(tmp_path, name, guest=VIRTUAL | guest)))[0]

    assert metrics("fine", cpu_busy=0.7)["judged"]
    found = metrics("busy", cpu_busy=0.834, cpu_limited=True)
    assert (found["judged"], found["verdict"]) == (False, "not judged")
    assert found["why_not"].startswith("cpu-limited: the run used 83% of the guest's CPU")
    assert "lower the links' rates" in found["why_not"]
