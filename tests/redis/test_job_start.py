"""A leased job's way to its claim: Redis goes away, its worker is paused, its lease is fresh."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import claiming, keys, log, queue
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.fold import fold
from rejoin.worker.run import Run
from tests.redis.jobs import expire_lease, lease
from tests.support.in_process import SCRIPT, kit_for, until_ended, worker_on
from tests.support.messages import (
    accept,
    batch,
    claim,
    enqueue,
    place,
    post,
    start,
    until,
    until_true,
)
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import ScriptedProvider, answer

LONG_LEASE = 30.0  # whoever waits it out is too late


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_job_taken_just_before_redis_went_away_runs_once_it_is_back(
    own_redis: RedisServer,
    own_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stalls: bool,
) -> None:
    """It is not given up until its lease ends, no try is used up, and its slot is free after it."""
    async with worker_on(
        own_redis.url, lease_seconds=LONG_LEASE, max_jobs=1, max_attempts=1
    ) as worker:
        taken, go_on, run_job = asyncio.Event(), asyncio.Event(), worker.worker.run_job

        async def held_up(job_id: str, score: int) -> None:
            taken.set()
            await go_on.wait()
            await run_job(job_id, score)

        monkeypatch.setattr(worker.worker, "run_job", held_up)
        message_id = await post(own_client, "one two three")
        async with asyncio.timeout(10):
            await taken.wait()
        if stalls:
            own_redis.pause()
        else:
            await asyncio.to_thread(own_redis.kill)
        go_on.set()
        try:
            await until_true(lambda: f"{message_id} waits" in caplog.text, within=20)
        finally:
            if stalls:
                own_redis.resume()
            else:
                await asyncio.to_thread(own_redis.start)
        frames = await until_ended(own_client, message_id, within=LONG_LEASE / 2)
        lost = await cast(Awaitable[bytes], own_client.hget(keys.record(message_id), "lost"))
        await until_true(lambda: worker.worker.job_counter == 0)
        after = await until_ended(own_client, await post(own_client, "the next"))
    assert (fold(frames).text, frames[-1].name) == ("one two three", "done")
    assert (len(fold(frames).attempts), lost) == (1, b"0")
    assert fold(after).text == "the next"


async def test_a_job_just_leased_starts_without_renewing_its_lease(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def renew(*args: object, **how: object) -> list[str]:
        asked.append(args)
        return []

    async with worker_on(clean_redis_url, lease_seconds=LONG_LEASE):
        monkeypatch.setattr(queue, "renew", renew)
        frames = await until_ended(redis, await post(redis))
    assert frames[-1].name == "done"
    assert asked == []


async def test_a_worker_that_was_paused_as_its_job_started_leaves_it_to_the_new_owner(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped for longer than its lease, which nobody renewed meanwhile."""
    provider = ScriptedProvider(answer("never to be asked for"))
    async with worker_on(clean_redis_url, provider, lease_seconds=0.5) as paused:
        leased, go_on, run_job = asyncio.Event(), asyncio.Event(), paused.worker.run_job

        async def held_up(job_id: str, score: int) -> None:
            leased.set()
            await go_on.wait()
            await run_job(job_id, score)

        async def no_beat() -> None: ...

        monkeypatch.setattr(paused.worker, "run_job", held_up)
        monkeypatch.setattr(paused.worker._leases, "_renew", no_beat)
        message_id = await post(redis, model=SCRIPT)
        async with asyncio.timeout(10):
            await leased.wait()
        monkeypatch.setattr(paused.worker, "max_jobs", 0)  # a stopped process takes nothing
        await until(lambda: queue.is_due(redis, message_id))
        assert await lease(redis, "another", seconds=60) == [message_id]
        owner = await claim(redis, message_id, "another")
        go_on.set()
        await until_true(lambda: not paused.worker.tasks)
        await log.append(redis, batch(message_id, owner, 0, [start(message_id)]))
        assert (await place(redis, message_id)).owner == b"another"
    assert provider.calls == []


async def test_a_claim_that_redis_kept_waiting_past_the_lease_is_not_made(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease was fresh at the first try, and another's by the last one."""
    message_id = await post(redis, model=SCRIPT)
    asked_at = time.monotonic()
    await lease(redis, "old")
    await expire_lease(redis, message_id)
    await lease(redis, "new")
    owner = await claim(redis, message_id, "new")
    really, tries = claiming.claim_and_load, 0

    async def away_at_first(*args: Any, **how: Any) -> Any:
        nonlocal tries
        tries += 1
        if time.monotonic() < asked_at + 0.5:
            raise LogUnavailable("Redis is away")
        return await really(*args, **how)

    monkeypatch.setattr(claiming, "claim_and_load", away_at_first)
    kit = kit_for(redis, ScriptedProvider(answer("never to be asked for")), lease_seconds=1)
    async with asyncio.timeout(10):
        await Run(kit, message_id, "old", leased_at=asked_at).run()
    assert tries > 0
    await log.append(redis, batch(message_id, owner, 0, [start(message_id)]))


async def test_a_job_of_an_older_version_which_names_no_conversation_runs(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        message_id = await accept(redis)
        assert await enqueue(redis, message_id)
        assert (await until_ended(redis, message_id))[-1].name == "done"
