"""How connections and subflows end, and that nothing is left of them: FIN, RST, FASTCLOSE, breaks, timers."""

import pytest

from agents.core.proxy.actions import Verdict
from agents.core.proxy.config import ProxyConfig
from agents.wire import mptcp
from agents.wire.mptcp import Fastclose, ResetReason, TcpRst
from agents.wire.tcp import ACK, FIN, RST, SYN, Segment
from tests.unit.agents.core.proxy.parts import NEAR, Out, Path
from tests.unit.agents.core.proxy.peer import Peer, pair


def options(segment: Segment) -> list[mptcp.Option]:
    return [mptcp.decode(option) for option in segment.mptcp]


def fins(peer: Peer, out: Out) -> dict[Path, int]:
    """s of the FINs that go to the network."""
    return {peer.path_of(segment): peer.s_network(segment)[0] for segment in out.network if segment.flags & FIN}


def end_both(peer: Peer) -> Out:
    """The host, then the peer finish at data level; what the last ACK of the host makes."""
    peer.host(flags=ACK | FIN)
    peer.far(dan=peer.near_next)
    peer.far_data_fin()
    return peer.host(ack=peer.far_next + 1)


# -- in order -----------------------------------------------------------------------------------------------------------


def test_the_hosts_end_is_a_data_fin_and_subflows_end_when_both_know() -> None:
    peer, a, b = pair()
    peer.goes_on()
    out = peer.host(flags=ACK | FIN)
    (segment,) = out.network
    assert not segment.flags & FIN
    assert segment.dss is not None
    assert (segment.dss.fin, segment.dss.length, segment.dss.ssn) == (True, 1, 0)
    assert peer.connection.state.value == "fin-wait-1"
    assert peer.tan_after(peer.far(dan=peer.near_next)) == peer.near_next
    assert peer.connection.state.value == "fin-wait-2"
    out = peer.far_data_fin()
    assert [segment.flags for segment in out.host] == [ACK | FIN]
    out = peer.host(ack=peer.far_next + 1)
    assert peer.data_ack == peer.far_next + 1
    assert peer.connection.state.value == "time-wait"
    ends = fins(peer, out)
    assert set(ends) == {a, b}
    for path in (a, b):
        answer = peer.far(path, san=ends[path] + 1, flags=ACK | FIN)
        assert not answer.host
        assert path.acked == path.next + 1
    assert not peer.connection.subflows
    assert not peer.wait(29).host
    peer.check_streams()
    peer.wait(2)
    peer.check_empty()


def test_the_peer_ends_first() -> None:
    peer, a, b = pair()
    peer.goes_on()
    assert [segment.flags for segment in peer.far_data_fin().host] == [ACK | FIN]
    peer.host(ack=peer.far_next + 1)
    assert peer.connection.state.value == "close-wait"
    assert peer.host(100).network[0].payload_length == 100, "this direction goes on"
    peer.host(flags=ACK | FIN)
    assert peer.connection.state.value == "last-ack"
    out = peer.far(dan=peer.near_next)
    assert peer.tan_after(out) == peer.near_next
    assert set(fins(peer, out)) == {a, b}
    peer.wait(100)
    peer.check_empty()


def test_both_end_at_once() -> None:
    peer, a, b = pair()
    peer.host(flags=ACK | FIN)
    out = peer.far_data_fin()
    assert [segment.flags for segment in out.host] == [ACK | FIN]
    peer.host(ack=2)
    assert peer.connection.state.value == "closing"
    out = peer.far(dan=2)
    assert peer.tan_after(out) == 2
    assert set(fins(peer, out)) == {a, b}
    peer.wait(100)
    peer.check_empty()


def test_the_end_goes_with_the_last_data_and_is_repeated_with_it() -> None:
    peer = Peer().open()
    out = peer.host(100, flags=ACK | FIN)
    assert [segment.payload_length for segment in out.network] == [100, 0]
    assert [segment.dss.fin for segment in out.network if segment.dss] in ([True], [False, True])
    out = peer.host(100, t=1, flags=ACK | FIN)
    assert sum(segment.payload_length for segment in out.network) == 100
    assert any(segment.dss and segment.dss.fin for segment in out.network)
    assert peer.tan_after(peer.far(san=101, dan=102)) == 102


def test_the_end_moves_with_the_data_when_its_subflow_breaks() -> None:
    peer, a, b = pair()
    peer.host(flags=ACK | FIN)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    out = peer.host(t=1, flags=ACK | FIN)
    assert [(peer.path_of(segment), segment.dss.fin) for segment in out.network if segment.dss] == [(b, True)]
    assert a not in peer.carrying()


def test_our_fins_are_repeated_with_back_off_and_given_up() -> None:
    peer = Peer(ProxyConfig(signal_tries=4, time_wait_s=30)).open()
    assert set(fins(peer, end_both(peer))) == {peer.first}
    begin, times = peer.now, []
    for _ in range(20):
        out = peer.wait(0.5)
        times += [peer.now - begin for segment in out.network if segment.flags & FIN]
    assert times == [0.5, 1.5, 3.5]
    assert not peer.connection.subflows
    peer.wait(30)
    peer.check_empty()


def test_segments_after_our_fin_have_the_number_behind_it() -> None:
    peer = Peer().open()
    ends = fins(peer, end_both(peer))
    out = peer.far_data_fin()
    assert {peer.s_network(segment)[0] for segment in out.network} == {ends[peer.first] + 1}


def test_a_closed_subflow_answers_the_peers_fin_again() -> None:
    peer = Peer().open()
    ends = fins(peer, end_both(peer))
    peer.far(san=ends[peer.first] + 1, flags=ACK | FIN)
    assert not peer.connection.subflows
    out = peer.far(san=ends[peer.first] + 1, flags=ACK | FIN)
    assert [segment.flags for segment in out.network] == [ACK]
    assert peer.far(flags=RST, dss=b"").silent


def test_the_peers_data_fin_again_is_acknowledged_again() -> None:
    peer = Peer().open()
    peer.far_data_fin()
    peer.host(ack=2)
    out = peer.far_data_fin()
    assert peer.data_ack == 2
    assert out.network


def test_a_late_reset_of_the_host_is_no_news() -> None:
    peer = Peer().open()
    end_both(peer)
    assert not peer.host(flags=RST).resets


# -- one subflow --------------------------------------------------------------------------------------------------------


def test_the_peer_closes_one_of_two_subflows() -> None:
    peer, a, b = pair()
    peer.goes_on()
    out = peer.far(b, flags=ACK | FIN)
    assert not out.host
    assert fins(peer, out) == {b: 1}
    assert b.acked == b.next + 1
    peer.far(b, s=b.next + 1, san=2)
    assert peer.carrying() == [a]
    peer.goes_on()
    peer.wait(100)
    assert len(peer.connection.subflows) == 1


def test_the_peer_closes_the_subflow_that_carries_the_data() -> None:
    peer, a, b = pair()
    peer.goes_on()
    peer.host(100)
    peer.far(a, flags=ACK | FIN)
    assert peer.active is b
    out = peer.host(100, t=peer.near_next - 100)
    assert sum(segment.payload_length for segment in out.network) == 100
    peer.acknowledge_all()
    peer.goes_on()


def test_the_peer_closes_the_last_subflow_and_comes_back() -> None:
    peer = Peer().accept()
    peer.goes_on()
    end = fins(peer, peer.far(flags=ACK | FIN))
    peer.far(s=peer.first.next + 1, san=end[peer.first] + 1)
    assert not peer.connection.subflows
    assert not peer.wait(30).host
    peer.joined()
    peer.goes_on()


def test_the_peer_closes_the_last_subflow_for_good() -> None:
    """Nothing carries the connection any more: it ends after the break limit, and the host is told."""
    peer = Peer(ProxyConfig(break_limit_s=60)).accept()
    peer.goes_on()
    end = fins(peer, peer.far(flags=ACK | FIN))
    peer.far(s=peer.first.next + 1, san=end[peer.first] + 1)
    out = peer.wait(70)
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()


def test_the_last_subflow_whose_fin_is_never_acknowledged() -> None:
    peer = Peer(ProxyConfig(break_limit_s=60)).accept()
    peer.far(flags=ACK | FIN)
    out = peer.wait(100)
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()


# -- resets -------------------------------------------------------------------------------------------------------------


def test_a_reset_of_the_host_is_a_fastclose_on_every_subflow() -> None:
    peer, a, b = pair()
    peer.goes_on()
    out = peer.host(flags=RST)
    assert {peer.path_of(segment) for segment in out.resets} == {a, b}
    for segment in out.resets:
        assert options(segment) == [Fastclose(peer.far_key), TcpRst(ResetReason.UNSPECIFIED)]
    peer.wait(1)
    peer.check_empty()


def test_a_fastclose_of_the_peer_is_a_reset_for_the_host() -> None:
    for flags in (ACK, RST | ACK):
        peer, a, b = pair()
        peer.goes_on()
        out = peer.far(b, flags=flags, dss=b"", options=mptcp.encode(Fastclose(peer.near_key)))
        assert [segment.flags & RST for segment in out.host] == [RST]
        assert peer.t_host(out.host[0])[0] == peer.near_ack, "RFC 5961: exactly what the host expects"
        if flags == ACK:
            assert {peer.path_of(segment) for segment in out.resets} == {a, b}
        peer.wait(1)
        peer.check_empty()


def test_a_reset_of_one_subflow_moves_its_data() -> None:
    peer, a, b = pair()
    peer.goes_on()
    peer.host(100)
    out = peer.far(a, flags=RST | ACK, dss=b"", options=mptcp.encode(TcpRst(5)))
    assert not out.host
    assert peer.active is b
    log = out.log("subflow-dead")
    assert log is not None
    assert log.fields["why"] == "reset, reason 5"
    peer.host(100, t=peer.near_next - 100)
    peer.acknowledge_all()
    peer.goes_on()


def test_after_the_last_subflow_is_reset_the_connection_waits_for_another_one() -> None:
    peer = Peer(ProxyConfig(break_limit_s=60)).open()
    peer.goes_on()
    assert not peer.far(flags=RST | ACK, dss=b"").host
    assert not peer.wait(50).host
    peer.join_finished(peer.act(lambda now, actions: peer.proxy.add_subflow(NEAR[1], now, actions)))
    peer.goes_on()
    assert not peer.wait(100).host, "it is whole again"


def test_the_break_limit() -> None:
    peer = Peer(ProxyConfig(break_limit_s=60)).open()
    peer.goes_on()
    peer.far(flags=RST | ACK, dss=b"")
    assert not peer.wait(59).host
    out = peer.wait(2)
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()
    assert peer.host(100).host[0].flags & RST, "what comes after it means nothing any more"


def test_joins_that_fail_do_not_prolong_the_break() -> None:
    peer = Peer(ProxyConfig(break_limit_s=20)).open()
    peer.goes_on()
    begin = peer.now
    peer.act(lambda now, actions: peer.proxy.handover(None, now, actions, address=NEAR[1], break_first=True))
    out = peer.wait(200)
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()
    assert peer.now == begin + 200


# -- timers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_host", [True, False])
def test_half_open(from_host: bool) -> None:
    peer = Peer(ProxyConfig(half_open_s=75))
    (peer.host_syn if from_host else peer.far_syn)()
    peer.wait(74)
    assert peer.proxy.status()["half_open"] == 1
    out = peer.wait(2)
    assert not out.network
    assert not out.host
    peer.check_empty()


def test_idle() -> None:
    peer, a, b = pair(ProxyConfig(idle_s=7440))
    peer.goes_on()
    peer.wait(7000)
    peer.goes_on()
    peer.wait(7000)
    peer.goes_on()
    out = peer.wait(7441)
    assert {peer.path_of(segment) for segment in out.resets} == {a, b}
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()


def test_one_side_has_ended_and_nothing_more_comes() -> None:
    peer = Peer(ProxyConfig(idle_s=7440)).open()
    peer.host(flags=ACK | FIN)
    peer.far(dan=2)
    peer.wait(7450)
    peer.check_empty()


def test_time_wait_ends_though_the_peer_is_gone() -> None:
    peer, _a, _b = pair(ProxyConfig(time_wait_s=30))
    end_both(peer)
    peer.wait(31)
    peer.check_empty()


def test_a_join_of_a_connection_that_ends_is_given_up_with_it() -> None:
    peer = Peer().open()
    peer.join_asked()
    end_both(peer)
    out = peer.wait(5)
    assert not any(segment.flags & SYN for segment in out.network)
    peer.wait(30)
    peer.check_empty()


def test_timers_do_not_pile_up() -> None:
    """A long connection that moves often keeps as many deadlines as it needs."""
    peer, _a, _b = pair(ProxyConfig(join_tries=2))
    for number in range(2000):
        peer.act(lambda now, actions, number=number: peer.proxy.handover(number % 2, now, actions))
        if number % 100 == 0:
            peer.goes_on(1)
        peer.addresses(0, 1)
        peer.now += 1
    assert len(peer.proxy._timers) < 200
    peer.goes_on()


def test_an_end_of_the_proxy_tells_both_sides() -> None:
    peer, a, b = pair()
    half = Peer(proxy=peer.proxy, port=7)
    half.host_syn()
    out = peer.act(lambda now, actions: peer.proxy.shut_down(actions))
    assert {peer.path_of(segment) for segment in out.resets} == {a, b}
    assert [segment.flags & RST for segment in out.host] == [RST]
    peer.check_empty()


def test_a_reset_connection_is_forgotten_at_once_and_its_ports_can_be_used_again() -> None:
    for _ in range(3):
        peer = Peer(ProxyConfig(connections_max=3))
        for number in range(10):
            again = Peer(proxy=peer.proxy, port=number)
            again.open().goes_on()
            again.host(flags=RST)
            again.wait(0.1)
        assert peer.proxy.counters["refused"] == 0
        peer.check_empty()


def test_a_port_is_used_again() -> None:
    """The same ends with new initial numbers: after the old connection's end, or in the middle of it."""
    for ended in (True, False):
        peer = Peer().open()
        peer.goes_on()
        if ended:
            end_both(peer)
        again = Peer(proxy=peer.proxy, near_isn=5, far_isn=77, seed=9).open()
        again.goes_on()
        assert again.proxy.status()["connections"] == 1
        again.join()
        again.goes_on()


def test_a_port_is_used_again_by_the_peer() -> None:
    peer = Peer().accept()
    peer.goes_on()
    end_both(peer)
    again = Peer(proxy=peer.proxy, near_isn=5, far_isn=77, far_key=b"far-key2").accept()
    again.goes_on()
    assert again.proxy.status()["connections"] == 1


def test_a_new_syn_in_the_middle_is_asked_for_proof() -> None:
    """RFC 5961 section 4.2: it may be an attack; the peer that has really lost its state answers with an RST."""
    peer = Peer().accept()
    peer.goes_on()
    again = Peer(proxy=peer.proxy, far_isn=77)
    out = peer.inbound(again.syn_packet(again.first.far, again.first.near, 77, 1, option=mptcp.encode(mptcp.Capable(1))))
    assert [(peer.path_of(segment), segment.flags, peer.s_network(segment)) for segment in out.network] == [
        (peer.first, ACK, (peer.near_next, peer.first.next))
    ]
    peer.goes_on()
    answer = peer.inbound(again.syn_packet(again.first.far, again.first.near, 77, 1)).network[0]
    peer.inbound(peer.first.packet(answer.ack - peer.first.far_isn, 0, RST, 0))
    assert not peer.connection.subflows
    fresh = Peer(proxy=peer.proxy, near_isn=5, far_isn=77, far_key=b"far-key2").accept()
    fresh.goes_on()


def test_nothing_that_is_not_tcp_is_touched() -> None:
    peer = Peer().open()
    for packet in (b"", b"\x45", bytes(40), b"\x60" + bytes(60), bytes([0x45]) + bytes(60)):
        assert peer.proxy.inbound(packet, peer.now, []) is Verdict.PASS
        assert peer.proxy.outbound(packet, peer.now, []) is Verdict.PASS
