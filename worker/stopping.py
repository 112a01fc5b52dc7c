"""Why a run stops before its model is done, and how the stop reaches it."""

import asyncio
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from rejoin.shared.errors import RejoinError


class Stop(StrEnum):
    """Who stops a run, or what."""

    CANCELLED = "cancelled"  # a client asked for it
    LOG_REFUSED = "log_refused"  # the log takes no more of this attempt
    LOG_FULL = "log_full"  # REJOIN_MAX_LOG_BYTES
    LEASE_LOST = "lease_lost"  # the job is another worker's
    HANDED_OVER = "handed_over"  # this worker shuts down
    FIRST_TOKEN = "first_token"  # noqa: S105  the provider gave nothing in time
    IDLE = "idle"  # the provider fell silent
    TOTAL = "total"  # the message ran for too long


# Reasons to leave the message to another worker: nothing of it is ended.
LEAVING: Final = frozenset({Stop.HANDED_OVER, Stop.LEASE_LOST, Stop.LOG_REFUSED})
# Reasons that end one try and not the run: any other one replaces them.
_OF_ONE_TRY: Final = frozenset({Stop.FIRST_TOKEN, Stop.IDLE, Stop.LOG_REFUSED})


class Stopped(RejoinError):
    """The run was stopped; `reason` says why."""

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Stoppable:
    """A part of a task that others may stop, each with a reason; the first one counts.

    A reason that ends one try alone gives way to one that ends the run.

    `async with` it in the task: a stop, also one from before, raises Stopped there. A
    cancellation that is not a stop passes through untouched, as with asyncio.timeout.
    """

    def __init__(self) -> None:
        self.reason: Stop | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False

    def stop(self, reason: Stop) -> None:
        """Stop the part; at once where its task is inside. Never called from that task itself."""
        if self.reason is None or (self.reason in _OF_ONE_TRY and reason not in _OF_ONE_TRY):
            self.reason = reason
            if self._task is not None and not self._cancelled:
                self._cancelled = True
                self._task.cancel()

    def forgive(self) -> None:
        """Forget a reason that ended one try alone, before the next."""
        if self.reason in _OF_ONE_TRY:
            self.reason = None

    async def __aenter__(self) -> Self:
        if self.reason is not None:
            raise Stopped(self.reason)
        self._task = asyncio.current_task()
        self._cancelled = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if not self._cancelled or task is None or self.reason is None:
            return
        # Somebody else's cancellation besides ours goes on.
        if task.uncancel() > 0 and isinstance(error, asyncio.CancelledError):
            return
        raise Stopped(self.reason) from error
