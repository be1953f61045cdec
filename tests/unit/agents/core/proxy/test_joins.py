"""Further subflows, addresses and priorities: handshakes, retransmissions, refusals, commands and policies."""

import pytest

from agents.core.proxy.commands import CommandRefused
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.states import SubflowState
from agents.wire import mptcp
from agents.wire.mptcp import AddAddr, JoinAck, JoinSyn, JoinSynAck, Prio, RemoveAddr, ResetReason, TcpRst
from agents.wire.tcp import ACK, FIN, RST, SYN, Segment
from tests.unit.agents.core.proxy.parts import FAR, FAR6, NEAR, NEAR6, Out
from tests.unit.agents.core.proxy.peer import Peer, pair


def options(segment: Segment) -> list[mptcp.Option]:
    return [mptcp.decode(option) for option in segment.mptcp]


def all_options(out: Out) -> list[mptcp.Option]:
    return [option for segment in out.network for option in options(segment)]


# -- opened here --------------------------------------------------------------------------------------------------------


def test_this_host_joins() -> None:
    peer = Peer().open()
    path, out = peer.join_asked(NEAR[1])
    syn = out.network[0]
    (option,) = options(syn)
    assert isinstance(option, JoinSyn)
    assert (option.token, option.address_id, option.backup) == (mptcp.token(peer.far_key), 1, False)
    assert (syn.source, syn.mss, syn.window_scale, syn.sack_permitted) == (NEAR[1], 1460, 7, True)
    assert (syn.destination, syn.destination_port) == (FAR[0], 80)
    out = peer.join_answered(path, nonce=b"abcd")
    assert not out.host
    (third,) = out.network
    assert options(third) == [JoinAck(peer.mac_near(option.nonce, b"abcd")[:20])]
    assert third.flags == ACK
    assert peer.s_network(third) == (1, 1)
    assert peer.subflow(path).state is SubflowState.JOIN_CONFIRMING
    assert peer.far(path).silent
    assert peer.subflow(path).state is SubflowState.ESTABLISHED
    peer.goes_on()


def test_the_syn_is_repeated_with_back_off_and_given_up() -> None:
    peer = Peer(ProxyConfig(join_rto_s=0.5, join_tries=5)).open()
    peer.join_asked()
    begin, times = peer.now, []
    for _ in range(40):
        out = peer.wait(0.5)
        times += [peer.now - begin for segment in out.network if segment.flags & SYN]
        if out.log("subflow-dead"):
            break
    assert times == [0.5, 1.5, 3.5, 7.5]
    assert peer.now - begin == 15.5
    assert len(peer.connection.subflows) == 1
    peer.goes_on()


def test_the_third_ack_is_repeated_until_the_peer_says_something_at_data_level() -> None:
    peer = Peer().open()
    path, _out = peer.join_asked()
    peer.join_answered(path)
    first = peer.wait(0.6)
    assert [type(option) for option in all_options(first)] == [JoinAck]
    second = peer.wait(1.1)
    assert [type(option) for option in all_options(second)] == [JoinAck]
    peer.far(path)
    assert not peer.wait(20).network
    peer.goes_on()


def test_the_syn_ack_again_gets_the_third_ack_again() -> None:
    peer = Peer().open()
    path, _out = peer.join_asked()
    first = peer.join_answered(path)
    again = peer.join_answered(path)
    assert all_options(again) == all_options(first)
    peer.far(path)
    peer.goes_on()


def test_refused_by_the_peer() -> None:
    peer = Peer().open()
    path, _out = peer.join_asked()
    assert peer.inbound(path.packet(0, 1, RST | ACK, 0)).silent
    assert len(peer.connection.subflows) == 1
    assert not peer.wait(20).network
    peer.goes_on()


def test_data_before_the_fourth_ack_is_taken() -> None:
    peer = Peer().open()
    path, _out = peer.join_asked()
    peer.join_answered(path)
    assert peer.far(path, 100).host
    peer.host(ack=101)
    assert path.acked == 101
    peer.goes_on()


def test_a_subflow_over_ipv6_for_a_tcp_over_ipv4() -> None:
    peer = Peer(ProxyConfig(header_reserve=20)).open()
    with pytest.raises(CommandRefused, match="IP version"):
        peer.join_asked(NEAR6)
    peer.join_asked(NEAR6, remote=FAR6)
    path = next(path for path in peer.paths.values() if path.near[0] == NEAR6)
    peer.join_answered(path)
    peer.far(path)
    peer.goes_on()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    assert peer.active is path
    peer.goes_on()


# -- opened by the peer -------------------------------------------------------------------------------------------------


def test_the_peer_joins() -> None:
    peer = Peer().accept()
    path, out = peer.far_join_syn(nonce=b"wxyz", address_id=5, to=NEAR[1])
    assert not out.host
    (answer,) = out.network
    (option,) = options(answer)
    assert isinstance(option, JoinSynAck)
    assert option.mac == peer.mac_near(option.nonce, b"wxyz")[:8]
    assert option.address_id == 1
    assert (answer.flags, answer.ack) == (SYN | ACK, path.far_isn + 1)
    out = peer.far_join_ack(path, nonce=b"wxyz")
    assert not out.host
    assert [(segment.flags, segment.dss is not None) for segment in out.network] == [(ACK, True)], "the fourth ACK"
    assert peer.subflow(path).remote_id == 5
    peer.goes_on()


def test_our_syn_ack_is_repeated_and_given_up() -> None:
    peer = Peer().accept()
    path, _out = peer.far_join_syn()
    out = peer.wait(20)
    assert [segment.flags for segment in out.network if segment.flags & SYN] == [SYN | ACK] * 4
    assert out.log("subflow-dead") is not None
    assert peer.far_join_ack(path).resets
    peer.goes_on()


def test_the_join_syn_again_gets_the_same_answer() -> None:
    peer = Peer().accept()
    path, first = peer.far_join_syn()
    packet = peer.syn_packet(path.far, path.near, path.far_isn, peer.stamp_far(path),
                             option=mptcp.encode(JoinSyn(False, 1, mptcp.token(peer.near_key), b"far2")))  # fmt: skip
    again = peer.inbound(packet)
    assert all_options(again) == all_options(first)
    assert len(peer.connection.subflows) == 2
    peer.far_join_ack(path)
    assert peer.inbound(packet).silent
    peer.goes_on()


def test_a_lost_fourth_ack_is_asked_for_by_the_third_again() -> None:
    peer = Peer().accept()
    path = peer.joined()
    out = peer.far_join_ack(path)
    assert [segment.dss is not None for segment in out.network if peer.path_of(segment) is path] == [True]
    peer.goes_on()


def test_the_third_ack_may_carry_data() -> None:
    peer = Peer().accept()
    path, _out = peer.far_join_syn()
    assert peer.far(path, 100).silent, "data before the HMAC waits"
    path.next = peer.far_next = 1
    peer.far_join_ack(path)
    assert peer.far(path, 100, s=1, t=1).host
    peer.host(ack=101)
    peer.goes_on()


def test_subflows_are_limited_and_one_that_ends_makes_room() -> None:
    peer = Peer(ProxyConfig(subflows_max=3)).accept()
    b, _c = peer.joined(port=1), peer.joined(port=2)
    _path, out = peer.far_join_syn(port=3)
    assert options(out.resets[0]) == [TcpRst(ResetReason.PROHIBITED)]
    peer.far(b, flags=RST | ACK, dss=b"")
    peer.joined(port=4)
    with pytest.raises(CommandRefused, match="3 subflows already"):
        peer.join_asked()
    peer.goes_on()
    peer.act(lambda now, actions: peer.proxy.handover(2, now, actions))
    peer.act(lambda now, actions: peer.proxy.delete_subflow(0, now, actions))
    peer.join()
    peer.goes_on()


# -- addresses ----------------------------------------------------------------------------------------------------------


def announced(peer: Peer, address: bytes, address_id: int, port: int | None = None) -> bytes:
    bare = AddAddr(address_id, address, port)
    return mptcp.encode(AddAddr(address_id, address, port, mptcp.add_addr_mac(peer.far_key, peer.near_key, bare)))


def test_an_announced_address_is_echoed_and_can_be_joined() -> None:
    peer = Peer(flags=0x21).open()  # flag C: no joins at the initial address
    with pytest.raises(CommandRefused):
        peer.join_asked()
    out = peer.far(options=announced(peer, FAR[1], 7, 8080), dss=b"")
    assert all_options(out) == [AddAddr(7, FAR[1], 8080, b"", True)]
    assert not out.host
    path, _out = peer.join_asked()
    assert path.far == (FAR[1], 8080)
    peer.join_answered(path, address_id=7)
    peer.far(path)
    peer.goes_on()


def test_announced_addresses_are_bounded() -> None:
    peer = Peer().open()
    for number in range(1, 250):
        peer.far(options=announced(peer, bytes((10, 99, 0, number)), number), dss=b"")
    assert len(peer.connection.remote_ids) <= 16
    peer.goes_on()


def test_a_removed_address_ends_its_subflows() -> None:
    peer = Peer().accept()
    b = peer.joined(address_id=5)
    peer.goes_on()
    peer.host(100)
    out = peer.far(peer.first, options=mptcp.encode(RemoveAddr((5, 99))))
    assert out.log("subflow-dead") is not None
    assert b not in peer.carrying()
    peer.goes_on()


def test_the_last_subflow_survives_the_removal_of_its_address() -> None:
    peer = Peer().open()
    out = peer.far(options=mptcp.encode(RemoveAddr((0,))))
    assert out.why == "REMOVE_ADDR of the last subflow"
    peer.goes_on()


def test_own_addresses_are_announced_one_at_a_time_until_they_are_echoed() -> None:
    peer = Peer(ProxyConfig(announce=True, signal_tries=3))
    peer.addresses(0, 1, 2)
    peer.accept(confirm=False)
    out = peer.far_third_ack()
    first = all_options(out)
    assert [(option.address_id, option.address) for option in first if isinstance(option, AddAddr)] == [(1, NEAR[1])]
    assert isinstance(first[0], AddAddr)
    assert first[0].mac == mptcp.add_addr_mac(peer.near_key, peer.far_key, AddAddr(1, NEAR[1]))
    assert all_options(peer.wait(0.6)) == first
    echo = mptcp.encode(AddAddr(1, NEAR[1], None, b"", True))
    out = peer.far(options=echo, dss=b"")
    second = [*all_options(out), *all_options(peer.wait(0.6))]
    assert {option.address for option in second if isinstance(option, AddAddr)} == {NEAR[2]}
    later = all_options(peer.wait(60))
    assert len(second) + len(later) == 3, "then it is given up"
    assert not peer.connection.announcements
    peer.goes_on()


def test_address_ids_are_used_again() -> None:
    """A host that moves through more networks than there are ids."""
    peer = Peer().open()
    for number in range(600):
        address = bytes((10, 100 + number // 250, number % 250, 1))
        out = peer.act(lambda now, actions, address=address: peer.proxy.handover(
            None, now, actions, address=address, break_first=True))  # fmt: skip
        peer.join_finished(out, far_isn=number * 1000)
        ids = [subflow.local_id for subflow in peer.connection.subflows]
        assert len(set(ids)) == len(ids)
        assert all(0 <= each <= 255 for each in ids)
        if number % 50 == 0:
            peer.goes_on()
    peer.goes_on()
    assert peer.proxy.status()["subflows"] < 100
    assert len(peer.connection.local_ids) <= 256


# -- priorities ---------------------------------------------------------------------------------------------------------


def test_the_peer_moves_the_data_by_priorities() -> None:
    peer, a, b = pair()
    assert peer.active is a
    assert not peer.far(a, options=mptcp.encode(Prio(True))).host
    assert peer.active is b
    peer.goes_on()
    peer.far(a, options=mptcp.encode(Prio(False)))
    assert peer.active is b, "it has no reason to move back"
    peer.far(b, options=mptcp.encode(Prio(True)))
    assert peer.active is a
    peer.goes_on()


def test_a_backup_carries_data_only_when_nothing_else_is_left() -> None:
    peer = Peer().open()
    path, _out = peer.join_asked(backup=True)
    peer.join_answered(path, backup=True)
    peer.far(path)
    c = peer.join(NEAR[2])
    peer.far(peer.first, flags=RST | ACK, dss=b"")
    assert peer.active is c
    peer.far(c, flags=RST | ACK, dss=b"")
    assert peer.active is path
    peer.goes_on()


def test_priority_by_command() -> None:
    peer, a, b = pair()
    out = peer.act(lambda now, actions: peer.proxy.priority(0, True, now, actions))
    assert [(peer.path_of(segment), options(segment)) for segment in out.network] == [(a, [Prio(True)])]
    assert peer.active is b
    out = peer.act(lambda now, actions: peer.proxy.priority(0, False, now, actions))
    assert [options(segment) for segment in out.network] == [[Prio(False)]]
    peer.goes_on()


def test_a_better_subflow_takes_over_from_a_backup() -> None:
    peer, a, b = pair()
    peer.far(a, options=mptcp.encode(Prio(True)))
    assert peer.active is b
    peer.far(b, options=mptcp.encode(Prio(True)))
    last = peer.active
    other = a if last is b else b
    peer.far(other, options=mptcp.encode(Prio(False)))
    assert peer.active is other
    peer.goes_on()


def test_a_reset_in_the_handshake_of_a_join() -> None:
    peer = Peer().accept()
    path, _out = peer.far_join_syn()
    assert peer.inbound(path.packet(1, 1, RST | ACK, 0)).silent
    assert len(peer.connection.subflows) == 1
    assert not peer.wait(20).network
    peer.goes_on()


def test_flags_of_join_segments() -> None:
    peer = Peer().open()
    _path, out = peer.join_asked()
    assert [segment.flags & (SYN | ACK | FIN | RST) for segment in out.network] == [SYN]
