"""A router says that a segment of a subflow was too big: this host's TCP is told in its own terms, and only if it is true."""

import pytest

from agents.core.proxy.actions import Action, Deliver, Isolate, Verdict
from agents.wire.icmp import parse_too_big, too_big
from tests.unit.agents.core.proxy.peer import FAR, NEAR, Path, Peer, pair


def report(peer: Peer, path: Path, mtu: int, seq: int | None = None) -> tuple[object, list[Action]]:
    """A router's message about the oldest segment on a path that is not acknowledged, or about `seq`."""
    subflow = peer.subflow(path)
    if seq is None:
        seq = subflow.iss + subflow.send_acked
    ends = (subflow.local, subflow.local_port, subflow.remote, subflow.remote_port)
    actions: list[Action] = []
    return peer.proxy.inbound(too_big(*ends, seq, 1500, mtu), peer.now, actions), actions


def moved() -> tuple[Peer, Path]:
    """Data is on its way on the second path."""
    peer, _a, b = pair()
    peer.goes_on()
    peer.act(lambda now, actions: peer.proxy.handover(1, now, actions))
    peer.host(300)
    return peer, b


def test_the_host_is_told_with_its_own_addresses_and_numbers() -> None:
    peer, path = moved()
    verdict, actions = report(peer, path, 1340)
    assert verdict is Verdict.DROP
    (told,) = [parse_too_big(action.packet) for action in actions if isinstance(action, Deliver)]
    assert told is not None
    assert (told.source, told.source_port, told.destination, told.destination_port) == (NEAR[0], 40_000, FAR[0], 80)
    assert told.mtu == 1340 - 24, "less the options that the proxy adds"
    assert told.seq == peer.first.near_isn + peer.tan
    assert actions[0] == Isolate(NEAR[0], FAR[0]), "first of all a route of its own"


def test_larger_is_no_news() -> None:
    peer, path = moved()
    report(peer, path, 1340)
    for mtu in (1400, 9000):
        verdict, actions = report(peer, path, mtu)
        assert (verdict, actions) == (Verdict.DROP, [])
    _verdict, actions = report(peer, path, 1340)
    assert [type(action) for action in actions] == [Deliver], "the kernel may have forgotten it"


def test_less_than_networks_carry_is_not_believed() -> None:
    peer, path = moved()
    _verdict, actions = report(peer, path, 68)
    (told,) = [parse_too_big(action.packet) for action in actions if isinstance(action, Deliver)]
    assert told is not None
    assert told.mtu == 576 - 24


@pytest.mark.parametrize("offset", [-1, 300, 100_000])
def test_who_has_not_seen_the_traffic_is_not_believed(offset: int) -> None:
    peer, path = moved()
    subflow = peer.subflow(path)
    verdict, actions = report(peer, path, 600, seq=subflow.iss + subflow.send_acked + offset)
    assert (verdict, actions) == (Verdict.PASS, [])


def test_other_messages_pass() -> None:
    peer, _path = moved()
    packet = too_big(NEAR[1], 1, FAR[0], 2, 3, 1500, 1340)
    assert peer.proxy.inbound(packet, peer.now, []) is Verdict.PASS
