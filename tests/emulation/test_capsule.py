"""The capsule isolates, and nothing of it outlives its runner, whoever is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import capsule
from tests.processes import MARK, all_processes, marked, namespaces, new_mark
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation

GONE_WITHIN_S = 5.0
_KINDS = [pytest.param(False, id="root"), pytest.param(True, id="user-namespace")] if os.geteuid() == 0 else [True]

# What a run is made of: interfaces, a node in a network namespace of its own, a daemon that has left its session.
_INSIDE = """ip link add v0 type veth peer name v1
setsid sleep 1000 &
unshare --net setsid sh -c 'echo ready; exec sleep 1000' &
wait"""
_RUNNER = """
import subprocess, sys
from experiments import capsule
box = capsule.launch(["sh", "-c", sys.argv[1]], stdout=subprocess.PIPE, user_namespace=sys.argv[2] == "True")
print(box.process.stdout.readline().decode().strip(), box.process.pid, flush=True)
box.wait()
"""


@contextlib.contextmanager
def _started(mark: str, argv: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process with the mark, ended at the latest with the block. With nohup even tests would ignore SIGHUP."""
    argv = ["env", "--default-signal=HUP", *argv]
    environment = {**capsule.environment(), MARK: mark}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, cwd=capsule.ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def _ready(process: "subprocess.Popen[str]") -> int:
    """Process id of the capsule's outermost process."""
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return int(pid)


def _interfaces() -> list[str]:
    return sorted(entry["ifname"] for entry in json.loads(subprocess.check_output(["ip", "-j", "link"])))


def _assert_gone(mark: str, inside: set[str], alive: list[int]) -> None:
    """Nothing of the capsule is left. `alive`: processes at the moment of the kill; later ones may reuse namespace numbers."""
    wait_until(lambda: not marked(mark), GONE_WITHIN_S, "end of every process of the capsule")
    # A dying process gives up its memory, where the mark is, before its namespaces.
    wait_until(lambda: not inside & namespaces(alive), GONE_WITHIN_S, "end of every namespace of the capsule")


@pytest.mark.parametrize("user_namespace", _KINDS)
@pytest.mark.parametrize("victim", ["runner", "unshare", "first process"])
def test_nothing_outlives_a_killed(victim: str, user_namespace: bool) -> None:
    before = _interfaces()
    mark = new_mark()
    with _started(mark, [sys.executable, "-c", _RUNNER, _INSIDE, str(user_namespace)]) as process:
        unshare_pid = _ready(process)
        own = namespaces([os.getpid()])
        inside = namespaces(list(marked(mark))) - own
        assert len(inside) >= 4, "the capsule and its node have namespaces of their own"
        children = Path(f"/proc/{unshare_pid}/task/{unshare_pid}/children").read_text().split()
        victims = {"runner": process.pid, "unshare": unshare_pid, "first process": int(children[0])}
        alive = all_processes()
        os.kill(victims[victim], signal.SIGKILL)
        _assert_gone(mark, inside, alive)
    assert _interfaces() == before


@pytest.mark.parametrize("user_namespace", _KINDS)
def test_runner_of_a_killed_shell_ends_with_the_capsule(user_namespace: bool) -> None:
    """The command line asks for a hang-up when its parent dies; here the same request with the default action."""
    mark = new_mark()
    runner = _RUNNER.replace("import subprocess", "import ctypes; ctypes.CDLL(None).prctl(1, 1)\nimport subprocess", 1)
    argv = ["sh", "-c", '"$0" "$@"; true', sys.executable, "-c", runner, _INSIDE, str(user_namespace)]
    with _started(mark, argv) as process:
        _ready(process)
        inside = namespaces(list(marked(mark))) - namespaces([os.getpid()])
        alive = all_processes()
        process.kill()
        _assert_gone(mark, inside, alive)


@pytest.mark.parametrize("user_namespace", _KINDS)
def test_inside_is_another_world(user_namespace: bool) -> None:
    script = "ip -br link; hostname; ls /run; id -u; echo $TMPDIR; touch /run/xtables.lock && echo writable"
    box = capsule.launch(["sh", "-c", script], stdout=subprocess.PIPE, user_namespace=user_namespace)
    out = box.process.communicate(timeout=20)[0].decode()
    box.close()
    assert "lo" in out.split("\n")[0]
    assert len([line for line in out.splitlines() if "link/" in line or "UP" in line]) <= 1
    assert "writable" in out
    assert "/run/roamlab/tmp" in out


def test_exit_code_and_graceful_end() -> None:
    box = capsule.launch(["sh", "-c", "exit 7"])
    assert box.wait(20) == 7
    box.close()
    box = capsule.launch(["sh", "-c", "trap 'echo told; exit 3' TERM; echo up; sleep 1000 & wait"], stdout=subprocess.PIPE)
    assert box.process.stdout is not None
    assert box.process.stdout.readline() == b"up\n"
    box.ask_to_end()
    assert box.process.stdout.readline() == b"told\n"
    assert box.wait(20) == 3
    box.close()


def test_two_capsules_side_by_side_do_not_see_each_other() -> None:
    script = "ip link add same type veth peer name other && echo up; read line"
    boxes = [capsule.launch(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for box in boxes:
        assert box.process.stdout is not None
        assert box.process.stdout.readline() == b"up\n"
    for box in boxes:
        box.close()
        assert box.wait(20) != 0


def test_reason_when_the_kernel_forbids_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    real = capsule.command_line
    monkeypatch.setattr(
        capsule, "command_line", lambda argv, fd, user_namespace: [*real(argv, fd, user_namespace=user_namespace)[:4], "false"]
    )
    reason = capsule.why_not()
    assert reason is not None
    assert reason.startswith("no namespaces")
    assert "\n" not in reason
