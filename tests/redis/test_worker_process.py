"""Worker processes that are killed, paused, told to leave, or left without Redis: exact texts."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from tests.support.in_process import until_ended, until_events
from tests.support.messages import place, post, until
from tests.support.processes import Worker
from tests.support.redis_server import RedisServer

LEASE = 0.6
TEXT = "one worker begins this answer and another one ends it, word by word, to the very last one "
SLOW = "demo/echo?rate=25"


class Crew:
    """The worker processes of one test."""

    def __init__(self, redis: RedisServer, directory: Path) -> None:
        self._redis = redis
        self._directory = directory
        self.workers: list[Worker] = []

    async def hire(self, **settings: str) -> Worker:
        """Start one more worker and wait until it is ready."""
        own = {"REJOIN_LEASE_SECONDS": str(LEASE), "REJOIN_DRAIN_SECONDS": "0"} | settings
        worker = Worker(f"worker-{len(self.workers)}", self._redis, self._directory, own)
        self.workers.append(worker)
        return await asyncio.to_thread(worker.start)


@contextmanager
def crew_on(redis: RedisServer, directory: Path) -> Iterator[Crew]:
    crew = Crew(redis, directory)
    try:
        yield crew
        for worker in crew.workers:
            worker.assert_no_traceback()
    finally:
        for worker in crew.workers:
            worker.kill()


@pytest.fixture
def crew(own_redis: RedisServer, tmp_path: Path) -> Iterator[Crew]:
    with crew_on(own_redis, tmp_path) as made:
        yield made


def assert_exact(frames: list[Frame], text: str, *, resets: int | None = None) -> None:
    """Check ids, the one end, the text, and how often it was begun again."""
    message = fold(frames)
    assert message.text == text
    assert not message.gap
    assert message.end is not None
    assert message.end.fields == {"finish_reason": "stop", "text_chars": len(text)}
    assert sum(frame.name in ("done", "failed") for frame in frames) == 1
    for before, after in itertools.pairwise(frames):
        if after.id.sequence:
            assert after.id == before.id._replace(sequence=before.id.sequence + 1)
        else:
            assert after.id.attempt > before.id.attempt
    if resets is not None:
        assert [frame.name for frame in frames].count("reset") == resets


async def test_a_killed_workers_message_goes_on_as_attempt_two(
    crew: Crew, own_client: Redis
) -> None:
    first = await crew.hire()
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    await crew.hire()
    first.kill()
    frames = await until_ended(own_client, message_id)
    assert_exact(frames, TEXT, resets=1)
    found = await record.load(own_client, message_id)
    assert found is not None
    assert found.attempt == 2
    assert len(fold(frames).attempts) == 2


async def test_a_worker_paused_past_its_lease_writes_and_completes_nothing_more(
    crew: Crew, own_client: Redis
) -> None:
    paused = await crew.hire()
    message_id = await post(own_client, TEXT * 2, model=SLOW)
    await until_events(own_client, message_id, 4)
    await crew.hire()
    paused.pause()
    await until(lambda: has(own_client, message_id, "reset"))
    owner = (await place(own_client, message_id)).owner
    paused.resume()
    written = len(await log.read_all(own_client, message_id))
    await until_events(own_client, message_id, written + 10)
    found = await place(own_client, message_id)
    assert (found.owner, found.indexed) == (owner, True)
    assert await own_client.exists(keys.job(message_id))
    frames = await until_ended(own_client, message_id)
    assert_exact(frames, TEXT * 2, resets=1)


async def has(redis: Redis, message_id: str, name: str) -> bool:
    return name in [frame.name for frame in await log.read_all(redis, message_id)]


async def test_a_worker_that_leaves_on_sigterm_waits_out_no_lease(
    crew: Crew, own_client: Redis
) -> None:
    leaving = await crew.hire(REJOIN_LEASE_SECONDS="30")
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    await crew.hire(REJOIN_LEASE_SECONDS="30")
    assert await asyncio.to_thread(leaving.terminate, 5.0) == 0
    frames = await until_ended(own_client, message_id)
    assert_exact(frames, TEXT, resets=1)
    assert await own_client.keys("rejoin:worker:*") != []


async def test_a_message_that_loses_every_worker_fails_at_last(
    crew: Crew, own_client: Redis
) -> None:
    message_id = await post(own_client, TEXT, model="demo/echo?rate=5")
    for attempt in (1, 2):
        worker = await crew.hire(REJOIN_MAX_ATTEMPTS="2")
        await until(lambda n=attempt: begun(own_client, message_id, n))  # type: ignore[misc]
        worker.kill()
    await crew.hire(REJOIN_MAX_ATTEMPTS="2")
    frames = await until_ended(own_client, message_id)
    assert frames[-1].name == "failed"
    assert b'"attempts_exhausted"' in frames[-1].json
    assert fold(frames).end is not None
    assert await place(own_client, message_id) == (None, None, False)


async def begun(redis: Redis, message_id: str, attempt: int) -> bool:
    frames = await log.read_all(redis, message_id)
    return bool(frames) and frames[-1].id.attempt >= attempt and frames[-1].id.sequence >= 1


async def test_redis_killed_and_back_in_mid_message_costs_no_event(
    crew: Crew, own_redis: RedisServer, own_client: Redis
) -> None:
    await crew.hire(REJOIN_LEASE_SECONDS="2")
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    await asyncio.to_thread(own_redis.restart)
    frames = await until_ended(own_client, message_id)
    assert_exact(frames, TEXT, resets=0)


async def test_redis_back_without_anything_leaves_the_worker_alive(
    crew: Crew, own_redis: RedisServer, own_client: Redis
) -> None:
    worker = await crew.hire()
    lost = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, lost, 4)
    await asyncio.to_thread(forget_everything, own_redis)
    message_id = await post(own_client, "after it", model=SLOW)
    assert_exact(await until_ended(own_client, message_id), "after it", resets=0)
    assert worker.running
    assert await log.read_all(own_client, lost) == []
    assert await record.load(own_client, lost) is None


def forget_everything(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
