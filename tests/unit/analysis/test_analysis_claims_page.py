"""The page of claims: from run directories to Markdown and figures, and what it must not hide."""

from __future__ import annotations

import json
import re

import pytest
import synthetic as syn

from analysis.__main__ import main
from analysis.claims_page import claim_strips, judge, run_command
from analysis.rundir import load_campaign


def outage_run(folder, name, mechanism, resumes_s):
    """A run whose connection stands still from 5 s until `resumes_s`, for ever when that is None."""
    transport = "tcp" if mechanism == "tcp" else "mptcp"
    scene = syn.Scene(mptcp=transport == "mptcp")
    flow = scene.open(syn.Subflow("mn-wlan", 40000), 0.0)
    position = 0
    for number in range(120):
        at_s = 0.1 + number * 0.1
        if at_s > 5.0 and (resumes_s is None or at_s < resumes_s):
            continue
        scene.data(flow, at_s, 1000, position)
        position += 1000
    syn.write_run(folder / name, scene, syn.manifest(name, mechanism, transport, "carrier-loss", syn.LOSS, 12.0))
    return name


@pytest.fixture
def campaign(tmp_path):
    """Two runs of tcp and two of mptcp, which stands still for less time; a claim of each kind."""
    runs = [
        outage_run(tmp_path, f"{mechanism}-r{number}", mechanism, resumes)
        for mechanism, times in (("tcp", (8.0, 9.0)), ("mptcp", (5.5, 6.0)))
        for number, resumes in enumerate(times)
    ]
    claims = [
        syn.claim(id="short", op="<=", value=1500.0, mechanisms=["mptcp"], published="400 ms | typically"),
        syn.claim(id="too-short", op="<=", value=10.0, mechanisms=["tcp", "mptcp"]),
        syn.claim(id="shorter", bound={"op": "<=", "value": 1.0, "unit": "ms", "others": ["tcp"]}),
        syn.claim(id="lives", metric="survived", op="==", value=True, unit="", aggregate="all", mechanisms=["tcp", "mptcp"]),
        syn.claim(id="nowhere", metric="no_such_metric", unit=""),
    ]
    path = syn.campaign_file(tmp_path, runs, ["tcp", "mptcp"], ["carrier-loss"], claims)
    data = json.loads(path.read_text()) | {
        "repetitions": 2,
        "command": ["roamlab", "run", "outage", "--results", "/some/where"],
    }
    path.write_text(json.dumps(data))
    return path


def page_of(campaign, tmp_path, *more):
    out = tmp_path / "docs" / "claims.md"
    out.parent.mkdir(exist_ok=True)
    code = main(["claims", str(campaign), "--output", str(out), *more])
    return code, out


def test_every_claim_with_its_verdict_figures_and_source(campaign, tmp_path, capsys):
    code, out = page_of(campaign, tmp_path, "--title", "What holds")
    text = out.read_text()
    assert code == 1, "two claims do not hold"
    assert text.startswith("# What holds\n")
    assert "5 claims: 3 holds, 1 fails, 1 not judged" in text
    assert "### short: ✓ holds" in text
    assert "### too-short: ✗ fails" in text
    assert "### nowhere: ? not judged" in text
    assert "section 5.2" in text
    assert "Published: 400 ms | typically." in text
    row = next(line for line in text.splitlines() if "| MPTCP | 2 |" in line)
    assert re.search(r"\| 2 \| \d+ ms \| \d+ … \d+ ms \| holds \|", row), "repetitions, median, range, verdict"
    assert "of 2 runs have no_such_metric" in text, "the reason of what is not judged"
    assert "| 2 of 2 |" in text, "yes or no is counted"
    assert "holds shorter" not in capsys.readouterr().err


def test_figures_lie_beside_the_page_and_old_ones_go(campaign, tmp_path):
    old = tmp_path / "docs" / "claims" / "old-figure.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    _, out = page_of(campaign, tmp_path)
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", out.read_text())
    assert len(shown) == 5, "all gaps, and each claim that has figures"
    assert all((out.parent / name).read_bytes().startswith(b"\x89PNG") for name in shown)
    assert not old.exists()


def test_the_links_of_the_overview_lead_to_the_claims(campaign, tmp_path):
    _, out = page_of(campaign, tmp_path)
    links = re.findall(r"\]\(#([^)]+)\)", out.read_text())
    assert len(links) == 5
    assert all(f'<a id="{link}"></a>' in out.read_text() for link in links)


def test_the_page_is_the_same_again_and_names_no_machine(campaign, tmp_path):
    _, out = page_of(campaign, tmp_path)
    first = out.read_bytes()
    page_of(campaign, tmp_path)
    assert out.read_bytes() == first
    assert "/some/where" not in out.read_text()
    assert str(tmp_path) not in out.read_text()
    assert run_command(load_campaign(campaign)) == "roamlab run outage"


def test_others_are_drawn_grey_and_what_is_compared_is_not(campaign):
    chapter = judge(load_campaign(campaign))
    grey = {claim.id: {strip.label: strip.baseline for strip in claim_strips(chapter, claim)} for claim in chapter.claims}
    assert grey["short"] == {"TCP": True, "MPTCP": False}
    assert grey["shorter"] == {"TCP": False, "MPTCP": False}
    lives = next(claim for claim in chapter.claims if claim.id == "lives")
    assert all(strip.spread.values for strip in claim_strips(chapter, lives)), "a yes or no is shown by the gap"


def test_a_scenario_that_is_compared_with_is_drawn(campaign):
    data = json.loads(campaign.read_text())
    bound = {"op": "<=", "value": 1.0, "unit": "ms", "other_scenarios": ["calm"]}
    data["scenarios"].append({"name": "calm", "label": "calm"})
    campaign.write_text(json.dumps(data | {"claims": [syn.claim(id="calmer", bound=bound)]}))
    chapter = judge(load_campaign(campaign))
    groups = dict.fromkeys(strip.group for strip in claim_strips(chapter, chapter.claims[0]))
    assert len(groups) == 2
    assert "calm" in groups


def test_a_missing_run_is_told(campaign, tmp_path):
    data = json.loads(campaign.read_text())
    campaign.write_text(json.dumps(data | {"runs": [*data["runs"], "gone"], "repetitions": 3}))
    code, out = page_of(campaign, tmp_path)
    assert code == 1
    assert "### short: ? not judged" in out.read_text()
    assert "2 of 3 runs judged: 1 run is missing" in out.read_text()


def test_a_file_that_is_no_campaign(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["claims", str(tmp_path / "x.json"), "--output", str(tmp_path / "x.md")]) == 2
    assert "schema is missing" in capsys.readouterr().err
    assert not (tmp_path / "x.md").exists()
