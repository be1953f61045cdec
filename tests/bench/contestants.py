"""Programs that the benchmark times, each in a process of its own: `python -m tests.bench.contestants NAME FILE`.

All of them take the same fields out of every packet: time, addresses, ports, sequence and acknowledgment number, flags, window,
payload length, timestamps, SACK blocks and the MPTCP fields. Prints one JSON object: packets, seconds spent inside (without
starting Python and importing), size of the result where it has one.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Numbers = dict[str, float]
Row = tuple[Any, ...]


def _mptcp(option: bytes) -> Row:
    """Fields of an MPTCP option given without kind and length: subtype and what a DSS or the rarer ones hold."""
    subtype = option[0] >> 4
    if subtype != 2:
        return subtype, option
    flags, at, dack, dsn, ssn, size = option[1], 2, 0, 0, 0, 0
    if flags & 1:
        width = 8 if flags & 2 else 4
        dack, at = int.from_bytes(option[at : at + width], "big"), at + width
    if flags & 4:
        width = 8 if flags & 8 else 4
        dsn = int.from_bytes(option[at : at + width], "big")
        ssn, size = struct.unpack_from("!IH", option, at + width)
    return subtype, flags, dack, dsn, ssn, size


def _options(pairs: Iterator[tuple[int, bytes]]) -> Row:
    stamps, sacks, mptcp = (0, 0), (), []
    for kind, body in pairs:
        if kind == 8 and len(body) == 8:
            stamps = struct.unpack("!II", body)
        elif kind == 5:
            sacks = struct.unpack(f"!{len(body) // 4}I", body[: len(body) // 4 * 4])
        elif kind == 30 and len(body) > 1:
            mptcp.append(_mptcp(body))
    return stamps, sacks, tuple(mptcp)


def dpkt(path: Path) -> Numbers:
    """dpkt 1.9: its objects for Ethernet, IP and TCP, its parser of options."""
    import dpkt as library

    begun = time.perf_counter()
    rows: list[Row] = []
    with path.open("rb") as file:
        for stamp, frame in library.pcapng.Reader(file):
            ip = library.ethernet.Ethernet(frame).data
            tcp = getattr(ip, "data", None)
            if not isinstance(tcp, library.tcp.TCP):
                continue
            size = ip.len - ip.hl * 4 - tcp.off * 4
            found = _options((kind, body) for kind, body in library.tcp.parse_opts(tcp.opts))
            rows.append((stamp, ip.src, ip.dst, tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.win, size, *found))
    return {"packets": len(rows), "inside_s": time.perf_counter() - begun}


def scapy(path: Path) -> Numbers:
    """scapy's PcapReader; it leaves the MPTCP option as bytes."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether  # noqa: F401  (makes scapy know the link layer)
    from scapy.utils import PcapReader

    begun = time.perf_counter()
    rows: list[Row] = []
    with PcapReader(str(path)) as reader:
        for packet in reader:
            if TCP not in packet:
                continue
            ip, tcp = packet[IP], packet[TCP]
            stamps, sacks, mptcp = (0, 0), (), []
            for name, value in tcp.options:
                if name == "Timestamp":
                    stamps = value
                elif name == "SAck":
                    sacks = value
                elif name == 30:
                    mptcp.append(_mptcp(value))
            size = ip.len - ip.ihl * 4 - tcp.dataofs * 4
            rows.append((packet.time, ip.src, ip.dst, tcp.sport, tcp.dport, tcp.seq, tcp.ack, int(tcp.flags), tcp.window, size,
                         stamps, sacks, tuple(mptcp)))  # fmt: skip
    return {"packets": len(rows), "inside_s": time.perf_counter() - begun}


def parse(path: Path) -> Numbers:
    """Our reader: the whole file as one table."""
    from analysis.packets import read_capture

    begun = time.perf_counter()
    table = read_capture(path).table
    return {"packets": len(table), "inside_s": time.perf_counter() - begun, "table_bytes": table.nbytes}


def parse_again(path: Path) -> Numbers:
    """As `parse`, the second time in a process: numba, its kernels and the page tables are there."""
    parse(path)
    return parse(path)


def reconstruction(path: Path) -> Numbers:
    """Our reader and the full reconstruction: flows, connections, segments, acknowledgments, signals, findings."""
    from analysis.connections import reconstruct
    from analysis.packets import read_capture

    begun = time.perf_counter()
    table = read_capture(path, by_time=True).table
    found = reconstruct(table)
    spent = time.perf_counter() - begun
    return {"packets": len(table), "inside_s": spent, "table_bytes": table.nbytes, "connections": len(found.connections)}


PROGRAMS: dict[str, Callable[[Path], Numbers]] = {
    "dpkt": dpkt, "scapy": scapy, "parse": parse, "parse-again": parse_again, "reconstruction": reconstruction,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]](Path(sys.argv[2]))))
