"""What an API knows of conversations and messages that Redis has forgotten."""

from rejoin.api.history import KnownConversation, KnownMessage
from rejoin.api.saved_history import SavedHistory
from rejoin.shared.db import conversations
from rejoin.shared.db.engine import Database
from rejoin.shared.db.saving import save
from rejoin.shared.ids import new_message_id
from tests.database.stored import CREATED, OWNER, answer, turn


async def test_a_conversation_is_known_by_its_owner_and_its_newest_message(
    database: Database,
) -> None:
    asked = turn(new_message_id())
    told = answer(asked.conversation_id, parent_id=asked.id)
    other = answer(asked.conversation_id, parent_id=asked.id, created_at=CREATED - 1)
    await save(database, [asked, told, other])
    history = SavedHistory(database)
    assert await history.conversation(asked.conversation_id) == KnownConversation(OWNER, told.id)
    assert await history.conversation(new_message_id()) is None


async def test_a_deleted_conversation_is_not_known(database: Database) -> None:
    asked = turn(new_message_id())
    await save(database, [asked])
    await conversations.remove(database, asked.conversation_id, OWNER, now_ms=1)
    history = SavedHistory(database)
    assert await history.conversation(asked.conversation_id) is None
    assert await history.message(asked.id) is None


async def test_a_message_of_either_role_is_known_by_its_place(database: Database) -> None:
    asked = turn(new_message_id())
    told = answer(asked.conversation_id, parent_id=asked.id)
    await save(database, [asked, told])
    history = SavedHistory(database)
    own = (asked.conversation_id, OWNER)
    assert await history.message(asked.id) == KnownMessage(*own, "user", None, None)
    assert await history.message(told.id) == KnownMessage(*own, "assistant", asked.id, "demo/echo")
    assert await history.message(new_message_id()) is None
