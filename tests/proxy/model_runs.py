"""Random runs of the models without the proxy, each a function of its seed: what proves the models and the harness.

`python -m tests.proxy.model_runs tcp|mptcp FIRST COUNT` runs many.
"""

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.proxy.capture import Capture
from tests.proxy.harness import IdentityProxy, Party, ProxiedHost, Result, Simulation, Talk, report
from tests.proxy.mptcp_config import MptcpConfig
from tests.proxy.mptcp_host import MptcpHost
from tests.proxy.mptcp_keys import key_with_dsn
from tests.proxy.mptcp_model import Connection
from tests.proxy.network import Clock, Link, Network, Path
from tests.proxy.tcp_model import Endpoint
from tests.proxy.tcp_types import TcpConfig

A1, A2, B = bytes((10, 1, 0, 1)), bytes((10, 2, 0, 1)), bytes((10, 9, 0, 1))
CLIENT_PORT, PORT = 40_000, 80


@dataclass
class Pair:
    """Two joined models."""

    simulation: Simulation
    network: Network
    paths: list[Path]
    capture: Capture | None = None

    @property
    def now(self) -> float:
        return self.simulation.clock.now

    def after(self, delay: float, action: Callable[[], object]) -> None:
        self.simulation.at(self.now + delay, action)


def links(r: random.Random, *, quiet: bool = False) -> Callable[[], Link]:
    """Links of one run: the same disturbances, other delays and rates."""
    loss = 0.0 if quiet else r.choice([0.0, 0.0, 0.01, 0.05])

    def link() -> Link:
        return Link(
            delay=r.choice([0.001, 0.02, 0.1]),
            rate=r.choice([None, 1e7, 1e8]),
            loss=loss,
            reorder=0.0 if quiet else r.choice([0.0, 0.0, 0.1]),
            duplicate=0.0 if quiet else r.choice([0.0, 0.0, 0.05]),
        )

    return link


def talks(r: random.Random, size: int) -> tuple[Talk, Talk]:
    """What both applications do."""
    near = Talk(r.randbytes(r.choice([0, 1, 1000, size])), close=r.choice(["sent", "sent", "received"]))
    return near, Talk(r.randbytes(r.choice([0, 1, 1000, size])))


def pausing(r: random.Random, pair: Pair) -> None:
    """One of the applications stops reading for a while."""
    if r.random() < 0.2:
        socket = r.choice([pair.simulation.near.socket, pair.simulation.far.socket])
        begin = r.random() * 0.5
        pair.after(begin, socket.pause)
        pair.after(begin + r.random() * 10, lambda: socket.resume(pair.now))


def fitting(**values: object) -> TcpConfig:
    """A window scale that can express the window."""
    config = TcpConfig(**values)  # type: ignore[arg-type]
    return replace(config, scale=7) if config.scale == 14 and config.buffer < 60_000 else config


def tcp_pair(seed: int, *, size: int = 100_000, quiet: bool = False, capture: bool = False) -> Pair:
    """TCP and TCP, sometimes with a proxy that does nothing."""
    r = random.Random(f"tcp {seed}")
    clock = Clock(r.random() * 1000)
    network = Network(seed, clock, Capture() if capture else None)
    link = links(r, quiet=quiet)
    path = Path(link(), link())
    network.route(A1, path)

    def config() -> TcpConfig:
        return fitting(
            mss=r.choice([1460, 536]), scale=r.choice([7, None, 2, 14]), sack=r.random() < 0.7, timestamps=r.random() < 0.7,
            buffer=r.choice([1 << 20, 30_000, 5_000]), isn=r.choice([0, 2**32 - 2000, r.getrandbits(32)]),
            timestamp_offset=r.choice([0, 2**32 - 500]), delayed_ack=r.choice([0.04, None]),
            probe_with_data=r.random() < 0.5, plain=True,
        )  # fmt: skip

    near, far = Endpoint(config(), (A1, CLIENT_PORT), (B, PORT)), Endpoint(config(), (B, PORT))
    far.listen()
    near_talk, far_talk = talks(r, size)
    node = ProxiedHost(near, IdentityProxy()) if r.random() < 0.3 else near
    parties = Party(node, near, near_talk, client=True), Party(far, far, far_talk)
    simulation = Simulation(seed, clock, network, *parties)
    simulation.attach(parties[0], [A1])
    simulation.attach(parties[1], [B])
    pair = Pair(simulation, network, [path], network.capture)
    if not quiet:
        pausing(r, pair)
    return pair


def mptcp_config(r: random.Random, addresses: tuple[bytes, ...]) -> MptcpConfig:
    buffer = r.choice([1 << 20, 60_000, 10_000])
    tcp = fitting(
        buffer=buffer,
        mss=r.choice([1460, 1460, 536]), scale=r.choice([7, None, 2, 14]), sack=r.random() < 0.7, timestamps=r.random() < 0.7,
        delayed_ack=r.choice([0.04, None]), probe_with_data=r.random() < 0.5,
    )  # fmt: skip
    return MptcpConfig(
        tcp=tcp, key=r.choice([r.randbytes(8), key_with_dsn(2**32 - 100_000, 90_000, r.randrange(3))]),
        seed=r.getrandbits(30), addresses=addresses, checksum=r.random() < 0.2, wide_dsn=r.random() < 0.5,
        wide_ack=r.random() < 0.5, mapping=r.choice([65_000, 1_300, 5_000]), backlog=r.choice([0, 30_000, 200_000]),
        scheduler=r.choice(["first", "roundrobin"]), buffer=buffer,
        isns=(r.choice([0, 2**32 - 1000]),), fin_with_data=r.random() < 0.5,
    )  # fmt: skip


def join_hosts(
    seed: int, r: random.Random, configs: tuple[MptcpConfig, MptcpConfig], two: tuple[Talk, Talk], *, quiet: bool, capture: bool
) -> tuple[Pair, Connection, Connection]:
    """Two MPTCP hosts, the near one with two addresses and paths."""
    clock = Clock(r.random() * 1000)
    network = Network(seed, clock, Capture() if capture else None)
    link = links(r, quiet=quiet)
    paths = [Path(link(), link()) for _ in range(2)]
    for address, path in zip((A1, A2), paths, strict=True):
        network.route(address, path)
    near, far = MptcpHost(configs[0], CLIENT_PORT, (B, PORT)), MptcpHost(configs[1], PORT)
    parties = Party(near, near.connection, two[0], client=True), Party(far, far.connection, two[1])
    simulation = Simulation(seed, clock, network, *parties)
    simulation.attach(parties[0], [A1, A2])
    simulation.attach(parties[1], [B])
    return Pair(simulation, network, paths, network.capture), near.connection, far.connection


def mptcp_pair(seed: int, *, size: int = 100_000, capture: bool = False) -> Pair:
    """MPTCP and MPTCP: joins, priorities, removals, broken paths."""
    r = random.Random(f"mptcp {seed}")
    configs = mptcp_config(r, (A1, A2)), mptcp_config(r, (B,))
    pair, near, _far = join_hosts(seed, r, configs, talks(r, size), quiet=False, capture=capture)

    def open_() -> bool:
        return bool(near.subflows) and near.subflows[0].usable and not near.done

    def second() -> bool:
        return open_() and len(near.subflows) > 1 and near.subflows[1].usable

    if r.random() < 0.7:
        backup, kind, when = r.random() < 0.4, r.randrange(5), r.random() * 2
        pair.after(r.random(), lambda: open_() and near.join(pair.now, 1, backup=backup))
        if kind == 0:
            pair.after(when, lambda: open_() and near.set_backup(near.subflows[0], True, pair.now))
        elif kind == 1:
            pair.after(when, lambda: second() and near.remove(0, pair.now))
        elif kind == 2:
            pair.after(when, lambda: second() and pair.paths[0].set_up(False))
    pausing(r, pair)
    return pair


def judged(result: Result) -> Result:
    """Without the violation that three lost SYNs explain."""
    counters = result.counters["network"]
    if counters["lost"] + counters["cut"] + counters["queue full"] >= 3:
        result.violations = [v for v in result.violations if "fallback: no MP_CAPABLE in the handshake" not in v]
    return result


MAKERS: dict[str, Callable[[int], Pair]] = {"tcp": tcp_pair, "mptcp": mptcp_pair}


def main() -> int:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bad = 0
    for seed in range(first, first + count):
        result = judged(MAKERS[kind](seed).simulation.run())
        if not result.good:
            bad += 1
            print(f"seed {seed}: {report(result)}")
    print(f"{count - bad} good, {bad} bad")
    return bad


if __name__ == "__main__":
    sys.exit(main())
