"""Many packets: floods of half-open connections, of strays, of gaps; and thousands of changed packets in every state."""

import copy
import gc
import random
import tracemalloc
from typing import Any

import pytest

from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Verdict
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.proxy import Proxy
from agents.core.proxy.states import State, SubflowState
from agents.wire import mptcp, tcp
from agents.wire.mptcp import Capable
from agents.wire.tcp import ACK, FIN, RST, SYN, parse
from tests.proxy.packets import header_length, sealed
from tests.unit.agents.core.proxy.parts import NEAR, far_bytes
from tests.unit.agents.core.proxy.peer import Peer, pair

FLOOD = 10_000
CAPABLE = mptcp.encode(Capable(1))


def syn_from(number: int, option: bytes = CAPABLE, flags: int = SYN) -> bytes:
    """From a forged address."""
    source = bytes((172, 16 + (number >> 16), number >> 8 & 255, number & 255))
    return tcp.build(source, 1024 + number % 60_000, NEAR[0], 80, number * 7919, 0, flags, 1000, option)


def flood(peer: Peer, count: int = FLOOD) -> None:
    for number in range(count):
        peer.now += 0.0001
        peer.proxy.inbound(syn_from(number), peer.now, [])


# -- half-open connections ----------------------------------------------------------------------------------------------


def test_a_flood_of_syns_leaves_open_connections_alone() -> None:
    peer, _a, _b = pair(ProxyConfig(half_open_max=1024))
    peer.goes_on()
    flood(peer)
    status = peer.proxy.status()
    assert (status["connections"], status["half_open"], status["subflows"]) == (1025, 1024, 1026)
    assert peer.proxy.counters["evicted"] == FLOOD - 1024
    assert len(peer.proxy._timers) < 10_000
    assert len(peer.proxy._by_token) == len(peer.proxy._by_host) == len(peer.proxy._usual_from_host) == 1025
    newest = parse(syn_from(FLOOD - 1))
    assert (newest.destination, 80, newest.source, newest.source_port) in peer.proxy._by_host, "the oldest ones go"
    assert parse(syn_from(0)).key not in peer.proxy._by_subflow
    peer.goes_on()
    peer.wait(80)
    assert peer.proxy.status()["connections"] == 1
    peer.goes_on()


def test_the_memory_of_a_flood_is_bounded() -> None:
    peer = Peer(ProxyConfig(half_open_max=256)).open()
    flood(peer, 2000)
    gc.collect()
    tracemalloc.start()
    try:
        flood(peer, 5000)
        gc.collect()
        grown, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 3_000_000, "what is kept of 5,000 SYNs is what 256 half-open connections need"
    peer.goes_on()


def test_a_flood_does_not_keep_this_host_from_opening_connections() -> None:
    """The peer's SYNs push out each other first, not those of this host."""
    peer = Peer(ProxyConfig(half_open_max=16))
    peer.host_syn()
    flood(peer, 100)
    peer.far_syn_ack()
    peer.near_key = peer.connection.local_key
    peer.host()
    peer.goes_on()


def test_a_connection_that_was_pushed_out_goes_on_as_tcp() -> None:
    peer = Peer(ProxyConfig(half_open_max=16))
    peer.far_syn()
    flood(peer, 100)
    out = peer.host_syn_ack()
    assert out.answer is Verdict.RELEASE, "its SYN had asked for nothing, as this host's TCP saw it"
    assert not out.network[0].mptcp


def test_a_host_that_opens_without_end_is_bounded_too() -> None:
    peer = Peer(ProxyConfig(half_open_max=64)).open()
    for number in range(2000):
        Peer(proxy=peer.proxy, port=number + 1).host_syn()
    assert peer.proxy.status()["half_open"] == 64
    peer.goes_on()


def test_connections_are_bounded() -> None:
    proxy = Peer(ProxyConfig(connections_max=50)).proxy
    peers = []
    for number in range(80):
        peer = Peer(proxy=proxy, port=number + 1)
        if peer.host_syn().answer is Verdict.RELEASE:
            continue
        peer.far_syn_ack()
        peers.append(peer)
    assert len(peers) == 50
    assert proxy.status()["connections"] == 50


@pytest.mark.parametrize("option", [b"", mptcp.encode(mptcp.Prio(False)), mptcp.encode(Capable(1, 0))])
def test_what_is_not_for_mptcp_leaves_no_trace(option: bytes) -> None:
    peer = Peer()
    for number in range(2000):
        for flags in (SYN, ACK, RST, FIN | ACK, SYN | ACK):
            peer.proxy.inbound(syn_from(number, option, flags), peer.now, [])
    peer.check_empty()
    assert not peer.proxy._timers


def test_joins_with_guessed_tokens_leave_no_trace() -> None:
    peer = Peer().open()
    for number in range(5000):
        option = mptcp.encode(mptcp.JoinSyn(False, 1, number.to_bytes(4, "big"), b"none"))
        peer.proxy.inbound(syn_from(number, option), peer.now, [])
    assert peer.proxy.status()["subflows"] == 1
    peer.goes_on()


# -- what a peer could pile up ------------------------------------------------------------------------------------------


def test_gaps_of_a_subflow_are_bounded() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    peer.checks = False
    base, t = a.next, peer.far_next
    for number in range(8000):
        s = base + 2 * number + 1
        option = peer.dss(t=t, s=base, length=20_000)
        packet = peer.far_packet(a, s, a.san, ACK, 512, [], option, far_bytes(t + 2 * number + 1, 1))
        peer.inbound(packet)
    assert len(peer.subflow(a).seen) <= 4096
    peer.far(a, 20_000, t=t, dss=peer.dss(t=t, s=base, length=20_000))  # everything comes again, in order
    peer.host(ack=t + 20_000)
    assert a.acked >= base
    assert len(peer.subflow(a).seen) <= 1


def test_mappings_of_a_subflow_are_bounded() -> None:
    peer, a, _b = pair()
    peer.goes_on()
    for number in range(6000):
        s = a.next + 100 + 2 * number
        peer.inbound(peer.far_packet(a, a.next, a.san, ACK, 512, [], peer.dss(t=peer.far_next + 5 * number, s=s, length=1)))
    assert len(peer.subflow(a).received) <= 4096


def test_sizes_of_a_long_transfer_do_not_grow() -> None:
    peer, a, b = pair()
    sizes = []
    for number in range(30):
        peer.act(lambda now, actions, number=number: peer.proxy.handover(number % 2, now, actions))
        peer.goes_on(2)
        connection = peer.connection
        sizes.append(len(connection.send) + sum(
            len(s.sent) + len(s.received) + len(s.seen) + len(s.bulk) for s in connection.subflows))  # fmt: skip
    assert max(sizes[15:]) <= max(sizes[:15])
    assert a.next > 1
    assert b.next > 1


# -- changed packets ----------------------------------------------------------------------------------------------------


def changed(r: random.Random, packet: bytes, other: bytes) -> bytes:
    """A packet with something else in it."""
    data = bytearray(packet)
    at = header_length(packet)
    kind = r.randrange(9)
    if kind == 0:
        for _ in range(r.choice([1, 1, 2, 8])):
            data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    elif kind == 1:
        del data[r.randrange(len(data)) :]
        return bytes(data)
    elif kind == 2:
        data += r.randbytes(r.randrange(1, 60))
    elif kind == 3:
        data[at + 13] = r.randrange(256)
    elif kind == 4:
        for place in range(at + 20, min(at + (data[at + 12] >> 4) * 4, len(data))):
            if r.random() < 0.2:
                data[place] = r.choice([0, 1, 2, 3, 5, 8, 30, 255, r.randrange(256)])
    elif kind == 5:
        data[at + 4 + r.randrange(8)] = r.randrange(256)  # sequence number or ACK
    elif kind == 6:
        field = at + r.choice([4, 8])
        value = int.from_bytes(data[field : field + 4], "big") + r.choice([-1, 1, -1000, 1000, 1 << 31, -70_000])
        data[field : field + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")
    elif kind == 7:
        options = other[header_length(other) + 20 :][:40]  # another packet's options, or its payload
        data[at + 20 :] = options
        data[at + 12] = (5 + len(options) // 4) << 4
    elif kind == 8:
        data[at + 12] = r.randrange(256)
    return sealed(data) if r.random() < 0.8 and len(data) >= at + 20 and header_length(bytes(data)) == at else bytes(data)


OFFLOADS = tuple(Offload)


class Hostile:
    """Takes the place of a proxy: before each packet, changed ones go into copies of it, which then live on to their end."""

    def __init__(self, proxy: Proxy, seed: int, each: int) -> None:
        self.real, self.random, self.each = proxy, random.Random(seed), each
        self.packets: list[tuple[bool, bytes]] = []
        self.done = 0
        self.states: set[State | SubflowState] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def _before(self, inbound: bool, packet: bytes, now: float) -> None:
        self.packets.append((inbound, packet))
        for connection in self.real._numbered.values():
            self.states |= {connection.state, *(subflow.state for subflow in connection.subflows)}
        victim, r = copy.deepcopy(self.real), self.random
        for _ in range(self.each):
            way, chosen = self.packets[-1] if r.random() < 0.6 else r.choice(self.packets[-15:])
            call = victim.inbound if way else victim.outbound
            actions: list[Action] = []
            answer = call(changed(r, chosen, r.choice(self.packets)[1]), now, actions, r.choice(OFFLOADS))
            assert isinstance(answer, Verdict | bytes)
            assert sum(not isinstance(action, Log) for action in actions) <= 24
            self.done += 1
        for connection in victim._numbered.values():
            assert len(connection.subflows) <= connection.config.subflows_max
            assert len(connection.remote_ids) <= 16
            assert all(max(len(s.received), len(s.seen)) <= 4096 for s in connection.subflows)
        for _ in range(500):
            due = victim.next_deadline()
            if due is None:
                break
            victim.handle_timer(max(now, due), [])
        assert not victim._numbered, "something stays for ever"
        assert not victim._by_subflow

    def inbound(self, packet: bytes, now: float, *rest: Any) -> Answer:
        self._before(True, packet, now)
        return self.real.inbound(packet, now, *rest)

    def outbound(self, packet: bytes, now: float, *rest: Any) -> Answer:
        self._before(False, packet, now)
        return self.real.outbound(packet, now, *rest)


def converse(peer: Peer, seed: int) -> None:
    """Through all states, in one of several ways."""
    if seed % 2:
        peer.open(confirm=False)
        peer.far(data=50)
    else:
        peer.accept(confirm=False)
        peer.far_third_ack()
        peer.far(data=50)
    peer.host(100, ack=51)
    path, _out = peer.join_asked()
    peer.join_answered(path)
    peer.far(path, 100)
    peer.host(ack=151)
    peer.far(path)
    other, _out = peer.far_join_syn()
    peer.far_join_ack(other)
    whole = peer.dss(t=151, s=1, length=300)
    for _ in range(3):
        peer.far(other, 100, dss=whole)
    peer.host(ack=451)
    peer.goes_on(1)
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.host(300)
    peer.host(200, sack=None)
    peer.far(path, san=path.san + 100, sack=[(path.san + 200, path.san + 300)])
    peer.far(other, options=mptcp.encode(mptcp.Prio(True)))
    peer.far(other, options=mptcp.encode(mptcp.RemoveAddr((9,))))
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=seed % 3 == 0))
    peer.acknowledge_all()
    if seed % 5 == 0 and len(peer.carrying()) == 1:  # on as TCP
        for _ in range(3):
            peer.far(path, 10, dss=peer.dss(t=peer.far_next, s=0, length=0))
            peer.host(10, ack=peer.far_next)
        return
    end = [lambda: peer.host(flags=ACK | FIN), lambda: peer.far(path, dss=peer.dss(t=peer.far_next, fin=True)),
           lambda: peer.host(ack=peer.far_next + 1), lambda: peer.far(path, dan=peer.near_next)]  # fmt: skip
    for step in (end, [end[0], end[3], end[1], end[2]], [end[1], end[2], end[0], end[3]])[seed % 3]:
        step()
    for each in list(peer.carrying()) or [path]:
        peer.far(each, flags=FIN | ACK)
    peer.far(path, san=path.got.highest + 1)
    peer.host()


@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_changed_packets(part: int) -> None:
    """In all states: never an exception, never an endless answer, never more state than the bounds, none for ever."""
    done, states = 0, set[State | SubflowState]()
    for seed in range(part * 6, part * 6 + 6):
        r = random.Random(seed)
        config = ProxyConfig(checksum=r.random() < 0.3, policy=r.choice(["manual", "manual", "cheapest", "lowest-rtt"]),
                             subflow_acks=r.random() < 0.5, nudge=r.random() < 0.3, wide_numbers=r.random() < 0.3)  # fmt: skip
        peer = Peer(config, sack=r.random() < 0.7, timestamps=r.random() < 0.7)
        hostile = Hostile(peer.proxy, seed, 12)
        peer.proxy = hostile  # type: ignore[assignment]
        converse(peer, seed)
        done += hostile.done
        states |= hostile.states
    assert done >= 2500
    assert states >= set(State) - {State.CLOSED}
    assert states >= set(SubflowState) - {SubflowState.CLOSED}


def test_changed_packets_of_beside_the_path_change_nothing() -> None:
    """With any content, but sequence numbers that were only guessed."""
    r = random.Random(5)
    peer, a, b = pair()
    peer.goes_on()
    removal = mptcp.encode(mptcp.RemoveAddr((0, 1)))
    valid = [peer.far_packet(path, path.next, path.san, flags, 512, [], option, data)
             for path in (a, b) for flags in (ACK, RST, ACK | FIN, RST | ACK)
             for option in (peer.dss(), peer.dss(t=peer.far_next, s=path.next, length=10), removal)
             for data in (b"", b"x" * 10)]  # fmt: skip
    for number in range(3000):
        data = bytearray(changed(r, r.choice(valid), r.choice(valid)))
        if len(data) < 40 or header_length(bytes(data)) != 20:
            continue
        data[12:20], data[20:24] = a.far[0] + a.near[0], a.far[1].to_bytes(2, "big") + a.near[1].to_bytes(2, "big")
        data[24:28] = (a.far_isn + a.next + r.randrange(1 << 25, (1 << 32) - (1 << 25)) & 0xFFFFFFFF).to_bytes(4, "big")
        data[33] &= ~SYN
        actions: list[Action] = []
        assert peer.proxy.inbound(sealed(data), peer.now, actions) in (Verdict.DROP, Verdict.PASS)
        assert not any(isinstance(action, Deliver) for action in actions)
        if number % 500 == 0:
            peer.goes_on(1)
    assert len(peer.connection.subflows) == 2
    peer.goes_on()
