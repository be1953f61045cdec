"""The control socket of an agent: one JSON request line, one JSON reply line, as often as the client likes.

A request is an object with "cmd"; the reply is {"ok": true, ...} or {"ok": false, "error": "one line"}. `status` always works.
Sizes, the number of clients and the time a client may take are bounded; a bad request never disturbs the agent.
"""

import asyncio
import inspect
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

REQUEST_MAX = 65_536
"""Bytes of a request line."""
CLIENTS_MAX = 16
IDLE_TIMEOUT_S = 60.0

Handler = Callable[[dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any]]]


class CommandError(ValueError):
    """A request that cannot be carried out; its text goes to the client."""


def parse_request(line: bytes) -> dict[str, Any]:
    """The request in a line. Raises CommandError, and nothing else, whatever the bytes are."""
    if len(line) > REQUEST_MAX:
        raise CommandError(f"request has more than {REQUEST_MAX} bytes")
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"request is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise CommandError('request is no JSON object: write {"cmd": "status"}')
    if not isinstance(value.get("cmd"), str):
        raise CommandError('request has no text "cmd": write {"cmd": "status"}')
    return value


class ControlServer:
    """Serves commands on a Unix stream socket. `commands` must hold "status"."""

    def __init__(self, path: str, commands: Mapping[str, Handler]) -> None:
        if "status" not in commands:
            raise ValueError("commands must hold status")
        self.path = path
        self._commands = commands
        self._clients = 0
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Create the socket; a stale file of a dead agent is replaced. It appears under its name when it can be used."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=REQUEST_MAX)

    async def close(self) -> None:
        """Remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if os.path.exists(self.path):
            os.unlink(self.path)

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The reply to one request line."""
        try:
            request = parse_request(line)
            handler = self._commands.get(request["cmd"])
            if handler is None:
                raise CommandError(f"no command {request['cmd'][:100]!r}: there are {', '.join(self._commands)}")
            result = handler(request)
            if inspect.isawaitable(result):
                result = await result
            return {"ok": True, **result}
        except (CommandError, OSError) as error:
            return {"ok": False, "error": str(error)}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients > CLIENTS_MAX:
                await self._reply(writer, {"ok": False, "error": f"more than {CLIENTS_MAX} clients"})
                return
            while True:
                try:
                    line = await asyncio.wait_for(reader.readline(), IDLE_TIMEOUT_S)
                except ValueError:
                    # Longer than the limit: what follows cannot be told from the rest of this request.
                    await self._reply(writer, {"ok": False, "error": f"request has more than {REQUEST_MAX} bytes"})
                    return
                if not line:
                    return
                await self._reply(writer, await self.answer(line))
        except (ConnectionError, TimeoutError):
            return
        finally:
            self._clients -= 1
            writer.close()

    @staticmethod
    async def _reply(writer: asyncio.StreamWriter, reply: dict[str, Any]) -> None:
        writer.write(json.dumps(reply, default=str).encode() + b"\n")
        await writer.drain()


def text_field(request: dict[str, Any], name: str) -> str:
    """A text of a request; CommandError when it is missing or something else."""
    value = request.get(name)
    if not isinstance(value, str):
        raise CommandError(f'{request["cmd"]} needs the text "{name}"')
    return value
