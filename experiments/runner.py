"""A campaign: the runs of an experiment, each in a capsule of its own, several at a time, and the file that lists them.

The runner never works inside a capsule; it starts them, reads their progress, and completes the run directory of a run that
could not do so itself. Everything it starts dies with it (see `experiments.capsule`).
"""

import contextlib
import json
import os
import selectors
import shutil
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from experiments import events, features, mechanisms, workloads
from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.manifest import describe_run, why_not_carried
from experiments.model import RECOVERY_LIMIT_S, Experiment, RunSpec
from experiments.places import Box, Here, Place
from experiments.rundir import SCHEMA, RunDirectory, new_campaign_id, read_json, write_json
from experiments.version import describe_version
from topologies import registry

_SETUP_LIMIT_S = 90.0
"""A run that needs longer than its scenario, the recovery limit and this is ended as failed."""
_END_GRACE_S = 15.0
_FREE_DISK_BYTES = 200_000_000
ENDED_WELL = ("complete", "unsupported")


class Observer(Protocol):
    """Who wants to know how a campaign proceeds."""

    def run_started(self, spec: RunSpec) -> None: ...

    def run_progress(self, spec: RunSpec, report: Mapping[str, Any]) -> None: ...

    def run_ended(self, spec: RunSpec, state: str, reason: str | None) -> None: ...


@dataclass
class _Active:
    """A run under way."""

    spec: RunSpec
    directory: RunDirectory
    box: Box
    deadline_ns: int
    buffer: bytes = b""
    ready: bool = False
    """Its network is built and its captures run."""
    ending: str | None = None
    """Why the runner asked it to end."""
    ending_state: str = "interrupted"

    @property
    def stdout_fd(self) -> int:
        assert self.box.process.stdout is not None
        return self.box.process.stdout.fileno()


@dataclass
class Campaign:
    """The runs that one command started together."""

    experiment: Experiment
    results: Path
    observer: Observer
    jobs: int = 1
    repetitions: int = 1
    seed: int = 1
    same_seed: bool = False
    """Every repetition has the same seed."""
    busy_processes: int = 0
    """How many processes keep the machine's processors busy meanwhile, on purpose."""
    command: Sequence[str] = ()
    place: Place = field(default_factory=Here)
    states: dict[str, str] = field(default_factory=dict)
    """Run id to state, in the order in which runs ended."""

    def check(self) -> None:
        """Everything that can be wrong before the first run starts. Raises RoamlabError."""
        for name in self.experiment.mechanisms:
            mechanisms.make(name)
        for workload in self.experiment.workloads:
            workloads.make(workload)
        for scenario in self.experiment.scenarios:
            for event in scenario.events:
                events.check(event)
            try:
                topo = registry.make(scenario.topology, dict(scenario.parameters))
            except ValueError as error:
                raise RoamlabError(f"scenario {scenario.name}: {error}") from error
            events.check_targets(scenario.events, topo)
        self.folder = self.results / self.experiment.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RoamlabError(f"{self.folder}: cannot be made: {error.strerror}") from error
        free = shutil.disk_usage(self.folder).free
        if free < _FREE_DISK_BYTES:
            raise RoamlabError(
                f"{self.folder}: only {free // 10**6} MB free, {_FREE_DISK_BYTES // 10**6} MB are needed: "
                "delete old results or choose another --results"
            )
        self.available = self.place.probe()
        features.require_basics(self.available)

    def execute(self) -> Path:
        """Run everything; return the campaign file. An interruption ends the active runs and is raised again."""
        self.check()
        self.campaign = new_campaign_id(self.folder)
        self.environment = {
            **self.place.describe(),
            "capabilities": self.available,
            "roamlab": describe_version(),
            "command": list(self.command),
            "same_seed": self.same_seed,
            "busy_processes": self.busy_processes,
        }
        specs = deque(self.experiment.runs(repetitions=self.repetitions, seed=self.seed, same_seed=self.same_seed))
        self._write("running")
        active: dict[int, _Active] = {}
        selector = selectors.DefaultSelector()
        try:
            while specs:
                self._start_batch(specs, selector, active)
                while active:
                    self._pump(selector, active)
                    self._release_when_ready(active)
        except BaseException as error:
            state = "failed" if isinstance(error, Exception) else "interrupted"
            self._abandon(active, f"{state}: {str(error) or type(error).__name__}", state)
            with contextlib.suppress(RoamlabError):  # the disk may be what failed
                self._write(state)
            raise
        self._write("failed" if self.failed else "complete")
        return self.file

    @property
    def file(self) -> Path:
        """The campaign file, once it has been started."""
        return self.folder / f"{self.campaign}.json"

    @property
    def failed(self) -> bool:
        """Did a run not end well?"""
        return not all(state in ENDED_WELL for state in self.states.values())

    def _start_batch(self, specs: deque[RunSpec], selector: selectors.BaseSelector, active: dict[int, "_Active"]) -> None:
        """Start the next runs. They build their networks together and then wait for each other.

        Building a network takes all the CPU there is, and would disturb the timing of a run that is measuring already.
        """
        while specs and len(active) < self.jobs:
            started = self._start(specs.popleft())
            if started is not None:
                active[started.stdout_fd] = started
                selector.register(started.stdout_fd, selectors.EVENT_READ)

    @staticmethod
    def _release_when_ready(active: Mapping[int, "_Active"]) -> None:
        """When every run of the batch has its network: let them all go."""
        if not all(run.ready for run in active.values()):
            return
        for run in active.values():
            stdin = run.box.process.stdin
            if stdin is not None and not stdin.closed:
                with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile; its end is seen on its output
                    stdin.write(b"go\n")
                    stdin.close()

    # -- one run --------------------------------------------------------------------------------------------------

    def _start(self, spec: RunSpec) -> _Active | None:
        run_id = f"{self.campaign}-{spec.slug}"
        directory = RunDirectory(self.folder, run_id)
        directory.create()
        self.observer.run_started(spec)
        needs = mechanisms.REGISTRY[spec.mechanism].requires
        reason = features.why_unsupported(needs, self.available) or why_not_carried(spec)
        if reason is not None:
            self._complete(spec, directory, "unsupported", reason)
            return None
        order = {"run": spec.to_dict(), "folder": str(self.folder.resolve()), "run_id": run_id,
                 "campaign": self.campaign, "environment": self.environment}  # fmt: skip
        order_path = directory.path / "logs" / "order.json"
        write_json(order_path, order)
        limit_s = self.place.wall_limit_s(spec.scenario.last_s + RECOVERY_LIMIT_S + _SETUP_LIMIT_S)
        with (directory.path / "logs" / "console.log").open("wb") as console:
            box = self.place.launch(order_path.resolve(), console, limit_s)
        assert box.process.stdout is not None
        os.set_blocking(box.process.stdout.fileno(), False)
        return _Active(spec, directory, box, now_ns() + int(limit_s * 1e9))

    def _pump(self, selector: selectors.BaseSelector, active: dict[int, _Active]) -> None:
        """Read what the active runs report; finish those that have ended or whose time is over."""
        for key, _ in selector.select(timeout=0.5):
            run = active[key.fd]
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if data:
                self._report(run, data)
            else:
                selector.unregister(key.fd)
                del active[key.fd]
                self._ended(run)
        for run in list(active.values()):
            if now_ns() > run.deadline_ns:
                if run.ending is None:
                    run.ending, run.ending_state = "no end in time: the run hung", "failed"
                    run.deadline_ns = now_ns() + int(_END_GRACE_S * 1e9)
                    run.box.ask_to_end()
                else:
                    run.box.close()  # its output ends with it, and the run with that

    def _report(self, run: _Active, data: bytes) -> None:
        *lines, run.buffer = (run.buffer + data).split(b"\n")
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:
                continue  # a stray print of a library; the console log has what matters
            if isinstance(report, dict):
                run.ready |= report.get("phase") == "ready"
                self.observer.run_progress(run.spec, report)

    def _ended(self, run: _Active) -> None:
        """The run's output has ended: take its manifest, or write one for it. A capsule that is still there is cut off."""
        try:
            code: int | None = run.box.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            code = None
        run.box.close()
        if run.directory.final.is_dir():
            manifest = read_json(run.directory.final / "manifest.json")
            if run.ending and manifest["state"] not in ENDED_WELL:  # the runner knows better why it asked for the end
                manifest.update(state=run.ending_state, reason=run.ending)
                write_json(run.directory.final / "manifest.json", manifest)
            self._note(run.spec, run.directory, manifest["state"], manifest.get("reason"))
            return
        reason = run.ending or f"the {self.place.name} ended with exit code {code}: {self._last_line(run.directory)}"
        self._complete(run.spec, run.directory, run.ending_state if run.ending else "failed", reason)

    @staticmethod
    def _last_line(directory: RunDirectory) -> str:
        try:
            lines = (directory.path / "logs" / "console.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:300] if lines else "it said nothing"

    def _complete(self, spec: RunSpec, directory: RunDirectory, state: str, reason: str) -> None:
        """Write the manifest of a run that has none."""
        manifest = {**describe_run(spec, directory.final.name, self.campaign, state, reason), **self.environment}
        directory.finish(manifest)
        self._note(spec, directory, state, reason)

    def _note(self, spec: RunSpec, directory: RunDirectory, state: str, reason: str | None) -> None:
        directory.release()
        run_id = directory.final.name
        self.states[run_id] = state
        self._write("running")
        self.observer.run_ended(spec, state, reason)

    # -- the campaign ---------------------------------------------------------------------------------------------

    def _abandon(self, active: dict[int, _Active], reason: str, state: str) -> None:
        """End every active run; each writes down why, or the runner does. One that cannot be written stays `.partial`."""
        for run in active.values():
            run.ending, run.ending_state = reason, state
            run.box.ask_to_end()
        for run in active.values():
            with contextlib.suppress(RoamlabError, OSError):
                self._ended(run)

    def _write(self, state: str) -> None:
        experiment = self.experiment
        write_json(
            self.folder / f"{self.campaign}.json",
            {
                "schema": SCHEMA,
                "campaign": self.campaign,
                "experiment": experiment.name,
                "title": experiment.title,
                "summary": experiment.summary,
                "state": state,
                "command": list(self.command),
                "repetitions": self.repetitions,
                "seed": self.seed,
                "same_seed": self.same_seed,
                "busy_processes": self.busy_processes,
                "runs": list(self.states),
                "mechanisms": [{"name": n, "label": mechanisms.REGISTRY[n].label} for n in experiment.mechanisms],
                "workloads": [{"name": w.name, "kind": w.kind, "label": w.name} for w in experiment.workloads],
                "scenarios": [{"name": s.name, "label": s.label or s.name} for s in experiment.scenarios],
                "claims": [asdict(claim) for claim in experiment.claims],
            },
        )
