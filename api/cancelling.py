"""Cancels a message: sets the flag, and ends it here where no worker has it."""

from typing import Final

from redis.asyncio import Redis

from rejoin.api.context import Context
from rejoin.shared import queue, record, waking
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import MessageMissing
from rejoin.shared.record import Record, Status

ENDER: Final = "api"  # the name in the record of an API that ends a message no worker runs


async def cancel_message(context: Context, message_id: str, *, after_step: bool = False) -> Status:
    """Cancel a message and return its status then; one that has ended is left as it is.

    `after_step` lets the step that runs end first.

    Raises:
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away; a repeat is safe.
    """
    redis = context.redis
    await waking.note(redis, message_id)
    ended = await record.cancel(redis, message_id, after_step=after_step)
    if ended is not None:
        return ended
    found = await record.load(redis, message_id)
    if found is not None and found.status is Status.WAITING:
        # First of all: should this process die, a worker sees the cancel at once.
        await queue.wake(redis, message_id)
    if found is not None and not found.ended and await _nobody_runs(redis, found, after_step):
        await end_message(Ender(redis, ENDER, context.settings.open_ttl_seconds), message_id)
        found = await record.load(redis, message_id)
    if found is None:
        raise MessageMissing(message_id)
    return found.status


async def _nobody_runs(redis: Redis, found: Record, after_step: bool) -> bool:
    # ENDER as its worker: an API that was about to end it, and could not.
    if found.status in (Status.QUEUED, Status.WAITING) or found.worker == ENDER:
        return True
    # Between two workers: in a deploy the next one may be long in coming. It has a step to end,
    # though, where that is what was asked for.
    return not after_step and await queue.is_due(redis, found.message_id)
