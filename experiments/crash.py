"""Crash of a node and its return.

A crashed node is silent: nothing enters or leaves it, not even ARP or the FIN and RST that the kernel would send for killed
programs. Static addresses and routes stay, as they would come back from its disk; everything that ran is gone, and a host that
gets its addresses from the network asks for them again.
"""

import contextlib
import os
import signal
from pathlib import Path

from experiments.errors import RoamlabError
from experiments.testbed import Testbed
from topologies.waiting import wait_until

_CRASH, _SILENT = "roamlab_crash", "roamlab_silent"
"""Tables of nft: of a node that has crashed, and of one that nobody hears."""
_END_TIMEOUT_S = 5.0
_OBSERVERS = ("dumpcap",)
"""Programs that belong to the measurement, not to the node."""


def crash(bed: Testbed, node_name: str) -> list[str]:
    """Silence a node and kill what runs on it; names of the killed programs. Raises RoamlabError."""
    node = bed.node(node_name)
    if node_name in bed.crashed:
        raise RoamlabError(f"node-crash: {node_name} has crashed already")
    _silence(bed, node_name, _CRASH)
    # Sockets of killed programs linger in the kernel; a host that has crashed has none.
    bed.sysctl(node, "net.ipv4.tcp_orphan_retries", 1)
    bed.ever_crashed.add(node_name)
    bed.crashed[node_name] = bed.forget_agents(node_name)
    victims = {pid: name for pid, name in _programs(node.pid).items() if name not in _OBSERVERS}
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not victims.keys() & _programs(node.pid).keys(), _END_TIMEOUT_S, f"end of the programs of {node_name}")
    return sorted(victims.values())


def restart(bed: Testbed, node_name: str) -> list[str]:
    """Let a crashed node speak again and start its services and agents; their names. Raises RoamlabError."""
    if node_name not in bed.crashed:
        raise RoamlabError(f"node-restart: {node_name} has not crashed")
    node, agents = bed.node(node_name), bed.crashed.pop(node_name)
    _unsilence(bed, node_name, _CRASH)
    started = []
    for row in getattr(node, "interfaces", []):  # a host that boots asks for its addresses anew
        bed.run(node, ["ip", "address", "flush", "dev", row["name"], "scope", "global"], check=False)
    for method in ("start_netconf", "restart_services"):
        if hasattr(node, method):
            getattr(node, method)()
            started.append(method.split("_")[1])
    for role, config in agents.items():
        bed.start_agent(node_name, role, config)
        started.append(role)
    return started


def mute(bed: Testbed, node_name: str) -> None:
    """Nothing enters or leaves the node any more, on any interface; what runs on it goes on. Raises RoamlabError."""
    _silence(bed, node_name, _SILENT)


def unmute(bed: Testbed, node_name: str) -> None:
    """A mute node is heard again. Raises RoamlabError."""
    _unsilence(bed, node_name, _SILENT)


def _silence(bed: Testbed, node_name: str, table: str) -> None:
    hooks = {"inet": "prerouting", "arp": "input"}
    _nft(bed, node_name, "".join(
        f"table {family} {table} {{\n"
        f"  chain enter {{ type filter hook {entry} priority -400; policy drop; }}\n"
        "  chain leave { type filter hook output priority -400; policy drop; }\n}\n"
        for family, entry in hooks.items()
    ))  # fmt: skip


def _unsilence(bed: Testbed, node_name: str, table: str) -> None:
    _nft(bed, node_name, f"delete table inet {table}\ndelete table arp {table}\n")


def _nft(bed: Testbed, node_name: str, text: str) -> None:
    process = bed.node(node_name).popen(["nft", "-f", "-"], stdin=-1)
    _, errors = process.communicate(text.encode())
    if process.returncode != 0:
        raise RoamlabError(f"{node_name}: nft: {errors.decode(errors='replace').strip()[:200]}")


def _programs(shell_pid: int) -> dict[int, str]:
    """Processes in the node's network namespace but for the node's own shell: process id to name."""
    namespace = os.readlink(f"/proc/{shell_pid}/ns/net")
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) not in (shell_pid, os.getpid()):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns" / "net") == namespace:
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
    return found
