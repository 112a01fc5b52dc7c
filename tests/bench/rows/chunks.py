"""Row: from the provider's chunk to the client's socket, and what it costs on the way."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from arq import create_pool
from arq.connections import RedisSettings

from rejoin.shared.ids import new_message_id
from tests.bench.baseline_arq import arq_workers
from tests.bench.child import Child
from tests.bench.machine import cpu_seconds
from tests.bench.plan import Plan, say
from tests.bench.posts import poster, until_running
from tests.bench.samples import Spread
from tests.bench.table import Line
from tests.bench.targets import rejoin, xread_server
from tests.support.redis_server import RedisServer, redis_server

_STREAMS: Final = 200
_RATE: Final = 50
_STEADY: Final = "sim?words=1000000&rate=50"


class _Window(NamedTuple):
    """What was seen in a span of time; `cores` as worker, API, Redis."""

    latency: Spread
    relayed: float  # of what was sent
    cores: list[float]
    chunks: int
    seconds: float

    def __str__(self) -> str:
        worker, api, redis = self.cores
        kept = "" if self.relayed > 0.98 else f", only {self.relayed:.0%} of them relayed"
        return (
            f"{self.latency}{kept}; of a core: worker {worker:.0%}, API {api:.0%},"
            f" Redis {redis:.0%}"
        )


def chunks(plan: Plan) -> list[Line]:
    """200 streams of 50 chunks a second, each with one tail."""
    with redis_server() as redis, Child("simulator") as simulator:
        say("chunks: Rejoin")
        ours = _rejoin(redis, simulator, plan)
    with redis_server() as redis, Child("simulator") as simulator:
        say("chunks: arq and XREAD")
        baseline = _naive(redis, simulator, plan)
    worker_us = ours.cores[0] * ours.seconds / max(1, ours.chunks) * 1e6
    return [
        Line(
            "a provider's chunk to the client's socket, 200 streams of 50 chunks/s, one worker:"
            " p50 / p99",
            f"{ours} (worker {worker_us:.0f} µs a chunk)",
            f"arq, SDK, XADD and XREAD: {baseline}",
            "",
            "p50 ≤ 3 ms, p99 ≤ 10 ms",
            ours.relayed > 0.98 and ours.latency.median_ms <= 3 and ours.latency.p99_ms <= 10,
        )
    ]


def _rejoin(redis: RedisServer, simulator: Child, plan: Plan) -> _Window:
    settings = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{simulator.answer()['port']}/v1",
    }
    with (
        rejoin(redis, workers=1, settings=settings) as stack,
        poster(stack.api.port) as post,
        Child("reader") as reader,
    ):
        ids = [post(f"openai/{_STEADY}") for _ in range(_STREAMS)]
        reader.ask("open", port=stack.api.port, paths=_paths(ids))
        until_running(simulator, _STREAMS)
        pids = [stack.worker.pid, stack.api.pid, redis.pid]
        return _window(reader, simulator, pids, plan)


def _naive(redis: RedisServer, simulator: Child, plan: Plan) -> _Window:
    base_url = f"http://127.0.0.1:{simulator.answer()['port']}/v1"
    with (
        arq_workers(redis.url, 1, _STREAMS + 50, base_url) as workers,
        xread_server(redis) as (port, api_pid),
        Child("reader") as reader,
    ):
        ids = [new_message_id() for _ in range(_STREAMS)]
        asyncio.run(_enqueue(redis, ids))
        reader.ask("open", port=port, paths=_paths(ids))
        until_running(simulator, _STREAMS)
        return _window(reader, simulator, [workers[0].pid, api_pid, redis.pid], plan)


async def _enqueue(redis: RedisServer, ids: Sequence[str]) -> None:
    pool = await create_pool(RedisSettings.from_dsn(redis.url))
    try:
        for message_id in ids:
            await pool.enqueue_job("relay", message_id, _STEADY)
    finally:
        await pool.aclose()


def _window(reader: Child, simulator: Child, pids: Sequence[int], plan: Plan) -> _Window:
    time.sleep(plan.settle_seconds)
    simulator.ask("reset")
    reader.ask("reset")
    before, began = [cpu_seconds(pid) for pid in pids], time.monotonic()
    time.sleep(plan.pick(10, 2))
    report, sent = reader.ask("report"), simulator.ask("report")
    took = time.monotonic() - began
    cores = [(cpu_seconds(pid) - was) / took for pid, was in zip(pids, before, strict=True)]
    arrived = int(str(report["frames"]))
    return _Window(
        Spread(*report["latency"]),  # type: ignore[misc]
        arrived / max(1, int(str(sent["sent"]))),
        cores,
        arrived,
        took,
    )


def _paths(ids: Sequence[str]) -> list[str]:
    return [f"/api/messages/{message_id}/events" for message_id in ids]
