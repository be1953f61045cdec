"""Hand-made packets of TCP and MPTCP connections, written to a capture file and read by the real reader."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from analysis.packets.reader import read_capture
from analysis.packets.table import PacketTable

START_NS = 1_700_000_000_000_000_000
CLIENT_KEY, SERVER_KEY = 0x1111222233334444, 0xAAAABBBBCCCCDDDD
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


# --- options -------------------------------------------------------------------------------------------------------


def digest(key: int, version: int = 1) -> bytes:
    return hashlib.new("sha1" if version == 0 else "sha256", key.to_bytes(8, "big")).digest()


def token(key: int, version: int = 1) -> int:
    return int.from_bytes(digest(key, version)[:4], "big")


def first_dsn(key: int, version: int = 1) -> int:
    return (int.from_bytes(digest(key, version)[-8:], "big") + 1) % 2**64


def capable(*keys: int, length: int | None = None, version: int = 1, flags: int = 1, checksum: int | None = None) -> bytes:
    body = b"".join(struct.pack(">Q", key) for key in keys)
    body += b"" if length is None else struct.pack(">H", length)
    body += b"" if checksum is None else struct.pack(">H", checksum)
    return struct.pack(">BBBB", 30, 4 + len(body), version, flags) + body


def join_hmac(own: int, peer: int, own_nonce: int, peer_nonce: int, version: int = 1) -> bytes:
    keys, nonces = struct.pack(">QQ", own, peer), struct.pack(">II", own_nonce, peer_nonce)
    return hmac.new(keys, nonces, "sha1" if version == 0 else "sha256").digest()


def join_syn(join_token: int, nonce: int = 7, address_id: int = 1, backup: int = 0) -> bytes:
    return struct.pack(">BBBBII", 30, 12, 0x10 | backup, address_id, join_token, nonce)


def join_answer(mac: bytes, nonce: int = 9, address_id: int = 0, backup: int = 0) -> bytes:
    return struct.pack(">BBBB", 30, 16, 0x10 | backup, address_id) + mac[:8] + struct.pack(">I", nonce)


def join_ack(mac: bytes) -> bytes:
    return struct.pack(">BBH", 30, 24, 0x1000) + mac[:20]


def dss(dack: int | None = None, dsn: int | None = None, ssn: int = 1, length: int = 0, fin: bool = False) -> bytes:
    flags, body = (16 if fin else 0), b""
    if dack is not None:
        flags, body = flags | 3, struct.pack(">Q", dack % 2**64)
    if dsn is not None:
        flags, body = flags | 12, body + struct.pack(">QIH", dsn % 2**64, ssn, length)
    return struct.pack(">BBH", 30, 4 + len(body), 0x2000 | flags) + body


def add_addr(keys: tuple[int, int] | None, address_id: int, address: str, port: int = 0, echo: bool = False) -> bytes:
    """ADD_ADDR of version 1; `keys`: own and peer's for the HMAC, None for an echo."""
    packed = ipaddress.ip_address(address).packed
    body = bytes([address_id]) + packed + (struct.pack(">H", port) if port else b"")
    if keys:
        mac = hmac.new(struct.pack(">QQ", *keys), bytes([address_id]) + packed + struct.pack(">H", port), "sha256").digest()
        body += mac[-8:]
    return struct.pack(">BBB", 30, 3 + len(body), 0x30 | echo) + body


def remove_addr(*ids: int) -> bytes:
    return struct.pack(">BBB", 30, 3 + len(ids), 0x40) + bytes(ids)


def prio(backup: bool) -> bytes:
    return struct.pack(">BBB", 30, 3, 0x50 | backup)


def mp_fail(dsn: int) -> bytes:
    return struct.pack(">BBHQ", 30, 12, 0x6000, dsn)


def fastclose(key: int) -> bytes:
    return struct.pack(">BBHQ", 30, 12, 0x7000, key)


def tcprst(reason: int, transient: bool = False) -> bytes:
    return struct.pack(">BBBB", 30, 4, 0x80 | transient, reason)


def mss(size: int) -> bytes:
    return struct.pack(">BBH", 2, 4, size)


def wscale(shift: int) -> bytes:
    return struct.pack(">BBBB", 3, 3, shift, 1)


def timestamps(value: int, echo: int = 0) -> bytes:
    return struct.pack(">BBII", 8, 10, value % 2**32, echo % 2**32)


SACK_PERMITTED = b"\x04\x02"


# --- packets -------------------------------------------------------------------------------------------------------


@dataclass
class Line:
    """One TCP flow of a scene. Sequence numbers are relative: the SYN is 0, a side's first data byte is 1."""

    scene: Scene
    client: tuple[str, int]
    server: tuple[str, int]
    isn: tuple[int, int] = (1000, 900_000)
    point: int = 0

    def send(
        self,
        ms: float,
        up: bool,
        flags: str = "A",
        at: int = 1,
        acked: int = 1,
        size: int = 0,
        options: bytes = b"",
        window: int = 1000,
        ttl: int = 64,
        data: bytes | None = None,
        point: int | None = None,
    ) -> None:
        source, target = (self.client, self.server) if up else (self.server, self.client)
        own, peer = self.isn if up else self.isn[::-1]
        ack = peer + acked if "A" in flags else 0
        options += b"\x01" * (-len(options) % 4)
        bits = sum(FLAGS[flag] for flag in flags)
        ports = source[1], target[1], (own + at) % 2**32, ack % 2**32
        segment = struct.pack(">HHIIBBHHH", *ports, (20 + len(options)) // 4 << 4, bits, window, 0, 0) + options
        segment += bytes(size) if data is None else data
        self.scene.add(ms, ip(source[0], target[0], segment, ttl), self.point if point is None else point)

    def handshake(self, ms: float, *options: bytes, rtt_ms: float = 10) -> None:
        """SYN, SYN/ACK and ACK with these options."""
        steps = ((True, "S", 0, 0), (False, "SA", 0, 1), (True, "A", 1, 1))
        for number, (up, flags, at, acked) in enumerate(steps):
            extra = options[number] if number < len(options) else b""
            self.send(ms + number * rtt_ms / 2, up, flags, at, acked, options=extra)

    def join(self, ms: float, nonces=(7, 9), address_id: int = 1, backup: int = 0, wrong: str = "", by_client=True) -> None:
        """The three steps of MP_JOIN; `wrong` names the step ("SYN/ACK", "ACK") whose HMAC is false."""
        version = self.scene.version
        own, peer = (CLIENT_KEY, SERVER_KEY) if by_client else (SERVER_KEY, CLIENT_KEY)
        answer = join_hmac(peer, own, nonces[1], nonces[0], version) if wrong != "SYN/ACK" else bytes(20)
        third = join_hmac(own, peer, *nonces, version) if wrong != "ACK" else bytes(20)
        syn = join_syn(token(peer, version), nonces[0], address_id, backup)
        self.handshake(ms, syn, join_answer(answer, nonces[1], 0, backup), join_ack(third))

    def data(self, ms: float, up: bool, offset: int, size: int = 1000, ssn: int | None = None, **more) -> None:
        """A mapped segment: `offset` counts the connection's data of that direction from 0; `ssn` its place on this flow."""
        key = CLIENT_KEY if up else SERVER_KEY
        ssn = offset + 1 if ssn is None else ssn
        mapping = dss(
            first_dsn(SERVER_KEY if up else CLIENT_KEY, self.scene.version), first_dsn(key, self.scene.version) + offset
        )
        mapping = mapping[:-6] + struct.pack(">IH", ssn, size)
        self.send(ms, up, "PA", ssn, size=size, options=mapping, **more)

    def dack(self, ms: float, up: bool, offset: int, acked: int | None = None, **more) -> None:
        """An acknowledgment of `offset` data bytes of direction `up`, sent the other way; `acked`: on this flow, as SSN."""
        key = CLIENT_KEY if up else SERVER_KEY
        number = first_dsn(key, self.scene.version) + offset
        self.send(ms, not up, "A", 1, offset + 1 if acked is None else acked, options=dss(number), **more)


@dataclass
class Scene:
    """Packets of one or several capture points, in order of the calls."""

    version: int = 1
    points: int = 1
    packets: list[tuple[float, int, bytes]] = field(default_factory=list)

    def add(self, ms: float, packet: bytes, point: int = 0) -> None:
        self.packets.append((ms, point, packet))

    def line(self, client="10.0.1.1:1000", server="10.0.9.9:80", isn=(1000, 900_000), point: int = 0) -> Line:
        ends = [(text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1])) for text in (client, server)]
        return Line(self, ends[0], ends[1], isn, point)

    def initial(self, ms: float = 0, **places) -> Line:
        """A first subflow with a complete handshake of this version."""
        line = self.line(**places)
        both = capable(CLIENT_KEY, SERVER_KEY, version=self.version)
        first = capable(CLIENT_KEY, version=0) if self.version == 0 else capable()
        line.handshake(ms, first, capable(SERVER_KEY, version=self.version), both)
        return line

    def table(self) -> PacketTable:
        """The packets as the reader sees them."""
        blocks = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
        resolution = struct.pack("<HHBxxxHH", 9, 1, 9, 0, 0)
        blocks += [block(1, struct.pack("<HHI", 101, 0, 0) + resolution)] * self.points
        for ms, point, packet in self.packets:
            time_ns = START_NS + round(ms * 1e6)
            head = struct.pack("<IIIII", point, time_ns >> 32, time_ns & 0xFFFFFFFF, len(packet), len(packet))
            blocks.append(block(6, head + packet))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.pcapng"
            path.write_bytes(b"".join(blocks))
            return read_capture(path).table.sorted_by_time()


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def ip(source: str, target: str, segment: bytes, ttl: int = 64) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if len(ends) == 32:
        return struct.pack(">IHBB", 6 << 28, len(segment), 6, ttl) + ends + segment
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, ttl, 6, 0) + ends + segment
