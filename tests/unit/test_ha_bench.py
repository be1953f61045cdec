"""The home agent's benchmark measures what it says: its requests are real, and its page cannot praise what has failed."""

from typing import Any

import pytest

from agents.core.mobileip.actions import Datagram, SendMessage
from agents.core.mobileip.home_agent import HomeAgent
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.security import SecurityAssociation
from agents.kernel.mobileip.clock import now
from tests.bench import ha, ha_load, ha_tunnels


@pytest.fixture
def agent() -> HomeAgent:
    nodes = tuple(
        MobileNode((SecurityAssociation(ha_load.SPI, ha_load.key(node)),), ha_load.home_address(node), multipath=True)
        for node in range(3)
    )
    result = HomeAgent(HomeAgentConfig((ha_load.HOME_AGENT,), nodes, ha_load.HOME_PREFIX), bytes, {})
    result.start(now())
    return result


def replies(agent: HomeAgent, node: int, data: bytes) -> list[bytes]:
    actions = agent.handle_datagram(Datagram(data, ha_load.foreign_agent(node), 4000, ha_load.HOME_AGENT), now())
    return [action.data for action in actions if isinstance(action, SendMessage)]


def test_requests_are_accepted_and_forgeries_are_not(agent: HomeAgent) -> None:
    stamps = ha_load.stamps()
    for _ in range(2):
        for node in range(3):
            (reply,) = replies(agent, node, ha_load.signed(node, next(stamps)))
            assert reply[1] == 0
            assert ha_load.is_authentic(reply, node)
            assert not ha_load.is_authentic(reply, node + 1)
    assert agent.status()["bindings"] == 3
    (refused,) = replies(agent, 0, ha_load.forged(0, next(stamps)))
    assert refused[1] == 131
    assert agent.status()["bindings"] == 3


def test_a_request_that_is_not_answered_is_sent_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    load = ha_load.Load()
    sent: list[bytes] = []
    monkeypatch.setattr(load, "throw", lambda _node, data: sent.append(data))
    clock = [1000.0]
    monkeypatch.setattr(ha_load.time, "monotonic", lambda: clock[0])
    load.send(0, ha_load.signed(0, next(load.stamps)), 999.0)
    for at_s, count in ((1000.9, 1), (1001.0, 2), (1002.9, 2), (1003.1, 3), (1007.0, 3), (1007.2, 4)):
        clock[0] = at_s
        load.repeat()
        assert len(sent) == count, at_s
    assert len({data[16:24] for data in sent}) == 4, "every request has a timestamp of its own"
    (request,) = load.waiting.values()
    assert (request.due_s, load.repeated) == (999.0, 3)
    load.socket.close()


def test_percentiles() -> None:
    assert ha_load.percentiles([float(value) for value in range(100, 0, -1)]) == {
        "p50_ms": 51.0,
        "p99_ms": 100.0,
        "max_ms": 100.0,
    }
    assert ha_load.percentiles([]) == {}


def told(per_s: float = 2500.0, unanswered: int = 0, max_ms: float = 80.0) -> dict[str, Any]:
    row = {"per_s": per_s, "cpu_us": 200.0, "per_cpu_s": 5000.0, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": max_ms, "repeated": 0,
           "answered": 100, "unanswered": unanswered}  # fmt: skip
    flood = {"all": row, "victims": row, "flood": {"sent": 80_000, "s": 8.0}, "taken": 40_000, "processor_share": 0.5}
    return {
        "nodes": 10_000, "forged_per_s": 10_000, "fill": {**row, "cpu_us_of_the_first": 1.0, "cpu_us_of_the_last": 2.0},
        "closed": {"64": row}, "open": row, "flood": flood, "forged_cpu_us": 30.0, "bytes_per_binding": 7000.0,
        "rss_held": 1e8, "rss_empty": 3e7, "rss_end": 1e8, "state_bytes": 10**7, "restart_s": 3.0, "held_after_restart": 10_000,
        "start_empty_s": 1.0, "status_ms": 12.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (told(), "**reached**, 2,500/s"),
        (told(per_s=1999.0), "**not reached**, 1,999/s"),
        (told(), "all were accepted, the slowest after 0.08 s of the 240 s"),
        (told(unanswered=1), "**not all were accepted**: 2 had no answer"),
        (told(max_ms=241e3), "**not all were accepted**"),
        (told(), "took 50% of the forgeries"),
    ],
)
def test_the_page_says_whether_the_goals_are_reached(figures: dict[str, Any], text: str) -> None:
    assert text in ha.page({"machine": "a machine", "rounds": 1, "registrations": figures})


def test_a_tunnel_that_the_kernel_does_not_have_is_unsupported_with_the_reason() -> None:
    rows = {
        "none": [{"down_mbit": down, "up_mbit": up} for down, up in ((1000.0, 500.0), (3000.0, 500.0), (2000.0, 1.0))],
        "user-ipip": [{"down_mbit": 500.0, "up_mbit": 250.0}],
        "kernel-gre": [{"unsupported": "Operation not supported"}],
    }  # fmt: skip
    result = ha_tunnels.medians(rows)
    assert (result["user-ipip"]["down_ratio"], result["user-ipip"]["up_ratio"]) == (0.25, 0.5)
    text = "\n".join(ha_tunnels.lines(result))
    assert "| GRE, kernel | unsupported: Operation not supported |" in text
    assert "| IP in IP, TUN | 500 | 0.250 | 250 | 0.500 |" in text


def test_stamps_rise_and_are_in_the_window() -> None:
    found = [stamp for stamp, _ in zip(ha_load.stamps(), range(1000), strict=False)]
    assert found == sorted(set(found))
    ahead_s = (found[0] - now().ntp) / (1 << 32)
    assert 0 < ahead_s < 7
