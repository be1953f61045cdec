"""Packets made for the link layer, read by scapy; clock; gratuitous ARP; parameters."""

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP

from agents.core.mobileip.actions import SendIcmp, SendMessage
from agents.kernel.mobileip import parameters as parameters_module
from agents.kernel.mobileip.arp import announcement
from agents.kernel.mobileip.clock import ntp_of
from agents.kernel.mobileip.links import group_link_address, icmp_packet, udp_packet
from agents.kernel.mobileip.parameters import Parameters
from agents.wire.mobileip import advertisement


def again(packet: IP) -> bytes:
    """The same with lengths and checksums as scapy computes them."""
    for layer in packet.iterpayloads():
        for name in ("len", "chksum"):
            if name in layer.default_fields:
                layer.delfieldval(name)
    return bytes(packet)


def test_a_registration_to_a_host_without_address() -> None:
    octets = udp_packet(SendMessage(b"\x03abc", "10.33.0.100", 40000, "10.9.0.1", "fa-1", 1), "10.9.0.1")
    read = IP(octets)
    assert (read.src, read.dst, read.ttl, read[UDP].sport, read[UDP].dport) == ("10.9.0.1", "10.33.0.100", 1, 434, 40000)
    assert bytes(read[UDP].payload) == b"\x03abc"
    assert again(IP(octets)) == octets


def test_a_solicitation() -> None:
    octets = icmp_packet(SendIcmp(advertisement.encode_solicitation(), "224.0.0.11", "mn-p0"), "0.0.0.0")
    read = IP(octets)
    # Not `read[ICMP]`: with the agents' own scapy layers loaded a solicitation is one of these.
    assert (read.src, read.dst, read.ttl, octets[20]) == ("0.0.0.0", "224.0.0.11", 1, 10)
    assert again(IP(octets)) == octets


def test_rfc_1112_section_6_4_group_addresses() -> None:
    assert group_link_address("224.0.0.11") == "01:00:5e:00:00:0b"
    assert group_link_address("239.129.1.2") == "01:00:5e:01:01:02"
    assert group_link_address("255.255.255.255") == "ff:ff:ff:ff:ff:ff"
    assert group_link_address("10.0.0.1") == ""


def test_rfc_5944_section_4_6_gratuitous_arp() -> None:
    own = bytes.fromhex("020000000001")
    for operation in (1, 2):
        read = ARP(announcement("10.33.0.100", own, operation))
        assert (read.op, read.psrc, read.pdst, read.hwsrc) == (operation, "10.33.0.100", "10.33.0.100", "02:00:00:00:00:01")


def test_ntp() -> None:
    assert ntp_of(0) == 2_208_988_800 << 32
    assert ntp_of(500_000_000) & 0xFFFF_FFFF == 1 << 31
    era_s = (1 << 32) - 2_208_988_800
    assert ntp_of(era_s * 10**9) == 0, "7 February 2036"


def test_parameters_get_their_old_values_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0\n")
    parameters = Parameters(str(tmp_path))
    parameters.set("a", 1)
    parameters.set("a", 2)
    parameters.set("missing", 1)
    assert (tmp_path / "a").read_text() == "2\n"
    parameters.restore()
    assert (tmp_path / "a").read_text() == "0\n"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder = 1: "):
        parameters.set("folder", 1)


def killed(root: Path, note: str) -> None:
    """An agent changes two parameters and is killed."""
    parameters = Parameters(str(root), note)
    assert parameters.recover() == []
    parameters.set("a", 1)
    parameters.set("b", 0)


def test_the_next_agent_puts_back_what_a_killed_one_has_left(tmp_path: Path) -> None:
    for name, value in (("a", "0"), ("b", "1")):
        (tmp_path / name).write_text(f"{value}\n")
    note = str(tmp_path / "note")
    killed(tmp_path, note)
    (tmp_path / "b").write_text("2\n")  # somebody else has changed it since
    following = Parameters(str(tmp_path), note)
    assert following.recover() == ["a"]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["0\n", "2\n"]
    assert not Path(note).exists()
    following.set("a", 1)
    following.restore()
    assert (tmp_path / "a").read_text() == "0\n"
    assert not Path(note).exists()


def test_a_note_of_another_namespace_or_without_sense_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("a", "0"), ("b", "1")):
        (tmp_path / name).write_text(f"{value}\n")
    note = str(tmp_path / "note")
    killed(tmp_path, note)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(parameters_module, "_namespace", lambda: "another")
        assert Parameters(str(tmp_path), note).recover() == []
    assert (tmp_path / "a").read_text() == "1\n"
    for text in ("", "[]", "{}", '{"parameters": 1}', '{"parameters": {"a": {}}}'):
        Path(note).write_text(text)
        assert Parameters(str(tmp_path), note).recover() == []
