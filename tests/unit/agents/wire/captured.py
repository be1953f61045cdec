"""TCP packets of the kernel's captures (Linux, MPTCP), as far as they were recorded."""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "pcaps" / "kernel"


def captures() -> list[Path]:
    """All of them."""
    return sorted(FOLDER.glob("*.pcapng.gz"))


def ip_packets(path: Path) -> Iterator[tuple[bytes, int]]:
    """IP packets as captured, and their real lengths: enhanced packet blocks of a little-endian file, Ethernet."""
    data = gzip.decompress(path.read_bytes())
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind == 6:
            captured, whole = struct.unpack_from("<II", data, at + 20)
            frame = data[at + 28 : at + 28 + captured]
            if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                yield frame[14:], whole - 14
        at += length


def is_tcp(packet: bytes) -> bool:
    """IPv4 or IPv6 without extension headers."""
    return packet[9] == 6 if packet[0] >> 4 == 4 else packet[6] == 6
