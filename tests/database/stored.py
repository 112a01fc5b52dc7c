"""Messages to be saved, made short."""

from typing import Any, Final

from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Status

OWNER: Final = "ann"
CREATED: Final = 1_763_731_234_567  # ms


def turn(conversation_id: str, text: str = "hello", **others: Any) -> StoredMessage:
    """What a user sent."""
    return _made(conversation_id, {"role": "user", "content": text} | others)


def answer(conversation_id: str, text: str = "", **others: Any) -> StoredMessage:
    """An answer; ended, unless `status` says otherwise."""
    plain = {"role": "assistant", "text": text, "place": 1, "model": "demo/echo"}
    ended = {"status": Status.DONE, "attempt": 1, "last_event_id": EventId(1, 9)}
    return _made(conversation_id, plain | ended | others)


def queued(conversation_id: str, **others: Any) -> StoredMessage:
    """An answer that nobody has begun."""
    fields: dict[str, Any] = {"status": Status.QUEUED, "attempt": 0, "last_event_id": None}
    return answer(conversation_id, **(fields | others))


def _made(conversation_id: str, fields: dict[str, Any]) -> StoredMessage:
    plain = {
        "id": new_message_id(),
        "conversation_id": conversation_id,
        "owner": OWNER,
        "parent_id": None,
        "created_at": CREATED,
    }
    return StoredMessage(**(plain | fields))
