"""The proxy against the kernel's own MPTCP: a plain TCP program behind the proxy on one host, MPTCP sockets on the other.

Every scenario is judged by three witnesses: the bytes at both ends, the kernel's MPTCP counters (what a scenario does not list
must not move), and the proxy's own log (no defect, nothing that could not be sent).
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.emulation.proxy_lab import Lab, ProxyAgent, is_prefix, mobile, opened, server
from tests.emulation.test_topologies import run_check
from tests.pcaps import applications as app
from tests.pcaps import rules
from topologies.links.netns import inside
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
PORT = 5001
NATIVE_PORT = 5009
"""No filter of the proxy names it."""
ROLES = ("client", "server")
"""Of the host behind the proxy."""
BYTES = 400_000

# Every connection moves these; what else may move, a scenario says.
ALWAYS = {
    "MPCapableSYNRX",
    "MPCapableACKRX",
    "MPCapableSYNTX",
    "MPCapableSYNACKRX",
    "RcvWndShared",
    "SndWndShared",
    "MPCurrEstab",
}
# Data of several subflows comes in any order; what was placed twice is thrown away.
SUBFLOWS = {"OFOQueueTail", "OFOQueue", "OFOMerge", "DuplicateData"}
JOINED_BY_PROXY = SUBFLOWS | {"MPJoinSynRx", "MPJoinAckRx"}
JOINED_BY_KERNEL = SUBFLOWS | {"MPJoinSynTx", "MPJoinSynAckRx"}
# The data-level timer, and the subflow that the kernel takes out of use after retransmissions.
BREAK = {"MPTCPRetrans", "SubflowStale", "SubflowRecover"}


@dataclass
class Play:
    """One connection in one lab, and what to hold against it afterwards."""

    lab: Lab
    agent: ProxyAgent
    role: str
    family: int = 4
    before: dict[str, int] = field(default_factory=dict)
    pair: app.Pair | None = None

    @property
    def kernel(self) -> app.Side:
        """The MPTCP end."""
        assert self.pair
        return self.pair.server if self.role == "client" else self.pair.client

    @property
    def host(self) -> app.Side:
        """The end behind the proxy."""
        assert self.pair
        return self.pair.client if self.role == "client" else self.pair.server

    def connect(self, *, first: int = 300, mapped: bool = False) -> app.Pair:
        """Open a connection and exchange a few bytes. `mapped`: the kernel's client has a socket of IPv6 that uses IPv4."""
        self.before = self.lab.counters("cn")
        if self.role == "client":
            ends, mptcp, source = ("mn", "cn", server(self.family)), (False, True), mobile(self.family, 0)
        else:
            mapping = "::ffff:" if mapped else ""
            ends, mptcp, source = ("cn", "mn", mapping + mobile(self.family, 0)), (True, False), mapping + server(self.family)
        self.pair = opened(self.lab, *ends, port=PORT, mptcp=mptcp, source=source)
        if first:
            assert app.exchange(self.pair, up=first, down=first)
        return self.pair

    def both_ways(self, count: int = BYTES, *hooks: tuple[int, Callable[[], object]]) -> None:
        """So many bytes each way at once; hooks by bytes received in all."""
        assert self.pair
        arrived = app.exchange(self.pair, up=count, down=count, hooks=hooks)
        assert arrived, [side.end for side in self.pair.sides]

    def join(self, path: int, family: int = 0, **options: Any) -> None:
        """The proxy opens a subflow by a path; returns when both ends have it."""
        assert self.pair
        family = family or self.family
        count = len(self.subflows()) + 1
        if family != self.family:
            options["remote"] = server(family)
        self.agent.ask("add-subflow", address=mobile(family, path), **options)
        self.wait_subflows(count)

    def subflows(self) -> list[dict[str, Any]]:
        """The proxy's."""
        found = self.agent.connections()
        return [each for each in found[-1]["subflows"] if each["state"] == "established"] if found else []

    def wait_subflows(self, count: int) -> None:
        """Both ends have so many."""

        def state() -> tuple[int, int]:
            return len(self.subflows()), len(app.subflow_addresses(self.kernel.socket))

        wait_until(lambda: state() == (count, count), 10.0, f"{count} subflows, at first {state()}")

    def endpoint(self, verb: str, *words: str) -> None:
        """Of the kernel's path manager."""
        self.lab.command("cn", "ip", "mptcp", "endpoint", verb, *words)

    def moved(self) -> dict[str, int]:
        """The kernel's counters that have moved since the connection began."""
        now = self.lab.counters("cn")
        return {name: value - self.before.get(name, 0) for name, value in now.items() if value != self.before.get(name, 0)}

    def good_bytes(self) -> None:
        """Each end has what the other sent."""
        assert self.pair
        for receiver, sender in (self.pair.sides, self.pair.sides[::-1]):
            assert (receiver.received, receiver.received_hash.hexdigest()) == (sender.sent, sender.sent_hash.hexdigest())

    def close(self, first: str = "server") -> None:
        """An orderly end: DATA_FIN, and nothing is left."""
        assert self.pair
        app.close(self.pair, first)
        assert [side.end for side in self.pair.sides] == ["eof", "eof"]
        self.good_bytes()
        quiet(self.lab)

    def judge(self, *may: set[str], must: Mapping[str, int] | None = None) -> None:
        """Hold the kernel's counters and the proxy's log against the scenario."""
        moved = self.moved()
        allowed = ALWAYS.union(*may)
        assert not set(moved) - allowed, f"unexpected: { {k: v for k, v in moved.items() if k not in allowed} } of {moved}"
        for name, least in (must or {}).items():
            assert moved.get(name, 0) >= least, f"{name} {moved.get(name, 0)} < {least}: {moved}"
        assert self.agent.ask("status")["problems"] == {}


def quiet(lab: Lab) -> None:
    """No socket is left that could still send."""
    talking = ("ss", "-Htan", "exclude", "time-wait", "exclude", "listening")
    wait_until(lambda: not any(lab.command(node, *talking) for node in ("mn", "cn")), 15.0, "all sockets closed")


@contextmanager
def stage(
    *, paths: int = 2, proxy: Mapping[str, Any] | None = None, kernel_checksum: bool = False, ports: tuple[int, ...] = (PORT,)
) -> Iterator[tuple[Lab, ProxyAgent]]:
    """A lab with the proxy on the mobile host and the kernel's MPTCP on the server."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), paths=paths).running() as lab:
        lab.sysctl("cn", "mptcp/enabled", 1)
        lab.sysctl("cn", "mptcp/checksum_enabled", int(kernel_checksum))
        lab.limits("cn")
        agent = lab.agent("mn", {
            "filter": [{"remote_ports": list(ports)}, {"local_ports": list(ports)}],
            "proxy": {"header_reserve": 20, **(proxy or {})},
        })  # fmt: skip
        yield lab, agent
        agent.end()
        assert not agent.events("defect", "failed", "send-failed"), agent.events("defect", "failed", "send-failed")


# -- families, checksums, numbers of subflows ------------------------------------------------------------------------------


def check_matrix(family: str, checksum: str) -> None:
    """One to four subflows, both roles, data both ways at once.

    checksum: nobody, the proxy or the kernel wants DSS checksums.
    """
    versions = {"ipv4": (4, 4), "ipv6": (6, 6), "mixed": (4, 6), "mixed6": (6, 4)}[family]
    settings = {"checksum": checksum == "proxy", "announce": True}
    with stage(paths=4, proxy=settings, kernel_checksum=checksum == "kernel") as (lab, agent):
        for role, count in (
            ("client", 1),
            ("client", 2),
            ("client", 4),
            ("server", 1),
            ("server", 5 if family == "mixed" else 3),
        ):
            lab.limits("cn", 8 if role == "client" else count - 1, 0 if role == "client" else count - 1)
            play = Play(lab, agent, role, versions[0])
            play.connect(mapped=family == "mixed")
            info = app.kernel_view(play.kernel.socket)
            assert info is not None
            assert bool(info["csum_enabled"]) is (checksum != "off")
            if role == "client":
                for path in range(1, count):
                    play.join(path, versions[path % 2])
            play.wait_subflows(count)
            play.both_ways()
            # The kernel sends on all of them.
            used = [each["received"] for each in play.subflows()]
            assert len([number for number in used if number]) == count, used
            found = {":" in each["local"] for each in play.subflows()}
            assert count == 1 or len(found) == 2 or versions[0] == versions[1], "subflows of both families"
            play.close(ROLES[count % 2])
            joined = {"MPJoinAckRx": count - 1} if role == "client" else {"MPJoinSynAckRx": count - 1}
            play.judge(JOINED_BY_PROXY if role == "client" else JOINED_BY_KERNEL | {"AddAddr", "EchoAddTx"}, must=joined)


@pytest.mark.parametrize("checksum", ["off", "proxy", "kernel"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "mixed", "mixed6"])
def test_matrix(family: str, checksum: str) -> None:
    run_check(__name__, "matrix", family, checksum)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
