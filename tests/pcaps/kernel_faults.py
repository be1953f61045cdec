"""Scenarios of `make_kernel` with a middlebox or a refusal in them: failed joins, fallback, checksums, rewriting."""

from __future__ import annotations

from tests.pcaps import applications as app
from tests.pcaps import rules
from tests.pcaps.kernel_scenarios import usual
from tests.pcaps.lab import mobile_address
from tests.pcaps.make_kernel import Run, scenario
from topologies.waiting import wait_until

# Joins that fail ---------------------------------------------------------------------------------------------------------


def _failed_join(run: Run, node: str, counter: str) -> None:
    with run.captured():
        pair = run.connect()
        wait_until(lambda: run.lab.counters(node).get(counter), 5, f"{counter} of {node}")
        app.exchange(pair, up=10_000, down=40_000)
        app.close(pair)


@scenario("client", "server")
def join_token(run: Run) -> None:
    """The join carries a token that the server does not know."""
    run.join_by("lte")
    run.rule("lte", rules.Corrupt(rules.is_syn, True, rules.MP_JOIN, 4), "token of the join changed")
    _failed_join(run, "cn", "MPJoinNoTokenFound")


@scenario("client", "server")
def join_hmac(run: Run) -> None:
    """The HMAC in the SYN/ACK of the join is wrong: the client resets it."""
    run.join_by("lte")
    run.rule("lte", rules.Corrupt(rules.is_syn_ack, False, rules.MP_JOIN, 5), "HMAC of the join's SYN/ACK changed")
    _failed_join(run, "mn", "MPJoinSynAckHMacFailure")


@scenario("client", "server")
def join_ack_hmac(run: Run) -> None:
    """The HMAC in the third packet of the join is wrong: the server resets it."""
    run.join_by("lte")
    run.rule("lte", rules.Corrupt(rules.is_third_ack, True, rules.MP_JOIN, 10), "HMAC of the join's third ACK changed")
    _failed_join(run, "cn", "MPJoinAckHMacFailure")


@scenario("client")
def join_limit(run: Run) -> None:
    """The server accepts no further subflow."""
    run.join_by("lte")
    run.limits("cn", subflows=0, add_addr_accepted=0)
    with run.captured():
        pair = run.connect()
        wait_until(lambda: run.lab.counters("mn").get("MPJoinSynAckRx"), 5, "the server's answer to the join")
        wait_until(lambda: pair.subflows() == [1, 1], 5, "the join is gone")
        app.exchange(pair, up=10_000, down=40_000)
        app.close(pair)


@scenario("client", "server")
def join_stripped(run: Run) -> None:
    """A middlebox strips MP_JOIN from the SYN: the server takes it for plain TCP, the client gives it up."""
    run.join_by("lte")
    run.rule("lte", rules.Strip(rules.is_syn, True), "MP_JOIN stripped from the SYN")
    with run.captured():
        pair = run.connect()
        pair.listener.settimeout(5)
        wait_until(lambda: run.lab.counters("mn").get("MPJoinSynTx"), 5, "the join")
        app.exchange(pair, up=10_000, down=40_000)
        app.close(pair)


@scenario("client", "server")
def join_synack_stripped(run: Run) -> None:
    """A middlebox strips MP_JOIN from the SYN/ACK: the client resets the subflow."""
    run.join_by("lte")
    run.rule("lte", rules.Strip(rules.is_syn_ack, False), "MP_JOIN stripped from the SYN/ACK")
    _failed_join(run, "mn", "MPJoinSynTx")


@scenario("client")
def join_refused(run: Run) -> None:
    """The server's listening socket is closed before the join: a plain reset."""
    run.limits("mn")
    run.limits("cn")
    with run.captured():
        pair = run.connect()
        pair.listener.close()
        run.endpoint("mn", "add", mobile_address(run.family, "lte"), "dev", "mn-lte", "subflow")
        wait_until(lambda: run.lab.counters("mn").get("MPJoinSynTx"), 5, "the join")
        wait_until(lambda: pair.subflows() == [1, 1], 5, "the join is gone")
        app.exchange(pair, up=10_000, down=40_000)
        app.close(pair)


# Fallback --------------------------------------------------------------------------------------------------------------


@scenario("client", "server")
def fallback_syn(run: Run) -> None:
    """MP_CAPABLE is stripped from the SYN."""
    run.rule("wlan", rules.Strip(rules.is_syn, True), "MP_CAPABLE stripped from the SYN")
    usual(run, up=30_000, down=80_000, joined=0)


@scenario("client", "server")
def fallback_synack(run: Run) -> None:
    """MP_CAPABLE is stripped from the SYN/ACK."""
    run.rule("wlan", rules.Strip(rules.is_syn_ack, False), "MP_CAPABLE stripped from the SYN/ACK")
    usual(run, up=30_000, down=80_000, joined=0)
    run.require("mn", "MPCapableFallbackSYNACK")


@scenario("client", "server")
def fallback_ack(run: Run) -> None:
    """All MPTCP options are stripped from the third ACK on."""
    run.rule("wlan", rules.Strip(lambda segment: not segment.flags & 2, True), "options stripped from the third ACK on")
    usual(run, up=30_000, down=80_000, joined=0)
    run.require("cn", "MPCapableFallbackACK")


@scenario("client", "server")
def fallback_dss(run: Run) -> None:
    """In mid-stream a middlebox begins to strip all MPTCP options; there is one subflow only."""
    begin = {"now": False}
    strip = rules.Strip(lambda segment: begin["now"])
    run.rule("wlan", strip, "options stripped in mid-stream")

    def start() -> None:
        run.fault("stripping begins", path="wlan", at_received_bytes=pair.client.received)
        begin["now"] = True

    with run.captured():
        pair = run.connect()
        app.exchange(pair, up=10_000, down=60_000)
        start()
        app.exchange(pair, up=30_000, down=80_000)
        app.close(pair)
    run.require("mn", "DssFallback")


@scenario("client", "server")
def fallback_checksum(run: Run) -> None:
    """A middlebox changes the payload; checksums are on, there is one subflow: MP_FAIL and the infinite mapping."""
    for node in ("mn", "cn"):
        run.lab.sysctl(node, mptcp__checksum_enabled=1)
    run.rule("wlan", rules.ManglePayload(False, 20), "payload changed")
    usual(run, up=30_000, down=120_000, joined=0)
    run.require("mn", "MPFailTx")
    run.require("cn", "InfiniteMapTx")


# Checksums -------------------------------------------------------------------------------------------------------------


@scenario("client", snaplen=0)
def checksums(run: Run) -> None:
    """Checksums are on. Whole packets are captured, so that the checksums can be computed again."""
    for node in ("mn", "cn"):
        run.lab.sysctl(node, mptcp__checksum_enabled=1)
    run.join_by("lte")
    usual(run, up=60_000, down=160_000)


@scenario("client", "server")
def checksum_failure(run: Run) -> None:
    """A middlebox changes the payload on one of two paths: that subflow is reset with MP_FAIL."""
    for node in ("mn", "cn"):
        run.lab.sysctl(node, mptcp__checksum_enabled=1)
    run.join_by("lte")
    run.rule("lte", rules.ManglePayload(False, 12), "payload changed")
    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=30_000, down=200_000)
        app.close(pair)
    run.require("mn", "MPFailTx")
    run.require("mn", "DataCsumErr")


# Middleboxes with a capture on both sides ----------------------------------------------------------------------------------


@scenario("client", "server", nat=("wlan", "lte"))
def nat(run: Run) -> None:
    """A NAT with random ports on each path, captured on both sides of it."""
    run.join_by("lte")
    usual(run, up=60_000, down=200_000)


@scenario("client", "server")
def strip_joined(run: Run) -> None:
    """In mid-stream a middlebox on the second path begins to strip all MPTCP options: that subflow is reset."""
    run.join_by("lte")
    begin = {"now": False}
    run.rule("lte", rules.Strip(lambda segment: begin["now"]), "options stripped in mid-stream")

    def start() -> None:
        run.fault("stripping begins", path="lte", at_received_bytes=pair.client.received)
        begin["now"] = True

    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=20_000, down=200_000, hooks=((60_000, start),))
        app.close(pair)


@scenario("client", "server")
def sequence_rewrite(run: Run) -> None:
    """A firewall on the first path shifts the sequence numbers of both directions; segments are lost behind it."""
    run.join_by("lte")
    run.rule("wlan", rules.ShiftSequence(0x9E3779B9, 0x7F4A7C15), "sequence numbers shifted")
    run.rule("wlan", rules.Lose(rules.has_data, False, 20, 23), "data segments lost")
    usual(run, up=40_000, down=150_000)


@scenario("client", "server")
def short_numbers(run: Run) -> None:
    """A middlebox on both paths writes data sequence numbers and data ACKs in 4 bytes."""
    run.join_by("lte")
    for path in ("wlan", "lte"):
        run.rule(path, rules.ShortNumbers(), "8-byte numbers written in 4 bytes")
    usual(run, up=40_000, down=150_000)
