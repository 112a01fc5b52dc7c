"""A conversation as clients see it: the path to its newest message, and who stands beside it."""

from collections.abc import Mapping, Sequence

from rejoin.api.context import Context
from rejoin.api.latest import rows_in_redis, unsaved_of
from rejoin.api.stored_view import in_conversation, lost
from rejoin.shared import deleted, turns
from rejoin.shared.clock import iso
from rejoin.shared.db import conversations, messages
from rejoin.shared.db.conversations import Conversation
from rejoin.shared.db.rows import Fields, StoredMessage
from rejoin.shared.errors import NotFound
from rejoin.shared.ids import is_message_id


async def view(context: Context, conversation_id: str, owner: str) -> Fields:
    """Return a conversation of this owner, what is not saved yet included.

    Raises:
        NotFound: there is none, it is another's, or it was deleted: all answer alike.
        LogUnavailable, DatabaseUnavailable: nobody can say.
    """
    if not is_message_id(conversation_id):
        raise NotFound("no such conversation")
    if (await deleted.look(context.redis, conversation_id)).deleted:
        raise NotFound("no such conversation")
    rows = await _rows(context, conversation_id, owner)
    if not rows:
        raise NotFound("no such conversation")
    found = list(rows.values())
    siblings = messages.siblings_in(found)
    about = about_conversation(_of(conversation_id, owner, found))
    return about | {
        "active_message_id": await _active(context, conversation_id, rows),
        "messages": [in_conversation(row, siblings[row.id]) for row in messages.newest_path(found)],
    }


def about_conversation(one: Conversation) -> Fields:
    """Return what a list says of a conversation."""
    return {
        "id": one.id,
        "created_at": iso(one.created_at),
        "updated_at": iso(one.updated_at),
    }


async def _rows(context: Context, conversation_id: str, owner: str) -> dict[str, StoredMessage]:
    """Every message of it, by its id; an open one as its log has it now."""
    fresh = [
        one.message_id
        for one in await unsaved_of(context.redis, owner)
        if one.conversation_id == conversation_id
    ]
    saved = await conversations.load(context.database, conversation_id, owner)
    rows = {row.id: row for row in saved[1]} if saved else {}
    still_open = [row.id for row in rows.values() if not row.ended]
    for message_id in dict.fromkeys([*fresh, *still_open]):
        newer = await rows_in_redis(context.redis, message_id)
        rows |= {row.id: row for row in newer}
        if not newer and message_id in rows and not rows[message_id].ended:
            rows[message_id] = lost(rows[message_id])
    return rows


async def _active(
    context: Context, conversation_id: str, rows: Mapping[str, StoredMessage]
) -> str | None:
    """The message whose turn it is; None where none is open."""
    still_open = {message_id for message_id, row in rows.items() if not row.ended}
    if not still_open:
        return None
    for message_id in await turns.order(context.redis, conversation_id):
        if message_id in still_open:
            return message_id
    return min(still_open)  # Redis lost the turns: a reaper gives them back


def _of(conversation_id: str, owner: str, rows: Sequence[StoredMessage]) -> Conversation:
    return Conversation(
        conversation_id,
        owner,
        min(row.created_at for row in rows),
        max(row.finished_at or row.created_at for row in rows),
    )
