"""Packet captures by dumpcap: one file per interface, nanosecond timestamps, the kernel's drop counters."""

import contextlib
import os
import re
import secrets
import signal
import socket
from pathlib import Path
from typing import Any

from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.processes import Node, NodeProcess
from topologies.links.interfaces import IFF_RUNNING, interface_flags
from topologies.links.netns import inside, namespace_of
from topologies.waiting import wait_until

SNAP_LENGTH = 160  # Ethernet, VLAN, IPv6 with an extension header, TCP with all 40 bytes of options; payload is not wanted
_KERNEL_BUFFER_MIB = 16
_MARK_BYTES = 32
_EXPERIMENTAL_ETHERTYPE = 0x88B5  # IEEE Std 802, local experimental ethertype 1: no host answers it
_QUIET_NS = 600_000_000  # dumpcap reads its ring at least every 250 ms and flushes its file every 100 ms
_WRITTEN_TIMEOUT_S = 5.0
_TAIL_BYTES = 65536
_COUNTERS = re.compile(r"Packets received/dropped on interface '[^']*': (\d+)/(\d+)")


class Capture:
    """A running capture of one interface."""

    def __init__(self, node: Node, interface: str, run_directory: Path, *, part: int = 1) -> None:
        self.node_name = node.name
        self.interface = interface
        name = f"{node.name}-{interface}" + (f"-{part}" if part > 1 else "")
        self.file = f"pcap/{name}.pcapng"
        self._path = run_directory / self.file
        self._pid = node.pid
        argv = ["dumpcap", "-q", "-i", interface, "-w", str(self._path), "-s", str(SNAP_LENGTH),
                "-B", str(_KERNEL_BUFFER_MIB)]  # fmt: skip
        self._process = NodeProcess(node, argv, f"dumpcap-{name}", run_directory / "logs")

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return when the kernel hands packets to it: dumpcap names its file after it has opened the interface."""
        wait_until(self._ready, timeout_s, f"capture of {self.interface} on {self.node_name}")

    def _ready(self) -> bool:
        self.check()
        return "File:" in self._process.log_path.read_text(errors="replace")

    def check(self) -> None:
        """Raises RoamlabError when the capture has ended by itself, for example because the disk is full."""
        if not self._process.running():
            raise RoamlabError(self._process.why_ended())

    def stop(self) -> dict[str, Any]:
        """End the capture; its entry for the manifest: file, node, interface, received and dropped packets.

        `dropped` is null when dumpcap did not say: then the capture cannot be called complete.
        """
        if self._process.running():
            self._wait_written()
        self._process.end(signal.SIGINT)
        found = _COUNTERS.search(self._process.log_path.read_text(errors="replace"))
        return {
            "file": self.file,
            "node": self.node_name,
            "interface": self.interface,
            "received": int(found[1]) if found else None,
            "dropped": int(found[2]) if found else None,
        }

    def _wait_written(self) -> None:
        """Wait until everything captured so far is in the file: dumpcap forgets what it has not read when it is ended.

        A last frame of our own follows all others through the same buffers. Where the interface cannot send (no carrier, down)
        nothing arrives either, and the file is complete when it has stopped growing.
        """
        mark = secrets.token_bytes(_MARK_BYTES)
        if not self._send_mark(mark):
            mark = b""
        state = (-1, now_ns())

        def written() -> bool:
            nonlocal state
            size = self._path.stat().st_size
            if size != state[0]:
                state = (size, now_ns())
            if mark and mark in _tail(self._path):
                return True
            return not mark and now_ns() - state[1] > _QUIET_NS

        with contextlib.suppress(TimeoutError):  # then the record of the workload will disagree, and the run is not judged
            wait_until(written, _WRITTEN_TIMEOUT_S, f"capture of {self.interface} written")

    def _send_mark(self, mark: bytes) -> bool:
        """Send the frame from the interface itself; False when the interface cannot."""
        namespace = namespace_of(self._pid)
        try:
            with inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((self.interface, _EXPERIMENTAL_ETHERTYPE))
                if not interface_flags(sender, self.interface) & IFF_RUNNING:
                    return False
                sender.send(b"\xff" * 6 + b"\x02" + bytes(5) + _EXPERIMENTAL_ETHERTYPE.to_bytes(2, "big") + mark)
        except OSError:
            return False
        finally:
            os.close(namespace)
        return True


def _tail(path: Path) -> bytes:
    """The end of a file, where the last packet is."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()
