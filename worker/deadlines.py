"""The deadlines of a run, ours and not an SDK's: first token, silence, total."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from rejoin.worker.stopping import Stop, Stoppable

_AFTER_FINISH_SECONDS: Final = 5.0  # a server that never closes must not cost the idle deadline


@contextmanager
def within(stoppable: Stoppable, seconds: float) -> Iterator[None]:
    """Stop the run, for its total, where the block takes longer than so many seconds."""
    timer = asyncio.get_running_loop().call_later(max(0, seconds), stoppable.stop, Stop.TOTAL)
    try:
        yield
    finally:
        timer.cancel()


class Deadlines:
    """Stops a run that waits too long. One timer a call, none a chunk.

    The timer is not moved when a chunk comes: when it rings it looks at the last chunk's time,
    and sleeps on for the rest.
    """

    def __init__(
        self,
        stoppable: Stoppable,
        *,
        first_token_seconds: float,
        idle_seconds: float,
        total_seconds: float,
    ) -> None:
        self._stoppable = stoppable
        self._loop = asyncio.get_running_loop()
        self._idle_seconds = idle_seconds
        self._first_at = self._loop.time() + first_token_seconds
        self._last = 0.0  # when the last chunk came; 0: none yet
        self._silence: asyncio.TimerHandle | None = None
        self._total: asyncio.TimerHandle | None = None
        self._total_seconds = total_seconds
        self._finished = False

    def heard(self) -> None:
        """A chunk came."""
        if not self._last and self._silence is not None:
            self._silence.cancel()
            self._silence = self._loop.call_later(self._idle_seconds, self._look)
        self._last = self._loop.time()

    def finished(self) -> None:
        """The model said that it is done: only its usage may follow, and not for long."""
        self._finished = True
        if self._silence is not None:
            self._silence.cancel()
        seconds = min(_AFTER_FINISH_SECONDS, self._idle_seconds)
        self._silence = self._loop.call_later(seconds, self._stoppable.stop, Stop.IDLE)

    @contextmanager
    def not_reading(self) -> Iterator[None]:
        """For the block nobody reads the provider: its silence is not its own, and begins anew."""
        if self._silence is not None:
            self._silence.cancel()
        yield
        if self._finished:
            self.finished()
        else:
            self._last = self._loop.time()
            self._silence = self._loop.call_later(self._idle_seconds, self._look)

    def __enter__(self) -> Self:
        self._silence = self._loop.call_at(self._first_at, self._stoppable.stop, Stop.FIRST_TOKEN)
        self._total = self._loop.call_later(
            max(0, self._total_seconds), self._stoppable.stop, Stop.TOTAL
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for timer in (self._silence, self._total):
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        due = self._last + self._idle_seconds
        if self._loop.time() >= due:
            self._stoppable.stop(Stop.IDLE)
        else:
            self._silence = self._loop.call_at(due, self._look)
