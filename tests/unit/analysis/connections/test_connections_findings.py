"""Oddities of handshakes and signalling, each from a hand-made scene that shows nothing else; and what real kernels do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from connection_findings import found, joined, only, texts
from connection_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    Scene,
    add_addr,
    capable,
    dss,
    fastclose,
    first_dsn,
    join_answer,
    join_hmac,
    join_syn,
    mp_fail,
    remove_addr,
    tcprst,
    token,
)

from analysis.connections import reconstruct
from analysis.connections.findings import find
from analysis.packets.reader import merge, read_captures

KERNEL = Path(__file__).parents[3] / "pcaps" / "kernel"


def test_a_sound_connection_has_no_findings():
    scene = Scene()
    first = scene.initial()
    second = joined(scene)
    for step in range(10):
        line, place = (first, step // 2) if step % 2 == 0 else (second, step // 2)
        line.data(200 + step, True, step * 1000, 1000, ssn=place * 1000 + 1)
        line.dack(205 + step, True, step * 1000 + 1000, place * 1000 + 1001)
    findings = found(scene)
    assert findings.empty, findings.to_string()
    assert list(findings.columns) == ["time_ns", "row", "connection", "subflow", "kind", "text", "weight"]


# --- handshake ---------------------------------------------------------------------------------------------------


def test_fallback_by_a_plain_syn_ack():
    scene = Scene()
    scene.line().handshake(0, capable())
    text = only(scene, "fallback")
    assert "10.0.1.1:1000 > 10.0.9.9:80" in text
    assert "the SYN/ACK carries no MP_CAPABLE: the server does not speak version 1, or it was removed" in text


def test_fallback_by_a_third_ack_without_option():
    scene = Scene()
    line = scene.line()
    line.handshake(0, capable(), capable(SERVER_KEY))
    line.send(20, True, size=100)
    assert "neither the third ACK nor the first data carry MP_CAPABLE" in only(scene, "fallback")


def test_a_third_ack_without_option_is_harmless_when_the_first_data_carry_it():
    scene = Scene()
    line = scene.line()
    line.handshake(0, capable(), capable(SERVER_KEY))
    line.send(20, True, size=100, options=capable(CLIENT_KEY, SERVER_KEY, length=100))
    line.dack(30, True, 100)
    assert texts(scene, "fallback") == []


def test_fallback_by_another_version():
    scene = Scene()
    scene.line().handshake(0, capable(), capable(SERVER_KEY, version=0), b"")
    assert "the client offered version 1, the server answered with version 0" in texts(scene, "fallback")[0]


def test_syn_ack_with_option_though_the_syn_has_none():
    scene = Scene()
    scene.line().handshake(0, b"", capable(SERVER_KEY))
    assert "removed from the SYN before this point" in texts(scene, "fallback")[0]


def test_blackholed_syn():
    scene = Scene()
    line = scene.line()
    for ms in (0, 1000, 2000):
        line.send(ms, True, "S", 0, options=capable())
    line.send(3000, True, "S", 0)
    line.send(3010, False, "SA", 0)
    line.send(3020, True, "A")
    assert "4 SYNs in all, one without it was answered after 3.01 s" in only(scene, "fallback")


def test_infinite_mapping_after_a_checksum_failure():
    scene = Scene()
    line = scene.initial()
    line.data(20, True, 0)
    line.send(30, False, acked=1, options=mp_fail(first_dsn(CLIENT_KEY)))
    line.send(40, True, "A", 1001, size=500, options=dss(0, first_dsn(CLIENT_KEY) + 1000, 1001, 0))
    assert "the client sent an infinite mapping after MP_FAIL (checksum failure)" in texts(scene, "fallback")[0]
    [failure] = texts(scene, "mp-fail")
    assert f"The server reports a wrong data checksum from DSN {first_dsn(CLIENT_KEY)}" in failure


def test_data_without_mapping():
    scene = Scene()
    first = scene.initial()
    second = joined(scene)
    first.data(200, True, 0)
    second.data(201, True, 1000, ssn=1)
    second.send(210, True, "A", 1001, size=700)
    first.data(220, True, 2000, ssn=1001)
    [text] = texts(scene, "unmapped-data")
    assert text.startswith("700 bytes in 1 segment on subflow 1 (10.0.2.1:1001 > 10.0.9.9:80) have no DSS mapping")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (tcprst(1), "reason 1 (MPTCP-specific error)"),
        (tcprst(2, True), "reason 2 (lack of resources, transient)"),
        (b"", "no MP_TCPRST"),
    ],
)
def test_join_refused_with_a_reset(option, reason):
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    line.send(100, True, "S", 0, options=join_syn(token(SERVER_KEY)))
    line.send(110, False, "RA", 0, options=option)
    assert only(scene, "join-refused") == f"MP_JOIN 10.0.2.1:1001 > 10.0.9.9:80: the peer refused it with RST, {reason}."


def test_join_refused_for_its_token():
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    line.send(100, True, "S", 0, options=join_syn(0xABCD1234))
    line.send(110, False, "RA", 0, options=tcprst(1))
    assert "token abcd1234 belongs to no connection seen here" in only(scene, "join-refused")


def test_join_refused_after_the_syn_ack():
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    mac = join_hmac(SERVER_KEY, CLIENT_KEY, 9, 7)
    line.send(100, True, "S", 0, options=join_syn(token(SERVER_KEY)))
    line.send(110, False, "SA", 0, options=join_answer(mac))
    line.send(111, False, "R", 1, options=tcprst(3))
    assert "the peer reset it after the SYN/ACK, reason 3 (administratively prohibited)" in only(scene, "join-refused")


def test_join_without_answer():
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    for ms in (100, 1100, 3100):
        line.send(ms, True, "S", 0, options=join_syn(token(SERVER_KEY)))
    assert only(scene, "join-unanswered").endswith("3 SYNs within 3.00 s, no answer.")


@pytest.mark.parametrize("step", ["SYN/ACK", "ACK"])
def test_join_with_a_wrong_hmac(step):
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    line.join(100, wrong=step)
    line.send(120, step == "SYN/ACK", "R", 1, options=tcprst(1))
    findings = found(scene)
    assert findings["kind"].tolist() == ["join-wrong-hmac"]
    assert findings["weight"].tolist() == ["error"]
    name = step if step == "SYN/ACK" else "third ACK"
    told = f"the HMAC of the {name} does not fit the keys of the connection, then RST with reason 1"
    assert told in findings["text"].iloc[0]


def test_join_answered_without_option():
    scene = Scene()
    scene.initial()
    line = scene.line("10.0.2.1:1001")
    line.handshake(100, join_syn(token(SERVER_KEY)))
    assert "the SYN/ACK carries no MP_JOIN" in only(scene, "join-stripped")


def test_syns_without_answer_refused_and_repeated():
    scene = Scene()
    scene.line("10.0.1.1:1").send(0, True, "S", 0)
    line = scene.line("10.0.1.1:2")
    line.send(10, True, "S", 0)
    line.send(11, False, "RA", 0)
    line = scene.line("10.0.1.1:3")
    line.send(20, True, "S", 0)
    line.handshake(1020)
    findings = found(scene)
    assert list(zip(findings["kind"], findings["connection"], strict=True)) == [
        ("syn-unanswered", 0), ("refused", 1), ("syn-repeated", 2),
    ]  # fmt: skip
    assert "answered 1.00 s after the first" in findings["text"].iloc[2] or "1.01 s" in findings["text"].iloc[2]


def test_reset_of_a_subflow_with_its_reason():
    scene = Scene()
    scene.initial()
    line = joined(scene)
    line.data(200, True, 0)
    line.dack(205, True, 1000)
    line.send(210, False, "R", options=tcprst(6))
    text = only(scene, "subflow-reset")
    assert text == "The server reset subflow 1 (10.0.2.1:1001 > 10.0.9.9:80) after 0.210 s, reason 6 (middlebox interference)."


def test_reset_after_both_fins_is_nothing():
    scene = Scene()
    line = scene.line()
    line.handshake(0)
    line.send(20, True, "FA", 1, 1)
    line.send(30, False, "FA", 1, 2)
    line.send(40, True, "R", 2)
    assert found(scene).empty


# --- signalling --------------------------------------------------------------------------------------------------


def test_fastclose():
    scene = Scene()
    line = scene.initial()
    line.send(250, True, "RA", options=fastclose(SERVER_KEY))
    line.send(251, True, "RA", options=fastclose(SERVER_KEY))
    assert only(scene, "fastclose") == "The client aborted the connection with MP_FASTCLOSE after 0.250 s."


def test_fastclose_with_a_wrong_key():
    scene = Scene()
    scene.initial().send(250, True, "A", options=fastclose(7))
    assert "MP_FASTCLOSE has another key than the receiver's" in texts(scene, "wrong-keys")[0]


def test_add_addr_that_is_never_echoed_nor_used():
    scene = Scene()
    line = scene.initial()
    for ms in (50, 60):
        line.send(ms, False, options=add_addr((SERVER_KEY, CLIENT_KEY), 5, "10.0.8.8"))
    line.send(2060, True)
    findings = found(scene)
    assert findings["text"].tolist() == [
        "ADD_ADDR id 5 10.0.8.8 of the server was sent 2 times and never echoed, in the 2.01 s left.",
        "ADD_ADDR id 5 10.0.8.8 of the server: no subflow was opened to or from this address in the 2.01 s left.",
    ]
    assert findings["weight"].tolist() == ["warning", "note"]


def test_add_addr_that_is_echoed_and_joined():
    scene = Scene()
    line = scene.initial()
    line.send(50, False, options=add_addr((SERVER_KEY, CLIENT_KEY), 5, "10.0.8.8"))
    line.send(60, True, options=add_addr(None, 5, "10.0.8.8", echo=True))
    scene.line("10.0.1.1:1001", "10.0.8.8:80", isn=(1, 2)).join(100)
    assert found(scene).empty


def test_add_addr_with_a_wrong_hmac():
    scene = Scene()
    line = scene.initial()
    line.send(50, False, options=add_addr((CLIENT_KEY, SERVER_KEY), 5, "10.0.8.8"))
    [text] = texts(scene, "add-addr-wrong-hmac")
    assert text.endswith("the receiver must ignore it (from the server, id 5).")


def test_removed_address_that_goes_on_carrying_data():
    scene = Scene()
    first = scene.initial()
    second = joined(scene)
    second.data(200, True, 0)
    first.send(300, True, options=remove_addr(1))
    second.data(400, True, 1000)
    second.data(2800, True, 2000)
    second.dack(2810, True, 3000)
    [text] = texts(scene, "remove-addr-in-use")
    assert text == (
        "The client removed its address id 1 (REMOVE_ADDR), but subflow 1 (10.0.2.1:1001 > 10.0.9.9:80) carried 2,000 bytes "
        "more (2,000 of them new), the last 2.50 s later."
    )


def test_removal_of_an_unknown_id():
    scene = Scene()
    scene.initial().send(300, True, options=remove_addr(9))
    assert "address id 9 (REMOVE_ADDR), which no subflow has and no ADD_ADDR announced" in only(scene, "remove-addr-unknown")


def test_keys_that_do_not_give_the_dsn():
    scene = Scene()
    line = scene.initial()
    line.send(20, True, "PA", 1, size=100, options=dss(0, 12345, 1, 100))
    assert texts(scene, "wrong-keys") or reconstruct(scene.table()).connections["keys"].iloc[0] != "wrong"


# --- real kernels ------------------------------------------------------------------------------------------------


def kernel(scenario: str, point: str = "client"):
    """Findings of a capture of Linux hosts."""
    facts = json.loads((KERNEL / f"{scenario}.json").read_text())
    files = [KERNEL / capture["file"] for capture in facts["captures"] if capture["point"] == point]
    return find(reconstruct(merge(read_captures(files))))


EXPECTED = {
    "fallback-synack": ("client", "fallback", "the SYN/ACK carries no MP_CAPABLE"),
    "fallback-ack": ("server", "fallback", "neither the third ACK nor the first data carry MP_CAPABLE"),
    "fallback-checksum": ("client", "mp-fail", "The server reports a wrong data checksum"),
    "fallback-dss": ("client", "fallback", "payload of the server carries no DSS from "),
    "join-refused": ("client", "join-refused", "the peer refused it with RST"),
    "join-limit": ("client", "join-refused", "reason 3 (administratively prohibited)"),
    "join-hmac": ("client", "join-wrong-hmac", "then RST with reason 1"),
    "join-ack-hmac": ("server", "join-wrong-hmac", "then RST with reason 1"),
    "join-token": ("server", "join-refused", "belongs to no connection seen here"),
    "join-synack-stripped": ("client", "join-stripped", "the SYN/ACK carries no MP_JOIN"),
    "join-stripped": ("client", "join-stripped", "the SYN/ACK carries no MP_JOIN"),
    "fastclose": ("client", "fastclose", "The client aborted the connection"),
    "fastclose-server": ("client", "fastclose", "The server aborted the connection"),
    "checksum-failure": ("client", "mp-fail", "The client reports a wrong data checksum"),
    "strip-joined": ("client", "subflow-reset", "reason 6 (middlebox interference)"),
}


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("scenario", EXPECTED)
def test_what_kernels_do_is_told(scenario, family):
    point, kind, part = EXPECTED[scenario]
    findings = kernel(f"{scenario}-{family}", point)
    told = findings.loc[findings["kind"] == kind, "text"].tolist()
    assert any(part in text for text in told), findings[["kind", "text"]].to_string()


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("scenario", ["checksums", "server-join", "close-half", "close-simultaneous", "short-numbers"])
def test_sound_connections_of_kernels_raise_no_alarm(scenario, family):
    findings = kernel(f"{scenario}-{family}")
    assert findings[findings["weight"] != "note"].empty, findings[["kind", "text"]].to_string()
