"""The table of bindings against a plain dictionary; users of tunnels."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.core.mobileip.actions import Encapsulation, Tunnel
from agents.core.mobileip.bindings import Binding, BindingTable, TunnelUsers

HOMES = ("10.0.0.1", "10.0.0.2")
KEYS = st.one_of(st.integers(1, 3), st.sampled_from(("10.1.0.1", "10.2.0.1")))


def binding(home: str, key: int | str, expires_s: float) -> Binding:
    bid, care_of = (key, "10.3.0.1") if isinstance(key, int) else (0, key)
    return Binding(home, bid, care_of, Tunnel("10.9.0.1", care_of), 1, expires_s, None)


class TableMachine(RuleBasedStateMachine):
    """Every step on the table and on a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.table = BindingTable()
        self.model: dict[tuple[str, int | str], float] = {}
        self.now_s = 0.0

    @rule(home=st.sampled_from(HOMES), key=KEYS, lifetime_s=st.one_of(st.integers(1, 50), st.just(math.inf)))
    def put(self, home: str, key: int | str, lifetime_s: float) -> None:
        old = self.table.put(binding(home, key, self.now_s + lifetime_s))
        assert (old.expires_s if old else None) == self.model.get((home, key))
        self.model[home, key] = self.now_s + lifetime_s

    @rule(home=st.sampled_from(HOMES), key=KEYS)
    def remove(self, home: str, key: int | str) -> None:
        old = self.table.remove(home, key)
        assert (old is None) == (self.model.pop((home, key), None) is None)

    @rule(step_s=st.integers(0, 30))
    def wait(self, step_s: int) -> None:
        self.now_s += step_s
        found = {(item.home_address, item.key) for item in self.table.expired(self.now_s)}
        assert found == {place for place, at_s in self.model.items() if at_s <= self.now_s}
        for place in found:
            self.table.remove(*place)
            del self.model[place]

    @invariant()
    def same(self) -> None:
        assert {(item.home_address, item.key): item.expires_s for item in self.table} == self.model
        assert len(self.table) == len(self.model)
        assert self.table.homes == len({home for home, _ in self.model})

    @invariant()
    def never_too_late(self) -> None:
        deadline_s = self.table.next_deadline_s()
        earliest_s = min(self.model.values(), default=math.inf)
        assert (math.inf if deadline_s is None else deadline_s) <= earliest_s


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_hundred_thousand_refreshes_leave_a_short_heap() -> None:
    table = BindingTable()
    for number in range(100_000):
        table.put(binding(HOMES[0], 1, 1e6 - number if number % 2 else 2e6))
    assert len(table._heap) < 3000


def test_the_newest_binding_without_bid_is_the_last_one() -> None:
    table = BindingTable()
    for key in ("10.1.0.1", "10.2.0.1", "10.1.0.1"):
        table.put(binding(HOMES[0], key, 1.0))
    assert list(table.of(HOMES[0])) == ["10.2.0.1", "10.1.0.1"]


def test_a_tunnel_is_opened_for_the_first_user_and_closed_after_the_last() -> None:
    users, tunnel = TunnelUsers(), Tunnel("10.9.0.1", "10.1.0.1")
    assert [users.acquire(tunnel), users.acquire(tunnel)] == [True, False]
    assert [users.release(tunnel), users.release(tunnel)] == [False, True]
    assert len(users) == 0


def test_another_encapsulation_between_the_same_ends_is_seen() -> None:
    users, tunnel = TunnelUsers(), Tunnel("10.9.0.1", "10.1.0.1")
    gre = Tunnel("10.9.0.1", "10.1.0.1", Encapsulation.GRE)
    users.acquire(tunnel)
    assert users.different(tunnel) is None
    assert users.different(gre) == (tunnel, 1)
    users.reopened(gre)
    assert users.different(gre) is None
