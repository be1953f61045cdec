"""Control sockets of agents that run right now, in whatever capsule of this user.

A capsule has a mount namespace of its own; /proc leads into it. Sockets: /run/roamlab/NODE-ROLE.sock, and netconf's in the
folder of its node.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import RoamlabError

_SHARED, _STATE = Path("run/roamlab"), Path("run/roamlab/state")


@dataclass(frozen=True)
class AgentSocket:
    """A running agent that can be asked."""

    capsule: int
    """Process id of the program that has built the network."""
    what: str
    """"shell", or the folder of the run."""
    node: str
    role: str
    path: Path

    @property
    def name(self) -> str:
        """NODE/ROLE"""
        return f"{self.node}/{self.role}"


def agents(proc: Path = Path("/proc")) -> list[AgentSocket]:
    """All of them. Processes of other users, and those that end meanwhile, are passed over."""
    found = []
    for folder in sorted((item for item in proc.iterdir() if item.name.isdigit()), key=lambda item: int(item.name)):
        what = _builder(folder)
        if what is not None:
            found += [AgentSocket(int(folder.name), what, node, role, path) for node, role, path in _sockets(folder / "root")]
    return found


def _builder(folder: Path) -> str | None:
    """What a process has built a network for; None when it has not."""
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        apart = os.readlink(folder / "ns" / "mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return None
    # The program itself, not `unshare` and PID 1 of the capsule that have its name among their arguments.
    if words[1:2] != ["-m"] or not apart:
        return None
    if words[2] == "experiments.shell_inside":
        return "shell"
    return str(Path(words[3]).parent.parent) if words[2] == "experiments.inside" and len(words) > 3 else None


def _sockets(root: Path) -> list[tuple[str, str, Path]]:
    try:
        shared = [(*path.stem.partition("-")[::2], path) for path in sorted((root / _SHARED).glob("*-*.sock"))]
        own = [(path.parent.name, path.stem, path) for path in sorted((root / _STATE).glob("*/*.sock"))]
    except OSError:
        return []
    return shared + own


def find(name: str, run: str, known: list[AgentSocket]) -> AgentSocket:
    """The one agent NODE/ROLE; `run` is a part of its run's folder or the capsule's process id. Raises RoamlabError."""
    fitting = [item for item in known if run in ("", str(item.capsule)) or (run and run in item.what)]
    matches = [item for item in fitting if item.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = ", ".join(f"{item.capsule} ({item.what})" for item in matches)
        raise RoamlabError(f"{name} runs several times: choose with --run: {choices}")
    there = ", ".join(sorted({item.name for item in fitting})) or "none: start a run or `roamlab shell`"
    raise RoamlabError(f"no agent {name!r}: there are {there}")
