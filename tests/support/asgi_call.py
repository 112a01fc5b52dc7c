"""One request to an ASGI application in this process, seen as the server sees it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from tests.support.messages import until_true
from tests.support.tails import Socket


class AsgiCall:
    """What the application sent so far; the client stays until `disconnect`."""

    def __init__(self) -> None:
        self.head: Message | None = None
        self.socket = Socket()
        self.returned = False
        self._asked = False
        self._gone = asyncio.Event()

    @property
    def status(self) -> int:
        """The response's status."""
        assert self.head is not None
        return int(self.head["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        assert self.head is not None
        return {name.decode(): value.decode() for name, value in self.head["headers"]}

    def disconnect(self) -> None:
        """The client goes."""
        self._gone.set()

    async def until_ended(self, within: float = 10) -> None:
        """Wait until the response is complete, and the application has returned."""
        await until_true(lambda: self.socket.ended, within=within)
        await until_true(lambda: self.returned, within=within)

    async def receive(self) -> Message:
        """The request, and then the client's end."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # As servers do: also after a response that is complete (ASGI, "disconnect").
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a piece of the response."""
        if message["type"] == "http.response.start":
            assert self.head is None
            self.head = message
            return
        assert self.head is not None
        await self.socket.send(message)
        if self.socket.ended:
            self._gone.set()


def scope_of(
    path: str, *, method: str = "GET", query: str = "", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a server says of a request."""
    given = {"host": "api", "accept": "text/event-stream"} | dict(headers or {})
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


@asynccontextmanager
async def asgi_call(app: ASGIApp, scope: Scope) -> AsyncIterator[AsgiCall]:
    """Make a request and yield once its head is here; the client goes with the block."""
    call = AsgiCall()

    async def run() -> None:
        await app(scope, call.receive, call.send)
        call.returned = True

    task = asyncio.create_task(run())
    try:
        await until_true(lambda: call.head is not None or task.done())
        yield call
    finally:
        call.disconnect()
        async with asyncio.timeout(10):
            await task
