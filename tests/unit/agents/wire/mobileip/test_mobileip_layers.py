"""The layers for scapy and the codec say the same of every message, in both directions; names; robustness."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import GRE, ICMP, IP, UDP
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ, MobileIPTunnelData
from scapy.packet import Packet, Raw

from agents.core.mobileip.registration_codes import Code
from agents.wire.mobileip import advertisement, codec, layers
from agents.wire.mobileip import agent_layers as agents
from agents.wire.mobileip import values as v
from tests.unit.agents.wire.mobileip import messages as m
from tests.unit.agents.wire.mobileip.test_mobileip_advertisement import advertisements

SELECTED = ("source", "destination", "flow_label", "spi", "source_port", "destination_port", "traffic_class", "protocol")


def selector_layer(selector: v.Selector) -> Packet:
    fields = {}
    for name in SELECTED:
        limits = getattr(selector, name)
        if limits is not None:
            fields[f"start_{name}"] = limits[0]
            if limits[0] != limits[1] or name in selector.explicit_end:
                fields[f"end_{name}"] = limits[1]
    return (layers.IPv4Selector if selector.version == 4 else layers.IPv6Selector)(**fields)


def layer(extension: v.Extension) -> Packet:
    """The layer that a person would write for this extension."""
    match extension:
        case v.Authentication(kind, spi, octets):
            return layers.MobileIPAuthentication(type=int(kind), spi=spi, authenticator=octets)
        case v.GeneralizedAuthentication(subtype, spi, octets):
            return layers.MobileIPGeneralizedAuthentication(subtype=subtype, spi=spi, authenticator=octets)
        case v.Nai(octets):
            return layers.MobileIPNai(nai=octets)
        case v.Challenge(octets):
            return layers.MobileIPChallenge(challenge=octets)
        case v.EncapsulatingDelivery():
            return layers.MobileIPEncapsulatingDelivery()
        case v.UdpTunnelRequest(force, required, inner, reserved):
            return layers.MobileIPUdpTunnelRequest(
                flags="F" * force + "R" * required, encapsulation=inner, reserved1=reserved >> 22,
                reserved2=reserved >> 16 & 63, reserved3=reserved & 0xFFFF,
            )  # fmt: skip
        case v.UdpTunnelReply(code, force, keepalive_s, reserved):
            return layers.MobileIPUdpTunnelReply(code=code, flags="F" * force, keepalive=keepalive_s, reserved=reserved)
        case v.Multipath(bid, label, technology, bulk, overwrite, reserved):
            return layers.MobileIPMultipath(
                bid=bid, label=label, technology=int(technology), flags="B" * bulk + "O" * overwrite, reserved=reserved
            )
        case v.FlowBinding(action, bids, style, raw, selector):
            inside = selector_layer(selector) if selector is not None else Raw(raw)
            return layers.MobileIPFlowBinding(action=int(action), bids=list(bids), ts_format=int(style), selector=inside)
        case v.UnknownExtension(154, octets):
            return layers.MobileIPUnknownFlowExtension(subtype=octets[0], data=octets[1:])
        case v.UnknownExtension(kind, octets):
            return layers.MobileIPUnknownExtension(type=kind, data=octets)
    raise AssertionError(extension)


def packet(message: v.Message) -> Packet:
    """The layers that a person would write for this message."""
    match message:
        case v.TunnelData(next_header, inner, reserved):
            return MobileIP() / MobileIPTunnelData(nexthdr=next_header, res=reserved) / Raw(inner)
        case v.Request(home, agent, care_of, lifetime_s, identification, flags, extensions):
            out = MobileIP() / layers.RegistrationRequest(
                flags=int(flags), lifetime=lifetime_s, homeaddr=home, haaddr=agent, coaddr=care_of, id=identification
            )
        case v.Reply(code, home, agent, lifetime_s, identification, extensions):
            out = MobileIP() / layers.RegistrationReply(
                code=code, lifetime=lifetime_s, homeaddr=home, haaddr=agent, id=identification
            )
    for extension in extensions:
        out = out / layer(extension)
    return out


def selector_value(found: Packet) -> v.Selector | None:
    if isinstance(found, Raw) or found is None or Raw in found:
        return None
    fields: dict[str, Any] = {}
    explicit = []
    for name in SELECTED:
        first, last = (found.fields.get(f"{end}_{name}") for end in ("start", "end"))
        if first is not None:
            limits = (first, first if last is None else last)
            fields[name] = tuple(str(ipaddress.ip_address(end)) for end in limits) if name in SELECTED[:2] else limits
            explicit += [name] if first == last else []
    return v.Selector(version=4 if isinstance(found, layers.IPv4Selector) else 6, explicit_end=frozenset(explicit), **fields)


def value(found: Packet) -> v.Extension:
    """What a layer says, as a value."""
    match type(found).__name__:
        case "MobileIPAuthentication":
            return v.Authentication(v.AuthenticationKind(found.type), found.spi, found.authenticator)
        case "MobileIPGeneralizedAuthentication":
            return v.GeneralizedAuthentication(found.subtype, found.spi, found.authenticator)
        case "MobileIPNai":
            return v.Nai(found.nai)
        case "MobileIPChallenge":
            return v.Challenge(found.challenge)
        case "MobileIPEncapsulatingDelivery":
            return v.EncapsulatingDelivery()
        case "MobileIPUdpTunnelRequest":
            return v.UdpTunnelRequest(bool(found.flags.F), bool(found.flags.R), found.encapsulation)
        case "MobileIPUdpTunnelReply":
            return v.UdpTunnelReply(found.code, bool(found.flags.F), found.keepalive)
        case "MobileIPMultipath":
            return v.Multipath(found.bid, found.label, found.technology, bool(found.flags.B), bool(found.flags.O))
        case "MobileIPFlowBinding":
            raw = bytes(found.selector or b"")
            return v.FlowBinding(found.action, tuple(found.bids), found.ts_format, raw, selector_value(found.selector))
        case "MobileIPUnknownFlowExtension":
            return v.UnknownExtension(154, bytes((found.subtype,)) + found.data)
        case "MobileIPUnknownExtension":
            return v.UnknownExtension(found.type, found.data)
    raise AssertionError(found)


def chain(first: Packet) -> list[Packet]:
    out = []
    while first:
        out.append(first)
        first = first.payload
    return out


@given(m.messages)
@settings(deadline=None)
def test_layers_build_what_the_codec_writes(message: v.Message) -> None:
    assert bytes(packet(message)) == codec.encode(message)


@given(m.requests() | m.replies())
@settings(deadline=None)
def test_layers_read_what_the_codec_reads(message: v.Request | v.Reply) -> None:
    data = codec.encode(message)
    read = MobileIP(data)
    head = read.payload
    assert isinstance(head, MobileIPRRQ if isinstance(message, v.Request) else MobileIPRRP)
    assert (head.homeaddr, head.haaddr, head.lifetime, head.id) == (
        message.home_address, message.home_agent, message.lifetime_s, message.identification,
    )  # fmt: skip
    if isinstance(message, v.Request):
        assert (head.coaddr, int(head.flags)) == (message.care_of_address, message.flags)
    else:
        assert head.code == message.code
    assert tuple(map(value, chain(head.payload))) == message.extensions
    assert bytes(read) == data


@given(m.requests() | m.replies())
@settings(deadline=None)
def test_the_layers_of_scapy_itself_read_our_fixed_parts(message: v.Request | v.Reply) -> None:
    data = codec.encode(message)
    if isinstance(message, v.Request):
        read = MobileIPRRQ(data[1:])
        assert (read.flags, read.coaddr) == (message.flags, message.care_of_address)
    else:
        read = MobileIPRRP(data[1:])
        assert read.code == message.code
    assert (read.homeaddr, read.haaddr, read.lifetime, read.id) == (
        message.home_address, message.home_agent, message.lifetime_s, message.identification,
    )  # fmt: skip


@given(m.selector())
@settings(deadline=None)
def test_fields_of_a_selector_come_back_with_their_flags_worked_out(selector: v.Selector) -> None:
    built = bytes(selector_layer(selector))
    again = type(selector_layer(selector))(built)
    assert selector_value(again) == selector
    assert bytes(again) == built


def test_tunnel_data_shows_the_packet_inside() -> None:
    inner = IP(src="10.64.0.2", dst="10.9.0.5") / UDP(sport=5, dport=6)
    whole = IP(src="10.9.0.1", dst="10.1.0.77") / UDP(sport=434, dport=434)
    read = IP(bytes(whole / Raw(codec.encode(v.TunnelData(4, bytes(inner))))))
    assert read[MobileIPTunnelData].payload.dst == "10.9.0.5"
    read = IP(bytes(whole / Raw(codec.encode(v.TunnelData(47, bytes(GRE(proto=0x800) / inner))))))
    assert read[GRE].payload.dst == "10.9.0.5"


def test_flags_and_codes_have_names() -> None:
    request = layers.RegistrationRequest(flags="S+T")
    assert int(request.flags) == 0x82
    assert request.sprintf("%RegistrationRequest.flags%") == "T+S"
    assert layers.RegistrationReply(code="ha-multipath-not-allowed").code == 152
    assert set(layers.CODES) >= set(Code) - {Code.FA_RESERVED_73}
    assert layers.MobileIPMultipath(flags="B", technology="WLAN").sprintf("%technology% %flags%") == "WLAN B"
    assert layers.IPv4Selector(start_protocol=6).announced() == 1 << 31 - 12
    assert layers.IPv4Selector(bytes.fromhex("0088000001bb06")).sprintf("%flags%") == "M+I"
    assert [int(agents.MobilityAgent(flags=name).flags) for name in "RFTU"] == [0x8000, 0x1000, 0x0100, 0x0080]


def test_a_whole_packet_is_dissected_by_its_ports() -> None:
    request = v.Request("10.9.0.5", "10.9.0.1", "10.1.0.77", 60, 7, extensions=(v.Nai(b"mn@x"), v.Multipath(3)))
    read = IP(bytes(IP(src="10.1.0.77", dst="10.9.0.1") / UDP(sport=40000, dport=434) / Raw(codec.encode(request))))
    assert read[layers.MobileIPMultipath].bid == 3
    assert "Raw" not in read


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_octets_of_any_kind_are_shown_somehow(data: bytes) -> None:
    for head in (codec.encode(v.Request("10.9.0.5", "10.9.0.1", "10.1.0.77", 60, 7)), b"\x03" + bytes(19)):
        assert bytes(MobileIP(head + data)) == head + data
    assert bytes(agents.RouterAdvertisement(b"\x09\0\0\0\0\x02\0\0" + data)) == b"\x09\0\0\0\0\x02\0\0" + data


def advertisement_layers(given_: v.Advertisement) -> Packet:
    routers = [agents.RouterAddress(address=address, preference=preference) for address, preference in given_.routers]
    out: Packet = agents.RouterAdvertisement(code=given_.code, lifetime=given_.lifetime_s, routers=routers)
    agent = given_.agent
    if agent is not None:
        letters = "RBHFMGTU"
        flags = (agent.registration_required, agent.busy, agent.home_agent, agent.foreign_agent, agent.minimal_encapsulation,
                 agent.gre, agent.reverse_tunnel, agent.udp_tunnel)  # fmt: skip
        out = out / agents.MobilityAgent(
            sequence=agent.sequence, lifetime=agent.lifetime_s, addresses=list(agent.care_of_addresses),
            flags="+".join(letter for letter, is_set in zip(letters, flags, strict=True) if is_set),
        )  # fmt: skip
    if given_.prefix_lengths:
        out = out / agents.PrefixLengths(prefixes=list(given_.prefix_lengths))
    if given_.challenge is not None:
        out = out / agents.AgentChallenge(challenge=given_.challenge)
    return out / agents.OneBytePadding() if len(bytes(out)) % 2 else out


@given(advertisements())
@settings(deadline=None)
def test_advertisements_are_the_same(given_: v.Advertisement) -> None:
    data = advertisement.encode(given_)
    built = advertisement_layers(given_)
    assert bytes(built) == data
    whole = bytes(IP(dst="224.0.0.1", ttl=1) / built)
    read = IP(whole)[agents.RouterAdvertisement]
    assert [(router.address, router.preference) for router in read.routers] == list(given_.routers)
    assert [type(part) for part in chain(read)] == [type(part) for part in chain(built)]
    if given_.agent is not None:
        found = read[agents.MobilityAgent]
        assert (found.sequence, found.lifetime) == (given_.agent.sequence, given_.agent.lifetime_s)
        assert tuple(found.addresses) == given_.agent.care_of_addresses
        assert bool(found.flags.T) == given_.agent.reverse_tunnel
    assert bytes(read) == data


def test_solicitations_are_the_same() -> None:
    assert bytes(agents.RouterSolicitation()) == advertisement.encode_solicitation()
    read = IP(bytes(IP(dst="224.0.0.11", ttl=1) / agents.RouterSolicitation()))
    assert agents.RouterSolicitation in read


@pytest.mark.parametrize("kind", [0, 3, 8, 11])
def test_other_icmp_messages_stay_those_of_scapy(kind: int) -> None:
    assert type(IP(bytes(IP() / ICMP(type=kind) / Raw(bytes(28)))).payload) is ICMP
