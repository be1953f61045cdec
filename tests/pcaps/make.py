"""Make the real captures of this folder again: `sudo python3 tests/pcaps/make.py` (Linux with MPTCP, iproute2, dumpcap).

Two network namespaces joined by two veth pairs. A server sends 600 kB by MPTCP in small steps to a client with two
addresses; half-way the first link loses its carrier. Beside the captures the receiver's own record is stored, so that the
folder `real-mptcp` is a run directory. `two-interfaces.pcapng` holds IPv6 TCP and UDP, captured on both links at once.
`*.tshark` is what tshark reads in the same files.
"""

import ctypes
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUN = HERE / "real-mptcp"
SERVER = "10.64.0.1"
MN, CN = f"rlmn{os.getpid()}", f"rlcn{os.getpid()}"
TOOLS: list[subprocess.Popen] = []
FIELDS = """
frame.time_epoch frame.interface_name ip.src ip.dst ipv6.src ipv6.dst tcp.srcport tcp.dstport udp.srcport udp.dstport
tcp.seq_raw tcp.ack_raw tcp.flags tcp.len udp.length tcp.options.mptcp.subtype tcp.options.mptcp.sendkey
tcp.options.mptcp.recvkey tcp.options.mptcp.recvtok tcp.options.mptcp.rawdataack tcp.options.mptcp.rawdataseqno
tcp.options.mptcp.subflowseqno tcp.options.mptcp.datalvllen""".split()  # noqa: SIM905


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def inside(node: str, *words: str) -> str:
    return run("ip", "netns", "exec", node, *words)


def enter(node: str) -> None:
    with open(f"/run/netns/{node}") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


def build() -> None:
    for node in (MN, CN):
        run("ip", "netns", "add", node)
        inside(node, "ip", "link", "set", "lo", "up")
    for index, name in ((1, "wlan"), (2, "lte")):
        run("ip", "link", "add", f"mn-{name}", "netns", MN, "type", "veth", "peer", f"cn-{name}", "netns", CN)
        for node, device, host in ((MN, f"mn-{name}", 100), (CN, f"cn-{name}", 1)):
            inside(node, "ip", "address", "add", f"10.{index}.0.{host}/24", "dev", device)
            inside(node, "ip", "address", "add", f"2001:db8:{index}::{host}/64", "dev", device, "nodad")
            inside(node, "ip", "link", "set", device, "gso_max_segs", "1")  # a packet in the capture is one on the wire
            inside(node, "ip", "link", "set", device, "up")
    inside(MN, "ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2")
    inside(CN, "ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2")
    inside(MN, "ip", "mptcp", "endpoint", "add", "10.2.0.100", "dev", "mn-lte", "subflow")
    inside(CN, "ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    inside(MN, "ip", "route", "add", f"{SERVER}/32", "via", "10.1.0.1")
    inside(MN, "ip", "route", "add", f"{SERVER}/32", "via", "10.2.0.1", "table", "2")
    inside(MN, "ip", "rule", "add", "from", "10.2.0.100", "lookup", "2")


def capture(path: Path, *devices: str) -> subprocess.Popen:
    words = [word for device in devices for word in ("-i", device, "-s", "128")]
    process = subprocess.Popen(
        ["ip", "netns", "exec", MN, "dumpcap", "-q", *words, "-w", str(path), "-f", "tcp or udp port 7000"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    TOOLS.append(process)
    while "File:" not in process.stderr.readline():
        pass
    return process


def serve(listener: socket.socket, total: int, record: dict) -> None:
    connection, peer = listener.accept()
    digest, sent, pause = hashlib.sha256(), 0, threading.Event()
    while sent < total:
        block = os.urandom(min(15000, total - sent))
        connection.sendall(block)
        digest.update(block)
        sent += len(block)
        pause.wait(0.025)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
    record.update(role="sender", bytes=sent, sha256=digest.hexdigest(), complete=True, error=None,
                  local=[SERVER, 5001], peer=list(peer[:2]))  # fmt: skip


def clocks() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_REALTIME)


def transfer() -> None:
    """The MPTCP download with a break; writes the run directory."""
    for part in ("pcap", "workload"):
        (RUN / part).mkdir(parents=True)
    tools = [capture(RUN / "pcap" / f"mn-{device}.pcapng", device) for device in ("mn-wlan", "mn-lte")]
    enter(CN)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((SERVER, 5001))
    listener.listen()
    sender: dict = {}
    thread = threading.Thread(target=serve, args=(listener, 600_000, sender), daemon=True)
    thread.start()
    enter(MN)
    mono0, wall0 = clocks()
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    client.settimeout(20)
    client.connect((SERVER, 5001))
    events: list[dict] = []

    def lose_carrier() -> None:
        mono, wall = clocks()
        inside(CN, "ip", "link", "set", "cn-wlan", "down")
        events.append({"kind": "carrier-loss", "target": "mn-wlan", "planned_s": 0.5, "at_s": (mono - mono0) / 1e9,
                       "done_s": 0, "mono_ns": mono, "wall_ns": wall, "parameters": {}, "phase": "event",
                       "note": ""})  # fmt: skip

    threading.Timer(0.5, lose_carrier).start()
    digest, total, rows = hashlib.sha256(), 0, []
    while block := client.recv(65536):
        total += len(block)
        digest.update(block)
        rows.append((clocks()[0], total))
    ended = clocks()[0]
    receiver = {"role": "receiver", "bytes": total, "sha256": digest.hexdigest(), "complete": True, "error": None,
                "connected_mono_ns": mono0, "ended_mono_ns": ended, "local": list(client.getsockname()[:2]),
                "peer": list(client.getpeername()[:2])}  # fmt: skip
    client.close()
    thread.join()
    threading.Event().wait(2)  # dumpcap hands over what the kernel buffered up to a second ago, and drops it when told to end
    for tool in tools:
        tool.terminate()
        tool.wait()
    (RUN / "workload" / "progress.csv").write_text("t_mono_ns,bytes\n" + "".join(f"{t},{n}\n" for t, n in rows))
    (RUN / "workload" / "receiver.json").write_text(json.dumps(receiver, indent=1))
    (RUN / "workload" / "sender.json").write_text(json.dumps(sender, indent=1))
    (RUN / "timeline.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    manifest = {
        "schema": 1, "state": "complete", "reason": None, "run_id": "real-mptcp", "campaign": "fixture",
        "experiment": "fixture", "seed": 0, "repetition": 0,
        "scenario": {"name": "carrier-loss", "label": "carrier loss", "topology": "two links", "parameters": {},
                     "duration_s": 1.0, "events": [{"at_s": 0.5, "kind": "carrier-loss", "target": "mn-wlan"}]},
        "mechanism": {"name": "mptcp", "label": "MPTCP", "transport": "mptcp"},
        "workload": {"kind": "bulk", "direction": "down", "parameters": {}},
        "t0_mono_ns": mono0, "t0_wall_ns": wall0, "ended_mono_ns": ended,
        "paths": [{"name": "wlan", "interface": "mn-wlan"}, {"name": "lte", "interface": "mn-lte"}],
        "addresses": {"mn": {"mn-wlan": ["10.1.0.100"], "mn-lte": ["10.2.0.100"]}, "cn": {"lo": [SERVER]}},
        "captures": [{"file": f"pcap/mn-{d}.pcapng", "node": "mn", "interface": d, "dropped": 0}
                     for d in ("mn-wlan", "mn-lte")],
        "relay": None, "kernel": os.uname().release,
    }  # fmt: skip
    (RUN / "manifest.json").write_text(json.dumps(manifest, indent=1))


def mixed() -> None:
    """IPv6 TCP on one link, UDP on both."""
    inside(CN, "ip", "link", "set", "cn-wlan", "up")
    inside(CN, "ip", "address", "replace", "2001:db8:1::1/64", "dev", "cn-wlan", "nodad")
    tool = capture(HERE / "two-interfaces.pcapng", "mn-wlan", "mn-lte")
    enter(CN)
    listener = socket.create_server(("::", 6000), family=socket.AF_INET6)
    sinks = []
    for family, address in ((socket.AF_INET6, "2001:db8:1::1"), (socket.AF_INET, "10.2.0.1")):
        sink = socket.socket(family, socket.SOCK_DGRAM)
        sink.bind((address, 7000))
        sinks.append(sink)
    enter(MN)
    client = socket.create_connection(("2001:db8:1::1", 6000))
    connection, _ = listener.accept()
    connection.sendall(bytes(40000))
    connection.close()
    while client.recv(65536):
        pass
    client.close()
    for family, address in ((socket.AF_INET6, "2001:db8:1::1"), (socket.AF_INET, "10.2.0.1")):
        with socket.socket(family, socket.SOCK_DGRAM) as source:
            for size in (1, 160, 1400):
                source.sendto(bytes(size), (address, 7000))
    threading.Event().wait(2)
    tool.terminate()
    tool.wait()


def oracle(path: Path, out: Path) -> None:
    fields = [word for name in FIELDS for word in ("-e", name)]
    text = run("tshark", "-r", str(path), "-Y", "tcp or udp", "-o", "tcp.relative_sequence_numbers:false",
               "-o", "mptcp.relative_sequence_numbers:false", "-T", "fields", "-E", "header=y", "-E", "occurrence=f",
               *fields)  # fmt: skip
    out.write_text(text)


if __name__ == "__main__":
    shutil.rmtree(RUN, ignore_errors=True)
    try:
        build()
        transfer()
        mixed()
    finally:
        for tool in TOOLS:
            tool.kill()
        for node in (MN, CN):
            subprocess.run(["ip", "netns", "delete", node], check=False)
    for file in ("real-mptcp/pcap/mn-mn-wlan.pcapng", "real-mptcp/pcap/mn-mn-lte.pcapng", "two-interfaces.pcapng"):
        (HERE / file).chmod(0o644)
        oracle(HERE / file, HERE / f"{Path(file).stem}.tshark")
    sys.exit(0)
