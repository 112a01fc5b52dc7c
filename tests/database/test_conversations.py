"""Conversations over HTTP, from either database and from Redis at once."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rejoin.shared import deleted, keys, log
from rejoin.shared.db import conversations, messages
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.db.saving import save
from rejoin.shared.errors import NotFound
from rejoin.shared.events import Event
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Status
from rejoin.shared.turns import IfBusy, place
from rejoin.worker.kit import Kit
from rejoin.worker.save import Saver
from tests.database.app import LOCAL, calling
from tests.database.stored import CREATED, answer, queued, turn
from tests.database.test_marks import due
from tests.support.in_process import kit_for
from tests.support.messages import LIFE, accept, batch, claim, end, start


@pytest.fixture
async def api(clean_redis_url: str, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(clean_redis_url, database) as client:
        yield client


@pytest.fixture
async def kit(redis: Redis, empty_url: str, database: Database) -> AsyncIterator[Kit]:
    """A worker's parts on the same database."""
    made = kit_for(redis, database_url=empty_url, log_ttl_seconds=100, open_ttl_seconds=LIFE)
    yield made
    await made.database.aclose()


async def got(api: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def shown(api: httpx.AsyncClient, conversation_id: str) -> dict[str, Any]:
    return await got(api, f"/api/conversations/{conversation_id}")


async def pages(api: httpx.AsyncClient, limit: int) -> list[str]:
    """The ids of all pages, and that no page is larger than asked."""
    seen: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    for _ in range(100):
        page = await got(api, "/api/conversations", **query)
        found = [one["id"] for one in page["conversations"]]
        assert len(found) <= limit
        seen += found
        if page["next_cursor"] is None:
            return seen
        assert found
        query["cursor"] = page["next_cursor"]
    raise AssertionError("no page was the last one")


async def test_saved_and_unsaved_ones_are_in_one_list(
    api: httpx.AsyncClient, redis: Redis, database: Database
) -> None:
    rows = [turn(new_message_id(), owner=LOCAL, created_at=CREATED + n // 2) for n in range(7)]
    await save(database, [*rows, turn(new_message_id(), owner="ann")])
    saved = sorted(rows, key=lambda row: (row.created_at, row.conversation_id), reverse=True)
    old = saved[3].conversation_id
    fresh = [new_message_id() for _ in range(3)]
    for conversation_id in fresh:
        await accept(redis, owner=LOCAL, conversation_id=conversation_id)
        await asyncio.sleep(0.002)  # another millisecond
    await accept(redis, owner=LOCAL, conversation_id=old)  # it was changed: it goes up
    await accept(redis, owner="ann")
    others = [row.conversation_id for row in saved if row.conversation_id != old]
    for limit in (1, 2, 3, 4, 10, 11, 100):
        assert await pages(api, limit) == [old, *reversed(fresh), *others]
    (first,) = (await got(api, "/api/conversations", limit=1))["conversations"]
    assert first["created_at"] == "2025-11-21T13:20:34.568Z"


async def test_a_page_is_not_moved_by_what_changes_above_it(
    api: httpx.AsyncClient, database: Database
) -> None:
    rows = [turn(new_message_id(), owner=LOCAL, created_at=CREATED + n) for n in range(4)]
    await save(database, rows)
    first = await got(api, "/api/conversations", limit=2)
    await save(database, [turn(new_message_id(), owner=LOCAL, created_at=CREATED + 9)])
    second = await got(api, "/api/conversations", limit=2, cursor=first["next_cursor"])
    seen = [one["id"] for page in (first, second) for one in page["conversations"]]
    assert seen == [row.conversation_id for row in reversed(rows)]


async def test_what_ended_is_shown_with_its_text_before_it_is_saved(
    api: httpx.AsyncClient, redis: Redis, kit: Kit
) -> None:
    conversation_id = new_message_id()
    message_id = await accept(redis, owner=LOCAL, conversation_id=conversation_id)
    await due(redis)
    assert await Saver(kit).save_due() == 1  # as it is queued
    held = await claim(redis, message_id, "a")
    whole: list[Event | str] = [start(message_id), "said", *end()]
    await log.append(redis, batch(message_id, held, 0, whole, ending="done"))
    for _ in range(2):
        answered = (await shown(api, conversation_id))["messages"][-1]
        assert (answered["status"], answered["text"]) == ("done", "said")
        assert answered["last_event_id"] == "1-3"
        await Saver(kit).save_due()


async def test_a_queued_one_that_redis_lost_has_failed_and_is_not_active(
    api: httpx.AsyncClient, database: Database
) -> None:
    row = queued(new_message_id(), owner=LOCAL)
    await save(database, [row])
    found = await shown(api, row.conversation_id)
    assert found["active_message_id"] is None
    assert found["messages"][0]["status"] == "failed"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_anothers_conversation_answers_as_an_unknown_one(
    api: httpx.AsyncClient, database: Database, redis: Redis, method: str
) -> None:
    row = turn(new_message_id(), owner="ann")
    await save(database, [row])
    fresh = new_message_id()
    await accept(redis, owner="ann", conversation_id=fresh)
    ids = (row.conversation_id, fresh, new_message_id())
    found = [await api.request(method, f"/api/conversations/{one}") for one in ids]
    assert {(one.status_code, one.content) for one in found} == {(404, found[0].content)}
    assert await conversations.load(database, row.conversation_id, "ann") is not None


async def test_a_deleted_one_is_not_brought_back_by_a_late_save(
    api: httpx.AsyncClient, redis: Redis, kit: Kit
) -> None:
    conversation_id = new_message_id()
    message_id = await accept(redis, owner=LOCAL, conversation_id=conversation_id)
    held = await claim(redis, message_id, "a")  # by a worker that hears nothing
    begun = await log.append(redis, batch(message_id, held, 0, [start(message_id), "said"]))
    assert not begun.cancel_asked
    response = await api.delete(f"/api/conversations/{conversation_id}")
    assert response.status_code == 204
    ended = batch(message_id, held, 2, end(), ending="cancelled")
    assert (await log.append(redis, ended)).cancel_asked
    await redis.zadd(keys.UNSAVED, {message_id: 0})
    await redis.zrem(keys.OPEN, message_id)
    assert await pages(api, 10) == []
    assert await Saver(kit).save_due() == 1
    assert await messages.load(kit.database, message_id) is None
    assert await redis.exists(*keys.of_message(message_id)) == 0
    assert (await api.get(f"/api/conversations/{conversation_id}")).status_code == 404
    assert (await api.get(f"/api/messages/{message_id}")).status_code == 404


async def test_nothing_is_placed_in_a_deleted_one_even_where_it_was_placed_before(
    redis: Redis,
) -> None:
    how: dict[str, Any] = {"owner": LOCAL, "if_busy": IfBusy.ENQUEUE, "parent_id": None}
    how |= {"life_seconds": LIFE, "make": True}
    await place(redis, "c", "a", **how)
    assert await deleted.mark(redis, "c", LOCAL, life_seconds=LIFE) == ["a"]
    for name in "ab":
        with pytest.raises(NotFound):
            await place(redis, "c", name, **how)
    assert await redis.ttl(keys.conversation("c")) > 0


async def test_a_delete_that_broke_off_is_done_by_a_repeat(
    api: httpx.AsyncClient, database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = turn(new_message_id(), owner=LOCAL)
    await save(database, [row])
    address = f"/api/conversations/{row.conversation_id}"
    await deleted.mark(redis, row.conversation_id, LOCAL, life_seconds=LIFE)
    assert (await api.get(address)).status_code == 404
    assert (await api.delete(address)).status_code == 204
    assert await messages.load(database, row.id) is None


async def test_while_the_database_is_away_it_is_503(clean_redis_url: str) -> None:
    away = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with calling(clean_redis_url, away) as api:
        one = f"/api/conversations/{new_message_id()}"
        for method, path in (("GET", "/api/conversations"), ("GET", one), ("DELETE", one)):
            refused = await api.request(method, path)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    await away.aclose()


async def test_while_redis_is_away_it_is_503(database: Database) -> None:
    async with calling("redis://127.0.0.1:1/0", database) as api:
        one = f"/api/conversations/{new_message_id()}"
        for method, path in (("GET", "/api/conversations"), ("GET", one), ("DELETE", one)):
            async with asyncio.timeout(5):
                refused = await api.request(method, path)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_any_tree_shows_the_path_to_its_newest_and_every_sibling(
    api: httpx.AsyncClient, database: Database, data: st.DataObject
) -> None:
    conversation_id = new_message_id()
    rows: list[StoredMessage] = []
    for n in range(data.draw(st.integers(1, 8))):
        parent = data.draw(st.sampled_from([None, *rows]))
        row = answer(
            conversation_id,
            owner=LOCAL,
            parent_id=parent.id if parent else None,
            created_at=CREATED + n,
            status=Status.DONE,
        )
        rows.append(row)
    await save(database, rows)
    found = (await shown(api, conversation_id))["messages"]
    assert found[-1]["id"] == rows[-1].id
    assert found[0]["parent_id"] is None
    for before, after in pairwise(found):
        assert after["parent_id"] == before["id"]
    for one in found:
        family = [row.id for row in rows if row.parent_id == one["parent_id"]]
        assert one["siblings"] == family
