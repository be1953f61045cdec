"""Two capture points: pairing of flows, alignment of packets, damage in between."""

from __future__ import annotations

import struct

import pytest
from connection_scene import (
    CLIENT_KEY,
    SACK_PERMITTED,
    SERVER_KEY,
    Line,
    Scene,
    capable,
    join_syn,
    mss,
    timestamps,
    wscale,
)

from analysis.connections import reconstruct
from analysis.connections.compare import Comparison, compare

DELAY_MS = 5


class Way:
    """A flow that passes A (point 0, near the client) and B (point 1). `there`: what differs at B; None: not seen there."""

    def __init__(self, scene: Scene, a: Line | None = None, b: Line | None = None, clock_ms: float = 0, swap: bool = False):
        self.a = a or scene.line(point=0)
        self.b = b or scene.line(point=1)
        self.clock_ms, self.swap = clock_ms, swap

    def send(self, ms, up, flags="A", at=1, acked=1, there=(), here=(), **more) -> None:
        first, second = (self.a, self.b) if up != self.swap else (self.b, self.a)
        for line, late in ((first, 0), (second, DELAY_MS)):
            changes = here if line is self.a else there
            if changes is None:
                continue
            fields = {"flags": flags, "at": at, "acked": acked, **more, **dict(changes)}
            line.send(ms + late + fields.pop("late", 0) + (self.clock_ms if line is self.b else 0), up, **fields)

    def handshake(self, ms=0, syn=b"", answer=b"", ack=b"") -> None:
        for step, (up, flags, at, acked, options) in enumerate(
            ((True, "S", 0, 0, syn), (False, "SA", 0, 1, answer), (True, "A", 1, 1, ack))
        ):
            options, there = options if isinstance(options, tuple) else (options, options)
            self.send(ms + 10 * step, up, flags, at, acked, options=options, there={"options": there})


def compared(scene: Scene) -> Comparison:
    return compare(reconstruct(scene.table(), range(scene.points)), 0, 1)


def damage(scene: Scene) -> list[tuple[str, str, str, int, str]]:
    rows = compared(scene).damage
    return list(zip(rows["direction"], rows["kind"], rows["what"], rows["count"], rows["text"], strict=True))


def only(scene: Scene) -> tuple[str, str, str, int, str]:
    rows = damage(scene)
    assert len(rows) == 1, rows
    return rows[0]


def scene_with(**way) -> tuple[Scene, Way]:
    scene = Scene(points=2)
    return scene, Way(scene, **way)


# --- pairs -------------------------------------------------------------------------------------------------------


def test_an_untouched_flow():
    scene, way = scene_with()
    way.handshake()
    way.send(40, True, "PA", size=100, ttl=64, there={"ttl": 61})
    way.send(60, False, "A", 1, 101)
    result = compared(scene)
    assert result.damage.empty, result.damage.to_string()
    [pair] = result.pairs.to_dict("records")
    assert pair["paired_by"] == "endpoints and sequence numbers"
    assert (pair["client_side"], pair["packets_a"], pair["packets_b"], pair["matched"]) == ("a", 5, 5, 5)
    assert pair["ends_a"] == pair["ends_b"] == "10.0.1.1:1000 > 10.0.9.9:80"
    assert (pair["shift_up"], pair["shift_down"]) == (0, 0)
    assert result.delays["median_ms"].tolist() == [5.0, 5.0]
    assert result.clock_offset_ms == 0


@pytest.mark.parametrize("clock_ms", [0, 1234.5, -777.25])
@pytest.mark.parametrize("swap", [False, True])
def test_which_point_is_nearer_to_the_client_whatever_the_clocks_say(clock_ms, swap):
    scene, way = scene_with(clock_ms=clock_ms, swap=swap)
    way.handshake()
    way.send(40, True, "PA", size=100)
    way.send(60, False, "A", 1, 101)
    scene.packets.sort(key=lambda packet: packet[0])
    result = compared(scene)
    assert result.pairs["client_side"].tolist() == ["b" if swap else "a"]
    assert result.clock_offset_ms == pytest.approx(clock_ms)
    assert result.damage.empty, result.damage.to_string()


def test_the_ttl_tells_the_side_when_times_do_not():
    scene, way = scene_with()
    for flags, at, up in (("S", 0, True), ("A", 1, True), ("PA", 1, True)):
        way.send(10 * at, up, flags, at, 0, ttl=61, there={"ttl": 64})
    assert compared(scene).pairs["client_side"].tolist() == ["b"]


def nat_scene(**options) -> tuple[Scene, Way]:
    scene = Scene(points=2)
    return scene, Way(
        scene, scene.line(point=0), scene.line("192.0.2.1:40000", isn=options.get("isn", (1000, 900_000)), point=1)
    )


def test_nat_is_recognised_by_sequence_numbers():
    scene, way = nat_scene()
    way.handshake()
    result = compared(scene)
    assert result.pairs["paired_by"].tolist() == ["sequence numbers"]
    assert only(scene) == ("", "translated", "client", 1, "The client 10.0.1.1:1000 at A is 192.0.2.1:40000 at B.")


def test_shift_across_the_wrap_of_sequence_numbers():
    scene = Scene(points=2)
    way = Way(scene, scene.line(isn=(2**32 - 10, 5), point=0), scene.line(isn=(22, 5), point=1))
    way.handshake()
    way.send(40, True, "PA", size=100)
    way.send(60, False, "A", 1, 101)
    result = compared(scene)
    assert result.pairs["shift_up"].tolist() == [32]
    assert result.pairs["matched"].tolist() == [5]
    assert result.damage["kind"].tolist() == ["sequence-shifted"]


def test_nat_with_new_sequence_numbers_is_recognised_by_keys():
    scene, way = nat_scene(isn=(5_001_000, 3))
    way.handshake(0, capable(), capable(SERVER_KEY), capable(CLIENT_KEY, SERVER_KEY))
    result = compared(scene)
    assert result.pairs["paired_by"].tolist() == ["MPTCP keys"]
    assert result.pairs[["shift_up", "shift_down"]].to_numpy().tolist() == [[5_000_000, -899_997]]
    shifted = result.damage[result.damage["kind"] == "sequence-shifted"]
    assert shifted["text"].tolist() == [
        "Sequence numbers of the client are shifted by +5,000,000 from A to B.",
        "Sequence numbers of the server are shifted by -899,997 from A to B.",
    ]
    assert (result.pairs["matched"] == 3).all()


def test_nat_with_new_sequence_numbers_is_recognised_by_token_and_nonce():
    scene, way = nat_scene(isn=(5_001_000, 3))
    way.handshake(0, join_syn(1, 2), b"", b"")
    assert compared(scene).pairs["paired_by"].tolist() == ["MPTCP token and nonce"]


def test_nat_with_new_sequence_numbers_is_recognised_by_the_timestamp_of_the_syn():
    scene, way = nat_scene(isn=(5_001_000, 3))
    way.handshake(0, timestamps(99))
    assert compared(scene).pairs["paired_by"].tolist() == ["server and timestamp of the SYN"]


def test_flows_without_handshake_are_recognised_by_their_payload_sizes():
    scene = Scene(points=2)
    for n, (client, nat) in enumerate((("10.0.1.1:1000", "192.0.2.1:40000"), ("10.0.1.1:1001", "192.0.2.1:40001"))):
        way = Way(scene, scene.line(client, point=0), scene.line(nat, isn=(50, 60), point=1))
        at = 1
        for step, size in enumerate((100, 200, 300 + n, 400, 50, 60, 70)):
            way.send(step * 10, True, "PA", at, 1, size=size)
            at += size
    result = compared(scene)
    assert result.pairs["paired_by"].tolist() == ["server and payload sizes"] * 2
    assert result.pairs["ends_b"].tolist() == ["192.0.2.1:40000 > 10.0.9.9:80", "192.0.2.1:40001 > 10.0.9.9:80"]


def test_flows_that_cannot_be_told_apart_are_not_paired_by_chance():
    scene = Scene(points=2)
    for client, nat in (("10.0.1.1:1000", "192.0.2.1:40000"), ("10.0.1.1:1001", "192.0.2.1:40001")):
        way = Way(scene, scene.line(client, point=0), scene.line(nat, isn=(50, 60), point=1))
        for step in range(8):
            way.send(step * 10, True, "PA", 1 + 100 * step, 1, size=100)
    result = compared(scene)
    assert result.pairs.empty
    assert result.damage["kind"].tolist() == ["flow-missing"] * 4


def test_reused_ports_are_told_apart():
    scene = Scene(points=2)
    for ms, isns in ((0, (1000, 2000)), (50_000, (70_000, 80_000))):
        way = Way(scene, scene.line(isn=isns, point=0), scene.line(isn=isns, point=1))
        way.handshake(ms)
        way.send(ms + 40, True, "FA", 1)
        way.send(ms + 60, False, "FA", 1, 2)
    result = compared(scene)
    assert len(result.pairs) == 2
    assert result.damage.empty, result.damage.to_string()


def test_a_flow_seen_at_one_point_only():
    scene, way = scene_with()
    way.handshake()
    for ms in (100, 1100):
        scene.line("10.0.1.1:7").send(ms, True, "S", 0)
    direction, kind, what, count, text = only(scene)
    assert (direction, kind, what, count) == ("", "flow-missing", "at B", 2)
    assert text == "Flow 10.0.1.1:7 > 10.0.9.9:80 (2 packets) was seen at A only."


def test_points_must_exist_and_differ():
    scene, way = scene_with()
    way.handshake()
    core = reconstruct(scene.table(), [0, 1])
    with pytest.raises(ValueError, match=r"point_b: no flow at capture point \[7\]: there are \[0, 1\]"):
        compare(core, 0, 7)
    with pytest.raises(ValueError, match="same capture point on both sides"):
        compare(core, (0, 1), (1,))


# --- options -----------------------------------------------------------------------------------------------------

BOTH = CLIENT_KEY, SERVER_KEY


@pytest.mark.parametrize(
    ("place", "here", "there", "expected"),
    [
        ("syn", capable(), b"", ("up", "option-removed", "MP_CAPABLE of SYN", "MP_CAPABLE was removed from the SYN of the")),
        ("answer", b"", capable(SERVER_KEY), ("down", "option-removed", "MP_CAPABLE of SYN/ACK", "from the SYN/ACK of the")),
        ("ack", capable(*BOTH), b"", ("up", "option-removed", "MP_CAPABLE of segment", "from the segment of the client.")),
        ("syn", join_syn(1), b"", ("up", "option-removed", "MP_JOIN of SYN", "MP_JOIN was removed")),
        ("syn", b"", capable(), ("up", "option-added", "MP_CAPABLE of SYN", "MP_CAPABLE was added in the SYN of the client.")),
        ("syn", SACK_PERMITTED, b"", ("up", "option-removed", "SACK permitted of SYN", "SACK permitted was removed")),
        ("syn", timestamps(1), b"", ("up", "option-removed", "timestamps of SYN", "timestamps was removed")),
        ("syn", mss(1460), mss(1380), ("up", "mss-clamped", "MSS", "first 1460 > 1380.")),
        ("answer", mss(1380), mss(1460), ("down", "mss-clamped", "MSS", "first 1460 > 1380.")),
        ("syn", wscale(7), wscale(2), ("up", "option-changed", "window scale", "first 7 > 2.")),
        ("syn", join_syn(1, 7), join_syn(2, 7), ("up", "option-changed", "MP_JOIN SYN", "token 00000001 nonce 00000007 id")),
    ],
)  # fmt: skip
def test_options_that_differ(place, here, there, expected):
    scene, way = scene_with()
    way.handshake(0, **{place: (here, there)})
    direction, kind, what, count, text = only(scene)
    assert (direction, kind, what, count) == (*expected[:3], 1)
    assert expected[3] in text


def test_mapping_stripped_from_data():
    scene, way = scene_with()
    way.handshake()
    for n in range(4):
        way.a.data(40 + n, True, n * 1000)
        if n < 2:
            way.b.data(45 + n, True, n * 1000)
        else:
            way.b.send(45 + n, True, "PA", n * 1000 + 1, size=1000)
    direction, kind, what, count, text = only(scene)
    assert (direction, kind, what, count) == ("up", "option-removed", "DSS of segment", 2)
    assert text == "DSS was removed from 2 of 4 segments of the client."


def test_mapping_rewritten():
    scene, way = scene_with()
    way.handshake()
    way.a.data(40, True, 0)
    way.b.data(45, True, 500, ssn=1)
    assert only(scene)[:4] == ("up", "option-changed", "DSS mapping", 1)


def test_rewritten_and_removed_timestamps_do_not_hinder_the_alignment():
    scene, way = scene_with()
    way.handshake()
    for n, (here, there) in enumerate(((timestamps(100), timestamps(900)), (timestamps(101), b""))):
        way.send(40 + n, True, "PA", 1 + 100 * n, size=100, options=here, there={"options": there})
    result = compared(scene)
    assert (result.pairs["matched"] == 5).all()
    assert sorted(result.damage["kind"]) == ["option-changed", "option-removed"]


# --- headers and payload -----------------------------------------------------------------------------------------


def test_sack_blocks_that_were_not_shifted():
    scene = Scene(points=2)
    way = Way(scene, scene.line(isn=(1000, 2000), point=0), scene.line(isn=(501_000, 2000), point=1))
    way.handshake()
    edges = struct.pack(">BBII", 5, 10, 1000 + 101, 1000 + 201)
    way.send(40, True, "A", 101, size=100)
    way.send(60, False, "A", 1, 1, options=edges)
    kinds = {row[1]: row for row in damage(scene)}
    assert set(kinds) == {"sequence-shifted", "sack-not-shifted"}
    assert kinds["sack-not-shifted"][0] == "down"


def test_header_fields():
    scene, way = scene_with()
    way.handshake()
    way.send(40, True, window=1000, there={"window": 500})
    assert only(scene)[4] == "window changed in 1 packet of the client, first 1,000 > 500."


def test_loss():
    scene, way = scene_with()
    way.handshake()
    for n in range(10):
        way.send(40 + n, True, "PA", 1 + 100 * n, size=100, there=None if n in (3, 4) else ())
        way.send(60 + n, False, "A", 1, 301 if n >= 3 else 101 + 100 * n, here=None if n == 9 else ())
    rows = {row[0]: row for row in damage(scene)}
    assert rows["up"][1:4] == ("lost", "packets", 2)
    assert rows["up"][4].startswith(
        "2 of 12 packets of the client did not arrive (200 bytes of payload), the last 1.0 ms after"
    )
    assert rows["down"][1:4] == ("lost", "packets", 1)


def test_loss_and_retransmission():
    scene, way = scene_with()
    way.handshake()
    way.send(40, True, "PA", 1, size=100, options=timestamps(1), there=None)
    way.send(300, True, "PA", 1, size=100, options=timestamps(2))
    result = compared(scene)
    lost = result.damage[result.damage["kind"] == "lost"]
    assert lost["count"].tolist() == [1]
    assert result.delays["max_ms"].max() == 5


def test_injected_reset():
    scene, way = scene_with()
    way.handshake()
    way.send(40, True, "R", 1, here=None)
    direction, kind, _, count, text = only(scene)
    assert (direction, kind, count) == ("up", "reset-injected", 1)
    assert text.startswith("1 RST in the name of the client, not seen at the client's side: injected on the way")


def test_injected_data():
    scene, way = scene_with()
    way.handshake()
    way.send(40, False, "PA", 1, size=10, there=None)
    assert only(scene)[:4] == ("down", "injected", "packets", 1)


def test_reordering():
    scene, way = scene_with()
    way.handshake()
    for n in range(5):
        way.send(40 + n, True, "PA", 1 + 100 * n, size=100, there={"late": 3.5} if n == 1 else ())
    direction, kind, _, count, text = only(scene)
    assert (direction, kind, count) == ("up", "reordered", 1), text


def test_coalesced_and_split():
    scene, way = scene_with()
    way.handshake()
    for n in range(4):
        way.a.send(40 + n, True, "PA", 1 + 100 * n, size=100)
    for n in range(2):
        way.b.send(45 + n, True, "PA", 1 + 200 * n, size=200)
    way.b.send(60, False, "PA", 1, 401, size=900)
    for n in range(3):
        way.a.send(65 + n, False, "PA", 1 + 300 * n, 401, size=300)
    rows = {row[0]: row for row in damage(scene)}
    assert rows["up"][1:4] == ("coalesced", "segments", 4)
    assert rows["up"][4].startswith("4 segments of the client arrived as 2 cut otherwise")
    assert rows["down"][1:4] == ("split", "segments", 1)


def test_changed_payload():
    scene, way = scene_with()
    way.handshake()
    way.send(40, True, "PA", data=b"PORT 10,0,1,1", there={"data": b"PORT 99,9,9,9"})
    assert only(scene)[:4] == ("up", "payload-changed", "payload", 1)


def test_payload_that_changed_its_length():
    scene, way = scene_with()
    way.handshake(0, timestamps(1))
    for n in range(6):
        longer = 12 if n >= 2 else 0
        there = {"at": 1 + 100 * n + (longer if n > 2 else 0), "size": 112 if n == 2 else 100}
        way.send(40 + n, True, "PA", 1 + 100 * n, size=100, options=timestamps(10 + n), there=there)
    rows = {row[1]: row for row in damage(scene)}
    assert rows["payload-length-changed"][3] == 3
    assert "shifted by +12 bytes" in rows["payload-length-changed"][4]
    assert "lost" not in rows
    assert "injected" not in rows


def test_packets_beyond_the_other_capture_are_not_called_lost():
    scene, way = scene_with()
    way.handshake()
    for n in range(5):
        way.send(5000 + n, True, "PA", 1 + 100 * n, size=100, there=None)
    assert only(scene)[:4] == ("up", "not-captured", "packets", 5)
