"""Tails one message: every event once and in order, over as many connections as it takes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from rejoin.client.backoff import Backoff, Patience, parse_retry_after
from rejoin.client.errors import TRY_AGAIN, UnexpectedReply, Unreachable, refusal
from rejoin.shared.ids import EventId

POSITION_UNKNOWN: Final = "position_unknown"

# The server comments every 15 s at the latest: three missed ones are a dead connection.
_SILENCE_SECONDS: Final = 45.0
_TIMEOUT: Final = httpx.Timeout(connect=5, read=_SILENCE_SECONDS, write=10, pool=10)
_LONGEST_RETRY_SECONDS: Final = 3600.0
_MOST_HOLES: Final = 2  # in a row at one place, holes or gaps: the log itself has it

OnDrop = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a message. `id` is None for the `reset` of an unknown position alone."""

    id: EventId | None
    name: str
    data: dict[str, object]

    @property
    def is_end(self) -> bool:
        """Whether nothing follows it."""
        return self.name in ("done", "failed")


class _Dropped(Exception):
    """The connection gave no more, for a reason that another one may not have."""

    def __init__(self, reason: str, wait_seconds: float = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds


class Tail(AsyncIterator[Event]):
    """The events of one message later than `after`, to its `done` or `failed`.

    Comes back by itself with Last-Event-ID after whatever cut the connection: refused, reset,
    truncated, ended without an end, a proxy's 5xx. Ids within an attempt have no holes, so a
    missing event is noticed and asked for again. Iterate it, once; leave its `async with`, or
    call `aclose`, to let go of the connection before the end.

    `on_drop(reason, seconds)` is told of each wait before the next connection.

    Iterating raises:
        Unreachable: no event and no connection for `patience_seconds` (None: never).
        NotFound, BadRequest: there is no such message, or no such position.
        UnexpectedReply: what answers does not keep to the contract.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        after: EventId | None,
        *,
        patience_seconds: float | None,
        on_drop: OnDrop | None = None,
    ) -> None:
        self._http = http
        self._url = url
        self._last = after
        self._patience_seconds = patience_seconds
        self._on_drop = on_drop
        self._retry_seconds = 1.0
        self._from_start = False
        self._holes = 0
        self._gap_at: EventId | None = None
        self._gaps = 0
        self._backoff = Backoff()
        self._events = self._run()

    @property
    def last_event_id(self) -> EventId | None:
        """Where a later tail would go on."""
        return self._last

    def start_over(self) -> None:
        """Come back without a position: what a `reset` asks of a client with a gap.

        Asked at the same event again and again, iterating raises UnexpectedReply: a log read from
        its start lacks what that `reset` names, and would be read for ever.
        """
        self._from_start = True

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Let go of the connection. The message goes on."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self) -> AsyncGenerator[Event, None]:
        patience = Patience(self._patience_seconds)
        while True:
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        patience.renew()
                        if event is None:
                            continue
                        yield event
                        if event.is_end:
                            return
                        if self._from_start:
                            break
                    else:
                        return
                self._begin_again()
                continue
            except _Dropped as drop:
                await self._wait(drop, patience)
            except (httpx.TransportError, httpx.DecodingError) as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                await self._wait(_Dropped(reason, self._retry_seconds), patience)

    def _begin_again(self) -> None:
        self._gaps = self._gaps + 1 if self._last == self._gap_at else 1
        self._gap_at = self._last
        if self._gaps > _MOST_HOLES:
            raise UnexpectedReply(f"{self._url} lacks the event that {self._last} goes back to")
        self._last, self._from_start = None, False

    async def _connection(self) -> AsyncGenerator[Event | None, None]:
        """Yield one connection's events, and None once it is open; return where the log ended.

        Raises:
            _Dropped: it ended without an end.
        """
        headers = {"Accept-Encoding": "identity"}
        if self._last is not None:
            headers["Last-Event-ID"] = str(self._last)
        stream = aconnect_sse(self._http, "GET", self._url, headers=headers, timeout=_TIMEOUT)
        async with stream as source:
            if source.response.status_code == 204:
                return
            await self._check(source.response)
            source.response.encoding = "utf-8"  # an event stream is nothing else
            yield None
            frames = source.aiter_sse()
            try:
                async with aclosing(frames):
                    async for frame in frames:
                        event = self._take(frame)
                        if event is not None:
                            yield event
            except SSEError as error:
                raise UnexpectedReply(f"{self._url} answers with no event stream") from error
        raise _Dropped("the server ended the connection", self._retry_seconds)

    async def _check(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        await response.aread()
        seconds = parse_retry_after(response.headers.get("retry-after"))
        if response.status_code in TRY_AGAIN or response.status_code == 500:
            raise _Dropped(f"{response.status_code} {response.reason_phrase}", seconds or 0)
        raise refusal(response, seconds)

    def _take(self, frame: ServerSentEvent) -> Event | None:
        """Return the event that a frame holds; None for a repeat, or a frame without one."""
        if frame.retry is not None and frame.retry >= 0:
            self._retry_seconds = min(frame.retry / 1000, _LONGEST_RETRY_SECONDS)
        if not frame.data:
            return None
        try:
            data = json.loads(frame.data)
        except ValueError as error:
            raise UnexpectedReply(f"an event of {self._url} is not JSON") from error
        if not isinstance(data, dict):
            raise UnexpectedReply(f"an event of {self._url} is no JSON object")
        # Told by its reason, for the decoder gives a frame without an id the one before it.
        if frame.event == "reset" and data.get("reason") == POSITION_UNKNOWN:
            self._last = None
            return Event(None, frame.event, data)
        return self._place(frame, data)

    def _place(self, frame: ServerSentEvent, data: dict[str, object]) -> Event | None:
        try:
            event_id = EventId.parse(frame.id)
        except ValueError as error:
            raise UnexpectedReply(f"an event of {self._url} has no id") from error
        if self._last is not None and event_id <= self._last:
            return None
        if not _follows(event_id, self._last):
            self._holes += 1
            if self._holes > _MOST_HOLES:
                raise UnexpectedReply(f"{self._url} leaves out what is before {event_id}")
            raise _Dropped(f"an event before {event_id} is missing")
        self._last = event_id
        self._holes = 0
        self._backoff.reset()
        return Event(event_id, frame.event, data)

    async def _wait(self, drop: _Dropped, patience: Patience) -> None:
        seconds = self._backoff.next(drop.wait_seconds)
        if not patience.allows(seconds):
            raise Unreachable(
                f"no answer from {self._url} for {patience.seconds:g} s: {drop.reason}"
            ) from drop
        if self._on_drop is not None:
            self._on_drop(drop.reason, seconds)
        await asyncio.sleep(seconds)


def _follows(event_id: EventId, last: EventId | None) -> bool:
    """Whether no event can lie between the two."""
    if last is not None and event_id.attempt == last.attempt:
        return event_id.sequence == last.sequence + 1
    return event_id.sequence == 0
