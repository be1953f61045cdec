"""State of the namespace's MPTCP sockets, which belong to other programs: sock_diag.

TCP sockets carry TCP_INFO and what MPTCP says of a subflow; MPTCP sockets carry the token and tell of connections without any
subflow. Layouts: linux/inet_diag.h, linux/mptcp.h, linux/tcp.h.
"""

import os
import socket
import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from agents.kernel.netlink import KernelError
from agents.kernel.proxy.rtnetlink import attributes

NETLINK_SOCK_DIAG: Final = 4
IPPROTO_MPTCP: Final = 262
_BY_FAMILY, _REQUEST, _DUMP, _ERROR, _DONE = 20, 1, 0x300, 2, 3
_HEADER = struct.Struct("=IHHII")
_MESSAGE_BYTES = 72
"""struct inet_diag_msg"""
_INFO, _ULP_INFO = 2, 19
"""INET_DIAG_INFO, INET_DIAG_ULP_INFO"""
_REQ_PROTOCOL = 3
_ULP_MPTCP = 3
_TOKEN_LOCAL, _FLAGS, _ID_REMOTE, _ID_LOCAL = 2, 8, 9, 10
_MCAP_LOCAL, _BACKUP_REMOTE, _BACKUP_LOCAL, _FULLY = 1 << 1, 1 << 4, 1 << 5, 1 << 6
ESTABLISHED, SYN_SENT, CLOSE_WAIT, LISTEN = 1, 2, 8, 10
_STATES_SUBFLOW = 1 << ESTABLISHED | 1 << SYN_SENT | 1 << CLOSE_WAIT
_STATES_CONNECTION = 1 << ESTABLISHED | 1 << CLOSE_WAIT
_STATES_LISTEN = 1 << LISTEN
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 5.0
FALLBACK_FLAG: Final = 1
"""MPTCP_INFO_FLAG_FALLBACK"""
_TCP_INFO = struct.Struct("=8B24I4Q2I")
"""struct tcp_info up to tcpi_segs_in."""


@dataclass(frozen=True, slots=True)
class SubflowRow:
    """A subflow, with what TCP has measured; times in ms, counters since it was opened."""

    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int
    remote_id: int
    backup: bool
    """Either side has asked not to use it while there are others."""
    initial: bool
    """This host opened the connection by it."""
    established: bool
    rtt_ms: float
    rtt_deviation_ms: float
    rto_ms: float
    unacknowledged: int
    retransmits: int
    """Retransmission time-outs in a row without an acknowledgement."""
    idle_ms: int
    """Since anything was received: data or an acknowledgement."""
    bytes_acknowledged: int
    bytes_received: int
    segments_in: int


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """An MPTCP connection by the addresses that its program sees."""

    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    fallback: bool
    subflows: int


def _numbers(data: bytes) -> tuple[int, ...]:
    return _TCP_INFO.unpack_from(data.ljust(_TCP_INFO.size, b"\0"))


def _u32(found: dict[int, bytes], kind: int) -> int:
    value = found.get(kind, b"")
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else 0


def _u8(found: dict[int, bytes], kind: int) -> int:
    return found.get(kind, b"\0")[0]


def _ends(body: bytes) -> tuple[str, int, str, int]:
    """struct inet_diag_sockid: ports in network order, addresses of four or sixteen octets."""
    sport, dport = struct.unpack_from("!HH", body, 4)
    texts = []
    for at in (8, 24):
        raw = body[at : at + 16]
        if body[0] == socket.AF_INET:
            texts.append(socket.inet_ntoa(raw[:4]))
        elif raw[:12] == bytes(10) + b"\xff\xff":
            texts.append(socket.inet_ntoa(raw[12:]))
        else:
            texts.append(socket.inet_ntop(socket.AF_INET6, raw))
    return texts[0], sport, texts[1], dport


def parse_subflow(body: bytes) -> SubflowRow | None:
    """A TCP socket; None unless it is a subflow."""
    if len(body) < _MESSAGE_BYTES:
        return None
    found = attributes(body, _MESSAGE_BYTES, len(body))
    ulp = found.get(_ULP_INFO, b"")
    nested = attributes(ulp, 0, len(ulp)).get(_ULP_MPTCP)
    if nested is None or _INFO not in found:
        return None
    mptcp = attributes(nested, 0, len(nested))
    info, flags = _numbers(found[_INFO]), _u32(mptcp, _FLAGS)
    # info[8] is tcpi_rto: eight octets come first, then words, four long ones, and two words.
    rto_us, unacknowledged = info[8], info[12]
    last_data_ms, last_ack_ms, rtt_us, deviation_us = info[19], info[20], info[23], info[24]
    local, local_port, remote, remote_port = _ends(body)
    return SubflowRow(
        _u32(mptcp, _TOKEN_LOCAL), local, local_port, remote, remote_port, _u8(mptcp, _ID_LOCAL), _u8(mptcp, _ID_REMOTE),
        bool(flags & (_BACKUP_REMOTE | _BACKUP_LOCAL)), bool(flags & _MCAP_LOCAL),
        body[1] in (ESTABLISHED, CLOSE_WAIT) and bool(flags & _FULLY or flags & _MCAP_LOCAL),
        rtt_us / 1000.0, deviation_us / 1000.0, rto_us / 1000.0, unacknowledged, info[2], min(last_data_ms, last_ack_ms),
        info[34], info[35], info[37],
    )  # fmt: skip


def parse_connection(body: bytes) -> ConnectionRow | None:
    """An MPTCP socket; None without token."""
    if len(body) < _MESSAGE_BYTES:
        return None
    info = attributes(body, _MESSAGE_BYTES, len(body)).get(_INFO, b"")
    if len(info) < 16:
        return None
    flags, token = struct.unpack_from("=II", info, 8)
    return ConnectionRow(token, *_ends(body), bool(flags & FALLBACK_FLAG), info[0])


class Diagnostics:
    """Asks the present network namespace. Every method raises KernelError."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def close(self) -> None:
        """No more questions."""
        self._socket.close()

    def subflows(self) -> list[SubflowRow]:
        """All subflows that are open or being opened."""
        found = (parse_subflow(body) for family in self._families() for body in self._dump(family, socket.IPPROTO_TCP))
        return [row for row in found if row is not None]

    def connections(self) -> list[ConnectionRow]:
        """All MPTCP connections, fallen back ones included."""
        found = [
            parse_connection(body)
            for family in self._families()
            for body in self._dump(family, IPPROTO_MPTCP, _STATES_CONNECTION)
        ]
        return [row for row in found if row is not None]

    def listening_ports(self) -> set[int]:
        """Local ports on which programs take MPTCP or TCP connections."""
        bodies = [
            body for family in self._families() for body in self._dump(family, socket.IPPROTO_TCP, _STATES_LISTEN)
        ]  # fmt: skip
        return {_ends(body)[1] for body in bodies if len(body) >= _MESSAGE_BYTES}

    @staticmethod
    def _families() -> tuple[int, int]:
        return socket.AF_INET, socket.AF_INET6

    def _dump(self, family: int, protocol: int, states: int = _STATES_SUBFLOW) -> Generator[bytes, None, None]:
        self._sequence += 1
        body = struct.pack("=BBBxI48x", family, protocol & 0xFF, 1 << (_INFO - 1), states)
        body += struct.pack("=HHI", 8, _REQ_PROTOCOL, protocol)
        header = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | _DUMP, self._sequence, 0)
        try:
            self._socket.send(header + body)
            while True:
                data = self._socket.recv(_RECEIVE_BYTES)
                ended = yield from self._messages(data)
                if ended:
                    return
        except OSError as error:
            if isinstance(error, KernelError):
                raise
            raise KernelError(error.errno, f"socket diagnostics: {error}") from error

    def _messages(self, data: bytes) -> Generator[bytes, None, bool]:
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _flags, sequence, _pid = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                return True
            if sequence == self._sequence:
                if kind == _DONE:
                    return True
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, at + 16)[0]
                    raise KernelError(number, f"socket diagnostics: {os.strerror(number)}")
                yield data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3
        return False
