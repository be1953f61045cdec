"""Calibration: does an emulated link do what its profile says? Measured by captures at both ends, not by the relay.

Runs inside a capsule. `python -m experiments.calibrate --inside preset:wlan preset:lte` prints JSON lines. What is measured and
how: experiments/calibration/measure.py and its neighbours; the hosts and captures: experiments/calibration/bench.py.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.calibration.bench import Bench, CalibrationError, bench
from experiments.calibration.change import measure_change
from experiments.calibration.jitter import measure_jitter
from experiments.calibration.measure import (
    measure_delay,
    measure_goodput,
    measure_loss,
    measure_queue,
    with_room,
    without_chance,
)
from experiments.calibration.order import measure_order
from experiments.calibration.plan import (
    CHANGE_TO_MBIT,
    EFFORTS,
    EXIT_FAILED,
    EXIT_MISSED,
    EXIT_OK,
    EXIT_UNSUPPORTED,
    JITTER_PACKETS_PER_S,
    Effort,
    asked_of,
)
from experiments.calibration.rows import failed_row
from topologies.links import netem
from topologies.links.netns import LinkError
from topologies.links.wire import BACKEND_VARIABLE, BACKENDS, choose_backend, wire
from topologies.profiles import LinkProfile

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One measurement in one direction over a link of its own or of the step before."""

    what: str
    link: LinkProfile
    """What the link is told to do."""
    measure: Callable[[Bench], list[dict[str, Any]]]


def steps(kind: str, name: str, asked: LinkProfile, direction: str, effort: Effort) -> list[Step]:
    """The measurements of a profile in one direction.

    Delay, goodput and queue are measured without the random parts of the profile, loss with them and with room in the queue.
    """
    certain = without_chance(asked)
    round_trip_s = 2 * asked.delay_ms / 1000
    # Slow start, the loss burst at its end and the first recovery take some tens of round trips.
    warm_up_s = max(3.0, 40 * round_trip_s)
    goodput_s = max(effort.goodput_s, 4 * round_trip_s)
    delay = partial(measure_delay, direction=direction, asked=certain, packets_per_s=effort.delay_packets_per_s,
                    seconds=effort.delay_s)  # fmt: skip
    goodput = partial(measure_goodput, direction=direction, asked=certain, warm_up_s=warm_up_s, seconds=goodput_s)
    queue = partial(measure_queue, direction=direction, asked=certain)
    loss = partial(measure_loss, direction=direction, asked=asked, packets=effort.loss_packets,
                   packets_per_s=effort.loss_packets_per_s)  # fmt: skip
    lossy = Step("loss", with_room(asked), loss)
    if kind == "loss":
        return [lossy]
    if kind == "jitter":
        packets_per_s = JITTER_PACKETS_PER_S[name]
        jitter = partial(measure_jitter, direction=direction, asked=asked, packets_per_s=packets_per_s,
                         seconds=effort.jitter_packets / packets_per_s)  # fmt: skip
        return [Step("jitter", asked, jitter)]
    if kind == "order":
        order = partial(measure_order, direction=direction, asked=asked, packets=effort.order_packets,
                        packets_per_s=effort.order_packets_per_s)  # fmt: skip
        return [Step("order", asked, order)]
    if kind == "change":
        return [
            Step("change", asked, partial(measure_change, direction=direction, asked=asked, new_rate_mbit=CHANGE_TO_MBIT[name]))
        ]
    if kind == "sweep":
        return [Step("TCP goodput", certain, goodput)]
    found = [Step("delay", certain, delay), Step("TCP goodput", certain, goodput), Step("queue", certain, queue)]
    return [*found, lossy] if asked.mean_loss else found


def calibrate(item: str, effort: Effort, *, seed: int = 1, progress: Progress = lambda _text: None) -> dict[str, Any]:
    """Measure what `item` (kind:name) names in both directions; {"profile", "label", "asked", "backend", "rows", "ok", ...}.

    Each row has quantity, direction, unit, asked, measured, error, target and ok; one that could not be measured has `why`.
    """
    kind, _, name = item.partition(":")
    asked = asked_of(item)
    rows: list[dict[str, Any]] = []
    wire().reset_stats()
    for direction in ("forward", "back"):
        planned = steps(kind, name, asked, direction, effort)
        for link, group in itertools.groupby(planned, key=lambda step: step.link):
            with bench(link, seed) as test:
                for step in group:
                    progress(f"{name} {direction}: {step.what}")
                    rows += [{"direction": direction, **row} for row in _measured(step, test)]
    stats = wire().stats()
    return {
        "profile": name,
        "kind": kind,
        "label": asked.describe(),
        "asked": asked.to_dict(),
        "backend": stats["backend"],
        "rows": rows,
        "ok": all(row["ok"] for row in rows),
        "relay": {key: value for key, value in stats.items() if key not in ("links", "ports")},
    }


def _measured(step: Step, test: Bench) -> list[dict[str, Any]]:
    try:
        return step.measure(test)
    except CalibrationError as error:
        return [failed_row(step.what, str(error))]


def results(items: list[str], effort: Effort, progress: Progress) -> Iterator[dict[str, Any]]:
    """One result for each item."""
    for item in items:
        yield calibrate(item, effort, progress=progress)


def _choose(backend: str | None) -> str | None:
    """Let links be made by a backend (None: by the one that they get here); None, or why that is not possible."""
    if backend == "netem":
        missing = netem.probe()
        if missing is not None:
            return f"netem does not work here: {missing}"
    if backend is not None:
        os.environ[BACKEND_VARIABLE] = backend
    try:
        choose_backend()
    except LinkError as error:
        return str(error)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Print JSON lines: {"progress": text}, {"result": {...}} per item, {"unsupported": why}, {"error": text}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", action="store_true", help="this process is in a capsule already")
    parser.add_argument("--backend", choices=BACKENDS, help="instead of the one that links get here")
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("items", nargs="*", help="kind:name, kind is preset, sweep, loss, jitter, order or change")
    options = parser.parse_args(arguments)
    if not options.inside:
        parser.error("run this through `roamlab calibrate`, which makes a capsule")

    def say(kind: str, value: object) -> None:
        print(json.dumps({kind: value}), flush=True)

    missing = _choose(options.backend)
    if missing is not None:
        say("unsupported", missing)
        return EXIT_UNSUPPORTED
    good = True
    try:
        for result in results(options.items, EFFORTS[options.effort], partial(say, "progress")):
            good &= result["ok"]
            say("result", result)
    except (LinkError, ValueError) as error:
        say("error", str(error))
        return EXIT_FAILED
    return EXIT_OK if good else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())
