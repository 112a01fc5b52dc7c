"""Deletes a conversation: what runs is cancelled, rows and logs go, and a mark stays.

The mark goes first, so that nothing is placed any more, and the rows go last: whatever breaks in
between, a repeat finds what is left.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from rejoin.api.cancelling import cancel_message
from rejoin.api.context import Context
from rejoin.api.latest import unsaved_of
from rejoin.shared import deleted, queue, record, unsaved
from rejoin.shared.clock import now_ms
from rejoin.shared.db import conversations
from rejoin.shared.errors import MessageMissing, NotFound
from rejoin.shared.ids import is_message_id

_LEAVE_SECONDS: Final = 1.5  # for workers to end what they run; a cancel takes one at the most
_LOOK_SECONDS: Final = 0.05


async def delete_conversation(context: Context, conversation_id: str, owner: str) -> None:
    """Delete a conversation of this owner. A repeat does nothing, as long as it is remembered.

    What a worker has not ended in time (it may be dead) is cancelled all the same; its log goes
    when its end is to be saved.

    Raises:
        NotFound: there is none, or it is another's.
        LogUnavailable, DatabaseUnavailable: not everything is done; a repeat does the rest.
    """
    redis, database = context.redis, context.database
    if not is_message_id(conversation_id):
        raise NotFound("no such conversation")
    known = await deleted.look(redis, conversation_id)
    fresh = [
        one.message_id
        for one in await unsaved_of(redis, owner)
        if one.conversation_id == conversation_id
    ]
    saved = await conversations.message_ids(database, conversation_id, owner)
    if known.owner not in (None, owner) or not (known.owner or fresh or saved is not None):
        raise NotFound("no such conversation")
    settings = context.settings
    life_seconds = settings.open_ttl_seconds + settings.log_ttl_seconds
    placed = await deleted.mark(redis, conversation_id, owner, life_seconds=life_seconds)
    # From the last one on: none of them gets its turn by the end of the one before it.
    await _cancel(context, reversed(placed))
    left = await _left(context, list(dict.fromkeys([*placed, *fresh])))
    ids = {*placed, *fresh, *(saved or [])} - left
    await unsaved.remove_logs(redis, sorted(ids))
    await conversations.remove(database, conversation_id, owner, now_ms=now_ms())


async def _cancel(context: Context, message_ids: Iterable[str]) -> None:
    for message_id in message_ids:
        until = asyncio.get_running_loop().time() + _LEAVE_SECONDS
        while asyncio.get_running_loop().time() < until:
            try:
                await cancel_message(context, message_id)
                break
            except MessageMissing:
                # It is accepted at this same instant, or it is gone.
                if not await queue.is_indexed(context.redis, message_id):
                    break
                await asyncio.sleep(_LOOK_SECONDS)


async def _left(context: Context, message_ids: list[str]) -> set[str]:
    """Wait until nobody works at these messages any more; return those that are left."""
    until = asyncio.get_running_loop().time() + _LEAVE_SECONDS
    while True:
        found = await record.load_all(context.redis, message_ids)
        left = set()
        for one in found:
            # An end's index entry goes last: before that its worker still looks at the record.
            if one is not None and (
                not one.ended or await queue.is_indexed(context.redis, one.message_id)
            ):
                left.add(one.message_id)
        if not left or asyncio.get_running_loop().time() > until:
            return left
        await asyncio.sleep(_LOOK_SECONDS)
