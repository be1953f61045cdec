"""Variants of a real capture, made when a test wants them: other file formats, link types, tags and tunnels.

Pure Python and independent of the reader under test: `load` takes a capture apart into records, `VARIANTS` rewrite the
records, the writers put them into a file again.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

KERNEL = Path(__file__).resolve().parent / "kernel"
ETHERNET, NULL, RAW_OPENBSD, RAW, LOOP, SLL, IPV4, IPV6, SLL2 = 1, 0, 12, 101, 108, 113, 228, 229, 276
ARP, ETH_IPV4, ETH_IPV6 = 0x0806, 0x0800, 0x86DD
TCP, UDP = 6, 17


@dataclass(frozen=True)
class Record:
    """One packet of a capture: time, interface number, frame as captured, length on the wire."""

    time_ns: int
    interface: int
    frame: bytes
    wire: int

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.frame[12:14], "big")


Records = list[Record]


# Reading ---------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Records:
    """Records of a pcapng file as dumpcap writes it: one section, little endian, enhanced packet blocks, Ethernet."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    resolutions: list[int] = []
    records, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + size - 4]
        if kind == 1:
            resolutions.append(_resolution(body[8:]))
        elif kind == 6:
            number, high, low, captured, wire = struct.unpack_from("<IIIII", body)
            ticks = high << 32 | low
            records.append(Record(ticks * 10**9 // resolutions[number], number, body[20 : 20 + captured], wire))
        at += size
    return records


def _resolution(options: bytes) -> int:
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from("<HH", options, at)
        if code == 9:
            return int(10 ** options[at + 4])
        at += 4 + (size + 3) // 4 * 4
    return 10**6


def captures(*families: int) -> list[Path]:
    """All stored kernel captures, of the given IP versions only."""
    wanted = [f"-v{family}." for family in families or (4, 6)]
    return [path for path in sorted(KERNEL.glob("*.pcapng.gz")) if any(mark in path.name for mark in wanted)]


def medley(family: int, each: int = 60) -> Records:
    """Some of everything in one list: the first and last packets of scenarios with different options."""
    names = ("bulk", "no-timestamps", "add-addr-port", "prio", "handover-remove", "fallback-checksum", "join-ack-hmac",
             "fastclose", "short-numbers", "checksums", "mixed")  # fmt: skip
    records: Records = []
    for name in names:
        part = load(KERNEL / f"{name}-v{family}.client.pcapng.gz")
        records += part if len(part) <= 2 * each else part[:each] + part[-each:]
    return records


# Writing ---------------------------------------------------------------------------------------------------------------


def pcap(records: Iterable[Record], link: int = ETHERNET, end: str = "<", nanoseconds: bool = False) -> bytes:
    """A classic pcap file; interfaces are forgotten."""
    magic, tick_ns = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    out = [struct.pack(end + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for r in records:
        seconds, rest = divmod(r.time_ns, 10**9)
        out.append(struct.pack(end + "IIII", seconds, rest // tick_ns, len(r.frame), r.wire) + r.frame)
    return b"".join(out)


def block(kind: int, body: bytes, end: str = "<") -> bytes:
    """One pcapng block; its body is padded."""
    body += bytes(-len(body) % 4)
    size = struct.pack(end + "I", len(body) + 12)
    return struct.pack(end + "I", kind) + size + body + size


def option(code: int, value: bytes, end: str = "<") -> bytes:
    """One option of a pcapng block."""
    return struct.pack(end + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng(
    records: Sequence[Record],
    link: int = ETHERNET,
    end: str = "<",
    resolution: int = 9,
    offset_s: int = 0,
    packet: int = 6,
    noise: bool = False,
    snaplen: int = 262144,
) -> bytes:
    """A pcapng file. `packet`: enhanced (6), obsolete (2) or simple (3) packet blocks; `noise`: blocks nobody needs between."""
    out = [block(0x0A0D0D0A, struct.pack(end + "IHHq", 0x1A2B3C4D, 1, 0, -1), end)]
    for number in range(max((r.interface for r in records), default=0) + 1):
        options = option(2, f"if{number}".encode(), end) + option(9, bytes([resolution]), end)
        if offset_s:
            options += option(14, struct.pack(end + "q", offset_s), end)
        out.append(block(1, struct.pack(end + "HHI", link, 0, snaplen) + options + option(0, b"", end), end))
    rate = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    for index, r in enumerate(records):
        if noise and index % 7 == 0:
            out.append(block(4, struct.pack(end + "HH", 0, 0), end))  # name resolution
            out.append(block(0x80000F00, b"a local block, whatever it holds", end))
        ticks = (r.time_ns - offset_s * 10**9) * rate // 10**9 % 2**64
        stamps = struct.pack(end + "IIII", ticks >> 32, ticks & 0xFFFFFFFF, len(r.frame), r.wire)
        padded = r.frame + bytes(-len(r.frame) % 4)
        if packet == 6:
            comment = option(1, b"a comment", end) + option(0, b"", end) if noise else b""
            out.append(block(6, struct.pack(end + "I", r.interface) + stamps + padded + comment, end))
        elif packet == 2:
            out.append(block(2, struct.pack(end + "HH", r.interface, 0xFFFF) + stamps + padded, end))
        else:
            out.append(block(3, struct.pack(end + "I", r.wire) + padded, end))
    return b"".join(out)


# Rewriting frames ------------------------------------------------------------------------------------------------------


def _relinked(records: Records, header: Callable[[Record], bytes], ip_only: bool = True) -> Records:
    """Replace the Ethernet header."""
    out = []
    for r in records:
        if ip_only and r.ethertype not in (ETH_IPV4, ETH_IPV6):
            continue
        head = header(r)
        out.append(replace(r, frame=head + r.frame[14:], wire=r.wire - 14 + len(head)))
    return out


def tagged(records: Records, *tags: tuple[int, int]) -> Records:
    """Insert VLAN tags: (EtherType of the tag, VLAN number), outermost first."""
    inserted = b"".join(struct.pack("!HH", kind, number) for kind, number in tags)
    return [replace(r, frame=r.frame[:12] + inserted + r.frame[12:], wire=r.wire + len(inserted)) for r in records]


def sll(records: Records) -> Records:
    """Linux cooked mode, version 1."""
    return _relinked(records, lambda r: struct.pack("!HHH8sH", r.interface, 1, 6, r.frame[6:12], r.ethertype), ip_only=False)


def sll2(records: Records) -> Records:
    """Linux cooked mode, version 2."""
    return _relinked(
        records, lambda r: struct.pack("!HHIHBB8s", r.ethertype, 0, r.interface + 1, 1, 0, 6, r.frame[6:12]), ip_only=False
    )


def loopback(records: Records, end: str, family6: int) -> Records:
    """The BSDs' loopback header: an address family; IPv6 has another number on each of them."""
    return _relinked(records, lambda r: struct.pack(end + "I", 2 if r.ethertype == ETH_IPV4 else family6))


def raw(records: Records) -> Records:
    """No link layer."""
    return _relinked(records, lambda r: b"")


def only(records: Records, ethertype: int) -> Records:
    """Packets of one kind."""
    return [r for r in records if r.ethertype == ethertype]


def _ip(r: Record) -> bytes:
    return r.frame[14:]


def _wire_ip(r: Record) -> int:
    """Length of the IP packet by its header."""
    packet = _ip(r)
    return int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")


def checksum(data: bytes) -> int:
    """RFC 1071, inverted."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF


def ipv4_header(protocol: int, body: int, src: bytes = bytes((192, 0, 2, 1)), dst: bytes = bytes((198, 51, 100, 2)),
                options: bytes = b"") -> bytes:  # fmt: skip
    """An IPv4 header before `body` bytes."""
    first, size = 0x45 + len(options) // 4, 20 + len(options)
    head = struct.pack("!BBHHHBBH4s4s", first, 0, size + body, 7, 0x4000, 64, protocol, 0, src, dst) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def ipv6_header(protocol: int, body: int) -> bytes:
    """An IPv6 header before `body` bytes, from 2001:db8:ffff::1 to 2001:db8:ffff::2."""
    prefix = bytes.fromhex("20010db8ffff") + bytes(9)
    return struct.pack("!IHBB", 6 << 28, body, protocol, 64) + prefix + b"\1" + prefix + b"\2"


def tunnelled(records: Records, outer: int, shim: Callable[[int, int], bytes] = lambda inner, size: b"",
              protocol: int = 0) -> Records:  # fmt: skip
    """Put every IP packet into one of IP version `outer`; `shim` is what stands between, for an inner version and length.

    `protocol`: that of the outer packet; 0 means IP-in-IP by the inner version.
    """
    out = []
    for r in records:
        if r.ethertype not in (ETH_IPV4, ETH_IPV6):
            continue
        inner = 4 if r.ethertype == ETH_IPV4 else 6
        between = shim(inner, _wire_ip(r))
        number = protocol or (4 if inner == 4 else 41)
        size = len(between) + _wire_ip(r)
        head = ipv4_header(number, size) if outer == 4 else ipv6_header(number, size)
        kind = struct.pack("!H", ETH_IPV4 if outer == 4 else ETH_IPV6)
        frame = r.frame[:12] + kind + head + between + _ip(r)
        out.append(replace(r, frame=frame, wire=r.wire + len(head) + len(between)))
    return out


def gre(records: Records, flags: int = 0) -> Records:
    """GRE (RFC 2784, 2890); `flags` with checksum (0x8000), key (0x2000), sequence number (0x1000)."""
    fields = b"".join(struct.pack("!I", 0x01020304) for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    return tunnelled(
        records, 4, lambda inner, _: struct.pack("!HH", flags, ETH_IPV4 if inner == 4 else ETH_IPV6) + fields, protocol=47
    )


def udp_tunnel(records: Records) -> Records:
    """RFC 3519 section 3.1: UDP port 434, message type 4, next header 4. For IPv4."""
    return tunnelled(
        records, 4, lambda _, size: struct.pack("!HHHH", 434, 434, size + 12, 0) + struct.pack("!BBH", 4, 4, 0), protocol=17
    )


def minimal(records: Records, with_source: bool = True) -> Records:
    """RFC 2004 minimal encapsulation of whole (unfragmented) IPv4 packets."""
    out = []
    for r in records:
        packet = _ip(r)
        if r.ethertype != ETH_IPV4 or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            continue
        head = (packet[0] & 15) * 4
        shim = struct.pack("!BBH4s", packet[9], 0x80 if with_source else 0, 0, packet[16:20])
        shim += packet[12:16] if with_source else b""
        shim = shim[:2] + struct.pack("!H", checksum(shim)) + shim[4:]
        source = bytes((192, 0, 2, 1)) if with_source else packet[12:16]
        outer = ipv4_header(55, _wire_ip(r) - head + len(shim), source)
        frame = r.frame[:14] + outer + shim + packet[head:]
        out.append(replace(r, frame=frame, wire=r.wire + len(outer) + len(shim) - head))
    return out


def ip_options(records: Records) -> Records:
    """Options in every IPv4 header (router alert), extension headers in every IPv6 packet (hop-by-hop, destination)."""
    out = []
    for r in records:
        packet = _ip(r)
        if r.ethertype == ETH_IPV4 and packet[0] == 0x45:
            alert = bytes.fromhex("94040000")
            head = bytearray(packet[:20] + alert)
            head[0] = 0x46
            head[2:4] = struct.pack("!H", _wire_ip(r) + 4)
            head[10:12] = bytes(2)
            head[10:12] = struct.pack("!H", checksum(bytes(head)))
            out.append(replace(r, frame=r.frame[:14] + bytes(head) + packet[20:], wire=r.wire + 4))
        elif r.ethertype == ETH_IPV6 and packet[6] in (TCP, UDP):
            following = bytes((60, 0, 5, 2, 0, 0, 1, 0)) + bytes((packet[6], 1, 1, 12)) + bytes(12)
            head = packet[:4] + struct.pack("!HB", _wire_ip(r) - 40 + len(following), 0) + packet[7:40]
            out.append(replace(r, frame=r.frame[:14] + head + following + packet[40:], wire=r.wire + len(following)))
    return out


def cut(records: Records, snaplen: int) -> Records:
    """Frames cut to a shorter snap length."""
    return [replace(r, frame=r.frame[:snaplen]) for r in records]


def trailed(records: Records) -> Records:
    """Four more bytes behind the packet, like a check sequence or the padding of short Ethernet frames."""
    return [
        replace(r, frame=r.frame + b"\xde\xad\xbe\xef", wire=r.wire + 4)
        if len(r.frame) == r.wire
        else replace(r, wire=r.wire + 4)
        for r in records
    ]


@dataclass(frozen=True)
class Variant:
    """How a list of records becomes a file; for which IP versions."""

    name: str
    make: Callable[[Records], bytes]
    families: tuple[int, ...] = (4, 6)


VARIANTS = (
    Variant("pcap-us-little", lambda r: pcap(r, end="<")),
    Variant("pcap-us-big", lambda r: pcap(r, end=">")),
    Variant("pcap-ns-little", lambda r: pcap(r, end="<", nanoseconds=True)),
    Variant("pcap-ns-big", lambda r: pcap(r, end=">", nanoseconds=True)),
    Variant("pcapng-big", lambda r: pcapng(r, end=">")),
    Variant("pcapng-us", lambda r: pcapng(r, resolution=6)),
    Variant("pcapng-binary-time", lambda r: pcapng(r, resolution=128 + 20)),
    Variant("pcapng-offset", lambda r: pcapng(r, offset_s=1_000_000_000)),
    Variant("pcapng-noise", lambda r: pcapng(r, noise=True)),
    Variant("pcapng-obsolete", lambda r: pcapng(r, packet=2)),
    Variant("pcapng-obsolete-big", lambda r: pcapng(r, packet=2, end=">")),
    Variant("pcapng-simple", lambda r: pcapng(cut(r, 128), packet=3, snaplen=128)),
    Variant("pcapng-sections", lambda r: pcapng(r[:200]) + pcapng(r[200:], end=">", resolution=6)),
    Variant("sll", lambda r: pcapng(sll(r), SLL)),
    Variant("sll2", lambda r: pcapng(sll2(r), SLL2)),
    Variant("raw", lambda r: pcapng(raw(r), RAW)),
    Variant("raw-openbsd", lambda r: pcap(raw(r), RAW_OPENBSD)),
    Variant("ipv4", lambda r: pcapng(raw(only(r, ETH_IPV4)), IPV4), (4,)),
    Variant("ipv6", lambda r: pcapng(raw(only(r, ETH_IPV6)), IPV6), (6,)),
    Variant("null-little", lambda r: pcap(loopback(r, "<", 30), NULL)),
    Variant("null-big", lambda r: pcap(loopback(r, ">", 24), NULL, end=">")),
    Variant("loop", lambda r: pcap(loopback(r, ">", 28), LOOP)),
    Variant("vlan", lambda r: pcapng(tagged(r, (0x8100, 5)))),
    Variant("qinq", lambda r: pcapng(tagged(r, (0x88A8, 100), (0x8100, 5)))),
    Variant("qinq-9100", lambda r: pcapng(tagged(r, (0x9100, 100), (0x8100, 5)))),
    Variant("ip-options", lambda r: pcapng(ip_options(r))),
    Variant("trailed", lambda r: pcapng(trailed(r))),
    Variant("in-ipv4", lambda r: pcapng(tunnelled(r, 4))),  # IP-in-IP and 6in4
    Variant("in-ipv6", lambda r: pcapng(tunnelled(r, 6))),  # 4in6 and 6in6
    Variant("twice-in-ipv4", lambda r: pcapng(tunnelled(tunnelled(r, 6), 4))),
    Variant("gre", lambda r: pcapng(gre(r))),
    Variant("gre-key-sequence", lambda r: pcapng(gre(r, 0x3000))),
    Variant("gre-checksum", lambda r: pcapng(gre(r, 0x8000))),
    Variant("udp-tunnel", lambda r: pcapng(udp_tunnel(only(r, ETH_IPV4))), (4,)),
    Variant("minimal", lambda r: pcapng(minimal(r)), (4,)),
    Variant("minimal-short", lambda r: pcapng(minimal(r, with_source=False)), (4,)),
    Variant("cut-96", lambda r: pcapng(cut(r, 96))),
    Variant("cut-66", lambda r: pcapng(cut(r, 66))),
)
