"""Deletes conversations that nobody has gone on with for REJOIN_RETENTION_DAYS, their logs too.

One with a message that goes on stays until that has ended, which is a change of it.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from rejoin.shared import deleted, keys, queue, record, unsaved
from rejoin.shared.clock import now_ms
from rejoin.shared.db import conversations
from rejoin.shared.db.conversations import Old
from rejoin.shared.errors import DatabaseRefused, DatabaseUnavailable, LogUnavailable
from rejoin.worker.kit import Kit

EVERY_SECONDS: Final = 600.0

_AT_ONCE: Final = 100
_TURN_SECONDS: Final = 3 * EVERY_SECONDS  # another worker follows one that died
_PAUSE_SECONDS: Final = 0.1  # between batches: savers write too
_DAY_MS: Final = 86_400_000

_log = logging.getLogger(__name__)


class Retention:
    """Looks every ten minutes, in one worker at a time. Whoever starts `run` cancels it."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            redis, name = self._kit.redis, self._kit.worker_id
            try:
                if await queue.take_turn(redis, keys.RETENTION, name, seconds=_TURN_SECONDS):
                    await self.look()
            except (DatabaseUnavailable, DatabaseRefused, LogUnavailable) as error:
                _log.warning("%s; old conversations are deleted later", error)

    async def look(self) -> int:
        """Delete what is older, batch by batch; return how many conversations that were.

        Raises:
            DatabaseUnavailable, LogUnavailable: one is away; the next look deletes the rest.
        """
        settings, database = self._kit.settings, self._kit.database
        # Nothing of a deleted conversation is in Redis any more by then.
        lives_ms = (settings.open_ttl_seconds + settings.log_ttl_seconds) * 1000
        await conversations.forget_removed(database, now_ms() - lives_ms)
        if settings.retention_days is None:
            return 0
        before = now_ms() - settings.retention_days * _DAY_MS
        count = kept = 0
        while found := await conversations.unchanged_since(
            database, before, most=_AT_ONCE, past=kept
        ):
            old = await self._that_end(found)
            kept += len(found) - len(old)
            message_ids = [message_id for one in old for message_id in one.message_ids]
            for one in old:
                await deleted.mark(
                    self._kit.redis, one.id, one.owner, life_seconds=lives_ms // 1000
                )
            # The logs first: what is left by a crash in between is found by the next look.
            await unsaved.remove_logs(self._kit.redis, message_ids)
            ids = [one.id for one in old]
            await conversations.remove_unchanged(database, ids, before, now_ms=now_ms())
            count += len(old)
            await asyncio.sleep(_PAUSE_SECONDS)
        if count:
            _log.info("deleted %d conversations older than REJOIN_RETENTION_DAYS", count)
        return count

    async def _that_end(self, found: Sequence[Old]) -> list[Old]:
        """Those of the conversations in which no message goes on: it may wait for days."""
        open_ids = [message_id for one in found for message_id in one.open_ids]
        records = await record.load_all(self._kit.redis, open_ids)
        going = {one.message_id for one in records if one is not None and not one.ended}
        return [one for one in found if going.isdisjoint(one.open_ids)]
