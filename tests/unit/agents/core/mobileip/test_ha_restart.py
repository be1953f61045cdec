"""A home agent that was killed: what it still knows, what it still refuses."""

from typing import Any

import pytest

from agents.core.mobileip.actions import DefendAddress, Forwarding, OpenTunnel, SendMessage, Store
from agents.wire.mobileip.values import UdpTunnelRequest
from tests.unit.agents.core.mobileip.ha_parts import (
    HTTP,
    LTE,
    VOICE,
    WLAN,
    Bench,
    config,
    drop,
    forward,
    forwarding_in,
    multipath,
    node,
    of,
    reply_in,
)


def full() -> Bench:
    bench = Bench()
    bench.register(WLAN, multipath(1, 3), UdpTunnelRequest(), forward(HTTP, 1), source="192.0.2.1", port=5000)
    bench.register(LTE, multipath(2), forward(HTTP, 2, 1), drop(VOICE))
    return bench


def without_times(bench: Bench) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "expires_s"} for item in bench.agent.bindings()]


def test_bindings_flows_and_forwarding_are_the_same_afterwards() -> None:
    bench = full()
    before, forwarding = without_times(bench), forwarding_in(bench.actions)
    actions = bench.restart(after_s=50.0)
    assert without_times(bench) == before
    assert forwarding_in(actions) == forwarding
    assert len(of(actions, OpenTunnel)) == 2
    assert len(of(actions, DefendAddress)) == 1
    kinds = [type(item) for item in actions]
    assert kinds.index(OpenTunnel) < kinds.index(Forwarding) < kinds.index(DefendAddress)


def test_lifetimes_go_on_during_the_restart() -> None:
    bench = full()
    bench.restart(after_s=400.0)
    bench.advance(199.0)
    assert bench.bids == [1, 2]
    bench.advance(2.0)
    assert bench.bids == []


def test_what_expired_meanwhile_is_gone_from_the_disk_as_well() -> None:
    bench = full()
    bench.restart(after_s=601.0)
    assert bench.bids == []
    assert not of(bench.actions, OpenTunnel)
    assert (bench.stored["bindings"], bench.stored["flows"]) == ({}, {})


def test_old_requests_are_refused_after_a_restart() -> None:
    bench = Bench()
    captured = bench.signed(WLAN, lifetime_s=0)
    assert reply_in(bench.send(bench.signed(WLAN))) is not None
    bench.restart(after_s=1.0)
    reply = reply_in(bench.send(captured))
    assert reply is not None
    assert reply.code == 133
    assert bench.care_ofs == [WLAN]


def test_the_order_of_flow_sets_survives() -> None:
    bench = full()
    bench.register(WLAN, multipath(1), UdpTunnelRequest(), forward(HTTP, 1, 2), source="192.0.2.1", port=5000)
    newest = forwarding_in(bench.actions)
    bench.restart()
    assert forwarding_in(bench.actions).rules == newest.rules


def test_sets_that_come_after_a_restart_are_newer_than_those_before_it() -> None:
    bench = full()
    bench.restart()
    bench.register(WLAN, multipath(1), UdpTunnelRequest(), forward(HTTP, 1, 2), source="192.0.2.1", port=5000)
    newest = forwarding_in(bench.actions)
    assert forwarding_in(bench.restart()).rules == newest.rules


def test_a_mobile_node_that_is_not_configured_any_more_is_forgotten() -> None:
    bench = full()
    bench.config = config(node(home_address="10.64.0.60"))
    bench.restart()
    assert bench.agent.bindings() == []
    assert bench.stored["bindings"] == {}


@pytest.mark.parametrize("table", ["bindings", "flows", "policies", "replay", "homes"])
@pytest.mark.parametrize("value", [{}, {"expires_ntp": "x"}, {"flows": 7}, {"flows": [{"selector": "zz"}], "order": 1}])
def test_rows_that_mean_nothing_do_no_harm(table: str, value: dict[str, Any]) -> None:
    bench = full()
    bench.stored.setdefault(table, {})["10.64.0.50|3"] = value
    bench.restart()
    assert bench.register(WLAN, multipath(3)).code == 0


def test_everything_that_must_last_is_stored_before_the_reply_leaves() -> None:
    bench = full()
    for actions in (bench.actions, bench.send(bench.signed(WLAN, multipath(1), lifetime_s=0))):
        sent = next(at for at, action in enumerate(actions) if isinstance(action, SendMessage))
        stores = [at for at, action in enumerate(actions) if isinstance(action, Store)]
        assert stores
        assert max(stores) < sent
