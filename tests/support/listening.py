"""A listener that keeps what a subscription hands it, and the subscription's own task."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rejoin.shared.live import Live

SOON: Final = 5.0


class Ear:
    """Keeps what it heard, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.restores = 0
        self._news = asyncio.Event()

    def receive(self, channel: bytes, payload: bytes) -> None:
        """Keep one message."""
        self.heard.append((channel, payload))

    def drained(self) -> None:
        """Wake whoever waits."""
        self._news.set()

    def restored(self) -> None:
        """Count it."""
        self.restores += 1
        self._news.set()

    def payloads(self) -> list[bytes]:
        """What was heard, without the channels."""
        return [payload for _, payload in self.heard]

    async def until_heard(self, payload: bytes) -> None:
        """Wait for a payload; TimeoutError after 5 s."""
        async with asyncio.timeout(SOON):
            while payload not in self.payloads():
                self._news.clear()
                await self._news.wait()

    async def until_restored(self, times: int) -> None:
        """Wait for so many restores in all; TimeoutError after 5 s."""
        async with asyncio.timeout(SOON):
            while self.restores < times:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Live, Ear]]:
    """Run a subscription for the block."""
    ear = Ear()
    live = Live(url, ear)
    running = asyncio.create_task(live.run())
    try:
        yield live, ear
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
