"""Rows: how many chunks one worker process relays, 500 generations at once."""

import asyncio
import time
from typing import Final

from rejoin.shared import queue, turns
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import open_redis
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest, StoredTurn
from tests.bench.child import Child
from tests.bench.machine import cpu_seconds
from tests.bench.plan import Plan, say
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.processes import Stack
from tests.support.redis_server import RedisServer, redis_server

_GENERATIONS: Final = 500
_RATE: Final = 10
_OWED: Final = 5000
_LIFE_SECONDS: Final = 3600
_END_SECONDS: Final = 120.0


def relay(plan: Plan) -> list[Line]:
    """5,000 chunks a second offered, and as many as it can; of the echo, and over HTTP."""
    return [*_rows(plan, "demo", "demo/echo"), *_openai(plan)]


def _openai(plan: Plan) -> list[Line]:
    with Child("simulator") as simulator:
        base_url = f"http://127.0.0.1:{simulator.answer()['port']}/v1"
        return _rows(plan, "openai, over HTTP", "openai/sim", OPENAI_BASE_URL=base_url)


def _rows(plan: Plan, name: str, model: str, **environ: str) -> list[Line]:
    settings = {"REJOIN_MAX_JOBS": str(_GENERATIONS), **environ}
    with redis_server() as redis, rejoin(redis, workers=1, settings=settings) as stack:
        say(f"relay {name}: at a rate")
        paced, core = _paced(redis, stack, plan, model)
        say(f"relay {name}: at once")
        unpaced, at_most = _unpaced(redis, stack, model, plan.count(200, 50))
    return [
        Line(
            f"one worker, {_GENERATIONS} generations at once, {_GENERATIONS * _RATE:,} chunks/s"
            f" offered ({name})",
            f"{paced:,.0f} chunks/s with {core:.0%} of a core"
            f" ({core / paced * 1e6:.0f} µs of the worker a chunk)",
            "",
            "",
            f"≥ {_OWED:,}/s on one core",
            paced >= _OWED * 0.98 and core <= 1,
        ),
        Line(
            f"the same, as fast as it can (rate=0, {_GENERATIONS} generations at once)",
            f"{unpaced:,.0f} chunks/s ({at_most:.0f} µs of the worker a chunk)",
        ),
    ]


def _paced(redis: RedisServer, stack: Stack, plan: Plan, model: str) -> tuple[float, float]:
    """Chunks a second in a window while all of them run, and the share of a core."""
    seconds = plan.pick(8, 2)
    words = round(_RATE * (seconds + 2 * plan.settle_seconds + 1))
    asyncio.run(_queue(redis.url, model, words, _RATE))
    time.sleep(plan.settle_seconds)
    appended, spent, began = _appended(redis), cpu_seconds(stack.worker.pid), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    core = (cpu_seconds(stack.worker.pid) - spent) / took
    relayed = (_appended(redis) - appended) / took
    _until_ended(redis)
    return relayed, core


def _unpaced(redis: RedisServer, stack: Stack, model: str, words: int) -> tuple[float, float]:
    """Chunks a second from the first job to the last one's end, and µs of the worker for each."""
    before, spent, began = _appended(redis), cpu_seconds(stack.worker.pid), time.monotonic()
    asyncio.run(_queue(redis.url, model, words, 0))
    _until_ended(redis)
    took, relayed = time.monotonic() - began, _appended(redis) - before
    return relayed / took, (cpu_seconds(stack.worker.pid) - spent) / relayed * 1e6


async def _queue(redis_url: str, model: str, words: int, rate: int) -> None:
    """Accept messages as the API does, all before the first is queued."""
    redis = open_redis(redis_url, timeout_seconds=30)
    # The echo has its words from the user's turn, the simulator by its name.
    options = f"rate={rate}" if model.startswith("demo/") else f"words={words}&rate={rate}"
    request = StoredRequest(f"{model}?{options}", [StoredTurn("user", "word " * words)])
    ids = [new_message_id() for _ in range(_GENERATIONS)]
    try:
        for message_id in ids:
            indexed_at = await queue.index(redis, message_id, most_due=10_000)
            asked = Record(
                message_id, "local", new_message_id(), request.model, now_ms(), Status.QUEUED, 0,
                None, cancel_asked=False, started_at=None, finished_at=None,
            )  # fmt: skip
            await turns.accept_in_new(
                redis, asked, request, indexed_at=indexed_at, life_seconds=_LIFE_SECONDS
            )
        await asyncio.gather(
            *(queue.enqueue(redis, i, life_seconds=_LIFE_SECONDS, now_ms=now_ms()) for i in ids)
        )
    finally:
        await redis.aclose()


def _appended(redis: RedisServer) -> int:
    with redis.client() as client:
        stats = client.info("commandstats").get("cmdstat_xadd")
    return int(stats["calls"]) if stats else 0


def _until_ended(redis: RedisServer) -> None:
    end = time.monotonic() + _END_SECONDS
    with redis.client() as client:
        while client.zcard("rejoin:open"):
            if time.monotonic() > end:
                raise RuntimeError("the generations did not end in time")
            time.sleep(0.02)
