"""Whole transfers through the proxy, over networks that lose, reorder, repeat, cut and rewrite, with commands at any time.

Every run is a function of its seed: `python -m tests.proxy.transfers SEED 1 --trace /tmp/run` shows one packet by packet.
ROAMLAB_TRANSFERS=1000 runs a thousand instead of the few of every day.
"""

import os

import pytest

from agents.wire import mptcp
from tests.proxy import mptcp_model
from tests.proxy.harness import ProxiedHost, report
from tests.proxy.mptcp_host import MptcpHost
from tests.proxy.transfers import Plan, Run, prepare, transfer

RUNS = int(os.environ.get("ROAMLAB_TRANSFERS", "96"))
PARTS = 8


def check(plan: Plan) -> Run:
    run, result = transfer(plan)
    assert result.good, f"{plan}\n{report(result)}\n" + "\n".join(run.script)
    return run


@pytest.mark.parametrize("part", range(PARTS))
def test_random_transfers(part: int) -> None:
    """Both roles, proxies and MPTCP peers, handovers, middleboxes, wraps: every byte right, nothing stuck, no violation."""
    for seed in range(part, RUNS, PARTS):
        check(Plan(seed, six=seed % 5 == 0))


@pytest.mark.parametrize("part", range(2))
def test_random_transfers_of_superpackets(part: int) -> None:
    """The kernel cuts and merges segments and computes checksums below and above the proxy (GSO, GRO)."""
    merged = 0
    for seed in range(part, RUNS // 4, 2):
        run = check(Plan(seed, offload=True))
        merged += run.near.counters["superpackets"]
    assert merged > 10


@pytest.mark.parametrize("near_is_client", [True, False])
@pytest.mark.parametrize("peer", ["mptcp", "proxy"])
def test_a_quiet_network_leaves_no_trace(peer: str, near_is_client: bool) -> None:
    """Without loss and commands nothing is sent twice and nothing is discarded because of its timestamp."""
    for seed in range(6):
        plan = Plan(seed, peer=peer, near_is_client=near_is_client, lossless=True, commands=0, boxes=False, pauses=False)  # type: ignore[arg-type]
        run, result = transfer(plan)
        assert result.good, report(result)
        for name in ("near", "far"):
            counters = result.counters[name]
            assert counters["PAWS"] == counters["repeated"] == counters["timeouts"] == 0, (seed, report(result))
        if not run.network.counters["queue full"]:
            assert result.counters["near"]["retransmitted"] == 0, (seed, report(result))


@pytest.mark.parametrize("first", [2**64 - 60_000, 2**32 - 60_000, 2**63 - 60_000])
def test_numbers_wrap(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sequence numbers of both sides pass 2**64, 2**32 or 2**63 in the middle of a transfer."""
    monkeypatch.setattr(mptcp, "initial_dsn", lambda key: first + key[0])
    monkeypatch.setattr(mptcp_model, "first_dsn", lambda key: first + key[0])
    for seed in range(12):
        check(Plan(seed, size=150_000, commands=2))


@pytest.mark.parametrize("near_is_client", [True, False])
def test_a_plain_peer_gets_plain_tcp(near_is_client: bool) -> None:
    for seed in range(12):
        run = check(Plan(seed, peer="tcp", near_is_client=near_is_client, commands=0, boxes=False))
        if run.near_endpoint_spoke and near_is_client:
            assert run.near.counters["released"] == 1


@pytest.mark.parametrize("break_first", [False, True])
@pytest.mark.parametrize("peer", ["mptcp", "proxy"])
@pytest.mark.parametrize("down", [False, True])
def test_a_handover_moves_the_traffic(peer: str, break_first: bool, down: bool) -> None:
    """After it new data of both directions goes by the second path alone."""
    for seed in range(3):
        run = prepare(
            Plan(seed, peer=peer, near_is_client=True, lossless=True, commands=0, boxes=False, cuts=False, capture=True)
        )  # type: ignore[arg-type]
        for path in run.paths:
            for link in path.links.values():
                link.rate, link.delay, link.queue = 1e7, 0.01, 5.0
        simulation = run.simulation
        sizes = (1_000, 1_000_000) if down else (1_000_000, 1_000)
        for party, size in zip((simulation.near, simulation.far), sizes, strict=True):
            party.talk.data = bytes(range(256)) * (size // 256 + 1)
            party.talk.chunks, party.talk.close = (), "sent"
        if not break_first:
            run.later(0.2, lambda run=run: run.command("add", 1))  # type: ignore[misc]
        run.later(0.4, lambda run=run: run.command("to-address-break" if break_first else "to-address", 1))  # type: ignore[misc]
        begin = run.now
        if break_first:
            run.later(0.4, lambda run=run: run.paths[0].set_up(False))  # type: ignore[misc]
        result = run.run()
        assert result.good, report(result) + "\n".join(run.script)
        assert result.longest_gap < (1.5 if break_first else 0.3), report(result)
        assert run.capture is not None
        old = run.near_addresses[0]
        late = [p for at, p in run.capture.packets if at > begin + 1.2 and old in (p[12:16], p[16:20]) and len(p) > 200]
        assert not late


def test_everything_of_a_run_is_reachable() -> None:
    """What the other tests rely on: random plans contain both peers, both roles, commands and middleboxes."""
    runs = [prepare(Plan(seed)) for seed in range(60)]
    assert {type(run.far) for run in runs} == {ProxiedHost, MptcpHost}
    assert {run.simulation.near.client for run in runs} == {False, True}
    assert sum(any(path.boxes for path in run.paths) for run in runs) > 10
