"""What every policy makes of every address."""

from dataclasses import replace
from itertools import product

import pytest

from agents.core.path_manager.config import POLICIES, HomeUse
from agents.core.path_manager.roles import roles
from agents.core.path_manager.values import Kind, LocalAddress, Role

H = LocalAddress("10.33.0.100", Kind.HOME)
CHEAP, DEAR, DEAR_TOO = (LocalAddress(f"10.{n}.0.100", cost=cost) for n, cost in ((1, 1), (2, 5), (3, 5)))
EVERY = [H, CHEAP, DEAR, DEAR_TOO]
A, B, C = Role.ACTIVE, Role.BACKUP, Role.CLOSED


@pytest.mark.parametrize(
    ("policy", "dead", "care_of_up", "home_closed", "wanted"),
    [
        ("all", [], True, False, [A, A, A, A]),
        ("coa-only", [], True, False, [C, A, A, A]),
        ("coa-only", [], False, True, [A, A, A, A]),
        ("coa-only", [CHEAP, DEAR, DEAR_TOO], False, True, [A, C, C, C]),
        ("coa-only-no-rejoin", [], False, False, [A, A, A, A]),
        ("coa-only-no-rejoin", [], False, True, [C, A, A, A]),
        ("hoa-backup", [], True, False, [B, A, A, A]),
        ("hoa-backup", [CHEAP, DEAR, DEAR_TOO], False, False, [A, C, C, C]),
        ("cheapest", [], True, False, [B, A, B, B]),
        ("cheapest", [CHEAP], True, False, [B, C, A, A]),
        ("all", [H], True, False, [C, A, A, A]),
    ],
)
def test_roles(policy: str, dead: list[LocalAddress], care_of_up: bool, home_closed: bool, wanted: list[Role]) -> None:
    found = roles(POLICIES[policy], EVERY, {item.address for item in dead}, care_of_up, home_closed)
    assert [found[item.address] for item in EVERY] == wanted


@pytest.mark.parametrize("policy", POLICIES)
def test_somebody_is_active_while_something_lives(policy: str) -> None:
    for alive, care_of_up in product(product((True, False), repeat=3), (True, False)):
        addresses = [item for item, there in zip((H, CHEAP, DEAR), alive, strict=True) if there]
        if not addresses or (addresses == [H] and care_of_up):
            continue
        found = roles(POLICIES[policy], addresses, set(), care_of_up, home_closed=False)
        assert Role.ACTIVE in found.values()


@pytest.mark.parametrize("policy", ["all", "coa-only", "cheapest"])
def test_what_will_go_is_backup_while_another_care_of_address_lives(policy: str) -> None:
    going = replace(CHEAP, leaving=True)
    found = roles(POLICIES[policy], [H, going, DEAR], set(), True, home_closed=False)
    assert (found[going.address], found[DEAR.address]) == (B, A)
    found = roles(POLICIES[policy], [H, going, DEAR], {DEAR.address}, True, home_closed=False)
    assert found[going.address] is A, "it is the last one"


def test_policies_say_what_they_are_called() -> None:
    assert POLICIES["coa-only"].rejoin_home
    assert POLICIES["coa-only"].home is POLICIES["coa-only-no-rejoin"].home is HomeUse.UNTIL_CARE_OF
