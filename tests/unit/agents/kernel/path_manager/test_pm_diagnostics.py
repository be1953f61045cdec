"""Socket diagnostics: a subflow and a connection octet by octet, and anything else."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from agents.kernel.path_manager.diagnostics import parse_connection, parse_subflow


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def head(state: int = 1, family: int = socket.AF_INET) -> bytes:
    first, second = (socket.inet_aton(text).ljust(16, b"\0") for text in ("10.1.0.100", "10.65.0.2"))
    return struct.pack("=BBBB", family, state, 0, 0) + struct.pack("!HH", 40_000, 443) + first + second + bytes(32)


def tcp_info(**at: int) -> bytes:
    data = bytearray(240)
    for name, value in at.items():
        struct.pack_into("=Q" if name in ("x120", "x128") else "=I", data, int(name[1:]), value)
    data[2] = 3
    return bytes(data)


INFO = tcp_info(x8=230_000, x24=5, x52=120, x56=90, x68=30_000, x72=2_000, x120=77, x128=1_000, x140=9)


def ulp(flags: int) -> bytes:
    inner = (
        attribute(2, struct.pack("=I", 0xCAFE))
        + attribute(8, struct.pack("=I", flags))
        + attribute(9, b"\4")
        + attribute(10, b"\3")
    )
    return attribute(19, attribute(1, b"mptcp\0") + attribute(3, inner))


def test_subflow() -> None:
    row = parse_subflow(head() + attribute(2, INFO) + ulp(1 << 3 | 1 << 5 | 1 << 6))
    assert row is not None
    assert (row.token, row.local, row.local_port, row.remote, row.remote_port) == (
        0xCAFE,
        "10.1.0.100",
        40_000,
        "10.65.0.2",
        443,
    )
    assert (row.local_id, row.remote_id, row.backup, row.initial, row.established) == (3, 4, True, False, True)
    assert (row.rto_ms, row.rtt_ms, row.rtt_deviation_ms, row.idle_ms) == (230.0, 30.0, 2.0, 90)
    assert (row.unacknowledged, row.retransmits, row.bytes_acknowledged, row.bytes_received) == (5, 3, 77, 1000)
    assert row.segments_in == 9


def test_subflow_that_is_being_opened() -> None:
    row = parse_subflow(head(state=2) + attribute(2, INFO) + ulp(1 << 3))
    assert row is not None
    assert not row.established


def test_plain_tcp_is_no_subflow() -> None:
    assert parse_subflow(head() + attribute(2, INFO)) is None
    assert parse_subflow(head() + attribute(2, INFO) + attribute(19, attribute(1, b"tls\0"))) is None


def test_mapped_addresses() -> None:
    mapped = bytes(10) + b"\xff\xff" + socket.inet_aton("10.1.0.100")
    body = bytearray(head(family=socket.AF_INET6))
    body[8:24] = mapped
    row = parse_subflow(bytes(body) + attribute(2, INFO) + ulp(0))
    assert row is not None
    assert row.local == "10.1.0.100"


def test_connection() -> None:
    info = bytes((2, 0, 0, 0, 0, 0, 0, 0)) + struct.pack("=II", 1, 0xCAFE) + bytes(60)
    row = parse_connection(head() + attribute(2, info))
    assert row is not None
    assert (row.token, row.fallback, row.subflows, row.remote_port) == (0xCAFE, True, 2, 443)
    assert parse_connection(head()) is None


@given(st.binary(max_size=300))
def test_any_octets(data: bytes) -> None:
    for body in (data, head() + data, head() + attribute(2, INFO) + attribute(19, attribute(3, data))):
        parse_subflow(body)
        parse_connection(body)
