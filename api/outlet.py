"""A response's way out: here and now where the server takes it, by a task where it has to wait."""

import types
from collections.abc import Awaitable, Coroutine, Generator

from starlette.types import Message, Send


class Gone(Exception):
    """The server takes no more of this response."""


class Outlet:
    """One response's `send`, called from callbacks and from one task, never by two at a time."""

    __slots__ = ("_send", "_sending", "_tasked", "_unsent")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sending = True  # the task waits for the socket; at first, nothing was sent yet
        self._tasked = False  # `send` works within a task alone
        self._unsent: Awaitable[None] | None = None  # what was begun and not taken yet

    @property
    def idle(self) -> bool:
        """Whether `start` may be called: nothing is on its way."""
        return not self._sending and self._unsent is None

    def start_first(self, message: Message) -> None:
        """Send what may be lost or doubled, from a callback, to learn how `send` may be called.

        Behind anyio's streams (Starlette's BaseHTTPMiddleware), and in servers whose `send` gives
        no coroutine, it cannot be driven by hand.
        """
        self._sending = False
        try:
            self.start(message)
        except Exception:  # noqa: BLE001  each of them says it in words of its own
            self._tasked = True
            self.start(message)

    def start(self, message: Message) -> bool:
        """Send here and now; True: the rest has to be waited for, by `flush` in a task.

        Raises:
            Exception: whatever a server says of a client that is gone.
        """
        if self._tasked:
            self._unsent = _whole(self._send, message)
            return True
        sending = self._send(message)
        try:
            awaited = sending.send(None)  # type: ignore[attr-defined]  # a coroutine: start_first
        except StopIteration:
            return False
        self._unsent = _rest(sending, awaited)  # type: ignore[arg-type]
        return True

    async def flush(self) -> None:
        """Wait until what was begun is taken.

        Raises:
            Gone: the server takes no more.
        """
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            await self._taken(unsent)

    async def send(self, message: Message) -> None:
        """Send, after what was begun, and wait until it is taken.

        Raises:
            Gone: the server takes no more.
        """
        await self.flush()
        await self._taken(self._send(message))

    async def _taken(self, sending: Awaitable[None]) -> None:
        self._sending = True
        try:
            await sending
        except Exception as error:
            raise Gone from error
        finally:
            self._sending = False


@types.coroutine
def _whole(send: Send, message: Message) -> Generator[object, object, None]:
    """Await a `send` that is called only then: what is never awaited leaves no warning."""
    yield from send(message).__await__()


@types.coroutine
def _rest(
    sending: Coroutine[object, object, None], awaited: object
) -> Generator[object, object, None]:
    """Await the rest of a coroutine that was driven up to `awaited`."""
    try:
        while True:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001  it is the coroutine's, cancellation too
                awaited = sending.throw(error)
            else:
                awaited = sending.send(answer)
    except StopIteration:
        return
