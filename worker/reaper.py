"""Finds messages that nobody runs and nobody will, and queues them again.

A Redis that restarted without its newest writes, or a process that died between two of them,
leaves an open message without a job. So has one that waits for another of its conversation: of
those the reaper sees that somebody runs the first. One that waits for answers and has all of them,
or is cancelled, is woken, for whoever noted that it would may be gone. It ends nothing: the worker
that claims what it queues sees a cancel, a passed deadline or used-up attempts.
"""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from rejoin.shared import accepting, keys, queue, record, turns, unsaved, waiting, waking
from rejoin.shared.clock import now_ms
from rejoin.shared.ending import aftermath
from rejoin.shared.errors import LogUnavailable, LogWentBack, NotFound
from rejoin.shared.record import Record
from rejoin.worker.kit import Kit

_AT_ONCE: Final = 500
_LOOKS_A_RENEWAL: Final = 100  # lives are days long, and there may be thousands that wait
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
        self._seen_to: set[str] = set()  # conversations, within one look
        self._waiting: list[str] = []  # messages that wait for their turn, within one page
        self._looks = 0
        self._server = ""  # whose waiting messages were all looked at

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
        """See to every open message without a job, or put off; return how many go on again.

        Raises:
            LogUnavailable: Redis is away; the next look finds the rest.
        """
        queued = await self._look_at_lost() + await self._look_at_not_woken()
        server = await waking.server_of(self._kit.redis)
        # A Redis that restarted may have lost a wake, and the note of it.
        if server != self._server or self._looks % _LOOKS_A_RENEWAL == 0:
            queued += await self._look_at_put_off()
            self._server = server
        self._looks += 1
        return queued

    async def _look_at_lost(self) -> int:
        rank = queued = 0
        self._seen_to.clear()
        while True:
            looked, lost = await queue.unqueued(self._kit.redis, rank, _AT_ONCE)
            seen = [await self._see_to(message_id, at) for message_id, at in lost]
            queued += seen.count(_Seen.QUEUED)
            await self._let_live()
            if looked < _AT_ONCE:
                return queued
            # What was dropped from the index moved the rest up.
            rank += looked - seen.count(_Seen.DROPPED)

    async def _look_at_not_woken(self) -> int:
        redis = self._kit.redis
        found, till_ms = await waking.noted(redis, self._kit.settings.lease_seconds)
        if not found:
            return 0
        woken = await self._wake_in_vain(found)
        await waking.forget(redis, till_ms)
        return woken

    async def _wake_in_vain(self, message_ids: Sequence[str]) -> int:
        in_vain = await waiting.ready(self._kit.redis, message_ids)
        for message_id in in_vain:
            # A cancel notes each message first; one that has ended since has no job to be woken.
            if await queue.wake(self._kit.redis, message_id):
                _log.warning("message %s waits for nothing any more; it is woken", message_id)
        return len(in_vain)

    async def _look_at_put_off(self) -> int:
        redis, settings = self._kit.redis, self._kit.settings
        rank = woken = 0
        while True:
            found = await queue.long_put_off(redis, settings.lease_seconds, rank, _AT_ONCE)
            in_vain = await self._wake_in_vain(found)
            woken += in_vain
            if found:
                life_seconds = settings.open_ttl_seconds
                # Of those that were found some may have ended by now, and be saved.
                await unsaved.let_open_live(redis, found, life_seconds=life_seconds)
                await queue.let_jobs_live(redis, found, life_seconds=life_seconds)
                # Without its turn the next message would begin beside it, and a deletion miss it.
                records = await record.load_all(redis, found)
                ids = {one.conversation_id for one in records if one is not None}
                await turns.let_live(redis, ids, life_seconds=life_seconds)
            if len(found) < _AT_ONCE:
                return woken
            rank += len(found) - in_vain  # those that were woken moved to the front

    async def _see_to(self, message_id: str, indexed_at: int) -> _Seen:
        redis = self._kit.redis
        found = await record.load(redis, message_id)
        if found is None:
            # Its accept may be under way still; the record refuses after half this time.
            if now_ms() - indexed_at <= 2 * accepting.WITHIN_MS:
                return _Seen.LEFT
            await queue.drop_index(redis, message_id)
            return _Seen.DROPPED
        life_seconds = self._kit.settings.open_ttl_seconds
        if found.ended:
            try:
                dropped = await aftermath(
                    redis, message_id, job_token="", life_seconds=life_seconds
                )
            except LogWentBack:
                return _Seen.LEFT
            return _Seen.DROPPED if dropped else _Seen.LEFT
        first = await self._first_of_its_turns(found)
        if first and await queue.enqueue(
            redis,
            first,
            life_seconds=life_seconds,
            now_ms=now_ms(),
            conversation_id=found.conversation_id,
        ):
            _log.warning("message %s had no job; it is queued again", first)
            return _Seen.QUEUED
        return _Seen.LEFT

    async def _first_of_its_turns(self, found: Record) -> str:
        """Whose turn it is in an open message's conversation, when the lost ones are passed on."""
        redis, life_seconds = self._kit.redis, self._kit.settings.open_ttl_seconds
        try:
            placed = await turns.place_again(redis, found, life_seconds=life_seconds)
        except NotFound as error:
            _log.error("message %s: %s", found.message_id, error)
            return found.message_id
        if placed.first != found.message_id:
            self._waiting.append(found.message_id)
        if found.conversation_id in self._seen_to:
            return ""
        self._seen_to.add(found.conversation_id)
        first, _ = await turns.first_open(
            redis, found.conversation_id, placed.first, life_seconds=life_seconds
        )
        return first

    async def _let_live(self) -> None:
        """Renew what nobody writes to meanwhile."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            life_seconds = self._kit.settings.open_ttl_seconds
            await unsaved.let_open_live(self._kit.redis, waiting, life_seconds=life_seconds)
