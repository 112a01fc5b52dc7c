"""Tells a request that waits for news of a message."""

import asyncio
from collections.abc import Callable
from typing import Final

from rejoin.api.batches import Batch

_WATCH_SECONDS: Final = 5.0  # a lost publish costs a watch no more than this


class Watch:
    """One request's wait: a follower that only remembers that there was something."""

    def __init__(self, draining: Callable[[], bool]) -> None:
        self._draining = draining
        self._news = asyncio.Event()

    def offer(self, batch: Batch) -> None:
        """Something was published."""
        self._news.set()

    def doubt(self) -> None:
        """Something may have been lost."""
        self._news.set()

    async def changed(self, timeout_seconds: float) -> None:
        """Return when there may be news, or after the time; sometimes for nothing.

        While the process drains it returns at once: whoever waits in a loop looks at that too.
        """
        if self._draining():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(min(timeout_seconds, _WATCH_SECONDS)):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
