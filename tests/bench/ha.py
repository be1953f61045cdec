"""What the home agent can do: `python -m tests.bench.ha` (`make bench-ha`).

The role `home-agent` is one process on one processor, in a network namespace, with durable state, and holds 10,000 bindings.
Measured: registrations a second, latency, CPU time and memory, the same beside forged requests, a restart; then one TCP stream
through each kind of tunnel, beside none.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import ha_load, ha_tunnels
from tests.bench.proxy import cpu_s, machine, resident_bytes
from tests.emulation import mobileip_lab
from tests.emulation.mobileip_lab import Agent, Lab
from tests.namespaces import again_inside
from topologies.links.netns import inside, new_namespace
from topologies.waiting import wait_until

INSIDE = "ROAMLAB_BENCH_INSIDE"
GOAL_PER_S = 2000
WINDOW, WINDOWS = 64, (16, 64, 256)
SECONDS, FLOOD_S = 4.0, 6.0
FORGED_PER_S, VICTIMS, REFRESHES_PER_S = 10_000, 10, 500
FILL_AT_ONCE = 500
NODES_MAX = 60_000
AGENT_CPU = 0
LOAD = [sys.executable, "-m", "tests.bench.ha_load"]
OVERDUE_S = 0.4 * ha_load.LIFETIME_S
"""Mobile nodes refresh after 0.6 of the lifetime: what is left then."""


mobileip_lab.READY_S = 120.0  # with thousands of nodes in its configuration an agent needs longer to start


@dataclass
class Bench:
    """A home agent and the namespace in front of it."""

    lab: Lab
    agent: Agent

    @property
    def pid(self) -> int:
        """Of the home agent."""
        return self.agent.process.pid

    @property
    def log_bytes(self) -> int:
        """Size of its event log."""
        return self.agent.log.stat().st_size

    def start_load(self, *words: object) -> subprocess.Popen[str]:
        """A generator, on the other processor if there is one."""
        with inside(self.lab.nodes["gen"]), on_processor(AGENT_CPU + 1):
            return subprocess.Popen([*LOAD, *map(str, words)], stdout=subprocess.PIPE, text=True)

    def load(self, *words: object) -> dict[str, Any]:
        """Run a generator; its figures and the agent's CPU time. Raises RuntimeError when a reply's authenticator is wrong."""
        before = cpu_s(self.pid)
        told = _told(self.start_load(*words))
        told["cpu_s"] = cpu_s(self.pid) - before
        if told.get("wrong_authenticators"):
            raise RuntimeError(f"{told['wrong_authenticators']} replies with a wrong authenticator")
        return told


def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
    text = process.communicate(timeout=180)[0]
    if process.returncode:
        raise RuntimeError(f"the generator ended with {process.returncode}")
    result: dict[str, Any] = json.loads(text.splitlines()[-1])
    return result


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """Programs that are started in the block stay on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def configuration(nodes: int, state: Path) -> dict[str, Any]:
    """All mobile nodes; the home link is the generator's other link."""
    return {
        "addresses": [ha_load.HOME_AGENT], "home_prefix": ha_load.HOME_PREFIX, "home_interface": "ha-home",
        "state": str(state),
        "mobile_node": [{"home_address": ha_load.home_address(node), "spi": ha_load.SPI, "key": ha_load.key(node).hex(),
                         "multipath": True} for node in range(nodes)],
    }  # fmt: skip


@contextmanager
def running(folder: Path, nodes: int, profile: Path | None = None) -> Iterator[Bench]:
    """Two namespaces, and the home agent with its state in `folder`."""
    lab = Lab(folder)
    for node in ("gen", "ha"):
        lab.nodes[node] = new_namespace()
        lab.command(node, "ip", "link", "set", "lo", "up")
    lab.pair("ha", "ha-0", ha_load.HOME_AGENT, "gen", "gen-0", ha_load.FOREIGN_AGENTS[0])
    for address in ha_load.FOREIGN_AGENTS[1:]:
        lab.command("gen", "ip", "address", "add", f"{address}/24", "dev", "gen-0")
    lab.pair("ha", "ha-home", "10.64.0.1", "gen", "gen-home", "10.64.0.2")
    program = ("cProfile", "-o", str(profile), "-m", "agents", "home-agent", "--config", str(folder / "ha.toml"))
    try:
        with on_processor(AGENT_CPU):
            agent = lab.agent("ha", "home-agent", configuration(nodes, folder / "ha.sqlite"), program if profile else ())
        yield Bench(lab, agent)
        agent.end()
    finally:
        lab._end_agents()
        for namespace in lab.nodes.values():
            os.close(namespace)


# -- registrations ----------------------------------------------------------------------------------------------------
def per_s(told: dict[str, Any]) -> dict[str, Any]:
    """With rates; CPU time for each accepted request."""
    answered = max(1, told["answered"])
    cpu_us = told["cpu_s"] / answered * 1e6
    return {**told, "per_s": told["answered"] / told["s"], "cpu_us": cpu_us, "per_cpu_s": 1e6 / max(cpu_us, 1e-3)}


def fill(bench: Bench, nodes: int) -> dict[str, Any]:
    """First registrations of all nodes."""
    parts = []
    for first in range(0, nodes, FILL_AT_ONCE):
        parts.append(bench.load("fill", first, min(FILL_AT_ONCE, nodes - first), WINDOW))
        say(f"{first + FILL_AT_ONCE} of {nodes} nodes registered", per_s(parts[-1]))
    total = {name: sum(part[name] for part in parts) for name in ("answered", "s", "cpu_s", "repeated")}
    first_part, last_part = per_s(parts[0]), per_s(parts[-1])
    return {**per_s(total), "cpu_us_of_the_first": first_part["cpu_us"], "cpu_us_of_the_last": last_part["cpu_us"]}


def flooded(bench: Bench, nodes: int, rate: int, forged: int) -> dict[str, Any]:
    """Refreshes at a rate beside forgeries; those of the victims apart. How much of the processor the home agent got."""
    before_s, discarded = cpu_s(bench.pid), discards(bench)
    begun = time.monotonic()
    attack = bench.start_load("flood", VICTIMS, forged, FLOOD_S + 2.0)
    assert attack.stdout is not None
    attack.stdout.readline()
    victims = bench.start_load("open", VICTIMS, VICTIMS, FLOOD_S)
    refreshes = bench.start_load("open", nodes, rate, FLOOD_S)
    flood = _told(attack)
    share = (cpu_s(bench.pid) - before_s) / (time.monotonic() - begun)
    told: dict[str, Any] = {"all": _told(refreshes), "victims": _told(victims), "flood": flood, "processor_share": share}
    told["all"]["cpu_s"] = cpu_s(bench.pid) - before_s
    told["taken"] = discards(bench) - discarded + flood["answered"]
    return {**told, "all": per_s(told["all"])}


def discards(bench: Bench) -> int:
    """Datagrams that got no answer so far."""
    return sum(bench.agent.ask("status")["core"]["discards"].values())


def cost_of_forgery(bench: Bench) -> float:
    """CPU time of a forged request in us, when there are many."""
    before_s, before = cpu_s(bench.pid), discards(bench)
    flood = _told(bench.start_load("flood", VICTIMS, FORGED_PER_S, FLOOD_S))
    taken = discards(bench) - before + flood["answered"]
    return (cpu_s(bench.pid) - before_s) / max(1, taken) * 1e6


def measure(folder: Path, nodes: int, rounds: int, forged: int) -> dict[str, Any]:
    """All figures of registrations."""
    result: dict[str, Any] = {"nodes": nodes, "forged_per_s": forged}
    begun = time.monotonic()
    with running(folder, nodes) as bench:
        result["start_empty_s"] = time.monotonic() - begun
        result["rss_empty"] = resident_bytes(bench.pid)
        result["fill"] = fill(bench, nodes)
        held = bench.agent.ask("status")["core"]["bindings"]
        result["held"], result["rss_held"] = held, resident_bytes(bench.pid)
        if held != nodes:
            raise RuntimeError(f"{held} of {nodes} bindings are there")
        result["bytes_per_binding"] = (result["rss_held"] - result["rss_empty"]) / nodes
        result["closed"] = {str(window): rounds_of(bench, nodes, window, rounds) for window in WINDOWS}
        result["open"] = per_s(bench.load("open", nodes, REFRESHES_PER_S, FLOOD_S))
        say(f"{REFRESHES_PER_S} refreshes/s", result["open"])
        result["forged_cpu_us"] = cost_of_forgery(bench)
        result["flood"] = flooded(bench, nodes, REFRESHES_PER_S, forged)
        say(f"the same beside {forged} forged requests/s", result["flood"])
        result["rss_end"] = resident_bytes(bench.pid)
        begun = time.monotonic()
        status = bench.agent.ask("status")
        result["status_ms"] = (time.monotonic() - begun) * 1e3
        result["discards"], result["problems"] = status["core"]["discards"], status["problems"]
        result["state_bytes"] = sum(path.stat().st_size for path in folder.glob("ha.sqlite*"))
        bench.agent.end(signal.SIGKILL)
        begun = time.monotonic()
        with on_processor(AGENT_CPU):
            bench.agent.start()
        result["restart_s"] = time.monotonic() - begun
        result["held_after_restart"] = bench.agent.ask("status")["core"]["bindings"]
    return result


def rounds_of(bench: Bench, nodes: int, window: int, rounds: int) -> dict[str, Any]:
    """Refreshes with so many unanswered at a time: the medians of some rounds."""
    rows = [per_s(bench.load("closed", nodes, window, SECONDS)) for _ in range(rounds)]
    for row in rows:
        say(f"{window} unanswered at a time", row)
    names = ("per_s", "cpu_us", "per_cpu_s", "p50_ms", "p99_ms", "max_ms")
    unanswered = sum(row["repeated"] for row in rows)
    return {**{name: statistics.median(row[name] for row in rows) for name in names}, "repeated": unanswered,
            "best_per_s": max(row["per_s"] for row in rows)}  # fmt: skip


def profiled(folder: Path, nodes: int) -> None:
    """Where the time goes: cProfile of the home agent during first registrations and refreshes."""
    file = folder / "profile"
    with running(folder, nodes, file) as bench:
        fill(bench, nodes)
        say("profiled refreshes", per_s(bench.load("closed", nodes, WINDOW, SECONDS)))
    wait_until(file.exists, 20.0, "the profile is written")
    stats = pstats.Stats(str(file), stream=sys.stderr)
    stats.sort_stats("tottime").print_stats(35)


def say(what: str, told: dict[str, Any]) -> None:
    """Progress."""
    print(f"  {what}: {json.dumps(told)}", file=sys.stderr, flush=True)


# -- the page ---------------------------------------------------------------------------------------------------------
def registration_lines(told: dict[str, Any]) -> list[str]:
    """Tables of registrations."""
    rows = [
        ("first registrations", told["fill"]),
        *((f"refreshes, {window} unanswered at a time", row) for window, row in told["closed"].items()),
        (f"refreshes, {REFRESHES_PER_S} a second", told["open"]),
        (f"the same beside {told['forged_per_s']:,} forged requests a second", told["flood"]["all"]),
    ]
    heads = ("", "registrations/s", "CPU, us each", "for a CPU second", "p50, ms", "p99, ms", "largest, ms", "sent again")
    text = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    forms = (("per_s", ",.0f"), ("cpu_us", ",.0f"), ("per_cpu_s", ",.0f"), ("p50_ms", ".1f"), ("p99_ms", ".1f"),
             ("max_ms", ".1f"), ("repeated", ",d"))  # fmt: skip
    for label, row in rows:
        text.append(f"| {label} | " + " | ".join(format(row[key], form) if key in row else "" for key, form in forms) + " |")
    return text


def verdict_lines(told: dict[str, Any]) -> list[str]:
    """What was to be reached, and whether it was."""
    best = max(told["closed"].values(), key=lambda row: float(row["per_s"]))
    flood = told["flood"]
    worst_s = max(flood[who].get("max_ms", float("inf")) for who in ("all", "victims")) / 1e3
    unanswered = flood["all"]["unanswered"] + flood["victims"]["unanswered"]
    fine = not unanswered and worst_s < OVERDUE_S
    sent = flood["flood"]["sent"] / flood["flood"]["s"]
    verdict = (
        f"all were accepted, the slowest after {worst_s:.2f} s of the {OVERDUE_S:.0f} s that were left"
        if fine
        else f"**not all were accepted**: {unanswered} had no answer at the end"
    )
    taken = flood["taken"] / flood["flood"]["sent"]
    return [
        f"* Goal: {GOAL_PER_S:,} registrations/s with {told['nodes']:,} bindings held, durable state on, one process, one "
        f"processor: **{'reached' if best['per_s'] >= GOAL_PER_S else 'not reached'}**, {best['per_s']:,.0f}/s here; "
        f"{best['per_cpu_s']:,.0f} for a second of CPU time, of which the home agent had "
        f"{best['per_s'] / best['per_cpu_s']:.0%}.",
        f"* Refreshes beside {sent:,.0f} forged requests/s with home address, SPI and source address of {VICTIMS} of the "
        f"nodes: {verdict}. Of these {VICTIMS} nodes: {flood['victims']['answered']} refreshes, p99 "
        f"{flood['victims'].get('p99_ms', float('nan')):.1f} ms, {flood['victims']['repeated']} sent again.",
        f"* A forged request costs {told['forged_cpu_us']:.0f} us of CPU time. In the flood the home agent had "
        f"{flood['processor_share']:.0%} of its processor and took {taken:.0%} of the forgeries; what was lost was lost in "
        "the socket's buffer, refreshes as well.",
        f"* Memory: {told['bytes_per_binding']:,.0f} bytes for each binding ({told['rss_held'] / 1e6:.1f} MB resident with "
        f"all, {told['rss_empty'] / 1e6:.1f} MB with {told['nodes']:,} nodes configured and none registered; "
        f"{told['rss_end'] / 1e6:.1f} MB at the end). On the disk: {told['state_bytes'] / told['nodes']:,.0f} bytes each.",
        f"* First registrations cost {told['fill']['cpu_us_of_the_first']:,.0f} us of CPU time in the beginning and "
        f"{told['fill']['cpu_us_of_the_last']:,.0f} us with all the others there: the kernel's tables and nft's are larger.",
        f"* A look at it (`status`, a page of the bindings) takes {told['status_ms']:.0f} ms.",
        f"* Killed and started again: takes requests after {told['restart_s']:.1f} s with "
        f"{told['held_after_restart']:,} bindings (empty: {told['start_empty_s']:.1f} s).",
    ]


def page(results: dict[str, Any]) -> str:
    """The page for docs/results."""
    text = [
        "# What the home agent can do", "",
        "Written by `make bench-ha MARKDOWN=docs/results/mobile-ip-bench.md`.", "",
        f"Machine: {results['machine']}. Rounds: {results['rounds']} (medians).", "",
    ]  # fmt: skip
    if "registrations" in results:
        told = results["registrations"]
        text += ["## Registrations", "", *registration_lines(told), "", *verdict_lines(told), ""]
    if "tunnels" in results:
        text += ["## One TCP stream through a tunnel", "", *ha_tunnels.lines(results["tunnels"]), ""]
    text += [
        "## How it was measured", "",
        "* The role `home-agent`, started as everybody starts it, on one processor (affinity): UDP socket, SQLite file with",
        "  `power_safe` (every transaction waits for the disk), event log, proxy ARP on a home link, userspace tunnels.",
        f"* {len(ha_load.FOREIGN_AGENTS)} foreign agents with many mobile nodes each: as many tunnels. Every node has a key",
        "  of its own (HMAC-MD5), every request a fresh timestamp and a Multipath extension. One reply of",
        f"  {ha_load.CHECKED} is verified.",
        "* The generator is another process on the other processor. Latency is counted from when a request was due; what is",
        "  not answered is sent again after 1, 2, 4 s. CPU: user and system time of the home agent, kernel included.",
        "* Forgeries have a wrong authenticator, and at most 100 a second are answered. Beside them",
        f"  {REFRESHES_PER_S} refreshes a second of all nodes, and one a second of each node whose data they carry.",
        "* Where other programs run as well, CPU time and ratios mean more than rates.",
        f"* TCP: {ha_tunnels.SECONDS:g} s in each direction (down: to the mobile node), veth pairs without offloads and",
        "  without a limit. With a tunnel the way is longer by one hop, and all programs share the processors.",
    ]  # fmt: skip
    return "\n".join(text) + "\n"


def measure_tunnels(rounds: int) -> dict[str, dict[str, Any]]:
    """All tunnels in turns."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(rounds):
        for tunnel in ha_tunnels.TUNNELS:
            with tempfile.TemporaryDirectory() as folder:
                rows[tunnel.name].append(ha_tunnels.measure(Path(folder), tunnel))
            say(tunnel.label, rows[tunnel.name][-1])
    return ha_tunnels.medians(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000, help="mobile nodes, with one binding each (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of what is measured several times (default 3)")
    parser.add_argument("--forged", type=int, default=FORGED_PER_S, help=f"forged requests/s (default {FORGED_PER_S})")
    parser.add_argument("--only", choices=("registrations", "tunnels"), help="one part")
    parser.add_argument("--profile", action="store_true", help="only show where the home agent's time goes (cProfile)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args()
    if not 10 <= options.nodes <= NODES_MAX:
        parser.error(f"--nodes must be 10 to {NODES_MAX}")
    if INSIDE not in os.environ:
        return again_inside("tests.bench.ha", INSIDE)
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        if options.profile:
            profiled(Path(folder), options.nodes)
            return 0
        if options.only != "tunnels":
            results["registrations"] = measure(Path(folder), options.nodes, options.rounds, options.forged)
    if options.only != "registrations":
        results["tunnels"] = measure_tunnels(options.rounds)
    text = page(results)
    print(json.dumps(results, indent=1) if options.json else text)
    if options.markdown:
        options.markdown.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
