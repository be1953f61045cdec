"""Tokens and initial data sequence numbers (IDSN) of MPTCP keys. RFC 8684 section 3.1: SHA-256; RFC 6824 section 3.1: SHA-1."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.connections.model import Array, Int64s

Uint64s = npt.NDArray[np.uint64]


def token_of(key: int, version: int = 1) -> int:
    """Token of a key: the most significant 32 bits of its hash."""
    return int.from_bytes(_hash(version)(key.to_bytes(8, "big")).digest()[:4], "big")


def first_dsn_of(key: int, version: int = 1) -> int:
    """DSN of the first data byte: the least significant 64 bits of the key's hash are the IDSN, data begins one later."""
    return (int.from_bytes(_hash(version)(key.to_bytes(8, "big")).digest()[-8:], "big") + 1) % 2**64


def tokens_and_dsns(keys: Array, versions: Array) -> tuple[Int64s, Uint64s]:
    """Tokens and DSNs of the first data bytes of many keys (uint64). Key 0 is unseen: its token is -1."""
    tokens, dsns = np.full(keys.size, -1, np.int64), np.zeros(keys.size, np.uint64)
    for version in (0, 1):
        rows = np.flatnonzero((keys != 0) & ((versions == 0) == (version == 0)))
        distinct, place = np.unique(keys[rows], return_inverse=True)
        digest, packed = _hash(version), distinct.astype(">u8").tobytes()
        size = digest().digest_size
        hashes = b"".join([digest(packed[at : at + 8]).digest() for at in range(0, len(packed), 8)])
        raw = np.frombuffer(hashes, np.uint8).reshape(-1, size)
        tokens[rows] = np.ascontiguousarray(raw[:, :4]).view(">u4").astype(np.int64).ravel()[place]
        dsns[rows] = (np.ascontiguousarray(raw[:, -8:]).view(">u8").astype(np.uint64).ravel() + np.uint64(1))[place]
    return tokens, dsns


def _hash(version: int) -> Any:
    return hashlib.sha1 if version == 0 else hashlib.sha256
