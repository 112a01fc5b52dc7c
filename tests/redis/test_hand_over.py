"""A worker that leaves gives its messages to the next one, without a wait and without a loss."""

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, queue, record
from rejoin.shared.fold import fold
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.messages import place, post, until, until_true
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import SILENCE, ScriptedProvider, answer, texts


async def test_a_stopped_worker_hands_over_at_once(clean_redis_url: str, redis: Redis) -> None:
    leaving = ScriptedProvider([*texts("half of "), SILENCE])
    staying = ScriptedProvider(answer("the whole"))
    async with worker_on(clean_redis_url, leaving) as first:
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)
        await first.stop()
        assert leaving.open == 0
        found = await place(redis, message_id)
        assert found.owner is None
        assert (found.due_in_ms or 0) <= 0  # no lease is waited out
        assert await redis.llen(keys.WAKE) == 1  # type: ignore[misc]
        async with worker_on(clean_redis_url, staying, name="worker-2"):
            frames = await until_ended(redis, message_id)
    assert [frame.name for frame in frames].count("reset") == 1
    assert fold(frames).text == "the whole"
    assert [attempt["worker"] for attempt in fold(frames).attempts] == ["worker-1", "worker-2"]


async def test_a_hand_over_is_no_lost_run(clean_redis_url: str, redis: Redis) -> None:
    message_id = await post(redis, model=SCRIPT)
    for n in range(4):
        silent = ScriptedProvider([SILENCE])
        async with worker_on(clean_redis_url, silent, name=f"worker-{n}", max_attempts=1):
            await until_true(lambda provider=silent: provider.open == 1)  # type: ignore[misc]
    last = ScriptedProvider(answer("done at last"))
    async with worker_on(clean_redis_url, last, name="worker-5", max_attempts=1):
        frames = await until_ended(redis, message_id)
    assert frames[-1].name == "done"
    assert fold(frames).text == "done at last"


async def test_a_stopped_worker_takes_its_sign_of_life_and_every_task_along(
    clean_redis_url: str, redis: Redis
) -> None:
    before = asyncio.all_tasks()
    async with worker_on(clean_redis_url) as worker:
        await until_ended(redis, await post(redis))
        await worker.stop()
        assert await redis.exists(keys.worker("worker-1")) == 0
        assert asyncio.all_tasks() <= before


async def test_a_message_leased_as_the_worker_stops_is_handed_over_too(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's task runs, and its attempt does not yet."""
    provider = ScriptedProvider([*texts("never to be heard"), SILENCE])
    async with worker_on(clean_redis_url, provider) as first:
        go_on, run_job = asyncio.Event(), first.worker.run_job
        leased = asyncio.Event()

        async def held_up(job_id: str, score: int) -> None:
            leased.set()
            await go_on.wait()
            await run_job(job_id, score)

        monkeypatch.setattr(first.worker, "run_job", held_up)
        message_id = await post(redis, model=SCRIPT)
        await leased.wait()
        first.worker.stop()
        await asyncio.sleep(0.05)
        go_on.set()
        async with asyncio.timeout(2):  # less than what late tasks are given
            await first.main
        found = await place(redis, message_id)
        assert found.owner is None
        assert provider.calls == []
    after = ScriptedProvider(answer("ok"))
    async with worker_on(clean_redis_url, after, name="worker-2", max_attempts=1):
        assert (await until_ended(redis, message_id))[-1].name == "done"


async def test_a_lease_whose_reply_comes_as_the_worker_stops_is_given_back(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, leased = queue.lease, asyncio.Event()

    async def slow(*args: Any, **how: Any) -> dict[str, bytes]:
        taken = await real(*args, **how)
        if taken:
            leased.set()
            await asyncio.sleep(0.1)
        return taken

    monkeypatch.setattr("rejoin.worker.arq_worker.queue.lease", slow)
    provider = ScriptedProvider(answer("never to be asked for"))
    async with worker_on(clean_redis_url, provider, drain_seconds=5) as first:
        message_id = await post(redis, model=SCRIPT)
        await leased.wait()
        await first.stop()
        assert first.worker.tasks == {}
    found = await place(redis, message_id)
    assert (found.owner, provider.calls) == (None, [])
    assert (found.due_in_ms or 0) <= 0


async def test_a_worker_stopped_while_redis_is_away_fails_no_message(
    own_redis: RedisServer, own_client: Redis
) -> None:
    silent = ScriptedProvider([*texts("half of "), SILENCE])
    async with worker_on(own_redis.url, silent, lease_seconds=0.6) as first:
        message_id = await post(own_client, model=SCRIPT)
        await until_events(own_client, message_id, 2)
        await asyncio.to_thread(own_redis.kill)
        first.worker.stop()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_redis.start)
        async with asyncio.timeout(15):
            await first.main
    after = ScriptedProvider(answer("the whole"))
    async with worker_on(own_redis.url, after, name="worker-2", lease_seconds=0.6):
        frames = await until_ended(own_client, message_id)
    assert [frame.name for frame in frames if frame.name == "failed"] == []
    assert fold(frames).text == "the whole"


async def test_a_worker_that_cannot_reach_redis_stops_all_the_same(
    own_redis: RedisServer, own_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.arq_worker._STOP_SECONDS", 0.5)
    silent = ScriptedProvider([*texts("half of "), SILENCE])
    async with worker_on(own_redis.url, silent) as first:
        message_id = await post(own_client, model=SCRIPT)
        await until_events(own_client, message_id, 2)
        await asyncio.to_thread(own_redis.kill)
        await first.stop()
        assert silent.open == 0


async def test_a_cancel_during_the_hand_over_is_kept(clean_redis_url: str, redis: Redis) -> None:
    silent = ScriptedProvider([*texts("half"), SILENCE])
    async with worker_on(clean_redis_url, silent) as first:
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)
        first.worker.stop()
        await record.cancel(redis, message_id)
        await first.main

    async def cancelled() -> bool:
        found = await record.load(redis, message_id)
        return found is not None and found.status is record.Status.CANCELLED

    async with worker_on(clean_redis_url, silent, name="worker-2"):
        await until(cancelled)
        frames = await until_ended(redis, message_id)
    assert frames[-1].name == "done"
    flag = await cast(Awaitable[bytes], redis.hget(keys.record(message_id), "ended"))
    assert flag == b"cancelled"
