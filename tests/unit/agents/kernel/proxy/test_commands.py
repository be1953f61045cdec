"""Commands on the control socket: what reaches the core, and what a client is told otherwise."""

import asyncio
import json
from typing import Any

import pytest

from agents.kernel.control import ControlServer
from agents.kernel.proxy.commands import Commands


class Core:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def status(self) -> dict[str, Any]:
        return {"connections": 1}

    def connections(self) -> list[dict[str, Any]]:
        return [{"connection": 1}]

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **options: Any) -> dict[str, Any]:
            if options.get("connection") == 9:
                raise ValueError("no connection 9")
            # values end with the time and the list of actions
            self.calls.append((name, *values[:-2], options))
            return {"done": name}

        return call


class Agent:
    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.performed = self.planned = 0

    def perform(self) -> None:
        self.performed += 1

    def plan(self) -> None:
        self.planned += 1

    def state(self) -> dict[str, Any]:
        return {"agent": "proxy"}


def ask(**request: Any) -> tuple[dict[str, Any], Core, Agent]:
    core, agent = Core(), Agent()
    server = ControlServer("/nowhere", Commands(core, agent).table())
    return asyncio.run(server.answer(json.dumps(request).encode())), core, agent


def test_what_the_agent_and_the_core_say() -> None:
    assert ask(cmd="status")[0] == {"ok": True, "agent": "proxy", "proxy": {"connections": 1}}
    assert ask(cmd="connections")[0] == {"ok": True, "connections": [{"connection": 1}]}


@pytest.mark.parametrize(
    ("request_", "call"),
    [
        ({"cmd": "add-subflow", "address": "10.0.0.1"},
         ("add_subflow", b"\n\0\0\1", {"connection": None, "backup": False, "remote": None})),
        ({"cmd": "add-subflow", "address": "::1", "backup": True, "remote": "::2", "connection": 3},
         ("add_subflow", bytes(15) + b"\1", {"connection": 3, "backup": True, "remote": bytes(15) + b"\2"})),
        ({"cmd": "del-subflow", "subflow": 0}, ("delete_subflow", 0, {"connection": None})),
        ({"cmd": "handover", "to": 1, "break_first": True},
         ("handover", 1, {"connection": None, "address": None, "break_first": True})),
        ({"cmd": "handover", "address": "10.0.0.1"},
         ("handover", None, {"connection": None, "address": b"\n\0\0\1", "break_first": False})),
        ({"cmd": "prio", "subflow": 2, "priority": "backup"}, ("priority", 2, True, {"connection": None})),
    ],
)  # fmt: skip
def test_a_command_reaches_the_core(request_: dict[str, Any], call: tuple[Any, ...]) -> None:
    reply, core, agent = ask(**request_)
    assert reply == {"ok": True, "done": call[0]}
    assert core.calls == [call]
    assert (agent.performed, agent.planned) == (1, 1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"cmd": "add-subflow"}, 'needs the text "address"'),
        ({"cmd": "add-subflow", "address": "10.0.0"}, "is no address"),
        ({"cmd": "add-subflow", "address": "10.0.0.1\0"}, "is no address"),
        ({"cmd": "add-subflow", "address": "10.0.0.1", "backup": 1}, "must be true or false"),
        ({"cmd": "del-subflow"}, 'needs the number "subflow"'),
        ({"cmd": "del-subflow", "subflow": True}, "must be a whole number"),
        ({"cmd": "del-subflow", "subflow": 1, "connection": "1"}, "must be a whole number"),
        ({"cmd": "handover"}, 'needs either the number "to"'),
        ({"cmd": "handover", "to": 1, "address": "10.0.0.1"}, 'needs either the number "to"'),
        ({"cmd": "prio", "subflow": 1, "priority": "high"}, 'must be "backup" or "active"'),
        ({"cmd": "del-subflow", "subflow": 1, "connection": 9}, "no connection 9"),
        ({"cmd": "reboot"}, "there are status, connections, add-subflow"),
    ],
)
def test_a_wrong_command_is_one_line(request_: dict[str, Any], message: str) -> None:
    reply, core, _agent = ask(**request_)
    assert not reply["ok"]
    assert message in reply["error"]
    assert "\n" not in reply["error"]
    assert core.calls == []
