"""Workload parameters, and the peers over loopback sockets: what is sent is what arrives, and what is written is true."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import workloads
from experiments.capsule import ROOT, environment
from experiments.errors import RoamlabError
from experiments.model import Workload

TIMEOUT_S = 20


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Peer:
    """One side of a workload as a process."""

    def __init__(self, module: str, *options: str) -> None:
        argv = [sys.executable, "-m", f"experiments.peers.{module}", *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), cwd=ROOT, text=True)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def report(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report: dict[str, Any] = json.loads(line)
            if report["event"] == event:
                return report
        raise AssertionError(f"no {event}")


def summary(folder: Path, role: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / f"{role}.json").read_text())
    return data


@pytest.mark.parametrize("direction", ["down", "up"])
def test_bulk_stream_is_the_seed_s_and_hashes_agree(tmp_path: Path, direction: str) -> None:
    size = 3_000_001
    common = ["--address", "127.0.0.1", "--port", str(free_port()), "--out", str(tmp_path)]
    with Peer("bulk", "serve", *common) as server:
        server.report("ready")
        with Peer("bulk", "connect", *common, "--direction", direction, "--seed", "5", "--bytes", str(size)) as client:
            assert client.process.wait(TIMEOUT_S) == 0
        assert server.process.wait(TIMEOUT_S) == 0
    expected = random.Random(5)
    stream = b"".join(expected.randbytes(65536) for _ in range(size // 65536 + 1))[:size]
    for role in ("sender", "receiver"):
        found = summary(tmp_path, role)
        assert found["complete"]
        assert found["bytes"] == size
        assert found["sha256"] == hashlib.sha256(stream).hexdigest()
    assert bool(summary(tmp_path, "receiver")["preface_bytes"]) == (direction == "up"), "the client's line goes the same way"
    rows = [tuple(map(int, line.split(","))) for line in (tmp_path / "progress.csv").read_text().splitlines()[1:]]
    assert rows == sorted(rows)
    assert rows[-1][1] == size


def test_bulk_that_is_ended_early_says_so(tmp_path: Path) -> None:
    common = ["--address", "127.0.0.1", "--port", str(free_port()), "--out", str(tmp_path)]
    with Peer("bulk", "serve", *common) as server:
        server.report("ready")
        with Peer("bulk", "connect", *common, "--seconds", "1000") as client:
            client.report("first-bytes")
            os.kill(client.process.pid, signal.SIGTERM)
            assert client.process.wait(TIMEOUT_S) == 0
        assert server.process.wait(TIMEOUT_S) == 0
    assert not summary(tmp_path, "receiver")["complete"]
    sender = summary(tmp_path, "sender")
    assert not sender["complete"]
    assert sender["error"]


def test_nobody_there_is_reported(tmp_path: Path) -> None:
    with Peer("bulk", "connect", "--address", "127.0.0.1", "--port", str(free_port()), "--out", str(tmp_path)) as client:
        assert "Connection refused" in client.report("error")["reason"]
        assert client.process.wait(TIMEOUT_S) == 3


def test_voice_counts_every_packet(tmp_path: Path) -> None:
    common = ["--address", "127.0.0.1", "--port", str(free_port()), "--out", str(tmp_path), "--seconds", "0.5"]
    with Peer("voice", "serve", *common) as server:
        server.report("ready")
        with Peer("voice", "connect", *common) as client:
            assert client.process.wait(TIMEOUT_S) == 0
        assert server.process.wait(TIMEOUT_S) == 0
    assert summary(tmp_path, "sender")["packets"] == 25
    rows = (tmp_path / "samples.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(25))


def test_rpc_measures_every_exchange(tmp_path: Path) -> None:
    common = ["--address", "127.0.0.1", "--port", str(free_port()), "--out", str(tmp_path)]
    with Peer("rpc", "serve", *common) as server:
        server.report("ready")
        with Peer("rpc", "connect", *common, "--seconds", "0.5", "--interval-ms", "20") as client:
            assert client.process.wait(TIMEOUT_S) == 0
        assert server.process.wait(TIMEOUT_S) == 0
    receiver = summary(tmp_path, "receiver")
    assert receiver["complete"]
    rows = [list(map(int, line.split(","))) for line in (tmp_path / "samples.csv").read_text().splitlines()[1:]]
    assert len(rows) == receiver["responses"] > 5
    assert all(received > sent for _, sent, received in rows)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Workload(kind="bluk"), ["'bluk'", "bulk, iperf3, voice, rpc"]),
        (Workload(parameters={"size": 1}), ["unknown parameter size", "it has: bytes"]),
        (Workload(parameters={"bytes": -1}), ["bytes = -1", "at least 1"]),
        (Workload(parameters={"bytes": float("nan")}), ["bytes = nan"]),
        (Workload(kind="rpc", parameters={"interval_ms": "fast"}), ["interval_ms = 'fast'"]),
    ],
)
def test_bad_workloads_say_what_is_valid(spec: Workload, words: list[str]) -> None:
    with pytest.raises(RoamlabError) as error:
        workloads.make(spec)
    assert all(word in str(error.value) for word in words)
