"""The first subflow: MP_CAPABLE added and taken, packet by packet, and what makes a connection go on as TCP."""

import pytest

from agents.core.proxy.actions import Verdict
from agents.core.proxy.config import LocalAddress, ProxyConfig
from agents.wire import mptcp
from agents.wire.mptcp import Capable
from agents.wire.tcp import ACK, RST, SYN
from tests.unit.agents.core.proxy.parts import FAR_KEY, NEAR, Out
from tests.unit.agents.core.proxy.peer import Peer


def capable(out: Out, at: int = 0) -> Capable:
    option = mptcp.decode(out.network[at].mptcp[0])
    assert isinstance(option, Capable)
    return option


# -- this host opens ----------------------------------------------------------------------------------------------------


def test_this_host_opens() -> None:
    peer = Peer()
    out = peer.host_syn()
    assert capable(out) == Capable(1)
    assert (out.network[0].seq, out.network[0].mss, out.network[0].window_scale) == (peer.first.near_isn, 1460, 7)
    out = peer.far_syn_ack()
    assert not out.host[0].mptcp
    assert (out.host[0].flags, out.host[0].mss) == (SYN | ACK, 1460 - 24)
    peer.near_key = peer.connection.local_key
    out = peer.host()
    assert capable(out) == Capable(1, 1, peer.near_key, FAR_KEY)
    out = peer.host(10)
    assert capable(out) == Capable(1, 1, peer.near_key, FAR_KEY, 10)
    peer.far(san=11, dan=11)
    assert peer.host(10).network[0].dss is not None
    peer.acknowledge_all()
    peer.goes_on()


def test_every_ack_proves_the_key_until_the_peer_shows_that_it_has_it() -> None:
    peer = Peer().open(confirm=False)
    assert capable(peer.host()).receiver_key == FAR_KEY
    peer.far()
    assert peer.host().silent
    peer.goes_on()


def test_the_syn_is_sent_again_with_the_option_and_at_last_without() -> None:
    peer = Peer(ProxyConfig(syn_tries=2))
    assert [bool(peer.host_syn().network[0].mptcp) for _ in range(4)] == [True, True, False, False]
    assert len(peer.proxy.connections()) == 1
    assert peer.far_syn_ack(b"").answer is Verdict.RELEASE
    peer.check_empty()


def test_the_syn_ack_again() -> None:
    """This host's ACK was lost: its TCP answers the repeated SYN/ACK itself."""
    peer = Peer().open(confirm=False)
    out = peer.far_syn_ack()
    assert out.host[0].flags == SYN | ACK
    assert not out.host[0].mptcp
    assert capable(peer.host()).receiver_key == FAR_KEY
    peer.far()
    peer.goes_on()


def test_a_syn_that_crosses_with_the_syn_ack_changes_nothing() -> None:
    """On a long path this host's TCP repeats its SYN while the answer to the first one is on its way."""
    peer = Peer()
    peer.host_syn()
    peer.far_syn_ack()
    assert peer.host_syn().silent
    peer.near_key = peer.connection.local_key
    assert capable(peer.host()) == Capable(1, 1, peer.near_key, FAR_KEY)
    peer.far()
    peer.goes_on()
    assert peer.host_syn().silent


def test_a_syn_ack_without_the_option_is_plain_tcp() -> None:
    peer = Peer()
    peer.host_syn()
    assert peer.far_syn_ack(b"").answer is Verdict.RELEASE
    peer.check_empty()


@pytest.mark.parametrize(
    "option",
    [
        Capable(1, 0, FAR_KEY),
        Capable(0, 1, FAR_KEY),
        Capable(0x41, 1, FAR_KEY),
        Capable(1, 1),
        Capable(1, 1, FAR_KEY, FAR_KEY),
        mptcp.Prio(False),
    ],
    ids=["version 0", "no SHA-256", "flag B", "no key", "two keys", "another option"],
)
def test_a_syn_ack_with_what_cannot_be_followed_is_plain_tcp(option: mptcp.Option) -> None:
    peer = Peer()
    peer.host_syn()
    assert peer.far_syn_ack(mptcp.encode(option)).answer is Verdict.RELEASE
    peer.check_empty()


def test_a_syn_ack_for_another_syn_changes_nothing() -> None:
    peer = Peer()
    peer.host_syn()
    for ack in (peer.first.near_isn, peer.first.near_isn + 2, 0):
        assert peer.far_syn_ack(b"", ack=ack).silent
        assert peer.far_syn_ack(ack=ack).silent
    peer.far_syn_ack()
    peer.near_key = peer.connection.local_key
    peer.host()
    peer.goes_on()


def test_a_stack_with_mptcp_of_its_own_and_fast_open_are_let_alone() -> None:
    peer = Peer()
    first = peer.first
    own = peer.syn_packet(first.near, first.far, 1, 1, option=mptcp.encode(Capable(1)))
    assert peer.outbound(own).answer is Verdict.RELEASE
    assert peer.outbound(peer.host_packet(0, 0, SYN, 512, [], b"request")).answer is Verdict.RELEASE
    peer.check_empty()


def test_a_syn_whose_options_leave_no_room_goes_without() -> None:
    peer = Peer()
    first = peer.first
    other = bytes((254, 18)) + bytes(16)  # an experiment
    assert peer.outbound(peer.syn_packet(first.near, first.far, first.near_isn, 1, option=other)).answer is Verdict.PASS
    assert peer.far_syn_ack(b"").answer is Verdict.RELEASE


def test_refused_by_the_peer() -> None:
    peer = Peer()
    peer.host_syn()
    out = peer.inbound(peer.first.packet(0, 1, RST | ACK, 0))
    assert out.answer is Verdict.PASS
    peer.wait(100)
    peer.check_empty()


def test_given_up_by_the_host() -> None:
    peer = Peer()
    peer.host_syn()
    assert peer.host(flags=RST).answer is Verdict.PASS
    peer.check_empty()


# -- the peer opens -----------------------------------------------------------------------------------------------------


def test_the_peer_opens() -> None:
    peer = Peer()
    out = peer.far_syn()
    assert not out.host[0].mptcp
    assert out.host[0].mss == 1460 - 24
    out = peer.host_syn_ack()
    option = capable(out)
    assert len(option.sender_key) == 8
    assert out.network[0].flags == SYN | ACK
    peer.near_key = option.sender_key
    out = peer.far_third_ack()
    assert [(segment.flags, segment.payload_length) for segment in out.host] == [(ACK, 0)]
    assert not out.host[0].mptcp
    peer.goes_on()


def test_the_third_ack_may_come_with_the_first_data() -> None:
    peer = Peer().accept(confirm=False)
    option = mptcp.encode(Capable(1, 1, FAR_KEY, peer.near_key, 50))
    out = peer.far(data=50, dss=b"", options=option)
    assert [segment.payload_length for segment in out.host] == [50]
    peer.host(ack=51)
    assert peer.data_ack == 51
    peer.goes_on()


def test_this_host_speaks_first() -> None:
    """No MP_CAPABLE with data for the one who accepts: a DSS from the beginning."""
    peer = Peer().accept()
    out = peer.host(10)
    assert not out.network[0].mptcp
    assert out.network[0].dss is not None
    peer.acknowledge_all()
    peer.goes_on()


def test_segments_that_overtake_the_third_ack_wait() -> None:
    peer = Peer().accept(confirm=False)
    assert peer.far(data=10).silent
    peer.far_third_ack()
    assert peer.far(data=10, s=1, t=1).host
    peer.host(ack=11)
    peer.goes_on()


def test_the_syn_again_gets_the_same_answer() -> None:
    peer = Peer()
    peer.far_syn()
    first = capable(peer.host_syn_ack())
    peer.far_syn()
    assert capable(peer.host_syn_ack()) == first
    peer.near_key = first.sender_key
    peer.far_third_ack()
    peer.goes_on()


def test_a_syn_ack_of_the_host_that_comes_late_is_answered_here() -> None:
    peer = Peer().accept()
    out = peer.host_syn_ack()
    assert not out.network
    assert [segment.flags for segment in out.host] == [ACK]


@pytest.mark.parametrize(
    "option",
    [b"", mptcp.encode(Capable(1, 0)), mptcp.encode(Capable(0)), mptcp.encode(Capable(0x41)), bytes((30, 2)), bytes((30, 0))],
    ids=["none", "version 0", "no SHA-256", "flag B", "cut off", "length 0"],
)
def test_a_syn_that_does_not_ask_for_version_1_is_let_alone(option: bytes) -> None:
    peer = Peer()
    assert peer.far_syn(option).answer is Verdict.RELEASE
    peer.check_empty()


def test_segments_of_a_released_connection_that_waited_in_the_queue_are_released_too() -> None:
    peer = Peer()
    peer.host_syn()
    peer.far_syn_ack(b"")
    assert peer.host().answer is Verdict.RELEASE
    assert peer.far(dss=b"").answer is Verdict.RELEASE
    again = Peer(proxy=peer.proxy, near_isn=5, seed=8).open()
    again.goes_on()


def test_a_third_ack_without_the_option_is_plain_tcp() -> None:
    peer = Peer().accept(confirm=False)
    assert peer.far(dss=b"").answer is Verdict.RELEASE
    peer.check_empty()


def test_a_third_ack_with_data_without_the_option_is_plain_tcp() -> None:
    peer = Peer().accept(confirm=False)
    assert peer.far(data=10, dss=b"").answer is Verdict.RELEASE
    peer.check_empty()


def test_a_third_ack_with_a_wrong_key_is_dropped() -> None:
    peer = Peer().accept(confirm=False)
    assert peer.far_third_ack(mptcp.encode(Capable(1, 1, FAR_KEY, b"guessing"))).silent
    assert peer.connection.half_open
    peer.far_third_ack()
    peer.goes_on()


def test_checksums_if_either_side_asks() -> None:
    for mine, other, expected in ((True, 1, True), (False, 0x81, True), (False, 1, False)):
        peer = Peer(ProxyConfig(checksum=mine), flags=other).open()
        assert peer.connection.checksum is expected
        peer = Peer(ProxyConfig(checksum=mine), flags=other)
        peer.far_syn()
        assert bool(capable(peer.host_syn_ack()).flags & mptcp.FLAG_CHECKSUM) is expected


@pytest.mark.parametrize("opened_here", [True, False])
@pytest.mark.parametrize("v6", [True, False])
def test_both_roles_in_both_families(opened_here: bool, v6: bool) -> None:
    for sack in (True, False):
        for timestamps in (True, False):
            peer = Peer(sack=sack, timestamps=timestamps, v6=v6)
            (peer.open if opened_here else peer.accept)()
            assert (peer.connection.sack, peer.connection.timestamps) == (sack, timestamps)
            peer.goes_on()


def test_ecn_is_not_offered() -> None:
    peer = Peer()
    packet = bytearray(peer.syn_packet(peer.first.near, peer.first.far, peer.first.near_isn, 1))
    packet[33] |= 0xC0
    assert peer.outbound(bytes(packet)).network[0].flags == SYN


# -- options that go missing (RFC 8684 section 3.7) ------------------------------------------------------------------


def test_the_first_data_without_option_makes_it_tcp() -> None:
    """The third ACK's option had been removed, and so is that of the data."""
    peer = Peer().open(confirm=False)
    out = peer.far(data=10, dss=b"")
    assert [segment.payload_length for segment in out.host] == [10]
    assert out.log("fallback") is not None
    assert peer.far(data=10, dss=b"").answer is Verdict.RELEASE
    peer.check_empty()


def test_options_that_vanish_on_the_only_subflow_make_it_tcp() -> None:
    peer = Peer().open()
    peer.goes_on()
    s = peer.first.next
    passed = []
    for _ in range(6):  # the peer sends the same until it is acknowledged
        out = peer.far(data=100, dss=b"", s=s, t=s)
        passed += out.host
        if out.host:
            break
    assert [segment.payload_length for segment in passed] == [100]
    assert peer.connection.fallback
    assert peer.far(data=100, dss=b"", s=s + 100, t=s + 100).answer is Verdict.RELEASE
    peer.check_empty()


def test_a_single_segment_without_option_only_waits() -> None:
    """A middlebox may have moved the option to a later segment."""
    peer = Peer().open()
    peer.goes_on()
    s, t = peer.first.next, peer.far_next
    assert peer.far(data=100, dss=b"").why == "no mapping"
    assert peer.far(data=100, s=s, t=t).host
    peer.host(ack=peer.far_next)
    peer.goes_on()


def test_options_that_vanish_on_one_of_two_subflows_end_that_one() -> None:
    peer = Peer().open()
    b = peer.join()
    peer.goes_on()
    s, t = b.next, peer.far_next
    ended = None
    for _ in range(6):
        out = peer.far(b, 100, s=s, t=t, dss=b"")
        assert not out.host
        if out.resets:
            ended = out
            break
    assert ended is not None
    assert [mptcp.decode(option) for option in ended.resets[0].mptcp] == [mptcp.TcpRst(mptcp.ResetReason.MIDDLEBOX)]
    assert peer.path_of(ended.resets[0]) is b
    peer.far(peer.first, 100, t=t)
    peer.host(ack=peer.far_next)
    peer.goes_on()


@pytest.mark.parametrize("two", [False, True])
def test_an_infinite_mapping(two: bool) -> None:
    peer = Peer().open()
    if two:
        b = peer.join()
    peer.goes_on()
    t = peer.far_next
    out = peer.far(data=100, dss=peer.dss(t=t, s=0, length=0))
    if two:
        assert out.resets
        assert not out.host
        peer.far(b, 100, t=t)
        peer.host(ack=peer.far_next)
        peer.goes_on()
    else:
        assert [segment.payload_length for segment in out.host] == [100]
        assert peer.far(data=100, dss=b"").answer is Verdict.RELEASE
        peer.check_empty()


@pytest.mark.parametrize("two", [False, True])
def test_mp_fail(two: bool) -> None:
    peer = Peer(flags=0x81).open()
    if two:
        peer.join()
    peer.near_next = peer.far_next = 1
    out = peer.far(options=mptcp.encode(mptcp.Fail(mptcp.initial_dsn(peer.near_key) + 1)))
    if two:
        assert [peer.path_of(segment) for segment in out.resets] == [peer.first]
        assert len(peer.connection.subflows) == 1
        assert peer.host(100).network[0].payload_length == 100
    else:
        assert out.log("fallback") is not None
        assert peer.host(100).network[0].payload_length == 100
        peer.check_empty()


@pytest.mark.parametrize("two", [False, True])
def test_a_wrong_checksum(two: bool) -> None:
    peer = Peer(flags=0x81).open()
    if two:
        b = peer.join()
    out = peer.far(data=100, dss=peer.dss(t=1, s=1, length=100, checksum=0x1234))
    fail = mptcp.Fail((mptcp.initial_dsn(FAR_KEY) + 1) & (2**64 - 1))
    if two:
        assert not out.host
        assert [mptcp.decode(option) for option in out.resets[0].mptcp] == [fail, mptcp.TcpRst(mptcp.ResetReason.MIDDLEBOX)]
        assert [peer.paths[subflow.key] for subflow in peer.connection.subflows] == [b]
    else:
        assert fail in [mptcp.decode(option) for segment in out.network for option in segment.mptcp]
        assert peer.far(data=100, s=1, t=1, dss=b"").answer is Verdict.RELEASE
        peer.check_empty()


def test_fallback_after_a_handover_is_translated_to_the_end() -> None:
    """The numbers of the only subflow that is left are not those of the host: the proxy must stay."""
    peer = Peer().open()
    b = peer.join()
    peer.goes_on()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    peer.goes_on()
    t, s = peer.far_next, b.next
    out = peer.far(b, 100, dss=peer.dss(t=t, s=0, length=0))
    assert [peer.t_host(segment)[0] for segment in out.host] == [t]
    for _ in range(3):
        out = peer.far(b, 100, dss=b"")
        assert [segment.payload_length for segment in out.host] == [100]
        out = peer.host(100, ack=peer.far_next)
        assert [segment.payload_length for segment in out.network] == [100]
        assert out.network[0].dss is None
        peer.far(b, san=b.got.highest, dss=b"")
        assert peer.tan == peer.near_next
    assert b.acked == s + 400
    out = peer.host(flags=ACK | 1)
    assert [segment.flags for segment in out.network] == [ACK | 1]
    end = peer.s_network(out.network[0])[0]
    assert peer.tan_after(peer.far(b, san=end + 1, dss=b"")) == peer.near_next
    out = peer.far(b, dss=b"", flags=ACK | 1)
    assert [segment.flags for segment in out.host] == [ACK | 1]
    out = peer.host(ack=peer.far_next + 1)
    assert [peer.s_network(segment)[1] for segment in out.network] == [b.next + 1]
    peer.check_streams()


# -- bounds -------------------------------------------------------------------------------------------------------------


def test_policies_wait_until_the_peer_has_shown_that_it_knows_the_key() -> None:
    peer = Peer(ProxyConfig(policy="follow"))
    peer.act(lambda now, actions: peer.proxy.addresses_changed([LocalAddress(a, "if") for a in NEAR[:2]], now, actions))
    peer.open(confirm=False)
    assert len(peer.connection.subflows) == 1
    out = peer.far()
    assert [segment.flags for segment in out.network if segment.flags & SYN] == [SYN]


def test_too_many_connections_are_plain_tcp() -> None:
    proxy = Peer(ProxyConfig(connections_max=2)).proxy
    for port in (1, 2):
        Peer(proxy=proxy, port=port).open().goes_on()
    third = Peer(proxy=proxy, port=3)
    assert third.host_syn().answer is Verdict.RELEASE
    assert third.far_syn().answer is Verdict.RELEASE
    assert proxy.counters["refused"] == 2


def test_a_late_copy_of_the_syn_changes_nothing() -> None:
    peer = Peer().accept()
    peer.goes_on()
    assert peer.far_syn().silent
    peer.goes_on()


def test_an_answer_of_the_host_that_leaves_no_room_goes_without() -> None:
    peer = Peer()
    peer.far_syn()
    first, other = peer.first, bytes((254, 12)) + bytes(10)
    packet = peer.syn_packet(first.near, first.far, first.near_isn, 1, ack=first.far_isn + 1, option=other)
    assert peer.outbound(packet).answer is Verdict.RELEASE
    peer.check_empty()


def test_a_refusal_of_the_host_reaches_the_peer_and_one_of_the_peer_the_host() -> None:
    peer = Peer()
    peer.far_syn()
    assert peer.host(t=0, flags=RST | ACK).answer is Verdict.PASS
    peer.check_empty()
    peer = Peer().accept(confirm=False)
    assert peer.inbound(peer.first.packet(1, 1, RST | ACK, 0)).answer is Verdict.PASS
    peer.wait(1)
    peer.check_empty()


def test_a_wrong_checksum_on_the_only_subflow_after_a_handover() -> None:
    """The stream goes on where it was, though the subflow's numbers are others."""
    peer = Peer(flags=0x81).open()
    b = peer.join()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    t = peer.far_next = 5001
    peer.near_ack = peer.connection.ack = peer.connection.receive_max = t  # what came by the subflow that is gone
    out = peer.far(b, 100, dss=peer.dss(t=t, s=1, length=100, checksum=0x1234))
    assert out.log("checksum-failed") is not None
    out = peer.far(b, 100, t=t, s=1, dss=b"")
    assert [peer.t_host(segment)[0] for segment in out.host] == [t]
