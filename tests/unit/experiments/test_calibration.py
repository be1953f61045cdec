"""The calibration's pure parts, what starts it, and its command line."""

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from experiments.calibrate import steps
from experiments.calibration import compare, launch, page
from experiments.calibration.change import FRAME_BYTES, left_ms
from experiments.calibration.cpu import busy_share, idle_s
from experiments.calibration.jitter import mean_and_deviation, simulate
from experiments.calibration.measure import mean_run
from experiments.calibration.plan import CHANGE, EFFORTS, JITTER, KINDS, LOSS, ORDER, SWEEP, Effort, asked_of, effort_name, plan
from experiments.calibration.rows import failed_row, make_row
from experiments.cli import calibrate as command
from experiments.errors import RoamlabError
from topologies.profiles import PRESETS, GilbertElliott, LinkProfile

BOOT_TIMEOUT_S = 20.0


def row(quantity: str, measured: float, error: float, *, target: float | None = 100.0, **more: Any) -> dict[str, Any]:
    return {"direction": "forward", **make_row(quantity, "us", measured - error, measured, error, target), **more}


def result(backend: str, *rows: dict[str, Any], profile: str = "wlan", kind: str = "preset") -> dict[str, Any]:
    return {"profile": profile, "kind": kind, "label": "20 Mbit/s 15 ms", "asked": {}, "backend": backend, "rows": list(rows)}


# ---- measures


def test_busy_share_is_what_was_not_idle_on_any_cpu() -> None:
    assert busy_share(2.0, 0.5, 1) == 0.75
    assert busy_share(2.0, 3.0, 2) == 0.25
    assert busy_share(1.0, 1.01, 1) == 0.0  # the kernel's idle time is coarser than the clock
    assert busy_share(0.0, 0.0, 1) is None
    assert idle_s("23.97 17.93\n") == 17.93


def test_mean_run_of_lost_packets() -> None:
    assert mean_run(GilbertElliott(p=0.01, r=0.25)) == pytest.approx(4.0)
    assert mean_run(GilbertElliott(p=0.1, r=0.9, loss_good=0.2, loss_bad=0.2)) == pytest.approx(1 / 0.8)
    assert mean_run(GilbertElliott(p=0.1, r=0.1, loss_good=1.0, loss_bad=1.0)) == math.inf
    burst = LOSS["loss-bursts"].burst
    assert burst is not None
    random, bad, runs, losses, previous = Random(1), False, 0, 0, False
    for _ in range(400_000):
        lost = random.random() < (burst.loss_bad if bad else burst.loss_good)
        bad ^= random.random() < (burst.r if bad else burst.p)
        runs, losses, previous = runs + (lost and not previous), losses + lost, lost
    assert losses / runs == pytest.approx(mean_run(burst), rel=0.05)


def test_jitter_spreads_packets_that_cannot_meet_and_delays_those_that_must_wait() -> None:
    asked = LinkProfile(delay_ms=20, jitter_ms=5)
    sparse = simulate(asked, [12_500 * number for number in range(4000)], Random(1))
    mean, deviation = mean_and_deviation(sparse)
    assert mean == pytest.approx(20_000, abs=200)
    assert deviation == pytest.approx(5000 / math.sqrt(3), rel=0.05)
    sent = [2000 * number for number in range(4000)]
    dense = simulate(asked, sent, Random(1))
    arrivals = [at + delay for at, delay in zip(sent, dense, strict=True)]
    assert arrivals == sorted(arrivals)
    assert 20_500 < mean_and_deviation(dense)[0] < 25_000


def test_waiting_frames_get_the_new_rate() -> None:
    asked = LinkProfile(rate_mbit=2, delay_ms=5)
    whole_ms = 10 * FRAME_BYTES * 8 / 2000
    assert left_ms(asked, 2, 10, 0) == pytest.approx(whole_ms + 5)
    assert left_ms(asked, 20, 10, whole_ms / 2) == pytest.approx(whole_ms / 20 + 5)
    assert left_ms(asked, 20, 10, 2 * whole_ms) == 5


# ---- what is measured


def test_plan_names_items_by_kind() -> None:
    assert plan(["wlan"], [], in_guest=False) == ["preset:wlan"]
    assert plan([], ["order", "loss"], in_guest=True) == [f"loss:{name}" for name in LOSS] + [f"order:{name}" for name in ORDER]
    everything = plan(list(PRESETS), KINDS, in_guest=False)
    assert len(everything) == len(PRESETS) + len(SWEEP) + len(LOSS) + len(JITTER) + len(ORDER) + len(CHANGE)
    carried = plan([], ["sweep"], in_guest=True)
    assert carried[-1] == "sweep:50 Mbit/s"
    assert set(carried) < set(everything)
    assert asked_of("sweep:50 Mbit/s").rate_mbit == 50
    assert asked_of("preset:lte") == PRESETS["lte"]
    assert {effort_name(quick=quick, in_guest=guest) for quick in (False, True) for guest in (False, True)} == set(EFFORTS)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("preset:wlan", ["delay", "TCP goodput", "queue"]),
        ("preset:satellite", ["delay", "TCP goodput", "queue", "loss"]),
        ("sweep:5 Mbit/s", ["TCP goodput"]),
        ("loss:loss-bursts", ["loss"]),
        ("jitter:jitter-dense", ["jitter"]),
        ("order:reorder-5%", ["order"]),
        ("change:change to 20 Mbit/s", ["change"]),
    ],
)
def test_steps_of_an_item(item: str, expected: list[str]) -> None:
    kind, _, name = item.partition(":")
    found = steps(kind, name, asked_of(item), "back", Effort())
    assert [step.what for step in found] == expected
    for step in found:
        # Chance is part of the link only where it is measured.
        chance = step.link.mean_loss or step.link.jitter_ms or step.link.reorder
        assert bool(chance) == (step.what in ("loss", "jitter", "order"))


# ---- comparison


def test_pairs_are_judged_by_their_difference() -> None:
    (item,) = compare.compare(
        [
            result("userspace", row("p50", 120.0, 20.0), row("p99", 250.0, 90.0)),
            result("netem", row("p50", 108.0, 8.0), row("p99", 140.0, -20.0)),
        ],
        in_guest=False,
    )
    p50, p99 = item["rows"]
    assert (p50["difference"], p50["difference_target"], p50["state"]) == (12.0, 100.0, "ok")
    assert (p99["difference"], p99["state"]) == (110.0, "differs")
    assert p99["netem"]["state"] == "ok"


def test_two_draws_may_differ_by_more_than_one_from_its_mean() -> None:
    both = [result("userspace", row("loss", 160.0, 60.0, chance=True)), result("netem", row("loss", 40.0, -60.0, chance=True))]
    (pair,) = compare.compare(both, in_guest=False)[0]["rows"]
    assert pair["difference_target"] == pytest.approx(141.4, abs=0.1)
    assert pair["state"] == "ok"


def test_what_the_guests_cpu_could_not_carry_is_not_judged() -> None:
    both = [result("userspace", row("goodput", 5.0, -900.0, cpu_busy=0.83)), result("netem", row("goodput", 905.0, 0.0))]
    (pair,) = compare.compare(both, in_guest=True)[0]["rows"]
    assert pair["userspace"]["state"] == "cpu-limited"
    assert pair["state"] == "not judged"
    assert pair["difference"] == -900.0
    assert compare.largest(compare.compare(both, in_guest=True))[0].keys() == {"quantity", "unit", "netem"}
    # A real machine's speed belongs to what is measured.
    (pair,) = compare.compare(both, in_guest=False)[0]["rows"]
    assert (pair["userspace"]["state"], pair["state"]) == ("missed", "differs")


def test_what_has_no_target_is_shown_and_not_judged() -> None:
    both = [
        result("userspace", row("change", 26.0, 0.0, target=None)),
        result("netem", row("change", 240.0, 214.0, target=None)),
    ]
    comparison = compare.compare(both, in_guest=True)
    (pair,) = comparison[0]["rows"]
    assert (pair["difference"], pair["state"]) == (-214.0, "no target")
    counts = compare.count_states(both, comparison, in_guest=True)
    assert counts["no target"] == 2
    assert sum(counts.values()) == 2
    assert compare.largest(comparison) == []
    assert page.pair_rows(comparison[0])[0][-1] == "no target"


def test_a_failed_measurement_is_counted_and_compared_with_nothing() -> None:
    failed = {"direction": "forward", **failed_row("queue", "the burst did not fill the queue")}
    results = [result("userspace", failed), result("netem", row("queue", 50.0, 0.0), row("p50", 8.0, 8.0))]
    comparison = compare.compare(results, in_guest=True)
    queue, p50 = comparison[0]["rows"]
    assert queue["userspace"]["why"] == "the burst did not fill the queue"
    assert (queue["state"], p50["state"]) == ("not judged", "not judged")
    assert (queue["asked"], queue["target"]) == (50.0, 100.0)
    counts = compare.count_states(results, comparison, in_guest=True)
    assert counts == {"ok": 2, "missed": 0, "failed": 1, "cpu-limited": 0, "no target": 0, "differs": 0}


def test_profiles_of_one_backend_are_not_compared() -> None:
    assert compare.compare([result("userspace", row("p50", 1.0, 1.0))], in_guest=False) == []
    same_name = [result("userspace", row("p50", 1.0, 1.0)), result("netem", row("p50", 1.0, 1.0), kind="loss")]
    assert compare.compare(same_name, in_guest=False) == []


def test_largest_errors_are_found_by_their_share_of_the_target() -> None:
    results = [
        result("userspace", row("rate", 10.0, 0.5, target=1.0)),
        result("netem", row("rate", 9.0, -0.2, target=1.0)),
        result("userspace", row("rate", 100.0, 2.0, target=10.0), profile="lan"),
        result("netem", row("rate", 91.0, -7.0, target=10.0), profile="lan"),
    ]
    (entry,) = compare.largest(compare.compare(results, in_guest=False))
    assert (entry["userspace"]["value"], entry["userspace"]["profile"]) == (0.5, "wlan")
    assert (entry["netem"]["value"], entry["netem"]["profile"]) == (-7.0, "lan")
    assert entry["difference"] == {"value": 1.0, "of_target": 1.0, "profile": "wlan"}


# ---- page


def document(*results: dict[str, Any], guest: bool = True) -> dict[str, Any]:
    told = {"flavour": "virtual-time", "qemu": "7.2.22", "memory_mib": 768, "kernel": "6.1.0"}
    return {"machine": {"kernel": "6.1.0", "machine": "x86_64, 1 CPUs"}, "guest": told if guest else None, "unsupported": {},
            "results": [{**item, "guest": {"guest_s": 10.0, "wall_s": 40.0}} for item in results],
            "effort": vars(EFFORTS["guest"])}  # fmt: skip


def test_page_of_a_comparison() -> None:
    limited = row("TCP goodput", 90.0, -5.0, cpu_busy=0.84)
    slow = result("userspace", row("p50", 120.0, 20.0, cpu_busy=0.06), limited)
    fast = result("netem", row("p50", 108.0, 8.0), row("TCP goodput", 95.0, 0.0))
    text = page.page(document(slow, fast), "roamlab calibrate --guest")
    lines = text.splitlines()
    assert lines[0] == "# Calibration of the link emulation in the guest"
    assert "`roamlab calibrate --guest` on Linux 6.1.0" in text
    assert "virtual-time, QEMU 7.2.22" in text
    assert "2 boots: 20 s of guest time in 80 s of wall time" in text
    assert "| p50 | forward | us | 100 | ± 100 | 120 | +20 | 6% | 108 | +8 | – | +12 | ok |" in lines
    assert any(line.startswith("| TCP goodput | forward") and line.endswith("| userspace: cpu-limited |") for line in lines)
    assert "| TCP goodput | us | not judged | +0 (0% of its target, wlan) | not judged |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {6, 14}


def test_page_of_one_backend() -> None:
    failed = {"direction": "back", **failed_row("queue", "a|b")}
    told = {
        **document(result("userspace", row("p50", 250.0, 150.0), failed), guest=False),
        "unsupported": {"netem": "no netem"},
    }
    lines = page.page(told, "roamlab calibrate").splitlines()
    assert lines[0] == "# Calibration of the link emulation"
    assert "| p50 | forward | 100 | 250 | us | +150 | ± 100 | missed |" in lines
    assert "| queue | back | – | – |  | – |  | a\\|b |" in lines
    assert "netem: unsupported: no netem" in lines
    assert not any("boots" in line for line in lines)


# ---- boots

BOOT = """
import json, sys
item, backend = sys.argv[1:3]
print(json.dumps({"progress": item, "guest_s": 1.5}), flush=True)
if item.endswith("hangs"):
    import time
    time.sleep(1000)
if item.endswith("breaks"):
    sys.exit("guest: it broke")
print(json.dumps({"result": {"profile": item, "kind": "loss", "backend": backend, "rows": []}}), flush=True)
print(json.dumps({"guest_s": 3.5, "wall_s": 9.0}), flush=True)
"""


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[launch.Boot]:
    """Processes that report as a boot does; all that were started."""
    started: list[launch.Boot] = []

    def start(_place: object, item: str, backend: str | None, _effort: str) -> launch.Boot:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the garbage collector
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOT, item, str(backend)], stdout=subprocess.PIPE, stderr=errors, bufsize=0
        )
        started.append(launch.Boot(item, backend, process, errors))
        return started[-1]

    monkeypatch.setattr(launch, "_start", start)
    return started


def run_boots(items: list[str], at_a_time: int, seen: list[int]) -> list[dict[str, Any]]:
    def follow(running: list[launch.Boot], _boot: launch.Boot, _said: object) -> None:
        seen.append(len(running))

    return launch.in_guests(None, items, "guest", ["userspace", "netem"], at_a_time, follow)  # type: ignore[arg-type]


def test_boots_are_limited_and_results_in_order(boots: list[launch.Boot]) -> None:
    seen: list[int] = []
    found = run_boots(["loss:a", "loss:b"], 2, seen)
    assert [(item["profile"], item["backend"]) for item in found] == [
        ("loss:a", "userspace"), ("loss:a", "netem"), ("loss:b", "userspace"), ("loss:b", "netem"),
    ]  # fmt: skip
    assert all(item["guest"] == {"guest_s": 3.5, "wall_s": 9.0} for item in found)
    assert max(seen) == 2
    assert len(boots) == 4


def test_a_boot_that_breaks_leaves_a_failed_row(boots: list[launch.Boot], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSS, "breaks", LinkProfile(loss=0.1))
    found = run_boots(["loss:breaks", "loss:a"], 1, [])
    (failed,) = found[0]["rows"]
    assert failed["why"] == "guest: it broke (exit code 1)"
    assert (failed["measured"], failed["ok"]) == (None, False)
    assert (found[0]["profile"], found[0]["backend"]) == ("breaks", "userspace")
    assert [item["profile"] for item in found[2:]] == ["loss:a"] * 2
    assert len(boots) == 4


def test_no_boot_survives_an_interrupt(boots: list[launch.Boot]) -> None:
    def follow(running: list[launch.Boot], _boot: launch.Boot, _said: object) -> None:
        if len(running) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.in_guests(None, ["loss:hangs"], "guest", ["userspace", "netem"], 2, follow)  # type: ignore[arg-type]
    assert [boot.process.wait(BOOT_TIMEOUT_S) for boot in boots] == [-signal.SIGKILL] * 2


# ---- command line


def invoke(*words: str) -> Result:
    return CliRunner().invoke(command.calibrate, list(words), standalone_mode=False)


class Machine:
    """What the command starts, recorded instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.rows = {"userspace": [row("p50", 120.0, 20.0)], "netem": [row("p50", 108.0, 8.0)]}
        self.netem_missing: str | None = None
        monkeypatch.setattr(command, "in_capsule", self.in_capsule)
        monkeypatch.setattr(command, "in_guests", self.in_guests)
        monkeypatch.setattr(command, "open_guest", self.open_guest)

    def in_capsule(self, items: list[str], effort: str, backend: str | None, _follow: object) -> list[dict[str, Any]]:
        self.asked.append((items, effort, backend))
        if backend == "netem" and self.netem_missing:
            raise launch.Unsupported(self.netem_missing)
        name = backend or "userspace"
        return [result(name, *self.rows[name], profile=item.partition(":")[2]) for item in items]

    def in_guests(self, _place: object, items: list[str], effort: str, backends: list[str], at_a_time: int, _follow: object
                  ) -> list[dict[str, Any]]:  # fmt: skip
        self.asked.append((items, effort, tuple(backends), at_a_time))
        return [{**result(name, *self.rows[name], profile=item.partition(":")[2]), "guest": {"guest_s": 1.0, "wall_s": 2.0}}
                for item in items for name in backends]  # fmt: skip

    @contextlib.contextmanager
    def open_guest(self, flavour: str, *, quiet: bool) -> Iterator[Any]:
        told = {**document()["machine"], "guest": {**document()["guest"], "flavour": flavour}}
        yield SimpleNamespace(describe=lambda: told)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_natively_links_choose_their_backend(machine: Machine) -> None:
    done = invoke("wlan", "lte", "wlan", "--quick")
    assert machine.asked == [(["preset:wlan", "preset:lte"], "quick", None)]
    assert done.return_value == 0
    assert "all 2 targets met" in done.output


def test_in_the_guest_both_backends_are_compared(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    done = invoke("wlan", "--guest", "--json", "--markdown", str(path))
    assert machine.asked[0][:3] == (["preset:wlan"], "guest", ("userspace", "netem"))
    told = json.loads(done.output)
    assert told["comparison"][0]["rows"][0]["difference"] == 12.0
    assert told["guest"]["flavour"] == "virtual-time"
    assert told["effort"]["loss_packets"] == EFFORTS["guest"].loss_packets
    assert "| p50 | forward" in path.read_text()
    invoke("wlan", "--guest=tcg", "--backend", "netem", "--quick")
    assert machine.asked[1] == (["preset:wlan"], "guest-quick", ("netem",), 1)  # real time: one guest at a time


def test_a_difference_is_a_failure(machine: Machine) -> None:
    machine.rows["userspace"] = [row("p50", 199.0, 99.0)]
    machine.rows["netem"] = [row("p50", 90.0, -10.0)]
    done = invoke("wlan", "--guest")
    assert done.return_value == 1
    assert "2 of 2 targets met, 1 differs" in done.output
    machine.rows["netem"] = [row("p50", 100.0, 0.0)]
    assert invoke("wlan", "--guest").return_value == 0


def test_netem_that_the_kernel_lacks(machine: Machine) -> None:
    machine.netem_missing = "netem does not work here: no such discipline"
    done = invoke("wlan", "--backend", "netem")
    assert isinstance(done.exception, RoamlabError)
    assert str(done.exception) == f"{machine.netem_missing}; leave --backend out, or measure in the guest: --guest"
    done = invoke("wlan", "--backend", "both")
    assert done.return_value == 0
    assert "netem: unsupported:" in done.output
    assert "p50" in done.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--backend", "tc"), "'tc' is not one of 'userspace', 'netem', 'both'"),
        (("warp",), "no profile 'warp'; there are: wlan"),
        (("wlan", "--markdown", "/proc/nowhere/page.md"), "/proc/nowhere"),
    ],
)
def test_bad_input_starts_nothing(machine: Machine, words: tuple[str, ...], expected: str) -> None:
    done = invoke(*words)
    assert expected in str(done.exception)
    assert machine.asked == []
