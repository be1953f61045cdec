"""Messages of Mobile IPv4: by hand, both ways, truncated, mutated, random; what must be refused and what must not."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.wire.errors import WireError
from agents.wire.mobileip import codec, peek
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Extension,
    FlowAction,
    FlowBinding,
    Message,
    Multipath,
    Nai,
    Reply,
    Request,
    RequestFlag,
    Selector,
    TunnelData,
    UdpTunnelReply,
    UdpTunnelRequest,
    UnknownExtension,
)
from tests.unit.agents.wire.mobileip import messages as m

FIXED = bytes.fromhex("0122003c0a0900050a0900010a01004de1e2e3e4e5e6e7e8")
REPLY = bytes.fromhex("0385003c0a0900050a090001e1e2e3e4e5e6e7e8")
AUTHENTICATION = bytes.fromhex("201400000100000102030405060708090a0b0c0d0e0f")
REQUEST = Request(
    "10.9.0.5", "10.9.0.1", "10.1.0.77", 60, 0xE1E2E3E4E5E6E7E8, RequestFlag.DECAPSULATION_BY_MN | RequestFlag.REVERSE_TUNNEL
)


def with_extensions(*extensions: Extension) -> Request:
    return Request(*(getattr(REQUEST, name) for name in Request.__slots__[:6]), extensions=extensions)


def test_a_request_by_hand() -> None:
    """RFC 5944 section 3.3, with an NAI (RFC 2794) and RFC 7629 section 4.1."""
    data = FIXED + bytes.fromhex("83036d40789a01000404070280") + AUTHENTICATION
    message = codec.decode(data)
    assert message == with_extensions(
        Nai(b"m@x"), Multipath(2, 7, 4, bulk=True), Authentication(AuthenticationKind.MOBILE_HOME, 256, bytes(range(16)))
    )
    assert isinstance(message, Request)
    assert message.offsets == (24, 29, 37)
    assert codec.encode(message) == data


def test_a_reply_by_hand() -> None:
    """RFC 5944 section 3.4."""
    message = codec.decode(REPLY + AUTHENTICATION)
    expected = Authentication(AuthenticationKind.MOBILE_HOME, 256, bytes(range(16)))
    assert message == Reply(0x85, "10.9.0.5", "10.9.0.1", 60, 0xE1E2E3E4E5E6E7E8, (expected,))
    assert codec.encode(message) == REPLY + AUTHENTICATION


def test_tunnel_data_by_hand() -> None:
    """RFC 3519 section 3.3."""
    assert codec.decode(b"\x04\x04\x00\x00inner") == TunnelData(4, b"inner")
    assert codec.encode(TunnelData(47, b"gre")) == b"\x04\x2f\x00\x00gre"


@pytest.mark.parametrize(
    ("octets", "extension"),
    [
        # RFC 7629 section 4.2: TCP to port 443 goes to BID 1, then 2
        ("9a02000c 01 02 0102 01 00880000 01bb 06",
         FlowBinding(FlowAction.FORWARD, (1, 2), 1, bytes.fromhex("0088000001bb06"),
                     Selector(destination_port=(443, 443), protocol=(6, 6)))),
        ("9a010004 03 ff fe 00", Multipath(254, 255, 3)),
        ("9a010004 04 01 01 80", Multipath(1, 1, 4, bulk=True)),
        ("9a010004 08 02 03 40", Multipath(3, 2, 8, overwrite=True)),
        ("9a010004 08 02 03 c0", Multipath(3, 2, 8, bulk=True, overwrite=True)),
        ("9006 00 00 c0 2f 0000", UdpTunnelRequest(True, True, 47)),  # RFC 3519 section 3.1
        ("2c06 00 40 8000 006e", UdpTunnelReply(64, True, 110)),  # RFC 3519 section 3.2
        ("c802 abcd", UnknownExtension(200, b"\xab\xcd")),
        ("9a030001 ff", UnknownExtension(154, b"\x03\xff")),
    ],
)  # fmt: skip
def test_extensions_by_hand(octets: str, extension: Extension) -> None:
    data = bytes.fromhex(octets)
    assert codec.encode_extension(extension) == data
    assert codec.decode(FIXED + data) == with_extensions(extension)


@given(m.messages)
def test_values_come_back(message: Message) -> None:
    data = codec.encode(message)
    again = codec.decode(data)
    assert again == message
    assert codec.encode(again) == data


@given(m.requests() | m.replies())
def test_offsets_are_where_extensions_begin(message: Request | Reply) -> None:
    data = codec.encode(message)
    again = codec.decode(data)
    assert not isinstance(again, TunnelData)
    assert len(again.offsets) == len(again.extensions)
    for begin, end, extension in zip(again.offsets, (*again.offsets[1:], len(data)), again.extensions, strict=False):
        assert data[begin:end] == codec.encode_extension(extension)


def refused_or_same(data: bytes) -> None:
    seen = peek.peek(data)
    try:
        message = codec.decode(data)
    except WireError:
        return
    assert codec.encode(message) == data
    assert seen is not None


@given(st.binary(max_size=1600))
def test_random_octets_are_refused_or_read_exactly(data: bytes) -> None:
    refused_or_same(data)


@given(
    st.sampled_from((FIXED, REPLY)), st.lists(st.tuples(st.sampled_from(sorted(m.KNOWN)), st.binary(max_size=40)), max_size=5)
)
@example(FIXED, [(131, b"")])
@example(FIXED, [(132, b"")])
def test_random_extensions_are_refused_or_read_exactly(fixed: bytes, bodies: list[tuple[int, bytes]]) -> None:
    refused_or_same(fixed + b"".join(bytes((kind, len(body))) + body for kind, body in bodies))
    refused_or_same(fixed + b"".join(struct.pack("!BBH", kind, len(body) & 3, len(body)) + body for kind, body in bodies))


@given(m.messages, st.data())
def test_mutated_messages_are_refused_or_read_exactly(message: Message, data: st.DataObject) -> None:
    octets = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(m.octet)
    cut = data.draw(st.integers(0, len(octets)))
    refused_or_same(bytes(octets))
    refused_or_same(bytes(octets[:cut]))


@pytest.mark.parametrize("size", range(24))
def test_a_cut_fixed_part_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        codec.decode(FIXED[:size])
    if size < 20:
        with pytest.raises(WireError):
            codec.decode(REPLY[:size])


@pytest.mark.parametrize(
    ("octets", "word"),
    [
        ("80", "header"),  # the length is missing
        ("9a0100", "header"),
        ("c80511", "leads to"),
        ("9a01000500000000", "leads to"),
        ("7f00", "not skippable"),
        ("0000", "not skippable"),
        ("2003000001", "SPI"),
        ("2402000400000a", "leads to"),
        ("24010003000001", "SPI"),
        ("820100", "not 0"),
        ("9005 00 00 00 00 00", "not 6"),
        ("2c06 01 00 0000 0000", "subtype 01"),
        ("2c05 00 00 0000 00", "not 6"),
        ("9a010003 040101", "not 4"),
        ("9a010005 0401010000", "not 4"),
        ("9a020002 0101", "no room"),
        ("9a020004 01020102", "no room"),
    ],
)
def test_what_is_refused_says_why(octets: str, word: str) -> None:
    with pytest.raises(WireError, match=word):
        codec.decode(FIXED + bytes.fromhex(octets))


@pytest.mark.parametrize("kind", [2, 5, 7, 255])
def test_other_message_types_are_refused(kind: int) -> None:
    with pytest.raises(WireError, match="type"):
        codec.decode(bytes((kind,)) + FIXED[1:])


def test_limits_of_size_and_number() -> None:
    full = FIXED + bytes((200, 0)) * 64
    assert len(codec.decode(full).extensions) == 64  # type: ignore[union-attr]
    with pytest.raises(WireError, match="64"):
        codec.decode(full + bytes((200, 0)))
    longest = FIXED + (bytes((200, 244)) + bytes(244)) * 6
    assert len(longest) == 1500
    assert codec.encode(codec.decode(longest)) == longest
    with pytest.raises(WireError, match="1500"):
        codec.decode(longest + b"\0\0")
    with pytest.raises(WireError, match="1502"):
        codec.encode(with_extensions(*[UnknownExtension(200, bytes(244))] * 6, UnknownExtension(200, b"")))
    with pytest.raises(WireError, match="65"):
        codec.encode(with_extensions(*[UnknownExtension(200, b"")] * 65))


@pytest.mark.parametrize(
    "extension",
    [
        UnknownExtension(32, bytes(20)), UnknownExtension(127, b""), UnknownExtension(131, b"x"), UnknownExtension(256, b""),
        UnknownExtension(154, b""), UnknownExtension(154, b"\x01\0\0\0\0"), UnknownExtension(144, b"\0"), Nai(bytes(256)),
        UnknownExtension(200, bytes(256)), Multipath(256), Multipath(1, -1), Multipath(1, reserved=64),
        UdpTunnelReply(256), UdpTunnelReply(keepalive_s=65536), UdpTunnelReply(reserved=0x8000), UdpTunnelReply(reserved=-1),
        UdpTunnelRequest(reserved=1 << 30), UdpTunnelRequest(reserved=-1), FlowBinding(1, (256,), 1, b""),
        FlowBinding(1, (1,) * 256, 1, b""), Authentication(AuthenticationKind.MOBILE_HOME, 1 << 32, b""),
        Authentication(35, 256, bytes(16)),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(extension: Extension) -> None:
    with pytest.raises(WireError):
        codec.encode(with_extensions(extension))


@pytest.mark.parametrize("address", ["", "10.0.0", "10.0.0.256", "10.0.0.01", " 10.0.0.1", "10.0.0.+1", "::1", "10.0.0.1.2"])
def test_addresses_are_written_as_they_are_read(address: str) -> None:
    with pytest.raises(WireError, match="no IPv4 address"):
        codec.encode(Request(address, "10.0.0.1", "10.0.0.1", 1, 1))


@pytest.mark.parametrize(("lifetime_s", "identification"), [(-1, 0), (65536, 0), (0, -1), (0, 1 << 64)])
def test_numbers_out_of_range_are_refused(lifetime_s: int, identification: int) -> None:
    with pytest.raises(WireError):
        codec.encode(Request("10.0.0.2", "10.0.0.1", "10.0.0.3", lifetime_s, identification))
    with pytest.raises(WireError):
        codec.encode(Reply(0, "10.0.0.2", "10.0.0.1", lifetime_s, identification))


@pytest.mark.parametrize(
    ("clean", "dirty"),
    [
        ("9a010004 04 01 01 80", "9a010004 04 01 01 bf"),  # RFC 7629 section 4.1
        ("9006 00 00 80 04 0000", "9006 00 ff bf 04 ffff"),  # RFC 3519 section 3.1
        ("2c06 00 00 8000 006e", "2c06 00 00 ffff 006e"),  # RFC 3519 section 3.2
    ],
)
def test_reserved_bits_mean_nothing_and_are_kept(clean: str, dirty: str) -> None:
    data = FIXED + bytes.fromhex(dirty)
    message = codec.decode(data)
    assert message == codec.decode(FIXED + bytes.fromhex(clean))
    assert codec.encode(message) == data


def test_flags_r_and_x_are_accepted() -> None:
    data = FIXED[:1] + b"\xff" + FIXED[2:]
    message = codec.decode(data)
    assert isinstance(message, Request)
    assert RequestFlag.RESERVED | RequestFlag.X in message.flags
    assert codec.encode(message) == data


def test_reserved_flags_of_a_selector_are_kept_and_mean_nothing() -> None:
    data = FIXED + bytes.fromhex("9a02000b 01 01 01 01 0088ffff 01bb 06")
    message = codec.decode(data)
    assert isinstance(message, Request)
    binding = message.extensions[0]
    assert isinstance(binding, FlowBinding)
    assert binding.selector == Selector(destination_port=(443, 443), protocol=(6, 6))
    assert codec.encode(message) == data


@pytest.mark.parametrize(
    "tail", ["00 ", "03 00000000", "01 000000", "01 40000000 0a000001", "01 00880000 01bb", "01 00880000 01bb 0600"]
)
def test_a_selector_that_cannot_be_read_leaves_the_message_readable(tail: str) -> None:
    body = bytes.fromhex("01 01 01") + bytes.fromhex(tail)
    data = FIXED + b"\x9a\x02\x00" + bytes((len(body),)) + body
    message = codec.decode(data)
    assert isinstance(message, Request)
    binding = message.extensions[0]
    assert isinstance(binding, FlowBinding)
    assert binding.selector is None
    assert codec.encode(message) == data


@given(m.requests() | m.replies())
def test_a_glimpse_agrees_with_what_is_decoded(message: Request | Reply) -> None:
    seen = peek.peek(codec.encode(message))
    assert seen is not None
    spis = [e.spi for e in message.extensions if isinstance(e, Authentication) and e.kind == AuthenticationKind.MOBILE_HOME]
    assert seen.spi == (spis[0] if spis else None)
    assert (seen.home_address, seen.home_agent) == (message.home_address, message.home_agent)
    assert seen.identification == message.identification
    assert seen.type == (1 if isinstance(message, Request) else 3)
    assert seen.care_of_address == (message.care_of_address if isinstance(message, Request) else "")


@pytest.mark.parametrize(
    "before", ["2401001400000001" + "20" * 16, "9a010004 20202020", "9a020004 01010100", "c80420202020", ""]
)
def test_a_glimpse_finds_the_authenticator_behind_other_extensions(before: str) -> None:
    seen = peek.peek(FIXED + bytes.fromhex(before) + AUTHENTICATION)
    assert seen is not None
    assert seen.spi == 256


def test_a_glimpse_at_what_is_no_message() -> None:
    assert peek.peek(b"") is None
    assert peek.peek(FIXED[:23]) is None
    assert peek.peek(REPLY[:19]) is None
    assert peek.peek(FIXED + bytes(1477)) is None
    assert peek.peek(b"\x02" + FIXED[1:]) is None
    assert peek.peek(b"\x04\0\0") is None
    assert peek.peek(b"\x04\x04\0\0") == peek.Glimpse(4)
    assert peek.peek(FIXED + b"\x20") is not None
