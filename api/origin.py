"""Where a new message comes from: its conversation, its parent, and the ids of its own turns."""

from dataclasses import replace
from typing import NamedTuple

from rejoin.api.context import Context
from rejoin.api.history import KnownMessage, message_in_redis, turn_in_redis
from rejoin.shared import deleted
from rejoin.shared.catalogue import check_model
from rejoin.shared.errors import BadRequest, NotFound
from rejoin.shared.ids import is_message_id, new_message_id
from rejoin.shared.request import StoredRequest


class Origin(NamedTuple):
    """A request whose turns have ids and whose parent, where it names one, is checked.

    `is_new`: the conversation begins with it, and nobody else knows its id.
    """

    conversation_id: str
    is_new: bool
    request: StoredRequest


async def origin_of(
    context: Context, owner: str, conversation_id: str | None, request: StoredRequest
) -> Origin:
    """Check what a request names, and give its turns ids.

    A named conversation is not looked for here: its turns know it.

    Raises:
        NotFound: the conversation, or the model of the message to regenerate, is unknown.
        BadRequest: 422, `parent_id` or `regenerate` is no such message of the conversation.
        LogUnavailable, DatabaseUnavailable: nobody can say.
    """
    if conversation_id is not None and not is_message_id(conversation_id):
        raise NotFound("no such conversation")
    if request.regenerate is not None:
        return await _regenerating(context, owner, conversation_id, request)
    if request.parent_id is not None:
        known = await _known(context, request.parent_id, owner, conversation_id)
        if known is None or known.conversation_id != conversation_id:
            await _check_conversation(context, owner, conversation_id)
            raise BadRequest("it is no message of the conversation", field=("parent_id",))
        request = replace(request, beside=known.sent_with)
    with_ids = [replace(turn, id=new_message_id()) for turn in request.turns]
    return Origin(
        conversation_id or new_message_id(),
        conversation_id is None,
        replace(request, turns=with_ids),
    )


async def _regenerating(
    context: Context, owner: str, conversation_id: str | None, request: StoredRequest
) -> Origin:
    """Another answer to the same turn, by the same model where none is named."""
    known = await _known(context, request.regenerate or "", owner, conversation_id)
    if known is None or conversation_id not in (None, known.conversation_id):
        await _check_conversation(context, owner, conversation_id)
        raise BadRequest("it is no message of the conversation", field=("regenerate",))
    if known.model is None or known.parent_id is None:
        mend = "name an assistant message: only answers can be given again"
        raise BadRequest(mend, field=("regenerate",))
    if not request.model:
        check_model(known.model)
    asked = replace(request, model=request.model or known.model, parent_id=known.parent_id)
    return Origin(known.conversation_id, False, asked)


async def _known(
    context: Context, message_id: str, owner: str, conversation_id: str | None
) -> KnownMessage | None:
    """A message of this owner, in Redis or in the history."""
    if not is_message_id(message_id):
        return None
    known = await message_in_redis(context.redis, message_id)
    if known is None and conversation_id is not None:
        known = await turn_in_redis(context.redis, message_id, owner, conversation_id)
    if known is None:
        known = await context.history.message(message_id)
    return known if known is not None and known.owner == owner else None


async def _check_conversation(context: Context, owner: str, conversation_id: str | None) -> None:
    """An unknown conversation is told before what is not in it."""
    if conversation_id is None:
        return
    known = await deleted.owner_of(context.redis, conversation_id)
    if known is None:
        kept = await context.history.conversation(conversation_id)
        known = None if kept is None else kept.owner
    if known != owner:
        raise NotFound("no such conversation")
