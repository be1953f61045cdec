"""Generic netlink of MPTCP: what pyroute2's `MPTCP` lacks. The userspace path manager, flags of endpoints, and events.

Imports nothing of this project and follows pyroute2's forms, so that it could become part of
`pyroute2.netlink.generic.mptcp`. Commands, attributes and events: include/uapi/linux/mptcp_pm.h, in words
Documentation/netlink/specs/mptcp_pm.yaml. Ports of commands are in host order, ports of events in network order.
Errors are pyroute2's `NetlinkError`.
"""

import struct
from collections.abc import Iterator, Mapping
from socket import AF_INET, AF_INET6
from typing import Any, Final

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.generic.mptcp import MPTCP, MPTCP_PM_CMD_SET_FLAGS, AsyncMPTCP

MPTCP_PM_CMD_ANNOUNCE: Final = 8
MPTCP_PM_CMD_REMOVE: Final = 9
MPTCP_PM_CMD_SUBFLOW_CREATE: Final = 10
MPTCP_PM_CMD_SUBFLOW_DESTROY: Final = 11
MPTCP_PM_EV_GRP_NAME: Final = "mptcp_pm_events"

MPTCP_PM_ADDR_FLAG_SIGNAL: Final = 1
MPTCP_PM_ADDR_FLAG_SUBFLOW: Final = 2
MPTCP_PM_ADDR_FLAG_BACKUP: Final = 4
MPTCP_PM_ADDR_FLAG_FULLMESH: Final = 8

EVENT_NAMES: Final[Mapping[int, str]] = {
    1: "created", 2: "established", 3: "closed", 6: "announced", 7: "removed", 10: "sub_established", 11: "sub_closed",
    13: "sub_priority", 15: "listener_created", 16: "listener_closed",
}  # fmt: skip
"""MPTCP_EVENT_*"""
EVENT_FLAG_SERVER_SIDE: Final = 2
"""MPTCP_PM_EV_FLAG_SERVER_SIDE; kernels before 6.18 have an attribute of its own."""
_NESTED: Final = 0x8000
_HEADER = struct.Struct("=IHHII")


class mptcp_msg(genlmsg):
    """A command and its answer."""

    prefix = "MPTCP_PM_ATTR_"
    nla_map = (
        ("MPTCP_PM_ATTR_UNSPEC", "none"),
        ("MPTCP_PM_ATTR_ADDR", "pm_addr"),
        ("MPTCP_PM_ATTR_RCV_ADD_ADDRS", "uint32"),
        ("MPTCP_PM_ATTR_SUBFLOWS", "uint32"),
        ("MPTCP_PM_ATTR_TOKEN", "uint32"),
        ("MPTCP_PM_ATTR_LOC_ID", "uint8"),
        ("MPTCP_PM_ATTR_ADDR_REMOTE", "pm_addr"),
    )

    class pm_addr(nla):
        """An address; the port in host order."""

        prefix = "MPTCP_PM_ADDR_ATTR_"
        nla_map = (
            ("MPTCP_PM_ADDR_ATTR_UNSPEC", "none"),
            ("MPTCP_PM_ADDR_ATTR_FAMILY", "uint16"),
            ("MPTCP_PM_ADDR_ATTR_ID", "uint8"),
            ("MPTCP_PM_ADDR_ATTR_ADDR4", "ipaddr"),
            ("MPTCP_PM_ADDR_ATTR_ADDR6", "ipaddr"),
            ("MPTCP_PM_ADDR_ATTR_PORT", "uint16"),
            ("MPTCP_PM_ADDR_ATTR_FLAGS", "uint32"),
            ("MPTCP_PM_ADDR_ATTR_IF_IDX", "int32"),
        )


class mptcp_event(genlmsg):
    """An event of the group `mptcp_pm_events`; its number is the message's `cmd`."""

    prefix = "MPTCP_ATTR_"
    nla_map = (
        ("MPTCP_ATTR_UNSPEC", "none"),
        ("MPTCP_ATTR_TOKEN", "uint32"),
        ("MPTCP_ATTR_FAMILY", "uint16"),
        ("MPTCP_ATTR_LOC_ID", "uint8"),
        ("MPTCP_ATTR_REM_ID", "uint8"),
        ("MPTCP_ATTR_SADDR4", "ip4addr"),
        ("MPTCP_ATTR_SADDR6", "ip6addr"),
        ("MPTCP_ATTR_DADDR4", "ip4addr"),
        ("MPTCP_ATTR_DADDR6", "ip6addr"),
        ("MPTCP_ATTR_SPORT", "be16"),
        ("MPTCP_ATTR_DPORT", "be16"),
        ("MPTCP_ATTR_BACKUP", "uint8"),
        ("MPTCP_ATTR_ERROR", "uint8"),
        ("MPTCP_ATTR_FLAGS", "uint16"),
        ("MPTCP_ATTR_TIMEOUT", "uint32"),
        ("MPTCP_ATTR_IF_IDX", "int32"),
        ("MPTCP_ATTR_RESET_REASON", "uint32"),
        ("MPTCP_ATTR_RESET_FLAGS", "uint32"),
        ("MPTCP_ATTR_SERVER_SIDE", "uint8"),
    )


def parse_events(data: bytes) -> Iterator[dict[str, Any]]:
    """The events in what one read gave: {"event", "token", "saddr", "sport", "loc_id", ...}; what is malformed is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, at)[0]
        if length < _HEADER.size + 4 or at + length > len(data):
            return
        event = _parse_event(data[at : at + length])
        if event is not None:
            yield event
        at += (length + 3) & ~3


def _parse_event(data: bytes) -> dict[str, Any] | None:
    name = EVENT_NAMES.get(data[16])
    if name is None:
        return None
    message = mptcp_event(data)
    try:
        message.decode()
    except Exception:  # pyroute2 has no one class of decoding errors
        return None
    result: dict[str, Any] = {"event": name}
    for attribute, value in message["attrs"]:
        word = attribute.removeprefix("MPTCP_ATTR_").lower()
        result[{"saddr4": "saddr", "saddr6": "saddr", "daddr4": "daddr", "daddr6": "daddr"}.get(word, word)] = value
    result["server_side"] = bool(result.get("server_side") or result.get("flags", 0) & EVENT_FLAG_SERVER_SIDE)
    return result


def _address(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"addr": ..., "id": ..., "port": ..., "flags": ..., "if_idx": ...}, each as wanted, as a nested attribute."""
    values = dict(values)
    address = values.pop("addr", None)
    attributes: list[tuple[str, Any]] = []
    if address is not None:
        sixth = ":" in address
        attributes.append(("MPTCP_PM_ADDR_ATTR_FAMILY", AF_INET6 if sixth else AF_INET))
        attributes.append((f"MPTCP_PM_ADDR_ATTR_ADDR{6 if sixth else 4}", address))
    attributes += [(mptcp_msg.pm_addr.name2nla(name), value) for name, value in values.items() if value is not None]
    return {"attrs": attributes}


class AsyncUserspaceMPTCP(AsyncMPTCP):
    """Adds the commands of the userspace path manager; `token` is the local token of a connection.

    Connections follow the path manager that the namespace had when they were opened (net.mptcp.pm_type, 1 is
    userspace). The kernel answers EINVAL for those of the in-kernel one and ESRCH for a token that no connection has.
    """

    async def announce(self, token: int, **local: Any) -> Any:
        """Tell the peer an address (ADD_ADDR, RFC 8684 section 3.4.1). Usage::

        await mptcp.announce(token, addr="10.2.0.100", id=3, flags=MPTCP_PM_ADDR_FLAG_SIGNAL)
        """
        return await self._userspace(MPTCP_PM_CMD_ANNOUNCE, token, ("MPTCP_PM_ATTR_ADDR", _address(local), _NESTED))

    async def remove(self, token: int, loc_id: int) -> Any:
        """Take an announced address, or the one of a subflow, back (REMOVE_ADDR, RFC 8684 section 3.4.2).

        The peer closes its subflows; those here stay until they hear of it, or until `subflow("destroy")`.
        """
        return await self._userspace(MPTCP_PM_CMD_REMOVE, token, ("MPTCP_PM_ATTR_LOC_ID", loc_id))

    async def subflow(self, cmd: str, token: int, local: Mapping[str, Any], remote: Mapping[str, Any]) -> Any:
        """Open or close a subflow. Usage::

        await mptcp.subflow("create", token, {"addr": "10.2.0.100", "id": 3}, {"addr": "10.65.0.2", "port": 443})
        await mptcp.subflow("destroy", token, {"addr": "10.2.0.100", "port": 40112}, {"addr": "10.65.0.2", "port": 443})
        """
        number = {"create": MPTCP_PM_CMD_SUBFLOW_CREATE, "destroy": MPTCP_PM_CMD_SUBFLOW_DESTROY}[cmd]
        ends = [
            ("MPTCP_PM_ATTR_ADDR", _address(local), _NESTED),
            ("MPTCP_PM_ATTR_ADDR_REMOTE", _address(remote), _NESTED),
        ]
        return await self._userspace(number, token, *ends)

    async def set_flags(
        self, local: Mapping[str, Any], token: int | None = None, remote: Mapping[str, Any] | None = None
    ) -> Any:
        """Set the flags of an endpoint (without `token`), or of the subflows between two addresses of a connection. Usage::

        await mptcp.set_flags({"addr": "10.2.0.100", "flags": MPTCP_PM_ADDR_FLAG_BACKUP})
        """
        attributes: list[Any] = [("MPTCP_PM_ATTR_ADDR", _address(local), _NESTED)]
        if remote is not None:
            attributes.append(("MPTCP_PM_ATTR_ADDR_REMOTE", _address(remote), _NESTED))
        return await self._userspace(MPTCP_PM_CMD_SET_FLAGS, token, *attributes)

    async def _userspace(self, command: int, token: int | None, *attributes: Any) -> Any:
        message = mptcp_msg()
        message["cmd"], message["version"] = command, 1
        message["attrs"] = [*([("MPTCP_PM_ATTR_TOKEN", token)] if token is not None else []), *attributes]
        return await self.nlm_request(message, msg_type=self.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)


class UserspaceMPTCP(MPTCP):
    """The same for programs without asyncio."""

    async_class = AsyncUserspaceMPTCP

    def announce(self, token: int, **local: Any) -> Any:
        """See AsyncUserspaceMPTCP."""
        return self._run_sync_cleanup(self.asyncore.announce, token, **local)

    def remove(self, token: int, loc_id: int) -> Any:
        """See AsyncUserspaceMPTCP."""
        return self._run_sync_cleanup(self.asyncore.remove, token, loc_id)

    def subflow(self, cmd: str, token: int, local: Mapping[str, Any], remote: Mapping[str, Any]) -> Any:
        """See AsyncUserspaceMPTCP."""
        return self._run_sync_cleanup(self.asyncore.subflow, cmd, token, local, remote)

    def set_flags(self, local: Mapping[str, Any], token: int | None = None, remote: Mapping[str, Any] | None = None) -> Any:
        """See AsyncUserspaceMPTCP."""
        return self._run_sync_cleanup(self.asyncore.set_flags, local, token, remote)
