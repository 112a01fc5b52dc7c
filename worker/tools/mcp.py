"""A tool of an MCP server, as models and messages see it."""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import mcp_types as types

from rejoin.shared.errors import ToolError
from rejoin.shared.json_schema import Schema
from rejoin.shared.settings_file import McpServer
from rejoin.worker.tools.base import Call, OnUnknownOutcome
from rejoin.worker.tools.mcp_arguments import Arguments
from rejoin.worker.tools.mcp_connection import Connection
from rejoin.worker.tools.mcp_result import result_of
from rejoin.worker.validation import Validation

# In each call's `_meta`: a server that keeps it does nothing twice.
IDEMPOTENCY_KEY: Final = "rejoin/idempotency-key"

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]")
_MOST_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server: `remote` is what the server calls it."""

    name: str
    description: str
    parameters: Schema
    timeout_seconds: float
    needs_approval: bool
    on_unknown_outcome: OnUnknownOutcome
    remote: str
    arguments: Arguments
    connection: Connection
    validation: Validation

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse arguments that do not fit the server's schema, where that is seen quickly.

        Raises:
            ToolError: naming the places.
        """
        self.arguments.check(arguments)

    async def run(self, arguments: Mapping[str, object], call: Call) -> object:
        """Let the server run it.

        Raises:
            ToolError: it failed, or the server is away, was lost or refused.
        """
        await self.arguments.check_all(arguments, self.validation)

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            told = {"progress": progress, "total": total, "message": message}
            try:
                call.report("progress", told)
            except ToolError:  # too long: the call goes on without it
                return

        meta = {IDEMPOTENCY_KEY: call.idempotency_key}
        return result_of(await self.connection.call(self.remote, arguments, meta, progress))


async def tool_of(
    listed: types.Tool, server: McpServer, connection: Connection, validation: Validation
) -> McpTool:
    """Return a server's tool under our rules.

    Raises:
        BadRequest: its schema is none that arguments can be checked by.
    """
    asks = server.needs_approval
    arguments = await asyncio.to_thread(Arguments, listed.input_schema)
    return McpTool(
        name=name_of(connection.name, listed.name),
        description=listed.description or listed.title or "",
        parameters=listed.input_schema,
        timeout_seconds=server.timeout_seconds,
        needs_approval=asks if isinstance(asks, bool) else listed.name in asks,
        on_unknown_outcome=_unknown_outcome(server, listed.annotations),
        remote=listed.name,
        arguments=arguments,
        connection=connection,
        validation=validation,
    )


def prefix_of(server: str) -> str:
    """What the names of a server's tools begin with, and no other tool's of MCP."""
    return f"{server}__"


def name_of(server: str, tool: str) -> str:
    """`SERVER__TOOL`; what models cannot be told is replaced, and a digest keeps it apart."""
    name = prefix_of(server) + tool
    if _NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{_UNFIT.sub('_', name)[: _MOST_CHARS - 9]}_{digest}"


def _unknown_outcome(server: McpServer, hints: types.ToolAnnotations | None) -> OnUnknownOutcome:
    """The operator's choice; what the server says of its tools counts only if that is chosen."""
    if server.on_unknown_outcome != "hints":
        return OnUnknownOutcome(server.on_unknown_outcome)
    if hints is not None and (hints.read_only_hint or hints.idempotent_hint):
        return OnUnknownOutcome.RETRY
    return OnUnknownOutcome.FAIL
