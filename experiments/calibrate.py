"""Calibration: does an emulated link do what its profile says? Measured by captures at both ends, not by the relay.

Runs inside a capsule. `python -m experiments.calibrate --inside wlan lte` prints JSON lines. What is measured and how:
experiments/calibration/measure.py; the hosts and captures: experiments/calibration/bench.py.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from experiments.calibration.bench import Bench, CalibrationError, bench
from experiments.calibration.measure import (
    measure_delay,
    measure_goodput,
    measure_loss,
    measure_queue,
    with_room,
    without_chance,
)
from topologies.links.wire import wire
from topologies.profiles import PRESETS, GilbertElliott, LinkProfile, profile

SWEEP_RATES_MBIT = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
SWEEP_DELAY_MS = 15.0

LOSS_PROFILES: dict[str, LinkProfile] = {
    "loss-1%": LinkProfile(delay_ms=1.0, loss=0.01),
    "loss-bursts": LinkProfile(delay_ms=1.0, burst=GilbertElliott(p=0.005, r=0.25, loss_bad=0.8, loss_good=0.001)),
}

Progress = Callable[[str], None]


def calibrate(
    profile_name: str,
    asked: LinkProfile,
    *,
    packets_per_s: float = 5000.0,
    quick: bool = False,
    seed: int = 1,
    goodput_only: bool = False,
    progress: Progress = lambda _text: None,
) -> dict[str, Any]:
    """Measure one profile in both directions; {"profile", "label", "asked", "backend", "rows", "relay"}.

    Delay, goodput and queue are measured without the random parts of the profile, loss with them. Each row has
    quantity, direction, unit, asked, measured, error, target and ok. `goodput_only` is for sweeps over rates.
    """
    certain = without_chance(asked)
    round_trip_s = 2 * asked.delay_ms / 1000
    # Slow start, the loss burst at its end and the first recovery take some tens of round trips.
    warm_up_s = max(3.0, 40 * round_trip_s)
    goodput_s = max(3.0 if quick else 6.0, 4 * round_trip_s)
    delay_s = 2.0 if quick else 10.0
    rows: list[dict] = []
    wire().reset_stats()
    for direction in ("forward", "back"):
        steps: list[tuple[str, Callable[[Bench], list[dict]]]] = [
            (
                "TCP goodput",
                partial(measure_goodput, direction=direction, asked=certain, warm_up_s=warm_up_s, seconds=goodput_s),
            )
        ]
        if not goodput_only:
            delay = partial(measure_delay, direction=direction, asked=certain, packets_per_s=packets_per_s, seconds=delay_s)
            steps.insert(0, ("delay", delay))
            steps.append(("queue", partial(measure_queue, direction=direction, asked=certain)))
        found: list[dict] = []
        with bench(certain, seed) as test:
            for what, step in steps:
                progress(f"{profile_name} {direction}: {what}")
                found += step(test)
        if asked.mean_loss and not goodput_only:
            progress(f"{profile_name} {direction}: loss")
            with bench(with_room(asked), seed) as test:
                found += measure_loss(test, direction, asked, 20_000 if quick else 100_000, 20_000)
        rows += [{"direction": direction, **row} for row in found]
    return _result(profile_name, asked, rows)


def calibrate_loss(
    name: str, asked: LinkProfile, *, quick: bool = False, seed: int = 1, progress: Progress = lambda _text: None
) -> dict[str, Any]:
    """Measure only the loss of a profile, in both directions."""
    rows: list[dict] = []
    for direction in ("forward", "back"):
        progress(f"{name} {direction}: loss")
        with bench(with_room(asked), seed) as test:
            found = measure_loss(test, direction, asked, 20_000 if quick else 100_000, 20_000)
        rows += [{"direction": direction, **row} for row in found]
    return _result(name, asked, rows)


def _result(name: str, asked: LinkProfile, rows: list[dict]) -> dict[str, Any]:
    stats = wire().stats()
    return {
        "profile": name,
        "label": asked.describe(),
        "asked": asked.to_dict(),
        "backend": stats["backend"],
        "rows": rows,
        "ok": all(row["ok"] for row in rows),
        "relay": {key: value for key, value in stats.items() if key not in ("links", "ports")},
    }


def sweep(*, quick: bool = False, progress: Progress = lambda _text: None) -> Iterator[dict[str, Any]]:
    """TCP goodput over rates from 1 to 200 Mbit/s at 15 ms."""
    for rate_mbit in SWEEP_RATES_MBIT:
        asked = LinkProfile(rate_mbit=rate_mbit, delay_ms=SWEEP_DELAY_MS)
        yield calibrate(f"{rate_mbit:g} Mbit/s", asked, quick=quick, goodput_only=True, progress=progress)


def main(arguments: list[str] | None = None) -> int:
    """Print JSON lines: {"progress": text} while measuring, {"result": {...}} per profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", action="store_true", help="this process is in a capsule already")
    parser.add_argument("--sweep", action="store_true", help="TCP goodput from 1 to 200 Mbit/s")
    parser.add_argument("--loss", action="store_true", help="loss of two test profiles over 100,000 packets")
    parser.add_argument("--quick", action="store_true", help="shorter measurements, wider statistics")
    parser.add_argument("--packets-per-s", type=float, default=5000.0, help="for the delay measurement")
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(PRESETS)}")
    options = parser.parse_args(arguments)
    if not options.inside:
        parser.error("run this through `roamlab calibrate`, which makes a capsule")

    def say(kind: str, value: object) -> None:
        print(json.dumps({kind: value}), flush=True)

    def progress(text: str) -> None:
        say("progress", text)

    good = True
    try:
        for name in options.presets:
            result = calibrate(name, profile(name), packets_per_s=options.packets_per_s, quick=options.quick, progress=progress)
            good &= result["ok"]
            say("result", result)
        if options.loss:
            for name, asked in LOSS_PROFILES.items():
                result = calibrate_loss(name, asked, quick=options.quick, progress=progress)
                good &= result["ok"]
                say("result", result)
        if options.sweep:
            for result in sweep(quick=options.quick, progress=progress):
                good &= result["ok"]
                say("result", result)
    except (CalibrationError, ValueError) as error:
        say("error", str(error))
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
