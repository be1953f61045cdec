"""Tokens and initial data sequence numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from analysis.connections.keys import first_dsn_of, token_of, tokens_and_dsns


@pytest.mark.parametrize(("version", "name"), [(1, "sha256"), (0, "sha1")])
def test_token_and_first_dsn_come_from_the_hash_of_the_key(version, name):
    digest = hashlib.new(name, bytes.fromhex("0123456789abcdef")).digest()
    key = 0x0123456789ABCDEF
    assert token_of(key, version) == int.from_bytes(digest[:4], "big")
    assert first_dsn_of(key, version) == int.from_bytes(digest[-8:], "big") + 1


def test_many_keys_at_once():
    rng = np.random.default_rng(1)
    keys = np.concatenate((rng.integers(1, 2**64, 50, dtype=np.uint64), np.zeros(3, np.uint64)))
    keys[7] = keys[3]
    versions = rng.integers(-1, 2, keys.size)
    tokens, dsns = tokens_and_dsns(keys, versions)
    for key, version, token, dsn in zip(keys.tolist(), versions.tolist(), tokens.tolist(), dsns.tolist(), strict=True):
        assert (token, dsn) == ((token_of(key, version), first_dsn_of(key, version)) if key else (-1, 0))


def test_no_keys():
    tokens, dsns = tokens_and_dsns(np.zeros(0, np.uint64), np.zeros(0, np.int64))
    assert tokens.size == dsns.size == 0


def test_a_dsn_may_wrap(monkeypatch):
    class Ones:
        digest_size = 32

        def __init__(self, data=b""):
            pass

        def digest(self):
            return bytes([255]) * 32

    monkeypatch.setattr("analysis.connections.keys._hash", lambda version: Ones)
    assert first_dsn_of(5) == 0
    assert tokens_and_dsns(np.array([5], np.uint64), np.array([1]))[1].tolist() == [0]
