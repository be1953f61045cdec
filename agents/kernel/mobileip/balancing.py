"""Which tunnel a flow takes: buckets of a hash, given to tunnels by rendezvous hashing.

Both ends compute the same from the names of the tunnels alone. When a tunnel comes or goes, the only flows that move are those
that gain or lose it (RFC 2991 section 4; weights as in Schindler and Thaler's rendezvous hashing). Pure.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from agents.core.mobileip.actions import Tunnel

BUCKETS: Final = 512
SEED: Final = 0x6D6970
"""Of the hash over a flow's addresses and ports: any number that both ends have."""
ROUNDS_MAX: Final = 64
"""Largest cycle of per-packet balancing is that of the weights; larger weights are scaled down to this for each tunnel."""


def name_of(tunnel: Tunnel) -> str:
    """What both ends call a tunnel: its BID, else the two outer addresses."""
    return f"bid {tunnel.bid}" if tunnel.bid else " ".join(sorted((tunnel.local, tunnel.remote)))


def buckets(shares: Sequence[tuple[Tunnel, int]]) -> list[int]:
    """For each bucket the position in `shares` of its tunnel. A weight of 0 gets none, unless all are 0."""
    weights = _weights(shares)
    scores = [[_score(name_of(tunnel), bucket, weight) for bucket in range(BUCKETS)] for (tunnel, _), weight in weights]
    return [max(range(len(shares)), key=lambda number: scores[number][bucket]) for bucket in range(BUCKETS)]


def cycle(shares: Sequence[tuple[Tunnel, int]]) -> list[int]:
    """Positions in `shares`, one packet or flow each: as even as the weights permit (smooth weighted round robin)."""
    weights = [weight for _share, weight in _weights(shares)]
    largest = max(weights)
    if largest > ROUNDS_MAX:
        weights = [max(1, round(weight * ROUNDS_MAX / largest)) if weight else 0 for weight in weights]
    divisor = math.gcd(*weights)
    weights = [weight // divisor for weight in weights]
    credit, result = [0] * len(weights), []
    for _ in range(sum(weights)):
        credit = [value + weight for value, weight in zip(credit, weights, strict=True)]
        best = max(range(len(weights)), key=lambda number: credit[number])
        credit[best] -= sum(weights)
        result.append(best)
    return result


def ranges(positions: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, last, position) of equal neighbours."""
    result: list[tuple[int, int, int]] = []
    for number, position in enumerate(positions):
        if result and result[-1][2] == position:
            result[-1] = (result[-1][0], number, position)
        else:
            result.append((number, number, position))
    return result


def _weights(shares: Sequence[tuple[Tunnel, int]]) -> list[tuple[tuple[Tunnel, int], int]]:
    none = all(weight <= 0 for _tunnel, weight in shares)
    return [(share, 1 if none else max(0, share[1])) for share in shares]


@lru_cache(maxsize=1 << 14)
def _score(name: str, bucket: int, weight: int) -> float:
    if not weight:
        return -1.0
    digest = hashlib.blake2b(f"{name}/{bucket}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return weight / -math.log(uniform)
