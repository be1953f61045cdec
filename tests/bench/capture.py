"""A large real capture for the benchmark: `python -m tests.bench.capture OUT.pcapng [PACKETS]` (root or user namespaces).

One MPTCP connection of the kernel over two paths, captured on both interfaces of the client, then the same packets many
times over as other connections (`repeat`).
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.pcaps import applications as app
from tests.pcaps.lab import CAPTURE_FILTER, Lab, Recording, enter_capsule, mobile_address

SNAPLEN_BYTES = 128
RATE_MBIT, DELAY_MS, QUEUE_PACKETS = 200.0, 5.0, 120
BYTES_PER_PACKET = 1150
"""A data packet carries 1420 bytes, and about every third or fourth is acknowledged by itself."""


def transfer(out: Path, packets: int) -> None:
    """Capture a transfer of at least so many packets."""
    with Lab(4, rate_mbit=RATE_MBIT, delay_ms=DELAY_MS, queue_packets=QUEUE_PACKETS).running() as lab:
        for node in ("mn", "cn"):
            lab.command(node, "ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2")
        lab.command("mn", "ip", "mptcp", "endpoint", "add", mobile_address(4, "lte"), "dev", "mn-lte", "subflow")
        recording = Recording(lab, "mn", ["mn-wlan", "mn-lte"], out, SNAPLEN_BYTES, CAPTURE_FILTER)
        try:
            pair = app.connect(lab)
            app.exchange(pair, up=100)
            app.exchange(pair, down=100)
            app.wait_subflows(pair, 2)
            size = packets * BYTES_PER_PACKET
            app.exchange(pair, up=size // 12, down=size, timeout_s=600)
            app.close(pair)
            recording.stop()
            if recording.dropped:
                raise RuntimeError(f"dumpcap lost {recording.dropped} packets: is the machine busy? try again")
        finally:
            recording.kill()


def repeat(source: Path, out: Path, times: int) -> int:
    """Write the packets of a capture `times` over, each time later and from other clients; returns how many there are.

    Keys, tokens and sequence numbers stay: every copy is a connection of its own, with the same numbers. The capture is one
    that dumpcap wrote (little endian, enhanced packet blocks, ns), of IPv4.
    """
    data = np.fromfile(source, np.uint8)
    head, frames, end = _blocks(data)
    stamps = frames - 16
    high, low = _words(data, stamps), _words(data, stamps + 4)
    ticks = high.astype(np.uint64) << np.uint64(32) | low
    span = int(ticks.max() - ticks.min()) + 10**9
    # The client's address is 10.x.0.100: its third octet numbers the copies.
    source_is_client = data[frames + 29] == 100
    octet = np.where(source_is_client, frames + 28, frames + 32)
    with out.open("wb") as file:
        file.write(data[:head].tobytes())
        for number in range(times):
            moved = ticks + np.uint64(number * span)
            _put_words(data, stamps, (moved >> np.uint64(32)).astype("<u4"))
            _put_words(data, stamps + 4, (moved & np.uint64(0xFFFFFFFF)).astype("<u4"))
            data[octet] = number
            file.write(data[head:end].tobytes())
    return int(frames.size) * times


def _blocks(data: np.ndarray) -> tuple[int, np.ndarray, int]:
    """Where the packet blocks begin, where each frame does, where the packet blocks end."""
    view, at, frames, head, end = memoryview(data), 0, [], 0, 0
    while at < len(view):
        kind, size = struct.unpack_from("<II", view, at)
        if kind == 6:
            head = head or at
            frames.append(at + 28)
            end = at + size
        at += size
    return head, np.array(frames, np.int64), end


def _words(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data[at[:, None] + np.arange(4)]).view("<u4")[:, 0]


def _put_words(data: np.ndarray, at: np.ndarray, words: np.ndarray) -> None:
    data[at[:, None] + np.arange(4)] = words.view(np.uint8).reshape(-1, 4)


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        np.frombuffer(data, np.uint8)[::4096].sum()


def main() -> None:
    enter_capsule()
    out, packets = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        raw = Path(name) / "raw.pcapng"
        transfer(raw, packets)
        shutil.copyfile(raw, out)


if __name__ == "__main__":
    main()
