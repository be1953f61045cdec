"""One signalling message, and bounds-checked reading of its bytes."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

from analysis.mobileip.codes import MALFORMED

MAX_EXTENSIONS = 64
"""Extensions or options of one message. Real messages have below ten; a message full of empty ones must not cost more."""
MAX_TEXT = 128
"""Characters of a text taken from a packet (NAI, message string)."""
MAX_NOTE = 240
"""A message's remarks end when they have this many characters."""


class MalformedError(ValueError):
    """The message contradicts itself; the text says how. It stays inside this package: the message becomes a row."""


@dataclass(frozen=True, slots=True)
class FlowBinding:
    """A flow binding: which flows go to which bindings (RFC 7629 section 4.2, RFC 6089 section 4.2).

    `bids` in order of preference. `action`: "forward" or "drop". `selector`: the traffic selector as text, "" for none.
    `flow`, `priority`, `status` (of an answer): FID, FID-PRI and status of RFC 6089, -1 in RFC 7629.
    """

    action: str
    bids: tuple[int, ...]
    selector: str
    flow: int = -1
    priority: int = -1
    status: int = -1


@dataclass(slots=True)
class Message:
    """What a message says. Numbers are -1 and texts "" where it does not say it; 64-bit numbers are 0.

    `extensions`: numbers as "32" or "154/1" in order. `care_of`: (BID, care-of address), `bid_status`: (BID, status) of every
    binding identifier option.
    """

    kind: str
    type: int = -1
    home_address: str = ""
    home_agent: str = ""
    care_of_address: str = ""
    lifetime_s: int = -1
    identification: int = 0
    code: int = -1
    code_text: str = ""
    flags: str = ""
    sequence: int = -1
    cookie: int = 0
    token: int = 0
    home_nonce: int = -1
    care_of_nonce: int = -1
    encapsulation: str = ""
    nai: str = ""
    label: int = -1
    access_technology: str = ""
    bids: tuple[int, ...] = ()
    bid_flags: str = ""
    extensions: tuple[str, ...] = ()
    authentication: str = ""
    problem: str = ""
    note: str = ""
    text: str = ""
    care_of: tuple[tuple[int, str], ...] = ()
    bid_status: tuple[tuple[int, int], ...] = ()
    flow_bindings: tuple[FlowBinding, ...] = ()

    def add_note(self, text: str) -> None:
        """Append a remark, as long as there is room."""
        if len(self.note) < MAX_NOTE:
            self.note = f"{self.note}; {text}" if self.note else text


def malformed(problem: str) -> Message:
    """The row of a packet that is too short to be any message."""
    return Message(MALFORMED, problem=problem, text=f"{MALFORMED}: {problem}")


_IPV4 = struct.Struct("!4B")


def ipv4(data: bytes, at: int) -> str:
    """The IPv4 address at an offset. The caller has checked the length."""
    return "%d.%d.%d.%d" % _IPV4.unpack_from(data, at)  # noqa: UP031 - half the time of the alternatives


@lru_cache(maxsize=1 << 14)
def _ipv6_text(octets: bytes) -> str:
    return str(ipaddress.IPv6Address(octets))


def ipv6(data: bytes, at: int) -> str:
    """The IPv6 address at an offset. The caller has checked the length."""
    return _ipv6_text(data[at : at + 16])


def clean_text(octets: bytes) -> str:
    """Text out of a packet, safe to print: at most MAX_TEXT characters, others than printable ASCII as \\x.. ."""
    text = octets[:MAX_TEXT].decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[:MAX_TEXT]


def need(size: int, least: int, what: str) -> None:
    """Raise MalformedError unless `size` bytes suffice."""
    if size < least:
        raise MalformedError(f"{what} has {size} bytes, {least} are needed")


def as_hex(number: int) -> str:
    """A 64-bit number for people."""
    return f"{number:016x}"
