"""Decisions that need no world: domains, servers, strangers, repeated and lost events, endpoints of the kernel."""

from dataclasses import replace
from itertools import pairwise

import pytest

from agents.core.mptcp_endpoints import Endpoint
from agents.core.path_manager.config import PathManagerConfig
from agents.core.path_manager.connections import address_id
from agents.core.path_manager.manager import FOREIGN_REFUSALS, PathManager
from agents.core.path_manager.values import (
    Action,
    AddEndpoint,
    Announce,
    Announced,
    CloseInitial,
    Connection,
    CreateSubflow,
    DeleteEndpoint,
    Kind,
    LocalAddress,
    Log,
    Remove,
    SetEndpointBackup,
    SetPriority,
    Subflow,
    SubflowClosed,
    Withdrawn,
)

CN, OTHER = "10.65.0.2", "10.66.0.2"
HOME = LocalAddress("10.33.0.100", Kind.HOME)
WLAN, LTE = LocalAddress("10.1.0.100", index=2), LocalAddress("10.2.0.100", index=3, cost=5)
VPN = LocalAddress("172.16.0.9", index=9, domain="vpn")
ALL = [HOME, WLAN, LTE]
NAMES = [item.address for item in ALL]


def manager(addresses: list[LocalAddress] = ALL, **config: object) -> PathManager:
    made = PathManager(PathManagerConfig(**config))  # type: ignore[arg-type]
    made.addresses_changed(addresses, [item.address for item in addresses], 0.0)
    return made


def connection(local: str = HOME.address, **values: object) -> Connection:
    return Connection(7, local, CN, 443, **values)  # type: ignore[arg-type]


def row(local: str, number: int = 0, **values: object) -> Subflow:
    return Subflow(7, local, 40_000 + number, CN, 443, number, **values)  # type: ignore[arg-type]


def of(actions: list[Action], *kinds: type) -> list[Action]:
    return [action for action in actions if isinstance(action, kinds)]


def joined(actions: list[Action]) -> set[tuple[str, str]]:
    return {(action.local, action.remote) for action in actions if isinstance(action, CreateSubflow)}


def test_never_across_a_security_domain() -> None:
    core = manager([*ALL, VPN], domains=frozenset({"", "vpn"}))
    actions = core.sockets_read([connection(VPN.address)], [row(VPN.address)], 1.0)
    assert not joined(actions)
    plain = Connection(8, HOME.address, CN, 443)
    actions = core.sockets_read([connection(VPN.address), plain], [row(VPN.address)], 2.0)
    assert joined(actions) == {(name, CN) for name in NAMES}


def test_domains_need_the_userspace_path_manager() -> None:
    with pytest.raises(ValueError, match="security domains"):
        PathManagerConfig(userspace=False, domains=frozenset({"", "vpn"}))


def test_unknown_opener_is_let_alone() -> None:
    core = PathManager(PathManagerConfig())
    core.addresses_changed(ALL, [*NAMES, "192.168.9.9"], 0.0)
    assert not joined(core.sockets_read([connection("192.168.9.9")], [row("192.168.9.9")], 1.0))


def test_fallback_is_let_alone_and_told() -> None:
    core = manager()
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    actions = core.sockets_read([connection(fallback=True)], [row(HOME.address)], 2.0)
    assert [action.event for action in of(actions, Log)] == ["fallback"]  # type: ignore[union-attr]
    assert core.handle_timer(100.0) == []
    assert core.next_deadline(100.0) is None


def test_an_address_told_twice_joins_once() -> None:
    core = manager()
    assert core.addresses_changed([*ALL, *ALL], NAMES, 0.5) == []
    assert len(of(core.sockets_read([connection()], [row(HOME.address)], 1.0), CreateSubflow)) == 2
    assert not of(core.addresses_changed(ALL, NAMES, 1.1), CreateSubflow)
    assert not of(core.sockets_read([connection()], [row(HOME.address)], 1.2), CreateSubflow)


def test_all_pairs_of_addresses() -> None:
    core = manager()
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    actions = core.handle_event(Announced(7, 3, OTHER), 1.1)
    assert joined(actions) == {(name, OTHER) for name in NAMES}
    core = manager(remote_addresses="initial")
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    assert not joined(core.handle_event(Announced(7, 3, OTHER), 1.1))


def test_withdrawn_address_is_not_joined() -> None:
    core = manager(policy="all")
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    core.handle_event(Announced(7, 3, OTHER), 1.1)
    core.handle_event(Withdrawn(7, 3), 1.2)
    later = core.sockets_read([connection()], [row(HOME.address)], 60.0)
    assert OTHER not in {remote for _local, remote in joined(later)}


def elsewhere(policy: str) -> set[tuple[str, str]]:
    """What is joined when this host has moved, and the peer had taken back its first address and was used at another one."""
    core = manager([HOME, WLAN], policy=policy)
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    core.handle_event(Announced(7, 3, OTHER), 1.1)
    core.handle_event(Withdrawn(7, 0), 1.2)
    direct = Subflow(7, WLAN.address, 40_001, OTHER, 443, 2)
    assert not joined(core.sockets_read([connection()], [direct], 2.0)) & {(name, CN) for name in NAMES}
    moved = joined(core.addresses_changed([HOME, LTE], [HOME.address, LTE.address], 3.0))
    return moved | joined(core.sockets_read([connection()], [direct], 30.0))


def test_when_nothing_works_the_peer_is_looked_for_at_its_first_address() -> None:
    """Both hosts have moved at once: of the peer only the home address is valid."""
    assert {(LTE.address, CN), (HOME.address, CN)} <= elsewhere("coa-only")
    assert CN not in {remote for _local, remote in elsewhere("coa-only-no-rejoin")}


def test_leaving_an_interface_makes_its_subflow_backup_at_once() -> None:
    named = [HOME, replace(WLAN, interface="wlan"), replace(LTE, interface="lte")]
    core = manager(named)
    rows = [row(HOME.address), row(WLAN.address, 1), row(LTE.address, 2)]
    core.sockets_read([connection()], rows, 1.0)
    asked = of(core.leave("wlan", 1.1), SetPriority)
    assert [(action.local, action.backup) for action in asked] == [(WLAN.address, True)]  # type: ignore[union-attr]
    rows[1] = row(WLAN.address, 1, backup=True)
    asked = of(core.leave("lte", 1.2), SetPriority)
    assert {(action.local, action.backup) for action in asked} == {  # type: ignore[union-attr]
        (WLAN.address, False), (LTE.address, True),
    }  # fmt: skip


def test_number_of_subflows_is_bounded() -> None:
    core = manager(subflows_max=2)
    assert len(of(core.sockets_read([connection()], [row(HOME.address)], 1.0), CreateSubflow)) == 1


def test_a_peer_may_announce_without_end() -> None:
    core = manager()
    core.sockets_read([connection()], [row(HOME.address)], 1.0)
    for number in range(1, 200):
        core.handle_event(Announced(7, number, f"10.70.0.{number}"), 1.1)
    assert len(core.connections[7].remotes) <= 16


def test_who_was_called_announces() -> None:
    core = manager(policy="coa-only")
    actions = core.sockets_read([connection(server=True)], [row(HOME.address)], 1.0)
    told = of(actions, Announce)
    assert {action.address for action in told} == {WLAN.address, LTE.address}  # type: ignore[union-attr]
    assert not joined(actions)
    assert not of(core.sockets_read([connection(server=True)], [row(HOME.address)], 1.1), Announce)


def test_events_of_foreign_tokens() -> None:
    core = manager()
    for event in (Announced(99, 1, OTHER), Withdrawn(99, 1), SubflowClosed(99, WLAN.address, CN, 104)):
        assert core.handle_event(event, 1.0) == []


def test_connection_of_another_path_manager() -> None:
    core, now_s = manager(), 1.0
    actions = core.sockets_read([connection()], [row(HOME.address)], now_s)
    for _ in range(FOREIGN_REFUSALS):
        for action in of(actions, CreateSubflow):
            core.action_failed(action, 22, now_s)
        now_s += 20.0
        actions = core.sockets_read([connection()], [row(HOME.address)], now_s)
    assert core.connections[7].foreign
    assert not of(actions, CreateSubflow)


def test_refusals_of_one_moment_prove_nothing() -> None:
    core = manager()
    actions = core.sockets_read([connection()], [row(HOME.address)], 1.0)
    for _ in range(FOREIGN_REFUSALS):
        core.action_failed(of(actions, CreateSubflow)[0], 22, 1.0)
    assert not core.connections[7].foreign


def test_a_refused_join_is_tried_again_later_and_later() -> None:
    core = manager([HOME, WLAN])
    now_s, times = 1.0, []
    for _ in range(5):
        actions = of(core.sockets_read([connection()], [row(HOME.address)], now_s), CreateSubflow)
        assert actions
        core.action_done(actions[0])
        core.handle_event(SubflowClosed(7, WLAN.address, CN, 111), now_s)
        due_s = core._planner(now_s).next_attempt_s(core.connections[7])
        times.append(due_s - now_s)
        now_s = due_s
    assert times == sorted(times)
    assert times[0] < times[-1] <= core.config.retry_max_s


def test_handshake_not_complete_is_no_failure() -> None:
    core = manager([HOME, WLAN])
    [action] = of(core.sockets_read([connection()], [row(HOME.address)], 1.0), CreateSubflow)
    core.action_failed(action, 107, 1.0)
    assert of(core.sockets_read([connection()], [row(HOME.address)], 1.1), CreateSubflow)


def test_ids_are_the_same_after_a_restart() -> None:
    assert address_id(WLAN.address) == address_id(WLAN.address) != 0
    core = manager()
    rows = [row(HOME.address), row(LTE.address, 77)]
    [action] = of(core.sockets_read([connection()], rows, 1.0), CreateSubflow)
    assert action.local_id == address_id(WLAN.address)  # type: ignore[union-attr]
    assert core.connections[7].id_of(LTE.address) == 77, "what the kernel has stays"


def test_gone_address_is_taken_back_also_after_a_restart() -> None:
    core = manager([HOME, WLAN])
    rows = [row(HOME.address), row(LTE.address, 77)]
    actions = of(core.sockets_read([connection()], rows, 1.0), Remove)
    assert actions == [Remove(7, 77, LTE.address)]


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="no policy 'x'"):
        manager().set_policy("x", 1.0)
    with pytest.raises(ValueError, match="no policy 'x'"):
        PathManagerConfig(policy="x")


# -- the in-kernel path manager ---------------------------------------------------------------------------------------
def endpoint(item: LocalAddress, *flags: str, number: int = 1) -> Endpoint:
    return Endpoint(item.address, item.index, frozenset({"subflow", "signal", *flags}), number)


def test_endpoints_follow_the_policy() -> None:
    core = manager(userspace=False, policy="cheapest")
    actions = core.sockets_read([], [], 1.0, [endpoint(WLAN), endpoint(LTE)])
    assert {type(action) for action in actions} == {AddEndpoint, SetEndpointBackup}
    assert of(actions, AddEndpoint) == [AddEndpoint(endpoint(HOME, "backup", number=0))]


def test_foreign_endpoints_stay() -> None:
    core = manager(userspace=False)
    foreign = Endpoint("192.168.1.1", 0, frozenset({"signal"}), 9)
    actions = core.sockets_read([], [], 1.0, [foreign, *(endpoint(item) for item in ALL)])
    assert actions == []


def test_initial_subflow_closes_when_nobody_needs_it() -> None:
    core = manager(userspace=False, policy="coa-only")
    present = [endpoint(WLAN), endpoint(LTE)]
    lonely = Connection(8, HOME.address, CN, 443)
    rows = [row(HOME.address), row(WLAN.address, 1)]
    alone = [Subflow(8, HOME.address, 50_000, CN, 443)]
    assert not of(core.sockets_read([connection(), lonely], rows + alone, 1.0, present), CloseInitial, DeleteEndpoint)
    assert of(core.sockets_read([connection()], rows, 2.0, present), CloseInitial) == [CloseInitial(HOME.address)]


def test_home_address_gets_an_endpoint_when_a_connection_is_lost() -> None:
    core = manager(userspace=False, policy="coa-only")
    present = [endpoint(WLAN), endpoint(LTE)]
    core.sockets_read([connection()], [row(WLAN.address, 1)], 1.0, present)
    core.addresses_changed([HOME], [HOME.address], 2.0)
    actions = core.sockets_read([connection()], [], 2.0, present)
    assert of(actions, AddEndpoint) == [AddEndpoint(endpoint(HOME, number=0))]


def test_a_join_that_the_kernel_has_missed_is_tried_again_ever_later() -> None:
    core = manager(userspace=False, policy="all")
    present = [endpoint(item) for item in ALL]
    rows = [row(HOME.address), row(WLAN.address, 1)]
    times = []
    for step in range(200):
        deleted = of(core.sockets_read([connection()], rows, step / 10, present), DeleteEndpoint)
        assert deleted in ([], [DeleteEndpoint(endpoint(LTE))]), "endpoints in use stay"
        times += [step / 10] * len(deleted)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) >= 4
    assert gaps == sorted(gaps)
    assert not of(core.sockets_read([connection()], [*rows, row(LTE.address, 2)], 60.0, present), DeleteEndpoint)


def test_that_endpoint_stays_while_the_connection_needs_it() -> None:
    """Deleting it would close the subflow that it has made, and so for ever."""
    core = manager([HOME], userspace=False, policy="coa-only")
    present = [endpoint(HOME)]
    for now_s in (1.0, 2.0):
        assert not of(core.sockets_read([connection()], [row(HOME.address)], now_s, present), DeleteEndpoint)
    core.addresses_changed(ALL, NAMES, 3.0)
    rows = [row(HOME.address), row(WLAN.address, 1)]
    assert DeleteEndpoint(present[0]) in core.sockets_read([connection()], rows, 3.0, present)
