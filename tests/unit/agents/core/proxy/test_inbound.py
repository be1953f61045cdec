"""From the network to the host: mappings, payload, ACKs by one subflow and by several, timestamps, wraps, checksums."""

import random
from itertools import pairwise

import pytest

from agents.core.proxy.actions import Offload
from agents.core.proxy.config import ProxyConfig
from agents.wire import mptcp
from agents.wire.checksum import folded, ones_sum
from agents.wire.mptcp import FLAG_CHECKSUM, FLAG_HMAC_SHA256
from agents.wire.tcp import ACK, FIN, PSH
from tests.proxy.packets import header_length
from tests.unit.agents.core.proxy.parts import FAR_KEY, far_bytes
from tests.unit.agents.core.proxy.peer import Peer, pair

# -- payload ------------------------------------------------------------------------------------------------------------


def test_data_of_two_subflows_is_one_stream() -> None:
    peer, a, b = pair()
    out = peer.far(a, 100)
    assert [peer.t_host(segment)[0] for segment in out.host] == [1]
    out = peer.far(b, 100, t=201)
    assert [peer.t_host(segment)[0] for segment in out.host] == [201]
    out = peer.far(a, 100, t=101)
    assert [peer.t_host(segment)[0] for segment in out.host] == [101]
    peer.host(ack=301)
    assert (a.acked, b.acked) == (201, 101)
    peer.check_streams()


def test_a_mapping_of_many_segments_is_known_from_the_first_one() -> None:
    peer = Peer().open()
    whole = peer.dss(t=1, s=1, length=65_535)
    for number in range(10):
        out = peer.far(data=1000, dss=whole if number == 0 else peer.dss())
        assert [peer.t_host(segment)[0] for segment in out.host] == [1 + number * 1000]
    assert len(peer.subflow(peer.first).received) == 1
    assert peer.host(ack=10_001).network[0].dss is not None
    assert peer.first.acked == 10_001


def test_data_without_any_option_is_taken_inside_a_known_mapping() -> None:
    """RFC 8684 section 3.3: one DSS may stand for all segments of its mapping."""
    peer = Peer().open()
    peer.far(data=100, dss=peer.dss(t=1, s=1, length=1000))
    for number in range(1, 10):
        out = peer.far(data=100, dss=b"")
        assert [peer.t_host(segment)[0] for segment in out.host] == [1 + 100 * number]
    assert peer.far(data=100, dss=b"").why == "no mapping"
    peer.host(ack=1001)
    assert peer.first.acked == 1001


def test_a_mapping_of_many_segments_over_lost_ones_acknowledges_only_what_came() -> None:
    """`Peer` raises the moment something is acknowledged that was not sent; the host's ACK is far above what came here."""
    peer, a, b = pair()
    whole = peer.dss(t=1, s=1, length=65_535)
    peer.far(a, 1000, dss=whole)
    a.next, peer.far_next = 3001, 3001
    peer.far(a, 1000, dss=whole)  # 1001 to 3000 are lost here, and come by the other one
    peer.far(b, 2000, t=1001)
    peer.far(b, 60_000, t=4001)
    out = peer.host(ack=64_001)
    assert (a.acked, b.acked) == (1001, 62_001)
    assert [peer.blocks_network(segment) for segment in out.network if peer.path_of(segment) is a] == [[(3001, 4001)]]
    peer.far(a, 2000, t=1001, s=1001, dss=whole)
    assert a.acked == 4001


def test_a_segment_that_spans_two_mappings_is_cut() -> None:
    """Section 3.3: a middlebox has joined two segments; one mapping came before, the other with it."""
    peer = Peer().open()
    peer.far(data=0, dss=peer.dss(t=1, s=1, length=100))
    payload = far_bytes(1, 100) + far_bytes(301, 50)
    peer.first.sent.add(1, 151)
    peer.first.next = 151
    out = peer.far(s=1, dss=peer.dss(t=301, s=101, length=50), payload=payload)
    assert [(peer.t_host(segment)[0], segment.payload_length) for segment in out.host] == [(1, 100), (301, 50)]


def test_a_part_without_mapping_is_left_out_until_it_is_known() -> None:
    peer = Peer().open()
    peer.first.sent.add(1, 151)
    peer.first.next = 151
    out = peer.far(s=1, dss=peer.dss(t=1, s=1, length=100), payload=far_bytes(1, 150))
    assert [(peer.t_host(segment)[0], segment.payload_length) for segment in out.host] == [(1, 100)]
    peer.host(ack=101)
    assert peer.first.acked == 101
    out = peer.far(data=50, s=101, t=101)
    assert [segment.payload_length for segment in out.host] == [50]
    peer.host(ack=151)
    assert peer.first.acked == 151


def test_one_log_line_and_one_entry_for_each_new_mapping_not_for_each_packet() -> None:
    peer, a, b = pair()
    logs = []
    for _ in range(20):
        logs += peer.far(a, 100).logs
    assert (len(logs), len(peer.subflow(a).received)) == (1, 1)
    logs += peer.far(b, 100).logs
    logs += peer.far(a, 100).logs
    assert [log.event for log in logs] == ["mapping"] * 3
    assert len(peer.subflow(a).received) == 2


def test_what_the_host_has_had_by_another_subflow_is_acknowledged_here_only() -> None:
    peer, a, b = pair()
    peer.far(a, 100)
    peer.host(ack=101)
    out = peer.far(b, 100, t=1)
    assert not out.host
    assert [(peer.path_of(segment), peer.s_network(segment)[1]) for segment in out.network] == [(b, 101)]
    peer.goes_on()


@pytest.mark.parametrize("near", [2**32 - 150, 2**32 - 1, 0])
@pytest.mark.parametrize("wide", [False, True])
def test_every_number_wraps(near: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequence numbers of TCP, of subflows, and of the data at 2^32 and at 2^64."""
    monkeypatch.setattr(mptcp, "initial_dsn", lambda key: (2**64 if key == FAR_KEY else 2**32) - 170 if near else 2**64 - 1)
    peer = Peer(ProxyConfig(wide_numbers=wide), near_isn=near, far_isn=near - 20 & 0xFFFFFFFF, idsn=mptcp.initial_dsn).open()
    peer.dan_wide = wide
    peer.goes_on(1)
    b = peer.join(far_isn=2**32 - 120)
    subflow = peer.subflow(b)
    subflow.iss = b.near_isn = 2**32 - 130  # before anything was sent on it
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.goes_on(5)
    assert len(peer.connection.send) <= 1


def test_random_orders_of_random_mappings_deliver_every_byte_right() -> None:
    """Reordered, repeated, reinjected, with overlapping segments on three subflows; `Peer` checks each byte and each ACK."""
    for seed in range(12):
        r = random.Random(seed)
        peer, a, b = pair(sack=seed % 2 == 0, timestamps=seed % 3 != 0, near_isn=2**32 - r.randrange(3000),
                          far_isn=2**32 - r.randrange(3000))  # fmt: skip
        paths = [a, b, peer.joined()]
        cuts = sorted({1, 4001, *(r.randrange(2, 4001) for _ in range(12))})
        segments = []
        for start, end in pairwise(cuts):
            for path in r.sample(paths, r.choice([1, 1, 2])):
                dss, s = peer.dss(t=start, s=path.next, length=end - start), path.next
                path.next += end - start
                while start < end:
                    size = min(r.randrange(50, 500), end - start)
                    segments.append((path, start, s, size, dss))
                    if r.random() < 0.2:
                        segments.append((path, start, s, size, dss))
                    start, s = start + size, s + size
                start = end
        r.shuffle(segments)
        for path, t, s, size, dss in segments:
            peer.far(path, size, t=t, s=s, dss=dss)
            runs = list(peer.arrived_near)
            ack = runs[0][1] if runs and runs[0][0] == 1 else 1
            peer.host(ack=ack, sack=[run for run in runs if run[0] > ack][:3] if peer.sack else None)
        assert list(peer.arrived_near) == [(1, 4001)]
        peer.near_ack = 4001
        if not peer.sack:  # the host has said nothing of what it held: the peer asks again
            for path in paths:
                peer.far(path, s=path.next - 1)
                peer.host(ack=4001)
        assert [path.acked for path in paths] == [path.next for path in paths], seed
        peer.goes_on()


def test_flags_and_push() -> None:
    peer = Peer().open()
    assert peer.far(data=10).host[0].flags == ACK | PSH


# -- acknowledgements ---------------------------------------------------------------------------------------------------


def test_the_ack_for_the_host_is_the_data_ack() -> None:
    peer = Peer().open()
    peer.host(1000)
    out = peer.far(san=1001, dan=401)
    assert peer.tan_after(out) == 401
    out = peer.far(san=1001, dan=1001)
    assert peer.tan_after(out) == 1001


def test_with_subflow_acks_the_ack_comes_from_the_subflow_while_one_carries_everything() -> None:
    peer = Peer(ProxyConfig(subflow_acks=True)).open()
    peer.host(1000)
    assert peer.tan_after(peer.far(san=701, dan=1)) == 701
    b = peer.join()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.host(1000)  # during the handover both carry what is not acknowledged: now only the data ACK counts
    assert peer.tan_after(peer.far(peer.first, san=1001, dan=801)) == 801
    assert peer.tan_after(peer.far(b, san=2001 - 1000, dan=901)) == 901
    assert peer.tan_after(peer.far(b, san=1001, dan=1001)) == 1001
    assert peer.tan_after(peer.far(b, san=1001, dan=2001)) == 2001
    peer.host(1000)
    assert peer.tan_after(peer.far(b, san=1501, dan=2001)) == 2501


def test_blocks_of_subflows_become_blocks_of_the_data() -> None:
    peer, a, b = pair()
    peer.host(300)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.host(300)
    out = peer.far(a, san=101, dan=101, sack=[(201, 301)])
    assert (peer.tan_after(out), peer.blocks_host(out.host[-1])) == (101, [(201, 301)])
    out = peer.far(b, san=201)
    assert (peer.tan_after(out), peer.blocks_host(out.host[-1])) == (101, [(201, 501)])
    out = peer.far(a, san=301, dan=501)
    assert (peer.tan_after(out), peer.blocks_host(out.host[-1])) == (501, [])


def test_the_data_ack_does_not_pass_what_a_living_subflow_still_owes() -> None:
    """The peer has the data by another way, but its subflow has a hole that only this host can fill."""
    peer, a, b = pair()
    peer.host(200)
    peer.far(a, san=1, dan=101)
    assert peer.tan == 1
    peer.far(a, san=101)
    assert peer.tan == 101
    peer.far(a, san=201, dan=201)
    assert peer.tan == 201
    del b


def test_a_duplicate_ack_is_passed_on_while_something_is_not_acknowledged() -> None:
    peer = Peer(timestamps=False).open()
    peer.host(300)
    assert peer.tan_after(peer.far(san=101, dan=101)) == 101
    for _ in range(3):
        assert peer.tan_after(peer.far(san=101, dan=101)) == 101
    peer.far(san=301, dan=301)
    assert peer.far().silent


@pytest.mark.parametrize("option", [
    mptcp.encode(mptcp.Prio(False)), mptcp.encode(mptcp.RemoveAddr((77,))),
])  # fmt: skip
def test_an_ack_with_signalling_is_no_duplicate(option: bytes) -> None:
    """RFC 8684 section 3.4: such options come in ACKs that look like duplicates."""
    peer = Peer().open()
    peer.host(300)
    peer.far(san=101, dan=101)
    assert not peer.far(options=option).host
    assert peer.far().host


def test_old_acks_change_nothing() -> None:
    peer = Peer().open()
    peer.host(300)
    peer.far(san=301, dan=301)
    out = peer.far(san=101, dan=101)
    assert not out.host
    assert peer.tan == 301
    peer.goes_on()


# -- timestamps ---------------------------------------------------------------------------------------------------------


def test_clocks_of_subflows_are_brought_to_one_scale_and_each_gets_its_own_echo() -> None:
    peer = Peer().open()
    peer.now += 5
    b = peer.join(clock=0x90000000)  # half the space away: PAWS would drop everything (RFC 7323 section 5)
    c = peer.join(bytes((10, 3, 0, 1)), clock=1)
    peer.now += 0.1
    for path in (peer.first, b, c, peer.first, c, b):
        peer.now += 0.01
        out = peer.far(path, 10)
        given = out.host[0].timestamp
        assert given is not None
        assert abs((given - peer.stamp_far(peer.first) + 2**31) % 2**32 - 2**31) <= 2
        answer = peer.host(ack=peer.far_next)
        assert [segment.echo for segment in answer.network] == [peer.stamp_far(path)]


def test_timestamps_for_the_host_never_go_back() -> None:
    peer, a, b = pair()
    peer.far(a, 10, stamp=peer.stamp_far(a) + 500)
    high = peer.stamp_given
    out = peer.far(b, 10)
    assert out.host[0].timestamp == high
    out = peer.far(a, 10, stamp=peer.stamp_far(a) + 501)
    assert out.host[0].timestamp == (high or 0) + 1


def test_the_clock_may_wrap() -> None:
    peer = Peer()
    peer.first.clock = 2**32 - 1_000_020
    peer.open()
    for _ in range(5):
        peer.now += 0.01
        peer.goes_on(1)


def test_the_round_trip_is_measured() -> None:
    peer = Peer().open()
    out = peer.host(10)
    assert out.network[0].timestamp is not None
    stamp = peer.stamp_near()
    peer.now += 0.080
    peer.host(10)  # the host's clock goes on
    head = peer.far_packet(peer.first, 1, 11, ACK, 512, [], peer.dss(dan=11))
    at = header_length(head) + 20 + 8
    packet = head[:at] + stamp.to_bytes(4, "big") + head[at + 4 :]
    peer.inbound(packet)
    smoothed = peer.subflow(peer.first).round_trip_s
    assert smoothed is not None
    assert 0.005 < smoothed < 0.081


# -- checksums ----------------------------------------------------------------------------------------------------------


def checksum_of(peer: Peer, t: int, s: int, payload: bytes) -> int:
    """RFC 8684 section 3.3.1."""
    return folded(mptcp.initial_dsn(FAR_KEY) + t + s + len(payload) + ones_sum(payload))


@pytest.mark.parametrize("offload", Offload)
def test_right_checksums_pass(offload: Offload) -> None:
    peer = Peer(flags=FLAG_CHECKSUM | FLAG_HMAC_SHA256).open()
    assert peer.connection.checksum
    for size in (100, 101):
        t, s = peer.far_next, peer.first.next
        dss = peer.dss(t=t, s=s, length=size, checksum=checksum_of(peer, t, s, far_bytes(t, size)))
        assert [segment.payload_length for segment in peer.far(data=size, dss=dss, offload=offload).host] == [size]
        peer.host(ack=peer.far_next)
    out = peer.host(101)
    dss = out.network[0].dss
    assert dss is not None
    assert dss.checksum == folded(mptcp.initial_dsn(peer.near_key) + 1 + dss.ssn + 101 + ones_sum(out.network[0].payload))


# -- the end ------------------------------------------------------------------------------------------------------------


def test_the_end_of_data_with_the_last_data() -> None:
    peer, a, b = pair()
    peer.far(a, 10)
    t = peer.far_next
    out = peer.far(b, 10, dss=peer.dss(t=t, s=1, length=10, fin=True))
    assert [(peer.t_host(segment)[0], segment.flags & FIN) for segment in out.host] == [(11, FIN)]
    peer.near_ack = 22
    out = peer.host(ack=22)
    assert peer.data_ack == 22
    assert [peer.path_of(segment) for segment in out.network] == [a, b]


def test_the_end_of_data_before_the_data() -> None:
    peer, a, b = pair()
    peer.far_next = 21
    out = peer.far_data_fin(a)
    assert [(peer.t_host(segment)[0], segment.flags & FIN) for segment in out.host] == [(21, FIN)]
    peer.far(b, 20, t=1)
    peer.host(ack=22)
    assert peer.data_ack == 22
    assert peer.connection.state.value == "close-wait"


def test_a_second_end_elsewhere_is_refused() -> None:
    peer, a, b = pair()
    peer.far(a, 10)
    peer.far_data_fin(a)
    out = peer.far(b, dss=peer.dss(t=31, fin=True))
    assert out.why == "second end of data"
    peer.host(ack=12)
    assert peer.data_ack == 12


def test_what_a_host_without_sack_holds_above_a_gap_is_acknowledged_on_its_subflow() -> None:
    """When the peer repeats it: else it would repeat the same for ever, and never the data that closes the gap."""
    peer, a, b = pair(sack=False)
    peer.far(b, 100, t=101)
    assert b.acked == 1
    peer.host(ack=1)
    assert b.acked == 1, "it may still come in order"
    peer.far(b, 100, t=101, s=1)
    peer.host(ack=1)
    assert (b.acked, peer.data_ack) == (101, 1)
    peer.far(b, 100, t=70_000, s=101)  # outside the host's window: it has been dropped there
    peer.far(b, 100, t=70_000, s=101)
    peer.host(ack=1)
    assert b.acked == 101
    peer.far(a, 100, t=1)
    peer.host(ack=201)
    assert (a.acked, peer.data_ack) == (101, 201)


def test_a_repetition_of_what_the_host_has_is_acknowledged_above_what_it_holds_without_sack() -> None:
    """After a break far data came first on the new subflow, then what is due: its ACK waits for the far data, which waits for
    data that the peer cannot send before it gets that ACK."""
    peer, _a, b = pair(sack=False)
    peer.far(b, 100, t=1001)
    peer.far(b, 100, t=1, s=101)
    peer.host(ack=101)
    assert (b.acked, peer.data_ack) == (1, 101)
    peer.far(b, 100, t=1, s=101)
    assert (b.acked, peer.data_ack) == (201, 101)
