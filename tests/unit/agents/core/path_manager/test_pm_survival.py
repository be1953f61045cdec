"""A connection survives every order of path failures while one path is up: the core against a model of two kernels."""

import random
from dataclasses import replace
from itertools import permutations, product

import pytest

from agents.core.path_manager.config import Detection, OnDeath, PathManagerConfig
from agents.core.path_manager.values import DestroySubflow, Remove
from tests.unit.agents.core.path_manager.pm_model import COA1, COA2, HOA, STALE_S, World

DETECT_S = 1.0
"""A silent path is found dead and left within this."""
TIMELINES = [
    (policy, order, silent)
    for policy in ("all", "coa-only", "hoa-backup", "cheapest")
    for order in permutations((HOA, COA1, COA2))
    for silent in product((True, False), repeat=3)
    if policy in ("coa-only", "hoa-backup") or len(set(silent)) == 1
]


def world(policy: str, **changes: object) -> World:
    made = World(replace(PathManagerConfig(policy=policy), **changes))  # type: ignore[arg-type]
    made.run(1.0)
    return made


def fail(net: World, name: str, silent: bool) -> None:
    if silent:
        net.paths[name].silent = True
    else:
        net.paths[name].present = False
        net.tell_addresses()


def heal(net: World, name: str) -> None:
    net.paths[name].silent, net.paths[name].present = False, True
    net.tell_addresses()


@pytest.mark.parametrize(("policy", "order", "silent"), TIMELINES)
def test_every_order_of_failures(policy: str, order: tuple[str, str, str], silent: tuple[bool, bool, bool]) -> None:
    net = world(policy)
    first, second, third = order
    began_s = net.now_s
    for name, quiet, seconds in ((first, silent[0], 1.5), (second, silent[1], 3.0)):
        fail(net, name, quiet)
        net.run(seconds)
    heal(net, first)
    net.run(5.0)
    fail(net, third, silent[2])
    net.run(3.0)
    heal(net, second)
    net.run(2.0)
    assert net.longest_gap_s(began_s) < DETECT_S + 0.2


def test_the_kernel_alone_is_slower() -> None:
    """What the others show would be worth nothing if the model healed itself."""
    net = world("hoa-backup", detection=Detection(enabled=False))
    began_s = net.now_s
    fail(net, COA1, True)
    fail(net, COA2, True)
    net.run(STALE_S + 4.0)
    assert net.longest_gap_s(began_s) >= STALE_S


@pytest.mark.parametrize("seed", range(40))
def test_random_timelines(seed: int) -> None:
    """Also with the agent killed in the middle; at least one path is up at any time."""
    chance = random.Random(seed)
    policy = chance.choice(["all", "coa-only", "hoa-backup", "cheapest"])
    net = world(policy)
    began_s = net.now_s
    for _ in range(8):
        up = [name for name, path in net.paths.items() if path.works]
        down = [name for name in net.paths if name not in up]
        if down and (len(up) == 1 or chance.random() < 0.5):
            heal(net, chance.choice(down))
            # Until it is trusted again: three answers, and the hold-down of a path that has failed before.
            net.run(chance.uniform(5.0, 8.0))
        else:
            fail(net, chance.choice(up), chance.random() < 0.5)
            net.run(chance.uniform(1.5, 3.0))
        if chance.random() < 0.2:
            net.restart()
    assert net.longest_gap_s(began_s) < STALE_S
    # The last path of a connection is never closed.
    assert net.locals()


def test_both_hosts_move_at_once() -> None:
    """All care-of addresses go; the home address, which was closed, joins again (simultaneous movement)."""
    net = world("coa-only")
    assert net.locals() == {COA1, COA2}
    began_s = net.now_s
    fail(net, COA1, False)
    fail(net, COA2, False)
    net.run(1.0)
    assert net.locals() == {HOA}
    assert net.longest_gap_s(began_s) < 0.3
    heal(net, COA1)
    net.run(1.0)
    assert net.locals() == {COA1}


def test_without_rejoin_it_dies() -> None:
    net = world("coa-only-no-rejoin")
    assert net.locals() == {COA1, COA2}
    fail(net, COA1, False)
    fail(net, COA2, False)
    net.run(3.0)
    assert HOA not in net.locals()
    net.restart()
    net.run(1.0)
    heal(net, COA2)
    net.run(1.0)
    assert net.locals() == {COA2}


def test_no_path_then_one() -> None:
    net = world("all")
    for name in (HOA, COA1, COA2):
        fail(net, name, True)
    net.run(10.0)
    closed = len(net.done(DestroySubflow))
    assert closed <= 2, "the last one stays"
    heal(net, COA2)
    net.run(6.0)
    assert net.now_s - net.delivered_s[-1] < 0.1


def test_demote_and_observe_close_nothing() -> None:
    for action in (OnDeath.DEMOTE, OnDeath.OBSERVE):
        net = world("all", detection=Detection(action=action))
        fail(net, COA1, True)
        net.run(4.0)
        assert not net.done(Remove)
        assert COA1 in net.locals()


def test_a_lossless_idle_connection_is_let_alone() -> None:
    net = world("all")
    net.sending = False
    net.run(10.0)
    before = len(net.actions)
    net.run(20.0)
    assert len(net.actions) == before
    assert net.locals() == {HOA, COA1, COA2}


def test_peer_that_ignores_probes() -> None:
    net = World(PathManagerConfig(policy="hoa-backup"))
    net.answers_probes = False
    net.run(5.0)
    assert net.locals() == {HOA, COA1, COA2}
    assert not net.done(Remove)
