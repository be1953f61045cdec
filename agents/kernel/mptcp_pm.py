"""The kernel's MPTCP path manager over generic netlink: pyroute2's MPTCP class and what it lacks.

Attributes and commands: include/uapi/linux/mptcp_pm.h. Ports are in host order; `if_idx` travels as 4 raw bytes.
"""

import os
import socket
import struct
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.mptcp import MPTCP_PM_CMD_SET_FLAGS, AsyncMPTCP, mptcp_msg

from agents.core.mptcp_endpoints import Endpoint
from agents.kernel.netlink import KernelError

FLAG_BITS = {"signal": 1, "subflow": 2, "backup": 4, "fullmesh": 8}
NLA_F_NESTED = 0x8000


def flag_bits(flags: frozenset[str]) -> int:
    """MPTCP_PM_ADDR_FLAG_* of a set of words."""
    return sum(FLAG_BITS[flag] for flag in flags)


def flag_words(bits: int) -> frozenset[str]:
    """The words for MPTCP_PM_ADDR_FLAG_*; flags without a word (implicit) are left out."""
    return frozenset(word for word, bit in FLAG_BITS.items() if bits & bit)


class PathManager(AsyncMPTCP):
    """Endpoints and limits of the present network namespace. Every method raises KernelError."""

    async def start(self) -> None:
        """Open the socket and look the protocol up."""
        await self._checked("mptcp_pm", self.setup_endpoint())

    async def show(self) -> list[Endpoint]:
        """The present endpoints."""
        result = []
        for message in await self._checked("endpoint show", self.endpoint("show")):
            values = message.get_attr("MPTCP_PM_ATTR_ADDR")
            if values is None:
                continue
            address = values.get_attr("MPTCP_PM_ADDR_ATTR_ADDR4") or values.get_attr("MPTCP_PM_ADDR_ATTR_ADDR6")
            result.append(
                Endpoint(
                    address,
                    _interface_index(values.get_attr("MPTCP_PM_ADDR_ATTR_IF_IDX")),
                    flag_words(values.get_attr("MPTCP_PM_ADDR_ATTR_FLAGS") or 0),
                    values.get_attr("MPTCP_PM_ADDR_ATTR_ID"),
                )
            )
        return result

    async def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint; existing connections use it at once."""
        spec: dict[str, Any] = {"addr6" if ":" in endpoint.address else "addr4": endpoint.address}
        spec["flags"] = flag_bits(endpoint.flags)
        if endpoint.index:
            spec["if_idx"] = struct.pack("=i", endpoint.index)
        await self._checked(f"endpoint add {endpoint.address}", self.endpoint("add", **spec))

    async def delete(self, number: int) -> None:
        """Delete the endpoint with this address id; its subflows are closed and the peer is told."""
        await self._checked(f"endpoint del id {number}", self.endpoint("del", id=number))

    async def flush(self) -> None:
        """Delete all endpoints."""
        await self._checked("endpoint flush", self.endpoint("flush"))

    async def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        """How many extra subflows a connection may have and how many announced addresses it takes."""
        await self._checked("limits set", self.limits("set", subflows=subflows, add_addr_accepted=add_addr_accepted))

    async def show_limits(self) -> dict[str, int]:
        """{"subflows": n, "add_addr_accepted": n}"""
        messages = await self._checked("limits show", self.limits("show"))
        for message in messages:
            return {
                "subflows": message.get_attr("MPTCP_PM_ATTR_SUBFLOWS"),
                "add_addr_accepted": message.get_attr("MPTCP_PM_ATTR_RCV_ADD_ADDRS"),
            }
        return {}

    async def set_flags(self, address: str, backup: bool) -> None:
        """Change the priority of an endpoint and of its subflows in existing connections (MP_PRIO)."""
        family, name = (socket.AF_INET6, "ADDR6") if ":" in address else (socket.AF_INET, "ADDR4")
        message = mptcp_msg()
        message["cmd"], message["version"] = MPTCP_PM_CMD_SET_FLAGS, 1
        attributes = [
            ("MPTCP_PM_ADDR_ATTR_FAMILY", family),
            (f"MPTCP_PM_ADDR_ATTR_{name}", address),
            ("MPTCP_PM_ADDR_ATTR_FLAGS", FLAG_BITS["backup"] if backup else 0),
        ]
        message["attrs"] = [("MPTCP_PM_ATTR_ADDR", {"attrs": attributes}, NLA_F_NESTED)]
        request = self.nlm_request(message, msg_type=self.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
        await self._checked(f"set flags of {address}", request)

    @staticmethod
    async def _checked(what: str, request: Any) -> list[Any]:
        try:
            answer = await request
            return [message async for message in answer] if answer is not None else []
        except NetlinkError as error:
            namespace = os.readlink("/proc/self/ns/net")
            raise KernelError(error.code, f"{namespace}: mptcp {what}: {os.strerror(error.code)}") from error


def _interface_index(value: Any) -> int:
    """The interface index from what pyroute2 makes of 4 raw bytes: "02:00:00:00"."""
    if not value:
        return 0
    raw = bytes(int(part, 16) for part in value.split(":")) if isinstance(value, str) else bytes(value)
    return int(struct.unpack("=i", raw[:4])[0])
