"""GET /api/messages/{id}: the message so far, for clients that do not stream."""

import asyncio
import contextlib
import math
import re
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import archive
from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.api.owner import owner_of
from rejoin.api.stored_view import shown_call, snapshot_of
from rejoin.shared import log, prices, record, turns
from rejoin.shared.clock import iso
from rejoin.shared.errors import BadRequest, NotFound, RequestUnreadable
from rejoin.shared.fold import Message
from rejoin.shared.history import calls_in
from rejoin.shared.ids import is_message_id
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest
from rejoin.shared.spent import attempts_of, guessed

MOST_WAIT_SECONDS: Final = 60
_WAITS_FOR_NOTHING: Final[dict[str, object]] = {"waiting_for": None, "position": None}
_LOOKS: Final = 3  # an end that came between two reads; there is no second one
# A message that streams publishes with every chunk: a waiting client needs to know of the end
# alone, and does not notice a tenth of a second.
_PAUSE_SECONDS: Final = 0.1


class SnapshotEndpoint:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def get(self, request: Request) -> Response:
        """Answer one request."""
        message_id = request.path_params["message_id"]
        wait_seconds = _wait_seconds(request.query_params.get("wait"))
        owner = owner_of(request.scope)
        found = await owned_in_redis(self._context, message_id, owner)
        if found is None:
            row = await archive.load(self._context, message_id, owner)
            return json_answer(snapshot_of(row) | _WAITS_FOR_NOTHING)
        if wait_seconds and not found.ended:
            await self._wait(message_id, owner, wait_seconds)
        async with redis_answers():
            message, found = await self._look(message_id, owner)
            waiting = await self._waiting(found)
            request_shown = await self._request_of_a_guess(message_id, message)
        return json_answer(snapshot(found, message, request_shown) | waiting)

    async def _waiting(self, found: Record) -> dict[str, object]:
        """What a queued message waits for in its conversation, and how many are before it."""
        if found.status is not Status.QUEUED:
            return _WAITS_FOR_NOTHING
        redis = self._context.redis
        waiting = await turns.waiting(redis, found.conversation_id, found.message_id)
        if waiting is None:
            return {"waiting_for": None, "position": 0}
        ahead = await record.load(redis, waiting.first)
        status = Status.QUEUED if ahead is None else ahead.status
        waiting_for = {"message_id": waiting.first, "status": status}
        return {"waiting_for": waiting_for, "position": waiting.position}

    async def _wait(self, message_id: str, owner: str, wait_seconds: float) -> None:
        """Return when the message has ended, the time is up, or this process ends."""
        until = time.monotonic() + wait_seconds
        hub = self._context.hub
        async with hub.watch(message_id) as watch:
            while not (await owned(self._context, message_id, owner)).ended:
                left = until - time.monotonic()
                if left <= 0 or hub.draining:
                    return
                await watch.changed(left)
                await asyncio.sleep(min(_PAUSE_SECONDS, max(0, left)))

    async def _look(self, message_id: str, owner: str) -> tuple[Message, Record]:
        """Read log and record until they agree on whether the message has ended."""
        message = Message()
        for _ in range(_LOOKS):
            await self._read_on(message_id, message)
            found = await owned(self._context, message_id, owner)
            if found.ended == (message.end is not None):
                break
        return message, found

    async def _request_of_a_guess(self, message_id: str, message: Message) -> StoredRequest | None:
        """The accepted request, where the usage of a call has to be guessed from it."""
        models = guessed(message, message.spending.calls)
        if not models:
            return None
        await prices.load_for(models)
        with contextlib.suppress(RequestUnreadable):
            return await record.load_request(self._context.redis, message_id)
        return None

    async def _read_on(self, message_id: str, message: Message) -> None:
        while True:
            page = await log.read(self._context.redis, message_id, message.last_event_id)
            message.add_frames(page)
            if len(page) < log.PAGE:
                return


async def owned(context: Context, message_id: str, owner: str) -> Record:
    """Return the record of a message of this owner.

    Raises:
        NotFound: there is none (any more), or it is another's: both answer alike.
        Unavailable: Redis is away.
    """
    found = await owned_in_redis(context, message_id, owner)
    if found is None:
        raise NotFound("no such message")
    return found


async def owned_in_redis(context: Context, message_id: str, owner: str) -> Record | None:
    """Return the record of a message of this owner; None where Redis has none (any more).

    Raises:
        NotFound: it is another's.
        Unavailable: Redis is away.
    """
    if not is_message_id(message_id):
        return None
    async with redis_answers():
        found = await record.load(context.redis, message_id)
    if found is not None and found.owner != owner:
        raise NotFound("no such message")
    return found


def snapshot(
    found: Record, message: Message, request: StoredRequest | None = None
) -> dict[str, object]:
    """Return what clients see of a message; `request` for what has to be guessed from it."""
    finished_at = _time(found.finished_at)
    last = message.last_event_id
    return {
        "id": found.message_id,
        "conversation_id": found.conversation_id,
        "model": found.model,
        "status": found.status,
        "text": message.text,
        "reasoning": message.reasoning,
        "tool_calls": [shown_call(call) for call in calls_in(message)],
        "usage": message.usage,
        "error": _error(message),
        "attempt": found.attempt,
        "attempts": attempts_of(message, request, finished_at if found.ended else None),
        "last_event_id": None if last is None else str(last),
        "created_at": _time(found.created_at),
        "started_at": _time(found.started_at),
        "finished_at": finished_at,
    }


def _error(message: Message) -> dict[str, object] | None:
    end = message.end
    return end.fields if end is not None and end.name == "failed" else None


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)


def _wait_seconds(text: str | None) -> float:
    if text is None:
        return 0
    seconds = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else math.inf
    if seconds > MOST_WAIT_SECONDS:
        mend = f"wait is a number of seconds from 0 to {MOST_WAIT_SECONDS}"
        raise BadRequest(mend, field=("query", "wait"))
    return seconds
