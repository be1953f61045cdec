"""What this machine can do: kernel features, tried inside a capsule, and programs. Probed, never guessed from a version.

python -m experiments.features      inside a capsule: prints {"feature": null | "why not"} as JSON
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from experiments import capsule
from experiments.errors import RoamlabError

_PROBE_TIMEOUT_S = 30
_VETH = "ip link add probe0 type veth peer name probe1"
_MPTCP = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"
_SCTP = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)"
_RING = "import socket, struct; s = socket.socket(17, 3, 0); s.setsockopt(263, 5, struct.pack('4I', 1 << 16, 1, 2048, 32))"


@dataclass(frozen=True)
class Feature:
    """Something of the kernel: the shell command that shows it, who needs it, and what happens without it."""

    name: str
    probe: str
    needed_by: str
    fallback: str = ""
    """Empty: there is none, what needs it is `unsupported`."""
    required: bool = False
    """True: nothing runs without it."""


@dataclass(frozen=True)
class Program:
    """A program of the system, its Debian package, who needs it."""

    name: str
    package: str
    needed_by: str
    required: bool = True


FEATURES = (
    Feature("veth", _VETH, "every link", required=True),
    Feature("bridge", "ip link add probe0 type bridge", "access points of one subnet", required=True),
    Feature("packet-ring", f'"$PYTHON" -c "{_RING}"', "userspace link emulation", required=True),
    Feature("policy-routing", "ip rule add from 192.0.2.1 lookup 77", "per-path source routing", required=True),
    Feature("mptcp", f'"$PYTHON" -c "{_MPTCP}" && ip mptcp limits show', "mechanisms mptcp, mptcp-backup"),
    Feature(
        "cubic-sysctl", "sysctl -q -w net.ipv4.tcp_congestion_control=cubic", "same congestion control in every run",
        "set on every route (congctl lock)"),
    Feature(
        "netem", f"{_VETH} && tc qdisc add dev probe0 root netem delay 1ms", "kernel link emulation",
        "userspace link emulation"),
    Feature("tbf", f"{_VETH} && tc qdisc add dev probe0 root tbf rate 1mbit burst 2000 limit 9000", "kernel link emulation",
            "userspace link emulation"),
    Feature("mirred", f"{_VETH} && tc qdisc add dev probe0 clsact && tc filter add dev probe0 ingress matchall "
            "action mirred egress redirect dev probe1", "kernel link emulation", "userspace link emulation"),
    Feature("nat", "nft add table ip p && nft 'add chain ip p c { type nat hook postrouting priority 100; }' && "
            "nft add rule ip p c masquerade", "NAT middleboxes"),
    Feature("conntrack", "nft add table ip p && nft 'add chain ip p c { type filter hook forward priority 0; }' && "
            "nft add rule ip p c ct state invalid drop", "stateful firewalls"),
    Feature("nfqueue", "iptables -A FORWARD -p tcp -j NFQUEUE --queue-num 1 --queue-bypass", "packet-rewriting agents"),
    Feature("ipip", "ip link add probe0 type ipip local 192.0.2.1 remote 192.0.2.2", "Mobile IPv4 tunnels in the kernel",
            "tunnels in userspace"),
    Feature("tap", "ip tuntap add dev probe0 mode tap", "tunnels in userspace"),
    Feature("tun", "ip tuntap add dev probe0 mode tun", "mechanisms mip4*: tunnels in userspace", "a veth pair"),
    Feature("nft-flows", "nft add table ip p && nft 'add chain ip p c { type route hook output priority -150; }' && "
            "nft add rule ip p c meta mark set jhash ip saddr . ip daddr mod 512 && "
            "nft add rule ip p c meta mark set numgen inc mod 2", "mechanisms mip4*: flow policy, balancing over tunnels"),
    Feature("lia", '"$PYTHON" -m experiments.lia --probe', "mechanisms *-lia: linked increases (RFC 6356) by BPF, real root"),
    Feature("sctp", f'"$PYTHON" -c "{_SCTP}"', "comparison with SCTP"),
)  # fmt: skip

PROGRAMS = (
    Program("ip", "iproute2", "everything"),
    Program("tc", "iproute2", "kernel link emulation"),
    Program("unshare", "util-linux", "the capsule"),
    Program("setpriv", "util-linux", "the capsule"),
    Program("mnexec", "mininet", "Mininet's nodes"),
    Program("ifconfig", "net-tools", "Mininet's nodes"),
    Program("dumpcap", "wireshark-common", "captures"),
    Program("dnsmasq", "dnsmasq-base", "DHCP and router advertisements of access routers"),
    Program("udhcpc", "udhcpc", "DHCP client of the mobile node"),
    Program("mptcpize", "mptcpize", "mechanisms mptcp, mptcp-backup: unmodified programs", required=False),
    Program("iperf3", "iperf3", "workload iperf3", required=False),
    Program("nft", "nftables", "middleboxes", required=False),
    Program("iptables", "iptables", "packet-rewriting agents", required=False),
    Program("clang", "clang", "mechanisms *-lia: compiles a congestion control for BPF", required=False),
    Program("tshark", "tshark", "tests: a second opinion on captures", required=False),
    Program("chromium", "chromium", "tests: the report in a browser", required=False),
)

PACKAGES = ("mininet", "pyroute2", "scapy", "pandas", "numpy", "matplotlib")


def probe_inside() -> dict[str, str | None]:
    """Try every feature, each in a network namespace of its own; None: works, else the reason."""
    found: dict[str, str | None] = {}
    for feature in FEATURES:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", f"ip link set lo up; {feature.probe}"],
            capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, env={**os.environ, "PYTHON": sys.executable},
        )  # fmt: skip
        lines = (done.stderr or done.stdout).strip().splitlines()
        found[feature.name] = None if done.returncode == 0 else (lines[-1] if lines else "not available")
    return found


def missing_programs() -> list[Program]:
    """Programs that are not installed or that this user must not execute."""
    path = capsule.environment()["PATH"]
    return [program for program in PROGRAMS if shutil.which(program.name, path=path) is None]


def probe() -> dict[str, str | None]:
    """Features (by trial in a capsule) and programs: None when available, else why not.

    Where no capsule is possible "capsule" says why, and no kernel feature could be tried.
    """
    reason = capsule.why_not()
    found: dict[str, str | None] = {"capsule": reason}
    found |= dict.fromkeys((f.name for f in FEATURES), "not tried: no capsule") if reason else _probe_in_capsule()
    found |= {program.name: None for program in PROGRAMS}
    found |= {program.name: f"not installed: Debian package {program.package}" for program in missing_programs()}
    return found


def _probe_in_capsule() -> dict[str, str | None]:
    box = capsule.launch([sys.executable, "-m", "experiments.features"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = box.process.communicate(timeout=_PROBE_TIMEOUT_S * 2)
    except subprocess.TimeoutExpired:
        raise RoamlabError(f"feature probe: no end within {_PROBE_TIMEOUT_S * 2} s") from None
    finally:
        box.close()
    if box.process.returncode != 0:
        raise RoamlabError(f"feature probe failed: {err.decode(errors='replace').strip()[-300:]}")
    found: dict[str, str | None] = json.loads(out)
    return found


def why_unsupported(requires: tuple[str, ...], found: dict[str, str | None]) -> str | None:
    """One line naming what is missing of `requires`, or None."""
    missing = [f"{name} ({found.get(name, 'unknown feature')})" for name in requires if found.get(name, "?") is not None]
    return f"needs {', '.join(missing)}" if missing else None


def require_basics(found: dict[str, str | None]) -> None:
    """Raises RoamlabError when something is missing without which nothing runs."""
    if found["capsule"] is not None:
        raise RoamlabError(found["capsule"])
    needed = [f.name for f in FEATURES if f.required] + [p.name for p in PROGRAMS if p.required]
    missing = [f"{name}: {found[name]}" for name in needed if found.get(name) is not None]
    if missing:
        raise RoamlabError(f"cannot run here: {'; '.join(missing)}. Run `make setup`, then `roamlab doctor`")


def describe_machine() -> dict[str, Any]:
    """Kernel, machine and versions for the manifest."""
    return {
        "kernel": platform.release(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
            **{name: _program_version(argv) for name, argv in _VERSION_COMMANDS.items()},
        },
    }


_VERSION_COMMANDS = {
    "iproute2": ["ip", "-V"],
    "dumpcap": ["dumpcap", "--version"],
    "iperf3": ["iperf3", "--version"],
    "dnsmasq": ["dnsmasq", "--version"],
    "udhcpc": ["udhcpc", "--help"],
}


def _program_version(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, env=capsule.environment())
    except (OSError, subprocess.TimeoutExpired):
        return "not available"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0][:80] if lines else "unknown"


if __name__ == "__main__":
    print(json.dumps(probe_inside()))
