"""What the loop does with actions, failures and defects. The kernel's part is in tests/emulation/test_mobileip_kernel.py."""

import asyncio
from types import SimpleNamespace
from typing import Any

from agents.core.mobileip.actions import (
    Action,
    AtHome,
    CloseTunnel,
    Datagram,
    DefendAddress,
    Forwarding,
    Log,
    Now,
    OpenTunnel,
    SendMessage,
    Store,
    Tunnel,
)
from agents.kernel.mobileip.driver import FORWARDED_AT_ONCE, UNCOMMITTED_MAX, Driver, gathered
from agents.kernel.mobileip.store import Batch
from agents.kernel.proxy.agent import Problems

REPLY = SendMessage(b"\x03", "10.1.0.100", 434)
LATER = SendMessage(b"\x03", "10.1.0.101", 434)


class Lines:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, event: str, **fields: Any) -> None:
        self.rows.append({"event": event, **fields})


class Disk:
    """What waits for it is saved when the test says so."""

    def __init__(self, done: list[Any], broken: bool) -> None:
        self.done, self.broken = done, broken
        self.waiting: list[Batch] = []

    def put(self, batch: Batch) -> None:
        self.waiting.append(batch)

    def commit(self, agent: Any) -> None:
        batches, self.waiting = self.waiting, []
        if not self.broken:
            self.done.append([row.key for batch in batches for row in batch.rows])
        error = OSError(28, "ha.sqlite: cannot be used: disk full") if self.broken else None
        agent.committed(batches, error)


class Core:
    """Answers each datagram with its octets as actions."""

    def __init__(self, answers: dict[bytes, list[Action] | Exception]) -> None:
        self.answers = answers
        self.deadline_s: float | None = None

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        answer = self.answers[datagram.data]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next_deadline(self) -> float | None:
        return self.deadline_s


def driver(core: Core, broken: bool = False) -> tuple[Any, list[Any], Lines]:
    """A driver without a kernel; what it has done, and its log."""
    done: list[Any] = []
    lines = Lines()
    result: Any = object.__new__(Driver)
    result.core, result.log, result.problems = core, lines, Problems(lines)  # type: ignore[arg-type]
    result.commits, result.listener, result._timer, result._loop = Disk(done, broken), None, None, None
    result._uncommitted, result._reading, result._committed_all = 0, True, asyncio.Event()
    result._perform_one = {SendMessage: done.append, Log: result._log}
    return result, done, lines


def datagrams(*contents: bytes) -> list[Datagram]:
    return [Datagram(data, "10.1.0.100", 434, "10.33.0.2") for data in contents]


def test_a_batch_is_stored_at_once_before_any_reply() -> None:
    core = Core({b"\x01a": [REPLY, Store("t", "a", {})], b"\x01b": [Store("t", "b", {}), REPLY]})
    agent, done, _lines = driver(core)
    agent._take(datagrams(b"\x01a", b"\x01b"))
    assert done == [], "not before it is on the disk"
    agent.commits.commit(agent)
    assert done == [["a", "b"], REPLY, REPLY]


def test_what_comes_while_the_disk_works_is_verified_and_waits_its_turn() -> None:
    core = Core({b"\x01a": [Store("t", "a", {}), REPLY], b"\x01b": [Store("t", "b", {}), REPLY], b"\x01c": [LATER]})
    agent, done, _lines = driver(core)
    for data in (b"\x01a", b"\x01b", b"\x01c"):
        agent._take(datagrams(data))
    assert done == []
    assert not agent._committed_all.is_set()
    agent.commits.commit(agent)
    assert done == [["a", "b"], REPLY, REPLY, LATER], "one commit for all, and nothing overtakes"
    assert agent._committed_all.is_set()
    agent._take(datagrams(b"\x01c"))
    assert done[-1] == LATER, "what is not to be stored waits for nothing"


def test_datagrams_wait_in_the_socket_when_the_disk_is_slow() -> None:
    core = Core({b"\x01a": [Store("t", "a", {}), REPLY]})
    agent, _done, _lines = driver(core)
    calls: list[str] = []
    agent._loop = SimpleNamespace(add_reader=lambda *_: calls.append("read"), remove_reader=lambda *_: calls.append("wait"))
    agent.registration = SimpleNamespace(fileno=lambda: 3)
    for _ in range(UNCOMMITTED_MAX):
        agent._take(datagrams(b"\x01a"))
    assert calls == ["wait"]
    agent.commits.commit(agent)
    assert calls == ["wait", "read"]


def test_without_the_disk_no_reply_leaves() -> None:
    agent, done, lines = driver(Core({b"\x01a": [Store("t", "a", {}), REPLY, Log("registration", {})]}), broken=True)
    agent._take(datagrams(b"\x01a"))
    agent.commits.commit(agent)
    assert done == []
    assert [row["event"] for row in lines.rows] == ["failed", "registration"]
    assert "disk full" in lines.rows[0]["what"]


def test_a_defect_of_the_core_is_logged_and_the_next_datagram_is_handled() -> None:
    agent, done, lines = driver(Core({b"\x01a": ZeroDivisionError("x"), b"\x01b": [REPLY]}))
    agent._take(datagrams(b"\x01a", b"\x01b"))
    assert done == [REPLY]
    assert lines.rows[0]["event"] == "defect"
    assert "ZeroDivisionError" in lines.rows[0]["what"]
    assert lines.rows[0]["where"].startswith("test_driver.py:")


def test_a_refusal_of_the_kernel_does_not_stop_the_others() -> None:
    agent, done, lines = driver(Core({}))

    def refuse(_action: Any) -> None:
        raise OSError(1, "Operation not permitted")

    agent._perform_one[AtHome] = refuse
    agent.perform([AtHome("mn-home", True), REPLY])
    assert done == [REPLY]
    assert lines.rows[0]["event"] == "failed-AtHome"
    agent._perform_one.pop(AtHome)
    agent.perform([AtHome("mn-home", True), REPLY])
    assert agent.problems.counts == {"failed-AtHome": 1, "failed": 1}


def test_tunnel_data_from_nobody_is_counted_not_shown() -> None:
    agent, done, _lines = driver(Core({}))
    agent._take(datagrams(b"\x04\x04\0\0" + b"x" * 20))
    assert (done, agent.problems.counts) == ([], {"stranger": 1})


def test_fields_of_a_line_keep_their_meaning() -> None:
    agent, _done, lines = driver(Core({}))
    agent.perform([Log("state", {"event": "care-of", "agent": "10.9.0.1", "bid": 1})])
    assert lines.rows == [{"event": "state", "event_": "care-of", "agent_": "10.9.0.1", "bid": 1}]


def test_the_timer_follows_the_deadline_of_the_core() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        core = Core({})
        agent, _done, _lines = driver(core)
        core.deadline_s = loop.time() + 60
        agent.plan()
        assert agent._timer.when() == core.deadline_s
        core.deadline_s = None
        agent.plan()
        assert agent._timer is None
        core.deadline_s = 0.0
        agent.plan()
        assert agent._timer.when() > loop.time() - 1, "the past is now"
        agent._timer.cancel()

    asyncio.run(main())


def test_forwarding_of_many_is_one_transaction_before_the_replies() -> None:
    one, two, three = (Forwarding(f"10.33.0.{last}") for last in (1, 2, 3))
    tunnel = Tunnel("10.33.0.2", "10.1.0.100")
    opened, closed, defended = OpenTunnel(tunnel), CloseTunnel(tunnel), DefendAddress("10.33.0.1")
    assert gathered([one, defended, REPLY, opened, two, REPLY]) == [opened, [one, two], defended, REPLY, REPLY]
    assert gathered([one, closed, opened, two, REPLY, three]) == [one, closed, opened, [two, three], REPLY]
    assert gathered([REPLY, one]) == [REPLY, one]
    assert gathered([one, AtHome("mn-home", True), two]) == [one, AtHome("mn-home", True), two]
    many = gathered([*([one] * (FORWARDED_AT_ONCE + 1)), REPLY])
    assert [len(item) if isinstance(item, list) else item for item in many] == [FORWARDED_AT_ONCE, one, REPLY]


def test_what_is_refused_together_is_tried_one_by_one() -> None:
    agent, done, lines = driver(Core({}))
    good, bad = Forwarding("10.33.0.1"), Forwarding("10.33.0.2")

    class Forwarder:
        def forward(self, *forwardings: Forwarding) -> None:
            if bad in forwardings:
                raise OSError(2, "nft: refused")
            done.append(forwardings)

    agent.forwarder = Forwarder()
    agent._perform_one[Forwarding] = agent.forwarder.forward
    agent.perform([good, bad, REPLY])
    assert done == [(good,), REPLY]
    assert [row["event"] for row in lines.rows] == ["failed-Forwarding"]
