"""MPTCP options other than a packet's first DSS, which are rare: read by numpy from the places that the decoder noted.

Sources: RFC 8684 section 3 (version 1), RFC 6824 section 3 (version 0; told apart by the lengths of the options).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.packets.addresses import AddressBook
from analysis.packets.schema import (
    ADD_ADDR,
    MP_CAPABLE,
    MP_FAIL,
    MP_FASTCLOSE,
    MP_JOIN,
    MP_PRIO,
    MP_TCPRST,
    REMOVE_ADDR,
    SIGNAL_COLUMNS,
)

Signals = dict[str, npt.NDArray[Any]]
RAW_BYTES = 40


def empty_signals(count: int = 0) -> Signals:
    """A zeroed table of `count` options."""
    out: Signals = {column.name: np.zeros(count, column.kind) for column in SIGNAL_COLUMNS}
    out["raw"] = np.zeros((count, RAW_BYTES), np.uint8)
    return out


def read_signals(data: npt.NDArray[np.uint8], row: Any, at: Any, length: Any, book: AddressBook) -> Signals:
    """Read the options of `length` bytes at the offsets `at`; `row`: the packet each belongs to."""
    out = empty_signals(len(row))
    out["row"][:], out["length"][:] = row, length
    inside = np.arange(RAW_BYTES) < np.asarray(length)[:, None]
    # Behind the option anything may follow, also the end of the file.
    places = np.minimum(np.asarray(at)[:, None] + np.arange(RAW_BYTES), data.size - 1)
    raw = out["raw"]
    raw[inside] = data[places[inside]]
    out["subtype"][:] = raw[:, 2] >> 4
    readers = {
        MP_CAPABLE: _capable, MP_JOIN: _join, REMOVE_ADDR: _remove, MP_PRIO: _prio, MP_FAIL: _fail, MP_FASTCLOSE: _fastclose,
        MP_TCPRST: _reset,
    }  # fmt: skip
    for subtype, read in readers.items():
        chosen = np.flatnonzero(out["subtype"] == subtype)
        if chosen.size:
            read(out, raw, chosen)
    chosen = np.flatnonzero(out["subtype"] == ADD_ADDR)
    if chosen.size:
        _add(out, raw, chosen, book)
    return out


def _be(raw: npt.NDArray[np.uint8], rows: Any, at: Any, width: int) -> npt.NDArray[np.uint64]:
    """Big-endian numbers of `width` bytes at `at` (one place, or one per row)."""
    value = np.zeros(len(rows), np.uint64)
    for step in range(width):
        value = value << np.uint64(8) | raw[rows, np.asarray(at) + step].astype(np.uint64)
    return value


def _longer(out: Signals, rows: Any, length: int) -> Any:
    return rows[out["length"][rows] >= length]


def _capable(out: Signals, raw: Any, rows: Any) -> None:
    """MP_CAPABLE: RFC 8684 figure 4, RFC 6824 figure 4."""
    out["version"][rows] = raw[rows, 2] & 15
    flagged = _longer(out, rows, 4)
    out["flags"][flagged] = raw[flagged, 3]
    for name, at in (("sender_key", 4), ("receiver_key", 12)):
        keyed = _longer(out, rows, at + 8)
        out[name][keyed] = _be(raw, keyed, at, 8)
    data = _longer(out, rows, 22)
    out["data_bytes"][data] = _be(raw, data, 20, 2)


def _join(out: Signals, raw: Any, rows: Any) -> None:
    """MP_JOIN: RFC 8684 figures 5 to 7. The third one has neither flags nor an address id."""
    length = out["length"][rows]
    opening = rows[(length == 12) | (length == 16)]
    out["flags"][opening] = raw[opening, 2] & 15
    out["backup"][opening] = raw[opening, 2] & 1
    out["address_id"][opening] = raw[opening, 3]
    syn, answer, third = rows[length == 12], rows[length == 16], rows[length == 24]
    out["token"][syn], out["nonce"][syn] = _be(raw, syn, 4, 4), _be(raw, syn, 8, 4)
    out["hmac_at"][answer], out["hmac_bytes"][answer] = 4, 8
    out["nonce"][answer] = _be(raw, answer, 12, 4)
    out["hmac_at"][third], out["hmac_bytes"][third] = 4, 20


def _add(out: Signals, raw: Any, rows: Any, book: AddressBook) -> None:
    """ADD_ADDR: RFC 8684 figure 12 (E flag, HMAC); RFC 6824 figure 12 (IP version instead of flags, no HMAC).

    An address with HMAC takes 16 or 18 bytes with IPv4 and 28 or 30 with IPv6, an echo or version 0 takes 8, 10, 20 or 22.
    """
    length, low = out["length"][rows], raw[rows, 2] & 15
    version = np.select([np.isin(length, (8, 10, 16, 18)), np.isin(length, (20, 22, 28, 30))], [4, 6], 0)
    old = np.isin(length, (8, 10, 20, 22)) & (low == version) & (version > 0)
    out["version"][rows] = np.where(old, low, 0)
    out["flags"][rows] = np.where(old, 0, low)
    out["echo"][rows] = np.where(old, 0, low & 1)
    flagged = _longer(out, rows, 4)
    out["address_id"][flagged] = raw[flagged, 3]
    known = version > 0
    rows, version, length = rows[known], version[known], length[known]
    four = version == 4
    high = np.where(four, np.uint64(0), _be(raw, rows, 4, 8))
    lower = np.where(four, _be(raw, rows, 4, 4), _be(raw, rows, 12, 8))
    out["address"][rows] = book.codes(version, high, lower)
    behind = np.where(four, 8, 20)
    signed = length - behind >= 8
    ported = (length - behind) % 8 == 2
    out["port"][rows] = np.where(ported, _be(raw, rows, behind, 2), 0)
    out["hmac_at"][rows] = np.where(signed, behind + 2 * ported, 0)
    out["hmac_bytes"][rows] = np.where(signed, 8, 0)


def _remove(out: Signals, raw: Any, rows: Any) -> None:
    """REMOVE_ADDR: RFC 8684 figure 14. Address ids beyond the first are in `raw`, from byte 3 on."""
    some = _longer(out, rows, 4)
    out["address_id"][some] = raw[some, 3]


def removed_ids(signals: Signals, index: int) -> list[int]:
    """All address ids of a REMOVE_ADDR."""
    return [int(i) for i in signals["raw"][index, 3 : int(signals["length"][index])]]


def _prio(out: Signals, raw: Any, rows: Any) -> None:
    """MP_PRIO: RFC 8684 figure 11; version 0 may add an address id."""
    out["flags"][rows] = raw[rows, 2] & 15
    out["backup"][rows] = raw[rows, 2] & 1
    some = _longer(out, rows, 4)
    out["address_id"][some] = raw[some, 3]


def _fail(out: Signals, raw: Any, rows: Any) -> None:
    """MP_FAIL: RFC 8684 figure 16."""
    whole = _longer(out, rows, 12)
    out["dsn"][whole] = _be(raw, whole, 4, 8)


def _fastclose(out: Signals, raw: Any, rows: Any) -> None:
    """MP_FASTCLOSE: RFC 8684 figure 15; the key is that of the packet's receiver."""
    whole = _longer(out, rows, 12)
    out["receiver_key"][whole] = _be(raw, whole, 4, 8)


def _reset(out: Signals, raw: Any, rows: Any) -> None:
    """MP_TCPRST: RFC 8684 figure 17."""
    out["flags"][rows] = raw[rows, 2] & 15
    some = _longer(out, rows, 4)
    out["reason"][some] = raw[some, 3]
