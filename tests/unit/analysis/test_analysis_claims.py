"""Claims and the matrix, from metrics alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import synthetic as syn
from hypothesis import given
from hypothesis import strategies as st

from analysis.claims import evaluate_claims
from analysis.commands.report import exit_code
from analysis.references import load_references
from analysis.results import Result, Spread, build_matrix, number_text, seconds_text
from analysis.rundir import InputError, load_campaign


def result(mechanism="mptcp", scenario="carrier-loss", gap=400.0, at_least=None, workload="bulk", **more) -> Result:
    run = SimpleNamespace(mechanism=mechanism, scenario=scenario, workload=workload, workload_label=workload)
    metrics = {"verdict": "survived", "judged": True, "survived": at_least is None, "gap_ms": gap, "gap_at_least_ms": at_least}
    metrics |= more
    return Result(f"{mechanism}-{scenario}", run, metrics, None)


def unjudged(verdict="not judged", why="captures lost packets", **more) -> Result:
    return result(judged=False, verdict=verdict, why_not=why, **more)


@pytest.fixture
def campaign(tmp_path):
    def make(*claims, **more):
        path = syn.campaign_file(tmp_path, [], ["tcp", "mptcp"], ["carrier-loss", "handover"], claims)
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
        return load_campaign(path)

    return make


def verdict(campaign, results, **claim):
    return evaluate_claims(campaign(syn.claim(**claim)), results)[0]


@pytest.mark.parametrize(
    ("aggregate", "op", "value", "expected"),
    [
        ("median", "<=", 200, "holds"), ("median", "<=", 199, "fails"), ("max", "<=", 900, "holds"),
        ("max", "<=", 899, "fails"), ("min", ">=", 100, "holds"), ("min", ">=", 101, "fails"),
        ("all", "<=", 900, "holds"), ("all", "<=", 899, "fails"), ("median", "==", 200, "holds"),
        ("all", "==", 200, "fails"),
    ],
)  # fmt: skip
def test_aggregates_and_bounds(campaign, aggregate, op, value, expected):
    results = [result(gap=g) for g in (100.0, 200.0, 900.0)]
    claim = verdict(campaign, results, aggregate=aggregate, op=op, value=value)
    assert claim.verdict == expected
    assert claim.parts[0].spread.median_text("ms") == "200 ms"
    assert claim.parts[0].spread.range_text("ms") == "100 … 900 ms"


@pytest.mark.parametrize("aggregate", ["median", "max", "min", "all"])
@pytest.mark.parametrize(("op", "value"), [("<=", 1e9), (">=", 5.0), ("==", 20.0)])
def test_one_unrecovered_gap_fails_every_bound(campaign, aggregate, op, value):
    results = [result(gap=20.0), result(gap=20.0), result(gap=None, at_least=30000.0)]
    claim = verdict(campaign, results, aggregate=aggregate, op=op, value=value)
    assert claim.verdict == "fails"
    assert claim.parts[0].spread.median_text("ms") == "> 30 s in 1 of 3"


def test_what_never_resumed_did_not_resume_after_a_gap_of_at_least_so_much(campaign):
    assert verdict(campaign, [result(gap=6000.0)], op=">=", value=5000).verdict == "holds"
    assert verdict(campaign, [result(gap=None, at_least=30000.0)], op=">=", value=5000).verdict == "fails"
    stalls = {"metric": "rpc.longest_stall_ms", "op": ">=", "value": 5000}
    stalled = [
        result(gap=6000.0, rpc={"longest_stall_ms": 6000.0}),
        result(gap=None, at_least=3e4, rpc={"longest_stall_ms": None}),
    ]
    assert [verdict(campaign, runs, **stalls).verdict for runs in (stalled[:1], stalled)] == ["holds", "fails"]


def compared(value=1.0, op="<=", aggregate="median") -> dict:
    """A claim that mptcp is not worse than tcp."""
    return {"aggregate": aggregate, "bound": {"op": op, "value": value, "unit": "ms", "others": ["tcp"]}}


@pytest.mark.parametrize(
    ("mine", "theirs", "asked", "expected"),
    [
        ((100, 300, 900), (200, 400, 500), compared(), "holds"),
        ((100, 401, 401), (200, 400, 500), compared(), "fails"),
        ((100, 401, 401), (200, 400, 500), compared(1.5), "holds"),
        ((100, 200, 300), (300, 900), compared(aggregate="all"), "holds"),
        ((100, 200, 301), (300, 900), compared(aggregate="all"), "fails"),
        ((100, 200, 300), (50, 299), compared(aggregate="max"), "fails"),
        ((100, 200), (100, 90), compared(op=">=", aggregate="min"), "holds"),
        ((300,), (100, None, None), compared(), "holds"),
        ((300,), (100, 200, None), compared(), "fails"),
        ((300, None), (None, None), compared(), "fails"),
    ],
)
def test_the_bound_is_what_another_mechanism_has(campaign, mine, theirs, asked, expected):
    runs = [
        result(name, gap=None if gap is None else float(gap), at_least=3e4 if gap is None else None)
        for name, gaps in (("mptcp", mine), ("tcp", theirs))
        for gap in gaps
    ]
    claim = verdict(campaign, runs, **asked)
    assert (claim.verdict, claim.parts[0].reason) == (expected, "")
    assert [(name, spread.count) for name, spread in claim.parts[0].others] == [("tcp", len(theirs))]


def test_a_comparison_is_judged_only_when_all_runs_of_all_were(campaign):
    lost = [result(gap=500.0), result("tcp", gap=100.0), unjudged(mechanism="tcp")]
    claim = verdict(campaign, lost, **compared())
    assert (claim.verdict, claim.parts[0].reason) == ("not judged", "tcp: 1 of 2 runs judged: captures lost packets")
    lost = [unjudged(), result(gap=500.0), result("tcp", gap=100.0)]
    assert verdict(campaign, lost, **compared()).verdict == "not judged"
    assert verdict(campaign, [result()], **compared()).verdict == "not judged"
    assert verdict(campaign, [result(), unjudged("unsupported", "x", mechanism="tcp")], **compared()).verdict == "unsupported"


def test_a_comparison_says_with_what(campaign):
    claim = verdict(campaign, [result(gap=100.0), result("tcp", gap=512.0)], **compared())
    assert (claim.bound_text, claim.parts[0].others_text("ms")) == ("median gap_ms ≤ that of tcp", "tcp 512 ms")
    assert verdict(campaign, [], **compared(0.5)).bound_text == "median gap_ms ≤ 0.5 × that of tcp"


@pytest.mark.parametrize(("gap", "expected"), [(99.0, "holds"), (101.0, "fails")])
def test_the_bound_is_what_the_mechanism_has_in_another_scenario(campaign, gap, expected):
    asked = {"aggregate": "median", "bound": {"op": "<=", "value": 1.0, "unit": "ms", "other_scenarios": ["handover"]}}
    runs = [result(gap=gap), result(scenario="handover", gap=100.0), result("tcp", "handover", gap=1.0)]
    claim = verdict(campaign, runs, **asked)
    assert (claim.verdict, claim.bound_text) == (expected, "median gap_ms ≤ that of handover")
    assert verdict(campaign, runs[:1], **asked).verdict == "not judged"


def test_survived_is_a_yes_or_no(campaign):
    results = [result(gap=None, at_least=30000.0)]
    for value, expected in ((True, "fails"), (False, "holds"), (1, "fails")):
        claim = verdict(campaign, results, metric="survived", op="==", value=value, unit="", aggregate="all")
        assert claim.verdict == expected


def test_the_same_answer_everywhere_is_said_once(campaign):
    both = {"metric": "survived", "op": "==", "value": True, "unit": "", "aggregate": "all", "mechanisms": ["mptcp", "tcp"]}
    assert verdict(campaign, [result(), result("tcp")], **both).same_everywhere == "yes in 2 of 2 runs"
    assert not verdict(campaign, [result(), result("tcp", survived=False)], **both).same_everywhere
    assert not verdict(campaign, [result(), unjudged(mechanism="tcp")], **both).same_everywhere
    assert not verdict(campaign, [result(), result("tcp")]).same_everywhere


def test_dotted_metrics(campaign):
    results = [result(bytes_per_path={"lte": 0})]
    assert verdict(campaign, results, metric="bytes_per_path.lte", value=0, unit="", aggregate="max").verdict == "holds"
    missing = verdict(campaign, results, metric="voice.loss", value=0.1, unit="")
    assert (missing.verdict, missing.parts[0].reason) == ("not judged", "0 of 1 runs have voice.loss")


def test_unsupported_and_not_judged_are_neither_success_nor_failure(campaign):
    assert verdict(campaign, [unjudged("unsupported", "no NFQUEUE")]).verdict == "unsupported"
    claim = verdict(campaign, [unjudged()])
    assert (claim.verdict, claim.parts[0].reason) == ("not judged", "0 of 1 runs judged: captures lost packets")
    assert verdict(campaign, []).parts[0].reason == "0 of 1 runs judged: there is no such run"


def judge(campaign, results, repetitions, **more) -> tuple[str, str]:
    """Verdict and reason of a claim in a campaign with so many planned repetitions."""
    part = evaluate_claims(campaign(syn.claim(**more), repetitions=repetitions), results)[0].parts[0]
    return part.verdict, part.reason


def test_a_claim_does_not_hold_on_the_runs_that_happen_to_be_judged(campaign):
    one_lost = [result(), result(), unjudged()]
    assert judge(campaign, one_lost, 3) == ("not judged", "2 of 3 runs judged: captures lost packets")
    assert judge(campaign, one_lost, 1) == ("not judged", "2 of 3 runs judged: captures lost packets")
    two_reasons = [result(), unjudged(), unjudged("failed", "crashed")]
    assert judge(campaign, two_reasons, 3) == ("not judged", "1 of 3 runs judged: captures lost packets; crashed")
    assert judge(campaign, [result(), unjudged("unsupported", "no NFQUEUE")], 2)[0] == "not judged"


def test_runs_that_are_planned_and_missing_are_not_judged(campaign):
    assert judge(campaign, [result(), result()], 2) == ("holds", "")
    assert judge(campaign, [result(), result()], 3) == ("not judged", "2 of 3 runs judged: 1 run is missing")
    assert judge(campaign, [], 3) == ("not judged", "0 of 3 runs judged: there is no such run")


def test_what_fails_on_the_judged_runs_stays_failed(campaign):
    assert judge(campaign, [result(gap=5000.0), unjudged()], 3) == (
        "fails", "1 of 3 runs judged: captures lost packets; 1 run is missing",
    )  # fmt: skip


def test_judged_runs_without_the_figure_are_no_support(campaign):
    nothing_arrived = result(gap=None)
    assert judge(campaign, [result(), nothing_arrived], 2) == ("not judged", "1 of 2 runs have gap_ms")


def test_a_claim_may_need_more_repetitions_than_there_are(campaign):
    assert judge(campaign, [result(), result()], 2, min_repetitions=3) == (
        "not judged", "2 of 3 repetitions that the claim needs",
    )  # fmt: skip


def test_a_claim_selects_its_workloads(campaign):
    results = [result(), result(workload="voice", gap=5000.0)]
    assert verdict(campaign, results, workloads=["bulk"]).verdict == "holds"
    assert verdict(campaign, results, workloads=["voice"]).verdict == "fails"
    for every in ({}, {"workloads": []}):
        claim = verdict(campaign, results, **every)
        assert claim.verdict == "fails"
        assert [(p.workload, p.workload_label, p.verdict) for p in claim.parts] == [
            ("bulk", "bulk", "holds"), ("voice", "voice", "fails"),
        ]  # fmt: skip
    assert verdict(campaign, [result()]).parts[0].workload_label == ""
    assert verdict(campaign, [result()], workloads=["voice"]).verdict == "not judged"
    with pytest.raises(InputError, match="workloads is"):
        verdict(campaign, results, workloads="voice")


def test_a_listed_workload_without_runs_is_not_judged(campaign):
    workloads = [{"name": "bulk", "label": "Download", "kind": "bulk"}, {"name": "call", "label": "Call", "kind": "voice"}]
    claim = evaluate_claims(campaign(syn.claim(), workloads=workloads), [result()])[0]
    assert [(p.workload_label, p.verdict) for p in claim.parts] == [("Download", "holds"), ("Call", "not judged")]


def test_the_heaviest_part_decides(campaign):
    results = [result(), result("tcp", gap=5000.0)]
    both = {"mechanisms": ["mptcp", "tcp"]}
    assert verdict(campaign, results, **both).verdict == "fails"
    assert verdict(campaign, [result()], **both).verdict == "not judged"
    assert verdict(campaign, [result(), unjudged("unsupported", "x", mechanism="tcp")], **both).verdict == "unsupported"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregate": "mean"}, "claims[0]: aggregate is 'mean'"),
        ({"op": "<"}, "bound.op is '<'"),
        ({"value": "1 s"}, "bound.value is '1 s'"),
        ({"unit": "s"}, "bound.unit is 's': gap_ms is in ms"),
        ({"mechanisms": []}, "must each name at least one"),
    ],
)
def test_bad_claims_name_file_and_field(campaign, change, message):
    with pytest.raises(InputError) as info:
        verdict(campaign, [], **change)
    assert message in str(info.value)
    assert "c1.json" in str(info.value)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": ["../x"]},
        {"runs": [3]},
        {"schema": 9},
        {"claims": None},
        {"mechanisms": [{}]},
        {"workloads": [{}]},
        {"repetitions": "3"},
    ],
)
def test_bad_campaign_files(campaign, change):
    with pytest.raises(InputError, match=r"c1\.json"):
        campaign(**change)


# --- the matrix ---


def test_matrix_cells(campaign):
    results = [
        result("tcp", gap=None, at_least=30000.0), result("mptcp", gap=100.0), result("mptcp", gap=300.0),
        unjudged(scenario="handover"), result("tcp", "handover"), result("tcp", "handover", gap=None, at_least=20000.0),
    ]  # fmt: skip
    (tcp_loss, tcp_handover), (mptcp_loss, mptcp_handover) = (row.cells for row in build_matrix(campaign(), results))
    assert (tcp_loss.verdict, tcp_loss.spread.median_text("ms")) == ("broken", "> 30 s")
    assert (mptcp_loss.verdict, mptcp_loss.spread.median_text("ms")) == ("survived", "200 ms")
    assert (mptcp_handover.verdict, mptcp_handover.detail) == ("not judged", "captures lost packets")
    assert (tcp_handover.word, tcp_handover.spread.range_text("ms")) == ("survived 1 of 2", "400 ms … > 20 s")


def test_empty_unsupported_and_failed_cells(campaign):
    results = [unjudged("unsupported", "no NFQUEUE", mechanism="tcp"), unjudged("failed", "crashed"), result()]
    (unsupported, _), (failed, empty) = (row.cells for row in build_matrix(campaign(), results))
    assert (unsupported.verdict, unsupported.detail) == ("unsupported", "no NFQUEUE")
    assert failed.verdict == "failed"
    assert empty.verdict == "no run"


def test_cells_say_how_many_runs_they_rest_on(campaign):
    results = [result(), unjudged(), result("tcp", survived=False, remark="no record of the receiver")]
    tcp, mptcp = (row.cells[0] for row in build_matrix(campaign(repetitions=3), results))
    assert mptcp.detail == "1 of 3 runs judged; captures lost packets; 1 run is missing"
    assert tcp.detail == "1 of 3 runs judged; 2 runs are missing; no record of the receiver"


def test_one_row_per_mechanism_and_workload(campaign):
    workloads = [{"name": "bulk", "label": "bulk", "kind": "bulk"}, {"name": "call", "label": "voice", "kind": "voice"}]
    results = [result(), result(workload="call", gap=20.0)]
    for matrix in (
        build_matrix(campaign(workloads=workloads), results),
        build_matrix(campaign(workloads=workloads[1:]), results),
    ):
        rows = {row.label: row.cells[0] for row in matrix}
        assert set(rows) == {"TCP · bulk", "MPTCP · bulk", "TCP · voice", "MPTCP · voice"}
        assert (rows["MPTCP · bulk"].spread.values, rows["MPTCP · voice"].spread.values) == ((400.0,), (20.0,))
    assert [row.label for row in build_matrix(campaign(workloads=workloads[:1]), results[:1])] == ["TCP", "MPTCP"]
    assert [row.label for row in build_matrix(campaign(), results[:1])] == ["TCP", "MPTCP"]
    assert len(build_matrix(campaign(), [])) == 2


def test_exit_codes(campaign):
    holds = evaluate_claims(campaign(syn.claim()), [result()])
    fails = evaluate_claims(campaign(syn.claim(value=1)), [result()])
    unsupported = evaluate_claims(campaign(syn.claim()), [unjudged("unsupported", "x")])
    unclear = evaluate_claims(campaign(syn.claim()), [unjudged()])
    assert [exit_code([result()], c) for c in ([], holds, unsupported, fails, unclear)] == [0, 0, 0, 1, 1]
    assert exit_code([unjudged("failed", "x")], holds) == 1
    assert exit_code([unjudged("unsupported", "x")], holds) == 0


# --- words and numbers ---


@pytest.mark.parametrize(("ms", "text"), [(30000, "> 30 s"), (29999.9, "> 29 s"), (30000 - 1e-7, "> 30 s"), (4210, "> 4.2 s")])
def test_lower_bounds_are_never_rounded_up(ms, text):
    assert seconds_text(ms) == text


def test_numbers():
    texts = [number_text(value, "ms") for value in (0.07, 41.26, 412.4, 4400, 12345)]
    assert texts == ["0.07 ms", "41.3 ms", "412 ms", "4400 ms", "12.3 s"]


@given(st.lists(st.floats(1, 1e5), max_size=6), st.lists(st.floats(1e3, 1e5), max_size=3))
def test_spread_always_has_words(values, ends):
    spread = Spread(tuple(values), tuple(ends))
    assert spread.median_text("ms")
    assert (">" in spread.median_text("ms")) is bool(ends)
    spread.range_text("ms")


def test_bibliography():
    works = load_references()
    assert works["hampel2013"].short == "Hampel, Rana and Klein, “Seamless TCP Mobility Using Lightweight MPTCP Proxy”"
    assert works["rfc8684"].link == "https://doi.org/10.17487/RFC8684"
    assert {"bagnulo2009", "rfc7629", "rfc6824", "rfc5944", "rfc6275", "huston2015"} <= set(works)
    assert all(work.title and work.authors and work.year for work in works.values())


def test_matrix_tells_the_spread_of_repetitions(campaign):
    cells = [row.cells[0] for row in build_matrix(campaign(), [result(gap=412.1), result(gap=412.4), result("tcp")])]
    assert cells[1].spread.spread_text("ms") == "412 … 412 ms, spread 0.3 ms"
    assert cells[0].spread.spread_text("ms") == ""
    assert Spread((400.0,), (3e4,)).spread_text("ms") == "400 ms … > 30 s"
