"""Two capture points of real kernels with a middlebox in between, and damaged packets."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from connection_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    Scene,
    add_addr,
    dss,
    fastclose,
    mp_fail,
    prio,
    remove_addr,
    tcprst,
)

from analysis.connections import reconstruct
from analysis.connections.compare import Comparison, compare
from analysis.packets.reader import merge, read_captures

KERNEL = Path(__file__).parents[3] / "pcaps" / "kernel"


# --- hostile input -----------------------------------------------------------------------------------------------


def everything() -> Scene:
    """One packet or more of all that this protocol knows, at two points."""
    scene = Scene(points=2)
    for point in (0, 1):
        first = scene.initial(point=point)
        second = scene.line("10.0.2.1:1001", isn=(77, 88), point=point)
        second.join(100)
        for n in range(6):
            (first, second)[n % 2].data(200 + n, n < 4, n * 1000, ssn=n // 2 * 1000 + 1)
            (first, second)[n % 2].dack(210 + n, n < 4, n * 1000 + 1000, n // 2 * 1000 + 1001)
        keys = CLIENT_KEY, SERVER_KEY
        options = (
            add_addr(keys, 2, "10.0.3.1"),
            add_addr(None, 2, "10.0.3.1", echo=True),
            remove_addr(1, 2),
            prio(True),
            mp_fail(5),
        )
        for n, option in enumerate((*options, fastclose(SERVER_KEY), tcprst(6), dss(1, 2, 0, 0), dss(1, 2, 0, 1, fin=True))):
            (first, second)[n % 2].send(300 + n, n % 3 > 0, "R" if n == 6 else "A", 4001, 4001, options=option)
    return scene


@pytest.mark.parametrize("seed", range(60))
def test_damaged_packets_do_no_harm(seed):
    """Bytes of headers and options are changed at random: everything is still read, examined and compared."""
    chance = random.Random(seed)
    scene = everything()
    for number in chance.sample(range(len(scene.packets)), 25):
        ms, point, packet = scene.packets[number]
        changed = bytearray(packet)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(20, min(len(changed), 90))] = chance.choice((0, 1, 30, 0xFF, chance.randrange(256)))
        scene.packets[number] = (ms, point, bytes(changed))
    core = reconstruct(scene.table(), [0, 1])
    assert set(core.findings["weight"]) <= {"note", "warning", "error"}
    assert len(core.signals) >= 10
    result = compare(core, 0, 1)
    assert result.damage["text"].str.endswith(".").all()
    assert (result.pairs["matched"] <= result.pairs[["packets_a", "packets_b"]].min(axis=1)).all()


# --- real kernels ------------------------------------------------------------------------------------------------


def kernel(scenario: str) -> Comparison:
    """Client and server of a capture between Linux hosts."""
    facts = json.loads((KERNEL / f"{scenario}.json").read_text())
    captures = read_captures([KERNEL / capture["file"] for capture in facts["captures"]])
    places = [number for number, capture in enumerate(captures) for _ in capture.table.points]
    return compare(reconstruct(merge(captures), places), 0, 1)


EXPECTED = {
    "fallback-syn": ("up", "option-removed", "MP_CAPABLE of SYN"),
    "fallback-synack": ("down", "option-removed", "MP_CAPABLE of SYN/ACK"),
    "fallback-ack": ("up", "option-removed", "MP_CAPABLE of segment"),
    "fallback-dss": ("down", "option-removed", "DSS of segment"),
    "join-stripped": ("up", "option-removed", "MP_JOIN of SYN"),
    "join-synack-stripped": ("down", "option-removed", "MP_JOIN of SYN/ACK"),
    "join-token": ("up", "option-changed", "MP_JOIN SYN"),
    "join-hmac": ("down", "option-changed", "MP_JOIN SYN/ACK"),
    "join-ack-hmac": ("up", "option-changed", "MP_JOIN ACK"),
    "short-numbers": ("down", "option-changed", "DSS flags"),
    "nat": ("", "translated", "client"),
    "sequence-rewrite": ("up", "sequence-shifted", "sequence numbers"),
    "strip-joined": ("down", "option-removed", "DSS of segment"),
    "checksum-failure": ("up", "payload-changed", "payload"),
}


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("scenario", EXPECTED)
def test_what_middleboxes_did_to_kernels_is_told(scenario, family):
    result = kernel(f"{scenario}-{family}")
    rows = set(zip(result.damage["direction"], result.damage["kind"], result.damage["what"], strict=True))
    direction, kind, what = EXPECTED[scenario]
    assert (direction, kind, what) in rows or ("down" if direction == "up" else "up", kind, what) in rows, rows
    assert set(result.pairs["client_side"]) == {"a"}
    assert not {"injected", "payload-length-changed", "coalesced", "split"} & set(result.damage["kind"])


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_path_that_only_loses(family):
    """Segments that the client sent and the server's capture does not have are lost, and all others are aligned."""
    result = kernel(f"tcp-{family}")
    assert set(result.damage["kind"]) <= {"lost"}
    paired = result.pairs
    lost = result.damage.groupby("pair")["count"].sum().reindex(paired.index, fill_value=0)
    assert (paired["packets_a"] + paired["packets_b"] - 2 * paired["matched"] == lost).all()
    assert np.isfinite(result.clock_offset_ms)
