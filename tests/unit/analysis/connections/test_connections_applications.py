"""Reconstruction of the kernel's captures against what the applications and the kernel knew themselves."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.connections import REINJECTION, RETRANSMISSION, Reconstruction, guess_points, reconstruct
from analysis.packets import merge, read_capture, read_captures
from tests.pcaps.variants import KERNEL

STORIES = sorted(KERNEL.glob("*.json"))
ABORTED = ("mixed", "fastclose", "fastclose-server")  # the last bytes need not be acknowledged
COUNTED = {
    # signal: what the kernel counts when it sends one, when it receives one
    "ADD_ADDR": ("AddAddrTx", "AddAddr"), "ADD_ADDR echo": ("EchoAddTx", "EchoAdd"), "REMOVE_ADDR": ("RmAddrTx", "RmAddr"),
    "MP_PRIO": ("MPPrioTx", "MPPrioRx"), "MP_FAIL": ("MPFailTx", "MPFailRx"),
}  # fmt: skip


class Story:
    """One scenario at one capture point: the notes of its maker, and our reconstruction."""

    def __init__(self, path: Path, point: str) -> None:
        self.notes = json.loads(path.read_text())
        self.name, self.point = self.notes["scenario"], point
        (capture,) = (c for c in self.notes["captures"] if c["point"] == point)
        self.capture = read_capture(KERNEL / capture["file"])
        self.found: Reconstruction = reconstruct(self.capture.table)
        self.counters = self.notes["counters"][point]

    def connections(self) -> list[tuple[dict[str, Any], pd.Series]]:
        """The applications' connections with the rows of ours; a NAT gives the client another port at the server."""
        rows = self.found.connections
        pairs = []
        for told in self.notes["connections"]:
            local = told["client"]["local"] if self.point == "client" else told["server"]["peer"]
            (number,) = rows.index[(rows.client == local[0]) & (rows.client_port == local[1]) & (rows.subflows > 0)]
            pairs.append((told, rows.loc[number]))
        return pairs

    def signals(self, kind: str, sent: bool) -> pd.DataFrame:
        """Signals of a kind that this point's node sent or received."""
        signals = self.found.signals
        return signals[(signals.kind == kind) & (signals.from_client == (sent == (self.point == "client")))]

    def findings(self) -> set[str]:
        return set(self.found.findings["kind"])


@functools.cache
def story(path: Path, point: str) -> Story:
    return Story(path, point)


def all_points() -> list[Any]:
    found = []
    for path in STORIES:
        for capture in json.loads(path.read_text())["captures"]:
            found.append(pytest.param(path, capture["point"], id=f"{path.stem}-{capture['point']}"))
    return found


both_families = pytest.mark.parametrize("family", [4, 6])


def of(name: str, family: int, point: str = "client") -> Story:
    return story(KERNEL / f"{name}-v{family}.json", point)


@pytest.mark.parametrize(("path", "point"), all_points())
def test_bytes_tokens_and_counters(path, point):
    told = story(path, point)
    assert told.capture.dropped == 0
    _check_bytes(told)
    _check_keys(told)
    _check_subflows(told)
    _check_counters(told)


def _check_bytes(told: Story) -> None:
    for sockets, row in told.connections():
        up, down = sockets["client"]["sent_bytes"], sockets["server"]["sent_bytes"]
        assert (row.bytes_up, row.bytes_down) == (up, down)
        assert (sockets["server"]["received_bytes"], sockets["client"]["received_bytes"]) == (up, down)
        if told.name not in ABORTED:
            assert (row.delivered_up, row.delivered_down) == (up, down)
        changed = any(fault["fault"] == "payload changed" for fault in told.notes["faults"])
        same = sockets["client"]["received_sha256"] == sockets["server"]["sent_sha256"]
        assert same or (changed and told.name == "fallback-checksum")  # with no other subflow the damage stays


def _check_keys(told: Story) -> None:
    for sockets, row in told.connections():
        for side in ("client", "server"):
            kernel = sockets[side]["kernel"]
            if kernel is None:  # plain TCP, from the start or after a fallback
                continue
            assert row[f"{side}_token"] == kernel["token"]
            written = (int(row[f"{side}_idsn"]) + sockets[side]["sent_bytes"]) % 2**64
            # In `close-half` the kernel was asked after the client's DATA_FIN, which takes one number.
            assert kernel["write_seq"] - written == (told.name == "close-half" and side == "client")
            assert row["transport"] == "mptcp"
            assert row["version"] == 1
            assert bool(row["checksum"]) == bool(kernel["csum_enabled"])


def _check_subflows(told: Story) -> None:
    """What left this node over each subflow. The kernel was asked before the end: a little may have been sent again later."""
    way = "up" if told.point == "client" else "down"
    for sockets, row in told.connections():
        flows = told.found.flows[told.found.flows.connection == row.name]
        kernel = sockets[told.point]["kernel"]
        for subflow in kernel["subflows"] if kernel else ():
            ends = {(text, port) for text, port in (subflow["local"], subflow["remote"])}
            (flow,) = [f for f in flows.itertuples() if {(f.client, f.client_port), (f.server, f.server_port)} == ends]
            sent, again = getattr(flow, f"payload_{way}"), getattr(flow, f"repeated_{way}")
            assert 0 <= sent - subflow["bytes_sent"] <= 4000
            assert 0 <= again - subflow["bytes_retrans"] <= sent - subflow["bytes_sent"]


def _check_counters(told: Story) -> None:
    for kind, (sent, received) in COUNTED.items():
        assert len(told.signals(kind, True)) == told.counters.get(sent, 0), kind
        assert len(told.signals(kind, False)) == told.counters.get(received, 0), kind
    assert len(told.signals("MP_FASTCLOSE", True)) == told.counters.get("MPFastcloseTx", 0)
    for kind, counter in (("MP_CAPABLE SYN", "MPCapableSYNTX"), ("MP_JOIN SYN", "MPJoinSynTx")):
        own = told.signals(kind, True)
        assert (~own.repeated).sum() == told.counters.get(counter, 0), kind
    accepted = told.signals("MP_JOIN ACK", False)
    assert ((accepted.verified == "verified") & ~accepted.repeated).sum() == told.counters.get("MPJoinAckRx", 0)
    wrong = told.signals("MP_JOIN ACK", False).verified == "wrong"
    assert wrong.sum() == told.counters.get("MPJoinAckHMacFailure", 0)
    wrong = told.signals("MP_JOIN SYN/ACK", False).verified == "wrong"
    assert wrong.sum() == told.counters.get("MPJoinSynAckHMacFailure", 0)


@pytest.mark.parametrize("point", ["client", "server"])
@pytest.mark.parametrize("name", ["syn", "synack", "ack", "dss", "checksum"])
@both_families
def test_fallback_is_seen(name, point, family):
    told = of(f"fallback-{name}", family, point)
    ((_, row),) = told.connections()
    if (name, point) == ("syn", "server"):  # behind the middlebox this is any plain TCP connection
        assert row.fallback == ""
        assert row.transport == "tcp"
    else:
        assert row.fallback
        assert "fallback" in told.findings()


@pytest.mark.parametrize(
    ("name", "client", "server"),
    [
        ("join-token", "join-refused", "join-refused"), ("join-hmac", "join-wrong-hmac", "join-refused"),
        ("join-ack-hmac", "join-refused", "join-wrong-hmac"), ("join-stripped", "join-stripped", ""),
        ("join-synack-stripped", "join-stripped", "join-refused"), ("checksum-failure", "mp-fail", "mp-fail"),
        ("join-limit", "join-refused", None), ("join-refused", "join-refused", None),
        ("server-join-refused", "join-refused", None), ("fastclose", "fastclose", None),
        ("fastclose-server", "fastclose", None),
    ],
)  # fmt: skip
@both_families
def test_the_injected_fault_is_found(name, client, server, family):
    assert client in of(name, family).findings()
    if server is not None:
        found = of(name, family, "server").findings()
        assert server in found if server else not any(kind.startswith("join") for kind in found)


@pytest.mark.parametrize("name", ["nat", "short-numbers", "close-half", "close-simultaneous", "sequence-rewrite"])
@both_families
def test_nothing_is_found_where_nothing_was_wrong(name, family):
    told = of(name, family)
    assert set(told.found.findings["weight"]) <= {"note"}


@both_families
def test_data_of_the_dead_path_is_sent_again_on_the_other(family):
    told = of("handover-carrier", family, "server")
    ((_, row),) = told.connections()
    assert row.reinjected_down > 10_000
    kinds = told.found.segments["kind"]
    again = told.found.segments[(kinds == REINJECTION) & told.found.segments.up.eq(False)]
    assert set(again.subflow) == {1}
    assert (kinds == RETRANSMISSION).any()


@both_families
@pytest.mark.parametrize("point", ["client", "server"])
def test_the_path_in_use_follows_the_priorities(family, point):
    told = of("handover-prio", family, point)
    segments = told.found.segments[~told.found.segments.up]
    share = [
        (segments[(segments.begin >= begin) & (segments.begin < begin + 40_000)].subflow == 1).mean()
        for begin in (60_000, 220_000, 360_000)
    ]
    assert share[0] < 0.1 < 0.9 < share[1]
    assert share[2] < 0.1


@both_families
@pytest.mark.parametrize("name", ["handover-carrier", "short-numbers", "strip-joined", "tcp", "nat", "sequence-rewrite"])
def test_each_point_tells_the_whole_story(name, family):
    """Both captures in one table, as `examine` does it: every connection is there once per point."""
    table = merge(read_captures([KERNEL / f"{name}-v{family}.{point}.pcapng.gz" for point in ("client", "server")]))
    points = [int(number) for number in guess_points(table)]
    assert points == [0, 0, 1, 1]
    found = reconstruct(table, points).connections
    notes = json.loads((KERNEL / f"{name}-v{family}.json").read_text())
    wanted = {(c["client"]["sent_bytes"], c["server"]["sent_bytes"]) for c in notes["connections"]}
    for point in (0, 1):
        rows = found[found.point == point]
        assert set(zip(rows.bytes_up, rows.bytes_down, strict=True)) == wanted
        assert len(rows) == len(wanted)


@both_families
def test_a_subflow_opened_by_the_server(family):
    told = of("server-join", family)
    joined = told.found.flows[told.found.flows.subflow == 1].iloc[0]
    assert not joined.opened_by_client
    assert joined.server_port == 5003
    assert joined["join"] == "verified"
    assert joined.data_up + joined.data_down > 0
