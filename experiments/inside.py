"""One run, executed inside its capsule.

    python -m experiments.inside ORDER.json

The order holds the run, the folder and what the runner knows of the machine. Progress goes to standard output as JSON lines.
Whatever happens, the run directory ends with a manifest that says so; only a killed run leaves its folder `.partial`.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments import events, mechanisms, workloads
from experiments.captures import Capture
from experiments.clock import now_ns, sleep_until, wall_ns
from experiments.errors import RoamlabError, Unsupported
from experiments.manifest import describe_run, event_dict
from experiments.model import RECOVERY_LIMIT_S, Event, RunSpec
from experiments.rundir import RunDirectory, append_line
from experiments.testbed import Testbed
from experiments.workloads.base import RunningWorkload
from topologies import registry
from topologies.links.netns import LinkError
from topologies.nodes import NodeError

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CHECK_EVERY_NS = 50_000_000
_PROGRESS_EVERY_NS = 250_000_000


class Interrupted(RoamlabError):
    """Somebody asked the run to end early."""


def _raise_interrupted(number: int, _frame: object) -> None:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def _progress(phase: str, **fields: Any) -> None:
    print(json.dumps({"phase": phase, **fields}), flush=True)


class Execution:
    """The steps of one run, in the order in which they happen."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.spec = RunSpec.from_dict(order["run"])
        self.directory = RunDirectory(Path(order["folder"]), order["run_id"])
        self.mechanism = mechanisms.make(self.spec.mechanism)
        self.workload = workloads.make(self.spec.workload)
        self.timeline = events.expand(self.spec.scenario.events)
        self.captures: list[Capture] = []
        self.ended_captures: list[dict[str, Any]] = []
        self.bed: Testbed | None = None
        self.running: RunningWorkload | None = None
        self.found: dict[str, Any] = {}
        """What the run adds to its manifest."""

    # -- steps ----------------------------------------------------------------------------------------------------

    def build(self) -> Testbed:
        """The network with its addresses, and the mechanism ready on it."""
        _progress("building")
        scenario = self.spec.scenario
        absent, silent = events.absent_at_start(scenario.events), events.out_of_range_at_start(scenario.events)
        parameters = registry.with_homes(scenario.topology, scenario.parameters, self.mechanism.homes)
        bed = Testbed(scenario.topology, parameters, self.directory.path, seed=self.spec.seed, absent=absent, silent=silent)
        self.bed = bed
        bed.family = scenario.family
        bed.start()
        bed.prepare_attachments(events.attachments(scenario.events))
        self.found |= bed.describe()
        self.mechanism.prepare(bed)
        self.found["addresses"] = {name: bed.addresses(bed.node(name)) for name in ("mn", "cn")}
        return bed

    def capture(self, bed: Testbed) -> None:
        """Captures on every interface of interest, running before the first packet of the workload."""
        _progress("starting captures")
        for node_name, interface in bed.capture_points():
            self._capture_interface(bed, node_name, interface)
        for capture in self.captures:
            capture.wait_ready()

    def _capture_interface(self, bed: Testbed, node_name: str, interface: str) -> Capture:
        """Start one capture; the file of an interface that comes for the n-th time ends in -n."""
        earlier = sum(entry["interface"] == interface for entry in self.ended_captures)
        capture = Capture(bed.node(node_name), interface, self.directory.path, part=earlier + 1)
        self.captures.append(capture)
        return capture

    def _take_captures(self, interface: str) -> list[Capture]:
        """The captures of one interface, no longer watched: dumpcap ends by itself when its interface vanishes."""
        taken = [capture for capture in self.captures if capture.interface == interface]
        self.captures = [capture for capture in self.captures if capture not in taken]
        return taken

    def run(self, bed: Testbed) -> None:
        """The workload and the timeline; returns when the workload has ended or its time is over."""
        bed.reset_link_statistics()
        self.running = self.workload.start(bed, self.mechanism, self.spec.scenario, self.spec.seed)
        t0_ns = self.running.t0_mono_ns
        self.found |= {"t0_mono_ns": t0_ns, "t0_wall_ns": wall_ns() - (now_ns() - t0_ns)}
        self._mark("workload connected", t0_ns)
        self.found["congestion_control"] = bed.congestion_control()
        context = events.Context(bed, self.mechanism)
        for at_s, moment in groupby(self.timeline, key=lambda event: event.at_s):
            self._wait(bed, t0_ns + int(at_s * 1e9), until_finished=False)
            self._perform(bed, list(moment), context)
        if not self._await_end(bed, t0_ns):
            self._mark("workload not finished in time", now_ns())
        self._mark("workload ended", now_ns())

    def _perform(self, bed: Testbed, moment: list[Event], context: events.Context) -> None:
        """Events of one moment, and the captures of interfaces that come and go by them."""
        gone = [event.target for event in moment if event.kind == "interface-vanishes"]
        vanishing = [capture for target in gone for capture in self._take_captures(target)]
        for line in events.perform_at_once(moment, context, self.found["t0_mono_ns"]):
            self._record(line)
        self.ended_captures += [capture.stop() for capture in vanishing]
        for event in moment:
            if event.kind == "interface-appears":
                self._capture_interface(bed, bed.owner_of(event.target).name, event.target).wait_ready()

    def _await_end(self, bed: Testbed, t0_ns: int) -> bool:
        """Wait for the workload's end; False when it does not come.

        A connection that brought nothing new within the recovery limit after the last event is given up then; any other gets
        the limit after its planned end as well.
        """
        assert self.running is not None
        last_event_ns = t0_ns + int(max([0.0, *(event.at_s for event in self.timeline)]) * 1e9)
        limit_ns = int(RECOVERY_LIMIT_S * 1e9)
        if self._wait(bed, last_event_ns + limit_ns, until_finished=True):
            return True
        last_bytes_ns = self.running.last_bytes_ns
        if last_bytes_ns is not None and last_bytes_ns < last_event_ns:
            return False
        end_ns = t0_ns + int(self.spec.scenario.duration_s * 1e9)
        return self._wait(bed, max(end_ns, last_event_ns) + limit_ns, until_finished=True)

    def _wait(self, bed: Testbed, until_ns: int, *, until_finished: bool) -> bool:
        """Let time pass, watching every program; True when the workload finished before `until_ns`."""
        assert self.running is not None
        next_progress_ns = 0
        while True:
            finished = self.running.finished()
            self._check(bed, self.running)
            if finished and until_finished:
                return True
            time_ns = now_ns()
            if time_ns >= next_progress_ns:
                t_s = (time_ns - self.running.t0_mono_ns) * 1e-9
                _progress("running", t_s=round(t_s, 2), bytes=self.running.bytes)
                next_progress_ns = time_ns + _PROGRESS_EVERY_NS
            if time_ns >= until_ns:
                return finished
            sleep_until(min(until_ns, time_ns + _CHECK_EVERY_NS))

    def _check(self, bed: Testbed, running: RunningWorkload) -> None:
        running.check()
        bed.check()
        for capture in self.captures:
            capture.check()

    def _record(self, line: dict[str, Any]) -> None:
        append_line(self.directory.path / "timeline.jsonl", line)
        _progress("event", kind=line["kind"], target=line["target"], t_s=round(line["at_s"], 3))

    def _mark(self, text: str, mono_ns: int) -> None:
        at_s = (mono_ns - self.found["t0_mono_ns"]) * 1e-9
        line = {"kind": text, "target": "", "planned_s": None, "at_s": at_s, "done_s": at_s, "mono_ns": mono_ns,
                "wall_ns": wall_ns() - (now_ns() - mono_ns), "parameters": {}, "phase": "mark", "note": ""}  # fmt: skip
        append_line(self.directory.path / "timeline.jsonl", line)

    def settle(self) -> None:
        """End the workload and the captures; collect counters. Also after a failure, as far as things have come."""
        _progress("finishing")
        if self.running is not None:
            self.running.stop()
        while self.captures:
            self.ended_captures.append(self.captures.pop(0).stop())
        self.found["captures"] = self.ended_captures
        if self.bed is not None:
            self.found["relay"] = self.bed.link_statistics()
            self.found["sysctls"] = self.bed.all_sysctls()

    # -- the whole ------------------------------------------------------------------------------------------------

    def execute(self) -> str:
        """Do all steps and write the manifest; the state: complete, failed, interrupted or unsupported."""
        state, reason = self._attempt(self._steps)
        for number in _ENDING_SIGNALS:  # what follows is short and must be written
            signal.signal(number, signal.SIG_IGN)
        settled, trouble = self._attempt(self.settle)
        if settled != "complete":
            state, reason = (
                ("failed" if state == "complete" else state),
                f"{reason + '; ' if reason else ''}at the end: {trouble}",
            )
        self.directory.finish(self.manifest(state, reason))
        return state

    def _steps(self) -> None:
        bed = self.build()
        self.capture(bed)
        _progress("ready")
        sys.stdin.readline()  # the runs of a batch start together, when all networks have been built
        self.run(bed)

    @staticmethod
    def _attempt(step: Callable[[], None]) -> tuple[str, str | None]:
        """Do a step; state and reason. The outermost boundary of a run: every error becomes the manifest's reason."""
        try:
            step()
        except Unsupported as error:
            return "unsupported", str(error)
        except Interrupted as error:
            return "interrupted", str(error)
        except (RoamlabError, NodeError, LinkError, TimeoutError) as error:
            return "failed", str(error)
        except Exception as error:  # a defect of ours: the run says so, and the console log has the trace
            traceback.print_exc()
            return "failed", f"{type(error).__name__}: {error}"
        return "complete", None

    def manifest(self, state: str, reason: str | None) -> dict[str, Any]:
        """Everything that is needed to understand and to repeat the run."""
        return {
            **describe_run(self.spec, self.order["run_id"], self.order["campaign"], state, reason),
            "timeline_planned": [event_dict(event) for event in self.timeline],
            **self.found,
            "ended_mono_ns": now_ns(),
            **self.order["environment"],
        }


def main() -> None:
    """Read the order, execute it; exit code 0 when the run is complete or unsupported, 1 otherwise."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, _raise_interrupted)
    order = json.loads(Path(sys.argv[1]).read_text())
    execution = Execution(order)
    state = execution.execute()
    _progress("done", state=state)
    sys.exit(0 if state in ("complete", "unsupported") else 1)


if __name__ == "__main__":
    main()
