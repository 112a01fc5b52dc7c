"""Tells the API by Redis which tools and agents this worker has."""

import asyncio
import contextlib
import logging
from typing import Final

from rejoin.shared import registered
from rejoin.shared.errors import LogUnavailable
from rejoin.worker.kit import Kit

EVERY_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Publishing:
    """Tells it every ten seconds, at once first, and when a tool comes or goes.

    `run` does it; its starter cancels it.
    """

    def __init__(self, kit: Kit, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._kit = kit
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Tell it, for ever."""
        changed = self._kit.tools.changed
        while True:
            changed.clear()
            try:
                tools, agents = self._kit.tools.names(), self._kit.agents.names()
                await registered.publish(self._kit.redis, tools=tools, agents=agents)
            except LogUnavailable as error:
                _log.debug("%s; the names of tools and agents wait", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await changed.wait()
