"""Sequence charts and the timeline of bindings."""

from __future__ import annotations

import pandas as pd
import pytest
import transfers as tr
from hypothesis import given
from hypothesis import strategies as st

from analysis.charts import sequence_layout
from analysis.charts.bindings import ROWS_MAX, binding_timeline
from analysis.charts.sequence_layout import Message, Omitted, Quiet, arrange, count_messages, fold, lifelines, shortened
from analysis.charts.sequences import sequence_chart, sequence_pages
from analysis.charts.signalling import mobility_sequence_chart, mptcp_events, mptcp_sequence_chart
from analysis.style import PALETTE, save

MN, HA, FA = "10.0.1.2", "10.9.0.1", "10.0.1.1"


def events(rows):
    """rows: (seconds, source, target, label, kind)."""
    table = pd.DataFrame(rows, columns=["time_ns", "source", "target", "label", "kind"])
    table["time_ns"] = (table["time_ns"] * 1e9).astype("int64") + tr.START_NS
    return table


def of(figure, gid):
    return [t for t in figure.axes[0].texts if t.get_gid() == gid]


def labels(figure):
    return [t.get_text() for t in of(figure, "label")]


def arrows_of(figure):
    return [t for t in figure.axes[0].texts if getattr(t, "arrow_patch", None) is not None]


def touching(figure):
    """Pairs of texts that touch, and texts that leave the figure."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    drawn = [t for t in figure.axes[0].texts if t.get_text()]
    boxes = [t.get_window_extent(renderer) for t in drawn]
    pairs = [
        (drawn[i].get_text(), drawn[j].get_text()) for i in range(len(drawn)) for j in range(i) if boxes[i].overlaps(boxes[j])
    ]
    whole = figure.bbox
    outside = [
        t.get_text()
        for t, b in zip(drawn, boxes, strict=True)
        if b.x0 < whole.x0 or b.x1 > whole.x1 or b.y0 < 0 or b.y1 > whole.y1
    ]
    return pairs, outside


def registration(at_s, source=MN):
    return [(at_s, source, HA, "RRQ  lifetime 60", "RRQ"), (at_s + 0.03, HA, source, "RRP  accepted", "RRP")]


def test_arrows_go_from_sender_to_receiver():
    figure = sequence_chart(events(registration(0.0)))
    assert labels(figure) == ["RRQ  lifetime 60", "RRP  accepted"]
    places = {t.get_text(): t.get_position()[0] for t in of(figure, "lifeline")}
    assert list(places) == [MN, HA]
    arrows = arrows_of(figure)
    assert [(a.xyann[0], a.xy[0]) for a in arrows] == [(places[MN], places[HA]), (places[HA], places[MN])]
    assert [t.get_text() for t in of(figure, "time")] == ["0.0000 s", "0.0300 s"]


def test_repeated_exchanges_are_shown_once_with_their_number():
    rows = [row for n in range(12) for row in registration(2.0 * n)]
    figure = sequence_chart(events(rows))
    assert len(labels(figure)) == 2
    assert [t.get_text() for t in of(figure, "repeats")] == ["12 times,\nuntil 22.0300 s"]
    assert not touching(figure)[0]


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_folding_loses_no_message(keys):
    messages = [Message(n, "x", "y", key, "k") for n, key in enumerate(keys)]
    folded = fold(messages)
    unfolded: list[str] = []
    block: list[Message] = []
    for m in [*folded, None]:
        if block and (m is None or m.block != block[0].block):
            unfolded += [b.label for b in block] * block[0].repeats
            block = []
        if m is not None:
            block.append(m)
    assert unfolded == keys
    assert count_messages(folded) == len(keys)
    assert all(m.until_ns >= m.time_ns for m in folded)


def test_long_pauses_take_one_row():
    items = arrange(events([*registration(0.0), *registration(100.0)]))
    assert [type(i) for i in items] == [Message, Message, Quiet, Message, Message]
    assert items[2].seconds == pytest.approx(99.97)
    figure = sequence_chart(events([*registration(0.0), *registration(100.0)]))
    assert [t.get_text() for t in of(figure, "pause")] == ["100 s without signalling"]


def unlike(count):
    return events([(n * 0.1, MN, HA, f"message {n}", "m") for n in range(count)])


def test_long_charts_are_shortened_in_the_middle_and_say_so():
    figure = sequence_chart(unlike(500), rows_max=30)
    shown = labels(figure)
    assert shown[0] == "message 0"
    assert shown[-1] == "message 499"
    assert len(shown) == 29
    assert [t.get_text() for t in of(figure, "pause")] == ["471 messages not shown"]
    assert count_messages(shortened(arrange(unlike(500)), 30)) == 500


def test_pages_show_everything():
    pages = sequence_pages(unlike(150), title="all", rows_per_page=60)
    assert [len(labels(page)) for page in pages] == [60, 60, 30]
    assert [label for page in pages for label in labels(page)] == [f"message {n}" for n in range(150)]
    assert "all (page 2 of 3)" in [t.get_text() for t in pages[1].axes[0].texts]
    assert len(sequence_pages(unlike(1000), rows_per_page=60, pages_max=2)) == 2


def test_a_flood_is_cut_and_counted(monkeypatch):
    monkeypatch.setattr(sequence_layout, "EVENTS_MAX", 100)
    items = arrange(unlike(250))
    assert items[-1] == Omitted(150)
    assert count_messages(items) == 250


def test_lifelines_of_a_host_stand_together():
    rows = [(0, "a1", "b1", "x", "k"), (1, "a2", "b1", "x", "k"), (2, "c", "a1", "y", "k")]
    columns = lifelines(arrange(events(rows)), {"a1": "A", "a2": "A", "b1": "B"})
    assert [(c.name, c.host) for c in columns] == [("a1", "A"), ("a2", "A"), ("b1", "B"), ("c", "")]
    figure = sequence_chart(events(rows), {"a1": "A", "a2": "A", "b1": "B"})
    assert [t.get_text() for t in of(figure, "host")] == ["A", "B"]


def test_more_addresses_than_columns():
    rows = [(n * 0.1, f"10.0.0.{n}", HA, f"hello {n}", "k") for n in range(40)]
    figure = sequence_chart(events(rows))
    names = [t.get_text() for t in of(figure, "lifeline")]
    assert len(names) == sequence_layout.LIFELINES_MAX
    assert "other addresses" in " ".join(names)
    assert HA in names
    assert not touching(figure)[1]


IPV6 = (
    "2001:db8:1111:2222:3333:4444:5555:6666",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe",
    "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1",
)


@pytest.mark.parametrize("length", [5, 60, 200])
def test_texts_neither_touch_nor_leave_the_figure(length):
    """Long addresses, long labels, repetitions, pauses, messages to itself."""
    rows = []
    for n in range(14):
        a, b = IPV6[n % 3], IPV6[(n + 1 + (n == 5)) % 3]
        rows.append((n * 0.4 + (30 if n > 7 else 0), a, b, f"{n} " + "MW" * (length // 2), f"kind number {n % 5}"))
    rows.append((60, IPV6[0], IPV6[0], "to itself " + "x" * length, "self"))
    rows += [(61 + n, IPV6[0], IPV6[1], "again", "kind number 1") for n in range(7)]
    figure = sequence_chart(events(rows), {IPV6[0]: "mobile node", IPV6[1]: "h" * 80}, title="t" * 200)
    pairs, outside = touching(figure)
    assert not pairs
    assert not outside


def test_nothing_to_show(tmp_path):
    figure = sequence_chart(events([]))
    assert [t.get_text() for t in figure.axes[0].texts] == ["no signalling"]
    save(figure, tmp_path / "f")
    assert len(sequence_pages(events([]))) == 1


def test_texts_of_strangers_are_no_formulas(tmp_path):
    save(sequence_chart(events([(0, "$\\frac$", "<b>", "$x^$\n\x07", "$k_$")]), title="$\\undefined$"), tmp_path / "f")


# --- MPTCP ---


def test_who_sent_which_option():
    rec = tr.handover()
    table, hosts = mptcp_events(rec, 0)
    assert hosts == {"10.0.1.2": "client", "10.0.2.2": "client", "10.0.9.2": "server"}
    rows = list(table[["source", "target", "label", "kind"]].itertuples(index=False, name=None))
    assert rows[1] == ("10.0.9.2", "10.0.1.2", "MP_CAPABLE SYN/ACK  key 1", "subflow 0")
    assert rows[3] == ("10.0.2.2", "10.0.9.2", "MP_JOIN SYN  token 5b6a7988", "subflow 1")
    assert ("10.0.9.2", "10.0.2.2", "ADD_ADDR  id 3 10.0.8.2", "subflow 1") in rows
    figure = mptcp_sequence_chart(rec, 0)
    assert len(labels(figure)) == len(rec.signals)
    assert of(figure, "time")[0].get_text() == "0.0000 s"
    assert not touching(figure)[0]


def test_a_subflow_opened_by_the_server_starts_there():
    t = tr.Transfer()
    t.signal(0.0, 1, "MP_JOIN SYN", from_client=False)
    rec = t.tables()
    rec.flows.loc[1, ["client", "server", "opened_by_client"]] = ["10.0.9.2", "10.0.2.2", False]
    table, hosts = mptcp_events(rec, 0)
    assert table.loc[0, ["source", "target"]].tolist() == ["10.0.9.2", "10.0.2.2"]
    assert hosts["10.0.2.2"] == "client"


def test_one_address_on_both_sides_gives_two_lifelines():
    t = tr.Transfer(paths=[("127.0.0.1", "127.0.0.1")])
    t.signal(0.0, 0, "MP_CAPABLE SYN")
    table, hosts = mptcp_events(t.tables(), 0)
    assert table.loc[0, ["source", "target"]].tolist() == ["127.0.0.1 (client)", "127.0.0.1 (server)"]
    assert hosts == {"127.0.0.1 (client)": "client", "127.0.0.1 (server)": "server"}


def test_wrong_authentication_and_repetitions_are_visible():
    t = tr.Transfer()
    t.signal(0.0, 1, "MP_JOIN ACK", text="id 2")
    t.signal(0.1, 1, "MP_JOIN ACK", text="id 2", repeated=True)
    rec = t.tables()
    rec.signals.loc[0, "verified"] = "wrong"
    figure = mptcp_sequence_chart(rec, 0)
    assert labels(figure) == ["MP_JOIN ACK  id 2  ✗ HMAC wrong", "MP_JOIN ACK  id 2 (again)"]
    first, second = (arrow.arrow_patch.get_linestyle() for arrow in arrows_of(figure))
    assert first == "-"
    assert second != "-"


# --- Mobile IP ---


def test_mobility_chart_leaves_out_copies_of_other_points():
    messages = pd.DataFrame(
        [
            (0, MN, FA, "RRQ", "home 10.9.0.5", False),
            (1000, MN, FA, "RRQ", "home 10.9.0.5", True),
            (2_000_000, FA, HA, "RRQ", "", False),
        ],
        columns=["time_ns", "src", "dst", "kind", "text", "copy"],
    )
    assert labels(mobility_sequence_chart(messages)) == ["RRQ  home 10.9.0.5", "RRQ"]
    assert len(labels(mobility_sequence_chart(messages.drop(columns="copy")))) == 3
    assert labels(mobility_sequence_chart(messages.iloc[:1].assign(text="RRQ lifetime 5"))) == ["RRQ lifetime 5"]


HOME = "10.9.0.5"
BINDINGS = pd.DataFrame(
    [
        (HOME, "10.0.1.2", 1, 0, 5_000_000_000, "expired", HA),
        (HOME, "10.0.2.2", 2, 2_000_000_000, 9_000_000_000, "end of capture", HA),
        (HOME, "10.0.1.2", 1, 6_000_000_000, 7_000_000_000, "deregistered", HA),
        ("2001:db8::5", "2001:db8:1::5", 0, 1_000_000_000, -1, "", HA),
    ],
    columns=["home_address", "care_of_address", "bid", "from_ns", "to_ns", "ended", "peer"],
)


def bars(figure):
    return [(round(p.get_y() + p.get_height() / 2), p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches]


def test_bindings_are_bars_by_care_of_address_and_bid():
    figure = binding_timeline(BINDINGS, 0, 10_000_000_000)
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert names == [f"home {HOME}\n10.0.1.2  BID 1", "10.0.2.2  BID 2", "home 2001:db8::5\n2001:db8:1::5"]
    assert bars(figure) == [(0, 0, 5), (0, 6, 7), (1, 2, 10), (2, 1, 10)]
    assert {"expired", "deregistered"} <= {t.get_text() for t in figure.axes[0].texts}
    colours = [p.get_facecolor()[:3] for p in figure.axes[0].patches]
    assert colours[0] == colours[1] != colours[2]
    assert len(figure.axes[0].lines) == 2  # the open ends


def test_peers_are_named_when_there_are_several():
    several = BINDINGS.assign(peer=["10.9.0.1", "10.8.0.1", "10.9.0.1", "10.9.0.1"])
    names = [t.get_text() for t in binding_timeline(several).axes[0].get_yticklabels()]
    assert f"home {HOME} at 10.8.0.1\n10.0.2.2  BID 2" in names


def test_without_limits_the_axis_covers_the_bindings():
    figure = binding_timeline(BINDINGS)
    assert figure.axes[0].get_xlim() == (0, pytest.approx(9 * 1.06))


def test_odd_bindings(tmp_path):
    save(binding_timeline(BINDINGS.iloc[:0]), tmp_path / "none")
    save(binding_timeline(BINDINGS.iloc[:1].assign(to_ns=0)), tmp_path / "empty")
    many = pd.concat([BINDINGS.iloc[[0]].assign(care_of_address=f"10.0.0.{n}", from_ns=n) for n in range(ROWS_MAX + 9)])
    figure = binding_timeline(many)
    assert len(figure.axes[0].get_yticklabels()) == ROWS_MAX
    assert "9 more rows not shown" in figure.axes[0].get_xlabel()
    assert PALETTE[0] is not None
