"""An owner's conversations, the last changed first, page by page; those not saved yet too."""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from rejoin.api.context import Context
from rejoin.api.latest import unsaved_of
from rejoin.shared import deleted
from rejoin.shared.db import conversations
from rejoin.shared.db.conversations import Conversation, Page
from rejoin.shared.errors import BadRequest
from rejoin.shared.ids import is_message_id
from rejoin.shared.record import Record

_LONGEST: Final = 18  # digits: as far as a column of 64 bits goes

Position = tuple[int, str]  # when it was changed, and its id: each page begins below one


async def page(context: Context, owner: str, *, limit: int, cursor: str | None) -> Page:
    """Return `limit` conversations at the most; the page's cursor is what `cursor` takes.

    Raises:
        BadRequest: `cursor` is none that an earlier page gave.
        LogUnavailable, DatabaseUnavailable: nobody can say.
    """
    below = None if cursor is None else _position(cursor)
    fresh = await _fresh(context, owner)
    after = None if below is None else f"{below[0]}-{below[1]}"
    saved = await conversations.page(
        context.database, owner, limit=limit + len(fresh), cursor=after
    )
    fresh_ids = {one.id for one in fresh}
    found = [one for one in saved.conversations if one.id not in fresh_ids]
    found += [one for one in fresh if below is None or _place(one) < below]
    found.sort(key=_place, reverse=True)
    more = len(found) > limit or saved.next_cursor is not None
    shown = found[:limit]
    return Page(shown, _cursor(_place(shown[-1])) if more and shown else None)


async def _fresh(context: Context, owner: str) -> list[Conversation]:
    """Those of which something is not saved yet, as they will be when it is."""
    records = await unsaved_of(context.redis, owner)
    ids = {one.conversation_id for one in records}
    ids -= await deleted.among(context.redis, list(ids))
    made = {one.id: one for one in _made(one for one in records if one.conversation_id in ids)}
    for saved in await conversations.some(context.database, owner, list(made)):
        one = made[saved.id]
        made[saved.id] = one._replace(
            created_at=min(one.created_at, saved.created_at),
            updated_at=max(one.updated_at, saved.updated_at),
        )
    return list(made.values())


def _made(records: Iterable[Record]) -> list[Conversation]:
    made: dict[str, Conversation] = {}
    for record in records:
        changed_at = record.finished_at or record.created_at
        one = made.setdefault(
            record.conversation_id,
            Conversation(record.conversation_id, record.owner, record.created_at, changed_at),
        )
        made[one.id] = one._replace(
            created_at=min(one.created_at, record.created_at),
            updated_at=max(one.updated_at, changed_at),
        )
    return list(made.values())


def _place(one: Conversation) -> Position:
    return one.updated_at, one.id


def _cursor(position: Position) -> str:
    text = f"{position[0]}-{position[1]}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> Position:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        text = ""
    changed_at, _, conversation_id = text.partition("-")
    known = changed_at.isdecimal() and len(changed_at) <= _LONGEST
    if not known or not is_message_id(conversation_id):
        raise BadRequest("cursor is the next_cursor of an earlier page", field=("query", "cursor"))
    return int(changed_at), conversation_id
