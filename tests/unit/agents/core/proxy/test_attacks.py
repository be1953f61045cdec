"""What an attacker sends, from beside the path and with what it can have seen; after each the connection goes on."""

from collections.abc import Callable

import pytest

from agents.core.proxy.actions import Verdict
from agents.core.proxy.config import ProxyConfig
from agents.wire import mptcp
from agents.wire.mptcp import AddAddr, Capable, Fail, Fastclose, JoinAck, JoinSyn, Prio, RemoveAddr, ResetReason, TcpRst
from agents.wire.tcp import ACK, FIN, RST, SYN
from tests.unit.agents.core.proxy.parts import FAR, NEAR, Out, far_bytes
from tests.unit.agents.core.proxy.peer import Peer, pair

FAR_AWAY = 50_000_000
"""Beyond every window."""


def told(peer: Peer, out: Out) -> None:
    """The attack has changed nothing."""
    assert not out.host, "the host has seen it"
    assert not out.resets
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


# -- joins --------------------------------------------------------------------------------------------------------------


def test_a_join_with_a_guessed_token() -> None:
    peer, _a, _b = pair()
    for token in (bytes(4), b"gues", mptcp.token(peer.far_key)):
        _path, out = peer.far_join_syn(token=token)
        assert [mptcp.decode(option) for option in out.network[0].mptcp] == [TcpRst(ResetReason.MPTCP_ERROR)]
        assert out.network[0].flags & RST
        assert out.answer is Verdict.DROP
    assert peer.proxy.counters["bad-tokens"] == 3
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


def test_a_refused_join_is_answered_as_tcp_does() -> None:
    peer, _a, _b = pair()
    path, out = peer.far_join_syn(token=b"none")
    assert (out.resets[0].seq, out.resets[0].ack, out.resets[0].flags) == (0, path.far_isn + 1, RST | ACK)


def test_a_wrong_proof_brings_no_data_in() -> None:
    peer = Peer(timestamps=False).accept()
    path, _out = peer.far_join_syn()
    packet = path.packet(1, 1, ACK, 512, mptcp.encode(JoinAck(bytes(20))) + peer.dss(t=1, s=1, length=10, ack=False), b"x" * 10)
    out = peer.inbound(packet)
    assert out.resets
    assert not out.host
    peer.goes_on()


def test_a_join_with_a_token_that_was_seen_but_without_the_keys() -> None:
    peer, _a, _b = pair()
    path, _out = peer.far_join_syn()
    assert peer.far(path, 100).silent, "no data before the proof"
    peer.far_next = path.next = 1
    peer.arrived_near = type(peer.arrived_near)()
    for option in (JoinAck(bytes(20)), JoinAck(peer.mac_near(peer.subflow(path).local_nonce, b"far2")[:20])):
        out = peer.far_join_ack(path, mac=option.mac)
        assert out.resets
        assert not out.host
        if option.mac == bytes(20):
            path, _out = peer.far_join_syn(port=50_001)
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


def test_a_third_ack_that_was_seen_proves_nothing_again() -> None:
    """Each join has a nonce of ours: the HMAC of an earlier one, with the same nonce of the peer, is wrong."""
    peer, _a, _b = pair()
    path, _out = peer.far_join_syn()
    seen = peer.mac_far(peer.subflow(path).local_nonce, b"far2")[:20]
    peer.far_join_ack(path, mac=seen)
    peer.far(path, flags=RST | ACK, dss=b"")
    for port in (50_000, 50_001):
        path, _out = peer.far_join_syn(port=port)
        assert peer.far_join_ack(path, mac=seen).resets
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


def test_a_syn_ack_without_the_keys() -> None:
    peer = Peer().open()
    peer.join()
    path, _out = peer.join_asked(NEAR[2])
    assert peer.join_answered(path, mac=bytes(8), ack=path.near_isn + 7).silent, "not even the number is right"
    assert peer.inbound(path.packet(0, 0, RST | ACK, 0)).silent
    assert len(peer.connection.subflows) == 3
    out = peer.join_answered(path, mac=bytes(8))
    assert [mptcp.decode(option) for option in out.resets[0].mptcp] == [TcpRst(ResetReason.MPTCP_ERROR)]
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


def test_a_reflected_join() -> None:
    """Our own SYN/ACK's HMAC sent back to us is not the peer's: the order of keys and nonces differs."""
    peer = Peer().open()
    peer.join()
    path, _out = peer.join_asked(NEAR[2])
    nonce = peer.subflow(path).local_nonce
    assert peer.join_answered(path, mac=peer.mac_near(nonce, nonce)[:8], nonce=nonce).resets
    peer.goes_on()


def test_joins_that_never_end() -> None:
    """Whoever has seen the token can take the places for some seconds, but no memory."""
    peer = Peer(ProxyConfig(subflows_max=8)).accept()
    for number in range(2000):
        path, _out = peer.far_join_syn(port=1000 + number % 30_000)
        if path.key in peer.paths and number % 2:
            peer.far_join_ack(path, mac=bytes(20))
    assert len(peer.connection.subflows) <= 8
    assert peer.proxy.status()["subflows"] < 100
    assert len(peer.proxy._timers) < 1000
    peer.wait(60)
    assert len(peer.connection.subflows) == 1
    peer.goes_on()
    peer.joined()
    peer.goes_on()


def test_joins_at_the_end_of_a_connection_are_limited_too() -> None:
    peer = Peer(ProxyConfig(subflows_max=4)).accept()
    peer.host(flags=ACK | FIN)
    peer.far(dan=2)
    peer.far_data_fin()
    peer.host(ack=2)
    assert peer.connection.state.value == "time-wait"
    for number in range(100):
        peer.far_join_syn(port=1000 + number)
    assert len(peer.connection.subflows) <= 4


# -- signalling from beside the path ------------------------------------------------------------------------------------

SIGNALS: dict[str, Callable[[Peer], bytes]] = {
    "REMOVE_ADDR": lambda peer: mptcp.encode(RemoveAddr((0, 1))),
    "FASTCLOSE": lambda peer: mptcp.encode(Fastclose(peer.near_key)),
    "PRIO": lambda peer: mptcp.encode(Prio(True)),
    "FAIL": lambda peer: mptcp.encode(Fail(mptcp.initial_dsn(peer.near_key) + 1)),
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("where", ["sequence number", "ACK", "both"])
def test_signalling_with_numbers_of_beside_the_path(name: str, where: str) -> None:
    peer, a, _b = pair()
    peer.goes_on()
    s = a.next + (FAR_AWAY if where != "ACK" else 0)
    san = a.san + (FAR_AWAY if where != "sequence number" else 0)
    active = peer.active
    out = peer.inbound(peer.far_packet(a, s, san, ACK, 512, [], SIGNALS[name](peer)))
    assert out.why == "outside the window"
    assert peer.active is active
    told(peer, out)


@pytest.mark.parametrize("key", [b"guessing", bytes(8)])
@pytest.mark.parametrize("flags", [ACK, RST | ACK, RST])
def test_a_fastclose_without_the_key(key: bytes, flags: int) -> None:
    peer, a, _b = pair()
    peer.goes_on()
    out = peer.far(a, dss=b"", flags=flags, options=mptcp.encode(Fastclose(key)))
    told(peer, out)


@pytest.mark.parametrize("distance", [-1000, -1, 1000, 60_000, 2**31])
def test_a_reset_with_an_inexact_number(distance: int) -> None:
    """RFC 5961 section 3.2: only the exact next number counts; one in the window is answered by an ACK."""
    peer, a, _b = pair()
    peer.goes_on(8)
    out = peer.inbound(a.packet(a.next + distance, a.san, RST, 0))
    assert all(segment.flags == ACK for segment in out.network)
    told(peer, out)


def test_a_syn_in_an_open_connection() -> None:
    peer, a, b = pair()
    peer.goes_on()
    for path in (a, b):
        out = peer.inbound(path.packet(12345, 0, SYN, 512))
        assert [segment.flags for segment in out.network] == [ACK]
        out = peer.inbound(path.packet(12345, 777, SYN | ACK, 512))
        assert not any(segment.flags & RST for segment in out.network)
    assert len(peer.connection.subflows) == 2
    peer.goes_on()


def test_a_reset_in_the_handshake_from_beside_the_path() -> None:
    peer = Peer()
    peer.host_syn()
    peer.inbound(peer.first.packet(0, 12345, RST | ACK, 0))
    peer.inbound(peer.first.packet(0, 0, RST, 0))
    peer.far_syn_ack()
    peer.near_key = peer.connection.local_key
    peer.host()
    peer.goes_on()
    peer = Peer().accept(confirm=False)
    peer.inbound(peer.first.packet(FAR_AWAY, 1, RST | ACK, 0))
    peer.inbound(peer.first.packet(FAR_AWAY, 0, RST, 0))
    peer.far_third_ack()
    peer.goes_on()


def test_an_ack_in_the_handshake_from_beside_the_path_causes_no_fallback() -> None:
    peer = Peer().accept(confirm=False)
    for s, san in ((1, 777), (FAR_AWAY, 777), (FAR_AWAY, 1)):
        assert peer.inbound(peer.first.packet(s, san, ACK, 512)).answer is not Verdict.RELEASE
    peer.far_third_ack()
    peer.goes_on()


def test_an_address_with_a_wrong_hmac() -> None:
    peer, a, _b = pair()
    right = mptcp.add_addr_mac(peer.far_key, peer.near_key, AddAddr(9, FAR[1]))
    for option in (AddAddr(9, FAR[1], None, bytes(8)), AddAddr(8, FAR[1], None, right), AddAddr(9, FAR[2], None, right),
                   AddAddr(9, FAR[1], 81, right)):  # fmt: skip
        out = peer.far(a, dss=b"", options=mptcp.encode(option))
        assert out.why == "ADD_ADDR with a wrong HMAC"
        assert not out.network
    assert set(peer.connection.remote_ids) == {0}
    peer.goes_on()


# -- mappings and acknowledgements --------------------------------------------------------------------------------------


def test_a_mapping_that_contradicts_an_earlier_one() -> None:
    peer, a, _b = pair()
    peer.far(a, 100)
    out = peer.far(a, s=51, dss=peer.dss(t=1000, s=51, length=100), payload=b"x" * 100)
    assert out.why == "a mapping contradicts an earlier one"
    told(peer, out)


def test_a_mapping_that_overlaps_and_says_the_same() -> None:
    peer, a, _b = pair()
    peer.far(a, 100)
    out = peer.far(a, 100, t=51, s=51)
    assert [peer.t_host(segment)[0] for segment in out.host] == [51]
    peer.host(ack=151)
    peer.goes_on()


def test_a_forged_mapping_of_another_byte_range_does_not_touch_what_is_acknowledged() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    out = peer.far(a, s=1, dss=peer.dss(t=5000, s=1, length=100), payload=b"x" * 100)
    assert not out.host
    peer.goes_on()


@pytest.mark.parametrize("distance", [2**31 + 1, 2**40, -(2**40)])
def test_a_mapping_far_outside_the_window(distance: int) -> None:
    peer, a, _b = pair()
    peer.goes_on()
    t = peer.far_next + distance
    out = peer.far(a, s=a.next, dss=peer.dss(t=t, s=a.next, length=100, wide=True), payload=b"x" * 100)
    assert out.why == "mapping far outside the window"
    told(peer, out)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("beyond", [1, 1000, 2**30])
def test_a_data_ack_for_what_was_not_sent(beyond: int, wide: bool) -> None:
    peer, a, _b = pair()
    peer.goes_on()
    peer.host(100)
    option = mptcp.encode_dss(mptcp.Dss(peer.idsn(peer.near_key) + peer.near_next + beyond, wide))
    out = peer.inbound(peer.far_packet(a, a.next, a.san, ACK, 512, [], option))
    assert out.why == "data ACK for what was not sent"
    told_tan = peer.tan
    assert told_tan == peer.near_next - 100
    told(peer, out)


def test_sack_blocks_for_what_was_not_sent() -> None:
    peer, a, _b = pair()
    peer.host(300)
    for blocks in ([(201, 5000)], [(150, 140)], [(2**31, 2**31 + 5)], [(301, 302)]):
        out = peer.far(a, san=101, dan=101, sack=blocks)
        assert all(not peer.blocks_host(segment) for segment in out.host)
    peer.goes_on()


def test_an_old_data_ack_and_an_old_ack_change_nothing() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    before = peer.tan
    out = peer.inbound(peer.far_packet(a, a.next, 1, ACK, 512, [], peer.dss(dan=1)))
    assert not out.host
    assert peer.tan == before
    peer.goes_on()


@pytest.mark.parametrize("options", [
    bytes((30, 0, 0, 0)), bytes((30, 1, 0, 0)), bytes((30, 40, 32, 1)), bytes((8, 0, 1, 1)), bytes((5, 200, 1, 1)),
], ids=["length 0", "length 1", "beyond the header", "timestamps of 0", "SACK of 200"])  # fmt: skip
def test_option_lengths_that_lie(options: bytes) -> None:
    peer, a, _b = pair(timestamps=False)
    peer.goes_on()
    out = peer.far(a, dss=b"", s=a.next, options=options, payload=b"x" * 10)
    assert out.why == "an option's length lies"
    told(peer, out)
    out = peer.inbound(peer.first.packet(FAR_AWAY, 1, SYN, 512, options))
    assert not out.host
    peer.goes_on()


@pytest.mark.parametrize("option", [
    bytes((30, 4, 0x20, 1)), bytes((30, 12, 0x20, 4)) + bytes(8), bytes((30, 3, 0x10)), bytes((30, 6, 0x30, 0, 0, 0)),
    bytes((30, 3, 0x40)), bytes((30, 4, 0x80, 0)), bytes((30, 4, 0xF0, 0)), bytes((30, 2, 1, 1)), bytes((30, 20)) + bytes(18),
])  # fmt: skip
def test_options_of_wrong_lengths_say_nothing(option: bytes) -> None:
    peer, a, _b = pair()
    peer.goes_on()
    before = len(peer.connection.remote_ids)
    peer.far(a, options=option, dss=b"")
    assert len(peer.connection.subflows) == 2
    assert len(peer.connection.remote_ids) == before
    peer.goes_on()


def test_data_outside_the_window() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    for distance in (FAR_AWAY, -FAR_AWAY, 2**31):
        s = a.next + distance
        out = peer.inbound(peer.far_packet(a, s, a.san, ACK, 512, [], peer.dss(t=peer.far_next, s=s, length=10), b"x" * 10))
        assert out.why == "outside the window"
        told(peer, out)


def test_segments_without_ack_are_no_segments() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    for flags in (0, FIN):
        out = peer.inbound(peer.far_packet(a, a.next, 0, flags, 512, [], b"", b"x" * 10))
        told(peer, out)


def test_a_fin_from_beside_the_path() -> None:
    peer, a, b = pair()
    peer.goes_on()
    told(peer, peer.inbound(b.packet(b.next + FAR_AWAY, b.san, ACK | FIN, 512)))
    told(peer, peer.inbound(a.packet(a.next, a.san + FAR_AWAY, ACK | FIN, 512)))


def test_a_fin_ahead_of_missing_data_closes_nothing() -> None:
    peer, _a, b = pair()
    peer.goes_on()
    out = peer.inbound(b.packet(b.next + 100, b.san, ACK | FIN, 512))
    assert not out.host
    assert len(peer.carrying()) == 2
    peer.goes_on()


# -- a restart ----------------------------------------------------------------------------------------------------------


def test_unknown_segments_are_reset_and_never_passed_on_untranslated() -> None:
    """After a restart of the proxy neither side's numbers mean anything to the other."""
    old, a, b = pair()
    old.goes_on()
    new = Peer()
    new.paths = old.paths
    for path in (a, b):
        for data in (b"", b"data"):
            out = new.inbound(path.packet(path.next, path.san, ACK, 512, b"", data))
            assert out.answer is Verdict.DROP
            assert not out.host
            assert [(segment.flags, segment.seq) for segment in out.network] == [(RST, path.near_isn + path.san)]
        assert new.inbound(path.packet(path.next, 0, RST, 0)).silent
    packet = old.host_packet(old.near_next, old.near_ack, ACK, 512, [], b"data")
    out = new.outbound(packet)
    assert out.answer is Verdict.DROP
    assert not out.network
    assert [(segment.flags, segment.seq) for segment in out.host] == [(RST, old.first.far_isn + old.near_ack)]
    new.check_empty()


def test_a_forged_capable_takes_no_open_connection() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    packet = peer.syn_packet(a.far, a.near, 4711, 1, option=mptcp.encode(Capable(1)))
    out = peer.inbound(packet)
    assert [segment.flags for segment in out.network] == [ACK]
    told(peer, out)
    join = peer.syn_packet(a.far, a.near, 4711, 1, option=mptcp.encode(JoinSyn(False, 3, mptcp.token(peer.near_key), b"none")))
    out = peer.inbound(join)
    assert [segment.flags for segment in out.network] == [ACK]
    told(peer, out)


def test_the_streams_are_different() -> None:
    """The comparison of bytes in all these tests would notice an exchange."""
    assert far_bytes(1, 8) != far_bytes(2, 8)
