"""Do tokens, keys and HMACs of MPTCP signalling fit the keys of their connection? RFC 8684 (version 1), RFC 6824 (version 0).

Cryptography is done option by option, so the cost is linear in signalling and nothing for plain data packets.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.packets import schema

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]

# Verdicts: index into VERDICTS.
UNCHECKED, VERIFIED, WRONG, NO_KEYS = range(4)
VERDICTS = ("", "verified", "wrong", "no keys")

_JOIN_BYTES_SYN_ACK, _JOIN_BYTES_ACK = 16, 24


def join_hmac(version: int, own_key: int, peer_key: int, own_nonce: int, peer_nonce: int) -> bytes:
    """HMAC that the owner of `own_key` sends in MP_JOIN: key own|peer, message own|peer nonce (RFC 8684 section 3.2).

    The SYN/ACK carries the first 8 bytes of it, the third ACK the first 20. Version 0 uses SHA-1 (RFC 6824 section 3.2).
    """
    key = own_key.to_bytes(8, "big") + peer_key.to_bytes(8, "big")
    message = own_nonce.to_bytes(4, "big") + peer_nonce.to_bytes(4, "big")
    return hmac.digest(key, message, "sha1" if version == 0 else "sha256")


def address_hmac(own_key: int, peer_key: int, address_id: int, address: bytes, port: int) -> bytes:
    """The 8 bytes that protect ADD_ADDR of version 1 (RFC 8684 section 3.4.1); `port` is 0 when there is none."""
    key = own_key.to_bytes(8, "big") + peer_key.to_bytes(8, "big")
    return hmac.digest(key, bytes([address_id]) + address + port.to_bytes(2, "big"), "sha256")[-8:]


class Keys:
    """What is known of both ends, per flow: keys by the side that sends, tokens and the version."""

    def __init__(self, core: Reconstruction) -> None:
        connection = core.flows["connection"].to_numpy(np.int64)
        table = core.connections
        self.by_client: list[bool] = core.flows["opened_by_client"].to_numpy(np.bool_).tolist()
        self.client: list[int] = table["client_key"].to_numpy(np.uint64)[connection].tolist()
        self.server: list[int] = table["server_key"].to_numpy(np.uint64)[connection].tolist()
        self.client_token: list[int] = table["client_token"].to_numpy(np.int64)[connection].tolist()
        self.server_token: list[int] = table["server_token"].to_numpy(np.int64)[connection].tolist()
        self.version: list[int] = table["version"].to_numpy(np.int64)[connection].tolist()

    def own_and_peer(self, flow: int, from_opener: bool) -> tuple[int, int]:
        """Keys of the sender and of the receiver; 0 is unseen."""
        ends = self.client[flow], self.server[flow]
        return ends if from_opener == self.by_client[flow] else ends[::-1]

    def token(self, flow: int) -> int:
        """The token an opener of `flow` has to send; -1 when its key is unknown."""
        ends = (self.server[flow], self.server_token[flow]), (self.client[flow], self.client_token[flow])
        key, token = ends[0] if self.by_client[flow] else ends[1]
        return token if key else -1


def verify_options(core: Reconstruction) -> npt.NDArray[np.uint8]:
    """One verdict per MPTCP option of `core.packets.signals`: its token, keys or HMAC against those of the connection."""
    signals = core.packets.signals
    verdicts = np.zeros(signals["row"].size, np.uint8)
    flow = core.flow[signals["row"]]
    used = flow >= 0
    checks = (
        (schema.MP_JOIN, _check_joins),
        (schema.MP_CAPABLE, _check_capable),
        (schema.ADD_ADDR, _check_addresses),
        (schema.MP_FASTCLOSE, _check_fastclose),
    )
    keys = Keys(core)
    for subtype, check in checks:
        rows = np.flatnonzero(used & (signals["subtype"] == subtype))
        if rows.size:
            check(core, keys, rows, flow[rows].tolist(), verdicts)
    return verdicts


def _from_opener(core: Reconstruction, rows: Int64s) -> list[bool]:
    opener: list[bool] = core.from_client[core.packets.signals["row"][rows]].tolist()
    return opener


def _check_joins(core: Reconstruction, keys: Keys, rows: Int64s, flows: list[int], verdicts: Array) -> None:
    """Token in the SYN, HMACs in SYN/ACK and ACK; the nonces are those seen last on the flow."""
    signals = core.packets.signals
    length, at = signals["length"][rows].tolist(), signals["hmac_at"][rows].tolist()
    nonces, tokens = signals["nonce"][rows].tolist(), signals["token"][rows].tolist()
    opener_nonce: dict[int, int] = {}
    answer_nonce: dict[int, int] = {}
    for index, row in enumerate(rows.tolist()):
        flow = flows[index]
        if at[index] == 0:
            opener_nonce[flow] = nonces[index]
            expected = keys.token(flow)
            verdicts[row] = NO_KEYS if expected < 0 else VERIFIED if expected == tokens[index] else WRONG
            continue
        from_opener = length[index] == _JOIN_BYTES_ACK
        if not from_opener:
            answer_nonce[flow] = nonces[index]
        own, peer = keys.own_and_peer(flow, from_opener)
        if not own or not peer or flow not in opener_nonce or flow not in answer_nonce:
            verdicts[row] = NO_KEYS
            continue
        pair = opener_nonce[flow], answer_nonce[flow]
        expected_hmac = join_hmac(keys.version[flow], own, peer, *(pair if from_opener else pair[::-1]))
        sent = signals["raw"][row, at[index] : at[index] + signals["hmac_bytes"][row]].tobytes()
        verdicts[row] = VERIFIED if sent and expected_hmac.startswith(sent) else WRONG


def _check_capable(core: Reconstruction, keys: Keys, rows: Int64s, flows: list[int], verdicts: Array) -> None:
    """A third ACK and the first data must echo both keys (RFC 8684 section 3.1)."""
    signals = core.packets.signals
    sender, receiver = signals["sender_key"][rows].tolist(), signals["receiver_key"][rows].tolist()
    opener = _from_opener(core, rows)
    for index in np.flatnonzero(signals["length"][rows] >= 20).tolist():
        own, peer = keys.own_and_peer(flows[index], opener[index])
        known = own and peer
        agrees = (sender[index], receiver[index]) == (own, peer)
        verdicts[rows[index]] = VERIFIED if known and agrees else WRONG if known else NO_KEYS


def _check_addresses(core: Reconstruction, keys: Keys, rows: Int64s, flows: list[int], verdicts: Array) -> None:
    """HMAC of an advertised address."""
    signals = core.packets.signals
    opener = _from_opener(core, rows)
    for index in np.flatnonzero(signals["hmac_bytes"][rows] > 0).tolist():
        row, flow = int(rows[index]), flows[index]
        own, peer = keys.own_and_peer(flow, opener[index])
        if not own or not peer:
            verdicts[row] = NO_KEYS
            continue
        raw, at = signals["raw"][row].tobytes(), int(signals["hmac_at"][row])
        with_port = (at - 4) % 4 == 2
        address = raw[4 : at - 2] if with_port else raw[4:at]
        port = int.from_bytes(raw[at - 2 : at], "big") if with_port else 0
        agrees = raw[at : at + 8] == address_hmac(own, peer, raw[3], address, port)
        verdicts[row] = VERIFIED if agrees else WRONG


def _check_fastclose(core: Reconstruction, keys: Keys, rows: Int64s, flows: list[int], verdicts: Array) -> None:
    """MP_FASTCLOSE must name the receiver's key (RFC 8684 section 3.5)."""
    signals = core.packets.signals
    sent = (signals["sender_key"] | signals["receiver_key"])[rows].tolist()  # the option has one key
    opener = _from_opener(core, rows)
    for index, row in enumerate(rows.tolist()):
        _, peer = keys.own_and_peer(flows[index], opener[index])
        verdicts[row] = NO_KEYS if not peer else VERIFIED if peer == sent[index] else WRONG


def verify_joins(core: Reconstruction) -> npt.NDArray[np.object_]:
    """One text per flow of `core.flows`: how its MP_JOIN handshake fits the keys.

    "verified": every HMAC seen is right; "wrong": one is not; "no keys": answered, but keys or nonces are not in the
    capture; "unanswered": no SYN/ACK with MP_JOIN; "": the flow is no join.
    """
    signals = core.packets.signals
    chosen = (signals["subtype"] == schema.MP_JOIN) & (core.flow[signals["row"]] >= 0)
    flow = core.flow[signals["row"]][chosen]
    verdict = verify_options(core)[chosen]
    with_hmac = signals["hmac_bytes"][chosen] > 0
    answered = signals["length"][chosen] == _JOIN_BYTES_SYN_ACK
    texts = np.full(len(core.flows), "", object)
    texts[flow] = "unanswered"
    texts[flow[answered | with_hmac]] = "no keys"
    texts[flow[with_hmac & (verdict == VERIFIED)]] = "verified"
    texts[flow[with_hmac & (verdict == WRONG)]] = "wrong"
    return texts
