"""The report as a reader gets it: figures, HTML in a real browser, the command line and its exit codes."""

from __future__ import annotations

import base64
import hashlib
import html as html_module
import json
import re
import shutil
from pathlib import Path

import pytest
import synthetic as syn
from browsing import Elements, browse, browser
from matplotlib.image import imread
from synthetic import campaign_file, claim, dying_scene, handover_scene, manifest, write_run

from analysis import figures, report_sections
from analysis.__main__ import main
from analysis.figures import goodput_figure
from analysis.report_sections import gap_pictures
from analysis.results import Cell, Row, Spread
from analysis.rundir import load_campaign
from analysis.series import Series
from analysis.style import path_colours, save, svg_bytes
from analysis.topology import BOX_HEIGHT, BOX_WIDTH, layout, topology_figure

LOSS = [(5.0, "carrier-loss", "mn-wlan")]
NASTY = "<script>alert('x')</script> & \"quotes\""


@pytest.fixture(scope="module")
def outage(tmp_path_factory) -> Path:
    """A campaign of five runs with every kind of verdict; returns its file."""
    folder = tmp_path_factory.mktemp("outage") / "outage"
    folder.mkdir()
    runs = {
        "r-tcp": (dying_scene(), manifest("r-tcp", "tcp", "tcp", "carrier-loss", LOSS, 40.0), {"complete": False}),
        "r-mptcp-0": (handover_scene(0.4), manifest("r-mptcp-0", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0), {}),
        "r-mptcp-1": (handover_scene(0.6), manifest("r-mptcp-1", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0), {}),
        "r-drop": (handover_scene(0.4), manifest("r-drop", "mptcp", "mptcp", "handover", LOSS, 12.0), {"dropped": 3}),
        "r-none": (syn.Scene(), manifest("r-none", "tcp", "tcp", "handover", LOSS, 12.0), {}),
    }
    runs["r-mptcp-1"][1]["repetition"] = 1
    runs["r-none"][1].update(state="unsupported", reason=NASTY)
    for name, (scene, description, more) in runs.items():
        write_run(folder / name, scene, description, **more)
    claims = [
        claim(published="about 250 ms", source={"key": "hampel2013", "where": "figure 9"}),
        claim(id="dies", text=NASTY, metric="survived", op="==", value=False, unit="", mechanisms=["tcp"]),
    ]
    return campaign_file(folder, runs, ["tcp", "mptcp"], ["carrier-loss", "handover"], claims)


@pytest.fixture(scope="module")
def report(outage) -> Path:
    assert main(["report", str(outage)]) == 0
    return outage.with_suffix(".html")


def test_no_browser_is_a_failure_unless_allowed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("ROAMLAB_WITHOUT_BROWSER", raising=False)
    with pytest.raises(pytest.fail.Exception, match="google-chrome"):
        browser()
    monkeypatch.setenv("ROAMLAB_WITHOUT_BROWSER", "1")
    with pytest.raises(pytest.skip.Exception):
        browser()
    monkeypatch.setattr(shutil, "which", {"google-chrome": "/opt/chrome"}.get)
    assert browser() == "/opt/chrome"


def test_browser_shows_the_matrix_without_complaint(report, tmp_path):
    done = browse(report, tmp_path / "profile", "--dump-dom")
    dom = Elements(done.stdout)
    cells = {(a["data-mechanism"], a["data-scenario"]): a["data-verdict"] for t, a in dom.tags if "data-mechanism" in a}
    assert cells == {
        ("tcp", "carrier-loss"): "broken", ("tcp", "handover"): "unsupported",
        ("mptcp", "carrier-loss"): "survived", ("mptcp", "handover"): "not judged",
    }  # fmt: skip
    verdicts = {a["data-claim"]: a["data-verdict"] for _, a in dom.tags if "data-claim" in a}
    assert verdicts == {"c": "holds", "dies": "holds"}
    assert "CONSOLE" not in done.stderr
    for words in ("> 30 s", "500 ms", "400 … 600 ms", "n = 2", "about 250 ms", "captures lost packets", NASTY):
        assert words in dom.text, words
    assert all(a.get("alt") for t, a in dom.tags if t == "img")


DRIVER = """
<pre id="probe"></pre>
<script>
const out = {ready: document.querySelectorAll(".dsn-ready").length};
const folds = [...document.querySelectorAll("details:not([open])")];
let waiting = folds.length;
for (const fold of folds) {
  fold.addEventListener("toggle", () => { if (!--waiting) probe(); });
  fold.open = true;
}
function probe() {
  out.readyWhenOpen = document.querySelectorAll(".dsn-ready").length;
  const host = document.querySelector(".dsn-plot"), plot = host.dsnPlot;
  plot.draw();
  out.counts = plot.counts();
  out.view = plot.view();
  out.status = host.querySelector(".dsn-status").textContent;
  out.topWithEvents = plot.box().top;
  [...host.querySelectorAll(".dsn-key")].find((key) => key.textContent.includes("events")).click();
  plot.draw();
  out.topWithout = plot.box().top;
  out.width = document.documentElement.scrollWidth;
  document.getElementById("probe").textContent = JSON.stringify(out);
}
</script></body>
"""


def probed(page: Path, folder: Path, window: str) -> dict:
    """What the driver above says of a copy of the page whose policy lets it run, with every plot opened."""
    probe = folder / "probe.html"
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    probe.write_text(html.replace("</body>", DRIVER))
    done = browse(probe, folder / "profile", f"--window-size={window}", "--virtual-time-budget=5000", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    return json.loads(html_module.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)[1]))


@pytest.mark.parametrize(("window", "limit"), [("1280,900", 1280), ("500,900", 500)])
def test_nothing_overflows_with_every_plot_open(report, tmp_path, window, limit):
    """A wider page than its window would be scrolled sideways."""
    assert probed(report, tmp_path, window)["width"] <= limit


def test_plots_are_built_when_they_are_opened_and_show_the_events(report, tmp_path):
    driven = probed(report, tmp_path, "1280,900")
    assert driven["ready"] == 0
    assert driven["readyWhenOpen"] == len(PLOTS)
    data = Elements(report.read_text()).plots[0]
    assert driven["counts"] == {"segments": data["segments"]["count"], "acks": data["acks"]["count"]}
    assert driven["view"]["x1"] == pytest.approx(data["span"][1], rel=0.02)
    assert "Shaded: the gap, > 30 s." in driven["status"]
    assert driven["topWithEvents"] > driven["topWithout"]  # the line with the event's name


PLOTS = ["Stream position over time: TCP", "Data sequence numbers over time: MPTCP", "Data sequence numbers over time: MPTCP"]
"""Two of the first scenario; of the second only the run with a dropped packet has a series."""


def test_each_traced_mechanism_has_a_plot_with_events_gap_and_paths(report):
    """The clock is that of the other figures: 0 at the scenario's start; the gap is the one that was measured."""
    html = report.read_text()
    assert re.findall(r'<details class="plots">\s*<summary>(.*?)</summary>', html) == PLOTS
    assert not re.findall(r'<details class="plots" [^>]', html)
    tcp, mptcp, _ = Elements(html).plots
    for data in (tcp, mptcp):
        assert data["events"] == [[5.0, "carrier-loss mn-wlan"]]
        assert data["start"] == pytest.approx(0.1, abs=0.01)
        assert data["segments"]["count"] == data["segments"]["total"] > 1000
    assert (tcp["gapText"], mptcp["gapText"]) == ("the gap, > 30 s", "the gap, 400 ms")  # of 400 and 600 ms the lower
    assert tcp["span"][1] >= 35
    assert mptcp["gap"] == pytest.approx([4.998, 5.398], abs=0.003)
    assert [group["label"] for group in tcp["groups"]] == ["0 · 10.1.0.100 (wlan)"]
    assert [group["label"].split(" ")[-1] for group in mptcp["groups"]] == ["(wlan)", "(lte)"]
    assert tcp["idsn"] == ""


def test_every_event_has_a_figure_that_of_the_shown_run_is_open(outage, report, tmp_path, monkeypatch):
    cells = re.findall(
        r'<details class="closeups" open>\s*<summary>(.*?)</summary>(.*?)</details>', report.read_text(), re.DOTALL
    )
    labels = ["TCP", "MPTCP, repetition 0", "MPTCP"]
    assert [name for name, _ in cells] == [f"Packets around the events: {label}" for label in labels]
    own, others = cells[1][1].split("Other repetitions")
    assert own.count("<img") == others.count("<img") == 1
    assert "repetition 1" in others
    assert cells[0][1].count("<img") == 1
    for run in ("r-tcp", "r-mptcp-0", "r-mptcp-1", "r-drop"):
        assert [file.name for file in sorted((outage.parent / run / "figures").glob("event-*.png"))] == ["event-1.png"]
    monkeypatch.setattr(report_sections, "OTHERS_BYTES", 0)
    monkeypatch.setattr(report_sections, "OPEN_MAX", 0)
    assert main(["report", str(outage), "--out", str(outage.parent / "small.html")]) == 0
    html = (outage.parent / "small.html").read_text()
    (outage.parent / "small.html").unlink()
    assert 'class="closeups" open' not in html
    assert 'Repetition 1: <a href="r-mptcp-1/figures/event-1.png">event-1.png</a>' in html


def test_plots_share_what_the_pictures_leave(outage, report, tmp_path, monkeypatch):
    """Without room for them plots have the fewest points that are legible."""
    monkeypatch.setattr(report_sections, "REPORT_BYTES", 0)
    monkeypatch.setattr(report_sections, "POINTS_MIN", 500)
    assert main(["report", str(outage), "--out", str(tmp_path / "r.html")]) == 0
    plots = Elements((tmp_path / "r.html").read_text()).plots
    assert len(plots) == len(PLOTS)
    for data in plots:
        assert data["segments"]["count"] <= 500 < data["segments"]["total"]
        assert data["acks"]["count"] <= 250


def test_run_without_captures_keeps_its_place_but_has_no_plot(tmp_path):
    """Its metrics were computed before somebody deleted the large files."""
    write_run(tmp_path / "r", handover_scene(0.4), manifest("r", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0))
    path = campaign_file(tmp_path, ["r"], ["mptcp"], ["carrier-loss"])
    assert main(["report", str(path)]) == 0
    assert len(Elements(path.with_suffix(".html").read_text()).plots) == 1
    shutil.rmtree(tmp_path / "r" / "pcap")
    assert main(["report", str(path)]) == 0
    page = Elements(path.with_suffix(".html").read_text())
    assert not page.scripts
    assert "script-src 'none'" in page.policy
    assert "400 ms" in page.text
    assert not [t for t, _ in page.tags if t == "details"]


def test_it_can_be_seen_and_printed(report, tmp_path):
    shot, pdf = tmp_path / "shot.png", tmp_path / "report.pdf"
    browse(report, tmp_path / "p1", "--window-size=1280,3000", "--hide-scrollbars", f"--screenshot={shot}")
    image = imread(shot)
    assert image.shape[:2] == (3000, 1280)
    assert image[:, :, :3].std() > 0.05  # not a blank page
    browse(report, tmp_path / "p2", f"--print-to-pdf={pdf}")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type ?/Page\b", pdf.read_bytes())) <= 15


def test_file_is_self_contained_and_escaped(report):
    html = report.read_text()
    page = Elements(html)
    assert not [t for t, _ in page.tags if t in ("link", "iframe", "object", "base")]
    code = [text for kind, text in page.scripts if kind != "application/json"]
    assert len(code) == 1  # the plots'
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()}'" in page.policy
    assert page.policy.startswith("default-src 'none'")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    sources = [a["src"] for _, a in page.tags if "src" in a]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    targets = [a["href"] for _, a in page.tags if "href" in a]
    assert {t for t in targets if t.startswith("http")} == {"https://doi.org/10.1145/2508222.2508226"}
    for target in targets:
        assert target.startswith("http") or (report.parent / target).exists(), target
    assert "url(" not in html.split("</style>")[0]
    assert NASTY not in html
    assert NASTY in page.text
    assert len(html) < 2_000_000


def test_report_says_how_where_and_with_what(report):
    text = " ".join(Elements(report.read_text()).text.split())
    for words in ("roamlab run outage", "6.18.0", "dumpcap 4.0.17", "abc1234", "How it was measured", "20 ms or 5 %",
                  "Seamless TCP Mobility Using Lightweight MPTCP Proxy", "Seed 1"):  # fmt: skip
        assert words in text, words


def test_a_second_report_is_the_same_to_the_byte(outage, report):
    before = report.read_bytes()
    assert main(["report", str(outage), "--refresh"]) == 0
    assert report.read_bytes() == before


def test_figures_lie_beside_the_data(outage, report):
    for stem in ("gaps", "topology", "carrier-loss-goodput", "carrier-loss-received"):
        for suffix in ("png", "svg"):
            assert (outage.parent / "c1.figures" / f"{stem}.{suffix}").stat().st_size > 2000
    for name in ("goodput", "dsn"):
        for run in ("r-tcp", "r-mptcp-0", "r-mptcp-1", "r-drop"):  # of every run, whether it is in the report or not
            assert (outage.parent / run / "figures" / f"{name}.png").stat().st_size > 2000
        assert f"r-mptcp-1/figures/{name}.svg" in report.read_text()
        assert not (outage.parent / "r-none" / "figures" / f"{name}.png").exists()
    assert not list(outage.parent.rglob(".*"))  # no half-written files


# --- the command line ---


def test_terminal_matrix(outage, report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["report", str(outage)]) == 0
    out = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    for words in ("TCP", "✗ > 30 s", "500 ms", "holds", str(outage.with_suffix(".html"))):
        assert words in out


def test_json_document(outage, tmp_path, capsys):
    out = tmp_path / "deep" / "r.html"
    assert main(["report", str(outage), "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(out)
    assert out.exists()
    assert {(c["mechanism"], c["scenario"], c["verdict"]) for c in document["matrix"]} >= {("tcp", "carrier-loss", "broken")}
    assert [c["verdict"] for c in document["claims"]] == ["holds", "holds"]
    assert document["claims"][0]["parts"][0]["median"] == pytest.approx(500, abs=1)
    assert len(document["runs"]) == 5


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"claims": [claim(value=100)]}, 1),
        ({"claims": [claim(scenarios=["handover"])]}, 1),
        ({"claims": [claim(mechanisms=["tcp"], scenarios=["handover"])]}, 0),
        ({"claims": [], "runs": ["r-mptcp-0", "gone"]}, 1),
        ({"claims": [claim(aggregate="mean")]}, 2),
        ({"schema": 7}, 2),
    ],
)
def test_exit_code(outage, report, tmp_path, capsys, change, code):
    other = outage.with_name("other.json")
    other.write_text(json.dumps(json.loads(outage.read_text()) | change))
    assert main(["report", str(other), "--out", str(tmp_path / "r.html")]) == code
    captured = capsys.readouterr()
    assert (captured.err.count("\n") == 1) is (code == 2)
    other.unlink()


def test_metrics_command(outage, capsys):
    runs = [str(outage.parent / name) for name in ("r-tcp", "r-none")]
    assert main(["metrics", *runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["broken", "unsupported"]
    assert main(["metrics", runs[0], str(outage.parent / "nothing")]) == 2
    captured = capsys.readouterr()
    assert "nothing: no such run directory" in captured.err
    assert len(captured.out.splitlines()) == 1


def test_missing_campaign_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path / "no.json")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'no.json'}: No such file or directory\n"


# --- several workloads ---


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A campaign of two workloads, two repetitions planned, with a receiver that crashed and runs that are missing."""
    folder = tmp_path_factory.mktemp("mixed")
    crash = [(5.0, "node-crash", "mn")]
    for name, gap_s in (("page", 0.1), ("film", 0.8)):
        description = manifest(f"r-{name}", "mptcp", "mptcp", "carrier-loss", LOSS, 12.0, recovery_limit_s=20.0)
        description["workload"]["name"] = name
        write_run(folder / f"r-{name}", handover_scene(gap_s), description)
    description = manifest("r-dead", "mptcp", "mptcp", "crash", crash, 30.0, recovery_limit_s=20.0)
    description["workload"]["name"] = "film"
    write_run(folder / "r-dead", dying_scene(mptcp=True), description, complete=False)
    for name in ("receiver.json", "progress.csv"):
        (folder / "r-dead" / "workload" / name).unlink()
    workloads = [{"name": "page", "label": "web page", "kind": "bulk"}, {"name": "film", "label": "film", "kind": "bulk"}]
    claims = [claim(id="page", workloads=["page"], value=200), claim(id="all", value=200)]
    runs = ["r-page", "r-film", "r-dead"]
    return campaign_file(folder, runs, ["mptcp"], ["carrier-loss", "crash"], claims, workloads=workloads, repetitions=2)


def test_workloads_have_rows_and_figures_of_their_own(mixed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["report", str(mixed)]) == 1
    out = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    page = Elements(mixed.with_suffix(".html").read_text())
    for words in ("MPTCP · web page", "MPTCP · film", "100 ms", "800 ms", "1 of 2 runs judged: 1 run is missing"):
        assert words in out, words
        assert words in page.text, words
    for words in (
        "no record of the receiver",
        "MPTCP · film, carrier loss:",
        " · fails: 1 of 2",
        "at most 20 s after",
        "more than 50 ms from its",
    ):
        assert words in page.text, words
    cells = {(a["data-workload"], a["data-scenario"]): a["data-verdict"] for _, a in page.tags if "data-workload" in a}
    assert cells == {
        ("page", "carrier-loss"): "survived", ("page", "crash"): "no run",
        ("film", "carrier-loss"): "survived", ("film", "crash"): "broken",
    }  # fmt: skip
    figures_of = {path.name for path in (mixed.parent / "c1.figures").glob("*.svg")}
    assert {"gaps-page.svg", "gaps-film.svg", "carrier-loss-page-goodput.svg", "carrier-loss-film-received.svg"} <= figures_of
    assert "gaps.svg" not in figures_of


def test_json_names_workloads(mixed, capsys):
    assert main(["report", str(mixed), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    gaps = {c["workload"]: c["gap_ms"] for c in document["matrix"] if c["scenario"] == "carrier-loss"}
    assert {name: round(values[0]) for name, values in gaps.items()} == {"page": 100, "film": 800}
    assert {c["id"]: [(p["workload"], p["verdict"]) for p in c["parts"]] for c in document["claims"]} == {
        "page": [("page", "not judged")], "all": [("page", "not judged"), ("film", "fails")],
    }  # fmt: skip


# --- figures ---


def some_series(**more) -> Series:
    values = {
        "start_s": 0.0, "end_s": 10.0, "paths": {"wlan": [5.0] * 50 + [0.0] * 50, "lte": [0.0] * 54 + [4.0] * 46},
        "times_s": [0.1, 5.0, 5.4, 10.0], "totals": [0, 3_000_000, 3_000_100, 6_000_000], "unit": "bytes",
        "gap": (5.0, 5.4), "events": [(5.0, "carrier-loss", "mn-wlan"), (5.2, "address-add", "mn-lte")],
    }  # fmt: skip
    return Series(**(values | more))


def test_many_repetitions_have_a_distribution_few_have_dots(outage, report, tmp_path):
    def row(mechanism: str, *spreads: Spread) -> Row:
        cells = [
            Cell(mechanism, scenario, "w", "mixed", spread, 0, spread.count, (), ())
            for scenario, spread in zip(("carrier-loss", "handover"), spreads, strict=True)
        ]
        return Row(mechanism, "w", mechanism, tuple(cells))

    matrix = [
        row("tcp", Spread((900.0,), (30e3,)), Spread(())),
        row("mptcp", Spread((1.0, 2.0, 3.0, 4.0, 5.0)), Spread((7.0,))),
    ]
    found = gap_pictures(load_campaign(outage), matrix, {"w": "web"}, tmp_path)
    assert [(gap.heading, gap.kind) for gap in found] == [("", "overview"), ("carrier loss", "distribution")]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{n}.{k}" for n in ("gaps", "carrier-loss-gaps") for k in ("png", "svg")
    }


def test_svg_is_deterministic_and_dateless():
    first, second = (svg_bytes(goodput_figure(some_series(), "t")) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first


@pytest.mark.parametrize(
    "more", [{"gap": None}, {"gap": (5.0, None)}, {"events": []}, {"paths": {}}, {"times_s": [], "totals": []}]
)
def test_figures_of_odd_series(tmp_path, more):
    series = some_series(**more)
    for name, figure in (
        ("a", goodput_figure(series, "title")),
        ("b", figures.side_by_side_figure([("A", series), ("B", None), ("C", series), ("D", series)])),
        ("c", figures.cumulative_figure([("A", series)], "title")),
    ):
        assert all(path.stat().st_size > 1000 for path in save(figure, tmp_path / name))


def test_paths_keep_their_colours():
    alone, both = path_colours(["lte"]), path_colours(["wlan", "lte", "mesh"])
    assert alone["lte"] == both["lte"]
    assert len(set(both.values())) == 3


def overlap(a, b) -> bool:
    return abs(a[0] - b[0]) < BOX_WIDTH and abs(a[1] - b[1]) < BOX_HEIGHT


def test_topology_layout():
    placed = layout(syn.GRAPH)
    assert placed["mn"][0] == min(x for x, _ in placed.values())
    assert placed["cn"][0] == max(x for x, _ in placed.values())
    assert placed["ar1"][0] == placed["ar2"][0] < placed["core"][0] < placed["cr1"][0]
    positions = list(placed.values())
    assert not [1 for i, a in enumerate(positions) for b in positions[:i] if overlap(a, b)]


def test_topology_labels_do_not_touch_each_other_or_the_nodes():
    figure = topology_figure(syn.GRAPH, {"mn-wlan": "wlan", "mn-lte": "lte"})
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    for index, first in enumerate(boxes):
        assert not [1 for second in boxes[:index] if first.overlaps(second)]
    patches = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches]
    names = {str(node["name"]) for node in syn.GRAPH["nodes"]} | {str(n["kind"]).replace("-", " ") for n in syn.GRAPH["nodes"]}
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        touching = [p for p in patches if p.overlaps(box)]
        assert len(touching) == (1 if text.get_text() in names else 0), text.get_text()
        if touching:
            assert touching[0].x0 <= box.x0
            assert box.x1 <= touching[0].x1


@pytest.mark.parametrize("graph", [{}, {"nodes": [{"name": "a"}]}, {"nodes": [{"name": "a"}, {"name": "b"}], "links": []}])
def test_odd_graphs(tmp_path, graph):
    save(topology_figure(graph), tmp_path / "t")
