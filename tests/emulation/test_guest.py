"""The guest: what runs in it, that it repeats itself, and that nothing is left however it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.capsule import ROOT, environment
from experiments.guest import qemu
from tests.processes import MARK, marked, new_mark
from topologies.waiting import wait_until

pytestmark = [
    pytest.mark.emulation,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which(qemu.PROGRAM) is None, reason="QEMU is not installed: `make setup-test` installs it"),
]

ROAMLAB = ROOT / ".venv" / "bin" / "roamlab"
SHORT = Path(__file__).with_name("short_outage.py")
QUIET = Path(__file__).with_name("quiet.py")
BUILD_TIMEOUT_S = 300.0
RUN_TIMEOUT_S = 400.0
SHELL_TIMEOUT_S = 120.0
GONE_WITHIN_S = 5.0
IDLE_S = 300


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    subprocess.run([ROAMLAB, "guest", "build"], env=environment(), check=True, timeout=BUILD_TIMEOUT_S)


def shell(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ROAMLAB, "guest", "shell", *arguments], env=environment(), capture_output=True, text=True,
                          timeout=SHELL_TIMEOUT_S)  # fmt: skip


def start(results: Path, mark: str, **more: str) -> "subprocess.Popen[str]":
    argv = [str(ROAMLAB), "run", str(SHORT), "-s", "carrier-loss", "-m", "mptcp", "--guest", "--no-report",
            "--results", str(results), "--json"]  # fmt: skip
    return subprocess.Popen(argv, env={**environment(), MARK: mark, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


def the_run(results: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = results.glob("short/*/manifest.json")
    return path.parent, json.loads(path.read_text())


def test_two_executions_of_a_run_are_the_same_packets(tmp_path: Path) -> None:
    """Side by side, so that each is disturbed by the other; and the host's analysis accepts them."""
    processes = [start(tmp_path / name, new_mark()) for name in ("a", "b")]
    for process in processes:
        _, errors = process.communicate(timeout=RUN_TIMEOUT_S)
        assert process.returncode == 0, errors
    runs = [the_run(tmp_path / name) for name in ("a", "b")]
    for folder, manifest in runs:
        assert manifest["state"] == "complete"
        assert manifest["kernel"] == manifest["guest"]["kernel"] != os.uname().release
        assert manifest["guest"]["flavour"] == qemu.VIRTUAL_TIME
        assert manifest["guest"]["cpu_limited"] is False, manifest["guest"]
        assert manifest["relay"]["backend"] == "netem"
        assert "Linux" not in (folder / "logs" / "console.log").read_text()
        assert (folder / "logs" / "guest-console.log").exists()
        assert json.loads((folder / "logs" / "order.json").read_text())["campaign"] == manifest["campaign"]
    files = [{p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.pcapng")} for folder, _ in runs]
    assert len(files[0]) == 3
    assert files[0] == files[1]
    assert not list(tmp_path.glob("*/short/*.partial"))

    (campaign,) = (tmp_path / "a" / "short").glob("*.json")
    subprocess.run([ROAMLAB, "report", str(campaign), "--json"], env=environment(), capture_output=True, timeout=RUN_TIMEOUT_S)
    metrics = json.loads((runs[0][0] / "metrics.json").read_text())
    assert metrics["survived"] is True, metrics
    assert metrics["judged"] is True, metrics["why_not"]


@pytest.mark.long
def test_repetitions_in_the_guest_repeat_on_a_busy_machine(tmp_path: Path) -> None:
    argv = [ROAMLAB, "repeatability", SHORT, "-s", "carrier-loss", "-m", "mptcp", "-n", "2", "--load", "--results", tmp_path,
            "--json", "--markdown", tmp_path / "page.md"]  # fmt: skip
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=2 * RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [(side["name"], side["seeds"], side["runs"]) for side in found["sides"]] == [("native", [1], 2), ("guest", [1], 2)]
    assert {row["judged"]["spread"] for row in found["rows"]} == {0.0}
    assert (found["rows"][0]["metric"], found["rows"][0]["reference"]["spread"] > 0) == ("gap_ms", True)
    assert (found["compared"], found["differences"]) == (1, [])
    assert "with seed 1, beside" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_guest_outlives_its_runner(tmp_path: Path, number: int) -> None:
    mark = new_mark()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with start(tmp_path, mark, TMPDIR=str(temporary)) as process:
        wait_until(lambda: any(qemu.PROGRAM in line for line in marked(mark).values()), RUN_TIMEOUT_S, "a guest")
        wait_until(lambda: list(tmp_path.glob("short/*/logs/guest-console.log")), RUN_TIMEOUT_S, "its console")
        assert list(temporary.iterdir())
        process.send_signal(number)
        wait_until(lambda: not marked(mark), GONE_WITHIN_S, "end of every process")
        assert not list(temporary.iterdir())
        _, errors = process.communicate(timeout=GONE_WITHIN_S)
    if number == signal.SIGKILL:
        assert list(tmp_path.glob("short/*.partial"))
        return
    assert process.returncode == 130, errors
    assert "interrupted" in errors.splitlines()[-1]
    folder, manifest = the_run(tmp_path)
    assert manifest["state"] == "interrupted"
    assert (folder / "logs" / "guest-console.log").exists()


def test_exit_code_and_output_of_a_command() -> None:
    done = shell("sh", "-c", "uname -r; ip -br link; ls /sys/class/net; exit 7")
    assert done.returncode == 7, done.stderr
    assert done.stdout.split()[0] != os.uname().release
    assert done.stdout.split()[-1] == "lo"  # no network device, so no way to the host's network


def test_idle_time_is_skipped() -> None:
    start_s = time.monotonic()
    done = shell("--flavour", "virtual-time", "sh", "-c", f"sleep {IDLE_S}; cut -d' ' -f1 /proc/uptime")
    wall_s = time.monotonic() - start_s
    assert done.returncode == 0, done.stderr
    print(f"{float(done.stdout):.0f} s of guest time took {wall_s:.0f} s")
    assert float(done.stdout) > IDLE_S > wall_s


@pytest.mark.long
def test_a_quiet_run_takes_less_wall_time_than_guest_time(tmp_path: Path) -> None:
    argv = [ROAMLAB, "run", QUIET, "-m", "tcp", "--guest", "--no-report", "--results", tmp_path]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    found = re.search(r"guest time (\d+) s in (\d+) s of wall time", done.stdout)
    assert found is not None, done.stdout
    print(found[0])
    assert int(found[1]) > IDLE_S > int(found[2])


SLOW_WLAN = "[wlan]\nrate_mbit = 3\ndelay_ms = 40\n"


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-w", "voice"), id="voice"),
        pytest.param(("-w", "rpc"), id="rpc"),
        pytest.param(("-w", "iperf3"), id="iperf3"),
        pytest.param(
            ("-s", "ipv6-moves", "--profiles", "mine.toml"), id="IPv6-only access network with a profile of one's own"
        ),
        pytest.param(("--guest=tcg",), id="real time"),
    ],
)
def test_other_workloads_and_flavours_are_judged(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "mine.toml").write_text(SLOW_WLAN)
    scenario = () if "-s" in options else ("-s", "carrier-loss")
    argv = [ROAMLAB, "run", SHORT, "-m", "tcp", "--guest", *scenario, *options, "--results", tmp_path, "--json"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=RUN_TIMEOUT_S, cwd=tmp_path)
    (cell,) = json.loads(done.stdout)["matrix"]
    _, manifest = the_run(tmp_path)
    assert manifest["state"] == "complete", done.stderr
    if "--profiles" in options:
        assert manifest["paths"][0]["profile"]["rate_mbit"] == 3
    if "--guest=tcg" in options:  # in real time the host's load shows
        assert manifest["guest"]["flavour"] == qemu.TCG
        return
    assert (cell["judged"], cell["survived"], cell["reasons"]) == (1, 1, [])


NAPS = """
import hashlib, time
moments = []
for i in range(20_000):
    time.sleep(0.0003 + i % 7 * 1e-5)
    moments.append(time.monotonic_ns())
print(hashlib.sha256(str(moments).encode()).hexdigest())
"""


@pytest.mark.long
def test_short_sleeps_take_the_same_time_on_a_host_that_is_too_busy() -> None:
    """More guests than CPUs: each is stopped by the host at moments of its own, also between running and idling."""
    argv = [ROAMLAB, "guest", "shell", "--flavour", "virtual-time", "python3", "-c", NAPS]
    guests = [
        subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range((os.cpu_count() or 1) + 2)
    ]
    said = {guest.communicate(timeout=RUN_TIMEOUT_S)[0] for guest in guests}
    assert len(said) == 1, said
    assert len(said.pop().strip()) == 64


def test_panic_and_hang_are_told_with_the_consoles_last_words() -> None:
    done = shell("sh", "-c", "echo c > /proc/sysrq-trigger")
    assert done.returncode == 1
    assert "the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash" in done.stderr
    assert "console (" in done.stderr
    done = shell("--timeout", "20", "sleep", "1000")
    assert done.returncode == 1
    assert "no end within 20 s of wall time: the guest hangs" in done.stderr
