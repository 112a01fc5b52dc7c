"""Retention: old conversations go with their logs, the others and their logs stay."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.clock import now_ms
from rejoin.shared.db import conversations, messages, schema
from rejoin.shared.db.saving import save
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Status
from rejoin.worker.kit import Kit
from rejoin.worker.retention import Retention
from tests.database.stored import OWNER, answer, turn
from tests.support.in_process import kit_for
from tests.support.messages import accept

DAY_MS = 86_400_000


@pytest.fixture
async def kit(redis: Redis, empty_url: str) -> AsyncIterator[Kit]:
    """A worker's parts, with a retention of two days."""
    made = kit_for(redis, database_url=empty_url, retention_days=2)
    await schema.migrate(made.database)
    yield made
    await made.database.aclose()


async def conversation(kit: Kit, *, days: float, status: Status = Status.DONE) -> str:
    """A message with a log, whose conversation changed last so many days ago; its id."""
    message_id = await accept(kit.redis)
    at = now_ms() - int(days * DAY_MS)
    conversation_id = new_message_id()
    asked = turn(conversation_id, created_at=at)
    said = {"id": message_id, "created_at": at, "parent_id": asked.id, "status": status}
    await save(kit.database, [asked, answer(conversation_id, "x", **said)])
    return message_id


async def test_what_is_older_goes_with_its_logs_and_what_is_younger_stays(kit: Kit) -> None:
    old, young = await conversation(kit, days=2.1), await conversation(kit, days=1.9)
    assert await Retention(kit).look() == 1
    assert await messages.load(kit.database, old) is None
    assert await kit.redis.exists(*keys.of_message(old)) == 0
    assert await kit.redis.zscore(keys.UNSAVED, old) is None
    assert await messages.load(kit.database, young) is not None
    assert await kit.redis.exists(keys.record(young)) == 1


async def test_a_conversation_that_goes_on_is_not_old(kit: Kit) -> None:
    first = await conversation(kit, days=9)
    found = await messages.load(kit.database, first)
    assert found is not None
    await save(kit.database, [replace(found, finished_at=now_ms())])
    assert await Retention(kit).look() == 0
    assert await messages.load(kit.database, first) is not None


async def test_a_conversation_whose_message_waits_stays_until_it_has_ended(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.retention._AT_ONCE", 2)
    waits = [await conversation(kit, days=5, status=Status.STREAMING) for _ in range(3)]
    old = [await conversation(kit, days=4) for _ in range(2)]
    lost = await conversation(kit, days=3, status=Status.STREAMING)
    await kit.redis.delete(keys.record(lost))
    assert await Retention(kit).look() == 3
    for message_id in waits:
        assert await messages.load(kit.database, message_id) is not None
        assert await kit.redis.exists(keys.record(message_id)) == 1
    for message_id in (*old, lost):
        assert await messages.load(kit.database, message_id) is None
    await kit.redis.hset(keys.record(waits[0]), "ended", "done")  # type: ignore[misc]
    assert await Retention(kit).look() == 1


async def test_without_the_setting_everything_stays(redis: Redis, empty_url: str) -> None:
    kit = kit_for(redis, database_url=empty_url)
    await schema.migrate(kit.database)
    old = await conversation(kit, days=9999)
    assert await Retention(kit).look() == 0
    assert await messages.load(kit.database, old) is not None
    await kit.database.aclose()


async def test_more_than_a_batch_goes_in_one_look(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.retention._AT_ONCE", 2)
    old = [await conversation(kit, days=5) for _ in range(5)]
    assert await Retention(kit).look() == 5
    for message_id in old:
        assert await messages.load(kit.database, message_id) is None
    assert await Retention(kit).look() == 0


async def test_a_late_save_does_not_bring_an_old_conversation_back(kit: Kit) -> None:
    old = await conversation(kit, days=5)
    found = await messages.load(kit.database, old)
    assert found is not None
    await Retention(kit).look()
    await save(kit.database, [found])
    assert await messages.load(kit.database, old) is None


async def test_a_tombstone_goes_when_nothing_of_it_can_be_in_redis(kit: Kit) -> None:
    gone, fresh = new_message_id(), new_message_id()
    await conversations.remove(kit.database, gone, OWNER, now_ms=now_ms() - 30 * DAY_MS)
    await conversations.remove(kit.database, fresh, OWNER, now_ms=now_ms())
    await Retention(kit).look()
    rows = [turn(gone), turn(fresh)]
    await save(kit.database, rows)
    assert await messages.load(kit.database, rows[0].id) is not None, "its tombstone is gone"
    assert await messages.load(kit.database, rows[1].id) is None
