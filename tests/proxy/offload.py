"""What kernel and interface do for a TCP: segments merged into superpackets and cut again (GSO, GRO), checksums left out."""

from agents.wire import tcp
from agents.wire.tcp import FIN, PSH, RST, SYN
from tests.proxy.packets import header_length, options_of, sealed, with_parts

LARGEST = 60_000


def follows(first: tcp.Segment, second: tcp.Segment, size: int, merged: int) -> bool:
    """Whether the second segment may be appended to a superpacket whose segments have `size` bytes."""
    return (
        first.key == second.key
        and second.seq == (first.seq + merged) & 0xFFFFFFFF
        and not (first.flags | second.flags) & (SYN | RST)
        and not first.flags & FIN
        and 0 < second.payload_length <= size
        and merged % size == 0
        and first.ack == second.ack
        and first.window == second.window
        and merged + second.payload_length <= LARGEST
        and options_of(first.data) == options_of(second.data)
    )


def superpackets(packets: list[bytes]) -> list[tuple[bytes, int]]:
    """Runs of segments that follow each other as one packet each, with the size of its segments (0: a packet as it was)."""
    out: list[tuple[bytes, int]] = []
    run: list[bytes] = []
    for packet in [*packets, b""]:
        if run:
            first, merged = tcp.parse(run[0]), sum(tcp.parse(each).payload_length for each in run)
            last = tcp.parse(run[-1])
            size = first.payload_length
            if packet and not last.flags & (FIN | PSH) and size and follows(first, tcp.parse(packet), size, merged):
                run.append(packet)
                continue
            if len(run) == 1:
                out.append((run[0], 0))
            else:
                payload = b"".join(bytes(tcp.parse(each).payload) for each in run)
                options = b"".join(options_of(run[0]))
                out.append((with_parts(run[0], options=options, payload=payload, flags=first.flags | last.flags), size))
        run = [packet]
    return out


def without_checksum(packet: bytes) -> bytes:
    """As the TCP hands it down when something below computes the checksum."""
    at = header_length(packet) + 16
    return packet[:at] + b"\xab\xcd" + packet[at + 2 :]


def cut(packet: bytes, size: int) -> list[bytes]:
    """A superpacket as segments with this much payload: the same options on each, FIN and PSH on the last."""
    segment = tcp.parse(packet)
    payload, options = bytes(segment.payload), b"".join(options_of(packet))
    if len(payload) <= size:
        return [sealed(bytearray(packet))]
    out = []
    for at in range(0, len(payload), size):
        last = at + size >= len(payload)
        flags = segment.flags if last else segment.flags & ~(FIN | PSH)
        out.append(with_parts(packet, options=options, payload=payload[at : at + size], seq=segment.seq + at, flags=flags))
    return out
