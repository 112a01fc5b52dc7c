"""Worker processes that are killed, paused, told to leave, or left without Redis: exact texts."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from tests.support.in_process import until_ended, until_events
from tests.support.messages import claim, place, post, until
from tests.support.processes import Worker
from tests.support.redis_server import RedisServer

LEASE = 0.6
TEXT = "one worker begins this answer and another one ends it, word by word, to the last one " * 3
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

    async def owner_of(self, redis: Redis, message_id: str) -> Worker:
        """The worker whose claim the message's last one is."""
        found = await record.load(redis, message_id)
        assert found is not None
        assert found.worker is not None
        return next(w for w in self.workers if f"-{w.pid}-" in str(found.worker))


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
    for _ in range(2):
        await crew.hire()
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    (await crew.owner_of(own_client, message_id)).kill()
    frames = await until_ended(own_client, message_id, within=20)
    assert_exact(frames, TEXT, resets=1)
    found = await record.load(own_client, message_id)
    assert found is not None
    assert found.attempt == 2
    assert len(fold(frames).attempts) == 2


async def test_a_worker_paused_past_its_lease_writes_and_completes_nothing_more(
    crew: Crew, own_client: Redis
) -> None:
    for _ in range(2):
        await crew.hire()
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    paused = await crew.owner_of(own_client, message_id)
    paused.pause()
    await until(lambda: has(own_client, message_id, "reset"))
    owner = (await place(own_client, message_id)).owner
    paused.resume()
    written = len(await log.read_all(own_client, message_id))
    await until_events(own_client, message_id, written + 10)
    found = await place(own_client, message_id)
    assert (found.owner, found.indexed) == (owner, True)
    assert await own_client.exists(keys.job(message_id))
    frames = await until_ended(own_client, message_id, within=20)
    assert_exact(frames, TEXT, resets=1)


async def test_a_worker_paused_past_anothers_claim_writes_nothing_before_its_first_event_either(
    crew: Crew, own_client: Redis
) -> None:
    """Nothing in the log tells of the new owner yet: only the claim does."""
    worker = await crew.hire()
    message_id = await post(own_client, TEXT, model=SLOW)
    await until(lambda: running(own_client, 1))
    worker.pause()
    await own_client.zadd(keys.QUEUE, {message_id: 1})
    assert message_id in await queue.lease(
        own_client, token="another", lease_seconds=30, most=1, take_over=True
    )
    await claim(own_client, message_id, "another")
    written = await log.read_all(own_client, message_id)
    worker.resume()
    await until(lambda: running(own_client, 0))
    assert await log.read_all(own_client, message_id) == written
    assert (await place(own_client, message_id)).owner == b"another"


async def running(redis: Redis, messages: int) -> bool:
    """Whether the only worker says that it runs so many."""
    signs = [await redis.get(name) for name in await redis.keys("rejoin:worker:*")]
    return [json.loads(sign)["running"] for sign in signs if sign] == [messages]


async def has(redis: Redis, message_id: str, name: str) -> bool:
    return name in [frame.name for frame in await log.read_all(redis, message_id)]


async def test_a_worker_that_leaves_on_sigterm_waits_out_no_lease(
    crew: Crew, own_client: Redis
) -> None:
    for _ in range(2):
        await crew.hire(REJOIN_LEASE_SECONDS="30")
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    leaving = await crew.owner_of(own_client, message_id)
    assert await asyncio.to_thread(leaving.terminate, 5.0) == 0
    frames = await until_ended(own_client, message_id, within=20)
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
    frames = await until_ended(own_client, message_id, within=20)
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
    await crew.hire(REJOIN_LEASE_SECONDS="10")
    message_id = await post(own_client, TEXT, model=SLOW)
    await until_events(own_client, message_id, 4)
    await asyncio.to_thread(own_redis.restart)
    frames = await until_ended(own_client, message_id, within=20)
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
