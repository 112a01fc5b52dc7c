"""Rows: from a POST to the provider's request leaving the worker, idle and with 600 running."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

import redis as redis_py
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from tests.bench.baseline_arq import LATENCIES, STARTED, arq_workers
from tests.bench.child import Child
from tests.bench.plan import Plan, say
from tests.bench.posts import poster, random_seconds, sample_starts, until_running
from tests.bench.samples import Spread, spread
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.redis_server import RedisServer, redis_server

_WORKERS: Final = 3
_MAX_JOBS: Final = 250
_ARQ_PAUSE_SECONDS: Final = 0.05
_WARM: Final = 20
_WAIT_SECONDS: Final = 60.0


def job_start(plan: Plan) -> list[Line]:
    """The median and p99, with three workers of 250 slots each."""
    running = plan.count(600, 150)
    with redis_server() as redis:
        ours = _rejoin(redis, running, plan.count(300, 40), plan.settle_seconds)
    with redis_server() as redis, arq_workers(redis.url, _WORKERS, _MAX_JOBS):
        baseline = asyncio.run(_arq(redis, running, plan.count(80, 15)))
    return [
        Line(
            f"POST to the provider's request, {how}: p50 / p99 (3 workers)",
            str(found),
            f"arq as it comes, enqueue to the job's first line: {beside}",
            "",
            "p50 ≤ 6 ms, p99 ≤ 25 ms",
            found.median_ms <= 6 and found.p99_ms <= 25,
        )
        for how, found, beside in zip(("idle", f"{running} running"), ours, baseline, strict=True)
    ]


def _rejoin(redis: RedisServer, running: int, samples: int, settle_seconds: float) -> list[Spread]:
    with Child("simulator") as simulator:
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{simulator.answer()['port']}/v1",
            "REJOIN_MAX_JOBS": str(_MAX_JOBS),
        }
        with (
            rejoin(redis, workers=_WORKERS, settings=settings) as stack,
            poster(stack.api.port) as post,
        ):
            sample_starts(post, simulator, _WARM)
            say("job start: Rejoin, idle")
            idle = sample_starts(post, simulator, samples)
            for _ in range(running):
                post("openai/sim?words=100000&rate=1")
            until_running(simulator, running)
            time.sleep(settle_seconds)
            say(f"job start: Rejoin, {running} running")
            return [idle, sample_starts(post, simulator, samples)]


async def _arq(redis: RedisServer, running: int, samples: int) -> list[Spread]:
    pool = await create_pool(RedisSettings.from_dsn(redis.url))
    with redis.client() as client:
        try:
            await _sample_arq(pool, client, _WARM)  # the workers start meanwhile
            say("job start: arq, idle")
            idle = await _sample_arq(pool, client, samples)
            for _ in range(running):
                await pool.enqueue_job("hold")
            await _until(lambda: int(client.get(STARTED) or 0) == running)
            say(f"job start: arq, {running} running")
            return [idle, await _sample_arq(pool, client, samples)]
        finally:
            await pool.aclose()


async def _sample_arq(pool: ArqRedis, client: "redis_py.Redis", samples: int) -> Spread:
    client.delete(LATENCIES)
    for _ in range(samples):
        await pool.enqueue_job("start", time.monotonic_ns())
        await asyncio.sleep(random_seconds(_ARQ_PAUSE_SECONDS))
    await _until(lambda: client.llen(LATENCIES) == samples)
    return spread([int(latency) for latency in cast(list[bytes], client.lrange(LATENCIES, 0, -1))])


async def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while not reached():
        if time.monotonic() > end:
            raise RuntimeError("arq did not start its jobs in time")
        await asyncio.sleep(0.1)
