"""The history as the database has it: what is known of conversations that Redis has forgotten."""

from rejoin.api.history import KnownConversation, KnownMessage
from rejoin.shared.db import conversations, messages
from rejoin.shared.db.engine import Database


class SavedHistory:
    """Looks into the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def conversation(self, conversation_id: str) -> KnownConversation | None:
        """Return a conversation, or None where none is saved, or it was deleted.

        Raises:
            DatabaseUnavailable: nobody can say.
        """
        found = await conversations.newest(self._database, conversation_id)
        return None if found is None else KnownConversation(*found)

    async def message(self, message_id: str) -> KnownMessage | None:
        """Return a message of either role, or None where none is saved.

        Raises:
            DatabaseUnavailable: nobody can say.
        """
        found = await messages.load(self._database, message_id)
        if found is None:
            return None
        model = found.model if found.role == "assistant" else None
        return KnownMessage(found.conversation_id, found.owner, found.role, found.parent_id, model)
