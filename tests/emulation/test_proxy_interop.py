"""The proxy against the kernel's own MPTCP: a plain TCP program behind the proxy on one host, MPTCP sockets on the other.

Every scenario is judged by three witnesses: the bytes at both ends, the kernel's MPTCP counters (what a scenario does not list
must not move), and the proxy's own log (no defect, nothing that could not be sent).
"""

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.emulation.proxy_lab import NEVER, Lab, ProxyAgent, is_prefix, mobile, opened, server
from tests.emulation.test_topologies import run_check
from tests.pcaps import applications as app
from tests.pcaps import rules
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
# Data of several subflows comes in any order; what was placed twice is thrown away. The window that they share is advanced
# by whichever processor comes first; the other one counts a conflict.
SUBFLOWS = {"OFOQueueTail", "OFOQueue", "OFOMerge", "DuplicateData", "RcvWndConflict", "RcvWndConflictUpdate"}
JOINED_BY_PROXY = SUBFLOWS | {"MPJoinSynRx", "MPJoinAckRx"}
JOINED_BY_KERNEL = SUBFLOWS | {"MPJoinSynTx", "MPJoinSynAckRx"}
STALLS_MAX = 3
"""Expirations of the data-level timer (200 ms) that a stalled machine may cause anywhere; lost data would cause dozens."""
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
        self.pair = opened(self.lab, *ends, port=PORT, mptcp=mptcp, source=source, dual=mapped)
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
        if moved.get("MPTCPRetrans", 0) <= STALLS_MAX:
            allowed.add("MPTCPRetrans")
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
            # On a busy machine everything is silent at times.
            "proxy": {"header_reserve": 20, "silence_retransmissions": 1_000, **(proxy or {})},
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
            assert len([number for number in used if number]) == count, (used, agent.events("subflow-dead", "checksum-failed"))
            found = {":" in each["local"] for each in play.subflows()}
            assert count == 1 or len(found) == 2 or versions[0] == versions[1], "subflows of both families"
            play.close(ROLES[count % 2])
            joined = {"MPJoinAckRx": count - 1} if role == "client" else {"MPJoinSynAckRx": count - 1}
            play.judge(JOINED_BY_PROXY if role == "client" else JOINED_BY_KERNEL | {"AddAddr", "EchoAddTx"}, must=joined)


@pytest.mark.parametrize("checksum", ["off", "proxy", "kernel"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "mixed", "mixed6"])
def test_matrix(family: str, checksum: str) -> None:
    run_check(__name__, "matrix", family, checksum)


# -- what happens to a connection ---------------------------------------------------------------------------------------


Scene = Callable[[Play], None]
SCENES: dict[str, tuple[Scene, dict[str, Any]]] = {}


def scene(**proxy: Any) -> Callable[[Scene], Scene]:
    """Register a scene, played in both roles; with settings of the proxy."""

    def register(play: Scene) -> Scene:
        SCENES[play.__name__.replace("_", "-")] = play, proxy
        return play

    return register


def two_paths(play: Play) -> None:
    """A connection with two subflows: the proxy joins as a client; as a server it announces, and the kernel joins."""
    accepted = int(play.role == "server")
    play.lab.limits("cn", 8, accepted)
    play.connect()
    if play.role == "client":
        play.join(1)
    else:
        play.wait_subflows(2)


def other_number(play: Play) -> int:
    """The subflow that was joined."""
    return next(each["subflow"] for each in play.subflows() if each["subflow"])


ENDED = ("connection reset by peer", "connection timed out", "broken pipe", "transport endpoint is not connected")
"""How a socket says that its connection is lost; the last one is MPTCP's, when its last subflow is gone for too long."""
JOINED = JOINED_BY_PROXY | JOINED_BY_KERNEL | {"AddAddr", "EchoAddTx"}


@scene()
def kernel_joins(play: Play) -> None:
    """The kernel opens a subflow from its second address (an endpoint with the flag `subflow`)."""
    play.connect()  # before: a server's kernel may try, once, before its program has accepted the connection
    play.endpoint("add", server(play.family, second=True), "dev", "cn-0", "subflow")
    play.wait_subflows(2)
    assert server(play.family, second=True) in str(play.subflows())
    play.both_ways()
    play.close("client")
    play.judge(JOINED_BY_KERNEL, must={"MPJoinSynAckRx": 1})


@scene()
def kernel_announces(play: Play) -> None:
    """ADD_ADDR from the kernel is echoed, the proxy joins there, and leaves after REMOVE_ADDR."""
    second = server(play.family, second=True)
    play.endpoint("add", second, "dev", "cn-0", "signal")
    play.connect()
    wait_until(lambda: play.moved().get("EchoAdd"), 10.0, "the echo")
    known = play.agent.events("add-addr")
    assert known[-1]["address"] == second
    if play.role == "client":
        play.agent.ask("add-subflow", address=mobile(play.family, 1), remote=second)
        play.wait_subflows(2)
        play.both_ways()
        play.endpoint("delete", "id", "1")
        play.wait_subflows(1)
    else:  # a client's announced address has no listener
        play.endpoint("delete", "id", "1")
    wait_until(lambda: play.moved().get("RmAddrTx"), 10.0, "REMOVE_ADDR")
    play.both_ways()
    play.close("server")
    play.judge(JOINED, {"AddAddrTx", "EchoAdd", "RmAddrTx", "RmSubflow", "MPRstTx", "MPRstRx"}, must={"EchoAdd": 1})


@scene(announce=True)
def proxy_withdraws(play: Play) -> None:
    """The proxy ends a subflow in the middle of a transfer: RST with a reason, REMOVE_ADDR; nothing is lost."""
    two_paths(play)
    play.both_ways(BYTES, (BYTES // 2, lambda: play.agent.ask("del-subflow", subflow=other_number(play))))
    play.wait_subflows(1)
    play.both_ways(BYTES // 2)
    play.close("client")
    play.judge(JOINED, BREAK, {"RmAddr", "RmSubflow", "MPRstRx"}, must={"RmAddr": 1, "MPRstRx": 1})


@scene(announce=True)
def priorities(play: Play) -> None:
    """MP_PRIO from the proxy moves the kernel's data; MP_PRIO from the kernel moves the proxy's."""
    two_paths(play)
    other = other_number(play)

    def received() -> dict[int, int]:
        return {each["subflow"]: each["received"] for each in play.subflows()}

    for backup, used in ((0, other), (other, 0)):
        play.agent.ask("prio", subflow=used, priority="active")
        play.agent.ask("prio", subflow=backup, priority="backup")
        play.both_ways(20_000)  # what had been assigned before
        before = received()
        play.both_ways()
        more = {number: count - before[number] for number, count in received().items()}
        assert more[backup] < BYTES // 4 < more[used], more
    assert play.moved()["MPPrioRx"] >= 3
    play.agent.ask("prio", subflow=other, priority="active")
    # An address of its own is what the kernel's priorities are for.
    play.endpoint("add", server(play.family))
    play.endpoint("change", server(play.family), "backup")
    wait_until(lambda: play.agent.events("prio"), 10.0, "MP_PRIO of the kernel")
    play.both_ways()
    play.close("server")
    play.judge(JOINED, {"MPPrioRx", "MPPrioTx"}, must={"MPPrioTx": 1})


@scene(announce=True, nudge=True)
def handover(play: Play) -> None:
    """To and fro in the middle of a transfer, both paths working."""
    two_paths(play)
    other = other_number(play)
    hooks = [
        (count * BYTES // 2, lambda to=to: play.agent.ask("handover", to=to)) for count, to in ((1, other), (2, 0), (3, other))
    ]
    play.both_ways(BYTES, *hooks)
    play.close("client")
    play.judge(JOINED, {"MPPrioRx"}, must={"MPPrioRx": 3})


@scene(announce=True, nudge=True)
def break_before_make(play: Play) -> None:
    """The path in use is cut, and the proxy moves everything to the other one: joined before, or only then."""
    if play.role == "client":
        play.connect()
        move = {"address": mobile(play.family, 1)}
    else:
        two_paths(play)
        move = {"to": other_number(play)}

    def cut() -> None:
        play.lab.wire(0).cut = True
        play.agent.ask("handover", break_first=True, **move)

    play.both_ways(BYTES, (BYTES // 2, cut))
    play.lab.wire(0).cut = False  # the kernel's old subflow would go on for minutes; it gets an RST
    play.close("server")
    play.judge(JOINED, BREAK, {"MPPrioRx", "RmAddr", "RmSubflow", "MPRstRx"}, must={"RmAddr": 1})


@scene()
def half_closed(play: Play) -> None:
    """DATA_FIN of one side while the other goes on sending; each side first, and both at once."""
    for first in ("client", "server", "both"):
        pair = play.connect()
        play.both_ways(30_000)
        early, late = pair.sides if first == "client" else pair.sides[::-1]
        early.socket.shutdown(1)
        if first == "both":
            late.socket.shutdown(1)
        else:
            app.wait_end(late)
            late.end = "open"  # its own half is
            more = {"down" if late is pair.server else "up": 60_000}
            app.exchange(pair, **more)
            late.socket.shutdown(1)
        for side in pair.sides:
            app.wait_end(side)
            side.socket.close()
        pair.listener.close()
        play.good_bytes()
        quiet(play.lab)
        play.judge()


@scene(announce=True)
def kernel_aborts(play: Play) -> None:
    """MP_FASTCLOSE of the kernel in the middle of a transfer is an RST for the host's TCP."""
    two_paths(play)
    abort(play, play.kernel, play.host)
    play.judge(JOINED, {"MPFastcloseTx", "MPRstTx", "MPRstRx"}, must={"MPFastcloseTx": 1})


@scene(announce=True)
def host_aborts(play: Play) -> None:
    """An RST of the host's TCP is MP_FASTCLOSE for the kernel."""
    two_paths(play)
    abort(play, play.host, play.kernel)
    play.judge(JOINED, {"MPFastcloseRx", "MPRstRx", "MPRstTx"}, must={"MPFastcloseRx": 1})


def abort(play: Play, first: app.Side, other: app.Side) -> None:
    """One side gives up in the middle; the other one is told, and has a beginning of the stream."""
    assert play.pair
    assert not app.exchange(play.pair, up=4 * BYTES, down=4 * BYTES, hooks=((BYTES, lambda: app.abort(first)),))
    app.wait_end(other)
    assert other.end == "connection reset by peer"
    assert is_prefix(other, first)
    other.socket.close()
    play.pair.listener.close()
    quiet(play.lab)
    wait_until(lambda: not play.subflows(), 5.0, "the proxy forgets the connection")


STRIPPED: dict[str, Callable[[], rules.Strip]] = {
    "syn": lambda: rules.Strip(rules.is_syn),
    "syn-ack": lambda: rules.Strip(rules.is_syn_ack),
    "third-ack": lambda: rules.Strip(rules.is_third_ack),
    "everything": lambda: rules.Strip(lambda _segment: True),
}
FELL_BACK = {
    "syn": {"MPCapableFallbackSYNACK"},
    "syn-ack": {"MPCapableFallbackACK", "MPCapableFallbackSYNACK"},
    "third-ack": {"MPCapableFallbackACK", "MPCapableDataFallback"},
    "everything": {"DssFallback"},
}


@scene()
def stripped(play: Play) -> None:
    """A middlebox removes MPTCP options: the connection goes on as TCP, in whatever segment they are first missed."""
    for what, make in STRIPPED.items():
        rule = make()
        if what != "everything":
            play.lab.wire(0).rules.append(rule)
        play.connect()
        if what == "everything":
            play.lab.wire(0).rules.append(rule)
        play.both_ways()
        assert rule.hits
        play.close("client" if what == "syn" else "server")
        play.lab.wire(0).rules.clear()
        play.judge(FELL_BACK[what])


@scene()
def stripped_by_nft(play: Play) -> None:
    """The same by nftables in the router, in both directions from the SYN on."""
    table = "table inet strip { chain forward { type filter hook forward priority 0; reset tcp option mptcp; }; }"
    play.lab.command("gw", "nft", table)
    play.connect()
    play.both_ways()
    play.close()
    play.lab.command("gw", "nft", "delete table inet strip")
    play.judge(FELL_BACK["syn"])


@scene(announce=True)
def killed(play: Play) -> None:
    """The proxy is killed and started again: the connection ends, and nobody has wrong bytes."""
    play.lab.sysctl("cn", "mptcp/close_timeout", 1)
    two_paths(play)
    pair = play.pair
    assert pair
    play.both_ways(BYTES // 2)
    with pytest.raises(TimeoutError):
        app.exchange(pair, up=NEVER, down=NEVER, hooks=((1, lambda: play.agent.end(signal.SIGKILL)),), timeout_s=0.6)
    play.agent.start()
    assert not app.exchange(pair, up=NEVER, down=NEVER, timeout_s=20)
    for side in pair.sides:
        if side.end == "open":
            app.wait_end(side)
        assert side.end in ENDED, side.end
        side.socket.close()
    pair.listener.close()
    assert is_prefix(*pair.sides)
    assert is_prefix(*pair.sides[::-1])
    play.judge(JOINED, BREAK, {"MPRstRx", "MPRstTx", "MPFastcloseTx"})
    play.connect()
    play.both_ways(30_000)
    play.close()


@scene(native=True)
def other_traffic(play: Play) -> None:
    """MPTCP of the kernel at both ends, beside the proxy and on a port that it does not know: joined, and never shown."""
    lab = play.lab
    lab.sysctl("mn", "mptcp/enabled", 1)
    lab.limits("mn")
    lab.command("mn", "ip", "mptcp", "endpoint", "add", mobile(play.family, 1), "dev", "mn-p1", "subflow")
    play.connect()
    play.both_ways(30_000)
    names = ("outbound", "inbound", "connections", "stray", "bad-tokens")
    shown = {name: play.agent.counter(name) for name in names}
    pair = opened(lab, "mn", "cn", server(play.family), port=NATIVE_PORT, mptcp=(True, True), source=mobile(play.family, 0))
    app.exchange(pair, up=20_000, down=20_000)
    app.wait_subflows(pair, 2)
    app.exchange(pair, up=50_000, down=50_000)
    app.close(pair)
    assert pair.server.received_hash.digest() == pair.client.sent_hash.digest()
    now = {name: play.agent.counter(name) for name in names}
    assert [now[name] for name in names[2:]] == [shown[name] for name in names[2:]]
    # Late ACKs of the connection before; the other one's 140,000 bytes are a hundred packets.
    assert sum(now[name] - shown[name] for name in names[:2]) <= 10, f"{shown}, {now}"
    lab.command("mn", "ip", "mptcp", "endpoint", "flush")
    play.both_ways(30_000)
    play.close()
    play.judge(JOINED_BY_PROXY)


def check_scene(name: str) -> None:
    """Both roles, one with IPv4 and one with IPv6."""
    what, proxy = SCENES[name]
    with stage(proxy=proxy) as (lab, agent):
        for role, family in (("client", 6), ("server", 4)):
            what(Play(lab, agent, role, family))
            lab.wire(0).cut = False
            lab.command("cn", "ip", "mptcp", "endpoint", "flush")
            lab.limits("cn")


@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str) -> None:
    run_check(__name__, "scene", name)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
