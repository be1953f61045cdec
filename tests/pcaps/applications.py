"""A client and a server over MPTCP or TCP, in one thread: what they sent, received, and what the kernel says of it."""

from __future__ import annotations

import ctypes
import hashlib
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.pcaps.lab import SERVER, Lab
from topologies.links.netns import inside
from topologies.waiting import wait_until

IPPROTO_MPTCP = 262
SOL_MPTCP, MPTCP_INFO, MPTCP_TCPINFO, MPTCP_SUBFLOW_ADDRS = 284, 1, 2, 3
PORT = 5001
_INFO = struct.Struct("=6B2xIIQQQBBBxIQQQQ")
_INFO_NAMES = (
    "extra_subflows", "add_addr_signal", "add_addr_accepted", "subflows_max", "add_addr_signal_max",
    "add_addr_accepted_max", "flags", "token", "write_seq", "snd_una", "rcv_nxt", "local_addr_used", "local_addr_max",
    "csum_enabled", "retransmits", "bytes_retrans", "bytes_sent", "bytes_received", "bytes_acked",
)  # fmt: skip
_TOLD = (
    "extra_subflows", "flags", "token", "write_seq", "snd_una", "rcv_nxt", "csum_enabled",
    "bytes_retrans", "bytes_sent", "bytes_received", "bytes_acked",
)  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)
LINE_BYTES = 16


def pattern(begin: int, size: int, mark: bytes) -> bytes:
    """Bytes of the endless text that a side sends: lines with a number, so that it compresses and nothing repeats."""
    first, last = begin // LINE_BYTES, (begin + size) // LINE_BYTES + 1
    text = b"".join(b"%s%014d\n" % (mark, line) for line in range(first, last))
    return text[begin - first * LINE_BYTES :][:size]


def _subflow_data(sock: socket.socket, option: int, size: int, room: int = 8) -> list[bytes]:
    """One record per subflow, from the kernel (struct mptcp_subflow_data in linux/mptcp.h)."""
    buffer = ctypes.create_string_buffer(16 + size * room)
    struct.pack_into("=IIII", buffer, 0, 16, 0, 0, size)
    length = ctypes.c_uint32(len(buffer))
    if _libc.getsockopt(sock.fileno(), SOL_MPTCP, option, buffer, ctypes.byref(length)):
        return []
    count = struct.unpack_from("=I", buffer, 4)[0]
    return [buffer.raw[16 + size * number :][:size] for number in range(min(count, room))]


def _socket_address(record: bytes) -> list[object]:
    family, port = struct.unpack_from("=H", record)[0], struct.unpack_from("!H", record, 2)[0]
    if family == socket.AF_INET:
        return [socket.inet_ntop(family, record[4:8]), port]
    address = socket.inet_ntop(socket.AF_INET6, record[8:24])
    return [address.removeprefix("::ffff:"), port]


def subflow_addresses(sock: socket.socket) -> list[bytes]:
    """Local and remote address of every subflow, 128 bytes each."""
    return _subflow_data(sock, MPTCP_SUBFLOW_ADDRS, 256)


def kernel_view(sock: socket.socket) -> dict[str, object] | None:
    """MPTCP_INFO and the subflows' addresses and byte counts; None when this is no MPTCP socket (any more)."""
    try:
        raw = sock.getsockopt(SOL_MPTCP, MPTCP_INFO, _INFO.size)
    except OSError:
        return None
    info = dict(zip(_INFO_NAMES, _INFO.unpack(raw.ljust(_INFO.size, b"\0")), strict=True))
    view: dict[str, object] = {name: info[name] for name in _TOLD}
    addresses = subflow_addresses(sock)
    tcp = _subflow_data(sock, MPTCP_TCPINFO, 232)
    subflows = []
    for pair, numbers in zip(addresses, tcp, strict=False):
        # struct tcp_info: bytes_acked and bytes_received at 120, bytes_sent and bytes_retrans at 200.
        acked, received = struct.unpack_from("=QQ", numbers, 120)
        sent, retrans = struct.unpack_from("=QQ", numbers, 200)
        subflows.append({"local": _socket_address(pair[:128]), "remote": _socket_address(pair[128:]), "bytes_sent": sent,
                         "bytes_retrans": retrans, "bytes_acked": acked, "bytes_received": received})  # fmt: skip
    view["subflows"] = subflows
    return view


@dataclass
class Side:
    """One end of a connection: a socket, and what went through it."""

    name: str
    socket: socket.socket
    mark: bytes
    mptcp: bool
    sent: int = 0
    received: int = 0
    sent_hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    received_hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    end: str = "open"
    kernel: dict[str, object] | None = None
    names: tuple[list[object], list[object]] | None = None

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        self.names = list(self.socket.getsockname()[:2]), list(self.socket.getpeername()[:2])

    def look(self) -> None:
        """Note what the kernel knows now."""
        self.kernel = kernel_view(self.socket) if self.mptcp else None

    def send(self, most: int) -> int:
        block = pattern(self.sent, min(most, 8192), self.mark)
        try:
            count = self.socket.send(block)
        except BlockingIOError:
            return 0
        self.sent_hash.update(block[:count])
        self.sent += count
        return count

    def receive(self) -> bytes:
        """What has come; an end or an error is noted."""
        try:
            block = self.socket.recv(65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.end = error.strerror.lower()
            return b""
        if not block:
            self.end = "eof"
        self.received_hash.update(block)
        self.received += len(block)
        return block

    def told(self) -> dict[str, object]:
        """For the expectation file."""
        assert self.names
        return {
            "role": self.name, "local": self.names[0], "peer": self.names[1], "mptcp_socket": self.mptcp,
            "sent_bytes": self.sent, "sent_sha256": self.sent_hash.hexdigest(), "received_bytes": self.received,
            "received_sha256": self.received_hash.hexdigest(), "end": self.end, "kernel": self.kernel,
        }  # fmt: skip


@dataclass
class Pair:
    """Both ends of one connection."""

    client: Side
    server: Side
    listener: socket.socket  # stays open: without it the kernel refuses joins

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.client, self.server

    def look(self) -> None:
        for side in self.sides:
            side.look()

    def subflows(self) -> list[int]:
        """Subflows that each side has now, the client those it has just begun as well."""
        return [len(subflow_addresses(side.socket)) for side in self.sides]


def connect(lab: Lab, mptcp: bool = True, port: int = PORT, send_buffer: int = 0, server: str = "") -> Pair:
    """A connection from the mobile node to the server. Raises OSError when it fails."""
    family = socket.AF_INET if lab.family == 4 else socket.AF_INET6
    protocol = IPPROTO_MPTCP if mptcp else socket.IPPROTO_TCP
    target = (server or SERVER[lab.family], port)

    def make() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        return sock

    with inside(lab.nodes["cn"]):
        listener = make()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))  # joins come to any address of the server
        listener.listen()
        listener.settimeout(20)
    with inside(lab.nodes["mn"]):
        client = make()
        client.settimeout(20)
        client.connect(target)
    accepted, _ = listener.accept()
    return Pair(Side("client", client, b"c", mptcp), Side("server", accepted, b"s", mptcp), listener)


Hook = tuple[int, Callable[[], object]]


def exchange(pair: Pair, up: int = 0, down: int = 0, hooks: tuple[Hook, ...] = (), timeout_s: float = 40) -> bool:
    """Send so many more bytes each way at once. A hook is called when so many bytes have been received in all.

    Returns whether all arrived. Raises TimeoutError when that takes too long, unless a side has met an end or an error.
    """
    goal = {pair.client.name: pair.client.sent + up, pair.server.name: pair.server.sent + down}
    wanted = {pair.client.name: pair.client.received + down, pair.server.name: pair.server.received + up}
    begun = pair.client.received + pair.server.received
    left = sorted(hooks, key=lambda hook: hook[0])
    deadline = time.monotonic() + timeout_s
    while any(side.received < wanted[side.name] for side in pair.sides):
        if any(side.end != "open" for side in pair.sides):
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"transfer stuck: {[(side.received, wanted[side.name]) for side in pair.sides]}")
        writers = [side.socket for side in pair.sides if side.sent < goal[side.name]]
        readable, writable, _ = select.select([side.socket for side in pair.sides], writers, [], 0.1)
        for side in pair.sides:
            if side.socket in readable:
                side.receive()
            if side.socket in writable:
                try:
                    side.send(goal[side.name] - side.sent)
                except OSError as error:
                    side.end = str(error.strerror).lower()
        while left and pair.client.received + pair.server.received - begun >= left[0][0]:
            left.pop(0)[1]()
    return True


def wait_subflows(pair: Pair, count: int) -> None:
    """Return when both sides have so many subflows, the initial one included."""
    wait_until(lambda: pair.subflows() == [count, count], 10, f"{count} subflows, at first {pair.subflows()}")


def wait_end(side: Side, timeout_s: float = 15) -> None:
    """Return when a side has read the end of the stream, or an error."""

    def ended() -> bool:
        if side.end == "open":
            side.receive()
        return side.end != "open"

    wait_until(ended, timeout_s, f"end of the {side.name}'s stream")


def close(pair: Pair, first: str = "server") -> None:
    """The usual end: one side says it has no more, then the other; both read to the end. Notes the kernel's view before."""
    pair.look()
    order = pair.sides if first == "client" else pair.sides[::-1]
    order[0].socket.shutdown(socket.SHUT_WR)
    wait_end(order[1])
    order[1].socket.shutdown(socket.SHUT_WR)
    wait_end(order[0])
    for side in pair.sides:
        side.socket.close()
    pair.listener.close()


def abort(side: Side) -> None:
    """Close with data lost: MP_FASTCLOSE on MPTCP, RST on TCP."""
    side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.socket.close()
    side.end = "aborted"
