"""The database away during a run: streams go on, and nothing is missing afterwards."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log
from rejoin.shared.db import messages, schema
from rejoin.shared.db.engine import Database
from rejoin.shared.fold import fold
from rejoin.shared.record import Status
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.messages import post, until
from tests.support.postgres_server import PostgresServer
from tests.support.scripted_provider import ScriptedProvider, answer

LOG_TTL: Final = 2
MODEL: Final = SCRIPT
AWAY: Final = "postgresql+asyncpg://nobody@127.0.0.1:1/none"

Outage = Callable[[], AbstractContextManager[None]]


async def all_saved(redis: Redis) -> bool:
    return not await redis.zcard(keys.UNSAVED)


async def through_an_outage(redis: Redis, url: str, database_url: str, outage: Outage) -> None:
    """Run messages before, during and after an outage, and look for them afterwards."""
    database = Database(database_url)
    await schema.migrate(database)
    gate = asyncio.Event()
    provider = ScriptedProvider([*answer("one ")[:-1], gate, *answer("two")])
    settings: dict[str, Any] = {"database_url": database_url, "log_ttl_seconds": LOG_TTL}
    try:
        async with worker_on(url, provider, **settings):
            begun = [await post(redis, model=MODEL) for _ in range(5)]
            await until(lambda: all_saved(redis))
            with outage():
                gate.set()
                during = [await post(redis, model=MODEL) for _ in range(5)]
                for message_id in begun + during:
                    assert fold(await until_ended(redis, message_id)).text == "one two"
                await outlive_the_logs()
                for message_id in begun + during:
                    assert await log.read(redis, message_id), "its log went before it was saved"
            after = [await post(redis, model=MODEL) for _ in range(5)]
            for message_id in after:
                await until_ended(redis, message_id)
            await until(lambda: all_saved(redis), within=30)
        for message_id in begun + during + after:
            asked, found = await messages.path(database, message_id)
            assert (asked.role, found.status, found.text) == ("user", Status.DONE, "one two")
    finally:
        await database.aclose()


async def outlive_the_logs() -> None:
    """Let the time pass after which a saved log is gone."""
    await asyncio.sleep(LOG_TTL + 0.5)


async def test_postgresql_is_killed_and_started_again(
    clean_redis_url: str, redis: Redis, own_postgres: PostgresServer
) -> None:
    @contextmanager
    def killed() -> Iterator[None]:
        own_postgres.kill()
        yield
        own_postgres.start()

    await through_an_outage(redis, clean_redis_url, own_postgres.url(), killed)


async def test_postgresql_stops_answering_and_goes_on(
    clean_redis_url: str,
    redis: Redis,
    own_postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rejoin.shared.db.engine._STATEMENT_SECONDS", 0.5)
    monkeypatch.setattr("rejoin.shared.db.engine._CONNECT_SECONDS", 0.5)

    @contextmanager
    def paused() -> Iterator[None]:
        own_postgres.pause()
        try:
            yield
        finally:
            own_postgres.resume()

    await through_an_outage(redis, clean_redis_url, own_postgres.url(), paused)


async def test_an_sqlite_file_is_locked_and_let_go(
    clean_redis_url: str, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.shared.db.engine._LOCK_SECONDS", 0.5)
    file = tmp_path / "rejoin.db"

    @contextmanager
    def locked() -> Iterator[None]:
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
            holder.execute("ROLLBACK")

    await through_an_outage(redis, clean_redis_url, f"sqlite+aiosqlite:///{file}", locked)


async def test_a_database_that_is_away_at_the_start_stops_nobody(
    clean_redis_url: str, redis: Redis, own_postgres: PostgresServer
) -> None:
    database = Database(own_postgres.url())
    await schema.migrate(database)
    own_postgres.stop()
    async with worker_on(
        clean_redis_url, ScriptedProvider(answer("x")), database_url=own_postgres.url()
    ):
        message_id = await post(redis, model=MODEL)
        await until_ended(redis, message_id)
        own_postgres.start()
        await until(lambda: all_saved(redis), within=30)
    found = await messages.load(database, message_id)
    await database.aclose()
    assert found is not None
    assert found.text == "x"


async def test_a_worker_that_stops_saves_what_has_just_ended(
    clean_redis_url: str, redis: Redis, empty_url: str
) -> None:
    database = Database(empty_url)
    await schema.migrate(database)
    async with worker_on(
        clean_redis_url, ScriptedProvider(answer("x")), database_url=empty_url
    ) as running:
        message_id = await post(redis, model=MODEL)
        await until_ended(redis, message_id)
        await running.stop()
        found = await messages.load(database, message_id)
        await database.aclose()
        assert found is not None
        assert found.text == "x"
        running.dead = True


async def test_a_worker_that_dies_after_an_end_leaves_it_to_be_saved_by_the_next(
    clean_redis_url: str, redis: Redis, empty_url: str
) -> None:
    database = Database(empty_url)
    await schema.migrate(database)
    provider = ScriptedProvider(answer("x"))
    message_id = await post(redis, model=MODEL)
    # Its saver never begins: the end is in the log, and nobody has saved it.
    async with worker_on(clean_redis_url, provider, database_url=AWAY) as first:
        await until_ended(redis, message_id)
        await first.die()
    async with worker_on(clean_redis_url, provider, name="w2", database_url=empty_url):
        await until(lambda: all_saved(redis), within=45)
    found = await messages.load(database, message_id)
    await database.aclose()
    assert found is not None
    assert found.text == "x"


async def test_a_log_that_no_saver_comes_to_does_not_begin_to_expire(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing_due(_: object) -> int:
        return 0

    monkeypatch.setattr("rejoin.worker.save.Saver.save_due", nothing_due)
    async with worker_on(clean_redis_url, ScriptedProvider(answer("x")), log_ttl_seconds=LOG_TTL):
        message_id = await post(redis, model=MODEL)
        await until_ended(redis, message_id)
    *held, _ = keys.of_message(message_id)  # nothing waited for answers
    lives = [await redis.ttl(name) for name in held]
    assert min(lives) > 600_000, "a week, as while it was open"
