"""Keeps the leases of all messages that this worker runs, by one call a beat."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import queue
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.worker_life import show_life

_BEATS_A_LEASE: Final = 3

_log = logging.getLogger(__name__)


class Leases:
    """Message id to lease token. `run` renews them; whoever starts it cancels it.

    `lost` is told of each message that is another worker's by now.
    """

    def __init__(
        self, redis: Redis, worker_id: str, *, lease_seconds: float, lost: Callable[[str], None]
    ) -> None:
        self.held: dict[str, str] = {}
        self._redis = redis
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._lost = lost
        self._take_over_from = 0.0

    @property
    def may_take_over(self) -> bool:
        """Whether an expired lease is to be believed.

        Not within a lease after an error or a late reply: in an outage all leases expire, and
        every owner, this worker among them, renews its own first.
        """
        return asyncio.get_running_loop().time() >= self._take_over_from

    def doubt(self) -> None:
        """Redis was away or late."""
        self._take_over_from = asyncio.get_running_loop().time() + self._lease_seconds

    async def run(self) -> None:
        """Renew every third of a lease, and show that this worker lives."""
        beat_seconds = self._lease_seconds / _BEATS_A_LEASE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._renew()
            except LogUnavailable as error:
                _log.warning("%s; leases of %d messages wait", error, len(self.held))
                self.doubt()
            took = loop.time() - began
            if took > beat_seconds:
                self.doubt()
            await asyncio.sleep(max(0.05, beat_seconds - took))

    async def _renew(self) -> None:
        held = dict(self.held)
        if held:
            lost = await queue.renew(self._redis, held, lease_seconds=self._lease_seconds)
            for message_id in lost:
                # One that was completed, or taken anew, while the call was under way is not lost.
                if self.held.get(message_id) == held[message_id]:
                    self._lost(message_id)
        await show_life(
            self._redis,
            self._worker_id,
            running=len(self.held),
            life_seconds=self._lease_seconds * 2,
        )
