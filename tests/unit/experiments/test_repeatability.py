"""Repetitions with one seed, the load of our own, and what the command line takes."""

import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from experiments.cli.guest import WithGuest, guest_option
from experiments.cli.repeatability import _existing
from experiments.errors import RoamlabError
from experiments.load import busy_processes, processors
from experiments.model import Experiment, Scenario
from tests.processes import MARK, marked, new_mark
from topologies.waiting import wait_until


def test_repetitions_with_the_same_seed() -> None:
    experiment = Experiment(name="x", title="", summary="", scenarios=(Scenario(name="s"),), mechanisms=("tcp",))
    for same, seeds in ((False, [7, 8, 9]), (True, [7, 7, 7])):
        runs = list(experiment.runs(repetitions=3, seed=7, same_seed=same))
        assert [run.seed for run in runs] == seeds
        assert [run.repetition for run in runs] == [0, 1, 2]


def test_load_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = new_mark()
    monkeypatch.setenv(MARK, mark)
    with busy_processes(2):
        wait_until(lambda: sum("while True" in line for line in marked(mark).values()) == 2, 10, "two busy processes")
    assert not marked(mark)
    assert processors() >= 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--guest", "outage"], ("outage", "virtual-time")),
        (["outage", "--guest"], ("outage", "virtual-time")),
        (["--guest", "-n", "2", "outage"], ("outage", "virtual-time")),
        (["--guest", "tcg", "outage"], ("outage", "tcg")),
        (["--guest=tcg", "outage"], ("outage", "tcg")),
        (["outage"], ("outage", None)),
    ],
)
def test_flavour_may_be_left_out_before_the_experiment(words: list[str], expected: tuple[str, str | None]) -> None:
    found: list[Any] = []

    @click.command(cls=WithGuest)
    @click.argument("experiment")
    @click.option("-n", type=int)
    @guest_option
    def command(experiment: str, n: int | None, guest: str | None) -> None:
        found.append((experiment, guest))

    done = CliRunner().invoke(command, words)
    assert (done.exit_code, found) == (0, [expected]), done.output
    assert "--guest" in CliRunner().invoke(command, ["--help"]).output
    assert CliRunner().invoke(command, ["--guest=fast", "outage"]).exit_code == 2


def test_what_is_compared(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in files:
        path.write_text("{}")
    assert _existing(("outage",)) == []
    assert _existing((str(files[0]), str(files[1]))) == files
    for wrong in ((str(files[0]),), ("outage", str(files[0])), ("outage", "demo"), (*map(str, files), "x.json")):
        with pytest.raises(RoamlabError, match="one experiment, or two campaign files"):
            _existing(wrong)
    with pytest.raises(RoamlabError, match=r"none\.json: No such file"):
        _existing((str(files[0]), str(tmp_path / "none.json")))


def test_load_needs_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "Popen", missing)
    with pytest.raises(RoamlabError, match="setpriv is not installed"), busy_processes(1):
        pass
