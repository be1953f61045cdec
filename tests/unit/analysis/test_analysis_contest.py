"""Shares of a bottleneck: the window that counts, rates in it, and flows that are not the mechanism's on the wire."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic as syn

from analysis.contest import SETTLE_S, contest_facts
from analysis.metrics import evaluate
from analysis.rundir import InputError, load_run
from analysis.series import Series


def flow(rate_mbit: float, begin_s: float = 0.0, end_s: float = 20.0, early_mbit: float | None = None) -> Series:
    """A flow at a constant rate; `early_mbit`: another one in its first 5 s."""
    times_s = np.arange(begin_s, end_s + 0.05, 0.1)
    rates = np.where(times_s < begin_s + SETTLE_S, rate_mbit if early_mbit is None else early_mbit, rate_mbit)
    totals = np.cumsum(rates * 1e6 / 8 * 0.1)
    return Series(begin_s, end_s, {}, times_s.tolist(), [int(v) for v in totals], "bytes", None, [])


def test_share_and_ratio_in_the_time_that_all_have_in_common():
    found = contest_facts({"first": flow(6.0), "plain-1": flow(2.0, begin_s=1.0), "plain-2": flow(4.0, end_s=15.0)})["contest"]
    assert (found["begin_s"], found["end_s"]) == (pytest.approx(1.0 + SETTLE_S), pytest.approx(15.0, abs=0.11))
    assert found["goodput_mbit"] == pytest.approx({"first": 6.0, "plain-1": 2.0, "plain-2": 4.0}, rel=0.01)
    assert found["share"] == pytest.approx(0.5, abs=0.005)
    assert found["times_plain"] == pytest.approx(2.0, rel=0.01)


def test_the_beginning_does_not_count():
    found = contest_facts({"first": flow(5.0, early_mbit=50.0), "plain-1": flow(5.0, early_mbit=0.1)})["contest"]
    assert found["share"] == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(
    "flows",
    [
        {"first": flow(5.0)},
        {"plain-1": flow(5.0), "plain-2": flow(5.0)},
        {"first": flow(5.0), "plain-1": flow(5.0, end_s=4.0)},
        {},
    ],
)
def test_nothing_is_made_up_where_there_is_no_contest(flows):
    assert contest_facts(flows)["contest"]["share"] is None


def contest_run(folder, wire):
    """Two downloads of plain TCP at the same time in a run of MPTCP; the second says what it is on the wire."""
    scene = syn.Scene(mptcp=True)
    first = scene.open(syn.Subflow("mn-wlan", 40000), 0.0)
    for number in range(180):
        scene.data(first, 0.1 + number * 0.1, 1000, number * 1000)
    description = syn.manifest("r1", "mptcp", "mptcp", "calm", [], 20.0)
    description["workload"]["kind"] = "contest"
    path = syn.write_run(folder / "r1", scene, description)
    own = path / "workload" / "first"
    own.mkdir()
    for name in ("progress.csv", "sender.json", "receiver.json"):
        (path / "workload" / name).rename(own / name)
    rows = [{"name": "first", "kind": "bulk", "transport": "tcp", "port": 5001, "parameters": {}, "wire": wire}]
    (path / "workload" / "flows.json").write_text(json.dumps({"flows": rows}))
    return load_run(path)


def test_a_flow_is_judged_by_what_it_is_on_the_wire(tmp_path):
    assert evaluate(contest_run(tmp_path / "as-it-is", "mptcp"))[0]["judged"]
    assert evaluate(contest_run(tmp_path / "unsaid", None))[0]["judged"], "older files: the mechanism's"
    metrics, _ = evaluate(contest_run(tmp_path / "wrong", "tcp"))
    assert "first: transport on the wire is mptcp, declared is tcp" in metrics["why_not"]
    with pytest.raises(InputError, match="wire is 'sctp'"):
        evaluate(contest_run(tmp_path / "unknown", "sctp"))
