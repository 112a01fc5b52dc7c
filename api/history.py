"""What is known of earlier messages: in Redis while their records live, later in the history."""

from typing import NamedTuple, Protocol

from redis.asyncio import Redis

from rejoin.api.latest import unsaved_of
from rejoin.shared import record, stored
from rejoin.shared.errors import RequestUnreadable
from rejoin.shared.request import StoredRequest


class KnownConversation(NamedTuple):
    """Whose a conversation is, and its newest message (None: it has none)."""

    owner: str
    newest_id: str | None


class KnownMessage(NamedTuple):
    """A message's place in its conversation. `parent_id` None: it is the first of it.

    `model` is that of an assistant message, None for a turn that was sent. `sent_with` is the
    message whose request has a turn that is not saved yet.
    """

    conversation_id: str
    owner: str
    role: str
    parent_id: str | None
    model: str | None
    sent_with: str | None = None


class History(Protocol):
    """Conversations and messages as they are kept for good."""

    async def conversation(self, conversation_id: str) -> KnownConversation | None:
        """Return a conversation, or None where there is none (any more).

        Raises:
            DatabaseUnavailable: nobody can say.
        """

    async def message(self, message_id: str) -> KnownMessage | None:
        """Return a message of either role, or None where there is none (any more).

        Raises:
            DatabaseUnavailable: nobody can say.
        """


class NoHistory:
    """The history of a Rejoin that keeps none: what Redis has forgotten is gone."""

    async def conversation(self, conversation_id: str) -> KnownConversation | None:
        """Know nothing."""
        return None

    async def message(self, message_id: str) -> KnownMessage | None:
        """Know nothing."""
        return None


async def message_in_redis(redis: Redis, message_id: str) -> KnownMessage | None:
    """Return an assistant message whose record Redis still has.

    Raises:
        LogUnavailable: Redis is away.
    """
    try:
        known = await stored.load_with_request(redis, message_id)
    except RequestUnreadable:
        return None
    if known is None:
        return None
    found, request = known
    return KnownMessage(
        found.conversation_id, found.owner, "assistant", turn_before(request), found.model
    )


async def turn_in_redis(
    redis: Redis, turn_id: str, owner: str, conversation_id: str
) -> KnownMessage | None:
    """Return a turn of an owner's conversation that was sent and is not saved yet.

    Ask before the history: one that is saved in between is in both.

    Raises:
        LogUnavailable: Redis is away.
    """
    for one in await unsaved_of(redis, owner):
        if one.conversation_id != conversation_id:
            continue
        try:
            request = await record.load_request(redis, one.message_id)
        except RequestUnreadable:
            continue
        before = request.parent_id
        for turn in request.turns:
            if turn.id == turn_id:
                place = (conversation_id, owner, turn.role, before, None)
                return KnownMessage(*place, sent_with=one.message_id)
            before = turn.id
    return None


def turn_before(request: StoredRequest) -> str | None:
    """The message that a request's answer follows: its own last turn, or the one regenerated."""
    return request.turns[-1].id or None if request.turns else request.parent_id
