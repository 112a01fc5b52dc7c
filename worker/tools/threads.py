"""Runs a tool's blocking function in threads: at most so many of one tool, whatever they do.

Nothing in Python stops a thread. One that never returns holds its place until the process ends, so
each tool has places of its own: it can use up those of no other tool. They are daemon threads, for
the worker must end all the same.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rejoin.shared.errors import ToolError

MOST_THREADS: Final = 32  # of one tool; further calls wait for their turn, within their time


@dataclass(slots=True)
class _Thread:
    """One that runs; `overdue`: nobody waits for it any more."""

    overdue: bool = False
    over: bool = False


class Threads:
    """The threads of one tool. Any event loop may use them."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken = 0
        self._overdue = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def run(self, function: Callable[[], object]) -> object:
        """Return what `function` returns, or raise what it raises.

        Cancelled, it goes on at once; the thread runs on, and what it gives is dropped.

        Raises:
            ToolError: it did not run: every thread is held by a call whose time is long over.
        """
        await self._place()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()
        thread = _Thread()
        context = contextvars.copy_context()

        def body() -> None:
            how: tuple[object, BaseException | None]
            try:
                how = context.run(function), None
            except BaseException as error:  # noqa: BLE001  it is raised where it is awaited
                how = None, error
            self._end(thread)
            _tell(ended, how)

        try:
            threading.Thread(target=body, daemon=True, name="rejoin tool").start()
        except RuntimeError as error:
            self._end(thread)
            raise ToolError("it did not run: the worker can start no more threads") from error
        try:
            value, raised = await ended
        except asyncio.CancelledError:
            self._leave(thread)
            raise
        if raised is not None:
            raise raised
        return value

    async def _place(self) -> None:
        with self._lock:
            if self._taken < self._most:
                self._taken += 1
                return
            if self._overdue >= self._most:
                raise ToolError(
                    f"it did not run: {self._overdue} earlier calls of this tool never returned"
                )
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            with self._lock:
                if place in self._waiting:
                    self._waiting.remove(place)
            if not place.cancelled():
                self._pass_on()
            raise

    def _leave(self, thread: _Thread) -> None:
        with self._lock:
            if not thread.over:
                thread.overdue = True
                self._overdue += 1

    def _end(self, thread: _Thread) -> None:
        with self._lock:
            thread.over = True
            if thread.overdue:
                self._overdue -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        """Give a place to who waits longest; to nobody where its loop is closed."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._taken -= 1
                    return
                place = self._waiting.popleft()
            try:
                place.get_loop().call_soon_threadsafe(self._give, place)
            except RuntimeError:
                continue
            return

    def _give(self, place: asyncio.Future[None]) -> None:
        if place.done():
            self._pass_on()
        else:
            place.set_result(None)


def _tell(
    ended: "asyncio.Future[tuple[object, BaseException | None]]",
    how: tuple[object, BaseException | None],
) -> None:
    def settle() -> None:
        if not ended.done():
            ended.set_result(how)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        ended.get_loop().call_soon_threadsafe(settle)
