"""RFC 6088 selectors: by hand, both ways, what they match, mirror and overlap, against a plain reading of their definition."""

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.wire.errors import WireError
from agents.wire.mobileip import selectors
from agents.wire.mobileip.selectors import PacketFields
from agents.wire.mobileip.values import FlowAction, FlowBinding, Selector, SelectorFormat
from tests.unit.agents.wire.mobileip import messages as m

IPV4_FIELDS = ("source", "destination", "spi", "source_port", "destination_port", "traffic_class", "protocol")
IPV6_FIELDS = (*IPV4_FIELDS[:3], "flow_label", *IPV4_FIELDS[3:])


@pytest.mark.parametrize(
    ("octets", "selector"),
    [
        ("00880000 01bb 06", Selector(destination_port=(443, 443), protocol=(6, 6))),
        ("00000000", Selector()),
        # RFC 6088 section 3.1, flags A to N, every field as a range
        ("fffc0000 0a000001 0a000009 0b000000 0bffffff 00000100 000001ff 0001 0002 0003 ffff b8 fc 06 11",
         Selector(4, ("10.0.0.1", "10.0.0.9"), ("11.0.0.0", "11.255.255.255"), None, (256, 511), (1, 2), (3, 65535),
                  (0xB8, 0xFC), (6, 17))),
        # section 3.2, flags A to P, starts only
        ("aaaa0000 20010db8000000000000000000000001 20010db8000000000000000000000002 00000100 000abcde 0001 0003 b8 06",
         Selector(6, ("2001:db8::1",) * 2, ("2001:db8::2",) * 2, (0xABCDE,) * 2, (256,) * 2, (1, 1), (3, 3), (0xB8,) * 2,
                  (6, 6))),
        ("00c00000 01bb 01bb", Selector(destination_port=(443, 443), explicit_end=frozenset({"destination_port"}))),
    ],
)  # fmt: skip
def test_selectors_by_hand(octets: str, selector: Selector) -> None:
    data = bytes.fromhex(octets)
    kind = selectors.decode(SelectorFormat.IPV6 if selector.version == 6 else SelectorFormat.IPV4, data)
    assert kind == selector
    assert selectors.encode(selector) == data


@pytest.mark.parametrize(("version", "names"), [(4, IPV4_FIELDS), (6, IPV6_FIELDS)])
def test_each_field_has_its_pair_of_flags_in_order(version: int, names: tuple[str, ...]) -> None:
    """RFC 6088 sections 3.1 and 3.2: (A) and (B) are the two most significant bits, and so on."""
    for place, name in enumerate(names):
        ends = ("10.0.0.1", "10.0.0.2") if version == 4 else ("2001:db8::1", "2001:db8::2")
        value = ends if name in ("source", "destination") else (4, 8)
        data = selectors.encode(Selector(version=version, **{name: value}))
        assert int.from_bytes(data[:4], "big") == 3 << 30 - 2 * place


def test_bits_that_are_ignored() -> None:
    """The two low bits of DS, the first octet of the flow label, reserved flags (RFC 6088 section 3)."""
    assert selectors.decode(1, bytes.fromhex("00200000 bb")) == Selector(traffic_class=(0xB8, 0xB8))
    assert selectors.decode(1, bytes.fromhex("0023ffff bb")) == Selector(traffic_class=(0xB8, 0xB8))
    assert selectors.decode(2, bytes.fromhex("02000000 ff0abcde")) == Selector(6, flow_label=(0xABCDE, 0xABCDE))
    wide = Selector(traffic_class=(0xB8, 0xBB))
    assert selectors.matches(wide, PacketFields("10.0.0.1", "10.0.0.2", 17, traffic_class=0xBA))


@pytest.mark.parametrize(
    ("kind", "octets", "word"),
    [
        (0, "00000000", "format 0"),
        (3, "00000000", "format 3"),
        (1, "000000", "no room"),
        (1, "40000000 0a000001", "without a start"),
        (1, "00880000 01bb", "ends at 7"),
        (1, "00880000 01bb 06 00", "tell of 7"),
        (1, "00c00000 01bb 01ba", "before its start"),
        (2, "80000000 0a000001", "ends at 20"),
    ],
)
def test_what_cannot_be_read_says_why(kind: int, octets: str, word: str) -> None:
    with pytest.raises(WireError, match=word):
        selectors.decode(kind, bytes.fromhex(octets))


@pytest.mark.parametrize(
    "selector",
    [
        Selector(5), Selector(4, flow_label=(1, 1)), Selector(4, ("10.0.0.2", "10.0.0.1")), Selector(4, ("::1", "::1")),
        Selector(6, ("10.0.0.1",) * 2), Selector(6, ("2001:DB8::1",) * 2), Selector(protocol=(256, 256)),
        Selector(source_port=(-1, 5)), Selector(destination_port=(5, 65536)), Selector(spi=(2, 1)),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(selector: Selector) -> None:
    with pytest.raises(WireError):
        selectors.encode(selector)


@given(m.selector())
def test_values_come_back(selector: Selector) -> None:
    kind = {4: SelectorFormat.IPV4, 6: SelectorFormat.IPV6}[selector.version]
    assert selectors.decode(kind, selectors.encode(selector)) == selector
    binding = selectors.flow_binding(FlowAction.FORWARD, (1,), selector)
    assert binding == FlowBinding(1, (1,), kind, selectors.encode(selector), selector)


@given(st.sampled_from((1, 2)), st.binary(max_size=60))
def test_random_octets_are_refused_or_mean_something(kind: int, data: bytes) -> None:
    try:
        selector = selectors.decode(kind, data)
    except WireError:
        return
    assert selectors.decode(kind, selectors.encode(selector)) == selector


# Few values, so that packets and selectors meet.
small = st.integers(0, 3)
near4 = small.map(lambda n: f"10.0.{n}.{3 - n}")
near6 = small.map(lambda n: f"2001:db8::{n + 1:x}")


@st.composite
def near_selectors(draw: Any, version: int) -> Selector:
    addresses = m.ranges(near4 if version == 4 else near6, ipaddress.ip_address)
    fields = {name: draw(m.ranges(small)) for name in ("spi", "source_port", "destination_port", "protocol")}
    fields["traffic_class"] = draw(m.ranges(small.map(lambda n: n << 2)))
    if version == 6:
        fields["flow_label"] = draw(m.ranges(small))
    return Selector(version, draw(addresses), draw(addresses), **fields)


@st.composite
def near_packets(draw: Any, version: int) -> PacketFields:
    addresses = near4 if version == 4 else near6
    maybe = st.none() | small
    return PacketFields(
        draw(addresses), draw(addresses), draw(small), draw(maybe), draw(maybe), draw(st.integers(0, 15)), draw(maybe),
        draw(maybe) if version == 6 else None,
    )  # fmt: skip


pairs = st.sampled_from((4, 6)).flatmap(lambda v: st.tuples(near_selectors(v), near_selectors(v), near_packets(v)))


def plainly(selector: Selector, packet: PacketFields) -> bool:
    for name in IPV6_FIELDS:
        limits, value = getattr(selector, name), getattr(packet, name)
        if limits is None:
            continue
        if value is None:
            return False
        if name == "traffic_class":
            value = value // 4 * 4
        if name in ("source", "destination"):
            limits, value = tuple(map(ipaddress.ip_address, limits)), ipaddress.ip_address(value)
        if not limits[0] <= value <= limits[1]:
            return False
    return True


@given(pairs)
@example((Selector(destination_port=(1, 1)), Selector(), PacketFields("10.0.0.1", "10.0.0.2", 1)))
def test_matching_is_what_the_ranges_say(case: tuple[Selector, Selector, PacketFields]) -> None:
    selector, other, packet = case
    assert selectors.matches(selector, packet) == plainly(selector, packet)
    if selectors.matches(selector, packet) and selectors.matches(other, packet):
        assert selectors.overlaps(selector, other)
    assert selectors.overlaps(selector, other) == selectors.overlaps(other, selector)
    assert selectors.overlaps(selector, selector)


@given(pairs)
def test_overlapping_selectors_share_a_packet(case: tuple[Selector, Selector, PacketFields]) -> None:
    one, other, _ = case
    packet = shared_packet(one, other)
    assert selectors.overlaps(one, other) == (packet is not None)
    if packet is not None:
        assert selectors.matches(one, packet)
        assert selectors.matches(other, packet)


def shared_packet(one: Selector, other: Selector) -> PacketFields | None:
    """The packet with the highest first value of both in each field, if both match it."""
    fields: dict[str, Any] = {}
    for name in IPV6_FIELDS:
        key = ipaddress.ip_address if name in ("source", "destination") else int
        starts = [limits[0] for limits in (getattr(one, name), getattr(other, name)) if limits is not None]
        if starts:
            fields[name] = max(starts, key=key)
    filler = "10.9.9.9" if one.version == 4 else "2001:db8::99"
    packet = PacketFields(**{"source": filler, "destination": filler, "protocol": 9, **fields})
    return packet if plainly(one, packet) and plainly(other, packet) else None


@given(pairs)
def test_mirroring_is_for_the_other_direction(case: tuple[Selector, Selector, PacketFields]) -> None:
    selector, _, packet = case
    answer = PacketFields(
        packet.destination, packet.source, packet.protocol, packet.destination_port, packet.source_port, packet.traffic_class,
        packet.spi, packet.flow_label,
    )  # fmt: skip
    mirror = selectors.mirrored(selector)
    assert selectors.matches(mirror, answer) == selectors.matches(selector, packet)
    assert selectors.mirrored(mirror) == selector


def test_a_mirrored_selector_keeps_its_explicit_ends() -> None:
    selector = selectors.decode(1, bytes.fromhex("00c00000 01bb 01bb"))
    assert selectors.encode(selectors.mirrored(selector)).hex() == "0300000001bb01bb"


def test_a_selector_mirrored_by_hand() -> None:
    down = Selector(4, ("10.0.0.1", "10.0.0.1"), ("10.9.0.5", "10.9.0.6"), source_port=(443, 443), protocol=(6, 6))
    up = Selector(4, ("10.9.0.5", "10.9.0.6"), ("10.0.0.1", "10.0.0.1"), destination_port=(443, 443), protocol=(6, 6))
    assert selectors.mirrored(down) == up


def test_versions_never_meet() -> None:
    packet = PacketFields("10.0.0.1", "10.0.0.2", 6)
    assert selectors.matches(Selector(), packet)
    assert not selectors.matches(Selector(6), packet)
    assert not selectors.overlaps(Selector(), Selector(6))
