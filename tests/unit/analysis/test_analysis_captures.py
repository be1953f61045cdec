"""The capture reader against files made by hand, scapy and dumpcap (with tshark as second reader)."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
import synthetic as syn
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.captures import COLUMNS, CaptureError, read_capture
from analysis.options import OPTION_COLUMNS

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
A, B = "10.0.0.1", "10.0.0.2"


def store(folder: Path, data: bytes) -> Path:
    path = folder / "c.pcapng"
    path.write_bytes(data)
    return path


def some_frames() -> list[bytes]:
    return [
        syn.tcp(A, 1, B, 2, 100, 0, syn.SYN, 0, syn.capable()),
        syn.tcp(A, 1, B, 2, 101, 7, syn.ACK, 1000, syn.dss(2**40 + 5, 1, 3000, dack=9)),
        syn.udp(A, 3, B, 4, 160),
        syn.tcp("2001:db8::1", 5, "2001:db8::2", 6, 1, 2, syn.ACK, 11),
    ]


@pytest.mark.parametrize("end", ["<", ">"])
@pytest.mark.parametrize(("tsresol", "step_ns"), [(9, 1), (6, 1000), (3, 10**6), (12, 1), (0x80 | 30, 1), (0x80 | 10, 976563)])
def test_pcapng_time_resolutions_and_byte_orders(tmp_path, end, tsresol, step_ns):
    writer = syn.Pcapng(end=end, tsresol=tsresol)
    for index, frame in enumerate(some_frames()):
        writer.add(1_700_000_000_123_456_789 % (2**63 if tsresol != 12 else 10**6) + index * 10**9, frame)
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert capture.damage is None
    assert len(capture.frame) == 4
    wanted = 1_700_000_000_123_456_789 % (2**63 if tsresol != 12 else 10**6)
    assert abs(int(capture.frame["time_ns"].iloc[0]) - wanted) <= step_ns
    assert np.diff(capture.frame["time_ns"].to_numpy()).tolist() == pytest.approx([10**9] * 3, abs=step_ns)


@pytest.mark.parametrize("end", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [True, False])
def test_classic_pcap(tmp_path, end, nanoseconds):
    records = [(10**9 * (i + 5) + 123456, frame) for i, frame in enumerate(some_frames())]
    capture = read_capture(store(tmp_path, syn.pcap(records, end, nanoseconds)))
    assert capture.frame["time_ns"].tolist() == [10**9 * (i + 5) + (123456 if nanoseconds else 123000) for i in range(4)]
    assert capture.dropped is None


def test_fields_of_each_protocol(tmp_path):
    writer = syn.Pcapng()
    for index, frame in enumerate(some_frames()):
        writer.add(index, frame)
    frame = read_capture(store(tmp_path, writer.bytes())).frame
    assert list(frame.columns) == [*COLUMNS, *OPTION_COLUMNS]
    assert frame["src"].tolist() == [A, A, A, "2001:db8::1"]
    assert frame["dst"].tolist() == [B, B, B, "2001:db8::2"]
    assert frame["payload_bytes"].tolist() == [0, 1000, 160, 11]
    assert frame["protocol"].tolist() == [6, 6, 17, 6]
    assert frame["flags"].tolist() == [syn.SYN, syn.ACK, 0, syn.ACK]
    assert frame["cap_bytes"].tolist() == [4, 0, 0, 0]
    second = frame.iloc[1]
    assert (second["dsn"], second["ssn"], second["map_bytes"], second["dack"]) == (2**40 + 5, 1, 3000, 9)
    assert (second["dsn_bytes"], second["dack_bytes"]) == (8, 8)


def test_snap_length_keeps_lengths_and_cut_options_are_noted(tmp_path):
    writer = syn.Pcapng(snap=60)
    writer.add(0, syn.tcp(A, 1, B, 2, 1, 2, syn.ACK, 1400, syn.dss(7, 1, 1400, dack=1)))
    frame = read_capture(store(tmp_path, writer.bytes())).frame
    assert frame["payload_bytes"].tolist() == [1400]
    assert frame["options_cut"].tolist() == [True]
    assert frame["dsn_bytes"].tolist() == [0]


def test_several_interfaces_and_drop_counters(tmp_path):
    writer = syn.Pcapng(("wlan0", "lte0"))
    writer.add(2, some_frames()[2], interface=1)
    writer.add(1, some_frames()[2], interface=0)
    writer.statistics(5, 2, interface=0)
    writer.statistics(7, 3, interface=0)  # cumulative: replaces the one before
    writer.statistics(9, 4, interface=1)
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert [i.name for i in capture.interfaces] == ["wlan0", "lte0"]
    assert capture.frame["interface"].tolist() == [0, 1]  # in order of time
    assert capture.dropped == 7


def test_second_section_numbers_its_own_interfaces(tmp_path):
    first, second = syn.Pcapng(("a",)), syn.Pcapng(("b",), end=">", tsresol=6)
    first.add(10**9, some_frames()[2])
    second.add(2 * 10**9, some_frames()[2])
    capture = read_capture(store(tmp_path, first.bytes() + second.bytes()))
    assert [i.name for i in capture.interfaces] == ["a", "b"]
    assert capture.frame["time_ns"].tolist() == [10**9, 2 * 10**9]
    assert capture.frame["interface"].tolist() == [0, 1]


@pytest.mark.parametrize("cut", [1, 4, 11, 17, 33, 80])
def test_unfinished_last_block_is_damage_with_its_offset(tmp_path, cut):
    writer = syn.Pcapng()
    for index, frame in enumerate(some_frames()):
        writer.add(index, frame)
    data = writer.bytes()
    offset = len(data) - len(writer.blocks[-1])
    capture = read_capture(store(tmp_path, data[:-cut]))
    assert len(capture.frame) == 3
    assert f"byte {offset}:" in capture.damage


def test_broken_block_in_the_middle_stops_there(tmp_path):
    writer = syn.Pcapng()
    for index, frame in enumerate(some_frames()):
        writer.add(index, frame)
    blocks = list(writer.blocks)
    blocks[3] = blocks[3][:4] + b"\x09\x00\x00\x00" + blocks[3][8:]
    capture = read_capture(store(tmp_path, b"".join(blocks)))
    assert len(capture.frame) == 1
    assert "impossible" in capture.damage


def test_cut_classic_pcap(tmp_path):
    data = syn.pcap([(i, frame) for i, frame in enumerate(some_frames())])
    capture = read_capture(store(tmp_path, data[:-3]))
    assert len(capture.frame) == 3
    assert "cut" in capture.damage


@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1\0"])
def test_no_capture_at_all_is_one_line(tmp_path, data):
    with pytest.raises(CaptureError) as info:
        read_capture(store(tmp_path, data))
    assert "c.pcapng: byte" in str(info.value)
    assert "\n" not in str(info.value)


def test_missing_file_is_a_capture_error(tmp_path):
    with pytest.raises(CaptureError, match=r"nothing\.pcapng"):
        read_capture(tmp_path / "nothing.pcapng")


def test_packets_of_no_interest_are_counted(tmp_path):
    writer = syn.Pcapng()
    writer.add(0, b"\xff" * 12 + b"\x08\x06" + bytes(28))  # ARP
    fragment = bytearray(some_frames()[2])
    fragment[20:22] = b"\x00\x10"
    writer.add(1, bytes(fragment))
    writer.add(2, some_frames()[2])
    capture = read_capture(store(tmp_path, writer.bytes()))
    assert (capture.packets, capture.undecoded, len(capture.frame)) == (3, 2, 1)


def test_impossible_headers_are_not_decoded(tmp_path):
    writer = syn.Pcapng()
    short_header = bytearray(syn.tcp(A, 1, B, 2, 3, 4, syn.ACK, 10))
    short_header[14 + 20 + 12] = 4 << 4  # 16 bytes of TCP header
    longer_than_packet = bytearray(syn.tcp(A, 1, B, 2, 3, 4, syn.ACK, 10))
    longer_than_packet[14 + 20 + 12] = 15 << 4
    for index, frame in enumerate((short_header, longer_than_packet)):
        writer.add(index, bytes(frame))
    assert read_capture(store(tmp_path, writer.bytes())).undecoded == 2


@pytest.mark.parametrize("missing", [1, 2, 6, 14])
def test_dss_shorter_than_its_flags_demand_is_ignored(tmp_path, missing):
    whole = syn.dss(7, 1, 1400, dack=1)
    option = whole[:1] + bytes([len(whole) - missing]) + whole[2 : len(whole) - missing]
    writer = syn.Pcapng()
    writer.add(0, syn.tcp(A, 1, B, 2, 1, 2, syn.ACK, 1400, option))
    row = read_capture(store(tmp_path, writer.bytes())).frame.iloc[0]
    assert (row["dsn_bytes"], row["dack_bytes"], row["map_bytes"]) == (0, 0, 0)


def test_scapy_writes_what_we_read(tmp_path):
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapNgWriter

    path = tmp_path / "s.pcapng"
    writer = PcapNgWriter(str(path))
    options = [("Timestamp", (1, 2)), ("SAck", (5, 9)), ("NOP", None), ("NOP", None), (30, syn.dss(77, 3, 10)[2:])]
    packet = Ether() / IP(src=A, dst=B) / TCP(sport=9, dport=8, seq=4, options=options) / (b"x" * 33)
    packet.time = 1000.5
    writer.write(packet)
    writer.close()
    frame = read_capture(path).frame
    assert frame[["sport", "dport", "seq", "payload_bytes", "dsn", "ssn", "map_bytes"]].values.tolist() == [
        [9, 8, 4, 33, 77, 3, 10]
    ]
    assert frame["time_ns"].tolist() == [1000_500_000_000]


@pytest.mark.parametrize("name", ["real-mptcp/pcap/mn-mn-wlan", "real-mptcp/pcap/mn-mn-lte", "two-interfaces"])
def test_every_field_as_tshark_reads_it(name):
    capture = read_capture(PCAPS / f"{name}.pcapng")
    with (PCAPS / f"{Path(name).name}.tshark").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    rows.sort(key=lambda row: row["frame.time_epoch"])  # dumpcap interleaves interfaces in blocks, we sort by time
    frame = capture.frame
    assert capture.damage is None
    assert capture.dropped == 0
    assert len(frame) == len(rows) > 20
    names = [interface.name for interface in capture.interfaces]
    for ours, theirs in zip(frame.to_dict("records"), rows, strict=True):
        seconds, fraction = theirs["frame.time_epoch"].split(".")
        assert ours["time_ns"] == int(seconds) * 10**9 + int(fraction)
        assert names[ours["interface"]] == theirs["frame.interface_name"]
        assert ours["src"] == theirs["ip.src"] + theirs["ipv6.src"]
        assert ours["dst"] == theirs["ip.dst"] + theirs["ipv6.dst"]
        if ours["protocol"] == 17:
            assert (ours["sport"], ours["dport"]) == (int(theirs["udp.srcport"]), int(theirs["udp.dstport"]))
            assert ours["payload_bytes"] == int(theirs["udp.length"]) - 8
            continue
        for mine, other in (("sport", "srcport"), ("dport", "dstport"), ("seq", "seq_raw"), ("ack", "ack_raw"),
                            ("payload_bytes", "len")):  # fmt: skip
            assert ours[mine] == int(theirs[f"tcp.{other}"]), (mine, theirs)
        assert ours["flags"] == int(theirs["tcp.flags"], 16) & 255
        option = {k.removeprefix("tcp.options.mptcp."): v for k, v in theirs.items() if "mptcp" in k}
        if not option["subtype"]:
            assert ours["mp_subtypes"] == 0
            continue
        assert ours["mp_subtypes"] >> int(option["subtype"]) & 1
        for mine, other in (("sender_key", "sendkey"), ("receiver_key", "recvkey"), ("join_token", "recvtok"),
                            ("dsn", "rawdataseqno"), ("ssn", "subflowseqno")):  # fmt: skip
            assert ours[mine] == int(option[other] or 0), (mine, theirs)
        if option["rawdataack"]:
            assert ours["dack"] == int(option["rawdataack"])
        assert ours["map_bytes"] + ours["cap_data_bytes"] == int(option["datalvllen"] or 0)


def test_a_hundred_thousand_packets_take_less_than_a_second(tmp_path):
    writer = syn.Pcapng()
    frames = some_frames()
    for index in range(500):
        writer.add(index, frames[index % 2 + 1])
    path = store(tmp_path, b"".join(writer.blocks[:2]) + b"".join(writer.blocks[2:]) * 200)
    best = 9.0
    for _ in range(3):
        begin = time.perf_counter()
        capture = read_capture(path)
        best = min(best, time.perf_counter() - begin)
    assert len(capture.frame) == 100_000
    assert best < 1.0


SAMPLES = [PCAPS / "two-interfaces.pcapng", PCAPS / "real-mptcp/pcap/mn-mn-wlan.pcapng"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_captures_never_surprise(data, tmp_path_factory):
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)).read_bytes()[:6000])
    for _ in range(data.draw(st.integers(0, 12))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    sample = sample[: data.draw(st.integers(0, len(sample)))]
    read_or_refuse(tmp_path_factory.getbasetemp(), bytes(sample))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1"]))
def test_noise_never_surprises(tmp_path_factory, noise, magic):
    read_or_refuse(tmp_path_factory.getbasetemp(), magic + noise)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_options_are_read_without_surprise(tmp_path_factory, options):
    writer = syn.Pcapng()
    writer.add(0, syn.tcp(A, 1, B, 2, 3, 4, syn.ACK, 10, options[:40]))
    capture = read_or_refuse(tmp_path_factory.getbasetemp(), writer.bytes())
    assert len(capture.frame) == 1


def read_or_refuse(folder: Path, data: bytes):
    path = folder / "fuzz.pcapng"
    path.write_bytes(data)
    try:
        capture = read_capture(path)
    except CaptureError:
        return None
    assert len(capture.frame) == capture.packets - capture.undecoded
    assert (capture.frame["payload_bytes"] >= 0).all()
    return capture
