"""Row: what it takes to save one finished message on PostgreSQL, its mark to its mark gone."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg
import uvloop
from redis.asyncio import Redis

from rejoin.shared import keys, log
from rejoin.shared.connections import open_redis
from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.ending import aftermath
from rejoin.shared.events import Done, Event, FinishReason, Usage
from rejoin.shared.settings import Settings
from rejoin.worker.appender import Appender
from rejoin.worker.kit import Kit
from rejoin.worker.providers.registry import Providers
from rejoin.worker.save import Saver
from tests.bench.plan import Plan, say
from tests.bench.samples import Spread, spread
from tests.bench.table import Line
from tests.support.messages import LIFE, batch, claim, post, start
from tests.support.postgres_server import postgres_server
from tests.support.redis_server import redis_server

_WORDS: Final = 300  # an answer's events, a word each
_WARM: Final = 20
_OWED_MS: Final = 5.0


def saving(plan: Plan) -> list[Line]:
    """The median and p99, one message after the other; beside it the disk's own part."""
    say("saving: PostgreSQL")
    with redis_server() as redis, postgres_server() as postgres, TemporaryDirectory() as name:
        found, commit = uvloop.run(
            _measure(redis.url, postgres.url(), plan.count(300, 40), Path(name))
        )
    return [
        Line(
            f"save a finished message of {_WORDS} events on PostgreSQL: p50 / p99",
            str(found),
            f"one INSERT and its commit, by asyncpg alone: {commit}",
            "",
            "p50 ≤ 5 ms",
            found.median_ms <= _OWED_MS,
        )
    ]


async def _measure(
    redis_url: str, database_url: str, samples: int, directory: Path
) -> tuple[Spread, Spread]:
    redis = open_redis(redis_url)
    settings = Settings(redis_url=redis_url, database_url=database_url, data_dir=directory)
    database = Database.of(settings)
    try:
        await schema.migrate(database)
        kit = Kit(settings, redis, Appender(redis), Providers(), "bench", database)
        saver = Saver(kit)
        await _samples(redis, saver, _WARM)
        ours = spread(await _samples(redis, saver, samples))
    finally:
        await database.aclose()
        await redis.aclose()
    return ours, spread(await _commits(database_url, samples))


async def _samples(redis: Redis, saver: Saver, count: int) -> list[int]:
    taken = []
    for _ in range(count):
        await _ended(redis)
        began = time.perf_counter_ns()
        saved = await saver.save_due()
        taken.append(time.perf_counter_ns() - began)
        if saved != 1 or await redis.zcard(keys.UNSAVED):
            raise RuntimeError(f"{saved} messages were saved instead of one")
    return taken


async def _ended(redis: Redis) -> None:
    """A message that has run to its end; not yet saved."""
    message_id = await post(redis)
    held = await claim(redis, message_id, "bench")
    words: list[Event | str] = [start(message_id), *(f"word{n} " for n in range(_WORDS))]
    end: list[Event] = [Usage(10, _WORDS, cost_usd="0.00123"), Done(FinishReason.STOP, 8 * _WORDS)]
    await log.append(redis, batch(message_id, held, 0, [*words, *end], ending="done"))
    await aftermath(redis, message_id, job_token="", life_seconds=LIFE)


async def _commits(database_url: str, samples: int) -> list[int]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await connection.execute("CREATE TABLE bare (id bigint PRIMARY KEY, text text)")
        taken = []
        for number in range(samples):
            began = time.perf_counter_ns()
            await connection.execute("INSERT INTO bare VALUES ($1, $2)", number, "x" * 2000)
            taken.append(time.perf_counter_ns() - began)
        return taken
    finally:
        await connection.close()
