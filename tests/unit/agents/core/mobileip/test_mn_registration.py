"""Registration of a mobile node: requests, repetitions, lifetimes, replies that count and replies that do not."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.mobileip.actions import CloseTunnel, Datagram, Forwarding, OpenTunnel, SendMessage, Tunnel
from agents.core.mobileip.registration_messages import Identifications
from agents.core.mobileip.registration_states import BOUND, TABLE, Effect, Event, State
from agents.core.mobileip.security import ReplayStyle
from agents.wire.mobileip.values import RequestFlag
from tests.unit.agents.core.mobileip.mn_parts import (
    HOME,
    HOME_AGENT,
    LTE_UP,
    NONCES,
    WLAN_UP,
    answer,
    asked,
    at,
    logged,
    pick,
    random_bytes_from,
    registered,
    script,
)

TUNNEL = Tunnel("10.1.0.2", HOME_AGENT, interface="wlan", bid=1)


def test_27_packets_are_sent_into_the_tunnel_when_the_reply_accepts() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    kinds = [type(action) for action in run.actions if isinstance(action, OpenTunnel | Forwarding | SendMessage)]
    assert kinds == [OpenTunnel, SendMessage], "it can receive from now on: packets may overtake the reply"
    assert (request.request.home_address, request.request.care_of_address) == (HOME, "10.1.0.2")
    assert request.request.lifetime_s == 300
    assert request.request.flags == RequestFlag.DECAPSULATION_BY_MN | RequestFlag.REVERSE_TUNNEL
    assert (request.send.destination, request.send.port, request.send.source) == (HOME_AGENT, 434, "10.1.0.2")
    run.reply(request)
    kinds = [type(action) for action in run.actions if isinstance(action, OpenTunnel | Forwarding)]
    assert kinds == [OpenTunnel, Forwarding], "the tunnel is there before packets are sent into it"
    (forwarding,) = pick(run.actions, Forwarding)
    assert forwarding.shares == ((TUNNEL, 1),)
    assert run.node.bindings()[0]["care_of"] == "10.1.0.2"


def test_nothing_happens_before_start() -> None:
    run = script()
    fresh = type(run)(type(run.node)(run.node._node.config, random_bytes_from()))
    assert fresh.up(WLAN_UP) == []
    assert fresh.node.next_deadline() is None
    assert len(asked(fresh.node.start(fresh.now))) == 1


def test_retransmissions_are_new_and_back_off() -> None:
    run = script()
    (first,) = run.up(WLAN_UP)
    times, seen = [0.0], [first.request.identification]
    for _ in range(8):
        repetition = run.until_asked()
        times.append(run.now_s)
        seen.append(repetition.request.identification)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [1, 2, 4, 8, 16, 32, 32, 32]
    assert seen == sorted(set(seen)), "strictly increasing, also for repetitions (RFC 5944 section 5.7)"


def test_only_the_reply_to_the_latest_request_counts() -> None:
    run = script()
    (first,) = run.up(WLAN_UP)
    second = run.until_asked()
    run.reply(first)
    assert logged(run.actions, "discard") == [{"reason": "no request with this identification"}]
    assert run.states()["wlan"] == "registering"
    run.reply(second)
    assert run.states()["wlan"] == "registered"
    run.reply(second)
    assert logged(run.actions, "discard"), "a duplicate changes nothing"


@pytest.mark.parametrize("what", ["octet", "unsigned", "key", "home", "agent", "garbage", "empty"])
def test_replies_that_are_not_genuine_are_discarded(what: str) -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    datagram = answer(request)
    if what == "octet":
        datagram = replace(datagram, data=datagram.data[:2] + b"\xff" + datagram.data[3:])
    elif what == "unsigned":
        datagram = answer(request, signed=False)
    elif what == "key":
        datagram = replace(datagram, data=datagram.data[:-1] + bytes([datagram.data[-1] ^ 1]))
    elif what == "home":
        datagram = answer(request, home_address="10.9.0.101")
    elif what == "agent":
        datagram = answer(request, home_agent="10.9.0.2")
    else:
        datagram = replace(datagram, data=b"" if what == "empty" else b"\x03rubbish")
    actions = run.node.handle_datagram(datagram, run.now)
    assert len(logged(actions, "discard")) == 1
    assert run.states()["wlan"] == "registering"


@given(st.binary(max_size=80))
def test_remote_input_never_raises(data: bytes) -> None:
    run = script()
    run.up(WLAN_UP)
    for first in (b"", b"\x03", b"\x01"):
        run.node.handle_datagram(Datagram(first + data, "10.1.0.9", 434, "10.1.0.2", "wlan"), run.now)
    run.node.handle_advertisement(data, "10.1.0.9", "02::1", "wlan", run.now)
    assert run.states()["wlan"] == "registering"


def test_refresh_before_the_lifetime_is_over() -> None:
    run = registered(WLAN_UP)
    refresh = run.until_asked()
    assert run.now_s == pytest.approx(180)
    assert run.states()["wlan"] == "refreshing"
    assert len(run.node.bindings()) == 1
    run.reply(refresh)
    assert run.states()["wlan"] == "registered"
    assert not pick(run.actions, Forwarding), "nothing changes for packets"
    assert run.node.bindings()[0]["expires_s"] == pytest.approx(480)


def test_unanswered_refresh_ends_with_the_lifetime() -> None:
    run = registered(WLAN_UP)
    actions = run.wait(299.9)
    assert not pick(actions, CloseTunnel)
    actions = run.wait(0.2)
    assert not pick(actions, CloseTunnel), "the next request is under way, its tunnel can receive"
    assert pick(actions, Forwarding)[-1].shares == ()
    assert run.states()["wlan"] == "registering", "and tries on"
    assert run.node.bindings() == []


def test_lifetime_counts_from_the_request_and_is_at_most_what_was_asked() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.now_s = 0.5
    run.reply(request, 0, 9000)
    assert run.node.bindings()[0]["expires_s"] == pytest.approx(300), "longer than asked for: what was asked for"
    shorter = registered(WLAN_UP)
    shorter.reply(shorter.until_asked(), 0, 60)
    assert shorter.node.bindings()[0]["expires_s"] == pytest.approx(240)


def test_infinite_lifetime_never_expires() -> None:
    run = registered(WLAN_UP, lifetime_s=0xFFFF)
    assert run.node.next_deadline() is None or run.wait(1e6) == []
    assert len(run.node.bindings()) == 1


def test_accepted_with_lifetime_zero_is_no_binding() -> None:
    run = script()
    (request,) = run.up(WLAN_UP)
    run.reply(request, 0, 0)
    assert run.states()["wlan"] == "denied"


def test_spacing_of_requests_while_addresses_flap() -> None:
    run = script()
    times = []
    for number in range(200):
        run.now_s = number * 0.1
        found = run.up(replace(WLAN_UP, address=f"10.1.0.{number % 2 + 2}"))
        found += asked(run.node.handle_timer(run.now))
        times += [run.now_s] * len(found)
    assert len(times) <= 22, "20 s: once per second on average (RFC 5944 section 3.6.3)"
    assert len(times) >= 18


def test_deregistration_of_one_binding() -> None:
    run = registered(WLAN_UP, LTE_UP)
    (request,) = asked(run.did(run.node.deregister("wlan", at(5))))
    assert request.request.lifetime_s == 0
    assert request.bid == 1
    assert request.multipath is not None
    assert not request.multipath.bulk
    run.reply(request)
    assert run.states() == {"wlan": "idle", "lte": "registered"}
    assert [item["bid"] for item in run.node.bindings()] == [2]
    (again,) = asked(run.node.register("wlan", at(10)))
    assert again.request.lifetime_s == 300


def test_deregistration_without_reply_is_given_up() -> None:
    run = registered(WLAN_UP)
    run.did(run.node.deregister("wlan", at(0)))
    run.wait(200)
    assert run.states()["wlan"] == "idle"
    assert run.node.bindings() == []


def test_nonces() -> None:
    run = script(association=NONCES)
    (request,) = run.up(WLAN_UP)
    low = request.request.identification & 0xFFFFFFFF
    run.reply(request, 133, identification=0x11223344 << 32 | low)
    second = run.until_asked()
    assert second.request.identification >> 32 == 0x11223344
    run.reply(second, identification=0x55667788 << 32 | second.request.identification & 0xFFFFFFFF)
    assert run.states()["wlan"] == "registered"
    refresh = run.until_asked()
    assert refresh.request.identification >> 32 == 0x55667788
    assert refresh.request.identification & 0xFFFFFFFF != second.request.identification & 0xFFFFFFFF


def test_nonces_an_interface_without_replies_does_not_keep_others_from_asking() -> None:
    run = script(association=NONCES)
    run.up(WLAN_UP, LTE_UP)
    assert {item.bid for item in asked(run.wait(5))} == {1, 2}


def test_registering_again_while_deregistering_forgets_the_old_binding() -> None:
    run = registered(WLAN_UP)
    run.did(run.node.deregister("wlan", at(1)))
    run.now_s = 2.0
    run.did(run.node.register("wlan", run.now))
    assert run.states()["wlan"] == "registering"
    run.wait(400)
    assert run.now_s == 402.0, "time passes"


def test_nonces_go_one_at_a_time() -> None:
    run = script(association=NONCES)
    (first,) = run.up(WLAN_UP, LTE_UP)
    assert first.bid == 1
    run.reply(first, identification=7 << 32 | first.request.identification & 0xFFFFFFFF)
    second = run.until_asked()
    assert second.bid == 2
    assert second.request.identification >> 32 == 7


@given(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), max_size=30))
def test_timestamps_increase_except_after_a_mismatch(steps: list[tuple[int, bool]]) -> None:
    ids = Identifications(ReplayStyle.TIMESTAMPS, random_bytes_from())
    ntp, last = 3_900_000_000 << 32, 0
    for seconds, mismatch in steps:
        ntp += seconds << 30
        identification = ids.next(ntp)
        assert identification > last
        last = identification
        if mismatch:
            ids.mismatch(identification, (ntp >> 32) + 1000 << 32, ntp)
            last = 0
            assert abs((ids.next(ntp) >> 32) - (ntp >> 32) - 1000) <= 1
            last = ids._last


def test_table_is_complete_and_closed() -> None:
    reached = {state for _effects, state in TABLE.values()}
    assert reached == set(State)
    assert {event for _state, event in TABLE} == set(Event)
    assert {effect for effects, _state in TABLE.values() for effect in effects} == set(Effect)
    for (state, event), (effects, after) in TABLE.items():
        holding = BOUND | {State.DEREGISTERING}
        if state in holding and after not in holding:
            assert Effect.DROP in effects, f"{state} {event}: the tunnel would stay"
        if after in (State.DETACHED, State.DISCOVERING) and state is not State.DETACHED:
            assert Event.DOWN is event or Event.LINK is event
    for state in State:
        if state is not State.DETACHED:
            assert (state, Event.DOWN) in TABLE, f"{state}: the link can always go"
