"""What the proxy answers for a packet, and what it wants done besides."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias


class Verdict(Enum):
    """What happens to the packet that was shown to the proxy. A verdict may also be `bytes`: the packet goes on as these."""

    PASS = "pass"
    """Untouched; it is none of the proxy's business."""
    DROP = "drop"
    RELEASE = "release"
    """Untouched, and the proxy need not see this connection again: it is plain TCP."""


class Offload(Enum):
    """What the kernel has not done yet to a packet that it shows."""

    NONE = 0
    PARTIAL_CHECKSUM = 1
    """The TCP checksum field is not filled in."""
    SUPERPACKET = 2
    """The kernel will cut it into segments, and compute the checksums then (GSO)."""


Answer: TypeAlias = Verdict | bytes


@dataclass(frozen=True, slots=True)
class Send:
    """A packet of the proxy's own for the network, to be routed by its source address."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """A packet for the TCP of this host, as if it came from the network."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """A decision, for the event log."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Isolate:
    """This host's TCP needs a route of its own between two addresses, until the last connection between them ends: the path MTU
    that it is going to be told must not hold for the packets that the proxy makes of its segments, which are larger."""

    local: bytes
    remote: bytes


Action: TypeAlias = Send | Deliver | Isolate | Log
