"""Finds the messages before a message: in the database, and in Redis what is not saved yet."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import dropped, log, stored
from rejoin.shared.db import messages
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import DatabaseUnavailable, NotFound, RequestUnreadable
from rejoin.shared.history import rows_of
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest
from rejoin.worker.backoff import pause_seconds
from rejoin.worker.kit import Kit, insist

# A first look waits no longer for the database: Redis may have all of it.
_PATIENCE_SECONDS: Final = 0.5
_LOOKS: Final = 2  # for a message that nobody has: it may be saved, and expire, in between
_LONGEST_BACKOFF: Final = 3  # tries: then about 2 s between two looks

_log = logging.getLogger(__name__)


async def ancestors(kit: Kit, found: Record, request: StoredRequest) -> list[StoredMessage]:
    """Return the messages from the conversation's root to the request's parent.

    A database that is away is waited for, without a bound, where Redis lacks one of them.

    Raises:
        NotFound: one of them is nowhere any more.
    """
    looks = failures = 0
    while True:
        patience = None if failures else _PATIENCE_SECONDS
        walk = _Walk(kit.redis, kit.database, found.conversation_id, patience)
        path = await insist(found.message_id, partial(walk.to, request))
        if path is not None:
            return path
        if walk.away is None:
            looks += 1
            if looks == _LOOKS:
                raise NotFound("a message before this one is not there any more")
        else:
            _log.warning("%s; message %s waits for its history", walk.away, found.message_id)
        failures += 1
        await asyncio.sleep(pause_seconds(min(failures, _LONGEST_BACKOFF), None))


class _Walk:
    """One look for the whole path, from its end to the root.

    `away` is why the database was not asked any further; `patience` is in seconds, None: as long
    as the database's own bounds are.
    """

    def __init__(
        self, redis: Redis, database: Database, conversation_id: str, patience: float | None
    ) -> None:
        self.away: Exception | None = None
        self._redis = redis
        self._database = database
        self._conversation_id = conversation_id
        self._patience = patience
        self._beside: list[str] = []  # whose requests may have turns that are not saved yet

    async def to(self, request: StoredRequest) -> list[StoredMessage] | None:
        """The path to the request's parent; None where a part of it is not found.

        Raises:
            LogUnavailable: Redis is away.
        """
        path: list[StoredMessage] = []
        at = request.parent_id
        self._beside += [named for named in (request.regenerate, request.beside) if named]
        met: set[str] = set()
        while at is not None:
            piece = await self._saved(at) or await self._unsaved(at)
            # A row's parent is no foreign key: a cycle ends here.
            if not piece:
                before = await dropped.standing(self._redis, self._conversation_id, at)
                if before != at:
                    at = before
                    continue
            if not piece or piece[0].conversation_id != self._conversation_id or at in met:
                return None
            met |= {message.id for message in piece}
            path = piece + path
            at = piece[0].parent_id
        return path

    async def _saved(self, message_id: str) -> list[StoredMessage]:
        """The database's path to a message; what ended since it was saved is read from Redis."""
        if self.away is not None:
            return []
        try:
            async with asyncio.timeout(self._patience):
                path = await messages.path(self._database, message_id)
        except (DatabaseUnavailable, TimeoutError) as error:
            self.away = error if str(error) else DatabaseUnavailable("the database is slow")
            return []
        self._beside += _named(path)
        return [await self._newest(message) for message in path]

    async def _newest(self, saved: StoredMessage) -> StoredMessage:
        if saved.role != "assistant" or saved.ended:
            return saved
        rows = await _rows_in_redis(self._redis, saved.id)
        return rows[-1] if rows else saved

    async def _unsaved(self, message_id: str) -> list[StoredMessage]:
        """A message as Redis has it, its own turns before it; [] where it has not.

        A turn is found by a message beside it, or one that is named there: what was sent with it,
        or an answer to it.
        """
        if rows := await _rows_in_redis(self._redis, message_id):
            self._beside += _named(rows)
            return rows
        left, met = list(self._beside), set[str]()
        while left:
            if (beside := left.pop()) in met:
                continue
            met.add(beside)
            rows = await _rows_in_redis(self._redis, beside)
            named, ids = _named(rows), [row.id for row in rows]
            if message_id in ids:
                self._beside += named
                return rows[: ids.index(message_id) + 1]
            left += named
        return []


def _named(rows: Sequence[StoredMessage]) -> list[str]:
    """The messages that these name as beside their turns or their parents (shared/request.py)."""
    named = [(row.request or {}).get(field) for row in rows for field in ("regenerate", "beside")]
    return [one for one in named if isinstance(one, str)]


async def _rows_in_redis(redis: Redis, message_id: str) -> list[StoredMessage]:
    try:
        known = await stored.load_with_request(redis, message_id)
    except RequestUnreadable:
        return []
    if known is None:
        return []
    found, request = known
    frames = await log.read_all(redis, message_id)
    message = await stored.fold_beside(frames)
    if found.ended and message.end is None:
        return []  # it expired in between: it is saved
    return rows_of(found, request, message)
