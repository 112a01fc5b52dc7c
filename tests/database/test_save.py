"""The saver: what Redis holds of a message gets into the database, whatever happens meanwhile."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record, unsaved
from rejoin.shared.clock import iso
from rejoin.shared.db import messages, saving, schema
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import Spent, StoredMessage
from rejoin.shared.ending import Ender, aftermath, end_message
from rejoin.shared.errors import DatabaseRefused, DatabaseUnavailable
from rejoin.shared.events import Done, Event, Failed, FailureCode, FinishReason, Reasoning, Usage
from rejoin.shared.ids import EventId
from rejoin.shared.record import Status
from rejoin.worker.kit import Kit
from rejoin.worker.save import Saver
from tests.database.test_marks import due
from tests.support.in_process import kit_for
from tests.support.messages import LIFE, MODEL, accept, batch, claim, post, start, until

LOG_TTL = 100
AWAY = "postgresql+asyncpg://nobody@127.0.0.1:1/none"


@pytest.fixture
async def kit(redis: Redis, empty_url: str) -> AsyncIterator[Kit]:
    """A worker's parts on a migrated database."""
    made = kit_for(redis, database_url=empty_url, log_ttl_seconds=LOG_TTL, open_ttl_seconds=LIFE)
    await schema.migrate(made.database)
    yield made
    await made.database.aclose()


async def ended(redis: Redis, *events: Event | str, ending: str = "done") -> str:
    """Run a message to its end by hand; its id."""
    message_id = await post(redis)
    held = await claim(redis, message_id, "a")
    whole = [start(message_id), *events]
    await log.append(redis, batch(message_id, held, 0, whole, ending=ending))
    await aftermath(redis, message_id, job_token="", life_seconds=LIFE)
    return message_id


async def save(kit: Kit) -> int:
    await due(kit.redis)
    return await Saver(kit).save_due()


async def loaded(kit: Kit, message_id: str) -> StoredMessage:
    found = await messages.load(kit.database, message_id)
    assert found is not None
    return found


async def lives(redis: Redis, message_id: str) -> list[int]:
    *held, _ = keys.of_message(message_id)  # nothing waited for answers
    return [await redis.ttl(name) for name in held]


async def test_an_accepted_message_and_its_turns_are_saved_before_it_runs(kit: Kit) -> None:
    message_id = await accept(kit.redis, "hello", owner="ann")
    assert await save(kit) == 1
    asked, waiting = await messages.path(kit.database, message_id)
    assert (asked.role, asked.content, asked.owner) == ("user", "hello", "ann")
    assert (waiting.id, waiting.status, waiting.text) == (message_id, Status.QUEUED, "")
    assert (waiting.model, waiting.parent_id) == (MODEL, asked.id)
    assert await kit.redis.zcard(keys.UNSAVED) == 0


async def test_an_ended_message_is_saved_whole(kit: Kit) -> None:
    used = Usage(3, 4, 1, 2, "0.000123")
    done = Done(FinishReason.STOP, 8)
    message_id = await ended(kit.redis, Reasoning("hm"), "one ", "two ", used, done)
    await save(kit)
    found = await loaded(kit, message_id)
    held = await record.load(kit.redis, message_id)
    assert held is not None
    assert (found.status, found.text, found.reasoning) == (Status.DONE, "one two ", "hm")
    assert found.usage == Spent(3, 4, 1, 2, Decimal("0.000123"), estimated=False)
    assert (found.finish_reason, found.error) == ("stop", None)
    assert found.last_event_id == EventId(1, 5)
    assert (found.created_at, found.started_at) == (held.created_at, held.started_at)
    assert found.finished_at == held.finished_at is not None
    (attempt,) = found.attempts
    assert found.finished_at is not None
    assert attempt["finished_at"] == iso(found.finished_at)
    assert attempt["usage"]["cost_usd"] == "0.000123"  # type: ignore[index]


async def test_an_unknown_price_is_saved_as_unknown(kit: Kit) -> None:
    message_id = await ended(kit.redis, "x", Usage(3, 4), Done(FinishReason.STOP, 1))
    await save(kit)
    usage = (await loaded(kit, message_id)).usage
    assert usage is not None
    assert usage.cost_usd is None


async def test_a_failed_message_keeps_its_text_and_its_error(kit: Kit) -> None:
    failed = Failed(FailureCode.PROVIDER_TIMEOUT, "too slow", retryable=True, status=504)
    message_id = await ended(kit.redis, "as far", Usage(1, 1), failed, ending="failed")
    await save(kit)
    found = await loaded(kit, message_id)
    assert (found.status, found.text, found.finish_reason) == (Status.FAILED, "as far", None)
    assert found.error == {
        "code": "provider_timeout", "message": "too slow", "retryable": True, "status": 504,
    }  # fmt: skip


async def test_a_cancelled_message_keeps_its_text(kit: Kit) -> None:
    message_id = await post(kit.redis)
    held = await claim(kit.redis, message_id, "a")
    await log.append(kit.redis, batch(message_id, held, 0, [start(message_id), "as far"]))
    await record.cancel(kit.redis, message_id)
    await end_message(Ender(kit.redis, "ender", LIFE), message_id)
    await save(kit)
    found = await loaded(kit, message_id)
    assert (found.status, found.text) == (Status.CANCELLED, "as far")
    assert (found.finish_reason, found.error) == ("cancelled", None)


async def test_what_runs_is_saved_without_its_text_and_again_at_its_end(kit: Kit) -> None:
    message_id = await post(kit.redis)
    held = await claim(kit.redis, message_id, "a")
    await log.append(kit.redis, batch(message_id, held, 0, [start(message_id), "half"]))
    await save(kit)
    found = await loaded(kit, message_id)
    assert (found.status, found.text, found.last_event_id) == (Status.STREAMING, "", None)
    last: list[Event | str] = [Usage(), Done(FinishReason.STOP, 4)]
    await log.append(kit.redis, batch(message_id, held, 2, last, ending="done"))
    await aftermath(kit.redis, message_id, job_token="", life_seconds=LIFE)
    await save(kit)
    assert (await loaded(kit, message_id)).text == "half"


async def test_a_log_of_many_pages_is_saved_whole(kit: Kit) -> None:
    texts = [f"{number} " for number in range(log.PAGE * 3)]
    message_id = await ended(kit.redis, *texts, Usage(), Done(FinishReason.STOP, 1))
    await save(kit)
    assert (await loaded(kit, message_id)).text == "".join(texts)


async def test_a_log_does_not_begin_to_expire_before_it_is_saved(kit: Kit) -> None:
    message_id = await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))
    assert min(await lives(kit.redis, message_id)) > LOG_TTL
    await save(kit)
    left = await lives(kit.redis, message_id)
    assert 0 < min(left) <= max(left) <= LOG_TTL


async def test_a_log_that_is_not_ended_lives_on_when_its_beginning_is_saved(kit: Kit) -> None:
    message_id = await post(kit.redis)
    await claim(kit.redis, message_id, "a")
    await save(kit)
    assert await kit.redis.ttl(keys.record(message_id)) > LOG_TTL


async def test_while_the_database_is_away_logs_are_renewed_and_everything_stays_due(
    redis: Redis,
) -> None:
    kit = kit_for(redis, database_url=AWAY, open_ttl_seconds=LIFE)
    message_id = await ended(redis, "x", Usage(), Done(FinishReason.STOP, 1))
    await unsaved.let_live(redis, [message_id], life_seconds=5)
    with pytest.raises(DatabaseUnavailable):
        await save(kit)
    assert min(await lives(redis, message_id)) > 5
    assert await redis.zcard(keys.UNSAVED) == 1


async def test_a_transaction_that_fails_leaves_what_was_leased_due_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))

    async def away(database: Database, rows: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save", away)
        with pytest.raises(DatabaseUnavailable):
            await save(kit)
    score = await kit.redis.zscore(keys.UNSAVED, message_id)
    seconds, _ = await kit.redis.time()
    assert score is not None
    assert score / 1000 - seconds < 15, "long before its lease would end"
    await save(kit)
    assert (await loaded(kit, message_id)).text == "x"


async def test_a_saver_that_dies_in_mid_save_is_followed_by_another(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))
    begun = asyncio.Event()

    async def never(database: Database, rows: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save", never)
        dying = asyncio.create_task(save(kit))
        await asyncio.wait_for(begun.wait(), 5)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    assert await Saver(kit).save_due() == 0, "its lease has not ended"
    assert await save(kit) == 1
    assert (await loaded(kit, message_id)).text == "x"


async def test_one_message_that_is_refused_holds_up_no_other(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = [await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1)) for _ in range(2)]
    really = saving.save

    async def refusing(database: Database, rows: list[StoredMessage]) -> set[str]:
        if bad in [row.id for row in rows]:
            raise DatabaseRefused("no")
        return await really(database, rows)

    monkeypatch.setattr(saving, "save", refusing)
    assert await save(kit) == 2
    assert (await loaded(kit, good)).text == "x"
    assert await kit.redis.zrange(keys.UNSAVED, 0, -1) == [bad.encode()]
    assert min(await lives(kit.redis, bad)) > LOG_TTL


async def test_a_mark_without_a_record_waits_for_its_accept_and_no_longer(kit: Kit) -> None:
    message_id = await accept(kit.redis)
    await kit.redis.delete(*keys.of_message(message_id))
    await save(kit)
    assert await kit.redis.zcard(keys.UNSAVED) == 1
    await kit.redis.delete(keys.OPEN)
    await save(kit)
    assert await kit.redis.zcard(keys.UNSAVED) == 0


async def test_a_message_whose_request_cannot_be_read_is_saved_all_the_same(kit: Kit) -> None:
    message_id = await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))
    await kit.redis.set(keys.request(message_id), "{}")
    await save(kit)
    assert (await loaded(kit, message_id)).text == "x"


async def test_a_saver_of_a_database_behind_saves_when_it_is_migrated(
    redis: Redis, empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    kit = kit_for(redis, database_url=empty_url, open_ttl_seconds=LIFE)
    message_id = await ended(redis, "x", Usage(), Done(FinishReason.STOP, 1))
    saver = Saver(kit)
    running = asyncio.create_task(saver.run())

    async def saved() -> bool:
        return not await redis.zcard(keys.UNSAVED)

    try:
        async with asyncio.timeout(20):
            while "rejoin migrate" not in caplog.text:  # noqa: ASYNC110  a log sets no event
                await asyncio.sleep(0.01)
        await schema.migrate(kit.database)
        await until(saved)
        assert (await loaded(kit, message_id)).text == "x"
    finally:
        saver.stop()
        await asyncio.wait_for(running, 10)
        await kit.database.aclose()


async def test_a_defect_does_not_end_the_saver(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))
    really, tries = saving.save, []

    async def broken_once(database: Database, rows: list[StoredMessage]) -> set[str]:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("a defect")
        return await really(database, rows)

    monkeypatch.setattr(saving, "save", broken_once)
    saver = Saver(kit)
    running = asyncio.create_task(saver.run())

    async def saved() -> bool:
        return not await kit.redis.zcard(keys.UNSAVED)

    try:
        await until(saved)
    finally:
        saver.stop()
        await asyncio.wait_for(running, 10)
    assert "a defect" in caplog.text
    assert (await loaded(kit, message_id)).text == "x"


async def test_the_tries_grow_rarer_while_the_database_stays_away_and_begin_anew_after_a_save(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    pauses = itertools.cycle([0.05, 0.01])  # what is put off is not due yet when it looks again

    def pause(failures: int, _: object) -> float:
        told.append(failures)
        return next(pauses)

    async def away(database: Database, rows: object) -> None:
        raise DatabaseUnavailable("away")

    async def tried_for_long() -> bool:
        return bool(told) and told[-1] >= 4

    async def saved() -> bool:
        return not await kit.redis.zcard(keys.UNSAVED)

    monkeypatch.setattr("rejoin.worker.save.pause_seconds", pause)
    monkeypatch.setattr("rejoin.worker.save.POLL_SECONDS", 0.01)
    saver = Saver(kit)
    for _ in range(2):
        await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1))
        with monkeypatch.context() as patched:
            patched.setattr(saving, "save", away)
            running = asyncio.create_task(saver.run())
            await until(tried_for_long)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert told[0] == 1
        await due(kit.redis)
        assert await saver.save_due() == 1
        assert await saved()
        told.clear()


async def test_a_saver_that_is_stopped_saves_what_is_due_first(kit: Kit) -> None:
    ids = [await ended(kit.redis, "x", Usage(), Done(FinishReason.STOP, 1)) for _ in range(120)]
    saver = Saver(kit)
    saver.stop()
    await asyncio.wait_for(saver.run(), 20)
    assert await kit.redis.zcard(keys.UNSAVED) == 0
    assert (await loaded(kit, ids[-1])).text == "x"


async def test_a_saver_that_is_stopped_does_not_wait_for_a_database_that_is_away(
    redis: Redis,
) -> None:
    saver = Saver(kit_for(redis, database_url=AWAY))
    saver.stop()
    await asyncio.wait_for(saver.run(), 5)
