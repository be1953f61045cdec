"""The page of `roamlab analyse` as a reader gets it: in a real browser, with scripts, without, and on a small screen."""

from __future__ import annotations

import base64
import hashlib
import html as html_module
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import transfers as tr
from browsing import Elements, browse
from matplotlib.image import imread

from analysis import page as page_module
from analysis.page import most_interesting, write_page

NASTY = "<script>alert('x')</script> & \"quotes\" $\\frac$"


def upload(number: int, count: int = 40) -> tr.Reconstruction:
    """A plain TCP upload."""
    t = tr.Transfer(number=number, paths=[("2001:db8:1:2:3:4:5:6789", "2001:db8:ffff:ffff:ffff:ffff:ffff:1")])
    for index in range(count):
        t.send(index * 0.01, 0, index * tr.SIZE, up=True)
        t.acknowledge(index * 0.01 + 0.02, 0, (index + 1) * tr.SIZE, up=True)
    size = count * tr.SIZE
    return t.tables(transport="tcp", version=-1, subflows=1, payload_up=size, bytes_up=size, payload_down=0, bytes_down=0)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page of a handover and a TCP upload whose texts try to break out."""
    rec = tr.together(tr.handover(2), upload(1))
    rec.signals.loc[rec.signals["kind"] == "ADD_ADDR", "text"] = NASTY
    rec.findings.loc[0, "text"] = NASTY
    rec.connections.loc[0, "fallback"] = NASTY
    out = tmp_path_factory.mktemp("page") / "new folder" / "page.html"
    return write_page(tr.analysis(rec, f"{NASTY.replace('/', '|')}.pcap"), out)


DRIVER = """
<pre id="probe"></pre>
<script>
const host = document.querySelector(".dsn-plot"), plot = host.dsnPlot, over = host.querySelectorAll("canvas")[1];
const out = {}, edge = () => over.getBoundingClientRect();
const point = (type, x, y, more) => over.dispatchEvent(new PointerEvent(type, Object.assign(
  {bubbles: true, cancelable: true, clientX: edge().left + x, clientY: edge().top + y, pointerType: "mouse", pointerId: 7,
   button: 0}, more)));
const key = (name) => over.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const turn = (delta) => !over.dispatchEvent(new WheelEvent("wheel", {deltaY: delta, bubbles: true, cancelable: true,
  clientX: edge().left + 300, clientY: edge().top + 200}));
const press = (label) => host.querySelector(`button[aria-label="${label}"]`).click();
const legend = (text) => [...host.querySelectorAll(".dsn-key")].find((k) => k.textContent.includes(text)).click();
const ink = (r, g, b) => {
  plot.draw();
  const c = host.querySelector("canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let n = 0;
  for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - r) + Math.abs(d[i + 1] - g) + Math.abs(d[i + 2] - b) < 12;
  return n;
};
out.counts = plot.counts();
out.all = plot.view();
out.blue = ink(0, 114, 178); out.orange = ink(230, 159, 0);
legend("10.0.1.2"); out.withoutBlue = ink(0, 114, 178);
out.pressed = host.querySelector(".dsn-key").getAttribute("aria-pressed");
legend("10.0.1.2"); out.blueAgain = ink(0, 114, 178);
out.wheelUnfocused = turn(-300); out.afterUnfocused = plot.view();
over.focus(); out.wheelFocused = turn(-300); out.wheel = plot.view();
over.dispatchEvent(new MouseEvent("dblclick", {bubbles: true})); out.reset = plot.view();
const b = out.box = plot.box();
point("pointerdown", b.left + b.width / 4, b.top + 20); point("pointermove", b.left + b.width / 2, b.top + b.height - 20);
point("pointerup", b.left + b.width / 2, b.top + b.height - 20); out.drag = plot.view();
press("show everything");
point("pointerdown", b.left + b.width / 4, b.top + 90); point("pointermove", b.left + b.width / 2, b.top + 92);
point("pointerup", b.left + b.width / 2, b.top + 92); out.flat = plot.view();
key("0"); key("+"); key("+"); out.keys = plot.view();
key("ArrowRight"); out.right = plot.view(); key("-"); key("-"); out.minus = plot.view();
press("zoom in"); out.button = plot.view();
press("show the longest gap"); out.gap = plot.view(); plot.draw();
out.status = host.querySelector(".dsn-status").textContent;
plot.fit(1.0, 1.02); plot.draw();
const c = plot.box(); let found = null;
for (let x = c.left + 2; x < c.left + c.width - 2 && !found; x += 3)
  for (let y = c.top + 2; y < c.top + c.height - 2 && !found; y += 3) {
    const near = plot.nearest(x, y);
    if (near && near.name === "segment") { found = near; point("pointermove", x, y); }
  }
out.tip = host.querySelector(".dsn-tip").textContent; out.tipShown = !host.querySelector(".dsn-tip").hidden;
out.hit = found && {index: found.index};
plot.reset();
const two = (type, id, x) => point(type, x, 200, {pointerType: "touch", pointerId: id});
two("pointerdown", 1, 300); two("pointerdown", 2, 400); two("pointermove", 2, 500);
two("pointerup", 1, 300); two("pointerup", 2, 500);
out.pinch = plot.view();
out.width = document.documentElement.scrollWidth;
document.getElementById("probe").textContent = JSON.stringify(out);
</script></body>
"""


def probed(page: Path, folder: Path, *options: str) -> dict:
    """What the driver above says of a copy of the page whose policy lets it run."""
    probe = folder / "probe.html"
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    probe.write_text(html.replace("</body>", DRIVER))
    done = browse(probe, folder / "profile", *options, "--dump-dom")
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line]
    assert not said
    return json.loads(html_module.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)[1]))


@pytest.fixture(scope="module")
def driven(page, tmp_path_factory) -> dict:
    return probed(page, tmp_path_factory.mktemp("driven"), "--window-size=1280,900")


def width_s(view: dict) -> float:
    return view["x1"] - view["x0"]


def test_page_holds_every_segment_and_shows_all_at_first(driven):
    rec = tr.handover(2)
    assert driven["counts"] == {"segments": len(rec.segments), "acks": int((rec.acks["data_ack"] >= 0).sum())}
    assert driven["all"]["x0"] < 0 < 5.06 < driven["all"]["x1"]
    assert driven["all"]["y0"] <= 0
    assert driven["all"]["y1"] >= rec.segments["end"].max()


def test_legend_hides_a_subflow_and_brings_it_back(driven):
    assert driven["blue"] > 100
    assert driven["orange"] > 100
    assert driven["withoutBlue"] < 40  # the button's colour is not on the canvas; the gap's orange has no blue
    assert driven["pressed"] == "false"
    assert driven["blueAgain"] == driven["blue"]


def test_wheel_zooms_only_a_plot_one_is_in(driven):
    assert not driven["wheelUnfocused"]
    assert driven["afterUnfocused"] == driven["all"]
    assert driven["wheelFocused"]
    assert width_s(driven["wheel"]) == pytest.approx(width_s(driven["all"]) * 2.718281828 ** (-0.54), rel=1e-6)


def test_double_click_resets(driven):
    assert driven["reset"] == pytest.approx(driven["all"])


def test_drag_zooms_into_the_rectangle(driven):
    assert width_s(driven["drag"]) == pytest.approx(width_s(driven["all"]) / 4, rel=1e-6)
    quarter = driven["all"]["x0"] + width_s(driven["all"]) / 4
    assert driven["drag"]["x0"] == pytest.approx(quarter, rel=1e-6)
    edge_bytes = (driven["all"]["y1"] - driven["all"]["y0"]) * 20 / driven["box"]["height"]  # from 20 px to 20 px
    assert driven["drag"]["y0"] == pytest.approx(driven["all"]["y0"] + edge_bytes, rel=1e-6)
    assert driven["drag"]["y1"] == pytest.approx(driven["all"]["y1"] - edge_bytes, rel=1e-6)


def test_flat_drag_zooms_time_and_fits_the_height(driven):
    flat = driven["flat"]
    assert width_s(flat) == pytest.approx(width_s(driven["all"]) / 4, rel=1e-6)
    inside = tr.handover(2).segments
    seconds = (inside["time_ns"] - tr.START_NS) / 1e9
    inside = inside.loc[(seconds >= flat["x0"]) & (seconds <= flat["x1"])]
    assert flat["y0"] < inside["begin"].min()
    assert flat["y1"] > inside["end"].max()
    assert flat["y1"] - flat["y0"] < 1.25 * (inside["end"].max() - inside["begin"].min())


def test_keys_and_buttons(driven):
    assert width_s(driven["keys"]) == pytest.approx(width_s(driven["all"]) / 4, rel=1e-6)
    assert driven["right"]["x0"] == pytest.approx(driven["keys"]["x0"] + 0.2 * width_s(driven["keys"]), rel=1e-6)
    assert width_s(driven["minus"]) == pytest.approx(width_s(driven["all"]), rel=1e-6)
    assert width_s(driven["button"]) == pytest.approx(width_s(driven["all"]) / 2, rel=1e-6)
    assert width_s(driven["gap"]) == pytest.approx((2.41667 - 1.975) * 2.3, rel=1e-4)
    assert driven["gap"]["x0"] < 2.0 < 2.4 < driven["gap"]["x1"]
    assert driven["status"].startswith("Zoomed in to 1.02 s: ")
    assert "without new in-order data, 442 ms" in driven["status"]


def test_hover_tells_time_number_subflow_kind_and_frame(driven):
    assert driven["tipShown"]
    rec = tr.handover(2)
    row = rec.segments.iloc[driven["hit"]["index"]]
    lines = driven["tip"].split("\n")
    assert lines[0] == f"{(row.time_ns - tr.START_NS) / 1e9:.6f} s, first transmission"
    assert lines[1] == f"subflow {row.subflow} (10.0.{row.subflow + 1}.2)"
    assert lines[2].replace("\u202f", "") == f"bytes {row.begin} to {row.end} (1420)"
    assert lines[3] == f"DSN {(tr.CONNECTION['server_idsn'] + int(row.begin)) % 2**64}"
    packets = tr.together(rec, upload(1)).packets["time_ns"]
    assert int(lines[4].split()[1]) in [n + 1 for n in range(len(packets)) if packets[n] == row.time_ns]


def test_pinch_zooms(driven):
    assert width_s(driven["pinch"]) == pytest.approx(width_s(driven["all"]) / 2, rel=1e-6)


@pytest.mark.parametrize(("window", "limit"), [("1280,900", 1280), ("500,900", 500)])
def test_nothing_is_wider_than_the_window(page, tmp_path, window, limit):
    assert probed(page, tmp_path, f"--window-size={window}")["width"] <= limit


def test_browser_obeys_the_policy_and_has_nothing_to_complain(page, tmp_path):
    done = browse(page, tmp_path / "profile", "--dump-dom")
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert done.stdout.count('class="dsn-plot dsn-ready"') == 2
    shown = Elements(done.stdout).text
    assert NASTY in shown
    assert "JOIN" in shown


def test_file_is_self_contained_and_escaped(page):
    html = page.read_text()
    elements = Elements(html)
    assert not [t for t, _ in elements.tags if t in ("link", "iframe", "object", "base")]
    assert all(a["src"].startswith("data:image/") for _, a in elements.tags if "src" in a)
    assert all(a["href"].startswith("#") for _, a in elements.tags if "href" in a)
    code = [text for kind, text in elements.scripts if kind is None]
    assert len(code) == 1
    policy = next(a["content"] for t, a in elements.tags if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "<script>alert" not in html
    assert all(a.get("alt") for t, a in elements.tags if t == "img")
    for name in re.findall(r"https?://[^\s\"'<]+", html):
        assert name.startswith("http://www.w3.org/"), name


def test_without_scripts_there_is_a_picture_instead(page):
    html = page.read_text()
    fallbacks = re.findall(r"<noscript><figure><img src=\"data:image/png;base64,([^\"]+)\"", html)
    assert len(fallbacks) == 2
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data in fallbacks)


def test_tables_and_sections(page):
    elements = Elements(page.read_text())
    rows = [a["data-connection"] for _, a in elements.tags if "data-connection" in a]
    assert rows == ["0", "1"]
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert {"files", "connections", "connection-0", "connection-1", "reading"} <= set(ids)
    assert "mobility" not in ids
    for words in ("token 1f2e3d4c", "DSN 18446744073709547520", "verified", "1 warning", "[2001:db8:1:2:3:4:5:6789]:40000"):
        assert words in elements.text, words


def test_it_can_be_seen_and_printed(page, tmp_path):
    shot, pdf = tmp_path / "shot.png", tmp_path / "page.pdf"
    browse(page, tmp_path / "p1", "--window-size=1280,3000", "--hide-scrollbars", f"--screenshot={shot}")
    image = imread(shot)
    assert image.shape[:2] == (3000, 1280)
    assert image[:, :, :3].std() > 0.05
    browse(page, tmp_path / "p2", f"--print-to-pdf={pdf}")
    assert 4 <= len(re.findall(rb"/Type ?/Page\b", pdf.read_bytes())) <= 25


def test_only_the_most_interesting_get_figures_and_the_page_says_so(tmp_path):
    """A finding counts more than size; what is left out is told."""
    several = [upload(number, 3 + number) for number in range(9)]
    rec = tr.together(*several)
    rec.findings = pd.DataFrame(
        [(tr.START_NS, 0, 2, 0, "odd", "An error.", "error")], columns=list(tr.FINDING)
    )  # fmt: skip
    analysis = tr.analysis(rec)
    assert most_interesting(analysis) == [2, 8, 7, 6, 5, 4]
    html = write_page(analysis, tmp_path / "p.html").read_text()
    assert re.findall(r'<section id="connection-(\d)"', html) == ["2", "4", "5", "6", "7", "8"]
    assert "3 are not" in html


def test_table_of_connections_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "ROWS_MAX", 3)
    monkeypatch.setattr(page_module, "DETAILS_MAX", 1)
    html = write_page(tr.analysis(tr.together(*[upload(n, 3 + n) for n in range(5)])), tmp_path / "p.html").read_text()
    assert re.findall(r'<tr data-connection="(\d)"', html) == ["2", "3", "4"]
    assert "2 smaller connections are not in this table" in html


def test_nothing_in_the_captures(tmp_path):
    """A file without packets, damaged at its start."""
    analysis = tr.analysis(tr.Transfer().tables())
    analysis.rec.connections = analysis.rec.connections.iloc[:0]
    analysis.summary |= {"connections": [], "connections_total": 0, "connections_mptcp": 0}
    analysis.summary["files"][0] |= {"damage": "cut at byte 30", "packets": 0}
    text = Elements(write_page(analysis, tmp_path / "p.html").read_text()).text
    assert "damaged: cut at byte 30" in text
    assert "No TCP connection" in text
