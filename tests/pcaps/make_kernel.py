"""Make the captures in `tests/pcaps/kernel` again: `sudo .venv/bin/python -m tests.pcaps.make_kernel [scenario ...]`.

Every scenario runs for IPv4 and for IPv6, in namespaces of its own: a mobile node with two paths (`wlan`, `lte`) and a
server; the kernel's MPTCP on both. `NAME-vN.json` tells what is known without the captures: what the sockets sent and
received, MPTCP_INFO and the kernel's MPTCP counters at both ends, and which fault was put in.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.pcaps import applications as app
from tests.pcaps.lab import CAPTURE_FILTER, PATHS, Lab, Recording, enter_capsule, mobile_address, save_json
from tests.pcaps.wires import Rule
from topologies.waiting import wait_until

OUT = Path(__file__).resolve().parent / "kernel"
SNAPLEN_BYTES = 160
LETTER = {"client": "m", "server": "c"}
NODE = {"client": "mn", "server": "cn"}


@dataclass(frozen=True)
class Scenario:
    """One kind of capture: what happens, and where it is captured."""

    name: str
    play: Callable[[Run], None]
    about: str
    points: tuple[str, ...]
    nat: tuple[str, ...]
    snaplen: int
    kept: str


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *points: str, nat: tuple[str, ...] = (), snaplen: int = SNAPLEN_BYTES, kept: str = CAPTURE_FILTER
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a function as a scenario; its name with dashes is the scenario's, its docstring goes into the JSON."""

    def register(play: Callable[[Run], None]) -> Callable[[Run], None]:
        name = play.__name__.strip("_").replace("_", "-")
        SCENARIOS[name] = Scenario(name, play, " ".join((play.__doc__ or "").split()), points, nat, snaplen, kept)
        return play

    return register


@dataclass
class Run:
    """What a scenario works with: the lab, its rules, and the notes for the expectation file."""

    lab: Lab
    scenario: Scenario
    folder: Path
    rules: list[tuple[str, str, Rule]] = field(default_factory=list)
    pairs: list[app.Pair] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    recordings: dict[str, Recording] = field(default_factory=dict)
    faults: list[dict[str, object]] = field(default_factory=list)

    @property
    def family(self) -> int:
        return self.lab.family

    def limits(self, node: str, subflows: int = 2, add_addr_accepted: int = 2) -> None:
        self.lab.command(node, "ip", "mptcp", "limits", "set", "subflows", str(subflows),
                         "add_addr_accepted", str(add_addr_accepted))  # fmt: skip

    def endpoint(self, node: str, verb: str, *words: str) -> None:
        self.lab.command(node, "ip", "mptcp", "endpoint", verb, *words)

    def join_by(self, path: str, *flags: str) -> None:
        """Let the mobile node join over a path by itself; limits of 2 on both sides."""
        for node in ("mn", "cn"):
            self.limits(node)
        self.endpoint("mn", "add", mobile_address(self.family, path), "dev", f"mn-{path}", "subflow", *flags)

    def rule(self, path: str, rule: Rule, what: str = "") -> None:
        """Put a middlebox on a path; `what` says its fault in the expectation file."""
        self.lab.wire(path).rules.append(rule)
        self.rules.append((path, what or type(rule).__name__, rule))

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Record at the scenario's points during the block, and until all sockets have said their last word."""
        try:
            for point in self.scenario.points:
                names = [f"{LETTER[point]}n-{path}" for path in PATHS]
                out = self.folder / f"{point}.pcapng"
                self.recordings[point] = Recording(self.lab, NODE[point], names, out, self.scenario.snaplen, self.scenario.kept)
            yield
            self.quiet()
            for path in PATHS:  # nothing gets out of an interface without carrier, not even the last packet of a capture
                self.lab.wire(path).cut = False
                self.lab.carrier(path, True)
            for recording in self.recordings.values():
                recording.stop()
        finally:
            for recording in self.recordings.values():
                recording.kill()

    def quiet(self, timeout_s: float = 10) -> None:
        """Return when no socket is left that could still send."""
        wait_until(lambda: not any(self.lab.open_sockets(node) for node in ("mn", "cn")), timeout_s, "all sockets closed")

    def connect(self, **words: object) -> app.Pair:
        """A connection that has carried a few bytes both ways, so that both sides know each other's keys."""
        pair = app.connect(self.lab, **words)  # type: ignore[arg-type]
        self.pairs.append(pair)
        app.exchange(pair, up=100)
        app.exchange(pair, down=100)
        return pair

    def connect_joined(self, joined: int = 1, **words: object) -> app.Pair:
        pair = self.connect(**words)
        app.wait_subflows(pair, 1 + joined)
        return pair

    def fault(self, what: str, **details: object) -> None:
        self.faults.append({"fault": what, **details})

    def require(self, node: str, counter: str, at_least: int = 1) -> None:
        """A scenario that did not do what it is for is no scenario: RuntimeError, and it is tried again."""
        if self.lab.counters(node).get(counter, 0) < at_least:
            raise RuntimeError(f"{self.scenario.name}: {counter} of {node} is below {at_least}: {self.lab.counters(node)}")

    def expectation(self) -> dict[str, object]:
        """The content of the JSON file."""
        return {
            "scenario": self.scenario.name, "about": self.scenario.about, "family": self.family, "kernel": os.uname().release,
            "captures": [
                {"file": f"{self.scenario.name}-v{self.family}.{point}.pcapng.gz", "point": point,
                 "interfaces": recording.interfaces, "snaplen": self.scenario.snaplen, "dropped": recording.dropped}
                for point, recording in self.recordings.items()
            ],
            "connections": [{side.name: side.told() for side in pair.sides} for pair in self.pairs],
            "faults": self.faults + [
                {"fault": what, "path": path, "hits": getattr(rule, "hits", 0)} for path, what, rule in self.rules
            ],
            "queue_overflows": {path: self.lab.wire(path).overflows for path in PATHS},
            "counters": {point: self.lab.counters(node) for point, node in NODE.items()},
            **self.notes,
        }  # fmt: skip


def make(chosen: Scenario, family: int) -> None:
    """Run one scenario and store its files. Raises what the scenario raises."""
    with tempfile.TemporaryDirectory() as name, Lab(family, nat=chosen.nat).running() as lab:
        # dumpcap may write as another user.
        os.chmod(name, 0o777)
        run = Run(lab, chosen, Path(name))
        chosen.play(run)
        for point in run.recordings:
            target = OUT / f"{chosen.name}-v{family}.{point}.pcapng.gz"
            # No name and time in the header: the same capture makes the same file.
            target.write_bytes(gzip.compress((Path(name) / f"{point}.pcapng").read_bytes(), 9, mtime=0))
        save_json(OUT / f"{chosen.name}-v{family}.json", run.expectation())


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"no scenario {unknown[0]!r}; there are: {' '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    enter_capsule()
    OUT.mkdir(exist_ok=True)
    failed = 0
    for name in names or SCENARIOS:
        for family in (4, 6):
            for attempt in (1, 2, 3):
                try:
                    make(SCENARIOS[name], family)
                except (RuntimeError, OSError) as error:  # TimeoutError is an OSError
                    print(f"{name} IPv{family}, attempt {attempt}: {error}", file=sys.stderr)
                else:
                    print(f"{name} IPv{family}")
                    break
            else:
                failed += 1
    return failed > 0


if __name__ == "__main__":
    # The module must be importable by name: its scenarios register themselves in it, not in `__main__`.
    from tests.pcaps import kernel_faults, kernel_scenarios  # noqa: F401
    from tests.pcaps.make_kernel import main as run_main

    sys.exit(run_main(sys.argv[1:]))
