"""TCP options of many packets at once: one pass per option position, not per packet.

Only what the analysis needs is kept: the MPTCP option (kind 30, RFC 8684 section 3, version 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MP_CAPABLE, MP_JOIN, DSS, ADD_ADDR, REMOVE_ADDR, MP_PRIO, MP_FAIL, MP_FASTCLOSE, MP_TCPRST = range(9)
DSS_ACK, DSS_ACK8, DSS_MAP, DSS_MAP8, DSS_DATA_FIN = 1, 2, 4, 8, 16

OPTION_COLUMNS: dict[str, Any] = {
    "mp_subtypes": np.uint16,  # bit n: an MPTCP option of subtype n is there
    "options_cut": np.bool_,  # the snap length cut the options
    "cap_bytes": np.uint8,  # length of MP_CAPABLE: 4 SYN, 12 SYN/ACK, 20 ACK, 22 or 24 first data; 0: none
    "cap_version": np.uint8,
    "sender_key": np.uint64,
    "receiver_key": np.uint64,
    "cap_data_bytes": np.uint16,  # data-level length in MP_CAPABLE of the first data
    "join_bytes": np.uint8,  # length of MP_JOIN: 12 SYN, 16 SYN/ACK, 24 ACK; 0: none
    "join_token": np.uint32,  # in the SYN
    "dss_flags": np.uint8,
    "dack": np.uint64,
    "dack_bytes": np.uint8,  # 0: none, 4 or 8
    "dsn": np.uint64,
    "dsn_bytes": np.uint8,
    "ssn": np.uint32,  # relative to the subflow's initial sequence number: its first data byte is 1
    "map_bytes": np.uint16,  # length of the mapping, DATA_FIN counts as one
}

Columns = dict[str, npt.NDArray[Any]]
Int64s = npt.NDArray[np.int64]


class Words:
    """Overlapping views of one buffer: `be32[offsets]` reads unaligned big-endian words, for all offsets at once."""

    def __init__(self, data: bytes, native: str) -> None:
        self.size = len(data)
        self.u8: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self.be16 = self._view(data, ">u2")
        self.be32 = self._view(data, ">u4")
        self.be64 = self._view(data, ">u8")
        self.native32 = self._view(data, native + "u4")

    def _view(self, data: bytes, kind: str) -> npt.NDArray[Any]:
        width = np.dtype(kind).itemsize
        return np.ndarray((self.size - width + 1,), kind, data, strides=(1,))


def parse_options(w: Words, start: Int64s, end: Int64s, stop: Int64s) -> Columns:
    """Columns of `OPTION_COLUMNS` for packets whose options lie in [start, end), captured up to `stop`.

    A malformed option ends the options of its packet, as in a receiver (RFC 9293 section 3.1).
    """
    count = start.size
    out: Columns = {name: np.zeros(count, kind) for name, kind in OPTION_COLUMNS.items()}
    out["options_cut"] = stop < end
    row = np.flatnonzero(start < stop)
    at, limit = start[row], stop[row]
    while row.size:
        kind = w.u8[at]
        length = np.where(kind > 1, w.u8[np.minimum(at + 1, w.size - 1)].astype(np.int64), 1)
        good = (kind == 1) | ((kind > 1) & (length >= 2) & (at + length <= limit))
        chosen = good & (kind == 30) & (length >= 3)
        if chosen.any():
            _mptcp(out, w, row[chosen], at[chosen], length[chosen])
        at = at + length
        live = good & (at < limit)
        row, at, limit = row[live], at[live], limit[live]
    return out


def _mptcp(out: Columns, w: Words, row: Int64s, at: Int64s, length: Int64s) -> None:
    """Store the MPTCP options at `at`, each of a different packet."""
    subtype = w.u8[at + 2] >> 4
    out["mp_subtypes"][row] |= np.left_shift(np.uint16(1), subtype.astype(np.uint16))
    for code, read in ((MP_CAPABLE, _capable), (MP_JOIN, _join), (DSS, _dss)):
        chosen = subtype == code
        if chosen.any():
            read(out, w, row[chosen], at[chosen], length[chosen])


def _capable(out: Columns, w: Words, row: Int64s, at: Int64s, length: Int64s) -> None:
    """MP_CAPABLE, RFC 8684 figure 4."""
    out["cap_bytes"][row] = length
    out["cap_version"][row] = w.u8[at + 2] & 15
    for name, offset, needed in (("sender_key", 4, 12), ("receiver_key", 12, 20)):
        long = length >= needed
        out[name][row[long]] = w.be64[at[long] + offset]
    data = length >= 22
    out["cap_data_bytes"][row[data]] = w.be16[at[data] + 20]


def _join(out: Columns, w: Words, row: Int64s, at: Int64s, length: Int64s) -> None:
    """MP_JOIN, RFC 8684 figures 5 to 7."""
    out["join_bytes"][row] = length
    syn = length == 12
    out["join_token"][row[syn]] = w.be32[at[syn] + 4]


def _dss(out: Columns, w: Words, row: Int64s, at: Int64s, length: Int64s) -> None:
    """DSS, RFC 8684 figure 9. An option shorter than its flags demand is ignored."""
    flags = np.where(length >= 4, w.u8[at + 3] & 31, 0)
    ack_bytes = np.where(flags & DSS_ACK, np.where(flags & DSS_ACK8, 8, 4), 0)
    dsn_bytes = np.where(flags & DSS_MAP, np.where(flags & DSS_MAP8, 8, 4), 0)
    needed = 4 + ack_bytes + np.where(dsn_bytes > 0, dsn_bytes + 6, 0)
    fits = length >= needed
    row, at, flags = row[fits], at[fits], flags[fits]
    ack_bytes, dsn_bytes = ack_bytes[fits], dsn_bytes[fits]
    out["dss_flags"][row] = flags
    out["dack_bytes"][row], out["dsn_bytes"][row] = ack_bytes, dsn_bytes
    cursor = at + 4
    for name, width in (("dack", ack_bytes), ("dsn", dsn_bytes)):
        for size, words in ((4, w.be32), (8, w.be64)):
            chosen = width == size
            out[name][row[chosen]] = words[cursor[chosen]]
        cursor = cursor + width
    mapped = dsn_bytes > 0
    out["ssn"][row[mapped]] = w.be32[cursor[mapped]]
    out["map_bytes"][row[mapped]] = w.be16[cursor[mapped] + 4]
