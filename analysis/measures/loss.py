"""Loss, duplicates and runs of losses: between two capture points, and by the sequence numbers of datagrams.

RFC 7680 defines loss of a packet as not arriving within a reasonable time, RFC 5560 duplication as arriving more than once.
A byte stream is compared byte by byte and copy by copy, so that segments may be cut or joined on the way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.measures.observation import Array, Int64s

_STREAM_SPAN = 1 << 44


class ByteLoss(NamedTuple):
    """Copies of bytes: sent + multiplied = received + lost. `multiplied`: copies received beyond those sent."""

    sent: int
    received: int
    lost: int
    multiplied: int


def byte_loss(sent: tuple[Int64s, Int64s, Int64s], received: tuple[Int64s, Int64s, Int64s]) -> ByteLoss:
    """Compare what two points saw of the same flows: each (flow, begin, end), positions in the flow's stream, any order.

    A byte that passed the first point three times and the second twice was lost once.
    """
    edges, steps = [], []
    for (flow, begin, end), sign in ((sent, 1), (received, -1)):
        base = flow * _STREAM_SPAN
        edges += [base + begin, base + end]
        steps += [np.full(flow.size, sign), np.full(flow.size, -sign)]
    edge, step = np.concatenate(edges), np.concatenate(steps)
    order = np.argsort(edge, kind="stable")
    missing = np.cumsum(step[order])[:-1]
    width = np.diff(edge[order])
    total = [int((part[2] - part[1]).sum()) for part in (sent, received)]
    lost = int((width * np.maximum(missing, 0)).sum())
    return ByteLoss(total[0], total[1], lost, int((width * np.maximum(-missing, 0)).sum()))


class PacketLoss(NamedTuple):
    """Packets: sent + multiplied = received + lost. `multiplied`: copies received beyond those sent."""

    sent: int
    received: int
    lost: int
    multiplied: int


def packet_loss(sent: Array, received: Array) -> PacketLoss:
    """Compare packets by identity: arrays of one type in which equal values are copies of one packet, any order."""
    values, number = np.unique(np.concatenate((sent, received)), return_inverse=True)
    before = np.bincount(number[: sent.size], minlength=values.size)
    after = np.bincount(number[sent.size :], minlength=values.size)
    lost, multiplied = np.maximum(before - after, 0).sum(), np.maximum(after - before, 0).sum()
    return PacketLoss(sent.size, received.size, int(lost), int(multiplied))


def segment_identity(flow: Int64s, begin: Int64s, size: Int64s) -> Array:
    """One 64-bit number per segment, the same for segments of the same bytes (and, but for a chance of 2^-64, no others)."""
    place = (flow * _STREAM_SPAN + begin).astype(np.uint64)
    mixed = (place ^ (place >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ size.astype(np.uint64)) * np.uint64(0xD6E8FEB86659FD93)


class DatagramLoss(NamedTuple):
    """Datagrams by sequence number: sent (distinct), received (distinct), lost, further copies received.

    `longest_run`: most losses in a row in order of the numbers (a loss period of RFC 3357).
    """

    sent: int
    received: int
    lost: int
    duplicates: int
    longest_run: int


def datagram_loss(received: Int64s, sent: Int64s | None = None) -> DatagramLoss:
    """Loss of numbered datagrams; without the sender's record the numbers from the smallest to the largest received.

    Numbers that were received but are not in `sent` count as sent: the sender's record is cut.
    """
    distinct = np.unique(received)
    if sent is None:
        expected = int(distinct[-1] - distinct[0]) + 1 if distinct.size else 0
        runs = np.diff(distinct) - 1
        longest = int(runs.max(initial=0))
    else:
        every = np.union1d(sent, distinct)
        expected = every.size
        arrived = np.flatnonzero(np.isin(every, distinct, assume_unique=True))
        longest = int((np.diff(np.concatenate(([-1], arrived, [every.size]))) - 1).max(initial=0))
    return DatagramLoss(expected, distinct.size, expected - distinct.size, received.size - distinct.size, longest)
