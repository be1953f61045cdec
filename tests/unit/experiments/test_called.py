"""A connection that the CN opens: which program runs where, what it is told, and whose reports count."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import mechanisms, workloads
from experiments.errors import RoamlabError
from experiments.model import Scenario, Workload
from experiments.workloads.base import RunningWorkload

SCENARIO = Scenario(name="s", duration_s=10.0)


class Bed:
    """Remembers what is started where."""

    family = 4

    def __init__(self) -> None:
        self.mn, self.cn = SimpleNamespace(name="mn"), SimpleNamespace(name="cn")
        self.cn_paths: list[Any] = []
        self.paths = [SimpleNamespace(interface="mn-wlan")]
        self.ever_crashed: set[str] = set()
        self.started: dict[str, tuple[str, list[str]]] = {}

    def cn_address(self, family: int) -> str:
        return "10.65.0.2"

    def listen_address(self, family: int) -> str:
        return self.cn_address(family)

    def address_on(self, interface: str) -> str:
        return "10.1.0.100"

    def spawn(self, node: Any, argv: list[str], name: str, *, reports: bool = False) -> None:
        self.started[name] = node.name, argv


def both(mechanism: str, direction: str = "down", opened_by: str = "cn") -> dict[str, tuple[str, list[str]]]:
    bed: Any = Bed()
    workload = workloads.make(Workload(kind="bulk", direction=direction, parameters={"opened_by": opened_by}))
    chosen = mechanisms.make(mechanism)
    workload.serve(Path("out"), bed, chosen, SCENARIO)
    workload.connect(Path("out"), bed, chosen, SCENARIO, 1)
    return dict(bed.started)


def option(argv: list[str], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


def test_the_cn_calls_the_home_address_of_a_server_that_listens_everywhere() -> None:
    started = both("mip-mptcp")
    (server_on, server), (client_on, client) = started["server"], started["client"]
    assert (server_on, client_on) == ("mn", "cn")
    assert option(server, "--address") == "0.0.0.0"
    assert option(client, "--address") == "10.33.0.10"
    assert option(client, "--bind") is None
    assert server[0] == client[0] == "mptcpize"


def test_without_a_home_address_the_first_path_s_is_called() -> None:
    assert option(both("mptcp")["client"][1], "--address") == "10.1.0.100"


def test_a_cn_without_mptcp_runs_its_program_as_it_is() -> None:
    started = both("mip-mptcp-plain-cn")
    assert started["server"][1][0] == "mptcpize"
    assert started["client"][1][0] != "mptcpize"


@pytest.mark.parametrize(
    ("direction", "opened_by", "told"), [("down", "mn", "down"), ("up", "mn", "up"), ("down", "cn", "up"), ("up", "cn", "down")]
)
def test_down_is_from_cn_to_mn_whoever_calls(direction: str, opened_by: str, told: str) -> None:
    assert option(both("tcp", direction, opened_by)["client"][1], "--direction") == told


def test_another_caller_is_refused() -> None:
    with pytest.raises(RoamlabError, match="opened_by = 'ha1' must be one of mn, cn"):
        workloads.make(Workload(kind="bulk", parameters={"opened_by": "ha1"}))


def program(*reports: dict[str, Any]) -> Any:
    waiting: Iterator[dict[str, Any]] = iter(reports)
    return SimpleNamespace(next_report=lambda _timeout_s: next(waiting, None), running=lambda: True)


def test_the_receiver_s_reports_count_whichever_program_it_is() -> None:
    bed: Any = Bed()
    sender = program({"event": "done", "bytes": 999, "mono_ns": 9})
    receiver = program({"event": "progress", "bytes": 5, "mono_ns": 1}, {"event": "progress", "bytes": 7, "mono_ns": 2})
    for ends in ((receiver, sender), (sender, program({"event": "progress", "bytes": 7, "mono_ns": 2}))):
        running = RunningWorkload(bed, *ends, 0)
        assert not running.finished()
        assert (running.bytes, running.last_bytes_ns) == (7, 2)
