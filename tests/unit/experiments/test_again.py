"""The workload `again`: a download, and later a new connection from the other address that the mechanism knows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import mechanisms, workloads
from experiments.errors import RoamlabError
from experiments.model import Scenario, Workload
from experiments.workloads.again import AGAIN, FIRST, Again
from experiments.workloads.base import RunningWorkload

SCENARIO = Scenario(name="s", duration_s=13.0)


class Bed:
    """Remembers what is started."""

    family = 4

    def __init__(self) -> None:
        self.mn, self.cn = SimpleNamespace(name="mn"), SimpleNamespace(name="cn")
        self.cn_paths: list[Any] = []
        self.ever_crashed: set[str] = set()
        self.commands: dict[str, list[str]] = {}

    def cn_address(self, family: int) -> str:
        return "10.65.0.2"

    def spawn(self, node: Any, argv: list[str], name: str, *, reports: bool = False) -> Any:
        self.commands[name] = argv
        return SimpleNamespace(name=name)


def made(**parameters: float) -> Again:
    workload = workloads.make(Workload(kind="again", parameters=parameters))
    assert isinstance(workload, Again)
    return workload


def option(argv: list[str], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


def test_the_new_connection_is_later_shorter_and_from_the_other_home_address() -> None:
    bed: Any = Bed()
    for name, flow in made(after_s=5).flows:
        flow.connect(Path("out"), bed, mechanisms.make("mip4-homes"), SCENARIO, 1, f"-{name}")
    first, again = bed.commands[f"client-{FIRST}"], bed.commands[f"client-{AGAIN}"]
    assert (option(first, "--bind"), option(again, "--bind")) == ("10.33.0.10", "10.34.0.10")
    assert (option(first, "--port"), option(again, "--port")) == ("80", "81")
    assert (option(first, "--seconds"), option(again, "--seconds")) == ("13.0", "8.0")
    assert (option(first, "--after-s"), option(again, "--after-s")) == (None, "5.0")


def test_nobody_waits_for_the_later_connection() -> None:
    bed: Any = Bed()
    waiting = SimpleNamespace(name=f"client-{AGAIN}")
    running = made().running(bed, SimpleNamespace(), waiting)  # type: ignore[arg-type]
    assert isinstance(running, RunningWorkload)
    assert running.t0_mono_ns == 0, "the first flow's moment is time 0"


def test_a_bad_delay_is_named() -> None:
    with pytest.raises(RoamlabError, match="after_s"):
        made(after_s=-1)
