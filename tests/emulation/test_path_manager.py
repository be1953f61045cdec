"""The path manager on real kernels: `mn` has two care-of paths, and a third one for the way through a home agent.

A path dies silently by a blackhole in the router: links stay up, addresses and routes stay.
"""

import errno
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from agents.kernel.netlink import KernelError
from agents.kernel.path_manager.diagnostics import Diagnostics, SubflowRow
from agents.kernel.path_manager.genl_mptcp import MPTCP_PM_ADDR_FLAG_SIGNAL, UserspaceMPTCP
from tests.emulation.mobileip_lab import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, Agent, Lab, care_of
from topologies.links.netns import inside
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
IPPROTO_MPTCP = 262
COA1, COA2, HOA = care_of(0), care_of(1), care_of(2)
PORT, WAIT_S = 5001, 8.0
CHUNK = bytes(range(251)) * 40


class PathLab(Lab):
    """The laboratory with commands for paths."""

    def silence(self, path: int) -> None:
        """Packets of a path disappear, both ways."""
        self.command("gw", "ip", "route", "add", "blackhole", f"{care_of(path)}/32")
        self.command("gw", "ip", "rule", "add", "priority", "10", "from", care_of(path), "blackhole")

    def restore(self, path: int) -> None:
        """It works again."""
        self.command("gw", "ip", "route", "del", "blackhole", f"{care_of(path)}/32")
        self.command("gw", "ip", "rule", "del", "priority", "10", "from", care_of(path), "blackhole")

    def manager(self, **config: Any) -> Agent:
        """The agent under test."""
        values: dict[str, Any] = {
            "families": "ipv4", "interface": [{"name": "mn-p0", "cost": 0}, {"name": "mn-p1", "cost": 1}],
            "home_address": [{"address": HOA}],
        }  # fmt: skip
        agent = Agent(self, "mn", "path-manager", values | config)
        self.agents.append(agent)
        return agent

    def subflows(self) -> list[SubflowRow]:
        """What the kernel of `mn` has."""
        with inside(self.nodes["mn"]):
            diagnostics = Diagnostics()
        try:
            return [row for row in diagnostics.subflows() if row.established]
        finally:
            diagnostics.close()

    def locals(self) -> set[str]:
        """Local addresses of the subflows of `mn`."""
        return {row.local for row in self.subflows()}


class Stream:
    """A download from `cn` to `mn` at some 2 MB/s, whose bytes are verified."""

    def __init__(self, lab: PathLab, local: str = HOA, *, protocols: tuple[int, int] = (IPPROTO_MPTCP,) * 2,
                 inbound: bool = False) -> None:  # fmt: skip
        ends = ("mn", "cn") if inbound else ("cn", "mn")
        with inside(lab.nodes[ends[0]]):
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocols[0])
        address = (local if inbound else CORRESPONDENT, PORT)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("", PORT))  # a listener of one address takes no joins to another
        self.listener.listen()
        with inside(lab.nodes[ends[1]]):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocols[1])
        if not inbound:
            client.bind((local, 0))
        client.connect(address)
        server, _ = self.listener.accept()
        self.sender, self.receiver = (client, server) if inbound else (server, client)
        self.received, self.gap_s, self.wrong = 0, 0.0, False
        self._last_s, self._end = monotonic(), threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        self.sender.settimeout(1.0)
        while not self._end.wait(0.005):
            try:
                self.sender.sendall(CHUNK)
            except OSError:
                return

    def _receive(self) -> None:
        self.receiver.settimeout(0.2)
        period = CHUNK[:251] * 300
        while not self._end.is_set():
            try:
                data = self.receiver.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                return
            at = self.received % 251
            self.wrong |= data != period[at : at + len(data)]
            now_s = monotonic()
            self.gap_s, self._last_s = max(self.gap_s, now_s - self._last_s), now_s
            self.received += len(data)

    def goes_on(self) -> None:
        """Returns when new bytes arrive: more than can have been on the way."""
        before = self.received
        wait_until(lambda: self.received > before + 200_000, WAIT_S, "the transfer goes on")

    def end(self) -> None:
        """Close everything; the bytes were right."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        for sock in (self.sender, self.receiver, self.listener):
            sock.close()
        assert not self.wrong, "bytes were lost, repeated or changed"


@contextmanager
def lab() -> Iterator[PathLab]:
    with tempfile.TemporaryDirectory() as folder, PathLab(Path(folder), 3).running() as built:
        assert isinstance(built, PathLab)
        built.command("cn", "ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
        yield built


@contextmanager
def streaming(net: PathLab, **options: Any) -> Iterator[Stream]:
    stream = Stream(net, **options)
    try:
        yield stream
    finally:
        stream.end()


def settled(net: PathLab, wanted: set[str]) -> None:
    wait_until(lambda: net.locals() == wanted, WAIT_S, f"subflows from {sorted(wanted)}")


def test_every_address_joins_and_what_goes_is_closed() -> None:
    with lab() as net:
        agent = net.manager(policy="all")
        with streaming(net) as stream:
            settled(net, {HOA, COA1, COA2})
            net.command("mn", "ip", "address", "del", f"{COA2}/24", "dev", "mn-p1")
            settled(net, {HOA, COA1})
            stream.goes_on()
        agent.end()
        assert agent.events("address-gone")


def test_home_address_leaves_and_joins_again() -> None:
    with lab() as net:
        agent = net.manager(policy="coa-only")
        with streaming(net) as stream:
            settled(net, {COA1, COA2})
            assert stream.receiver.getsockname()[0] == HOA, "the program's address stays"
            stream.goes_on()
            net.command("mn", "ip", "link", "set", "mn-p0", "down")
            net.command("mn", "ip", "link", "set", "mn-p1", "down")
            wait_until(lambda: HOA in net.locals(), WAIT_S, "the home address joins again")
            stream.goes_on()
        agent.end()


def test_policy_is_changed_while_connected() -> None:
    with lab() as net:
        agent = net.manager(policy="all")
        with streaming(net) as stream:
            settled(net, {HOA, COA1, COA2})
            agent.ask("policy", policy="cheapest")
            wait_until(
                lambda: {row.local: row.backup for row in net.subflows()} == {HOA: True, COA1: False, COA2: True},
                WAIT_S, "the dear ones are backup",
            )  # fmt: skip
            stream.goes_on()
            with pytest.raises(RuntimeError, match="no policy"):
                agent.ask("policy", policy="none")


def test_interface_is_withheld_by_command() -> None:
    with lab() as net:
        agent = net.manager(policy="all")
        with streaming(net) as stream:
            settled(net, {HOA, COA1, COA2})
            agent.ask("withhold", interface="mn-p0")
            settled(net, {HOA, COA2})
            stream.goes_on()
            agent.ask("release", interface="mn-p0")
            settled(net, {HOA, COA1, COA2})
            for command, backup in (("leave", True), ("release", False)):
                agent.ask(command, interface="mn-p0")
                wait_until(
                    lambda backup=backup: {row.local: row.backup for row in net.subflows()}
                    == {HOA: False, COA1: backup, COA2: False},
                    WAIT_S, f"after {command}",
                )  # fmt: skip
                stream.goes_on()
            with pytest.raises(RuntimeError, match="not configured"):
                agent.ask("release", interface="eth9")
        agent.end()


def test_silent_death_is_seen_and_healed() -> None:
    with lab() as net:
        agent = net.manager(policy="hoa-backup")
        with streaming(net) as stream:
            settled(net, {HOA, COA1, COA2})
            stream.goes_on()
            stream.gap_s = 0.0
            # The path that carries the stream: the scheduler has its favourite.
            before = {row.local: row.bytes_received for row in net.subflows()}
            stream.goes_on()
            busy = max(net.subflows(), key=lambda row: row.bytes_received - before[row.local]).local
            path = [COA1, COA2].index(busy)
            net.silence(path)
            wait_until(lambda: busy not in net.locals(), WAIT_S, "the dead subflow is closed")
            stream.goes_on()
            assert stream.gap_s < 2.0
            net.restore(path)
            settled(net, {HOA, COA1, COA2})
        assert [row["cause"] for row in agent.events("path-down")] == ["probes unanswered"]
        assert agent.events("path-up")
        agent.end()


def test_killed_in_mid_connection_nothing_is_cut() -> None:
    with lab() as net:
        agent = net.manager(policy="coa-only")
        with streaming(net) as stream:
            settled(net, {COA1, COA2})
            before = {(row.local, row.local_port) for row in net.subflows()}
            agent.end(signal.SIGKILL)
            stream.goes_on()
            agent.start()
            wait_until(lambda: bool(agent.ask("status")["connections"]), WAIT_S, "the connection is read from the kernel")
            stream.goes_on()
            assert {(row.local, row.local_port) for row in net.subflows()} == before
            # It is managed, not only seen.
            net.command("mn", "ip", "link", "set", "mn-p0", "down")
            settled(net, {COA2})
        agent.end()


def test_home_address_of_a_mobile_nodes_agent() -> None:
    """The home address comes from the agent, its way is a tunnel; the connection outlives the home agent."""
    with tempfile.TemporaryDirectory() as folder, PathLab(Path(folder), 2).running() as net:
        assert isinstance(net, PathLab)
        net.command("cn", "ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
        net.home_agent()
        mobile = net.mobile_node()
        net.nodes["mn-manager"] = net.nodes["mn"]  # agents keep their files by the node's name
        interfaces = [{"name": "mn-p0"}, {"name": "mn-p1"}]
        manager = net.agent(
            "mn-manager", "path-manager",
            {"families": "ipv4", "interface": interfaces, "mobile_node": [{"control": str(mobile.control)}]},
        )  # fmt: skip

        def known() -> bool:
            rows = {row["address"]: row for row in manager.ask("status")["addresses"]}
            return HOME_ADDRESS in rows and rows[HOME_ADDRESS]["home_agent"] == HOME_AGENT

        wait_until(known, WAIT_S, "the home address is known as usable")
        with streaming(net, local=HOME_ADDRESS) as stream:
            settled(net, {HOME_ADDRESS, COA1, COA2})
            manager.ask("policy", policy="coa-only")
            settled(net, {COA1, COA2})
            net.command("gw", "ip", "link", "set", "gw-ha", "down")
            stream.goes_on()
        manager.end()
        mobile.end()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (2, 1, 0)])
def test_orders_of_silent_failures(order: tuple[int, int, int]) -> None:
    """Two paths die, one comes back, the third dies: one way is left each time."""
    addresses = (COA1, COA2, HOA)
    first, second, third = order
    with lab() as net:
        agent = net.manager(policy="all")
        with streaming(net) as stream:
            settled(net, set(addresses))
            for path in (first, second):
                net.silence(path)
                stream.goes_on()
            net.restore(first)

            def back() -> bool:
                """A path that died while it was idle may never have been missed."""
                rows = {row["local"]: row["health"] for row in agent.ask("status")["paths"]}
                return rows.get(addresses[first]) == "up" and addresses[first] in net.locals()

            wait_until(back, 2 * WAIT_S, "the first one is used again")
            net.silence(third)
            stream.goes_on()
        assert stream.gap_s < 3.0
        agent.end()


def test_events_are_lost() -> None:
    """The agent is stopped until the kernel has dropped events; what happened meanwhile is found all the same."""
    with lab() as net:
        agent = net.manager(policy="all")
        with streaming(net) as stream:
            settled(net, {HOA, COA1, COA2})
            agent.process.send_signal(signal.SIGSTOP)
            net.command("mn", "ip", "address", "del", f"{COA2}/24", "dev", "mn-p1")
            noise = net.folder / "noise"
            lines = (f"address {word} 10.9.{n // 200}.{n % 200 + 1}/32 dev lo" for n in range(4000) for word in ("add", "del"))
            noise.write_text("\n".join(lines) + "\n")
            net.command("mn", "ip", "-batch", str(noise))
            agent.process.send_signal(signal.SIGCONT)
            settled(net, {HOA, COA1})
            stream.goes_on()
        assert agent.events("overrun")
        agent.end()


def test_who_was_called_announces_its_addresses() -> None:
    with lab() as net:
        net.manager(policy="coa-only")
        with streaming(net, inbound=True) as stream:
            settled(net, {COA1, COA2})
            stream.goes_on()


def test_correspondent_without_mptcp() -> None:
    with lab() as net:
        agent = net.manager(policy="coa-only")
        with streaming(net, protocols=(socket.IPPROTO_TCP, IPPROTO_MPTCP)) as stream:
            stream.goes_on()
            assert not agent.events("refused", "defect")
        agent.end()


def test_connection_of_the_kernels_path_manager_is_let_alone() -> None:
    with lab() as net, streaming(net) as stream:
        agent = net.manager(policy="all")
        wait_until(lambda: bool(agent.events("foreign-connection")), WAIT_S, "the connection is another manager's")
        stream.goes_on()
        assert net.locals() == {HOA}
        assert len(agent.events("refused")) <= 4, "it is soon believed"
        agent.end()


def test_inkernel_path_manager() -> None:
    with lab() as net:
        agent = net.manager(path_manager="kernel", policy="coa-only", announce=False)
        with streaming(net) as stream:
            settled(net, {COA1, COA2})
            stream.goes_on()
            net.command("mn", "ip", "link", "set", "mn-p0", "down")
            settled(net, {COA2})
            net.command("mn", "ip", "link", "set", "mn-p1", "down")
            wait_until(lambda: HOA in net.locals(), WAIT_S, "the home address joins again")
            stream.goes_on()
        added = [row for row in agent.events("done") if row["action"] == "AddEndpoint" and HOA in row["endpoint"]]
        assert len(added) == 1, "no to and fro"
        agent.end()


def test_home_address_without_a_way_at_the_start() -> None:
    with lab() as net:
        net.command("mn", "ip", "rule", "add", "priority", "900", "from", HOA, "unreachable")
        agent = net.manager(policy="all")
        assert {row["address"] for row in agent.ask("status")["addresses"]} == {COA1, COA2}
        with streaming(net, local=COA1) as stream:
            settled(net, {COA1, COA2})
            net.command("mn", "ip", "rule", "del", "priority", "900")
            settled(net, {HOA, COA1, COA2})
            stream.goes_on()
        agent.end()


def test_kernel_with_mptcp_off() -> None:
    with lab() as net:
        agent = net.manager()
        agent.end()
        program = (
            "import os, sys; real = os.path.exists; "
            "os.path.exists = lambda name: 'mptcp' not in str(name) and real(name); "
            "from agents.__main__ import main; sys.exit(main(sys.argv[1:]))"
        )
        with inside(net.nodes["mn"]):
            done = subprocess.run(
                [sys.executable, "-c", program, "path-manager", "--config", str(agent.file)],
                capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "no MPTCP" in done.stderr


def test_generic_netlink_says_what_is_wrong() -> None:
    with lab() as net, inside(net.nodes["mn"]):
        mptcp = UserspaceMPTCP()
        try:
            remote = {"addr": CORRESPONDENT, "port": PORT}
            for request in (
                lambda: mptcp.announce(1, addr=COA1, id=3, flags=MPTCP_PM_ADDR_FLAG_SIGNAL),
                lambda: mptcp.remove(1, 3),
                lambda: mptcp.subflow("create", 1, {"addr": COA1, "id": 3}, remote),
                lambda: mptcp.subflow("destroy", 1, {"addr": COA1, "port": 1}, remote),
                lambda: mptcp.set_flags({"addr": COA1, "flags": 4}, 1, remote),
            ):
                with pytest.raises(NetlinkError) as caught:
                    list(request() or ())
                assert caught.value.code in (errno.EINVAL, errno.ESRCH), "no connection has this token"
        finally:
            mptcp.close()


def test_diagnostics_of_a_closed_socket() -> None:
    with lab() as net, inside(net.nodes["mn"]):
        diagnostics = Diagnostics()
        assert diagnostics.subflows() == []
        assert diagnostics.connections() == []
        diagnostics.close()
        with pytest.raises(KernelError):
            diagnostics.subflows()
