"""Attachment: scripts of what happens to an interface and what must follow."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.attachment import (
    LEASE_GRACE_S,
    Action,
    Attachment,
    DropAll,
    DropPrefix,
    DropRouter,
    Lease,
    ListenToRouters,
    Solicit,
    StartDhcp,
    StopDhcp,
    same_prefix,
)

P1, P2, P3 = "2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"
LEASE = Lease("10.1.0.100", 24, "10.1.0.1")
OTHER = Lease("10.2.0.100", 24, "10.2.0.1")
VALID_S = 7200


def attached() -> Attachment:
    """An interface with carrier, a lease and prefix P1 of router fe80::1."""
    interface = Attachment()
    assert interface.handle_link(True, True, True, 0.0) == [StartDhcp(0), Solicit()]
    interface.handle_routers(["fe80::1"])
    assert interface.handle_prefix(P1, VALID_S, 0.1) == []
    assert interface.handle_lease(0, LEASE, 0.2) == []
    return interface


def test_same_network_keeps_everything() -> None:
    interface = attached()
    assert interface.handle_link(True, True, False, 1.0) == [StopDhcp(0)]
    assert interface.leases == [LEASE], "carrier loss takes no address away"
    assert interface.handle_link(True, True, True, 2.0) == [StartDhcp(0, LEASE.address), Solicit()]
    assert interface.leases == [LEASE]
    assert interface.handle_prefix(P1, VALID_S, 2.1) == []
    assert interface.handle_lease(0, LEASE, 2.2) == []
    assert interface.leases == [LEASE]
    assert interface.next_deadline_s() is None


def test_other_network_replaces_everything() -> None:
    interface = attached()
    interface.handle_link(True, True, False, 1.0)
    interface.handle_link(True, True, True, 2.0)
    interface.handle_routers(["fe80::1", "fe80::2"])
    assert interface.handle_prefix(P2, VALID_S, 2.1) == [DropPrefix(P1), DropRouter("fe80::1")]
    assert interface.routers == ["fe80::2"]
    assert interface.prefixes == {P2: True}
    assert interface.leases == [LEASE], "DHCP has not said anything yet"
    interface.handle_lease(0, OTHER, 2.2)
    assert interface.leases == [OTHER]
    assert interface.next_deadline_s() is None


def test_prefix_heard_again_is_kept_when_a_new_one_comes_too() -> None:
    interface = attached()
    interface.handle_prefix(P2, VALID_S, 0.3)
    interface.handle_link(True, True, False, 1.0)
    interface.handle_link(True, True, True, 2.0)
    assert interface.handle_prefix(P1, VALID_S, 2.1) == []
    assert interface.handle_prefix(P3, VALID_S, 2.2) == [DropPrefix(P2)]
    assert set(interface.prefixes) == {P1, P3}


def test_routers_with_the_same_link_local_address_are_not_dropped() -> None:
    interface = attached()
    interface.handle_link(True, True, False, 1.0)
    interface.handle_link(True, True, True, 2.0)
    interface.handle_routers(["fe80::1"])
    assert interface.handle_prefix(P2, VALID_S, 2.1) == [DropPrefix(P1)]
    assert interface.routers == ["fe80::1"]


def test_old_lease_goes_when_the_new_network_has_no_dhcp() -> None:
    interface = attached()
    interface.handle_link(True, True, False, 1.0)
    interface.handle_link(True, True, True, 2.0)
    interface.handle_prefix(P2, VALID_S, 3.0)
    assert interface.next_deadline_s() == pytest.approx(3.0 + LEASE_GRACE_S)
    assert interface.handle_deadline(3.0 + LEASE_GRACE_S - 0.1) == []
    assert interface.leases == [LEASE]
    interface.handle_deadline(3.0 + LEASE_GRACE_S)
    assert interface.leases == []


def test_new_prefix_on_the_same_link_asks_dhcp_again() -> None:
    interface = attached()
    assert interface.handle_prefix(P2, VALID_S, 5.0) == [StartDhcp(0, LEASE.address)]
    assert interface.leases == [LEASE]
    assert interface.handle_prefix(P2, VALID_S, 6.0) == [], "once"


def test_solicitations_are_repeated_until_a_prefix_is_heard() -> None:
    interface = Attachment()
    interface.handle_link(True, True, True, 10.0)
    assert interface.next_deadline_s() == 11.0
    assert interface.handle_deadline(11.0) == [Solicit()]
    assert interface.next_deadline_s() == 13.0
    interface.handle_prefix(P1, VALID_S, 11.5)
    assert interface.next_deadline_s() is None
    assert interface.handle_deadline(20.0) == []


def test_withdrawn_prefix_is_forgotten() -> None:
    interface = attached()
    interface.handle_prefix(P1, 0, 1.0)
    assert interface.prefixes == {}


def test_release_and_acquire() -> None:
    interface = attached()
    assert interface.release() == [StopDhcp(0), ListenToRouters(False), DropAll()]
    assert interface.leases == []
    assert interface.release() == []
    assert interface.handle_link(True, True, False, 1.0) == []
    assert interface.handle_link(True, True, True, 2.0) == [], "stays away over a carrier return"
    assert interface.handle_prefix(P1, VALID_S, 2.0) == []
    assert interface.handle_lease(0, LEASE, 2.0) == []
    assert interface.leases == []
    assert interface.acquire(3.0) == [ListenToRouters(True), StartDhcp(0), Solicit()]
    assert interface.acquire(3.0) == []


def test_acquire_without_carrier_waits_for_it() -> None:
    interface = attached()
    interface.release()
    interface.handle_link(True, True, False, 1.0)
    assert interface.acquire(2.0) == [ListenToRouters(True)]
    assert interface.handle_link(True, True, True, 3.0) == [StartDhcp(0), Solicit()]


def test_vanished_interface_forgets_all() -> None:
    interface = attached()
    assert interface.handle_link(False, False, False, 1.0) == [StopDhcp(0)]
    assert (interface.leases, interface.prefixes, interface.routers) == ([], {}, [])
    assert interface.handle_link(True, True, True, 2.0) == [StartDhcp(0), Solicit()]


def test_dead_client_is_replaced_only_when_needed() -> None:
    interface = attached()
    assert interface.handle_client_ended(0, 1.0) == [StartDhcp(0, LEASE.address)]
    interface.handle_link(True, True, False, 2.0)
    assert interface.handle_client_ended(0, 3.0) == []


def test_lost_lease_takes_the_address() -> None:
    interface = attached()
    interface.handle_lease_lost(0)
    assert interface.leases == []


def test_two_leases_on_one_link() -> None:
    interface = Attachment(dhcp_slots=2)
    assert interface.handle_link(True, True, True, 0.0) == [StartDhcp(0), StartDhcp(1), Solicit()]
    interface.handle_lease(1, OTHER, 0.1)
    interface.handle_lease(0, LEASE, 0.2)
    assert interface.leases == [LEASE, OTHER]


def test_static_interface_does_nothing() -> None:
    interface = Attachment(dhcp_slots=0, follow_routers=False)
    assert interface.handle_link(True, True, True, 0.0) == []
    assert interface.handle_prefix(P1, VALID_S, 0.1) == []
    assert interface.release() == []


def test_prefixes_are_bounded() -> None:
    interface = Attachment()
    interface.handle_link(True, True, True, 0.0)
    for number in range(1000):
        interface.handle_prefix(f"2001:db8:{number:x}::/64", VALID_S, 0.1)
    assert len(interface.prefixes) <= 64


def test_same_prefix() -> None:
    assert same_prefix("2001:db8:1::5", P1)
    assert not same_prefix("2001:db8:2::5", P1)


STEPS = st.one_of(
    st.tuples(st.just("link"), st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.just("prefix"), st.sampled_from([P1, P2, P3]), st.sampled_from([0, VALID_S])),
    st.tuples(st.just("lease"), st.sampled_from([LEASE, OTHER])),
    st.tuples(st.just("routers"), st.lists(st.sampled_from(["fe80::1", "fe80::2"]), unique=True)),
    st.sampled_from([("lost",), ("ended",), ("release",), ("acquire",), ("time",)]),
)


def take(interface: Attachment, step: tuple[Any, ...], now_s: float) -> list[Action]:
    """One step of a script."""
    kind, rest = step[0], step[1:]
    if kind in ("lease", "lost", "ended") and not interface.dhcp_slots:
        return []
    match kind:
        case "link":
            return interface.handle_link(*rest, now_s)
        case "prefix":
            return interface.handle_prefix(*rest, now_s)
        case "lease":
            return interface.handle_lease(0, *rest, now_s)
        case "routers":
            return interface.handle_routers(*rest)
        case "lost":
            return interface.handle_lease_lost(0)
        case "ended":
            return interface.handle_client_ended(0, now_s)
        case "release":
            return interface.release()
        case "acquire":
            return interface.acquire(now_s)
    return interface.handle_deadline(now_s)


@given(st.lists(STEPS, max_size=30), st.integers(0, 2))
def test_every_state_takes_every_input(steps: list[tuple[Any, ...]], slots: int) -> None:
    interface, now_s, running = Attachment(dhcp_slots=slots), 0.0, set()
    for step in steps:
        now_s += 1.0
        actions = take(interface, step, now_s)
        if step[0] == "ended":
            running.discard(0)
        for action in actions:
            if isinstance(action, StartDhcp):
                running.add(action.slot)
            elif isinstance(action, StopDhcp):
                assert action.slot in running, "only what runs is stopped"
                running.remove(action.slot)
        # Clients run exactly while there is somebody to ask and the user wants addresses.
        assert running == (set(range(slots)) if interface.ready and not interface.released else set())
        if interface.released:
            assert interface.leases == []
            assert interface.next_deadline_s() is None
