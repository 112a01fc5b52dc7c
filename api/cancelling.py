"""Cancels a message: sets the flag, and ends it here where no worker has it."""

from typing import Final

from rejoin.api.context import Context
from rejoin.shared import record
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import MessageMissing
from rejoin.shared.record import Status

ENDER: Final = "api"  # the name in the record of an API that ends a message no worker runs


async def cancel_message(context: Context, message_id: str) -> Status:
    """Cancel a message and return its status then; one that has ended is left as it is.

    Raises:
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away; a repeat is safe.
    """
    redis = context.redis
    ended = await record.cancel(redis, message_id)
    if ended is not None:
        return ended
    found = await record.load(redis, message_id)
    # ENDER as its worker: an API that was about to end it, and could not.
    if found is not None and (
        found.status is Status.QUEUED or (found.worker == ENDER and not found.ended)
    ):
        await end_message(Ender(redis, ENDER, context.settings.open_ttl_seconds), message_id)
        found = await record.load(redis, message_id)
    if found is None:
        raise MessageMissing(message_id)
    return found.status
