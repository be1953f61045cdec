"""Addresses as small numbers. A table holds codes; the text of an address is made once, when somebody asks for it."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.packets.decode import ADDRESSES, SEED, intern_all, rehash

Codes = npt.NDArray[np.int32]


ENTRY = np.dtype([("high", "u8"), ("low", "u8"), ("version", "u1")], align=True)


class AddressBook:
    """Codes <-> IPv4 and IPv6 addresses, shared by all captures that are looked at together. Code 0 is no address.

    `slots`, `entries`: hash table and addresses as the kernels see them. The number of addresses is kept in `counts`, the
    array that the decoder counts in.
    """

    def __init__(self) -> None:
        self.entries = np.zeros(256, ENTRY)
        self.slots = np.zeros(1024, np.int32)
        self.counts = np.zeros(4, np.int64)
        self.counts[ADDRESSES], self.counts[SEED] = 1, secrets.randbits(62)
        self._texts = [""]

    def __len__(self) -> int:
        return int(self.counts[ADDRESSES])

    def reserve(self, more: int) -> None:
        """Make room for `more` new addresses; at least doubles what there is when that is too little."""
        count = len(self)
        if count + more <= self.entries.size:
            return
        entries = np.zeros(1 << (count + more).bit_length(), ENTRY)
        entries[:count] = self.entries[:count]
        self.entries, self.slots = entries, np.zeros(entries.size * 4, np.int32)
        rehash(self.slots, self.entries, self.counts)

    def texts(self) -> list[str]:
        """Texts of all addresses; the index is the code."""
        for code in range(len(self._texts), len(self)):
            high, low, version = (int(part) for part in self.entries[code].item())
            if version == 4:  # written out: a flood may have millions of them
                self._texts.append(f"{low >> 24}.{low >> 16 & 255}.{low >> 8 & 255}.{low & 255}")
            else:
                self._texts.append(str(ipaddress.IPv6Address(high << 64 | low)))
        return self._texts

    def text(self, code: int) -> str:
        """Text of one address, "" for code 0."""
        return self.texts()[code]

    def codes(self, version: Any, high: Any, low: Any) -> Codes:
        """Codes of addresses given as IP version and two 64-bit halves (an IPv4 address is the lower one)."""
        self.reserve(len(low))
        code = np.zeros(len(low), np.int32)
        upper, lower = np.ascontiguousarray(high, np.uint64), np.ascontiguousarray(low, np.uint64)
        intern_all(self.slots, self.entries, self.counts, np.ascontiguousarray(version, np.uint8), upper, lower, code)
        return code

    def code(self, text: str) -> int:
        """Code of an address given as text; it is added when it is new. Raises ValueError when it is no address."""
        if not text:
            return 0
        address = ipaddress.ip_address(text)
        number = int(address)
        return int(self.codes([address.version], [number >> 64], [number & (2**64 - 1)])[0])
