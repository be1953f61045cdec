"""What tshark reads in a capture: every value of every field we compare, as numbers or text. Used by tests."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

TEXT = ("frame.interface_name", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
NUMBERS = (
    "frame.number", "frame.len", "frame.cap_len", "ip.proto", "ip.ttl", "ipv6.hlim",
    "tcp.stream", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value", "tcp.len",
    "udp.srcport", "udp.dstport", "udp.length", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code",
    "tcp.options.mss_val", "tcp.options.wscale.shift", "tcp.options.sack_le", "tcp.options.sack_re",
    "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr",
)  # fmt: skip
_OPTION = (
    "subtype", "version", "checksumreq.flags", "sha256.flag", "sendkey", "recvkey", "recvtok", "sendrand", "sendtrunchmac",
    "backup.flag", "addrid", "rawdataack", "rawdataseqno", "subflowseqno", "datalvllen", "checksum",
    "datafin.flag", "dseqn8.flag", "dseqnpresent.flag", "dataack8.flag", "dataackpresent.flag", "echo", "port",
    "addaddrtrunchmac", "rst_reason", "flag_T.flag",
)  # fmt: skip
MPTCP = (*(f"tcp.options.mptcp.{name}" for name in _OPTION), "mptcp.expected_token", "mptcp.stream", "mptcp.rm_addr.count")
MPTCP_TEXT = ("tcp.options.mptcp.sendhmac", "tcp.options.mptcp.ipv4", "tcp.options.mptcp.ipv6")
FIELDS = ("frame.time_epoch", *TEXT, *MPTCP_TEXT, *NUMBERS, *MPTCP)
QUIET = (
    "tcp.analyze_sequence_numbers:FALSE", "tcp.try_heuristic_first:FALSE", "tcp.desegment_tcp_streams:FALSE",
    "tcp.relative_sequence_numbers:FALSE", "mptcp.relative_sequence_numbers:FALSE", "mptcp.analyze_mappings:FALSE",
    "ip.defragment:FALSE", "ipv6.defragment:FALSE",
)  # fmt: skip

Packet = dict[str, list[int] | list[str]]


def _words(path: Path) -> list[str]:
    words = ["tshark", "-r", str(path), "-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-E", "separator=/t"]
    for preference in QUIET:
        words += ["-o", preference]
    for port in (5001, 5002, 5003, 5010):  # no guessing what the payload may be
        words += ["-d", f"tcp.port=={port},data"]
    return words + [word for field in FIELDS for word in ("-e", field)]


def _time_ns(text: str) -> int:
    seconds, _, rest = text.partition(".")
    sign = -1 if seconds.startswith("-") else 1
    return int(seconds or 0) * 10**9 + sign * int(rest[:9].ljust(9, "0"))


def packets(path: Path) -> list[Packet]:
    """All packets of a capture. `frame.time_epoch` is in ns. Raises RuntimeError with what tshark says when it fails."""
    done = subprocess.run(_words(path), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"tshark {path}: {done.stderr.strip()}")
    found = []
    for line in done.stdout.splitlines():
        packet: Packet = {}
        for field, cell in zip(FIELDS, line.split("\t"), strict=True):
            values = cell.split(",") if cell else []
            if field == "frame.time_epoch":
                packet[field] = [_time_ns(cell)]
            elif field in TEXT or field in MPTCP_TEXT:
                packet[field] = values
            else:
                packet[field] = [int(value, 0) for value in values]
        found.append(packet)
    return found


def innermost(packet: Packet) -> tuple[int, str, str, str, str]:
    """IP version and addresses of the innermost packet, addresses of the outermost. What ICMP quotes does not count."""
    chain: list[str] = []
    for name in str(packet["frame.protocols"][0]).split(":"):
        if name in ("icmp", "icmpv6"):
            break
        if name in ("ip", "ipv6"):
            chain.append(name)
    if not chain:
        return 0, "", "", "", ""
    seen = {"ip": 0, "ipv6": 0}
    pairs = []
    for name in chain:
        pairs.append((str(packet[f"{name}.src"][seen[name]]), str(packet[f"{name}.dst"][seen[name]])))
        seen[name] += 1
    return (4 if chain[-1] == "ip" else 6, *pairs[-1], *pairs[0])


def address(text: str) -> str:
    """An address as Python writes it."""
    return str(ipaddress.ip_address(text)) if text else ""
