"""Packets of a run as a pcap file, for tshark."""

import struct
from pathlib import Path

LINKTYPE_RAW = 101


class Capture:
    """Packets with their times, in memory."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, bytes]] = []

    def add(self, now: float, packet: bytes) -> None:
        """One more."""
        self.packets.append((now, packet))

    def write(self, path: Path) -> None:
        """A pcap file with nanoseconds and raw IP packets."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, LINKTYPE_RAW))
            for now, packet in self.packets:
                nanoseconds = round(now * 1e9)
                seconds, rest = divmod(nanoseconds, 10**9)
                file.write(struct.pack("<IIII", seconds, rest, len(packet), len(packet)))
                file.write(packet)
