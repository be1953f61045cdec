"""Addresses that are kept alive: when the detour begins and ends, when they are let go, what a refusal does."""

from typing import Any

import pytest

from agents.kernel.netlink import KernelError
from agents.kernel.proxy.pinning import PAIR_PRIORITY, PIN_PRIORITY, PIN_TABLE, Pair, Pins
from agents.kernel.proxy.rtnetlink import Address

X, Y = bytes((10, 0, 0, 1)), bytes(16)


class Kernel:
    """Keeps what it is told; refuses what is in `refuses`."""

    def __init__(self) -> None:
        self.local: set[bytes] = set()
        self.rules: set[bytes] = set()
        self.pairs: set[Pair] = set()
        self.mtu: dict[int, int] = {}
        self.refuses: set[str] = set()

    def _check(self, what: str) -> None:
        if what in self.refuses:
            raise KernelError(1, f"{what}: Operation not permitted")

    def addresses(self) -> list[Address]:
        return [Address(1, address, True, True) for address in sorted(self.local)]

    def pin_rules(self, table: int) -> list[tuple[int, bytes]]:
        assert table == PIN_TABLE
        return [(PIN_PRIORITY, address) for address in sorted(self.rules)]

    def add_loopback_address(self, address: bytes) -> None:
        self._check("add")
        self.local.add(address)

    def delete_loopback_address(self, address: bytes) -> None:
        self._check("delete")
        self.local.remove(address)

    def set_loopback_default(self, version: int, _table: int, mtu: int) -> None:
        self._check("route")
        self.mtu[version] = mtu

    def change_pin_rule(self, address: bytes, _priority: int, _table: int, _mark: int, *, add: bool) -> None:
        self._check("rule")
        (self.rules.add if add else self.rules.remove)(address)

    def change_pair_rule(self, pair: Pair, _priority: int, _table: int, _mark: int, *, add: bool) -> None:
        self._check("rule")
        (self.pairs.add if add else self.pairs.remove)(pair)

    def delete_rules(self, priority: int, table: int) -> None:
        assert (priority, table) == (PAIR_PRIORITY, PIN_TABLE)
        self.pairs.clear()


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def write(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def make(kernel: Kernel) -> tuple[Pins, Log]:
    log = Log()
    return Pins(kernel, log), log  # type: ignore[arg-type]


def test_the_detour_lasts_as_long_as_the_address_is_away(kernel: Kernel) -> None:
    pins, log = make(kernel)
    pins.hold(X)
    pins.hold(X)
    pins.update({X}, {X})
    assert (kernel.local, kernel.rules) == ({X}, set())
    pins.update(set(), {X})
    pins.update(set(), {X})
    assert (kernel.local, kernel.rules, pins.detoured) == ({X}, {X}, frozenset({X}))
    pins.update({X}, {X})
    assert (kernel.local, kernel.rules) == ({X}, set())
    assert [event for event, _fields in log.lines] == ["pinned", "detour-begins", "detour-ends"]


def test_an_address_is_let_go_when_it_is_away_and_nobody_uses_it(kernel: Kernel) -> None:
    pins, _log = make(kernel)
    pins.hold(X)
    pins.hold(Y)
    pins.update({X}, set())
    assert (kernel.local, pins.held) == ({X}, frozenset({X}))
    pins.update(set(), {X})
    pins.update(set(), set())
    assert (kernel.local, kernel.rules) == (set(), set())


def test_a_refusal_is_logged_and_tried_again(kernel: Kernel) -> None:
    pins, log = make(kernel)
    kernel.refuses = {"add", "route"}
    pins.hold(X)
    pins.set_mtu(1400)
    assert pins.held == frozenset()
    assert [event for event, _fields in log.lines] == ["failed", "failed"]
    kernel.refuses = {"rule"}
    pins.hold(X)
    pins.set_mtu(1400)
    pins.update(set(), {X})
    assert (kernel.rules, kernel.mtu) == (set(), {4: 1400, 6: 1400})
    kernel.refuses = set()
    pins.update(set(), {X})
    assert kernel.rules == {X}


def test_a_new_agent_takes_over_and_an_orderly_end_leaves_nothing(kernel: Kernel) -> None:
    kernel.local, kernel.rules = {X, Y}, {X}
    pins, _log = make(kernel)
    pins.adopt()
    assert (pins.held, pins.detoured) == (frozenset({X, Y}), frozenset({X}))
    pins.close()
    assert (kernel.local, kernel.rules) == (set(), set())


def test_a_small_mtu_is_not_too_small_for_ipv6(kernel: Kernel) -> None:
    pins, _log = make(kernel)
    pins.set_mtu(600)
    assert kernel.mtu == {4: 1280, 6: 1280}


def test_two_addresses_have_a_route_of_their_own_until_their_last_connection_ends(kernel: Kernel) -> None:
    pins = Pins(kernel, Log())  # type: ignore[arg-type]
    first, second = (X, Y), (X, X)
    pins.isolate(first)
    pins.isolate(first)
    pins.isolate(second)
    assert kernel.pairs == pins.isolated == {first, second}
    pins.let_go({second})
    assert kernel.pairs == pins.isolated == {second}
    kernel.refuses = {"rule"}
    pins.let_go(())
    assert pins.isolated == {second}, "tried again next time"
    kernel.refuses = set()
    pins.close()
    assert not kernel.pairs


def test_routes_that_a_former_agent_left_go(kernel: Kernel) -> None:
    kernel.pairs = {(X, Y)}
    Pins(kernel, Log()).adopt()  # type: ignore[arg-type]
    assert not kernel.pairs
