"""Messages of MPTCP's generic netlink: what is sent, octet by octet, and events of any kind."""

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.path_manager.values import Announced, SubflowClosed, Withdrawn
from agents.kernel.path_manager import genl_mptcp
from agents.kernel.path_manager.agent import _core_event
from agents.kernel.path_manager.genl_mptcp import AsyncUserspaceMPTCP, parse_events


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(command: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBH", command, 1, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 30, 0, 0, 0) + body


TOKEN = attribute(1, struct.pack("=I", 0xCAFE))
V4 = attribute(2, struct.pack("=H", 2))
ENDS = attribute(5, bytes((10, 1, 0, 100))) + attribute(7, bytes((10, 65, 0, 2))) + attribute(9, struct.pack("!H", 40_000))


class Recorder(AsyncUserspaceMPTCP):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    @property
    def prid(self) -> int:
        return 30

    async def nlm_request(self, msg: Any, msg_type: int, msg_flags: int) -> None:
        msg["header"]["type"] = msg_type
        msg.encode()
        self.sent.append(bytes(msg.data[16:]))


def sent(work: Any) -> bytes:
    recorder = Recorder.__new__(Recorder)
    recorder.sent = []
    asyncio.run(work(recorder))
    return recorder.sent[0]


LOCAL = attribute(0x8001, attribute(1, b"\2\0") + attribute(3, bytes((10, 2, 0, 100))) + attribute(2, b"\3"))
REMOTE = attribute(0x8006, attribute(1, b"\2\0") + attribute(3, bytes((10, 65, 0, 2))) + attribute(5, struct.pack("=H", 443)))


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        (lambda link: link.remove(0xCAFE, 3), (9, attribute(4, struct.pack("=I", 0xCAFE)) + attribute(5, b"\3"))),
        (
            lambda link: link.subflow("create", 0xCAFE, {"addr": "10.2.0.100", "id": 3}, {"addr": "10.65.0.2", "port": 443}),
            (10, attribute(4, struct.pack("=I", 0xCAFE)) + LOCAL + REMOTE),
        ),
        (lambda link: link.announce(0xCAFE, addr="10.2.0.100", id=3), (8, attribute(4, struct.pack("=I", 0xCAFE)) + LOCAL)),
        (lambda link: link.set_flags({"addr": "10.2.0.100", "id": 3}), (7, LOCAL)),
    ],
)
def test_commands(work: Any, wanted: tuple[int, bytes]) -> None:
    command, attributes = wanted
    assert sent(work) == struct.pack("=BBH", command, 1, 0) + attributes


def test_six_and_interface() -> None:
    data = sent(lambda link: link.announce(1, addr="2001:db8::1", id=3, flags=5, if_idx=7))
    assert attribute(1, struct.pack("=H", 10)) in data
    assert attribute(4, bytes.fromhex("20010db8000000000000000000000001")) in data
    assert attribute(6, struct.pack("=I", 5)) in data
    assert attribute(7, struct.pack("=i", 7)) in data


def test_events() -> None:
    created = message(1, TOKEN, V4, ENDS, attribute(18, b"\1"))
    flagged = message(2, TOKEN, V4, ENDS, attribute(13, struct.pack("=H", genl_mptcp.EVENT_FLAG_SERVER_SIDE)))
    found = list(parse_events(created + flagged + message(77, TOKEN)))
    assert [(row["event"], row["server_side"]) for row in found] == [("created", True), ("established", True)]
    assert found[0]["token"] == 0xCAFE
    assert (found[0]["saddr"], found[0]["daddr"], found[0]["sport"]) == ("10.1.0.100", "10.65.0.2", 40_000)


def test_what_the_core_hears() -> None:
    announced = message(
        6, TOKEN, attribute(4, b"\4"), V4, attribute(7, bytes((10, 66, 0, 2))), attribute(10, struct.pack("!H", 99))
    )
    withdrawn = message(7, TOKEN, attribute(4, b"\4"))
    closed = message(11, TOKEN, V4, ENDS, attribute(12, b"\x6f"))
    events = [_core_event(values) for values in parse_events(announced + withdrawn + closed + message(3, TOKEN))]
    assert events == [
        Announced(0xCAFE, 4, "10.66.0.2", 99), Withdrawn(0xCAFE, 4),
        SubflowClosed(0xCAFE, "10.1.0.100", "10.65.0.2", 111), None,
    ]  # fmt: skip
    assert _core_event({"event": "sub_closed"}) is None


@given(st.binary(max_size=200))
def test_any_octets(data: bytes) -> None:
    list(parse_events(data))
    list(parse_events(message(1, TOKEN, V4) + data))
    for end in range(0, 60, 3):
        list(parse_events(message(1, TOKEN, V4, ENDS)[:end]))
