"""Hand-made captures and run directories with answers known by construction."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

from analysis.metrics import evaluate
from analysis.rundir import load_run

WALL0 = 1_700_000_000_000_000_000  # scenario's time 0 on the capture clock, ns
MONO0 = 5_000_000_000_000  # and on the applications' clock
CLIENT_KEY, SERVER_KEY = 0x1111222233334444, 0xAAAABBBBCCCCDDDD
ADDRESSES = {"mn-wlan": "10.1.0.100", "mn-lte": "10.2.0.100"}
CN = "10.64.0.2"
SYN, ACK, FIN, PSH = 2, 16, 1, 8


def option(code: int, value: bytes, end: str = "<") -> bytes:
    return struct.pack(end + "HH", code, len(value)) + value + bytes(-len(value) % 4)


class Pcapng:
    """Writes the blocks that dumpcap writes."""

    def __init__(self, names=("eth0",), end="<", tsresol=9, snap=128, link_type=1):
        self.end, self.tsresol, self.snap = end, tsresol, snap
        self.blocks = [self.block(0x0A0D0D0A, struct.pack(end + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
        for name in names:
            options = option(2, name.encode(), end) + option(9, bytes([tsresol]), end) + option(0, b"", end)
            self.blocks.append(self.block(1, struct.pack(end + "HHI", link_type, 0, snap) + options))

    def block(self, kind: int, body: bytes) -> bytes:
        length = 12 + len(body) + (-len(body) % 4)
        padded = body + bytes(-len(body) % 4)
        return struct.pack(self.end + "II", kind, length) + padded + struct.pack(self.end + "I", length)

    def add(self, time_ns: int, frame: bytes, interface: int = 0, original: int | None = None) -> None:
        per_second = 2 ** (self.tsresol & 127) if self.tsresol & 128 else 10**self.tsresol
        ticks = time_ns * per_second // 10**9
        cut = frame[: self.snap]
        head = struct.pack(self.end + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(cut), original or len(frame))
        self.blocks.append(self.block(6, head + cut))

    def statistics(self, received: int, dropped: int, interface: int = 0) -> None:
        options = option(4, struct.pack(self.end + "Q", received), self.end)
        options += option(5, struct.pack(self.end + "Q", dropped), self.end) + option(0, b"", self.end)
        self.blocks.append(self.block(5, struct.pack(self.end + "III", interface, 0, 0) + options))

    def bytes(self) -> bytes:
        return b"".join(self.blocks)


def pcap(records, end="<", nanoseconds=True, link_type=1, snap=65535) -> bytes:
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = struct.pack(end + "IHHiIII", magic, 2, 4, 0, 0, snap, link_type)
    for time_ns, frame in records:
        part = time_ns % 10**9 // (1 if nanoseconds else 1000)
        out += struct.pack(end + "IIII", time_ns // 10**9, part, min(len(frame), snap), len(frame)) + frame[:snap]
    return out


def ipv4(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def tcp(src, sport, dst, dport, seq, ack=0, flags=ACK, size=0, options=b"") -> bytes:
    options += b"\x01" * (-len(options) % 4)
    segment = struct.pack(
        ">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0
    )
    segment += options + bytes(size)
    return ip(src, dst, 6, segment)


def udp(src, sport, dst, dport, size) -> bytes:
    return ip(src, dst, 17, struct.pack(">HHHH", sport, dport, 8 + size, 0) + bytes(size))


def ip(src, dst, protocol, segment) -> bytes:
    ethernet = b"\x02" * 6 + b"\x04" * 6
    if ":" in src:
        import ipaddress

        head = struct.pack(">IHBB", 6 << 28, len(segment), protocol, 64)
        head += ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed
        return ethernet + b"\x86\xdd" + head + segment
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0) + ipv4(src) + ipv4(dst)
    return ethernet + b"\x08\x00" + head + segment


# --- MPTCP options (RFC 8684 section 3) ---


def idsn(key: int) -> int:
    return int.from_bytes(hashlib.sha256(key.to_bytes(8, "big")).digest()[24:], "big")


def token(key: int) -> int:
    return int.from_bytes(hashlib.sha256(key.to_bytes(8, "big")).digest()[:4], "big")


def capable(*keys: int, length: int | None = None) -> bytes:
    body = b"".join(struct.pack(">Q", key) for key in keys)
    if length is not None:
        body += struct.pack(">H", length)
    return struct.pack(">BBBB", 30, 4 + len(body), 0x01, 0x01) + body


def join_syn(join_token: int) -> bytes:
    return struct.pack(">BBBBII", 30, 12, 0x10, 2, join_token, 7)


def join_syn_ack() -> bytes:
    return struct.pack(">BBBBQI", 30, 16, 0x10, 2, 9, 7)


def join_ack() -> bytes:
    return struct.pack(">BBBB", 30, 24, 0x10, 0) + bytes(20)


def dss(dsn=None, ssn=0, length=0, wide=True, dack=None, fin=False) -> bytes:
    flags, body = 0, b""
    if dack is not None:
        flags |= 3
        body += struct.pack(">Q", dack % 2**64)
    if dsn is not None:
        flags |= 4 | (8 if wide else 0) | (16 if fin else 0)
        body += struct.pack(">Q", dsn % 2**64) if wide else struct.pack(">I", dsn % 2**32)
        body += struct.pack(">IH", ssn % 2**32, length)
    return struct.pack(">BBBB", 30, 4 + len(body), 0x20, flags) + body


@dataclass
class Subflow:
    """A flow from the mobile node (opener) to the correspondent node; `position` is where the next new byte goes."""

    device: str
    port: int
    client_isn: int = 1000
    server_isn: int = 2000
    position: int = 0
    initial: bool = True
    received: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Scene:
    """A download CN -> MN. All times in s since the scenario's time 0; `delay_s` one way."""

    mptcp: bool = True
    delay_s: float = 0.015
    server_isn: int = 2000
    wide: bool = True
    first_dsn: int = field(default_factory=lambda: idsn(SERVER_KEY) + 1)
    server_key: int = SERVER_KEY
    records: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: {"mn-wlan": [], "mn-lte": [], "cn-eth0": []})
    arrivals: list[tuple[float, int, int]] = field(default_factory=list)  # s, data position, size

    def down(self, flow: Subflow, at_s: float, frame: bytes, arrives=True) -> None:
        self.records["cn-eth0"].append((WALL0 + round((at_s - self.delay_s) * 1e9), frame))
        if arrives:
            self.records[flow.device].append((WALL0 + round(at_s * 1e9), frame))

    def up(self, flow: Subflow, at_s: float, frame: bytes) -> None:
        self.records[flow.device].append((WALL0 + round(at_s * 1e9), frame))
        self.records["cn-eth0"].append((WALL0 + round((at_s + self.delay_s) * 1e9), frame))

    def open(self, flow: Subflow, at_s: float, answer=True) -> Subflow:
        me, syn, syn_ack, third = ADDRESSES[flow.device], b"", b"", b""
        if self.mptcp and flow.initial:
            syn, syn_ack, third = capable(), capable(self.server_key), capable(CLIENT_KEY, self.server_key)
            syn_ack, third = (syn_ack, third) if answer else (b"", b"")
        elif self.mptcp:
            syn, syn_ack, third = join_syn(token(self.server_key)), join_syn_ack(), join_ack()
        c, s, d = flow.client_isn, flow.server_isn, self.delay_s
        self.up(flow, at_s, tcp(me, flow.port, CN, 5001, c, 0, SYN, 0, syn))
        self.down(flow, at_s + 2 * d, tcp(CN, 5001, me, flow.port, s, c + 1, SYN | ACK, 0, syn_ack))
        self.up(flow, at_s + 2 * d, tcp(me, flow.port, CN, 5001, c + 1, s + 1, ACK, 0, third))
        return flow

    def data(self, flow, at_s, size, position, subflow_position=None, arrives=True, mapping=None, bare=False) -> None:
        """One segment of the data stream at `position`; `mapping` = (data position, subflow position, length)."""
        where = flow.position if subflow_position is None else subflow_position
        data, sub, length = mapping or (position, where, size)
        options = b"" if bare or not self.mptcp else dss(self.first_dsn + data, sub + 1, length, self.wide, dack=5)
        frame = tcp(CN, 5001, ADDRESSES[flow.device], flow.port, flow.server_isn + 1 + where, 1, ACK | PSH, size, options)
        self.down(flow, at_s, frame, arrives)
        if subflow_position is None:
            flow.position += size
        if arrives:
            self.arrivals.append((at_s, position, size))
            flow.received.append((where, where + size))
            self.ack(flow, at_s + 1e-5, max(end for _, end in flow.received))

    def ack(self, flow: Subflow, at_s: float, position: int) -> None:
        """The mobile node acknowledges the subflow up to `position` (whether there are holes does not matter here)."""
        frame = tcp(ADDRESSES[flow.device], flow.port, CN, 5001, flow.client_isn + 1, flow.server_isn + 1 + position, ACK)
        self.up(flow, at_s, frame)

    def progress(self) -> list[tuple[float, int]]:
        """What an application reading at once would record: (s, cumulative bytes)."""
        got: set[tuple[int, int]] = set()
        reached, out = 0, []
        for at_s, position, size in sorted(self.arrivals):
            got.add((position, position + size))
            before = reached
            while step := [end for start, end in got if start <= reached < end]:
                reached = max(step)
                got = {(a, b) for a, b in got if b > reached}
            if reached > before:
                out.append((at_s + 0.0005, reached))
        return out


def capture_bytes(records, name, dropped=0) -> bytes:
    writer = Pcapng((name,))
    for time_ns, frame in sorted(records, key=lambda record: record[0]):
        writer.add(time_ns, frame)
    writer.statistics(len(records), dropped)
    return writer.bytes()


GRAPH = {
    "nodes": [
        {"name": "mn", "kind": "mobile-host"}, {"name": "ar1", "kind": "access-router"},
        {"name": "ar2", "kind": "access-router"}, {"name": "core", "kind": "router"}, {"name": "hr1", "kind": "router"},
        {"name": "ha1", "kind": "home-agent"}, {"name": "cr1", "kind": "router"}, {"name": "cn", "kind": "host"},
    ],
    "links": [
        {"a": "mn", "b": "ar1", "a_interface": "mn-wlan", "b_interface": "ar1-ap1", "label": "WLAN 20 Mbit/s 15 ms"},
        {"a": "mn", "b": "ar2", "a_interface": "mn-lte", "b_interface": "ar2-ap1", "label": "LTE 20 Mbit/s 25 ms"},
        {"a": "ar1", "b": "core", "label": "1 Gbit/s 1 ms"}, {"a": "ar2", "b": "core", "label": "1 Gbit/s 1 ms"},
        {"a": "core", "b": "hr1", "label": "1 Gbit/s 5 ms"}, {"a": "hr1", "b": "ha1", "label": ""},
        {"a": "core", "b": "cr1", "label": "1 Gbit/s 5 ms"}, {"a": "cr1", "b": "cn", "label": ""},
    ],
}  # fmt: skip


def manifest(run_id, mechanism, transport, scenario, events, duration_s=20.0, **more) -> dict:
    out = {
        "schema": 1, "state": "complete", "reason": None, "run_id": run_id, "campaign": "c1", "experiment": "outage",
        "seed": 1, "repetition": 0, "roamlab": {"version": "0.1.0", "commit": "abc1234", "dirty": False},
        "scenario": {"name": scenario, "label": scenario.replace("-", " "), "topology": "mobile", "parameters": {},
                     "duration_s": duration_s,
                     "events": [{"at_s": t, "kind": k, "target": g, "parameters": {}} for t, k, g in events]},
        "mechanism": {"name": mechanism, "label": mechanism.upper(), "transport": transport},
        "workload": {"kind": "bulk", "direction": "down", "parameters": {"duration_s": duration_s}},
        "t0_mono_ns": MONO0, "t0_wall_ns": WALL0, "ended_mono_ns": MONO0 + round((duration_s + 2) * 1e9),
        "paths": [{"name": "wlan", "interface": "mn-wlan", "access_router": "ar1", "profile": {}},
                  {"name": "lte", "interface": "mn-lte", "access_router": "ar2", "profile": {}}],
        "graph": GRAPH, "addresses": {"mn": {k: [v] for k, v in ADDRESSES.items()}, "cn": {"cn-eth0": [CN]}},
        "captures": [{"file": f"pcap/{n}-{i}.pcapng", "node": n, "interface": i, "received": 1, "dropped": 0}
                     for n, i in (("mn", "mn-wlan"), ("mn", "mn-lte"), ("cn", "cn-eth0"))],
        "congestion_control": {"mn": "cubic", "cn": "cubic"},
        "relay": {"backend": "userspace", "late_p50_us": 40, "late_p99_us": 300, "late_max_us": 900, "links": {}},
        "kernel": "6.18.0", "machine": "x86_64", "capabilities": {}, "sysctls": {}, "versions": {"dumpcap": "4.0.17"},
        "command": ["roamlab", "run", "outage"],
    }  # fmt: skip
    return out | more


def write_run(folder: Path, scene: Scene, description: dict, complete=True, progress=None, dropped=0) -> Path:
    """Write a run directory for a scene and return it."""
    for part in ("pcap", "workload", "events", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for interface, records in scene.records.items():
        node = interface.split("-")[0]
        (folder / "pcap" / f"{node}-{interface}.pcapng").write_bytes(capture_bytes(records, interface, dropped))
    (folder / "manifest.json").write_text(json.dumps(description))
    lines = [
        {"kind": e["kind"], "target": e["target"], "planned_s": e["at_s"], "at_s": e["at_s"], "done_s": e["at_s"],
         "mono_ns": MONO0 + round(e["at_s"] * 1e9), "wall_ns": WALL0 + round(e["at_s"] * 1e9), "parameters": {},
         "phase": "event", "note": ""}
        for e in description["scenario"]["events"]
    ]  # fmt: skip
    (folder / "timeline.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = scene.progress() if progress is None else progress
    total = rows[-1][1] if rows else 0
    text = "".join(f"{MONO0 + round(t * 1e9)},{n}\n" for t, n in rows)
    (folder / "workload" / "progress.csv").write_text("t_mono_ns,bytes\n" + text)
    for role, local, peer in (
        ("receiver", [ADDRESSES["mn-wlan"], 40000], [CN, 5001]),
        ("sender", [CN, 5001], [ADDRESSES["mn-wlan"], 40000]),
    ):
        summary = {"role": role, "bytes": total, "sha256": "ab" * 32, "complete": complete, "connected_mono_ns": MONO0,
                   "ended_mono_ns": MONO0, "local": local, "peer": peer, "error": None}  # fmt: skip
        (folder / "workload" / f"{role}.json").write_text(json.dumps(summary))
    return folder


SEGMENT = 1250


def steady(scene: Scene, flow: Subflow, start_s, end_s, position, rate_mbit=4.0) -> int:
    """Segments at a steady rate; returns the next data position."""
    step = SEGMENT * 8 / (rate_mbit * 1e6)
    at_s = start_s
    while at_s < end_s - 1e-9:
        scene.data(flow, at_s, SEGMENT, position)
        position += SEGMENT
        at_s += step
    return position


def handover_scene(gap_s: float, mptcp=True, event_s=5.0, end_s=12.0, rate_mbit=4.0) -> Scene:
    """Data over WLAN until the event, `gap_s` of silence, then LTE (MPTCP) or WLAN again (TCP)."""
    scene = Scene(mptcp=mptcp)
    wlan = scene.open(Subflow("mn-wlan", 40000), 0.1)
    position = steady(scene, wlan, 0.2, event_s, 0, rate_mbit)
    resume = event_s - SEGMENT * 8 / (rate_mbit * 1e6) + gap_s
    if mptcp:
        lte = scene.open(Subflow("mn-lte", 40001, initial=False, client_isn=77, server_isn=88), 0.3)
        scene.data(wlan, event_s + 0.05, SEGMENT, position, arrives=False)  # lost, sent again on the other path
        steady(scene, lte, resume, end_s, position, rate_mbit)
    else:
        steady(scene, wlan, resume, end_s, position, rate_mbit)
    return scene


def dying_scene(event_s=5.0, mptcp=False, rate_mbit=4.0) -> Scene:
    """Data over WLAN until the event, then nothing."""
    scene = Scene(mptcp=mptcp)
    steady(scene, scene.open(Subflow("mn-wlan", 40000), 0.1), 0.2, event_s, 0, rate_mbit)
    return scene


def campaign_file(folder: Path, runs, mechanisms, scenarios, claims=(), **more) -> Path:
    data = {
        "schema": 1, "campaign": "c1", "experiment": "outage", "title": "Outage of one path",
        "summary": "A host with two networks loses one of them during a download.", "state": "complete",
        "command": ["roamlab", "run", "outage"], "runs": list(runs),
        "mechanisms": [{"name": n, "label": n.upper()} for n in mechanisms],
        "scenarios": [{"name": n, "label": n.replace("-", " ")} for n in scenarios], "claims": list(claims),
    }  # fmt: skip
    path = folder / "c1.json"
    path.write_text(json.dumps(data | more))
    return path


def claim(metric="gap_ms", op="<=", value=1000.0, aggregate="median", unit="ms", **more) -> dict:
    return {
        "id": "c", "text": "The connection goes on within a second.",
        "source": {"key": "bagnulo2009", "where": "section 5.2"}, "metric": metric, "aggregate": aggregate,
        "mechanisms": ["mptcp"], "scenarios": ["carrier-loss"], "bound": {"op": op, "value": value, "unit": unit},
        "published": None, "min_repetitions": 1,
    } | more  # fmt: skip


LOSS = [(5.0, "carrier-loss", "mn-wlan")]
OUTAGE = [(5.0, "blackhole-on", "mn-wlan"), (8.0, "blackhole-off", "mn-wlan")]


def run_metrics(folder, scene, events=LOSS, mechanism="mptcp", transport="mptcp", duration_s=12.0, change=None, **more):
    """Write a run directory below `folder`, its manifest changed by `change`, and return its metrics."""
    description = manifest("r1", mechanism, transport, "carrier-loss", events, duration_s)
    if change:
        change(description)
    path = write_run(folder / "r1", scene, description, **more)
    return evaluate(load_run(path))[0]
