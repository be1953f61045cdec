"""Which home and care-of addresses this host can use now."""

import asyncio
import json
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import chain
from typing import Any

from agents.core.path_manager.values import Kind, LocalAddress
from agents.kernel.netlink import Kernel, Snapshot
from agents.kernel.path_manager.configuration import Home, MobileNode, PathManagerFile

ANSWER_TIMEOUT_S = 2.0
ANSWER_MAX_BYTES = 1 << 20


class Surroundings:
    """Reads the kernel's addresses and asks mobile nodes' agents. One that does not answer keeps what it said last."""

    def __init__(self, file: PathManagerFile, kernel: Kernel) -> None:
        self._file, self._kernel = file, kernel
        self._told: dict[str, list[Home]] = {}
        self.withheld: set[str] = set()
        """Interfaces whose addresses shall not be used, by command."""
        self.silent: dict[str, str] = {}
        """Control socket of a mobile node that did not answer -> why."""

    async def read(self) -> tuple[list[LocalAddress], set[str]]:
        """The usable addresses, and all that exist. Raises KernelError."""
        for node in self._file.mobile_nodes:
            await self._ask(node)
        snapshot = await self._kernel.snapshot()
        homes = {home.address: home for home in (*self._file.homes, *chain.from_iterable(self._told.values()))}
        present = {str(ip_address(item.address)) for item in snapshot.addresses}
        found = [item for home in homes.values() if (item := await self._home(home, present)) is not None]
        found += await self._care_of(snapshot, set(homes))
        return [item for item in found if ip_address(item.address).version in self._file.families], present

    async def _home(self, home: Home, present: set[str]) -> LocalAddress | None:
        """Routing knows whether there is a tunnel, or the home link: without them it refuses."""
        if home.address not in present or await self._kernel.leaves_by(home.address) is None:
            return None
        return LocalAddress(home.address, Kind.HOME, "", 0, home.cost, home.domain, home.home_agent)

    async def _care_of(self, snapshot: Snapshot, homes: set[str]) -> list[LocalAddress]:
        result = []
        for interface in self._file.interfaces:
            link = snapshot.links.get(interface.name)
            if link is None or not (link.up and link.carrier) or interface.name in self.withheld:
                continue
            for item in snapshot.addresses:
                address = ip_address(item.address)
                if item.index != link.index or address.is_link_local or str(address) in homes:
                    continue
                if await self._kernel.leaves_by(item.address) == link.index:
                    result.append(
                        LocalAddress(
                            str(address), Kind.CARE_OF, interface.name, link.index, interface.cost, interface.domain
                        )
                    )  # fmt: skip
        return result

    async def _ask(self, node: MobileNode) -> None:
        try:
            status = await asyncio.wait_for(_status(node.control), ANSWER_TIMEOUT_S)
        except (OSError, ValueError, TimeoutError) as error:
            self.silent[node.control] = str(error) or type(error).__name__
            return
        self.silent.pop(node.control, None)
        self._told[node.control] = homes_of(status, node)


def homes_of(status: Mapping[str, Any], node: MobileNode) -> list[Home]:
    """The home addresses that a mobile node's agent tells; an agent of before tells one."""
    first = {"home_address": status.get("home_address"), "home_agent": (status.get("core") or {}).get("home_agent", "")}
    rows = status.get("homes") or [first]
    return [
        Home(str(ip_address(row["home_address"])), str(row.get("home_agent", "")), node.cost, node.domain)
        for row in rows
        if row.get("home_address")
    ]


async def _status(path: str) -> dict[str, Any]:
    """What an agent answers to `status`. Raises OSError, ValueError."""
    reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_MAX_BYTES)
    try:
        writer.write(b'{"cmd": "status"}\n')
        await writer.drain()
        answer = json.loads(await reader.readline())
    finally:
        writer.close()
    if not isinstance(answer, dict) or not answer.get("ok"):
        raise ValueError("the mobile node refuses to tell its status")
    return answer
