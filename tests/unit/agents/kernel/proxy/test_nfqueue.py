"""NFQUEUE messages: what the kernel may send, and what it must never do to the agent."""

import errno
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.proxy.actions import Answer, Offload, Verdict
from agents.kernel.proxy import nfqueue
from agents.kernel.proxy.nfqueue import NfQueue, Shown, changed_verdict, kernel_counters, marked_verdict, parse, plain_verdict

OWN, RELEASE = 0x2000_0000, 0x4000_0000


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def shown(number: int, packet: bytes | None, queue: int = 40, *more: bytes) -> bytes:
    """A packet message as the kernel builds it: header first, payload last."""
    body = struct.pack("!BBH", 2, 0, queue) + attribute(1, struct.pack("!IHB", number, 0x800, 3)) + attribute(5, b"\0\0\0\7")
    return message(0x300, body + b"".join(more) + (b"" if packet is None else attribute(10, packet)))


def error(code: int) -> bytes:
    return message(2, struct.pack("=i", -code) + bytes(16))


class Kernel:
    """Gives datagrams and errors in turn; takes verdicts of up to `largest` bytes."""

    def __init__(self, given: Iterable[bytes | OSError], largest: int = 1 << 30) -> None:
        self.given, self.largest, self.sent = list(given), largest, list[bytes]()

    def recv_into(self, buffer: bytearray, /) -> int:
        if not self.given:
            raise BlockingIOError
        item = self.given.pop(0)
        if isinstance(item, OSError):
            raise item
        buffer[: len(item)] = item
        return len(item)

    def send(self, data: bytes, /) -> int:
        if len(data) > self.largest:
            raise OSError(errno.EMSGSIZE, "Message too long")
        self.sent.append(data)
        return len(data)

    def fileno(self) -> int:
        return 0

    def close(self) -> None:
        pass


def verdicts(kernel: Kernel) -> list[tuple[int, int, int, int | None, bytes | None]]:
    """(queue, number, verdict, mark, packet) of all that was sent, read by another reader than the agent's."""
    result = []
    for data in kernel.sent:
        at = 0
        while at < len(data):
            size, kind = struct.unpack_from("=IH", data, at)
            assert kind == 0x301
            found, place = dict[int, bytes](), at + 20
            while place < at + size:
                length, which = struct.unpack_from("=HH", data, place)
                found[which] = data[place + 4 : place + length]
                place += (length + 3) & ~3
            assert place == at + size
            verdict, number = struct.unpack("!II", found[2])
            mark = struct.unpack("!I", found[3])[0] if 3 in found else None
            result.append((struct.unpack_from("!H", data, at + 18)[0], number, verdict, mark, found.get(10)))
            at += size
        assert at == len(data)
    return result


def drain(kernel: Kernel, answers: dict[bytes, Answer]) -> NfQueue:
    queue = NfQueue(kernel, own_mark=OWN, release_mark=RELEASE)
    queue.drain(lambda _queue, packet, _offload: answers[packet])
    return queue


def test_a_packet_is_read_with_all_that_matters() -> None:
    data = shown(7, b"packet", 41, attribute(3, b"\0\0\1\2"), attribute(9, bytes(12)), attribute(14, b"\0\0\0\5"))
    assert parse(data, len(data)) == Shown(7, 41, b"packet", 1, 0x102)


@pytest.mark.parametrize(("info", "offload"), [(0, Offload.NONE), (1, Offload.PARTIAL_CHECKSUM), (2, Offload.SUPERPACKET),
                                               (3, Offload.SUPERPACKET), (4, Offload.NONE)])  # fmt: skip
def test_what_the_kernel_has_not_done_yet(info: int, offload: Offload) -> None:
    seen = []

    def show(_queue: int, _packet: bytes, what: Offload) -> Answer:
        seen.append(what)
        return Verdict.PASS

    kernel = Kernel([shown(1, b"p", 40, attribute(14, struct.pack("!I", info)))])
    NfQueue(kernel, own_mark=OWN, release_mark=RELEASE).drain(show)
    assert seen == [offload]


def test_every_answer_becomes_its_verdict_in_one_message() -> None:
    kernel = Kernel([
        shown(1, b"pass"), shown(2, b"drop", 41), shown(3, b"release", 42, attribute(3, b"\0\0\0\1")),
        shown(4, b"change", 40, attribute(3, b"\0\0\0\2")),
    ])  # fmt: skip
    drain(kernel, {b"pass": Verdict.PASS, b"drop": Verdict.DROP, b"release": Verdict.RELEASE, b"change": b"other"})
    assert len(kernel.sent) == 1
    assert verdicts(kernel) == [
        (40, 1, 1, None, None), (41, 2, 0, None, None), (42, 3, 1, RELEASE | 1, None), (40, 4, 1, OWN | 2, b"other"),
    ]  # fmt: skip


def test_what_cannot_be_seen_whole_is_dropped_and_never_shown() -> None:
    kernel = Kernel([shown(1, None), shown(2, b"cut", 40, attribute(13, b"\0\1\0\0"))])
    queue = drain(kernel, {})
    assert [row[:3] for row in verdicts(kernel)] == [(40, 1, 0), (40, 2, 0)]
    assert queue.counters.malformed == 2


def test_overruns_errors_and_rubbish_are_counted_and_the_rest_is_served() -> None:
    lost = OSError(errno.ENOBUFS, "No buffer space available")
    kernel = Kernel([lost, error(errno.ENOENT), error(0), b"", bytes(40), shown(9, b"p")])
    queue = drain(kernel, {b"p": Verdict.PASS})
    assert verdicts(kernel) == [(40, 9, 1, None, None)]
    counters = queue.counters
    assert (counters.overruns, counters.refused, counters.malformed, counters.packets) == (1, 1, 2, 1)


def test_another_error_of_the_socket_is_not_hidden() -> None:
    with pytest.raises(OSError, match="Bad file"):
        drain(Kernel([OSError(errno.EBADF, "Bad file descriptor")]), {})


def test_a_batch_ends_and_the_rest_waits() -> None:
    kernel = Kernel([shown(number, b"p") for number in range(nfqueue.BATCH_PACKETS + 3)])
    drain(kernel, {b"p": Verdict.PASS})
    assert len(verdicts(kernel)) == nfqueue.BATCH_PACKETS
    assert len(kernel.given) == 3


def test_verdicts_that_do_not_fit_into_one_message_go_in_several() -> None:
    kernel = Kernel([shown(number, b"%d" % number) for number in range(10)], largest=400)
    drain(kernel, {b"%d" % number: bytes([number]) * 100 for number in range(10)})
    assert [row[4] for row in verdicts(kernel)] == [bytes([number]) * 100 for number in range(10)]
    assert len(kernel.sent) > 2


def test_a_verdict_that_fits_nowhere_becomes_a_drop() -> None:
    kernel = Kernel([shown(1, b"a"), shown(2, b"b")], largest=100)
    queue = drain(kernel, {b"a": bytes(500), b"b": Verdict.PASS})
    assert [row[:3] for row in verdicts(kernel)] == [(40, 1, 0), (40, 2, 1)]
    assert queue.counters.oversize == 1


def test_what_the_proxy_sends_itself_keeps_its_place() -> None:
    kernel, actions, order = Kernel([shown(1, b"a"), shown(2, b"b"), shown(3, b"c")]), list[str](), list[list[int]]()

    def show(_queue: int, packet: bytes, _offload: Offload) -> Answer:
        if packet == b"b":
            actions.append("send")
        return Verdict.PASS

    def perform() -> None:
        order.append([row[1] for row in verdicts(kernel)])
        actions.clear()

    NfQueue(kernel, own_mark=OWN, release_mark=RELEASE).drain(show, actions, perform)
    assert order == [[1, 2]]
    assert [row[1] for row in verdicts(kernel)] == [1, 2, 3]


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    parse(data, len(data))
    queue = NfQueue(Kernel([data]), own_mark=OWN, release_mark=RELEASE)
    queue.drain(lambda *_: Verdict.PASS)


@given(st.integers(0, 120), st.integers(0, 255), st.integers(0, 200))
def test_no_damage_to_a_message_makes_the_reader_fail(at: int, value: int, length: int) -> None:
    data = bytearray(shown(5, bytes(40), 40, attribute(3, b"abcd"), attribute(14, b"\0\0\0\1")))
    data[at % len(data)] = value
    result = parse(data, min(length, len(data)))
    assert result is None or isinstance(result, int) or result.packet is None or len(result.packet) <= len(data)


@given(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=70))
def test_verdicts_are_what_the_kernel_reads(queue: int, number: int, mark: int, packet: bytes) -> None:
    kernel = Kernel([])
    kernel.sent = [
        plain_verdict(queue, number, 1),
        marked_verdict(queue, number, mark),
        changed_verdict(queue, number, mark, packet),
    ]
    assert verdicts(kernel) == [
        (queue, number, 1, None, None), (queue, number, 1, mark, None), (queue, number, 1, mark, packet),
    ]  # fmt: skip


def test_the_kernels_own_counters(tmp_path: object) -> None:
    path = f"{tmp_path}/nfnetlink_queue"
    with open(path, "w", encoding="ascii") as file:
        file.write("   40  12345     3 2 65531     7     1        9  1\n   99  1     5 2 65531 5 5 5 1\nrubbish\n")
    assert kernel_counters(range(40, 44), path) == {"waiting": 3, "dropped_queue_full": 7, "dropped_buffer_full": 1}
    assert kernel_counters([1], f"{tmp_path}/none")["waiting"] == 0
    assert nfqueue.owned_queues(path) == {40, 99}
