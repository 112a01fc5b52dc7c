"""Hears cancels, also while a provider is silent and nothing is appended."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import keys, record
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.live import Live

_CONFIRM_SECONDS: Final = 3.0

_log = logging.getLogger(__name__)


class Control:
    """Listens on the channel of cancels. `run` does it; whoever starts it cancels it.

    `cancel` is told of each id, `running` names the messages to ask about after a reconnect.
    """

    def __init__(
        self,
        redis: Redis,
        url: str,
        *,
        cancel: Callable[[str], None],
        running: Callable[[], Iterable[str]],
    ) -> None:
        self._redis = redis
        self._live = Live(url, self)
        self._cancel = cancel
        self._running = running
        self._doubt = asyncio.Event()

    async def run(self) -> None:
        """Listen, and after each loss of the connection read the flags."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._live.run())
            try:
                await self._live.subscribe(keys.CANCELS, timeout_seconds=_CONFIRM_SECONDS)
            except LogUnavailable:
                _log.debug("not subscribed to cancels yet: Redis is away")
            while True:
                await self._doubt.wait()
                self._doubt.clear()
                await self._read_flags()

    def receive(self, channel: bytes, payload: bytes) -> None:
        """A cancel was asked for."""
        self._cancel(payload.decode("ascii", "replace"))

    def drained(self) -> None:
        """Nothing is gathered here."""

    def restored(self) -> None:
        """Cancels may have been missed."""
        self._doubt.set()

    async def _read_flags(self) -> None:
        try:
            for message_id in await record.cancelled_of(self._redis, list(self._running())):
                self._cancel(message_id)
        except LogUnavailable:
            # The appends bring the flags too, and the next reconnect asks again.
            _log.debug("could not read the cancel flags: Redis is away")
