"""Redis goes away just as a leased job starts: the job waits in its slot, and runs."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.fold import fold
from tests.support.in_process import until_ended, worker_on
from tests.support.messages import post, until_true
from tests.support.redis_server import RedisServer

LONG_LEASE = 30.0  # whoever waits it out is too late


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_job_taken_just_before_redis_went_away_runs_once_it_is_back(
    own_redis: RedisServer, own_client: Redis, monkeypatch: pytest.MonkeyPatch, stalls: bool
) -> None:
    """It is not given up until its lease ends, no try is used up, and its slot is free after it."""
    async with worker_on(
        own_redis.url, lease_seconds=LONG_LEASE, max_jobs=1, max_attempts=1
    ) as worker:
        taken, go_on, run_job = asyncio.Event(), asyncio.Event(), worker.worker.run_job
        starts = 0

        async def held_up(job_id: str, score: int) -> None:
            nonlocal starts
            starts += 1
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
            await until_true(lambda: starts > 1 or not worker.worker.tasks, within=20)
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
