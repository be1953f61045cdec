"""Each subflow of the proxy is a TCP connection of its own: for tshark, and for a firewall that drops invalid segments.

Captured at the mobile host on both paths. A wire that loses packets at a full queue is on the way, so tshark may say what loss
makes of any TCP: retransmissions (fast, spurious and by timer), duplicate ACKs, segments out of order and not seen (those that
the peer sent and the wire lost), full windows, window updates. It may say nothing else.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.emulation.proxy_lab import Lab, mobile, opened, server
from tests.emulation.test_topologies import run_check
from tests.pcaps import applications as app
from topologies.links.netns import inside
from topologies.waiting import wait_until

pytestmark = [pytest.mark.emulation, pytest.mark.long]
PORT = 5001
BYTES = 600_000
FORBIDDEN = (
    "tcp.analysis.ack_lost_segment",  # an ACK of data that nobody has seen
    "tcp.analysis.keep_alive",  # an old sequence number: nobody probes here
    "tcp.analysis.zero_window_probe",
    "tcp.analysis.reused_ports",
    "tcp.segment.overlap.conflict",  # other bytes in the same place
    "tcp.checksum.bad",
)
FIREWALL = """table inet fw {
  chain forward { type filter hook forward priority 0; policy accept; ct state invalid counter drop; }
}"""


@contextmanager
def captured(lab: Lab) -> Iterator[list[Path]]:
    """dumpcap on both paths of the mobile host; complete files after the block."""
    files = [lab.folder / f"p{path}.pcapng" for path in range(lab.paths)]
    processes = []
    for path, file in enumerate(files):
        with inside(lab.nodes["mn"]):
            words = ["dumpcap", "-q", "-i", f"mn-p{path}", "-B", "32", "-f", "tcp", "-w", str(file)]
            process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert any("File:" in line for line in process.stderr), "dumpcap ended at once"
        processes.append(process)
    yield files
    sizes: list[list[int]] = []

    def settled() -> bool:
        sizes.append([file.stat().st_size for file in files])
        return len(sizes) > 5 and sizes[-1] == sizes[-6]

    wait_until(settled, 10.0, "the captures", 0.1)
    for process in processes:
        process.terminate()
        assert process.stderr is not None
        process.stderr.read()
        process.wait(10)


WHICH = ("frame.number", "ip.src", "tcp.flags.str", "tcp.seq", "tcp.len", "tcp.options")


def judgement(file: Path) -> tuple[int, dict[str, list[str]]]:
    """Segments, and those of which tshark says what is forbidden."""
    words = ["tshark", "-r", str(file), "-n", "-Y", "tcp", "-o", "tcp.check_checksum:TRUE", "-T", "fields"]
    words += [word for name in WHICH for word in ("-e", name)]
    words += [word for name in FORBIDDEN if name != "tcp.checksum.bad" for word in ("-e", name)]
    words += ["-e", "tcp.checksum.status", "-E", "separator=/t"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        cells = line.split("\t")
        *said, status = cells[len(WHICH) :]
        for name, cell in zip(FORBIDDEN, [*said, "1" if status == "0" else ""], strict=True):
            if cell:
                found.setdefault(name, []).append(" ".join(cells[: len(WHICH)]))
    return len(lines), found


def dropped(lab: Lab) -> int:
    """Packets that the firewall called invalid."""
    table = json.loads(lab.command("gw", "nft", "-j", "list", "table", "inet", "fw"))
    expressions = [part for item in table["nftables"] for part in item.get("rule", {}).get("expr", [])]
    return sum(part["counter"]["packets"] for part in expressions if "counter" in part)


def check_clean(peer: str, move: str) -> None:
    """peer: proxy or mptcp; move: seamless or break."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)).running() as lab:
        lab.sysctl("cn", "mptcp/enabled", 1)
        lab.limits("cn")
        proxied = {"filter": [{"remote_ports": [PORT]}, {"local_ports": [PORT]}], "proxy": {"silence_retransmissions": 1_000}}
        agents = [lab.agent(node, proxied) for node in ("mn", *(["cn"] if peer == "proxy" else []))]
        lab.command("gw", "nft", FIREWALL)
        lab.sysctl("gw", "netfilter/nf_conntrack_tcp_be_liberal", 0)
        mn = agents[0]
        with captured(lab) as files:
            pair = opened(lab, "mn", "cn", server(4), port=PORT, mptcp=(False, peer == "mptcp"), source=mobile(4, 0))
            app.exchange(pair, up=300, down=300)

            def hand_over(path: int) -> None:
                mn.ask("handover", address=mobile(4, path), break_first=move == "break")

            hooks = ((BYTES // 2, lambda: hand_over(1)), (BYTES, lambda: hand_over(0)), (3 * BYTES // 2, lambda: hand_over(1)))
            assert app.exchange(pair, up=BYTES, down=BYTES, hooks=hooks), [side.end for side in pair.sides]
            app.close(pair)
            assert pair.server.received_hash.digest() == pair.client.sent_hash.digest()
            assert pair.client.received_hash.digest() == pair.server.sent_hash.digest()
        for file in files:
            count, found = judgement(file)
            assert count > 30, f"{file.name}: {count} segments"
            assert not found, f"{file.name}: {found}"
        lost = dropped(lab)
        # After a break the peer's segments on the abandoned subflow are answered by an RST, which ends it for the firewall as
        # well: those behind it are invalid, and nobody misses them.
        assert lost == 0 or move == "break", f"{lost} segments are invalid for the firewall"
        for agent in agents:
            assert agent.ask("status")["problems"] == {}
            agent.end()


@pytest.mark.parametrize("move", ["seamless", "break"])
@pytest.mark.parametrize("peer", ["proxy", "mptcp"])
def test_subflows_are_clean(peer: str, move: str) -> None:
    run_check(__name__, "clean", peer, move)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
