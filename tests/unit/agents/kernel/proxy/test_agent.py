"""What the agent does besides asking the core: problems, packets that are none."""

from typing import Any

from agents.kernel.proxy.agent import PROBLEM_INTERVAL_S, Problems
from agents.kernel.proxy.raw import RawSender
from agents.wire.tcp import build


def test_a_problem_is_counted_always_and_logged_now_and_then() -> None:
    lines: list[dict[str, Any]] = []

    class Log:
        def write(self, event: str, **fields: Any) -> None:
            lines.append({"event": event, **fields})

    problems = Problems(Log())  # type: ignore[arg-type]
    for moment in (0.0, 0.1, PROBLEM_INTERVAL_S, PROBLEM_INTERVAL_S + 0.1):
        problems.note("defect", moment, what="x")
    problems.note("other", 0.2)
    assert problems.counts == {"defect": 4, "other": 1}
    assert [(line["event"], line["count"]) for line in lines] == [("defect", 1), ("defect", 3), ("other", 1)]


def test_what_is_no_packet_is_not_sent() -> None:
    errors: list[tuple[str, str]] = []
    sender = RawSender(lambda address, reason: errors.append((address, reason)))
    for packet in (b"", b"\0", b"\x10" * 40):
        sender.send(packet)
        sender.deliver(packet)
    assert errors == [("?", "no IP packet")] * 6
    assert (sender.sent, sender.delivered, sender.failed) == (0, 0, 6)


def test_without_rights_a_packet_is_lost_and_nothing_raised(monkeypatch: Any) -> None:
    def refuse(*_values: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agents.kernel.proxy.raw.socket.socket", refuse)
    errors: list[tuple[str, str]] = []
    sender = RawSender(lambda address, reason: errors.append((address, reason)))
    packet = build(b"\n\0\0\1", 1, b"\n\0\0\2", 2, 3, 4, 0x10, 5)
    sender.send(packet)
    sender.deliver(packet)
    assert errors == [("10.0.0.1", "Operation not permitted"), ("10.0.0.2", "Operation not permitted")]
