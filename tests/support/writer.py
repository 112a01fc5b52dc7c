"""Writes a message's log as its worker does, through whatever happens to Redis."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis

from rejoin.shared import keys, log
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.events import Event
from rejoin.shared.record import Claim
from tests.support import messages

OWNER = "local"  # the owner of whatever comes through an API without authentication
AGAIN_SECONDS = 0.02


class Writer:
    """One message that is accepted and claimed, and its one writer."""

    def __init__(self, redis: Redis, message_id: str, claimed: Claim) -> None:
        self.message_id = message_id
        self.claimed = claimed
        self.next = 0  # the next event's sequence
        self._redis = redis

    @classmethod
    async def begin(cls, redis: Redis, *, owner: str = OWNER) -> "Writer":
        """Accept and claim a message; its log is empty."""
        message_id = await messages.accept(redis, owner=owner)
        return cls(redis, message_id, await messages.claim(redis, message_id, "t"))

    async def append(self, *events: Event | str, ending: str = "") -> None:
        """Append and publish a batch; the same one again until Redis has taken it."""
        batch = self._batch(events, ending)
        async with asyncio.timeout(30):
            while True:
                try:
                    await log.append(self._redis, batch)
                except LogUnavailable:
                    await asyncio.sleep(AGAIN_SECONDS)
                else:
                    return

    async def end(self) -> None:
        """Append the end."""
        await self.append(*messages.end(), ending="done")

    async def append_unpublished(self, *events: Event | str) -> None:
        """Store events whose publish is lost."""
        for frame in self._batch(events, "").frames:
            await self._redis.xadd(keys.log(self.message_id), {"f": frame.data}, id=str(frame.id))

    async def claim_again(self, token: str) -> None:
        """Go on as another worker would: a new attempt."""
        self.claimed = await messages.claim(self._redis, self.message_id, token)
        self.next = 0

    async def whole(self) -> list[bytes]:
        """The whole log, event by event."""
        return await messages.texts(self._redis, self.message_id)

    def _batch(self, events: Sequence[Event | str], ending: str) -> log.Batch:
        first, self.next = self.next, self.next + len(events)
        return messages.batch(self.message_id, self.claimed, first, events, ending=ending)
