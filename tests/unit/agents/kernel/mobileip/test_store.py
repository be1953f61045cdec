"""Durable state: batches, restarts, damage."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from agents.core.mobileip.actions import Store
from agents.kernel.mobileip.store import Batch, Commits, StateFile, StoreError
from topologies.waiting import wait_until


def test_what_is_saved_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "ha.sqlite")
    file = StateFile(path)
    assert file.load() == {}
    file.save(
        [Store("bindings", "a|1", {"x": 1}), Store("bindings", "a|2", {"y": [2]}), Store("replay", "a|256", {"highest": 2**63})]
    )
    file.save([Store("bindings", "a|1", None), Store("bindings", "a|2", {"y": []}), Store("none", "z", None)])
    file.save([])
    file.close()
    assert StateFile(path).load() == {"bindings": {"a|2": {"y": []}}, "replay": {"a|256": {"highest": 2**63}}}


def test_the_last_of_a_batch_counts(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "ha.sqlite"), power_safe=False)
    file.save([Store("t", "k", {"n": 1}), Store("t", "k", None), Store("t", "k", {"n": 2})])
    assert file.load() == {"t": {"k": {"n": 2}}}


def test_a_batch_is_there_completely_or_not_at_all(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "ha.sqlite"))
    with pytest.raises(TypeError):
        file.save([Store("t", "good", {}), Store("t", "bad", {"value": object()})])
    assert file.load() == {}


class Slow:
    """A file whose first transaction ends when the test says so."""

    def __init__(self, file: StateFile) -> None:
        self.file, self.go_on, self.begun = file, threading.Event(), threading.Event()
        self.transactions: list[int] = []

    def save(self, rows: Iterable[Store]) -> None:
        found = list(rows)
        self.transactions.append(len(found))
        self.begun.set()
        assert self.go_on.wait(10)
        self.file.save(found)

    def close(self) -> None:
        self.file.close()


def test_what_comes_during_a_commit_is_one_transaction_and_is_done_after_it(tmp_path: Path) -> None:
    path = str(tmp_path / "ha.sqlite")
    slow, done = Slow(StateFile(path)), []
    commits = Commits(slow, lambda batches, error: done.append((len(batches), error)))  # type: ignore[arg-type]
    commits.put(Batch([Store("t", "0", {})]))
    assert slow.begun.wait(10)
    for number in range(1, 50):
        commits.put(Batch([Store("t", str(number), {"n": number})]))
    assert done == []
    slow.go_on.set()
    commits.close()
    assert (slow.transactions, done) == ([1, 49], [(1, None), (49, None)])
    assert len(StateFile(path).load()["t"]) == 50


def test_a_group_that_the_disk_refuses_is_told_so(tmp_path: Path) -> None:
    path, told = str(tmp_path / "ha.sqlite"), []
    commits = Commits(StateFile(path), lambda batches, error: told.append(error))
    commits.put(Batch([Store("t", "bad", {"value": object()})]))
    wait_until(lambda: told, 10, "the refusal")
    commits.put(Batch([Store("t", "good", {})]))
    commits.close()
    assert isinstance(told[0], TypeError)
    assert told[1:] == [None]
    assert StateFile(path).load() == {"t": {"good": {}}}


KILLED = """
import os, signal, sys
from agents.core.mobileip.actions import Store
from agents.kernel.mobileip.store import StateFile
file = StateFile(sys.argv[1])
for number in range(10):
    file.save([Store("t", str(number), {"n": number})])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_state_survives_sigkill(tmp_path: Path) -> None:
    path = str(tmp_path / "ha.sqlite")
    done = subprocess.run([sys.executable, "-c", KILLED, path], env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert StateFile(path).load() == {"t": {str(number): {"n": number} for number in range(10)}}


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 50, b"SQLite format 3\0" + b"\xff" * 4080]
)
def test_a_damaged_file_is_one_line_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ha.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"ha\.sqlite: cannot be used: .*move it away") as caught:
        StateFile(str(path)).load()
    assert "\n" not in str(caught.value)


def test_two_agents_cannot_have_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "ha.sqlite")
    first = StateFile(path)
    first.save([Store("t", "k", {})])
    with pytest.raises(StoreError, match="locked"):
        StateFile(path, timeout_s=0.1).load()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        StateFile(str(tmp_path / "none" / "ha.sqlite"))
