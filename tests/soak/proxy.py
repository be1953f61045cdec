"""Gigabytes through the lightweight proxy in rough networks: `python -m tests.soak.proxy --gb 20` (`make soak GB=20`).

A mobile host with two paths, a router, one server with the kernel's MPTCP and one with the proxy. Round after round a
connection carries data both ways at once while the traffic is moved to and fro, smoothly and by cutting a path, and the router
loses, repeats, delays and cuts up packets. Each round draws role, peer, IP version, checksums, SACK and trouble from the seed.
A round is good when both ends have every byte; a connection that stands still is bad. In the end: the agents' memory, the
kernels' counters.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.emulation.proxy_lab import Lab, ProxyAgent, mobile, server
from tests.namespaces import again_inside
from topologies.links.netns import inside
from topologies.nodes import NodeError
from topologies.waiting import wait_until

INSIDE = "ROAMLAB_SOAK_INSIDE"
PORT = 5001
HOLD_QUEUE, HOLD_MS = 90, 3
SLOWEST_BYTES_PER_S = 300_000
"""A round that is slower than this, and PATIENCE_S, stands still."""
PATIENCE_S = 45.0
MOVE_S = (0.05, 0.6)
"""Between two moves."""
BREAKS_MAX = 6
"""Of a round: when every path is cut sooner than TCP's timer rings, which doubles, no transfer ends."""
PROGRAMS = [sys.executable, "-m", "tests.soak.programs"]
TROUBLES = ("none", "loss", "duplicates", "reordering", "all")
WORRYING = (
    "Fallback",
    "Infinite",
    "Corrupt",
    "CsumErr",
    "DSSNo",
    "DssNo",
    "DssCorruption",
    "MPFail",
    "FailTx",
    "FailRx",
    "Fastclose",
)
"""Parts of names of kernel counters that must not move: nobody falls back, nobody aborts, no mapping is wrong."""


@dataclass(frozen=True)
class Round:
    """What one round does."""

    number: int
    role: str
    """Of the mobile host: client, server."""
    peer: str
    """cn: the kernel's MPTCP; cp: the proxy."""
    family: int
    trouble: str
    checksum: bool
    sack: bool
    segmented: bool
    """Every packet leaves the hosts alone; the router joins them and cuts them up again."""
    down: int
    up: int


@dataclass
class Tally:
    """What has happened so far."""

    bytes: int = 0
    rounds: int = 0
    moves: int = 0
    breaks: int = 0
    refused: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)


def rounds(total: int, seed: int) -> Iterator[Round]:
    """Rounds until so many bytes are planned. The first eight are one of each role, peer and IP version."""
    rng = random.Random(seed)
    size = max(min(total // 12, 400_000_000), 2_000_000)
    planned, number = 0, 0
    while planned < total:
        role, peer, family = ("client", "server")[number % 2], ("cn", "cp")[number // 2 % 2], (4, 6)[number // 4 % 2]
        share = rng.choice((0.1, 0.5, 0.9))
        trouble = TROUBLES[(number + rng.randrange(2)) % len(TROUBLES)]
        # Trouble makes TCP slow.
        count = int(rng.uniform(0.7, 1.3) * size / (1 if trouble == "none" else 3))
        planned += count
        yield Round(number, role, peer, family, trouble, rng.random() < 0.3, rng.random() > 0.15, rng.random() < 0.4,
                    int(count * share), int(count * (1 - share)))  # fmt: skip
        number += 1


class Network:
    """The lab, its agents, and the trouble that the router makes."""

    def __init__(self, lab: Lab, logs: Path | None = None) -> None:
        self.lab = lab
        lab.sysctl("cn", "mptcp/enabled", 1)
        lab.limits("cn", 8, 8)
        # A busy machine is silent at times, which is no reason to leave a path.
        settings = {"header_reserve": 0, "nudge": True, "announce": True, "silence_retransmissions": 1_000}
        common = {"filter": [{"remote_ports": [PORT]}, {"local_ports": [PORT]}], "proxy": settings}
        files = {node: "/dev/null" if logs is None else str(logs / f"{node}.jsonl") for node in ("mn", "cp")}
        self.agents = {node: lab.agent(node, {**common, "event_log": file}) for node, file in files.items()}

    @property
    def mn(self) -> ProxyAgent:
        """The mobile host's agent."""
        return self.agents["mn"]

    def tables(self, *words: str) -> None:
        """iptables and ip6tables in the router."""
        for program in ("iptables", "ip6tables"):
            self.lab.command("gw", program, "-w", *words)

    def prepare(self, each: Round) -> None:
        """Everything that a round has drawn."""
        self.tables("-t", "mangle", "-F", "FORWARD")
        self.lab.sysctl("cn", "mptcp/checksum_enabled", int(each.checksum))
        self.lab.sysctl("mn", "ipv4/tcp_sack", int(each.sack))
        for path in range(self.lab.paths):
            self.lab.command("mn", "ip", "link", "set", f"mn-p{path}", "gso_max_segs", "1" if each.segmented else "65535")
        everything = each.trouble == "all"
        if everything or each.trouble == "loss":
            self._some(0.002, "DROP")
        if everything or each.trouble == "reordering":
            self._some(0.004, "NFQUEUE", "--queue-num", str(HOLD_QUEUE), "--queue-bypass")
        if everything or each.trouble == "duplicates":
            for node in (mobile(each.family, 0), mobile(each.family, 1), *self.servers(each.family)):
                program = "ip6tables" if each.family == 6 else "iptables"
                self.lab.command("gw", program, "-w", *_append(0.004), "-d", node, "-j", "TEE", "--gateway", node)

    def servers(self, family: int) -> list[str]:
        """Addresses of both servers."""
        return [server(family, number=number) for number in range(len(self.lab.servers))]

    def _some(self, share: float, *target: str) -> None:
        self.tables(*_append(share), "-j", *target)

    def cut(self, path: int, now: bool) -> None:
        """The router loses everything of a path, or no longer."""
        for way in ("-i", "-o"):
            self.tables("-t", "filter", "-I" if now else "-D", "FORWARD", way, f"gw-p{path}", "-j", "DROP")


def _append(share: float) -> list[str]:
    return ["-t", "mangle", "-A", "FORWARD", "-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", str(share)]


class Mover:
    """Moves the connection of a round to and fro."""

    def __init__(self, network: Network, each: Round, tally: Tally, rng: random.Random) -> None:
        self._network, self._round, self._tally, self._rng = network, each, tally, rng
        self._path, self._cut, self._next = 0, -1, 0.0
        self._breaks_left = BREAKS_MAX
        # A client's kernel has no listener for joins: it joins itself, once.
        self._may_break = each.role == "client" or each.peer == "cp"

    def turn(self) -> None:
        """Called often; moves when it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._rng.uniform(*MOVE_S)
        self.mend()
        to, family = 1 - self._path, self._round.family
        broken = self._may_break and self._breaks_left > 0 and self._rng.random() < 0.4
        request: dict[str, Any] = {"address": mobile(family, to)}
        if not self._may_break:
            found = [row for each in self._network.mn.connections() for row in each["subflows"]]
            numbers = [row["subflow"] for row in found if row["local"].startswith(mobile(family, to) + " ")]
            if not numbers:
                return
            request = {"to": numbers[0]}
        if broken:
            self._cut = self._path
            self._network.cut(self._cut, True)
        try:
            self._network.mn.ask("handover", break_first=broken, **request)
        except NodeError:  # the connection is ending, or not yet confirmed: it has nothing but this path
            self._tally.refused += 1
            self.mend()
            return
        self._path = to
        self._breaks_left -= broken
        self._tally.moves += 1
        self._tally.breaks += broken

    def settle(self) -> bool:
        """No more breaks: when one side has ended its data, Linux takes no further subflow. True once none is being opened."""
        self._may_break = False
        self.mend()
        subflows = [row for each in self._network.mn.connections()[-1:] for row in each["subflows"]]
        return bool(subflows) and all(row["state"] == "established" for row in subflows)

    def mend(self) -> None:
        """A path that was cut works again."""
        if self._cut >= 0:
            self._network.cut(self._cut, False)
            self._cut = -1


def play(network: Network, each: Round, tally: Tally, show: Any) -> None:
    """One round; what is wrong goes to `tally.bad`."""
    network.prepare(each)
    number = network.lab.servers.index(each.peer)
    near, far = mobile(each.family, 0), server(each.family, number=number)
    ends = {"mn": (near, far, "0", each.up), each.peer: (far, near, str(int(each.peer == "cn")), each.down)}
    order = [each.peer, "mn"] if each.role == "client" else ["mn", each.peer]
    processes: dict[str, subprocess.Popen[str]] = {}
    mover = Mover(network, each, tally, random.Random(each.number))
    begun = time.monotonic()
    limit = begun + PATIENCE_S + (each.down + each.up) / SLOWEST_BYTES_PER_S
    try:
        for node, what in zip(order, ("listen", "connect"), strict=True):
            local, remote, mptcp, count = ends[node]
            words = [
                *PROGRAMS,
                "peer",
                what,
                local,
                remote,
                str(PORT),
                mptcp,
                str(each.number * 2 + (node == "mn")),
                str(count),
                str(each.up + each.down - count),
            ]
            with inside(network.lab.nodes[node]):
                processes[node] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if what == "listen":
                output = processes[node].stdout
                assert output is not None
                output.readline()
        wanting = dict(processes)
        for what, done in (
            ("all data", lambda: _everything(wanting)),
            ("an open subflow", mover.settle),
            ("the end of the round", lambda: _ended(processes)),
        ):
            wait_until(lambda done=done: _step(mover, begun, each, show) or done(), limit - time.monotonic(), what, 0.02)
        told = {node: json.loads(process.communicate(timeout=60)[0]) for node, process in processes.items()}
        wrong = [
            f"{a} -> {b}: sent {told[a]['sent']}, received {told[b]['received']}, {told[a]['error']} {told[b]['error']}"
            for a, b in (order, order[::-1])
            if (told[a]["sent"], told[a]["sent_sha256"]) != (told[b]["received"], told[b]["received_sha256"])
            or told[a]["error"] or told[a]["sent"] != ends[a][3]
        ]  # fmt: skip
        tally.bytes += sum(row["received"] for row in told.values())
    except (TimeoutError, subprocess.TimeoutExpired, ValueError) as error:
        wrong = [f"{type(error).__name__}: {error}; {json.dumps(network.mn.connections()[-1:])}"]
    finally:
        mover.mend()
        for process in processes.values():
            process.kill()
            process.communicate()
    tally.rounds += 1
    if wrong:
        tally.bad.append({**asdict(each), "what": wrong})


def _step(mover: Mover, begun: float, each: Round, show: Any) -> None:
    with contextlib.suppress(IndexError):
        mover.turn()
    show(each, time.monotonic() - begun)


def _everything(wanting: dict[str, subprocess.Popen[str]]) -> bool:
    """Have both ends everything? Those that said so leave `wanting`."""
    for node, process in list(wanting.items()):
        assert process.stdout is not None
        if select.select([process.stdout], [], [], 0)[0]:
            process.stdout.readline()
            del wanting[node]
    return not wanting


def _ended(processes: dict[str, subprocess.Popen[str]]) -> bool:
    """Tells both to end their streams; have they ended?"""
    for process in processes.values():
        if process.stdin is not None:
            process.stdin.close()
            process.stdin = None
    return all(process.poll() is not None for process in processes.values())


@contextmanager
def network_of(folder: Path, logs: Path | None = None) -> Iterator[Network]:
    """The lab with both agents and the program that reorders."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(folder, paths=2, wired=False, servers=("cn", "cp")).running())
        with inside(lab.nodes["gw"]):
            holder = subprocess.Popen([*PROGRAMS, "hold", str(HOLD_QUEUE), str(HOLD_MS)], stdout=subprocess.PIPE, text=True)
        stack.callback(holder.communicate)
        stack.callback(holder.kill)
        assert holder.stdout is not None
        holder.stdout.readline()
        yield Network(lab, logs)


def soak(total: int, seed: int, *, quiet: bool = False, only: Sequence[int] = (), logs: Path | None = None) -> dict[str, Any]:
    """Everything; the summary. `only`: these rounds. `logs`: folder for the agents' event logs."""
    tally = Tally()
    begun = time.monotonic()

    def show(each: Round, seconds: float) -> None:
        if quiet or not sys.stderr.isatty():
            return
        done = min(tally.bytes / total, 1)
        bar = "#" * int(done * 30)
        what = f"round {each.number}: {each.role} - {each.peer} IPv{each.family} {each.trouble}"
        line = f"{tally.bytes / 1e9:7.2f} GB [{bar:30}] {what}"
        print(f"\r{line}, {seconds:3.0f} s, {len(tally.bad)} bad ", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, network_of(Path(folder), logs) as network:
        before, resident = network.lab.counters("cn"), {}
        for each in rounds(total, seed):
            if only and each.number not in only:
                continue
            play(network, each, tally, show)
            if each.number == 7:  # everything has happened once
                resident = {node: agent.resident_bytes() for node, agent in network.agents.items()}
            if not quiet and not sys.stderr.isatty():
                print(f"{tally.bytes / 1e9:.2f} GB {asdict(each)} {tally.bad[-1:]}", file=sys.stderr, flush=True)
        moved = {name: value - before[name] for name, value in network.lab.counters("cn").items() if value != before[name]}
        after = {node: agent.resident_bytes() for node, agent in network.agents.items()}
        problems = {node: agent.ask("status")["problems"] for node, agent in network.agents.items()}
        for agent in network.agents.values():
            agent.end()
    worrying = {name: count for name, count in moved.items() if any(part in name for part in WORRYING)}
    seconds = time.monotonic() - begun
    return {
        "good": not tally.bad and not worrying and not any("defect" in row for row in problems.values()),
        "seed": seed, "bytes": tally.bytes, "seconds": round(seconds, 1), "mbit_s": round(tally.bytes * 8e-6 / seconds, 1),
        "rounds": tally.rounds, "moves": tally.moves, "breaks": tally.breaks, "refused": tally.refused, "bad": tally.bad,
        "worrying": worrying, "kernel_counters": moved, "problems": problems,
        "resident_bytes_early": resident, "resident_bytes_late": after,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=20.0, help="how much to carry, in 10^9 bytes (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the rounds (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a few lines")
    parser.add_argument("--only", type=int, nargs="+", default=(), metavar="N", help="only these rounds, to look at one again")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where to keep the event logs of the agents")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        return again_inside("tests.soak.proxy", INSIDE)
    result = soak(int(options.gb * 1e9), options.seed, quiet=options.json, only=options.only, logs=options.logs)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print()
        for name, value in result.items():
            print(f"{name}: {value}")
    return 0 if result["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
