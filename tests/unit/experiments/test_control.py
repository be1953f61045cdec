"""Finding the control sockets of running capsules."""

import os
from pathlib import Path

import pytest

from experiments.control import AgentSocket, agents, find
from experiments.errors import RoamlabError


def process(proc: Path, pid: int, words: list[str], sockets: tuple[str, ...] = (), namespace: str = "mnt:[9]") -> None:
    """A process in a made-up /proc whose root holds sockets."""
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    os.symlink(namespace, folder / "ns" / "mnt")
    (folder / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    for name in sockets:
        path = folder / "root" / "run" / "roamlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_runs_and_shells_are_found_and_others_are_not(tmp_path: Path) -> None:
    sockets = ("mn-proxy.sock", "cn-mptcp-endpoints.sock", "state/mn/netconf.sock")
    process(tmp_path, 12, ["python", "-m", "experiments.inside", "/results/outage/run-1.partial/logs/order.json"], sockets)
    process(tmp_path, 9, ["python", "-m", "experiments.shell_inside", "{}"], ("state/mn/netconf.sock",))
    process(tmp_path, 5, ["unshare", "--", "python", "-m", "experiments.inside", "x"], sockets)
    process(tmp_path, 6, ["python", "-m", "experiments.inside", "x"], sockets, os.readlink("/proc/self/ns/mnt"))
    process(tmp_path, 7, ["python", "-m", "experiments.inside", ""])
    process(tmp_path, 8, ["python"])
    (tmp_path / "meminfo").touch()
    (tmp_path / "13").mkdir()
    found = [(item.capsule, item.name, item.what) for item in agents(tmp_path)]
    assert found == [
        (9, "mn/netconf", "shell"),
        (12, "cn/mptcp-endpoints", "/results/outage/run-1.partial"),
        (12, "mn/proxy", "/results/outage/run-1.partial"),
        (12, "mn/netconf", "/results/outage/run-1.partial"),
    ]


def test_one_agent_is_found_and_several_must_be_chosen_from() -> None:
    known = [AgentSocket(pid, what, "mn", "proxy", Path("/s")) for pid, what in ((1, "/r/run-1"), (2, "/r/run-2"))]
    assert find("mn/proxy", "", known[:1]) is known[0]
    assert find("mn/proxy", "run-2", known) is known[1]
    assert find("mn/proxy", "1", known[:1]) is known[0]
    with pytest.raises(RoamlabError, match=r"several times: choose with --run: 1 \(/r/run-1\), 2 \(/r/run-2\)"):
        find("mn/proxy", "", known)
    with pytest.raises(RoamlabError, match="no agent 'mn/ha': there are mn/proxy"):
        find("mn/ha", "", known)
    with pytest.raises(RoamlabError, match="there are none: start a run"):
        find("mn/proxy", "run-9", known)
