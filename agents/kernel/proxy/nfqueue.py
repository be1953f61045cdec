"""NFQUEUE by raw netlink: packets wait in the kernel until this program has given its verdict on them.

One socket serves all queues and both address families. A drain reads what waits, up to BATCH_PACKETS, and sends all verdicts
in one message: per packet that is one system call and a half. Layout of the messages: linux/netfilter/nfnetlink_queue.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from agents.core.proxy.actions import Answer, Offload, Verdict

NETLINK_NETFILTER: Final = 12
NFNL_SUBSYS_QUEUE: Final = 3
BATCH_PACKETS: Final = 64
"""Packets between two looks at everything else the agent waits for."""
SEND_MAX_BYTES: Final = 1 << 20
"""Verdicts in one send: a larger one may not find memory, and must fit into the send buffer anyway."""
BUFFER_BYTES: Final = 16 << 20
QUEUE_PACKETS: Final = 8192
_RECEIVE_BYTES: Final = 1 << 17  # a superpacket has 64 KiB

_PACKET, _VERDICT, _CONFIG = (NFNL_SUBSYS_QUEUE << 8 | number for number in (0, 1, 2))
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_HDR, _VERDICT_HDR, _MARK, _PAYLOAD, _CAP_LEN, _SKB_INFO = 1, 2, 3, 10, 13, 14
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_CMD_BIND, _COPY_PACKET, _COPY_RANGE = 1, 2, 0xFFFF_FFFF
_F_FAIL_OPEN, _F_GSO = 1, 4
_NF_DROP, _NF_ACCEPT = 0, 1
_INFO_CHECKSUM_NOT_READY, _INFO_GSO = 1, 2
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_NLMSG = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("!I")
_PAIR = struct.Struct("!II")
_QUEUE = struct.Struct("!H")
_NFGEN = struct.Struct("!BBH")
# nlmsghdr, nfgenmsg, then the attributes VERDICT_HDR, MARK and the head of PAYLOAD.
_PLAIN = struct.Struct("=IHHII4sHH8s")
_MARKED = struct.Struct("=IHHII4sHH8sHH4s")
_CHANGED = struct.Struct("=IHHII4sHH8sHH4sHH")
_OFFLOADS = (Offload.NONE, Offload.PARTIAL_CHECKSUM, Offload.SUPERPACKET, Offload.SUPERPACKET)


class Link(Protocol):
    """What is needed of a non-blocking socket."""

    def recv_into(self, buffer: bytearray, /) -> int:
        """Bytes read. Raises BlockingIOError when there is nothing."""

    def send(self, data: bytes, /) -> int:
        """Bytes sent."""

    def fileno(self) -> int:
        """For epoll."""

    def close(self) -> None:
        """Give the queues back."""


Show = Callable[[int, bytes, Offload], Answer]
"""(queue, packet, what the kernel has not done yet) -> answer."""
_NOTHING: list[Any] = []


def _do_nothing() -> None:
    pass


class Shown(NamedTuple):
    """A packet that waits for a verdict."""

    number: int
    """Of the packet, for its verdict."""
    queue: int
    packet: bytes | None
    """None: the kernel showed none or only a part of it."""
    info: int
    mark: int


@dataclass
class Counters:
    """What has happened since the start."""

    packets: int = 0
    batches: int = 0
    overruns: int = 0
    """Times that the receive buffer was full: the kernel dropped packets."""
    malformed: int = 0
    refused: int = 0
    """Messages that the kernel did not accept, for example a verdict on a packet that is gone."""
    oversize: int = 0
    """Verdicts that did not fit into any message: the packet was dropped."""


class QueueError(OSError):
    """The kernel refused a queue; one line with the reason."""

    def __str__(self) -> str:
        return self.strerror or ""


def parse(buffer: bytes | bytearray | memoryview, length: int) -> Shown | int | None:
    """A packet, or the errno of a refused message (0: an acknowledgement); None when it is neither. Never raises."""
    if length < 20:
        return None
    size, kind, _flags, _sequence, _port = _NLMSG.unpack_from(buffer)
    if size > length or size < 20:
        return None
    if kind != _PACKET:
        return -struct.unpack_from("=i", buffer, 16)[0] if kind == _NLMSG_ERROR else None
    number = -1
    info = mark = begin = end = 0
    cut = False
    at = 20
    while at + 4 <= size:
        attribute, which = _ATTRIBUTE.unpack_from(buffer, at)
        if attribute < 4 or at + attribute > size:
            break
        if which == _PAYLOAD:
            begin, end = at + 4, at + attribute
        elif which == _HDR and attribute >= 8:
            number = _NUMBER.unpack_from(buffer, at + 4)[0]
        elif attribute >= 8:
            if which == _SKB_INFO:
                info = _NUMBER.unpack_from(buffer, at + 4)[0] & 3
            elif which == _MARK:
                mark = _NUMBER.unpack_from(buffer, at + 4)[0]
            elif which == _CAP_LEN:
                cut = True
        at += (attribute + 3) & ~3
    if number < 0:
        return None
    return Shown(number, _QUEUE.unpack_from(buffer, 18)[0], None if cut or not end else bytes(buffer[begin:end]), info, mark)


def _configuration(queue: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(_ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in attributes)
    return _NLMSG.pack(20 + len(body), _CONFIG, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + _NFGEN.pack(0, 0, queue) + body


def plain_verdict(queue: int, number: int, verdict: int) -> bytes:
    """NF_ACCEPT (1) or NF_DROP (0) for a packet as it is."""
    return _PLAIN.pack(32, _VERDICT, 1, 0, 0, _NFGEN.pack(0, 0, queue), 12, _VERDICT_HDR, _PAIR.pack(verdict, number))


def marked_verdict(queue: int, number: int, mark: int) -> bytes:
    """NF_ACCEPT for a packet as it is, with another mark."""
    generic, verdict = _NFGEN.pack(0, 0, queue), _PAIR.pack(_NF_ACCEPT, number)
    return _MARKED.pack(40, _VERDICT, 1, 0, 0, generic, 12, _VERDICT_HDR, verdict, 8, _MARK, _NUMBER.pack(mark))


def changed_verdict(queue: int, number: int, mark: int, packet: bytes) -> bytes:
    """NF_ACCEPT with another packet in its place, and another mark."""
    length = 4 + len(packet)
    padding = -length & 3
    head = _CHANGED.pack(
        40 + length + padding, _VERDICT, 1, 0, 0, _NFGEN.pack(0, 0, queue), 12, _VERDICT_HDR, _PAIR.pack(_NF_ACCEPT, number),
        8, _MARK, _NUMBER.pack(mark), length, _PAYLOAD,
    )  # fmt: skip
    return b"".join((head, packet, b"\0\0\0"[:padding]))


def open_queues(queues: Sequence[int], *, gso: bool) -> socket.socket:
    """A socket that owns the queues. gso: superpackets are shown whole instead of in segments. Raises QueueError, OSError."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        link.bind((0, 0))
        _grow_buffers(link)
        for queue in queues:
            _configure(link, queue, gso)
    except OSError:
        link.close()
        raise
    link.setblocking(False)
    return link


def _grow_buffers(link: socket.socket) -> None:
    for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            link.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
        except PermissionError:
            # In a user namespace: what the host allows to everybody.
            link.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)


def _configure(link: socket.socket, queue: int, gso: bool) -> None:
    # Neither may be left to a former owner's setting; flags and mask belong into one message.
    flags = ((_CFG_MASK, _NUMBER.pack(_F_FAIL_OPEN | _F_GSO)), (_CFG_FLAGS, _NUMBER.pack(_F_GSO if gso else 0)))
    steps = (
        ((_CFG_CMD, struct.pack("!BBH", _CMD_BIND, 0, 0)),),
        ((_CFG_PARAMS, struct.pack("!IB", _COPY_RANGE, _COPY_PACKET)),),
        ((_CFG_MAXLEN, _NUMBER.pack(QUEUE_PACKETS)),),
        flags,
    )
    for step in steps:
        link.send(_configuration(queue, *step))
        code = _acknowledgement(link)
        if code:
            reason = "another program has it" if code in (errno.EBUSY, errno.EPERM) else os.strerror(code)
            raise QueueError(code, f"NFQUEUE {queue}: {reason}")


def _acknowledgement(link: socket.socket) -> int:
    """The errno of the next acknowledgement. A queue that rules lead to already gives packets meanwhile: they are lost."""
    buffer = bytearray(_RECEIVE_BYTES)
    while True:
        answer = parse(buffer, link.recv_into(buffer))
        if isinstance(answer, int):
            return answer
        if answer is not None:
            link.send(plain_verdict(answer.queue, answer.number, _NF_DROP))


class NfQueue:
    """Packets and verdicts on a socket of `open_queues`.

    own_mark and release_mark are bits: rewritten packets leave with the first, released ones with the second; other bits of a
    packet's mark stay.
    """

    def __init__(self, link: Link, *, own_mark: int, release_mark: int) -> None:
        self.counters = Counters()
        self._own_mark, self._release_mark = own_mark, release_mark
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._socket = link

    def fileno(self) -> int:
        """For epoll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the queues back: packets that wait are dropped."""
        self._socket.close()

    def drain(self, show: Show, actions: list[Any] = _NOTHING, perform: Callable[[], None] = _do_nothing) -> int:
        """Show what waits, up to BATCH_PACKETS, and send the verdicts; the number of messages read.

        When a packet leaves something in `actions`, its verdict and all before it are sent, then `perform` is called: what the
        proxy sends by itself keeps its place among what it lets through.
        """
        verdicts: list[bytes] = []
        buffer, receive, counters, own_mark = self._buffer, self._socket.recv_into, self.counters, self._own_mark
        view = memoryview(buffer)  # its parts are copied once; those of a bytearray twice
        count = 0
        while count < BATCH_PACKETS:
            try:
                length = receive(buffer)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                counters.overruns += 1
                count += 1
                continue
            count += 1
            shown = parse(view, length)
            if not isinstance(shown, Shown):
                self._note(shown)
                continue
            number, queue, packet, info, mark = shown
            if packet is None:
                counters.malformed += 1
                verdicts.append(plain_verdict(queue, number, _NF_DROP))
                continue
            answer = show(queue, packet, _OFFLOADS[info])
            if isinstance(answer, bytes):
                verdicts.append(changed_verdict(queue, number, mark | own_mark, answer))
            elif answer is Verdict.DROP:
                verdicts.append(plain_verdict(queue, number, _NF_DROP))
            elif answer is Verdict.RELEASE:
                verdicts.append(marked_verdict(queue, number, mark | self._release_mark))
            else:
                verdicts.append(plain_verdict(queue, number, _NF_ACCEPT))
            if actions:
                counters.packets += len(verdicts)
                self._send(verdicts)
                verdicts = []
                perform()
        if verdicts:
            counters.packets += len(verdicts)
            self._send(verdicts)
        if count:
            counters.batches += 1
        return count

    def _note(self, answer: int | None) -> None:
        if answer is None:
            self.counters.malformed += 1
        elif answer:
            self.counters.refused += 1

    def _send(self, verdicts: list[bytes]) -> None:
        """In as few messages as possible."""
        if not verdicts:
            return
        total = sum(map(len, verdicts))
        if total > SEND_MAX_BYTES and len(verdicts) > 1:
            self._send_halves(verdicts)
            return
        try:
            self._socket.send(b"".join(verdicts))
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN):
                raise
            if len(verdicts) > 1:
                self._send_halves(verdicts)
            else:
                self._give_up(verdicts[0])

    def _send_halves(self, verdicts: list[bytes]) -> None:
        middle = len(verdicts) // 2
        self._send(verdicts[:middle])
        self._send(verdicts[middle:])

    def _give_up(self, verdict: bytes) -> None:
        """A packet without verdict would wait for ever; the shortest one drops it."""
        self.counters.oversize += 1
        if len(verdict) > 32:
            queue, number = _QUEUE.unpack_from(verdict, 18)[0], _PAIR.unpack_from(verdict, 24)[1]
            self._send([plain_verdict(queue, number, _NF_DROP)])


_STATE: Final = "/proc/self/net/netfilter/nfnetlink_queue"


def _rows(path: str) -> list[list[int]]:
    """number, port of the owner, waiting, copy mode, copy range, dropped by queue and by buffer, last packet, 1"""
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [[int(word) for word in row] for row in rows if len(row) >= 7 and all(word.isdigit() for word in row)]


def owned_queues(path: str = _STATE) -> set[int]:
    """Queues of this namespace that a program has."""
    return {row[0] for row in _rows(path)}


def kernel_counters(queues: Sequence[int], path: str = _STATE) -> dict[str, int]:
    """Packets of these queues that wait, and that the kernel dropped for a full queue or a full buffer."""
    result = {"waiting": 0, "dropped_queue_full": 0, "dropped_buffer_full": 0}
    for row in _rows(path):
        if row[0] in queues:
            for name, value in zip(result, (row[2], row[5], row[6]), strict=True):
                result[name] += value
    return result
