"""What a capture says of this host's own choices: its addresses, keys, nonces, ports and initial sequence numbers."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.signalling import decoded
from agents.wire import mptcp, tcp
from agents.wire.errors import WireError
from agents.wire.mptcp import Capable, JoinSyn, JoinSynAck
from agents.wire.tcp import ACK, RST, SYN, Segment

Role = Literal["client", "server"]
Flow = tuple[bytes, int, bytes, int]
"""(source, port, destination, port)."""
PORTS_FIRST: Final = 32_768
_KEY_BYTES: Final = 8


class RecordingError(ValueError):
    """The capture does not tell what a replay needs; one line."""


@dataclass
class Recording:
    """What is known of one capture of the outer side."""

    hosts: set[bytes] = field(default_factory=set)
    keys: dict[Flow, bytes] = field(default_factory=dict)
    """This host's key of a connection; the flow as packets of this host have it."""
    peer_keys: dict[Flow, bytes] = field(default_factory=dict)
    tokens: set[bytes] = field(default_factory=set)
    """Of this host's keys."""
    nonces: dict[Flow, bytes] = field(default_factory=dict)
    """This host's nonce of a join."""
    initials: dict[Flow, int] = field(default_factory=dict)
    """The initial sequence number of this host on a subflow."""
    placed: dict[int, list[tuple[int, Flow]]] = field(default_factory=dict)
    """Lower half of a DSN that this host sent -> (number of the packet, its flow), in order."""
    refused: set[int] = field(default_factory=set)
    """Numbers of packets from the network that were answered with an RST as packets of no subflow are."""
    checksum: bool = False
    wide_numbers: bool = False

    def config(self) -> ProxyConfig:
        """The settings that the packets show; all others have their defaults."""
        return ProxyConfig(checksum=self.checksum, wide_numbers=self.wide_numbers)


class Choices:
    """The proxy's randomness: what the capture shows, and else numbers of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"replay {seed}")
        self._next: list[bytes] = []

    def expect(self, *values: bytes) -> None:
        """The next values that will be asked for."""
        self._next = list(values)

    def __call__(self, count: int) -> bytes:
        if self._next and len(self._next[0]) == count:
            return self._next.pop(0)
        return self._random.randbytes(count)


def segment_of(data: bytes) -> Segment | None:
    """A TCP segment, or None."""
    try:
        return tcp.parse(data)
    except WireError:
        return None


def backwards(flow: Flow) -> Flow:
    """The other direction."""
    return flow[2], flow[3], flow[0], flow[1]


def scan(packets: Iterable[bytes], role: Role, hosts: Iterable[bytes] = ()) -> Recording:
    """Everything that later packets tell of earlier decisions. Raises RecordingError without a handshake that is whole."""
    found = Recording(set(hosts))
    segments = [segment_of(packet) for packet in packets]
    _read_keys(found, segments, role)
    if not found.keys:
        who = "opened by" if role == "client" else "opened to"
        raise RecordingError(
            f"no MP_CAPABLE handshake with both keys of a connection {who} this host: a capture must begin with the "
            f"connection (this host as {'server' if role == 'client' else 'client'}: --role)"
        )
    own = {mptcp.token(key) for key in found.peer_keys.values()}
    for segment in segments:
        if segment is not None and segment.flags & SYN and not segment.flags & ACK:
            for option in decoded(segment):
                if isinstance(option, JoinSyn) and option.token in own:
                    found.hosts.add(segment.source)
                elif isinstance(option, JoinSyn) and option.token in found.tokens:
                    found.hosts.add(segment.destination)
    _read_own(found, segments)
    _read_refused(found, segments)
    return found


def _read_keys(found: Recording, segments: list[Segment | None], role: Role) -> None:
    for segment in segments:
        if segment is None or segment.flags & SYN:
            continue
        for option in decoded(segment):
            if not isinstance(option, Capable) or len(option.receiver_key) != _KEY_BYTES:
                continue
            flow: Flow = segment.key if role == "client" else backwards(segment.key)
            if found.hosts and flow[0] not in found.hosts:
                continue
            mine, other = option.sender_key, option.receiver_key
            if role == "server":
                mine, other = other, mine
            found.keys.setdefault(flow, mine)
            found.peer_keys.setdefault(flow, other)
            found.tokens.add(mptcp.token(mine))
    if not found.hosts:
        found.hosts = {flow[0] for flow in found.keys}


def _read_own(found: Recording, segments: list[Segment | None]) -> None:
    for number, segment in enumerate(segments):
        if segment is None or segment.source not in found.hosts:
            continue
        flow: Flow = segment.key
        if segment.flags & SYN:
            found.initials[flow] = segment.seq
            for option in decoded(segment):
                if isinstance(option, JoinSyn | JoinSynAck):
                    found.nonces[flow] = option.nonce
                elif isinstance(option, Capable) and flow in found.keys:
                    found.checksum = bool(option.flags & mptcp.FLAG_CHECKSUM)
        dss = segment.dss
        if dss is not None:
            found.wide_numbers = found.wide_numbers or dss.ack_wide or dss.dsn_wide
            if dss.dsn is not None and segment.payload_length:
                start = dss.dsn + _offset(found, flow, segment, dss.ssn)
                found.placed.setdefault(start & 0xFFFFFFFF, []).append((number, flow))


def _read_refused(found: Recording, segments: list[Segment | None]) -> None:
    """A subflow that a command has broken answers what still comes with an RST without ACK."""
    latest: dict[Flow, tuple[int, Segment]] = {}
    for number, segment in enumerate(segments):
        if segment is None:
            continue
        if segment.source not in found.hosts:
            latest[backwards(segment.key)] = number, segment
        elif segment.flags & (RST | ACK) == RST and segment.key in latest:
            before, other = latest[segment.key]
            if other.flags & ACK and other.ack == segment.seq:
                found.refused.add(before)


def _offset(found: Recording, flow: Flow, segment: Segment, ssn: int) -> int:
    """How far into its mapping a segment begins."""
    initial = found.initials.get(flow)
    return 0 if initial is None else (segment.seq - initial - ssn) & 0xFFFFFFFF
