"""Captures of Mobile IP made with scapy: bytes of messages, packets at times, files, tables."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    HAO,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from analysis.packets import PacketTable, merge, read_captures

RAW_LINK = 101
START_S = 1_700_000_000
MN, FA, HA, CN = "10.9.0.5", "10.1.0.1", "10.9.0.1", "10.5.0.2"
COA1, COA2 = "10.1.0.77", "10.2.0.77"
MN6, HA6, CN6 = "2001:db8:9::5", "2001:db8:9::1", "2001:db8:5::2"
COA6, COB6 = "2001:db8:1::77", "2001:db8:2::77"


def octets(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def extension(kind: int, body: bytes) -> bytes:
    """Short format (RFC 5944 section 1.11)."""
    return bytes([kind, len(body)]) + body


def long_extension(kind: int, subtype: int, body: bytes) -> bytes:
    """Long format (RFC 5944 section 1.10)."""
    return struct.pack("!BBH", kind, subtype, len(body)) + body


def authenticator(kind: int = 32, spi: int = 256) -> bytes:
    return extension(kind, struct.pack("!I", spi) + bytes(range(16)))


def multipath(bid: int, flags: int = 0, label: int = 1, technology: int = 4) -> bytes:
    return long_extension(154, 1, bytes([technology, label, bid, flags]))


def rrq(
    care_of: str = COA1, ident: int = 1 << 40 | 7, lifetime_s: int = 60, flags: int = 0x22, more: bytes = b"", home: str = MN,
    agent: str = HA,
) -> bytes:  # fmt: skip
    fixed = struct.pack("!BBH4s4s4sQ", 1, flags, lifetime_s, octets(home), octets(agent), octets(care_of), ident)
    return fixed + more + authenticator()


def rrp(code: int = 0, ident: int = 1 << 40 | 7, lifetime_s: int = 60, more: bytes = b"", home: str = MN) -> bytes:
    return struct.pack("!BBH4s4sQ", 3, code, lifetime_s, octets(home), octets(HA), ident) + more + authenticator()


def udp(src: str, dst: str, data: bytes, sport: int = 434, dport: int = 434) -> Packet:
    return IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(data)


def in_tunnel(src: str, dst: str, inner: Packet) -> Packet:
    return IP(src=src, dst=dst, proto=4) / inner


def in_udp(src: str, dst: str, inner: Packet) -> Packet:
    """UDP tunnel (RFC 3519 section 3.3)."""
    return udp(src, dst, b"\x04\x04\x00\x00" + bytes(inner))


def from_mobile(message: Packet, care_of: str = COA6, home: str = MN6, dst: str = HA6) -> Packet:
    """With a home address option (RFC 6275 section 6.3)."""
    return IPv6(src=care_of, dst=dst) / IPv6ExtHdrDestOpt(options=[HAO(hoa=home)]) / message


def to_mobile(message: Packet, care_of: str = COA6, home: str = MN6, src: str = HA6) -> Packet:
    """With a type 2 routing header (RFC 6275 section 6.4)."""
    return IPv6(src=src, dst=care_of) / IPv6ExtHdrRouting(type=2, addresses=[home], segleft=1) / message


def write(path: Path, packets: list[tuple[float, Packet]]) -> Path:
    """A capture of raw IP packets at times in s, with a resolution of ns."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, RAW_LINK)]
    for at_s, packet in packets:
        data, (second, ns) = bytes(packet), divmod(at_ns(at_s), 10**9)
        out += [struct.pack("<IIII", second, ns, len(data), len(data)), data]
    path.write_bytes(b"".join(out))
    return path


def table_of(folder: Path, *points: list[tuple[float, Packet]]) -> PacketTable:
    """Each argument is what one capture point saw."""
    return merge(read_captures([write(folder / f"{number}.pcap", packets) for number, packets in enumerate(points)]))


def at_ns(at_s: float) -> int:
    return START_S * 10**9 + round(at_s * 1e9)


def tshark(path: Path) -> list[dict[str, list[tuple[str, str]]]]:
    """What tshark decodes: per packet {field: [(as shown, bytes in hex), ...]}, nested fields included."""
    command = ["tshark", "-r", str(path), "-T", "pdml"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    out = []
    for packet in ElementTree.fromstring(done.stdout).iter("packet"):
        fields: dict[str, list[tuple[str, str]]] = {}
        for field in packet.iter("field"):
            fields.setdefault(field.get("name", ""), []).append((field.get("show", ""), field.get("value", "")))
        out.append(fields)
    return out


def shown(fields: dict[str, list[tuple[str, str]]], name: str) -> list[str]:
    """All values of a field as tshark shows them."""
    return [show for show, _ in fields.get(name, [])]


def number(fields: dict[str, list[tuple[str, str]]], name: str) -> int:
    """First value of a field as a number, out of its bytes; -1 without one."""
    return int(fields[name][0][1], 16) if name in fields else -1


def tshark_values(field: str) -> dict[int, str]:
    """The numbers of a field that tshark has names for."""
    done = subprocess.run(["tshark", "-G", "values"], capture_output=True, text=True, check=True, timeout=120)
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {int(line[2], 0): line[3] for line in lines if line[:2] == ["V", field]}
