"""One TCP stream from a mobile node to a correspondent, by its home address through a tunnel and by its care-of address.

The roles are processes of their own. The far end of the tunnel is the home agent, on a link of its own, so that a tunnelled
packet crosses the router twice. Links have no offloads and no limit of their rate: what tunnels cost is all there is.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.kernel.mobileip.netlink import MobileNetlink
from tests.bench.proxy import cpu_s
from tests.emulation.mobileip_lab import CORRESPONDENT, Agent, Lab
from topologies.links.netns import inside
from topologies.waiting import wait_until

PORT, SECONDS = 5001, 3.0
PROGRAMS = [sys.executable, "-m", "tests.bench.proxy_programs"]


@dataclass(frozen=True)
class Tunnel:
    """A way from the mobile node to the home agent."""

    name: str
    label: str
    backend: str = ""
    """userspace, kernel; "": no tunnel."""
    encapsulation: str = ""


TUNNELS = (
    Tunnel("none", "no tunnel"),
    Tunnel("user-ipip", "IP in IP, TUN", "userspace", "ipip"),
    Tunnel("user-gre", "GRE, TUN", "userspace", "gre"),
    Tunnel("user-udp", "UDP, TUN", "userspace", "udp"),
    Tunnel("kernel-ipip", "IP in IP, kernel", "kernel", "ipip"),
    Tunnel("kernel-gre", "GRE, kernel", "kernel", "gre"),
)


def kernel_refusal(encapsulation: str) -> str:
    """ "" when the present namespace can have such interfaces, else why not."""
    netlink = MobileNetlink()
    try:
        netlink.create_tunnel("probe", encapsulation, "127.0.0.1", "127.0.0.2", 0)
        netlink.delete_link("probe")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        netlink.close()
    return ""


def _agents(lab: Lab, tunnel: Tunnel) -> list[Agent]:
    """Home agent and mobile node with one binding that is used."""
    udp = tunnel.encapsulation == "udp"
    home = lab.home_agent(tunnels=tunnel.backend, udp_forced=udp, encapsulations=["ipip", "gre"])
    mobile = lab.mobile_node(
        tunnels=tunnel.backend, nat_traversal=udp, nat_force=udp, p0={"encapsulation": tunnel.encapsulation}
    )
    wait_until(lambda: [bool(row["shares"]) for row in mobile.ask("status")["forwarding"]] == [True], 20.0, "a tunnel is used")
    for agent in (home, mobile):
        # What the mobile node opened before it knew of the translator is drained for a while.
        wait_until(lambda agent=agent: _kinds(agent) == [(tunnel.backend, tunnel.encapsulation)], 10.0,  # type: ignore[misc]
                   f"{tunnel.name}: one such tunnel at the {agent.role}, not {_kinds(agent)}")  # fmt: skip
    return [home, mobile]


def _kinds(agent: Agent) -> list[tuple[str, str]]:
    return [(row["backend"], row["encapsulation"]) for row in agent.ask("status")["tunnels"]]


def measure(folder: Path, tunnel: Tunnel, seconds: float = SECONDS) -> dict[str, Any]:
    """Mbit/s both ways, and CPU time of the two agents."""
    with Lab(folder, 1).running() as lab:
        with inside(lab.nodes["ha"]):
            refusal = kernel_refusal(tunnel.encapsulation) if tunnel.backend == "kernel" else ""
        if refusal:
            return {"unsupported": refusal}
        agents = _agents(lab, tunnel) if tunnel.backend else []
        with inside(lab.nodes["cn"]):
            server = subprocess.Popen([*PROGRAMS, "server", CORRESPONDENT, str(PORT), "0"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            result: dict[str, Any] = {}
            for mode in ("down", "up"):
                result |= _stream(lab, agents, mode, seconds)
        finally:
            server.kill()
            server.communicate()
        for agent in agents:
            with suppress(RuntimeError):
                agent.end()
        return result


def _stream(lab: Lab, agents: list[Agent], mode: str, seconds: float) -> dict[str, float]:
    def carried() -> int:
        return sum(row["sent_bytes"] + row["received_bytes"] for row in agents[1].ask("status")["tunnels"]) if agents else 0

    spent: Callable[[], list[float]] = lambda: [cpu_s(agent.process.pid) for agent in agents]  # noqa: E731
    before, through = spent(), carried()
    with inside(lab.nodes["mn"]):
        words = [*PROGRAMS, "client", mode, CORRESPONDENT, str(PORT), str(seconds)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60 + 5 * seconds, check=False)
    if done.returncode:
        raise RuntimeError(f"{mode}: {done.stderr[-400:]}")
    told = json.loads(done.stdout)
    if agents and carried() - through < told["bytes"]:
        raise RuntimeError(f"{mode}: {told['bytes']} bytes, but {carried() - through} in the tunnel")
    gigabits = told["bytes"] * 8 / 1e9
    result = {f"{mode}_mbit": gigabits * 1e3 / told["s"]}
    for role, old, new in zip(("ha", "mn"), before, spent(), strict=False):
        result[f"{mode}_{role}_cpu_s_per_gbit"] = (new - old) / gigabits
    return result


def medians(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Of the rounds of each tunnel, with throughput in proportion to none."""
    result: dict[str, dict[str, Any]] = {}
    for name, rows in rounds.items():
        reason = next((row["unsupported"] for row in rows if "unsupported" in row), None)
        result[name] = {"unsupported": reason} if reason is not None else {
            key: statistics.median(row[key] for row in rows) for key in rows[0]
        }  # fmt: skip
    base = result.get("none")
    for row in result.values():
        if base and "unsupported" not in row:
            row |= {f"{mode}_ratio": row[f"{mode}_mbit"] / base[f"{mode}_mbit"] for mode in ("down", "up")}
    return result


def lines(result: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table."""
    labels = {item.name: item.label for item in TUNNELS}
    heads = ("", "down, Mbit/s", "of none", "up, Mbit/s", "of none", "CPU down, s/Gbit: home agent", "mobile node",
             "CPU up, s/Gbit: home agent", "mobile node")  # fmt: skip
    keys = (("down_mbit", ",.0f"), ("down_ratio", ".3f"), ("up_mbit", ",.0f"), ("up_ratio", ".3f"),
            ("down_ha_cpu_s_per_gbit", ".2f"), ("down_mn_cpu_s_per_gbit", ".2f"),
            ("up_ha_cpu_s_per_gbit", ".2f"), ("up_mn_cpu_s_per_gbit", ".2f"))  # fmt: skip
    text = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for name, row in result.items():
        if "unsupported" in row:
            text.append(f"| {labels[name]} | unsupported: {row['unsupported']} |" + " |" * (len(heads) - 2))
            continue
        cells = [format(row[key], form) if key in row else "" for key, form in keys]
        text.append("| " + " | ".join([labels[name], *cells]) + " |")
    return text
