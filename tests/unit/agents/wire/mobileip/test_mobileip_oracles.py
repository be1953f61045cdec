"""What other readers make of our octets: tshark, field by field, and the reader of captures in `analysis`.

tshark does not know the type 154 (RFC 7629) and reads it as a short extension; `analysis` shares no code with ours.
"""

import struct
import subprocess
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from agents.core.mobileip.actions import Action, SendIcmp, SendMessage
from agents.wire.mobileip import advertisement, authentication, codec, selectors, tunnel, tunnel_errors
from agents.wire.mobileip import values as v
from analysis.mobileip import mobileip4
from analysis.mobileip.codes import REGISTRATION_FLAGS, letters
from tests.unit.agents.core.mobileip.joined_network import World
from tests.unit.agents.wire.mobileip import messages as m
from tests.unit.agents.wire.mobileip.test_mobileip_advertisement import advertisements

Fields = dict[str, list[tuple[str, str]]]
HA, COA, CN, MN = "10.9.0.1", "10.1.0.77", "10.64.0.2", "10.9.0.5"


def drawn(strategy: st.SearchStrategy[Any], count: int = 150) -> list[Any]:
    """As many values of a strategy, the same each time: tshark is started once for all of them."""
    values: list[Any] = []

    @given(strategy)
    @settings(max_examples=count, phases=[Phase.generate], derandomize=True, database=None)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    assert len(values) >= count // 2
    return values


def dissected(folder: Path, packets: list[bytes]) -> list[Fields]:
    """What tshark reads in IPv4 packets: {field: [(as shown, octets in hex), ...]}."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for number, data in enumerate(packets):
        out += [struct.pack("<IIII", number, 0, len(data), len(data)), data]
    path = folder / "messages.pcap"
    path.write_bytes(b"".join(out))
    command = ["tshark", "-r", str(path), "-T", "pdml", "-n", "-o", "ip.check_checksum:TRUE", "-o", "ip.defragment:FALSE"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    found = []
    for packet in ElementTree.fromstring(done.stdout).iter("packet"):
        fields: Fields = {}
        for field in packet.iter("field"):
            fields.setdefault(field.get("name", ""), []).append((field.get("show", ""), field.get("value", "")))
        assert packet.find(".//field[@name='_ws.malformed']") is None, fields
        assert packet.find(".//proto[@name='_ws.malformed']") is None, fields
        found.append(fields)
    assert len(found) == len(packets)
    return found


def shown(fields: Fields, name: str) -> list[str]:
    return [show for show, _ in fields.get(name, [])]


def numbers(fields: Fields, name: str) -> list[int]:
    return [int(octets, 16) for _, octets in fields.get(name, [])]


def from_udp(data: bytes, port: int = 434) -> bytes:
    return bytes(IP(src=COA, dst=HA) / UDP(sport=port, dport=434) / Raw(data))


def kind_of(extension: v.Extension) -> int:
    return codec.encode_extension(extension)[0]


def check_extension(extension: v.Extension, theirs: Fields) -> None:
    """Fields of the only extension of a message."""
    match extension:
        case v.Authentication(_, spi, octets) | v.GeneralizedAuthentication(_, spi, octets):
            assert numbers(theirs, "mip.auth.spi") == [spi]
            assert [value for _, value in theirs["mip.auth.auth"]] == [octets.hex()]
        case v.Nai(octets):
            assert [value for _, value in theirs["mip.nai"]] == [octets.hex()]
        case v.UdpTunnelRequest():
            assert shown(theirs, "mip.ext.utrq.f") == [str(int(extension.force))]
            assert shown(theirs, "mip.ext.utrq.r") == [str(int(extension.registration_required))]
            assert numbers(theirs, "mip.ext.utrq.encaptype") == [extension.encapsulation]
        case v.UdpTunnelReply():
            assert numbers(theirs, "mip.ext.utrp.code") == [extension.code]
            assert shown(theirs, "mip.ext.utrp.f") == [str(int(extension.force))]
            assert numbers(theirs, "mip.ext.utrp.keepalive") == [extension.keepalive_s]
    if isinstance(extension, v.GeneralizedAuthentication):
        assert numbers(theirs, "mip.ext.auth.subtype") == [extension.subtype]


def check_fixed_part(message: v.Request | v.Reply, theirs: Fields) -> None:
    assert numbers(theirs, "mip.type") == [1 if isinstance(message, v.Request) else 3]
    assert numbers(theirs, "mip.life") == [message.lifetime_s]
    assert shown(theirs, "mip.homeaddr") == [message.home_address]
    assert shown(theirs, "mip.haaddr") == [message.home_agent]
    assert numbers(theirs, "mip.ident") == [message.identification]
    assert numbers(theirs, "mip.ext.type") == [kind_of(extension) for extension in message.extensions]
    if isinstance(message, v.Request):
        assert shown(theirs, "mip.coa") == [message.care_of_address]
        names = {"s": 0x80, "b": 0x40, "d": 0x20, "m": 0x10, "g": 0x08, "v": 0x04, "t": 0x02, "x": 0x01}
        for name, bit in names.items():
            assert shown(theirs, f"mip.{name}") == [str(int(message.flags & bit > 0))], name
    else:
        assert numbers(theirs, "mip.code") == [message.code]


def test_tshark_reads_the_same_fixed_parts_and_chains(tmp_path: Path) -> None:
    messages: list[v.Request | v.Reply] = drawn(m.requests(m.standard) | m.replies(m.standard))
    for message, theirs in zip(messages, dissected(tmp_path, [from_udp(codec.encode(one)) for one in messages]), strict=True):
        check_fixed_part(message, theirs)


def test_tshark_reads_the_same_extensions(tmp_path: Path) -> None:
    extensions: list[v.Extension] = drawn(m.standard)
    messages = [v.Request(MN, HA, COA, 60, 7, extensions=(extension,)) for extension in extensions]
    for extension, theirs in zip(
        extensions, dissected(tmp_path, [from_udp(codec.encode(one)) for one in messages]), strict=True
    ):
        check_extension(extension, theirs)


def test_all_extensions_but_those_of_type_154_are_shown_to_tshark() -> None:
    shown_ones = {type(extension) for extension in drawn(m.standard)}
    ours = set(get_args(v.Extension)) - {v.Multipath, v.FlowBinding, v.UnknownExtension}
    assert shown_ones >= ours


class Overheard(World):
    """What the cores of all three roles send while a mobile node moves about."""

    def perform(self, who: str, actions: list[Action]) -> None:
        """Note the messages, then do what is asked for."""
        self.messages: list[bytes] = getattr(self, "messages", [])
        self.icmp: list[bytes] = getattr(self, "icmp", [])
        self.messages += [action.data for action in actions if isinstance(action, SendMessage)]
        self.icmp += [action.data for action in actions if isinstance(action, SendIcmp)]
        super().perform(who, actions)


@pytest.mark.parametrize(
    "config", [{}, {"nat_traversal": True, "nat_force": True}, {"broadcasts": True, "reverse_tunnel": False}]
)
@pytest.mark.parametrize("foreign", [False, True])
def test_tshark_finds_nothing_malformed_in_what_the_roles_send(tmp_path: Path, foreign: bool, config: dict[str, Any]) -> None:
    world = Overheard(foreign=foreign, multipath=False, **config)
    world.attach("wlan", None if foreign else "10.1.0.2")
    world.run(5.0)
    world.attach("lte", "10.2.0.2")
    world.detach("wlan")
    world.run(5.0)
    world.attach("wlan", "10.9.0.50")
    world.run(5.0)
    decoded = [codec.decode(data) for data in world.messages]
    assert {type(message) for message in decoded} == {v.Request, v.Reply}
    assert any(message.lifetime_s == 0 for message in decoded if isinstance(message, v.Request)), "a deregistration"
    for message, theirs in zip(decoded, dissected(tmp_path, list(map(from_udp, world.messages))), strict=True):
        assert isinstance(message, v.Request | v.Reply)
        check_fixed_part(message, theirs)
    icmp = [bytes(IP(src=HA, dst="224.0.0.1", ttl=1, proto=1) / Raw(data)) for data in world.icmp]
    kinds = {numbers(theirs, "icmp.type")[0] for theirs in dissected(tmp_path, icmp)}
    assert kinds == ({9, 10} if foreign else {10}), "advertisements, solicitations"


def test_tshark_reads_authenticated_messages_of_every_kind(tmp_path: Path) -> None:
    messages = []
    for algorithm in authentication.Algorithm:
        data = codec.encode(v.Request(MN, HA, COA, 60, 7, extensions=(v.Nai(b"mn@example.net"), v.EncapsulatingDelivery())))
        for kind in v.AuthenticationKind:
            data = authentication.append_authentication(data, kind, 256 + kind, bytes(16), algorithm)
        messages.append(authentication.append_generalized_authentication(data, 1, 1000, bytes(16), algorithm))
    for data, theirs in zip(messages, dissected(tmp_path, list(map(from_udp, messages))), strict=True):
        assert numbers(theirs, "mip.ext.type") == [131, 130, 32, 33, 34, 36]
        assert numbers(theirs, "mip.auth.spi") == [288, 289, 290, 1000]
        decoded = codec.decode(data)
        assert isinstance(decoded, v.Request)
        ours = [
            e.authenticator.hex() for e in decoded.extensions if isinstance(e, v.Authentication | v.GeneralizedAuthentication)
        ]
        assert [value for _, value in theirs["mip.auth.auth"]] == ours


def test_tshark_reads_the_same_advertisements(tmp_path: Path) -> None:
    values: list[v.Advertisement] = drawn(advertisements())
    packets = [bytes(IP(src=HA, dst="224.0.0.1", ttl=1, proto=1) / Raw(advertisement.encode(one))) for one in values]
    for ours, theirs in zip(values, dissected(tmp_path, packets), strict=True):
        assert (numbers(theirs, "icmp.type"), numbers(theirs, "icmp.code")) == ([9], [ours.code])
        assert shown(theirs, "icmp.checksum.status") == ["1"]
        assert numbers(theirs, "icmp.lifetime") == [ours.lifetime_s]
        assert numbers(theirs, "icmp.num_addrs") == [len(ours.routers)]
        assert shown(theirs, "icmp.router_address") == [address for address, _ in ours.routers]
        levels = [int(show) for show in shown(theirs, "icmp.pref_level")]
        assert levels == [preference for _, preference in ours.routers]
        assert shown(theirs, "icmp.mip.prefixlength") == [str(length) for length in ours.prefix_lengths]
        challenges = [octets for _, octets in theirs.get("icmp.mip.challenge", []) if octets]
        assert challenges == ([ours.challenge.hex()] if ours.challenge else [])
        if ours.agent is None:
            continue
        assert numbers(theirs, "icmp.mip.seq") == [ours.agent.sequence]
        assert numbers(theirs, "icmp.mip.life") == [ours.agent.lifetime_s]
        assert shown(theirs, "icmp.mip.coa") == list(ours.agent.care_of_addresses)
        names = {"r": "registration_required", "b": "busy", "h": "home_agent", "f": "foreign_agent",
                 "m": "minimal_encapsulation", "g": "gre", "rt": "reverse_tunnel", "u": "udp_tunnel"}  # fmt: skip
        for field, name in names.items():
            assert shown(theirs, f"icmp.mip.{field}") == [str(int(getattr(ours.agent, name)))], name


def test_tshark_reads_a_solicitation(tmp_path: Path) -> None:
    data = bytes(IP(src=MN, dst="224.0.0.11", ttl=1, proto=1) / Raw(advertisement.encode_solicitation()))
    theirs = dissected(tmp_path, [data])[0]
    assert (numbers(theirs, "icmp.type"), shown(theirs, "icmp.checksum.status")) == ([10], ["1"])


def test_tshark_sees_through_our_tunnels(tmp_path: Path) -> None:
    inner = bytes(IP(src=CN, dst=MN, tos=0x28, flags="DF", ttl=9) / UDP(sport=5004, dport=5005) / Raw(b"voice"))
    packets = [
        tunnel.encapsulate(inner, HA, COA, 7),
        tunnel.encapsulate(inner, HA, COA, 7, tunnel.GRE),
        from_udp(tunnel.tunnel_data(inner)),
    ]
    for packet, theirs in zip(packets, dissected(tmp_path, packets), strict=True):
        assert shown(theirs, "ip.src")[-1:] + shown(theirs, "ip.dst")[-1:] == [CN, MN]
        assert shown(theirs, "ip.ttl")[-1] == "9"
        assert set(shown(theirs, "ip.checksum.status")) == {"1"}
        assert shown(theirs, "udp.dstport")[-1] == "5005"
        assert len(shown(theirs, "ip.src")) == 2, packet
    assert numbers(dissected(tmp_path, packets)[2], "mip.nattt.nexthdr") == [4]


def test_tshark_reads_a_relayed_error(tmp_path: Path) -> None:
    inner = bytes(IP(src=CN, dst=MN, flags="DF") / UDP(sport=5004, dport=5005) / Raw(bytes(1400)))
    about = bytes(
        IP(src="10.255.0.1", dst=HA) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(tunnel.encapsulate(inner, HA, COA, 7)[:520])
    )
    relayed = tunnel_errors.relayed(tunnel_errors.read_error(about), HA)
    assert relayed is not None
    theirs = dissected(tmp_path, [relayed])[0]
    assert (shown(theirs, "ip.src"), shown(theirs, "ip.dst")) == ([HA, CN], [CN, MN])
    assert (numbers(theirs, "icmp.type"), numbers(theirs, "icmp.code"), numbers(theirs, "icmp.mtu")) == ([3], [4], [1380])
    assert shown(theirs, "icmp.checksum.status") == ["1"]


understood = m.extensions.filter(lambda one: not isinstance(one, v.UnknownExtension) or one.type not in READ)
READ = (137, 139, 144, 145, 154)
"""Extensions of which the reader in `analysis` knows more than the codec, or other subtypes."""


def analysed(message: v.Message) -> mobileip4.Message:
    return mobileip4.decode(codec.encode(message))


@given(m.requests(understood) | m.replies(understood))
@example(v.Request(MN, HA, COA, 60, 7, extensions=(v.Multipath(2, 7, 4, bulk=True), v.Multipath(3))))
def test_the_reader_of_captures_agrees(message: v.Request | v.Reply) -> None:
    theirs = analysed(message)
    assert theirs.problem == ""
    assert (theirs.home_address, theirs.home_agent) == (message.home_address, message.home_agent)
    assert (theirs.lifetime_s, theirs.identification) == (message.lifetime_s, message.identification)
    if isinstance(message, v.Request):
        assert theirs.care_of_address == message.care_of_address
        assert theirs.flags == letters(int(message.flags), REGISTRATION_FLAGS, 8)
    else:
        assert theirs.code == message.code
    assert [int(name.split("/")[0]) for name in theirs.extensions] == [kind_of(extension) for extension in message.extensions]


def readable_bindings() -> st.SearchStrategy[v.FlowBinding]:
    return m.flow_bindings().filter(lambda binding: binding.selector is not None)


@given(st.lists(m.multipaths | readable_bindings(), max_size=4))
def test_the_reader_of_captures_agrees_on_rfc_7629(extensions: list[v.Extension]) -> None:
    theirs = analysed(v.Request(MN, HA, COA, 60, 7, extensions=tuple(extensions)))
    assert theirs.problem == ""
    paths = [one for one in extensions if isinstance(one, v.Multipath)][:1]
    assert theirs.bids == tuple(path.bid for path in paths)
    for path in paths:
        assert theirs.label == path.label
        assert theirs.bid_flags.split() == ["B"] * path.bulk + ["O"] * path.overwrite
    bindings = [one for one in extensions if isinstance(one, v.FlowBinding)]
    assert [one.bids for one in theirs.flow_bindings] == [one.bids for one in bindings]
    assert [one.selector for one in theirs.flow_bindings] == [selector_words(one.selector) for one in bindings]


def selector_words(selector: v.Selector | None) -> str:
    """A selector in the words of the reader of captures."""
    assert selector is not None
    protocols = {1: "ICMP", 6: "TCP", 17: "UDP", 50: "ESP", 58: "ICMPv6", 132: "SCTP"}
    names = {"source": "src", "destination": "dst", "spi": "SPI", "flow_label": "flow label", "source_port": "sport",
             "destination_port": "dport", "traffic_class": "DS" if selector.version == 4 else "traffic class",
             "protocol": "protocol"}  # fmt: skip
    words = []
    for name, word in names.items():
        limits = getattr(selector, name)
        if limits is None:
            continue
        ends = limits if limits[0] != limits[1] or name in selector.explicit_end else limits[:1]
        texts = [
            protocols.get(end, str(end))
            if name == "protocol"
            else str(end >> 2 if word == "DS" else end)
            if name not in ("source", "destination")
            else end
            for end in ends
        ]
        words.append(f"{word} {'-'.join(texts)}")
    return " ".join(words) or "everything"


def test_the_example_of_rfc_7629_in_the_reader_of_captures() -> None:
    binding = selectors.flow_binding(v.FlowAction.FORWARD, (1, 2), v.Selector(destination_port=(443, 443), protocol=(6, 6)))
    assert codec.encode_extension(binding) == bytes.fromhex("9a02000c 01 02 0102 01 00880000 01bb 06")
    theirs = analysed(v.Request(MN, HA, COA, 60, 7, extensions=(binding,))).flow_bindings
    assert [(one.action, one.bids, one.selector) for one in theirs] == [("forward", (1, 2), "dport 443 protocol TCP")]
