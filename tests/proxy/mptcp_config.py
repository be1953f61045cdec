"""What a peer of the MPTCP model does."""

from dataclasses import dataclass, field
from typing import Literal

from tests.proxy.tcp_types import TcpConfig


@dataclass(frozen=True)
class MptcpConfig:
    """What a peer does. The subflows take all but the ISN, the timestamp offset and the buffer from `tcp`."""

    tcp: TcpConfig = field(default_factory=TcpConfig)
    key: bytes = b"peerkey1"
    seed: int = 0
    addresses: tuple[bytes, ...] = ()
    """By address id; the first is that of the initial subflow."""
    checksum: bool = False
    wide_dsn: bool = True
    wide_ack: bool = True
    mapping: int = 65_000
    """The longest mapping; it may span many segments."""
    backlog: int = 30_000
    """Bytes that may wait in a subflow beyond what its congestion window allows."""
    scheduler: Literal["first", "roundrobin"] = "first"
    buffer: int = 1 << 20
    isns: tuple[int, ...] = ()
    """Of the first subflows; others are random."""
    fin_with_data: bool = True
    """A DATA_FIN rides on the last data, where there is some."""
    fast_close: Literal["reset", "ack"] = "reset"
    joins_most: int = 8
    join_announced: bool = False
    announce: bool = False
    """ADD_ADDR for the further addresses once established."""
    fallback_expected: bool = False
    identical_mappings: bool = False
    """Overlapping mappings must be identical, as the Linux kernel wants it."""
    bare_start: Literal["drop", "fallback"] = "drop"
    """A server's answer to a DSS before the keys were seen."""
