"""MPTCP options: vectors written by hand after the figures of RFC 8684, and what a Linux kernel sent."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.wire import mptcp, tcp
from agents.wire.errors import WireError
from agents.wire.mptcp import (
    AddAddr,
    Capable,
    Dss,
    Fail,
    Fastclose,
    JoinAck,
    JoinSyn,
    JoinSynAck,
    Option,
    Prio,
    RemoveAddr,
    TcpRst,
)  # fmt: skip
from tests.unit.agents.wire.captured import captures, ip_packets, is_tcp

KEY_A, KEY_B = bytes.fromhex("0102030405060708"), bytes.fromhex("a1a2a3a4a5a6a7a8")
IPV4, IPV6 = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8000000000000000000000001")
MAC8, MAC20 = bytes(range(0x80, 0x88)), bytes(range(0x20, 0x34))
TOKEN, NONCE = bytes.fromhex("deadbeef"), bytes.fromhex("01234567")

VECTORS: list[tuple[str, str, Option]] = [
    ("section 3.1, figure 4: SYN", "1e040101", Capable()),
    ("section 3.1: SYN, checksums wanted", "1e040181", Capable(0x81)),
    ("section 3.1: SYN/ACK", "1e0c0101a1a2a3a4a5a6a7a8", Capable(1, 1, KEY_B)),
    ("section 3.1: third ACK", "1e1401010102030405060708a1a2a3a4a5a6a7a8", Capable(1, 1, KEY_A, KEY_B)),
    ("section 3.1: first data", "1e1601010102030405060708a1a2a3a4a5a6a7a80578", Capable(1, 1, KEY_A, KEY_B, 1400)),
    ("section 3.1: first data, checksum", "1e1801810102030405060708a1a2a3a4a5a6a7a80578c0de",
     Capable(0x81, 1, KEY_A, KEY_B, 1400, 0xC0DE)),
    ("section 3.2, figure 5: join SYN", "1e0c1002deadbeef01234567", JoinSyn(False, 2, TOKEN, NONCE)),
    ("section 3.2, figure 5: backup", "1e0c1102deadbeef01234567", JoinSyn(True, 2, TOKEN, NONCE)),
    ("section 3.2, figure 6: join SYN/ACK", "1e101003808182838485868701234567", JoinSynAck(False, 3, MAC8, NONCE)),
    ("section 3.2, figure 7: join ACK", "1e181000" + MAC20.hex(), JoinAck(MAC20)),
    ("section 3.3.8, figure 11: priority", "1e0350", Prio(False)),
    ("section 3.3.8, figure 11: backup", "1e0351", Prio(True)),
    ("section 3.4.1, figure 12: IPv4", "1e103005c00002018081828384858687", AddAddr(5, IPV4, None, MAC8)),
    ("section 3.4.1: IPv4 and port", "1e123005c000020113898081828384858687", AddAddr(5, IPV4, 5001, MAC8)),
    ("section 3.4.1: echo", "1e083105c0000201", AddAddr(5, IPV4, echo=True)),
    ("section 3.4.1: echo with port", "1e0a3105c00002011389", AddAddr(5, IPV4, 5001, echo=True)),
    ("section 3.4.1: IPv6", "1e1c3006" + IPV6.hex() + MAC8.hex(), AddAddr(6, IPV6, None, MAC8)),
    ("section 3.4.1: IPv6 and port", "1e1e3006" + IPV6.hex() + "1389" + MAC8.hex(), AddAddr(6, IPV6, 5001, MAC8)),
    ("section 3.4.1: IPv6 echo", "1e143106" + IPV6.hex(), AddAddr(6, IPV6, echo=True)),
    ("section 3.4.1: IPv6 echo with port", "1e163106" + IPV6.hex() + "1389", AddAddr(6, IPV6, 5001, echo=True)),
    ("section 3.4.2, figure 13: one", "1e044007", RemoveAddr((7,))),
    ("section 3.4.2, figure 13: three", "1e0640070809", RemoveAddr((7, 8, 9))),
    ("section 3.5, figure 14: fast close", "1e0c7000a1a2a3a4a5a6a7a8", Fastclose(KEY_B)),
    ("section 3.6, figure 15: reset", "1e048002", TcpRst(2)),
    ("section 3.6, figure 15: transient", "1e048103", TcpRst(3, True)),
    ("section 3.7, figure 16: fail", "1e0c60000000000100000002", Fail(0x1_0000_0002)),
]  # fmt: skip

DSS_VECTORS: list[tuple[str, str, Dss]] = [
    ("data ACK of 4 bytes", "1e08200189abcdef", Dss(0x89ABCDEF)),
    ("data ACK of 8 bytes", "1e0c20030123456789abcdef", Dss(0x0123456789ABCDEF, True)),
    ("mapping of 4 bytes", "1e0e2004000000050000000105b4", Dss(None, False, 5, False, 1, 1460)),
    ("both of 4 bytes, checksum", "1e1420050000000700000005000000010003beef", Dss(7, False, 5, False, 1, 3, 0xBEEF)),
    ("both of 8 bytes", "1e1a200f00000000000000070000000000000005000000010003", Dss(7, True, 5, True, 1, 3)),
    ("both of 8 bytes, checksum", "1e1c200f000000000000000700000000000000050000000100030000", Dss(7, True, 5, True, 1, 3, 0)),
    ("DATA_FIN alone (section 3.3.3)", "1e1220150000000700000005000000000001", Dss(7, False, 5, False, 0, 1, None, True)),
    ("infinite mapping (section 3.7)", "1e122005000000070000000500000009" + "0000", Dss(7, False, 5, False, 9, 0)),
    ("nothing at all", "1e042000", Dss()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "option"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_vectors(text: str, option: Option) -> None:
    data = bytes.fromhex(text)
    assert mptcp.encode(option) == data
    assert mptcp.decode(data) == option


@pytest.mark.parametrize(("text", "dss"), [v[1:] for v in DSS_VECTORS], ids=[v[0] for v in DSS_VECTORS])
def test_dss_vectors(text: str, dss: Dss) -> None:
    data = bytes.fromhex(text)
    assert mptcp.encode_dss(dss) == data
    assert mptcp.read_dss(data, 0, len(data)) == dss
    assert mptcp.read_dss(b"\x01\x01" + data + b"\xff", 2, len(data)) == dss


@pytest.mark.parametrize("option", [v[2] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_every_other_length_is_another_option_or_an_error(option: Option) -> None:
    data = mptcp.encode(option)
    for length in range(41):
        text = (data + bytes(40))[:length]
        if length >= 2:
            text = bytes((30, length)) + text[2:]
        if length == len(data):
            continue
        try:
            other = mptcp.decode(text)
        except WireError:
            continue
        assert len(mptcp.encode(other)) == length  # reserved bits are written as zero
        assert other != option


@pytest.mark.parametrize("option", [v[2] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_a_length_field_that_lies_is_an_error(option: Option) -> None:
    data = mptcp.encode(option)
    for length in range(256):
        if length != len(data):
            with pytest.raises(WireError):
                mptcp.decode(bytes((30, length)) + data[2:])


def test_dss_lengths() -> None:
    """Figure 9: for each set of flags the length with and without checksum, and no other."""
    for flags in range(256):
        need = 4 + (0, 4, 0, 8)[flags & 3] + ((10, 14)[flags >> 3 & 1] if flags & 4 else 0)
        for length in range(41):
            dss = mptcp.read_dss(bytes((30, length, 0x20, flags)) + bytes(range(40)), 0, length)
            if length == need or (flags & 4 and length == need + 2):
                assert dss is not None
                assert (dss.checksum is not None) == (length != need)
                meaning = flags & (0x10 | (3 if flags & 1 else 0) | (12 if flags & 4 else 0))
                assert mptcp.encode_dss(dss)[3] == meaning
                assert len(mptcp.encode_dss(dss)) == length
            else:
                assert dss is None


ids = st.integers(0, 255)
numbers = st.integers(0, 2**64 - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


options = st.one_of(
    st.builds(Capable, ids, st.integers(0, 15)),
    st.builds(Capable, ids, st.integers(0, 15), exactly(8)),
    st.builds(Capable, ids, st.integers(0, 15), exactly(8), exactly(8)),
    st.builds(Capable, ids, st.integers(0, 15), exactly(8), exactly(8), st.integers(0, 65535)),
    st.builds(Capable, ids, st.integers(0, 15), exactly(8), exactly(8), st.integers(0, 65535), st.integers(0, 65535)),
    st.builds(JoinSyn, st.booleans(), ids, exactly(4), exactly(4)),
    st.builds(JoinSynAck, st.booleans(), ids, exactly(8), exactly(4)),
    st.builds(JoinAck, exactly(20)),
    st.builds(AddAddr, ids, exactly(4) | exactly(16), st.none() | st.integers(0, 65535), exactly(8)),
    st.builds(AddAddr, ids, exactly(4) | exactly(16), st.none() | st.integers(0, 65535), st.just(b""), st.just(True)),
    st.builds(RemoveAddr, st.lists(ids, min_size=1, max_size=30).map(tuple)),
    st.builds(Prio, st.booleans()),
    st.builds(Fail, numbers),
    st.builds(Fastclose, exactly(8)),
    st.builds(TcpRst, ids, st.booleans()),
)


@given(options)
def test_round_trip(option: Option) -> None:
    assert mptcp.decode(mptcp.encode(option)) == option


@st.composite
def signals(draw: st.DrawFn) -> Dss:
    ack_wide, dsn_wide = draw(st.booleans()), draw(st.booleans())
    ack = draw(st.none() | st.integers(0, 2**64 - 1 if ack_wide else 2**32 - 1))
    dsn = draw(st.none() | st.integers(0, 2**64 - 1 if dsn_wide else 2**32 - 1))
    if dsn is None:
        return Dss(ack, ack_wide and ack is not None, fin=draw(st.booleans()))
    checksum = draw(st.none() | st.integers(0, 65535))
    ssn, length = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 65535))
    return Dss(ack, ack_wide and ack is not None, dsn, dsn_wide, ssn, length, checksum, draw(st.booleans()))


@given(signals())
def test_dss_round_trip(dss: Dss) -> None:
    data = mptcp.encode_dss(dss)
    assert mptcp.read_dss(data, 0, len(data)) == dss


@given(st.integers(-(2**70), 2**70), st.booleans())
def test_numbers_are_taken_modulo_their_width(number: int, wide: bool) -> None:
    data = mptcp.encode_dss(Dss(number, wide, number, wide, 1, 1))
    dss = mptcp.read_dss(data, 0, len(data))
    assert dss is not None
    assert dss.ack == dss.dsn == number % (2**64 if wide else 2**32)


@given(st.binary(max_size=60))
def test_noise_raises_nothing_but_wire_errors(data: bytes) -> None:
    for text in (data, bytes((30, len(data))) + data[2:]):
        try:
            option = mptcp.decode(text)
        except WireError:
            continue
        mptcp.encode(option)


@given(st.binary(min_size=1, max_size=38))
def test_what_is_accepted_is_written_again(body: bytes) -> None:
    """But for reserved bits, which are written as zero."""
    data = bytes((30, len(body) + 2)) + body
    try:
        option = mptcp.decode(data)
    except WireError:
        return
    again = mptcp.encode(option)
    assert len(again) == len(data)
    assert mptcp.decode(again) == option
    assert again[2] >> 4 == data[2] >> 4


def test_values_of_keys() -> None:
    """Section 3.1 and 3.2: token and initial number are the two ends of the SHA-256 of the key."""
    assert hashlib.sha256(bytes(8)).hexdigest() == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
    assert mptcp.token(bytes(8)) == bytes.fromhex("af5570f5")
    assert mptcp.initial_dsn(bytes(8)) == 0xE5B2328DE0E83DFC


def test_mac_is_hmac_sha256() -> None:
    """RFC 4231 test case 2 has a key and a text that can be cut in two."""
    expected = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    assert mptcp.join_mac(b"Je", b"fe", b"what do ya want ", b"for nothing?") == expected


def _connections(folder_family: str) -> dict[str, int]:
    """Checks every handshake of the kernel's captures against our functions; counts what was checked."""
    checked = {"token": 0, "syn-ack mac": 0, "ack mac": 0, "add-addr mac": 0, "first dsn": 0}
    for path in captures():
        scenario = path.name.split(".")[0]
        if not scenario.endswith(folder_family) or any(word in scenario for word in ("join-token", "hmac", "rewrite", "nat")):
            continue
        keys: dict[tuple[bytes, int, bytes, int], bytes] = {}
        pairs: dict[bytes, tuple[bytes, bytes]] = {}
        joins: dict[frozenset[tuple[bytes, int]], tuple[JoinSyn, bytes, bytes]] = {}
        answers: dict[frozenset[tuple[bytes, int]], JoinSynAck] = {}
        for packet, whole in ip_packets(path):
            if not is_tcp(packet):
                continue
            segment = tcp.parse(packet + bytes(max(0, whole - len(packet))))
            back = (segment.destination, segment.destination_port, segment.source, segment.source_port)
            ends = frozenset({segment.key[:2], back[:2]})
            for text in segment.mptcp:
                option = mptcp.decode(text)
                match option:
                    case Capable() if option.receiver_key:
                        keys[segment.key], keys[back] = option.sender_key, option.receiver_key
                        pairs[mptcp.token(option.sender_key)] = (option.sender_key, option.receiver_key)
                        pairs[mptcp.token(option.receiver_key)] = (option.receiver_key, option.sender_key)
                    case JoinSyn() if option.token in pairs:
                        there, here = pairs[option.token]  # the token is that of the key of who accepts
                        joins[ends] = (option, here, there)
                        checked["token"] += 1
                    case JoinSynAck() if ends in joins:
                        join, here, there = joins[ends]
                        assert option.mac == mptcp.join_mac(there, here, option.nonce, join.nonce)[:8]
                        answers[ends] = option
                        checked["syn-ack mac"] += 1
                    case JoinAck() if ends in answers:
                        join, here, there = joins[ends]
                        assert option.mac == mptcp.join_mac(here, there, join.nonce, answers[ends].nonce)[:20]
                        keys[segment.key], keys[back] = here, there
                        checked["ack mac"] += 1
                    case AddAddr(echo=False) if segment.key in keys:
                        assert option.mac == mptcp.add_addr_mac(keys[segment.key], keys[back], option)
                        checked["add-addr mac"] += 1
            dss = segment.dss
            if dss is not None and dss.dsn is not None and dss.dsn_wide and dss.ssn == 1 and segment.key in keys and dss.length:
                first = mptcp.initial_dsn(keys[segment.key]) + 1
                if segment.key not in {k for k in keys if frozenset((k[:2], k[2:])) in joins}:
                    assert dss.dsn == first % 2**64
                    checked["first dsn"] += 1
    return checked


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_what_linux_computes_from_keys(family: str) -> None:
    checked = _connections(family)
    assert all(count > 3 for count in checked.values()), checked
