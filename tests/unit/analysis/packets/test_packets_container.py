"""Capture files of every kind made by hand: what is read, what is refused, where damage is seen."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic as syn

from analysis.packets import CaptureError, open_stream, read_capture, read_captures
from analysis.packets.addresses import AddressBook

A, B = "10.0.0.1", "10.0.0.2"


def store(folder: Path, data: bytes, name: str = "c.pcapng") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def some_frames() -> list[bytes]:
    return [
        syn.tcp(A, 1, B, 2, 100, 0, syn.SYN, 0, syn.capable()),
        syn.tcp(A, 1, B, 2, 101, 7, syn.ACK, 1000, syn.dss(2**40 + 5, 1, 3000, dack=9)),
        syn.udp(A, 3, B, 4, 160),
        syn.tcp("2001:db8::1", 5, "2001:db8::2", 6, 1, 2, syn.ACK, 11),
    ]


def four_packets() -> syn.Pcapng:
    writer = syn.Pcapng()
    for index, frame in enumerate(some_frames()):
        writer.add(index, frame)
    return writer


@pytest.mark.parametrize("end", ["<", ">"])
@pytest.mark.parametrize(("tsresol", "step_ns"), [(9, 1), (6, 1000), (3, 10**6), (12, 1), (0x80 | 30, 1), (0x80 | 10, 976563)])
def test_pcapng_time_resolutions_and_byte_orders(tmp_path, end, tsresol, step_ns):
    writer = syn.Pcapng(end=end, tsresol=tsresol)
    wanted = 1_700_000_000_123_456_789 % (2**63 if tsresol != 12 else 10**6)
    for index, frame in enumerate(some_frames()):
        writer.add(wanted + index * 10**9, frame)
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert capture.damage is None
    assert capture.packets == 4
    assert abs(int(capture.table["time_ns"][0]) - wanted) <= step_ns
    assert np.diff(capture.table["time_ns"]).tolist() == pytest.approx([10**9] * 3, abs=step_ns)


def test_time_offset_of_an_interface(tmp_path):
    writer = syn.Pcapng()
    options = syn.option(14, struct.pack("<q", -3600)) + syn.option(9, b"\x06")
    writer.blocks[1] = writer.block(1, struct.pack("<HHI", 1, 0, 0) + options)
    writer.blocks.append(writer.block(6, struct.pack("<IIIII", 0, 0, 5, 0, 0)))
    table = read_capture(store(tmp_path, writer.bytes())).table
    assert table["time_ns"].tolist() == [-3600 * 10**9 + 5000]


@pytest.mark.parametrize("end", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [True, False])
def test_classic_pcap(tmp_path, end, nanoseconds):
    records = [(10**9 * (i + 5) + 123456, frame) for i, frame in enumerate(some_frames())]
    capture = read_capture(store(tmp_path, syn.pcap(records, end, nanoseconds)))
    assert capture.table["time_ns"].tolist() == [10**9 * (i + 5) + (123456 if nanoseconds else 123000) for i in range(4)]
    assert capture.dropped is None
    assert capture.table["protocol"].tolist() == [6, 6, 17, 6]


def test_upper_half_of_the_link_type_is_no_link_type(tmp_path):
    data = syn.pcap([(0, some_frames()[2])], link_type=0x54000001)  # a check sequence of four bytes behind each frame
    assert read_capture(store(tmp_path, data)).table["protocol"].tolist() == [17]


def test_several_interfaces_and_drop_counters(tmp_path):
    writer = syn.Pcapng(("wlan0", "lte0"))
    writer.add(2, some_frames()[2], interface=1)
    writer.add(1, some_frames()[2], interface=0)
    writer.statistics(5, 2, interface=0)
    writer.statistics(7, 3, interface=0)  # cumulative: replaces the one before
    writer.statistics(9, 4, interface=1)
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert [i.name for i in capture.interfaces] == ["wlan0", "lte0"]
    assert capture.table["interface"].tolist() == [1, 0]  # in the order of the file
    assert capture.table.sorted_by_time()["interface"].tolist() == [0, 1]
    assert capture.dropped == 7


def test_second_section_numbers_its_own_interfaces(tmp_path):
    first, second = syn.Pcapng(("a",)), syn.Pcapng(("b",), end=">", tsresol=6)
    first.add(10**9, some_frames()[2])
    second.add(2 * 10**9, some_frames()[2])
    capture = read_capture(store(tmp_path, first.bytes() + second.bytes()))
    assert [i.name for i in capture.interfaces] == ["a", "b"]
    assert capture.table["time_ns"].tolist() == [10**9, 2 * 10**9]
    assert capture.table["interface"].tolist() == [0, 1]


def test_simple_and_obsolete_packet_blocks(tmp_path):
    writer, frame = syn.Pcapng(snap=60), some_frames()[1]
    writer.blocks.append(writer.block(3, struct.pack("<I", len(frame)) + frame[:60]))
    head = struct.pack("<HHIIII", 0, 9, 0, 77, len(frame), len(frame))
    writer.blocks.append(writer.block(2, head + frame))
    table = read_capture(store(tmp_path, writer.bytes())).table
    assert table["captured"].tolist() == [60, len(frame)]
    assert table["length"].tolist() == [len(frame)] * 2
    assert table["time_ns"].tolist() == [0, 77]
    assert table["payload_bytes"].tolist() == [1000, 1000]


def test_unknown_blocks_are_skipped(tmp_path):
    writer = four_packets()
    writer.blocks.insert(3, writer.block(0xBAD, b"what is this?"))
    assert read_capture(store(tmp_path, writer.bytes())).packets == 4


@pytest.mark.parametrize("cut", [1, 4, 11, 17, 33, 80])
def test_unfinished_last_block_is_damage_with_its_offset(tmp_path, cut):
    writer = four_packets()
    data = writer.bytes()
    capture = read_capture(store(tmp_path, data[:-cut]))
    assert capture.packets == 3
    assert capture.damage.startswith(f"byte {len(data) - len(writer.blocks[-1])}: the last block is unfinished")


def test_broken_block_in_the_middle_stops_there(tmp_path):
    blocks = list(four_packets().blocks)
    blocks[3] = blocks[3][:4] + b"\x09\x00\x00\x00" + blocks[3][8:]
    capture = read_capture(store(tmp_path, b"".join(blocks)))
    assert capture.packets == 1
    assert capture.damage == f"byte {sum(map(len, blocks[:3]))}: length field is impossible"


def test_packet_of_an_unknown_interface_stops_there(tmp_path):
    writer = four_packets()
    writer.add(9, some_frames()[0], interface=3)
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert capture.packets == 4
    assert "not described" in capture.damage


def test_cut_classic_pcap(tmp_path):
    records = [(i, frame) for i, frame in enumerate(some_frames())]
    data = syn.pcap(records)
    capture = read_capture(store(tmp_path, data[:-3]))
    assert capture.packets == 3
    assert capture.damage.startswith(f"byte {len(syn.pcap(records[:3]))}: the last packet is cut")


def test_absurd_length_in_a_classic_pcap(tmp_path):
    records = [(i, frame) for i, frame in enumerate(some_frames())]
    good = syn.pcap(records[:2])
    capture = read_capture(store(tmp_path, good + struct.pack("<IIII", 1, 1, 2**31, 60) + bytes(60)))
    assert capture.packets == 2
    assert capture.damage == f"byte {len(good)}: length field is impossible"


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is text", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1\0", b"\x0a\x0d\x0d\x0a" + bytes(40)]
)
def test_no_capture_at_all_is_one_line(tmp_path, data):
    with pytest.raises(CaptureError, match=r"c\.pcapng: (byte \d+: |the file is empty)") as info:
        read_capture(store(tmp_path, data))
    assert "\n" not in str(info.value)


def test_known_formats_are_refused_by_name(tmp_path):
    with pytest.raises(CaptureError, match="packed by xz"):
        read_capture(store(tmp_path, b"\xfd7zXZ\0\0\0"))


def test_missing_file_and_folder_are_capture_errors(tmp_path):
    with pytest.raises(CaptureError, match=r"nothing\.pcapng: No such file"):
        read_capture(tmp_path / "nothing.pcapng")
    with pytest.raises(CaptureError, match="Is a directory"):
        read_capture(tmp_path)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_packed_captures(tmp_path, pack):
    data = four_packets().bytes()
    plain, packed = (read_capture(store(tmp_path, d, n)) for d, n in ((data, "plain"), (pack(data), "packed")))
    assert packed.damage is None
    for name, values in plain.table.columns.items():
        assert packed.table[name].tolist() == values.tolist(), name
    assert packed.table.payload(2) == bytes(len(packed.table.payload(2)))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_cut_packing_is_read_as_far_as_it_goes(tmp_path, pack):
    noise = np.random.default_rng(1).integers(0, 256, (3000, 1000), np.uint8)
    records = [(i, syn.udp(A, 1, B, 2, 0)[:-8] + noise[i].tobytes()) for i in range(3000)]
    packed = pack(syn.pcap(records))
    capture = read_capture(store(tmp_path, packed[: len(packed) // 2]))
    assert 1000 < capture.packets < 2000
    assert "the packing is damaged" in capture.damage


def test_damage_at_the_end_of_a_packing_costs_no_packet(tmp_path):
    packed = gzip.compress(syn.pcap([(i, frame) for i, frame in enumerate(some_frames() * 50)]))
    for damaged in (packed[:-1], packed + b"junk", packed[:-5] + bytes(5)):
        capture = read_capture(store(tmp_path, damaged))
        assert capture.packets == 200
        assert "the packing is damaged" in capture.damage


def test_a_damaged_interface_block_is_damage(tmp_path):
    writer = four_packets()
    for option in (syn.option(9, b"\x7f"), syn.option(14, struct.pack("<q", 2**60))):
        bad = writer.block(1, struct.pack("<HHI", 1, 0, 0) + option)
        capture = read_capture(store(tmp_path, writer.bytes() + bad))
        assert capture.packets == 4
        assert capture.damage.startswith(f"byte {len(writer.bytes())}: time ")


def test_a_section_without_anything(tmp_path):
    from analysis.connections import guess_points, reconstruct

    path = store(tmp_path, syn.Pcapng(names=()).bytes())
    table = read_capture(path).table
    assert len(reconstruct(table, guess_points(table)).flows) == 0


def test_a_frame_of_four_gigabytes_is_not_believed(tmp_path):
    frame = some_frames()[1]
    data = syn.pcap([(0, frame)])
    data = data[:36] + struct.pack("<I", 2**32 - 1) + data[40:]
    table = read_capture(store(tmp_path, data)).table
    assert table["length"].tolist() == [len(frame)]


def test_chunks_are_the_whole(tmp_path):
    records = [(i, frame) for i, frame in enumerate(some_frames() * 50)]
    path = store(tmp_path, syn.pcap(records))
    whole = read_capture(path).table
    parts = list(open_stream(path, AddressBook()).chunks(most=7))
    assert max(map(len, parts)) == 7
    for name, values in whole.columns.items():
        assert np.concatenate([part[name] for part in parts]).tolist() == values.tolist(), name
    assert sum(len(part.signals["row"]) for part in parts) == len(whole.signals["row"]) == 50


def test_captures_read_together_share_addresses(tmp_path):
    paths = [store(tmp_path, syn.pcap([(0, frame)]), f"{i}.pcap") for i, frame in enumerate(some_frames())]
    captures = read_captures(paths)
    assert len({id(capture.table.addresses) for capture in captures}) == 1
    assert captures[0].table["src"][0] == captures[2].table["src"][0]
