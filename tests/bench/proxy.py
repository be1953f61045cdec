"""What the lightweight proxy costs: `python -m tests.bench.proxy` (`make bench-proxy`).

Client and server are network namespaces joined by a veth pair. In turns: no proxy, the queue alone, the agent with a core that
only builds packets anew, the agent with its own core in front of the kernel's MPTCP, and the alternative, a relay that ends TCP
and begins MPTCP. Throughput both ways, CPU time, added latency, memory for a connection, idle and with data under way. Before
that the core alone, in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import proxy_core
from tests.namespaces import again_inside
from topologies.waiting import wait_until

INSIDE = "ROAMLAB_BENCH_INSIDE"
CLIENT, SERVER, PORT, RELAY_PORT = "10.0.0.1", "10.0.0.2", 5001, 5002
SECONDS = 2.0
CONNECTIONS = 400
MPTCP = 262
PROGRAMS = [sys.executable, "-m", "tests.bench.proxy_programs"]
FAR = ["ip", "netns", "exec", "far"]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """How bytes get from the client to the server."""

    name: str
    label: str
    kind: str
    """none, accept, identity, proxy, relay"""
    gso: bool = False

    @property
    def mptcp(self) -> bool:
        """What the server must speak."""
        return self.kind in ("proxy", "relay")


CONTESTANTS = (
    Contestant("none", "no proxy", "none"),
    Contestant("accept", "queue alone", "accept"),
    Contestant("accept-gso", "queue alone, superpackets", "accept", True),
    Contestant("identity", "agent, packets rebuilt", "identity"),
    Contestant("identity-gso", "agent, packets rebuilt, superpackets", "identity", True),
    Contestant("proxy", "proxy to MPTCP", "proxy"),
    Contestant("proxy-gso", "proxy to MPTCP, superpackets", "proxy", True),
    Contestant("relay", "relay with splice() to MPTCP", "relay"),
)


def run(*words: str) -> None:
    """A program that must succeed."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def build_network(offloads: bool) -> None:
    """Client: the present namespace. Server: the namespace `far`."""
    subprocess.run(["ip", "netns", "delete", "far"], check=False, stderr=subprocess.DEVNULL)
    run("ip", "netns", "add", "far")
    run("ip", "link", "add", "name", "near0", "type", "veth", "peer", "name", "far0", "netns", "far")
    run("ip", "address", "add", f"{CLIENT}/24", "dev", "near0")
    run("ip", "link", "set", "near0", "up")
    run(*FAR, "ip", "address", "add", f"{SERVER}/24", "dev", "far0")
    for interface in ("far0", "lo"):
        run(*FAR, "ip", "link", "set", interface, "up")
    run("ip", "route", "add", "default", "via", SERVER)
    run(*FAR, "sysctl", "-qw", "net.mptcp.enabled=1")
    for where in ([], FAR):  # one that does not pace: the processors shall limit, not an estimate
        run(*where, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
    if not offloads:
        off = "import sys; from topologies.links.interfaces import disable_offloads; disable_offloads(sys.argv[1])"
        run(sys.executable, "-c", off, "near0")
        run(*FAR, sys.executable, "-c", off, "far0")


def tear_down_network() -> None:
    """The pair goes with its namespace."""
    run("ip", "link", "delete", "near0")
    run("ip", "netns", "delete", "far")


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def mptcp_connections() -> int:
    """Connections of MPTCP that the server has accepted so far."""
    told = subprocess.run([*FAR, "cat", "/proc/net/netstat"], check=True, capture_output=True, text=True).stdout
    names, values = (line.split() for line in told.splitlines() if line.startswith("MPTcpExt:"))
    return int(values[names.index("MPCapableACKRX")])


@contextmanager
def program(words: list[str], ready: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program that says "on", or makes a file, when it is ready."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        if ready is None:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"{' '.join(words)}: did not start")
        else:
            wait_until(lambda: ready.exists() or process.poll() is not None, 20.0, str(ready))
        yield process
    finally:
        process.terminate()
        process.wait(10)
        for end in (process.stdin, process.stdout):
            if end is not None:
                end.close()


@contextmanager
def between(contestant: Contestant, folder: Path) -> Iterator[tuple[int | None, str, int]]:
    """The contestant in place: its process id, and where the client connects to."""
    if contestant.kind == "none":
        yield None, SERVER, PORT
    elif contestant.kind == "relay":
        with program([*PROGRAMS, "relay", str(RELAY_PORT), SERVER, str(PORT)]) as process:
            yield process.pid, "127.0.0.1", RELAY_PORT
    elif contestant.kind == "accept":
        with program([*PROGRAMS, "accept", "gso" if contestant.gso else "-"]) as process:
            rules = [["OUTPUT", "-o", "near0", "-p", "tcp", "-j", "NFQUEUE", "--queue-num", "40"],
                     ["PREROUTING", "-i", "near0", "-p", "tcp", "-j", "NFQUEUE", "--queue-num", "41"]]  # fmt: skip
            for rule in rules:
                run("iptables", "-t", "mangle", "-A", *rule)
            try:
                yield process.pid, SERVER, PORT
            finally:
                for rule in rules:
                    run("iptables", "-t", "mangle", "-D", *rule)
    else:
        file, control = folder / "proxy.toml", folder / "proxy.sock"
        control.unlink(missing_ok=True)
        file.write_text(
            f'control = "{control}"\nevent_log = "{folder}/events.jsonl"\ngso = {str(contestant.gso).lower()}\n'
            f"[[filter]]\nremote_ports = [{PORT}]\n"
        )
        words = [sys.executable, "-m", "agents", "proxy", "--config", str(file)]
        if contestant.kind == "identity":
            words = [*PROGRAMS, "identity", str(file), CLIENT]
        with program(words, ready=control) as process:
            yield process.pid, SERVER, PORT


def measure(contestant: Contestant, folder: Path, memory: bool) -> dict[str, float]:
    """One round of a contestant: all its numbers."""
    result: dict[str, float] = {}
    protocol, before_any = str(MPTCP if contestant.mptcp else 0), mptcp_connections()
    with (
        program([*FAR, *PROGRAMS, "server", SERVER, str(PORT), protocol]),
        between(contestant, folder) as (pid, address, port),
    ):

        def client(mode: str, amount: float) -> dict[str, float]:
            words = [*PROGRAMS, "client", mode, address, str(port), str(amount)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise RuntimeError(f"{contestant.name}: {mode}: {done.stderr[-400:]}")
            told: dict[str, float] = json.loads(done.stdout)
            return told

        for mode in ("down", "up"):
            before = cpu_s(pid) if pid else 0.0
            told = client(mode, SECONDS)
            gigabits = told["bytes"] * 8 / 1e9
            result[f"{mode}_mbit"] = gigabits * 1e3 / told["s"]
            if pid:
                result[f"{mode}_cpu_s_per_gbit"] = (cpu_s(pid) - before) / gigabits
        result |= client("ping", 0)
        if pid and memory and contestant.kind in ("proxy", "relay"):
            before = resident_bytes(pid)
            hold = [*PROGRAMS, "client", "hold", address, str(port), str(CONNECTIONS)]
            with program(hold):
                result["bytes_per_connection"] = (resident_bytes(pid) - before) / CONNECTIONS
    if (mptcp_connections() > before_any) is not contestant.mptcp:
        raise RuntimeError(f"{contestant.name}: the server saw {'no ' if contestant.mptcp else ''}MPTCP")
    return result


def medians(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Per contestant, with ratios to none."""
    result = {}
    for name, rows in rounds.items():
        keys = dict.fromkeys(key for row in rows for key in row)
        result[name] = {key: statistics.median(row[key] for row in rows if key in row) for key in keys}
    base = result.get("none")
    for row in result.values():
        if base is not None:
            for mode in ("down", "up"):
                row[f"{mode}_ratio"] = row[f"{mode}_mbit"] / base[f"{mode}_mbit"]
            for percentile in ("p50", "p99"):
                row[f"added_{percentile}_us"] = row[f"{percentile}_us"] - base[f"{percentile}_us"]
    return result


def ratio_lines(result: dict[str, dict[str, float]]) -> list[str]:
    """The proxy's throughput in proportion to the others'."""
    labels = {item.name: item.label for item in CONTESTANTS}
    lines = []
    for name in ("proxy", "proxy-gso"):
        others = [other for other in result if other not in ("proxy", "proxy-gso") and name in result]
        parts = [
            f"{labels[other]} {result[name]['down_mbit'] / result[other]['down_mbit']:.2f} / "
            f"{result[name]['up_mbit'] / result[other]['up_mbit']:.2f}"
            for other in others
        ]
        if parts:
            lines.append(f"* {labels[name]}, throughput in proportion to (down / up): {'; '.join(parts)}.")
    return lines


def core_lines(core: dict[str, float]) -> list[str]:
    """What the core alone can do."""
    return [
        "## The core alone", "",
        "Packets of one connection through the core, in memory; CPU time, the best of some rounds.", "",
        "| | data, us | ACK, us | packets for a CPU second |", "|---|--:|--:|--:|",
        *(f"| {way} | {core[f'{way}_data_us']:.1f} | {core[f'{way}_ack_us']:.1f} | {core[f'{way}_per_cpu_s']:,.0f} |"
          for way in ("down", "up")), "",
    ]  # fmt: skip


def memory_lines(held: dict[str, int]) -> list[str]:
    """Memory with data under way."""
    return [
        "## Memory and the product of bandwidth and delay", "",
        "Bytes of a core with one connection that sends, all its objects included, by what is under way: sent and not",
        "acknowledged. No payload is among them. (A relay ends the connection: it has to keep what is under way until it is",
        "acknowledged, in the kernel's buffers. That is not measured here.)", "",
        "| under way, bytes | core, bytes |", "|--:|--:|",
        *(f"| {int(under_way):,} | {size:,} |" for under_way, size in held.items()), "",
    ]  # fmt: skip


HEADINGS = ("", "down, Mbit/s", "of none", "up, Mbit/s", "of none", "CPU down, s/Gbit", "CPU up, s/Gbit",
            "added p50, us", "added p99, us", "KB/connection")  # fmt: skip


def table_lines(result: dict[str, dict[str, float]]) -> list[str]:
    """A Markdown table."""
    labels = {item.name: item.label for item in CONTESTANTS}
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    for name, row in result.items():

        def cell(key: str, form: str, row: dict[str, float] = row, scale: float = 1.0) -> str:
            return format(row[key] * scale, form) if key in row else ""

        added = ["" if name == "none" else cell(f"added_{which}_us", ".0f") for which in ("p50", "p99")]
        cells = [
            labels[name],
            cell("down_mbit", ",.0f"), cell("down_ratio", ".3f"), cell("up_mbit", ",.0f"), cell("up_ratio", ".3f"),
            cell("down_cpu_s_per_gbit", ".2f"), cell("up_cpu_s_per_gbit", ".2f"), *added,
            cell("bytes_per_connection", ".1f", scale=1e-3),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def machine() -> str:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    processor = models[0] if models else platform.machine()
    return (f"{os.cpu_count()} x {processor}, Linux {platform.release()}, Python {platform.python_version()}, "
            f"load average {os.getloadavg()[0]:.1f} before the start")  # fmt: skip


def page(results: dict[str, Any]) -> str:
    """The page for docs/results."""
    lines = [
        "# What the lightweight proxy costs", "",
        "Written by `make bench-proxy MARKDOWN=docs/results/proxy-bench.md`. Medians; the contestants ran in turns.", "",
        f"Machine: {results['machine']}. {results['rounds']} rounds of {SECONDS:g} s in each direction.", "",
    ]  # fmt: skip
    titles = {"off": "Interfaces without offloads, as on emulated links: every packet has 1500 bytes at most",
              "on": "Interfaces with offloads: the kernel's packets have up to 64 KiB"}  # fmt: skip
    for key, title in titles.items():
        if key in results:
            lines += [f"## {title}", "", *table_lines(results[key]), "", *ratio_lines(results[key]), ""]
    lines += core_lines(results["core"]) + memory_lines(results["memory"])
    lines += [
        "## How it was measured", "",
        "* Client and server are network namespaces joined by a veth pair of unlimited rate, and share the processors: what a",
        "  proxy costs is all there is. Congestion control: reno, which every kernel lets everybody choose.",
        "* Down is from the server to the client, whose host has the proxy.",
        "* `queue alone`: every packet goes to user space and back unchanged. `packets rebuilt`: the agent with all its rules",
        "  and marks, and a core that reads every segment and writes it again. `proxy`: a plain TCP client, and a server with",
        "  the kernel's MPTCP. `superpackets`: the option `gso`, with which the queue shows them whole.",
        "* `relay` ends the client's connection and opens an MPTCP connection of its own; the bytes never enter user space.",
        "  It is another thing than a proxy that translates headers: both its TCPs have buffers, an acknowledgement is no",
        "  longer one of the other end, and the client connects to it and not to the server.",
        "* CPU: user and system time of the proxy's process, the kernel's work for it included. With 1 s/Gbit one processor",
        "  would carry 1 Gbit/s. Where other programs ran as well, this figure and the ratios mean more than Mbit/s.",
        "* Added latency: p50 and p99 of 2,000 exchanges of 100 bytes, less those without a proxy.",
        f"* Memory: growth of the proxy's resident memory with {CONNECTIONS} idle connections. The relay's sockets and pipes",
        "  are in the kernel and not in this figure.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [item.name for item in CONTESTANTS]
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contestant (default 5)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument("--offloads", choices=("off", "on"), help="only with interfaces that have no offloads, or all")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        return again_inside("tests.bench.proxy", INSIDE)
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "core": proxy_core.measure(),
                               "memory": proxy_core.memory()}  # fmt: skip
    chosen = [item for item in CONTESTANTS if not options.only or item.name in options.only]
    for offloads in ("off", "on"):
        if options.offloads not in (None, offloads):
            continue
        rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
        build_network(offloads == "on")
        for number in range(options.rounds):
            for contestant in chosen:
                with tempfile.TemporaryDirectory() as folder:
                    row = measure(contestant, Path(folder), memory=offloads == "off" and number == 0)
                rounds[contestant.name].append(row)
                print(f"  offloads {offloads}, {contestant.name}: {json.dumps(row)}", file=sys.stderr, flush=True)
        tear_down_network()
        results[offloads] = medians(rounds)
    text = page(results)
    print(json.dumps(results, indent=1) if options.json else text)
    if options.markdown:
        options.markdown.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
