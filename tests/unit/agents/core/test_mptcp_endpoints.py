"""MPTCP endpoints: which there shall be, and that the difference leads there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core import mptcp_endpoints as me

SUBFLOW, BACKUP = frozenset({"subflow"}), frozenset({"subflow", "backup"})
POLICIES = [me.Policy("wlan", SUBFLOW), me.Policy("lte", BACKUP, me.REMOVE)]
WLAN, LTE = me.Interface("wlan", 2, True), me.Interface("lte", 3, True)
A, B = me.Address(2, "10.1.0.100"), me.Address(3, "10.2.0.100")


def test_every_address_of_a_configured_interface() -> None:
    addresses = [A, B, me.Address(2, "2001:db8:1::1"), me.Address(2, "fe80::1"), me.Address(9, "10.9.0.1")]
    assert me.desired_endpoints(POLICIES, [WLAN, LTE, me.Interface("eth9", 9, True)], addresses) == {
        me.Endpoint("10.1.0.100", 2, SUBFLOW),
        me.Endpoint("2001:db8:1::1", 2, SUBFLOW),
        me.Endpoint("10.2.0.100", 3, BACKUP),
    }


def test_only_the_wanted_families() -> None:
    policy = me.Policy("wlan", SUBFLOW, families=frozenset({6}))
    addresses = [A, me.Address(2, "2001:db8:1::1")]
    assert {item.address for item in me.desired_endpoints([policy], [WLAN], addresses)} == {"2001:db8:1::1"}


def test_carrier_loss_by_policy() -> None:
    off = [me.Interface("wlan", 2, False), me.Interface("lte", 3, False)]
    assert me.desired_endpoints(POLICIES, off, [A, B]) == {me.Endpoint("10.1.0.100", 2, SUBFLOW)}


def test_priority_and_withholding_override() -> None:
    result = me.desired_endpoints(POLICIES, [WLAN, LTE], [A, B], {"wlan": True, "lte": False})
    assert {endpoint.address: endpoint.flags for endpoint in result} == {A.address: BACKUP, B.address: SUBFLOW}
    assert not me.desired_endpoints(POLICIES, [WLAN, LTE], [A, B], withheld=["wlan", "lte"])


def test_priority_is_changed_live() -> None:
    actual = me.Endpoint("10.1.0.100", 2, SUBFLOW, 5)
    assert me.diff([me.Endpoint("10.1.0.100", 2, BACKUP)], [actual], [2]) == [me.SetBackup(actual, True)]


def test_other_flags_or_interface_need_a_new_endpoint() -> None:
    actual = me.Endpoint("10.1.0.100", 2, SUBFLOW, 5)
    for wanted in (me.Endpoint("10.1.0.100", 2, frozenset({"signal"})), me.Endpoint("10.1.0.100", 3, SUBFLOW)):
        assert me.diff([wanted], [actual], [2]) == [me.Delete(actual), me.Add(wanted)]


def test_endpoints_of_others_stay() -> None:
    foreign = me.Endpoint("10.9.0.1", 0, SUBFLOW, 7)
    assert me.diff([], [foreign], [2, 3]) == []
    assert me.diff([], [me.Endpoint("10.1.0.100", 2, SUBFLOW, 7)], [2]) != []


def test_rejoin_deletes_and_adds() -> None:
    mine, other = me.Endpoint("10.1.0.100", 2, SUBFLOW, 5), me.Endpoint("10.2.0.100", 3, SUBFLOW, 6)
    assert me.rejoin([mine, other], 2) == [me.Delete(mine), me.Add(me.Endpoint("10.1.0.100", 2, SUBFLOW))]


def test_flags_are_checked() -> None:
    assert me.check_flags(["subflow", "backup"]) == BACKUP
    for bad, text in ((["sublow"], "valid are"), (["signal", "fullmesh"], "exclude"), (["backup"], "must be among")):
        with pytest.raises(ValueError, match=text):
            me.check_flags(bad)


flag_sets = st.sampled_from([SUBFLOW, BACKUP, frozenset({"signal"}), frozenset({"subflow", "fullmesh"})])
endpoint_sets = st.lists(
    st.builds(me.Endpoint, st.sampled_from(["10.1.0.1", "10.2.0.1", "2001:db8::1"]), st.integers(0, 3), flag_sets),
    max_size=3, unique_by=lambda item: item.key,
)  # fmt: skip


@given(endpoint_sets, endpoint_sets)
def test_difference_leads_to_the_goal(goal: list[me.Endpoint], start: list[me.Endpoint]) -> None:
    managed = {1, 2, 3}
    kept = {item for item in start if item.index not in managed and item.key not in {other.key for other in goal}}
    result = me.apply(me.diff(goal, start, managed), start)
    assert result == set(goal) | kept
    assert me.diff(goal, result, managed) == []
