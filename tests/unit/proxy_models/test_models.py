"""The models and the harness without a proxy: TCP with TCP, MPTCP with MPTCP, over networks that misbehave."""

import os
import random

import pytest

from agents.wire import mptcp, tcp
from agents.wire.mptcp import Dss
from agents.wire.tcp import ACK, RST, SYN
from tests.proxy.harness import Result, Talk, report
from tests.proxy.middleboxes import Coalescer, Corrupter, Dropper, Firewall, Nat, SequenceRewriter, Splitter, Stripper
from tests.proxy.model_runs import A1, A2, CLIENT_PORT, MAKERS, PORT, B, Pair, join_hosts, judged, mptcp_pair, tcp_pair
from tests.proxy.mptcp_config import MptcpConfig
from tests.proxy.mptcp_keys import FIRST_DSN, first_dsn, key_with_dsn, near
from tests.proxy.mptcp_model import Connection
from tests.proxy.ranges import Ranges
from tests.proxy.tcp_model import Endpoint
from tests.proxy.tcp_types import State, TcpConfig

RUNS = int(os.environ.get("ROAMLAB_MODEL_RUNS", "60"))


def good(pair: Pair) -> Result:
    result = judged(pair.simulation.run())
    assert result.good, report(result)
    return result


@pytest.mark.parametrize("kind", ["tcp", "mptcp"])
@pytest.mark.parametrize("part", range(4))
def test_random_runs(kind: str, part: int) -> None:
    """Whole and unchanged streams, both ends closed, nobody saw what cannot be."""
    for seed in range(part, RUNS, 4):
        result = judged(MAKERS[kind](seed).simulation.run())
        assert result.good, f"seed {seed}: {report(result)}"


def test_the_same_seed_gives_the_same_packets() -> None:
    for maker in (tcp_pair, mptcp_pair):
        runs = [maker(5, capture=True) for _ in range(2)]
        results = [run.simulation.run() for run in runs]
        assert runs[0].capture is not None
        assert runs[1].capture is not None
        assert runs[0].capture.packets == runs[1].capture.packets
        assert results[0].hashes == results[1].hashes
        assert len(runs[0].capture.packets) > 3


def test_ranges_against_a_set() -> None:
    r = random.Random(3)
    ranges, model = Ranges(), set[int]()
    for _ in range(600):
        left = r.randrange(200)
        right = left + r.randrange(12)
        if r.random() < 0.1:
            ranges.cut_below(left)
            model = {n for n in model if n >= left}
        else:
            assert ranges.add(left, right) == len(set(range(left, right)) - model)
            model |= set(range(left, right))
        assert {n for a, b in ranges for n in range(a, b)} == model
        assert ranges.total == len(model)
        assert all(b < c for (_, b), (c, _) in zip(list(ranges), list(ranges)[1:], strict=False))
        assert {n for a, b in ranges.gaps(50, 150) for n in range(a, b)} == set(range(50, 150)) - model
        assert {n for a, b in ranges.within(50, 150) for n in range(a, b)} == set(range(50, 150)) & model
        assert ranges.covers(left, right) == (set(range(left, right)) <= model)


# ---- the TCP model complains


LOCAL, REMOTE = (B, PORT), (A1, CLIENT_PORT)


def open_endpoint(config: TcpConfig | None = None, *, timestamps: bool = True) -> Endpoint:
    """A server whose client's numbers begin at 1000; its own at 5000."""
    endpoint = Endpoint(config or TcpConfig(isn=5000, buffer=10_000, scale=0), LOCAL)
    endpoint.listen()
    options = bytes.fromhex("020405b40402") + (bytes.fromhex("080a0000000a00000000") if timestamps else b"") + b"\x03\x03\x00"
    endpoint.handle(tcp.build(*REMOTE, *LOCAL, 1000, 0, SYN, 10_000, options), 1.0)
    assert endpoint.state is State.SYN_RCVD
    endpoint.handle(packet(endpoint, 1, 1), 1.0)
    assert endpoint.state is State.ESTABLISHED
    endpoint.output.clear()
    assert not endpoint.violations
    return endpoint


def packet(
    endpoint: Endpoint, seq: int, ack: int, payload: bytes = b"", *, flags: int = ACK, echo: int = 1000, value: int = 11,
    options: bytes = b"", stamps: bool = True,
) -> bytes:  # fmt: skip
    text = (tcp.timestamps_option(value, echo) if stamps and endpoint.timestamps else b"") + options
    return tcp.build(*REMOTE, *LOCAL, 1000 + seq, 5000 + ack, flags, 10_000, text, payload)


BAD_FOR_TCP = {
    "acknowledges": lambda e: packet(e, 1, 2),
    "acknowledges -": lambda e: packet(e, 1, -3),
    "beyond the window": lambda e: packet(e, 10_001, 1, b"xx"),
    "other bytes": lambda e: packet(e, 1, 1, b"abcX"),
    "timestamp that was not sent": lambda e: packet(e, 5, 1, echo=999),
    "no timestamps": lambda e: packet(e, 5, 1, stamps=False),
    "SACK of": lambda e: packet(e, 5, 1, options=tcp.sack_option([(5001, 5002)])),
    "TCP checksum": lambda e: packet(e, 5, 1, b"damaged")[:-1] + b"!",
    "MSS of": lambda e: packet(e, 5, 1, bytes(1460)),
    "a SYN elsewhere": lambda e: packet(e, 3, 1, flags=ACK | SYN),
    "no ACK flag": lambda e: packet(e, 5, 1, flags=0),
    "an RST outside": lambda e: packet(e, 20_000, 1, flags=RST),
    "lie about": lambda e: packet(e, 5, 1, options=bytes.fromhex("08000101")),
    "before the stream": lambda e: packet(e, 0, 1, b"ab"),
}


@pytest.mark.parametrize("text", BAD_FOR_TCP)
def test_tcp_complains(text: str) -> None:
    endpoint = open_endpoint()
    endpoint.handle(packet(endpoint, 1, 1, b"abcd"), 1.0)
    assert not endpoint.violations
    endpoint.handle(BAD_FOR_TCP[text](endpoint), 1.0)
    assert any(text in violation for violation in endpoint.violations), endpoint.violations


def test_tcp_complains_of_mptcp_only_where_it_is_plain() -> None:
    for plain in (False, True):
        endpoint = open_endpoint(TcpConfig(isn=5000, plain=plain))
        endpoint.handle(packet(endpoint, 1, 1, options=mptcp.encode_dss(Dss(1))), 1.0)
        assert bool(endpoint.violations) == plain


def test_tcp_discards_old_timestamps() -> None:
    endpoint = open_endpoint()
    endpoint.handle(packet(endpoint, 1, 1, b"a", value=50), 1.0)
    endpoint.handle(packet(endpoint, 2, 1, b"b", value=49), 1.0)
    assert endpoint.counters["PAWS"] == 1
    assert endpoint.received == b"a"


def test_a_reset_must_hit_the_next_number() -> None:
    endpoint = open_endpoint()
    endpoint.handle(packet(endpoint, 2, 1, flags=RST), 1.0)
    assert endpoint.state is State.ESTABLISHED
    assert endpoint.output  # a challenge ACK, RFC 5961
    endpoint.handle(packet(endpoint, 1, 1, flags=RST), 1.0)
    assert (endpoint.state, endpoint.reset_by) == (State.CLOSED, "peer")


def test_the_harness_notices_a_network_that_loses_everything() -> None:
    pair = tcp_pair(1, quiet=True)
    pair.after(0.05, lambda: pair.paths[0].set_up(False))
    pair.simulation.near.talk.data = bytes(500_000)
    result = pair.simulation.run()
    assert not result.complete
    assert result.stuck or "timeout" in result.resets


def test_the_harness_notices_changed_bytes() -> None:
    pair = tcp_pair(3, quiet=True)
    pair.simulation.near.talk.data = bytes(50_000)
    box = Corrupter(lambda segment, direction: direction == "out" and box.count == 0)
    pair.paths[0].boxes.append(box)
    result = pair.simulation.run()
    assert box.count == 1
    assert not result.complete
    assert not result.stuck


# ---- MPTCP


def pair_of(
    seed: int = 1, *, size: int = 60_000, near_more: dict[str, object] | None = None, far_more: dict[str, object] | None = None
) -> tuple[Pair, Connection, Connection]:
    """A quiet pair with data in both directions, and with a key whose numbers wrap."""
    r = random.Random(seed)
    base: dict[str, object] = {"mapping": 5_000}
    configs = (
        MptcpConfig(**{**base, "key": key_with_dsn(2**32 - 50_000, 40_000), "addresses": (A1, A2), **(near_more or {})}),  # type: ignore[arg-type]
        MptcpConfig(**{**base, "addresses": (B,), "seed": 9, **(far_more or {})}),  # type: ignore[arg-type]
    )
    joined = join_hosts(seed, r, configs, (Talk(r.randbytes(size)), Talk(r.randbytes(size))), quiet=True, capture=False)
    slow(joined[0])
    return joined


def slow(pair: Pair) -> Pair:
    """10 Mbit/s and 20 ms everywhere."""
    for path in pair.paths:
        for link in path.links.values():
            link.rate, link.delay, link.queue = 1e7, 0.02, 2.0
    return pair


def test_numbers_near_two_to_the_64() -> None:
    key = b"near top"
    FIRST_DSN[key] = 2**64 - 10_000
    try:
        for wide in (False, True):
            pair, client, server = pair_of(near_more={"key": key, "wide_dsn": wide}, far_more={"wide_ack": wide})
            good(pair)
            assert server.first_dsn_there == first_dsn(key) == 2**64 - 10_000
            assert client.una > 60_000
    finally:
        del FIRST_DSN[key]
    assert near(5, 32, 2**32 - 10) == 2**32 + 5
    assert near(2**32 - 1, 32, 2**32 + 3) == 2**32 - 1


@pytest.mark.parametrize("where", ["SYN", "SYN/ACK", "third ACK"])
def test_an_option_stripped_from_the_handshake_means_fallback(where: str) -> None:
    """RFC 8684 section 3.7."""

    def when(segment: tcp.Segment, direction: str) -> bool:
        if where == "SYN":
            return bool(segment.flags & SYN) and direction == "out"
        if where == "SYN/ACK":
            return bool(segment.flags & SYN) and direction == "in"
        return not segment.flags & SYN

    pair, client, server = pair_of(near_more={"fallback_expected": True}, far_more={"fallback_expected": True})
    pair.paths[0].boxes.append(Stripper(when))
    good(pair)
    assert client.plain
    assert server.plain


def test_a_fallback_that_nobody_expects_is_a_violation() -> None:
    pair, _client, _server = pair_of()
    pair.paths[0].boxes.append(Stripper())
    result = pair.simulation.run()
    assert result.complete
    assert any("fallback" in text for text in result.violations)


def test_a_bad_checksum_on_the_only_subflow_means_fallback() -> None:
    """RFC 8684 section 3.7: MP_FAIL, an infinite mapping, and the rest as TCP; the changed byte stays changed."""
    more = {"fallback_expected": True, "checksum": True}
    pair, client, server = pair_of(near_more=more, far_more=more)
    box = Corrupter(lambda segment, direction: direction == "out" and box.count == 0 and segment.seq % 7 == 3)
    pair.paths[0].boxes.append(box)
    result = pair.simulation.run()
    assert box.count == 1
    assert server.counters["checksum failures"] == 1
    assert client.plain
    assert server.plain
    assert not result.stuck
    assert result.received == (60_000, 60_000)
    assert not result.violations, report(result)


def test_a_bad_checksum_on_one_of_two_subflows_ends_that_subflow() -> None:
    more = {"fallback_expected": True, "checksum": True, "scheduler": "roundrobin"}
    pair, client, server = pair_of(near_more=more, far_more=more, size=300_000)
    pair.after(0.3, lambda: client.join(pair.now, 1))
    box = Corrupter(lambda segment, direction: direction == "out")
    pair.paths[1].boxes.append(box)
    result = good(pair)
    assert box.count
    assert server.counters["checksum failures"]
    assert not client.plain
    assert result.received == (300_000, 300_000)


@pytest.mark.parametrize("way", ["reset", "ack"])
@pytest.mark.parametrize("by_server", [False, True])
def test_fast_close(way: str, by_server: bool) -> None:
    """RFC 8684 section 3.5, both ways of saying it."""
    pair, client, server = pair_of(near_more={"fast_close": way}, far_more={"fast_close": way}, size=600_000)
    pair.after(0.2, lambda: client.join(pair.now, 1))
    who = server if by_server else client
    pair.after(0.6, lambda: who.abort(pair.now))
    result = pair.simulation.run()
    assert result.resets == (("peer", "self") if by_server else ("self", "peer"))
    assert not result.violations, report(result)
    assert all(s.endpoint.state is State.CLOSED for s in server.subflows)


def test_a_fast_close_with_a_wrong_key_is_refused() -> None:
    pair, client, server = pair_of(size=600_000)
    pair.after(0.5, lambda: client.subflows[0].signal(mptcp.Fastclose(b"wrongkey"), pair.now))
    result = pair.simulation.run()
    assert result.complete
    assert any("MP_FASTCLOSE" in text for text in server.violations)


def test_announced_addresses_are_echoed_and_joined() -> None:
    pair, client, server = pair_of(near_more={"announce": True}, far_more={"join_announced": True}, size=300_000)
    good(pair)
    assert server.remote_addresses[1][0] == A2
    assert client.announcing == {}
    assert [s.active for s in server.subflows] == [False, True]
    assert all(s.confirmed for s in server.subflows)


def test_multipath_uses_both_paths_and_priorities_are_followed() -> None:
    pair, client, server = pair_of(far_more={"scheduler": "roundrobin", "backlog": 0}, size=400_000)
    pair.after(0.1, lambda: client.join(pair.now, 1))
    good(pair)
    assert all(len(s.endpoint.sender.data) > 20_000 for s in server.subflows)
    pair, client, server = pair_of(size=400_000)
    pair.after(0.1, lambda: client.join(pair.now, 1, backup=True))
    good(pair)
    assert not server.subflows[1].endpoint.sender.data
    pair, client, server = pair_of(far_more={"backlog": 0}, size=1_000_000)
    pair.after(0.1, lambda: client.join(pair.now, 1))
    marks: list[int] = []
    pair.after(0.4, lambda: client.set_backup(client.subflows[0], True, pair.now))
    pair.after(0.6, lambda: marks.append(len(server.subflows[0].endpoint.sender.data)))
    good(pair)
    assert server.counters["Prio"] == 1
    assert len(server.subflows[0].endpoint.sender.data) == marks[0]


def test_a_removed_address_and_a_dead_path_are_survived() -> None:
    for way in ("remove", "cut"):
        pair, client, server = pair_of(size=600_000)
        pair.after(0.1, lambda client=client, pair=pair: client.join(pair.now, 1))  # type: ignore[misc]
        if way == "remove":
            pair.after(0.3, lambda client=client, pair=pair: client.remove(0, pair.now))  # type: ignore[misc]
        else:
            pair.after(0.3, lambda pair=pair: pair.paths[0].set_up(False))  # type: ignore[misc]
        good(pair)
        assert server.counters["reinjected"] or client.counters["reinjected"]


def test_middleboxes_that_do_no_harm() -> None:
    r = random.Random(4)
    outer = bytes((192, 0, 2, 9))
    for kind in ("split", "first", "last", "merge", "nat", "rewrite", "firewall"):
        pair, client, _server = pair_of(
            size=300_000, near_more={"scheduler": "roundrobin"}, far_more={"scheduler": "roundrobin"}
        )
        boxes = {
            "split": Splitter(r, 0.3), "first": Splitter(r, 0.3, "first"), "last": Splitter(r, 0.3, "last"),
            "merge": Coalescer(), "nat": Nat(A2, outer), "rewrite": SequenceRewriter(2**31 + 5), "firewall": Firewall(),
        }  # fmt: skip
        if kind == "merge":
            pair.paths[1].boxes.append(Splitter(r, 0.5))
        pair.paths[1].boxes.append(boxes[kind])
        pair.network.route(outer, pair.paths[1])
        pair.after(0.1, lambda client=client, pair=pair: client.join(pair.now, 1))  # type: ignore[misc]
        good(pair)
        assert len(client.subflows) == 2
        assert not getattr(boxes[kind], "invalid", [])
        assert getattr(boxes[kind], "count", 1)


def test_what_the_peer_complains_of() -> None:
    """Each lie is told by a client that is otherwise right."""
    lies = {
        "DATA_ACK": lambda c: Dss(2**40, True),
        "contradict": lambda c: Dss(0, True, c.dsn_wire(30), True, 11, 5),
        "beyond the window": lambda c: Dss(0, True, c.dsn_wire(2**24), True, 10**6, 5),
        "before the beginning": lambda c: Dss(0, True, c.dsn_wire(0), True, 0, 5),
        "infinite": lambda c: Dss(0, True, c.dsn_wire(10**5), True, 10**5, 0),
        "checksum present": lambda c: Dss(0, True, c.dsn_wire(10**5), True, 10**5, 5, 77),
        "FIN": lambda c: Dss(0, True, c.dsn_wire(20), True, 0, 1, None, True),
    }
    for text, lie in lies.items():
        pair, client, server = pair_of(size=200_000)

        def tell(pair: Pair = pair, client: Connection = client, lie: object = lie) -> None:
            dss = lie(client)  # type: ignore[operator]
            if dss.ack == 0:
                dss = dss._replace(ack=client.ack_wire(True))
            endpoint = client.subflows[0].endpoint
            options = mptcp.encode_dss(dss)
            endpoint._emit(endpoint.sender.next, b"", ACK, pair.now, options + b"\x01" * (-len(options) % 4))

        pair.after(0.15, tell)
        pair.simulation.run(until=2.0)
        assert any(text in violation for violation in server.violations), (text, server.violations)


def test_joins_that_are_wrong_are_refused() -> None:
    for text, change in {
        "token": lambda c: setattr(c, "other_key", b"unknown!"),
        "HMAC of a SYN/ACK": lambda c: setattr(c, "key", b"unknown!"),
    }.items():
        pair, client, server = pair_of(size=400_000)

        def tell(pair: Pair = pair, client: Connection = client, change: object = change) -> None:
            kept = client.key, client.other_key
            change(client)  # type: ignore[operator]
            client.join(pair.now, 1)
            if kept[1] != client.other_key:
                client.key, client.other_key = kept

        pair.after(0.3, tell)
        pair.simulation.run(until=5.0)
        assert any(text in violation for violation in server.violations + client.violations), text
        assert not any(s.confirmed for s in server.subflows[1:])


def test_a_lost_third_ack_is_made_up_for_by_the_first_data() -> None:
    """RFC 8684 section 3.1."""
    pair, client, server = pair_of()
    box = Dropper(lambda segment, direction: direction == "out" and not segment.flags & SYN and box.count < 1)
    pair.paths[0].boxes.append(box)
    good(pair)
    assert box.count == 1
    assert server.other_key == client.key


def test_a_firewall_lets_pass_what_is_right_and_drops_what_is_not() -> None:
    for seed in range(12):
        pair = tcp_pair(seed, quiet=True)
        wall = Firewall()
        pair.paths[0].boxes.append(wall)
        good(pair)
        assert not wall.invalid
    pair = slow(tcp_pair(2, quiet=True))
    pair.simulation.near.talk.data = bytes(300_000)
    wall = Firewall()
    pair.paths[0].boxes += [wall]
    ahead = tcp.build(A1, CLIENT_PORT, B, PORT, 2**31 + 77, 1, ACK, 5, payload=b"x")
    pair.after(0.3, lambda: pair.network.send(ahead))
    pair.simulation.run()
    assert wall.invalid


def test_a_capture_is_a_pcap_file(tmp_path: object) -> None:
    pair = tcp_pair(3, quiet=True, capture=True)
    pair.simulation.run()
    assert pair.capture is not None
    path = tmp_path / "run.pcap"  # type: ignore[operator]
    pair.capture.write(path)
    data = path.read_bytes()
    assert data[:4] == bytes.fromhex("4d3cb2a1")
    assert len(data) == 24 + sum(16 + len(packet) for _, packet in pair.capture.packets)
