"""A real MCP server of the official package, for a test to call, break and kill.

As a child: `python mcp_server.py NOTES`. Over HTTP: `python mcp_server.py NOTES http PORT`, with
`old` behind it by the protocol that has sessions. Each call and each end that it hears of is a line
of JSON in the file NOTES, so that effects are counted outside of the program under test.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

NOTES = Path(sys.argv[1])
server = MCPServer("test", log_level="ERROR")


def note(what: str, **more: object) -> None:
    """Add a line to the notes."""
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


def key(context: Context[Any, Any]) -> object:
    """The idempotency key of the present call."""
    return dict(context.request_context.meta or {}).get("rejoin/idempotency-key")


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def add(a: int, b: int, context: Context[Any, Any]) -> int:
    """Add two numbers."""
    note("add", key=key(context))
    return a + b


@server.tool(structured_output=False)
def say(text: str) -> str:
    """Say it again."""
    return text


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """A picture with a word."""
    return ["a word", Image(data=b"\x89PNG" * 100, format="png")]


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it is broken")


@server.tool(structured_output=False)
async def count(to: int, context: Context[Any, Any]) -> str:
    """Count, and tell of it."""
    for at in range(to):
        await context.report_progress(at + 1, to, f"at {at + 1}")
    return "counted"


@server.tool(structured_output=False)
async def hang(context: Context[Any, Any]) -> str:
    """Never return."""
    note("hang", key=key(context))
    try:
        await asyncio.Event().wait()
    finally:
        note("hang ended")
    return "never"


@server.tool(structured_output=False)
async def grow(context: Context[Any, Any]) -> str:
    """Have one more tool, and one less."""
    server.add_tool(lambda: "new", name="grown", structured_output=False)
    server.remove_tool("say")
    await context.notify_tools_changed()
    await context.session.send_tool_list_changed()
    return "grown"


@server.tool(structured_output=False)
def name_of(name: str = Field(pattern="^[a-z]+$")) -> str:
    """Take a name."""
    return name


@server.tool(structured_output=False)
def environment() -> str:
    """Say which variables it has."""
    return " ".join(sorted(os.environ))


@server.tool(structured_output=False)
def flood() -> str:
    """Write a lot to stderr."""
    for at in range(5000):
        sys.stderr.write(f"line {at}\n")
    sys.stderr.flush()
    return "flooded"


class Old:
    """Knows nothing of the protocol's newer kind."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what asks for it."""
        if dict(scope.get("headers", [])).get(b"mcp-method") == b"server/discover":
            await Response("Not Found", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def main() -> None:
    """Serve."""
    note("started")
    if len(sys.argv) < 3:
        asyncio.run(server.run_stdio_async())
        return
    app = server.streamable_http_app()
    if "old" in sys.argv[4:]:
        app.add_middleware(Old)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="error")


if __name__ == "__main__":
    main()
