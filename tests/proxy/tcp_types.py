"""What the TCP model is configured with, its states, and the layer that may sit above an endpoint."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agents.wire.tcp import Segment


@dataclass(frozen=True)
class TcpConfig:
    """What an endpoint does."""

    mss: int = 1460
    scale: int | None = 7
    """None: no window scaling."""
    sack: bool = True
    timestamps: bool = True
    buffer: int = 1 << 20
    isn: int = 0
    timestamp_offset: int = 0
    delayed_ack: float | None = 0.04
    """None: every segment is acknowledged at once."""
    min_rto: float = 0.2
    time_wait: float = 60.0
    probe_with_data: bool = True
    """Zero-window probes: one byte beyond the window, otherwise an old sequence number without data."""
    superpackets: bool = False
    """Segments above the MSS may arrive: an interface has merged them."""
    plain: bool = False
    """MPTCP options in what arrives are violations."""
    plain_after_syn: bool = False
    """The same, but not on SYNs."""


class State(Enum):
    """RFC 9293 section 3.3.2."""

    CLOSED = "closed"
    LISTEN = "listen"
    SYN_SENT = "syn-sent"
    SYN_RCVD = "syn-received"
    ESTABLISHED = "established"
    FIN_WAIT_1 = "fin-wait-1"
    FIN_WAIT_2 = "fin-wait-2"
    CLOSE_WAIT = "close-wait"
    CLOSING = "closing"
    LAST_ACK = "last-ack"
    TIME_WAIT = "time-wait"


Address = tuple[bytes, int]


class Upper(Protocol):
    """A layer above one endpoint that adds options to its segments and decides its window: MPTCP."""

    def syn_options(self) -> bytes:
        """For the SYN or SYN/ACK."""

    def limit(self, seq: int, length: int) -> int:
        """How much of this range one segment may carry."""

    def options(self, seq: int, length: int) -> bytes:
        """For a segment with this payload; padded to 4."""

    def syn_arrived(self, segment: Segment, now: float) -> bool:
        """A SYN or SYN/ACK; False: it is not to be accepted."""

    def arrived(self, segment: Segment, seq: int, now: float) -> bool:
        """A segment that passed the checks; False: it is discarded."""

    def window_field(self, scale: int) -> int:
        """The window to tell."""

    def reset_arrived(self, segment: Segment, now: float) -> None:
        """A reset that is acceptable."""

    def progress(self, now: float) -> None:
        """Something changed: state, acknowledgements, data in order."""


def signed(value: int) -> int:
    """A difference of 32-bit numbers."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value
