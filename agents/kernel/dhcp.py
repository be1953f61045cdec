"""DHCPv4 through udhcpc: one client process per lease, what it learns comes back through a FIFO.

The client's hook is a line of shell that writes the event into the FIFO; it changes nothing itself, so a client that starts
again (which begins with "deconfig") disturbs no connection.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Any, TypeAlias

from agents.core.attachment import Lease

SECOND_VENDOR_CLASS = "roamlab-second"
"""Vendor class of the second client on an interface: asks for an address from the second prefix of the link."""
# Discover packets per attempt, seconds between them, pause between attempts.
DISCOVER_COUNT, DISCOVER_PAUSE_S, ATTEMPT_PAUSE_S = 8, 1, 2

_HOOK = """#!/bin/sh
exec 3<>"$ROAMLAB_FIFO"
printf '%s %s ip=%s mask=%s router=%s lease=%s\\n' "$ROAMLAB_TAG" "$1" "$ip" "$mask" "${router%% *}" "$lease" >&3
"""


@dataclass(frozen=True)
class LeaseGiven:
    """The client has a lease, new or renewed."""

    interface: str
    slot: int
    lease: Lease
    lease_s: int


@dataclass(frozen=True)
class LeaseLost:
    """The lease ran out or was refused."""

    interface: str
    slot: int


@dataclass(frozen=True)
class ClientEnded:
    """The process ended by itself."""

    interface: str
    slot: int
    status: int


DhcpEvent: TypeAlias = LeaseGiven | LeaseLost | ClientEnded


def parse_hook_line(line: str) -> tuple[str, int, int, str, dict[str, str]] | None:
    """Interface, slot, generation, event and values of a line that the hook wrote; None when it is something else."""
    words = line.split()
    if len(words) < 4 or not words[1].isdecimal() or not words[2].isdecimal():
        return None
    values = dict(word.split("=", 1) for word in words[4:] if "=" in word)
    return words[0], int(words[1]), int(words[2]), words[3], values


def lease_of(values: dict[str, str]) -> tuple[Lease, int] | None:
    """The lease and its length in s from the hook's values; None when they make no sense."""
    try:
        address, length = str(IPv4Address(values.get("ip", ""))), int(values.get("mask") or 32)
        router = str(IPv4Address(values["router"])) if values.get("router") else ""
        lease_s = int(values.get("lease") or 0)
    except (AddressValueError, ValueError):
        return None
    return (Lease(address, length, router), lease_s) if 0 < length <= 32 else None


class DhcpClients:
    """All DHCP clients of a host. `on_event` is called for every DhcpEvent."""

    def __init__(self, state_dir: str, on_event: Callable[[DhcpEvent], None]) -> None:
        self._fifo_path = os.path.join(state_dir, "dhcp.fifo")
        self._hook_path = os.path.join(state_dir, "dhcp-hook")
        self._on_event = on_event
        self._fifo = -1
        self._rest = b""
        self._generation = 0
        self._processes: dict[tuple[str, int], tuple[int, asyncio.subprocess.Process]] = {}
        self._bound: set[int] = set()
        self._watchers: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Create hook and FIFO in the state folder."""
        if os.path.exists(self._fifo_path):
            os.unlink(self._fifo_path)
        os.mkfifo(self._fifo_path, 0o600)
        with open(self._hook_path, "w", encoding="ascii") as file:
            file.write(_HOOK)
        os.chmod(self._hook_path, stat.S_IRWXU)
        # Read and write: without a writer the FIFO would report its end for ever.
        self._fifo = os.open(self._fifo_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._fifo, self._read)

    async def start(self, interface: str, slot: int, request: str) -> None:
        """Start a client, in place of a running one. request: address to ask for, "" for any."""
        self.stop(interface, slot)
        self._generation += 1
        generation = self._generation
        arguments = [
            "udhcpc", "-f", "-i", interface, "-s", self._hook_path,
            "-t", str(DISCOVER_COUNT), "-T", str(DISCOVER_PAUSE_S), "-A", str(ATTEMPT_PAUSE_S),
        ]  # fmt: skip
        if request:
            arguments += ["-r", request]
        if slot:
            arguments += ["-V", SECOND_VENDOR_CLASS, "-C", "-x", f"0x3d:00{interface.encode().hex()}{slot:02x}"]
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=None,
            env={**os.environ, "ROAMLAB_FIFO": self._fifo_path, "ROAMLAB_TAG": f"{interface} {slot} {generation}"},
        )  # fmt: skip
        self._processes[(interface, slot)] = (generation, process)
        watcher = asyncio.create_task(self._watch(interface, slot, generation, process))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def stop(self, interface: str, slot: int) -> None:
        """End a client without giving its lease back. Harmless when none runs."""
        _generation, process = self._processes.pop((interface, slot), (0, None))
        if process is not None and process.returncode is None:
            process.kill()

    async def close(self) -> None:
        """End all clients and wait for them."""
        for interface, slot in list(self._processes):
            self.stop(interface, slot)
        if self._watchers:
            await asyncio.wait(self._watchers)
        if self._fifo >= 0:
            asyncio.get_running_loop().remove_reader(self._fifo)
            os.close(self._fifo)
            self._fifo = -1

    async def _watch(self, interface: str, slot: int, generation: int, process: Any) -> None:
        status = await process.wait()
        if self._processes.get((interface, slot), (0, None))[0] == generation:
            del self._processes[(interface, slot)]
            self._on_event(ClientEnded(interface, slot, status))

    def _read(self) -> None:
        try:
            self._rest += os.read(self._fifo, 1 << 16)
        except BlockingIOError:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            parsed = parse_hook_line(line.decode(errors="replace"))
            if parsed is not None:
                self._handle(*parsed)

    def _handle(self, interface: str, slot: int, generation: int, event: str, values: dict[str, str]) -> None:
        if self._processes.get((interface, slot), (0, None))[0] != generation:
            return  # the last words of a client that was replaced
        if event in ("bound", "renew"):
            given = lease_of(values)
            if given is not None:
                self._bound.add(generation)
                self._on_event(LeaseGiven(interface, slot, *given))
        elif event == "deconfig" and generation in self._bound:
            self._bound.discard(generation)
            self._on_event(LeaseLost(interface, slot))
