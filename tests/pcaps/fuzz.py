"""Hostile captures for the analysis: `python -m tests.pcaps.fuzz --inputs N --seed S [--generated N]`.

Mutates small real captures and their variants byte by byte and field by field, generates files by hypothesis, and feeds all
of it to the reader, the reconstruction and the Mobile IP tables. Runs in a process of its own, with numba's bounds checks
on (`NUMBA_BOUNDSCHECK=1`, own `NUMBA_CACHE_DIR`): an index that leaves its array raises instead of corrupting memory.
Prints one JSON object; any failure ends it with a traceback that names seed and number of the input.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import json
import random
import resource
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.connections import reconstruct
from analysis.mobileip import read_mobility
from analysis.packets import AddressBook, Capture, CaptureError, PacketTable, merge, read_capture
from tests.pcaps import variants
from tests.pcaps.variants import Record, Records

SMALL = 20
BATCH = 25
"""So many captures are looked at together; one in `ALONE` also by itself."""
ALONE = 12
LIMIT_S = 3.0
HANG_S = 60
EXTRA_BYTES = 2 << 30
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 12, 19, 20, 39, 40, 41, 60, 127, 128, 254, 255)
WORDS = (0, 1, 2, 7, 8, 11, 12, 27, 28, 31, 32, 33, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
KINDS = (0, 1, 2, 3, 4, 5, 8, 14, 19, 28, 29, 30, 34, 69, 253, 254, 255)
PROTOCOLS = (0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 55, 58, 59, 60, 135, 140, 255)


# Seeds -----------------------------------------------------------------------------------------------------------------


def _mobile_ip() -> Records:
    """Registrations, a tunnelled packet, a binding update with home address option: bare bytes, correct enough to be read."""
    home, care_of, agent = bytes((10, 9, 0, 5)), bytes((10, 1, 0, 77)), bytes((10, 9, 0, 1))
    ident = struct.pack("!II", 3_900_000_000, 7)
    auth = bytes((32, 20)) + struct.pack("!I", 256) + bytes(16)
    multipath = bytes((154, 1)) + struct.pack("!H", 4) + bytes((4, 1, 3, 0))
    request = bytes((1, 0x22)) + struct.pack("!H", 60) + home + agent + care_of + ident + multipath + auth
    reply = bytes((3, 0)) + struct.pack("!H", 60) + home + agent + ident + auth
    frames = []
    for number, (src, dst, body) in enumerate(((care_of, agent, request), (agent, care_of, reply)) * 3):
        udp = struct.pack("!HHHH", 434, 434, 8 + len(body), 0) + body
        frames.append(Record(10**18 + number * 10**8, 0, _frame(variants.ipv4_header(17, len(udp), src, dst) + udp), 0))
    prefix = bytes.fromhex("20010db80009") + bytes(9)
    update = bytes((59, 2, 5, 0, 0, 0)) + struct.pack("!HHH", 9, 0xC000, 100) + bytes((3, 16)) + prefix[:14] + b"\0\0"
    option = bytes((135, 2, 1, 2, 0, 0, 201, 16)) + prefix + b"\5"
    body = option + update
    packet = struct.pack("!IHBB", 6 << 28, len(body), 60, 64) + prefix + b"\1" + prefix + b"\2" + body
    frames += [Record(10**18 + number * 10**9, 0, _frame(packet), 0) for number in range(3)]
    return [replace(r, wire=len(r.frame)) for r in frames]


def _frame(packet: bytes) -> bytes:
    return bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def seeds() -> list[Records]:
    """Some twenty packets each: every signal that there is, both IP versions, tunnels and tags, Mobile IP."""
    found = [_mobile_ip()]
    for family in (4, 6):
        for name in ("bulk", "no-timestamps", "add-addr-port", "prio", "handover-remove", "fallback-checksum",
                     "join-ack-hmac", "fastclose", "short-numbers", "mixed", "tcp", "server-join"):  # fmt: skip
            records = variants.load(variants.KERNEL / f"{name}-v{family}.client.pcapng.gz")
            first = 54 if family == 4 else 74  # where the options begin
            odd = [r for r in records if r.frame[first : first + 1] == b"\x1e"]
            found += [records[:SMALL], records[-SMALL:], (odd or records)[:SMALL]]
        whole = found[-1]
        found += [variants.tunnelled(whole, 4), variants.tunnelled(whole, 6), variants.gre(whole, 0x3000),
                  variants.ip_options(whole), variants.tagged(whole, (0x88A8, 9), (0x8100, 5))]  # fmt: skip
        if family == 4:
            found += [variants.udp_tunnel(variants.only(whole, variants.ETH_IPV4)), variants.minimal(whole)]
    return [records for records in found if records]


# Mutation of packets -----------------------------------------------------------------------------------------------------


def _tcp_at(frame: bytes) -> int | None:
    """Where the TCP header of an untagged, untunnelled frame begins."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == variants.ETH_IPV4 and len(frame) > 54 and frame[23] == 6:
        return 14 + (frame[14] & 15) * 4
    if kind == variants.ETH_IPV6 and len(frame) > 74 and frame[20] == 6:
        return 54
    return None


def _options(rng: random.Random, room: int) -> bytes:
    """TCP options that fit, overlap, repeat or lie."""
    out = b""
    while len(out) < room:
        kind = rng.choice(KINDS)
        body = rng.randbytes(rng.choice((0, 1, 2, 6, 8, 10, 14, 18, 22, 26, 32)))
        if kind == 5:  # SACK: overlapping, inverted, empty blocks
            base = rng.getrandbits(32)
            edges = [(base + rng.randrange(-3000, 3000)) % 2**32 for _ in range(2 * rng.randrange(1, 5))]
            body = b"".join(struct.pack("!I", edge) for edge in edges)
        elif kind == 30:
            body = bytes((rng.randrange(16) << 4 | rng.randrange(16), rng.randrange(256))) + body
        length = len(body) + 2 if rng.random() < 0.8 else rng.choice(EDGES)
        out += bytes((kind,)) if kind < 2 else bytes((kind, length)) + body
    return out[:room]


def _hurt_frame(rng: random.Random, frame: bytes) -> bytes:
    """One frame with a lie in one of its headers."""
    data = bytearray(frame)
    tcp = _tcp_at(frame)
    choice = rng.randrange(9)
    if tcp is not None and tcp + 20 < len(data) and choice < 5:
        end = min(tcp + (data[tcp + 12] >> 4) * 4, len(data))
        if choice == 0:
            data[tcp + 12] = rng.randrange(256)
        elif choice == 1:  # an option's kind or length
            at = tcp + 20
            places = []
            while at < end - 1 and data[at]:
                places.append(at)
                at += 1 if data[at] == 1 else max(data[at + 1], 2)
            if places:
                at = rng.choice(places)
                data[at + rng.randrange(2)] = rng.choice(EDGES if rng.random() < 0.7 else KINDS)
        elif choice == 2:
            room = 40 if rng.random() < 0.5 else max(end - tcp - 20, 0)
            data[tcp + 12] = ((20 + room) // 4) << 4 | data[tcp + 12] & 15
            data[tcp + 20 : end] = _options(rng, room)
        elif choice == 3:  # extreme numbers
            at = rng.choice((tcp + 4, tcp + 8, *range(tcp + 20, max(end - 4, tcp + 21), 2)))
            data[at : at + 4] = struct.pack("!I", rng.choice(WORDS))
        else:
            data[tcp + 13] = rng.randrange(256)
    elif choice == 5 and len(data) > 13:
        data[rng.choice((12, 13))] = rng.choice((0x08, 0x00, 0x86, 0xDD, 0x81, 0x88, 0xA8, 0x91))
    elif choice == 6 and len(data) > 40:  # length, header length, protocol, fragment fields of IP
        data[rng.choice((14, 16, 17, 18, 19, 20, 21, 23))] = rng.choice((*EDGES, *PROTOCOLS, rng.randrange(256)))
    elif choice == 7:
        data = data[: rng.randrange(len(data) + 1)]
    elif data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _hurt_records(rng: random.Random, records: Records) -> Records:
    """A few packets changed, lost, doubled, out of order, at impossible times."""
    records = list(records)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not records:
            break
        at = rng.randrange(len(records))
        record = records[at]
        choice = rng.randrange(12)
        if choice < 7:
            records[at] = replace(record, frame=_hurt_frame(rng, record.frame))
        elif choice == 7:
            records[at] = replace(record, time_ns=rng.choice((0, 1, record.time_ns - 10**10, record.time_ns + 10**15)))
        elif choice == 8:
            records[at] = replace(record, wire=rng.choice((0, 1, 65535, 2**31, 2**32 - 1)))
        elif choice == 9:
            records[at : at + 1] = [record] * rng.randrange(4)
        elif choice == 10:
            other = rng.randrange(len(records))
            records[at], records[other] = records[other], record
        else:  # the other direction sends this
            frame = record.frame
            records[at] = replace(record, frame=frame[:26] + frame[30:34] + frame[26:30] + frame[34:])
    return records


# Mutation of files -------------------------------------------------------------------------------------------------------


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 3, 4, 16, 200)))


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 3, 4, 16, 200))]


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _double(rng: random.Random, data: bytearray) -> None:
    at, size = rng.randrange(len(data)), rng.choice((4, 16, 60, 400))
    data[at:at] = data[at : at + size]


def _lie(rng: random.Random, data: bytearray) -> None:
    """An aligned word, which is often a length, becomes an extreme one."""
    at = rng.randrange(len(data) // 4 or 1) * 4
    word = struct.pack(rng.choice("<>") + "I", rng.choice(WORDS) if rng.random() < 0.7 else rng.randrange(1 << 18))
    data[at : at + 4] = word


def _lie_in_block(rng: random.Random, data: bytearray) -> None:
    """The length of a pcapng block, before or behind it, or a field of a packet or interface block."""
    if data[:4] != b"\x0a\x0d\x0d\x0a":
        _lie(rng, data)
        return
    blocks, at = [], 0
    while at + 12 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if size < 12:
            break
        blocks.append((at, size))
        at += size
    at, size = rng.choice(blocks or [(0, 12)])
    place = rng.choice((at, at + 4, at + 8, at + 12, at + 20, at + 24, at + size - 4))
    data[place : place + 4] = struct.pack("<I", rng.choice((*WORDS, size + 4, size - 4, size + 1)))


FILE_MUTATORS = (_flip, _insert, _delete, _truncate, _double, _lie, _lie, _lie_in_block, _lie_in_block)
WRITERS: tuple[Callable[[Records], bytes], ...] = (
    variants.pcapng, variants.pcap, lambda r: variants.pcap(r, end=">", nanoseconds=True),
    lambda r: variants.pcapng(r, end=">", resolution=6), lambda r: variants.pcapng(r, noise=True, packet=2),
    lambda r: variants.pcapng(r, packet=3, snaplen=90), lambda r: variants.pcapng(variants.sll(r), variants.SLL),
    lambda r: variants.pcapng(variants.sll2(r), variants.SLL2), lambda r: variants.pcapng(variants.raw(r), variants.RAW),
    lambda r: variants.pcap(variants.loopback(r, "<", 30), variants.NULL),
)  # fmt: skip


def mutated(rng: random.Random, stock: list[Records]) -> bytes:
    """One hostile file."""
    records = rng.choice(stock)
    if rng.random() < 0.6:
        records = _hurt_records(rng, records)
    if rng.random() < 0.1:
        records = records + rng.choice(stock)
    # Impossible times and lengths do not fit every format.
    records = [
        replace(r, time_ns=max(r.time_ns, 0), wire=min(max(r.wire, 14), 2**32 - 64)) for r in records if len(r.frame) > 13
    ]
    classic = any(r.time_ns >= 2**31 * 10**9 for r in records)
    data = bytearray((variants.pcapng if classic else rng.choice(WRITERS))(records))
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            if data:
                rng.choice(FILE_MUTATORS)(rng, data)
    if rng.random() < 0.03:
        data = bytearray(gzip.compress(bytes(data), 1))
        if data and rng.random() < 0.7:
            rng.choice((_flip, _truncate, _delete))(rng, data)
    return bytes(data)


# Checks ------------------------------------------------------------------------------------------------------------------


def check_table(capture: Capture) -> None:
    """What everything built on a table relies on."""
    table, count = capture.table, len(capture.table)
    assert all(len(values) == count for values in table.columns.values())
    starts, rows = table.sack_start, table.signals["row"]
    assert starts[0] == 0
    assert starts[-1] == len(table.sack)
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(rows) >= 0).all()
    assert rows.min(initial=0) >= 0
    assert rows.max(initial=-1) < count
    assert table["interface"].max(initial=0) < max(len(table.points), 1)
    for name in ("src", "dst", "outer_src", "outer_dst"):
        assert table[name].min(initial=0) >= 0
        assert table[name].max(initial=0) < len(table.addresses)
    assert (table["payload_captured"] <= table["payload_bytes"]).all()
    ends = (table["payload_at"] + table["payload_captured"])[table["payload_captured"] > 0]
    assert table["payload_at"].min(initial=0) >= 0
    assert ends.max(initial=0) <= max((point.data.size for point in table.points), default=0)
    # Differences of times must fit 64 bits.
    assert np.abs(table["time_ns"]).max(initial=0) <= 2**63 - 1


def analyse(table: PacketTable) -> None:
    """All that is made from a table; nothing may raise."""
    found = reconstruct(table)
    assert len(found.flow) == len(table)
    read_mobility(table)


class Harness:
    """Feeds files to the analysis and counts what became of them."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        self.count: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.book, self.batch = AddressBook(), []  # type: AddressBook, list[Capture]

    def feed(self, data: bytes) -> None:
        """One file. Raises AssertionError, or whatever the analysis must not raise."""
        # A file of its own: tables in the batch still have theirs mapped.
        path = self.folder / f"{self.count['inputs'] % (2 * BATCH)}.pcap"
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        begun = time.process_time()  # the machine may be busy with other things
        self.count["inputs"] += 1
        try:
            capture = read_capture(path, self.book)
        except CaptureError as error:
            text = str(error)
            assert text.startswith(f"{path}: "), text
            assert "\n" not in text
            assert text.count(": ") >= 2, text
            self.count["refused"] += 1
        else:
            check_table(capture)
            self.count["read"] += 1
            self.count["damaged"] += capture.damage is not None
            assert "\n" not in (capture.damage or "")
            assert "byte" in (capture.damage or "byte"), capture.damage
            self.count["packets"] += capture.packets
            self.batch.append(capture)
            if self.count["inputs"] % ALONE == 0:
                analyse(capture.table.sorted_by_time())
        if len(self.batch) >= BATCH:
            self.flush()
        spent = time.process_time() - begun
        self.slowest_s = max(self.slowest_s, spent)
        assert spent < self.limit_s, f"{spent:.1f} s for an input of {len(data)} bytes"
        faulthandler.cancel_dump_traceback_later()

    def flush(self) -> None:
        """Look at the files of a batch together, or one by one when that fails, so that the culprit is named."""
        try:
            if self.batch:
                analyse(merge(self.batch))
        except Exception as error:
            for capture in self.batch:
                try:
                    analyse(capture.table.sorted_by_time())
                except Exception:
                    raise AssertionError(f"culprit kept as {keep(capture.path)}") from error
            raise
        self.batch, self.book = [], AddressBook()


def keep(path: Path) -> Path:
    """Copy an input to where it survives this process."""
    out = Path(tempfile.mkdtemp(prefix="fuzz-")) / path.name
    out.write_bytes(path.read_bytes())
    return out


def bounds_are_checked() -> bool:
    """Whether numba's bounds checks are on: read behind an array and see."""
    from analysis.compiled import compiled

    @compiled
    def beyond(values: Any, index: Any) -> Any:
        return values[index]

    try:
        beyond(np.zeros(4, np.uint8), 4)
    except IndexError:
        return True
    return False


def limit_memory() -> int:
    """Allow `EXTRA_BYTES` more address space than now; returns the present use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + EXTRA_BYTES, now + EXTRA_BYTES))
    return now


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--generated", type=int, default=0)
    options = parser.parse_args()
    stock = seeds()
    checked = bounds_are_checked()
    with tempfile.TemporaryDirectory() as name:
        harness = Harness(Path(name), 1e9)
        for records in stock:  # compiles every kernel, and shows that the seeds are sound
            harness.feed(variants.pcapng(records))
        harness.flush()
        assert harness.count["refused"] == harness.count["damaged"] == 0
        limit_memory()
        harness.count.clear()
        harness.slowest_s, harness.limit_s = 0.0, LIMIT_S
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(options.inputs):
            data = mutated(random.Random(f"{options.seed}/{number}"), stock)
            try:
                harness.feed(data)
            except BaseException:
                print(f"seed {options.seed}, input {number}", flush=True)
                raise
        harness.flush()
        if options.generated:
            from tests.pcaps.generated import feed_generated

            feed_generated(harness, options.generated)
            harness.flush()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(json.dumps({**harness.count, "bounds_checked": checked, "slowest_s": harness.slowest_s, "grown_kbytes": grown}))


if __name__ == "__main__":
    main()
