"""Which packets are shown to the proxy: rules in the mangle table of iptables, for both families.

A connection is told by its entry in the kernel's connection tracking, which carries one of two bits:

* PROXIED: the proxy has rewritten a packet of it. All its packets are queued, *without* bypass: when the proxy is dead they are
  dropped, because an untranslated segment would corrupt the stream.
* RELEASED: plain TCP; nothing of it is queued any more.

A connection without either is shown when it begins (its SYN, *with* bypass: without a proxy it becomes plain TCP), or when
tracking meets it in the middle: tracking forgets, and a connection may be older than these rules. Those packets have queues of
their own, so that the agent can tell what it knows and release the rest.

The bits are set behind the queues, in POSTROUTING and INPUT, by the mark of the packet: only what the proxy has
accepted gets there.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Final

from agents.kernel.proxy.nfqueue import owned_queues

OWN_MARK: Final = 0x2000_0000
"""Bit of a packet's mark: the proxy has made or rewritten it. The same bit of a connection's mark: PROXIED."""
RELEASE_MARK: Final = 0x4000_0000
"""Bit of a packet's mark: the proxy has released its connection. The same bit of a connection's mark: RELEASED."""
UNTOUCHED_MASK: Final = OWN_MARK | RELEASE_MARK
"""The proxy has seen a packet without any of these bits not yet, or it is none of its business."""
QUEUES: Final = 4
"""Outbound, inbound, and the same for packets in the middle of a connection without a bit."""
CHAIN_PREFIX: Final = "ROAMLAB-PROXY-"
PORTS_MAX: Final = 15
"""Of one multiport match; a range counts twice."""
_OUT, _IN, _POST, _INPUT = (CHAIN_PREFIX + name for name in ("OUT", "IN", "POST", "INPUT"))
_HOOKS = {_OUT: "OUTPUT", _IN: "PREROUTING", _POST: "POSTROUTING", _INPUT: "INPUT"}
_OWN, _RELEASE = f"{OWN_MARK:#x}/{OWN_MARK:#x}", f"{RELEASE_MARK:#x}/{RELEASE_MARK:#x}"
_MIDDLE = "-m conntrack --ctstate NEW,INVALID"
_MPTCP = "--tcp-option 30"
_TOO_BIG = {4: "-p icmp --icmp-type fragmentation-needed", 6: "-p ipv6-icmp --icmpv6-type packet-too-big"}
_TIMEOUT_S = 30
_TRACKING: Final = {
    # Rewritten segments look out of window, and joined subflows are seen in one direction only.
    "nf_conntrack_tcp_be_liberal": 1,
    "nf_conntrack_tcp_loose": 1,
    # Acknowledgements leave as segments of another connection: tracking must not give up for want of them.
    "nf_conntrack_tcp_timeout_unacknowledged": 432_000,
    "nf_conntrack_tcp_timeout_max_retrans": 432_000,
}
_NETFILTER = Path("/proc/sys/net/netfilter")


class RulesError(OSError):
    """The rules could not be installed; one line with the reason and the remedy."""

    def __str__(self) -> str:
        return self.strerror or ""


@dataclass(frozen=True)
class Filter:
    """Which new connections are shown. Empty fields match everything; ports are numbers or ranges ("5000:5010")."""

    remote_ports: tuple[str, ...] = ()
    local_ports: tuple[str, ...] = ()
    """With these, connections that others open to this host are shown as well."""
    prefixes: tuple[str, ...] = ()
    """Of the other end."""
    cgroup: str = ""
    """Path below the root of cgroup v2, of the program that opens the connection."""

    def matches(self, version: int, *, outbound: bool) -> list[str]:
        """The matches of iptables for one family and direction, one text for each rule that is needed."""
        prefixes = [text for text in self.prefixes if ip_network(text).version == version]
        if self.prefixes and not prefixes:
            return []
        if self.cgroup and not outbound:
            return []
        far, near = ("-d", "--dports", "--sports"), ("-s", "--sports", "--dports")
        address, remote, local = far if outbound else near
        ends = f"-m multiport {local} {','.join(self.local_ports)} " if self.local_ports else ""
        ends += f"-m multiport {remote} {','.join(self.remote_ports)} " if self.remote_ports else ""
        ends += f"-m cgroup --path {self.cgroup} " if self.cgroup else ""
        return [f"{address} {prefix} {ends}" for prefix in prefixes] if prefixes else [ends]


def ports(values: Sequence[int | str]) -> tuple[str, ...]:
    """Ports and ranges as iptables writes them. Raises ValueError with one line."""
    result = []
    for value in values:
        low, _, high = str(value).replace("-", ":").partition(":")
        numbers = [int(text) if text.isdigit() else 0 for text in (low, high or low)]
        if not 1 <= numbers[0] <= numbers[1] <= 65535:
            raise ValueError(f'{value!r} is no port: write 5001 or "5000-5010"')
        result.append(":".join(str(number) for number in dict.fromkeys(numbers)))
    if sum(1 + (":" in text) for text in result) > PORTS_MAX:
        raise ValueError(f"more than {PORTS_MAX} ports (a range counts twice): write a second table")
    return tuple(result)


def ruleset(version: int, filters: Sequence[Filter], first_queue: int) -> list[str]:
    """The rules of all chains, in iptables-save's language, for one family."""
    out, inbound, out_middle, in_middle = (f"-j NFQUEUE --queue-num {first_queue + number}" for number in range(QUEUES))
    rules = [
        f"-A {_OUT} -m mark --mark {_OWN} -j RETURN",
        f"-A {_OUT} -m connmark --mark {_OWN} {out}",
        f"-A {_OUT} -m connmark --mark {_RELEASE} -j RETURN",
        f"-A {_OUT} -m addrtype --dst-type LOCAL -j RETURN",
        # Packets for the TCP of this host come this way, and nothing else that would be ours.
        f"-A {_IN} -i lo -j RETURN",
        f"-A {_IN} -m connmark --mark {_OWN} {inbound}",
        f"-A {_IN} -m connmark --mark {_RELEASE} -j RETURN",
        f"-A {_IN} -m addrtype ! --dst-type LOCAL -j RETURN",
        # The other end joins: from a port that no filter knows.
        f"-A {_IN} -p tcp --syn {_MPTCP} {inbound} --queue-bypass",
        f"-A {_IN} -p tcp ! --syn {_MPTCP} {_MIDDLE} {in_middle}",
    ]
    for item in filters:
        for match in item.matches(version, outbound=True):
            rules.append(f"-A {_OUT} -p tcp --syn {match}{out} --queue-bypass")
            rules.append(f"-A {_OUT} -p tcp ! --syn {match}{_MIDDLE} {out_middle}")
        for match in item.matches(version, outbound=False):
            if item.local_ports:
                rules.append(f"-A {_IN} -p tcp --syn {match}{inbound} --queue-bypass")
            rules.append(f"-A {_IN} -p tcp ! --syn {match}{_MIDDLE} {in_middle}")
    # Other TCP between two addresses whose route leads to the queue (see pinning): it is routed anew because of the mark.
    other = f"-o lo -m addrtype ! --dst-type LOCAL -m mark --mark 0/{UNTOUCHED_MASK:#x}"
    rules.append(f"-A {_OUT} {other} -j MARK --set-xmark {_RELEASE}")
    for chain in (_POST, _INPUT):
        rules.append(f"-A {chain} -m mark --mark {_OWN} -j CONNMARK --set-xmark {OWN_MARK:#x}/{UNTOUCHED_MASK:#x}")
        rules.append(f"-A {chain} -m mark --mark {_RELEASE} -j CONNMARK --set-xmark {RELEASE_MARK:#x}/{UNTOUCHED_MASK:#x}")
    # What takes the route that only leads to the queue (see pinning) must not end at a socket of this host.
    rules.append(f"-A {_POST} -o lo -m mark ! --mark {_OWN} -m addrtype ! --dst-type LOCAL -j DROP")
    return rules


def removal_text(present: str) -> str:
    """What iptables-restore needs to remove our chains, given the output of `iptables -t mangle -S`; "" when there are none."""
    lines = [line.strip() for line in present.splitlines()]
    chains = [line.split()[1] for line in lines if line.startswith(f"-N {CHAIN_PREFIX}")]
    jumps = [line for line in lines if line.startswith("-A ") and f"-j {CHAIN_PREFIX}" in line]
    removals = ["-D" + line[2:] for line in jumps if not line.startswith(f"-A {CHAIN_PREFIX}")]
    if not chains:
        return ""
    return "\n".join(
        ["*mangle", *(f":{name} - [0:0]" for name in chains), *removals, *(f"-X {name}" for name in chains), "COMMIT", ""]
    )


def queues_of(present: str) -> set[int]:
    """The queues that our chains lead to, given the output of `iptables -t mangle -S`."""
    ours = [line.split() for line in present.splitlines() if line.startswith(f"-A {CHAIN_PREFIX}")]
    return {int(after) for words in ours for word, after in pairwise(words) if word == "--queue-num" and after.isdigit()}


def installation_text(version: int, rules: Sequence[str]) -> str:
    """What iptables-restore needs to install the rules where none of ours are."""
    jumps = [f"-A {hook} -p tcp -j {chain}" for chain, hook in _HOOKS.items()]
    # Tracking gives a message about a segment the mark of the segment's connection.
    jumps.append(f"-A {_HOOKS[_IN]} {_TOO_BIG[version]} -j {_IN}")
    return "\n".join(["*mangle", *(f":{chain} - [0:0]" for chain in _HOOKS), *rules, *jumps, "COMMIT", ""])


class Rules:
    """Installs and removes the rules in the present network namespace.

    lock_file: what programs of iptables lock where they need a lock; an ordinary user cannot write to /run.
    """

    def __init__(self, filters: Sequence[Filter], first_queue: int, lock_file: str) -> None:
        self._filters, self._first_queue = filters, first_queue
        self._environment = {**os.environ, "XTABLES_LOCKFILE": lock_file, "LC_ALL": "C.UTF-8"}
        self._tracking: dict[str, str] = {}

    def install(self) -> None:
        """Replace what a former agent left. Raises RulesError."""
        self.remove()
        for version, program in ((4, "iptables"), (6, "ip6tables")):
            self._restore(program, installation_text(version, ruleset(version, self._filters, self._first_queue)))
        # The parameters exist once a rule has brought tracking into the kernel.
        for name, value in _TRACKING.items():
            path = _NETFILTER / name
            try:
                before = path.read_text().strip()
                path.write_text(f"{value}\n")
            except OSError as error:
                raise RulesError(error.errno, f"net.netfilter.{name} = {value}: {error.strerror}") from None
            self._tracking.setdefault(name, before)

    def check_alone(self) -> None:
        """Raises RulesError while another agent is at work in this namespace: nothing of it may be touched."""
        own = range(self._first_queue, self._first_queue + QUEUES)
        present = queues_of(self._call(["iptables", "-w", "-t", "mangle", "-S"]))
        others = present & owned_queues() - set(own)
        if others:
            raise RulesError(0, f"another proxy is at work here, with NFQUEUE {min(others)}: end it first")

    def remove(self) -> None:
        """Remove all rules of ours, also those of a former agent; parameters get their old values. Raises RulesError."""
        for program in ("iptables", "ip6tables"):
            text = removal_text(self._call([program, "-w", "-t", "mangle", "-S"]))
            if text:
                self._restore(program, text)
        for name, value in self._tracking.items():
            (_NETFILTER / name).write_text(value + "\n")
        self._tracking = {}

    def _restore(self, program: str, text: str) -> None:
        try:
            self._call([f"{program}-restore", "-w", "--noflush"], text)
        except RulesError as error:
            if any(item.cgroup for item in self._filters) and "cgroup" in text:
                raise RulesError(
                    error.errno, f"{error.strerror}. Where the kernel cannot match cgroup paths, leave cgroup out of [[filter]]"
                ) from None
            raise

    def _call(self, words: list[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                words, input=text, capture_output=True, text=True, env=self._environment, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RulesError(getattr(error, "errno", None) or 0, f"{words[0]}: {error}") from None
        if done.returncode:
            reason = " ".join(done.stderr.split())[:300]
            raise RulesError(done.returncode, f"{' '.join(words)}: {reason}")
        return done.stdout
