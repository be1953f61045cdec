"""Packet captures by dumpcap: one file per interface, nanosecond timestamps, the kernel's drop counters."""

import re
import signal
from pathlib import Path
from typing import Any

from experiments.errors import RoamlabError
from experiments.processes import Node, NodeProcess
from topologies.waiting import wait_until

SNAP_LENGTH = 160  # Ethernet, VLAN, IPv6 with an extension header, TCP with all 40 bytes of options; payload is not wanted
_KERNEL_BUFFER_MIB = 16
_COUNTERS = re.compile(r"Packets received/dropped on interface '[^']*': (\d+)/(\d+)")


class Capture:
    """A running capture of one interface."""

    def __init__(self, node: Node, interface: str, run_directory: Path, *, part: int = 1) -> None:
        self.node_name = node.name
        self.interface = interface
        name = f"{node.name}-{interface}" + (f"-{part}" if part > 1 else "")
        self.file = f"pcap/{name}.pcapng"
        argv = ["dumpcap", "-q", "-i", interface, "-w", str(run_directory / self.file), "-s", str(SNAP_LENGTH),
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
        self._process.end(signal.SIGINT)
        found = _COUNTERS.search(self._process.log_path.read_text(errors="replace"))
        return {
            "file": self.file,
            "node": self.node_name,
            "interface": self.interface,
            "received": int(found[1]) if found else None,
            "dropped": int(found[2]) if found else None,
        }
