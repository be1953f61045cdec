"""Timeline of signalling: MPTCP options other than plain DSS, and SYN, FIN, RST and DATA_FIN of every flow.

Sources: RFC 8684 section 3 (version 1), RFC 6824 section 3 (version 0), RFC 9293 section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.connections.authentication import VERDICTS, verify_joins, verify_options
from analysis.connections.reasons import CAPABLE_CHECKSUM, CAPABLE_EXTENSIBILITY, CAPABLE_NO_JOIN_HERE, reset_reason
from analysis.packets import schema
from analysis.packets.schema import ACK, DSS_DATA_FIN, DSS_MAP, DSS_MAP8, FIN, RST, SYN
from analysis.packets.table import PacketTable

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

__all__ = ["SIGNAL_KINDS", "build_signals", "verify_joins"]

Array = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]

SIGNAL_KINDS = (
    "MP_CAPABLE SYN", "MP_CAPABLE SYN/ACK", "MP_CAPABLE ACK", "MP_CAPABLE data", "MP_JOIN SYN", "MP_JOIN SYN/ACK",
    "MP_JOIN ACK", "second DSS", "ADD_ADDR", "ADD_ADDR echo", "REMOVE_ADDR", "MP_PRIO", "MP_FAIL", "MP_FASTCLOSE",
    "MP_TCPRST", "unknown option", "SYN", "SYN/ACK", "DATA_FIN", "FIN", "RST",
)  # fmt: skip
"""All values of column `kind`."""

_KIND = {name: code for code, name in enumerate(SIGNAL_KINDS)}
_OF_SUBTYPE = {
    schema.DSS: "second DSS",
    schema.ADD_ADDR: "ADD_ADDR",
    schema.REMOVE_ADDR: "REMOVE_ADDR",
    schema.MP_PRIO: "MP_PRIO",
    schema.MP_FAIL: "MP_FAIL",
    schema.MP_FASTCLOSE: "MP_FASTCLOSE",
    schema.MP_TCPRST: "MP_TCPRST",
}
# These concern the connection, so a copy on another subflow is the same signal again.
_OF_CONNECTION = [_KIND[name] for name in ("ADD_ADDR", "ADD_ADDR echo", "REMOVE_ADDR", "MP_FASTCLOSE", "DATA_FIN")]
_BY_ADDRESS = [_KIND[name] for name in ("ADD_ADDR", "ADD_ADDR echo", "REMOVE_ADDR", "MP_PRIO")]
# What a repetition of these looks like does not matter: there is one per direction.
_ONCE = [_KIND[name] for name in ("DATA_FIN", "FIN", "RST", "SYN", "SYN/ACK")]


class _Events(NamedTuple):
    """Events of one source, in parallel arrays. `content` differs where two events of a kind say different things."""

    row: Int64s
    kind: Array
    text: list[str]
    verified: Array
    content: Array
    address_id: Array


def build_signals(core: Reconstruction) -> pd.DataFrame:
    """The signalling of all flows: time_ns, row, connection, subflow, flow, from_client, kind, text, verified, repeated.

    One row per event in order of packets; `row` is the row of `core.packets`, `from_client` means sent by the connection's
    client, `kind` is one of SIGNAL_KINDS. `verified` is the verdict on a token (MP_JOIN SYN), on keys (MP_CAPABLE ACK and
    data, MP_FASTCLOSE) or on an HMAC (MP_JOIN SYN/ACK and ACK, ADD_ADDR): "verified", "wrong", "no keys", "" when there is
    nothing to check. `repeated`: the sender's previous signal of this kind said the same. A FIN, RST or DATA_FIN that
    shares a packet with MPTCP options is a row of its own.
    """
    parts = (_options(core), *_flags(core))
    row = np.concatenate([part.row for part in parts])
    order = np.argsort(row, kind="stable")
    row = row[order]
    kind = np.concatenate([part.kind for part in parts])[order]
    content = np.concatenate([part.content for part in parts])[order]
    address_id = np.concatenate([part.address_id for part in parts])[order]
    text = np.array([text for part in parts for text in part.text], object)
    flow = core.flow[row].astype(np.int64)
    connection = core.flows["connection"].to_numpy(np.int64)[flow]
    from_client = core.from_client[row] == core.flows["opened_by_client"].to_numpy(np.bool_)[flow]
    return pd.DataFrame(
        {
            "time_ns": core.packets["time_ns"][row],
            "row": row,
            "connection": connection,
            "subflow": core.flows["subflow"].to_numpy(np.int64)[flow],
            "flow": flow,
            "from_client": from_client,
            "kind": np.array(SIGNAL_KINDS, object)[kind],
            "text": text[order],
            "verified": np.array(VERDICTS, object)[np.concatenate([part.verified for part in parts])[order]],
            "repeated": _repeated(kind, flow, connection, from_client, content, address_id),
        }
    )


# --- MPTCP options -----------------------------------------------------------------------------------------------


def _options(core: Reconstruction) -> _Events:
    """Every option in `packets.signals` on a usable flow."""
    signals, flags = core.packets.signals, core.packets["flags"]
    chosen = np.flatnonzero(core.flow[signals["row"]] >= 0)
    row = signals["row"][chosen]
    kind = _codes_of_options(signals, chosen, flags[row])
    text = OptionTexts(core.packets)
    texts = [text.of(SIGNAL_KINDS[code], index) for code, index in zip(kind.tolist(), chosen.tolist(), strict=True)]
    verified = verify_options(core)[chosen]
    raw = np.ascontiguousarray(signals["raw"][chosen])
    return _Events(row, kind, texts, verified, _mixed(raw.view(np.uint64)), signals["address_id"][chosen].astype(np.int64))


def option_kinds(signals: dict[str, Array], chosen: Int64s, flags: Array) -> list[str]:
    """Kinds of these options; `flags`: TCP flags of their packets."""
    return [SIGNAL_KINDS[code] for code in _codes_of_options(signals, chosen, flags).tolist()]


def _codes_of_options(signals: dict[str, Array], chosen: Int64s, flags: Array) -> Array:
    """Codes of SIGNAL_KINDS. Handshake options are named after the segment that carries them."""
    subtype = signals["subtype"][chosen]
    kind = np.full(chosen.size, _KIND["unknown option"], np.int64)
    for value, name in _OF_SUBTYPE.items():
        kind[subtype == value] = _KIND[name]
    kind[(subtype == schema.ADD_ADDR) & (signals["echo"][chosen] > 0)] = _KIND["ADD_ADDR echo"]
    syn, ack = (flags & SYN) > 0, (flags & ACK) > 0
    with_data = signals["length"][chosen] >= 22
    for value, first in ((schema.MP_CAPABLE, _KIND["MP_CAPABLE SYN"]), (schema.MP_JOIN, _KIND["MP_JOIN SYN"])):
        step = np.where(syn, np.where(ack, 1, 0), np.where(with_data & (value == schema.MP_CAPABLE), 3, 2))
        of_this = subtype == value
        kind[of_this] = first + step[of_this]
    return kind


class OptionTexts:
    """Short texts of options, one method per subtype."""

    def __init__(self, table: PacketTable) -> None:
        self.signals = table.signals
        self.addresses = table.addresses
        self.columns: dict[str, list[Any]] = {name: table.signals[name].tolist() for name in table.signals if name != "raw"}
        self.known: dict[int, str] = {}
        self.makers = {
            "MP_JOIN SYN": self._join_syn,
            "MP_JOIN SYN/ACK": self._join_answer,
            "MP_JOIN ACK": self._join_ack,
            "ADD_ADDR": self._address,
            "ADD_ADDR echo": self._address,
            "REMOVE_ADDR": self._removed,
            "MP_PRIO": self._priority,
            "MP_FAIL": self._fail,
            "MP_FASTCLOSE": self._fastclose,
            "MP_TCPRST": self._reset,
        }

    def of(self, kind: str, index: int) -> str:
        """Text of option `index`."""
        if kind.startswith("MP_CAPABLE"):
            return self._capable(index)
        return self.makers.get(kind, self._bytes)(index)

    def _capable(self, index: int) -> str:
        flags = self.columns["flags"][index]
        sender, receiver = self.columns["sender_key"][index], self.columns["receiver_key"][index]
        parts = [f"version {self.columns['version'][index]}"]
        parts += [f"key {sender:016x}"] * bool(sender) + [f"peer's key {receiver:016x}"] * bool(receiver)
        if self.columns["length"][index] >= 22:
            parts.append(f"{self.columns['data_bytes'][index]} bytes of data")
        for bit, name in (
            (CAPABLE_CHECKSUM, "checksum"),
            (CAPABLE_EXTENSIBILITY, "extensibility"),
            (CAPABLE_NO_JOIN_HERE, "no join to this address"),
        ):
            parts += [name] * bool(flags & bit)
        return " ".join(parts)

    def _join_syn(self, index: int) -> str:
        c = self.columns
        backup = " backup" if c["backup"][index] else ""
        return f"token {c['token'][index]:08x} nonce {c['nonce'][index]:08x} id {c['address_id'][index]}{backup}"

    def _join_answer(self, index: int) -> str:
        c = self.columns
        backup = " backup" if c["backup"][index] else ""
        return f"nonce {c['nonce'][index]:08x} id {c['address_id'][index]}{backup}"

    def _join_ack(self, index: int) -> str:
        return f"HMAC {self.signals['raw'][index, 4:8].tobytes().hex()}..."

    def _address(self, index: int) -> str:
        code, port = self.columns["address"][index], self.columns["port"][index]
        if code not in self.known:
            self.known[code] = self.addresses.text(code)
        return f"id {self.columns['address_id'][index]} {self.known[code]}{f' port {port}' if port else ''}"

    def _removed(self, index: int) -> str:
        return "id " + ", ".join(str(i) for i in self.signals["raw"][index, 3 : self.columns["length"][index]].tolist())

    def _priority(self, index: int) -> str:
        by_id = f" id {self.columns['address_id'][index]}" if self.columns["length"][index] > 3 else ""
        return ("backup" if self.columns["backup"][index] else "not backup") + by_id

    def _fail(self, index: int) -> str:
        return f"DSN {self.columns['dsn'][index]}"

    def _fastclose(self, index: int) -> str:
        return f"key {self.columns['sender_key'][index] | self.columns['receiver_key'][index]:016x}"

    def _reset(self, index: int) -> str:
        return reset_reason(self.columns["reason"][index], self.columns["flags"][index])

    def _bytes(self, index: int) -> str:
        subtype = self.columns["subtype"][index]
        raw = self.signals["raw"][index, : self.columns["length"][index]].tobytes().hex()
        return f"{schema.SUBTYPE_NAMES[subtype] if subtype < len(schema.SUBTYPE_NAMES) else subtype}: {raw}"


# --- flags -------------------------------------------------------------------------------------------------------


def _flags(core: Reconstruction) -> list[_Events]:
    """SYN and SYN/ACK without an MPTCP handshake option, DATA_FIN, FIN and RST."""
    table = core.packets
    marked = (table["flags"] & (SYN | FIN | RST) > 0) | (table["dss_flags"] & DSS_DATA_FIN > 0)
    row = np.flatnonzero(marked & (core.flow >= 0))
    flags, dss = table["flags"][row], table["dss_flags"][row]
    syn, ack = (flags & SYN) > 0, (flags & ACK) > 0
    plain = syn & (table["mp_subtypes"][row] & (1 << schema.MP_CAPABLE | 1 << schema.MP_JOIN) == 0)
    data_fin = ((dss & DSS_DATA_FIN) > 0) & ((dss & DSS_MAP) > 0)
    behind = _behind(table)
    return [
        _events(row[plain & ~ack], "SYN", lambda rows: ["no MPTCP"] * rows.size),
        _events(row[plain & ack], "SYN/ACK", lambda rows: ["no MPTCP"] * rows.size),
        _events(row[data_fin], "DATA_FIN", lambda rows: _data_fin_texts(table, rows)),
        _events(row[(flags & FIN) > 0], "FIN", behind),
        _events(row[(flags & RST) > 0], "RST", behind),
    ]


def _events(row: Int64s, kind: str, texts: Any) -> _Events:
    zeros = np.zeros(row.size, np.int64)
    return _Events(row, np.full(row.size, _KIND[kind]), texts(row), zeros, zeros.astype(np.uint64), zeros)


def _behind(table: PacketTable) -> Any:
    def texts(rows: Int64s) -> list[str]:
        return [f"behind {size} bytes" if size else "" for size in table["payload_bytes"][rows].tolist()]

    return texts


def _data_fin_texts(table: PacketTable, rows: Int64s) -> list[str]:
    """DATA_FIN takes the last number of its mapping (RFC 8684 section 3.3.3)."""
    length = table["map_bytes"][rows].astype(np.uint64)
    wide = (table["dss_flags"][rows] & DSS_MAP8) > 0
    dsn = table["dsn"][rows] + length - np.minimum(length, np.uint64(1))
    dsn = np.where(wide, dsn, dsn & np.uint64(0xFFFFFFFF))
    return [
        f"DSN {number}{f' behind {size - 1} bytes' if size > 1 else ''}"
        for number, size in zip(dsn.tolist(), length.tolist(), strict=True)
    ]


# --- repetitions -------------------------------------------------------------------------------------------------


def _mixed(words: npt.NDArray[np.uint64]) -> Array:
    """One 64-bit number per row of words, different for different rows but for a chance of 2^-64."""
    mixed = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        mixed = (mixed ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _repeated(kind: Array, flow: Array, connection: Array, from_client: Array, content: Array, address_id: Array) -> Array:
    """For each event whether the previous one of its kind, sender and subject said the same."""
    scope = np.where(np.isin(kind, _OF_CONNECTION), connection, flow)
    subject = np.where(np.isin(kind, _BY_ADDRESS), address_id, 0)
    # An address that was removed meanwhile is advertised anew, not once more.
    removed = kind == _KIND["REMOVE_ADDR"]
    advertised = np.isin(kind, _BY_ADDRESS[:2])
    content = np.where(np.isin(kind, _ONCE), np.uint64(0), content)
    if removed.any():
        by_connection = np.argsort(connection, kind="stable")
        generation = np.empty(kind.size, np.uint64)
        generation[by_connection] = np.cumsum(removed[by_connection])
        content = np.where(advertised, content + generation, content)
    columns = [scope, kind, from_client.astype(np.int64), subject]
    subject_key = _mixed(np.stack([column.astype(np.int64) for column in columns], axis=1).view(np.uint64))
    order = np.argsort(subject_key, kind="stable")
    key, said = subject_key[order], content[order]
    out = np.zeros(kind.size, np.bool_)
    out[order[1:]] = (key[1:] == key[:-1]) & (said[1:] == said[:-1])
    return out
