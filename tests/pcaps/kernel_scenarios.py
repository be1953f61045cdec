"""The scenarios of `make_kernel`: each function plays one and leaves its captures and notes."""

from __future__ import annotations

import socket

from tests.pcaps import applications as app
from tests.pcaps import rules
from tests.pcaps.lab import SERVER, SERVER2, mobile_address
from tests.pcaps.make_kernel import Run, scenario
from topologies.links.netns import inside
from topologies.waiting import wait_until

SMALL_BUFFER_BYTES = 40_000
"""Send buffer where the sender's choice of path shall show soon: what is assigned to a subflow drains there."""


def usual(run: Run, up: int = 0, down: int = 0, joined: int = 1, first: str = "server", **words: object) -> app.Pair:
    """Connect, exchange, close: captured. For scenarios whose point lies in rules and endpoints alone."""
    with run.captured():
        pair = run.connect_joined(joined, **words) if joined else run.connect(**words)
        app.exchange(pair, up=up, down=down)
        app.close(pair, first)
    return pair


# Two paths -------------------------------------------------------------------------------------------------------------


@scenario("client")
def bulk(run: Run) -> None:
    """Both subflows carry data both ways; a few data segments are lost on each path."""
    run.join_by("lte")
    for path, up, turns in (
        ("wlan", False, (20, 21, 60)),
        ("lte", False, (30, 45)),
        ("wlan", True, (15,)),
        ("lte", True, (12, 14)),
    ):
        run.rule(path, rules.Lose(rules.has_data, up, *turns), "data segments lost")
    usual(run, up=150_000, down=400_000)


@scenario("client")
def no_timestamps(run: Run) -> None:
    """As bulk, without TCP timestamps: more room for SACK blocks beside DSS."""
    for node in ("mn", "cn"):
        run.lab.sysctl(node, ipv4__tcp_timestamps=0)
    run.join_by("lte")
    for path in ("wlan", "lte"):
        run.rule(path, rules.Lose(rules.has_data, False, 20, 22, 24, 27, 50), "data segments lost")
    usual(run, up=50_000, down=250_000)


@scenario("client")
def lost_handshake(run: Run) -> None:
    """The first SYN, the second SYN/ACK, and of the join the SYN and the third ACK are lost."""
    run.join_by("lte")
    run.rule("wlan", rules.Lose(rules.is_syn, True, 1), "SYN lost")
    run.rule("wlan", rules.Lose(rules.is_syn_ack, False, 1), "SYN/ACK lost")
    run.rule("lte", rules.Lose(rules.is_syn, True, 1), "join SYN lost")
    run.rule("lte", rules.Lose(rules.is_third_ack, True, 1), "join ACK lost")
    usual(run, up=20_000, down=60_000)


@scenario("client", "server")
def handover_prio(run: Run) -> None:
    """The backup path becomes the only one in use, and later the other way round: MP_PRIO from the client."""
    run.join_by("lte", "backup")
    run.endpoint("mn", "add", mobile_address(run.family, "wlan"), "dev", "mn-wlan", "subflow")

    def prefer(good: str, other: str) -> None:
        run.endpoint("mn", "change", mobile_address(run.family, good), "nobackup")
        run.endpoint("mn", "change", mobile_address(run.family, other), "backup")
        run.fault("preferred path changed", path=good, at_received_bytes=pair.client.received)

    with run.captured():
        pair = run.connect_joined(send_buffer=SMALL_BUFFER_BYTES)
        hooks = ((120_000, lambda: prefer("lte", "wlan")), (280_000, lambda: prefer("wlan", "lte")))
        app.exchange(pair, up=20_000, down=400_000, hooks=hooks)
        app.close(pair)
    run.require("mn", "MPPrioTx", 4)


@scenario("client", "server")
def handover_carrier(run: Run) -> None:
    """The WLAN loses its carrier in the middle of a download; the backup takes over and data is sent there again."""
    run.join_by("lte", "backup")

    def lose() -> None:
        run.fault("carrier lost", path="wlan", at_received_bytes=pair.client.received)
        run.lab.carrier("wlan", False)

    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, down=300_000, hooks=((120_000, lose),))
        app.close(pair)
        # The dead subflow's sockets would go on for minutes.
        run.lab.carrier("wlan", True)
    run.require("cn", "MPTCPRetrans")


@scenario("client", "server")
def handover_remove(run: Run) -> None:
    """The WLAN loses its carrier and its address is withdrawn: REMOVE_ADDR; then it comes back and joins again."""
    run.join_by("lte")
    run.endpoint("mn", "add", mobile_address(run.family, "wlan"), "dev", "mn-wlan", "subflow")

    def lose() -> None:
        run.fault("carrier lost, endpoint deleted", path="wlan", at_received_bytes=pair.client.received)
        run.lab.carrier("wlan", False)
        # `id 0` is the address of the initial subflow.
        run.endpoint("mn", "delete", "id", "0", mobile_address(run.family, "wlan"))

    def back() -> None:
        run.fault("carrier back, endpoint added", path="wlan", at_received_bytes=pair.client.received)
        run.lab.carrier("wlan", True)
        address = mobile_address(run.family, "wlan")
        listed = [line.split() for line in run.lab.command("mn", "ip", "mptcp", "endpoint", "show").splitlines()]
        for words in listed:
            if words[0] == address:
                run.endpoint("mn", "delete", "id", words[words.index("id") + 1])
        run.endpoint("mn", "add", address, "dev", "mn-wlan", "subflow")

    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, down=400_000, hooks=((100_000, lose), (200_000, back)))
        wait_until(lambda: run.lab.counters("cn").get("MPJoinAckRx") == 2, 5, "the second join")
        app.exchange(pair, up=10_000, down=100_000)
        app.close(pair)
    run.require("cn", "RmAddr")
    run.require("cn", "MPJoinAckRx", 2)


@scenario("client")
def prio(run: Run) -> None:
    """MP_PRIO from both sides, for the initial and for the joined subflow."""
    run.join_by("lte")
    run.endpoint("mn", "add", mobile_address(run.family, "wlan"), "dev", "mn-wlan", "subflow")
    run.endpoint("cn", "add", SERVER[run.family])
    with run.captured():
        pair = run.connect_joined()
        for node, address, what in (
            ("mn", mobile_address(run.family, "wlan"), "backup"), ("mn", mobile_address(run.family, "lte"), "backup"),
            ("mn", mobile_address(run.family, "wlan"), "nobackup"), ("cn", SERVER[run.family], "backup"),
            ("cn", SERVER[run.family], "nobackup"),
        ):  # fmt: skip
            run.endpoint(node, "change", address, what)
            app.exchange(pair, up=3_000, down=6_000)
        app.close(pair)
    run.require("mn", "MPPrioTx", 3)
    run.require("cn", "MPPrioTx", 1)


# Addresses -------------------------------------------------------------------------------------------------------------


def _room_for_port(run: Run) -> None:
    # ADD_ADDR with an IPv6 address, a port and its HMAC takes 30 bytes: beside timestamps there is no room for it.
    if run.family == 6:
        for node in ("mn", "cn"):
            run.lab.sysctl(node, ipv4__tcp_timestamps=0)


def _announce(run: Run, *port: str) -> None:
    for node in ("mn", "cn"):
        run.limits(node)
    run.endpoint("cn", "add", SERVER2[run.family], "signal", *port)
    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=20_000, down=100_000)
        run.endpoint("cn", "delete", "id", "1")
        app.wait_subflows(pair, 1)
        app.exchange(pair, up=5_000, down=20_000)
        app.close(pair)
    run.require("mn", "AddAddr")
    run.require("mn", "RmAddr")
    run.require("cn", "EchoAdd")


@scenario("client")
def add_addr(run: Run) -> None:
    """The server announces a second address, the client joins it; then the server withdraws it."""
    _announce(run)


@scenario("client")
def add_addr_port(run: Run) -> None:
    """As add-addr, with a port of its own."""
    _room_for_port(run)
    _announce(run, "port", "5002")
    run.require("mn", "PortAdd")


@scenario("client")
def server_join(run: Run) -> None:
    """The client announces its second address with a port; the server opens the subflow."""
    _room_for_port(run)
    for node in ("mn", "cn"):
        run.limits(node)
    run.endpoint("mn", "add", mobile_address(run.family, "lte"), "dev", "mn-lte", "signal", "port", "5003")
    usual(run, up=60_000, down=120_000)
    run.require("mn", "MPJoinAckRx")


@scenario("client")
def server_join_refused(run: Run) -> None:
    """The client announces its second address without a port: nobody listens there, the server's join is reset."""
    for node in ("mn", "cn"):
        run.limits(node)
    run.endpoint("mn", "add", mobile_address(run.family, "lte"), "dev", "mn-lte", "signal")
    with run.captured():
        pair = run.connect()
        wait_until(lambda: run.lab.counters("cn").get("MPJoinSynTx"), 5, "the server's join")
        app.exchange(pair, up=10_000, down=40_000)
        app.close(pair)


# Ends --------------------------------------------------------------------------------------------------------------------


@scenario("client")
def close_half(run: Run) -> None:
    """The client ends its stream first; the server goes on sending for a while."""
    run.join_by("lte")
    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=30_000, down=30_000)
        pair.client.socket.shutdown(socket.SHUT_WR)
        app.wait_end(pair.server)
        pair.server.end = "open"  # its other half is
        app.exchange(pair, down=60_000)
        pair.look()
        pair.server.socket.shutdown(socket.SHUT_WR)
        app.wait_end(pair.client)
        for end in (*(side.socket for side in pair.sides), pair.listener):
            end.close()


@scenario("client")
def close_simultaneous(run: Run) -> None:
    """Both sides end their streams at the same time: the DATA_FINs cross."""
    run.join_by("lte")
    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=30_000, down=60_000)
        pair.look()
        for side in pair.sides:
            side.socket.shutdown(socket.SHUT_WR)
        for side in pair.sides:
            app.wait_end(side)
        for side in pair.sides:
            side.socket.close()
        pair.listener.close()


def _abort(run: Run, who: str) -> None:
    run.join_by("lte")
    with run.captured():
        pair = run.connect_joined()
        app.exchange(pair, up=30_000, down=60_000)
        pair.look()
        first, other = pair.sides if who == "client" else pair.sides[::-1]
        app.abort(first)
        app.wait_end(other)
        other.socket.close()
        pair.listener.close()
    run.require("mn" if who == "client" else "cn", "MPFastcloseTx")


@scenario("client")
def fastclose(run: Run) -> None:
    """The client aborts the connection: MP_FASTCLOSE on both subflows."""
    _abort(run, "client")


@scenario("client")
def fastclose_server(run: Run) -> None:
    """The server aborts the connection."""
    _abort(run, "server")


# Without MPTCP -----------------------------------------------------------------------------------------------------------


@scenario("client", "server")
def tcp(run: Run) -> None:
    """Plain TCP with lost segments, beside an MPTCP connection."""
    run.join_by("lte")
    run.rule("wlan", rules.Lose(rules.has_data, False, 40, 42, 43, 80), "data segments lost")
    with run.captured():
        plain = run.connect(mptcp=False, port=5010)
        pair = run.connect_joined()
        app.exchange(plain, up=30_000, down=150_000)
        app.exchange(pair, up=10_000, down=40_000)
        app.close(plain, "client")
        app.close(pair)


@scenario("client", kept="")
def mixed(run: Run) -> None:
    """No capture filter: ARP or neighbour discovery, UDP with 0 to 4000 bytes (fragments), ICMP, refused and aborted TCP."""
    family = socket.AF_INET if run.family == 4 else socket.AF_INET6
    server = SERVER[run.family]
    with run.captured():
        with inside(run.lab.nodes["cn"]):
            sink = socket.socket(family, socket.SOCK_DGRAM)
            sink.bind((server, 7000))
            sink.settimeout(5)
        sizes = (0, 1, 160, 1400, 4000)
        with inside(run.lab.nodes["mn"]), socket.socket(family, socket.SOCK_DGRAM) as source:
            source.settimeout(5)
            for size in sizes:
                source.sendto(app.pattern(0, size, b"u"), (server, 7000))
                data, sender = sink.recvfrom(65536)
                sink.sendto(data[::-1], sender)
                source.recv(65536)
            source.connect((server, 7001))  # nobody there: ICMP port unreachable
            source.send(b"refused")
            with socket.socket(family, socket.SOCK_STREAM) as refused:
                run.notes["refused"] = refused.connect_ex((server, 7002))
        sink.close()
        run.notes["udp_payload_bytes"] = [*sizes]
        pair = run.connect(mptcp=False, port=5010)
        app.exchange(pair, up=5_000, down=20_000)
        app.abort(pair.client)
        app.wait_end(pair.server)
        pair.server.socket.close()
        pair.listener.close()
