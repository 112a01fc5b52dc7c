"""Lets a crowd of takeovers say `reset` first: none calls its provider while others still open.

A call costs a worker some milliseconds of its one core, an opening less than one. After a worker
with 200 messages was lost, the last of them would else be silent until all others had called.
"""

import asyncio
from types import TracebackType
from typing import Final

_MOST_SECONDS: Final = 1.0  # an opening may wait for Redis; the others do not wait for it


class Openings:
    """The attempts of one worker that are claimed and read, and have not written yet: `with` it."""

    def __init__(self) -> None:
        self.under_way = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.under_way += 1
        self._none.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.under_way -= 1
        if not self.under_way:
            self._none.set()

    async def settled(self) -> None:
        """Return when none is under way, a second later at the latest."""
        try:
            async with asyncio.timeout(_MOST_SECONDS):
                await self._none.wait()
        except TimeoutError:
            return
