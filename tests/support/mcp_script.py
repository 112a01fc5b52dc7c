"""An MCP server over stdio without the package, of an older protocol, that misbehaves.

`python mcp_script.py HOW`: `pages` (a tool a page), `endless` (pages without an end), `schemas`
(tools that are fit and others that are not), `rubbish` (nothing that is MCP), `silent` (no answer
to anything), `mute` (no answer to a call), `wrong` (answers to calls that are no results), `deaf`
(does not heed the end of its input, nor SIGTERM).
"""

import json
import signal
import sys
import time
from typing import Any

HOW = sys.argv[1]

_OBJECT: dict[str, object] = {"type": "object"}
SCHEMAS: dict[str, dict[str, object]] = {
    "fit": _OBJECT,
    "foreign": {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}},
    "no-schema": {"type": "object", "properties": {"a": {"type": "text"}}},
    "ill named!": _OBJECT,
}


def answer(asked: dict[str, Any], result: object) -> None:
    """Send a result."""
    send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}))


def send(text: str) -> None:
    """Write lines."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tool(name: str, schema: object) -> dict[str, object]:
    """A tool as the protocol lists it."""
    return {"name": name, "description": name, "inputSchema": schema}


def page(cursor: str | None) -> dict[str, object]:
    """One page of the tools."""
    at = int(cursor or 0)
    match HOW:
        case "pages":
            more = {"nextCursor": str(at + 1)} if at < 2 else {}
            return {"tools": [tool(f"tool{at}", _OBJECT)], **more}
        case "endless":
            return {"tools": [tool(f"tool{at}", _OBJECT)], "nextCursor": str(at + 1)}
        case "schemas":
            return {"tools": [tool(name, schema) for name, schema in SCHEMAS.items()]}
    return {"tools": [tool("call", _OBJECT)]}


def heed(asked: dict[str, Any]) -> None:
    """Answer one request, as it does."""
    match asked.get("method"):
        case "initialize":
            answer(
                asked,
                {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "script", "version": "1"},
                },
            )
        case "tools/list":
            answer(asked, page((asked.get("params") or {}).get("cursor")))
        case "tools/call" if HOW == "wrong":
            answer(asked, {"content": "no list"})
        case "tools/call" if HOW != "mute":
            answer(asked, {"content": [{"type": "text", "text": "called"}]})
        case "server/discover":
            error = {"code": -32601, "message": "no such method"}
            send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}))


def main() -> None:
    """Serve until the input ends."""
    if HOW == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        if HOW == "rubbish":
            send("welcome to the rubbish\n{\n[]")
        elif HOW != "silent":
            heed(json.loads(line))
    while HOW == "deaf":
        time.sleep(3600)


if __name__ == "__main__":
    main()
