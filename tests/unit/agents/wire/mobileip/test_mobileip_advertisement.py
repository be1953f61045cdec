"""Agent advertisements and solicitations: by hand, both ways, and what must be refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.wire.checksum import folded, ones_sum
from agents.wire.errors import WireError
from agents.wire.mobileip import advertisement
from agents.wire.mobileip.values import Advertisement, MobilityAgent
from tests.unit.agents.wire.mobileip import messages as m

AGENT = MobilityAgent(
    0x0102, 600, ("10.1.0.1",), registration_required=True, foreign_agent=True, reverse_tunnel=True, udp_tunnel=True
)
OCTETS = bytes.fromhex(
    "0910" "0000" "01020708" "0a010001" "fffffffe"  # RFC 1256 section 3: one router, preference -2, lifetime 1800
    "100a" "0102" "0258" "9180" "0a010001"  # RFC 5944 section 2.1.1: sequence, lifetime 600, R F T U
    "1301" "18" "1804" "deadbeef"  # sections 2.1.2; RFC 4721 section 2
    "00"  # section 2.1.3
)  # fmt: skip


def summed(data: bytes) -> bytes:
    data = data[:2] + b"\0\0" + data[4:]
    return data[:2] + folded(ones_sum(data)).to_bytes(2, "big") + data[4:]


def test_an_advertisement_by_hand() -> None:
    expected = Advertisement(1800, (("10.1.0.1", -2),), 16, AGENT, (24,), bytes.fromhex("deadbeef"))
    assert advertisement.decode(summed(OCTETS)) == expected
    assert advertisement.encode(expected) == summed(OCTETS)


@st.composite
def advertisements(draw: Any) -> Advertisement:
    routers = tuple(draw(st.lists(st.tuples(m.ipv4, st.integers(-(1 << 31), (1 << 31) - 1)), max_size=4)))
    care_of = st.lists(m.ipv4, max_size=4).map(tuple)
    agent = draw(st.none() | st.builds(MobilityAgent, m.word, m.word, care_of, *[st.booleans()] * 8))
    lengths = tuple(draw(st.lists(st.integers(0, 32), min_size=len(routers), max_size=len(routers))))
    lengths = draw(st.sampled_from(((), lengths)))
    return Advertisement(
        draw(m.word), routers, draw(st.sampled_from((0, 16))), agent, lengths, draw(st.none() | st.binary(max_size=20))
    )


@given(advertisements())
def test_values_come_back(value: Advertisement) -> None:
    data = advertisement.encode(value)
    assert ones_sum(data) == 0
    assert len(data) % 2 == 0
    assert advertisement.decode(data) == value


@given(advertisements(), st.data())
def test_damage_is_noticed_or_harmless(value: Advertisement, data: st.DataObject) -> None:
    octets = bytearray(advertisement.encode(value))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(m.octet)
    if ones_sum(octets):
        with pytest.raises(WireError):
            advertisement.decode(bytes(octets))
    repaired = summed(bytes(octets))
    try:
        again = advertisement.decode(repaired)
    except WireError:
        return
    assert advertisement.decode(advertisement.encode(again)) == again


@given(st.binary(max_size=60))
def test_random_octets_raise_nothing_else(data: bytes) -> None:
    for octets in (data, summed(b"\x09\x00\0\0" + data)):
        try:
            advertisement.decode(octets)
        except WireError:
            continue


@pytest.mark.parametrize(
    ("octets", "word"),
    [
        ("0900", "are needed"),
        ("0a00000000020708", "no router advertisement"),
        ("0901000000020708", "no router advertisement"),
        ("0900000000010708", "entries of 1 words"),
        ("0900000001020708 0a010001 000000", "no room"),
        ("0900000000020708 01 00", "not skippable"),
        ("0900000000020708 10", "ends at"),
        ("0900000000020708 1006 0001 0258", "ends at"),
        ("0900000000020708 1004 0001 0258", "length 4"),
        ("0900000000020708 1008 0001 0258 0000 0000", "length 8"),
        ("0900000000020708 1006 0001 0258 0000 1006 0001 0258 0000", "second"),
        ("0900000000020708 1301 18", "1 lengths for 0"),
        ("0900000001020708 0a010001 00000000 1301 21", "33 bits"),
    ],
)
def test_what_is_refused_says_why(octets: str, word: str) -> None:
    data = bytes.fromhex(octets)
    with pytest.raises(WireError, match=word):
        advertisement.decode(summed(data) if len(data) >= 4 else data)


def test_what_is_passed_over() -> None:
    """Three words for each address (RFC 1256 section 5.2), skippable extension, reserved flags (RFC 5944 section 2.1)."""
    octets = "0900000001030708 0a010001 00000005 ffffffff 00 c80199 1006 0001 0258 027f 0000"
    assert advertisement.decode(summed(bytes.fromhex(octets))) == Advertisement(
        1800, (("10.1.0.1", 5),), agent=MobilityAgent(1, 600)
    )


@pytest.mark.parametrize(
    "value",
    [
        Advertisement(65536), Advertisement(-1), Advertisement(1, (("10.0.0.1", 1 << 31),)), Advertisement(1, (("x", 1),)),
        Advertisement(1, (), prefix_lengths=(24,)), Advertisement(1, (), challenge=bytes(256)),
        Advertisement(1, (), agent=MobilityAgent(65536, 1)),
        Advertisement(1, (), agent=MobilityAgent(1, 1, ("10.0.0.1",) * 63)), Advertisement(1, (("10.0.0.1", 0),) * 256),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(value: Advertisement) -> None:
    with pytest.raises(WireError):
        advertisement.encode(value)


def test_solicitations() -> None:
    data = advertisement.encode_solicitation()
    assert data == bytes.fromhex("0a00f5ff00000000")
    assert advertisement.is_solicitation(data)
    assert advertisement.is_solicitation(bytes.fromhex("0a00f5fdffff0002"))  # the reserved word is ignored
    for other in (data[:7], b"\x0a\x01" + data[2:], data[:-1] + b"\x01", summed(OCTETS), b""):
        assert not advertisement.is_solicitation(other)
