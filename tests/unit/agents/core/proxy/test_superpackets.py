"""Packets that the kernel will cut, with one mapping for all; and pieces of data that have one mapping for good."""

from agents.core.proxy.actions import Action, Offload, Send
from agents.core.proxy.config import ProxyConfig
from agents.wire import mptcp
from agents.wire.checksum import folded, ones_sum
from agents.wire.tcp import ACK, Segment, parse
from tests.unit.agents.core.proxy.parts import near_bytes
from tests.unit.agents.core.proxy.peer import Peer, pair


def large(peer: Peer, size: int, t: int | None = None) -> list[Segment]:
    """What a superpacket of the host becomes; checksums are the kernel's."""
    start = peer.near_next if t is None else t
    packet = peer.host_packet(start, peer.near_ack, ACK, 512, [], near_bytes(start, size))
    peer.near_next = max(peer.near_next, start + size)
    actions: list[Action] = []
    answer = peer.proxy.outbound(packet, peer.now, actions, Offload.SUPERPACKET)
    packets = [answer] if isinstance(answer, bytes) else []
    assert not packets or (len(packets[0]) > size and not actions_with_data(actions)), "replaced by a part of it"
    return [parse(packet) for packet in packets + [action.packet for action in actions if isinstance(action, Send)]]


def actions_with_data(actions: list[Action]) -> list[Segment]:
    sent = [parse(action.packet) for action in actions if isinstance(action, Send)]
    return [segment for segment in sent if segment.payload_length]


def mappings(peer: Peer, segments: list[Segment]) -> list[tuple[int, int, int, int]]:
    """Of each segment: its s and length, the s and length of its mapping."""
    found = []
    for segment in segments:
        assert segment.dss is not None
        found.append((peer.s_network(segment)[0], segment.payload_length, segment.dss.ssn, segment.dss.length))
    return found


def test_a_superpacket_goes_on_whole_with_one_mapping() -> None:
    peer = Peer().open()
    (segment,) = large(peer, 5000)
    assert mappings(peer, [segment]) == [(1, 5000, 1, 5000)]
    assert bytes(segment.payload) == near_bytes(1, 5000)
    (segment,) = large(peer, 3000)
    assert mappings(peer, [segment]) == [(5001, 3000, 5001, 3000)]


def test_a_part_that_is_sent_again_repeats_the_whole_mapping() -> None:
    """A receiver that holds part of it takes no other mapping for its range."""
    peer = Peer().open()
    large(peer, 5000)
    assert mappings(peer, peer.host(1000, t=1001).network) == [(1001, 1000, 1, 5000)]
    assert mappings(peer, large(peer, 3000, t=2001)) == [(2001, 3000, 1, 5000)]


def test_what_spans_mappings_is_cut_at_their_edges() -> None:
    peer = Peer().open()
    peer.host(500)
    large(peer, 5000)
    peer.host(500)
    assert mappings(peer, peer.host(1000, t=1).network) == [(1, 500, 1, 500), (501, 500, 501, 5000)]
    assert mappings(peer, peer.host(1000, t=5001).network) == [(5001, 500, 501, 5000), (5501, 500, 5501, 500)]
    peer.near_next = 6001
    parts = large(peer, 6000, t=1)
    assert sum(segment.payload_length for segment in parts) == 6000
    assert all(segment.payload_length <= 1460 for segment in parts), "cut here, the kernel will not do it any more"
    assert {mapping[2:] for mapping in mappings(peer, parts) if 501 <= mapping[0] < 5501} == {(501, 5000)}
    for s, length, start, size in mappings(peer, parts):
        assert start <= s < s + length <= start + size


def test_what_is_acknowledged_is_forgotten() -> None:
    peer = Peer().open()
    large(peer, 5000)
    assert len(peer.subflow(peer.first).bulk) == 1
    peer.far(san=5000, dan=1)
    assert len(peer.subflow(peer.first).bulk) == 1
    peer.first.got.add(1, 5001)
    peer.far(san=5001, dan=5001)
    assert not peer.subflow(peer.first).bulk


def test_a_superpacket_on_two_subflows_is_sent_in_segments() -> None:
    peer, a, b = pair()
    peer.host(1000)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    parts = large(peer, 5000, t=1)
    assert {peer.path_of(segment) for segment in parts} == {a, b}
    assert all(len(segment.data) <= 1500 for segment in parts)
    assert sum(segment.payload_length for segment in parts) == 5000


def test_with_checksums_every_segment_has_its_own_mapping() -> None:
    """A peer acknowledges nothing of a mapping before it has all of it."""
    peer = Peer(ProxyConfig(checksum=True)).open()
    parts = large(peer, 5000)
    assert len(parts) > 3
    for segment, (s, length, start, size) in zip(parts, mappings(peer, parts), strict=True):
        assert (start, size) == (s, length)
        assert segment.dss is not None
        expected = folded(mptcp.initial_dsn(peer.near_key) + s + s + length + ones_sum(segment.payload))
        assert segment.dss.checksum == expected
    again = peer.host(100, t=parts[0].payload_length - 49)
    assert [each[1] for each in mappings(peer, again.network)] == [50, 50]
    assert [each[2:] for each in mappings(peer, again.network)] == [each[2:] for each in mappings(peer, parts[:2])]


# -- what a host has to be told though the peer has not acknowledged it --------------------------------------------------


def behind_a_gap() -> Peer:
    """After a break t 101 to 200 went first and are lost; t 1 to 100 followed and have arrived, behind the gap."""
    peer, _a, b = pair()
    peer.host(100)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    assert peer.s_network(peer.host(100).network[0])[0] == 1
    assert peer.s_network(peer.host(100, t=1).network[0])[0] == 101
    peer.far(b, san=1, dan=1, sack=[(101, 201)])
    return peer


def test_a_host_that_repeats_what_arrived_behind_a_gap_is_told_so() -> None:
    """Else it would repeat the same for ever, and never the data that closes the gap."""
    peer = behind_a_gap()
    out = peer.host(100, t=1)
    assert not out.network
    assert peer.tan == 101
    out = peer.host(100, t=101)
    assert [peer.s_network(segment)[0] for segment in out.network] == [1]
    peer.acknowledge_all()
    assert peer.tan == 201
    peer.goes_on()


def test_without_proof_it_goes_out_again() -> None:
    peer = behind_a_gap()
    peer.far(peer.active, san=1, dan=1)  # the peer has dropped it again (RFC 2018 section 8)
    out = peer.host(100, t=1)
    assert [peer.s_network(segment)[0] for segment in out.network] == [101]
    assert peer.tan == 1


def test_if_the_subflow_breaks_before_the_promise_is_kept_both_sides_are_told() -> None:
    peer = behind_a_gap()
    peer.host(100, t=1)
    out = peer.act(lambda now, actions: peer.proxy.add_subflow(bytes((10, 3, 0, 1)), now, actions))
    c = peer.join_finished(out)
    out = peer.far(peer.active, flags=4, dss=b"")
    assert [segment.flags & 4 for segment in out.host] == [4]
    assert [peer.path_of(segment) for segment in out.resets] == [c]
    peer.wait(1)
    peer.check_empty()


def test_what_a_peer_leaves_on_its_subflow_is_told_when_the_host_has_repeated_it_in_vain() -> None:
    """Linux takes it from there when more comes; and more comes only when the host's ACK moves."""
    peer, a, _b = pair()
    peer.host(100)
    peer.host(100)
    peer.far(a, san=101, dan=1)
    assert peer.tan == 1
    for _ in range(3):
        assert peer.host(100, t=1).network, "without an answer it proves nothing"
        assert peer.tan == 1
        peer.now += 0.2
    for _ in range(2):
        peer.far(a, san=101, dan=1)
        peer.now += 0.2
        assert (peer.tan, bool(peer.host(100, t=1).network)) == (1, True) or peer.tan == 101
    assert peer.tan == 101
    out = peer.host(100, t=101)
    assert [peer.s_network(segment)[0] for segment in out.network] == [101]
    peer.acknowledge_all()
    assert peer.tan == 201
    peer.goes_on()
