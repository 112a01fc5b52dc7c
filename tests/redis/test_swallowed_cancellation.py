"""A worker leaves also where what its tasks wait for swallows a cancellation, as wait_for may.

Python 3.11's wait_for does so where the result is there already (python/cpython issue 86296).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import queue
from tests.support.in_process import RunningWorker, until_ended, worker_on
from tests.support.messages import post

Call = Callable[..., Awaitable[Any]]


class Swallows:
    """Calls on, and turns the first cancellations of its caller into a return."""

    def __init__(self, call: Call, *, most: int, value: object = None) -> None:
        self.swallowed = 0
        self.reached = asyncio.Event()
        self._call = call
        self.most = most
        self._value = value

    async def __call__(self, *args: Any, **how: Any) -> Any:
        self.reached.set()
        try:
            return await self._call(*args, **how)
        except asyncio.CancelledError:
            if self.swallowed >= self.most:
                raise
            self.swallowed += 1
            return self._value


async def slowly(*_args: object, **_how: object) -> None:
    """Wait until cancelled: the worker is stopped here and nowhere else."""
    await asyncio.Event().wait()


async def leaves(worker: RunningWorker, swallows: Swallows) -> None:
    worker.worker.stop()
    done, _ = await asyncio.wait([worker.main], timeout=5)
    swallows.most = 0  # what failed must end all the same
    assert done, "the worker had not left 5 s after it was told to"
    await worker.main


async def test_the_picking_of_jobs_ends_though_every_cancellation_is_swallowed(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under constant load: each wait ends in a token, whatever the moment."""
    wait = Swallows(queue.wait_for_token, most=100, value=True)
    monkeypatch.setattr("rejoin.worker.wake.queue.wait_for_token", wait)
    async with worker_on(clean_redis_url) as worker:
        await until_ended(redis, await post(redis))
        wait.reached.clear()
        async with asyncio.timeout(5):
            await wait.reached.wait()
        await leaves(worker, wait)
    assert wait.swallowed == 1


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.arq_worker._CANCEL_AGAIN_SECONDS", 0.05)
    async with worker_on(clean_redis_url, lease_seconds=0.3) as worker:
        await until_ended(redis, await post(redis))
        beat = Swallows(slowly, most=1)
        monkeypatch.setattr("rejoin.worker.leases.show_life", beat)
        async with asyncio.timeout(5):
            await beat.reached.wait()
        await leaves(worker, beat)
    assert beat.swallowed == 1
