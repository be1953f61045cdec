"""Whole runs through the command line: what they leave behind, and what happens when something or somebody ends them."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.capsule import ROOT, USER_NAMESPACE_VARIABLE, environment
from tests.processes import MARK, marked, new_mark
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation

ROAMLAB = ROOT / ".venv" / "bin" / "roamlab"
SHORT = Path(__file__).with_name("short_outage.py")
GONE_WITHIN_S = 10.0
UNDER_WAY_WITHIN_S = 60.0
RUN_TIMEOUT_S = 120.0
RELAY_BROKEN_US = 50_000  # a hundred times what an undisturbed machine shows: not a slow host but a defect
NOTICED_WITHIN_S = 10.0  # far below the recovery limit that a run would wait for its workload
EVENT_LATE_LIMIT_S = 0.5  # a loaded machine; the analysis is stricter and then does not judge


@contextlib.contextmanager
def roamlab(results: Path, *options: str, mark: str, shell: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """`roamlab run` on the short experiment; ended at the latest with the block."""
    scenario = () if "-s" in options else ("-s", "carrier-loss")
    argv = [str(ROAMLAB), "run", str(SHORT), "--results", str(results), "--json", *scenario, *options]
    if shell:  # the second command keeps the shell from becoming roamlab itself
        argv = ["sh", "-c", '"$0" "$@"; true', *argv]
    # Who is started in the background of a script ignores SIGINT, with nohup SIGHUP, and so does whom he starts.
    argv = ["env", "--default-signal=INT,HUP", *argv]
    env = {**environment(), MARK: mark}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def under_way(results: Path, kind: str = "carrier-loss") -> Path:
    """Wait until an event has happened in some run; its folder."""

    def found() -> Path | None:
        for path in results.glob("short/*.partial/timeline.jsonl"):
            if kind in path.read_text():
                return path.parent
        return None

    folder = wait_until(found, UNDER_WAY_WITHIN_S, "a run under way")
    assert folder is not None
    return folder


def manifests(results: Path) -> dict[str, dict[str, Any]]:
    """Run folder name (without the campaign) to manifest, of runs that have ended.

    The manifest is written before the folder gets its name.
    """
    paths = [path for path in results.glob("short/*/manifest.json") if path.parent.suffix != ".partial"]
    found = [json.loads(path.read_text()) for path in paths]
    return {manifest["run_id"].removeprefix(manifest["campaign"] + "-"): manifest for manifest in found}


def gone(mark: str) -> None:
    wait_until(lambda: not marked(mark), GONE_WITHIN_S, "end of every process of the run")


@pytest.mark.parametrize("user_namespace", ["", "1"], ids=["as-is", "user-namespace"])
def test_two_campaigns_side_by_side(tmp_path: Path, user_namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_NAMESPACE_VARIABLE, user_namespace)
    mark = new_mark()
    options = ("--no-report",)
    with (
        roamlab(tmp_path, "-m", "mptcp", *options, mark=mark) as first,
        roamlab(tmp_path, "-m", "tcp", *options, mark=mark) as second,
    ):
        outputs = [process.communicate(timeout=RUN_TIMEOUT_S) for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    gone(mark)
    for campaign in tmp_path.glob("short/*.json"):
        _command("report", str(campaign), "--json")
    found = manifests(tmp_path)
    assert {name: m["state"] for name, m in found.items()} == {
        "carrier-loss.mptcp.bulk-r0": "complete",
        "carrier-loss.tcp.bulk-r0": "complete",
    }
    for manifest in found.values():
        folder = tmp_path / "short" / manifest["run_id"]
        ends = [json.loads((folder / "workload" / f"{role}.json").read_text()) for role in ("sender", "receiver")]
        assert ends[0]["sha256"] == ends[1]["sha256"]
        assert all(entry["dropped"] == 0 for entry in manifest["captures"])
        assert {entry["interface"] for entry in manifest["captures"]} == {"mn-wlan", "mn-lte", "cn-cr1"}
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["survived"] is True, metrics
        assert metrics["hash_ok"] is True
        # Here two networks are built while others measure: that a relay was late, and says so, is the right verdict.
        assert metrics["judged"] or metrics["why_not"].startswith("link relay was late"), metrics
        timeline = [json.loads(line) for line in (folder / "timeline.jsonl").read_text().splitlines()]
        happened = [(line["kind"], line["at_s"] - line["planned_s"]) for line in timeline if line["phase"] == "event"]
        assert [kind for kind, _ in happened] == ["carrier-loss", "carrier-return"]
        assert all(0 <= late_s < EVENT_LATE_LIMIT_S for _, late_s in happened), happened
    assert not list(tmp_path.glob("short/*.partial"))
    assert len(list(tmp_path.glob("short/*.html"))) == 2


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-w", "voice"), id="voice"),
        pytest.param(("-w", "rpc"), id="rpc"),
        pytest.param(("-w", "iperf3"), id="iperf3"),
        pytest.param(("-s", "ipv6-moves"), id="ipv6-only access network"),
    ],
)
def test_other_workloads_and_families(tmp_path: Path, options: tuple[str, ...]) -> None:
    with roamlab(tmp_path, "--no-report", *options, mark=new_mark()) as process:
        _, stderr = process.communicate(timeout=RUN_TIMEOUT_S)
        assert process.returncode == 0, stderr
    report = json.loads(_command("report", str(next(tmp_path.glob("short/*.json"))), "--json").stdout)
    assert len(report["matrix"]) == 2
    for cell in report["matrix"]:
        if "voice" in options and cell["mechanism"] == "mptcp":
            assert cell["verdict"] == "unsupported"
            assert "voice is UDP" in cell["reasons"][0]
            continue
        late_only = all("link relay was late" in reason for reason in cell["reasons"])
        assert cell["survived"] == 1 or (cell["reasons"] and late_only), cell


@pytest.mark.parametrize("victim", ["runner", "shell"])
def test_nothing_is_left_when_the_runner_or_its_shell_is_killed(tmp_path: Path, victim: str) -> None:
    mark = new_mark()
    with roamlab(tmp_path, "-m", "tcp", mark=mark, shell=victim == "shell") as process:
        folder = under_way(tmp_path)
        process.kill()
        gone(mark)
    if victim == "runner":  # nobody could write a manifest: the folder says that the run is unfinished
        assert folder.is_dir()
        assert not (folder / "manifest.json").exists()
        assert not manifests(tmp_path)
        subprocess.run([ROAMLAB, "clean", "--results", tmp_path], check=True, env=environment(), stdout=subprocess.DEVNULL)
        assert not folder.exists()
    else:  # a hang-up: the run wrote down that it was interrupted
        assert manifests(tmp_path)["carrier-loss.tcp.bulk-r0"]["state"] == "interrupted"


def test_interruption_keeps_what_was_finished(tmp_path: Path) -> None:
    mark = new_mark()
    with roamlab(tmp_path, "-s", "carrier-loss", "-s", "long", "-j", "1", "-m", "tcp", "--no-report", mark=mark) as process:
        wait_until(lambda: len(manifests(tmp_path)) == 1, RUN_TIMEOUT_S, "the first run")
        under_way(tmp_path)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        gone(mark)
    found = manifests(tmp_path)
    assert found["carrier-loss.tcp.bulk-r0"]["state"] == "complete"
    assert found["long.tcp.bulk-r0"]["state"] == "interrupted"
    assert "interrupted" in found["long.tcp.bulk-r0"]["reason"]
    campaign = json.loads(next(tmp_path.glob("short/*.json")).read_text())
    assert campaign["state"] == "interrupted"


def _kill_program(mark: str, part: str) -> None:
    def found() -> list[int]:
        return [pid for pid, command in marked(mark).items() if part in command and "unshare" not in command]

    for pid in wait_until(found, GONE_WITHIN_S, part):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        pytest.param("agents mptcp-endpoints", "mptcp-endpoints on", id="agent"),
        pytest.param("experiments.peers.bulk serve", "server on cn ended", id="workload"),
        pytest.param("-i mn-lte", "dumpcap-mn-mn-lte on mn ended", id="capture"),
        pytest.param("topologies.links.relay", "relay", id="relay"),
        pytest.param("agents netconf", "netconf", id="network configuration"),
        pytest.param("dnsmasq", "dnsmasq", id="DHCP server"),
    ],
)
def test_a_failing_program_fails_the_run_with_its_name(tmp_path: Path, part: str, reason: str) -> None:
    mark = new_mark()
    with roamlab(tmp_path, "-m", "mptcp", "--no-report", mark=mark) as process:
        under_way(tmp_path)
        _kill_program(mark, part)
        killed_ns = time.monotonic_ns()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        gone(mark)
    manifest = manifests(tmp_path)["carrier-loss.mptcp.bulk-r0"]
    assert manifest["state"] == "failed"
    assert manifest["ended_mono_ns"] - killed_ns < NOTICED_WITHIN_S * 1e9
    assert reason in manifest["reason"]


def _command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ROAMLAB, *words], env=environment(), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nothing"], ["no experiment 'nothing'", "demo", "outage"]),
        (["run", "outage", "-m", "sctp"], ["no mechanism 'sctp'", "tcp, mptcp, mptcp-backup"]),
        (["run", "outage", "-s", "flood"], ["no scenario 'flood'", "carrier-loss"]),
        (["run", "outage", "-w", "mail"], ["no workload 'mail'", "bulk, iperf3, voice, rpc"]),
        (["run", "demo", "--results", "/proc/nowhere"], ["/proc/nowhere", "cannot be made"]),
        (["list", "colours"], ["no group 'colours'", "experiments, mechanisms"]),
        (["calibrate", "warp"], ["no profile 'warp'", "wlan"]),
        (["shell", "ring"], ["no topology 'ring'", "mobile"]),
        (["shell", "mobile", "-p", "homes=9"], ["homes = 9"]),
        (["report", "nothing"], ["no campaign of 'nothing'"]),
    ],
)
def test_bad_input_gets_one_line_with_the_valid_names(words: list[str], expected: list[str]) -> None:
    done = _command(*words)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert all(part in lines[-1] for part in expected), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[slow]\nrate_mbit = -1", ["slow", "rate_mbit", "-1"]),
        ("[slow]\nrate_mbit = nan", ["slow", "rate_mbit", "nan"]),
        ("[slow]\nrat_mbit = 1", ["slow", "rat_mbit", "rate_mbit"]),
        ("[slow]\nrate_mbit = ", [":2:", "not valid TOML"]),
        ('[slow]\ntrace = "missing.trace"', ["missing.trace"]),
    ],
)
def test_bad_profiles_name_file_and_field(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    done = _command("run", "demo", "--profiles", str(path), "--results", str(tmp_path))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(part in done.stderr for part in [str(path), *expected]), done.stderr


def test_a_profile_of_one_s_own_is_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[wlan]\nrate_mbit = 3\ndelay_ms = 40\n")
    options = ("--no-report", "-m", "tcp", "--profiles", str(path))
    with roamlab(tmp_path, *options, mark=new_mark()) as process:
        assert process.wait(RUN_TIMEOUT_S) == 0
    manifest = manifests(tmp_path)["carrier-loss.tcp.bulk-r0"]
    assert manifest["paths"][0]["profile"]["rate_mbit"] == 3


def _check_doctor(data: dict[str, Any]) -> None:
    assert data["problem"] is None
    assert data["features"]["veth"] is None


def _check_list(data: dict[str, Any]) -> None:
    assert "outage" in data["experiments"]
    assert "mptcp" in data["mechanisms"]


@pytest.mark.parametrize(("words", "check"), [(["doctor"], _check_doctor), (["list"], _check_list)])
def test_json_for_machines(words: list[str], check: Callable[[dict[str, Any]], None]) -> None:
    done = _command(*words, "--json")
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))


def test_a_full_disk_is_written_down(tmp_path: Path) -> None:
    """Results on a small file system that fills up while the run is under way."""
    results, mark = tmp_path / "small", new_mark()
    results.mkdir()
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    script = 'mount -t tmpfs -o size=230m small "$1" && shift && exec "$@"'
    run = [str(ROAMLAB), "run", str(SHORT), "-s", "carrier-loss", "-m", "tcp", "--no-report", "--results", str(results)]
    env = {**environment(), MARK: mark}
    argv = [*namespace, "sh", "-c", script, "sh", str(results), *run]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            inside = Path(f"/proc/{process.pid}/root{results}")
            under_way(inside)
            with contextlib.suppress(OSError), (inside / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(1_000_000))
            wait_until(lambda: manifests(inside), 60, "a manifest on the full disk")
            manifest = manifests(inside)["carrier-loss.tcp.bulk-r0"]
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert manifest["state"] == "failed"
    assert "No space left" in manifest["reason"] or "dumpcap" in manifest["reason"], manifest["reason"]
    assert process.returncode == 1, stderr
    gone(mark)


@pytest.mark.alone
def test_a_run_that_nothing_disturbs_is_judged(tmp_path: Path) -> None:
    """With the machine for itself a run is judged; only a relay that the host delayed a little more than allowed is excused."""
    with roamlab(tmp_path, mark=new_mark()) as process:
        report = json.loads(process.communicate(timeout=RUN_TIMEOUT_S)[0])
    for cell in report["matrix"]:
        assert cell["judged"] or all("link relay was late" in reason for reason in cell["reasons"]), cell
    for manifest in manifests(tmp_path).values():
        assert manifest["relay"]["late_p99_us"] < RELAY_BROKEN_US
    if all(cell["judged"] for cell in report["matrix"]):
        assert process.returncode == 0
        assert report["claims"][0]["verdict"] == "holds"
