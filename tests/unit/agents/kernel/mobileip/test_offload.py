"""Superpackets: cut and joined packets against scapy, an independent reader; what must not be joined is not."""

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from agents.kernel.mobileip.tunnels.offload import NO_OFFLOAD, VNET_HEADER, Joiner, packets_of

ENDS = {"src": "10.33.0.100", "dst": "10.65.0.2"}


def segment(payload: bytes, seq: int = 1000, flags: str = "A", identification: int = 5, **fields: object) -> bytes:
    options = [("Timestamp", (7, 9))]
    packet = IP(**ENDS, id=identification, flags="DF", ttl=63, tos=8)
    return bytes(packet / TCP(sport=4000, dport=80, seq=seq, flags=flags, options=options, **fields) / Raw(payload))


def large(payload: bytes, size: int, flags: str, seq: int) -> bytes:
    """What the kernel hands over: offload header and a TCP segment of any length."""
    whole = segment(payload, seq, flags)
    return VNET_HEADER.pack(1, 1, len(whole) - len(payload), size, 20, 16) + whole


@given(
    st.binary(min_size=1, max_size=9000),
    st.integers(100, 1460),
    st.sampled_from(["A", "PA", "FPA", "CA"]),
    st.integers(0, 2**32 - 1),
)
def test_cut_packets_are_right_and_join_to_the_same(payload: bytes, size: int, flags: str, seq: int) -> None:
    cut = packets_of(large(payload, size, flags, seq))
    read = [IP(packet) for packet in cut]
    assert b"".join(bytes(packet[TCP].payload) for packet in read) == payload
    for number, (packet, octets) in enumerate(zip(read, cut, strict=True)):
        last = number == len(cut) - 1
        assert len(bytes(packet[TCP].payload)) == size or last
        assert packet[TCP].seq == (seq + number * size) % 2**32
        assert packet.id == 5 + number
        assert ("F" in packet[TCP].flags, "P" in packet[TCP].flags) == (last and "F" in flags, last and "P" in flags)
        assert ("C" in packet[TCP].flags) == (number == 0 and "C" in flags)
        again = IP(octets)
        del again.chksum, again[TCP].chksum, again.len
        assert bytes(again) == octets, "length and both checksums"

    joiner = Joiner()
    written = [buffers for packet in cut for buffers in joiner.add(packet)] + joiner.flush()
    assert b"".join(bytes(IP(b"".join(buffers[1:]))[TCP].payload) for buffers in written) == payload
    if flags in ("A", "PA") and len(payload) + 52 <= 65_000:
        assert len(written) == 1, "all in one"
        for one in written:
            assert [packet for packet in packets_of(b"".join(one))] == cut, "identification and all"  # noqa: C416


def joined(*packets: bytes) -> list[bytes]:
    joiner = Joiner()
    return [b"".join(buffers) for packet in packets for buffers in joiner.add(packet)] + [b"".join(b) for b in joiner.flush()]


def test_what_is_not_joined() -> None:
    one, two = segment(b"a" * 100), segment(b"b" * 100, 1100)
    assert len(joined(one, two)) == 1
    broken = bytearray(two)
    broken[-1] ^= 1
    cases = {
        "another checksum": bytes(broken),
        "a gap": segment(b"b" * 100, 1101),
        "a larger payload": segment(b"b" * 101, 1100),
        "another acknowledgement": segment(b"b" * 100, 1100, ack=1),
        "another window": segment(b"b" * 100, 1100, window=1),
        "FIN": segment(b"b" * 100, 1100, flags="FA"),
        "no options": bytes(IP(**ENDS, flags="DF", tos=8) / TCP(sport=4000, dport=80, seq=1100, flags="A") / Raw(b"b" * 100)),
        "UDP": bytes(IP(**ENDS) / UDP(sport=4000, dport=80) / Raw(b"b" * 100)),
    }  # fmt: skip
    for name, packet in cases.items():
        assert joined(one, packet) == [NO_OFFLOAD + one, NO_OFFLOAD + packet], name


def test_a_push_ends_what_is_joined() -> None:
    first, last, next_one = segment(b"a" * 100), segment(b"b" * 100, 1100, flags="PA"), segment(b"c" * 100, 1200)
    assert len(joined(first, last, next_one)) == 2


def test_a_checksum_that_the_kernel_left_to_us() -> None:
    wanted = bytes(IP(**ENDS) / UDP(sport=1, dport=2) / Raw(b"abc"))
    pseudo = 17 + len(wanted) - 20 + sum(int.from_bytes(wanted[at : at + 2], "big") for at in range(12, 20, 2))
    partial = wanted[:26] + (pseudo % 0xFFFF).to_bytes(2, "big") + wanted[28:]
    assert packets_of(VNET_HEADER.pack(1, 0, 0, 0, 20, 6) + partial) == [wanted]


@given(st.binary(max_size=200))
def test_nothing_that_is_read_raises(data: bytes) -> None:
    packets_of(data)
    joined(data, data)
