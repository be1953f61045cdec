"""The control socket: whatever a client sends, it gets one answer and the agent goes on."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.kernel import control
from agents.kernel.control import CommandError, ControlServer, parse_request, text_field
from agents.kernel.eventlog import EventLog


def status(_request: dict[str, Any]) -> dict[str, Any]:
    return {"state": "fine"}


async def fails(_request: dict[str, Any]) -> dict[str, Any]:
    raise OSError(1, "net:[4]: route add: Operation not permitted")


def exchange(path: Path, blocks: list[bytes]) -> list[dict[str, Any]]:
    """Send blocks to a server and return all its replies."""

    async def talk() -> list[dict[str, Any]]:
        server = ControlServer(str(path), {"status": status, "fails": fails, "name": lambda r: {"is": text_field(r, "x")}})
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
        for block in blocks:
            writer.write(block)
        writer.write_eof()
        replies = [json.loads(line) async for line in reader]
        writer.close()
        await server.close()
        return replies

    return asyncio.run(talk())


def test_requests_and_replies(tmp_path: Path) -> None:
    replies = exchange(
        tmp_path / "s",
        [b'{"cmd": "status"}\n{"cmd"', b': "name", "x": "a"}\n', b'{"cmd": "name"}\n', b'{"cmd": "fails"}\n',
         b'{"cmd": "no"}\n', b"[]\n", b"\xff\n", b'{"cmd": "status"}\n'],
    )  # fmt: skip
    assert [reply["ok"] for reply in replies] == [True, True, False, False, False, False, False, True]
    assert replies[0] == {"ok": True, "state": "fine"}
    assert replies[2]["error"] == 'name needs the text "x"'
    assert "Operation not permitted" in replies[3]["error"]
    assert replies[4]["error"] == "no command 'no': there are status, fails, name"
    assert not (tmp_path / "s").exists()


def test_request_too_long_ends_the_connection(tmp_path: Path) -> None:
    replies = exchange(tmp_path / "s", [b'{"cmd": "' + b"x" * control.REQUEST_MAX + b'"}\n{"cmd": "status"}\n'])
    assert [reply["ok"] for reply in replies] == [False]


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert exchange(tmp_path / "s", [b'{"cmd": "status"}\n'])[0]["ok"]


def test_status_is_mandatory() -> None:
    with pytest.raises(ValueError, match="status"):
        ControlServer("/tmp/x", {})


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_command_error(line: bytes) -> None:
    try:
        request = parse_request(line)
    except CommandError:
        return
    assert isinstance(request["cmd"], str)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["cmd", "x"]), inner, max_size=2),
        max_leaves=5,
    )
)
def test_any_json_gets_one_reply(value: object) -> None:
    server = ControlServer("/nonexistent", {"status": status})
    reply = asyncio.run(server.answer(json.dumps(value).encode()))
    assert reply["ok"] is (isinstance(value, dict) and value.get("cmd") == "status")
    json.dumps(reply)


def test_deep_nesting_is_an_error() -> None:
    with pytest.raises(CommandError):
        parse_request(b"[" * 50_000)


def test_event_log(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with EventLog("mn-x", str(path)) as log:
        log.write("link", interface="mn-wlan", up=True)
        lines = path.read_text().splitlines()
    row = json.loads(lines[0])
    assert {key: row[key] for key in ("agent", "event", "interface", "up")} == {
        "agent": "mn-x", "event": "link", "interface": "mn-wlan", "up": True,
    }  # fmt: skip
    assert abs(row["wall_ns"] - row["mono_ns"]) > 0
    with EventLog("mn-x", str(path)) as log:
        log.write("again")
    assert len(path.read_text().splitlines()) == 2, "the log is appended to"
