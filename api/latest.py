"""What the database lacks (yet) of conversations: messages that Redis alone has, or has newer."""

from redis.asyncio import Redis

from rejoin.shared import log, record, stored, unsaved
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import RequestUnreadable
from rejoin.shared.fold import Message
from rejoin.shared.history import standing_rows_of
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest


async def unsaved_of(redis: Redis, owner: str) -> list[Record]:
    """Return an owner's messages that are not saved as they are now.

    Ask before the database: what is saved in between is in both, and never in neither. A message
    that was saved at its start and runs since is in the database alone.

    Raises:
        LogUnavailable: Redis is away.
    """
    found: dict[str, Record] = {}
    async for message_ids in unsaved.marked(redis):
        for one in await record.load_all(redis, message_ids):
            if one is not None and one.owner == owner:
                found[one.message_id] = one
    return list(found.values())


async def rows_in_redis(redis: Redis, message_id: str) -> list[StoredMessage]:
    """Return a message as it would be saved now, its turns first; [] where Redis has none.

    Raises:
        LogUnavailable: Redis is away.
    """
    request: StoredRequest | None = None
    try:
        known = await stored.load_with_request(redis, message_id)
        if known is None:
            return []
        found, request = known
    except RequestUnreadable:
        alone = await record.load(redis, message_id)
        if alone is None:
            return []
        found = alone
    message = Message()
    if found.attempt:
        frames = await log.read_all(redis, message_id)
        message = await stored.fold_beside(frames)
    return await standing_rows_of(redis, found, request, message)
