"""Looks whether each MCP server can be opened and lists its tools; for `rejoin doctor`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import mcp_types as types

from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings_file import McpServer
from rejoin.worker.tools.mcp_connection import Connection, said
from rejoin.worker.tools.mcp_said import quieten_sdk
from rejoin.worker.tools.mcp_servers import close, transport

WITHIN_SECONDS: Final = 10.0


async def look(servers: Mapping[str, McpServer]) -> list[tuple[str, Finding]]:
    """Say of each server what it gives, or what to mend; all at once, within 10 s and a little."""
    quieten_sdk()
    found = await asyncio.gather(*(_look(name, one) for name, one in servers.items()))
    return [(f"mcp {name}", finding) for name, finding in zip(servers, found, strict=True)]


async def _look(name: str, server: McpServer) -> Finding:
    names = list[str]()

    async def listed(_: Connection, tools: Sequence[types.Tool]) -> None:
        names.extend(tool.name for tool in tools)

    connection = Connection(name, transport(name, server), listed)
    running = asyncio.create_task(connection.run())
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            await connection.tried.wait()
    except TimeoutError:
        sentence = f"does not answer within {WITHIN_SECONDS:g} s; {_mend(server)}"
        return Finding(Grade.BROKEN, sentence)
    finally:
        await close([connection], [running])
    if connection.error is not None:
        return Finding(Grade.BROKEN, f"{said(connection.error)}; {_mend(server)}")
    missing = sorted(set(_asked(server)) - set(names))
    if missing:
        sentence = f"needs_approval names what it has not: {', '.join(missing)}"
        return Finding(Grade.BROKEN, f"{sentence}; it has {', '.join(names) or 'no tools'}")
    if not names:
        return Finding(Grade.WARNING, "answers, and has no tools")
    return Finding(Grade.OK, f"answers, and has {len(names)} tools: {', '.join(names)}")


def _asked(server: McpServer) -> list[str]:
    return server.needs_approval if isinstance(server.needs_approval, list) else []


def _mend(server: McpServer) -> str:
    if server.url is not None:
        return "look at its url and headers, and whether it runs"
    return "look at its command, env and cwd, and run it by hand to see what it says"
