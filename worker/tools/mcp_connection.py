"""The connection to one MCP server: opened, kept, and opened again when the server was lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.dispatcher import ProgressFnT
from pydantic import TypeAdapter, ValidationError

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.mcp_transport import NOT_SENT

if TYPE_CHECKING:  # the name has no public place
    from mcp.client._transport import TransportStreams

OPEN_SECONDS: Final = 30.0  # to start it, greet it and list its tools
CLOSE_SECONDS: Final = 8.0  # the SDK gives a process two seconds, SIGTERM, two more, SIGKILL

_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 10.0  # open for so long, it is opened again at once
_LIST_SECONDS: Final = 10.0
_REFRESH_SECONDS: Final = 60.0  # where nothing tells of changes, or of the server's end
_SETTLE_SECONDS: Final = 0.2  # between lists, whatever the server says
_MOST_FAILURES: Final = 5  # lists that fail while calls are under way
_LISTEN_AGAIN_SECONDS: Final = 5.0
_AWAY_SECONDS: Final = 3.0  # how long a call waits for a server that is being opened
_MOST_SAID_CHARS: Final = 300
_MOST_PAGES: Final = 100
_MOST_TOOLS: Final = 1000

_CLIENT: Final = types.Implementation(name="rejoin", version=version("rejoin"))
_Answer = types.CallToolResult | types.InputRequiredResult
_ANSWER: Final[TypeAdapter[_Answer]] = TypeAdapter(_Answer)

_log = logging.getLogger(__name__)


class Transport(Protocol):
    """A way to the server."""

    def open(self, ended: Callable[[], None]) -> "AbstractAsyncContextManager[TransportStreams]":
        """Open it; `ended` is called when it is seen to be over."""


class Listed(Protocol):
    """Who is told of a server's tools."""

    def __call__(self, connection: "Connection", tools: Sequence[types.Tool], /) -> Awaitable[None]:
        """Take them in the place of what was told before."""


class Connection:
    """One server. `run` owns what is open, in its own task; `call` may come from any.

    `listed` is told its tools each time it is opened and when they change. `tried` is set once
    that was done, or has failed; `error` is why it is away, None while it is there.
    """

    def __init__(self, name: str, transport: Transport, listed: Listed) -> None:
        self.name = name
        self.tried = asyncio.Event()
        self.error: BaseException | None = None
        self._transport = transport
        self._listed = listed
        self._session: ClientSession | None = None
        self._there = asyncio.Event()
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._ended = False
        self._calls = 0

    def close(self) -> None:
        """Let `run` close what is open and return; while it opens, cancel it instead."""
        self._closing.set()
        self._news.set()

    @property
    def opening(self) -> bool:
        """Whether it is not there: then only a cancellation ends `run` at once."""
        return self._session is None

    async def run(self) -> None:
        """Keep it open until `close`."""
        clock = asyncio.get_running_loop().time
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            began = clock()
            try:
                await self._keep()
            except Exception as error:  # noqa: BLE001  whatever a server does ends only its tools
                self._say(error)
            finally:
                self._gone()
            self.tried.set()
            if clock() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await self._closed_within(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, object],
        meta: Mapping[str, str],
        progress: ProgressFnT,
    ) -> types.CallToolResult:
        """Call a tool, and once more where the server had forgotten our session.

        Raises:
            ToolError: the server is away, was lost, refused the call, or did not answer to it.
        """
        params = types.CallToolRequestParams.model_validate(
            {"name": tool, "arguments": dict(arguments), "_meta": dict(meta)}
        )
        request = types.CallToolRequest(params=params)
        for again in (True, False):
            session = await self._present()
            self._calls += 1
            try:
                # Not the SDK's call_tool: it applies the server's schema to the result, and a
                # regular expression in one may hold up the loop for ever.
                answer = await session.send_request(request, _ANSWER, progress_callback=progress)
            except MCPError as error:
                if not (again and self._forgot_us(error, session)):
                    raise self._refusal(error) from error
            except ValidationError as error:
                raise ToolError(f"what the MCP server {self.name} answered is no result") from error
            else:
                if isinstance(answer, types.CallToolResult):
                    return answer
                raise ToolError(f"the MCP server {self.name} asks for input that nobody can give")
            finally:
                self._calls -= 1
        raise ToolError(f"the MCP server {self.name} forgets its sessions")

    async def _present(self) -> ClientSession:
        if self._session is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_AWAY_SECONDS):
                    await self._there.wait()
        if self._session is None:
            raise self._away()
        return self._session

    def _away(self) -> ToolError:
        return ToolError(f"the MCP server {self.name} is away; the call was not made")

    def _forgot_us(self, error: MCPError, session: ClientSession) -> bool:
        """Whether the server does not know our session any more, and so did nothing."""
        if (error.code, error.message) != (types.INVALID_REQUEST, "Session terminated"):
            return False
        if self._session is session:
            self._lost()
        return True

    def _refusal(self, error: MCPError) -> ToolError:
        if error.code == types.CONNECTION_CLOSED:
            self._news.set()  # is it still there?
            if error.message == NOT_SENT:
                return self._away()
            return ToolError(
                f"the MCP server {self.name} was lost before it answered: whether it did what it"
                " was asked is unknown"
            )
        if error.code == types.HEADER_MISMATCH:
            self._news.set()
            return ToolError(f"the MCP server {self.name} has changed the tool: call it again")
        return ToolError(f"the MCP server {self.name} refused the call: {error.message}")

    async def _keep(self) -> None:
        self._ended = False
        async with asyncio.timeout(OPEN_SECONDS) as bound:
            client = Client(
                self._transport.open(self._lost),
                mode="auto",
                cache=None,
                client_info=_CLIENT,
                message_handler=self._hear,
            )
            async with client:
                await self._list(client)
                bound.reschedule(None)
                self._session = client.session
                self._there.set()
                self.tried.set()
                self.error = None
                listening = asyncio.create_task(self._listen(client))
                try:
                    await self._watch(client)
                finally:
                    self._gone()
                    listening.cancel()
                    await asyncio.wait([listening])

    async def _watch(self, client: Client) -> None:
        """List the tools when there is news, and now and then; until the server is lost."""
        failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await self._news.wait()
            self._news.clear()
            if self._closing.is_set():
                return
            if self._ended:
                raise ConnectionError("it has ended")
            try:
                async with asyncio.timeout(_LIST_SECONDS):
                    await self._list(client)
                failures = 0
            except (MCPError, TimeoutError):
                # Calls that are under way may still end well, and opening anew would end them.
                failures += 1
                if not self._calls or failures == _MOST_FAILURES:
                    raise
                self._news.set()
            await self._closed_within(_SETTLE_SECONDS + failures)

    async def _list(self, client: Client) -> None:
        tools = list[types.Tool]()
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or len(tools) >= _MOST_TOOLS:
                break
        if cursor is not None:
            _log.warning("MCP server %s: only %d of its tools are taken", self.name, len(tools))
        await self._listed(self, tools)

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools, from a server of the protocol's newer kind."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._news.set()
            except ListenNotSupportedError:
                return
            except (MCPError, SubscriptionLost):
                self._news.set()
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._news.set()

    def _lost(self) -> None:
        self._ended = True
        self._gone()
        self._news.set()

    def _gone(self) -> None:
        self._session = None
        self._there.clear()

    async def _closed_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _say(self, error: Exception) -> None:
        """Log why it is away, once for each reason."""
        if said(error) != (said(self.error) if self.error else None):
            _log.warning("MCP server %s is away: %s; it is tried again", self.name, said(error))
        self.error = error


def said(error: BaseException) -> str:
    """Why a server could not be opened, in a few words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
        return f"it cannot be reached ({error.message})"
    if isinstance(error, ValidationError):
        return "what it answers is not MCP"
    # Some of it is the server's own text.
    text = f"{type(error).__name__}: {error}"[:_MOST_SAID_CHARS]
    return "".join(char if char.isprintable() else " " for char in text)
