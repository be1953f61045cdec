"""The fast path changes nothing: a proxy with it and one without see the same packets, and agree on everything after each."""

import copy
import os
import random
from collections import Counter, deque
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from agents.core.proxy import fast_path
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import IntervalMap, IntervalSet
from tests.proxy import transfers
from tests.proxy.harness import ProxiedHost, report
from tests.proxy.transfers import Plan

RUNS = int(os.environ.get("ROAMLAB_TRANSFERS", "96"))


class Never(dict[bytes, Any]):
    """Finds nothing: no packet takes the fast path."""

    def get(self, *_key: Any) -> Any:
        return None


def plain(value: Any) -> Any:
    """State that can be compared: a subflow is its number here."""
    if isinstance(value, Subflow):
        return ("subflow", value.number)
    if isinstance(value, IntervalMap | IntervalSet):
        return [plain(getattr(value, name)) for name in value.__slots__]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return state(value) if is_dataclass(value) else value


def state(thing: Any) -> dict[str, Any]:
    """Every field but those of the fast path itself."""
    return {item.name: plain(getattr(thing, item.name)) for item in fields(thing) if item.name not in ("lane", "config")}


class Twin:
    """A proxy, and one without the fast path in its shadow."""

    def __init__(self, proxy: Any) -> None:
        assert not proxy._numbered
        self.proxy, self.shadow = proxy, copy.copy(proxy)
        self.packets = 0
        drawn: deque[bytes] = deque()
        draw = proxy._random

        def record(count: int) -> bytes:
            drawn.append(draw(count))
            return drawn[-1]

        for name, value in vars(proxy).items():
            if isinstance(value, dict | list):
                setattr(self.shadow, name, copy.copy(value))
        proxy._random, self.shadow._random = record, lambda _count: drawn.popleft()
        self.shadow._usual_from_host = self.shadow._usual_from_network = Never()

    def __getattr__(self, name: str) -> Any:
        found, other = getattr(self.proxy, name), getattr(self.shadow, name)
        if not callable(found):
            return found

        def both(*arguments: Any, **named: Any) -> Any:
            lists = [argument for argument in arguments if isinstance(argument, list)]
            before = [list(item) for item in lists]
            again = [list(item) if isinstance(item, list) else item for item in arguments]
            try:
                result = found(*arguments, **named)
            except Exception as error:
                with pytest.raises(type(error)):
                    other(*again, **named)
                raise
            assert other(*again, **named) == result, (name, before)
            assert [item for item in again if isinstance(item, list)] == lists
            if name in ("inbound", "outbound", "handle_timer"):
                self.packets += 1
                self.compare()
            return result

        return both

    def compare(self) -> None:
        """Everything that is known of the connections."""
        assert self.proxy._numbered.keys() == self.shadow._numbered.keys()
        assert self.proxy.counters == self.shadow.counters
        for number, connection in self.proxy._numbered.items():
            other = self.shadow._numbered[number]
            assert state(connection) == state(other)
            for one, two in zip(connection.subflows, other.subflows, strict=True):
                assert state(one) == state(two)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many packets took the fast path."""
    counts: Counter[str] = Counter()
    for name in ("from_host", "from_network"):
        function = getattr(fast_path, name)

        def counted(*arguments: Any, function: Any = function, name: str = name) -> Any:
            answer = function(*arguments)
            counts[name] += answer is not None
            return answer

        monkeypatch.setattr(fast_path, name, counted)
    return counts


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections with timestamps and SACK, and no more options of MPTCP than Linux has."""
    tcp_config, mptcp_config = transfers.tcp_config, transfers.mptcp_config

    def tcp(*arguments: Any, **named: Any) -> Any:
        return replace(tcp_config(*arguments, **named), sack=True, timestamps=True)

    def mptcp(r: random.Random, addresses: tuple[bytes, ...], *, checksum: bool) -> Any:
        made = mptcp_config(r, addresses, checksum=False)
        return replace(made, tcp=replace(made.tcp, sack=True, timestamps=True), scheduler="first")

    monkeypatch.setattr(transfers, "tcp_config", tcp)
    monkeypatch.setattr(transfers, "mptcp_config", mptcp)
    monkeypatch.setattr(transfers, "ProxyConfig", lambda **_named: ProxyConfig())


def check(plan: Plan, *, open_s: float = 0.0, second_s: float | None = None) -> int:
    """One run with twins; how many packets and timers they agreed on.

    `open_s`: the last byte is written so late. `second_s`: when a second subflow is opened.
    """
    run = transfers.prepare(plan)
    twins = []
    for host in (run.near, run.far):
        if isinstance(host, ProxiedHost):
            host.proxy = Twin(host.proxy)
            twins.append(host.proxy)
    for talk in (run.simulation.near.talk, run.simulation.far.talk):
        if open_s and talk.data:
            talk.chunks = [(0.0, len(talk.data) - 1), (open_s, 1)]
    if second_s is not None:
        run.later(second_s, lambda: run.command("add", 1))
    result = run.run()
    assert result.good, f"{plan}\n{report(result)}"
    return sum(twin.packets for twin in twins)


@pytest.mark.parametrize("part", range(4))
def test_all_kinds_of_transfers(part: int) -> None:
    """Connections that hardly ever take it: without timestamps or SACK, with checksums, over IPv6, half closed."""
    for seed in range(part, RUNS // 3, 4):
        check(Plan(seed, size=60_000, six=seed % 5 == 0))


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("part", range(8))
def test_transfers_in_trouble(part: int, taken: Counter[str]) -> None:
    """In and out of it: losses, handovers, middleboxes, wraps."""
    packets = sum(check(Plan(seed, size=60_000), open_s=5.0) for seed in range(part, RUNS, 8))
    assert min(taken["from_host"], taken["from_network"]) > packets / 20


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("part", range(2))
def test_transfers_with_offload(part: int, taken: Counter[str]) -> None:
    """The kernel cuts what this host sends, and computes its checksums: ACKs take the fast path all the same."""
    packets = sum(check(Plan(seed, size=60_000, offload=True), open_s=5.0) for seed in range(part, RUNS // 3, 2))
    assert taken["from_host"] > packets / 20


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("second_s", [None, 0.2])
@pytest.mark.parametrize("peer", ["mptcp", "proxy"])
def test_quiet_transfers_take_it(peer: Any, second_s: float | None, taken: Counter[str]) -> None:
    """Without loss and commands nearly everything does, beside an idle subflow, too."""
    packets = 0
    for seed in range(12):
        plan = Plan(seed, peer=peer, size=200_000, lossless=True, commands=0, boxes=False, cuts=False, pauses=False)
        packets += check(plan, open_s=5.0, second_s=second_s)
    assert taken.total() > packets * 2 / 3
