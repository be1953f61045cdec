"""What middleboxes do to segments on a wire; each rule counts what it did in `hits`."""

from __future__ import annotations

from collections.abc import Callable

from tests.pcaps.wires import ACK, KIND_SACK, SYN, Segment

MP_CAPABLE, MP_JOIN, DSS = 0, 1, 2
DSS_ACK, DSS_ACK8, DSS_MAP, DSS_MAP8 = 1, 2, 4, 8
When = Callable[[Segment], bool]


def is_syn(segment: Segment) -> bool:
    return segment.flags & (SYN | ACK) == SYN


def is_syn_ack(segment: Segment) -> bool:
    return segment.flags & (SYN | ACK) == SYN | ACK


def is_third_ack(segment: Segment) -> bool:
    """No SYN, and an MP_CAPABLE or MP_JOIN: the end of a handshake."""
    return not segment.flags & SYN and bool(segment.mptcp(MP_CAPABLE) or segment.mptcp(MP_JOIN))


def has_data(segment: Segment) -> bool:
    return segment.payload_bytes > 0


class Strip:
    """Overwrites MPTCP options by NOPs."""

    def __init__(self, when: When, up: bool | None = None, subtype: int | None = None) -> None:
        self.when, self.up, self.subtype, self.hits = when, up, subtype, 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        if self.up in (None, up) and self.when(segment):
            for at, length in segment.mptcp(self.subtype):
                segment.blank(at, length)
                self.hits += 1
        return True


class Lose:
    """Loses the segments of a kind whose turn is in `turns` (the first is 1)."""

    def __init__(self, when: When, up: bool, *turns: int) -> None:
        self.when, self.up, self.turns, self.seen, self.hits = when, up, turns, 0, 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        if up != self.up or not self.when(segment):
            return True
        self.seen += 1
        self.hits += self.seen in self.turns
        return self.seen not in self.turns


class Corrupt:
    """Flips the bits of one byte of an MPTCP option; the TCP checksum is made good."""

    def __init__(self, when: When, up: bool, subtype: int, offset: int) -> None:
        self.when, self.up, self.subtype, self.offset, self.hits = when, up, subtype, offset, 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        if up == self.up and self.when(segment):
            for at, length in segment.mptcp(self.subtype):
                if length > self.offset:
                    segment.frame[at + self.offset] ^= 0xFF
                    self.hits += 1
        return True


class ManglePayload:
    """Changes one byte of the payload of one data segment, like an application-level gateway; the TCP checksum is made good."""

    def __init__(self, up: bool, turn: int) -> None:
        self.up, self.turn, self.seen, self.hits = up, turn, 0, 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        if up == self.up and has_data(segment):
            self.seen += 1
            if self.seen == self.turn:
                segment.frame[segment.options_end] ^= 0x15
                self.hits += 1
        return True


class ShiftSequence:
    """Randomises the initial sequence numbers as some firewalls do: a constant for each direction."""

    def __init__(self, up_shift: int, down_shift: int) -> None:
        self.shifts, self.hits = (down_shift, up_shift), 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        own, other = self.shifts[up], self.shifts[not up]
        segment.seq += own
        if segment.flags & ACK:
            segment.ack -= other
        for kind, at, length in segment.options():
            if kind == KIND_SACK:
                for edge in range(at + 2, at + length, 4):
                    segment.put(edge, int.from_bytes(segment.frame[edge : edge + 4], "big") - other, 4)
        self.hits += 1
        return True


class ShortNumbers:
    """Rewrites 8-byte data sequence numbers and data ACKs to the 4-byte form that RFC 8684 section 3.3 allows as well."""

    def __init__(self) -> None:
        self.hits = 0

    def __call__(self, segment: Segment, up: bool) -> bool:
        for at, length in segment.mptcp(DSS):
            option = segment.frame[at : at + length]
            flags, position = option[3], 4
            short = bytearray(option[:4])
            if flags & DSS_ACK:
                wide = 8 if flags & DSS_ACK8 else 4
                short += option[position + wide - 4 : position + wide]
                position += wide
            if flags & DSS_MAP:
                wide = 8 if flags & DSS_MAP8 else 4
                short += option[position + wide - 4 : position + wide]
                position += wide
            short += option[position:]
            short[1], short[3] = len(short), flags & ~(DSS_ACK8 | DSS_MAP8)
            segment.blank(at, length)
            segment.frame[at : at + len(short)] = short
            self.hits += len(short) < length
        return True
