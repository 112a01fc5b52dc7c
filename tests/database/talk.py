"""A conversation whose messages are posted without an API, and answered by a worker in process."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from rejoin.shared import accepting, keys, queue, stored, turns
from rejoin.shared.fold import Message, fold
from rejoin.shared.ids import new_message_id
from rejoin.shared.request import StoredRequest, StoredTurn
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.messages import LIFE, enqueue, new_record, post, until


class Talk:
    """A conversation whose messages are posted without an API."""

    def __init__(self, redis: Redis, url: str, database_url: str) -> None:
        self.redis, self.url, self.database_url = redis, url, database_url
        self.id = new_message_id()

    async def ask(self, text: str, parent_id: str | None = None, **fields: Any) -> str:
        """Post a message after `parent_id`; its id."""
        plain = {"model": SCRIPT, "conversation_id": self.id, "parent_id": parent_id}
        return await post(self.redis, text, **(plain | fields))

    async def ask_again(self, message_id: str) -> str:
        """Post another answer to the turn that a message answers; its id."""
        known = await stored.load_with_request(self.redis, message_id)
        assert known is not None
        asked = known[1]
        parent_id = asked.turns[-1].id if asked.turns else asked.parent_id
        request = StoredRequest(SCRIPT, [], parent_id=parent_id, regenerate=message_id)
        return await self._post(request)

    async def ask_with_id(
        self, text: str, parent_id: str | None = None, beside: str | None = None
    ) -> str:
        """Post a message whose turn has an id, as the API gives it one; the message's id."""
        own = [StoredTurn("user", text, new_message_id())]
        return await self._post(StoredRequest(SCRIPT, own, parent_id=parent_id, beside=beside))

    async def ask_after(self, *brought: tuple[str, str]) -> str:
        """Post a message whose request brings turns of its own, (role, text) each; its id."""
        own = [StoredTurn(role, text, new_message_id()) for role, text in brought]
        return await self._post(StoredRequest(SCRIPT, own))

    async def _post(self, request: StoredRequest) -> str:
        new = new_record(None, self.id, model=SCRIPT)
        indexed_at = await queue.index(self.redis, new.message_id, most_due=1000)
        await turns.place_again(self.redis, new, life_seconds=LIFE)
        await accepting.store(self.redis, new, request, indexed_at=indexed_at, life_seconds=LIFE)
        await enqueue(self.redis, new.message_id)
        return new.message_id

    async def told(
        self, provider: Any, text: str, parent_id: str | None = None, **fields: Any
    ) -> tuple[str, Message]:
        """Post a message and let a worker with `provider` answer it; its id and its log."""
        settings = {name: fields.pop(name) for name in ("provider_retries",) if name in fields}
        message_id = await self.ask(text, parent_id, **fields)
        return message_id, await self.run(provider, message_id, **settings)

    async def run(self, provider: Any, message_id: str, **settings: Any) -> Message:
        """Let a worker with `provider` work until a message has ended; its log."""
        plain: dict[str, Any] = {"database_url": self.database_url, "lease_seconds": 0.5}
        async with worker_on(self.url, provider, **(plain | settings)):
            return fold(await until_ended(self.redis, message_id, within=20))

    async def saved(self, *, gone: Sequence[str] = ()) -> None:
        """Wait until all is saved; forget the logs of `gone`, as after their life."""
        await until(self._all_saved)
        for message_id in gone:
            await self.redis.delete(*keys.of_message(message_id))

    async def _all_saved(self) -> bool:
        return not await self.redis.zcard(keys.UNSAVED)
