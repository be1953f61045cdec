"""The reader against tshark: every field of every packet of every capture that the kernel made, and of its variants."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.connections import Reconstruction, reconstruct
from analysis.packets import Capture, PacketTable, read_capture
from analysis.packets import schema as s
from analysis.packets.signals import removed_ids
from tests.pcaps import tshark, variants

KERNEL = variants.captures()
OPTION = "tcp.options.mptcp."
NOT_DISSECTED = ("minimal", "minimal-short")  # tshark 4.0 does not know RFC 2004


def _flag(bits: int, *flags: int) -> list[int]:
    return [int(bits & flag > 0) for flag in flags]


class Ours:
    """One row of our table, in the words of tshark."""

    def __init__(self, table: PacketTable) -> None:
        self.table = table
        self.columns = {name: values.tolist() for name, values in table.columns.items()}
        self.texts = table.addresses.texts()
        self.signals: dict[int, list[dict[str, Any]]] = defaultdict(list)
        names = [name for name in table.signals if name != "raw"]
        for index in range(len(table.signals["row"])):
            signal = {name: int(table.signals[name][index]) for name in names}
            signal["raw"] = table.signals["raw"][index].tobytes()
            signal["ids"] = removed_ids(table.signals, index)
            self.signals[signal["row"]].append(signal)

    def base(self, row: int) -> dict[str, list[Any]]:
        """Fields of the frame, of IP and of the transport header."""
        c = self.columns
        problems, protocol = c["problems"][row], c["protocol"][row]
        out: dict[str, list[Any]] = {
            "frame.number": [row + 1], "frame.time_epoch": [c["time_ns"][row]],
            "frame.len": [c["length"][row]], "frame.cap_len": [c["captured"][row]],
        }  # fmt: skip
        if problems & s.UNUSABLE:
            return out
        ports = [c["sport"][row]], [c["dport"][row]]
        if protocol == s.TCP:
            out |= {
                "tcp.srcport": ports[0], "tcp.dstport": ports[1], "tcp.seq_raw": [c["seq"][row]],
                "tcp.ack_raw": [c["ack"][row]], "tcp.flags": [c["flags"][row]], "tcp.window_size_value": [c["window"][row]],
                "tcp.len": [c["payload_bytes"][row]],
            }  # fmt: skip
        elif protocol == s.UDP:
            out |= {"udp.srcport": ports[0], "udp.dstport": ports[1]}
            if not problems & s.FRAGMENT:
                out["udp.length"] = [c["payload_bytes"][row] + 8]
        elif protocol in (s.ICMP, s.ICMPV6):
            name = "icmp" if protocol == s.ICMP else "icmpv6"
            out |= {f"{name}.type": ports[0], f"{name}.code": ports[1]}
        return out

    def options(self, row: int) -> dict[str, list[Any]]:
        """Fields of the TCP options; empty lists for those that are not there."""
        c, table = self.columns, self.table
        present = c["options"][row]
        blocks = table.sack[table.sack_start[row] : table.sack_start[row + 1]].tolist()
        out: dict[str, list[Any]] = {
            "tcp.options.mss_val": [c["mss"][row]] if present & s.HAS_MSS else [],
            "tcp.options.wscale.shift": [c["wscale"][row]] if present & s.HAS_WSCALE else [],
            "tcp.options.timestamp.tsval": [c["tsval"][row]] if present & s.HAS_TIMESTAMPS else [],
            "tcp.options.timestamp.tsecr": [c["tsecr"][row]] if present & s.HAS_TIMESTAMPS else [],
            "tcp.options.sack_le": [left for left, _ in blocks], "tcp.options.sack_re": [right for _, right in blocks],
        }  # fmt: skip
        out |= {field: [] for field in (*tshark.MPTCP, *tshark.MPTCP_TEXT) if field.startswith(OPTION)}
        if c["mp_subtypes"][row] >> s.DSS & 1:
            self._dss(row, out)
        for signal in self.signals[row]:
            self._signal(signal, out)
        out[OPTION + "subtype"].sort()
        return out

    def _dss(self, row: int, out: dict[str, list[Any]]) -> None:
        c = self.columns
        flags = c["dss_flags"][row]
        out[OPTION + "subtype"].append(s.DSS)
        for name, bit in (("datafin", s.DSS_DATA_FIN), ("dseqn8", s.DSS_MAP8), ("dseqnpresent", s.DSS_MAP),
                          ("dataack8", s.DSS_ACK8), ("dataackpresent", s.DSS_ACK)):  # fmt: skip
            out[OPTION + name + ".flag"] += _flag(flags, bit)
        if flags & s.DSS_ACK:
            out[OPTION + "rawdataack"].append(c["dack"][row])
        if flags & s.DSS_MAP:
            out[OPTION + "rawdataseqno"].append(c["dsn"][row])
            out[OPTION + "subflowseqno"].append(c["ssn"][row])
            out[OPTION + "datalvllen"].append(c["map_bytes"][row])
            # tshark 4.0 shows no checksum that ends a DSS option: see test_checksums_are_those_of_the_payload.

    def _signal(self, signal: dict[str, Any], out: dict[str, list[Any]]) -> None:
        subtype, length, raw = signal["subtype"], signal["length"], signal["raw"]
        hmac = raw[signal["hmac_at"] :][: signal["hmac_bytes"]]

        def add(name: str, value: Any) -> None:
            out[OPTION + name].append(value)

        add("subtype", subtype)
        if subtype == s.MP_CAPABLE:
            add("version", signal["version"])
            add("checksumreq.flags", signal["flags"] >> 7)
            add("sha256.flag", signal["flags"] & 1)
            if length >= 12:
                add("sendkey", signal["sender_key"])
            if length >= 20:
                add("recvkey", signal["receiver_key"])
            if length >= 22:
                add("datalvllen", signal["data_bytes"])
            if length == 24:
                add("checksum", int.from_bytes(raw[22:24], "big"))
        elif subtype == s.MP_JOIN:
            if length < 24:
                add("backup.flag", signal["backup"])
                add("addrid", signal["address_id"])
                add("sendrand", signal["nonce"])
            if length == 12:
                add("recvtok", signal["token"])
            elif length == 16:
                add("sendtrunchmac", int.from_bytes(hmac, "big"))
            elif length == 24:
                add("sendhmac", hmac.hex())
        elif subtype == s.ADD_ADDR:
            text = self.texts[signal["address"]]
            add("echo", signal["echo"])
            add("addrid", signal["address_id"])
            add("ipv6" if ":" in text else "ipv4", text)
            if signal["port"]:
                add("port", signal["port"])
            if signal["hmac_bytes"]:
                add("addaddrtrunchmac", int.from_bytes(hmac, "big"))
        elif subtype == s.REMOVE_ADDR:
            out[OPTION + "addrid"] += signal["ids"]
        elif subtype == s.MP_PRIO:
            add("backup.flag", signal["backup"])
        elif subtype == s.MP_FAIL:
            add("rawdataseqno", signal["dsn"])
        elif subtype == s.MP_FASTCLOSE:
            add("recvkey", signal["receiver_key"])
        elif subtype == s.MP_TCPRST:
            add("rst_reason", signal["reason"])
            add("flag_T.flag", signal["flags"] & 1)


def compare(capture: Capture, theirs: list[tshark.Packet], cut: bool = False) -> None:
    """Assert that all packets agree. `cut`: some may break off within the headers."""
    table = capture.table
    assert capture.damage is None
    assert len(table) == len(theirs)
    ours, c = Ours(table), {name: values.tolist() for name, values in table.columns.items()}
    for row, packet in enumerate(theirs):
        wanted = ours.base(row)
        problems = c["problems"][row]
        version, src, dst, outer_src, outer_dst = tshark.innermost(packet)
        assert c["ip_version"][row] == version, row
        texts = [ours.texts[c[name][row]] for name in ("src", "dst")]
        assert texts == [tshark.address(src), tshark.address(dst)], row
        if c["tunnel"][row]:
            texts = [ours.texts[c[name][row]] for name in ("outer_src", "outer_dst")]
        assert texts == [tshark.address(outer_src), tshark.address(outer_dst)], row
        if packet["frame.interface_name"]:
            assert table.points[c["interface"][row]].interface == packet["frame.interface_name"][0], row
        if not cut:
            assert not problems & (s.TRANSPORT_CUT | s.OPTIONS_CUT | s.IP_CUT | s.IP_MALFORMED | s.TRANSPORT_MALFORMED), row
            assert not problems & s.OPTIONS_MALFORMED, row
            if problems & s.NOT_IP:
                assert "ip" not in str(packet["frame.protocols"]).split(":"), row
        if c["protocol"][row] == s.TCP and not problems & (s.UNUSABLE | s.OPTIONS_CUT):
            wanted |= ours.options(row)
            packet[OPTION + "subtype"].sort()
        quoted = c["protocol"][row] in (s.ICMP, s.ICMPV6)
        for field, values in wanted.items():
            found = packet[field][:1] if quoted else packet[field]
            if field.startswith(("udp.", "icmp")) or field == "tcp.len":
                found = found[-1:]  # in a UDP tunnel the innermost one
            assert values == found, (row + 1, field)


def compare_flows(found: Reconstruction, theirs: list[tshark.Packet]) -> None:
    """Assert that packets and bytes of every TCP stream, tokens, DSN ranges and the grouping into connections agree."""
    streams: dict[int, list[tuple[int, tshark.Packet]]] = defaultdict(list)
    frames = np.argsort([int(packet["frame.time_epoch"][0]) for packet in theirs], kind="stable") + 1
    flow_of_frame = dict(zip(frames.tolist(), found.flow.tolist(), strict=True))
    for packet in theirs:
        if packet["tcp.stream"] and tshark.innermost(packet)[0] and "icmp" not in str(packet["frame.protocols"]):
            streams[int(packet["tcp.stream"][0])].append((flow_of_frame[int(packet["frame.number"][0])], packet))
    assert len(streams) == len(found.flows)
    grouped = {}
    for number, members in streams.items():
        (flow,) = {flow for flow, _ in members}
        row = found.flows.loc[flow]
        count, size = Counter(), Counter()
        for _, packet in members:
            way = "up" if (packet["tcp.srcport"][0] == row.client_port) == row.opened_by_client else "down"
            count[way] += 1
            size[way] += int(packet["tcp.len"][0])
        assert (row.packets_up, row.packets_down) == (count["up"], count["down"]), number
        assert (row.payload_up, row.payload_down) == (size["up"], size["down"]), number
        ids = {int(packet["mptcp.stream"][0]) for _, packet in members if packet["mptcp.stream"]}
        if ids:
            grouped[number] = (ids.pop(), row.connection)
            assert not ids
        _compare_data(found, row, [packet for _, packet in members])
    for (a, ours_a), (b, ours_b) in combinations(grouped.values(), 2):
        assert (a == b) == (ours_a == ours_b)


def _compare_data(found: Reconstruction, row: Any, members: list[tshark.Packet]) -> None:
    """Tokens and data sequence numbers of one stream."""
    connection = found.connections.loc[row.connection]
    tokens = {int(connection.client_token), int(connection.server_token)}
    for packet in members:
        if tokens != {-1}:  # after a fallback in the handshake the keys mean nothing
            assert set(packet["mptcp.expected_token"]) <= tokens
        if row["join"] == "verified":
            assert set(packet[OPTION + "recvtok"]) <= tokens
        sizes = packet[OPTION + "datalvllen"]
        if not packet[OPTION + "rawdataseqno"] or not sizes or sizes[0] == 0 or 6 in packet[OPTION + "subtype"]:
            continue
        way = "up" if (packet["tcp.srcport"][0] == row.client_port) == row.opened_by_client else "down"
        begin = int(connection.client_idsn if way == "up" else connection.server_idsn)
        space = 2**64 if packet[OPTION + "dseqn8.flag"][0] else 2**32
        fin = int(packet[OPTION + "datafin.flag"][0])
        offset = (int(packet[OPTION + "rawdataseqno"][0]) - begin) % space
        assert offset + int(sizes[0]) <= connection[f"bytes_{way}"] + fin


def view(path: Path) -> tuple[Capture, list[tshark.Packet]]:
    return read_capture(path), tshark.packets(path)


@pytest.mark.parametrize("path", KERNEL, ids=lambda path: path.name.removesuffix(".pcapng.gz"))
def test_every_packet_and_flow_of_every_kernel_capture(path):
    capture, theirs = view(path)
    compare(capture, theirs)
    compare_flows(reconstruct(capture.table), theirs)


@pytest.mark.parametrize(
    ("variant", "family"),
    [(v, family) for v in variants.VARIANTS for family in v.families if v.name not in NOT_DISSECTED],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_packet_of_every_variant(tmp_path, variant, family):
    path = tmp_path / "capture"
    path.write_bytes(variant.make(variants.medley(family)))
    compare(*view(path), cut=variant.name.startswith("cut"))


def test_kernel_captures_hold_every_signal():
    """Else the comparison compares nothing."""
    seen, lengths = set(), defaultdict(set)
    for path in KERNEL:
        signals = read_capture(path).table.signals
        seen |= set(signals["subtype"].tolist())
        for subtype, length in zip(signals["subtype"].tolist(), signals["length"].tolist(), strict=True):
            lengths[subtype].add(length)
    assert seen == {s.MP_CAPABLE, s.MP_JOIN, s.ADD_ADDR, s.REMOVE_ADDR, s.MP_PRIO, s.MP_FAIL, s.MP_FASTCLOSE, s.MP_TCPRST}
    assert lengths[s.MP_CAPABLE] == {4, 12, 20, 22, 24}
    assert lengths[s.MP_JOIN] == {12, 16, 24}
    assert lengths[s.ADD_ADDR] == {8, 10, 16, 18, 20, 22, 28, 30}
    assert len(KERNEL) == 108


@pytest.mark.parametrize("field", ["seq", "tsecr", "dsn", "ssn", "map_bytes", "src"])
def test_the_comparison_sees_one_wrong_value(field):
    capture, theirs = view(variants.KERNEL / "prio-v6.client.pcapng.gz")
    compare(capture, theirs)
    rows = np.flatnonzero(capture.table["map_bytes"])
    capture.table.columns[field][rows[3]] += 1
    with pytest.raises(AssertionError):
        compare(capture, theirs)


def _sum16(data: bytes) -> int:
    return 0xFFFF - int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF


@pytest.mark.parametrize("family", [4, 6])
def test_checksums_are_those_of_the_payload(family):
    """RFC 8684 section 3.3.1, for every mapping: data sequence number, subflow sequence number, length, 0, payload."""
    table = read_capture(variants.KERNEL / f"checksums-v{family}.client.pcapng.gz").table
    c = table.columns
    tcp = c["protocol"] == s.TCP
    start, streams = {}, defaultdict(dict)  # of each direction of each subflow: first sequence number, payload by position
    for row in np.flatnonzero(tcp).tolist():
        way = tuple(int(c[name][row]) for name in ("src", "sport", "dst", "dport"))
        if c["flags"][row] & s.SYN:
            start[way] = int(c["seq"][row])
        for index, byte in enumerate(table.payload(row)):
            streams[way][(int(c["seq"][row]) - start[way]) % 2**32 + index] = byte
    checked = 0
    for row in np.flatnonzero(tcp & (c["map_bytes"] > 1)).tolist():
        way = tuple(int(c[name][row]) for name in ("src", "sport", "dst", "dport"))
        ssn, size = int(c["ssn"][row]), int(c["map_bytes"][row])
        fin = bool(c["dss_flags"][row] & s.DSS_DATA_FIN)
        payload = bytes(streams[way][position] for position in range(ssn, ssn + size - fin))
        head = int(c["dsn"][row]).to_bytes(8, "big") + ssn.to_bytes(4, "big") + size.to_bytes(2, "big") + bytes(2)
        assert _sum16(head + payload) == c["dss_checksum"][row], row
        checked += 1
    assert checked > 100
