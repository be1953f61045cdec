"""TCP segments in packets: against scapy, against the kernel's captures, truncated, mutated, and by hand."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from agents.wire import mptcp, tcp
from agents.wire.checksum import MODULUS, ones_sum
from agents.wire.errors import WireError
from agents.wire.tcp import ACK, FIN, PSH, SYN, Segment
from tests.proxy.packets import faults
from tests.unit.agents.wire.captured import captures, ip_packets, is_tcp

A4, B4 = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
A6, B6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002")
SYN_BY_HAND = bytes.fromhex(
    "45000040123440004006" "3c4d" "c0000201" "c6336402"  # RFC 791 section 3.1; DF, TTL 64
    "9c401389" "00000001" "00000000" "b002ffff" "7ceb" "0000"  # RFC 9293 section 3.1; 11 words
    "020405b4" "0402" "080a0000000a00000000" "01030307" "1e040101"  # MSS 1460, SACK, timestamps, scale 7, MP_CAPABLE
)  # fmt: skip


def test_a_syn_by_hand() -> None:
    assert faults(SYN_BY_HAND) == []
    segment = tcp.parse(SYN_BY_HAND)
    assert segment.key == (A4, 40000, B4, 5001)
    assert (segment.seq, segment.ack, segment.flags, segment.window) == (1, 0, SYN, 65535)
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (1460, 7, True)
    assert (segment.timestamp, segment.echo) == (10, 0)
    assert segment.mptcp == (bytes.fromhex("1e040101"),)
    assert segment.dss is None
    assert not segment.malformed
    assert segment.payload_length == 0
    options = tcp.syn_options(segment, 1460) + segment.mptcp[0]
    rebuilt = tcp.build(*segment.key, 1, 0, SYN, 65535, options, fragment_word=segment.fragment_word)
    assert rebuilt == SYN_BY_HAND


def test_options_by_hand() -> None:
    assert tcp.timestamps_option(10, 2**32 + 3) == bytes.fromhex("0101080a0000000a00000003")  # RFC 7323 appendix A
    assert tcp.sack_option([]) == b""
    assert tcp.sack_option([(1, 2), (-1, 2**32)]) == bytes.fromhex("010105120000000100000002ffffffff00000000")  # RFC 2018


def _scapy(source: bytes, destination: bytes, **fields: object) -> object:
    if len(source) == 4:
        layer = IP(src=".".join(map(str, source)), dst=".".join(map(str, destination)), flags="DF", id=0, ttl=64)
    else:
        layer = IPv6(src=_text6(source), dst=_text6(destination), hlim=64)
    return layer / TCP(**fields)


def _text6(address: bytes) -> str:
    return ":".join(address[at : at + 2].hex() for at in range(0, 16, 2))


numbers = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65535)
flag_sets = st.sampled_from([ACK, ACK | PSH, ACK | FIN])
blocks = st.lists(st.tuples(numbers, numbers), max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), ports, ports, numbers, numbers, flag_sets, ports, numbers, numbers, blocks, st.binary(max_size=1500))
def test_built_as_scapy_builds(
    six: bool, sport: int, dport: int, seq: int, ack: int, flags: int, window: int, value: int, echo: int,
    sack: list[tuple[int, int]], payload: bytes,
) -> None:  # fmt: skip
    source, destination = (A6, B6) if six else (A4, B4)
    options = tcp.timestamps_option(value, echo) + tcp.sack_option(sack)
    packet = tcp.build(source, sport, destination, dport, seq, ack, flags, window, options, payload)
    theirs: list[tuple[str, object]] = [("NOP", None), ("NOP", None), ("Timestamp", (value, echo))]
    if sack:
        theirs += [("NOP", None), ("NOP", None), ("SAck", tuple(edge for block in sack for edge in block))]
    expected = _scapy(
        source, destination, sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, window=window, options=theirs
    )
    oracle = bytes(expected / payload)  # type: ignore[operator]
    assert faults(packet) == []
    at = 40 if six else 20
    ours, other = bytearray(packet), bytearray(oracle)
    if other[at + 16 : at + 18] == b"\xff\xff":  # zero has two forms
        other[at + 16 : at + 18] = b"\0\0"
    assert ours == other
    segment = tcp.parse(packet)
    assert segment.key == (source, sport, destination, dport)
    assert (segment.seq, segment.ack, segment.flags, segment.window) == (seq, ack, flags, window)
    assert (segment.timestamp, segment.echo, list(segment.sack)) == (value, echo, sack)
    assert bytes(segment.payload) == payload
    assert segment.payload_sum() == ones_sum(payload)
    assert segment.fragment_word == (0 if six else 0x4000)


def test_sums_save_the_pass_over_the_payload() -> None:
    r = random.Random(1)
    for _ in range(300):
        source, destination = r.choice([(A4, B4), (A6, B6)])
        payload = r.randbytes(r.randrange(0, 1400))
        packet = tcp.build(source, 1, destination, 2, r.getrandbits(32), 5, ACK, 7, tcp.timestamps_option(1, 2), payload)
        segment = tcp.parse(packet)
        options = mptcp.encode_dss(mptcp.Dss(3, True, 9, True, 1, len(payload)))
        changed = tcp.build(
            destination, 3, source, 4, 1, 2, ACK, 3, options, segment.payload, payload_sum=segment.payload_sum()
        )
        assert changed == tcp.build(destination, 3, source, 4, 1, 2, ACK, 3, options, payload)
        assert faults(changed) == []


def test_a_damaged_payload_stays_damaged() -> None:
    packet = bytearray(tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, payload=b"some payload of even size"))
    packet[-3] ^= 0x10
    segment = tcp.parse(bytes(packet))
    rebuilt = tcp.build(
        B4, 9, A4, 8, 7, 6, ACK, 5, tcp.timestamps_option(1, 2), segment.payload, payload_sum=segment.payload_sum()
    )
    assert faults(rebuilt) == ["TCP checksum"]


def test_truncated_at_every_length() -> None:
    payload = bytes(range(50))
    for source, destination in ((A4, B4), (A6, B6)):
        packet = tcp.build(source, 1, destination, 2, 3, 4, ACK, 5, tcp.timestamps_option(1, 2), payload)
        for length in range(len(packet)):
            with pytest.raises(WireError):
                tcp.parse(packet[:length])
        assert tcp.parse(packet + b"trailer of Ethernet").payload == payload


def _with_options(options: bytes) -> bytes:
    """A segment with these option bytes as they are, padded with ends of list."""
    packet = tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, b"\x01" * ((len(options) + 3) // 4 * 4))
    return packet[:40] + options + bytes(-len(options) % 4)


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 8, 30, 77, 254])
def test_option_lengths_that_lie(kind: int) -> None:
    for length in (0, 1, 41, 255):
        segment = tcp.parse(_with_options(bytes((1, kind, length, 0))))
        assert segment.malformed
        assert (segment.mss, segment.window_scale, segment.timestamp, segment.dss) == (None, None, None, None)
        assert (segment.mptcp, segment.other, segment.sack, segment.sack_permitted) == ((), b"", (), False)
    for room in range(2, 9):  # one byte more than there is
        options = b"\x01" * (room % 4) + bytes((kind, room + 1)) + bytes(room - 2)
        options = b"\x01" * (-len(options) % 4) + options
        assert tcp.parse(_with_options(options)).malformed
    assert tcp.parse(_with_options(bytes((1, 1, 1, kind)))).malformed  # a kind without a length


def test_what_precedes_a_lie_is_read() -> None:
    segment = tcp.parse(_with_options(bytes.fromhex("020405b41e000402")))
    assert segment.malformed
    assert segment.mss == 1460
    assert not segment.sack_permitted


def test_known_kinds_with_other_lengths_are_kept_as_they_are() -> None:
    for options in ("02030500", "03040707", "04030000", "0506000000010000", "080b" + "00" * 10, "0502"):
        data = bytes.fromhex(options)
        length = data[1]
        segment = tcp.parse(_with_options(data))
        assert segment.other == data[:length]
        assert not segment.malformed


def test_an_end_of_list_ends_the_list() -> None:
    segment = tcp.parse(_with_options(bytes.fromhex("00020405b4030307")))
    assert segment.mss is segment.window_scale is None
    assert not segment.malformed


def test_a_window_scale_above_14_is_14() -> None:
    assert tcp.parse(_with_options(bytes.fromhex("01030320"))).window_scale == 14  # RFC 7323 section 2.3


def test_several_mptcp_options() -> None:
    """The first readable DSS is the DSS; a second one and unreadable ones stay whole, in their order."""
    first = mptcp.encode_dss(mptcp.Dss(5))
    second = mptcp.encode_dss(mptcp.Dss(6))
    wrong = bytes.fromhex("1e052001aa")
    segment = tcp.parse(_with_options(wrong + first + b"\x01\x01\x01" + second))
    assert segment.dss == mptcp.Dss(5)
    assert segment.mptcp == (wrong, second)
    segment = tcp.parse(_with_options(bytes.fromhex("1e02") + b"\x01\x01" + first))
    assert segment.mptcp == (bytes.fromhex("1e02"),)
    assert segment.dss == mptcp.Dss(5)


def test_what_is_no_tcp_segment() -> None:
    good = tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, payload=b"x" * 30)
    for at, value in ((0, 0x44), (0, 0x55), (0, 0x4F + 0), (6, 0x20), (7, 0x01), (9, 17), (32, 0x40), (32, 0xF0 | 0)):
        bad = bytearray(good)
        bad[at] = value
        if at == 32 and value == 0xF0:
            bad = bytearray(good[:45])
            bad[32] = value
        if value == 0x4F:
            continue
        with pytest.raises(WireError):
            tcp.parse(bytes(bad))
    six = bytearray(tcp.build(A6, 1, B6, 2, 3, 4, ACK, 5))
    six[6] = 44  # a fragment header
    with pytest.raises(WireError):
        tcp.parse(bytes(six))


def test_limits_of_build() -> None:
    with pytest.raises(WireError):
        tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, bytes(41))
    tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, payload=bytes(65535 - 40))
    with pytest.raises(WireError):
        tcp.build(A4, 1, B4, 2, 3, 4, ACK, 5, payload=bytes(65535 - 39))
    tcp.build(A6, 1, B6, 2, 3, 4, ACK, 5, payload=bytes(65535 - 20))
    with pytest.raises(WireError):
        tcp.build(A6, 1, B6, 2, 3, 4, ACK, 5, payload=bytes(65535 - 19))


def test_numbers_of_any_size() -> None:
    assert tcp.build(A4, 1, B4, 2, -1, 2**32 + 5, ACK, 5) == tcp.build(A4, 1, B4, 2, 2**32 - 1, 5, ACK, 5)


@settings(max_examples=300)
@given(st.binary(max_size=150))
def test_noise(data: bytes) -> None:
    for packet in (data, b"\x45" + data[1:], b"\x60" + data[1:]):
        with contextlib.suppress(WireError):
            _everything(tcp.parse(packet))


def test_mutated_packets() -> None:
    r = random.Random(2)
    dss = mptcp.encode_dss(mptcp.Dss(5, True, 7, True, 1, 20))
    for source, destination in ((A4, B4), (A6, B6)):
        good = tcp.build(source, 1, destination, 2, 3, 4, ACK, 5, tcp.timestamps_option(1, 2) + dss, bytes(20))
        for _ in range(6000):
            packet = bytearray(good[: r.randrange(1, len(good) + 1)] if r.random() < 0.2 else good)
            for _ in range(r.randrange(1, 5)):
                packet[r.randrange(len(packet))] = r.choice((0, 1, 2, 255, r.getrandbits(8)))
            with contextlib.suppress(WireError):
                _everything(tcp.parse(bytes(packet)))


def _everything(segment: Segment) -> None:
    """Touch what a segment offers."""
    assert 0 <= segment.payload_sum() < MODULUS
    assert segment.payload_length == len(segment.payload) >= 0
    for option in segment.mptcp:
        with contextlib.suppress(WireError):
            mptcp.decode(option)


def test_the_kernels_packets() -> None:
    """Each TCP packet of the captures is parsed and built again from its parts, with checksums to the bit.

    Payload that the captures left out is zero here; the sum that the checksum implies stands for it.
    """
    kinds: dict[str, int] = {}
    for path in captures():
        if "checksum-failure" in path.name and "server" in path.name:
            continue
        for packet, whole in ip_packets(path):
            if not is_tcp(packet):
                continue
            data = packet + bytes(max(0, whole - len(packet)))
            segment = tcp.parse(data)
            if len(packet) < segment.payload_at:
                continue
            assert not segment.malformed
            options, kind = _options_again(segment)
            written = data[segment.tcp_at + 20 : segment.payload_at]
            if len(options) < len(written) and b"\x01" * 4 in written:  # a firewall of the capture has put NOPs over options
                kind, options = "stripped", written
            kinds[kind] = kinds.get(kind, 0) + 1
            rebuilt = tcp.build(
                *segment.key, segment.seq, segment.ack, segment.flags, segment.window, options, segment.payload,
                payload_sum=segment.payload_sum(), traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
                fragment_word=segment.fragment_word, urgent=segment.urgent,
            )  # fmt: skip
            if segment.version == 6:  # the flow label is not ours to keep
                rebuilt = data[:4] + rebuilt[4:]
            assert rebuilt[: len(packet)] == packet, (path.name, packet.hex(), rebuilt.hex())
    assert min(kinds.get(kind, 0) for kind in ("syn", "dss", "dss+sack", "dss+other", "other", "none", "stripped")) > 10, kinds


def _options_again(segment: Segment) -> tuple[bytes, str]:
    """The options in the kernel's layout: timestamps, SACK, then those of MPTCP, padded each."""
    if segment.flags & SYN:
        return tcp.syn_options(segment, segment.mss) + b"".join(segment.mptcp), "syn"
    text = b"" if segment.timestamp is None else tcp.timestamps_option(segment.timestamp, segment.echo)
    text += tcp.sack_option(segment.sack)
    kinds = []
    raw = segment.data[segment.tcp_at + 20 : segment.payload_at]
    if segment.dss is not None:
        kinds.append("dss")
        dss = mptcp.encode_dss(segment.dss)
        before = [o for o in segment.mptcp if raw.index(o) < raw.index(dss)]
        for option in before:
            text += option + b"\x01" * (-len(option) % 4)
        text += dss + b"\x01" * (-len(dss) % 4)
        rest = [o for o in segment.mptcp if o not in before]
    else:
        rest = list(segment.mptcp)
    if segment.sack:
        kinds.append("sack")
    if segment.mptcp:
        kinds.append("other")
    for option in rest:
        text += mptcp.encode(mptcp.decode(option)) + b"\x01" * (-len(option) % 4)
    return text, "+".join(kinds) or "none"
