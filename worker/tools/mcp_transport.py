"""The two ways to an MCP server: a child process's stdin and stdout, or streamable HTTP."""

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import httpx2
import mcp_types as types
from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.shared.message import SessionMessage

from rejoin.shared import leash
from rejoin.worker.tools.mcp_said import stderr_of

if TYPE_CHECKING:  # the names have no public place
    from mcp.client._transport import ReadStream, TransportStreams

NOT_SENT: Final = "no connection"  # what an error says where a request never left

_CONNECT_SECONDS: Final = 10.0
# Shorter than servers keep an idle connection: one that closes as we write would lose a call.
_IDLE_SECONDS: Final = 2.0
_MOST_EVENT_BYTES: Final = 16 * 2**20

Item = SessionMessage | Exception
Ended = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stdio:
    """A server that is our child, for as long as a connection lasts."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None

    @asynccontextmanager
    async def open(self, ended: Ended) -> "AsyncIterator[TransportStreams]":
        """Start it; `ended` is called when it closes its stdout, as it does when it dies.

        At the end its stdin is closed; two seconds later it is sent SIGTERM, and two after that
        SIGKILL, with all that it started. When this process dies, the kernel kills it (on Linux;
        elsewhere a process between the two does).

        Raises:
            OSError: it cannot be started.
        """
        environment = get_default_environment() | dict(self.env)
        tied = ("-I", "-S", leash.__file__, str(os.getpid()), str(int(signal.SIGKILL)))
        server = StdioServerParameters(
            command=sys.executable,
            args=[*tied, self._program(environment), *self.command[1:]],
            env=environment,
            cwd=self.cwd,
        )
        async with stderr_of(self.name) as errors, stdio_client(server, errors) as (read, write):
            errors.close()
            yield _Watched(read, ended), write

    def _program(self, environment: Mapping[str, str]) -> str:
        name = self.command[0]
        if os.sep in name:
            return name
        found = shutil.which(name, path=environment.get("PATH"))
        if found is None:
            raise FileNotFoundError(f"there is no program {name} on the PATH")
        return str(Path(found).absolute())


@dataclass(frozen=True, slots=True)
class Http:
    """A server at a URL."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @asynccontextmanager
    async def open(self, ended: Ended) -> "AsyncIterator[TransportStreams]":
        """Open it; nothing is sent yet."""
        # Each call under way holds a connection; how many there are is bounded elsewhere.
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS)
        # A call may take as long as its tool's own bound, which is kept elsewhere.
        timeout = httpx2.Timeout(_CONNECT_SECONDS, read=None)
        async with (
            httpx2.AsyncClient(
                headers=dict(self.headers), timeout=timeout, transport=_Answering(limits=limits)
            ) as http,
            streamable_http_client(
                self.url, http_client=http, max_sse_event_size=_MOST_EVENT_BYTES
            ) as streams,
        ):
            yield streams


class _Answering(httpx2.AsyncHTTPTransport):
    """Answers a request that got none with an error of its own.

    The SDK would end the whole session, and every call under way, for one that failed. And it
    takes a server's own words for a forgotten session for any other refusal: they are left out.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await super().handle_async_request(request)
        except httpx2.TransportError as error:
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            message = NOT_SENT if unsent else type(error).__name__
            said = types.ErrorData(code=types.CONNECTION_CLOSED, message=message)
            answer = types.JSONRPCError(jsonrpc="2.0", id=None, error=said)
            return httpx2.Response(
                httpx2.codes.BAD_GATEWAY,
                headers={"content-type": "application/json"},
                content=answer.model_dump_json(by_alias=True).encode(),
                request=request,
            )
        if response.status_code == httpx2.codes.NOT_FOUND and MCP_SESSION_ID in request.headers:
            await response.aclose()
            return httpx2.Response(httpx2.codes.NOT_FOUND, request=request)
        return response


class _Watched:
    """A read stream that tells of its end at once: the SDK tells those alone whose call waits."""

    def __init__(self, stream: "ReadStream[Item]", ended: Ended) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self) -> Item:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._ended()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)
