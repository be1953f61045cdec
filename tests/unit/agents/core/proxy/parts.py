"""What the scripts of both sides of a proxy are made of: addresses, streams, paths, and what came out."""

import random
from dataclasses import dataclass, field

from agents.core.proxy.actions import Answer, Log, Verdict
from agents.wire import tcp
from agents.wire.tcp import ACK, RST, Segment
from tests.proxy.ranges import Ranges

NEAR = tuple(bytes((10, net, 0, 1)) for net in (1, 2, 3, 4))
"""Addresses of the proxy's host."""
FAR = tuple(bytes((10, 64, net, 1)) for net in (0, 1, 2))
NEAR6, FAR6 = bytes.fromhex("20010db8000100000000000000000001"), bytes.fromhex("20010db8004000000000000000000001")
NEAR_PORT, FAR_PORT = 40_000, 80
FAR_KEY = b"far--key"
STREAM = 1 << 18
NEAR_DATA, FAR_DATA = random.Random(1).randbytes(STREAM), random.Random(2).randbytes(STREAM)
WINDOW, SCALE = 512, 7
SYN_OPTIONS = bytes((2, 4, 1460 >> 8, 1460 & 255, 4, 2))


def near_bytes(t: int, length: int) -> bytes:
    """What the host's application writes at t."""
    return NEAR_DATA[t - 1 : t - 1 + length]


def far_bytes(t: int, length: int) -> bytes:
    """What the peer's application writes at t."""
    return FAR_DATA[t - 1 : t - 1 + length]


@dataclass(eq=False)
class Path:
    """A subflow as the peer knows it."""

    near: tuple[bytes, int]
    far: tuple[bytes, int]
    near_isn: int
    far_isn: int
    next: int = 1
    """The peer's next s."""
    san: int = 1
    """What the peer acknowledges next."""
    sent: Ranges = field(default_factory=Ranges)
    """s that the peer has sent."""
    got: Ranges = field(default_factory=Ranges)
    """s that came from the proxy."""
    shifts: dict[int, int] = field(default_factory=dict)
    """s of the proxy's data -> t - s."""
    clock: int = 5_000_000
    """TSval of the peer on this subflow at time 0."""
    acked: int = 1
    """The highest SAN that came from the proxy."""
    fin: bool = False
    """The peer has sent its FIN."""

    def packet(self, s: int, san: int, flags: int, window: int, options: bytes = b"", data: bytes = b"") -> bytes:
        """From the peer to the proxy."""
        return tcp.build(*self.far, *self.near, self.far_isn + s, self.near_isn + san if flags & ACK else 0, flags, window,
                         options, data)  # fmt: skip

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        """(source, port, destination, port) of the peer's packets."""
        return (*self.far, *self.near)


@dataclass
class Out:
    """What one packet, or a timer, made the proxy do."""

    answer: Answer = Verdict.DROP
    network: list[Segment] = field(default_factory=list)
    host: list[Segment] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)

    def log(self, event: str) -> Log | None:
        """The first event of this name."""
        return next((log for log in self.logs if log.event == event), None)

    @property
    def why(self) -> str | None:
        """Why something was discarded."""
        log = self.log("discard")
        return None if log is None else log.fields["why"]

    @property
    def resets(self) -> list[Segment]:
        """RSTs towards the network."""
        return [segment for segment in self.network if segment.flags & RST]

    @property
    def silent(self) -> bool:
        """Nothing came of it."""
        return self.answer is Verdict.DROP and not self.network and not self.host
