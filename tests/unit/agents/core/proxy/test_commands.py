"""What an operator asks for, and what policies do by themselves: subflows come and go, traffic moves."""

import pytest

from agents.core.proxy.commands import CommandRefused
from agents.core.proxy.config import LocalAddress, ProxyConfig
from agents.wire import mptcp
from agents.wire.mptcp import Prio, RemoveAddr
from agents.wire.tcp import SYN, Segment
from tests.unit.agents.core.proxy.parts import NEAR, NEAR6, Out
from tests.unit.agents.core.proxy.peer import Peer, pair


def options(segment: Segment) -> list[mptcp.Option]:
    return [mptcp.decode(option) for option in segment.mptcp]


def all_options(out: Out) -> list[mptcp.Option]:
    return [option for segment in out.network for option in options(segment)]


# -- commands -----------------------------------------------------------------------------------------------------------


def test_a_handover_to_a_subflow_makes_the_other_a_backup() -> None:
    peer, a, b = pair()
    out = peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    assert [(peer.path_of(segment), options(segment)) for segment in out.network] == [(a, [Prio(True)])]
    assert peer.active is b
    peer.goes_on()
    out = peer.act(lambda now, actions: peer.proxy.handover(0, now, actions))
    assert [(peer.path_of(segment), options(segment)) for segment in out.network] == [(a, [Prio(False)]), (b, [Prio(True)])]
    peer.goes_on()


def test_a_breaking_handover_withdraws_the_old_address() -> None:
    peer, a, b = pair()
    out = peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    assert RemoveAddr((0,)) in all_options(out)
    assert all(peer.path_of(segment) is b for segment in out.network)
    assert not peer.subflow(a).alive
    peer.goes_on()


def test_a_handover_to_an_address_opens_a_subflow_and_moves_when_it_is_open() -> None:
    peer = Peer().open()
    peer.goes_on()
    out = peer.act(lambda now, actions: peer.proxy.handover(None, now, actions, address=NEAR[2]))
    assert peer.active is peer.first
    path = peer.asked(out)
    assert peer.host(10).network[0].source == NEAR[0]
    peer.acknowledge_all()
    out = peer.join_answered(path)
    assert Prio(False) in all_options(out)
    peer.far(path)
    assert peer.active is path
    peer.goes_on()


def test_a_breaking_handover_to_an_address_survives_lost_syns() -> None:
    """Nothing is left but the join: it is tried again until the break limit."""
    peer = Peer(ProxyConfig(break_limit_s=60, rejoin_s=2)).open()
    peer.host(100)
    out = peer.act(lambda now, actions: peer.proxy.handover(None, now, actions, address=NEAR[1], break_first=True))
    assert len(out.network) == 1
    asked = [segment for segment in peer.wait(30).network if segment.flags & SYN]
    assert len({segment.source_port for segment in asked}) > 1
    path = peer.asked(Out(network=asked[-1:]))
    peer.join_answered(path)
    out = peer.far(path)
    assert peer.host(100, t=1).network
    peer.acknowledge_all()
    peer.goes_on()


def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    peer = Peer().open()
    proxy = peer.proxy
    refused = [
        (lambda now, actions: proxy.handover(9, now, actions), "no subflow 9"),
        (lambda now, actions: proxy.handover(0, now, actions, connection=77), "no connection 77"),
        (lambda now, actions: proxy.handover(None, now, actions), "needs a subflow or an address"),
        (lambda now, actions: proxy.delete_subflow(0, now, actions), "is the last one"),
        (lambda now, actions: proxy.priority(3, True, now, actions), "no subflow 3"),
        (lambda now, actions: proxy.add_subflow(NEAR[0], now, actions), "there is a subflow between"),
        (lambda now, actions: proxy.add_subflow(NEAR6, now, actions), "IP version"),
    ]
    for call, why in refused:
        actions: list[object] = []
        with pytest.raises(CommandRefused, match=why):
            call(peer.now, actions)  # type: ignore[no-untyped-call]
        assert not actions
        assert "\n" not in why
    path, _out = peer.join_asked()
    with pytest.raises(CommandRefused, match="not open"):
        proxy.handover(1, peer.now, [])
    peer.join_answered(path)
    peer.far(path)
    peer.goes_on()
    with pytest.raises(CommandRefused, match="no connection that could be moved"):
        Peer().proxy.handover(0, 0.0, [])


def test_a_command_for_all_connections_does_what_it_can() -> None:
    """One connection that refuses does not keep the others from being moved."""
    first = Peer(port=1)
    second = Peer(proxy=first.proxy, port=2)
    third = Peer(proxy=first.proxy, port=3)
    for peer in (first, second, third):
        peer.open()
    actions: list[object] = []
    first.proxy.add_subflow(NEAR[1], first.now, actions, connection=2)  # type: ignore[arg-type]
    answer = first.proxy.add_subflow(NEAR[1], first.now, actions)  # type: ignore[arg-type]
    assert [each["connection"] for each in answer["added"]] == [1, 3]
    with pytest.raises(CommandRefused):
        first.proxy.add_subflow(NEAR[1], first.now, actions)  # type: ignore[arg-type]


def test_a_deleted_subflow_is_reset_and_withdrawn() -> None:
    peer, a, b = pair()
    peer.host(100)
    out = peer.act(lambda now, actions: peer.proxy.delete_subflow(0, now, actions))
    assert [peer.path_of(segment) for segment in out.resets] == [a]
    assert RemoveAddr((0,)) in all_options(out)
    assert peer.active is b
    assert peer.host(100, t=1).network
    peer.acknowledge_all()
    peer.goes_on()


# -- policies -----------------------------------------------------------------------------------------------------------


def policy_peer(policy: str) -> Peer:
    peer = Peer(ProxyConfig(policy=policy))
    peer.addresses(0)
    return peer.open()


def test_follow_joins_from_every_usable_address_and_leaves_lost_ones() -> None:
    peer = policy_peer("follow")
    out = peer.addresses(0, 1)
    b = peer.join_finished(out)
    assert not peer.addresses(0, 1).logs, "all is as it should be"
    assert peer.active is peer.first
    peer.goes_on()
    out = peer.addresses(1)
    assert RemoveAddr((0,)) in all_options(out)
    assert peer.active is b
    peer.goes_on()


def test_follow_leaves_lost_addresses_when_no_more_subflows_are_allowed() -> None:
    peer = Peer(ProxyConfig(policy="follow", subflows_max=2))
    peer.addresses(0)
    peer.open()
    b = peer.join_finished(peer.addresses(0, 1))
    peer.addresses(1, 2)
    assert peer.active is b
    assert not peer.subflow(peer.first).alive
    peer.goes_on()


def test_follow_survives_that_the_only_address_is_replaced() -> None:
    peer = policy_peer("follow")
    peer.host(100)
    path = peer.join_finished(peer.addresses(2))
    assert peer.active is path
    assert peer.host(100, t=1).network
    peer.acknowledge_all()
    peer.goes_on()


def test_follow_waits_when_no_address_is_left() -> None:
    peer = policy_peer("follow")
    assert not peer.addresses().network
    peer.goes_on()


def test_only_the_opener_joins() -> None:
    peer = Peer(ProxyConfig(policy="follow"))
    peer.addresses(0, 1)
    peer.accept()
    assert len(peer.connection.subflows) == 1


def test_cheapest_moves_to_the_smaller_cost() -> None:
    peer = policy_peer("cheapest")

    def known(costs: list[int]) -> Out:
        addresses = [LocalAddress(NEAR[n], f"if{n}", True, cost) for n, cost in enumerate(costs)]
        return peer.act(lambda now, actions: peer.proxy.addresses_changed(addresses, now, actions))

    b = peer.join_finished(known([5, 5]))
    assert peer.active is peer.first, "the same cost is no reason to move"
    known([5, 1])
    assert peer.active is b
    peer.goes_on()
    known([0, 1])
    assert peer.active is peer.first
    peer.goes_on()


def test_lowest_rtt_moves_only_for_a_clearly_shorter_one() -> None:
    peer = policy_peer("lowest-rtt")
    b = peer.join_finished(peer.addresses(0, 1))
    for first, second, expected in ((0.1, 0.08, peer.first), (0.1, 0.05, b), (0.05, 0.06, b), (0.01, 0.05, peer.first)):
        peer.subflow(peer.first).round_trip_s, peer.subflow(b).round_trip_s = first, second
        peer.addresses(0, 1)
        assert peer.active is expected
    peer.goes_on()


def test_manual_does_nothing_by_itself() -> None:
    peer = policy_peer("manual")
    assert not peer.addresses(1, 2).network
    assert peer.active is peer.first
    peer.goes_on()


def test_a_port_is_not_taken_twice() -> None:
    """Two connections to the same server join from the same address: the second one must not take the first one's port."""
    first = Peer()
    first.proxy._random = lambda count: bytes(count) if count == 2 else first.random.randbytes(count)
    first.open()
    second = Peer(proxy=first.proxy, port=2).open()
    third = Peer(proxy=first.proxy, port=3).open()
    ports = []
    for number, peer in enumerate((first, second, third), 1):
        out = peer.act(lambda now, actions, number=number: first.proxy.add_subflow(NEAR[1], now, actions, connection=number))
        peer.join_finished(out, far_isn=number * 1000)
        ports.append(out.network[0].source_port)
    assert len(set(ports)) == 3
    for peer in (first, second, third):
        peer.goes_on()


def test_follow_leaves_the_data_where_it_is() -> None:
    peer = policy_peer("follow")
    b = peer.join_finished(peer.addresses(0, 1))
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.addresses(0, 1)
    assert peer.active is b
    peer.goes_on()


def test_a_connection_that_fell_back_takes_no_further_subflow() -> None:
    peer = Peer().open()
    peer.join()
    peer.goes_on()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions, break_first=True))
    peer.far(peer.active, 100, dss=peer.dss(t=peer.far_next, s=0, length=0))
    with pytest.raises(CommandRefused, match="fell back to TCP"):
        peer.proxy.add_subflow(NEAR[2], peer.now, [], connection=1)
    with pytest.raises(CommandRefused, match="no connection that could be moved"):
        peer.proxy.add_subflow(NEAR[2], peer.now, [])
    out = peer.far_join_syn(port=7)[1]
    assert out.resets
    assert not peer.addresses(2).network
