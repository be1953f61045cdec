"""Random transfers through the proxy, each a function of its seed. `python -m tests.proxy.transfers FIRST COUNT` runs many."""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal

from agents.core.proxy.actions import Action
from agents.core.proxy.commands import CommandRefused
from agents.core.proxy.config import LocalAddress, ProxyConfig
from agents.core.proxy.proxy import Proxy
from tests.proxy.capture import Capture
from tests.proxy.harness import Party, ProxiedHost, Result, Simulation, Talk, report, trace
from tests.proxy.middleboxes import Coalescer, Firewall, Gro, Nat, SequenceRewriter, Splitter
from tests.proxy.mptcp_config import MptcpConfig
from tests.proxy.mptcp_host import MptcpHost
from tests.proxy.mptcp_keys import key_with_dsn
from tests.proxy.network import Clock, Link, Network, Path
from tests.proxy.tcp_model import Endpoint
from tests.proxy.tcp_types import TcpConfig

Peer = Literal["mptcp", "proxy", "tcp"]
NEAR_PORT, FAR_PORT = 40_000, 80
NEAR4 = tuple(bytes((10, net, 0, 1)) for net in (1, 2, 3))
FAR4 = tuple(bytes((10, 64, net, 1)) for net in (0, 1))
NEAR6 = tuple(bytes.fromhex("20010db8") + bytes((0, net)) + bytes(9) + b"\x01" for net in (1, 2, 3))
FAR6 = tuple(bytes.fromhex("20010db8") + bytes((0, net)) + bytes(9) + b"\x01" for net in (64, 65))
COMMANDS = ("add", "add-backup", "handover", "handover-break", "to-address", "to-address-break", "delete", "backup", "regular")


@dataclass
class Run:
    """The parts of a simulation, for tests that want to look inside."""

    simulation: Simulation
    network: Network
    paths: list[Path]
    near: ProxiedHost
    far: ProxiedHost | MptcpHost | Endpoint
    near_addresses: tuple[bytes, ...]
    far_addresses: tuple[bytes, ...]
    capture: Capture | None = None
    inner: Capture | None = None
    script: list[str] = field(default_factory=list)
    """What was asked for, and what came of it."""

    @property
    def now(self) -> float:
        return self.simulation.clock.now

    @property
    def near_endpoint_spoke(self) -> bool:
        """Whether packets of this host's TCP came after its SYN."""
        return self.near.endpoint.counters["segments"] > 1

    def command(self, name: str, address: int, host: ProxiedHost | None = None) -> None:
        """A command of COMMANDS to the proxy of the near host, now; `address` is a number in its list."""
        host = host or self.near
        proxy: Any = host.proxy
        connections = list(proxy._numbered.values())
        alive = [s for s in connections[0].subflows if s.carries] if connections else []
        local = self.near_addresses[address % len(self.near_addresses)]
        other = next((s for s in alive if s is not connections[0].active), None) if connections else None
        last = alive[-1].number if alive else 0
        now = self.now
        if "break" in name and not self._peer_established():
            name = "add"  # a peer that knows no keys yet refuses every join
        calls: dict[str, Callable[[list[Action]], Any]] = {
            "add": lambda actions: proxy.add_subflow(local, now, actions),
            "add-backup": lambda actions: proxy.add_subflow(local, now, actions, backup=True),
            "handover": lambda actions: proxy.handover(other.number if other else last, now, actions),
            "handover-break": lambda actions: proxy.handover(other.number if other else last, now, actions, break_first=True),
            "to-address": lambda actions: proxy.handover(None, now, actions, address=local),
            "to-address-break": lambda actions: proxy.handover(None, now, actions, address=local, break_first=True),
            "delete": lambda actions: proxy.delete_subflow(last, now, actions),
            "backup": lambda actions: proxy.priority(last, True, now, actions),
            "regular": lambda actions: proxy.priority(last, False, now, actions),
        }
        try:
            answer = host.act(calls[name], now)
        except CommandRefused as error:
            answer = f"refused: {error}"
        self.script.append(f"{now:.6f} {name} {address}: {answer}")

    def _peer_established(self) -> bool:
        if isinstance(self.far, MptcpHost):
            return any(s.confirmed for s in self.far.connection.subflows)
        if isinstance(self.far, ProxiedHost):
            proxy: Any = self.far.proxy
            return all(not c.half_open for c in proxy._numbered.values())
        return True

    def later(self, delay: float, action: Callable[[], Any]) -> None:
        """Something happens after this time from the beginning."""
        self.simulation.at(self.now + delay, action)

    def run(self) -> Result:
        result = self.simulation.run()
        counters = self.network.counters
        if counters["lost"] + counters["cut"] + counters["queue full"] >= 3:  # enough to try a SYN without the option
            result.violations = [v for v in result.violations if "fallback: no MP_CAPABLE in the handshake" not in v]
        harmless = ["too old", "no flow"]
        if any("added" in text or "moved" in text for text in self.script):
            harmless.append("beyond the window")  # a data-level window may be heard of sooner by another path
        for path in self.paths:
            for box in path.boxes:
                if isinstance(box, Firewall):
                    texts = [text for text in box.invalid if not any(each in text for each in harmless)]
                    result.violations += [f"firewall: {text}" for text in texts]
        return result


@dataclass(frozen=True)
class Plan:
    """What a run is made of; the rest is drawn from the seed. None: drawn as well."""

    seed: int
    peer: Peer | None = None
    near_is_client: bool | None = None
    size: int = 200_000
    """The largest direction, at most."""
    lossless: bool = False
    """No loss, reordering, duplication."""
    commands: int | None = None
    """How many commands; None: up to four."""
    cuts: bool = True
    pauses: bool = True
    """Sometimes an application does not read for a while."""
    six: bool = False
    offload: bool = False
    """The near host's kernel cuts and merges segments and computes checksums."""
    boxes: bool = True
    """Middleboxes on some of the runs."""
    capture: bool = False


def tcp_config(r: random.Random, *, near: bool, six: bool) -> TcpConfig:
    most = 1440 if six else 1460
    return TcpConfig(
        mss=r.choice([most, most, most, 1000]) if not near else most,
        scale=r.choice([7, 7, 7, 3, None]),
        sack=r.random() < 0.85,
        timestamps=r.random() < 0.85,
        buffer=r.choice([1 << 20, 1 << 20, 200_000, 40_000]),
        isn=r.choice([0, 2**32 - r.randrange(1, 100_000), r.getrandbits(32)]),
        timestamp_offset=r.choice([0, 2**32 - 1000, r.getrandbits(32)]),
        delayed_ack=r.choice([0.04, 0.04, None]),
        probe_with_data=r.random() < 0.5,
    )


def mptcp_config(r: random.Random, addresses: tuple[bytes, ...], *, checksum: bool) -> MptcpConfig:
    tcp = tcp_config(r, near=False, six=len(addresses[0]) == 16)
    return MptcpConfig(
        tcp=tcp,
        key=r.choice([r.randbytes(8), key_with_dsn(2**32 - 100_000, 90_000, r.randrange(3))]),
        seed=r.getrandbits(30),
        addresses=addresses,
        checksum=checksum,
        wide_dsn=r.random() < 0.7,
        wide_ack=r.random() < 0.7,
        mapping=r.choice([65_000, 65_000, 1_300, 5_000]),
        backlog=r.choice([0, 30_000, 200_000]),
        scheduler=r.choice(["first", "roundrobin"]),
        buffer=r.choice([1 << 20, 1 << 20, 100_000, 40_000]),
        isns=(r.choice([0, 2**32 - r.randrange(1, 50_000), r.getrandbits(32)]),),
        fin_with_data=r.random() < 0.5,
    )


def prepare(plan: Plan) -> Run:
    """Everything joined, nothing started."""
    r = random.Random(f"transfer {plan.seed}")
    clock = Clock(100 + r.random() * 1000)
    capture, inner = (Capture(), Capture()) if plan.capture else (None, None)
    network = Network(plan.seed, clock, capture)
    near_addresses, far_addresses = (NEAR6, FAR6) if plan.six else (NEAR4, FAR4)
    loss = 0.0 if plan.lossless else r.choice([0.0, 0.0, 0.005, 0.02, 0.05])
    mess = 0.0 if plan.lossless else r.choice([0.0, 0.0, 0.02, 0.1])
    double = 0.0 if plan.lossless else r.choice([0.0, 0.0, 0.02])

    def link() -> Link:
        delay, rate = r.choice([0.002, 0.015, 0.06]), r.choice([None, 1e7, 5e7])
        return Link(delay=delay, rate=rate, loss=loss, reorder=mess, reorder_delay=0.03, duplicate=double)

    paths = [Path(link(), link()) for _ in near_addresses]
    for address, path in zip(near_addresses, paths, strict=True):
        network.route(address, path)
    client = plan.near_is_client if plan.near_is_client is not None else r.random() < 0.5
    peer: Peer = plan.peer or r.choice(["mptcp", "mptcp", "proxy"])
    checksum = r.random() < 0.1

    def proxy(addresses: tuple[bytes, ...]) -> Proxy:
        own = random.Random(r.getrandbits(64))
        config = ProxyConfig(checksum=checksum, wide_numbers=r.random() < 0.4)
        made = Proxy(config, own.randbytes)
        made.addresses_changed([LocalAddress(a, f"if{i}") for i, a in enumerate(addresses)], clock.now, [])
        return made

    near_socket_address, far_socket_address = (near_addresses[0], NEAR_PORT), (far_addresses[0], FAR_PORT)
    near_endpoint = Endpoint(
        replace(tcp_config(r, near=True, six=plan.six), plain=True, superpackets=plan.offload),
        near_socket_address,
        far_socket_address if client else None,
    )
    near = ProxiedHost(near_endpoint, proxy(near_addresses), [inner] if inner else [])
    near.offload = plan.offload
    far: ProxiedHost | MptcpHost | Endpoint
    if peer == "mptcp":
        config = mptcp_config(r, far_addresses, checksum=checksum)
        far = MptcpHost(config, FAR_PORT, None if client else near_socket_address)
        far_socket: Any = far.connection
    else:
        strict = replace(tcp_config(r, near=False, six=plan.six), plain=peer == "proxy", plain_after_syn=True)
        far_socket = Endpoint(strict, far_socket_address, None if client else near_socket_address)
        far = far_socket if peer == "tcp" else ProxiedHost(far_socket, proxy(far_addresses))
    if client and isinstance(far_socket, Endpoint):
        far_socket.listen()
    elif not client:
        near_endpoint.listen()
    small = r.choice([0, 1, 1_000, 20_000])
    sizes = r.choice([(plan.size, small), (small, plan.size), (plan.size, plan.size), (small, small)])
    talks = [Talk(r.randbytes(size), close=r.choice(["sent", "sent", "received"])) for size in sizes]
    if talks[1].close == "received":
        talks[0].close = "sent"
    for talk in talks:
        if len(talk.data) > 10 and r.random() < 0.3:
            parts = sorted(r.randrange(1, len(talk.data)) for _ in range(3))
            times = sorted(r.random() * 2 for _ in range(4))
            amounts = [b - a for a, b in zip([0, *parts], [*parts, len(talk.data)], strict=True)]
            talk.chunks = list(zip(times, amounts, strict=True))
    parties = [Party(near, near_endpoint, talks[0], client), Party(far, far_socket, talks[1], not client)]
    simulation = Simulation(plan.seed, clock, network, parties[0], parties[1])
    simulation.attach(parties[0], near_addresses)
    simulation.attach(parties[1], far_addresses)
    run = Run(simulation, network, paths, near, far, near_addresses, far_addresses, capture, inner)
    if plan.offload:
        for path in paths:
            path.boxes.append(Gro())
    if plan.boxes:
        _boxes(plan, run, client)
    _script(plan, r, run)
    return run


def _boxes(plan: Plan, run: Run, client: bool) -> None:
    """Middleboxes on a third of the runs."""
    r = random.Random(f"boxes {plan.seed}")
    if r.random() > 0.35:
        return
    for number, path in enumerate(run.paths):
        kind = r.choice(["split", "split", "merge", "both", "nat", "rewrite", "firewall", None])
        splitter = Splitter(r, r.choice([0.05, 0.3]), r.choice(["first", "last", "both"]))
        if kind in ("split", "both"):
            path.boxes.append(splitter)
        if kind in ("merge", "both"):
            path.boxes.append(Coalescer(size=850))
        if kind == "nat" and client:
            inner = run.near_addresses[number]
            outer = bytes((192, 0, 2, number)) if len(inner) == 4 else inner[:15] + b"\x99"
            path.boxes.append(Nat(inner, outer))
            run.network.route(outer, path)
        if kind == "rewrite":
            path.boxes.append(SequenceRewriter(r.getrandbits(32)))
        if kind == "firewall":
            path.boxes.append(Firewall())
        run.script.append(f"path {number}: {', '.join(type(b).__name__ for b in path.boxes) or 'no middlebox'}")


def _script(plan: Plan, r: random.Random, run: Run) -> None:
    """Commands, cuts and pauses."""
    count = plan.commands if plan.commands is not None else r.choice([0, 1, 2, 3, 4])
    times = sorted(r.random() * r.choice([0.3, 1.0, 3.0]) for _ in range(count))
    for number, when in enumerate(times):
        name = r.choice(COMMANDS if number else ("add", "add", "add-backup", "to-address", "to-address-break"))
        address = r.randrange(3) if number else 1
        run.later(when, lambda name=name, address=address: run.command(name, address))  # type: ignore[misc]
    if plan.cuts and count and r.random() < 0.4:
        path = r.choice(run.paths[:2])
        begin = times[0] + 0.2 + r.random()
        run.later(begin, lambda: path.set_up(False))
        run.later(begin + r.choice([0.3, 1.0, 3.0]), lambda: path.set_up(True))
    if r.random() < 0.1 and plan.pauses:
        socket = r.choice([run.simulation.near.socket, run.simulation.far.socket])
        begin = r.random()
        run.later(begin, socket.pause)
        run.later(begin + r.random() * 5, lambda: socket.resume(run.now))


def transfer(plan: Plan) -> tuple[Run, Result]:
    """One run from its beginning to its end."""
    run = prepare(plan)
    return run, run.run()


def _one(plan: Plan) -> tuple[int, bool, str]:
    try:
        run, result = transfer(plan)
    except Exception as error:
        import traceback

        return plan.seed, False, f"{error!r}\n{traceback.format_exc()}"
    return plan.seed, result.good, report(result) + "\n  " + "\n  ".join(run.script)


def main() -> int:
    """Runs transfers in processes of their own and prints what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--peer", choices=("mptcp", "proxy", "tcp"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--lossless", action="store_true")
    parser.add_argument("--commands", type=int)
    parser.add_argument("--no-cuts", action="store_true")
    parser.add_argument("--no-boxes", action="store_true")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--six", action="store_true", help="IPv6")
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--trace", type=FilePath, help="write STEM.outer.pcap, STEM.inner.pcap and the texts of both (count 1)")
    choice = parser.parse_args()

    def plan(seed: int) -> Plan:
        return Plan(
            seed, peer=choice.peer, lossless=choice.lossless, commands=choice.commands, cuts=not choice.no_cuts,
            boxes=not choice.no_boxes, offload=choice.offload,
            six=choice.six, size=choice.size, capture=choice.trace is not None,
        )  # fmt: skip

    if choice.trace is not None:
        run = prepare(plan(choice.first))
        result = run.run()
        assert run.capture is not None
        assert run.inner is not None
        for name, capture in (("outer", run.capture), ("inner", run.inner)):
            capture.write(choice.trace.with_suffix(f".{name}.pcap"))
            choice.trace.with_suffix(f".{name}.txt").write_text(trace(capture, 10**9) + "\n")
        choice.trace.with_suffix(".log.txt").write_text("\n".join(f"{at:.6f} {log}" for at, log in run.near.log) + "\n")
        print(report(result), *run.script, sep="\n  ")
        return 0 if result.good else 1
    begin, kinds = time.perf_counter(), Counter[bool]()
    with ProcessPoolExecutor(choice.jobs) as pool:
        for seed, good, text in pool.map(_one, map(plan, range(choice.first, choice.first + choice.count)), chunksize=4):
            kinds[good] += 1
            if not good:
                print(f"seed {seed}: {text}", flush=True)
    print(f"{kinds[True]} good, {kinds[False]} bad in {time.perf_counter() - begin:.1f} s")
    return 0 if not kinds[False] else 1


if __name__ == "__main__":
    sys.exit(main())
