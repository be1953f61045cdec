"""Commands on the control socket of the proxy."""

import asyncio
import socket
from typing import Any

from agents.kernel.control import CommandError, Handler, text_field


class Commands:
    """Turns requests into calls of the core; the core's refusals go to the client.

    core: agents.core.proxy.proxy.Proxy. agent: what performs the actions afterwards.
    """

    def __init__(self, core: Any, agent: Any) -> None:
        self._core, self._agent = core, agent

    def table(self) -> dict[str, Handler]:
        """Control commands by name."""
        return {
            "status": self._status, "connections": self._connections, "add-subflow": self._add_subflow,
            "del-subflow": self._delete_subflow, "handover": self._handover, "prio": self._priority,
        }  # fmt: skip

    def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {**self._agent.state(), "proxy": self._core.status()}

    def _connections(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"connections": self._core.connections()}

    def _add_subflow(self, request: dict[str, Any]) -> dict[str, Any]:
        source = address(text_field(request, "address"))
        remote = address(text_field(request, "remote")) if "remote" in request else None
        backup = flag(request, "backup")
        return self._call("add_subflow", request, source, backup=backup, remote=remote)

    def _delete_subflow(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._call("delete_subflow", request, needed(number(request, "subflow"), request, "subflow"))

    def _handover(self, request: dict[str, Any]) -> dict[str, Any]:
        source = address(text_field(request, "address")) if "address" in request else None
        target = number(request, "to")
        if (target is None) is (source is None):
            raise CommandError('handover needs either the number "to" (a subflow) or the text "address"')
        return self._call("handover", request, target, address=source, break_first=flag(request, "break_first"))

    def _priority(self, request: dict[str, Any]) -> dict[str, Any]:
        subflow, word = needed(number(request, "subflow"), request, "subflow"), text_field(request, "priority")
        if word not in ("backup", "active"):
            raise CommandError(f'priority {word[:100]!r}: must be "backup" or "active"')
        return self._call("priority", request, subflow, word == "backup")

    def _call(self, method: str, request: dict[str, Any], *values: Any, **options: Any) -> dict[str, Any]:
        """A method of the core, then what it wants done."""
        now = asyncio.get_running_loop().time()
        try:
            result = getattr(self._core, method)(
                *values, now, self._agent.actions, connection=number(request, "connection"), **options
            )
        except CommandError:
            raise
        except ValueError as error:
            raise CommandError(str(error)) from None
        finally:
            self._agent.perform()
        self._agent.plan()
        return dict(result)


def address(value: str) -> bytes:
    """The bytes of an IPv4 or IPv6 address. Raises CommandError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, value)
        except (OSError, ValueError):
            continue
    raise CommandError(f"{value[:100]!r} is no address")


def number(request: dict[str, Any], name: str) -> int | None:
    """A whole number of a request; None when it is not there. Raises CommandError."""
    value = request.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise CommandError(f'"{name}" must be a whole number')
    return value


def needed(value: int | None, request: dict[str, Any], name: str) -> int:
    """The value; CommandError without one."""
    if value is None:
        raise CommandError(f'{request["cmd"]} needs the number "{name}"')
    return value


def flag(request: dict[str, Any], name: str) -> bool:
    """true or false, by default false. Raises CommandError."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise CommandError(f'"{name}" must be true or false')
    return value
