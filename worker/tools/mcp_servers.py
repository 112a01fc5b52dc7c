"""The MCP servers of a worker: their connections, and their tools among the worker's others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import mcp_types as types

from rejoin.shared.errors import BadRequest
from rejoin.shared.settings_file import McpServer
from rejoin.worker.tools.mcp import McpTool, name_of, prefix_of, tool_of
from rejoin.worker.tools.mcp_connection import CLOSE_SECONDS, Connection, Transport
from rejoin.worker.tools.mcp_said import quieten_sdk
from rejoin.worker.tools.mcp_transport import Http, Stdio
from rejoin.worker.tools.registry import Tools
from rejoin.worker.validation import Validation

READY_SECONDS: Final = 10.0  # how long a worker waits for them before it takes messages

_log = logging.getLogger(__name__)


def transport(name: str, server: McpServer) -> Transport:
    """Return the way to a server whose variables are filled in."""
    if server.url is not None:
        return Http(server.url, server.headers)
    return Stdio(name, server.command or [], server.env, server.cwd)


@asynccontextmanager
async def serving(
    servers: Mapping[str, McpServer],
    tools: Tools,
    validation: Validation,
    *,
    ready_seconds: float = READY_SECONDS,
) -> AsyncIterator[list[Connection]]:
    """Keep the servers open for the block, and their tools in `tools`.

    It begins when each has given its tools or failed, or after `ready_seconds`: one that is away
    gives its tools when it comes. They stay while it is away; calling them is an error then.
    """
    quieten_sdk()
    for name in servers:
        tools.expect(prefix_of(name))
    connections = [
        Connection(name, transport(name, server), _Shelf(server, tools, validation).put)
        for name, server in servers.items()
    ]
    running = [asyncio.create_task(connection.run()) for connection in connections]
    tried = [asyncio.create_task(connection.tried.wait()) for connection in connections]
    try:
        if tried:
            await asyncio.wait(tried, timeout=ready_seconds)
        yield connections
    finally:
        for wait in tried:
            wait.cancel()
        await close(connections, running)


async def close(connections: Sequence[Connection], running: Sequence[asyncio.Task[None]]) -> None:
    """Close all at once, within a bound."""
    for connection, task in zip(connections, running, strict=True):
        connection.close()
        if connection.opening:
            task.cancel()
    left = set(running)
    if left:
        _, left = await asyncio.wait(left, timeout=CLOSE_SECONDS)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)
    for task in running:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("an MCP server's connection did not close in order", exc_info=error)


class _Shelf:
    """One server's place among the tools."""

    def __init__(self, server: McpServer, tools: Tools, validation: Validation) -> None:
        self._server = server
        self._tools = tools
        self._validation = validation
        self._has: dict[str, McpTool] = {}
        self._seen: dict[str, types.Tool] = {}
        self._told: set[str] = set()

    async def put(self, connection: Connection, listed: Sequence[types.Tool]) -> None:
        """Take what the server has now in the place of what it had."""
        has: dict[str, McpTool] = {}
        for one in listed:
            if (tool := await self._tool(connection, one)) is not None:
                has.setdefault(tool.name, tool)
        for name in self._has.keys() - has.keys():
            self._tools.remove(name)
        for tool in has.values():
            self._tools.add(tool)
        self._tools.came(prefix_of(connection.name))
        asks = self._server.needs_approval
        for name in asks if isinstance(asks, list) else ():
            if all(one.name != name for one in listed):
                self._tell(f"[mcp.{connection.name}] needs_approval: there is no tool {name}")
        if has.keys() != self._has.keys() or not has:
            names = ", ".join(sorted(has)) or "none"
            self._tell(f"MCP server {connection.name} has the tools: {names}", logging.INFO)
        self._has, self._seen = has, {one.name: one for one in listed}

    async def _tool(self, connection: Connection, listed: types.Tool) -> McpTool | None:
        name = name_of(connection.name, listed.name)
        before = self._has.get(name)
        if before is not None and self._seen.get(listed.name) == listed:
            return before
        if before is None and self._tools.find(name) is not None:
            self._tell(f"the tool {name} of an MCP server is left out: there is another {name}")
            return None
        try:
            return await tool_of(listed, self._server, connection, self._validation)
        except BadRequest as error:
            place = ".".join(str(part) for part in error.field or ())
            self._tell(f"the tool {name} of an MCP server is left out: {place}: {error}")
            return None

    def _tell(self, sentence: str, level: int = logging.WARNING) -> None:
        """Log it once, however often the server lists the same."""
        if sentence not in self._told:
            self._told.add(sentence)
            _log.log(level, "%s", sentence)
