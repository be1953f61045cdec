"""Compiled: what was sent and what was acknowledged, connection by connection, in order of packets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.compiled import compiled

Int64s = npt.NDArray[np.int64]

# Columns of the account of one direction of one connection.
HIGH, ACKED, EARLY_COUNT, EARLY_INDEX, EARLY_BYTES, WAIT_NS, WAIT_BEGIN_NS, WAIT_FROM, WAIT_ACK, SINCE_NS, SINCE_ACK = range(11)


@compiled
def keep_ledger(
    segment_row: Int64s,
    segment_group: Int64s,
    segment_time: Int64s,
    segment_end: Int64s,
    ack_row: Int64s,
    ack_group: Int64s,
    ack_time: Int64s,
    ack_offset: Int64s,
    groups: int,
) -> Int64s:
    """Accounts (groups, 11) int64 of every direction; a group is connection * 2 + up.

    HIGH: end of the data seen. ACKED: largest acknowledgment. EARLY_*: acknowledgments beyond the data seen so far, more
    than the one byte that a DATA_FIN counts: how many, index of the first, largest excess. WAIT_*: the longest time in
    which data waited for progress of the acknowledgments: how long, since when, the ack before (index or -1) and the one
    that ended it. SINCE_*: since when data waits at the end, -1 when none does, and the last ack that made progress.
    """
    out = np.zeros((groups, 11), np.int64)
    out[:, EARLY_INDEX] = -1
    out[:, WAIT_FROM] = -1
    out[:, WAIT_ACK] = -1
    out[:, SINCE_NS] = -1
    out[:, SINCE_ACK] = -1
    at = 0
    for index in range(ack_row.size + 1):
        row = ack_row[index] if index < ack_row.size else np.iinfo(np.int64).max
        while at < segment_row.size and segment_row[at] <= row:
            group, end = segment_group[at], segment_end[at]
            if 0 <= group < groups and end >= 0:
                account = out[group]
                if account[HIGH] <= account[ACKED] and end > account[ACKED]:
                    account[SINCE_NS] = segment_time[at]
                account[HIGH] = max(account[HIGH], end)
            at += 1
        if index == ack_row.size:
            break
        group, offset = ack_group[index], ack_offset[index]
        if offset < 0 or group < 0 or group >= groups:
            continue
        account = out[group]
        excess = offset - account[HIGH]
        if excess > 1:
            if account[EARLY_COUNT] == 0:
                account[EARLY_INDEX] = index
            account[EARLY_COUNT] += 1
            account[EARLY_BYTES] = max(account[EARLY_BYTES], excess)
        if offset > account[ACKED]:
            if account[SINCE_NS] >= 0 and ack_time[index] - account[SINCE_NS] > account[WAIT_NS]:
                account[WAIT_NS] = ack_time[index] - account[SINCE_NS]
                account[WAIT_BEGIN_NS] = account[SINCE_NS]
                account[WAIT_FROM] = account[SINCE_ACK]
                account[WAIT_ACK] = index
            account[ACKED] = offset
            account[SINCE_ACK] = index
            account[SINCE_NS] = ack_time[index] if account[HIGH] > offset else -1
    return out


@compiled
def distinct_mappings(
    stream: Int64s, ssn: Int64s, dsn: Int64s, length: Int64s, streams: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Int64s]:
    """For each DSS mapping, in order of time: is it another one than the last of its stream, does it go back, its wide SSN.

    A sender may repeat a mapping on all its segments. SSNs are 32 bits wide and unwrapped here. `goes_back` is told only of
    distinct ones: the mapping begins below the highest end before.
    """
    last_ssn, last_dsn = np.full(streams, -1, np.int64), np.zeros(streams, np.int64)
    last_length, high = np.zeros(streams, np.int64), np.zeros(streams, np.int64)
    distinct, goes_back = np.zeros(ssn.size, np.bool_), np.zeros(ssn.size, np.bool_)
    wide = np.zeros(ssn.size, np.int64)
    for index in range(ssn.size):
        number = stream[index]
        if number < 0 or number >= streams:
            continue
        step = (ssn[index] - high[number]) & 0xFFFFFFFF
        wide[index] = high[number] + step - (0x100000000 if step >= 0x80000000 else 0)
        same = last_ssn[number] == ssn[index] and last_dsn[number] == dsn[index] and last_length[number] == length[index]
        if same:
            continue
        distinct[index] = True
        goes_back[index] = wide[index] < high[number]
        last_ssn[number], last_dsn[number], last_length[number] = ssn[index], dsn[index], length[index]
        high[number] = max(high[number], wide[index] + length[index])
    return distinct, goes_back, wide
