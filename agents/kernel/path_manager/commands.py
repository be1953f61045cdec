"""The core's actions as commands to the kernel. Raises KernelError with the kernel's own words."""

import contextlib
import os
import socket
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from agents.core.mptcp_endpoints import Endpoint
from agents.core.path_manager import values as act
from agents.kernel.mptcp_pm import PathManager
from agents.kernel.netlink import SOL_NETLINK, KernelError
from agents.kernel.path_manager import genl_mptcp
from agents.kernel.path_manager.genl_mptcp import AsyncUserspaceMPTCP

NETLINK_GENERIC, _ADD_MEMBERSHIP = 16, 1
_EVENT_BUFFER_BYTES = 1 << 20


class Commands:
    """The path managers of the present network namespace."""

    def __init__(self) -> None:
        self._userspace = AsyncUserspaceMPTCP()
        self._kernel = PathManager()
        self._performers: dict[type, Any] = {
            act.CreateSubflow: self._create, act.DestroySubflow: self._destroy, act.Announce: self._announce,
            act.Remove: self._remove, act.SetPriority: self._set_priority, act.AddEndpoint: self._add_endpoint,
            act.DeleteEndpoint: self._delete_endpoint, act.SetEndpointBackup: self._set_endpoint_backup,
            act.CloseInitial: self._close_initial,
        }  # fmt: skip

    async def start(self) -> None:
        """Open the sockets."""
        try:
            await self._userspace.setup_endpoint()
        except NetlinkError as error:
            raise KernelError(error.code, f"the kernel has no MPTCP path manager: {os.strerror(error.code)}") from error
        await self._kernel.start()

    def close(self) -> None:
        """Close the sockets."""
        for link in (self._userspace, self._kernel):
            with contextlib.suppress(OSError):
                link.close()

    def event_socket(self) -> socket.socket:
        """A socket that gets the events of all connections of the namespace."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        events = socket.socket(socket.AF_NETLINK, kind, NETLINK_GENERIC)
        events.bind((0, 0))
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER_BYTES)
        group = self._userspace.mcast_groups[genl_mptcp.MPTCP_PM_EV_GRP_NAME]
        events.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)
        return events

    async def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        """Of the in-kernel path manager."""
        await self._kernel.set_limits(subflows, add_addr_accepted)

    async def endpoints(self) -> list[Endpoint]:
        """Of the in-kernel path manager."""
        return await self._kernel.show()

    async def perform(self, action: Any) -> None:
        """Carry out one action."""
        await self._performers[type(action)](action)

    # -- userspace path manager ---------------------------------------------------------------------------------------
    async def _create(self, action: act.CreateSubflow) -> None:
        local: dict[str, Any] = {"addr": action.local, "id": action.local_id}
        if action.backup:
            local["flags"] = genl_mptcp.MPTCP_PM_ADDR_FLAG_SUBFLOW | genl_mptcp.MPTCP_PM_ADDR_FLAG_BACKUP
        if action.index:
            local["if_idx"] = action.index
        remote = {"addr": action.remote, "port": action.remote_port}
        await self._checked(action, self._userspace.subflow("create", action.token, local, remote))

    async def _destroy(self, action: act.DestroySubflow) -> None:
        local, remote = {"addr": action.local, "port": action.local_port}, {"addr": action.remote, "port": action.remote_port}
        await self._checked(action, self._userspace.subflow("destroy", action.token, local, remote))

    async def _announce(self, action: act.Announce) -> None:
        flags = genl_mptcp.MPTCP_PM_ADDR_FLAG_SIGNAL | (genl_mptcp.MPTCP_PM_ADDR_FLAG_BACKUP if action.backup else 0)
        spec: dict[str, Any] = {"addr": action.address, "id": action.local_id, "flags": flags}
        if action.index:
            spec["if_idx"] = action.index
        await self._checked(action, self._userspace.announce(action.token, **spec))

    async def _remove(self, action: act.Remove) -> None:
        await self._checked(action, self._userspace.remove(action.token, action.local_id))

    async def _set_priority(self, action: act.SetPriority) -> None:
        flags = genl_mptcp.MPTCP_PM_ADDR_FLAG_BACKUP if action.backup else 0
        local = {"addr": action.local, "id": action.local_id, "flags": flags}
        remote = {"addr": action.remote, "port": action.remote_port}
        await self._checked(action, self._userspace.set_flags(local, action.token, remote))

    # -- in-kernel path manager ---------------------------------------------------------------------------------------
    async def _add_endpoint(self, action: act.AddEndpoint) -> None:
        await self._kernel.add(action.endpoint)

    async def _delete_endpoint(self, action: act.DeleteEndpoint) -> None:
        await self._kernel.delete(action.endpoint.number)

    async def _set_endpoint_backup(self, action: act.SetEndpointBackup) -> None:
        await self._kernel.set_flags(action.endpoint.address, action.backup)

    async def _close_initial(self, action: act.CloseInitial) -> None:
        name = "addr6" if ":" in action.address else "addr4"
        await self._checked(action, self._userspace.endpoint("del", id=0, **{name: action.address}))

    @staticmethod
    async def _checked(action: Any, request: Any) -> None:
        try:
            answer = await request
            if answer is not None:
                async for _message in answer:
                    pass
        except NetlinkError as error:
            said = str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)
            raise KernelError(error.code, f"{type(action).__name__}: {said}") from error
