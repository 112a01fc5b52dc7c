"""Finds messages that nobody runs and nobody will, and queues them again.

A Redis that restarted without its newest writes, or a process that died between two of them,
leaves an open message without a job. The reaper ends nothing: the worker that claims what it
queues sees a cancel, a passed deadline or used-up attempts.
"""

import asyncio
import logging
from enum import Enum, auto
from typing import Final

from rejoin.shared import keys, queue, record
from rejoin.shared.clock import now_ms
from rejoin.shared.ending import aftermath
from rejoin.shared.errors import LogUnavailable
from rejoin.worker.kit import Kit

_AT_ONCE: Final = 500
_TURN_LEASES: Final = 3  # a reaper that dies is followed by another after so many

_log = logging.getLogger(__name__)


class _Seen(Enum):
    """What became of an index entry without a job."""

    QUEUED = auto()
    DROPPED = auto()
    LEFT = auto()


class Reaper:
    """Looks once a lease, in one worker at a time. `run` does it; whoever starts it cancels it."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def run(self) -> None:
        """Look, for ever."""
        lease_seconds = self._kit.settings.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds)
            try:
                if await queue.take_turn(
                    self._kit.redis,
                    keys.REAPER,
                    self._kit.worker_id,
                    seconds=lease_seconds * _TURN_LEASES,
                ):
                    await self.look()
            except LogUnavailable as error:
                _log.warning("%s; the reaper waits", error)

    async def look(self) -> int:
        """See to every open message without a job; return how many were queued again.

        Raises:
            LogUnavailable: Redis is away; the next look finds the rest.
        """
        rank = queued = 0
        while True:
            looked, lost = await queue.unqueued(self._kit.redis, rank, _AT_ONCE)
            seen = [await self._see_to(message_id, at) for message_id, at in lost]
            queued += seen.count(_Seen.QUEUED)
            if looked < _AT_ONCE:
                return queued
            # What was dropped from the index moved the rest up.
            rank += looked - seen.count(_Seen.DROPPED)

    async def _see_to(self, message_id: str, indexed_at: int) -> _Seen:
        redis = self._kit.redis
        found = await record.load(redis, message_id)
        if found is None:
            # Its accept may be under way still; the record refuses after half this time.
            if now_ms() - indexed_at <= 2 * record.ACCEPT_WITHIN_MS:
                return _Seen.LEFT
            await queue.drop_index(redis, message_id)
            return _Seen.DROPPED
        if found.ended:
            dropped = await aftermath(redis, message_id, job_token="")
            return _Seen.DROPPED if dropped else _Seen.LEFT
        life_seconds = self._kit.settings.open_ttl_seconds
        if await queue.enqueue(redis, message_id, life_seconds=life_seconds, now_ms=now_ms()):
            _log.warning("message %s had no job; it is queued again", message_id)
            return _Seen.QUEUED
        return _Seen.LEFT
