"""From the host to the network: ACKs for the right subflows (paper section 3.4), retransmissions, reservations, windows."""

import pytest

from agents.core.proxy.actions import Action, Deliver
from agents.core.proxy.config import ProxyConfig
from agents.wire import mptcp
from agents.wire.checksum import folded, ones_sum
from agents.wire.mptcp import Capable
from agents.wire.tcp import ACK, PSH
from tests.proxy.packets import sealed
from tests.unit.agents.core.proxy.parts import FAR, FAR_KEY, NEAR, Out, Path, near_bytes
from tests.unit.agents.core.proxy.peer import Peer, pair


def sans(peer: Peer, out: Out) -> dict[Path, int]:
    """SAN by path of what goes to the network."""
    return {peer.path_of(segment): peer.s_network(segment)[1] for segment in out.network}


# -- ACKs ---------------------------------------------------------------------------------------------------------------


def test_only_subflows_that_contributed_are_acknowledged() -> None:
    peer, a, b = pair()
    peer.far(a, 100)
    assert sans(peer, peer.host(ack=101)) == {a: 101}
    peer.far(b, 50)
    assert sans(peer, peer.host(ack=151)) == {b: 51}
    peer.goes_on()


def test_the_example_of_section_3_4() -> None:
    """Of one octet each: the host acknowledges up to 13 what has come by two subflows: each gets the ACK of its part."""
    peer, a, b = pair()
    for t, path in [(1, a), (2, a), (3, b), (4, a), (5, b), (6, b), (7, a), (8, a), (9, b), (10, b), (11, a), (12, b)]:
        out = peer.far(path, 1, t=t)
        assert [peer.t_host(segment)[0] for segment in out.host] == [t]
    out = peer.host(ack=13)
    assert sans(peer, out) == {a: 7, b: 7}
    assert {segment.dss.ack for segment in out.network if segment.dss} == {(mptcp.initial_dsn(FAR_KEY) + 13) & 0xFFFFFFFF}
    assert all(segment.flags == ACK and not segment.payload_length for segment in out.network)


def test_a_gap_of_the_data_stops_only_the_subflow_that_lies_behind_it() -> None:
    peer, a, b = pair(sack=False)
    peer.far(a, 10, t=1)
    peer.far(b, 10, t=21)
    out = peer.host(ack=11)
    assert sans(peer, out) == {a: 11}


def test_sack_blocks_go_to_the_subflow_of_the_data() -> None:
    peer, a, b = pair()
    peer.far(a, 10, t=1)
    peer.far(b, 10, t=21)
    peer.far(b, 10, t=31, s=21)  # s 11 to 20 of b are missing
    out = peer.host(ack=11, sack=[(21, 41)])
    assert sans(peer, out) == {a: 11, b: 11}
    blocks = {peer.path_of(segment): peer.blocks_network(segment) for segment in out.network}
    assert blocks == {a: [], b: [(21, 31)]}


def test_payload_and_acknowledgement_of_one_packet_go_to_different_subflows() -> None:
    peer, a, b = pair()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.far(a, 100)
    out = peer.host(200, ack=101)
    by_path = {peer.path_of(segment): segment for segment in out.network}
    assert by_path[a].payload_length == 0
    assert peer.s_network(by_path[a])[1] == 101
    assert bytes(by_path[b].payload) == near_bytes(1, 200)
    assert peer.s_network(by_path[b])[1] == 1
    assert peer.path_of(out.network[0]) is b, "the payload takes the place of the packet"


def test_payload_carries_the_acknowledgement_of_its_own_subflow() -> None:
    peer, a, _b = pair()
    peer.far(a, 100)
    out = peer.host(200, ack=101)
    assert len(out.network) == 1
    assert peer.s_network(out.network[0]) == (1, 101)


@pytest.mark.parametrize("sack", [True, False])
def test_a_duplicate_ack_goes_where_data_is_not_acknowledged(sack: bool) -> None:
    """With SACK it is told by blocks, which are news each time; without it, by repetition; but only on the subflow behind."""
    peer, a, b = pair(sack=sack)
    peer.far(a, 10)
    peer.host(ack=11)
    peer.far(b, 10, t=21)
    for more in (0, 10):
        peer.far(b, 10, t=31 + more)
        out = peer.host(ack=11, sack=[(21, 41 + more)] if sack else None)
        assert set(sans(peer, out)) == {b}
    assert peer.host(ack=11, sack=[(21, 51)]).silent == sack


def test_a_duplicate_ack_that_nothing_asks_for_goes_nowhere() -> None:
    peer, a, b = pair()
    peer.far(a, 10)
    peer.far(b, 10)
    peer.host(ack=21)
    for _ in range(5):
        assert peer.host(ack=21).silent


def test_a_retransmission_of_the_peer_is_answered_on_its_subflow_once() -> None:
    peer, a, b = pair()
    peer.far(a, 10)
    peer.far(b, 10)
    peer.host(ack=5, t=1)
    out = peer.far(b, 10, t=11, s=1)  # again, not yet acknowledged
    assert peer.t_host(out.host[0])[0] == 11
    assert set(sans(peer, peer.host(ack=5))) == {b}
    assert peer.host(ack=5).silent


def test_the_peer_repeats_what_was_acknowledged_and_is_told_again() -> None:
    peer, a, _b = pair()
    peer.far(a, 10)
    peer.host(ack=11)
    out = peer.far(a, 10, t=1, s=1)
    assert sans(peer, out) == {a: 11}
    assert not out.host


def test_a_window_update_goes_once_to_where_the_data_comes_from() -> None:
    peer, a, b = pair()
    peer.far(b, 10)
    peer.host(ack=11)
    out = peer.host(ack=11, window=600)
    assert [(peer.path_of(segment), segment.window) for segment in out.network] == [(b, 600)]
    assert peer.host(ack=11, window=600).silent
    assert not a.got


def test_an_ack_for_what_did_not_arrive_is_ignored() -> None:
    peer = Peer().open()
    peer.far(data=100)
    peer.outbound(peer.host_packet(1, 102, ACK, 512, []))
    assert peer.connection.ack == 1
    peer.goes_on()


def test_a_keepalive_goes_out_as_one_and_its_answer_comes_back() -> None:
    peer = Peer().open()
    peer.goes_on()
    out = peer.host(t=peer.near_next - 1)
    assert [peer.s_network(segment)[0] for segment in out.network] == [peer.near_next - 1]
    answer = peer.far()
    assert [peer.t_host(segment) for segment in answer.host] == [(peer.far_next, peer.near_next)]
    assert not peer.far().host, "a second one answers nothing"


def test_a_probe_of_the_peer_is_shown_to_the_host_and_answered_on_its_subflow() -> None:
    peer, a, b = pair()
    peer.goes_on()
    out = peer.far(b, s=b.next - 1)
    assert [peer.t_host(segment)[0] for segment in out.host] == [peer.far_next - 1]
    assert sans(peer, peer.host()) == {b: b.next}
    assert peer.host().silent
    assert a.acked == a.next


# -- data ---------------------------------------------------------------------------------------------------------------


def test_new_data_is_mapped_one_to_one_on_the_first_subflow() -> None:
    peer = Peer().open(confirm=False)
    first = peer.host(100).network[0]
    option = mptcp.decode(first.mptcp[0])
    assert option == Capable(1, 1, peer.near_key, FAR_KEY, 100)
    assert first.flags == ACK | PSH
    peer.far(san=101, dan=101)
    later = peer.host(50).network[0]
    assert later.dss is not None
    assert not later.mptcp
    assert (later.dss.ssn, later.dss.length) == (101, 50)


def test_a_retransmission_stays_on_its_subflow_while_that_lives() -> None:
    peer, a, b = pair()
    peer.host(300)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    assert peer.active is b
    out = peer.host(100, t=101)
    assert [(peer.path_of(segment), peer.s_network(segment)[0]) for segment in out.network] == [(a, 101)]
    out = peer.host(100)
    assert [(peer.path_of(segment), peer.s_network(segment)[0]) for segment in out.network] == [(b, 1)]


def test_a_retransmission_that_spans_two_mappings_is_cut() -> None:
    peer, a, b = pair()
    peer.host(100)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.host(100)
    out = peer.host(100, t=51)
    found = {peer.path_of(segment): (peer.s_network(segment)[0], bytes(segment.payload)) for segment in out.network}
    assert found == {a: (51, near_bytes(51, 50)), b: (1, near_bytes(101, 50))}
    peer.acknowledge_all()
    assert peer.tan == 201


def test_after_a_break_it_goes_to_the_active_subflow_with_a_new_place() -> None:
    peer, _a, b = pair()
    peer.host(300)
    peer.far(peer.first, san=101, dan=101)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    out = peer.host(100, t=101)
    assert [(peer.path_of(segment), peer.s_network(segment)[0]) for segment in out.network] == [(b, 1)]
    again = peer.host(100, t=101)
    assert [(peer.path_of(segment), peer.s_network(segment)[0]) for segment in again.network] == [(b, 1)]
    peer.host(100, t=201)
    peer.acknowledge_all()
    assert peer.tan == 301
    peer.goes_on()


def test_without_sack_what_went_down_is_reserved_in_order() -> None:
    """Else the host's new data before its retransmissions would make a mapping that only selective ACKs can describe."""
    peer, _a, b = pair(sack=False)
    peer.host(300)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    assert peer.s_network(peer.host(100).network[0])[0] == 301
    assert peer.s_network(peer.host(100, t=101).network[0])[0] == 101
    assert peer.s_network(peer.host(100, t=1).network[0])[0] == 1
    assert peer.s_network(peer.host(100, t=201).network[0])[0] == 201
    assert list(b.got) == [(1, 401)]
    peer.acknowledge_all()
    assert peer.tan == 401


def test_space_is_reserved_for_packets_that_were_overtaken() -> None:
    """Section 3.3: a packet ahead of its order gets the place that it would have had, and the mapping stays monotonous."""
    peer = Peer().open()
    assert peer.s_network(peer.host(100, t=201).network[0])[0] == 201
    assert peer.s_network(peer.host(100, t=1).network[0])[0] == 1
    assert peer.s_network(peer.host(100, t=101).network[0])[0] == 101
    assert len(peer.connection.send) == 1
    peer.acknowledge_all()
    assert peer.tan == 301


def test_data_that_the_peer_has_is_not_sent_again() -> None:
    peer = Peer().open()
    peer.host(300)
    peer.far(san=301, dan=301)
    out = peer.host(100, t=101)
    assert not out.network
    assert [peer.t_host(segment)[1] for segment in out.host] == [301]


def test_data_without_any_subflow_waits_for_one() -> None:
    peer = Peer().open()
    peer.host(100)
    peer.far(flags=0x14)  # RST
    assert peer.host(100, t=1).silent
    assert peer.host(100).silent
    b = peer.join_finished(peer.act(lambda now, actions: peer.proxy.add_subflow(NEAR[1], now, actions)))
    assert sum(segment.payload_length for segment in peer.host(100, t=1).network) == 100
    assert sum(segment.payload_length for segment in peer.host(100, t=101).network) == 100
    assert list(b.got) == [(1, 201)]
    peer.acknowledge_all()
    peer.goes_on()


def test_a_silent_subflow_is_given_up_when_another_one_is_there() -> None:
    peer, a, b = pair(ProxyConfig(silence_retransmissions=2))
    peer.host(100)
    peer.now += 1
    out = peer.host(100, t=1)
    assert [peer.path_of(segment) for segment in out.network] == [a]
    peer.now += 1
    out = peer.host(100, t=1)
    assert out.log("subflow-dead") is not None
    assert [peer.path_of(segment) for segment in out.network if segment.payload_length] == [b]
    peer.goes_on()


def test_the_only_subflow_is_never_given_up_for_silence() -> None:
    peer = Peer().open()
    peer.host(100)
    for _ in range(10):
        peer.now += 1
        assert peer.host(100, t=1).network[0].payload_length == 100
    peer.goes_on()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("timestamps", [False, True])
def test_the_mss_leaves_room_for_every_option(wide: bool, checksum: bool, timestamps: bool) -> None:
    config = ProxyConfig(wide_numbers=wide, checksum=checksum)
    peer = Peer(config, timestamps=timestamps)
    peer.host_syn()
    mss = peer.far_syn_ack().host[0].mss
    assert mss is not None
    peer.near_key = peer.connection.local_key
    peer.host()
    payload = mss - (12 if timestamps else 0)
    for _ in range(2):
        packet = peer.host(payload).network[-1]
        assert len(packet.data) <= 1500, "the first data, then the usual ones"
        peer.acknowledge_all()
    assert len(packet.data) >= 1500 - 4, "no more than is needed"


def test_windows_count_from_the_data_ack() -> None:
    """RFC 8684 section 3.3.5: the right edge is the data ACK and the window, whatever the host has been told."""
    peer, a, b = pair()
    peer.host(1000)
    out = peer.far(a, san=1001, dan=501, window=100)
    segment = out.host[-1]
    tan = peer.t_host(segment)[1]
    edge = 1 + (512 << 7)  # told before; the new one lies below it
    assert edge - 128 < tan + (segment.window << 7) <= edge
    before = peer.connection.window_edge
    peer.far(b, dan=400, window=1)
    assert peer.connection.window_edge == before, "an old one moves nothing back"
    peer.far(b, dan=1001, window=1000)
    assert peer.connection.window_edge == 1001 + (1000 << 7)


def test_a_closed_window_is_passed_on() -> None:
    peer = Peer().open()
    edge = peer.connection.window_edge
    sent = 0
    while sent < edge - 1:
        step = min(1000, edge - 1 - sent)
        peer.host(step)
        sent += step
    out = peer.far(san=edge, dan=edge, window=0)
    assert [segment.window for segment in out.host] == [0]
    probe = peer.host(t=peer.near_next - 1)
    assert len(probe.network) == 1
    out = peer.far(window=0)
    assert [segment.window for segment in out.host] == [0], "the answer to the probe"
    out = peer.far(window=512)
    assert [segment.window for segment in out.host] == [512]
    peer.goes_on()


def test_the_ip_header_of_the_host_is_kept() -> None:
    peer = Peer().open()
    packet = bytearray(peer.host_packet(1, 1, ACK, 512, [], near_bytes(1, 10)))
    packet[1], packet[8] = 0xB9, 33  # DSCP EF and ECT(1); TTL
    peer.near_next = 11
    segment = peer.outbound(sealed(packet)).network[0]
    assert segment.hop_limit == 33
    assert segment.traffic_class == 0xB8, "no subflow has negotiated ECN"
    peer.far(san=11, dan=11)
    peer.goes_on()


def test_a_log_line_for_each_new_place_not_for_each_packet() -> None:
    peer, _a, _b = pair()
    logs = [log.event for _ in range(10) for log in peer.host(100).logs]
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    logs += [log.event for _ in range(10) for log in peer.host(100).logs]
    peer.acknowledge_all()
    logs += [log.event for _ in range(10) for log in peer.host(100).logs]
    assert logs == ["place"] * 2


def test_a_nudge_after_a_break() -> None:
    """An ICMP message makes the host send again at once what went down (RFC 1191), in segments a little smaller."""
    peer, _a, _b = pair(ProxyConfig(nudge=True))
    peer.goes_on()
    peer.host(300)
    actions: list[Action] = []
    peer.proxy.handover(1, peer.now, actions, break_first=True)
    (packet,) = [action.packet for action in actions if isinstance(action, Deliver)]
    assert (packet[9], packet[20:22]) == (1, b"\x03\x04"), "fragmentation needed"
    assert (packet[12:16], packet[16:20]) == (FAR[0], NEAR[0])
    mtu = int.from_bytes(packet[26:28], "big")
    assert mtu == 1500 - 24 - 4
    quoted = packet[28:]
    assert int.from_bytes(quoted[2:4], "big") == mtu + 4
    assert quoted[12:24] == NEAR[0] + FAR[0] + (40_000).to_bytes(2, "big") + (80).to_bytes(2, "big")
    assert int.from_bytes(quoted[24:28], "big") == peer.first.near_isn + peer.tan


def test_no_nudge_without_anything_lost() -> None:
    peer, _a, _b = pair(ProxyConfig(nudge=True))
    peer.goes_on()
    actions: list[Action] = []
    peer.proxy.handover(1, peer.now, actions, break_first=True)
    assert not any(isinstance(action, Deliver) for action in actions)


def test_the_first_data_with_a_checksum() -> None:
    peer = Peer(ProxyConfig(checksum=True)).open(confirm=False)
    segment = peer.host(101).network[0]
    option = mptcp.decode(segment.mptcp[0])
    expected = folded(mptcp.initial_dsn(peer.near_key) + 1 + 1 + 101 + ones_sum(segment.payload))
    assert option == Capable(0x81, 1, peer.near_key, FAR_KEY, 101, expected)
