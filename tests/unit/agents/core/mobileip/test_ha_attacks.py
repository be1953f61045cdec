"""Bad input and floods: the expected reply or silence, and that the mobile node is served all the same."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.mobileip.actions import SendMessage, Store
from agents.core.mobileip.home_agent_config import Limits
from agents.core.mobileip.security import ReplayStyle, SecurityAssociation
from agents.wire.mobileip import codec
from agents.wire.mobileip.authentication import Algorithm
from agents.wire.mobileip.values import Nai, UdpTunnelRequest
from tests.unit.agents.core.mobileip.ha_parts import (
    ASSOCIATION,
    HOME,
    HTTP,
    KEY,
    LTE,
    SPI,
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
    sign,
)

WRONG = SecurityAssociation(SPI, b"not the key")
FLOOD_PER_S, FLOOD_S = 10_000, 5


# -- single messages ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_wrong_key_is_131_with_every_algorithm(algorithm: Algorithm) -> None:
    right = SecurityAssociation(SPI, KEY, algorithm)
    bench = Bench(config(node(associations=(right,))))
    reply = reply_in(bench.send(bench.signed(association=replace(right, key=b"no"))), right)
    assert reply is not None
    assert reply.code == 131
    assert bench.register(association=right).code == 0


def test_an_authenticator_of_another_algorithm_or_length_is_131() -> None:
    bench = Bench()
    other = SecurityAssociation(SPI, KEY, Algorithm.HMAC_SHA256)
    for data in (bench.signed(association=other), bench.request() + bytes((32, 4)) + SPI.to_bytes(4, "big")):
        reply = reply_in(bench.send(data))
        assert reply is not None
        assert reply.code == 131


def test_every_changed_octet_under_the_authenticator_is_131_or_silence() -> None:
    bench = Bench(config(limits=Limits(refusals_per_s=1e6, refusals_burst=1e6, refusals_total_per_s=1e6)))
    good = bench.signed(WLAN, multipath(1), forward(HTTP, 1))
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 0x41
        reply = reply_in(bench.send(bytes(changed)))
        assert reply is None or reply.code == 131, at
        assert bench.bids == []
    assert reply_in(bench.send(good)) is not None
    assert bench.bids == [1]


@pytest.mark.parametrize("suffix", ["9a01ffff", "63020000", "2004000003e8", "2206000010000000"])
def test_octets_that_somebody_puts_behind_a_request_do_not_spoil_the_request_itself(suffix: str) -> None:
    """What cannot be read: silence; an authenticator of a foreign agent that is not one: 132. The request stays new."""
    bench = Bench()
    good = bench.signed(WLAN, multipath(1))
    reply = reply_in(bench.send(good + bytes.fromhex(suffix)))
    if suffix.startswith("20"):
        assert bench.bids == [1]  # another extension 32 behind the first has no meaning
        return
    assert (reply.code if reply else None) == (132 if suffix.startswith("22") else None)
    assert not of(bench.actions, Store)
    again = reply_in(bench.send(good))
    assert again is not None
    assert again.code == 0


def test_a_replayed_request_is_133_and_changes_nothing() -> None:
    bench = Bench()
    captured = bench.signed(WLAN, multipath(1))
    bench.send(captured)
    bench.register(WLAN, multipath(1), lifetime_s=0)
    reply = reply_in(bench.send(captured))
    assert reply is not None
    assert reply.code == 133
    assert bench.bids == []
    assert not of(bench.actions, Store)


def test_every_truncation_is_silence_or_131() -> None:
    bench = Bench()
    good = bench.signed(WLAN, multipath(1), forward(HTTP, 1))
    for size in range(len(good)):
        reply = reply_in(bench.send(good[:size]))
        assert reply is None or reply.code == 131, size
    assert bench.bids == []


@pytest.mark.parametrize("body", ["9a01ffff04010100", "9a02000301020101", "83ff", "9006", "9a01000404010100"])
def test_extensions_whose_length_is_wrong_are_134_or_silence_and_never_register(body: str) -> None:
    """The last one is right."""
    bench = Bench()
    reply = reply_in(bench.send(sign(bench.request() + bytes.fromhex(body))))
    if body == "9a01000404010100":
        assert bench.bids == [1]
    else:
        assert reply is None or reply.code in (131, 134)
        assert bench.bids == []


def test_an_oversized_message_is_silence() -> None:
    bench = Bench()
    assert not of(bench.send(bench.signed(WLAN) + bytes((200, 0)) * 760), SendMessage)
    assert bench.discarded("no-message") == 1


@pytest.mark.parametrize(
    ("extensions", "code"),
    [
        ((multipath(1), multipath(1)), 134),
        ((multipath(1, bulk=True, overwrite=True),), 134),
        ((multipath(0),), 134),
        ((multipath(255),), 134),
        ((multipath(1), forward(HTTP, 9)), 153),
        ((multipath(1), forward(HTTP, 0)), 153),
        ((multipath(1), forward(HTTP, 255)), 153),
        ((Nai(b"a"), Nai(b"b")), 134),
    ],
)
def test_what_cannot_be_granted(extensions: tuple[object, ...], code: int) -> None:
    bench = Bench()
    assert bench.register(WLAN, *extensions).code == code  # type: ignore[arg-type]
    assert bench.bids == []


def test_contradicting_flow_bindings_are_accepted_and_the_first_of_the_newest_set_wins() -> None:
    bench = Bench()
    assert bench.register(WLAN, multipath(1), forward(HTTP, 1), drop(HTTP)).code == 0
    assert [rule.tunnel is None for rule in forwarding_in(bench.actions).rules] == [False]
    assert bench.register(LTE, multipath(2), drop(HTTP)).code == 0
    assert [rule.tunnel is None for rule in forwarding_in(bench.actions).rules] == [True]


def test_a_mobile_node_cannot_register_the_home_address_of_another_one() -> None:
    other = SecurityAssociation(SPI, b"key of the other")
    bench = Bench(config(node(), node(home_address="10.64.0.51", associations=(other,))))
    reply = reply_in(bench.send(bench.signed(home_address="10.64.0.51")), other)
    assert reply is not None
    assert reply.code == 131


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.booleans(), st.booleans())
def test_nothing_is_ever_raised(junk: bytes, with_head: bool, signed: bool) -> None:
    bench = Bench()
    data = bench.request() + junk if with_head else junk
    bench.send(sign(data) if signed else data)
    assert bench.register().code == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(), st.integers(1, 6))
def test_nothing_is_ever_raised_by_authentic_messages_with_changed_octets(seed: int, changes: int) -> None:
    bench, chance = Bench(), random.Random(seed)
    body = bytearray(bench.request(WLAN, multipath(1), forward(HTTP, 1, 1), UdpTunnelRequest(), Nai(b"abc")))
    for _ in range(changes):
        place = chance.randrange(24, len(body))
        body[place] = chance.randrange(256)
    bench.send(sign(bytes(body)))
    assert bench.register().code == 0


@pytest.mark.parametrize(("source", "port"), [(WLAN, 0), ("0.0.0.0", 434)])
def test_what_cannot_be_answered_is_silence(source: str, port: int) -> None:
    bench = Bench()
    for association in (ASSOCIATION, WRONG):
        assert not of(bench.send(bench.signed(association=association), source=source, port=port), SendMessage)
    assert bench.discarded("no-return-address") == 2
    assert bench.care_ofs == []


# -- floods -------------------------------------------------------------------------------------------------------------
def flood(bench: Bench, forged: bytes, source: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[int], int]:
    """10,000 messages per second for 5 s while the mobile node refreshes: answers to the flood, codes, messages decoded."""
    answered, codes, decoded = 0, [], []
    plain = codec.decode
    monkeypatch.setattr(codec, "decode", lambda data: decoded.append(data) or plain(data))
    for number in range(FLOOD_PER_S * FLOOD_S):
        bench.now_s += 1 / FLOOD_PER_S
        answered += len(of(bench.send(forged, source=source), SendMessage))
        if number % FLOOD_PER_S == FLOOD_PER_S // 2:
            monkeypatch.setattr(codec, "decode", plain)
            codes.append(bench.register(WLAN, multipath(1), lifetime_s=3).code)
            monkeypatch.setattr(codec, "decode", lambda data: decoded.append(data) or plain(data))
        bench.agent.handle_timer(bench.now)
    monkeypatch.setattr(codec, "decode", plain)
    return answered, codes, len(decoded)


@pytest.mark.parametrize("source", ["198.51.100.1", WLAN, HOME])
def test_10000_forgeries_per_second_with_home_address_spi_and_source_do_not_keep_a_node_from_refreshing(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    assert bench.register(WLAN, multipath(1), lifetime_s=3).code == 0
    answered, codes, decoded = flood(bench, bench.signed(WLAN, multipath(1), association=WRONG), source, monkeypatch)
    assert codes == [0] * FLOOD_S
    assert bench.bids == [1]
    limits = bench.config.limits
    assert 0 < answered <= limits.refusals_burst + limits.refusals_per_s * FLOOD_S + 1
    assert decoded == 0
    assert bench.discarded("not-authentic") == FLOOD_PER_S * FLOOD_S - answered


def test_a_flood_of_replays_does_not_keep_a_node_from_refreshing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    captured = bench.signed(WLAN, multipath(1), lifetime_s=3)
    bench.send(captured)
    answered, codes, decoded = flood(bench, captured, WLAN, monkeypatch)
    assert codes == [0] * FLOOD_S
    assert answered <= 21
    assert decoded == 0


def test_replays_under_nonces_do_not_take_the_nodes_nonce_away() -> None:
    bench = Bench(config(node(associations=(replace(ASSOCIATION, replay=ReplayStyle.NONCES),))))
    offered = bench.register(identification=1).identification & ~0xFFFFFFFF
    captured = bench.signed(identification=offered | 2)
    reply = reply_in(bench.send(captured))
    assert reply is not None
    for _ in range(100):
        bench.send(captured)
    assert bench.register(identification=reply.identification & ~0xFFFFFFFF | 3).code == 0


def test_forgeries_do_not_use_up_the_answers_to_a_node_whose_clock_is_wrong() -> None:
    bench = Bench()
    forged = bench.signed(association=WRONG)
    for _ in range(1000):
        bench.send(forged)
    assert bench.register(identification=1).code == 133


def test_forgeries_with_ten_thousand_sources_get_few_answers_and_little_memory() -> None:
    bench = Bench(config(node(), *(node(home_address=f"10.64.{n // 250 + 1}.{n % 250 + 1}") for n in range(2000))))
    answered = 0
    for number in range(10_000):
        bench.now_s += 1e-4
        home = f"10.64.{number % 2000 // 250 + 1}.{number % 2000 % 250 + 1}"
        data = bench.signed(association=WRONG, home_address=home)
        answered += len(of(bench.send(data, source=f"172.16.{number >> 8}.{number & 255}"), SendMessage))
    assert answered <= 2 * bench.config.limits.refusals_total_per_s + 1
    assert len(bench.agent._admission._forged) <= bench.config.limits.sources


def test_valid_requests_of_one_node_are_limited_before_they_are_decoded() -> None:
    bench = Bench(config(limits=Limits(requests_per_s=10.0, requests_burst=20.0)))
    replies = [bench.try_register() for _ in range(100)]
    assert sum(reply is not None for reply in replies) == 20
    assert bench.discarded("too-many-requests") == 80
    bench.now_s += 1.0
    assert bench.try_register() is not None


def test_a_flood_of_unknown_messages_is_counted_and_rarely_logged() -> None:
    bench = Bench()
    logged = sum(len(bench.send(bytes((9,)) * 40)) for _ in range(1000))
    assert logged <= 10
    assert bench.discarded("no-message") == 1000
